"""A run's folder: what is in it, when it is complete, how a student comes back from it.

The manifest `run.json` is written last: where it exists, everything else does too.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import save

from inspect_kd import __version__, atomic_write, config, registry, weights
from inspect_kd.calibrate import Calibration, read_calibration
from inspect_kd.config import Recipe
from inspect_kd.datasets.splits import Holdout
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.file_lock import hold_lock
from inspect_kd.former_names import rename_weights
from inspect_kd.models.base import Student, Teacher, WeightsSource
from inspect_kd.models.encoders import EncoderSpec, build_encoder, empty_encoder
from inspect_kd.train.manifest import read_manifest, refuse_changed_files
from inspect_kd.train.weight_limit import WeightLimit
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
FOLDER_OF_ALL = "INSPECT_KD_RUN_FOLDER"
"""Handed from the first process of a training on several devices to the others."""


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
    def teacher(self) -> Path:
        return self.path / "teacher.safetensors"

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

    def artifact(self, deployment: str = "onnx", target: str = "onnx", suffix: str = ".onnx") -> Path:
        """`<run>.onnx`; `onnx_fp16` gives `<run>.fp16.onnx`, a target's own suffix tells its runtime."""
        special = deployment.removeprefix(target).strip("_")
        return self.path / f"{self.path.name}{'.' if special else ''}{special}{suffix}"

    @property
    def complete(self) -> bool:
        return self.manifest.is_file()


def choose_folder(out: Path, name: str, *, resume: bool) -> RunFolder:
    """The folder to train into: never over a complete run, never over an unfinished one without being told."""
    if not name.isprintable():
        raise UsageError(f"--name {name}: the artifact carries the run's name, which must be printable text")
    folder = RunFolder(out / name)
    if resume:
        if folder.complete:
            raise UsageError(f"{folder.path} is complete: nothing to resume. Leave --resume out to train anew")
        if not folder.recipe.is_file():
            raise UsageError(f"nothing to resume at {folder.path}")
        return folder
    if folder.recipe.is_file() and not folder.complete:
        with hold_run(folder):  # a run that is being trained is unfinished, too
            raise UsageError(f"{folder.path} holds an unfinished run: go on with --resume, or choose another --name")
    number = 2
    while folder.complete:
        folder = RunFolder(out / f"{name}-{number}")
        number += 1
    return folder


@contextlib.contextmanager
def hold_run(folder: RunFolder, *, may_be_complete: bool = False) -> Iterator[None]:
    """Keep other trainings out of a run's folder for the time of a block."""
    if is_helper_process():
        yield  # the process that started this one holds it
        return
    way_out = "wait until it has ended, or choose another --name"
    with hold_lock(folder.path / ".lock", str(folder.path), way_out):
        if folder.complete and not may_be_complete:
            raise UsageError(f"{folder.path}: another training has just completed this run; choose another --name")
        yield


def is_helper_process() -> bool:
    """Whether this is one of several devices' processes, and not the first, which started it and chose the folder."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and FOLDER_OF_ALL in os.environ


def resolved(recipe: Recipe) -> Recipe:
    """With all of the model's settings written out: a later default must not change what a run is."""
    module, settings = _model_of(recipe)
    section = "student" if recipe.student else "teacher"
    return recipe.model_copy(update={section: {"build": module.__name__.rpartition(".")[2], **asdict(settings)}})


def _model_of(recipe: Recipe) -> tuple[ModuleType, Any]:
    """The file that builds the recipe's model, and its filled settings."""
    options = dict(recipe.student or recipe.teacher)
    module = registry.load(recipe.family, options.pop("build", ""))
    return module, config.fill(
        module.Config, options, where=f"recipe {recipe.name}, {'student' if recipe.student else 'teacher'}"
    )


def view_of(recipe: Recipe) -> View:
    return View(size=recipe.data.size, tile=recipe.data.tile, overlap=recipe.data.overlap)


def holdout_of(recipe: Recipe) -> Holdout:
    settings = recipe.data
    return Holdout(
        seed=recipe.fit.seed, calibration=settings.calibration, validation=settings.validation, test=settings.test
    )


def build_student(recipe: Recipe, spec: EncoderSpec | None = None) -> Student:
    """A student with a pretrained encoder, or, given a spec, one whose weights are still to be loaded."""
    if not recipe.student:
        raise UsageError(f"recipe {recipe.name} has a teacher, not a student")
    module, settings = _model_of(recipe)
    if spec is not None and (spec.name, spec.strides) != (settings.encoder, tuple(settings.strides)):
        raise BadInput(
            f"the run's encoder is {spec.name} with strides {spec.strides}; its recipe has {settings.encoder} with {settings.strides}"
        )
    encoder = build_encoder(settings.encoder, settings.strides) if spec is None else empty_encoder(spec)
    student: Student = module.build(settings, encoder)
    return student


def build_teacher(recipe: Recipe) -> Teacher:
    """A teacher on its frozen base, which has learnt nothing yet."""
    if not recipe.teacher:
        raise UsageError(f"recipe {recipe.name} has a student, not a teacher")
    module, settings = _model_of(recipe)
    teacher: Teacher = module.build(settings, recipe.data.size)
    return teacher


def sources_of(model: Student | Teacher) -> tuple[WeightsSource, ...]:
    """Every set of weights under a model."""
    if isinstance(model, Teacher):
        return model.sources
    encoder: Any = model.encoder
    spec: EncoderSpec = encoder.spec
    return (WeightsSource(name=spec.name, licence=spec.licence, origin=spec.source, sha256=spec.sha256),)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """Everything that a complete run is worth."""

    folder: RunFolder
    recipe: Recipe
    model: Student | Teacher
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
    manifest = read_manifest(folder.manifest)
    always = {folder.recipe.name, folder.calibration.name}
    refuse_changed_files(
        path, manifest["files"], [frozenset({*always, file.name}) for file in (folder.student, folder.teacher)]
    )
    recipe = config.read_recipe(folder.recipe)
    model = _student_again(folder, recipe, manifest) if recipe.student else _teacher_again(folder, recipe, manifest)
    calibration = read_calibration(folder.calibration)
    return FinishedRun(folder=folder, recipe=recipe, model=model.eval(), calibration=calibration, manifest=manifest)


def _student_again(folder: RunFolder, recipe: Recipe, manifest: dict[str, Any]) -> Student:
    where = f"{folder.manifest}: encoder"
    if manifest.get("encoder") is None:
        raise BadInput(f"{where}: missing; a student has one: train the run again")
    spec = config.fill(EncoderSpec, manifest["encoder"], where=where, fault=BadInput)
    with WeightLimit(str(folder.recipe)):
        student = build_student(recipe, spec)
    try:
        student.load_state_dict(rename_weights(weights.load_state(folder.student)))
    except RuntimeError as error:
        raise BadInput(f"{folder.student}: not the weights of its recipe ({weights.in_short(error)})") from error
    return student


def _teacher_again(folder: RunFolder, recipe: Recipe, manifest: dict[str, Any]) -> Teacher:
    """What it learnt, put back on its base, which must be the very one that it learnt on."""
    teacher = build_teacher(recipe)
    if len(teacher.sources) != len(manifest["sources"]):
        raise BadInput(
            f"{folder.manifest}: sources: {len(teacher.sources)} are needed, as many as the teacher stands on"
        )
    for source, kept in zip(teacher.sources, manifest["sources"], strict=True):
        if source.sha256 != kept["sha256"]:
            raise BadInput(
                f"{folder.path}: {source.name} ({source.origin}) is not the file that the teacher was trained on"
            )
    learnt = weights.load_state(folder.teacher)
    if learnt.keys() != teacher.adapted_state().keys():
        raise BadInput(f"{folder.teacher}: not what a {recipe.teacher['build']} learns")
    try:
        teacher.load_state_dict(learnt, strict=False)
    except RuntimeError as error:
        raise BadInput(f"{folder.teacher}: not the weights of its recipe ({weights.in_short(error)})") from error
    teacher.release_training_state()
    return teacher


def open_folder(folder: RunFolder, recipe: Recipe, device: str) -> None:
    """Begin a run: its recipe, and where it was trained."""
    folder.path.mkdir(parents=True, exist_ok=True)
    atomic_write.write_text(folder.recipe, f"# inspect-kd train --model {folder.recipe} --data …\n{recipe.to_yaml()}")
    write_json(folder.environment, environment(device))


def write_json(path: Path, content: Any) -> None:
    atomic_write.write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def save_model(folder: RunFolder, model: Student | Teacher) -> Path:
    """A student whole; of a teacher what it has learnt, with the name, licence and digest of what it stands on."""
    if isinstance(model, Teacher):
        path, tensors = folder.teacher, model.adapted_state()
    else:
        path, tensors = folder.student, model.state_dict()
    about = {"sources": json.dumps([asdict(source) for source in sources_of(model)])}
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata=about)
    atomic_write.write_bytes(path, content)
    return path


def write_manifest(folder: RunFolder, model: Student | Teacher, facts: dict[str, Any]) -> None:
    written = folder.teacher if isinstance(model, Teacher) else folder.student
    digests = {file.name: weights.sha256(file) for file in (folder.recipe, written, folder.calibration)}
    stands_on: dict[str, Any] = {"sources": [asdict(source) for source in sources_of(model)]}
    if isinstance(model, Student):
        encoder: Any = model.encoder
        stands_on["encoder"] = asdict(encoder.spec)
    write_json(folder.manifest, {"schema": 1, **facts, **stands_on, "files": digests})


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
        "commit": commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": now(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The checkout's commit, where the package runs from one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None  # no git on this machine
    return answer.stdout.strip() or None
