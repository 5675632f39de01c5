"""The reference of the job environment lists what jobs really find."""

import re
from pathlib import Path

from pumasi.agents.environment import Place, job_environment
from pumasi.testing.engine import an_order

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "job-environment.md"
FROM_THE_JOB = {"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"}


def test_every_variable_is_listed_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = set(re.findall(r"`([A-Z_]{3,})`", text))
    found = set(job_environment(an_order("true"), Place("s", "t", "a", "h", "d", "w")))
    assert listed - FROM_THE_JOB == found
