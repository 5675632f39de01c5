"""The control plane: one synchronous object that folds facts, answers commands and runs the cycle.

Live and in the twin alike. It does no I/O of its own but through its log: facts are applied in memory at once and
staged; whoever drives it makes them durable and only then answers the caller or wakes an agent (see ADR 0005).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import MsgspecError, Struct, field

from pumasi.control import (
    commands,
    job_commands,
    people_commands,
    plan_command,
    reservation_commands,
    reservation_times,
    site_commands,
)
from pumasi.control.decisions import Answer
from pumasi.control.mailboxes import Mailboxes
from pumasi.control.quarantine import quarantines
from pumasi.control.refusals import Refusal
from pumasi.control.roll_calls import RollCalls
from pumasi.events.facts import (
    AttemptPlaced,
    Event,
    JobSubmitted,
    LinkState,
    SiteSilent,
)
from pumasi.ledger import ledger as ledgers
from pumasi.ledger.ledger import Ledger
from pumasi.model.ids import SiteId
from pumasi.ports.clock import Clock
from pumasi.ports.event_log import EventLog, Snapshot
from pumasi.protocol.messages import RunKey, SyncResponse
from pumasi.scheduler.explain import WhyWaiting
from pumasi.scheduler.planner import Planner
from pumasi.scheduler.shares import Shares
from pumasi.state import snapshot as snapshots
from pumasi.state.branch import branch
from pumasi.state.fleet_state import FleetState
from pumasi.state.fold import apply, submitted
from pumasi.state.records import Job

_HANDLERS: dict[type, Callable[[FleetState, Any, int], Answer]] = {
    commands.CancelJob: job_commands.cancel,
    commands.HoldJob: job_commands.hold,
    commands.ReleaseJob: job_commands.release,
    commands.SetNodeState: site_commands.set_node_state,
    commands.SetPowerCap: site_commands.set_power_cap,
    commands.MakeReservation: reservation_commands.make,
    commands.DeleteReservation: reservation_commands.delete,
    commands.ApplyPlan: plan_command.apply_plan,
    commands.DeclarePrincipal: people_commands.declare_principal,
    commands.IssueToken: people_commands.issue_token,
    commands.RevokeToken: people_commands.revoke_token,
    commands.EnrolSite: site_commands.enrol,
    commands.HearSite: site_commands.hear,
}

_HEARD = (commands.HearSite, commands.EnrolSite)


class Staged(Struct):
    """Facts applied but not yet durable, and the jobs they ended. `first_seq`: the number of the first."""

    first_seq: int
    events: list[Event] = field(default_factory=list)
    ended: list[Job] = field(default_factory=list)

    @property
    def last_seq(self) -> int:
        """The number of the last fact."""
        return self.first_seq + len(self.events) - 1


class ControlPlane:
    """State, ledger and reasons, kept up to date; read them freely, change them only by `execute` and `cycle`.

    `clock_rate`: how much faster than real time the clock runs. Agents call in real time, so patience with them is
    stretched by it.
    """

    def __init__(self, clock: Clock, clock_rate: int = 1) -> None:
        self.clock = clock
        self.clock_rate = clock_rate
        self.state = FleetState()
        self.ledger = Ledger()
        self._planner = Planner(self.state)
        self._shares = Shares(self.state)
        self._why: tuple[int, WhyWaiting] | None = None  # as the state was at that seq
        self.durable_seq = 0
        self._staged = Staged(1)
        self._heard_ms: dict[SiteId, int] = {}
        self._listening: Counter[SiteId] = Counter()
        self._mailboxes = Mailboxes(0)
        self._roll_calls = RollCalls()
        self._in_flight: list[Staged] = []  # taken to be written, and not yet known to be on disk
        self._nobody_silent_before_ms = 0
        self._judgements = job_commands.Judgements()
        self._planning_ms: int | None = None  # the time a plan is being made for; meanwhile the state stands still
        self._unfolded: list[Event] = []  # submissions taken meanwhile

    # --- starting ----------------------------------------------------------------------------------------------------

    def recover(self, log: EventLog) -> None:
        """Fold the newest snapshot and all facts after it. Sites get the usual time to be heard from again."""
        saved = log.load_snapshot()
        if saved is not None:
            # A snapshot of another version may be unreadable: the facts alone make the same state, only more slowly.
            with suppress(MsgspecError):
                self.state, self.ledger = snapshots.load(saved.parts["state"]), ledgers.load(saved.parts["ledger"])
        for _, event in log.read(self.state.seq):
            apply(self.state, event)
            self.ledger.apply(event)
        self._begin_after(self.state.seq)
        self._planner.look_ahead()

    def branch(self, clock: Clock) -> "ControlPlane":
        """A control plane that starts with this one's state and goes its own way on a clock of its own: a what-if.

        Everything staged is taken along. No site of this one is the branch's: it hears from whoever calls it.
        """
        assert self._planning_ms is None, "the state stands still while a plan is made from it"
        twin = ControlPlane(clock)
        twin.state = branch(self.state)
        twin.ledger = self.ledger.branch()
        twin._begin_after(self.state.seq)
        return twin

    def _begin_after(self, seq: int) -> None:
        """Go on after the fact of this number. Sites get the usual time to be heard from again."""
        self._planner = Planner(self.state)
        self._shares = Shares(self.state)
        self.durable_seq = seq
        self._staged = Staged(seq + 1)
        self._mailboxes = Mailboxes(seq)
        self._heard_ms = dict.fromkeys(self.state.sites, self.clock.now_ms())

    def snapshot(self) -> Snapshot:
        """The present state as bytes. Call it only when nothing is staged."""
        assert not self._staged.events and self._planning_ms is None, (
            "a snapshot must not hold facts that the log does not"
        )
        parts = {"state": snapshots.save(self.state), "ledger": ledgers.save(self.ledger)}
        return Snapshot(self.state.seq, parts)

    # --- commands and the cycle --------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The fleet's time; never before the last fact. It stands still while a plan is made."""
        return max(self.clock.now_ms(), self.state.at_ms) if self._planning_ms is None else self._planning_ms

    @property
    def reasons(self) -> WhyWaiting:
        """Why each waiting job waits as things stand now; jobs that no cycle has looked at yet are missing."""
        if self._why is None or self._why[0] != self.state.seq:
            self._why = (self.state.seq, self._planner.why_waiting(self.now_ms()))
        return self._why[1]

    @property
    def shares(self) -> Shares:
        """The fair share of every queue as things stand now."""
        self._shares.refresh(self.now_ms())
        return self._shares

    @property
    def seq(self) -> int:
        """The number of the last fact, be it folded, on disk, or neither yet."""
        return self.state.seq + len(self._unfolded)

    def newest_jobs(self) -> list[Job]:
        """Jobs submitted since the state stands still, in order of their numbers: it does not hold them yet."""
        return [submitted(event) for event in self._unfolded if isinstance(event, JobSubmitted)]

    def must_wait(self, command: commands.Command) -> bool:
        """True if a plan is being made and the command would change what it is made from."""
        if self._planning_ms is None:
            return False
        return not isinstance(command, commands.SubmitJobs) or (bool(command.request) and self._is_repeat(command))

    def _is_repeat(self, command: commands.SubmitJobs) -> bool:
        request = job_commands.request_name(command)
        return any(isinstance(event, JobSubmitted) and event.request == request for event in self._unfolded)

    def execute(self, command: commands.Command) -> Any:
        """Carry out a command for which `must_wait` is false.

        :returns: its result, which may be told once `durable_seq` has reached the present `seq`; or a `Refusal`, after
            which nothing has changed.
        """
        assert self._planning_ms is None or not self.must_wait(command), "the state stands still while a plan is made"
        now_ms = self.now_ms()
        if type(command) is commands.SubmitJobs:
            first_job = self.state.next_job + len(self._unfolded)
            answer = job_commands.submit(self.state, command, now_ms, first_job, self._judgements)
        else:
            if isinstance(command, _HEARD):
                self._heard_ms[command.site] = now_ms
            answer = _HANDLERS[type(command)](self.state, command, now_ms)
        if isinstance(answer, Refusal):
            return answer
        self._stage(answer.events)
        if isinstance(command, commands.HearSite) and command.runs is not None:
            self._roll_calls.hear(self.state, command.site, command.runs, now_ms)
        return answer.result

    def silent_since_ms(self, job: Job) -> int:
        """Since when an active job has given no sign of life (Unix milliseconds), if for too long; else 0."""
        return self._roll_calls.silent_since_ms(self.state, job, self.now_ms(), self._run_patience_ms)

    @property
    def silent_jobs(self) -> int:
        """How many active jobs give no sign of life."""
        return sum(1 for _ in self._roll_calls.silent(self.state, self.now_ms(), self._run_patience_ms))

    @property
    def _run_patience_ms(self) -> int:
        return self.state.policy.run_silent_seconds * 1000 * self.clock_rate

    def cycle(self) -> int:
        """Look for silent sites, plan, and stage what the plan says; returns how many facts that made."""
        return self.end_cycle(self.begin_cycle()())

    def begin_cycle(self) -> Callable[[], Sequence[Event]]:
        """Let the state stand still, and return the work of planning, which may be done in another thread."""
        now_ms = self.now_ms()
        if now_ms >= self._nobody_silent_before_ms:
            self._stage(self._silent_sites(now_ms))
        if self.state.changes.struck:
            self._stage(tuple(quarantines(self.state, now_ms)))
            self.state.changes.struck.clear()
        for record in reservation_times.in_turn(self.state) if self.state.advance_reservations else ():
            self._stage(reservation_times.due(self.state, record, now_ms))
        self._planning_ms = now_ms
        return partial(self._planner.next_events, now_ms) if self._may_plan_anything() else tuple

    def _may_plan_anything(self) -> bool:
        """False if a plan made now is surely empty: nothing waits, is held for a job, is lent, or is short of power."""
        state = self.state
        return bool(state.waiting_jobs or state.reservations or state.powered) or any(state.guests.values())

    def end_cycle(self, made: Sequence[Event]) -> int:
        """Fold what was submitted meanwhile, and stage what the plan says; returns how many facts that made."""
        self._planning_ms = None
        if self._unfolded:
            unfolded, self._unfolded = self._unfolded, []
            self._fold(unfolded)
        if made:
            self._stage(made)
        return len(made)

    def _silent_sites(self, now_ms: int) -> list[Event]:
        patience_ms = self.state.policy.link_silent_seconds * 1000 * self.clock_rate
        silent: list[Event] = []
        next_ms = now_ms  # whoever is silent next was last heard then, or now, or will be heard later than now
        for site, record in self.state.sites.items():
            if record.link is LinkState.CONNECTED and not self._listening[site]:
                heard_ms = self._heard_ms.get(site, 0)
                if now_ms - heard_ms > patience_ms:
                    silent.append(SiteSilent(at_ms=now_ms, by="control", site=site))
                else:
                    next_ms = min(next_ms, heard_ms)
        self._nobody_silent_before_ms = next_ms + patience_ms
        return silent

    def _stage(self, events: Sequence[Event]) -> None:
        self._staged.events += events
        if self._planning_ms is None:
            self._fold(events)
        else:
            self._unfolded += events

    def _fold(self, events: Sequence[Event]) -> None:
        state, enter_in_books, declarations = self.state, self.ledger.apply, self.state.changes.declarations
        for event in events:
            ended = apply(state, event)
            enter_in_books(event)
            if ended is not None:
                self._staged.ended.append(ended)
        if state.changes.declarations != declarations:
            self._judgements = job_commands.Judgements()
            self._nobody_silent_before_ms = 0

    def listen(self, site: SiteId, *, begins: bool) -> None:
        """Note that a call of the site's agent is held open, or no longer is: meanwhile the site is not silent."""
        self._listening[site] += 1 if begins else -1
        self._heard_ms[site] = self.now_ms()

    # --- durability and mail -----------------------------------------------------------------------------------------

    def take_staged(self) -> Staged:
        """The facts to make durable now; the next ones gather behind them."""
        staged, self._staged = self._staged, Staged(self.seq + 1)
        if staged.events:
            self._in_flight.append(staged)
        return staged

    def made_durable(self, staged: Staged) -> set[SiteId]:
        """Note that staged facts are on disk; returns the sites that have mail because of them."""
        if staged.events:
            self._in_flight.remove(staged)
        self.durable_seq = max(self.durable_seq, staged.last_seq)
        return self._mailboxes.post(self.state, staged.first_seq, staged.events)

    def _undurable(self) -> set[RunKey]:
        """Placements no site may hear of yet."""
        staged = [event for group in (*self._in_flight, self._staged) for event in group.events]
        return {RunKey(event.job, event.attempt) for event in staged if isinstance(event, AttemptPlaced)}

    def has_mail(self, site: SiteId, after_seq: int) -> bool:
        """True if the site's agent has something to do that it has not been told."""
        return self._mailboxes.has_news(site, after_seq)

    def mail(self, site: SiteId, after_seq: int) -> SyncResponse:
        """What the site's agent is to do. Only what is durable is ever ordered."""
        return self._mailboxes.collect(self.state, site, after_seq, self.now_ms(), self._undurable)

    def flush(self, log: EventLog) -> set[SiteId]:
        """Make everything staged durable, here and now (the twin and tests; the live service does it in groups)."""
        staged = self.take_staged()
        if staged.events:
            log.append(staged.events, staged.ended)
        return self.made_durable(staged)
