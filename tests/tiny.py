"""The smallest training that goes the whole way: a few seconds."""

from __future__ import annotations

import sys
from pathlib import Path

TINY = [
    "data.size=64",
    "student.dims=[24, 16, 16]",
    "student.neck=16",
    "student.bottleneck=1",
    "student.heads=2",
    "student.answer_width=0",
    "distill.supervise.steps=0",
    "student.compare=[{strides: [4, 8], prototypes: 16}, {strides: [16], prototypes: 32, weight: 2}]",
    "fit.steps=24",
    "fit.batch=4",
    "fit.evaluate_every=6",
    "fit.checkpoint_every=2",
]


def command(parts: Path, out: Path, *more: str) -> list[str]:
    """`inspect-kd train` on tiny parts, as a process of its own."""
    sets = [word for setting in TINY for word in ("--set", setting)]
    words = ["train", "--data", str(parts), "--model", "embedded", "--out", str(out), "--name", "r"]
    return [sys.executable, "-m", "inspect_kd", *words, *sets, *more]
