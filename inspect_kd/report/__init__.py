"""One self-contained HTML page a run: pictures first, then what the thresholds promise, then the figures behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspect_kd import atomic_write
from inspect_kd.calibrate import Calibration
from inspect_kd.evaluate import Evaluation
from inspect_kd.report.pictures import Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything the page tells."""

    title: str
    artifact: str
    data: dict[str, Any]
    """name, layout, licence, and `counts`: category -> split -> number."""
    calibration: Calibration
    evaluation: Evaluation | None
    examples: dict[str, list[Example]]
    """Heading -> pictures."""
    history: list[dict[str, float | str]]
    """Lines of metrics.jsonl."""
    recipe: str
    environment: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


def write_report(report: Report, to: Path) -> Path:
    """Write the page whole or not at all; a file name that is not UTF-8 is shown escaped."""
    from inspect_kd.report.page import page

    atomic_write.write_bytes(to, page(report).encode(errors="backslashreplace"))
    return to
