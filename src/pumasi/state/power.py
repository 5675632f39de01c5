"""How a site's power divides among its pools."""

from collections.abc import Mapping

from pumasi.model.ids import PoolId


def powered_gpus(cap_watts: int, pools: Mapping[PoolId, tuple[int, int]]) -> dict[PoolId, int]:
    """The GPUs of each pool that power lets run, in proportion to what the pools draw in full.

    `pools`: GPUs in service, and the watts of them all. A cap of 0 is none. Empty if power carries everything.
    """
    total_watts = sum(watts for _, watts in pools.values())
    if not 0 < cap_watts < total_watts:
        return {}
    return {pool: cap_watts * gpus // total_watts for pool, (gpus, watts) in pools.items() if watts}
