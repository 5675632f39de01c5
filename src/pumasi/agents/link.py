"""The agent's calls to the control plane: signed, over HTTP, always outward."""

import ipaddress
import secrets
import time
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from pumasi.agents.identity import Identity
from pumasi.model.ids import SiteId
from pumasi.protocol import signing
from pumasi.protocol.messages import Enrolled, Enrolment, SyncRequest, SyncResponse

T = TypeVar("T")

ENROL_PATH = "/v1/agent/enrol"
SYNC_PATH = "/v1/agent/sync"
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 20.0  # beyond what the server was asked to wait
_SHOWN_CHARACTERS = 300


class LinkTrouble(Exception):
    """The call did not get through, or not back; it may be repeated. The message says why."""


class LinkRefused(Exception):
    """The control plane does not accept this agent. `code`: the problem's stable code, such as `agent-superseded`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class _Problem(msgspec.Struct):
    code: str = ""
    detail: str = ""
    title: str = ""


class Link:
    """Calls for any number of sites over shared connections. Use within one event loop."""

    def __init__(self, server: str) -> None:
        # Proxies of the environment apply, since an agent has to get out of its owner's network; but not to reach a
        # control plane on this very machine. It also says whose certificates are good.
        self._client = httpx2.AsyncClient(
            base_url=server.rstrip("/"),
            trust_env=server.startswith("https:") or not is_loopback(server),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60),
        )

    async def enrol(self, site: SiteId, private_key: str, token: str) -> Enrolled:
        """Trade a one-use token for the right to speak for a site.

        :raises LinkRefused: if the token is not good.
        :raises LinkTrouble: if no answer came.
        """
        message = Enrolment(
            site=site,
            token=token,
            public_key=signing.public_of(private_key),
            proof=signing.sign_enrolment(private_key, site, token),
        )
        raw = await self._post(ENROL_PATH, msgspec.json.encode(message), {}, _ANSWER_SECONDS)
        return _decoded(raw, Enrolled)

    async def sync(self, identity: Identity, request: SyncRequest) -> SyncResponse:
        """Report and hear what is to be done.

        :raises LinkRefused: if the control plane does not believe this agent or its message.
        :raises LinkTrouble: if no answer came.
        """
        body = msgspec.json.encode(request)
        now_seconds, nonce = int(time.time()), secrets.token_urlsafe(16)
        token = signing.sign(
            identity.private_key, identity.site, identity.generation, "POST", SYNC_PATH, body, now_seconds, nonce
        )
        headers = {"Authorization": signing.authorization(token)}
        raw = await self._post(SYNC_PATH, body, headers, request.wait_seconds + _ANSWER_SECONDS)
        return _decoded(raw, SyncResponse)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _post(self, path: str, body: bytes, headers: dict[str, str], answer_seconds: float) -> bytes:
        timeout = httpx2.Timeout(answer_seconds, connect=_CONNECT_SECONDS)
        try:
            response = await self._client.post(
                path, content=body, headers={"Content-Type": "application/json", **headers}, timeout=timeout
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise LinkTrouble(f"{type(error).__name__}: {error}") from error
        if response.is_success:
            return response.content
        problem = _problem(response)
        # 429 and 408 say "later"; other 4xx say that repeating the same thing will not help.
        if 400 <= response.status_code < 500 and response.status_code not in (408, 429):
            raise LinkRefused(problem.code or str(response.status_code), problem.detail or problem.title)
        raise LinkTrouble(f"the control plane answered {response.status_code}: {problem.detail or problem.title}")


def is_loopback(server: str) -> bool:
    """True if a URL names this very machine."""
    try:
        host = urlsplit(server).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(response: httpx2.Response) -> _Problem:
    try:
        return msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Problem(detail=response.text[:_SHOWN_CHARACTERS])


def _decoded(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LinkTrouble(f"the control plane's answer cannot be read: {error}") from error
