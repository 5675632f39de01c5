"""Jobs as squeue and sacct show them."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from pumasi.cli.arguments import split_names
from pumasi.cli.durations import format_elapsed
from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import Column, Row, dash
from pumasi.cli.times import format_time, parse_time, seconds_between

# Slurm's short and long state names, as users type them, to the states the API filters by.
STATES_BY_WORD: dict[str, tuple[str, ...]] = {
    "PD": ("waiting", "held"),
    "PENDING": ("waiting", "held"),
    "R": ("active",),
    "RUNNING": ("active",),
    "CF": ("active",),
    "CONFIGURING": ("active",),
    "CG": ("active",),
    "COMPLETING": ("active",),
    "CD": ("succeeded",),
    "COMPLETED": ("succeeded",),
    "F": ("failed",),
    "FAILED": ("failed",),
    "NF": ("failed", "unknown_outcome"),
    "BF": ("failed",),
    "CA": ("cancelled",),
    "CANCELLED": ("cancelled",),
    "PR": ("cancelled",),
    "TO": ("expired",),
    "TIMEOUT": ("expired",),
    "LIVE": ("live",),
    "ENDED": ("ended",),
    "HELD": ("held",),
    "WAITING": ("waiting",),
    "ACTIVE": ("active",),
    "SUCCEEDED": ("succeeded",),
    "EXPIRED": ("expired",),
    "UNKNOWN_OUTCOME": ("unknown_outcome",),
}
# Of these words the API knows only the wider state; the rest is told apart by the row's short state.
SHORT_STATES = {
    **{word: word for word in ("R", "CF", "CG", "NF", "BF", "PR")},
    "RUNNING": "R",
    "CONFIGURING": "CF",
    "COMPLETING": "CG",
}

_STYLES = {
    "R": "green",
    "CF": "cyan",
    "CG": "yellow",
    "F": "red",
    "NF": "red",
    "BF": "red",
    "TO": "red",
    "PR": "yellow",
    "CD": "dim",
}


def short_state(row: Row) -> str:
    """Slurm's two letters for the state."""
    return str(row.get("slurm_state") or "?")


def state_style(row: Row) -> str:
    """The colour of a job's state on a terminal."""
    return _STYLES.get(short_state(row), "")


def elapsed_seconds(row: Row, now: datetime) -> int:
    """How long the job has run by now, or ran."""
    started = parse_time(row.get("started_at"))
    if started is None:
        return 0
    return int(((parse_time(row.get("ended_at")) or now) - started).total_seconds())


def place(row: Row) -> str:
    """The pool it runs or ran in; while it waits, "-"."""
    return dash(row.get("pool"))


def nodes_or_reason(row: Row) -> str:
    """What squeue shows last: where it runs, or in brackets why it does not; and if it gives no sign of life there."""
    if row.get("node_list"):
        return f"{row['node_list']} (silent)" if row.get("silent_since_at") else str(row["node_list"])
    return f"({row['reason']})" if row.get("reason") else ""


def gpu_count(row: Row) -> int | str:
    """How many GPUs; of slices also what kind: `1g.23gb:2`."""
    return f"{row['slice']}:{row['gpus']}" if row.get("slice") else int(row["gpus"])


def charges(row: Row) -> str:
    """Whose GPUs it uses: `samsung:8,public:16`."""
    return ",".join(f"{charge['owner']}:{charge['gpus']}" for charge in row.get("charges") or ()) or "-"


def exit_code(row: Row) -> str:
    """As sacct writes it: `code:signal`."""
    return f"{row.get('exit_code') or 0}:{row.get('signal') or 0}"


def queue_columns(now: datetime) -> list[Column]:
    """The columns of `pumasi queue`; times run by `now`, the fleet's clock."""
    return [
        Column("JOBID", lambda row: int(row["id"])),
        Column("PARTITION", place),
        Column("NAME", lambda row: str(row["name"])),
        Column("USER", lambda row: str(row["user"])),
        Column("QUEUE", lambda row: str(row["queue"]), wide=True),
        Column("ST", short_state, style=state_style),
        Column("STATE", lambda row: str(row.get("display_state") or row["state"]), wide=True),
        Column("TIME", lambda row: format_elapsed(elapsed_seconds(row, now))),
        Column("TIME_LIMIT", lambda row: format_elapsed(int(row.get("time_limit_seconds") or 0)), wide=True),
        Column("SUBMIT_TIME", lambda row: format_time(row.get("submitted_at")), wide=True),
        Column("START_TIME", lambda row: format_time(row.get("started_at")), wide=True),
        Column("SITE", lambda row: dash(row.get("site")), wide=True),
        Column("CHARGED", charges, wide=True),
        Column("NODES", lambda row: dash(row.get("nodes"))),
        Column("GPUS", gpu_count),
        Column("NODELIST(REASON)", nodes_or_reason),
    ]


def ended_columns() -> list[Column]:
    """The columns of `pumasi usage jobs`: those of sacct, with GPUs for CPUs."""
    return [
        Column("JOBID", lambda row: int(row["id"])),
        Column("JOBNAME", lambda row: str(row["name"])),
        Column("PARTITION", place),
        Column("ACCOUNT", lambda row: str(row["queue"])),
        Column("USER", lambda row: str(row["user"]), wide=True),
        Column("ALLOCGPUS", gpu_count),
        Column("STATE", lambda row: str(row["state"]).upper(), style=state_style),
        Column("EXITCODE", exit_code),
        Column("ELAPSED", lambda row: format_elapsed(seconds_between(row.get("started_at"), row.get("ended_at")))),
        Column("START", lambda row: format_time(row.get("started_at")), wide=True),
        Column("END", lambda row: format_time(row.get("ended_at"))),
        Column("NODELIST", lambda row: dash(row.get("node_list")), wide=True),
    ]


def in_places(rows: Iterable[Row], places: frozenset[str]) -> Iterable[Row]:
    """Those at one of the pools or sites named; all of them if none is named."""
    return (row for row in rows if not places or row.get("pool") in places or row.get("site") in places)


def parse_states(text: str) -> list[str]:
    """The state words in a `-t` option, in capitals; `all` stands alone.

    :raises CommandError: for a word that is no state.
    """
    words = [word.upper() for word in split_names(text)]
    unknown = [word for word in words if word != "ALL" and word not in STATES_BY_WORD]
    if unknown:
        known = ", ".join(sorted(STATES_BY_WORD))
        raise CommandError(f"there is no job state {unknown[0]}", ExitCode.USAGE, hint=f"states are: all, {known}")
    return words


def api_states(words: list[str]) -> list[str]:
    """What to ask the API for, to see all jobs in the states named."""
    return sorted({state for word in words for state in STATES_BY_WORD.get(word, ())})


def in_states(rows: Iterable[Row], words: list[str]) -> Iterator[Row]:
    """What the API, which knows fewer states, has let through and was not asked for is left out."""
    exact = {SHORT_STATES[word] for word in words if word in SHORT_STATES}
    whole = {state for word in words if word not in SHORT_STATES for state in STATES_BY_WORD.get(word, ())}
    everything = not exact or "ALL" in words or whole & {"live", "ended"}
    return (row for row in rows if everything or short_state(row) in exact or row["state"] in whole)
