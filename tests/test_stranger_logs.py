"""Foreign lines in a run's log reach neither the log of a resumed training nor its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inspect_kd.report.charts import draw_curve
from inspect_kd.training.metrics_log import begin_log

OWN = [{"step": 1, "loss": 0.5, "learning_rate": 1e-3}, {"step": 3, "stage": "supervise", "loss": 1, "label": 0.25}]
HOSTILE: list[Any] = [
    {"step": 2, "stage": "<script>alert(1)</script>", "loss": 1},
    {"step": 2, "stage": ["refine"], "loss": 1},
    {"step": 2, "loss": "1"},
    {"step": 2, "loss": None},
    {"step": 2, "loss": {"a": 1}},
    {"step": True, "loss": 1},
    {"step": 2, "loss": float("nan")},
    {"step": 2, "loss": 10**400},
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_resume_drops_lines_that_no_training_wrote(line: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(each) + "\n" for each in (OWN[0], line, OWN[1])))
    begin_log(log, steps=3)
    assert [json.loads(each) for each in log.read_text().splitlines()] == OWN


def test_name_of_a_curve_is_escaped() -> None:
    chart = draw_curve([(1, 2), (2, 3)], '"><script>alert(1)</script>')
    assert "<script" not in chart and chart.count("&quot;&gt;&lt;script&gt;") == 2
