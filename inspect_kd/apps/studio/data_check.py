"""`inspect-kd data check` in a process of its own: a hostile image may take that process down, not the Studio."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from inspect_kd.apps.studio.data_folders import inside, shown_as
from inspect_kd.apps.studio.processes import ended_by
from inspect_kd.apps.studio.training_log import Figures, take
from inspect_kd.child_process import python_command, python_environment
from inspect_kd.errors import printable

MOST_FILES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One thing to know about a data set."""

    severity: str
    """error, warning or note"""
    text: str
    files: tuple[str, ...] = ()
    """By their names below the Studio's root."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What a data set holds and what is wrong with it; before the end, how far the look at it is."""

    folder: str
    done: int = 0
    total: int = 0
    over: bool = False
    layout: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Category -> split -> images."""
    defective: dict[str, int] = field(default_factory=dict)
    findings: tuple[Found, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether a training may be begun on it."""
        return self.over and not any(found.severity == "error" for found in self.findings)


def check(root: Path, given: str, scratch: Path) -> Iterator[Check]:
    """Progress, and last the answer. Who stops asking ends the process."""
    folder = inside(root, given)
    yield Check(folder=given)  # the process takes a second to begin
    scratch.mkdir(parents=True, exist_ok=True)
    figures = Figures()
    # To a file: the answer of a large data set would fill a pipe that nobody empties before the end.
    with TemporaryFile(dir=scratch) as answer:
        words = python_command("-m", "inspect_kd", "data", "check", str(folder), "--json")
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.PIPE, env=python_environment()
        )
        with child:
            try:
                for line in child.stderr or ():
                    take(figures, line.decode("utf-8", errors="replace").rstrip())
                    if figures.total:
                        yield Check(folder=given, done=figures.done, total=figures.total)
            except BaseException:  # also GeneratorExit: nobody waits for the answer any more
                child.kill()
                raise
        answer.seek(0)
        yield _answer(root, given, answer.read(), figures, child.returncode)


def _answer(root: Path, given: str, said: bytes, figures: Figures, code: int) -> Check:
    try:
        content = json.loads(said)
    except ValueError:
        text = _below(root, figures.complaint) or f"the check ended by {ended_by(code)}"
        return Check(folder=given, over=True, findings=(Found(severity="error", text=text),))
    return Check(
        folder=given,
        done=figures.total,
        total=figures.total,
        over=True,
        layout=content["layout"],
        counts=content["counts"],
        defective=content["defective"],
        findings=tuple(_found(root, each) for each in content["findings"]),
    )


def _found(root: Path, told: dict[str, Any]) -> Found:
    files = tuple(shown_as(root, Path(file)) for file in told["files"][:MOST_FILES])
    return Found(severity=told["severity"], text=_below(root, told["text"]), files=files)


def _below(root: Path, text: str) -> str:
    """Without the server's own folders in it, and printable: an answer to a browser holds nothing else."""
    home = printable(str(root.resolve()))
    return printable(text).replace(f"{home}{os.sep}", "").replace(home, ".")
