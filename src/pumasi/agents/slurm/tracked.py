"""What the Slurm engine knows of one live run, and the times after which it concludes something."""

from typing import NamedTuple

from msgspec import Struct

from pumasi.agents.run_directory import ExitRecord, Keeper, RunDirectory
from pumasi.agents.slurm.commands import Submission
from pumasi.agents.slurm.readers import SlurmJob
from pumasi.model.jobs import StopCause
from pumasi.protocol.messages import RunKey

_LOOK_SECONDS = 5.0  # what a look counts for at most, however long ago the last one was


class Patience(NamedTuple):
    """Seconds. `list`: between lists of jobs, if they are cheap. `unsure`: after a submission whose outcome is unknown
    (Slurm's MessageTimeout and 5 s). `forgotten`: a job that Slurm had taken is missing for so long. `record`: a job
    that ran is over, and its record may still be on its way. `silence`: no sign of life from its supervisor. `lost`:
    the same, when Slurm does not know the job either, or
    clears up after it and does not come to an end. `dead`: the same, when Slurm says that it runs. `stray`: a run is
    over, and its job still there. `stop`: beyond a run's time to end. `nodes`: between looks at the nodes. `away`:
    Slurm does not answer.
    """

    list: float = 1.0
    unsure: float = 15.0
    forgotten: float = 6.0
    record: float = 5.0
    silence: float = 20.0
    lost: float = 60.0
    dead: float = 900.0
    stray: float = 10.0
    stop: float = 10.0
    nodes: float = 10.0
    away: float = 60.0


class Tracked(Struct, kw_only=True):
    """One live run. Times are seconds of the engine's clock.

    `keeper`: the supervisor that has claimed it, once it has started. `asked_at`: when it was last submitted, None if
    never; `sure`: Slurm said that it has it. `job`: Slurm's row of it, as last seen. `absent_since`, `over_since`:
    since when Slurm does not list it, or lists it as ended. `beat`: the supervisor's last sign of life;
    `silent_seconds`: for how long there was none, and looked for at `looked_at`. `kill_at`: when whatever is left is
    to be ended by force. `record`: an end that wants to be explained, found at `record_at`.
    """

    run: RunKey
    directory: RunDirectory
    submission: Submission
    queued_at: float
    asked_at: float | None = None
    sure: bool = False
    asks: int = 0
    job: SlurmJob | None = None
    keeper: Keeper | None = None
    absent_since: float | None = None
    over_since: float | None = None
    beat: int = 0
    silent_seconds: float = 0.0
    looked_at: float = 0.0
    cause: StopCause | None = None
    kill_at: float | None = None
    record: ExitRecord | None = None
    record_at: float = 0.0

    @property
    def has_started(self) -> bool:
        """True once a supervisor was found to have claimed it."""
        return self.keeper is not None

    def look_for_keeper(self, now: float) -> bool:
        """True if it has just been found to have started."""
        if self.keeper is None:
            keeper = self.directory.keeper()
            if keeper is not None and keeper.pid:
                self.keeper, self.looked_at = keeper, now
                return True
        return False

    def look_for_life(self, now: float) -> None:
        """Note whether its supervisor has shown life since the last look.

        A file system that was away for an hour, for the supervisor or for us, must not look like an hour of silence:
        only time in which we did look counts.
        """
        passed, self.looked_at = min(now - self.looked_at, _LOOK_SECONDS), now
        try:
            beat = (self.directory.path / "supervisor").stat().st_mtime_ns
        except FileNotFoundError:
            beat = self.beat
        except OSError:
            return
        self.silent_seconds = self.silent_seconds + passed if beat == self.beat else 0.0
        self.beat = beat
