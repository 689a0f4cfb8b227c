"""Training for real, small: the whole way, the same numbers after a kill, the stop that the gap decides."""

from __future__ import annotations

import json
import os
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
from inspect_kd.train.checkpoint import TrainingState
from inspect_kd.train.fit import _finished, fit
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.run import RunFolder, choose_folder, load_run
from inspect_kd.train.schedule import learning_rate
from inspect_kd.types import NoProgress
from tests.planted import executed_modules, plant_modules
from tests.tiny import command


def test_a_run_holds_everything(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "recipe.yaml",
        "env.json",
        "metrics.jsonl",
        "student.safetensors",
        "calibration.json",
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


def test_the_resolved_recipe_trains_again_to_the_same_weights(run: Path, parts: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = load_recipe(str(run / "recipe.yaml"))
    data = open_dataset(parts)
    again = fit(recipe, data, RunFolder(tmp_path / "r"), hardware=Hardware(device="cpu"), progress=NoProgress())
    first, second = load_file(run / "student.safetensors"), load_file(again.student)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_training_resumes_to_the_same_weights(run: Path, parts: Path, tmp_path: Path, seed: int) -> None:
    """SIGKILL at some step, resume, and the student is the uninterrupted one, bit for bit."""
    wanted = 3 + (int.from_bytes(os.urandom(2), "big") + seed * 7) % 18
    killed = subprocess.Popen(command(parts, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (log.is_file() and len(log.read_text().splitlines()) >= wanted):
        assert killed.poll() is None, "the training ended before it could be killed"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
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


def test_of_two_trainings_of_one_name_the_second_is_told_who_holds_it(parts: Path, tmp_path: Path) -> None:
    """Started at the same moment, before either has written anything."""
    words = command(parts, tmp_path, "--set", "fit.steps=100000", "--set", "fit.evaluate_every=100000")
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and all(each.poll() is None for each in both):
            time.sleep(0.05)
        refused, trains = sorted(both, key=lambda each: each.poll() is None)
        assert refused.poll() == 4 and trains.poll() is None, "both train into one folder"
        *_, line = refused.stderr.read().strip().splitlines()  # type: ignore[union-attr]
        assert f"{tmp_path / 'r'} is in use by process {trains.pid} on {socket.gethostname()} since " in line
        assert line.endswith("wait until it has ended, or choose another --name")
        log = tmp_path / "r" / "metrics.jsonl"
        while time.monotonic() < deadline and not (log.is_file() and log.read_text()):
            assert trains.poll() is None
            time.sleep(0.05)
        # What runs is not called unfinished; --resume does not get in, either.
        held = f"in use by process {trains.pid} "
        with pytest.raises(EnvironmentFault, match=held):
            choose_folder(tmp_path, "r", resume=False)
        again = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
        assert again.returncode == 4 and held in again.stderr
    finally:
        for each in both:
            each.kill()
            each.wait()
            each.stderr.close()  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="go on with --resume"):
        choose_folder(tmp_path, "r", resume=False)


def test_resume_refuses_other_work(run: Path, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is complete: nothing to resume"):
        choose_folder(run.parent, "r", resume=True)
    with pytest.raises(UsageError, match="nothing to resume at"):
        choose_folder(tmp_path, "none", resume=True)
    assert choose_folder(run.parent, "r", resume=False).path.name == "r-2"


def test_a_run_comes_back_and_a_changed_one_does_not(run: Path, tmp_path: Path) -> None:
    finished = load_run(run)
    assert isinstance(finished.calibration, Calibration) and not finished.model.training
    with pytest.raises(BadInput, match="no run there"):
        load_run(tmp_path)
    import shutil

    copy = tmp_path / "r"
    shutil.copytree(run, copy)
    (copy / "calibration.json").write_text((copy / "calibration.json").read_text().replace("0.", "9."))
    with pytest.raises(BadInput, match="changed since the training wrote it"):
        load_run(copy)


def test_the_dry_run_writes_nothing(parts: Path, tmp_path: Path) -> None:
    answer = subprocess.run(command(parts, tmp_path, "--dry-run"), capture_output=True, text=True, check=True)
    assert "steps: 24" in answer.stdout and "to train" in answer.stdout and "4 categories" in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_wrong_recipes_are_told_apart(parts: Path, tmp_path: Path) -> None:
    cases = {
        "fit.stepz=3": "did you mean 'fit.steps'",
        "student.dimz=3": "did you mean 'dims'",
        "fit.steps=many": "fit.steps",
        "nonsense": "write it as section.key=value",
    }
    for setting, reason in cases.items():
        answer = subprocess.run(
            command(parts, tmp_path, "--set", setting, "--dry-run"), capture_output=True, text=True, check=False
        )
        assert answer.returncode == 2 and reason in answer.stderr, answer.stderr
        assert "Traceback" not in answer.stderr


def test_the_gap_stops_the_training() -> None:
    settings = Fit(steps=100, patience=3)
    assert not _finished(TrainingState(step=40, stale=5), settings)
    assert not _finished(TrainingState(step=80, stale=2), settings)
    assert _finished(TrainingState(step=80, stale=3), settings)


def test_the_learning_rate_may_fall_once_as_published() -> None:
    recipe = load_recipe("omni_ad_paper").fit
    told = {"peak": recipe.learning_rate, "warm_up": recipe.warm_up, "schedule": recipe.schedule}
    rates = [learning_rate(step, 10, **told) for step in range(10)]
    assert rates == pytest.approx([1e-3] * 8 + [1e-4] * 2)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, 100, peak=1.0, warm_up=0.1) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == 1.0 and rates[-1] < 0.02
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_the_artifact_of_the_run_decides_like_the_run(run: Path, parts: Path) -> None:
    entries = json.loads((run / "report.json").read_text())["scores"]
    expected = {(e["kind"], e["image"]): e for e in entries if e["category"] == "metal"}
    inspector = Inspector(run / "r.onnx", category="metal")
    for (kind, name), entry in expected.items():
        answer = inspector(parts / "metal" / "test" / kind / name)
        assert answer.score == pytest.approx(entry["score"], abs=1e-3)
        assert str(answer.decision) == entry["decision"]


def test_sound_parts_only_is_enough_to_train(tmp_path: Path, parts: Path) -> None:
    import shutil

    good = tmp_path / "plates"
    shutil.copytree(parts / "metal" / "train" / "good", good)
    answer = subprocess.run(
        command(good, tmp_path / "runs", "--set", "fit.steps=4"), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    manifest = json.loads((tmp_path / "runs" / "r" / "run.json").read_text())
    assert manifest["metrics"]["mean"]["image_auroc"] == "no defective part in the test"
    page = (tmp_path / "runs" / "r" / "report.html").read_text()
    assert "no defective part in the test" in page


def test_two_processes_train_one_student(parts: Path, tmp_path: Path) -> None:
    """What several GPUs do, with two CPU processes: one run, one artifact, each image looked at by one of them.

    The second process is started by a library; it imports nothing from the working directory, either.
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
def test_real_bottles(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    """The published figure: about ten minutes on two cores."""
    arguments = ["train", "--data", str(real_data / "mvtec_ad"), "--out", str(tmp_path), "--name", "bottle"]
    environment = os.environ | {"INSPECT_KD_WEIGHTS": str(real_weights)}
    program = "from inspect_kd.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *arguments], env=environment, check=True)
    mean = json.loads((tmp_path / "bottle" / "run.json").read_text())["metrics"]["mean"]
    assert mean["image_auroc"] >= 0.995 and mean["pixel_auroc"] >= 0.985 and mean["pixel_ap"] >= 0.80
