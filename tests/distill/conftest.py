"""One complete distillation, through the command line, for all tests of this folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.distill.builders import distill_command, own_cache


@pytest.fixture(scope="session")
def distilled_runs(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student's run with every stage, `r`, and of its teacher's run."""
    out = tmp_path_factory.mktemp("distilled")
    result = subprocess.run(
        distill_command(parts, out), capture_output=True, text=True, check=False, env=own_cache(out)
    )
    assert result.returncode == 0, result.stderr
    phases = {json.loads(line).get("phase") for line in result.stderr.splitlines() if line.startswith("{")}
    assert {"study", "train", "look: tiny_memory", "align", "supervise", "refine"} <= phases
    return out


@pytest.fixture(scope="session")
def distilled(distilled_runs: Path) -> Path:
    return distilled_runs / "r"


@pytest.fixture(scope="session")
def teacher_run(distilled_runs: Path) -> Path:
    return next(distilled_runs.glob("*-tiny_memory-*"))
