"""`metrics.jsonl`: a line of figures for each step of a training.

A run's folder may hold what somebody else has put there. The log is made anew at the beginning of each training, so that
lines go neither through a link nor into a pipe; what a resume keeps of the former log is copied.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TextIO

from inspect_kd import atomic_write, strict_json
from inspect_kd.distill.stages import STAGES
from inspect_kd.plain_file import open_to_append, read_plain_file

WHAT, LARGEST = "log of a training", 1 << 30


def begin_log(path: Path, steps: int = 0) -> None:
    """Keep the lines of the first `steps` steps: those after the checkpoint are done again."""
    kept: list[str] = []
    if steps and path.is_file():
        text = read_plain_file(path, WHAT, LARGEST, follow_links=False).decode(errors="replace")
        kept = [
            line
            for line in text.splitlines(keepends=True)
            if line.endswith("\n") and _step(line) in range(1, steps + 1)
        ]
    atomic_write.write_text(path, "".join(kept))


def open_log(path: Path) -> TextIO:
    """For further lines."""
    return io.TextIOWrapper(open_to_append(path, WHAT), encoding="utf-8")


def _step(line: str) -> int | None:
    """None for a line that is none of this program, such as a power cut leaves or somebody else has written."""
    try:
        figures = strict_json.loads(line)
    except ValueError:
        return None
    if not isinstance(figures, dict) or figures.pop("stage", None) not in (None, *STAGES):
        return None
    if not all(type(value) in (int, float) for value in figures.values()):
        return None
    step = figures.get("step")
    return step if isinstance(step, int) else None
