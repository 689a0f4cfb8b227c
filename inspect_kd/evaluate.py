"""Seven metrics per category, and what the thresholds do to real parts. Works on anything that is a `Model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inspect_kd.calibrate import Calibration
from inspect_kd.datasets.images import read_image, read_mask, resize
from inspect_kd.errors import BadInput, GateFailed, UsageError
from inspect_kd.metrics import METRICS, CategoryMetrics, Measure, mean_of
from inspect_kd.types import Decision, Mask, Model, Sample, Watch

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
            "metrics": {
                category: {
                    name: measure.value if measure.why is None else measure.why for name, measure in measures.items()
                }
                for category, measures in self.measures.items()
            },
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
        except ValueError:
            raise UsageError(f"--min {text}: write it as metric=number, for example image_auroc=0.95") from None
    return gates


def load_batch(samples: Sequence[Sample], size: int, bits: int | None) -> npt.NDArray[np.uint8]:
    """Images at the model's size, as it wants them: uint8 (N, H, W, 3)."""
    return np.stack([resize(read_image(sample.image, bits=bits), size, size) for sample in samples])


def load_mask(sample: Sample, size: int) -> Mask | None:
    """The truth at the model's size; None for a sound part and for a defect that nobody has outlined."""
    return None if sample.mask is None else read_mask(sample.mask, size=(size, size))


def with_truth(
    samples: Sequence[Sample], size: int, bits: int | None, batch: int = 8
) -> Iterator[tuple[npt.NDArray[np.uint8], list[bool]]]:
    """Batches of images with whether each is defective."""
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        yield load_batch(part, size, bits), [sample.defective for sample in part]


def evaluate(
    model: Model,
    samples: Sequence[Sample],
    calibration: Calibration,
    watch: Watch,
    *,
    bits: int | None = None,
    batch: int = 8,
) -> Evaluation:
    """Look at every part, measure each category, decide by each category's own thresholds where it has them."""
    if not samples:
        raise BadInput("nothing to evaluate: the data set has no test images")
    watch.phase("evaluate", len(samples))
    categories: dict[str, CategoryMetrics] = {}
    verdicts = []
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        answers = model.look(load_batch(part, model.size, bits))
        for sample, score, heatmap in zip(part, answers.scores_N, answers.heatmaps_NHW, strict=True):
            metrics = categories.setdefault(sample.category, CategoryMetrics())
            metrics.add(float(score), heatmap, load_mask(sample, model.size), sample.defective)
            limits = calibration.limits_for(sample.category if sample.category in calibration.limits else None)
            verdicts.append(Verdict(sample=sample, score=float(score), decision=limits.thresholds.decide(float(score))))
        watch.advance(len(part))
    measures = {name: metrics.measures() for name, metrics in sorted(categories.items())}
    return Evaluation(measures=measures | {MEAN: mean_of(measures)}, verdicts=verdicts)


def common_root(samples: Sequence[Sample]) -> Path:
    """The folder that all images share; paths in reports are told from there."""
    parents = [sample.image.parent for sample in samples]
    root = parents[0]
    while not all(parent.is_relative_to(root) for parent in parents):
        root = root.parent
    return root
