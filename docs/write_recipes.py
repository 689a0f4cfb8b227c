"""Write docs/recipes.md: each key of a recipe with its default, its allowed values and its field's docstring.

`make docs` runs it; with `--check` it only compares, and exits with 1 if the page is not current.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import pkgutil
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from inspect_kd import config, registry
from inspect_kd.models import students, teachers

PAGE = Path(__file__).parent / "recipes.md"
SECTIONS = ("data", "fit", "teach", "distill", "calibration")
HEAD = """\
# Recipes

Written by `docs/write_recipes.py` from the fields' docstrings in `inspect_kd/config.py` and in the models' `Config` classes: change them
there, then run `make docs`.

A recipe is a YAML file that says what to train. `inspect-kd ls models` lists those that come with the program, `inspect-kd cp omni_ad`
copies one to change it, and `--set section.key=value` changes one key for one training. `train --dry-run` prints the resolved recipe; a run
keeps it as `recipe.yaml`. A shipped recipe may set other values than the defaults below. Unknown keys are refused.
Keys of earlier versions are still read, and are listed in [the changelog](../CHANGELOG.md).
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "multipleOf": "multiple of"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    text = page()
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    lines = [HEAD, "## The recipe", "", *table(config.Recipe, leave_out=SECTIONS)]
    for section in SECTIONS:
        model = config.Recipe.model_fields[section].annotation
        assert isinstance(model, type)
        lines += ["", f"## `{section}`", "", str(inspect.getdoc(model)), "", *table(model)]
        if section == "distill":
            stage = config.StageConfig
            lines += ["", "Each stage (`align`, `supervise`, `refine`) has:", "", *table(stage)]
    for kind, package in (("student", students), ("teacher", teachers)):
        for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
            module = registry.load(f"models.{kind}s", name)
            about = str(inspect.getdoc(module)).partition("\n\n")[0]
            lines += ["", f"## `{kind}` with `build: {name}`", "", about, "", *table(module.Config)]
            for key, entry in entries_of(module.Config):
                lines += ["", f"Each entry of `{key}`:", "", *table(entry)]
    return "\n".join(lines) + "\n"


def table(model: type[Any], leave_out: tuple[str, ...] = ()) -> list[str]:
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    schema = TypeAdapter(model).json_schema()
    for name, default, about in rows(model):
        if name not in leave_out:
            cells = (f"`{name}`", default, describe_allowed(schema["properties"][name], schema), about)
            lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |")
    return lines


def rows(model: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and docstring of each field."""
    if issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            yield name, default_of(field), field.description or ""
        return
    about = docstrings(model)
    for field in fields(model):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        yield field.name, "required" if default is MISSING else format_default(default), about.get(field.name, "")


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    return "see below" if isinstance(default, BaseModel) else format_default(default)


def format_default(value: Any) -> str:
    """Format a default in YAML's flow style; for a list of settings, name its number of entries."""
    text = json.dumps(TypeAdapter(type(value)).dump_python(value, mode="json"), ensure_ascii=False)
    if isinstance(value, tuple) and any(is_dataclass(entry) for entry in value):
        return f"{len(value)} entries"
    return f"`{text}`"


def docstrings(model: type[Any]) -> dict[str, str]:
    """Return the docstrings below a dataclass's fields and its bases' fields."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not is_dataclass(cls):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for before, node in zip(tree.body, tree.body[1:], strict=False):
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if is_text and isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
                texts[before.target.id] = inspect.cleandoc(str(node.value.value))
    return texts


def entries_of(model: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    """Yield each field that holds a list of dataclasses, with that dataclass."""
    for name, hint in get_type_hints(model).items():
        for argument in get_args(hint):
            if isinstance(argument, type) and is_dataclass(argument):
                yield name, argument


def describe_allowed(schema: dict[str, Any], root: dict[str, Any]) -> str:
    """Describe briefly what a field's JSON schema allows."""
    schema = resolve(schema, root)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(describe_allowed(option, root) for option in schema["anyOf"]))
    kind = {"null": "null", "string": "text", "object": "mapping", "boolean": "true, false"}.get(schema.get("type", ""))
    if schema.get("type") == "array":
        return describe_list(schema, root)
    bounds = ", ".join(f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if key in schema)
    kind = kind or schema.get("type", "")
    return f"{kind} {bounds}" if bounds else str(kind)


def describe_list(schema: dict[str, Any], root: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} × {describe_allowed(schema['prefixItems'][0], root)}"
    items = resolve(schema.get("items", {}), root)
    return f"list of {'entries' if items.get('properties') else describe_allowed(items, root)}"


def resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").rpartition("/")[2]
    resolved: dict[str, Any] = root["$defs"][reference] if reference else schema
    return resolved


if __name__ == "__main__":
    raise SystemExit(main())
