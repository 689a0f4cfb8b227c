"""How reliable each teacher is at each place, measured on synthetic defects, whose masks are exact.

MulKI weighs two teachers by exp(-u / T) and leaves open how u is computed. Here u is the teacher's expected error at a place's
heat, from a table measured on synthetic defects. The same table turns heat into a probability, so that all teachers are on one scale.

Shapes: B batch, m m grid of heat, K teachers (a suffix `_K` alone means K, B, 1, m, m).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 64
PRIOR = 20.0
"""Places counted in each bin beforehand, half of them defective: an empty bin must not be certain."""


class Reliability:
    """One teacher's table from heat to the probability of a defect."""

    def __init__(self) -> None:
        self.place_counts = torch.full((BINS,), PRIOR, dtype=torch.float64)
        self.defect_counts = self.place_counts / 2
        self.table: Tensor | None = None

    def add(self, heat_B1mm: Tensor, mask_B1mm: Tensor) -> None:
        """Count the places of images whose masks are exact."""
        self.table = None
        bins = _bin_of(heat_B1mm).flatten()
        self.place_counts.index_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))
        self.defect_counts.index_add_(0, bins, mask_B1mm.flatten().double())

    def probability(self, heat_B1mm: Tensor) -> Tensor:
        """Probability that a place with this heat is defective; it never falls as heat rises."""
        if self.table is None:
            self.table = fit_isotonic(self.defect_counts, self.place_counts)
        return self.table.to(heat_B1mm.device)[_bin_of(heat_B1mm)]

    def expected_error(self, heat_B1mm: Tensor) -> Tensor:
        """Mean absolute error of that probability at a place with this heat: 0 to 0.5."""
        probability = self.probability(heat_B1mm)
        return 2 * probability * (1 - probability)


def fuse(
    heats: Sequence[Tensor], confidences: Sequence[Tensor], reliabilities: Sequence[Reliability], temperature: float
) -> tuple[Tensor, Tensor]:
    """Weigh all teachers at each place. Returns their common probability of a defect, and its weight from 0 to 1, both (B, 1, m, m).

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


def fit_isotonic(defect_counts: Tensor, place_counts: Tensor) -> Tensor:
    """Fit a non-decreasing share of defective places to the bins (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for hits, count in zip(defect_counts.tolist(), place_counts.tolist(), strict=True):
        blocks.append((hits, count, 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            (hits_a, count_a, bins_a), (hits_b, count_b, bins_b) = blocks[-2:]
            blocks[-2:] = [(hits_a + hits_b, count_a + count_b, bins_a + bins_b)]
    return torch.cat([torch.full((bins,), hits / count) for hits, count, bins in blocks])


def _bin_of(heat_B1mm: Tensor) -> Tensor:
    return (heat_B1mm.float() * BINS).long().clamp(0, BINS - 1)
