"""Real parts that a training gets in addition to the data set: refused if they are held out, and read before anything is trained."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from inspect_kd.config import Distill, load_recipe
from inspect_kd.datasets import list_images, open_dataset
from inspect_kd.datasets.drawn import draw_sample
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.training import pipeline
from inspect_kd.training.real_parts import labelled_parts, unlabelled_parts
from inspect_kd.types import NoProgress, Split
from tests.builders import InterruptedProgress, make_job
from tests.distill.builders import distill_command, environment_with_own_cache, masked_defects
from tests.tiny import TINY, UNTURNED


@pytest.mark.parametrize("split", [Split.TEST, Split.CALIBRATION, Split.VALIDATION])
def test_held_out_part_is_refused_as_unlabelled_part_under_any_name(split: Split, parts: Path, tmp_path: Path) -> None:
    data = open_dataset(parts)
    shutil.copy(data.select(split)[0].image, tmp_path / "001_renamed.png")
    settings = Distill.model_construct(unlabelled=str(tmp_path), max_samples=10)
    with pytest.raises(UsageError, match=f"held out \\({split}\\)"):
        unlabelled_parts(settings, data, None, NoProgress())


def test_held_out_part_is_refused_as_labelled_part(parts: Path, tmp_path: Path) -> None:
    data = open_dataset(parts)
    for kind, sample in (("good", data.select(Split.TRAIN)[0]), ("scratch", masked_defects(data)[0])):
        (tmp_path / kind).mkdir()
        shutil.copy(sample.image, tmp_path / kind / "a.png")
    with pytest.raises(UsageError, match="cannot be measured by it"):
        labelled_parts(Distill.model_construct(labelled=str(tmp_path)), data)


def test_missing_folder_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        list_images(tmp_path / "none")


def test_missing_labelled_parts_are_reported_before_anything_is_trained(parts: Path, tmp_path: Path) -> None:
    command_line = distill_command(parts, tmp_path, "--labelled", str(tmp_path / "nowhere"))
    result = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert result.returncode == 3 and "nowhere" in result.stderr and '"phase": "train"' not in result.stderr


def test_training_uses_labelled_and_unlabelled_parts(parts: Path, tmp_path: Path) -> None:
    """The parts come from a second drawn sample; one image is broken, and no defect has a mask."""
    second_sample = draw_sample(tmp_path / "line", 7, size=64, train=6, test_good=1, per_kind=1, categories=UNTURNED)
    for image in second_sample.rglob("*_mask.png"):
        image.unlink()
    shutil.rmtree(second_sample / "bottle" / "ground_truth", ignore_errors=True)
    labelled = tmp_path / "labelled"
    for sample in [s for s in open_dataset(second_sample).samples if s.category == "bottle"]:
        (labelled / sample.kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.image, labelled / sample.kind)
    shutil.rmtree(labelled / "good", ignore_errors=True)
    unlabelled = second_sample / "metal" / "test"
    (unlabelled / "torn.png").write_bytes(b"no image")
    command_line = distill_command(parts, tmp_path, "--labelled", str(labelled), "--unlabelled", str(unlabelled))
    result = subprocess.run(
        command_line, capture_output=True, text=True, check=False, env=environment_with_own_cache(tmp_path)
    )
    assert result.returncode == 0, result.stderr
    assert "left out" in result.stderr and "torn.png" in result.stderr
    manifest = json.loads((tmp_path / "r" / "run.json").read_text())
    assert manifest["labelled"] > 0 and manifest["unlabelled"] > 0
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert any("verdict" in line for line in lines), "without masks the image-level loss is used"
    artifact = (tmp_path / "r" / "r.onnx").read_bytes()
    assert str(labelled).encode() not in artifact and b"tiny_memory" not in artifact, "no folders, no teachers' names"
    assert "labelled parts were used" in (tmp_path / "r" / "report.html").read_text()


def test_resume_refuses_other_labelled_parts(parts: Path, tmp_path: Path) -> None:
    data, labelled = open_dataset(parts), tmp_path / "labelled" / "torn"
    labelled.mkdir(parents=True)
    second_sample = draw_sample(tmp_path / "line", 7, size=64, train=6, test_good=1, per_kind=2, categories=UNTURNED)
    first, second = masked_defects(open_dataset(second_sample))[:2]
    shutil.copy(first.image, labelled / "1.png")
    changes = [*TINY, "student.head_width=8", "distill.supervise.steps=4", "distill.variants=2"]
    recipe = load_recipe("embedded", [*changes, f"distill.labelled={json.dumps(str(tmp_path / 'labelled'))}"])
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(make_job(recipe, data, tmp_path / "r", progress=InterruptedProgress("supervise")))
    job = make_job(recipe, data, tmp_path / "r")
    shutil.copy(second.image, labelled / "2.png")
    with pytest.raises(BadInput, match="labelled or unlabelled parts have changed"):
        pipeline.train(job, resume=True)
    (labelled / "2.png").unlink()
    assert pipeline.train(job, resume=True).is_complete
