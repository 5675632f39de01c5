"""`Client`: what a program can ask of the control plane."""

import base64
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias, overload
from urllib.parse import quote

import msgspec

from pumasi.client.config import find_connection
from pumasi.client.errors import TimedOut, Unreachable
from pumasi.client.transport import Transport
from pumasi.model.jobs import TERMINAL_STATES, JobSpec

Row: TypeAlias = dict[str, Any]  # a JSON object as the API gives it; see docs/reference/api.md
Spec: TypeAlias = JobSpec | Mapping[str, Any]

PAGE_ROWS = 500
LOG_BYTES = 256 * 1024
LOG_WAIT_SECONDS = 20
WAIT_PAUSE_SECONDS_MAX = 2.0
ENDED_STATES = frozenset(state.value for state in TERMINAL_STATES)


class FleetEvent(NamedTuple):
    """A fact of the log: its sequence number, its type and its fields."""

    seq: int
    type: str
    data: Row


class Client:
    """The control plane at `server`, as the holder of `token`.

    What is not given is taken from `PUMASI_SERVER`, `PUMASI_TOKEN` and what `pumasi login` stored. Calls raise
    `pumasi.client.errors.PumasiError` of the kind that fits. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        transport: Any = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.connection = find_connection(server, token)
        self._sleep = sleep
        self._http = Transport(self.connection, timeout_seconds=timeout_seconds, transport=transport, sleep=sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- jobs --------------------------------------------------------------------------------------------------------

    @overload
    def submit(self, specs: Spec, *, held: bool = ..., key: str | None = ...) -> int: ...
    @overload
    def submit(self, specs: Sequence[Spec], *, held: bool = ..., key: str | None = ...) -> list[int]: ...

    def submit(self, specs: Spec | Sequence[Spec], *, held: bool = False, key: str | None = None) -> int | list[int]:
        """Submit a job, or many at once (all or none), and return the number, or the numbers in order.

        `key`: idempotency key. The same key with the same jobs gives the same numbers, also after a lost answer; by
        default each call has a fresh one.
        """
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        if isinstance(specs, JobSpec | Mapping):
            answer = self._http.call("POST", "/v1/jobs", body=_job_body(specs, held), headers=headers)
            return int(answer["id"])
        body = {"jobs": [_job_body(spec, held) for spec in specs]}
        answer = self._http.call("POST", "/v1/jobs/batch", body=body, headers=headers)
        return [int(job) for job in answer["jobs"]]

    def check(self, spec: Spec) -> Row:
        """A dry run: where the job could run, pool by pool. Nothing is submitted."""
        return self._object("POST", "/v1/jobs/check", body=_job_body(spec, False))

    def jobs(self, **filters: Any) -> Iterator[Row]:
        """Jobs, page by page: filters `state` (one or a list), `queue`, `user`, `site`, and `limit` in all."""
        return self.pages("/v1/jobs", **filters)

    def job(self, job: int) -> Row:
        """All there is to know of a job."""
        return self._object("GET", f"/v1/jobs/{job}")

    def wait(self, job: int, timeout_seconds: float | None = None) -> Row:
        """Wait until the job has ended and return it.

        :raises TimedOut: if it has not after `timeout_seconds`.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = 0.1
        while True:
            found = self.job(job)
            if found["state"] in ENDED_STATES:
                return found
            if deadline is not None and time.monotonic() + pause > deadline:
                raise TimedOut(f"job {job} is still {found['state']}", code="timed-out")
            self._sleep(pause)
            pause = min(pause * 1.5, WAIT_PAUSE_SECONDS_MAX)

    def cancel(self, job: int) -> None:
        """Cancel a job: at once if it waits; if it runs, it is told to stop."""
        self._http.call("POST", f"/v1/jobs/{job}/cancel")

    def hold(self, job: int) -> None:
        """Keep a waiting job from starting."""
        self._http.call("POST", f"/v1/jobs/{job}/hold")

    def release(self, job: int) -> None:
        """Let a held job wait for its turn again."""
        self._http.call("POST", f"/v1/jobs/{job}/release")

    def why(self, job: int) -> Row:
        """Why the job waits: ordered reasons, what would change them, an estimate of its start."""
        return self._object("GET", f"/v1/jobs/{job}/reasons")

    def logs(self, job: int, *, stream: str = "stdout", follow: bool = False, offset: int = 0) -> Iterator[bytes]:
        """What the job wrote to `stream` from byte `offset`. `follow`: go on until the job has ended."""
        while True:
            chunk = self._log_chunk(job, stream, offset, LOG_WAIT_SECONDS if follow else 0)
            data = base64.b64decode(chunk["data"])
            offset = int(chunk["next_offset"])
            if data:
                yield data
            elif not follow or chunk["complete"]:
                return
            else:
                self._sleep(0.2)  # a server that answers at once is not asked in a busy loop

    def accounts(self, job: int) -> list[Row]:
        """What the site's own accounting has of the job's last attempt and its steps, in the site's own words."""
        text = b"".join(self.logs(job, stream="accounts")).decode(errors="replace")
        names, *rows = [line.split("|") for line in text.splitlines()] or [[]]
        return [dict(zip(names, row, strict=False)) for row in rows]

    def _log_chunk(self, job: int, stream: str, offset: int, wait_seconds: int) -> Row:
        parameters = {"stream": stream, "offset": offset, "limit": LOG_BYTES, "wait_seconds": wait_seconds}
        path = f"/v1/jobs/{job}/logs"
        return self._object("GET", path, parameters=parameters, timeout_seconds=wait_seconds + 30)

    # --- the fleet ---------------------------------------------------------------------------------------------------

    def fleet(self) -> Row:
        """The fleet at a glance."""
        return self._object("GET", "/v1/fleet")

    def pools(self) -> list[Row]:
        """Every pool, with its owners' books and node states."""
        return list(self.pages("/v1/pools"))

    def nodes(self, **filters: Any) -> Iterator[Row]:
        """Nodes; filters `pool` and `state`."""
        return self.pages("/v1/nodes", **filters)

    def drain(self, node: str, reason: str) -> None:
        """Let a node finish its work and take no more."""
        self._http.call("POST", f"/v1/nodes/{_part(node)}/drain", body={"reason": reason})

    def resume(self, node: str) -> None:
        """Put a drained node back to work."""
        self._http.call("POST", f"/v1/nodes/{_part(node)}/resume")

    def sites(self) -> Iterator[Row]:
        """Sites: their links, pools and power."""
        return self.pages("/v1/sites")

    def power(self, site: str, kilowatts: int, notice_seconds: int = 300) -> Row:
        """Let a site draw at most so many kilowatts (0: what its plan says); the site as it is then."""
        body = {"kilowatts": kilowatts, "notice_seconds": notice_seconds}
        return self._object("PUT", f"/v1/sites/{_part(site)}/power", body=body)

    def reservations(self) -> Iterator[Row]:
        """Reservations made in advance that have not ended."""
        return self.pages("/v1/reservations")

    def reservation(self, name: str) -> Row:
        """A reservation."""
        return self._object("GET", f"/v1/reservations/{_part(name)}")

    def reserve(self, **fields: Any) -> Row:
        """Reserve whole nodes for a span of time. Fields as in the API: `name`, `purpose`, `pool`, and so on."""
        return self._object("POST", "/v1/reservations", body={name: value for name, value in fields.items() if value})

    def delete_reservation(self, name: str) -> None:
        """Cancel a reservation, or end it now."""
        self._http.call("DELETE", f"/v1/reservations/{_part(name)}")

    def rules(self) -> Row:
        """The placement rules, as `GET /v1/rules` gives them."""
        return self._object("GET", "/v1/rules")

    def shares(self) -> Row:
        """Per owner: entitled, due, home, lent, borrowed, idle, credit; and the loans."""
        return self._object("GET", "/v1/shares")

    def queues(self) -> Iterator[Row]:
        """Queues one may read: quotas, what each uses, and the fair share it is due."""
        return self.pages("/v1/queues")

    def usage(self, **parameters: Any) -> Row:
        """GPU-milliseconds from the ledger: rows and their total. Parameters as in the API: `from`, `until`, `by`."""
        return self._object("GET", "/v1/usage", parameters=parameters)

    def reclaims(self, **filters: Any) -> Iterator[Row]:
        """Reclaims: what was promised and how long it took."""
        return self.pages("/v1/reclaims", **filters)

    def apply_plan(self, plan: Mapping[str, Any], *, as_of: str = "", dry_run: bool = False) -> Row:
        """Apply a fleet plan (the JSON shape of `model.fleet.FleetPlan`); `dry_run`: only say what it would change."""
        parameters = {"as_of": as_of, "dry_run": "1" if dry_run else ""}
        return self._object("PUT", "/v1/fleet/plan", parameters=parameters, body=plan)

    def events(self, after: int | None = None) -> Iterator[FleetEvent]:
        """Facts after sequence number `after` (None: from now on), for ever; a broken connection is resumed."""
        failures = 0
        while True:
            try:
                for event in self._events_once(after):
                    after, failures = event.seq, 0
                    yield event
            except (Unreachable, TimedOut):
                failures += 1
                if failures > 5:
                    raise
            self._sleep(min(0.2 * 2**failures, 5.0))

    def _events_once(self, after: int | None) -> Iterator[FleetEvent]:
        headers = {"Accept": "text/event-stream"}
        path = "/v1/events"
        if after is not None:
            headers["Last-Event-ID"] = str(after)
            path += f"?after={after}"
        with self._http.stream(path, headers) as received:
            for event in received:
                if event.data and event.id.isdigit():
                    yield FleetEvent(int(event.id), event.event, msgspec.json.decode(event.data))

    # --- access ------------------------------------------------------------------------------------------------------

    def setup(self, token: str, principal: str, title: str = "") -> Row:
        """First start: use the setup token up and become the first fleet admin. Returns `principal` and `token`."""
        body = {"token": token, "principal": principal, "title": title}
        return self._object("POST", "/v1/setup", body=body)

    def whoami(self) -> Row:
        """Who the token stands for, what it may do, and the fleet's clock."""
        return self._object("GET", "/v1/whoami")

    def principals(self) -> Iterator[Row]:
        """People and services."""
        return self.pages("/v1/principals")

    def declare_principal(self, principal: str, title: str, bindings: Sequence[Mapping[str, str]]) -> Row:
        """Declare a person or service with its role bindings (`role`, `scope`)."""
        body = {"id": principal, "title": title, "bindings": list(bindings)}
        return self._object("POST", "/v1/principals", body=body)

    def tokens(self) -> Iterator[Row]:
        """Tokens, without their secrets."""
        return self.pages("/v1/tokens")

    def issue_token(self, **fields: Any) -> Row:
        """Issue a token; the answer holds its secret, once."""
        return self._object("POST", "/v1/tokens", body={name: value for name, value in fields.items() if value})

    def revoke_token(self, token: str) -> None:
        """Revoke a token by its id."""
        self._http.call("DELETE", f"/v1/tokens/{_part(token)}")

    # --- shared ------------------------------------------------------------------------------------------------------

    def pages(self, path: str, limit: int | None = None, **filters: Any) -> Iterator[Row]:
        """The items of a list, page by page; at most `limit` of them."""
        cursor = None
        left = limit
        while left is None or left > 0:
            rows = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
            page = self._object("GET", path, parameters={**filters, "limit": rows, "cursor": cursor})
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _object(self, method: str, path: str, **arguments: Any) -> Row:
        answer = self._http.call(method, path, **arguments)
        return answer if isinstance(answer, dict) else {}


def _part(name: str) -> str:
    """A name as one part of a path, whatever is in it."""
    return quote(name, safe="", errors="replace")


def _job_body(spec: Spec, held: bool) -> Row:
    body = msgspec.to_builtins(spec) if isinstance(spec, JobSpec) else dict(spec)
    if held:
        body["held"] = True
    return body
