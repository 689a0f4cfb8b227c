"""Settings of the smallest complete training, which takes a few seconds."""

from __future__ import annotations

import sys
from pathlib import Path

TINY = [
    "data.size=64",
    "student.dims=[24, 16, 16]",
    "student.neck=16",
    "student.bottleneck=1",
    "student.heads=2",
    "student.head_width=0",
    "distill.supervise.steps=0",
    "student.compare=[{strides: [4, 8], prototypes: 16}, {strides: [16], prototypes: 32, weight: 2}]",
    "fit.steps=24",
    "fit.batch=4",
    "fit.evaluate_every=6",
    "fit.checkpoint_every=2",
]


UNTURNED = ("board", "bottle", "fabric", "metal")
"""The drawn categories of the small data set `parts`."""
EVERY_STAGE = [
    "student.head_width=8",
    "distill.batch=8",
    "distill.variants=2",
    "distill.align.steps=2",
    "distill.supervise.steps=2",
    "distill.refine.steps=2",
    "distill.contrast_weight=1.0",
    "distill.tune_decoder=true",
    "distill.denoising_weight=0.5",
    "distill.blend=[1, 1.5, 1.5]",
    "distill.score_blend=[1, 0.25, 0.25]",
]
"""Added to TINY: heads, and two steps of each stage after the fit."""
WITHOUT_ALIGNMENT_AND_TILES = ["data.align=none", "data.tile=null"]
"""Images are only squashed, because the golden numbers are older than alignment and automatic tiles."""


def command(parts: Path, out: Path, *more: str) -> list[str]:
    """The command line of `inspect-kd train` with TINY."""
    settings = [word for setting in TINY for word in ("--set", setting)]
    words = ["train", "--data", str(parts), "--model", "embedded", "--out", str(out), "--name", "r"]
    return [sys.executable, "-m", "inspect_kd", *words, *settings, *more]
