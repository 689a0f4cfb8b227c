"""The learning rate at each step."""

from __future__ import annotations

import math
from typing import Literal

DROP_AT, DROP_TO = 0.8, 0.1
"""Share of the steps after which the schedule `step` drops to a tenth, as Omni-AD was published."""


def learning_rate(
    step: int, steps: int, *, peak: float, warm_up: float, schedule: Literal["cosine", "step"] = "cosine"
) -> float:
    """A linear rise, then a cosine to one hundredth of the peak, or the peak and a late drop."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return peak * (step + 1) / rise
    if schedule == "step":
        return peak * (DROP_TO if step >= DROP_AT * steps else 1.0)
    progress = (step - rise) / max(1, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
