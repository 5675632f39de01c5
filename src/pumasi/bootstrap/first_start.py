"""What a control plane does before it serves people: apply its plan, and let its first administrator in."""

import json
import os
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path

from pumasi.bootstrap.settings import CannotStart, Settings
from pumasi.control.commands import ApplyPlan, IssueToken, RevokeToken
from pumasi.control.refusals import Refusal
from pumasi.control.service import Service
from pumasi.model.access import Token, TokenKind
from pumasi.model.fleet import FleetPlan

KOREA = timezone(timedelta(hours=9))
SETUP_HOURS = 24
ERRORS_SHOWN = 3


async def prepare(settings: Settings, service: Service, url: str, say: Callable[[str], None]) -> None:
    """Apply the plan if one was given, say where the fleet is, and how its first administrator gets in.

    :raises CannotStart: if the plan contradicts the running fleet.
    """
    if settings.plan is not None:
        await _apply(settings.plan, settings, service)
    state = service.plane.state
    gpus = sum(record.declared.whole_gpus for record in state.pools.values())
    say(f"Pumasi serves {state.plan_name or 'an empty fleet'} ({gpus:,} GPUs) at {url}")
    setup = "" if state.principals else await _issue_setup_token(service)
    if setup:
        say("First start: become its administrator with the one-use token")
        say(f"  pumasi --server {url} login --setup {setup}")
    if settings.ready_file is not None:
        _write_private(settings.ready_file, json.dumps({"url": url, "setup": setup, "pid": os.getpid()}))


async def _apply(plan: FleetPlan, settings: Settings, service: Service) -> None:
    as_of = settings.as_of or datetime.now(KOREA).date().isoformat()
    answer = await service.do(ApplyPlan(by="setup", plan=plan, as_of=as_of))
    if isinstance(answer, Refusal):
        raise CannotStart(_contradiction(answer, settings))


def _contradiction(answer: Refusal, settings: Settings) -> str:
    more = "; ".join(f"{error.path}: {error.problem}" for error in answer.errors[1:ERRORS_SHOWN])
    also = f"; {more}" if more else ""
    return f"{answer.detail}{also} ({settings.data} holds that fleet; --data names another place)"


async def _issue_setup_token(service: Service) -> str:
    """A fresh setup token; one that was printed at an earlier start and never used is revoked."""
    for token in list(service.plane.state.tokens.values()):
        if token.kind is TokenKind.SETUP:
            await service.do(RevokeToken(by="setup", digest=token.digest))
    return await issue(service, TokenKind.SETUP, SETUP_HOURS * 3600)


async def issue(service: Service, kind: TokenKind, lives_seconds: int, site: str = "") -> str:
    """Issue a one-use token and return its secret; the log holds only its digest.

    :raises CannotStart: if it is refused.
    """
    secret = f"pumasi_{kind}_{secrets.token_urlsafe(32)}"
    token = Token(
        digest=sha256(secret.encode()).hexdigest(),
        kind=kind,
        site=site,
        expires_at_ms=service.plane.now_ms() + lives_seconds * 1000,
    )
    answer = await service.do(IssueToken(by="setup", token=token))
    if isinstance(answer, Refusal):
        raise CannotStart(answer.detail)
    return secret


def _write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.touch(mode=0o600)
    part.write_text(text, encoding="utf-8")
    part.replace(path)
