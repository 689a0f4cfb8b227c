"""Show the progress of long work on stderr: bars with the remaining time on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inspect_kd.types import Progress

SECONDS_BETWEEN_LINES = 2.0
"""Least time between two JSON lines about the same phase."""


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress of one command during the block."""
    if quiet or not sys.stderr.isatty():
        yield JsonLines(quiet=quiet)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    from inspect_kd.plain_console import PlainConsole

    columns = (
        TextColumn("{task.description:<10}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim", markup=False),
    )
    progress = RichProgress(*columns, console=PlainConsole(stderr=True))
    try:
        yield Bars(progress)
    finally:
        progress.stop()


class Bars:
    """Shows one Rich bar for each phase; finished ones stay visible.

    Rich starts only at the first phase, because it captures stderr from then on, where libraries show bars of their own.
    """

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.task: Any = None
        self.figures: dict[str, float] = {}

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.figures = {}
        self.progress.start()
        if self.task is not None and self.progress.tasks[self.task].total is None:
            # The previous phase is over, so its number of steps is known now.
            self.progress.update(self.task, total=self.progress.tasks[self.task].completed)
        self.task = self.progress.add_task(name, total=total or None, completed=done, figures="")

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.figures |= figures
        text = "  ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        self.progress.update(self.task, advance=steps, figures=text)

    def note(self, text: str) -> None:
        self.progress.console.print(text)


class JsonLines:
    """Prints a JSON line every few seconds, at the start and the last step of a phase, and whenever the synthetic gap was measured."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.name, self.total, self.done_before, self.done = "", 0, 0, 0
        self.started_at = self.written_at = time.monotonic()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.name, self.total, self.done_before, self.done = name, total, done, done
        self.started_at = time.monotonic()
        self._write_state({})

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.done += steps
        is_last = self.total and self.done >= self.total
        if is_last or "gap" in figures or time.monotonic() - self.written_at > SECONDS_BETWEEN_LINES:
            self._write_state(figures)

    def note(self, text: str) -> None:
        self._write({"say": text})

    def _write_state(self, figures: dict[str, float]) -> None:
        self.written_at = time.monotonic()
        elapsed = self.written_at - self.started_at
        # Steps of an interrupted run do not count towards the speed.
        steps = self.done - self.done_before
        left = elapsed / steps * (self.total - self.done) if steps and self.total else None
        line = {"phase": self.name, "done": self.done, "total": self.total, "seconds": round(elapsed, 1)}
        self._write(line | ({} if left is None else {"seconds_left": round(left, 1)}) | figures)

    def _write(self, line: dict[str, Any]) -> None:
        if not self.quiet:
            print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)  # noqa: T201
