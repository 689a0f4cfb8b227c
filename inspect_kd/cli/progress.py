"""Show long work: a progress bar with the time left on a terminal, JSON lines elsewhere. Both go to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inspect_kd.types import Progress

SECONDS_BETWEEN_LINES = 2.0


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """A watch for the time of one command."""
    if quiet or not sys.stderr.isatty():
        yield JsonLines(quiet=quiet)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from inspect_kd.cli.console import PlainConsole

    columns = (
        TextColumn("{task.description:<10}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim", markup=False),
    )
    with Progress(*columns, console=PlainConsole(stderr=True)) as progress:
        yield Bars(progress)


class Bars:
    """One rich bar a phase; the finished ones stay in sight."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.task: Any = None
        self.figures: dict[str, float] = {}

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.figures = {}
        self.task = self.progress.add_task(name, total=total, completed=done, figures="")

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.figures |= figures
        text = "  ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        self.progress.update(self.task, advance=steps, figures=text)

    def note(self, text: str) -> None:
        self.progress.console.print(text)


class JsonLines:
    """A line every few seconds, and always the first and last of a phase."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.name, self.total, self.before, self.done = "", 0, 0, 0
        self.began = self.written_at = time.monotonic()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.name, self.total, self.before, self.done = name, total, done, done
        self.began = time.monotonic()
        self._tell({})

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.done += steps
        if self.done >= self.total or "gap" in figures or time.monotonic() - self.written_at > SECONDS_BETWEEN_LINES:
            self._tell(figures)

    def note(self, text: str) -> None:
        self._write({"say": text})

    def _tell(self, figures: dict[str, float]) -> None:
        self.written_at = time.monotonic()
        elapsed = self.written_at - self.began
        # What was done before this process began says nothing of how fast it is.
        here = self.done - self.before
        left = elapsed / here * (self.total - self.done) if here else None
        line = {"phase": self.name, "done": self.done, "total": self.total, "seconds": round(elapsed, 1)}
        self._write(line | ({} if left is None else {"seconds_left": round(left, 1)}) | figures)

    def _write(self, line: dict[str, Any]) -> None:
        if not self.quiet:
            print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)  # noqa: T201
