"""What a job needs, reduced to what decides where it may sit. Jobs of equal shape share every answer of a cycle."""

from msgspec import Struct
from msgspec.structs import replace

from pumasi.model.ids import PoolId
from pumasi.model.jobs import Level


class Need(Struct, frozen=True):
    """A gang in a pool: `nodes` nodes with `each` GPUs on every one, within one `level` if `required`.

    `segment` > 1: the gang comes in groups of that many nodes, each group within one rack. `spread`: in as many racks
    as can be, rather than in as few. `cpus` and `memory_mib`: what it takes of each node beside the GPUs; 0: the share
    of its GPUs.
    """

    nodes: int
    each: int
    level: Level = Level.POOL
    required: bool = False
    segment: int = 1
    spread: bool = False
    cpus: int = 0
    memory_mib: int = 0

    @property
    def gpus(self) -> int:
        """GPUs of the whole gang."""
        return self.nodes * self.each

    @property
    def with_share(self) -> "Need":
        """The same with the share of its GPUs, which is what a promise holds, however little its job asks for."""
        return replace(self, cpus=0, memory_mib=0) if self.cpus or self.memory_mib else self

    @property
    def widest(self) -> Level:
        """The widest level the gang may spread over."""
        return self.level if self.required else Level.POOL


class Fit(Struct, frozen=True):
    """A pool that may run the job, and what the job needs there.

    `position`: the pool's place in the fleet's order. `rank`: how soon it is to be tried (`preference`), 0 first.
    """

    pool: PoolId
    need: Need
    position: int
    rank: int = 0
