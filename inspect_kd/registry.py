"""A component's name is its file's name; it is imported when somebody asks for it, not before.

This dynamic door is why a run-time test also checks that the line-side path loads no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from inspect_kd.errors import UsageError

_PACKAGE = Path(__file__).parent


def names(family: str) -> list[str]:
    """Components of a family such as `models.students`, without importing any of them."""
    folder = _PACKAGE.joinpath(*family.split("."))
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_"))


def load(family: str, name: str) -> ModuleType:
    """The module that implements a component."""
    if name not in names(family):
        raise UsageError(f"no component '{name}' in {family}; there are: {', '.join(names(family))}")
    return importlib.import_module(f"inspect_kd.{family}.{name}")
