"""Names in the package: one class name for one idea, and no module whose name says nothing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "inspect_kd"
PLUGIN_INTERFACE = {"Config", "Runtime"}
"""What the registry asks of every model and of every export target by this name: one idea, in several files."""


def test_class_names_are_unique_in_the_package() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: at for name, at in places.items() if len(at) > 1 and name not in PLUGIN_INTERFACE} == {}


def test_no_module_is_named_after_nothing() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "util", "misc", "common", "helpers"}
