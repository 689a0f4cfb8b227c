"""inspect-kd: distil large teacher models into a small student that inspects every part.

    run = inspect_kd.train("my_parts/")
    inspection = inspect_kd.Inspector(run.artifact())("part.png")

Importing the package is cheap: names are imported on first use, and `Inspector` needs no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect_kd.api import Run as Run
    from inspect_kd.api import open_run as open_run
    from inspect_kd.api import train as train
    from inspect_kd.inspector import Inspector as Inspector
    from inspect_kd.types import Inspection as Inspection

# ONNX Runtime's official packages collect usage data for an outside host as soon as they are imported, before their own API
# could switch that off. So this is set before any module of this package imports them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["Inspection", "Inspector", "Run", "__version__", "open_run", "train"]
_MODULES = {"Inspection": "types", "Inspector": "inspector", "Run": "api", "open_run": "api", "train": "api"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"inspect_kd.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'inspect_kd' has no attribute {name!r}")
