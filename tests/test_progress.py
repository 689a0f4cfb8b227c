"""Progress of long work as JSON lines."""

from __future__ import annotations

import json
import time

import pytest

from inspect_kd.progress_display import JsonLines


def test_remaining_time_ignores_steps_of_an_interrupted_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = JsonLines()
    lines.phase("train", 100, 90)  # ninety steps were completed by an interrupted run
    now[0] += 5
    lines.advance(5)
    written = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert written[0] == {"phase": "train", "done": 90, "total": 100, "seconds": 0.0}
    assert written[1]["done"] == 95 and written[1]["seconds_left"] == 5.0


def test_phase_of_unknown_length_writes_no_line_for_each_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = JsonLines()
    lines.phase("download", 0)
    for _ in range(5):
        now[0] += 1
        lines.advance(10)
    written = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["done"] for line in written] == [0, 30] and "seconds_left" not in written[1]
