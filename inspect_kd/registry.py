"""A component's name is its file's name; it is imported when somebody asks for it, not before.

This dynamic door is why a run-time test also checks that the line-side path loads no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from inspect_kd.errors import BadInput, UsageError

_PACKAGE = Path(__file__).parent
TARGETS = {".openvino.onnx": "openvino", ".tensorrt.onnx": "tensorrt", ".onnx": "onnx"}
"""Which export target an artifact is for, by the end of its file's name; the longest first."""


def names(family: str) -> list[str]:
    """Components of a family such as `models.students`, without importing any of them."""
    folder = _PACKAGE.joinpath(*family.split("."))
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_"))


def target_of(artifact: Path) -> str:
    """The export target whose runtime opens this file."""
    for end, target in TARGETS.items():
        if artifact.name.endswith(end):
            return target
    raise BadInput(f"{artifact}: no runtime for '{artifact.suffix}' files; there is one for: {', '.join(TARGETS)}")


def load(family: str, name: str) -> ModuleType:
    """The module that implements a component."""
    if name not in names(family):
        raise UsageError(f"no component '{name}' in {family}; there are: {', '.join(names(family))}")
    return importlib.import_module(f"inspect_kd.{family}.{name}")
