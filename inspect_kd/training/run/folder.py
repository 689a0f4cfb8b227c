"""The folder of a run: the names of its files, when it is complete, and who may write into it.

The manifest `run.json` is written last: where it exists, everything else does too.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inspect_kd.errors import UsageError
from inspect_kd.file_lock import hold_lock

RUN_FOLDER_VARIABLE = "INSPECT_KD_RUN_FOLDER"
"""Environment variable with which the first process of a multi-device training passes the run's folder to the others."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run's files."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "env.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def student(self) -> Path:
        return self.path / "student.safetensors"

    @property
    def teacher(self) -> Path:
        return self.path / "teacher.safetensors"

    @property
    def calibration(self) -> Path:
        return self.path / "calibration.json"

    @property
    def presentation(self) -> Path:
        return self.path / "presentation.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def report_data(self) -> Path:
        return self.path / "report.json"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures.jsonl"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def manifest(self) -> Path:
        return self.path / "run.json"

    def artifact(self, deployment: str = "onnx", target: str = "onnx", suffix: str = ".onnx") -> Path:
        """`<run>.onnx`; `onnx_fp16` gives `<run>.fp16.onnx`. The suffix of a target names its runtime."""
        variant = deployment.removeprefix(target).strip("_")
        return self.path / f"{self.path.name}{'.' if variant else ''}{variant}{suffix}"

    def is_own_name(self, name: str) -> bool:
        """True for names of files that a training or an export writes into the folder."""
        known = {path.name for path in (self.recipe, self.environment, self.metrics, self.checkpoint, self.student)}
        known |= {
            path.name for path in (self.teacher, self.calibration, self.presentation, self.report, self.report_data)
        }
        known |= {path.name for path in (self.pictures, self.manifest, self.lock)}
        artifact = rf"{re.escape(self.path.name)}(\.\w+)*\.onnx(\.sig|\.conversion\.(html|json))?"
        return name in known or re.fullmatch(artifact, name) is not None

    @property
    def is_complete(self) -> bool:
        return self.manifest.is_file()


def choose_folder(out: Path, name: str, *, resume: bool) -> RunFolder:
    """Choose the folder to train into: never a complete run's, and an unfinished run's only with `resume`."""
    if not name.isprintable():
        raise UsageError(f"--name {name}: the artifact carries the run's name, which must be printable text")
    folder = RunFolder(out / name)
    if resume:
        if folder.is_complete:
            raise UsageError(f"{folder.path} is complete: nothing to resume. Leave --resume out to train anew")
        if not folder.recipe.is_file():
            raise UsageError(f"nothing to resume at {folder.path}")
        return folder
    if folder.recipe.is_file() and not folder.is_complete:
        with hold_run(folder):  # raises where another process is training it
            raise UsageError(f"{folder.path} holds an unfinished run: go on with --resume, or choose another --name")
    number = 2
    while folder.is_complete:
        folder = RunFolder(out / f"{name}-{number}")
        number += 1
    return folder


@contextlib.contextmanager
def hold_run(folder: RunFolder, *, may_be_complete: bool = False) -> Iterator[None]:
    """Lock a run's folder against other trainings for the time of a block."""
    if is_started_by_rank_zero():
        yield  # the first process holds the lock for all
        return
    remedy = "wait until it has ended, or choose another --name"
    with hold_lock(folder.lock, str(folder.path), remedy):
        if folder.is_complete and not may_be_complete:
            raise UsageError(f"{folder.path}: another training has just completed this run; choose another --name")
        yield


def is_started_by_rank_zero() -> bool:
    """Whether this process was started by the first one of a training on several devices, which chose the folder."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and RUN_FOLDER_VARIABLE in os.environ
