"""A site's agent with ten thousand runs: what it takes of its machine. Part of `python -m bench.slurm`.

The agent, its files and the control plane are real. This machine cannot hold ten thousand GPUs' worth of Slurm, so its
commands are stand-ins: `sbatch` claims the run as its supervisor would, `squeue` lists a row for each.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.measure import Figures
from bench.slurm_process import running, until, weigh
from pumasi.client.client import Client
from pumasi.demo.server import connect, launch, stop

NODES, GPUS_PER_NODE = 1250, 8
RUNS = NODES * GPUS_PER_NODE
SITE, POOL = "public", "public-b200"

NOTES = {
    "agent_memory_mib_with_10000_runs": "resident memory of an agent with 10,000 live runs; Slurm's commands are "
    "stand-ins that answer at once",
    "agent_cpu_percent_with_10000_runs": "its CPU and that of the commands it calls, of one core",
}

_SBATCH = """#!/bin/sh
while read -r line; do last=$line; done
directory=${last##* }
tag=${directory##*/}
job=${tag%-*}
number=${job##*-}
echo '{"pid": 12, "start": 1, "host": "elsewhere", "engine_id": "'$number'"}' > $directory/supervisor
echo "$number|USER|RUNNING|1000|None|$tag|$tag@SITE" >> FOLDER/rows
echo $number
"""
_COMMANDS = {
    "sbatch": _SBATCH,
    "squeue": "#!/bin/sh\nexec cat FOLDER/rows\n",
    "scontrol": "#!/bin/sh\necho 'Slurmctld(primary) at here is UP'\n",
    "sinfo": "#!/bin/sh\n[ $1 = --version ] && echo slurm-wlm 22.05.8 || exec cat FOLDER/nodes.json\n",
}


def agent_with_many_runs(folder: Path, plan: str) -> Figures:
    """The figures of `NOTES`. `plan`: a plan with `NODES` nodes at the public site."""
    folder.mkdir()
    (folder / "plan.yaml").write_text(plan, encoding="utf-8")
    process, ready = launch(folder, ["--plan", str(folder / "plan.yaml"), "--agents", "none"])
    try:
        server = connect(process, ready, folder / "server.log")
        with Client(server=server.url, token=server.token) as client:
            _write_site(folder)
            where = ["--data", str(folder / "agents"), "--site", SITE, "--server", server.url]
            environment = {"PUMASI_ENROL_TOKEN": str(client.issue_token(kind="enrol", site=SITE)["token"])}
            subprocess.run(_agent("enrol", *where), env=os.environ | environment, check=True, capture_output=True)
            return _weighed(client, folder, where)
    finally:
        stop(process)


def _weighed(client: Client, folder: Path, where: list[str]) -> Figures:
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(_agent("run", *where), stdout=log, stderr=log)
    try:
        job = {"name": "bench", "queue": "public/kaist", "gpus": 1, "time_limit_seconds": 3600, "script": "#!/bin/sh\n"}
        client.submit([job] * RUNS)
        until(lambda: running(client) == RUNS, "not all runs are under way", pause_seconds=5.0)
        memory_mib, cpu_percent = weigh(agent.pid)
    finally:
        agent.terminate()
        agent.wait()
    return {"agent_memory_mib_with_10000_runs": memory_mib, "agent_cpu_percent_with_10000_runs": cpu_percent}


def _write_site(folder: Path) -> None:
    """The site's files as its operator would have them, and the stand-ins for Slurm's commands."""
    site, commands = folder / "agents" / "sites" / SITE, folder / "commands"
    site.mkdir(parents=True)
    commands.mkdir()
    for name, script in _COMMANDS.items():
        here = script.replace("FOLDER", str(folder)).replace("USER", str(os.getuid())).replace("SITE", SITE)
        (commands / name).write_text(here)
        (commands / name).chmod(0o755)
    (folder / "rows").touch()
    node = {"state": "idle", "gres": f"gpu:b200:{GPUS_PER_NODE}", "partitions": ["gpu"]}
    nodes = [{"name": f"n{number:04d}"} | node for number in range(1, NODES + 1)]
    (folder / "nodes.json").write_text(json.dumps({"nodes": nodes}))
    (site / "slurm.yaml").write_text(
        f"commands: {commands}\nqueue_seconds: 3600\npools:\n  {POOL}:\n    partition: gpu\n"
        f"    nodes: n[0001-{NODES:04d}]\n    gpus_per_node: {GPUS_PER_NODE}\n    gres_type: b200\n"
    )
    (site / "policy.yaml").write_text(
        "partitions: [gpu]\naccounts: []\nusers: [all]\nqueues: [all]\ndata_classes: [open]\n"
        f"gpus_at_most: {RUNS}\ngpus_per_job_at_most: {RUNS}\nhours_at_most: 168\n"
    )


def _agent(*words: str) -> list[str]:
    return [sys.executable, "-m", "pumasi", "agent", *words]
