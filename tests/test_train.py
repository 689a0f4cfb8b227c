"""Training a small student through the command line: its run, resume after a kill, early stopping, several devices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inspect_kd.calibrate import Calibration
from inspect_kd.config import Fit, load_recipe
from inspect_kd.datasets import open_dataset
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.training import pipeline
from inspect_kd.training.checkpoint import TrainingState
from inspect_kd.training.early_stop import record_gap, should_stop
from inspect_kd.training.run import choose_folder, load_run
from inspect_kd.training.schedule import learning_rate
from tests.builders import InterruptedProgress, make_job
from tests.planted import executed_modules, plant_modules
from tests.tiny import command


def test_run_holds_every_file(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "recipe.yaml",
        "env.json",
        "metrics.jsonl",
        "student.safetensors",
        "calibration.json",
        "presentation.json",
        "report.html",
        "report.json",
        "pictures.jsonl",
        "run.json",
        "r.onnx",
    }
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["steps"] == 24 and set(manifest["metrics"]) == {"board", "bottle", "fabric", "metal", "mean"}
    assert manifest["parity"]["onnx"]["flips"] == 0
    environment = json.loads((run / "env.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] and environment["device"] == "cpu"
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 25))


def test_resolved_recipe_trains_to_the_same_weights(run: Path, parts: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    job = make_job(load_recipe(str(run / "recipe.yaml")), open_dataset(parts), tmp_path / "r")
    repeated = pipeline.train(job)
    first, second = load_file(run / "student.safetensors"), load_file(repeated.student)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_training_resumes_to_the_same_weights(run: Path, parts: Path, tmp_path: Path, seed: int) -> None:
    """The training is killed at a random step; its student equals that of the uninterrupted one bit for bit."""
    kill_step = 3 + (int.from_bytes(os.urandom(2), "big") + seed * 7) % 18
    process = subprocess.Popen(command(parts, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (log.is_file() and len(log.read_text().splitlines()) >= kill_step):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "r" / "run.json").exists()
    with pytest.raises(UsageError, match="go on with --resume"):
        choose_folder(tmp_path, "r", resume=False)
    answer = subprocess.run(command(parts, tmp_path, "--resume"), capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "resuming at step" in answer.stderr
    first, second = load_file(run / "student.safetensors"), load_file(tmp_path / "r" / "student.safetensors")
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert (run / "metrics.jsonl").read_text() == log.read_text()
    assert (run / "calibration.json").read_text() == (tmp_path / "r" / "calibration.json").read_text()


def test_second_training_of_one_name_is_refused_while_the_first_runs(parts: Path, tmp_path: Path) -> None:
    """Both trainings start at the same moment, before either has written anything."""
    words = command(parts, tmp_path, "--set", "fit.steps=100000", "--set", "fit.evaluate_every=100000")
    trainings = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and all(training.poll() is None for training in trainings):
            time.sleep(0.05)
        refused, running = sorted(trainings, key=lambda training: training.poll() is None)
        assert refused.poll() == 4 and running.poll() is None, "both train into one folder"
        *_, line = refused.stderr.read().strip().splitlines()  # type: ignore[union-attr]
        assert f"{tmp_path / 'r'} is in use by process {running.pid} on {socket.gethostname()} since " in line
        assert line.endswith("wait until it has ended, or choose another --name")
        log = tmp_path / "r" / "metrics.jsonl"
        while time.monotonic() < deadline and not (log.is_file() and log.read_text()):
            assert running.poll() is None
            time.sleep(0.05)
        # A running training is not reported as unfinished, and --resume is refused as well.
        in_use = f"in use by process {running.pid} "
        with pytest.raises(EnvironmentFault, match=in_use):
            choose_folder(tmp_path, "r", resume=False)
        resumed = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
        assert resumed.returncode == 4 and in_use in resumed.stderr
    finally:
        for training in trainings:
            training.kill()
            training.wait()
            training.stderr.close()  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="go on with --resume"):
        choose_folder(tmp_path, "r", resume=False)


def test_resume_needs_an_unfinished_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is complete: nothing to resume"):
        choose_folder(run.parent, "r", resume=True)
    with pytest.raises(UsageError, match="nothing to resume at"):
        choose_folder(tmp_path, "none", resume=True)


@pytest.mark.parametrize(
    ("changes", "data", "error"),
    [(["fit.learning_rate=0.001"], "parts", "begun with another recipe"), ([], "other", "data set has changed")],
)
def test_resume_refuses_another_recipe_or_other_data(
    changes: list[str], data: str, error: str, run: Path, parts: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(str(run / "recipe.yaml"))
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(make_job(recipe, open_dataset(parts), tmp_path / "r", progress=InterruptedProgress("calibrate")))
    # Without distillation a checkpoint was written every second step of the fit.
    other = load_recipe(str(run / "recipe.yaml"), changes)
    data_set = open_dataset(parts) if data == "parts" else open_dataset(parts).only("metal")
    with pytest.raises((UsageError, BadInput), match=error):
        pipeline.train(make_job(other, data_set, tmp_path / "r"), resume=True)


def test_training_beside_a_complete_run_gets_a_number(run: Path) -> None:
    assert choose_folder(run.parent, "r", resume=False).path.name == "r-2"


def test_complete_run_is_loaded(run: Path) -> None:
    finished = load_run(run)
    assert isinstance(finished.calibration, Calibration) and not finished.model.training


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run there"):
        load_run(tmp_path)


def test_run_with_a_changed_file_is_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "r")
    (copy / "calibration.json").write_text((copy / "calibration.json").read_text().replace("0.", "9."))
    with pytest.raises(BadInput, match="changed since the training wrote it"):
        load_run(copy)


def test_dry_run_writes_nothing(parts: Path, tmp_path: Path) -> None:
    answer = subprocess.run(command(parts, tmp_path, "--dry-run"), capture_output=True, text=True, check=True)
    assert "steps: 24" in answer.stdout and "to train" in answer.stdout and "4 categories" in answer.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("fit.stepz=3", "did you mean 'fit.steps'"),
        ("student.dimz=3", "did you mean 'dims'"),
        ("fit.steps=many", "fit.steps"),
        ("nonsense", "write it as section.key=value"),
    ],
)
def test_wrong_setting_is_refused_with_its_reason(setting: str, reason: str, parts: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        command(parts, tmp_path, "--set", setting, "--dry-run"), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2 and reason in answer.stderr, answer.stderr
    assert "Traceback" not in answer.stderr


def test_recipe_without_onnx_export_is_refused() -> None:
    with pytest.raises(UsageError, match="`onnx` must be among them"):
        load_recipe("embedded", ["export=[openvino]"])


@pytest.mark.parametrize(("step", "stale", "stops"), [(40, 5, False), (80, 2, False), (80, 3, True)])
def test_early_stop_waits_for_patience_and_half_of_the_steps(step: int, stale: int, stops: bool) -> None:
    assert should_stop(TrainingState(step=step, stale=stale), Fit(steps=100, patience=3)) is stops


def test_gap_that_narrows_a_little_keeps_the_later_weights() -> None:
    state = TrainingState(step=10)
    assert record_gap(state, 0.50)
    state.step = 20
    assert record_gap(state, 0.49) and (state.best_gap, state.best_step, state.stale) == (0.50, 20, 0)
    state.step = 30
    assert not record_gap(state, 0.48) and (state.best_gap, state.best_step, state.stale) == (0.50, 20, 1)


def test_learning_rate_of_the_published_schedule_drops_once() -> None:
    settings = load_recipe("omni_ad_paper").fit
    rates = [
        learning_rate(step, 10, peak=settings.learning_rate, warm_up=settings.warm_up, schedule=settings.schedule)
        for step in range(10)
    ]
    assert rates == pytest.approx([1e-3] * 8 + [1e-4] * 2)


def test_learning_rate_rises_and_falls_along_a_cosine() -> None:
    rates = [learning_rate(step, 100, peak=1.0, warm_up=0.1) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == 1.0 and rates[-1] < 0.02
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_artifact_decides_as_its_report_states(run: Path, parts: Path) -> None:
    entries = json.loads((run / "report.json").read_text())["scores"]
    expected = {(e["kind"], e["image"]): e for e in entries if e["category"] == "metal"}
    inspector = Inspector(run / "r.onnx", category="metal")
    for (kind, name), entry in expected.items():
        answer = inspector(parts / "metal" / "test" / kind / name)
        assert answer.score == pytest.approx(entry["score"], abs=1e-3)
        assert str(answer.decision) == entry["decision"]


def test_sound_parts_alone_suffice_to_train(tmp_path: Path, parts: Path) -> None:
    sound = tmp_path / "plates"
    shutil.copytree(parts / "metal" / "train" / "good", sound)
    answer = subprocess.run(
        command(sound, tmp_path / "runs", "--set", "fit.steps=4"), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    manifest = json.loads((tmp_path / "runs" / "r" / "run.json").read_text())
    assert manifest["metrics"]["mean"]["image_auroc"] == "no defective part in the test"
    page = (tmp_path / "runs" / "r" / "report.html").read_text()
    assert "no defective part in the test" in page


def test_two_processes_train_one_student(parts: Path, tmp_path: Path) -> None:
    """Two CPU processes work as on several GPUs: one run, one artifact, each image processed by one process.

    The second process is started by a library, and imports nothing from the working directory either.
    """
    out, executed = tmp_path / "out", plant_modules(tmp_path / "planted")
    python, *words = command(parts, out, "--device", "cpu", "--devices", "2", "--json")
    answer = subprocess.run(
        [python, "-P", *words], cwd=tmp_path / "planted", capture_output=True, text=True, check=False
    )
    assert executed_modules(executed) == []
    assert answer.returncode == 0, answer.stderr
    manifest = json.loads(answer.stdout.strip().splitlines()[-1])
    assert manifest["steps"] == 24 and (out / "r" / "r.onnx").is_file()
    assert [path.name for path in out.iterdir()] == ["r"]


@pytest.mark.slow
def test_real_bottles_reach_the_published_metrics(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    """Takes about ten minutes on two cores."""
    arguments = ["train", "--data", str(real_data / "mvtec_ad"), "--out", str(tmp_path), "--name", "bottle"]
    environment = os.environ | {"INSPECT_KD_WEIGHTS": str(real_weights)}
    program = "from inspect_kd.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *arguments], env=environment, check=True)
    mean = json.loads((tmp_path / "bottle" / "run.json").read_text())["metrics"]["mean"]
    assert mean["image_auroc"] >= 0.995 and mean["pixel_auroc"] >= 0.985 and mean["pixel_ap"] >= 0.80
