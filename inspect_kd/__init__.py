"""inspect-kd: distil large teacher models into a small student that inspects every part.

Importing the package is cheap: `Inspector` is imported on first use, and needs no torch.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect_kd.inspector import Inspector as Inspector
    from inspect_kd.types import Inspection as Inspection

# ONNX Runtime's official packages queue usage data for an outside host as soon as they are imported, before its own call
# could switch that off. So this is set before any module of this package imports it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["Inspection", "Inspector", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Inspector":
        from inspect_kd.inspector import Inspector

        return Inspector
    if name == "Inspection":
        from inspect_kd.types import Inspection

        return Inspection
    raise AttributeError(f"module 'inspect_kd' has no attribute {name!r}")
