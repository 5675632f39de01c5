"""`info`, `shares`, `usage`, `reclaims`, `drain`, `resume`, `watch`, `events`."""

import json
from typing import Any

import pytest

from pumasi.cli.arguments import expand_nodes
from pumasi.cli.errors import CommandError
from tests.cli.conftest import RunCommand
from tests.cli.contract_server import POOL, Answer, ContractServer, page, problem

HOUR = 3_600_000


def _book(owner: str, **gpus: int) -> dict[str, Any]:
    names = ("entitled", "due", "home", "lent", "promised", "borrowed", "idle")
    return {"owner": owner, **dict.fromkeys(names, 0), **gpus}


def _owner(owner: str, **gpus: int) -> dict[str, Any]:
    return {
        "owner": owner,
        "title": owner.upper(),
        "kind": "commercial",
        "total": _book(owner, **gpus),
        "pools": {"sejong-b200": _book(owner, **gpus)},
        "credit_gpu_milliseconds": 5 * HOUR,
        "reclaim_window_seconds": 900,
        "lendable_percent": 50,
    }


SHARES = {
    "owners": [_owner("naver", entitled=16, due=16, lent=8, idle=8), _owner("public", entitled=16, due=16, borrowed=8)],
    "loans": [{"lender": "naver", "borrower": "public", "pool": "sejong-b200", "gpus": 8}],
}


def _usage(*rows: tuple[dict[str, str], int, int]) -> Answer:
    def row(by: dict[str, str], home: int, borrowed: int) -> dict[str, Any]:
        return {
            "by": by,
            "gpu_milliseconds": home + borrowed,
            "home_gpu_milliseconds": home,
            "borrowed_gpu_milliseconds": borrowed,
        }

    total = row({}, sum(home for _, home, _ in rows), sum(borrowed for _, _, borrowed in rows))
    return Answer(200, {"items": [row(*each) for each in rows], "total": total})


def test_info_looks_like_sinfo(pumasi: RunCommand) -> None:
    lines = [line.split() for line in pumasi("info").out.splitlines()]
    assert lines[0] == ["PARTITION", "AVAIL", "TIMELIMIT", "NODES", "STATE", "MODEL", "GPUS(F/T)", "NODELIST"]
    assert lines[1][:6] == ["sejong-b200", "up", "infinite", "1", "idle", "hgx-b200"]
    assert lines[2][3:5] == ["2", "alloc"]
    assert lines[-1][:5] == ["ulsan-gb300", "down", "infinite", "18", "idle"]
    assert lines[-1][5:] == ["gb300-nvl72", "72/72", "ulsan-gb300-[00001-00018]"]


def test_info_tells_how_a_pool_is_cut(pumasi: RunCommand, server: ContractServer) -> None:
    cut = {**POOL, "slice": "1g.23gb", "slices_per_gpu": 7, "gpus": 224, "gpus_free": 204}
    server.give("GET /v1/pools", page(cut))
    (line,) = pumasi("info", "-s", "--columns", "MODEL,GPUS(F/T)", "--no-headers").out.splitlines()
    assert line.split() == ["hgx-b200/7x1g.23gb", "204/224"]


def test_info_names_the_nodes_of_a_pool_asked_for(pumasi: RunCommand, server: ContractServer) -> None:
    nodes = [{"name": f"sejong-b200-0000{number}"} for number in (1, 3)]
    server.give("GET /v1/nodes", page(*nodes))
    out = pumasi("info", "-p", "sejong-b200", "-t", "alloc", "--columns", "NODELIST", "--no-headers").out
    assert out.strip() == "sejong-b200-[00001,00003]"
    assert server.sent("GET /v1/nodes")[0].query["state"] == ["alloc"]
    assert pumasi("info", "-p", "nowhere").code == 3
    assert pumasi("info", "-t", "tired").code == 2


def test_info_summarised(pumasi: RunCommand) -> None:
    out = pumasi("info", "-s", "--columns", "PARTITION,NODES(A/I/O/T)", "--no-headers").out
    assert out.splitlines()[0].split() == ["sejong-b200", "2/1/1/4"]


def test_shares_by_owner_pool_and_loan(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/shares", Answer(200, SHARES))
    lines = [line.split() for line in pumasi("shares").out.splitlines()]
    assert lines[0] == ["OWNER", "ENTITLED", "DUE", "HOME", "LENT", "BORROWED", "IDLE", "CREDIT(GPU-H)"]
    assert lines[1] == ["naver", "16", "16", "0", "8", "0", "8", "5.00"]
    assert "15:00" in pumasi("shares", "-o", "wide").out
    assert pumasi("shares", "--by", "pool", "--owner", "public", "--no-headers").out.split()[1] == "sejong-b200"
    assert pumasi("shares", "--by", "loan", "--no-headers").out.split() == ["naver", "public", "sejong-b200", "8"]
    assert json.loads(pumasi("shares", "--json").out) == SHARES


def test_shares_by_queue(pumasi: RunCommand, server: ContractServer) -> None:
    queue = {
        "id": "naver/a",
        "owner": "naver",
        "title": "",
        "weight": 3,
        "quotas": {"p": {"nominal": 8}, "q": {"nominal": 4}},
    }
    use = {"gpus_nominal": 12, "gpus_fair_share": 12, "gpus_in_use": 16, "dominant_permille": 505, "jobs_waiting": 2}
    server.give(
        "GET /v1/queues", page({**queue, **use, "past_gpu_milliseconds": HOUR}, {**queue, **use, "owner": "sk"})
    )
    lines = [line.split() for line in pumasi("shares", "--by", "queue", "--owner", "naver").out.splitlines()]
    assert lines == [
        ["QUEUE", "WEIGHT", "NOMINAL", "SHARE", "IN_USE", "DOMINANT", "WAITING", "PAST(GPU-H)"],
        ["naver/a", "3", "12", "12", "16", "50.5%", "2", "1.00"],
    ]


def test_usage_by_owner_tells_what_was_lent_and_adds_up(pumasi: RunCommand, server: ContractServer) -> None:
    by_lender = _usage(
        ({"owner": "public", "lender": "public"}, 3 * HOUR, 0), ({"owner": "public", "lender": "naver"}, 0, 2 * HOUR)
    )
    server.give("GET /v1/usage", by_lender)
    lines = [line.split() for line in pumasi("usage", "-S", "2027-01-31").out.splitlines()]
    assert lines == [
        ["OWNER", "GPU_HOURS", "HOME", "BORROWED", "LENT"],
        ["public", "5.00", "3.00", "2.00", "0.00"],
        ["naver", "0.00", "0.00", "0.00", "2.00"],
        ["TOTAL", "5.00", "3.00", "2.00", "2.00"],
    ]
    (sent,) = server.sent("GET /v1/usage")  # one answer: two would be of two moments and not add up
    assert sent.query == {"by": ["owner,lender"], "from": ["2027-01-31"]}


def test_usage_by_other_keys(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/usage", _usage(({"queue": "public/a", "day": "2027-01-31"}, HOUR, 0)))
    lines = pumasi("usage", "--by", "queue,day", "-o", "csv").out.splitlines()
    assert lines == ["QUEUE,DAY,GPU_HOURS,HOME,BORROWED", "public/a,2027-01-31,1.00,1.00,0.00"], "no total in CSV"
    assert pumasi("usage", "--by", "colour").code == 2
    assert pumasi("usage", "-S", "yesterday").code == 2


def test_usage_jobs_looks_like_sacct(pumasi: RunCommand, server: ContractServer) -> None:
    ended = {
        "id": 5,
        "name": "train",
        "pool": "sejong-b200",
        "queue": "public",
        "user": "kim",
        "gpus": 8,
        "state": "failed",
        "slurm_state": "F",
        "exit_code": 3,
        "signal": 0,
        "started_at": "2027-01-31T00:00:00.000Z",
        "ended_at": "2027-01-31T01:00:00.000Z",
        "node_list": "n",
    }
    server.give("GET /v1/jobs", page(ended, {**ended, "id": 4}))
    lines = [line.split() for line in pumasi("usage", "jobs").out.splitlines()]
    assert lines[0] == ["JOBID", "JOBNAME", "PARTITION", "ACCOUNT", "ALLOCGPUS", "STATE", "EXITCODE", "ELAPSED", "END"]
    assert lines[1][:8] == ["5", "train", "sejong-b200", "public", "8", "FAILED", "3:0", "1:00:00"]
    assert pumasi("usage", "jobs", "-S", "2027-02-02", "--no-headers").out == ""
    first = pumasi("usage", "jobs", "--limit", "1", "--columns", "JOBID", "--no-headers")
    assert first.out.split() == ["5"]
    assert "only the newest 1 are shown" in first.err


def test_rules_read_as_they_are_written(pumasi: RunCommand, server: ContractServer) -> None:
    nothing: dict[str, list[str]] = {"owners": [], "owner_kinds": [], "queues": []}
    rule = {
        "id": "nct-at-home",
        "title": "it stays",
        "in_force": True,
        "from_day": "2025-04-30",
        "until_day": None,
        "work": {"data_classes": ["nct", "csap-high"], **nothing},
        "only_at": {"pools": [], "home": True},
        "not_at": None,
    }
    barred = {**rule, "id": "x", "in_force": False, "work": nothing, "only_at": None, "not_at": {"sites": ["a", "b"]}}
    server.give("GET /v1/rules", Answer(200, {"policy": "1", "rules": [rule, barred]}))
    first, second = pumasi("rules", "--no-headers", "-o", "csv").out.splitlines()
    assert first == 'nct-at-home,yes,"data_classes=nct,csap-high",only at home=yes,2025-04-30,-,it stays'
    assert second == 'x,no,all,"not at sites=a,b",2025-04-30,-,it stays'


def test_reclaims_show_promise_and_time(pumasi: RunCommand, server: ContractServer) -> None:
    kept = {
        "claimant": 12,
        "owner": "naver",
        "pool": "sejong-b200",
        "state": "fulfilled",
        "gpus": 8,
        "evicted_gpus": 8,
        "asked_at": "2027-01-31T00:00:00.000Z",
        "claimed_at": "2027-01-31T00:00:00.000Z",
        "promised_seconds": 900,
        "took_seconds": 610,
        "kept": True,
        "victims": [7],
    }
    pending = {**kept, "claimant": 13, "state": "open", "took_seconds": None, "kept": None, "owner": "sk"}
    server.give("GET /v1/reclaims", page(kept, pending, {**kept, "kept": False}))
    lines = [line.split() for line in pumasi("reclaims", "--columns", "CLAIMANT,PROMISED,TOOK,KEPT").out.splitlines()]
    assert lines[1:] == [["12", "15:00", "10:10", "yes"], ["13", "15:00", "-", "open"], ["12", "15:00", "10:10", "NO"]]
    assert pumasi("reclaims", "--owner", "sk", "--no-headers", "--columns", "OWNER").out.strip() == "sk"


def test_power_shows_what_sites_draw_and_caps_one(pumasi: RunCommand, server: ContractServer) -> None:
    row = {
        "id": "sejong", "operator": "public", "gpus": 64, "gpus_in_use": 32,
        "power_planned_kilowatts": 55, "power_limit_kilowatts": 0, "power_cap_kilowatts": 0,
    }  # fmt: skip
    server.give("GET /v1/sites", page(row))
    assert [line.split() for line in pumasi("power", "--no-headers").out.splitlines()] == [
        ["sejong", "public", "32/64", "55", "-"]
    ]
    server.give("PUT /v1/sites/sejong/power", Answer(200, {**row, "power_limit_kilowatts": 40}))
    assert pumasi("power", "sejong", "40", "--notice", "2m", "--no-headers").out.split()[-1] == "40"
    assert server.requests[-1].body == {"kilowatts": 40, "notice_seconds": 120}
    assert pumasi("power", "sejong", "40", "--notice", "soon").code == 2
    assert pumasi("power", "sejong", "-4").code == 2


def test_drain_and_resume_take_lists_of_nodes(pumasi: RunCommand, server: ContractServer) -> None:
    for number in (1, 2, 5):
        server.give(f"POST /v1/nodes/p-0000{number}/drain", Answer(200, {}))
    server.give("POST /v1/nodes/p-00001/resume", problem(404, "node-unknown", "there is no node p-00001"))
    assert pumasi("drain", "p-[00001-00002,00005]", "--reason", "fans").code == 0
    assert [request.body for request in server.requests] == [{"reason": "fans"}] * 3
    assert pumasi("resume", "p-00001") == (3, "", "pumasi: p-00001: there is no node p-00001\n")


@pytest.mark.parametrize("text", ["p", "p-1", "p-[00002-00001]", "p-[1-2]", "p-[00001", "p-[]", "p-00000"])
def test_what_is_no_node(text: str) -> None:
    with pytest.raises(CommandError):
        expand_nodes([text])


def test_watch_once(pumasi: RunCommand, server: ContractServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    fleet = {
        "plan": "korea",
        "gpus_total": 260000,
        "gpus_in_use": 24,
        "gpus_lent": 8,
        "gpus_free": 8,
        "jobs_waiting": 1,
    }
    server.give("GET /v1/fleet", Answer(200, fleet))
    server.give("GET /v1/shares", Answer(200, SHARES))
    out = pumasi("watch", "--once").out
    assert "korea  |  2027-01-31" in out
    assert "260,000 GPUs  |  24 in use  |  8 lent  |  8 free  |  1 waiting" in out
    assert "한국어 학습" in out
    assert "naver" in out


def test_events_resume_after_a_broken_stream(pumasi: RunCommand, server: ContractServer) -> None:
    def stream(*numbers: int) -> Answer:
        text = "".join(
            f'id: {number}\nevent: JobHeld\ndata: {{"type": "JobHeld", "at_ms": 0, "job": {number}}}\n\n'
            for number in numbers
        )
        return Answer(200, f": keep-alive\n\n{text}".encode())

    server.give("GET /v1/events", stream(4, 5), Answer(0), stream(6))
    lines = pumasi("events", "--after", "3", "--count", "3", "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [4, 5, 6]
    asked = [request.headers["Last-Event-ID"] for request in server.sent("GET /v1/events")]
    assert asked == ["3", "5", "5"]


def test_events_for_people(pumasi: RunCommand, server: ContractServer) -> None:
    body = b'id: 4\nevent: JobHeld\ndata: {"type": "JobHeld", "at_ms": 0, "job": 7}\n\n'
    server.give("GET /v1/events", Answer(200, body))
    assert 'JobHeld  {"job": 7}' in pumasi("events", "--count", "1").out
