"""Golden numbers and weights of one small training with every stage and two teachers.

A change that alters them alters every user's models. With the torch and the processor that wrote the file, every number and every
weight must be the same, bit for bit; elsewhere only losses are compared, to within rounding. `pytest --update-golden` rewrites the
file, on purpose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file

from inspect_kd.inspector import Inspector

GOLDEN = Path(__file__).parent / "golden" / "training.json"
RUNS = {"student": "r", "clip": "*-tiny_clip-*", "sam": "*-tiny_sam-*"}
IN_MANIFEST = ("steps", "best_step", "best_gap", "examined", "stages", "metrics", "decisions", "promises", "parity")
IN_REPORT = ("calibration", "metrics", "decisions", "scores")
"""Keys that hold neither times nor names of folders, which differ in each training."""


def test_a_small_training_gives_the_golden_numbers_and_weights(
    staged_runs: Path, parts: Path, request: pytest.FixtureRequest
) -> None:
    trainings = {name: next(staged_runs.glob(pattern)) for name, pattern in RUNS.items()}
    measured = {
        "machine": machine(),
        "weights": {name: weights_digest(run) for name, run in trainings.items()},
        "artifacts": {name: artifact_digest(run / f"{run.name}.onnx") for name, run in trainings.items()},
        "numbers": {name: numbers(run, sorted(parts.glob("*/test/*/*.png"))) for name, run in trainings.items()},
    }
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(measured, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    if golden["machine"] == measured["machine"]:
        assert json.loads(json.dumps(measured)) == golden
    else:
        # Only losses are compared: with so few parts a single decision moves a metric by a fifth.
        assert flatten(losses(measured)) == pytest.approx(flatten(losses(golden)), rel=0.05, abs=0.01)


def machine() -> str:
    """Everything that decides the rounding of sums: versions, and the processor with its caches, which decide the kernels."""
    about = ("flags", "model", "model name", "stepping", "cache size")
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.partition(":")[0].strip() in about]
    caches = [path.read_text() for path in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))]
    processor = hashlib.sha256("\n".join([*lines[: len(about)], *caches]).encode()).hexdigest()[:12]
    return f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, processor {processor}"


def weights_digest(run: Path) -> str:
    return digest(value for path in run.glob("*.safetensors") for value in load_file(path).values())


def artifact_digest(artifact: Path) -> str:
    return digest(map(numpy_helper.to_array, onnx.load(artifact).graph.initializer))


def digest(tensors: Iterable[np.ndarray]) -> str:
    """A digest of the values only, so that tensors may be renamed."""
    digests = sorted(hashlib.sha256(f"{t.dtype}{t.shape}".encode() + t.tobytes()).hexdigest() for t in tensors)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def numbers(run: Path, images: list[Path]) -> dict[str, Any]:
    manifest, report = (json.loads((run / f"{name}.json").read_text()) for name in ("run", "report"))
    inspections = map(Inspector(run / f"{run.name}.onnx"), images)
    return {
        "losses": [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()],
        "manifest": {key: manifest[key] for key in IN_MANIFEST if key in manifest},
        "report": {key: report[key] for key in IN_REPORT},
        "outputs": [[i.score, float(i.heatmap.mean()), float(i.heatmap.max()), len(i.regions)] for i in inspections],
    }


def losses(content: dict[str, Any]) -> dict[str, Any]:
    return {name: run["losses"] for name, run in content["numbers"].items()}


def flatten(value: Any) -> list[float]:
    """All numbers in a JSON value, in their order."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in flatten(item)]
    return [float(value)] if isinstance(value, int | float) else []
