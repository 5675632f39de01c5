"""What Slurm's words mean to us, as tables. A word that is not listed means that nothing is concluded."""

from enum import StrEnum
from typing import NamedTuple

from pumasi.agents.run_directory import ExitRecord
from pumasi.events.facts import NodeState
from pumasi.model.jobs import Outcome, StopCause


class Stage(StrEnum):
    """How far a job of Slurm's has come."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_ENDED = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "NODE_FAIL", "BOOT_FAIL"),
    *("PREEMPTED", "OUT_OF_MEMORY", "REVOKED", "LAUNCH_FAILED"),
)
_STAGES = dict.fromkeys(_WAITING, Stage.WAITING) | dict.fromkeys(_ENDED, Stage.ENDED)


def stage_of(state: str) -> Stage:
    """The stage of a job's state; one we do not know counts as running: it is neither started anew nor given up."""
    return _STAGES.get(state, Stage.RUNNING)


class _Meaning(NamedTuple):
    cause: StopCause | None = None
    outcome: Outcome | None = None
    signal: int = 0
    known: bool = True


# What an end means that left no record of its own, because nothing was left to write one. A job that the site's people
# or its own work ended was drained: it may run elsewhere.
_MEANINGS: dict[str, _Meaning] = {
    "TIMEOUT": _Meaning(StopCause.TIME_LIMIT, signal=9),
    "DEADLINE": _Meaning(StopCause.TIME_LIMIT, signal=9),
    "NODE_FAIL": _Meaning(outcome=Outcome.NODE_FAILED),
    "BOOT_FAIL": _Meaning(outcome=Outcome.NODE_FAILED),
    "PREEMPTED": _Meaning(StopCause.DRAIN, signal=9),
    "CANCELLED": _Meaning(StopCause.DRAIN, signal=9),
    "OUT_OF_MEMORY": _Meaning(signal=9),
}


def unrecorded_end(state: str, stopped_for: StopCause | None) -> ExitRecord:
    """How a run ended that was started and left no record. `state`: Slurm's; "" if Slurm has forgotten it as well."""
    meaning = _MEANINGS.get(state, _Meaning(known=False))
    if stopped_for is not None:  # it was told to stop, and went: that is what it ended for
        return ExitRecord(cause=stopped_for, signal=9, detail=f"ended by Slurm: {state or 'forgotten'}")
    return ExitRecord(
        cause=meaning.cause or "",
        signal=meaning.signal,
        known=meaning.known,
        outcome=meaning.outcome,
        detail=f"Slurm says {state}" if state else "Slurm has no trace of it, and it left no record",
    )


def explained(record: ExitRecord, state: str, stopped_for: StopCause | None) -> ExitRecord:
    """A record that says "Slurm ended it", with the reason Slurm gives; without one, the site wanted it gone."""
    meaning = _MEANINGS.get(state, _Meaning(StopCause.DRAIN)) if stopped_for is None else _Meaning(stopped_for)
    return ExitRecord(
        exit_code=record.exit_code,
        signal=record.signal,
        cause=meaning.cause or "",
        outcome=meaning.outcome,
        detail=f"ended by the site's Slurm: {state or 'no reason given'}",
    )


# The first of these among a node's states decides.
_NODE_STATES: tuple[tuple[str, NodeState], ...] = (
    *((word, NodeState.DOWN) for word in ("DOWN", "ERROR", "FAIL", "NOT_RESPONDING", "INVALID", "INVALID_REG")),
    *((word, NodeState.DOWN) for word in ("POWERED_DOWN", "POWERING_DOWN", "UNKNOWN", "FUTURE")),
    *((word, NodeState.DRAINED) for word in ("DRAIN", "DRAINING", "DRAINED", "MAINTENANCE", "REBOOT_REQUESTED")),
    *((word, NodeState.DRAINED) for word in ("REBOOT_ISSUED", "RESERVED", "PLANNED_DOWN")),
)


def node_state(states: frozenset[str]) -> tuple[NodeState, str]:
    """Whether a node takes work, and Slurm's word for why not."""
    return next(((state, word) for word, state in _NODE_STATES if word in states), (NodeState.UP, ""))
