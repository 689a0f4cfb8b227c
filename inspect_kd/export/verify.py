"""Parity: an artifact gets its name only after it has answered like the student, on real images and on hard artificial ones.

Compares maps and scores, never masks: a pixel that sits on the threshold flips at machine precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inspect_kd.errors import GateFailed
from inspect_kd.metrics import ImageScores
from inspect_kd.types import Model, Thresholds

Images = npt.NDArray[np.uint8]


@dataclass(kw_only=True, slots=True)
class Parity:
    """How far two models are apart."""

    images: int = 0
    real_images: int = 0
    score: float = 0.0
    """Largest difference of a score."""
    heatmap: float = 0.0
    heatmap_mean: float = 0.0
    auroc: float | None = None
    """Change of image AUROC; None where there are not both sound and defective parts."""
    flips: int = 0
    """Decisions that differ though the reference's score is further from both thresholds than the score's limit."""
    near_threshold: int = 0
    """Parts whose reference score lies within that limit of a threshold."""
    batches: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {key: round(value, 9) if isinstance(value, float) else value for key, value in asdict(self).items()}


NOISE = 1e-5
"""Difference of two scores that means nothing, on the calibrated scale."""


def compare(
    reference: Model,
    candidate: Model,
    real: Iterable[tuple[Images, Sequence[bool]]],
    *,
    batches: Sequence[int],
    thresholds: Thresholds,
    guard: float,
) -> Parity:
    """Run both over the real images (with their truth) and over the artificial ones, at each batch size in turn."""
    parity = Parity(batches=list(batches))
    scores = (ImageScores(), ImageScores())
    queue: list[tuple[npt.NDArray[np.uint8], bool | None]] = [(image, None) for image in artificial(reference.size)]
    for images, truth in real:
        queue += list(zip(images, truth, strict=True))
    start = turn = 0
    while start < len(queue):
        count = batches[turn % len(batches)]
        part, start, turn = queue[start : start + count], start + count, turn + 1
        # The last images fill up a whole batch, so that each size is really run.
        images = np.stack([image for image, _ in part] + [part[-1][0]] * (count - len(part)))
        a, b = reference.look(images), candidate.look(images)
        _add(parity, scores, a, b, [truth for _, truth in part], thresholds, guard)
    for missing in [count for i, count in enumerate(batches) if i >= turn]:
        images = np.stack([queue[0][0]] * missing)
        a, b = reference.look(images), candidate.look(images)
        parity.score = max(parity.score, float(np.abs(a.scores_N - b.scores_N).max()))
    before, after = scores[0].auroc().value, scores[1].auroc().value
    parity.auroc = None if before is None or after is None else abs(before - after)
    return parity


def _add(
    parity: Parity, scores: Any, a: Any, b: Any, truths: list[bool | None], thresholds: Thresholds, guard: float
) -> None:
    n = len(truths)
    difference = np.abs(a.heatmaps_NHW[:n] - b.heatmaps_NHW[:n])
    score_difference = np.abs(a.scores_N[:n] - b.scores_N[:n])
    # NaN compares as equal to nothing and would slip through max(): it counts as infinitely far.
    parity.heatmap = max(parity.heatmap, _largest(difference))
    parity.score = max(parity.score, _largest(score_difference))
    parity.heatmap_mean += (float(difference.mean()) - parity.heatmap_mean) * n / (parity.images + n)
    parity.images += n
    for expected, found, truth in zip(a.scores_N[:n], b.scores_N[:n], truths, strict=True):
        if min(abs(expected - thresholds.reinspect), abs(expected - thresholds.reject)) <= guard:
            parity.near_threshold += 1
        elif thresholds.decide(float(expected)) != thresholds.decide(float(found)):
            parity.flips += 1
        if truth is not None:
            parity.real_images += 1
            scores[0].add(float(expected), truth)
            # Of two parts that score the same to the last digits either may come first: no change of order.
            scores[1].add(float(expected if abs(found - expected) <= NOISE else found), truth)


def _largest(difference: npt.NDArray[np.float32]) -> float:
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def artificial(size: int) -> list[Images]:
    """Images that no camera takes: where rounding, padding and normalisation go wrong first."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((size, size))
    checker = (((rows // 8 + columns // 8) % 2) * 255).astype(np.uint8)
    return [
        np.zeros((size, size, 3), np.uint8),
        np.full((size, size, 3), 255, np.uint8),
        rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        np.repeat(checker[:, :, None], 3, axis=2),
    ]


def hold_to(parity: Parity, accept: dict[str, float], what: str) -> None:
    """Raise with every limit that was missed."""
    found = {
        "score": parity.score,
        "heatmap": parity.heatmap,
        "auroc": parity.auroc or 0.0,
        "flips": float(parity.flips),
    }
    missed = [
        f"{name} {found[name]:.3g} (limit {limit:.3g})" for name, limit in accept.items() if not found[name] <= limit
    ]
    if missed:
        raise GateFailed(
            f"{what} does not answer like the student on {parity.images} images: {'; '.join(missed)}. No artifact was written."
        )
