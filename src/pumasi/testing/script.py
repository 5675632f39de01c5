"""Scenario scripts: a transcript of commands and what they print, so that a story of the fleet is a text one can read.

A line at the margin is a command (`#` starts a comment), the indented lines below it are its output. `replay` runs the
commands and returns the transcript as it should be; a test compares, a flag rewrites. Durations are seconds.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from pumasi.control.views.usage import in_gpus
from pumasi.events import facts
from pumasi.events.facts import Event, NodeState
from pumasi.model.fleet import Owner, OwnerKind, Pool, Preemption, Queue, Quota, Site
from pumasi.model.hostlist import compress
from pumasi.model.jobs import Charge, JobState, Level, Outcome, StopCause, Topology
from pumasi.scheduler.eligibility import eligible, never_admissible
from pumasi.scheduler.plan import Plan
from pumasi.testing.builders import HGX, NVL72, fleet_facts, owner, pool, spec
from pumasi.testing.harness import Harness

INDENT = "    "

Options = dict[str, str]


def replay(text: str) -> str:
    """The transcript of running the commands of a script."""
    player = Player()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(INDENT):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [INDENT + output for output in player.run(line)]
    return "\n".join(lines) + "\n"


class Player:
    """Runs the commands of one script."""

    def __init__(self) -> None:
        self._owners: list[Owner] = []
        self._pools: list[Pool] = []
        self._queues: list[Queue] = []
        self._sites: list[Site] = []
        self._harness: Harness | None = None
        self._commands: dict[str, Callable[[list[str], Options], list[str]]] = {
            "owner": self._owner,
            "pool": self._pool,
            "queue": self._queue,
            "submit": self._submit,
            "tick": self._tick,
            "wait": self._wait,
            "end": self._end,
            "cancel": self._cancel,
            "node": self._node,
            "lend": self._lend,
            "power": self._power,
            "link": self._link,
            "why": self._why,
            "show": self._show,
            "ask": self._ask,
            "reclaims": self._reclaims,
            "usage": self._usage,
        }

    def run(self, line: str) -> list[str]:
        """One command; returns what it prints."""
        name, *words = line.split()
        plain = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        return self._commands[name](plain, options)

    @property
    def harness(self) -> Harness:
        """The fleet, made from the declarations when first needed."""
        if self._harness is None:
            self._harness = Harness(fleet_facts(self._owners, self._pools, self._queues, sites=self._sites))
        return self._harness

    # --- declaring ---------------------------------------------------------------------------------------------------

    def _owner(self, words: list[str], options: Options) -> list[str]:
        self._owners.append(_owner_from(words[0], options))
        return []

    def _lend(self, words: list[str], options: Options) -> list[str]:
        """An owner changes its contract while the fleet runs."""
        declared = _owner_from(words[0], options)
        self.harness.record(facts.OwnerDeclared(at_ms=self.harness.now_ms, owner=declared))
        return []

    def _pool(self, words: list[str], options: Options) -> list[str]:
        model = NVL72 if options.pop("model", "") == NVL72.id else HGX
        in_rack, cut = int(options.pop("nodes_per_rack", "4")), options.pop("cut", "")
        cpus, memory_mib = int(options.pop("cpus", "0")), int(options.pop("memory_mib", "0"))
        if "clears" in options:
            site, cleared = f"{words[0]}-site", tuple(options.pop("clears").split(","))
            self._sites.append(Site(id=site, title=site, operator=next(iter(options)), clearances=cleared))
        entitlements = {name: int(gpus) for name, gpus in options.items()}
        self._pools.append(
            pool(
                words[0], entitlements, model=model, nodes_per_rack=in_rack, cut=cut, cpus=cpus, memory_mib=memory_mib
            )
        )  # fmt: skip
        return []

    def _queue(self, words: list[str], options: Options) -> list[str]:
        weight = int(options.pop("weight", "1"))
        preemption = Preemption.LOWER_PRIORITY if options.pop("preempts", "") == "yes" else Preemption.NEVER
        quotas = {name: _quota(text) for name, text in options.items()}
        self._queues.append(Queue(id=words[0], weight=weight, quotas=quotas, preemption=preemption))
        return []

    # --- happening ---------------------------------------------------------------------------------------------------

    def _power(self, words: list[str], options: Options) -> list[str]:
        """`power POOL KILOWATTS within=SECONDS`: what the pool's site may draw from now on; 0: as its plan says."""
        site = self.harness.state.pools[words[0]].declared.site
        self.harness.set_power(site, int(words[1]), int(options.get("within", "300")))
        return []

    def _link(self, words: list[str], _options: Options) -> list[str]:
        """`link POOL silent|connected`: the agent of the pool's site is out of touch, or back."""
        site = self.harness.state.pools[words[0]].declared.site
        fact = facts.SiteSilent if words[1] == "silent" else facts.SiteConnected
        self.harness.record(fact(at_ms=self.harness.now_ms, site=site))
        return [f"{site} is {self.harness.state.sites[site].link}"]

    def _submit(self, words: list[str], options: Options) -> list[str]:
        times = int(options.pop("times", "1"))
        fields = {name: _FIELDS[name](text) for name, text in options.items()}
        jobs = [self.harness.submit(words[0], int(words[1]), **fields) for _ in range(times)]
        return [f"job {jobs[0]}" if times == 1 else f"jobs {jobs[0]} to {jobs[-1]}"]

    def _tick(self, _words: list[str], _options: Options) -> list[str]:
        return self._told(self.harness.tick())

    def _wait(self, words: list[str], _options: Options) -> list[str]:
        seen = len(self.harness.log)
        self.harness.wait(int(words[0]))
        return [sentence(self.harness, event) for event in self.harness.log[seen:]]

    def _end(self, words: list[str], _options: Options) -> list[str]:
        for job in words:
            self.harness.end(int(job))
        return []

    def _cancel(self, words: list[str], _options: Options) -> list[str]:
        self.harness.cancel(int(words[0]))
        return []

    def _node(self, words: list[str], _options: Options) -> list[str]:
        """`node POOL INDEX up|drained|down`, the index as in node names, from 1."""
        seen = len(self.harness.log)
        self.harness.set_node(words[0], int(words[1]) - 1, NodeState(words[2]))
        return [sentence(self.harness, event) for event in self.harness.log[seen:]]

    # --- looking -----------------------------------------------------------------------------------------------------

    def _why(self, words: list[str], _options: Options) -> list[str]:
        reasons = self.harness.plan.reasons.get(int(words[0]))
        if reasons is None:
            return [f"job {words[0]} does not wait"]
        lines = [f"{reason.code} ({reason.slurm}) {reason.pool}: {reason.detail}" for reason in reasons.reasons]
        lines.append(f"would start: {reasons.would_start}")
        start_ms = self.harness.told_start_ms(int(words[0]))
        return lines if start_ms is None else [*lines, f"about {(start_ms - self.harness.now_ms) // 1000} s from now"]

    def _show(self, words: list[str], _options: Options) -> list[str]:
        """Accounts of a pool, and its nodes' free GPUs rack by rack."""
        books, free = self.harness.state.books[words[0]], self.harness.state.occupancy[words[0]].free
        lines = [
            f"{name}: {account.due} due, {account.home} home, {account.lent} lent, {account.borrowed} borrowed,"
            f" {account.promised} promised"
            for name, account in books.items()
        ]
        counts = [str(mask.bit_count()) for mask in free.masks]
        racks = [counts[first : first + free.nodes_per_rack] for first in range(0, free.nodes, free.nodes_per_rack)]
        return [*lines, "free: " + " | ".join(" ".join(rack) for rack in racks)]

    def _ask(self, words: list[str], options: Options) -> list[str]:
        """Whether a job could ever run, before anybody submits it: where, or why not."""
        asked = spec(words[0], int(words[1]), **{name: _FIELDS[name](text) for name, text in options.items()})
        state, now_ms = self.harness.state, self.harness.now_ms
        verdicts = never_admissible(state, asked, now_ms)
        if verdicts:
            return [f"never: {verdict.code} {verdict.pool}: {verdict.detail}" for verdict in verdicts]
        return ["could run in " + ", ".join(fit.pool for fit in eligible(state, asked, now_ms)[0])]

    def _reclaims(self, _words: list[str], _options: Options) -> list[str]:
        """How the lending contracts were kept."""
        return [
            f"{each.owner} got {each.gpus} GPUs back for job {each.claimant}, {each.evicted_gpus} evicted, in"
            f" {each.took_milliseconds // 1000} s of {each.promised_milliseconds // 1000} s"
            for each in self.harness.ledger.reclaims.settled
        ] or ["none"]

    def _usage(self, _words: list[str], _options: Options) -> list[str]:
        """GPU-seconds by who used whose."""
        sums: Counter[tuple[str, str]] = Counter()
        for key, amount in in_gpus(self.harness.state, self.harness.ledger.statement(self.harness.now_ms)).items():
            sums[key.debit, key.credit] += amount
        return [f"{queue} used {amount // 1000} GPU-seconds of {owner}" for (queue, owner), amount in sums.items()]

    def _told(self, plan: Plan) -> list[str]:
        lines = [sentence(self.harness, event) for event in plan.events]
        waiting = [f"job {job} waits: {reasons.first.code}" for job, reasons in sorted(plan.reasons.items())]
        return lines + waiting or ["nothing"]


def _owner_from(name: str, options: Options) -> Owner:
    fields: dict[str, Any] = {
        f"{key}_seconds": int(options[key]) for key in ("notice", "protected", "teardown") if key in options
    }
    if "refuses" in options:
        fields["refuses_owners"] = tuple(options["refuses"].split(","))
    if "limit" in options:
        pool_id, gpus = options["limit"].split(":")
        fields["lending_limits"] = {pool_id: int(gpus)}
    return owner(name, int(options.get("lends", "0")), OwnerKind(options.get("kind", "commercial")), **fields)


def _quota(text: str) -> Quota:
    """`nominal:8,lending:0,borrowing:4`."""
    parts = {name: int(gpus) for name, gpus in (part.split(":") for part in text.split(","))}
    return Quota(
        nominal=parts.get("nominal", 0), borrowing_limit=parts.get("borrowing"), lending_limit=parts.get("lending")
    )


_FIELDS: dict[str, Callable[[str], Any]] = {
    "topology": lambda text: Topology(level=Level(text), required=True),
    "segment_nodes": int,
    "cpus_per_gpu": int,
    "cpus_per_node": int,
    "host_memory_mib_per_node": int,
    "gpus_per_node": int,
    "slice": str,
    "priority": int,
    "checkpoint_seconds": int,
    "time_limit_seconds": int,
    "may_borrow": lambda text: text == "yes",
    "stays_home": lambda text: text == "yes",
    "sites": lambda text: tuple(text.split(",")),
    "gpu_models": lambda text: tuple(text.split(",")),
    "pools": lambda text: tuple(text.split(",")),
    "data_class": str,
}


_PURPOSES = {StopCause.POWER: ", for want of power", StopCause.CANCEL: ", cancelled"}


def sentence(harness: Harness, event: Event) -> str:
    """A fact in words."""
    match event:
        case facts.AttemptPlaced():
            return f"job {event.job} starts on {compress(event.pool, event.spans)}, on {_whose(event.charges)}"
        case facts.StopOrdered():
            seconds = (event.kill_at_ms - event.at_ms) // 1000
            purpose = f" for job {event.claimant}" if event.claimant else _PURPOSES.get(event.cause, "")
            return f"job {event.job} is told to stop within {seconds} s{purpose}"
        case facts.ReservationMade():
            where, seconds = compress(event.pool, event.spans), (event.due_ms - event.at_ms) // 1000
            return f"job {event.job} reserves {where}, due in {seconds} s"
        case facts.ReservationEnded():
            return f"the reservation of job {event.job} is {event.state}"
        case facts.StartPlanned():
            where, seconds = compress(event.pool, event.spans), (event.start_ms - event.at_ms) // 1000
            return f"job {event.job} is to start on {where}, in {seconds} s at the latest"
        case facts.StartGivenUp():
            return f"the planned start of job {event.job} is given up"
        case facts.AllocationRecharged():
            return f"job {event.job} now counts on {_whose(event.charges)}"
        case facts.AttemptEnded():
            return _ended(harness, event)
        case facts.NodeChanged():
            return f"node {event.node + 1} of {event.pool} is {event.state}"
        case _:
            return type(event).__name__


def _ended(harness: Harness, event: facts.AttemptEnded) -> str:
    again = ", waits again" if event.job_state is JobState.WAITING else ""
    assert event.job_state is not JobState.WAITING or event.job in harness.state.jobs
    how = "completed" if event.outcome is Outcome.COMPLETED else event.outcome.replace("_", " ")
    return f"job {event.job} ends: {how}{again}"


def _whose(charges: tuple[Charge, ...]) -> str:
    return " and ".join(f"{charge.gpus} of {charge.owner}" for charge in charges)
