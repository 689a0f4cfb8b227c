"""A run that a stranger made: exporting or resuming it writes nothing outside its folder, never hangs, and fails with one line."""

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
from inspect_kd.datasets import open_for_recipe
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.export.deploy import load_deployment
from inspect_kd.training import artifacts, checkpoint, pipeline
from inspect_kd.training.job import Job
from inspect_kd.training.real_parts import open_real_parts
from inspect_kd.training.run import load_run
from inspect_kd.training.run.manifest import read_manifest
from inspect_kd.types import NoProgress
from tests.builders import make_job

RECIPE, CALIBRATION, STUDENT = "recipe.yaml", "calibration.json", "student.safetensors"


@pytest.fixture
def run_copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "r")


def change_run_json(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "run.json").read_text())
    edit(content)
    (folder / "run.json").write_text(json.dumps(content))


@contextmanager
def limited_resources(seconds: int = 15, megabytes: int = 2048) -> Iterator[None]:
    """Limit time and memory, for readers that would hang or read a device without end."""

    def fail(*_: object) -> None:
        raise AssertionError("hangs")

    former = signal.signal(signal.SIGALRM, fail)
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


def test_export_opens_no_data_manifest_that_a_run_names(run_copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    licence = {"name": "MIT", "commercial": True}
    data_manifest = {"name": "m", "title": "m", "licence": licence, "root": str(target), "source": {"drawn": 1}}
    (run_copy / "m.yaml").write_text(json.dumps(data_manifest))
    change_run_json(run_copy, lambda content: content["data"].update(source=str(run_copy / "m.yaml")))
    with (
        limited_resources(),
        pytest.raises(UsageError, match=r"is the manifest .*m\.yaml; if you trust that file, name it with --data"),
    ):
        artifacts.export_run(run_copy, "onnx", data=None, output=None, progress=NoProgress())
    assert not target.exists()


@pytest.mark.parametrize("source", [None, "", "nosuch", "/nowhere/at/all", "/dev/zero"])
def test_export_without_the_runs_data_set_asks_for_one(source: str | None, run_copy: Path) -> None:
    change_run_json(run_copy, lambda content: content["data"].update(source=source))
    with pytest.raises(UsageError, match="name one with --data"):
        artifacts.export_run(run_copy, "onnx", data=None, output=None, progress=NoProgress())


@pytest.mark.parametrize("name", ["onnx/../../victim/good", "../out", "/tmp/out", "", "."])
def test_deployment_refuses_a_path_as_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(json.dumps({"name": name, "target": "onnx", "accept": {"auroc": 1, "flips": 1}}))
    with pytest.raises(UsageError, match="name: string should match pattern"):
        load_deployment(str(path))


# ── files of a run ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def open_pipe(path: Path) -> Iterator[None]:
    """Make an empty named pipe and hold it open, so that opening it does not block: the alarm cannot interrupt blocked native code."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("name", [RECIPE, CALIBRATION, STUDENT])
@pytest.mark.parametrize("file_list", ["unchanged", "emptied"])
def test_run_with_a_pipe_is_refused(name: str, file_list: str, run_copy: Path) -> None:
    (run_copy / name).unlink()
    if file_list == "emptied":
        change_run_json(run_copy, lambda content: content.update(files={}))
    with (
        open_pipe(run_copy / name),
        limited_resources(),
        pytest.raises(BadInput, match=r"not a regular file|not those of a run"),
    ):
        load_run(run_copy)


@pytest.mark.parametrize("files", [{}, {RECIPE: "00"}, {"/proc/self/pagemap": "00"}, {"../run.json": "00"}])
def test_run_json_must_name_exactly_the_files_of_a_run(files: dict[str, str], run_copy: Path) -> None:
    change_run_json(run_copy, lambda content: content.update(files=files))
    with limited_resources(), pytest.raises(BadInput, match=r"run\.json: files: not those of a run"):
        load_run(run_copy)


@pytest.mark.parametrize("read", [config.read_yaml, config.read_recipe, read_calibration, weights.read_tensors])
def test_readers_refuse_pipes_and_devices(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    with open_pipe(tmp_path / "pipe"):
        for name in ("pipe", "zero"):
            with limited_resources(), pytest.raises(InspectKDError, match="not a regular file"):
                read(tmp_path / name)


def test_recipe_of_an_enormous_student_is_refused(run_copy: Path) -> None:
    recipe = run_copy / RECIPE
    content = json.loads(json.dumps(config.read_yaml(recipe)))
    content["student"]["dims"] = [60_000, 60_000, 60_000]
    recipe.write_text(json.dumps(content))
    change_run_json(run_copy, lambda content: content["files"].update({RECIPE: weights.sha256(recipe)}))
    with limited_resources(), pytest.raises(BadInput, match=r"recipe\.yaml: builds more than .* weights"):
        load_run(run_copy)


def test_run_json_of_many_megabytes_is_refused(run_copy: Path) -> None:
    change_run_json(run_copy, lambda content: content.update(more="x" * 8_000_000))
    with pytest.raises(BadInput, match=r"exceeds the limit of"):
        read_manifest(run_copy / "run.json")


# ── resume ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

Tensors, State = dict[str, torch.Tensor], dict[str, Any]
StoppedRun = tuple[Job, Tensors, State]


@pytest.fixture
def stopped_run(run: Path, parts: Path, tmp_path: Path) -> StoppedRun:
    """A run that was stopped after its last step: its job, and tensors and state of its checkpoint."""
    finished, folder = load_run(run), tmp_path / "stopped"
    folder.mkdir()
    for name in (RECIPE, "env.json", "metrics.jsonl"):
        shutil.copy(run / name, folder / name)
    recipe = finished.recipe
    job = make_job(recipe, open_for_recipe(str(parts), recipe), folder)
    trained = checkpoint.trained_state(finished.model)
    tensors = {f"{prefix}/{key}": value for prefix in ("student", "best") for key, value in trained.items()}
    state = checkpoint.TrainingState(
        step=recipe.fit.steps,
        best_step=recipe.fit.steps,
        best_gap=0.5,
        recipe=recipe.digest(),
        data=job.data.digest,
        real=open_real_parts(job).digest,
    )
    return job, tensors, asdict(state)


def resume(job: Job, tensors: Tensors, state: State) -> None:
    contiguous = {key: value.clone().contiguous() for key, value in tensors.items()}
    job.folder.checkpoint.write_bytes(save(contiguous, metadata={"progress": json.dumps(state)}))
    with limited_resources(60, 8192):
        pipeline.train(job, resume=True)


def drop_tensors(prefix: str) -> Callable[[Tensors, State], object]:
    def edit(tensors: Tensors, state: State) -> None:
        for key in [key for key in tensors if key.startswith(prefix)]:
            del tensors[key]

    return edit


def replace_first(prefix: str, value: torch.Tensor) -> Callable[[Tensors, State], object]:
    return lambda tensors, state: tensors.update({next(key for key in tensors if key.startswith(prefix)): value})


def set_optimizer_state(**values: torch.Tensor) -> Callable[[Tensors, State], object]:
    """Give the optimizer this state for its first parameter, and leave one step to train."""

    def edit(tensors: Tensors, state: State) -> None:
        state["step"] -= 1
        tensors.update({f"optimizer/0/{key}": value for key, value in values.items()})

    return edit


ONE = torch.ones(1)
EDITS: dict[str, Callable[[Tensors, State], object]] = {
    "no weights at all": lambda tensors, state: (drop_tensors("")(tensors, state), tensors.update(other=ONE)),
    "no best weights": drop_tensors("best/"),
    "one weight missing": drop_tensors("student/neck"),
    "best weights of another shape": replace_first("best/", torch.zeros(7, 7)),
    "weights of the frozen encoder": lambda tensors, state: tensors.update({"best/encoder.mean": ONE}),
    "optimizer state without its step": set_optimizer_state(exp_avg=ONE, exp_avg_sq=ONE),
    "optimizer state of other shapes": set_optimizer_state(
        step=torch.tensor(3.0), exp_avg=torch.zeros(7, 7), exp_avg_sq=torch.zeros(7, 7)
    ),
    "optimizer state of an unknown parameter": lambda tensors, state: tensors.update({"optimizer/99999/step": ONE}),
    "optimizer state under an unreadable key": lambda tensors, state: tensors.update({"optimizer/x": ONE}),
    "negative step": lambda tensors, state: state.update(step=-3),
    "negative number of stale evaluations": lambda tensors, state: state.update(stale=-(2**40)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_resume_refuses_a_checkpoint_that_does_not_fit(edit: str, stopped_run: StoppedRun) -> None:
    job, tensors, state = stopped_run
    EDITS[edit](tensors, state)
    with pytest.raises(BadInput, match=r"checkpoint\.safetensors: ") as refused:
        resume(job, tensors, state)
    assert "\n" not in str(refused.value)
    assert not job.folder.is_complete


def plant_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize("plant", [plant_text("[]"), plant_text("{"), os.mkfifo], ids=["list", "torn", "pipe"])
def test_resume_refuses_an_unreadable_environment_before_training(
    plant: Callable[[Path], object], stopped_run: StoppedRun
) -> None:
    job, tensors, state = stopped_run
    job.folder.environment.unlink()
    plant(job.folder.environment)
    with pytest.raises(BadInput, match=r"env\.json: "):
        resume(job, tensors, state)
    assert not job.folder.is_complete and not job.folder.calibration.exists()


def test_resume_refuses_another_recipe_before_other_weights(stopped_run: StoppedRun) -> None:
    """The weights differ as well, but the error names the recipe, which the user can correct."""
    job, tensors, state = stopped_run
    state["recipe"] = "another"
    drop_tensors("student/")(tensors, state)
    with pytest.raises(UsageError, match="begun with another recipe"):
        resume(job, tensors, state)
