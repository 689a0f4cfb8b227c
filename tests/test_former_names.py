"""Recipes, runs and weights with the names of earlier versions still open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from inspect_kd import weights
from inspect_kd.config import Recipe, load_recipe
from inspect_kd.former_names import RECIPE_KEYS, RECIPE_VALUES, WEIGHT_PREFIXES
from inspect_kd.training.run import load_run


def to_former_recipe(content: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Return the recipe as an earlier version would have written it."""
    for former, current in RECIPE_KEYS.items():
        section, key = current.split(".")
        if key in content.get(section, {}):
            value = content[section].pop(key)
            former_values = {new: old for old, new in RECIPE_VALUES.get(current, {}).items()}
            content[section][former.split(".")[1]] = former_values.get(str(value), value)
    return content


@pytest.mark.parametrize("model", ["omni_ad", "embedded", "omni_ad_paper", "sam_spt"])
def test_a_recipe_with_former_keys_loads_as_the_same_recipe(model: str, tmp_path: Path) -> None:
    recipe = load_recipe(model)
    path = tmp_path / "former.yaml"
    path.write_text(yaml.safe_dump(to_former_recipe(yaml.safe_load(recipe.to_yaml()))))
    assert "head_width" not in path.read_text() and "voices" in path.read_text()
    assert load_recipe(str(path)) == recipe


def test_an_override_may_use_a_former_key() -> None:
    recipe = load_recipe("omni_ad", ["distill.most=10", "distill.trust=alike", "student.answer_width=8"])
    assert (recipe.distill.max_samples, recipe.distill.teacher_weights) == (10, "equal")
    assert recipe.student["head_width"] == 8


def test_current_key_overrides_its_former_name(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("name: both\nstudent: {build: omni_ad}\nfit: {schedule: cosine, fall: step}\n")
    assert load_recipe(str(path)).fit.schedule == "cosine"


def test_every_key_of_the_table_exists_today() -> None:
    for current in RECIPE_KEYS.values():
        section, key = current.split(".")
        if section not in ("student", "teacher"):
            assert key in type(getattr(load_recipe("omni_ad"), section)).model_fields
    assert set(Recipe.model_fields) >= {key.split(".")[0] for key in RECIPE_KEYS.values()}


def test_a_run_with_former_names_opens(staged_runs: Path, tmp_path: Path) -> None:
    current = staged_runs / "r"
    former = Path(shutil.copytree(current, tmp_path / "former"))
    state = load_file(former / "student.safetensors")
    renamed = {to_former_weight(key): value for key, value in state.items()}
    assert renamed.keys() != state.keys()
    save_file(renamed, former / "student.safetensors")
    recipe = former / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_former_recipe(yaml.safe_load(recipe.read_text()))))
    manifest = json.loads((former / "run.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = weights.sha256(former / name)
    (former / "run.json").write_text(json.dumps(manifest))
    opened, original = load_run(former), load_run(current)
    assert opened.recipe == original.recipe
    images = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.equal(opened.model(images).heatmap_B1HW, original.model(images).heatmap_B1HW)


def to_former_weight(key: str) -> str:
    for former, current in WEIGHT_PREFIXES.items():
        if key.startswith(current):
            return former + key.removeprefix(current)
    return key
