"""Evaluate any `Model` on a data set: seven metrics per category, and the decisions that its thresholds lead to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd.calibrate import Calibration
from inspect_kd.datasets.images import read_mask
from inspect_kd.datasets.presentation import IgnoredPlaces, Presentations, predict_images
from inspect_kd.datasets.read_sample import read_sample
from inspect_kd.errors import BadInput, GateFailed, UsageError
from inspect_kd.metrics import METRICS, CategoryMetrics, Measure, mean_of
from inspect_kd.types import Decision, Heatmap, Mask, Model, Progress, Sample

MEAN = "mean"
"""Key of the mean over all categories, beside the categories."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Score and decision of one part, beside its ground truth."""

    sample: Sample
    score: float
    decision: Decision
    not_found: str | None = None
    """Why the part was not found in its image; None for a part that was found."""
    is_defect_ignored: bool = False
    """The part's defect lies wholly in places that its zones ignore."""

    @property
    def defective(self) -> bool:
        """Whether the part is defective where it is inspected."""
        return self.sample.defective and not self.is_defect_ignored

    @property
    def wrong(self) -> bool:
        """True for a defective part that is OK and for a sound part that is NG; never for RE-INSPECT."""
        return self.decision is (Decision.OK if self.defective else Decision.NG)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Metrics and decisions on a data set."""

    measures: Mapping[str, Mapping[str, Measure]]
    """Each metric by category; the category `mean` holds the means over all."""
    verdicts: Sequence[Verdict]
    has_zones: bool = False
    """Whether masks were cut by zones."""

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": measures_to_json(self.measures),
            "decisions": self.decisions(),
            "not_found": self.not_found(),
            **({"zones": {"ignored_defects": self.ignored_defects}} if self.has_zones else {}),
        }

    @property
    def ignored_defects(self) -> int:
        """Number of defective parts whose defect lies wholly in ignored places; they count as sound."""
        return sum(verdict.is_defect_ignored for verdict in self.verdicts)

    def decisions(self) -> dict[str, dict[str, dict[str, int]]]:
        """Count parts by category, ground truth and decision."""
        table: dict[str, dict[str, dict[str, int]]] = {}
        for verdict in self.verdicts:
            truths = table.setdefault(
                verdict.sample.category, {t: dict.fromkeys(map(str, Decision), 0) for t in ("sound", "defective")}
            )
            truths["defective" if verdict.defective else "sound"][str(verdict.decision)] += 1
        return table

    def not_found(self) -> dict[str, dict[str, int]]:
        """Count the parts that were not found in their images, which are NG, by category and ground truth."""
        table: dict[str, dict[str, int]] = {}
        for verdict in self.verdicts:
            counts = table.setdefault(verdict.sample.category, {"sound": 0, "defective": 0})
            counts["defective" if verdict.sample.defective else "sound"] += verdict.not_found is not None
        return table

    def gate(self, limits: Mapping[str, float]) -> None:
        """Raise GateFailed if the mean of any metric is below its limit or cannot be measured."""
        missed = []
        for name, limit in limits.items():
            measure = self.measures[MEAN][name]
            if measure.value is None:
                missed.append(f"{name} cannot be measured ({measure.reason})")
            elif measure.value < limit:
                missed.append(f"{name} {measure.value:.4f} < {limit}")
        if missed:
            raise GateFailed("below the gate: " + "; ".join(missed))


def parse_gates(texts: Sequence[str]) -> dict[str, float]:
    """Parse gates such as `image_auroc=0.95`."""
    gates = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in METRICS:
            raise UsageError(f"--min {text}: no metric '{name}'; there are: {', '.join(METRICS)}")
        try:
            gates[name] = float(value)
            if not math.isfinite(gates[name]):  # nothing is below NaN: such a gate would never fail
                raise ValueError(value)
        except ValueError:
            raise UsageError(f"--min {text}: write it as metric=number, for example image_auroc=0.95") from None
    return gates


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePrediction:
    """A sample with the score and heatmap that a model predicts for it."""

    sample: Sample
    score: float
    heatmap: Heatmap
    not_found: str | None = None
    """Why the part was not found in its image."""
    ignored: IgnoredPlaces | None = None
    """The places that were not inspected; None without zones."""

    def truth(self) -> Mask | None:
        """Read the ground-truth mask at the heatmap's size, without ignored places.

        None for parts that are sound where they are inspected, and for defects without a mask.
        """
        height, width = self.heatmap.shape
        if self.sample.mask is None:
            return None
        mask = read_mask(self.sample.mask, size=(width, height))
        if self.ignored is None or not mask.any():
            return mask
        inspected = self.ignored.cut(mask)
        return inspected if inspected.any() else None

    def is_defect_ignored(self) -> bool:
        """Whether the part's defect lies wholly in ignored places; one without a mask does not."""
        return self.ignored is not None and self.sample.mask is not None and self.truth() is None


def predict_samples(
    model: Model, samples: Sequence[Sample], presentations: Presentations, *, bits: int | None = None
) -> Iterator[SamplePrediction]:
    """Predict each sample in turn. NaN or infinity raises BadInput: it would be ranked as the highest score."""
    images = ((read_sample(sample, presentations, bits), sample.category) for sample in samples)
    for sample, predicted in zip(samples, predict_images(model, presentations, images), strict=True):
        if not (math.isfinite(predicted.score) and np.isfinite(predicted.heatmap).all()):
            raise BadInput(f"{sample.image}: the model's score or heatmap is not finite")
        yield SamplePrediction(
            sample=sample,
            score=predicted.score,
            heatmap=predicted.heatmap,
            not_found=predicted.not_found,
            ignored=predicted.ignored,
        )


def measure(predictions: Iterable[SamplePrediction]) -> dict[str, dict[str, Measure]]:
    """Compute the seven metrics by category, and their mean."""
    categories: dict[str, CategoryMetrics] = {}
    for each in predictions:
        metrics = categories.setdefault(each.sample.category, CategoryMetrics())
        metrics.add(each.score, each.heatmap, each.truth(), each.sample.defective and not each.is_defect_ignored())
    measures = {name: metrics.measures() for name, metrics in sorted(categories.items())}
    return measures | {MEAN: mean_of(measures)}


def measures_to_json(measures: Mapping[str, Mapping[str, Measure]]) -> dict[str, dict[str, float | str | None]]:
    """Return each metric's value, or the reason why it cannot be measured."""
    return {
        category: {name: m.value if m.reason is None else m.reason for name, m in by_name.items()}
        for category, by_name in measures.items()
    }


def evaluate(
    model: Model,
    samples: Sequence[Sample],
    calibration: Calibration,
    progress: Progress,
    *,
    presentations: Presentations,
    bits: int | None = None,
) -> Evaluation:
    """Predict every sample, compute the metrics, and decide by each category's own thresholds where it has them."""
    if not samples:
        raise BadInput("nothing to evaluate: the data set has no test images")
    progress.phase("evaluate", len(samples))
    verdicts = []

    def record_verdicts() -> Iterator[SamplePrediction]:
        for predicted in predict_samples(model, samples, presentations, bits=bits):
            category = predicted.sample.category
            limits = calibration.for_category(category if category in calibration.limits else None)
            verdicts.append(
                Verdict(
                    sample=predicted.sample,
                    score=predicted.score,
                    decision=limits.thresholds.decide(predicted.score),
                    not_found=predicted.not_found,
                    is_defect_ignored=predicted.is_defect_ignored(),
                )
            )
            progress.advance()
            yield predicted

    return Evaluation(measures=measure(record_verdicts()), verdicts=verdicts, has_zones=presentations.has_zones)


def common_root(samples: Sequence[Sample]) -> Path:
    """Return the deepest folder that holds all images; reports show paths relative to it."""
    parents = [sample.image.parent for sample in samples]
    root = parents[0]
    while not all(parent.is_relative_to(root) for parent in parents):
        root = root.parent
    return root
