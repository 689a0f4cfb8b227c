"""Find the shipped YAML files: recipes (`models/`), manifests (`datasets/`), deployments (`export/`).

A path to a YAML file is used directly. A name is looked up in the wheel's `_zoo`, or in the checkout of an editable install.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from inspect_kd.errors import EnvironmentFault, UsageError

ZooKind = Literal["models", "datasets", "export"]

_PACKAGE = Path(__file__).parent
_FILE_KIND = {"models": "recipe", "datasets": "manifest", "export": "deployment"}


def folder_of(kind: ZooKind) -> Path:
    """Return the folder of the shipped files of one kind."""
    in_wheel = _PACKAGE / "_zoo" / kind
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / kind


def names(kind: ZooKind) -> list[str]:
    """List the names of all shipped files of one kind."""
    return sorted(path.stem for path in folder_of(kind).glob("*.yaml"))


def find(kind: ZooKind, name: str) -> Path:
    """Return the YAML file for a name or a path."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise UsageError(f"{_FILE_KIND[kind]} file not found: {name}")
    shipped = folder_of(kind) / f"{name}.yaml"
    if shipped.is_file() and "/" not in name and "\\" not in name:
        return shipped
    nearest = difflib.get_close_matches(name, names(kind), n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    raise UsageError(
        f"no {_FILE_KIND[kind]} named '{name}'.{hint} There are: {', '.join(names(kind))}; a path to a .yaml works too."
    )


def asset(kind: ZooKind, file_name: str) -> Path:
    """Return the path of a shipped file that is not YAML, such as the embedded encoder's weights."""
    return folder_of(kind) / file_name


def home() -> Path:
    """Return the user's home folder; raise if the user has none, like some service accounts."""
    return expand_user("~")


def expand_user(path: str) -> Path:
    """Replace a leading `~` or `~name` by that user's home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise EnvironmentFault(
            f"{path}: that user has no home folder on this machine; write paths in full, and set INSPECT_KD_CACHE, "
            "INSPECT_KD_DATA and INSPECT_KD_TRUST to folders"
        ) from error


def folder_from_variable(variable: str) -> Path | None:
    """Return the folder that an environment variable names, if set. `~` is expanded here, since a shell does not expand it in quotes."""
    value = os.environ.get(variable)
    return expand_user(value) if value else None


def cache_home() -> Path:
    """Return the folder for files that can be rebuilt: $INSPECT_KD_CACHE, or one in the user's home."""
    return folder_from_variable("INSPECT_KD_CACHE") or home() / ".cache" / "inspect-kd"


def data_home() -> Path:
    """Return the folder of the data sets: $INSPECT_KD_DATA, or one in the user's home."""
    return folder_from_variable("INSPECT_KD_DATA") or home() / ".cache" / "inspect-kd" / "data"
