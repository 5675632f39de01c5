"""The world around a control plane in the twin: users, sites and a network on simulated time.

The control plane is the real one, spoken to as the live service and the agents speak to it: commands, the cycle, facts
made durable, mail. Everything of one instant is taken together: reports and submissions first, then one cycle if
anything changed, then the orders that come of it. Nothing here decides about GPUs.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pumasi.control.commands import (
    ApplyPlan,
    CancelJob,
    Command,
    EnrolSite,
    HearSite,
    IssueToken,
    ReleaseJob,
    SetPowerCap,
    SubmitJobs,
)
from pumasi.control.plane import ControlPlane
from pumasi.control.refusals import Refusal
from pumasi.events.facts import LinkState
from pumasi.model.access import Token, TokenKind
from pumasi.model.fleet import FleetPlan
from pumasi.model.ids import JobId, SiteId
from pumasi.model.jobs import JobState, Outcome
from pumasi.ports.event_log import JobStore
from pumasi.protocol.messages import RunEnded, RunKey, SyncResponse
from pumasi.state.invariants import violations
from pumasi.state.records import Job
from pumasi.twin.jobs import NEVER, TwinJob
from pumasi.twin.kernel import Kernel, Rank
from pumasi.twin.outcome import JobTable, Refused
from pumasi.twin.scenario import PlanChange, ReservationChange, Scenario, ScenarioChange
from pumasi.twin.site import SimulatedSite, Work

OPERATOR = "twin:operator"
USER = "twin:user"
CANCEL_AGAIN_MS = ORDER_AGAIN_MS = 60_000
RELEASE_MS = 3_600_000
LIVE_CYCLE_MS = 1_000


class CannotSimulate(Exception):
    """The plan, or a change of it, is one that the control plane refuses."""


class World:
    """A control plane, its log and everything that talks to it. `jobs` are in order of submission."""

    def __init__(
        self, kernel: Kernel, scenario: Scenario, jobs: Sequence[TwinJob], log: JobStore, plane: ControlPlane
    ) -> None:
        self.kernel = kernel
        self.scenario = scenario
        self.log = log
        self.plane = plane
        self.is_control_down = False
        self._is_dying = False
        self.sites: dict[SiteId, SimulatedSite] = {}
        self.table = JobTable(plane.state.next_job)
        self.refused: list[Refused] = []
        self.violations: list[str] = []
        self.cycles = 0
        self._jobs = jobs
        self._next_job = 0
        self._changes_to_come = 0
        self._late: list[int] = []  # to be submitted as soon as the control plane is there
        self._unconfirmed: list[tuple[JobId, int]] = []
        self._work: dict[JobId, Work] = {}
        self._noisy: dict[SiteId, SimulatedSite] = {}  # they have something to say
        self._heard: dict[SiteId, SimulatedSite] = {}  # what they said is not yet durable
        self._wants_cycle = False
        self._is_touched = False
        self._not_before_ms = 0  # the next cycle
        self._cycle_is_set_for_ms = NEVER

    # --- the fleet ---------------------------------------------------------------------------------------------------

    def declare(self, plan: FleetPlan, as_of: str) -> None:
        """Apply a plan and connect the sites that are new.

        :raises CannotSimulate: if the control plane refuses it.
        """
        self._order(ApplyPlan(by=OPERATOR, plan=plan, as_of=as_of))
        for site in plan.sites:
            if site.id not in self.sites:
                self._enrol(site.id)
        self.touch()

    def await_changes(self) -> None:
        """Put the changes of the plan and of the sites' power, and what is reserved, on the calendar."""
        self._changes_to_come += len(self.scenario.changes)
        for change in self.scenario.changes:
            self.kernel.at(change.at_ms, Rank.FAULT, self._change, change)

    def _change(self, change: ScenarioChange) -> None:
        if self.is_control_down:  # the operator tries again
            self.kernel.at(self.kernel.time_ms + ORDER_AGAIN_MS, Rank.FAULT, self._change, change)
            return
        self._changes_to_come -= 1
        if isinstance(change, PlanChange):
            self.declare(change.plan, change.as_of)
        elif isinstance(change, ReservationChange):
            self._order(change.command)
            start_ms = change.command.start_ms
            self._await_reservation(start_ms, start_ms + change.command.duration_seconds * 1000)
        else:
            seconds = change.notice_seconds
            self._order(SetPowerCap(by=OPERATOR, site=change.site, kilowatts=change.kilowatts, notice_seconds=seconds))
        self.touch()

    def _await_reservation(self, start_ms: int, end_ms: int) -> None:
        """See to it that a cycle takes place when it begins and when it ends."""
        for at_ms in (start_ms, end_ms):
            self.kernel.at(max(at_ms, self.kernel.time_ms), Rank.USER, self.touch)

    def _enrol(self, site: SiteId) -> None:
        token = Token(digest=f"twin-{site}", kind=TokenKind.ENROL, site=site, expires_at_ms=self.kernel.time_ms + 1)
        self._order(IssueToken(by=OPERATOR, token=token))
        self._order(EnrolSite(by=f"site:{site}", site=site, public_key="twin", used_up=token.digest))
        self.add_site(site)

    def add_site(self, name: SiteId) -> SimulatedSite:
        """Bring a site's agent up, with its call to the control plane held open."""
        site = SimulatedSite(name, self.kernel, self._work.__getitem__, self.wake, self.scenario)
        self.sites[name] = site
        self.plane.listen(name, begins=True)
        return site

    def take_over(self, runtime_ms: Callable[[Job], int]) -> None:
        """Give the world the sites and the work of a control plane that is in the midst of things.

        `runtime_ms`: how long each of its jobs runs in all, as far as anyone knows.
        """
        state = self.plane.state
        handed_over = state.handed_over()
        for name, record in state.sites.items():
            self.add_site(name).is_cut = record.link is not LinkState.CONNECTED
        for job in state.jobs.values():
            work = Work(TwinJob(submit_ms=job.submitted_ms, spec=job.spec, runtime_ms=runtime_ms(job)))
            self._work[job.id] = work
            if job.live is not None and job.live.started_ms and job.id not in handed_over:
                site = self.sites[state.pools[job.live.pool].declared.site]
                site.adopt(RunKey(job.id, job.live.number), job.live, work)
        for reservation in state.advance_reservations.values():
            self._await_reservation(reservation.declared.start_ms, reservation.declared.end_ms)
        for site in self.sites.values():
            if site.is_reachable:
                self.call_again(site)
            else:
                self.hang_up(site)

    def _order(self, command: Command) -> Any:
        answer = self.plane.execute(command)
        if isinstance(answer, Refusal):
            points = "; ".join(f"{error.path}: {error.problem}" for error in answer.errors)
            raise CannotSimulate(f"{answer.detail} {points}".strip())
        return answer

    # --- users -------------------------------------------------------------------------------------------------------

    def await_jobs(self) -> None:
        """Put the next submission on the calendar."""
        if self._next_job < len(self._jobs):
            at_ms = max(self._jobs[self._next_job].submit_ms, self.kernel.time_ms)
            self.kernel.at(at_ms, Rank.ARRIVAL, self._arrive)

    def _arrive(self, _: None) -> None:
        """Everything submitted at this instant, in one call."""
        jobs, first, now_ms = self._jobs, self._next_job, self.kernel.time_ms
        end = first
        while end < len(jobs) and jobs[end].submit_ms <= now_ms:
            end += 1
        self._next_job = end
        self._late += range(first, end)
        if not self.is_control_down:
            self.submit_late()
        self.await_jobs()

    def submit_late(self) -> None:
        """Submit what waits to be submitted."""
        late, self._late = self._late, []
        if late and not self._submit(late) and len(late) > 1:
            for source in late:
                self._submit([source])
        self.touch()

    def _submit(self, sources: list[int]) -> bool:
        specs = tuple([self._jobs[source].spec for source in sources])
        answer = self.plane.execute(SubmitJobs(by=USER, specs=specs))
        if isinstance(answer, Refusal):
            if len(sources) == 1:
                self.refused.append(Refused(sources[0], self.kernel.time_ms, answer.code, answer.detail))
            return False
        self._unconfirmed += zip(answer, sources, strict=True)
        return True

    def _confirm(self) -> None:
        """The submissions of this instant are on disk and their users know the numbers."""
        for number, source in self._unconfirmed:
            self._accepted(number, source)
        self._unconfirmed.clear()

    def _accepted(self, number: JobId, source: int) -> None:
        job, now_ms = self._jobs[source], self.kernel.time_ms
        self.table.submitted(source, job, now_ms)
        self._work[number] = Work(job)
        if job.cancel_after_ms != NEVER:
            self.kernel.at(now_ms + job.cancel_after_ms, Rank.USER, self._cancel, number)
        if job.spec.begin_at_ms > now_ms:
            self.kernel.at(job.spec.begin_at_ms, Rank.USER, self.touch)

    def _cancel(self, number: JobId) -> None:
        """A user who cancels asks again until the job is gone."""
        if not self.is_control_down:
            if number not in self.plane.state.jobs:
                return
            self._order(CancelJob(by=USER, job=number))
            self.touch()
        self.kernel.at(self.kernel.time_ms + CANCEL_AGAIN_MS, Rank.USER, self._cancel, number)

    def _look_after(self, number: JobId) -> None:
        """A user whose job was held for what its nodes did looks into it, and lets it run again."""
        job = self.plane.state.jobs.get(number)
        if job is not None and job.state is JobState.HELD:
            self.kernel.at(self.kernel.time_ms + RELEASE_MS, Rank.USER, self._release, number)

    def _release(self, number: JobId) -> None:
        if self.is_control_down:
            self.kernel.at(self.kernel.time_ms + ORDER_AGAIN_MS, Rank.USER, self._release, number)
        elif number in self.plane.state.jobs:
            self.plane.execute(ReleaseJob(by=USER, job=number))  # refused if it is not held any more
            self.touch()

    @property
    def is_done(self) -> bool:
        """True if every job has been submitted and has ended, and no change of the plan is to come."""
        is_quiet = not (self._changes_to_come or self._late or self.plane.state.jobs)
        return is_quiet and self._next_job == len(self._jobs)

    # --- an instant --------------------------------------------------------------------------------------------------

    def touch(self, _: None = None) -> None:
        """Note that something changed that may need a cycle."""
        self._is_touched = self._wants_cycle = True

    def wake(self, site: SimulatedSite) -> None:
        """A site has something to say; it is heard a network delay later."""
        if not self.scenario.latency_ms:
            self._noisy[site.name] = site
        else:
            self.kernel.at(self.kernel.time_ms + self.scenario.latency_ms, Rank.MESSAGE, self._comes_through, site)

    def _comes_through(self, site: SimulatedSite) -> None:
        self._noisy[site.name] = site

    def settle(self) -> None:
        """Let the control plane take in all there is at this instant, plan if it is time, and give its orders.

        What comes of the orders at the same instant, that runs have started, is taken in but made durable with the
        next commit only: nobody waits for it.
        """
        if self.is_control_down:
            return
        if self._noisy:
            self._hear()
        elif not (self._is_touched or self._is_cycle_due()):
            return
        if self._is_cycle_due():
            self._cycle()
        self._commit()
        if self._wants_cycle:
            self._set_cycle()

    def _hear(self) -> None:
        while self._noisy:
            noisy, self._noisy = self._noisy, {}
            for site in noisy.values():
                if site.is_reachable and site.has_news:
                    self._hear_site(site)

    def _hear_site(self, site: SimulatedSite) -> None:
        reports, news = site.say()
        self._order(HearSite(by=site.by, site=site.name, reports=reports))
        for command in news:
            self._order(command)
        self._heard[site.name] = site
        if news or RunEnded in map(type, reports):
            self._wants_cycle = True
            for report in reports:
                if type(report) is RunEnded and report.outcome is Outcome.NODE_FAILED:
                    self._look_after(report.run.job)

    def _commit(self) -> None:
        """Make everything durable, and let everyone know who waits for it."""
        self._is_touched = False
        if self._is_dying:
            self._die()
            return
        staged = self.plane.take_staged()
        if staged.events:
            self.log.append(staged.events, staged.ended)
        for job in staged.ended:
            self.table.record(job)
            del self._work[job.id]
        if self._unconfirmed:
            self._confirm()
        if self._heard:
            for site in self._heard.values():
                site.was_heard()
            self._heard.clear()
        if staged.events:
            for name in sorted(self.plane.made_durable(staged)):
                self.post(self.sites[name])
        if self._noisy:
            self._hear()

    def post(self, site: SimulatedSite) -> None:
        """Send a site its mail, if it is there to take it."""
        if not site.is_reachable or self.is_control_down:
            return
        response = self.plane.mail(site.name, site.after_seq)
        if self.scenario.latency_ms:
            at_ms = self.kernel.time_ms + self.scenario.latency_ms
            self.kernel.at(at_ms, Rank.MESSAGE, self._arrives_at, (site, response))
        else:
            self._obey(site, response)

    def _arrives_at(self, letter: tuple[SimulatedSite, SyncResponse]) -> None:
        site, response = letter
        if site.is_reachable and response.seq >= site.after_seq:
            self._obey(site, response)

    def _obey(self, site: SimulatedSite, response: SyncResponse) -> None:
        site.obey(response)
        if site.has_news:
            self.wake(site)

    # --- cycles ------------------------------------------------------------------------------------------------------

    def _is_cycle_due(self) -> bool:
        return self._wants_cycle and self.kernel.time_ms >= self._not_before_ms

    def _cycle(self) -> None:
        self._wants_cycle = False
        self._not_before_ms = self.kernel.time_ms + self.scenario.cycle_ms
        reservations = self.plane.state.reservations
        held = set(reservations)
        self.plane.cycle()
        self.cycles += 1
        if not reservations.keys() <= held:  # what is reserved may be free already; the live service looks every second
            after_ms = max(self.scenario.cycle_ms, LIVE_CYCLE_MS)
            self.kernel.at(self.kernel.time_ms + after_ms, Rank.CYCLE, self.touch)
        every = self.scenario.check_every_cycles
        if every and self.cycles % every == 0:
            self.violations += [f"{self.kernel.time_ms}: {each}" for each in violations(self.plane.state)]

    def _set_cycle(self) -> None:
        """See to it that a cycle which is wanted but not yet due takes place."""
        if self._cycle_is_set_for_ms != self._not_before_ms:
            self._cycle_is_set_for_ms = self._not_before_ms
            self.kernel.at(self._not_before_ms, Rank.CYCLE, _nothing)

    # --- what a crash does -------------------------------------------------------------------------------------------

    def lose_control(self) -> None:
        """The control plane will die at its next commit, before it: what it has staged then is gone."""
        self._is_dying = True
        self.touch()

    def _die(self) -> None:
        self._is_dying, self.is_control_down = False, True
        for site in self._heard.values():
            site.was_not_heard()
        self._heard.clear()
        self._late = [source for _, source in self._unconfirmed] + self._late
        self._unconfirmed.clear()

    def recover_control(self) -> None:
        """A new control plane folds the log; the sites call again."""
        self.plane = ControlPlane(self.kernel)
        self.plane.recover(self.log)
        self.is_control_down = False
        for site in self.sites.values():
            if site.is_reachable:
                self.call_again(site)
        self.submit_late()

    def call_again(self, site: SimulatedSite) -> None:
        """A site's agent gets through (again): it holds a call open, says what it has to, and takes its mail."""
        if self.is_control_down:
            return
        self.plane.listen(site.name, begins=True)
        self._order(HearSite(by=site.by, site=site.name))
        self.wake(site)
        self.post(site)
        self.touch()

    def hang_up(self, site: SimulatedSite) -> None:
        """The call of a site's agent breaks off; the control plane will notice its silence."""
        if not self.is_control_down:
            self.plane.listen(site.name, begins=False)
            silent_ms = self.plane.state.policy.link_silent_seconds * 1000 + 1
            self.kernel.at(self.kernel.time_ms + silent_ms, Rank.CYCLE, self.touch)

    def close_books(self) -> None:
        """Make durable what was taken in last, and write down how the jobs stand that have not ended."""
        if not self.is_control_down:
            self._commit()
        for job in self.plane.state.jobs.values():
            self.table.record(job)


def _nothing(_: None) -> None:
    """An instant is all that is needed: `settle` does the rest."""
