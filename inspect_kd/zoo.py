"""Find what one chooses: recipes (`models/`), manifests (`datasets/`), deployments (`export/`).

A path wins; then the wheel's `_zoo`; then the checkout beside the package (an editable install).
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from inspect_kd.errors import UsageError

Kind = Literal["models", "datasets", "export"]

_PACKAGE = Path(__file__).parent
_WORD = {"models": "recipe", "datasets": "manifest", "export": "deployment"}


def room(kind: Kind) -> Path:
    """The folder that holds the shipped files of one kind."""
    in_wheel = _PACKAGE / "_zoo" / kind
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / kind


def names(kind: Kind) -> list[str]:
    """Names of everything shipped of one kind."""
    return sorted(path.stem for path in room(kind).glob("*.yaml"))


def find(kind: Kind, name: str) -> Path:
    """The YAML file for a name or a path."""
    given = Path(name)
    if given.suffix in {".yaml", ".yml"}:
        if given.is_file():
            return given
        raise UsageError(f"{_WORD[kind]} file not found: {name}")
    shipped = room(kind) / f"{name}.yaml"
    if shipped.is_file() and "/" not in name and "\\" not in name:
        return shipped
    near = difflib.get_close_matches(name, names(kind), n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise UsageError(
        f"no {_WORD[kind]} named '{name}'.{hint} There are: {', '.join(names(kind))}; a path to a .yaml works too."
    )


def asset(kind: Kind, file_name: str) -> Path:
    """A shipped file that is not a YAML, such as the embedded encoder's weights."""
    return room(kind) / file_name


def cache_home() -> Path:
    """What can be made again: $INSPECT_KD_CACHE, else a cache folder of the user's."""
    return Path(os.environ.get("INSPECT_KD_CACHE") or Path.home() / ".cache" / "inspect-kd")


def data_home() -> Path:
    """Where data sets live: $INSPECT_KD_DATA, else a cache folder of the user's."""
    return Path(os.environ.get("INSPECT_KD_DATA") or Path.home() / ".cache" / "inspect-kd" / "data")
