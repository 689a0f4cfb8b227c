"""inspect-kd: big teachers look once, a small student looks at every part.

Importing the package costs nothing; `Inspector` is loaded when first asked for and needs no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect_kd.inspector import Inspector as Inspector
    from inspect_kd.types import Inspection as Inspection

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
