"""The learning rate at each step."""

from __future__ import annotations

import math
from typing import Literal

DROP_AT = 0.8
"""Share of the steps after which the schedule `step` drops, as published for Omni-AD."""
DROP_TO = 0.1


def learning_rate(
    step: int, steps: int, *, peak: float, warm_up: float, schedule: Literal["cosine", "step"] = "cosine"
) -> float:
    """Rise linearly to the peak, then fall by a cosine to one hundredth of it, or stay at the peak until a late drop."""
    rise_steps = max(1, round(warm_up * steps))
    if step < rise_steps:
        return peak * (step + 1) / rise_steps
    if schedule == "step":
        return peak * (DROP_TO if step >= DROP_AT * steps else 1.0)
    fraction = (step - rise_steps) / max(1, steps - rise_steps)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))
