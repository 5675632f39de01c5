"""What breaks, when, and for how long: GPUs, lemon nodes, switches, racks, sites' links, agents, the control plane.

Every kind draws from a stream of its own for every pool or site. Times between faults are exponential at the rates of
the scenario; a fault takes whole nodes, because a node with a failed GPU is taken out of service.
"""

from random import Random

from pumasi.control.commands import SetNodeState
from pumasi.events.facts import NodeState
from pumasi.model.fleet import Pool, Stage
from pumasi.model.ids import PoolId, SiteId
from pumasi.twin.kernel import Action, Rank
from pumasi.twin.scenario import HOUR_MS
from pumasi.twin.site import SimulatedSite
from pumasi.twin.streams import stream
from pumasi.twin.world import World

DAY_MS = 24 * HOUR_MS
YEAR_MS = 365 * DAY_MS
REBOOT_MINUTES = (10, 30)
SWAP_DAYS = (1, 10)
SWITCH_NODES = (8, 64)
CUT_MINUTES = (5, 720)  # a cut lasts about an hour, log-normal within these bounds
CUT_LOG_MEAN, CUT_LOG_DEVIATION = 4.1, 1.2  # of the minutes' natural logarithm
MONITOR = "twin:monitor"


class Faults:
    """The faults of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kernel = world.kernel
        self._rates = world.scenario.faults
        self._seed = world.scenario.seed
        self._repaired_ms: dict[tuple[PoolId, int], int] = {}
        self._lemons: dict[PoolId, list[int]] = {}

    def begin(self) -> None:
        """Put the first fault of every kind on the calendar."""
        rates, seed = self._rates, self._seed
        for pool in self._world.plane.state.pools:
            if rates.gpu_mtbf_hours:
                self._lemons[pool] = self._choose(pool, "lemons", rates.lemon_per_mille)
                self._again(self._gpu_fails, (pool, stream(seed, "gpu", pool)), self._gpu_mean_ms(pool))
            if rates.black_hole_per_mille:
                chosen = self._choose(pool, "black holes", rates.black_hole_per_mille)
                self._world.sites[self._pool(pool).site].black_holes |= {(pool, node) for node in chosen}
            if rates.rack_years:
                self._again(self._rack_fails, (pool, stream(seed, "rack", pool)), self._rack_mean_ms(pool))
        for site in self._world.sites:
            if rates.partitions_per_site_year:
                chance = stream(seed, "cut", site)
                self._again(self._is_cut, (site, chance), YEAR_MS // rates.partitions_per_site_year)
            if rates.agent_crash_days:
                self._again(self._agent_crashes, (site, stream(seed, "agent", site)), rates.agent_crash_days * DAY_MS)
        if rates.control_crash_days:
            self._again(self._control_crashes, ("", stream(seed, "control")), rates.control_crash_days * DAY_MS)

    def _again(self, action: Action, who: tuple[str, Random], mean_ms: int) -> None:
        in_ms = max(1, round(who[1].expovariate(1) * mean_ms))
        self._kernel.at(self._kernel.time_ms + in_ms, Rank.FAULT, action, who)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _pool(self, pool: PoolId) -> Pool:
        return self._world.plane.state.pools[pool].declared

    def _choose(self, pool: PoolId, what: str, per_mille: int) -> list[int]:
        nodes = self._pool(pool).nodes
        return stream(self._seed, what, pool).sample(range(nodes), nodes * per_mille // 1000)

    def _weight(self, pool: PoolId) -> int:
        """Nodes of the pool, lemons counted as often as they fail."""
        return self._pool(pool).nodes + len(self._lemons[pool]) * (self._rates.lemon_factor - 1)

    def _gpu_mean_ms(self, pool: PoolId) -> int:
        declared = self._pool(pool)
        gpus = self._weight(pool) * declared.gpus_per_node // declared.slices_per_gpu
        return self._rates.gpu_mtbf_hours * HOUR_MS // gpus

    def _rack_mean_ms(self, pool: PoolId) -> int:
        declared = self._pool(pool)
        return self._rates.rack_years * YEAR_MS // -(-declared.nodes // declared.nodes_per_rack)

    def _gpu_fails(self, who: tuple[PoolId, Random]) -> None:
        pool, chance = who
        nodes, lemons = self._pool(pool).nodes, self._lemons[pool]
        drawn = chance.randrange(self._weight(pool))
        node = drawn if drawn < nodes else lemons[(drawn - nodes) % len(lemons)]
        if chance.randrange(100) < self._rates.switch_percent:
            width = chance.randint(*SWITCH_NODES)
            first = node // width * width
            self._lose(pool, range(first, min(nodes, first + width)), "switch", chance)
        else:
            self._lose(pool, range(node, node + 1), "gpu", chance)
        self._again(self._gpu_fails, who, self._gpu_mean_ms(pool))

    def _rack_fails(self, who: tuple[PoolId, Random]) -> None:
        pool, chance = who
        declared = self._pool(pool)
        racks = -(-declared.nodes // declared.nodes_per_rack)
        first = chance.randrange(racks) * declared.nodes_per_rack
        self._lose(pool, range(first, min(declared.nodes, first + declared.nodes_per_rack)), "rack", chance)
        self._again(self._rack_fails, who, self._rack_mean_ms(pool))

    def _lose(self, pool: PoolId, nodes: range, what: str, chance: Random) -> None:
        repaired_ms = self._kernel.time_ms + self._repair_ms(chance)
        if self._world.plane.state.pools[pool].stage is not Stage.IN_SERVICE:
            return
        for node in nodes:
            self._repaired_ms[pool, node] = max(repaired_ms, self._repaired_ms.get((pool, node), 0))
        site = self._world.sites[self._pool(pool).site]
        site.lose_nodes(pool, nodes, f"{what} failed")
        self._tell(site, pool, nodes, NodeState.DOWN, f"{what} failed")
        self._kernel.at(repaired_ms, Rank.FAULT, self._repair, (site, pool, nodes))

    def _repair_ms(self, chance: Random) -> int:
        if chance.randrange(100) < self._rates.reboot_percent:
            return chance.randint(*REBOOT_MINUTES) * 60_000
        return chance.randint(SWAP_DAYS[0] * 24, SWAP_DAYS[1] * 24) * HOUR_MS

    def _repair(self, what: tuple[SimulatedSite, PoolId, range]) -> None:
        site, pool, nodes = what
        now_ms = self._kernel.time_ms
        ready = [node for node in nodes if self._repaired_ms.get((pool, node), now_ms + 1) <= now_ms]
        for node in ready:
            del self._repaired_ms[pool, node]
        self._tell(site, pool, ready, NodeState.UP, "")

    def _tell(self, site: SimulatedSite, pool: PoolId, nodes: range | list[int], state: NodeState, why: str) -> None:
        if nodes:
            site.node_news.append(SetNodeState(by=MONITOR, pool=pool, nodes=tuple(nodes), state=state, reason=why))
            self._world.wake(site)

    # --- links, agents, the control plane ----------------------------------------------------------------------------

    def _is_cut(self, who: tuple[SiteId, Random]) -> None:
        site, chance = self._world.sites[who[0]], who[1]
        minutes = min(max(chance.lognormvariate(CUT_LOG_MEAN, CUT_LOG_DEVIATION), CUT_MINUTES[0]), CUT_MINUTES[1])
        if not site.is_cut:
            self._change(site, is_cut=True, is_down=site.is_down)
            self._kernel.at(self._kernel.time_ms + round(minutes * 60_000), Rank.FAULT, self._heals, site)
        self._again(self._is_cut, who, YEAR_MS // self._rates.partitions_per_site_year)

    def _heals(self, site: SimulatedSite) -> None:
        self._change(site, is_cut=False, is_down=site.is_down)

    def _agent_crashes(self, who: tuple[SiteId, Random]) -> None:
        site = self._world.sites[who[0]]
        if not site.is_down:
            self._change(site, is_cut=site.is_cut, is_down=True)
            self._kernel.at(self._kernel.time_ms + self._restart_ms, Rank.FAULT, self._restarts, site)
        self._again(self._agent_crashes, who, self._rates.agent_crash_days * DAY_MS)

    def _restarts(self, site: SimulatedSite) -> None:
        self._change(site, is_cut=site.is_cut, is_down=False)

    def _change(self, site: SimulatedSite, *, is_cut: bool, is_down: bool) -> None:
        was_reachable = site.is_reachable
        if is_down and not site.is_down:
            site.crash()
        site.is_cut, site.is_down = is_cut, is_down
        if was_reachable and not site.is_reachable:
            self._world.hang_up(site)
        elif site.is_reachable and not was_reachable:
            self._world.call_again(site)

    def _control_crashes(self, who: tuple[str, Random]) -> None:
        if not self._world.is_control_down:
            self._world.lose_control()
            self._kernel.at(self._kernel.time_ms + self._restart_ms, Rank.FAULT, self._control_is_back)
        self._again(self._control_crashes, who, self._rates.control_crash_days * DAY_MS)

    def _control_is_back(self, _: None) -> None:
        self._world.recover_control()

    @property
    def _restart_ms(self) -> int:
        return self._rates.restart_seconds * 1000
