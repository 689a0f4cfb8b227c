"""Inspection on the line works without torch, refuses wrong inputs, and continues after broken images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from inspect_kd.errors import BadInput
from inspect_kd.inspector import Inspector
from inspect_kd.types import BatchPrediction, Decision, Inspection, Thresholds

NO_TORCH = """
import sys
class RefuseImports:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "lightning", "anomalib", "sklearn", "onnx"}:
            raise ImportError(f"{name} is not on this machine")
sys.meta_path.insert(0, RefuseImports())
"""


@pytest.fixture(scope="module")
def artifact(run: Path) -> Path:
    return run / "r.onnx"


@pytest.fixture
def image(parts: Path) -> Path:
    return parts / "metal" / "test" / "good" / "000.png"


def test_predict_runs_without_torch(artifact: Path, parts: Path, tmp_path: Path) -> None:
    folder = parts / "metal" / "test"
    program = f"{NO_TORCH}\nfrom inspect_kd.cli import main\nmain()"
    words = ["predict", str(artifact), str(folder), "--overlays", str(tmp_path / "out"), "--category", "metal"]
    answer = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(lines) == len(list(folder.rglob("*.png"))) == len(list((tmp_path / "out").iterdir()))
    assert {line["decision"] for line in lines} <= {"OK", "RE-INSPECT", "NG"}
    assert all(line["image_size"] == [64, 64] and np.isfinite(line["score"]) for line in lines)


def test_importing_the_inspector_imports_no_training_packages() -> None:
    program = "import inspect_kd.inspector, sys; print(','.join(sorted({m.split('.')[0] for m in sys.modules})))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.strip().split(","))
    assert not loaded & {
        "torch",
        "torchvision",
        "timm",
        "lightning",
        "anomalib",
        "onnx",
        "pydantic",
        "typer",
        "onnxruntime",
    }


def test_onnx_runtime_collects_no_usage_data(artifact: Path, image: Path, tmp_path: Path) -> None:
    """The official packages of ONNX Runtime store usage data in the user's cache, to send it to a host."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache"), "LOCALAPPDATA": str(tmp_path)}
    inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    words = [sys.executable, "-P", "-m", "inspect_kd", "predict", str(artifact), str(image)]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path, env=inherited | home)
    assert json.loads(answer.stdout)["score"] > 0
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name or path.name == "Microsoft"]


def test_file_array_and_bgr_frame_give_the_same_score(artifact: Path, image: Path) -> None:
    inspector = Inspector(artifact)
    rgb = np.asarray(Image.open(image))
    from_file, from_array = inspector(image), inspector(rgb)
    from_bgr = Inspector(artifact, bgr=True)(np.ascontiguousarray(rgb[:, :, ::-1]))
    assert isinstance(from_file, Inspection)
    assert from_file.score == from_array.score == from_bgr.score
    assert from_file.image == str(image) and from_array.image is None


def test_other_thresholds_change_the_decision(artifact: Path, image: Path) -> None:
    score = Inspector(artifact)(image).score
    strict = Inspector(artifact, thresholds=Thresholds(reinspect=score / 4, reject=score / 2))(image)
    band = Inspector(artifact, thresholds=Thresholds(reinspect=score / 2, reject=score * 2))(image)
    loose = Inspector(artifact, thresholds=Thresholds(reinspect=score * 2, reject=score * 3))(image)
    assert [inspection.decision for inspection in (strict, band, loose)] == [
        Decision.NG,
        Decision.REINSPECT,
        Decision.OK,
    ]
    assert strict.regions and not loose.regions


def test_part_that_is_not_ok_always_has_a_region(artifact: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(artifact, category="fabric")
    heat = np.zeros((1, 64, 64), np.float32)
    heat[0, 20:24, 40:44] = 0.5  # the maximum, but below the threshold
    monkeypatch.setattr(inspector.model, "predict_batch", lambda _: BatchPrediction(np.array([3.0], np.float32), heat))
    inspection = inspector(image)
    assert inspection.decision is Decision.NG
    assert [(region.x, region.y, region.width) for region in inspection.regions] == [(40, 20, 4)]


def test_categories_have_their_own_thresholds(artifact: Path) -> None:
    assert Inspector(artifact).thresholds.reject == pytest.approx(1.0)
    assert Inspector(artifact, category="metal").thresholds != Inspector(artifact, category="board").thresholds
    with pytest.raises(BadInput, match="no calibration for category 'wood'"):
        Inspector(artifact, category="wood")


def test_16_bit_wide_transparent_and_cmyk_images_are_inspected(artifact: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "16_bit.png"), rng.integers(0, 65536, (90, 120), dtype=np.uint16))
    cv2.imwrite(str(tmp_path / "strip.png"), rng.integers(0, 256, (400, 6000, 3), dtype=np.uint8))
    Image.fromarray(rng.integers(0, 256, (50, 60, 4), dtype=np.uint8)).save(tmp_path / "alpha.png")
    Image.fromarray(rng.integers(0, 256, (50, 60, 4), dtype=np.uint8), "CMYK").save(tmp_path / "cmyk.jpg")
    sizes = {path.name: Inspector(artifact)(path).image_size for path in tmp_path.iterdir()}
    assert sizes == {"16_bit.png": (120, 90), "strip.png": (6000, 400), "alpha.png": (60, 50), "cmyk.jpg": (60, 50)}


def test_regions_lie_inside_the_image(artifact: Path, tmp_path: Path) -> None:
    strip = np.zeros((100, 900, 3), np.uint8)
    strip[40:60, 600:660] = 255
    inspection = Inspector(artifact, thresholds=Thresholds(reinspect=1e-6, reject=1e-5))(strip)
    assert inspection.regions
    for region in inspection.regions:
        assert region.x >= 0 and region.x + region.width <= 900 and region.y + region.height <= 100
        assert region.x <= region.peak_x < region.x + region.width and region.peak > 0


def predict(artifact: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    program = "from inspect_kd.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "predict", str(artifact), *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_broken_image_is_ng_and_the_batch_continues(artifact: Path, image: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:2000])
    answer = predict(artifact, str(broken), str(image))
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert answer.returncode == 3
    assert lines[0]["decision"] == "NG" and "broken.png" in lines[0]["error"] and lines[1]["score"] > 0
    assert "1 unreadable" in answer.stderr and "Traceback" not in answer.stderr


def test_predict_takes_globs_and_stdin_and_refuses_an_empty_folder(artifact: Path, image: Path, tmp_path: Path) -> None:
    assert len(predict(artifact, str(image.parent / "*.png")).stdout.splitlines()) == 3
    assert len(predict(artifact, "-", stdin=f"{image}\n\n{image}\n").stdout.splitlines()) == 2
    refused = predict(artifact, str(tmp_path))
    assert refused.returncode == 3 and "no images" in refused.stderr


def test_wrong_artifact_is_refused(tmp_path: Path, image: Path) -> None:
    (tmp_path / "a.onnx").write_text("no")
    (tmp_path / "a.txt").write_text("no")
    for name, reason in (
        ("a.onnx", "not an ONNX file"),
        ("a.txt", "no runtime for '.txt' files"),
        ("b.onnx", "no such artifact"),
    ):
        answer = predict(tmp_path / name, str(image))
        assert answer.returncode == 3 and reason in answer.stderr and "Traceback" not in answer.stderr
