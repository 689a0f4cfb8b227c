"""inspect-kd: big teachers look once, a small student looks at every part.

Importing the package costs nothing; `Inspector` is loaded when first asked for and needs no torch.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect_kd.inspector import Inspector as Inspector
    from inspect_kd.types import Inspection as Inspection

# ONNX Runtime's official packages queue usage data for a host outside as soon as they are imported; its own call to switch
# that off comes too late. Every module of this package that imports it comes after this line.
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
