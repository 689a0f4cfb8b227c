"""Names in the package: no class name is used twice, and no module has a meaningless name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "inspect_kd"
PLUGIN_INTERFACE = {"Config", "Runtime"}
"""Names that the registry expects in the file of every model and export target."""


def test_class_names_are_unique_in_the_package() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                files[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in files.items() if len(paths) > 1 and name not in PLUGIN_INTERFACE} == {}


def test_no_module_has_a_meaningless_name() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "util", "misc", "common", "helpers"}
