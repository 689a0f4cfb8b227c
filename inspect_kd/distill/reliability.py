"""How far each teacher can be trusted at each place: learnt on drawn defects, whose masks are exact.

MulKI weighs two teachers by exp(-u / T); how it gets u it does not say. Here u is looked up: among drawn defects, places with
this much heat were wrongly told by so much. The same table turns heat into a chance, so that all teachers speak on one scale.

Shapes: B batch, m m grid of heat, K teachers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 64
PRIOR = 20.0
"""Places that stand in each bin beforehand, half of them damaged: an empty bin must not be certain of anything."""


class Reliability:
    def __init__(self) -> None:
        self.seen = torch.full((BINS,), PRIOR, dtype=torch.float64)
        self.damaged = self.seen / 2
        self.table: Tensor | None = None

    def learn(self, heat_B1mm: Tensor, mask_B1mm: Tensor) -> None:
        """From images of which each place is known."""
        self.table = None
        cell = _cell(heat_B1mm).flatten()
        self.seen.index_add_(0, cell, torch.ones_like(cell, dtype=torch.float64))
        self.damaged.index_add_(0, cell, mask_B1mm.flatten().double())

    def chance(self, heat_B1mm: Tensor) -> Tensor:
        """Of a place with this heat to be damaged; never lower for more heat."""
        if self.table is None:
            self.table = rising(self.damaged, self.seen)
        return self.table.to(heat_B1mm.device)[_cell(heat_B1mm)]

    def error(self, heat_B1mm: Tensor) -> Tensor:
        """By how much a place with this heat is told wrongly, in the mean: 0 to 0.5."""
        chance = self.chance(heat_B1mm)
        return 2 * chance * (1 - chance)


def fuse(
    heats: Sequence[Tensor], confidences: Sequence[Tensor], reliabilities: Sequence[Reliability], temperature: float
) -> tuple[Tensor, Tensor]:
    """What all teachers say together, and how far that can be trusted, 0 to 1: both (B, 1, m, m).

    A teacher's own confidence counts too: where it might as well have tossed a coin, it is not heard. The error weighs teachers
    against each other only. As a weight of places it would hide every defect: the more heat, the less certain it is that
    all of it is one, and the chance says so already.
    """
    chances_K = torch.stack([r.chance(heat) for r, heat in zip(reliabilities, heats, strict=True)])
    errors_K = torch.stack([r.error(heat) for r, heat in zip(reliabilities, heats, strict=True)])
    sure_K = torch.stack(list(confidences))
    weights_K = sure_K * (-errors_K / temperature).exp()
    target = (weights_K * chances_K).sum(dim=0) / weights_K.sum(dim=0).clamp_min(1e-6)
    return target, sure_K.amax(dim=0)


def average(heats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All teachers alike, at their word."""
    target = torch.stack(list(heats)).mean(dim=0)
    return target, torch.ones_like(target)


def rising(damaged: Tensor, seen: Tensor) -> Tensor:
    """The shares that fit best among those that never fall (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for hits, count in zip(damaged.tolist(), seen.tolist(), strict=True):
        blocks.append((hits, count, 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            (a, n, k), (b, m, j) = blocks[-2:]
            blocks[-2:] = [(a + b, n + m, k + j)]
    return torch.cat([torch.full((bins,), hits / count) for hits, count, bins in blocks])


def _cell(heat_B1mm: Tensor) -> Tensor:
    return (heat_B1mm.float() * BINS).long().clamp(0, BINS - 1)
