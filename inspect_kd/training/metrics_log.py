"""The log of a training, `metrics.jsonl`: one line of metrics per step.

A run's folder may contain foreign files. Each training therefore creates the log anew, so that it writes neither through a
link nor into a pipe; a resume copies the lines that it keeps.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TextIO

from inspect_kd import atomic_write, strict_json
from inspect_kd.distill.stages import STAGES
from inspect_kd.plain_file import open_to_append, read_plain_file

DESCRIPTION = "log of a training"
MAX_BYTES = 1 << 30


def begin_log(path: Path, steps: int = 0) -> None:
    """Create the log with the lines of the first `steps` steps: those after the checkpoint are trained again."""
    lines: list[str] = []
    if steps and path.is_file():
        text = read_plain_file(path, DESCRIPTION, MAX_BYTES, follow_links=False).decode(errors="replace")
        lines = [
            line
            for line in text.splitlines(keepends=True)
            if line.endswith("\n") and _step(line) in range(1, steps + 1)
        ]
    atomic_write.write_text(path, "".join(lines))


def open_log(path: Path) -> TextIO:
    """Open the log to append lines."""
    return io.TextIOWrapper(open_to_append(path, DESCRIPTION), encoding="utf-8")


def _step(line: str) -> int | None:
    """The step of a line; None where the line is damaged, as after a power cut, or was not written by a training."""
    try:
        metrics = strict_json.loads(line)
    except ValueError:
        return None
    if not isinstance(metrics, dict) or metrics.pop("stage", None) not in (None, *STAGES):
        return None
    if not all(type(value) in (int, float) for value in metrics.values()):
        return None
    step = metrics.get("step")
    return step if isinstance(step, int) else None
