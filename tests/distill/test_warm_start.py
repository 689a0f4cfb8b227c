"""Warm start: the fit of another run is reused, unless it is another student's or its decoder was moved."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inspect_kd.config import load_recipe
from inspect_kd.datasets import open_dataset
from inspect_kd.errors import UsageError
from inspect_kd.training.warm_start import load_fitted_student
from tests.builders import edit_recipe, make_job
from tests.distill.builders import STEPS
from tests.tiny import command

HEADS = [
    word for setting in ("student.head_width=8", f"distill.supervise.steps={STEPS}") for word in ("--set", setting)
]


def test_start_reuses_the_fit_and_trains_new_heads(run: Path, parts: Path, tmp_path: Path) -> None:
    words = [*command(parts, tmp_path, "--start", str(run)), *HEADS]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    old, new = load_file(run / "student.safetensors"), load_file(tmp_path / "r" / "student.safetensors")
    assert all(torch.equal(old[key], new[key]) for key in old)
    in_map, in_score = new["heads.blend_weights"].tolist()
    assert in_map[1:] == [3.0, 0.0] and in_score[1:] == [0.5, 0.0] and in_map[0] == in_score[0] > 0


def test_start_refuses_a_different_student(run: Path, parts: Path, tmp_path: Path) -> None:
    words = [*command(parts, tmp_path, "--start", str(run)), *HEADS, "--set", "student.dims=[32, 16, 16]"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 2 and "uses a different student" in answer.stderr


def test_start_refuses_a_run_whose_decoder_was_moved(distilled: Path, parts: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(distilled / "recipe.yaml"))
    assert recipe.distill.tune_decoder
    with pytest.raises(UsageError, match="moved the decoder"):
        load_fitted_student(make_job(recipe, open_dataset(parts), tmp_path / "r"), str(distilled))


def test_start_takes_a_distilled_run_whose_decoder_was_not_moved(distilled: Path, parts: Path, tmp_path: Path) -> None:
    """S3 then trains its own head alone, so labels can be added to what teachers have taught."""
    copied = shutil.copytree(distilled, tmp_path / "copied")
    edit_recipe(copied, lambda recipe: recipe["distill"].update(tune_decoder=False, denoising_weight=0.0))
    job = make_job(load_recipe(str(copied / "recipe.yaml")), open_dataset(parts), tmp_path / "r")
    assert load_fitted_student(job, str(copied)).heads is not None
