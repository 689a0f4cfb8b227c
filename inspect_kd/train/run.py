"""A run's folder: what is in it, when it is complete, how a student comes back from it.

The manifest `run.json` is written last: where it exists, everything else does too.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspect_kd import __version__, config, registry, weights
from inspect_kd.calibrate import Calibration
from inspect_kd.config import Recipe
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Student
from inspect_kd.models.encoders import EncoderSpec, build_encoder, empty_encoder
from inspect_kd.versions import installed

PACKAGES = (
    "torch",
    "torchvision",
    "anomalib",
    "timm",
    "lightning",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "numpy",
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of everything in a run."""

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
    def calibration(self) -> Path:
        return self.path / "calibration.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def report_data(self) -> Path:
        return self.path / "report.json"

    @property
    def manifest(self) -> Path:
        return self.path / "run.json"

    def artifact(self, deployment: str = "onnx", suffix: str = ".onnx") -> Path:
        """`<run>.onnx`; other deployments carry their name."""
        middle = "" if deployment == "onnx" else f".{deployment.removeprefix('onnx_')}"
        return self.path / f"{self.path.name}{middle}{suffix}"

    @property
    def complete(self) -> bool:
        return self.manifest.is_file()


def choose_folder(out: Path, name: str, *, resume: bool) -> RunFolder:
    """The folder to train into: never over a complete run, never over an unfinished one without being told."""
    folder = RunFolder(out / name)
    if resume:
        if folder.complete:
            raise UsageError(f"{folder.path} is complete: nothing to resume. Leave --resume out to train anew")
        if not folder.recipe.is_file():
            raise UsageError(f"nothing to resume at {folder.path}")
        return folder
    if folder.recipe.is_file() and not folder.complete:
        raise UsageError(f"{folder.path} holds an unfinished run: go on with --resume, or choose another --name")
    number = 2
    while folder.complete:
        folder = RunFolder(out / f"{name}-{number}")
        number += 1
    return folder


def resolved(recipe: Recipe) -> Recipe:
    """With all of the student's settings written out: a later default must not change what a run is."""
    options = dict(recipe.student)
    module = registry.load("models.students", options.pop("build", ""))
    settings = config.fill(module.Config, options, where=f"recipe {recipe.name}, student")
    return recipe.model_copy(update={"student": {"build": recipe.student["build"], **asdict(settings)}})


def view_of(recipe: Recipe) -> View:
    return View(size=recipe.data.size, tile=recipe.data.tile, overlap=recipe.data.overlap)


def build_student(recipe: Recipe, spec: EncoderSpec | None = None) -> Student:
    """A student with a pretrained encoder, or, given a spec, one whose weights are still to be loaded."""
    options = dict(recipe.student)
    module = registry.load("models.students", options.pop("build", ""))
    settings = config.fill(module.Config, options, where=f"recipe {recipe.name}, student")
    encoder = build_encoder(settings.encoder, settings.strides) if spec is None else empty_encoder(spec)
    student: Student = module.build(settings, encoder)
    return student


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """Everything that a complete run is worth."""

    folder: RunFolder
    recipe: Recipe
    student: Student
    calibration: Calibration
    manifest: dict[str, Any]


def load_run(path: Path) -> FinishedRun:
    """Read a complete run; its files must still be those that its manifest names."""
    folder = RunFolder(path)
    if not folder.complete:
        hint = (
            "the training is unfinished: go on with `inspect-kd train --resume`"
            if folder.recipe.is_file()
            else "no run there"
        )
        raise BadInput(f"{path}: {hint}")
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    for name, digest in manifest["files"].items():
        if not (path / name).is_file() or weights.sha256(path / name) != digest:
            raise BadInput(f"{path / name}: missing, or changed since the training wrote it")
    recipe = config.fill(Recipe, config.read_yaml(folder.recipe), where=str(folder.recipe))
    student = build_student(recipe, EncoderSpec(**_tuples(manifest["encoder"])))
    student.load_state_dict(weights.load_state(folder.student))
    calibration = Calibration.from_json(json.loads(folder.calibration.read_text(encoding="utf-8")))
    return FinishedRun(folder=folder, recipe=recipe, student=student.eval(), calibration=calibration, manifest=manifest)


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def write_manifest(folder: RunFolder, student: Student, facts: dict[str, Any]) -> None:
    encoder: Any = student.encoder
    files = [folder.recipe, folder.student, folder.calibration]
    digests = {file.name: weights.sha256(file) for file in files}
    write_json(folder.manifest, {"schema": 1, **facts, "encoder": asdict(encoder.spec), "files": digests})


def environment(device: str) -> dict[str, Any]:
    """What would be asked first if somebody could not get the same numbers."""
    return {
        "inspect_kd": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
        "packages": installed(PACKAGES),
        "commit": _commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": now(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _commit() -> str | None:
    """The checkout's commit, where the package runs from one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def _tuples(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
