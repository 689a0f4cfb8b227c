"""Training a teacher through the command line: its run, its samples, few sound parts, real masks, licences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import safe_open

from inspect_kd import licences
from inspect_kd.config import Recipe, Teach, load_recipe
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.drawn import draw_sample
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.models.base import TeacherSample
from inspect_kd.models.teachers import clip_ada
from inspect_kd.training.run import load_run
from inspect_kd.training.teacher_data import TeacherDataset, choose_parts
from inspect_kd.types import Sample
from tests.builders import save_tiny_clip
from tests.tiny import UNTURNED


def write_recipe(folder: Path, **changes: object) -> Path:
    clip = save_tiny_clip(folder / "clip")
    teacher = {"build": "clip_ada", "model": clip, "pretrained": None, "licence": "MIT", "vv_blocks": 2}
    content = {"name": "tiny_clip", "teacher": teacher, "data": {"size": 64}, "teach": {"variants": 2, "epochs": 2}}
    path = folder / "tiny_clip.yaml"
    path.write_text(json.dumps(content | changes))
    return path


def run_train(recipe: Path, parts: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["train", "--data", str(parts), "--model", str(recipe), "--out", str(out), "--name", "t", *more]
    return subprocess.run([sys.executable, "-m", "inspect_kd", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def teacher_run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teach")
    answer = run_train(write_recipe(folder), parts, folder)
    assert answer.returncode == 0, answer.stderr
    assert "report" in answer.stdout and '"phase": "study"' in answer.stderr
    return folder / "t"


def test_run_of_a_teacher_holds_the_files_of_a_students_run(teacher_run: Path, parts: Path) -> None:
    names = {path.name for path in teacher_run.iterdir()}
    assert {"recipe.yaml", "teacher.safetensors", "t.onnx", "calibration.json", "report.html", "run.json"} <= names
    manifest = json.loads((teacher_run / "run.json").read_text())
    assert set(manifest["metrics"]) == {"board", "bottle", "fabric", "metal", "mean"} and manifest["steps"] > 0
    assert manifest["parity"]["onnx"]["flips"] == 0
    image = next(parts.rglob("test/good/*.png"))
    inspection = Inspector(teacher_run / "t.onnx")(image)
    assert np.isfinite(inspection.score) and inspection.heatmap.shape == (64, 64)
    assert "A teacher." in (teacher_run / "report.html").read_text()


def test_saved_teacher_holds_its_learned_weights_and_names_its_base(teacher_run: Path) -> None:
    path = teacher_run / "teacher.safetensors"
    assert path.stat().st_size < 10_000
    with safe_open(path, framework="pt") as file:
        assert {"vectors_PC", "suspicious"} <= set(file.keys())
        source = json.loads(file.metadata()["sources"])[0]
    assert source["licence"] == "MIT" and len(source["sha256"]) == 64
    assert json.loads((teacher_run / "run.json").read_text())["sources"][0] == source


def test_teacher_is_refused_on_another_base_model(teacher_run: Path, tmp_path: Path) -> None:
    finished = load_run(teacher_run)
    assert isinstance(finished.model, clip_ada.ClipAdaTeacher) and finished.model.prompts is None
    other = tmp_path / "t"
    other.mkdir()
    for path in teacher_run.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((other / "run.json").read_text())
    manifest["sources"][0]["sha256"] = "0" * 64
    (other / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="not the file that the teacher was trained on"):
        load_run(other)


def test_second_training_gives_the_same_teacher(teacher_run: Path, parts: Path, tmp_path: Path) -> None:
    answer = run_train(teacher_run / "recipe.yaml", parts, tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "t" / "metrics.jsonl").read_text() == (teacher_run / "metrics.jsonl").read_text()


def test_dry_run_counts_the_trained_parameters(tmp_path: Path, parts: Path) -> None:
    answer = run_train(write_recipe(tmp_path), parts, tmp_path, "--dry-run")
    # 2 prompts of 12 learned vectors with 32 values each.
    assert answer.returncode == 0 and "768 to train" in answer.stdout, answer.stderr


def image_store(count: int, categories: str = "ab") -> ImageStore:
    samples = [Sample(image=Path(f"{c}{i}.png"), category=c) for c in categories for i in range(count)]
    images = ImageStore(samples, Presentations.plain(View(size=64)))
    rng = np.random.default_rng(0)
    images.cached = {i: rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(len(samples))}
    images.weights = dict.fromkeys(images.cached)
    return images


def test_every_second_sample_has_a_synthetic_defect() -> None:
    samples = TeacherDataset(image_store(3), Teach(variants=4), "horizontal", 0)
    assert len(samples) == 24 and [sample.mask is None for sample in samples] == [True, False] * 12
    with pytest.raises(IndexError):
        samples[24]


def test_same_index_gives_the_same_sample() -> None:
    samples = TeacherDataset(image_store(3), Teach(variants=4), "horizontal", 0)
    first = samples[5]
    assert np.array_equal(first.image, samples[5].image) and first.mask is not None and first.mask.any()
    assert not np.array_equal(first.image, samples[7].image)


def test_few_parts_are_chosen_from_each_category() -> None:
    samples = image_store(9, "abc").samples
    chosen = choose_parts(samples, 4, 0)
    assert sorted(samples[i].category for i in chosen) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert choose_parts(samples, 4, 0) == chosen != choose_parts(samples, 4, 1)
    assert len(choose_parts(samples, None, 0)) == 27
    assert len(set(TeacherDataset(image_store(9), Teach(parts=4, variants=2), "none", 0).order)) == 8


def test_real_defects_follow_the_synthetic_ones() -> None:
    real = [TeacherSample(image=np.zeros((64, 64, 3), np.uint8), mask=np.ones((64, 64), bool))]
    samples = TeacherDataset(image_store(2), Teach(variants=2), "none", 0, real)
    assert len(samples) == 10 and [sample is real[0] for sample in samples] == [False] * 8 + [True] * 2


def test_teacher_learns_real_defects_with_masks(tmp_path: Path, parts: Path) -> None:
    draw_sample(tmp_path / "others", 7, size=64, train=6, test_good=1, per_kind=1, categories=UNTURNED)
    labelled = ["--set", f"teach.labelled={tmp_path / 'others'}", "--set", "teach.epochs=1"]
    answer = run_train(write_recipe(tmp_path), parts, tmp_path, *labelled)
    assert answer.returncode == 0, answer.stderr


def test_real_defects_of_the_test_split_are_refused(tmp_path: Path, parts: Path) -> None:
    answer = run_train(write_recipe(tmp_path), parts, tmp_path, "--set", f"teach.labelled={parts}")
    assert answer.returncode == 2 and "held out" in answer.stderr


def test_labelled_data_without_masks_is_refused(tmp_path: Path, parts: Path) -> None:
    (tmp_path / "sound").mkdir()
    cv2.imwrite(str(tmp_path / "sound" / "a.png"), np.zeros((64, 64, 3), np.uint8))
    answer = run_train(write_recipe(tmp_path), parts, tmp_path, "--set", f"teach.labelled={tmp_path / 'sound'}")
    assert answer.returncode == 3 and "no defect with a mask" in answer.stderr


@pytest.mark.parametrize(
    ("licence", "is_permitted"),
    [
        ("Apache-2.0", True),
        ("MIT (LAION)", True),
        ("unknown", False),
        ("CC-BY-NC-4.0 (MetaCLIP)", False),
        ("MITigated", False),
        ("none", False),
    ],
)
def test_production_permits_only_listed_licences(licence: str, is_permitted: bool) -> None:
    assert licences.is_permitted(licence) == is_permitted
    licences.check("research", {"weights": licence})
    if not is_permitted:
        with pytest.raises(UsageError, match=r"profile production.*weights"):
            licences.check("production", {"weights": licence})


def test_production_refuses_a_licence_before_anything_is_trained(tmp_path: Path, parts: Path) -> None:
    recipe = write_recipe(tmp_path)
    answer = run_train(recipe, parts, tmp_path, "--set", "profile=production", "--set", "teacher.licence=CC-BY-NC-4.0")
    assert answer.returncode == 2 and "allow list" in answer.stderr and not (tmp_path / "t").exists()


@pytest.mark.parametrize("name", ["clip_ada", "clip_ada_local", "sam_spt", "sam_spt_tiny"])
def test_shipped_teacher_has_no_student(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.family == "models.teachers" and not recipe.student


def test_recipe_with_two_models_or_none_is_refused() -> None:
    with pytest.raises(ValueError, match="one of them"):
        Recipe(name="x", student={"build": "omni_ad"}, teacher={"build": "clip_ada"})
    with pytest.raises(ValueError, match="one of them"):
        Recipe(name="x")
