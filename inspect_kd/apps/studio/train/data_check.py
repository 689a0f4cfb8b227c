"""`inspect-kd data check` in a process of its own: a hostile image can crash that process, but not the Studio."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from inspect_kd.apps.studio.train.data_folders import display_path, folder_below
from inspect_kd.apps.studio.train.log import TrainingProgress, parse_line
from inspect_kd.apps.studio.train.processes import describe_exit
from inspect_kd.child_process import python_command, python_environment
from inspect_kd.errors import printable

MAX_FILES = 3
"""Files that one finding names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFinding:
    """Something to know about a data set."""

    severity: str
    """error, warning or note"""
    text: str
    files: tuple[str, ...] = ()
    """By their names below the Studio's data folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCheck:
    """What a data set contains and what is wrong with it; until `over`, how far the check is."""

    folder: str
    done: int = 0
    total: int = 0
    over: bool = False
    layout: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Category -> split -> images."""
    defective: dict[str, int] = field(default_factory=dict)
    findings: tuple[DataFinding, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether a training can be started on it."""
        return self.over and not any(finding.severity == "error" for finding in self.findings)


def check(root: Path, name: str, scratch: Path) -> Iterator[DataCheck]:
    """Check a folder below `root`: yield the progress, and last the result. Closing the iterator ends the process."""
    folder = folder_below(root, name)
    yield DataCheck(folder=name)  # the process takes a second to start
    scratch.mkdir(parents=True, exist_ok=True)
    progress = TrainingProgress()
    # To a file: the result of a large data set would fill a pipe that is not read before the end.
    with TemporaryFile(dir=scratch) as output:
        words = python_command("-m", "inspect_kd", "data", "check", str(folder), "--json")
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, env=python_environment()
        )
        with child:
            try:
                for line in child.stderr or ():
                    parse_line(progress, line.decode("utf-8", errors="replace").rstrip())
                    if progress.total:
                        yield DataCheck(folder=name, done=progress.done, total=progress.total)
            except BaseException:  # also GeneratorExit: the result is no longer wanted
                child.kill()
                raise
        output.seek(0)
        yield _result(root, name, output.read(), progress, child.returncode)


def _result(root: Path, name: str, output: bytes, progress: TrainingProgress, exit_code: int) -> DataCheck:
    try:
        content = json.loads(output)
    except ValueError:
        text = _hide_root(root, progress.error) or f"the check ended by {describe_exit(exit_code)}"
        return DataCheck(folder=name, over=True, findings=(DataFinding(severity="error", text=text),))
    return DataCheck(
        folder=name,
        done=progress.total,
        total=progress.total,
        over=True,
        layout=content["layout"],
        counts=content["counts"],
        defective=content["defective"],
        findings=tuple(_finding(root, each) for each in content["findings"]),
    )


def _finding(root: Path, content: dict[str, Any]) -> DataFinding:
    files = tuple(display_path(root, Path(file)) for file in content["files"][:MAX_FILES])
    return DataFinding(severity=content["severity"], text=_hide_root(root, content["text"]), files=files)


def _hide_root(root: Path, text: str) -> str:
    """Remove the server's own folders from a text for browsers, and make it printable."""
    home = printable(str(root.resolve()))
    return printable(text).replace(f"{home}{os.sep}", "").replace(home, ".")
