"""Load on a real control plane over HTTP: durable submissions, single and in batches, and lists."""

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.measure import Figures, percentile
from pumasi.demo.server import Server, serving

CLIENTS = 4
BATCH_JOBS = 100
BATCHES_PER_CLIENT = 250
SINGLES_PER_CLIENT = 500
PACED_JOBS_PER_SECOND = 5_000  # latency at saturation would only measure the queue of the load generator
PACED_CALLS = 600
LISTS = 400

NOTES = {
    "submits_per_second_batch": f"durable jobs/s, {CLIENTS} connections, {BATCH_JOBS} jobs a call",
    "submit_batch_p50_ms": f"latency of a call of {BATCH_JOBS} jobs at {PACED_JOBS_PER_SECOND:,} jobs/s",
    "submit_batch_p99_ms": f"latency of a call of {BATCH_JOBS} jobs at {PACED_JOBS_PER_SECOND:,} jobs/s",
    "submit_batch_saturated_p99_ms": "latency of a call at the full rate above",
    "submits_per_second_single": f"durable jobs/s, {CLIENTS} connections, one job a call",
    "submit_single_p50_ms": "latency of such a call",
    "submit_single_p99_ms": "latency of such a call",
    "api_list_p50_ms": "GET /v1/jobs, 100 rows, with 100,000 jobs stored",
    "api_list_p99_ms": "GET /v1/jobs, 100 rows, with 100,000 jobs stored",
    "api_job_p50_ms": "GET /v1/jobs/{id} with 100,000 jobs stored",
    "api_job_p99_ms": "GET /v1/jobs/{id} with 100,000 jobs stored",
    "server_start_seconds": "from `pumasi up` on the Korean plan, empty directory, to the first answer",
    "server_memory_mib": "resident memory of the server after all this",
}


class Connection:
    """One keep-alive connection; every call is timed."""

    def __init__(self, server: Server) -> None:
        self._http = http.client.HTTPConnection(urlsplit(server.url).netloc)
        self._headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
        self.milliseconds: list[float] = []

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Make a call; anything but success ends the benchmark."""
        began = time.perf_counter()
        self._http.request(method, path, body, self._headers)
        answer = self._http.getresponse()
        content = answer.read()
        self.milliseconds.append((time.perf_counter() - began) * 1000)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return content


@contextmanager
def korean_server() -> Iterator[tuple[Server, float]]:
    """`pumasi up` on the whole Korean fleet without agents, and the seconds it took to start."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with serving(Path(folder), ["--plan", "korea", "--as-of", "2030-12-31", "--agents", "none"]) as server:
            yield server, time.perf_counter() - began


def job_body(number: int) -> dict[str, object]:
    """A job as users send them: a gang of whole nodes, some lines of script."""
    return {
        "name": f"train-{number}",
        "queue": "public/academia",
        "script": "#!/bin/sh\nsrun python train.py --config config.yaml\n",
        "gpus": 8 << number % 4,
        "time_limit_seconds": 3600 + number % 7 * 600,
    }


def submissions(server: Server, per_call: int, calls: int) -> tuple[float, list[float]]:
    """Jobs per second over all clients, and the latency of every call in milliseconds."""
    connections = [Connection(server) for _ in range(CLIENTS)]
    threads = [threading.Thread(target=_submit, args=(connection, per_call, calls)) for connection in connections]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    latencies = [value for connection in connections for value in connection.milliseconds]
    if len(latencies) != CLIENTS * calls:
        raise RuntimeError("a client failed; see above")
    return CLIENTS * calls * per_call / took, latencies


def _submit(connection: Connection, per_call: int, calls: int) -> None:
    for call in range(calls):
        if per_call == 1:
            connection.call("POST", "/v1/jobs", json.dumps(job_body(call)).encode())
        else:
            connection.call("POST", "/v1/jobs/batch", _batch(call))


def _batch(call: int) -> bytes:
    return json.dumps({"jobs": [job_body(call * BATCH_JOBS + number) for number in range(BATCH_JOBS)]}).encode()


def paced(server: Server) -> list[float]:
    """Latencies of batches sent at a steady rate over one connection, in milliseconds; a late call delays the next."""
    connection = Connection(server)
    bodies = [_batch(call) for call in range(PACED_CALLS)]
    began = time.perf_counter()
    for call, body in enumerate(bodies):
        time.sleep(max(0.0, began + call * BATCH_JOBS / PACED_JOBS_PER_SECOND - time.perf_counter()))
        connection.call("POST", "/v1/jobs/batch", body)
    return connection.milliseconds


def _memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def measure() -> Figures:
    """All figures of this module. The server holds 100,000 jobs when lists are measured."""
    with korean_server() as (server, start_seconds):
        single_rate, single = submissions(server, 1, SINGLES_PER_CLIENT)
        steady = paced(server)
        batch_rate, batch = submissions(server, BATCH_JOBS, BATCHES_PER_CLIENT)
        reader = Connection(server)
        for _ in range(LISTS):
            reader.call("GET", "/v1/jobs?limit=100")
        lists, reader.milliseconds = reader.milliseconds, []
        for number in range(LISTS):
            reader.call("GET", f"/v1/jobs/{1 + number * 97}")
        return {
            "submits_per_second_batch": batch_rate,
            "submit_batch_p50_ms": percentile(steady, 50),
            "submit_batch_p99_ms": percentile(steady, 99),
            "submit_batch_saturated_p99_ms": percentile(batch, 99),
            "submits_per_second_single": single_rate,
            "submit_single_p50_ms": percentile(single, 50),
            "submit_single_p99_ms": percentile(single, 99),
            "api_list_p50_ms": percentile(lists, 50),
            "api_list_p99_ms": percentile(lists, 99),
            "api_job_p50_ms": percentile(reader.milliseconds, 50),
            "api_job_p99_ms": percentile(reader.milliseconds, 99),
            "server_start_seconds": start_seconds,
            "server_memory_mib": _memory_mib(server.pid),
        }
