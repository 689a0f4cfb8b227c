"""Compute the seven usual metrics of anomaly detection, streaming and mergeable: histograms count the pixels.

A pixel's heat is binned by the upper bits of its float32 pattern, which preserves the order of all floats without knowing
their range: 2^20 bins, a relative step of 0.05 %. Merged counts of many processes equal those of a single process.

NumPy and OpenCV only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.types import Heatmap, Mask

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
SHIFT = 12
"""Lower bits of a float32 pattern that its bin ignores."""
BINS = 1 << (32 - SHIFT)
MAX_FPR = 0.3
"""False positive rate up to which AUPRO integrates."""
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric's value, or the reason why it cannot be measured."""

    value: float | None
    reason: str | None = None


def bin_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Map floats to bins, keeping their order. The bit patterns of negative floats descend, so they are inverted."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))
    return ordered >> np.uint32(SHIFT)


class Histogram:
    """A histogram that stores only bins with counts: a category's heat falls into a few thousand of the million bins."""

    def __init__(self) -> None:
        self.bins = np.empty(0, np.uint32)
        self.weights: Counts = np.empty(0, np.float64)
        self._pending: list[tuple[npt.NDArray[np.uint32], Counts]] = []

    def add(self, bins: npt.NDArray[np.uint32], weights: Counts | None = None) -> None:
        if weights is None:
            distinct, counts = np.unique(bins, return_counts=True)
            self._pending.append((distinct, counts.astype(np.float64)))
        else:
            self._pending.append((bins, weights))
        if len(self._pending) >= 16:
            self.compact()

    def merge(self, other: Histogram) -> None:
        other.compact()
        self._pending.append((other.bins, other.weights))
        self.compact()

    def compact(self) -> None:
        """Merge all pending additions into the sorted bins."""
        if not self._pending:
            return
        bins = np.concatenate([self.bins, *(pending[0] for pending in self._pending)])
        weights = np.concatenate([self.weights, *(pending[1] for pending in self._pending)])
        self.bins, positions = np.unique(bins, return_inverse=True)
        self.weights = np.bincount(positions, weights, minlength=len(self.bins)).astype(np.float64)
        self._pending = []


class Ranking(ABC):
    """Sound and defective images or pixels, ranked by score; computes AUROC, AP and F1max."""

    def auroc(self) -> Measure:
        return self._measure(area_under_roc)

    def ap(self) -> Measure:
        return self._measure(average_precision)

    def f1max(self) -> Measure:
        return self._measure(f1_max)

    @abstractmethod
    def _measure(self, metric: Callable[[Counts, Counts], float]) -> Measure:
        """Compute a metric from the sound and defective counts at each distinct value."""


@dataclass(slots=True)
class PixelCounts(Ranking):
    """Histograms of the heat of sound and of defective pixels; in `regions`, for AUPRO, each defect region has the weight 1."""

    sound: Histogram = field(default_factory=Histogram)
    defective: Histogram = field(default_factory=Histogram)
    regions: Histogram = field(default_factory=Histogram)
    region_count: int = 0
    without_mask: int = 0
    """Number of defective images without a mask; their pixels are not counted."""

    def add(self, heatmap: Heatmap, mask: Mask | None) -> None:
        """Add one image; `mask` is None for a sound part."""
        bins = bin_of(heatmap)
        if mask is None or not mask.any():
            self.sound.add(bins.ravel())
            return
        self.sound.add(bins[~mask])
        self.defective.add(bins[mask])
        # Regions are 8-connected, as in the reference implementations.
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        areas = np.bincount(labels.ravel(), minlength=count)
        self.regions.add(bins[mask], 1.0 / areas[labels[mask]])
        self.region_count += count - 1

    def merge(self, other: PixelCounts) -> None:
        self.sound.merge(other.sound)
        self.defective.merge(other.defective)
        self.regions.merge(other.regions)
        self.region_count += other.region_count
        self.without_mask += other.without_mask

    def aupro(self, limit: float = MAX_FPR) -> Measure:
        reason = self._why_unmeasurable()
        if reason:
            return Measure(None, reason)
        self.regions.compact()
        bins, sound, _ = self._descending_counts()
        overlaps = np.zeros(len(bins))
        # `searchsorted` needs ascending values, and the bins descend.
        overlaps[np.searchsorted(-bins.astype(np.int64), -self.regions.bins.astype(np.int64))] = self.regions.weights
        fpr = np.concatenate([[0.0], np.cumsum(sound) / sound.sum()])
        overlap = np.concatenate([[0.0], np.cumsum(overlaps) / self.region_count])
        return Measure(area_until(fpr, overlap, limit) / limit)

    def _measure(self, metric: Callable[[Counts, Counts], float]) -> Measure:
        reason = self._why_unmeasurable()
        if reason:
            return Measure(None, reason)
        _, sound, defective = self._descending_counts()
        return Measure(metric(sound, defective))

    def _why_unmeasurable(self) -> str | None:
        self.sound.compact()
        self.defective.compact()
        if self.defective.weights.sum() == 0:
            return "no defective part has a mask" if self.without_mask else "no defective part in the test"
        return "no sound pixel in the test" if self.sound.weights.sum() == 0 else None

    def _descending_counts(self) -> tuple[npt.NDArray[np.uint32], Counts, Counts]:
        """Return the common bins in descending order with the counts of both histograms."""
        bins = np.union1d(self.sound.bins, self.defective.bins)
        counts = []
        for histogram in (self.sound, self.defective):
            dense = np.zeros(len(bins))
            dense[np.searchsorted(bins, histogram.bins)] = histogram.weights
            counts.append(dense[::-1])
        return bins[::-1], counts[0], counts[1]


@dataclass(slots=True)
class ImageScores(Ranking):
    """Scores and labels of images, in lists: there are few."""

    scores: list[float] = field(default_factory=list)
    defective: list[bool] = field(default_factory=list)

    def add(self, score: float, defective: bool) -> None:
        self.scores.append(score)
        self.defective.append(defective)

    def merge(self, other: ImageScores) -> None:
        self.scores += other.scores
        self.defective += other.defective

    def _measure(self, metric: Callable[[Counts, Counts], float]) -> Measure:
        truth = np.array(self.defective, bool)
        if not truth.any():
            return Measure(None, "no defective part in the test")
        if truth.all():
            return Measure(None, "no sound part in the test")
        values, positions = np.unique(np.array(self.scores), return_inverse=True)
        sound = np.bincount(positions[~truth], minlength=len(values)).astype(np.float64)
        defective = np.bincount(positions[truth], minlength=len(values)).astype(np.float64)
        return Measure(metric(sound[::-1], defective[::-1]))


@dataclass(slots=True)
class CategoryMetrics:
    """Image and pixel metrics of one category."""

    images: ImageScores = field(default_factory=ImageScores)
    pixels: PixelCounts = field(default_factory=PixelCounts)

    def add(self, score: float, heatmap: Heatmap, mask: Mask | None, defective: bool) -> None:
        self.images.add(score, defective)
        if defective and mask is None:
            self.pixels.without_mask += 1
        else:
            self.pixels.add(heatmap, mask)

    def merge(self, other: CategoryMetrics) -> None:
        self.images.merge(other.images)
        self.pixels.merge(other.pixels)

    def measures(self) -> dict[str, Measure]:
        images, pixels = self.images, self.pixels
        measured = (
            images.auroc(),
            images.ap(),
            images.f1max(),
            pixels.auroc(),
            pixels.ap(),
            pixels.f1max(),
            pixels.aupro(),
        )
        return dict(zip(METRICS, measured, strict=True))


def mean_of(categories: Mapping[str, Mapping[str, Measure]]) -> dict[str, Measure]:
    """Average each metric over the categories in which it can be measured."""
    means = {}
    for name in METRICS:
        values = [measures[name].value for measures in categories.values()]
        measured = [value for value in values if value is not None]
        reason = None if measured else next((measures[name].reason for measures in categories.values()), "no category")
        means[name] = Measure(float(np.mean(measured)) if measured else None, reason)
    return means


# Arguments of the following functions: counts of sound and of defective items at each distinct value, highest value first.


def area_under_roc(sound: Counts, defective: Counts) -> float:
    true_positives = np.concatenate([[0.0], np.cumsum(defective)])
    false_positives = np.concatenate([[0.0], np.cumsum(sound)])
    return float(np.trapezoid(true_positives, false_positives) / (true_positives[-1] * false_positives[-1]))


def average_precision(sound: Counts, defective: Counts) -> float:
    true_positives = np.cumsum(defective)
    precision = true_positives / np.maximum(true_positives + np.cumsum(sound), 1e-12)
    return float((precision * defective).sum() / true_positives[-1])


def f1_max(sound: Counts, defective: Counts) -> float:
    true_positives = np.cumsum(defective)
    return float((2 * true_positives / (true_positives + np.cumsum(sound) + true_positives[-1])).max())


def area_until(x: Counts, y: Counts, limit: float) -> float:
    """Integrate a rising curve up to a limit, interpolating the last segment."""
    inside = x <= limit
    xs, ys = x[inside], y[inside]
    if xs[-1] < limit:
        xs, ys = np.append(xs, limit), np.append(ys, np.interp(limit, x, y))
    return float(np.trapezoid(ys, xs))
