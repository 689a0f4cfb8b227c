"""Read a training's log: the JSON lines of its stderr, and the lines that libraries print.

Unusual here: a log contains several attempts, one for each start or resume. Their curves are joined; if an attempt repeats steps,
the later values are kept.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file

ATTEMPT = "attempt"
MAX_KEPT_LINES, MAX_READ_BYTES, MAX_POINTS = 400, 4 << 20, 300
HEAD_BYTES = 1024
"""Number of bytes at the beginning of a log; if these bytes change, the file has been replaced by another log."""
MAX_LINE_BYTES, MAX_METRICS_BYTES, MAX_LINES = 64 << 10, 32 << 20, 200_000
MAX_PHASES, MAX_PHASE_LENGTH, MAX_KEPT_POINTS = 32, 80, 20_000
"""Limits on logs and metrics files, which may come from another person; those of a real training are far smaller."""
ERROR_PREFIX = "inspect-kd: "
Points = list[tuple[float, float]]


@dataclass(slots=True)
class CommandProgress:
    """Phase, metrics and text lines of a command (a training, a data check, an export), from the part of its log that has been read."""

    attempt: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    baseline: tuple[float, float] | None = None
    """(done, seconds) of the phase's first report with progress, because a resumed phase does not begin at zero."""
    loss: float | None = None
    gap: float | None = None
    """The synthetic gap: average precision on synthetic defects, see `training.early_stop`."""
    finished_phases: list[tuple[str, float]] = field(default_factory=list)
    """Finished phases of this attempt, with their seconds."""
    losses: dict[str, Points] = field(default_factory=dict)
    """Phase -> curve of its loss."""
    gaps: Points = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_KEPT_LINES))
    """The last lines of the log, as text for people."""
    error: str = ""
    """The last line of this attempt that could be an error message."""


class LogReader:
    """Reads a growing log; each call continues where the last one ended, unless the file has been replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_over()

    def _start_over(self) -> None:
        self.progress, self.offset, self.partial_line = CommandProgress(), 0, b""
        self.inode, self.head = 0, b""

    def read(self) -> CommandProgress:
        """Read at most 4 MB of new lines."""
        try:
            with open_plain_file(self.path, "log of a training", follow_links=False) as file:
                status, head = os.fstat(file.fileno()), file.read(HEAD_BYTES)
                # A system may give the inode of a removed file to the next one.
                is_same = (status.st_ino, head[: len(self.head)]) == (self.inode, self.head)
                if not is_same or status.st_size < self.offset:
                    self._start_over()
                self.inode, self.head = status.st_ino, head
                file.seek(self.offset)
                new_bytes = file.read(MAX_READ_BYTES)
        except (BadInput, OSError):
            # It does not exist, or it is a link, which could lead to any file.
            self._start_over()
            return self.progress
        self.offset += len(new_bytes)
        *lines, self.partial_line = (self.partial_line + new_bytes).split(b"\n")
        for line in lines:
            parse_line(self.progress, line[:MAX_LINE_BYTES].decode("utf-8", errors="replace").rstrip("\r"))
        self.partial_line = self.partial_line[:MAX_LINE_BYTES]
        return self.progress


def parse_line(progress: CommandProgress, text: str) -> None:
    """Update the progress by one line of the log."""
    line = _json_object(text)
    if line is None:
        _read_plain_text(progress, text)
    elif isinstance(line.get(ATTEMPT), int):
        _start_attempt(progress, line[ATTEMPT])
    elif isinstance(line.get("say"), str):
        progress.lines.append(line["say"])
    elif isinstance(line.get("phase"), str):
        _read_phase_report(progress, line)


def _json_object(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: nested too deeply
        return None
    return line if isinstance(line, dict) else None


def _read_plain_text(progress: CommandProgress, text: str) -> None:
    if not text.strip():
        return
    progress.lines.append(text)
    # An error is the last line that is not indented: inspect-kd's own message, without its prefix, or a traceback's last line.
    if text.startswith(ERROR_PREFIX):
        progress.error = text.removeprefix(ERROR_PREFIX)
    elif not text[0].isspace():
        progress.error = text


def _start_attempt(progress: CommandProgress, number: int) -> None:
    progress.attempt, progress.error = number, ""
    progress.phase, progress.finished_phases, progress.seconds_left, progress.baseline = "", [], None, None
    progress.done = progress.total = 0
    progress.seconds = 0.0
    if number > 1:
        progress.lines.append("— resumed —")


def _read_phase_report(progress: CommandProgress, line: dict[str, Any]) -> None:
    phase, done = line["phase"][:MAX_PHASE_LENGTH], _number(line, "done") or 0.0
    if progress.phase not in ("", phase):
        if len(progress.finished_phases) < MAX_PHASES:
            progress.finished_phases.append((progress.phase, progress.seconds))
        progress.loss = progress.gap = progress.baseline = None
    progress.phase, progress.done, progress.total = phase, int(done), int(_number(line, "total") or 0)
    progress.seconds = _number(line, "seconds") or 0.0
    progress.seconds_left = _seconds_left(progress, _number(line, "seconds_left"))
    loss, gap = _number(line, "loss"), _number(line, "gap")
    if loss is not None:
        progress.loss = loss
    if loss is not None and (phase in progress.losses or len(progress.losses) < MAX_PHASES):
        add_point(progress.losses.setdefault(phase, []), done, loss)
    if gap is not None:
        progress.gap = gap
        add_point(progress.gaps, done, gap)


def _seconds_left(progress: CommandProgress, reported: float | None) -> float | None:
    """Estimate the time left from this attempt's own steps; the reported estimate also counts steps of earlier attempts."""
    if not progress.done:
        return reported
    if progress.baseline is None:
        progress.baseline = (progress.done, progress.seconds)
    done, seconds = progress.done - progress.baseline[0], progress.seconds - progress.baseline[1]
    return seconds / done * (progress.total - progress.done) if done > 0 and seconds > 0 else reported


def _number(line: dict[str, Any], key: str) -> float | None:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else None


def add_point(points: Points, step: float, value: float) -> None:
    """Add a point; points of an earlier attempt at this step or later are removed."""
    while points and points[-1][0] >= step:
        points.pop()
    points.append((step, value))
    if len(points) > MAX_KEPT_POINTS:
        del points[1:-1:2]


def thin_out(points: Points) -> Points:
    """Reduce the points to as many as a chart can show; the last one is kept."""
    stride = max(1, len(points) // MAX_POINTS)
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def _limited_lines(file: BinaryIO) -> Iterator[str]:
    """Yield a file's lines up to the limits of size and number; a line that is too long is split."""
    with file:
        for _ in range(MAX_LINES):
            line = file.readline(MAX_LINE_BYTES)
            if not line or file.tell() > MAX_METRICS_BYTES:
                return
            yield line.decode("utf-8", errors="replace")


def read_metrics(path: Path) -> tuple[dict[str, Points], Points]:
    """Read losses by phase, and synthetic gaps, from metrics.jsonl: it has more points than the log, and exists without a Studio too."""
    losses: dict[str, Points] = {}
    gaps: Points = []
    try:
        file = open_plain_file(path, "metrics of a training", follow_links=False)
    except (BadInput, OSError):
        return losses, gaps
    for text in _limited_lines(file):
        line = _json_object(text) or {}
        step, loss, gap = _number(line, "step"), _number(line, "loss"), _number(line, "gap")
        if step is not None and loss is not None:
            phase = str(line.get("stage", "train"))[:MAX_PHASE_LENGTH]
            if phase in losses or len(losses) < MAX_PHASES:
                losses.setdefault(phase, []).append((step, loss))
        if step is not None and gap is not None:
            gaps.append((step, gap))
    return losses, gaps
