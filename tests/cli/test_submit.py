"""`pumasi submit`: what is sent, what is printed, what it exits with."""

from pathlib import Path

import pytest

from tests.cli.conftest import RunCommand
from tests.cli.contract_server import JOB, WHOAMI, Answer, ContractServer, problem

SCRIPT = "#!/bin/bash\n#SBATCH -A public/academia -N 2 --gpus-per-node=8 -t 2h\npython train.py\n"


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A batch script."""
    path = tmp_path / "train.sh"
    path.write_text(SCRIPT)
    return str(path)


def test_sends_a_script(pumasi: RunCommand, server: ContractServer, script: str) -> None:
    result = pumasi("submit", script)
    assert result == (0, "Submitted batch job 7\n", "")
    (request,) = server.sent("POST /v1/jobs")
    assert request.body == {
        "name": "train.sh",
        "queue": "public/academia",
        "script": SCRIPT,
        "gpus": 16,
        "gpus_per_node": 8,
        "time_limit_seconds": 7200,
    }
    assert len(request.headers["Idempotency-Key"]) == 36


def test_parsable_prints_the_number_alone_and_quiet_nothing(pumasi: RunCommand, script: str) -> None:
    assert pumasi("submit", "--parsable", script).out == "7\n"
    assert pumasi("submit", "-Q", script).out == ""


def test_reads_standard_input(pumasi: RunCommand, server: ContractServer) -> None:
    assert pumasi("submit", "-", stdin=SCRIPT).code == 0
    assert server.sent("POST /v1/jobs")[0].body["name"] == "stdin"


def test_wrap_needs_no_file(pumasi: RunCommand, server: ContractServer) -> None:
    assert pumasi("submit", "--wrap", "nvidia-smi", "-G1", "-A", "public", "-t", "5").code == 0
    assert server.sent("POST /v1/jobs")[0].body["script"].endswith("nvidia-smi\n")


def test_options_win_over_variables_and_those_over_the_script(
    pumasi: RunCommand, server: ContractServer, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "naver")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "30")
    pumasi("submit", script, "-t", "10")
    body = server.sent("POST /v1/jobs")[0].body
    assert (body["queue"], body["time_limit_seconds"]) == ("naver", 600)


def test_a_yaml_job_and_options_over_it(pumasi: RunCommand, server: ContractServer, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("queue: public\ngpus: 4\ncommand: hostname\nrequeue: false\n")
    assert pumasi("submit", str(path), "--gpus=8", "--requeue", "-p", "sejong").code == 0
    body = server.sent("POST /v1/jobs")[0].body
    assert (body["gpus"], body["requeue"], body["sites"], body["name"]) == (8, True, ["sejong"], "job")


def test_an_array_is_one_batch(pumasi: RunCommand, server: ContractServer, script: str) -> None:
    server.give("POST /v1/jobs/batch", Answer(201, {"jobs": [10, 11, 12]}))
    assert pumasi("submit", script, "-a", "0-2", "-o", "out.%A_%a").out == "Submitted batch jobs 10-12\n"
    bodies = server.sent("POST /v1/jobs/batch")[0].body["jobs"]
    assert [body["environment"]["SLURM_ARRAY_TASK_ID"] for body in bodies] == ["0", "1", "2"]
    assert len({body["environment"]["SLURM_ARRAY_JOB_ID"] for body in bodies}) == 1


def test_the_only_queue_of_a_user_is_taken(pumasi: RunCommand, server: ContractServer) -> None:
    assert pumasi("submit", "--wrap", "x", "-G1").code == 0
    assert server.sent("POST /v1/jobs")[0].body["queue"] == "public/academia"
    server.give(
        "GET /v1/whoami",
        Answer(200, {**WHOAMI, "principal": {"id": "boss", "bindings": [{"role": "user", "scope": "*"}]}}),
    )
    result = pumasi("submit", "--wrap", "x", "-G1")
    assert result.code == 2
    assert "it names no queue" in result.err


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"state": "succeeded", "exit_code": 0, "signal": 0}, 0),
        ({"state": "failed", "exit_code": 3, "signal": 0}, 3),
        ({"state": "failed", "exit_code": 0, "signal": 9}, 137),
        ({"state": "cancelled", "exit_code": None, "signal": None}, 1),
        ({"state": "expired", "exit_code": 0, "signal": 0}, 1),
    ],
)
def test_wait_exits_with_the_code_of_the_job(
    pumasi: RunCommand, server: ContractServer, script: str, job: dict[str, object], code: int
) -> None:
    server.give("GET /v1/jobs/7", Answer(200, JOB), Answer(200, {**JOB, **job}))
    result = pumasi("submit", "--wait", script)
    assert result.code == code
    assert ("job 7 ended" in result.err) == (code != 0)


def test_what_cannot_be_used_submits_nothing(pumasi: RunCommand, server: ContractServer, tmp_path: Path) -> None:
    path = tmp_path / "bad.sh"
    path.write_text("#!/bin/sh\n#SBATCH --tmp=4G\n#SBATCH --acount=x\n#SBATCH -G1\n")
    result = pumasi("submit", str(path))
    assert result.code == 2
    assert result.err.splitlines() == [
        f"pumasi: {path}: 2 things cannot be used; nothing was submitted",
        "  line 2: --tmp: not supported: the CPUs and memory of a node are shared out in proportion to its GPUs",
        "  line 3: #SBATCH there is no option --acount; did you mean --account?",
        "hint: to submit without them: --ignore=tmp",
    ]
    assert server.requests == []


def test_ignore_leaves_out_what_is_named(pumasi: RunCommand, server: ContractServer, tmp_path: Path) -> None:
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/sh\n#SBATCH --tmp=8G --licenses=x -G1 -A public\n")
    assert pumasi("submit", str(path), "--ignore=tmp,licenses").code == 0
    assert pumasi("submit", str(path), "--ignore=nonsense").code == 2


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (problem(422, "never-admissible", "no pool can ever run it"), 6, "no pool can ever run it"),
        (problem(422, "queue-unknown", "there is no queue x"), 3, "there is no queue x"),
        (problem(422, "body-invalid", "gpus must be at least 1"), 2, "gpus must be at least 1"),
        (problem(401, "not-authenticated", "the token has expired"), 4, "the token has expired"),
        (problem(409, "job-ended", "job 7 has already ended"), 5, "job 7 has already ended"),
        (problem(500, "internal", "it broke", trace_id="abc"), 1, "abc"),
        (Answer(502), 7, "502"),
    ],
)
def test_refusals_have_their_exit_codes(
    pumasi: RunCommand, server: ContractServer, script: str, answer: Answer, code: int, message: str
) -> None:
    server.give("POST /v1/jobs", answer)
    result = pumasi("submit", script)
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err


def test_test_only_says_where_it_could_run(pumasi: RunCommand, server: ContractServer, script: str) -> None:
    pools = [
        {"pool": "sejong-b200", "site": "sejong", "admissible": True, "code": "", "detail": ""},
        {"pool": "ulsan-gb300", "site": "ulsan", "admissible": False, "code": "gang_shape", "detail": "4 GPUs a node"},
    ]
    server.give("POST /v1/jobs/check", Answer(200, {"admissible": True, "detail": "1 of 2 pools", "pools": pools}))
    result = pumasi("submit", "--test-only", script)
    assert result.out.splitlines()[1:] == ["  sejong-b200 (sejong): yes", "  ulsan-gb300 (ulsan): no: 4 GPUs a node"]
    assert result.code == 0
    assert server.sent("POST /v1/jobs") == []
    server.give("POST /v1/jobs/check", Answer(200, {"admissible": False, "detail": "none can", "pools": pools[1:]}))
    assert pumasi("submit", "--test-only", script).code == 6


def test_a_job_refused_by_every_pool_does_not_flood_the_terminal(
    pumasi: RunCommand, server: ContractServer, script: str
) -> None:
    errors = [{"path": "gpus", "problem": f"pool-{number}: too small"} for number in range(40)]
    server.give("POST /v1/jobs", problem(422, "never-admissible", "no pool can: pool-0: too small", errors=errors))
    lines = pumasi("submit", script).err.splitlines()
    assert len(lines) == 11
    assert lines[9] == "  ... and 32 more"


def test_a_single_problem_is_said_once(pumasi: RunCommand, server: ContractServer, script: str) -> None:
    errors = [{"path": "gpus", "problem": "it is missing"}]
    server.give("POST /v1/jobs", problem(422, "body-invalid", "gpus: it is missing", errors=errors))
    assert pumasi("submit", script).err == "pumasi: gpus: it is missing\n"


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    pumasi: RunCommand, server: ContractServer, script: str
) -> None:
    server.give("POST /v1/jobs", Answer(0), Answer(503), Answer(201, {"id": 9}))
    assert pumasi("submit", "--parsable", script).out == "9\n"
    keys = {request.headers["Idempotency-Key"] for request in server.sent("POST /v1/jobs")}
    assert len(keys) == 1
    assert len(server.sent("POST /v1/jobs")) == 3


@pytest.mark.parametrize("arguments", [("missing.sh",), ("--wrap", "x", "file.sh"), ("a.sh", "b.sh"), ()])
def test_files_that_are_not_there_or_too_many(pumasi: RunCommand, arguments: tuple[str, ...]) -> None:
    result = pumasi("submit", *arguments)
    assert result.code in {2, 3}
    assert result.err.startswith("pumasi: ")
