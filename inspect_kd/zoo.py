"""Find what one chooses: recipes (`models/`), manifests (`datasets/`), deployments (`export/`).

A path wins; then the wheel's `_zoo`; then the checkout beside the package (an editable install).
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from inspect_kd.errors import EnvironmentFault, UsageError

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


def home() -> Path:
    """The user's home folder. A service may run as a user that has none."""
    return expand_user("~")


def expand_user(path: str) -> Path:
    """The path, with a `~` or `~name` at its beginning replaced by that user's home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EnvironmentFault(
            f"{path}: this machine knows no home folder of that user; write paths in full, and set INSPECT_KD_CACHE, "
            "INSPECT_KD_DATA and INSPECT_KD_TRUST to folders"
        ) from error


def named_folder(variable: str) -> Path | None:
    """The folder that an environment variable names. No shell expands a `~` in quotes."""
    value = os.environ.get(variable)
    return expand_user(value) if value else None


def cache_home() -> Path:
    """What can be made again: $INSPECT_KD_CACHE, else a cache folder of the user's."""
    return named_folder("INSPECT_KD_CACHE") or home() / ".cache" / "inspect-kd"


def data_home() -> Path:
    """Where data sets live: $INSPECT_KD_DATA, else a cache folder of the user's."""
    return named_folder("INSPECT_KD_DATA") or home() / ".cache" / "inspect-kd" / "data"
