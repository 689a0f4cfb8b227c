"""Limit how many weights an untrusted recipe can build.

A model is built before its weights are compared with those of the file, so widths in a recipe decide how much memory it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from inspect_kd.errors import BadInput

MAX_WEIGHTS = 2**30
"""4 GiB in 32 bits. The shipped students have about two million; an encoder counts twice, as it is built once more to read its strides."""
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}


class WeightLimit(TorchFunctionMode):
    """Context that raises BadInput before the tensors created in it exceed the limit."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.created = where, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FACTORIES and args:
            size = args[0] if isinstance(args[0], (tuple, list)) else args
            self.created += math.prod(size)
            if self.created > MAX_WEIGHTS:
                raise BadInput(f"{self.where}: builds more than {MAX_WEIGHTS:,} weights")
        return func(*args, **(kwargs or {}))
