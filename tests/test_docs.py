"""Generated documents are current, links lead to files, and `make bench` writes every page of results."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from benchmarks.results import RESULTS
from benchmarks.write_pages import PAGES, files_of
from inspect_kd import config, former_names, zoo

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(path for folder in ("docs", "models", "export", "apps") for path in (ROOT / folder).rglob("*.md")),
]


def load_program(name: str) -> ModuleType:
    """Load a program of docs/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_of_the_readme_are_current() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert load_program("write_figures").replace_tables(text) == text, "run `make docs`"


def test_the_figures_of_the_readme_come_from_their_json(monkeypatch: pytest.MonkeyPatch) -> None:
    program = load_program("write_figures")
    load = program.load
    results = load("real_data_omni_ad")
    results["runs"]["unified"]["metrics"]["tile"]["pixel_ap"] = 0.123
    monkeypatch.setattr(program, "load", lambda name: results if name == "real_data_omni_ad" else load(name))
    assert "| tile | 0.880 | 0.123 |" in "\n".join(program.write_tables())


def test_the_readme_is_at_most_120_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_recipe_reference_is_current() -> None:
    program = load_program("write_recipes")
    assert program.PAGE.read_text(encoding="utf-8") == program.page(), "run `make docs`"


@pytest.mark.parametrize("name", zoo.names("models"))
def test_the_recipe_reference_names_every_key_of_a_shipped_recipe(name: str) -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    resolved = yaml.safe_load(config.load_recipe(name).to_yaml())
    for section, keys in resolved.items():
        assert f"`{section}`" in text
        for key in keys if isinstance(keys, dict) else ():
            assert f"`{key}`" in text or f"`{key}:" in text or f"`{section}` with `{key}:" in text, f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_results_is_current(page: str) -> None:
    for file, text in files_of(page).items():
        assert (RESULTS / file).read_text(encoding="utf-8") == text, "run `make docs`"


def test_every_page_of_results_has_its_program() -> None:
    assert {path.stem for path in RESULTS.glob("*.md")} == set(PAGES)


def test_bench_runs_the_program_of_every_page() -> None:
    recipe = re.search(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    lines = re.findall(r"-m benchmarks\.(\w+)(?: --model (\w+))?", recipe[1])
    pages = {f"real_data_{model or 'omni_ad'}" if program == "real_data" else program for program, model in lines}
    assert pages == {page if page.startswith("real_data") else program for page, program in PAGES.items()}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_document_lead_to_files(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{link} in {path.name}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{link} in {path.name}"


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_map_of_the_files_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = [path for path in (ROOT / "inspect_kd").iterdir() if (path / "__init__.py").is_file()]
    folders += [ROOT / name for name in ("models", "datasets", "export", "apps", "benchmarks", "docs", "tests")]
    assert not [path.name for path in folders if f"`{path.relative_to(ROOT)}/`" not in text]


def test_notes_for_assistants_are_short_and_name_commands_that_exist() -> None:
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([\w-]+)", text, re.MULTILINE))
    assert len(text.splitlines()) <= 60 and {"test", "lint", "docs"} <= named <= targets


def test_pictures_of_the_readme_are_small() -> None:
    for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / link).stat().st_size < 300_000, link


def test_the_tests_that_security_names_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    functions = set(re.findall(r"`(test_\w+)`", text))
    assert not [name for name in re.findall(r"`(tests/[\w/]+\.py)`", text) if not (ROOT / name).is_file()]
    defined = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert functions and not [name for name in functions if f"def {name}(" not in defined]


def test_the_changelog_names_every_former_name() -> None:
    text = " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split())
    assert not [pair for pair in former_names.RECIPE_KEYS.items() if "`{}` → `{}`".format(*pair) not in text]
    names = [name.rstrip(".") for pair in former_names.WEIGHT_PREFIXES.items() for name in pair]
    assert not [name for name in names if f"`{name}`" not in text]
