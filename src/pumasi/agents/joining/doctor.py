"""Checks whether a site can serve, from the agent's machine: each finding says what to do. Nothing is changed."""

import os
import shutil
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import httpx2

from pumasi.agents.identity import NotEnrolled, load_identity
from pumasi.agents.joining.inventory import Inventory, gpus_of, take_inventory
from pumasi.agents.site_files import read_admission
from pumasi.agents.site_policy import PolicyProblem
from pumasi.agents.slurm.commands import SlurmAway, SlurmCommands
from pumasi.agents.slurm.health import gpu_count
from pumasi.agents.slurm.hostlist import compress
from pumasi.agents.slurm.readers import SlurmNode
from pumasi.agents.slurm.runner import CommandTimedOut, ProcessRunner, Runner
from pumasi.agents.slurm.site import FILE_NAME, SiteProblem, SlurmPool, SlurmSite, read_site
from pumasi.agents.slurm.states import node_state
from pumasi.events.facts import NodeState
from pumasi.model.fleet import SHARD
from pumasi.model.ids import SiteId

_COMMANDS = ("sbatch", "squeue", "sinfo", "scontrol", "scancel")
_SKEW_SECONDS = 60.0  # a request signed further away from the server's clock is refused
_ENOUGH_BYTES = 1 << 30
_ANSWER_SECONDS = 10.0


class Health(StrEnum):
    """What a check came to."""

    GOOD = "good"
    DOUBTFUL = "doubtful"  # it works, with something to know
    BAD = "bad"


class Finding(NamedTuple):
    """One check. `advice`: what to do, where it is not good."""

    health: Health
    what: str
    advice: str = ""


def examine(directory: Path, site: SiteId, server: str) -> Iterator[Finding]:
    """All checks of a site, in the order in which they make sense. `server`: "" leaves the network alone."""
    yield _room(directory)
    try:
        table = read_site(directory / FILE_NAME)
    except SiteProblem as error:
        yield Finding(Health.BAD, str(error), "write the file by `pumasi agent init`, or mend these lines")
    else:
        yield Finding(Health.GOOD, f"{FILE_NAME} has {_pools(table)}")
        yield _shared(directory, table)
        yield from _policy(directory)
        yield from _slurm(table)
    yield _identity(directory, site)
    if server:
        yield _server(server)


def _pools(table: SlurmSite) -> str:
    return f"{len(table.pools)} pool{'s' if len(table.pools) != 1 else ''}: {', '.join(table.pools)}"


def _room(directory: Path) -> Finding:
    try:
        free = shutil.disk_usage(directory).free
        probe = directory / ".doctor"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Finding(Health.BAD, f"{directory}: {error.strerror}", "make the directory, writable by the agent's user")
    shown = f"{directory} is writable, {free >> 30} GiB free"
    if free < _ENOUGH_BYTES:
        return Finding(Health.DOUBTFUL, shown, "make room: journal and output of runs are written there")
    return Finding(Health.GOOD, shown)


def _shared(directory: Path, table: SlurmSite) -> Finding:
    if table.shared_directory:
        return _room(Path(table.shared_directory))
    what = f"all nodes see {directory}, and jobs run as this user: key and policy are theirs to read and to change"
    advice = f"keep --data on this machine's own disk, and name a shared_directory for the runs in {FILE_NAME}"
    return Finding(Health.DOUBTFUL, what, advice)


def _policy(directory: Path) -> Iterator[Finding]:
    try:
        admission = read_admission(directory)
    except PolicyProblem as error:
        yield Finding(Health.BAD, str(error), "mend these lines: without a sound policy the agent does not start")
        return
    uncovered = admission.uncovered() if admission else []
    for problem in uncovered:
        yield Finding(Health.BAD, problem, f"allow it there, or change the pool in {FILE_NAME}: nothing runs in it")
    if not uncovered:
        yield Finding(Health.GOOD, "the site's policy covers every pool of the table")


# --- Slurm -----------------------------------------------------------------------------------------------------------


def _slurm(table: SlurmSite) -> Iterator[Finding]:
    missing = [name for name in _COMMANDS if not os.access(f"{table.commands}/{name}", os.X_OK)]
    if missing:
        what = f"{', '.join(missing)} not found in {table.commands}"
        yield Finding(Health.BAD, what, f"install Slurm's client, or set `commands` in {FILE_NAME}")
        return
    runner = ProcessRunner(table.commands, table.slurm_conf)
    began = time.monotonic()
    commands = SlurmCommands(runner, os.getuid())
    try:
        inventory = take_inventory(runner, os.getuid())
        commands.jobs()
    except SlurmAway as error:
        advice = "start slurmctld and munge, or set `slurm_conf`; `scontrol ping` must say UP for the agent's user"
        yield Finding(Health.BAD, f"Slurm does not answer: {error}", advice)
        return
    took_ms = int((time.monotonic() - began) * 1000)
    yield Finding(Health.GOOD, f"{inventory.version} answers ({took_ms} ms for jobs, nodes and settings)")
    yield from _settings(table, inventory)
    if table.accounting:
        yield _accounting(commands)
    for pool in table.pools.values():
        yield from _pool(pool, inventory, runner)


def _settings(table: SlurmSite, inventory: Inventory) -> Iterator[Finding]:
    if table.kill_wait_seconds != inventory.kill_wait_seconds:
        what = f"kill_wait_seconds is {table.kill_wait_seconds}, Slurm's KillWait {inventory.kill_wait_seconds} s"
        yield Finding(Health.DOUBTFUL, what, f"set kill_wait_seconds: {inventory.kill_wait_seconds} in {FILE_NAME}")
    if os.getuid() == 0:
        advice = "run the agent as a user of its own: its jobs run as that user"
        yield Finding(Health.DOUBTFUL, "this is root, and so would be every job", advice)
    if not inventory.has_accounting:
        advice = "none needed; with slurmdbd the ends of jobs stay known for longer"
        yield Finding(Health.DOUBTFUL, "no slurmdbd: what Slurm purges is known from our own records alone", advice)


def _accounting(commands: SlurmCommands) -> Finding:
    try:
        commands.accounts("pumasi-doctor")
    except SlurmAway as error:
        advice = f"start slurmdbd, or say `accounting: no` in {FILE_NAME}"
        return Finding(Health.DOUBTFUL, f"slurmdbd does not answer: {error}", advice)
    return Finding(Health.GOOD, "slurmdbd answers")


def _pool(pool: SlurmPool, inventory: Inventory, runner: Runner) -> Iterator[Finding]:
    nodes = {node.name: node for node in inventory.nodes}
    unknown = [name for name in pool.nodes if name not in nodes]
    if unknown:
        advice = f"mend `nodes` of {pool.id} in {FILE_NAME}; `sinfo -N` lists what there is"
        yield Finding(Health.BAD, f"{pool.id}: Slurm has no {compress(unknown)}", advice)
        return
    ours = [nodes[name] for name in pool.nodes]
    wrong = list(_unlike(pool, ours))
    yield from wrong
    yield from _ailing(pool, ours)
    if not wrong:
        yield _would_start(pool, runner)


def _unlike(pool: SlurmPool, nodes: list[SlurmNode]) -> Iterator[Finding]:
    outside = [node.name for node in nodes if pool.partition not in node.partitions]
    if outside:
        what = f"{pool.id}: {compress(outside)} not in partition {pool.partition}"
        yield Finding(Health.BAD, what, f"set the right `partition`, or take them out of {pool.id} in {FILE_NAME}")
    few = [node.name for node in nodes if not _has(pool, node)]
    if few:
        what = f"{pool.id}: {compress(few)} without Gres={pool.gres}:{pool.gpus_per_node}"
        yield Finding(Health.BAD, what, f"set gpus_per_node and gres_type as `scontrol show node {few[0]}` shows them")


def _has(pool: SlurmPool, node: SlurmNode) -> bool:
    if pool.gres_type == SHARD:
        return gpu_count(node.gres, SHARD) >= pool.gpus_per_node
    return any(gpus.count >= pool.gpus_per_node and pool.gres_type in ("", gpus.type) for gpus in gpus_of(node.gres))


def _ailing(pool: SlurmPool, nodes: list[SlurmNode]) -> Iterator[Finding]:
    for node in nodes:
        state, word = node_state(node.states)
        if state is not NodeState.UP:
            advice = f"the fleet counts it out; when it is well: scontrol update nodename={node.name} state=resume"
            yield Finding(Health.DOUBTFUL, f"{pool.id}: {node.name} is {word}: {node.reason or 'no reason'}", advice)


def _would_start(pool: SlurmPool, runner: Runner) -> Finding:
    """Ask Slurm whether it would take a job of ours there. Uses up a job id; nothing runs."""
    gres = f"--gres={pool.gres}:1"
    arguments = ["--test-only", "--no-requeue", f"--partition={pool.partition}", f"--nodelist={pool.nodes[0]}"]
    arguments += ["--nodes=1", "--time=1", gres, *([f"--account={pool.account}"] if pool.account else [])]
    try:
        answer = runner.run("sbatch", arguments, _ANSWER_SECONDS, "#!/bin/sh\n")
    except (CommandTimedOut, OSError) as error:
        return Finding(Health.BAD, f"{pool.id}: {error}", "see slurmctld's log")
    said = " ".join(answer.errors.split())
    if answer.code:
        return Finding(Health.BAD, f"{pool.id}: Slurm takes no job: {said}", "let the agent's user submit there")
    return Finding(Health.GOOD, f"{pool.id}: {len(pool.nodes)} nodes; Slurm takes jobs there")


# --- the fleet -------------------------------------------------------------------------------------------------------


def _identity(directory: Path, site: SiteId) -> Finding:
    try:
        identity = load_identity(directory, site)
    except NotEnrolled as error:
        advice = f"an operator issues the token: pumasi token issue --kind enrol --site {site}"
        return Finding(Health.BAD, str(error), advice)
    return Finding(Health.GOOD, f"enrolled in fleet {identity.fleet} (generation {identity.generation})")


def _server(server: str) -> Finding:
    try:
        response = httpx2.get(f"{server}/healthz", timeout=_ANSWER_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Finding(Health.BAD, f"{server} does not answer: {error}", "outgoing HTTPS to it must be allowed")
    if response.status_code != 200:
        return Finding(Health.BAD, f"{server} answers {response.status_code}", "is this the control plane's address?")
    skew = _skew_seconds(response.headers.get("date", ""))
    if skew > _SKEW_SECONDS:
        return Finding(Health.BAD, f"this clock and the server's differ by {skew:.0f} s", "set both by NTP")
    return Finding(Health.GOOD, f"{server} answers")


def _skew_seconds(date: str) -> float:
    try:
        return abs(parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return 0.0
