"""`pumasi reservation`, against given answers; with a real control plane it is in test_end_to_end.py."""

import json
from typing import Any

import pytest

from tests.cli.conftest import RunCommand
from tests.cli.contract_server import Answer, ContractServer, page, problem

WORKS: dict[str, Any] = {
    "id": "works", "purpose": "maintenance", "state": "scheduled", "start_at": "2027-02-01T09:00:00.000Z",
    "end_at": "2027-02-01T11:00:00.000Z", "duration_seconds": 7200, "pool": "sejong-b200", "site": "sejong",
    "nodes": 2, "gpus": 16, "node_list": "sejong-b200-[00001-00002]", "owner": None, "queue": "", "job": None,
    "reason": "fans",
}  # fmt: skip
CREATE = ("reservation", "create", "works", "-p", "sejong-b200")
NOW_MS = 1_801_357_200_000  # the contract server's clock: 2027-01-31T01:00Z


def test_create_sends_what_scontrol_would(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("POST /v1/reservations", Answer(201, WORKS))
    size, flags = ("-w", "sejong-b200-[00001-00002]"), ("--flags", "MAINT,ignore_jobs")
    done = pumasi(*CREATE, "--start", "now+1d", "--duration", "2:00:00", *size, *flags, "--reason", "fans")
    assert done == (0, "Reserved sejong-b200-[00001-00002] as works, from 2027-02-01T09:00:00\n", "")
    assert server.requests[-1].body == {
        "name": "works", "purpose": "maintenance", "pool": "sejong-b200", "start_at_ms": NOW_MS + 86_400_000,
        "duration_seconds": 7200, "node_list": "sejong-b200-[00001-00002]", "ignore_running": True, "reason": "fans",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (("-N", "2", "-A", "public"), {"purpose": "award", "queue": "public", "nodes": 2}),
        (("-G", "16", "-A", "public", "--flags", "hand_over"), {"purpose": "hand_over", "queue": "public", "gpus": 16}),
        (("-w", "ALL", "--flags", "maint"), {"purpose": "maintenance", "node_list": "sejong-b200-[00001-00004]"}),
    ],
)
def test_purposes_and_sizes(
    pumasi: RunCommand, server: ContractServer, arguments: tuple[str, ...], sent: dict[str, Any]
) -> None:
    server.give("POST /v1/reservations", Answer(201, WORKS))
    assert pumasi(*CREATE, "--end", "2027-01-31T02:00:00", *arguments).code == 0
    body = {"name": "works", "pool": "sejong-b200", "duration_seconds": 3600}
    assert server.requests[-1].body == body | sent


@pytest.mark.parametrize(
    "arguments",
    [
        ("--duration", "2h", "--end", "tomorrow"),
        (),
        ("--duration", "soon"),
        ("--duration", "0"),
        ("--start", "yesterday", "--duration", "2h"),
        ("--start", "tomorrow", "--end", "now+1h"),
        ("--duration", "2h", "--flags", "daily"),
        ("--duration", "2h", "--flags", "maint,hand_over"),
        ("--duration", "2h", "-N", "0"),
    ],
)
def test_what_makes_no_sense_is_not_sent(
    pumasi: RunCommand, server: ContractServer, arguments: tuple[str, ...]
) -> None:
    assert pumasi(*CREATE, *arguments).code == 2
    assert [request.method for request in server.requests].count("POST") == 0


def test_an_end_that_is_none_is_told_how_to_write_a_moment(pumasi: RunCommand, server: ContractServer) -> None:
    assert "tomorrow" in pumasi(*CREATE, "--start", "now+2h", "--end", "now+1h", "-N", "2").err


def test_refusals_have_their_codes(pumasi: RunCommand, server: ContractServer) -> None:
    for status, code, exit_code in (
        (409, "reservation-no-room", 5), (422, "reservation-invalid", 2), (403, "not-authorised", 4),
        (404, "pool-unknown", 3),
    ):  # fmt: skip
        server.give("POST /v1/reservations", problem(status, code, "no"))
        assert pumasi(*CREATE, "--duration", "2h", "-N", "2").code == exit_code
    assert pumasi("reservation", "create", "x", "-p", "nowhere", "--duration", "2h", "-w", "ALL").code == 3


def test_list_and_show(pumasi: RunCommand, server: ContractServer) -> None:
    award = {**WORKS, "id": "call", "purpose": "award", "state": "active", "owner": "public", "queue": "public/a"}
    server.give("GET /v1/reservations", page(WORKS, award))
    server.give("GET /v1/reservations/call", Answer(200, award))
    lines = [line.split() for line in pumasi("reservation", "list").out.splitlines()]
    assert lines[0] == [
        "RESV_NAME",
        "STATE",
        "PURPOSE",
        "START_TIME",
        "DURATION",
        "ACCOUNT",
        "NODES",
        "GPUS",
        "NODELIST",
    ]
    assert lines[1][:4] == ["works", "scheduled", "maintenance", "2027-02-01T09:00:00"]
    assert lines[2][5:] == ["public/a", "2", "16", "sejong-b200-[00001-00002]"]
    assert json.loads(pumasi("reservation", "list", "--json").out) == {"items": [WORKS, award]}
    assert "Queue        public/a\n" in pumasi("reservation", "show", "call").out
    assert json.loads(pumasi("reservation", "show", "call", "--json").out) == award


def test_delete_goes_on_after_a_failure(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("DELETE /v1/reservations/a", problem(404, "reservation-unknown", "there is no reservation a"))
    server.give("DELETE /v1/reservations/b", Answer(204))
    done = pumasi("reservation", "delete", "a", "b")
    assert done == (3, "", "pumasi: a: there is no reservation a\n")
    assert [request.path for request in server.requests] == ["/v1/reservations/a", "/v1/reservations/b"]
