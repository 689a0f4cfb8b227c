"""Seven metrics per category, and what the thresholds do to real parts. Works on anything that is a `Model`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd.calibrate import Calibration
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.datasets.view import View, predict_images
from inspect_kd.errors import BadInput, GateFailed, UsageError
from inspect_kd.metrics import METRICS, CategoryMetrics, Measure, mean_of
from inspect_kd.types import Decision, Heatmap, Mask, Model, Progress, Sample

MEAN = "mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was said of one part, and what is true of it."""

    sample: Sample
    score: float
    decision: Decision

    @property
    def wrong(self) -> bool:
        """A defect that passed, or a sound part that was stopped. RE-INSPECT is neither."""
        return self.decision is (Decision.OK if self.sample.defective else Decision.NG)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    measures: Mapping[str, Mapping[str, Measure]]
    """By category, and `mean`."""
    verdicts: Sequence[Verdict]

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": in_json(self.measures),
            "decisions": self.decisions(),
        }

    def decisions(self) -> dict[str, dict[str, dict[str, int]]]:
        """Counts by category, truth and decision."""
        table: dict[str, dict[str, dict[str, int]]] = {}
        for verdict in self.verdicts:
            truths = table.setdefault(
                verdict.sample.category, {t: dict.fromkeys(map(str, Decision), 0) for t in ("sound", "defective")}
            )
            truths["defective" if verdict.sample.defective else "sound"][str(verdict.decision)] += 1
        return table

    def gate(self, limits: Mapping[str, float]) -> None:
        """Raise with every metric whose mean is below its limit, or cannot be measured."""
        missed = []
        for name, limit in limits.items():
            measure = self.measures[MEAN][name]
            if measure.value is None:
                missed.append(f"{name} cannot be measured ({measure.why})")
            elif measure.value < limit:
                missed.append(f"{name} {measure.value:.4f} < {limit}")
        if missed:
            raise GateFailed("below the gate: " + "; ".join(missed))


def parse_gates(texts: Sequence[str]) -> dict[str, float]:
    """`image_auroc=0.95` and the like."""
    gates = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in METRICS:
            raise UsageError(f"--min {text}: no metric '{name}'; there are: {', '.join(METRICS)}")
        try:
            gates[name] = float(value)
            if not math.isfinite(gates[name]):  # nothing is below NaN: such a gate would let everything pass
                raise ValueError(value)
        except ValueError:
            raise UsageError(f"--min {text}: write it as metric=number, for example image_auroc=0.95") from None
    return gates


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePrediction:
    """One part with what a model says of it."""

    sample: Sample
    score: float
    heatmap: Heatmap

    def truth(self) -> Mask | None:
        """At the heatmap's size; None for a sound part and for a defect that nobody has outlined."""
        height, width = self.heatmap.shape
        return None if self.sample.mask is None else read_mask(self.sample.mask, size=(width, height))


def predict_samples(
    model: Model, samples: Sequence[Sample], view: View, *, bits: int | None = None
) -> Iterator[SamplePrediction]:
    """Every part in turn. An answer that is no number would count as the hottest of all: it ends the measurement."""
    answers = predict_images(model, view, (read_image(sample.image, bits=bits) for sample in samples))
    for sample, (score, heatmap) in zip(samples, answers, strict=True):
        if not (math.isfinite(score) and np.isfinite(heatmap).all()):
            raise BadInput(f"{sample.image}: the model answered with a number that is not finite")
        yield SamplePrediction(sample=sample, score=score, heatmap=heatmap)


def measure(parts: Iterable[SamplePrediction]) -> dict[str, dict[str, Measure]]:
    """The seven metrics by category, and their mean."""
    categories: dict[str, CategoryMetrics] = {}
    for seen in parts:
        metrics = categories.setdefault(seen.sample.category, CategoryMetrics())
        metrics.add(seen.score, seen.heatmap, seen.truth(), seen.sample.defective)
    measures = {name: metrics.measures() for name, metrics in sorted(categories.items())}
    return measures | {MEAN: mean_of(measures)}


def in_json(measures: Mapping[str, Mapping[str, Measure]]) -> dict[str, dict[str, float | str | None]]:
    """A number, or why there is none."""
    return {
        category: {name: m.value if m.why is None else m.why for name, m in found.items()}
        for category, found in measures.items()
    }


def evaluate(
    model: Model,
    samples: Sequence[Sample],
    calibration: Calibration,
    progress: Progress,
    *,
    view: View,
    bits: int | None = None,
) -> Evaluation:
    """Look at every part, measure each category, decide by each category's own thresholds where it has them."""
    if not samples:
        raise BadInput("nothing to evaluate: the data set has no test images")
    progress.phase("evaluate", len(samples))
    verdicts = []

    def judged() -> Iterator[SamplePrediction]:
        for seen in predict_samples(model, samples, view, bits=bits):
            category = seen.sample.category
            limits = calibration.limits_for(category if category in calibration.limits else None)
            verdicts.append(
                Verdict(sample=seen.sample, score=seen.score, decision=limits.thresholds.decide(seen.score))
            )
            progress.advance()
            yield seen

    return Evaluation(measures=measure(judged()), verdicts=verdicts)


def common_root(samples: Sequence[Sample]) -> Path:
    """The folder that all images share; paths in reports are told from there."""
    parents = [sample.image.parent for sample in samples]
    root = parents[0]
    while not all(parent.is_relative_to(root) for parent in parents):
        root = root.parent
    return root
