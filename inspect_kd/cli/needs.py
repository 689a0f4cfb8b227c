"""Check that the packages of an extra are installed; the error names the missing ones."""

from __future__ import annotations

from importlib.util import find_spec

from inspect_kd.errors import EnvironmentFault


def require_training() -> None:
    """Raise EnvironmentFault if packages for training are missing."""
    missing = [
        name for name in ("torch", "timm", "lightning", "onnx", "onnxscript", "safetensors") if find_spec(name) is None
    ]
    if missing:
        raise EnvironmentFault(
            f"training needs {', '.join(missing)}: pip install 'inspect-kd[train,cpu]' (or [train,gpu])"
        )
