"""Training with zones: its run, report and artifact, and an export of the finished run with other zones."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspect_kd import quarantine
from inspect_kd.datasets.images import read_image
from inspect_kd.errors import UsageError
from inspect_kd.export import to_onnx
from inspect_kd.inspector import Inspector
from inspect_kd.training.artifacts import export_run
from inspect_kd.types import NoProgress
from tests.tiny import command

ZONES = """zones:
  - {name: label, ignore: true, polygon: [[4, 4], [24, 4], [24, 24], [4, 24]]}
  - {name: seal, tolerance: 0.5, category: board, polygon: [[40, 40], [60, 40], [60, 60], [40, 60]]}
"""
OTHER_ZONES = "zones: [{name: left half, ignore: true, polygon: [[0, 0], [32, 0], [32, 64], [0, 64]]}]\n"


@pytest.fixture(scope="module")
def two_categories(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "two"
    for category in ("board", "metal"):
        shutil.copytree(parts / category, folder / category)
    return folder


@pytest.fixture(scope="module")
def zoned_run(two_categories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    (out / "zones.yaml").write_text(ZONES)
    settings = ("data.align=none", "fit.steps=8", "fit.evaluate_every=4", "fit.denoise=0.5", "student.head_width=8",
                "distill.supervise.steps=2", "distill.batch=8", "distill.variants=2")  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    more = ["--zones", str(out / "zones.yaml"), *words]
    result = subprocess.run(command(two_categories, out, *more), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return out / "r"


def board_image(two_categories: Path) -> Path:
    return sorted((two_categories / "board" / "test" / "good").glob("*.png"))[0]


def test_run_report_and_artifact_have_the_zones(zoned_run: Path) -> None:
    presentation, run, report = (
        json.loads((zoned_run / f"{name}.json").read_text()) for name in ("presentation", "run", "report")
    )
    assert [zone["name"] for zone in presentation["board"]["zones"]["zones"]] == ["label", "seal"]
    assert [zone["name"] for zone in presentation["metal"]["zones"]["zones"]] == ["label"]
    assert run["presentations"]["board"]["zones"].startswith("zones: label ignored, seal tolerance 0.5; ")
    assert run["refused"] == {} and "ignored_defects" in report["zones"]
    assert "the masks of defects are cut like the parts" in (zoned_run / "report.html").read_text()
    card = Inspector(zoned_run / "r.onnx", quarantine=False).card
    assert card.presentations is not None and card.presentations.has_zones
    assert "zones" not in card.recipe["data"]  # the path of a file on the training machine


def test_defect_in_an_ignored_zone_does_not_change_the_artifacts_prediction(
    zoned_run: Path, two_categories: Path
) -> None:
    artifact = zoned_run / "r.onnx"
    # This is how the quarantine's child process tries an artifact that is new on the machine.
    assert quarantine._try_artifact(to_onnx.Runtime, artifact.read_bytes(), "r.onnx") == {"passed": True}
    inspector = Inspector(artifact, category="board", quarantine=False)
    image = read_image(board_image(two_categories))
    defect_in_ignored_zone, defect_in_strict_zone = image.copy(), image.copy()
    defect_in_ignored_zone[8:20, 8:20] = (255, 0, 255)
    defect_in_strict_zone[44:56, 44:56] = (255, 0, 255)
    sound, ignored, strict = map(inspector, (image, defect_in_ignored_zone, defect_in_strict_zone))
    assert ignored.score == sound.score and np.array_equal(ignored.heatmap, sound.heatmap)
    assert ignored.decision == sound.decision and ignored.regions == sound.regions
    assert strict.score > sound.score


def test_finished_run_is_exported_with_other_zones_without_training_again(
    zoned_run: Path, two_categories: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text(OTHER_ZONES)
    before = {file.name: file.read_bytes() for file in zoned_run.iterdir() if file.is_file()}
    with pytest.raises(UsageError, match=r"^--zones: the artifact's zones and thresholds differ .* --output$"):
        export_run(zoned_run, "onnx", data=None, output=None, progress=NoProgress(), zones=str(tmp_path / "other.yaml"))
    artifact, conversion = export_run(
        zoned_run, "onnx", data=None, output=tmp_path / "new.onnx", progress=NoProgress(),
        zones=str(tmp_path / "other.yaml"),
    )  # fmt: skip
    assert not conversion.exceeded_limits
    assert {file.name: file.read_bytes() for file in zoned_run.iterdir() if file.is_file()} == before
    old, new = (Inspector(path, category="board", quarantine=False) for path in (zoned_run / "r.onnx", artifact))
    assert new.card.calibration.scores != old.card.calibration.scores
    image = read_image(board_image(two_categories))
    defective = image.copy()
    cv2.circle(defective, (16, 40), 8, (255, 0, 255), -1)
    assert new(defective).score == new(image).score and old(defective).score != old(image).score
    # The new thresholds are computed from as many calibration parts as the old ones.
    limits = new.card.calibration.limits["board"]
    assert limits.n == old.card.calibration.limits["board"].n
