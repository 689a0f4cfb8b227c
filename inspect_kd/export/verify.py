"""Verify an artifact: compare its predictions with its PyTorch student's, on real images and on hard artificial ones.

Heatmaps and scores are compared, not masks: a rounding error can flip a pixel at the threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inspect_kd.calibrate import POOLED
from inspect_kd.metrics import ImageScores
from inspect_kd.types import BatchPrediction, Model, Thresholds

Images = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float32]


class Truth(NamedTuple):
    """Ground truth of a real image."""

    defective: bool
    category: str = ""
    name: str = ""
    """The image's path, for messages."""


LabelledImages = Iterable[tuple[Images, Sequence[Truth]] | tuple[Images, Sequence[Truth], Weights]]
"""Batches of real images at the artifact's size, with their ground truth, and with zones their weights (N, 1, h, w)."""


class WeightedImages(NamedTuple):
    """Images at the artifact's size, with the zones' weights of each."""

    images_NHW3: Images
    weights_N1hw: Weights | None = None
    """None without zones."""

    def batch(self, start: int, count: int) -> WeightedImages:
        weights = self.weights_N1hw
        stop = start + count
        return WeightedImages(self.images_NHW3[start:stop], None if weights is None else weights[start:stop])

    def arguments(self) -> tuple[Images] | tuple[Images, Weights]:
        """Arguments of `Model.predict_batch`; a model without zones has no second one."""
        return (self.images_NHW3,) if self.weights_N1hw is None else (self.images_NHW3, self.weights_N1hw)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDifference:
    """Difference of two models on one image."""

    name: str
    score: float
    """Difference of the scores."""
    heatmap: float
    """Largest difference of a pixel."""
    row: int
    """Position of that pixel, together with `column`."""
    column: int


@dataclass(kw_only=True, slots=True)
class Parity:
    """Difference between the reference and the candidate over all images; also stored in the artifact card."""

    images: int = 0
    real_images: int = 0
    score: float = 0.0
    """Largest difference of a score."""
    heatmap: float = 0.0
    """Largest difference of a pixel."""
    heatmap_mean: float = 0.0
    """Mean difference of a pixel."""
    auroc: float | None = None
    """Largest change of image AUROC, over all parts or in one category; None without both sound and defective parts."""
    aurocs: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Image AUROC of reference and candidate, by category; POOLED is the key of all parts together."""
    flips: int = 0
    """Decisions that differ where the reference's score is farther from both thresholds than `guard`."""
    flips_by_category: dict[str, int] = field(default_factory=dict)
    near_threshold: int = 0
    """Images whose reference score lies within `guard` of a threshold."""
    near_flips: int = 0
    """Decisions that differ among the `near_threshold` images."""
    batches: list[int] = field(default_factory=list)
    """Batch sizes that were run."""
    scores: list[tuple[float, float]] = field(default_factory=list)
    """Scores of reference and candidate for each real image; for charts, not stored in the card."""
    differences: list[ImageDifference] = field(default_factory=list)
    """One entry per image, real or artificial; for messages, not stored in the card."""

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        del content["scores"], content["differences"]
        return {key: round(value, 9) if isinstance(value, float) else value for key, value in content.items()}


MAX_ROUNDING_ERROR = 1e-5
"""Largest difference of two scores that counts as rounding, on the calibrated scale."""


def compare(
    reference: Model,
    candidate: Model,
    real: LabelledImages,
    *,
    batches: Sequence[int],
    thresholds: Thresholds,
    guard: float,
    candidate_thresholds: Thresholds | None = None,
) -> Parity:
    """Compare two models on artificial and real images, at each batch size in turn.

    Decisions that differ are counted separately where the reference's score lies within `guard` of a threshold.
    `candidate_thresholds` are used for the candidate's decisions; by default both models have the same thresholds.
    """
    comparison = _Comparison(Parity(batches=list(batches)), thresholds, candidate_thresholds or thresholds, guard)
    parity = comparison.parity
    names = [f"artificial image '{name}'" for name in ARTIFICIAL_NAMES]
    queue: list[tuple[Images, Truth | None]] = [(image, None) for image in artificial_images(reference.size)]
    weights: list[Weights] = []
    for batch in real:
        names += [truth.name for truth in batch[1]]
        queue += list(zip(batch[0], batch[1], strict=True))
        weights += list(batch[2]) if len(batch) == 3 else []
    # On artificial images every place counts.
    weights = [np.ones_like(weights[0])] * len(ARTIFICIAL_NAMES) + weights if weights else []
    start = turn = 0
    while start < len(queue):
        count = batches[turn % len(batches)]
        members, batch_names = queue[start : start + count], names[start : start + count]
        inputs = WeightedImages(
            _fill_batch([image for image, _ in members], count),
            _fill_batch(weights[start : start + count], count) if weights else None,
        ).arguments()
        start, turn = start + count, turn + 1
        comparison.add(
            reference.predict_batch(*inputs),
            candidate.predict_batch(*inputs),
            [truth for _, truth in members],
            batch_names,
        )
    # Run the batch sizes that had no turn because there are too few images.
    for count in batches[turn:]:
        inputs = WeightedImages(
            _fill_batch([queue[0][0]], count), _fill_batch(weights[:1], count) if weights else None
        ).arguments()
        expected, actual = reference.predict_batch(*inputs), candidate.predict_batch(*inputs)
        parity.score = max(parity.score, float(np.abs(expected.scores_N - actual.scores_N).max()))
    comparison.compute_aurocs()
    return parity


def _fill_batch(members: Sequence[npt.NDArray[Any]], count: int) -> npt.NDArray[Any]:
    """Stack the members of a batch; one that is not full repeats its last member."""
    return np.stack([*members, *[members[-1]] * (count - len(members))])


class _Comparison:
    """Accumulates the differences of two models, batch by batch."""

    def __init__(self, parity: Parity, thresholds: Thresholds, candidate_thresholds: Thresholds, guard: float) -> None:
        self.parity, self.guard = parity, guard
        self.thresholds, self.candidate_thresholds = thresholds, candidate_thresholds
        self.scores_by_category: dict[str, tuple[ImageScores, ImageScores]] = {}

    def add(
        self,
        expected: BatchPrediction,
        actual: BatchPrediction,
        truths: Sequence[Truth | None],
        names: Sequence[str],
    ) -> None:
        parity, n = self.parity, len(truths)
        heatmaps_NHW = np.abs(expected.heatmaps_NHW[:n] - actual.heatmaps_NHW[:n])
        scores_N = np.abs(expected.scores_N[:n] - actual.scores_N[:n])
        parity.heatmap = max(parity.heatmap, _largest(heatmaps_NHW))
        parity.score = max(parity.score, _largest(scores_N))
        parity.heatmap_mean += (float(heatmaps_NHW.mean()) - parity.heatmap_mean) * n / (parity.images + n)
        parity.images += n
        parity.differences += [
            _image_difference(name, score, heatmap_HW)
            for name, score, heatmap_HW in zip(names, scores_N.tolist(), heatmaps_NHW, strict=True)
        ]
        scores = zip(expected.scores_N[:n].tolist(), actual.scores_N[:n].tolist(), truths, strict=True)
        for expected_score, actual_score, truth in scores:
            self._compare_decisions(expected_score, actual_score, truth)
            if truth is not None:
                self._add_scores(expected_score, actual_score, truth)

    def _compare_decisions(self, expected: float, actual: float, truth: Truth | None) -> None:
        thresholds = self.thresholds
        is_near = min(abs(expected - thresholds.reinspect), abs(expected - thresholds.reject)) <= self.guard
        is_flipped = thresholds.decide(expected) != self.candidate_thresholds.decide(actual)
        self.parity.near_threshold += is_near
        self.parity.near_flips += is_near and is_flipped
        if is_flipped and not is_near:
            self.parity.flips += 1
            if truth is not None:
                flips = self.parity.flips_by_category
                flips[truth.category] = flips.get(truth.category, 0) + 1

    def _add_scores(self, expected: float, actual: float, truth: Truth) -> None:
        self.parity.real_images += 1
        self.parity.scores.append((expected, actual))
        for category in {POOLED, truth.category}:
            reference, candidate = self.scores_by_category.setdefault(category, (ImageScores(), ImageScores()))
            reference.add(expected, truth.defective)
            # Rounding may swap two parts with nearly equal scores, which must not count as a change of AUROC.
            candidate.add(expected if abs(actual - expected) <= MAX_ROUNDING_ERROR else actual, truth.defective)

    def compute_aurocs(self) -> None:
        for category, (reference, candidate) in sorted(self.scores_by_category.items()):
            values = reference.auroc().value, candidate.auroc().value
            if values[0] is not None and values[1] is not None:
                self.parity.aurocs[category] = (round(values[0], 6), round(values[1], 6))
                self.parity.auroc = max(self.parity.auroc or 0.0, abs(values[0] - values[1]))


def _image_difference(name: str, score: float, difference_HW: npt.NDArray[np.float32]) -> ImageDifference:
    # A NaN counts as the largest difference.
    finite_HW = np.where(np.isfinite(difference_HW), difference_HW, np.inf)
    row, column = np.unravel_index(int(finite_HW.argmax()), finite_HW.shape)
    score = score if np.isfinite(score) else float("inf")
    return ImageDifference(
        name=name, score=score, heatmap=float(finite_HW[row, column]), row=int(row), column=int(column)
    )


def _largest(difference: npt.NDArray[np.float32]) -> float:
    """Return the largest difference; infinite if one is NaN, which Python's max() would miss."""
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


ARTIFICIAL_NAMES = ("black", "white", "noise", "checkerboard")


def artificial_images(size: int) -> list[Images]:
    """Make extreme images, in the order of `ARTIFICIAL_NAMES`; they reveal errors of rounding, padding and normalisation."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((size, size))
    checker = (((rows // 8 + columns // 8) % 2) * 255).astype(np.uint8)
    return [
        np.zeros((size, size, 3), np.uint8),
        np.full((size, size, 3), 255, np.uint8),
        rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        np.repeat(checker[:, :, None], 3, axis=2),
    ]


def find_exceeded_limits(parity: Parity, accept: Mapping[str, float | None]) -> list[str]:
    """Describe every exceeded limit of `accept`; None means no limit. `flips` is a share of the real images."""
    metrics = {
        "score": parity.score,
        "heatmap": parity.heatmap,
        "auroc": parity.auroc or 0.0,
        "flips": parity.flips / max(parity.real_images, 1),
    }
    return [
        f"{name} {metrics[name]:.3g} (limit {limit:.3g})"
        for name, limit in accept.items()
        if name in metrics and limit is not None and not metrics[name] <= limit
    ]


def worst_images(parity: Parity, accept: Mapping[str, float | None], count: int = 3) -> list[ImageDifference]:
    """Return the images farthest beyond a limit; if there are none, those with the largest difference of scores."""
    score, heatmap = accept.get("score"), accept.get("heatmap")
    over_limit = [
        image
        for image in parity.differences
        if (heatmap is not None and image.heatmap > heatmap) or (score is not None and image.score > score)
    ]
    if over_limit:
        return sorted(over_limit, key=lambda image: (image.heatmap, image.score), reverse=True)[:count]
    return sorted(parity.differences, key=lambda image: image.score, reverse=True)[:count]
