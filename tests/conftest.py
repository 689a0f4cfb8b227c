"""Fixtures for all tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspect_kd.datasets.alignment import Alignment
from inspect_kd.datasets.drawn import draw_sample
from tests.archive_server import Server, serve
from tests.builders import save_tiny_clip
from tests.cpp_program import build_program
from tests.presented_artifacts import draw_boards, fit_alignment
from tests.tiny import EVERY_STAGE, UNTURNED, WITHOUT_ALIGNMENT_AND_TILES, command
from tests.turned_parts import random_parts

# For the processes that tests start; see also one_thread below.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests use their own cache, which is deleted when they end.
_CACHE = tempfile.TemporaryDirectory(prefix="inspect-kd-tests-")
os.environ["INSPECT_KD_CACHE"] = _CACHE.name

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
REAL_WEIGHTS = Path(__file__).parents[1] / ".." / "shared" / "weights"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files from the program's output")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread of torch: with two, a tiny step on a busy two-core machine took six times longer."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real inspection images, where the machine has them."""
    folder = Path(os.environ.get("INSPECT_KD_REAL_DATA", REAL_DATA)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real inspection images are not on this machine ({folder}); set INSPECT_KD_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Real ImageNet weights, where the machine has them."""
    folder = Path(os.environ.get("INSPECT_KD_REAL_WEIGHTS", REAL_WEIGHTS)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real ImageNet weights are not on this machine ({folder}); set INSPECT_KD_REAL_WEIGHTS")
    return folder


@pytest.fixture(scope="session")
def program() -> Path:
    """The C++ program, which is built only once."""
    return build_program()


@pytest.fixture(scope="session")
def silhouette() -> Alignment:
    """Fitted to drawn parts at any angle."""
    return fit_alignment([image for _, image in random_parts(20)], "silhouette")


@pytest.fixture(scope="session")
def template() -> Alignment:
    """Fitted to drawn boards."""
    return fit_alignment(draw_boards(8, 0), "template")


@pytest.fixture
def archive_server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to which named data sets are downloaded."""
    monkeypatch.setenv("INSPECT_KD_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built once for all tests that read it."""
    out = tmp_path_factory.mktemp("dist")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(Path(__file__).parents[1]),
    ]
    subprocess.run(build, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set of parts that all lie at the same angle, which keeps the many trainings short."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    return draw_sample(folder, 0, size=64, train=10, test_good=3, per_kind=1, categories=UNTURNED)


@pytest.fixture(scope="session")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run, trained through the command line."""
    out = tmp_path_factory.mktemp("runs")
    result = subprocess.run(command(parts, out, "--json"), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["run"] == str(out / "r")
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    phases = {"draw", "presentation", "advice", "train", "calibrate", "evaluate", "export", "prove", "report"}
    assert phases >= {line["phase"] for line in lines if "phase" in line}
    assert any("seconds_left" in line and "loss" in line for line in lines)
    return out / "r"


@pytest.fixture(scope="session")
def staged_runs(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student's run with every stage, `r`, and of the runs of its two teachers."""
    out = tmp_path_factory.mktemp("staged")
    clip = {"model": save_tiny_clip(out / "clip"), "pretrained": None, "licence": "MIT", "vv_blocks": 2}
    sam = {"build": "sam_spt", "backend": "tiny", "guide": clip, "closer": True}
    teach = {"parts": 2, "variants": 2, "epochs": 1}
    for name, teacher in (("tiny_clip", {"build": "clip_ada", **clip}), ("tiny_sam", sam)):
        recipe = {"name": name, "teacher": teacher, "data": {"size": 64, "align": "none", "tile": None}, "teach": teach}
        (out / f"{name}.yaml").write_text(json.dumps(recipe))
    names = ("tiny_clip", "tiny_sam")
    teachers = [argument for name in names for argument in ("--teachers", str(out / f"{name}.yaml"))]
    settings = [argument for setting in (*EVERY_STAGE, *WITHOUT_ALIGNMENT_AND_TILES) for argument in ("--set", setting)]
    result = subprocess.run([*command(parts, out, *teachers), *settings], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return out
