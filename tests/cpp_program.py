"""Build and run the C++ program of export/cpp, and compare its results with Python's."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from inspect_kd.types import Inspection

ROOT = Path(__file__).parents[1]
# Both programs run the same ONNX Runtime on the same pixels. Measured with Debian's OpenCV 4.6 in C++ and the wheel's 5.0 in
# Python, which resize and decode JPEG alike: scores agree in six digits. A pixel that differs by one grey level would exceed this limit.
MAX_RELATIVE_DIFFERENCE = 1e-5


def build_program() -> Path:
    """Build the C++ program; where that is impossible, skip the test, or fail it in CI."""
    give_up: Callable[[str], Any] = pytest.fail if os.environ.get("CI") else pytest.skip
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            give_up(f"no {tool} on this machine: `make cpp-packages`")
    command = [str(ROOT / "export" / "cpp" / "build.sh"), sys.executable, str(ROOT / "build" / "cpp")]
    (ROOT / "build").mkdir(exist_ok=True)
    # Tests run in two processes, and the other one may be building the program.
    with (ROOT / "build" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    if result.returncode and ("no headers" in output or "Could not find" in output or "Could NOT find" in output):
        give_up(f"headers or libraries are missing, `make cpp-packages` gets them: {output[-300:]}")
    assert result.returncode == 0, output
    return ROOT / "build" / "cpp" / "inspect_kd_cpp"


def run_program(program: Path, artifact: Path, *arguments: object) -> tuple[list[dict[str, Any]], int, str]:
    """Run the C++ program on an artifact; return its JSON lines, its exit code and its stderr."""
    result = subprocess.run(
        [program, artifact, *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=300,
        env={"PATH": "/usr/bin:/bin"},
    )
    lines = [json.loads(line) for line in result.stdout.decode("utf-8").splitlines()]
    return lines, result.returncode, result.stderr.decode("utf-8", "replace")


def assert_same(line: dict[str, Any], inspection: Inspection) -> None:
    """Compare every field that both programs print, and the position of the peak."""
    expected = inspection.to_json()
    assert line["score"] == pytest.approx(expected["score"], rel=MAX_RELATIVE_DIFFERENCE)
    for field in ("image", "decision", "thresholds", "image_size"):
        assert line[field] == expected[field]
    for field in ("category", "cause", "explanation"):
        assert line.get(field) == expected.get(field)
    assert line["peak"] == pytest.approx(float(inspection.heatmap.max()), rel=MAX_RELATIVE_DIFFERENCE, abs=1e-6)
    if expected["regions"] and expected["regions"][0]["peak"] == pytest.approx(
        line["peak"], rel=MAX_RELATIVE_DIFFERENCE
    ):
        assert (line["peak_x"], line["peak_y"]) == (expected["regions"][0]["peak_x"], expected["regions"][0]["peak_y"])


def with_changed_card(artifact: Path, to: Path, **changes: Any) -> Path:
    """Copy the artifact to `to` with changes in its card; a change to None removes the field."""
    model = onnx.load(str(artifact))
    entry = model.metadata_props[0]
    card = json.loads(entry.value) | changes
    entry.value = json.dumps({name: value for name, value in card.items() if value is not None or name not in changes})
    onnx.save_model(model, str(to))
    return to
