"""What happens in the demo: work comes, an idle owner's GPUs are lent, the owner wants them back and gets them."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from pumasi.client.client import Client
from pumasi.client.errors import Conflict
from pumasi.demo.workload import DemoJob, big_job

Row = dict[str, Any]

LENDER = "hyundai"
LENDER_QUEUE = "hyundai/automotive/driving-models"
BIG_JOB_MS = 45 * 60 * 1000
BIG_JOB_SHARE = 10  # its job asks for nine tenths of what the owner is due in the pool: more than is left idle
LENT_SHARE = 2  # the owner's job comes when half of the pool that most is borrowed from is lent
BATCH_JOBS = 500
TICK_SECONDS = 0.25
LOOK_SECONDS = 1.0
COME_LATEST = 50  # percent of the arrivals after which the owner's job comes, however much is lent
END_SECONDS = 60


class Sight(Struct):
    """What the screen shows: how far things are, and the shares and the owner's job as last looked at."""

    submitted: int = 0
    jobs: int = 0
    waiting: int = 0
    active: int = 0
    owners: list[Row] = []
    lent_gpus: int = 0
    pool: str = ""
    big_gpus: int = 0
    big: Row | None = None
    notices: int = 0
    story: list[str] = []


class DemoFailed(Exception):
    """The custom did not happen; the message says what was awaited."""


class Village:
    """Drives the demo through the public API alone."""

    def __init__(self, client: Client, jobs: list[DemoJob], clock_rate: int) -> None:
        self._client = client
        self._jobs = jobs
        self._clock_rate = clock_rate
        self._began = time.monotonic()
        self._looked = 0.0
        self.sight = Sight(jobs=len(jobs))

    @property
    def seconds(self) -> float:
        """Real seconds since the first job."""
        return time.monotonic() - self._began

    def live(self) -> Iterator[Sight]:
        """Let it happen; yields what is to be seen, until all jobs have come and the owner's has ended.

        :raises DemoFailed: if something that must happen does not.
        """
        self._began = time.monotonic()
        self._tell("work comes to SK, Samsung, Naver and the public sector; Hyundai has none")
        while not self._is_over():
            self._submit_due()
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._look()
            yield self.sight
            time.sleep(TICK_SECONDS)

    def _is_over(self) -> bool:
        done = self.sight.submitted == len(self._jobs)
        return done and self.sight.big is not None and self.sight.big["ended_at"] is not None

    def _submit_due(self) -> None:
        due_ms = self.seconds * 1000 * self._clock_rate
        first = self.sight.submitted
        while self.sight.submitted < len(self._jobs) and self._jobs[self.sight.submitted].after_ms <= due_ms:
            self.sight.submitted += 1
        for start in range(first, self.sight.submitted, BATCH_JOBS):
            self._client.submit([job.body for job in self._jobs[start : min(start + BATCH_JOBS, self.sight.submitted)]])

    def _look(self) -> None:
        self._looked = time.monotonic()
        fleet, shares = self._client.fleet(), self._client.shares()
        sight = self.sight
        sight.waiting, sight.active, sight.owners = fleet["jobs_waiting"], fleet["jobs_active"], shares["owners"]
        lender = next(owner for owner in sight.owners if owner["owner"] == LENDER)
        sight.lent_gpus = lender["total"]["lent"]
        if sight.big is None:
            self._maybe_call_back(lender)
        else:
            self._follow(sight.big["id"])

    def _maybe_call_back(self, lender: Row) -> None:
        pool, book = max(lender["pools"].items(), key=lambda entry: (entry[1]["lent"], entry[0]))
        late = self.sight.submitted * 100 >= len(self._jobs) * COME_LATEST
        if book["lent"] * LENT_SHARE < book["due"] and not late:
            return
        if not book["lent"]:
            raise DemoFailed(f"nobody borrowed from {LENDER}: it was asked for {pool}, which is {book}")
        gpus = book["due"] - book["due"] // BIG_JOB_SHARE
        gpus -= gpus % 72
        body = big_job(LENDER_QUEUE, pool, gpus, BIG_JOB_MS, self._clock_rate)
        self._tell(f"{self.sight.lent_gpus:,} of Hyundai's GPUs are lent, {book['lent']:,} of them in {pool}")
        self.sight.pool, self.sight.big_gpus = pool, gpus
        self.sight.big = self._client.job(self._client.submit(body))
        self._tell(f"Hyundai's own job arrives: {gpus:,} GPUs of its {book['due']:,} in {pool}")

    def _follow(self, big: int) -> None:
        before, now = self.sight.big, self._client.job(big)
        self._tell_of_notices(big)
        if before is not None and before["display_state"] != now["display_state"]:
            self._tell(f"Hyundai's job is {now['display_state']}")
        self.sight.big = now

    def _tell_of_notices(self, big: int) -> None:
        if self.sight.notices:
            return
        for reclaim in self._client.reclaims():
            if reclaim["claimant"] == big:
                self.sight.notices = len(reclaim["victims"])
                self._tell(
                    f"{self.sight.notices} borrowing jobs get notice: {reclaim['evicted_gpus']:,} GPUs come back "
                    f"within {reclaim['promised_seconds']} s of fleet time"
                )

    def _tell(self, sentence: str) -> None:
        self.sight.story.append(f"{self.seconds:5.1f} s  {sentence}")

    # --- the end -----------------------------------------------------------------------------------------------------

    def settle(self) -> list[Row]:
        """Cancel what is left, wait until nothing is live, and return every job.

        :raises DemoFailed: if something is still live after a minute.
        """
        for job in list(self._client.jobs(state=["live"])):
            with contextlib.suppress(Conflict):  # it has ended by itself meanwhile
                self._client.cancel(job["id"])
        deadline = time.monotonic() + END_SECONDS
        while next(self._client.jobs(state=["live"], limit=1), None) is not None:
            if time.monotonic() > deadline:
                raise DemoFailed(f"jobs are still live {END_SECONDS} seconds after they were cancelled")
            time.sleep(TICK_SECONDS)
        return list(self._client.jobs())
