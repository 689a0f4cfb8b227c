"""Runs that a stranger made, exported or resumed: they write nowhere, wait for nothing and end in one line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from inspect_kd import config, weights
from inspect_kd.calibrate import read_calibration
from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet, open_dataset
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.export.deploy import load_deployment
from inspect_kd.train import artifacts, checkpoint
from inspect_kd.train.fit import fit
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.manifest import read_manifest
from inspect_kd.train.real_parts import real_parts
from inspect_kd.train.run import RunFolder, holdout_of, load_run
from inspect_kd.types import NoProgress

RECIPE, CALIBRATION, STUDENT = "recipe.yaml", "calibration.json", "student.safetensors"


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "r")


def change_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "run.json").read_text())
    edit(content)
    (folder / "run.json").write_text(json.dumps(content))


@contextmanager
def limited(seconds: int = 15, megabytes: int = 2048) -> Iterator[None]:
    """For a reader that would wait without end, or take all of a device."""

    def give_up(*_: object) -> None:
        raise AssertionError("waits without end")

    former = signal.signal(signal.SIGALRM, give_up)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, former)


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_export_opens_no_manifest_that_a_run_names(copied: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    licence = {"name": "MIT", "commercial": True}
    manifest = {"name": "m", "title": "m", "licence": licence, "root": str(target), "source": {"drawn": 1}}
    (copied / "m.yaml").write_text(json.dumps(manifest))
    change_manifest(copied, lambda content: content["data"].update(source=str(copied / "m.yaml")))
    with (
        limited(),
        pytest.raises(UsageError, match=r"is the manifest .*m\.yaml; if you trust that file, name it with --data"),
    ):
        artifacts.export_run(copied, "onnx", data=None, output=None, progress=NoProgress())
    assert not target.exists()


@pytest.mark.parametrize("source", [None, "", "nosuch", "/nowhere/at/all", "/dev/zero"])
def test_export_asks_for_data_where_the_runs_own_is_not_there(source: str | None, copied: Path) -> None:
    change_manifest(copied, lambda content: content["data"].update(source=source))
    with pytest.raises(UsageError, match="name one with --data"):
        artifacts.export_run(copied, "onnx", data=None, output=None, progress=NoProgress())


@pytest.mark.parametrize("name", ["onnx/../../victim/good", "../out", "/tmp/out", "", "."])
def test_name_of_a_deployment_is_no_path(name: str, tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(json.dumps({"name": name, "target": "onnx", "accept": {"auroc": 1, "flips": 1}}))
    with pytest.raises(UsageError, match="name: string should match pattern"):
        load_deployment(str(path))


# ── files of a run ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def pipe(path: Path) -> Iterator[None]:
    """A named pipe that can be opened at once, also by native code that no signal interrupts, and has nothing to read."""
    os.mkfifo(path)
    handle = os.open(path, os.O_RDWR)
    try:
        yield
    finally:
        os.close(handle)


@pytest.mark.parametrize("name", [RECIPE, CALIBRATION, STUDENT])
@pytest.mark.parametrize("files", ["kept", "emptied"])
def test_run_with_a_pipe_is_refused(name: str, files: str, copied: Path) -> None:
    (copied / name).unlink()
    if files == "emptied":
        change_manifest(copied, lambda content: content.update(files={}))
    with pipe(copied / name), limited(), pytest.raises(BadInput, match=r"not a regular file|not those of a run"):
        load_run(copied)


@pytest.mark.parametrize("files", [{}, {RECIPE: "00"}, {"/proc/self/pagemap": "00"}, {"../run.json": "00"}])
def test_manifest_names_exactly_the_files_of_a_run(files: dict[str, str], copied: Path) -> None:
    change_manifest(copied, lambda content: content.update(files=files))
    with limited(), pytest.raises(BadInput, match=r"run\.json: files: not those of a run"):
        load_run(copied)


@pytest.mark.parametrize("read", [config.read_yaml, config.read_recipe, read_calibration, weights.read_tensors])
def test_readers_refuse_pipes_and_devices(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pipe(tmp_path / "pipe"):
        for name in ("pipe", "zero"):
            with limited(), pytest.raises(InspectKDError, match="not a regular file"):
                read(tmp_path / name)


def test_recipe_that_builds_an_enormous_student_is_refused(copied: Path) -> None:
    recipe = copied / RECIPE
    content = json.loads(json.dumps(config.read_yaml(recipe)))
    content["student"]["dims"] = [60_000, 60_000, 60_000]
    recipe.write_text(json.dumps(content))
    change_manifest(copied, lambda manifest: manifest["files"].update({RECIPE: weights.sha256(recipe)}))
    with limited(), pytest.raises(BadInput, match=r"recipe\.yaml: builds more than .* weights"):
        load_run(copied)


def test_manifest_of_many_megabytes_is_not_read(copied: Path) -> None:
    change_manifest(copied, lambda content: content.update(more="x" * 8_000_000))
    with pytest.raises(BadInput, match=r"at most .* are read"):
        read_manifest(copied / "run.json")


# ── resume ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

Tensors = dict[str, torch.Tensor]
Progress = dict[str, Any]


@pytest.fixture
def resumable(run: Path, parts: Path, tmp_path: Path) -> tuple[Recipe, DataSet, RunFolder, Tensors, Progress]:
    """A run as one whose training was stopped after its last step; its checkpoint's tensors and progress."""
    finished, folder = load_run(run), RunFolder(tmp_path / "stopped")
    folder.path.mkdir()
    for name in (RECIPE, "env.json", "metrics.jsonl"):
        shutil.copy(run / name, folder.path / name)
    recipe = finished.recipe
    data = open_dataset(str(parts), holdout=holdout_of(recipe))
    trained = checkpoint.trained_state(finished.model)
    tensors = {f"{part}/{key}": value for part in ("student", "best") for key, value in trained.items()}
    state = checkpoint.TrainingState(
        step=recipe.fit.steps, best_step=recipe.fit.steps, best_gap=0.5, recipe=recipe.digest(), data=data.digest
    )
    state.real = real_parts(recipe, data, NoProgress()).digest
    return recipe, data, folder, tensors, asdict(state)


def resume(recipe: Recipe, data: DataSet, folder: RunFolder, tensors: Tensors, progress: Progress) -> None:
    whole = {key: value.clone().contiguous() for key, value in tensors.items()}
    folder.checkpoint.write_bytes(save(whole, metadata={"progress": json.dumps(progress)}))
    with limited(60, 8192):
        fit(recipe, data, folder, hardware=Hardware(device="cpu"), progress=NoProgress(), resume=True)


def drop(part: str) -> Callable[[Tensors, Progress], object]:
    def edit(tensors: Tensors, progress: Progress) -> None:
        for key in [key for key in tensors if key.startswith(part)]:
            del tensors[key]

    return edit


def replace_first(part: str, value: torch.Tensor) -> Callable[[Tensors, Progress], object]:
    return lambda tensors, progress: tensors.update({next(key for key in tensors if key.startswith(part)): value})


def moments(**state: torch.Tensor) -> Callable[[Tensors, Progress], object]:
    """The optimiser's state of its first parameter, and a step that is still to do."""

    def edit(tensors: Tensors, progress: Progress) -> None:
        progress["step"] -= 1
        tensors.update({f"optimizer/0/{key}": value for key, value in state.items()})

    return edit


ONE = torch.ones(1)
DAMAGES: dict[str, Callable[[Tensors, Progress], object]] = {
    "no weights at all": lambda tensors, progress: (drop("")(tensors, progress), tensors.update(other=ONE)),
    "no best weights": drop("best/"),
    "one weight missing": drop("student/neck"),
    "best weights of another shape": replace_first("best/", torch.zeros(7, 7)),
    "weights of the frozen encoder": lambda tensors, progress: tensors.update({"best/encoder.mean": ONE}),
    "optimiser without its step": moments(exp_avg=ONE, exp_avg_sq=ONE),
    "optimiser of other shapes": moments(
        step=torch.tensor(3.0), exp_avg=torch.zeros(7, 7), exp_avg_sq=torch.zeros(7, 7)
    ),
    "optimiser of no parameter": lambda tensors, progress: tensors.update({"optimizer/99999/step": ONE}),
    "optimiser of unreadable keys": lambda tensors, progress: tensors.update({"optimizer/x": ONE}),
    "negative step": lambda tensors, progress: progress.update(step=-3),
    "negative patience": lambda tensors, progress: progress.update(stale=-(2**40)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_resume_refuses_a_checkpoint_that_does_not_fit(
    damage: str, resumable: tuple[Recipe, DataSet, RunFolder, Tensors, Progress]
) -> None:
    recipe, data, folder, tensors, progress = resumable
    DAMAGES[damage](tensors, progress)
    with pytest.raises(BadInput, match=r"checkpoint\.safetensors: ") as refused:
        resume(recipe, data, folder, tensors, progress)
    assert "\n" not in str(refused.value)
    assert not folder.complete


def plant_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize("plant", [plant_text("[]"), plant_text("{"), os.mkfifo], ids=["list", "torn", "pipe"])
def test_resume_refuses_an_unreadable_environment_before_it_trains(
    plant: Callable[[Path], object], resumable: tuple[Recipe, DataSet, RunFolder, Tensors, Progress]
) -> None:
    recipe, data, folder, tensors, progress = resumable
    folder.environment.unlink()
    plant(folder.environment)
    with pytest.raises(BadInput, match=r"env\.json: "):
        resume(recipe, data, folder, tensors, progress)
    assert not folder.complete and not folder.calibration.exists()


def test_checkpoint_of_another_recipe_is_named_as_such(
    resumable: tuple[Recipe, DataSet, RunFolder, Tensors, Progress],
) -> None:
    """Its weights differ, too: what the user can do is said first."""
    recipe, data, folder, tensors, progress = resumable
    progress["recipe"] = "another"
    drop("student/")(tensors, progress)
    with pytest.raises(UsageError, match="begun with another recipe"):
        resume(recipe, data, folder, tensors, progress)
