"""Where an engine keeps its runs' directories: `runs` for those whose end has not been told, `ended` for others."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from pumasi.agents.run_directory import RunDirectory
from pumasi.ports.engine import Output
from pumasi.protocol.messages import RunKey

_PRUNE_SECONDS = 3600.0
_DAY_SECONDS = 24 * 3600


class RunStore:
    """The directories of a site's runs below one directory; ended runs are kept for `keep_days`."""

    def __init__(self, directory: Path, fleet: str, keep_days: int) -> None:
        self._fleet = fleet
        self._keep_days = keep_days
        directory = directory.resolve()  # processes are recognised by this path, however it is spelled
        self.runs, self._ended = directory / "runs", directory / "ended"
        for each in (self.runs, self._ended):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._prune()

    def directory(self, run: RunKey) -> RunDirectory:
        """The directory of a run whose end has not been told; it may not exist."""
        return RunDirectory(self.runs / run.tag(self._fleet))

    def all(self) -> Iterator[RunDirectory]:
        """Every directory of a run whose end has not been told."""
        return (RunDirectory(path) for path in sorted(self.runs.iterdir()))

    def is_over(self, run: RunKey) -> bool:
        """True if the run has ended, told or not."""
        return self.directory(run).ending(run) is not None or self._kept(run).path.exists()

    def read_output(self, run: RunKey, stream: str, offset: int, limit: int) -> Output:
        """A piece of what a run wrote."""
        for directory in (self.directory(run), self._kept(run)):
            if directory.path.exists():
                return directory.read_output(stream, offset, limit)
        return Output(complete=True, problem="this site keeps no output of the run")

    def forget(self, run: RunKey) -> None:
        """The run's end has been told: what it wrote stays among the ended runs for a while."""
        directory, kept = self.directory(run), self._kept(run)
        if directory.path.exists() and not kept.path.exists():
            directory.strip()
            directory.path.rename(kept.path)
        if time.monotonic() > self._prune_at:
            self._prune()

    def _kept(self, run: RunKey) -> RunDirectory:
        return RunDirectory(self._ended / run.tag(self._fleet))

    def _prune(self) -> None:
        self._prune_at = time.monotonic() + _PRUNE_SECONDS
        oldest = time.time() - self._keep_days * _DAY_SECONDS
        for path in self._ended.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path, ignore_errors=True)
