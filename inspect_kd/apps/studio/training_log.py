"""What a training tells while it runs: the JSON lines of its stderr, and whatever else a library prints between them.

Unusual here: a log holds several attempts, one a start or resume; their curves join, and steps that are done again
replace those of the attempt before.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file

ATTEMPT = "attempt"
KEPT_LINES, READ_AT_ONCE, MOST_POINTS = 400, 4 << 20, 300
LONGEST_LINE, LARGEST_METRICS, MOST_LINES = 64 << 10, 32 << 20, 200_000
MOST_STAGES, LONGEST_STAGE, MOST_KEPT_POINTS = 32, 80, 20_000
"""What a training writes is far below each of these; a file that somebody else has written need not be."""
OUR_WORD = "inspect-kd: "
Points = list[tuple[float, float]]


@dataclass(slots=True)
class Figures:
    """How far a training is."""

    attempt: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    mark: tuple[float, float] | None = None
    """(done, seconds) when this phase was first heard of after its beginning: a resume does not begin at nothing."""
    loss: float | None = None
    gap: float | None = None
    passed: list[tuple[str, float]] = field(default_factory=list)
    """Phases of this attempt that are over, with their seconds."""
    losses: dict[str, Points] = field(default_factory=dict)
    """By phase."""
    gaps: Points = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    """What a person would read of the log."""
    complaint: str = ""
    """The last line of this attempt that says what went wrong, as far as any does."""


class LogReader:
    """Reads on where it stopped: a log of a long training is not read again each second."""

    def __init__(self, path: Path) -> None:
        self.path, self.figures = path, Figures()
        self.offset, self.rest = 0, b""

    def read(self) -> Figures:
        try:
            with open_plain_file(self.path, "log of a training", follow_links=False) as file:
                file.seek(self.offset)
                fresh = file.read(READ_AT_ONCE)
        except BadInput:
            # Not there yet; or a link, whose file is nobody's log.
            return self.figures
        self.offset += len(fresh)
        *whole, self.rest = (self.rest + fresh).split(b"\n")
        for line in whole:
            take(self.figures, line[:LONGEST_LINE].decode("utf-8", errors="replace").rstrip("\r"))
        self.rest = self.rest[:LONGEST_LINE]
        return self.figures


def take(figures: Figures, text: str) -> None:
    """One line of the log."""
    line = _as_object(text)
    if line is None:
        _plain(figures, text)
    elif isinstance(line.get(ATTEMPT), int):
        _new_attempt(figures, line[ATTEMPT])
    elif isinstance(line.get("say"), str):
        figures.lines.append(line["say"])
    elif isinstance(line.get("phase"), str):
        _progress(figures, line)


def _as_object(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # the second: nested too deeply
        return None
    return line if isinstance(line, dict) else None


def _plain(figures: Figures, text: str) -> None:
    if not text.strip():
        return
    figures.lines.append(text)
    # A traceback's last line is the one that begins at the margin; our own word beats any library's.
    if text.startswith(OUR_WORD):
        figures.complaint = text.removeprefix(OUR_WORD)
    elif not text[0].isspace():
        figures.complaint = text


def _new_attempt(figures: Figures, number: int) -> None:
    figures.attempt, figures.complaint = number, ""
    figures.phase, figures.passed, figures.seconds_left, figures.mark = "", [], None, None
    figures.done = figures.total = 0
    figures.seconds = 0.0
    if number > 1:
        figures.lines.append("— resumed —")


def _progress(figures: Figures, line: dict[str, Any]) -> None:
    phase, done = line["phase"][:LONGEST_STAGE], _number(line, "done") or 0.0
    if figures.phase not in ("", phase):
        if len(figures.passed) < MOST_STAGES:
            figures.passed.append((figures.phase, figures.seconds))
        figures.loss = figures.gap = figures.mark = None
    figures.phase, figures.done, figures.total = phase, int(done), int(_number(line, "total") or 0)
    figures.seconds = _number(line, "seconds") or 0.0
    figures.seconds_left = _left(figures, _number(line, "seconds_left"))
    loss, gap = _number(line, "loss"), _number(line, "gap")
    if loss is not None:
        figures.loss = loss
    if loss is not None and (phase in figures.losses or len(figures.losses) < MOST_STAGES):
        join(figures.losses.setdefault(phase, []), done, loss)
    if gap is not None:
        figures.gap = gap
        join(figures.gaps, done, gap)


def _left(figures: Figures, told: float | None) -> float | None:
    """The training reckons as if it had done all steps itself; after a resume it has not."""
    if not figures.done:
        return told
    if figures.mark is None:
        figures.mark = (figures.done, figures.seconds)
    done, seconds = figures.done - figures.mark[0], figures.seconds - figures.mark[1]
    return seconds / done * (figures.total - figures.done) if done > 0 and seconds > 0 else told


def _number(line: dict[str, Any], key: str) -> float | None:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else None


def join(points: Points, step: float, value: float) -> None:
    """Add a point; what an earlier attempt knew of this step and later ones is void."""
    while points and points[-1][0] >= step:
        points.pop()
    points.append((step, value))
    if len(points) > MOST_KEPT_POINTS:
        del points[1:-1:2]


def thinned(points: Points) -> Points:
    """As many as a chart can show, the last one among them."""
    stride = max(1, len(points) // MOST_POINTS)
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def _lines(file: BinaryIO) -> Iterator[str]:
    """The file's lines one by one, so many and no more, and no line as a whole that is too long."""
    with file:
        for _ in range(MOST_LINES):
            line = file.readline(LONGEST_LINE)
            if not line or file.tell() > LARGEST_METRICS:
                return
            yield line.decode("utf-8", errors="replace")


def history(metrics: Path) -> tuple[dict[str, Points], Points]:
    """Losses by stage, and gaps, from a run's metrics.jsonl: finer than the log, and there for runs of the command line."""
    losses: dict[str, Points] = {}
    gaps: Points = []
    try:
        file = open_plain_file(metrics, "metrics of a training", follow_links=False)
    except BadInput:
        return losses, gaps
    for text in _lines(file):
        line = _as_object(text) or {}
        step, loss, gap = _number(line, "step"), _number(line, "loss"), _number(line, "gap")
        if step is not None and loss is not None:
            stage = str(line.get("stage", "train"))[:LONGEST_STAGE]
            if stage in losses or len(losses) < MOST_STAGES:
                losses.setdefault(stage, []).append((step, loss))
        if step is not None and gap is not None:
            gaps.append((step, gap))
    return losses, gaps
