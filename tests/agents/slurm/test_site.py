"""The table of a site's Slurm: read whole, or refused with every mistake and its line."""

from pathlib import Path

import pytest

from pumasi.agents.slurm.site import SiteProblem, read_site

GOOD = """\
slurm_conf: /etc/slurm/slurm.conf
shared_directory: /shared/pumasi
kill_wait_seconds: 45
pools:
  sejong-b200:
    partition: gpu
    nodes: sejong[0001-0004]
    gpus_per_node: 8
    gres_type: b200
    account: federation
  sejong-h200:
    partition: old
    nodes: h[1-2],x9
    gpus_per_node: 4
"""


def read(tmp_path: Path, text: str) -> str:
    path = tmp_path / "slurm.yaml"
    path.write_text(text)
    with pytest.raises(SiteProblem) as problem:
        read_site(path)
    return str(problem.value)


def test_a_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "slurm.yaml").write_text(GOOD)
    site = read_site(tmp_path / "slurm.yaml")
    pool = site.pools["sejong-b200"]
    assert (pool.nodes[0], pool.nodes[-1], pool.account, pool.gres_type) == (
        "sejong0001",
        "sejong0004",
        "federation",
        "b200",
    )
    assert (site.kill_wait_seconds, site.commands, site.queue_seconds) == (45, "/usr/bin", 600)
    assert site.pools["sejong-h200"].nodes == ("h1", "h2", "x9")


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("partition: gpu", "partition: --uid=0", 6, "is no name of Slurm's"),
        ("partition: gpu", 'partition: "gpu,$(id)"', 6, "is no name of Slurm's"),
        ("account: federation", "account: a b", 10, "is no name of Slurm's"),
        ("nodes: sejong[0001-0004]", "nodes: sejong[0001-", 7, "no list"),
        ("nodes: sejong[0001-0004]", "nodes: sejong[1-2],sejong1", 7, "twice"),
        ("nodes: sejong[0001-0004]", "nodes: -x", 7, "no node's name"),
        ("nodes: h[1-2],x9", "nodes: sejong[0002-0003]", 4, "is in sejong-b200 and in sejong-h200"),
        ("gpus_per_node: 4", "gpus_per_node: 0", 14, "gpus_per_node"),
        ("/shared/pumasi", "shared", 2, "absolute"),
        ("account: federation", "acount: federation", 10, "acount"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    problem = read(tmp_path, GOOD.replace(old, new))
    assert problem.startswith(f"slurm.yaml:{line}:") and says in problem


def test_a_table_without_pools_is_refused(tmp_path: Path) -> None:
    assert "at least one pool" in read(tmp_path, "commands: /usr/bin\n")


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteProblem, match="No such file"):
        read_site(tmp_path / "slurm.yaml")
