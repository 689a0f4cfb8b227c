"""Parity: compare an artifact's predictions with the student's, on real images and on hard artificial ones.

Compares maps and scores, not masks: a pixel at the threshold flips at machine precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inspect_kd.metrics import ImageScores
from inspect_kd.types import BatchPrediction, Model, Thresholds

Images = npt.NDArray[np.uint8]


class Truth(NamedTuple):
    """Ground truth of a real image."""

    defective: bool
    category: str = ""
    name: str = ""
    """The image's path, for messages."""


LabelledImages = Iterable[tuple[Images, Sequence[Truth]]]
"""Batches of real images at the artifact's size, with their ground truth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDifference:
    """Difference of two models on one image."""

    name: str
    score: float
    heatmap: float
    """Largest difference of a pixel, at this row and column."""
    row: int
    column: int


@dataclass(kw_only=True, slots=True)
class Parity:
    """Difference of two models over all images."""

    images: int = 0
    real_images: int = 0
    score: float = 0.0
    """Largest difference of a score."""
    heatmap: float = 0.0
    heatmap_mean: float = 0.0
    auroc: float | None = None
    """Largest change of image AUROC, of all parts or of one category; None without both sound and defective parts."""
    aurocs: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Reference and candidate, by category."""
    flips: int = 0
    """Decisions that differ although the reference's score is further than the guard from both thresholds."""
    flips_by_category: dict[str, int] = field(default_factory=dict)
    near_threshold: int = 0
    """Parts whose reference score lies within the guard of a threshold."""
    near_flips: int = 0
    """Decisions that differ among those."""
    batches: list[int] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    """Reference and candidate, of each real image; for charts, not stored in the card."""
    differences: list[ImageDifference] = field(default_factory=list)
    """Of each image, real or artificial; for messages, not stored in the card."""

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        del content["scores"], content["differences"]
        return {key: round(value, 9) if isinstance(value, float) else value for key, value in content.items()}


NOISE = 1e-5
"""Largest difference of two scores that counts as rounding, on the calibrated scale."""
ALL = "*"
"""Key of all categories together."""


def compare(
    reference: Model,
    candidate: Model,
    real: LabelledImages,
    *,
    batches: Sequence[int],
    thresholds: Thresholds,
    guard: float,
    own: Thresholds | None = None,
) -> Parity:
    """Run both models over artificial and real images, at each batch size in turn.

    `own`: the candidate's thresholds, where they were derived anew.
    """
    comparison = _Comparison(Parity(batches=list(batches)), thresholds, own or thresholds, guard)
    parity = comparison.parity
    queue: list[tuple[npt.NDArray[np.uint8], Truth | None]] = [
        (image, None) for image in artificial_images(reference.size)
    ]
    names = [f"artificial image '{name}'" for name in ARTIFICIAL_NAMES]
    for images, truth in real:
        names += [one.name for one in truth]
        queue += list(zip(images, truth, strict=True))
    start = turn = 0
    while start < len(queue):
        count = batches[turn % len(batches)]
        part, part_names, start, turn = (
            queue[start : start + count],
            names[start : start + count],
            start + count,
            turn + 1,
        )
        # The last batch is filled up, so that each size is really run.
        images = np.stack([image for image, _ in part] + [part[-1][0]] * (count - len(part)))
        comparison.add(
            reference.predict_batch(images), candidate.predict_batch(images), [truth for _, truth in part], part_names
        )
    for missing in [count for i, count in enumerate(batches) if i >= turn]:
        images = np.stack([queue[0][0]] * missing)
        a, b = reference.predict_batch(images), candidate.predict_batch(images)
        parity.score = max(parity.score, float(np.abs(a.scores_N - b.scores_N).max()))
    comparison.compute_aurocs()
    return parity


class _Comparison:
    """Accumulates the parity of two models, batch by batch."""

    def __init__(self, parity: Parity, thresholds: Thresholds, own: Thresholds, guard: float) -> None:
        self.parity, self.thresholds, self.own, self.guard = parity, thresholds, own, guard
        self.by_category: dict[str, tuple[ImageScores, ImageScores]] = {}

    def add(self, a: BatchPrediction, b: BatchPrediction, truths: Sequence[Truth | None], names: Sequence[str]) -> None:
        parity, n = self.parity, len(truths)
        difference = np.abs(a.heatmaps_NHW[:n] - b.heatmaps_NHW[:n])
        # max() would miss a NaN, which compares as unequal to everything: it counts as infinite.
        parity.heatmap = max(parity.heatmap, _largest(difference))
        parity.score = max(parity.score, _largest(np.abs(a.scores_N[:n] - b.scores_N[:n])))
        parity.heatmap_mean += (float(difference.mean()) - parity.heatmap_mean) * n / (parity.images + n)
        parity.images += n
        score_differences = np.abs(a.scores_N[:n] - b.scores_N[:n])
        parity.differences += [
            _image_difference(*each) for each in zip(names, score_differences.tolist(), difference, strict=True)
        ]
        for expected, actual, truth in zip(a.scores_N[:n].tolist(), b.scores_N[:n].tolist(), truths, strict=True):
            self._compare_decisions(expected, actual, truth)
            if truth is not None:
                self._add_scores(expected, actual, truth)

    def _compare_decisions(self, expected: float, actual: float, truth: Truth | None) -> None:
        limits = self.thresholds
        near = min(abs(expected - limits.reinspect), abs(expected - limits.reject)) <= self.guard
        flipped = limits.decide(expected) != self.own.decide(actual)
        self.parity.near_threshold += near
        self.parity.near_flips += near and flipped
        if flipped and not near:
            self.parity.flips += 1
            if truth is not None:
                flips = self.parity.flips_by_category
                flips[truth.category] = flips.get(truth.category, 0) + 1

    def _add_scores(self, expected: float, actual: float, truth: Truth) -> None:
        self.parity.real_images += 1
        self.parity.scores.append((expected, actual))
        for category in {ALL, truth.category}:
            before, after = self.by_category.setdefault(category, (ImageScores(), ImageScores()))
            before.add(expected, truth.defective)
            # Rounding may swap two parts of nearly equal score; that is no change of AUROC.
            after.add(expected if abs(actual - expected) <= NOISE else actual, truth.defective)

    def compute_aurocs(self) -> None:
        for category, (before, after) in sorted(self.by_category.items()):
            values = before.auroc().value, after.auroc().value
            if values[0] is not None and values[1] is not None:
                self.parity.aurocs[category] = (round(values[0], 6), round(values[1], 6))
                self.parity.auroc = max(self.parity.auroc or 0.0, abs(values[0] - values[1]))


def _image_difference(name: str, score: float, difference_HW: npt.NDArray[np.float32]) -> ImageDifference:
    # argmax must find a NaN as the largest difference.
    finite_HW = np.where(np.isfinite(difference_HW), difference_HW, np.inf)
    row, column = np.unravel_index(int(finite_HW.argmax()), finite_HW.shape)
    score = score if np.isfinite(score) else float("inf")
    return ImageDifference(
        name=name, score=score, heatmap=float(finite_HW[row, column]), row=int(row), column=int(column)
    )


def _largest(difference: npt.NDArray[np.float32]) -> float:
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


ARTIFICIAL_NAMES = ("black", "white", "noise", "checkerboard")


def artificial_images(size: int) -> list[Images]:
    """Extreme images, in the order of `ARTIFICIAL_NAMES`, on which errors of rounding, padding and normalisation show first."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((size, size))
    checker = (((rows // 8 + columns // 8) % 2) * 255).astype(np.uint8)
    return [
        np.zeros((size, size, 3), np.uint8),
        np.full((size, size, 3), 255, np.uint8),
        rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        np.repeat(checker[:, :, None], 3, axis=2),
    ]


def missed_limits(parity: Parity, accept: Mapping[str, float | None]) -> list[str]:
    """Describe every exceeded limit. `flips` is a share of the real images; None is no limit."""
    figures = {
        "score": parity.score,
        "heatmap": parity.heatmap,
        "auroc": parity.auroc or 0.0,
        "flips": parity.flips / max(parity.real_images, 1),
    }
    return [
        f"{name} {figures[name]:.3g} (limit {limit:.3g})"
        for name, limit in accept.items()
        if name in figures and limit is not None and not figures[name] <= limit
    ]


def worst_images(parity: Parity, accept: Mapping[str, float | None], most: int = 3) -> list[ImageDifference]:
    """The images furthest beyond a limit; if none is, those with the largest difference of scores."""
    score, heatmap = accept.get("score"), accept.get("heatmap")
    beyond = [
        each
        for each in parity.differences
        if (heatmap is not None and each.heatmap > heatmap) or (score is not None and each.score > score)
    ]
    if beyond:
        return sorted(beyond, key=lambda each: (each.heatmap, each.score), reverse=True)[:most]
    return sorted(parity.differences, key=lambda each: each.score, reverse=True)[:most]
