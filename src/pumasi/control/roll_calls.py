"""Which runs their sites still know of: a run that none of a site's roll calls names gives no sign of life.

An agent says now and then which runs it has, after it has asked its engine. What is noted here is memory of the moment,
as the time of a site's last call is: it changes no state, it tells people. A site that never calls its roll is an older
agent's, and nothing is concluded from that.
"""

from collections.abc import Iterator

from pumasi.control.mailboxes import active_at
from pumasi.events.facts import LinkState
from pumasi.model.ids import JobId, SiteId
from pumasi.protocol.messages import RunKey
from pumasi.state.fleet_state import FleetState
from pumasi.state.records import Job


class RollCalls:
    """The last roll call of every site. Times are Unix milliseconds of the fleet's clock."""

    def __init__(self) -> None:
        self._called_ms: dict[SiteId, int] = {}
        self._missing_ms: dict[SiteId, dict[RunKey, int]] = {}  # since which roll call a run is not named any more

    def hear(self, state: FleetState, site: SiteId, runs: tuple[RunKey, ...], now_ms: int) -> None:
        """Note what a site names; `state` has its reports already."""
        named, before = set(runs), self._missing_ms.get(site, {})
        live = (RunKey(job.id, job.attempts[-1].number) for job in active_at(state, site))
        self._missing_ms[site] = {run: before.get(run, now_ms) for run in live if run not in named}
        self._called_ms[site] = now_ms

    def silent_since_ms(self, state: FleetState, job: Job, now_ms: int, patience_ms: int) -> int:
        """Since when an active job has given no sign of life, if for longer than `patience_ms`; else 0.

        A site that is out of touch says so itself; its jobs are not silent.
        """
        attempt = job.live
        if attempt is None:
            return 0
        site = state.pools[attempt.pool].declared.site
        called_ms = self._called_ms.get(site)
        if called_ms is None or state.sites[site].link is not LinkState.CONNECTED:
            return 0
        named_ms = self._missing_ms[site].get(RunKey(job.id, attempt.number), called_ms)
        since_ms = max(named_ms, attempt.placed_ms, state.sites[site].since_ms)
        return since_ms if now_ms - since_ms > patience_ms else 0

    def silent(self, state: FleetState, now_ms: int, patience_ms: int) -> Iterator[JobId]:
        """All active jobs that give no sign of life."""
        for site in self._called_ms:
            for job in active_at(state, site):
                if self.silent_since_ms(state, job, now_ms, patience_ms):
                    yield job.id
