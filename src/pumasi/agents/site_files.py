"""The files of a site's operator, in the site's directory: the engine's table and the policy."""

from collections.abc import Mapping
from pathlib import Path

from pumasi.agents.site_policy import Admission, Place, read_policy
from pumasi.agents.slurm.site import FILE_NAME as SLURM_FILE
from pumasi.agents.slurm.site import read_site
from pumasi.model.ids import PoolId

POLICY_FILE = "policy.yaml"


def read_admission(directory: Path) -> Admission | None:
    """The site's policy over its own table; None for a site that has neither.

    A site with a Slurm must have a policy: what nobody has allowed is not run on somebody's cluster.

    :raises PolicyProblem: if the policy is missing or has mistakes.
    :raises SiteProblem: if the table has.
    """
    has_slurm = (directory / SLURM_FILE).exists()
    if not has_slurm and not (directory / POLICY_FILE).exists():
        return None
    return Admission(read_policy(directory / POLICY_FILE), _places(directory) if has_slurm else {})


def _places(directory: Path) -> Mapping[PoolId, Place]:
    pools = read_site(directory / SLURM_FILE).pools
    return {name: Place(pool.partition, pool.account) for name, pool in pools.items()}
