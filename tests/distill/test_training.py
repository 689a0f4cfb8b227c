"""The whole distillation through the command line: its log, resume after a kill, and an artifact without teachers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

from inspect_kd.distill.stages import STAGES
from inspect_kd.inspector import Inspector
from tests.distill.builders import STEPS, distill_command, environment_with_own_cache

FIT_STEPS = 24
"""`fit.steps` of tests.tiny.TINY."""


def test_every_step_of_every_stage_is_logged(distilled: Path) -> None:
    lines = [json.loads(line) for line in (distilled / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, FIT_STEPS + 3 * STEPS + 1))
    by_stage = {name: [line for line in lines if line.get("stage") == name] for name in STAGES}
    assert all(len(steps) == STEPS for steps in by_stage.values())
    assert {"tiny_memory_tokens", "tiny_memory_relations"} <= by_stage["align"][0].keys()
    assert "label" in by_stage["supervise"][0]
    assert {"imitate", "contrast", "tiny_memory_stream", "rebuild"} <= by_stage["refine"][0].keys()


def test_manifest_counts_stages_and_teacher_predictions(distilled: Path) -> None:
    manifest = json.loads((distilled / "run.json").read_text())
    entry = manifest["taught_by"]["tiny_memory"]
    assert entry["looked_at"] == entry["images"] > 0 and entry["cache_mb"] > 0
    assert manifest["stages"] == dict.fromkeys(STAGES, STEPS)


def test_artifact_names_the_licence_of_its_teachers_weights(distilled: Path) -> None:
    assert Inspector(distilled / "r.onnx").card.licences["taught by embedded"] == "Apache-2.0"


def test_run_and_artifact_contain_no_teacher(distilled: Path) -> None:
    names = {path.name for path in distilled.iterdir()}
    assert not any("teacher" in name or "memory" in name for name in names)
    state = load_file(distilled / "student.safetensors")
    modules = {"encoder", "feature_norm", "memories", "neck", "decoder", "heads"}
    assert {key.split(".")[0] for key in state} <= modules
    initializers = [tensor.name for tensor in onnx.load(distilled / "r.onnx").graph.initializer]
    assert not [name for name in initializers if any(word in name for word in ("tiny_memory", "patches", "project"))]


def test_artifact_runs_without_torch(distilled: Path, parts: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from inspect_kd import Inspector\n"
        "print(Inspector(sys.argv[1])(sys.argv[2]).score)\n"
        "assert not [m for m in sys.modules if m.startswith(('inspect_kd.distill', 'inspect_kd.models'))]"
    )
    image = next(parts.rglob("test/good/*.png"))
    command_line = [sys.executable, "-c", program, str(distilled / "r.onnx"), str(image)]
    result = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) > 0


def test_killed_distillation_resumes_to_the_same_student(distilled: Path, parts: Path, tmp_path: Path) -> None:
    """The training is killed in a stage after the fit; the teacher's run and its cached outputs are reused."""
    lines_before_kill = FIT_STEPS + STEPS + 2
    command_line = [*distill_command(parts, tmp_path), "--set", "fit.checkpoint_every=1"]
    process = subprocess.Popen(
        command_line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment_with_own_cache(tmp_path)
    )
    log, deadline = tmp_path / "r" / "metrics.jsonl", time.monotonic() + 240
    while time.monotonic() < deadline and not (
        log.is_file() and len(log.read_text().splitlines()) >= lines_before_kill
    ):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = subprocess.run(
        [*command_line, "--resume"],
        capture_output=True,
        text=True,
        check=False,
        env=environment_with_own_cache(tmp_path),
    )
    assert result.returncode == 0, result.stderr
    assert "resuming at step" in result.stderr and "all were cached" in result.stderr
    first, second = load_file(distilled / "student.safetensors"), load_file(tmp_path / "r" / "student.safetensors")
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.gpu
def test_distillation_runs_on_a_gpu(parts: Path, tmp_path: Path) -> None:
    command_line = distill_command(parts, tmp_path, "--device", "cuda")
    result = subprocess.run(
        command_line, capture_output=True, text=True, check=False, env=environment_with_own_cache(tmp_path)
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "r" / "env.json").read_text())["device"].startswith("cuda")
