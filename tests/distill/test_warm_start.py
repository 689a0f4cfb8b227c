"""Warm start: the fit of another run is reused, unless its student differs or its decoder was tuned."""

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

HEAD_OPTIONS = [
    option for setting in ("student.head_width=8", f"distill.supervise.steps={STEPS}") for option in ("--set", setting)
]


def test_start_reuses_the_fit_and_trains_new_heads(run: Path, parts: Path, tmp_path: Path) -> None:
    command_line = [*command(parts, tmp_path, "--start", str(run)), *HEAD_OPTIONS]
    result = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    old, new = load_file(run / "student.safetensors"), load_file(tmp_path / "r" / "student.safetensors")
    assert all(torch.equal(old[key], new[key]) for key in old)
    map_weights, score_weights = new["heads.blend_weights"].tolist()
    assert map_weights[1:] == [3.0, 0.0] and score_weights[1:] == [0.5, 0.0] and map_weights[0] == score_weights[0] > 0


def test_start_refuses_a_different_student(run: Path, parts: Path, tmp_path: Path) -> None:
    command_line = [*command(parts, tmp_path, "--start", str(run)), *HEAD_OPTIONS, "--set", "student.dims=[32, 16, 16]"]
    result = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "uses a different student" in result.stderr


def test_start_refuses_a_run_whose_decoder_was_tuned(distilled: Path, parts: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(distilled / "recipe.yaml"))
    assert recipe.distill.tune_decoder
    with pytest.raises(UsageError, match="changed the decoder"):
        load_fitted_student(make_job(recipe, open_dataset(parts), tmp_path / "r"), str(distilled))


def test_start_accepts_a_distilled_run_whose_decoder_was_not_tuned(
    distilled: Path, parts: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(distilled, tmp_path / "copied")
    edit_recipe(copied, lambda recipe: recipe["distill"].update(tune_decoder=False, denoising_weight=0.0))
    job = make_job(load_recipe(str(copied / "recipe.yaml")), open_dataset(parts), tmp_path / "r")
    assert load_fitted_student(job, str(copied)).heads is not None
