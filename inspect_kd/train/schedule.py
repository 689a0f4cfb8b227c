"""How fast to learn at which step."""

from __future__ import annotations

import math
from typing import Literal

LATE, LOWER = 0.8, 0.1
"""Share of the steps after which `step` goes on with a tenth, as Omni-AD was published."""


def learning_rate(
    step: int, steps: int, *, peak: float, warm_up: float, schedule: Literal["cosine", "step"] = "cosine"
) -> float:
    """Linear rise, then a cosine to one hundredth, or one schedule late."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return peak * (step + 1) / rise
    if schedule == "step":
        return peak * (LOWER if step >= LATE * steps else 1.0)
    along = (step - rise) / max(1, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))
