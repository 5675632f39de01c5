"""What Slurm writes is read as it is meant; what is no answer is no news.

The 22.05 texts were recorded from that version, on this project's machine. No later Slurm was at hand: 24.11, 25.05 and
25.11 have the fields and shapes of records that others have published, with our values in them, and 23.02 is written by
hand after its published schema (data_parser v0.0.39).
"""

import json
from typing import Any

import pytest

from pumasi.agents.slurm.readers import (
    Accounted,
    SlurmJob,
    Unreadable,
    read_accounts,
    read_jobs,
    read_nodes,
    read_version,
)
from pumasi.agents.slurm.states import node_state
from pumasi.events.facts import NodeState

META_22_05 = {"Slurm": {"version": {"major": 22, "micro": 8, "minor": 5}, "release": "22.05.8"}}
NODE_22_05 = {
    "name": "alpha0001",
    "state": "mixed",
    "state_flags": ["DRAIN"],
    "reason": "fan",
    "gres": "gpu:b200:8",
    "gres_used": "gpu:b200:0(IDX:N/A)",
    "features": "fast,hall2",
    "partitions": ["gpu", "spare"],
    "cpus": 64,
    "real_memory": 1000000,
    "reason_set_by_user": None,
}
NODE_LATER = NODE_22_05 | {
    "state": ["MIXED", "DRAIN"],
    "features": ["fast", "hall2"],
    "reason_changed_at": {"set": True, "infinite": False, "number": 1795572069},
    "free_mem": {"set": True, "infinite": False, "number": 21768},
    "reason_set_by_user": "root",
}
del NODE_LATER["state_flags"]


NODE_24_11 = NODE_LATER | {
    "boot_time": {"set": True, "infinite": False, "number": 1720820315},
    "energy": {"average_watts": 0, "current_watts": {"set": False, "infinite": False, "number": 0}},
    "active_features": ["fast", "hall2"],
    "gpu_spec": "",
    "gres_drained": "N/A",
    "next_state_after_reboot": ["INVALID"],
    "alloc_idle_cpus": 64,
    "tres_weighted": 0.0,
    "tres": "cpu=64,mem=1000000M,billing=64,gres/gpu=8",
    "version": "24.11.0-0rc1",
}
NODE_25_05 = NODE_24_11 | {"res_cores_per_gpu": 0, "resume_after": {"set": True, "infinite": False, "number": 0}}
NODE_25_11 = NODE_25_05 | {"cert_flags": [], "topology": "", "version": "25.11.0"}
SEEN_25_11 = {
    "meta": {
        "plugin": {"type": "", "name": "", "data_parser": "data_parser/v0.0.44"},
        "command": ["show", "node"],
        "slurm": {"version": {"major": "25", "micro": "0", "minor": "11"}, "release": "25.11.0"},
    },
    "last_update": {"set": True, "infinite": False, "number": 1769557962},
    "errors": [],
    "warnings": [],
}


@pytest.mark.parametrize(
    ("version", "document"),
    [
        ("22.05.8 (recorded)", {"meta": META_22_05, "errors": [], "nodes": [NODE_22_05]}),
        ("23.02 (by hand)", {"meta": {"Slurm": {"release": "23.02.7"}}, "errors": [], "nodes": [NODE_LATER]}),
        ("24.11.0-0rc1 (published)", {"nodes": [NODE_24_11], "meta": {}, "errors": [], "warnings": []}),
        ("25.05, v0.0.42 (published)", {"nodes": [NODE_25_05], "last_update": {"set": True}, "warnings": []}),
        ("25.11.0, v0.0.44 (published)", {"nodes": [NODE_25_11], **SEEN_25_11}),
    ],
)
def test_nodes_mean_the_same_in_every_version(version: str, document: dict[str, Any]) -> None:
    (node,) = read_nodes(json.dumps(document))
    assert (node.name, node.states, node.reason, node.gres) == (
        "alpha0001", frozenset({"MIXED", "DRAIN"}), "fan", "gpu:b200:8",
    )  # fmt: skip
    assert (node.features, node.partitions, node.cpus, node.memory_mib) == (
        ("fast", "hall2"), ("gpu", "spare"), 64, 1000000,
    )  # fmt: skip


def test_a_node_of_25_11_that_is_gone_is_down_and_words_nobody_knows_do_no_harm() -> None:
    gone = NODE_25_11 | {"state": ["DOWN", "DYNAMIC_NORM"], "gres": "", "reason": "Not responding"}
    nodes = read_nodes(json.dumps({"nodes": [gone, NODE_25_11 | {"state": ["IDLE", "DYNAMIC_NORM"]}], **SEEN_25_11}))
    assert [node_state(node.states)[0] for node in nodes] == [NodeState.DOWN, NodeState.UP]


@pytest.mark.parametrize("raw", ["", "x", "[]", "null", "{}", '{"nodes": 3}', '{"nodes": [3]}', '{"nodes": [{}]}'])
def test_what_is_no_list_of_nodes_is_unreadable(raw: str) -> None:
    with pytest.raises(Unreadable):
        read_nodes(raw)


def test_jobs_are_read_with_all_their_names() -> None:
    text = "2|0|RUNNING|1795572069|None|pumasi-x-1-1|pumasi-x-1-1@sejong\n"
    assert read_jobs(text) == [SlurmJob(2, 0, "RUNNING", 1795572069, "None", "pumasi-x-1-1", "pumasi-x-1-1@sejong")]


@pytest.mark.parametrize(
    "row",
    [
        "",
        "2",
        "2|0|RUNNING",
        "x|0|RUNNING|1|None|a|b",
        "2|0|RUNNING|Unknown|None|a|b",
        "²|0|R|1|None|a|b",
        "-2|0|R|1|a|b|c",
    ],
)
def test_a_row_that_is_none_is_passed_over(row: str) -> None:
    good = "7|0|PENDING|5|Resources|a|b|c|d"
    assert read_jobs(f"{row}\n{good}\n{row}") == [SlurmJob(7, 0, "PENDING", 5, "Resources", "a", "b|c|d")]


def test_a_line_separator_of_unicode_makes_no_row() -> None:
    (job,) = read_jobs("7|0|PENDING|5|None|a\u2028b\x0b|c\x85d\n")
    assert (job.name, job.comment) == ("a\u2028b\x0b", "c\x85d")


@pytest.mark.parametrize(
    ("text", "version"),
    [("slurm-wlm 22.05.8", (22, 5)), ("slurm 24.11.1\n", (24, 11)), ("slurm 25.05.0-0rc1", (25, 5))],
)
def test_a_version_is_read(text: str, version: tuple[int, int]) -> None:
    assert read_version(text) == version


def test_no_version_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        read_version("bash: sinfo: not found")


def test_accounts_are_read_and_steps_are_not() -> None:
    text = (
        "12|CANCELLED by 1000|0:15|1795572069|pumasi-x-1-1\n"
        "12.batch|CANCELLED|0:15|1795572069|batch\n"
        "13|FAILED|3:0|Unknown|pumasi-x-1-1\n"
        "14|TIMEOUT|0:0|1795572070|a|b\n"
    )
    assert read_accounts(text) == [
        Accounted(12, "CANCELLED", 0, 15, 1795572069, "pumasi-x-1-1"),
        Accounted(14, "TIMEOUT", 0, 0, 1795572070, "a|b"),
    ]
