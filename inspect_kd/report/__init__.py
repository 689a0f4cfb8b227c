"""Write one self-contained HTML page per run: pictures first, then the promise of the thresholds, then the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspect_kd import atomic_write
from inspect_kd.calibrate import Calibration
from inspect_kd.datasets.advice import Advice
from inspect_kd.evaluate import Evaluation
from inspect_kd.report.pictures import Example
from inspect_kd.report.presented_parts import PresentedPart


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The content of a report."""

    title: str
    artifact: str | None
    """File name of the artifact; None if it failed verification."""
    data: dict[str, Any]
    """Keys: name, layout, licence, and `counts`: category -> split -> number."""
    calibration: Calibration
    evaluation: Evaluation | None
    examples: dict[str, list[Example]]
    """Heading -> examples."""
    presented: dict[str, list[PresentedPart]] = field(default_factory=dict)
    """Category -> sound parts as photographed, and as aligned and tiled for the model."""
    history: list[dict[str, float | str]]
    """Lines of metrics.jsonl."""
    recipe: str
    environment: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    """Content of the run's manifest, such as `train_seconds`, `stages` and `taught_by`."""
    advice: Sequence[Advice] = ()
    """Advice on the pictures of sound parts."""


def write_report(report: Report, to: Path) -> Path:
    """Write the page, and its pictures as data beside it. Each file is written completely or not at all."""
    from inspect_kd.report import pictures_file
    from inspect_kd.report.page import render_page

    pictures_file.write_pictures(report.examples, to.with_name(pictures_file.FILE_NAME))
    atomic_write.write_text(to, render_page(report))
    return to
