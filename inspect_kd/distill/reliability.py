"""How reliable each teacher is at each place, measured on synthetic defects, whose masks are exact.

MulKI weighs two teachers by exp(-u / T) and leaves open how u is computed. Here u is the teacher's expected error at its
heat, from a table measured on synthetic defects. The same table turns heat into a probability, so that all teachers are on one scale.

Shapes: B batch, m m grid of heat, K teachers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 64
PRIOR = 20.0
"""Places counted in each bin beforehand, half of them damaged: an empty bin must not be certain."""


class Reliability:
    """One teacher's table from heat to the probability of damage."""

    def __init__(self) -> None:
        self.places = torch.full((BINS,), PRIOR, dtype=torch.float64)
        self.damaged = self.places / 2
        self.table: Tensor | None = None

    def add(self, heat_B1mm: Tensor, mask_B1mm: Tensor) -> None:
        """Count the places of images whose masks are exact."""
        self.table = None
        bins = _bin_of(heat_B1mm).flatten()
        self.places.index_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))
        self.damaged.index_add_(0, bins, mask_B1mm.flatten().double())

    def probability(self, heat_B1mm: Tensor) -> Tensor:
        """Probability that a place with this heat is damaged; it never falls as heat rises."""
        if self.table is None:
            self.table = isotonic(self.damaged, self.places)
        return self.table.to(heat_B1mm.device)[_bin_of(heat_B1mm)]

    def expected_error(self, heat_B1mm: Tensor) -> Tensor:
        """Mean absolute error of that probability at a place with this heat: 0 to 0.5."""
        probability = self.probability(heat_B1mm)
        return 2 * probability * (1 - probability)


def fuse(
    heats: Sequence[Tensor], confidences: Sequence[Tensor], reliabilities: Sequence[Reliability], temperature: float
) -> tuple[Tensor, Tensor]:
    """Weigh all teachers at each place: their common probability of damage, and its weight from 0 to 1, both (B, 1, m, m).

    A teacher's own confidence counts too: where it is 0, the teacher is ignored. The expected error weighs teachers against
    each other, not places: it is high at hot places, which are often partly sound, so it would suppress defects. The
    probability already expresses that uncertainty.
    """
    probabilities_K = torch.stack([r.probability(heat) for r, heat in zip(reliabilities, heats, strict=True)])
    errors_K = torch.stack([r.expected_error(heat) for r, heat in zip(reliabilities, heats, strict=True)])
    confidences_K = torch.stack(list(confidences))
    weights_K = confidences_K * (-errors_K / temperature).exp()
    target = (weights_K * probabilities_K).sum(dim=0) / weights_K.sum(dim=0).clamp_min(1e-6)
    return target, confidences_K.amax(dim=0)


def average(heats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean heat of all teachers, and a weight of 1 everywhere."""
    target = torch.stack(list(heats)).mean(dim=0)
    return target, torch.ones_like(target)


def isotonic(damaged: Tensor, places: Tensor) -> Tensor:
    """Fit a non-decreasing share of damaged places to the bins (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for hits, count in zip(damaged.tolist(), places.tolist(), strict=True):
        blocks.append((hits, count, 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            (a, n, k), (b, m, j) = blocks[-2:]
            blocks[-2:] = [(a + b, n + m, k + j)]
    return torch.cat([torch.full((bins,), hits / count) for hits, count, bins in blocks])


def _bin_of(heat_B1mm: Tensor) -> Tensor:
    return (heat_B1mm.float() * BINS).long().clamp(0, BINS - 1)
