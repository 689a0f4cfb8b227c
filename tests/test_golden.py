"""Golden figures of one small training with every stage and two teachers: what changes them changes everybody's models.

Where torch and the processor are those that wrote the file, every number and every weight must be the same, bit for bit; elsewhere
losses are compared, to within rounding. `pytest --update-golden` rewrites the file, on purpose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
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
"""Neither times nor names of folders, which differ each time."""


def test_a_small_training_gives_the_golden_figures(
    staged_runs: Path, parts: Path, request: pytest.FixtureRequest
) -> None:
    trainings = {name: next(staged_runs.glob(pattern)) for name, pattern in RUNS.items()}
    found = {
        "machine": machine(),
        "weights": {name: weights_digest(run) for name, run in trainings.items()},
        "artifacts": {name: artifact_digest(run / f"{run.name}.onnx") for name, run in trainings.items()},
        "numbers": {name: numbers(run, sorted(parts.glob("*/test/*/*.png"))) for name, run in trainings.items()},
    }
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    if golden["machine"] == found["machine"]:
        assert json.loads(json.dumps(found)) == golden
    else:
        # Losses alone: of so few parts one decision more or less moves a metric by a fifth.
        assert flat(losses(found)) == pytest.approx(flat(losses(golden)), rel=0.05, abs=0.01)


def machine() -> str:
    """What the rounding of sums follows from: versions, and the processor with its caches, by which kernels are chosen."""
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
    """Of values alone: tensors may be renamed."""
    each = sorted(hashlib.sha256(f"{t.dtype}{t.shape}".encode() + t.tobytes()).hexdigest() for t in tensors)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def numbers(run: Path, images: list[Path]) -> dict[str, Any]:
    manifest, report = (json.loads((run / f"{name}.json").read_text()) for name in ("run", "report"))
    answers = map(Inspector(run / f"{run.name}.onnx"), images)
    return {
        "losses": [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()],
        "manifest": {key: manifest[key] for key in IN_MANIFEST if key in manifest},
        "report": {key: report[key] for key in IN_REPORT},
        "outputs": [[a.score, float(a.heatmap.mean()), float(a.heatmap.max()), len(a.regions)] for a in answers],
    }


def losses(content: dict[str, Any]) -> dict[str, Any]:
    return {name: numbers["losses"] for name, numbers in content["numbers"].items()}


def flat(value: Any) -> list[float]:
    """Every number in its order."""
    return list(_numbers(value))


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield float(value)
