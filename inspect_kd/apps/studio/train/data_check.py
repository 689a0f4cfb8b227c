"""Run `inspect-kd data check` in a separate process: a hostile image can crash that process, but not the Studio."""

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
from inspect_kd.apps.studio.train.log import CommandProgress, parse_line
from inspect_kd.apps.studio.train.processes import describe_exit
from inspect_kd.child_process import python_command, python_environment
from inspect_kd.errors import printable

MAX_FILES = 3
"""Limit of the files that one finding names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFinding:
    """A problem or a note about a data set."""

    severity: str
    """error, warning, advice or note"""
    text: str
    files: tuple[str, ...] = ()
    """Their paths below the Studio's data folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCheck:
    """What a data set contains and what is wrong with it, or the progress of the check."""

    folder: str
    done: int = 0
    total: int = 0
    over: bool = False
    """Whether the check has finished."""
    layout: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Category -> split -> images."""
    defective: dict[str, int] = field(default_factory=dict)
    """Category -> defective images."""
    findings: tuple[DataFinding, ...] = ()

    @property
    def is_trainable(self) -> bool:
        """Whether a training can be started on the data set."""
        return self.over and not any(finding.severity == "error" for finding in self.findings)


def check(root: Path, name: str, scratch: Path) -> Iterator[DataCheck]:
    """Check a folder below `root`: yield the progress, and last the result. Closing the iterator ends the process."""
    folder = folder_below(root, name)
    yield DataCheck(folder=name)  # the process takes a second to start
    scratch.mkdir(parents=True, exist_ok=True)
    progress = CommandProgress()
    # The output goes to a file: a large result would fill a pipe, which is only read at the end.
    with TemporaryFile(dir=scratch) as output:
        arguments = python_command("-m", "inspect_kd", "data", "check", str(folder), "--json")
        child = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, env=python_environment()
        )
        with child:
            try:
                for line in child.stderr or ():
                    parse_line(progress, line.decode("utf-8", errors="replace").rstrip())
                    if progress.total:
                        yield DataCheck(folder=name, done=progress.done, total=progress.total)
            except BaseException:  # also GeneratorExit, when the caller closes the iterator
                child.kill()
                raise
        output.seek(0)
        yield _result(root, name, output.read(), progress, child.returncode)


def _result(root: Path, name: str, output: bytes, progress: CommandProgress, exit_code: int) -> DataCheck:
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
        findings=(
            *(_finding(root, finding) for finding in content["findings"]),
            *(_advice(root, advice) for advice in content["advice"]),
        ),
    )


def _finding(root: Path, content: dict[str, Any]) -> DataFinding:
    files = tuple(display_path(root, Path(file)) for file in content["files"][:MAX_FILES])
    return DataFinding(severity=content["severity"], text=_hide_root(root, content["text"]), files=files)


def _advice(root: Path, content: dict[str, Any]) -> DataFinding:
    """Turn a piece of advice on the pictures into a finding; it is only a note if the training follows it by itself."""
    text = f"{content['category']}: {content['text']}; {content['remedy']}"
    command = f": {content['command']}" if content["command"] else ""
    severity = "note" if content["done"] else "advice"
    return _finding(root, {"severity": severity, "text": text + command, "files": content["files"]})


def _hide_root(root: Path, text: str) -> str:
    """Remove the server's own folders from a text for browsers, and make it printable."""
    home = printable(str(root.resolve()))
    return printable(text).replace(f"{home}{os.sep}", "").replace(home, ".")
