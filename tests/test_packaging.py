"""Contents of the wheel and of the checkout's folders, and rules for source files."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from inspect_kd import config, registry, zoo
from inspect_kd.export.deploy import load_deployment

ROOT = Path(__file__).parents[1]


def test_recipe_and_app_folders_hold_no_python_packages() -> None:
    for name in ("models", "datasets", "export", "apps"):
        assert (ROOT / name).is_dir()
        assert not list((ROOT / name).rglob("__init__.py"))


def test_wheel_holds_the_zoo_and_the_pages_styles_and_scripts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"inspect_kd"}
    for file in (
        "_zoo/models/omni_ad.yaml",
        "_zoo/models/embedded_encoder.safetensors",
        "_zoo/datasets/mvtec.yaml",
        "_zoo/export/onnx.yaml",
    ):
        assert f"inspect_kd/{file}" in names
    zones = ("zones.css", "model.js", "drawing.js", "list.js", "editor.js")
    for file in (
        *("report/style.css", "apps/studio/studio.css", "apps/studio/studio.js"),
        *(f"apps/studio/zones/{name}" for name in zones),
    ):
        assert f"inspect_kd/{file}" in names
    assert wheel.stat().st_size < 3e6


def test_installed_wheel_finds_its_zoo(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = "from inspect_kd import zoo; print(zoo.find('models', 'omni_ad')); print(zoo.names('datasets'))"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert (
        str(tmp_path / "inspect_kd" / "_zoo" / "models" / "omni_ad.yaml") in answer.stdout and "mvtec" in answer.stdout
    )


def test_base_install_requires_no_torch_and_no_runtime() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = " ".join(project["dependencies"])
    assert not re.search(r"torch|onnx|timm|anomalib|gradio", base)


@pytest.mark.parametrize("name", zoo.names("models"))
def test_every_recipe_resolves_and_has_a_card(name: str) -> None:
    recipe = config.load_recipe(name)
    assert recipe.name == name and recipe.about
    options = dict(recipe.student or recipe.teacher)
    module = registry.load(recipe.family, options.pop("build"))
    config.fill(module.Config, options, where=name)
    assert [load_deployment(target).name for target in recipe.export] == list(recipe.export)
    assert (zoo.folder_of("models") / f"{name}.md").is_file()
    first_line = zoo.find("models", name).read_text().splitlines()[0]
    assert first_line.startswith("# inspect-kd train") and f"--model {name}" in first_line
    assert yaml.safe_load(recipe.to_yaml()) == recipe.model_dump(mode="json")


def test_sources_are_short_and_only_weights_calls_torch_load() -> None:
    sources = list((ROOT / "inspect_kd").rglob("*.py"))
    assert not [path.name for path in sources if len(path.read_text().splitlines()) > 420]
    files_with_torch_load = [path.name for path in sources if re.search(r"\btorch\.load\(", path.read_text())]
    assert files_with_torch_load == ["weights.py"]
