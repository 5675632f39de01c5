"""`pumasi queue`, `job`, `why`, `logs`, `cancel`: what hands and scripts know from Slurm."""

import base64
import json

import pytest

from tests.cli.conftest import RunCommand
from tests.cli.contract_server import JOB, WAITING, Answer, ContractServer, page, problem


def test_looks_like_squeue(pumasi: RunCommand) -> None:
    lines = pumasi("queue").out.splitlines()
    assert lines[0].split() == ["JOBID", "PARTITION", "NAME", "USER", "ST", "TIME", "NODES", "GPUS", "NODELIST(REASON)"]
    assert lines[1].split() == ["8", "-", "한국어", "학습", "kim", "PD", "0:00", "-", "16", "(Resources)"]
    assert lines[2].split()[:8] == ["7", "sejong-b200", "train", "kim", "R", "50:00", "2", "16"]
    assert lines[2].split()[8:] == ["sejong-b200-[00001-00002]"]


def test_slices_are_named_where_gpus_are_counted(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/jobs", page({**JOB, "slice": "1g.23gb"}))
    assert pumasi("queue", "--columns", "GPUS", "--no-headers").out.strip() == "1g.23gb:16"


def test_a_run_that_its_site_does_not_name_is_marked(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/jobs", page({**JOB, "silent_since_at": "2027-03-01T00:30:00Z"}))
    assert pumasi("queue", "--no-headers").out.strip().endswith(f"{JOB['node_list']} (silent)")


def test_time_runs_by_the_fleets_clock(pumasi: RunCommand) -> None:
    """The server's clock says 01:00 and the job started at 00:10, whatever the time is here."""
    assert pumasi("queue", "--columns", "time", "--no-headers", "-j", "7").out.strip() == "50:00"


def test_wide_shows_whose_gpus_are_used(pumasi: RunCommand) -> None:
    assert "public:8,naver:8" in pumasi("queue", "-l").out


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ((), {"state": ["live"]}),
        (("--me",), {"state": ["live"], "user": ["kim"]}),
        (("-u", "lee", "-A", "naver"), {"state": ["live"], "user": ["lee"], "queue": ["naver"]}),
        (("-t", "PD"), {"state": ["held", "waiting"]}),
        (("-t", "pending,CD"), {"state": ["held", "succeeded", "waiting"]}),
        (("-t", "all"), {}),
    ],
)
def test_filters_go_to_the_server(
    pumasi: RunCommand, server: ContractServer, arguments: tuple[str, ...], query: dict[str, list[str]]
) -> None:
    pumasi("queue", *arguments)
    sent = server.sent("GET /v1/jobs")[0].query
    assert {name: values for name, values in sent.items() if name != "limit"} == query


def test_states_the_server_does_not_tell_apart_are_told_apart_here(pumasi: RunCommand, server: ContractServer) -> None:
    stopping = {**JOB, "id": 9, "slurm_state": "CG"}
    server.give("GET /v1/jobs", page(JOB, stopping))
    assert pumasi("queue", "-t", "CG", "--columns", "JOBID", "--no-headers").out.split() == ["9"]
    assert pumasi("queue", "-t", "CG", "--limit", "1", "--columns", "JOBID", "--no-headers").out.split() == ["9"]
    lost = {**JOB, "id": 10, "state": "unknown_outcome", "slurm_state": "NF"}
    server.give("GET /v1/jobs", page(lost, {**JOB, "id": 11, "state": "failed", "slurm_state": "F"}))
    assert pumasi("queue", "-t", "NF", "--columns", "JOBID", "--no-headers").out.split() == ["10"]
    assert server.sent("GET /v1/jobs")[-1].query["state"] == ["failed", "unknown_outcome"]
    assert pumasi("queue", "-p", "ulsan", "--no-headers").out == ""
    assert pumasi("queue", "-t", "XX").code == 2


def test_follows_the_cursor(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/jobs", page(WAITING, cursor="next"), page(JOB))
    assert pumasi("queue", "--columns", "JOBID", "--no-headers").out.split() == ["8", "7"]
    assert server.sent("GET /v1/jobs")[1].query["cursor"] == ["next"]


def test_json_and_sorting(pumasi: RunCommand) -> None:
    assert json.loads(pumasi("queue", "--json").out) == {"items": [WAITING, JOB]}
    assert pumasi("queue", "-S", "jobid", "--columns", "JOBID", "--no-headers").out.split() == ["7", "8"]


def test_a_name_cannot_forge_a_row(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/jobs", page({**JOB, "name": "x\n99 forged\x1b[31m"}))
    out = pumasi("queue").out
    assert len(out.splitlines()) == 2
    assert "x\\n99 forged\\x1b[31m" in out


def test_job_tells_its_story(pumasi: RunCommand, server: ContractServer) -> None:
    attempt = {
        "number": 1,
        "gpus": 16,
        "cpus_per_node": 144,
        "memory_mib_per_node": 0,
        "node_list": "ulsan-gb300-[00001-00004]",
        "charges": [{"owner": "sk", "gpus": 16}],
        "placed_at": "2027-01-31T00:01:00.000Z",
        "started_at": "2027-01-31T00:01:05.000Z",
        "ended_at": "2027-01-31T00:09:00.000Z",
        "stop": {
            "cause": "reclaim",
            "ordered_at": "2027-01-31T00:05:00.000Z",
            "kill_at": "2027-01-31T00:10:00.000Z",
            "claimant": 12,
        },
        "outcome": "reclaimed",
        "exit_code": 143,
        "signal": 0,
        "detail": "",
    }
    server.give("GET /v1/jobs/7", Answer(200, {**JOB, "attempts": [attempt]}))
    out = pumasi("job", "7").out
    assert "Charged to  public:8,naver:8" in out
    assert "Attempt 1: ulsan-gb300-[00001-00004] 16 GPUs, 144 CPUs\n" in out
    assert "reclaim for job 12, killed at" in out
    assert "reclaimed, exit code 143:0" in out
    assert json.loads(pumasi("job", "7", "--json").out)["id"] == 7


def test_why_says_what_blocks_what_would_start_it_and_when(pumasi: RunCommand, server: ContractServer) -> None:
    reasons = {
        "job": 8,
        "state": "waiting",
        "display_state": "waiting",
        "reasons": [
            {
                "code": "too_few_free",
                "slurm": "Resources",
                "pool": "sejong-b200",
                "detail": "8 of 16 GPUs are free",
                "would_start": "8 more free GPUs",
            }
        ],
        "would_start": "8 more free GPUs in sejong-b200",
        "estimated_start_at": "2027-01-31T02:00:00.000Z",
        "note": "",
    }
    server.give("GET /v1/jobs/8/reasons", Answer(200, reasons))
    out = pumasi("why", "8").out
    assert "1. sejong-b200: 8 of 16 GPUs are free  [Resources]" in out
    assert "What would start it: 8 more free GPUs in sejong-b200" in out
    assert "it starts at 2027-01-31T" in out
    note = {**reasons, "reasons": [], "would_start": "", "estimated_start_at": None, "note": "it is held"}
    server.give("GET /v1/jobs/8/reasons", Answer(200, note))
    assert pumasi("why", "8").out.splitlines()[1] == "It is held."


def test_logs_follow_until_the_job_has_ended(pumasi: RunCommand, server: ContractServer) -> None:
    def chunk(text: bytes, offset: int, complete: bool) -> Answer:
        data = base64.b64encode(text).decode()
        size = offset + len(text)
        return Answer(200, {"data": data, "offset": offset, "next_offset": size, "size": size, "complete": complete})

    server.give(
        "GET /v1/jobs/7/logs",
        chunk(b"step 1\n", 0, False),
        chunk(b"", 7, False),
        chunk(b"step 2\n", 7, True),
        chunk(b"", 14, True),
    )
    assert pumasi("logs", "-f", "7").out == "step 1\nstep 2\n"
    asked = server.sent("GET /v1/jobs/7/logs")
    assert [request.query["offset"] for request in asked] == [["0"], ["7"], ["7"], ["14"]]
    assert all(int(request.query["wait_seconds"][0]) > 0 for request in asked)


def test_the_site_s_own_accounts_stand_below_a_job(pumasi: RunCommand, server: ContractServer) -> None:
    books = b"JobID|State|TotalCPU\n41|FAILED|00:02\n41.batch|FAILED|00:02\n"
    answer = {"data": base64.b64encode(books).decode(), "offset": 0, "next_offset": 58, "size": 58, "complete": True}
    end = answer | {"data": "", "offset": 58}
    server.give("GET /v1/jobs/7/logs", Answer(200, answer), Answer(200, end), Answer(200, answer), Answer(200, end))
    said = pumasi("job", "7", "--accounts").out
    assert "Accounts of 41.batch\n  State     FAILED\n  TotalCPU  00:02\n" in said
    assert server.sent("GET /v1/jobs/7/logs")[0].query["stream"] == ["accounts"]
    rows = json.loads(pumasi("job", "7", "--accounts", "--json").out)["accounts"]
    assert rows[0] == {"JobID": "41", "State": "FAILED", "TotalCPU": "00:02"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"JobID|State\n", "Accounts: the site's accounting has nothing of it, or no longer\n"),
        (b"what\nis this", "Accounts of ?\n  what  is this\n"),
    ],
)
def test_accounts_that_are_none_and_accounts_that_are_strange(
    pumasi: RunCommand, server: ContractServer, text: bytes, said: str
) -> None:
    data, size = base64.b64encode(text).decode(), len(text)
    answer = {"data": data, "offset": 0, "next_offset": size, "size": size, "complete": True}
    server.give("GET /v1/jobs/7/logs", Answer(200, answer), Answer(200, answer | {"data": "", "offset": size}))
    assert pumasi("job", "7", "--accounts").out.endswith(said)


def test_cancel_goes_on_after_a_failure_and_tells_the_first(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("POST /v1/jobs/1/cancel", problem(409, "job-ended", "job 1 has already ended"))
    server.give("POST /v1/jobs/2/cancel", Answer(200, {}))
    server.give("POST /v1/jobs/3/cancel", Answer(200, {}))
    result = pumasi("cancel", "1", "2-3")
    assert result == (5, "", "pumasi: job 1: job 1 has already ended\n")
    assert server.sent("POST /v1/jobs/3/cancel")


def test_what_changes_is_never_repeated_by_itself(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("POST /v1/jobs/7/hold", Answer(0))
    assert pumasi("hold", "7").code == 7
    assert len(server.sent("POST /v1/jobs/7/hold")) == 1


@pytest.mark.parametrize("number", ["x", "0x7", "7.5", "-7", "1-", "1-99999999", "٣"])
def test_what_is_no_job_number(pumasi: RunCommand, number: str) -> None:
    assert pumasi("cancel", "--", number).code == 2


def test_an_unknown_job(pumasi: RunCommand, server: ContractServer) -> None:
    server.give("GET /v1/jobs/9", problem(404, "job-unknown", "there is no job 9"))
    assert pumasi("job", "9") == (3, "", "pumasi: there is no job 9\n")
