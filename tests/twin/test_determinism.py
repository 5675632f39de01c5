"""The same seed gives the same log byte for byte: in other processes, under other hash seeds, on other logs."""

import ast
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from pumasi.adapters.memory_log import MemoryLog
from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.codec import encode
from pumasi.ports.event_log import JobStore
from pumasi.twin.run import simulate
from tests.twin.fleets import drawn_jobs, scenario, village
from tests.twin.test_faults import TERRIBLE

ROOT = Path(__file__).parents[2]


def digest(log: JobStore) -> str:
    """A hash over every byte of every fact."""
    return sha256(b"\n".join(encode(event) for _, event in log.read(0))).hexdigest()


def run(seed: int, log: JobStore) -> str:
    """A run in which everything happens: loans, reclaims, cancels and faults of all kinds."""
    jobs = drawn_jobs(150, ("a", "b"), seed)
    simulate(village({"a": 64, "b": 64}, pools=3), jobs, scenario(seed=seed, faults=TERRIBLE), log=log)
    return digest(log)


def in_another_process(seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-c", f"from tests.twin.test_determinism import *; print(run({seed}, MemoryLog()))"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_one_log_whatever_the_process_and_the_store(tmp_path: Path) -> None:
    here = run(5, MemoryLog())
    assert in_another_process(5, "1") == in_another_process(5, "2") == here
    log = SqliteLog(tmp_path / "log.sqlite")
    assert run(5, log) == here
    log.close()


def test_another_seed_gives_another_log() -> None:
    assert run(5, MemoryLog()) != run(6, MemoryLog())


def bodies(folder: Path) -> dict[str, str]:
    """Every function of three statements or more, without its name and docstring, and where it stands."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if len(body) >= 3:
                    found["".join(ast.dump(statement) for statement in body)] = f"{path}:{node.lineno} {node.name}"
    return found


def test_no_code_of_the_control_plane_exists_twice() -> None:
    source = ROOT / "src" / "pumasi"
    twin = bodies(source / "twin")
    for part in ("scheduler", "state", "ledger", "control"):
        theirs = bodies(source / part)
        assert theirs
        assert not [(theirs[body], twin[body]) for body in theirs.keys() & twin.keys()]


def test_the_twin_plans_and_folds_by_the_control_plane_alone() -> None:
    """No module of the kernel imports the scheduler's plan or the fold; they make a `ControlPlane` and speak to it."""
    kernel = sorted((ROOT / "src" / "pumasi" / "twin").glob("*.py"))
    texts = {path.name: path.read_text(encoding="utf-8") for path in kernel}
    for name, text in texts.items():
        for forbidden in ("pumasi.scheduler.plan", "pumasi.state.fold", "pumasi.state.occupancy"):
            assert forbidden not in text, f"{name} must leave {forbidden} to the control plane"
    assert {name for name, text in texts.items() if "ControlPlane(" in text} == {"run.py", "world.py"}
