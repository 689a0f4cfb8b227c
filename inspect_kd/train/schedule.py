"""How fast to learn at which step."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, *, peak: float, warm_up: float) -> float:
    """Linear rise, then a cosine to one hundredth."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return peak * (step + 1) / rise
    along = (step - rise) / max(1, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))
