"""Load components by the name of their file; each is imported on first use.

Since linters cannot follow these dynamic imports, a run-time test checks that inspection on the line imports no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from inspect_kd.errors import BadInput, UsageError

_PACKAGE = Path(__file__).parent
TARGETS = {".openvino.onnx": "openvino", ".tensorrt.onnx": "tensorrt", ".onnx": "onnx"}
"""Export targets by the end of an artifact's file name, the longest first."""


def names(family: str) -> list[str]:
    """List the components of a family such as `models.students` without importing them."""
    folder = _PACKAGE.joinpath(*family.split("."))
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_"))


def target_of(artifact: Path) -> str:
    """Return the export target whose runtime opens this file."""
    for end, target in TARGETS.items():
        if artifact.name.endswith(end):
            return target
    raise BadInput(f"{artifact}: no runtime for '{artifact.suffix}' files; artifacts end in: {', '.join(TARGETS)}")


def load(family: str, name: str) -> ModuleType:
    """Import the module that implements a component."""
    if name not in names(family):
        raise UsageError(f"no component '{name}' in {family}; there are: {', '.join(names(family))}")
    return importlib.import_module(f"inspect_kd.{family}.{name}")
