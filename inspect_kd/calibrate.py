"""Calibrate thresholds with a promised false-reject rate: split-conformal thresholds from held-out sound parts.

With n sound parts that the optimiser never saw, the ceil((n+1)(1-a))-th smallest score is exceeded by a new sound part from
the same line with probability at most a, for any distribution of the scores. Unusual here: where n is too small for the
requested rate, the lowest rate that n allows is reported. And thresholds are raised by the difference that two runtimes may have:
where many sound parts share one score, that score is the threshold, and another runtime's slightly higher score must not exceed it.

This module needs NumPy only: the inspector on the line imports it, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd import strict_json
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import read_plain_file
from inspect_kd.types import NOT_FOUND_SCORE, Decision, Thresholds, is_not_found

POOLED = "*"
"""Used instead of a category's name for all categories together."""
MAX_POOLED_REJECT = 2.0
"""Largest accepted pooled reject threshold: it is 1.0 by construction, and an export shifts it by hundredths at most."""
MAX_REJECT = NOT_FOUND_SCORE
"""A category's reject threshold must be below this, or a part that was not found would be OK."""
TOLERANCE = 1e-4
"""Accepted difference of one image's score between two runtimes, on the calibrated scale; `export/onnx.yaml` uses the same limit."""
MAX_BYTES = 64 << 20
"""Limit for a calibration file; it holds the scores of a few million parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryThresholds:
    """Both thresholds of one category, with the requested and the promised rates of stopped sound parts."""

    thresholds: Thresholds
    n: int
    """Number of held-out sound parts from which the thresholds were computed."""
    reject_promise: float
    """At most this share of new sound parts is NG."""
    reinspect_promise: float
    """At most this share of new sound parts is RE-INSPECT or NG."""
    asked_reject: float
    asked_reinspect: float

    @property
    def promises_less(self) -> bool:
        """Whether a promised rate is higher than requested: too few held-out parts, or too many of them that were not found."""
        return self.reject_promise > self.asked_reject or self.reinspect_promise > self.asked_reinspect

    def rounded_up(self) -> CategoryThresholds:
        """Raise both thresholds by the tolerance; a higher threshold never breaks the promise."""
        low, high = self.thresholds.reinspect + TOLERANCE, self.thresholds.reject + TOLERANCE
        return replace(self, thresholds=Thresholds(reinspect=low, reject=high))

    def describe(self) -> str:
        """Describe the promise in a sentence."""
        text = (
            f"Of new sound parts from the same line, at most {_percent(self.reject_promise)} are NG and at most "
            f"{_percent(self.reinspect_promise)} are NG or RE-INSPECT, on average over calibrations with {self.n} held-out sound parts."
        )
        if not self.promises_less:
            return text
        rate = min(self.asked_reject, self.asked_reinspect)
        if self.n >= parts_needed(rate):  # more parts would not help: too many of them were not found
            return f"{text} The requested {_percent(rate)} cannot be promised while so many sound parts are not found."
        return f"{text} The requested {_percent(rate)} needs {parts_needed(rate)} held-out sound parts."


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Scale and thresholds that turn a student's raw scores into decisions."""

    scale: float
    """Raw score that is 1.0 on the calibrated scale: the pooled reject threshold."""
    limits: Mapping[str, CategoryThresholds]
    """Thresholds by category; `*` for all categories together."""
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Calibrated scores of the held-out sound parts, by category."""

    def for_category(self, category: str | None) -> CategoryThresholds:
        if category is None:
            return self.limits[POOLED]
        if category not in self.limits:
            known = ", ".join(name for name in self.limits if name != POOLED)
            raise BadInput(f"no calibration for category '{category}'; there is one for: {known}")
        return self.limits[category]

    def count_not_found(self, category: str | None = None) -> int:
        """Count the held-out sound parts of a category, or of all, that were not found in their images."""
        chosen = self.scores.values() if category in (None, POOLED) else [self.scores.get(str(category), ())]
        return sum(is_not_found(score) for scores in chosen for score in scores)

    def describe(self, category: str | None = None) -> str:
        """Describe a category's promise, or the pooled one; also how many held-out sound parts were not found."""
        limits = self.for_category(category)
        not_found = self.count_not_found(category)
        if not not_found:
            return limits.describe()
        was, they = ("was", "it counts") if not_found == 1 else ("were", "they count")
        return f"{limits.describe()} {not_found} of the {limits.n} {was} not found in the image; {they} as NG, as on the line."

    def to_json(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "limits": {name: asdict(limits) for name, limits in self.limits.items()},
            "scores": {name: [round(float(score), 5) for score in scores] for name, scores in self.scores.items()},
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Calibration:
        """Read a calibration; refuse anything that could turn a defect into an OK: missing, infinite or NaN thresholds."""
        try:
            limits = {
                name: CategoryThresholds(**{**values, "thresholds": Thresholds(**values["thresholds"])})
                for name, values in content["limits"].items()
            }
            scores = {name: _read_scores(values) for name, values in content.get("scores", {}).items()}
            calibration = Calibration(scale=content["scale"], limits=limits, scores=scores)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInput(f"the calibration is not complete ({type(error).__name__}: {error})") from error
        for name, category in limits.items():
            low, high = category.thresholds.reinspect, category.thresholds.reject
            if not (_is_finite_number(low) and _is_finite_number(high) and low <= high):
                raise BadInput(f"the calibration of '{name}' holds impossible thresholds ({low}, {high})")
            rates = (
                category.reject_promise,
                category.reinspect_promise,
                category.asked_reject,
                category.asked_reinspect,
            )
            if not (
                type(category.n) is int
                and category.n > 0
                and all(_is_finite_number(rate) and 1e-9 < rate <= 1 for rate in rates)
            ):
                raise BadInput(f"the calibration of '{name}' holds impossible rates or counts of parts")
        if POOLED not in limits or not (_is_finite_number(calibration.scale) and calibration.scale > 0):
            raise BadInput("the calibration has no pooled thresholds or no usable scale")
        if limits[POOLED].thresholds.reject > MAX_POOLED_REJECT:
            raise BadInput(
                f"the pooled reject threshold is {limits[POOLED].thresholds.reject:g}; this program calibrates it to 1 and reads at "
                f"most {MAX_POOLED_REJECT:g}: export the artifact again"
            )
        for name, category in limits.items():
            if category.thresholds.reject >= MAX_REJECT:
                raise BadInput(
                    f"the reject threshold of '{name}' is {category.thresholds.reject:g}; it must be below {MAX_REJECT:g}, the score of "
                    "a part that was not found: export the artifact again"
                )
        if not all(math.isfinite(score) for scores in calibration.scores.values() for score in scores):
            raise BadInput("the calibration holds scores that are not finite")
        return calibration


def _read_scores(values: object) -> list[float]:
    if not isinstance(values, list) or not all(type(score) in (int, float) for score in values):
        raise TypeError("scores that are no list of numbers")
    return [float(score) for score in values]


def read_calibration(path: Path) -> Calibration:
    """Read a run's calibration file."""
    content = read_plain_file(path, "calibration", MAX_BYTES)
    try:
        return Calibration.from_json(strict_json.loads(content))
    except ValueError as error:
        raise BadInput(f"{path}: not a calibration ({type(error).__name__})") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def conformal_threshold(scores: Sequence[float], rate: float) -> tuple[float, float]:
    """Compute the threshold for a rate, and the rate that it promises: larger than requested where n is too small."""
    n = len(scores)
    # The score of a part that was not found is no threshold: then a larger rate is promised, as with too few parts.
    found = sum(score < NOT_FOUND_SCORE for score in scores)
    rank = math.ceil((n + 1) * (1 - rate) - 1e-9)
    rank = min(rank, found)
    return float(np.sort(np.asarray(scores, dtype=np.float64))[rank - 1]), (n + 1 - rank) / (n + 1)


def parts_needed(rate: float) -> int:
    """Return the smallest number of held-out sound parts that can promise a rate."""
    return math.ceil(1 / rate - 1e-9) - 1


def compute_thresholds(scores: Sequence[float], *, reject_rate: float, reinspect_rate: float) -> CategoryThresholds:
    """Compute both thresholds from one category's held-out scores."""
    if len(scores) == 0 or not np.all(np.isfinite(scores)):
        raise BadInput("thresholds need at least one held-out sound part, and finite scores")
    if min(scores) >= NOT_FOUND_SCORE:
        raise BadInput(
            f"none of {len(scores)} held-out sound parts was found in its image; train with --set data.align=none"
        )
    reinspect, reinspect_promise = conformal_threshold(scores, reinspect_rate)
    reject, reject_promise = conformal_threshold(scores, reject_rate)
    if reject_promise > reject_rate:
        # With so few parts only the largest score is a valid threshold, and it becomes the RE-INSPECT threshold. The NG threshold lies
        # as far above it as it lies above the median. A higher threshold never breaks the promise.
        found = [score for score in scores if score < NOT_FOUND_SCORE]
        reject += max(reject - float(np.median(found)), 0.0)
    return CategoryThresholds(
        thresholds=Thresholds(reinspect=min(reinspect, reject), reject=reject),
        n=len(scores),
        reject_promise=reject_promise,
        reinspect_promise=reinspect_promise,
        asked_reject=reject_rate,
        asked_reinspect=reinspect_rate,
    )


def calibrate(raw: Mapping[str, Sequence[float]], *, reject_rate: float, reinspect_rate: float) -> Calibration:
    """Compute thresholds per category and for all together, on the scale where the pooled reject threshold is 1.0."""
    if reinspect_rate < reject_rate:
        raise BadInput(f"the re-inspect rate ({reinspect_rate}) must not be below the reject rate ({reject_rate})")
    raw = {category: [min(score, NOT_FOUND_SCORE) for score in scores] for category, scores in raw.items()}
    pooled = [score for scores in raw.values() for score in scores]
    pooled_reject = compute_thresholds(pooled, reject_rate=reject_rate, reinspect_rate=reinspect_rate).thresholds.reject
    # `rounded_up` adds the tolerance, which brings the pooled threshold to exactly 1.0.
    scale = pooled_reject / (1 - TOLERANCE)
    if scale <= 0:
        raise BadInput(
            "every held-out sound part has the score 0: the student has collapsed; train longer or with more noise"
        )
    scores = {
        category: [score if score == NOT_FOUND_SCORE else score / scale for score in values]
        for category, values in raw.items()
    }
    return calibrate_scaled(scale, scores, reject_rate=reject_rate, reinspect_rate=reinspect_rate)


def calibrate_scaled(
    scale: float, scores: Mapping[str, Sequence[float]], *, reject_rate: float, reinspect_rate: float
) -> Calibration:
    """Compute thresholds from scores on the calibrated scale, such as an artifact's, and keep that scale."""
    rates = {"reject_rate": reject_rate, "reinspect_rate": reinspect_rate}
    if POOLED in scores:
        raise BadInput(f"a category called '{POOLED}', which stands for all categories together; rename it")
    scores = {category: [min(score, NOT_FOUND_SCORE) for score in values] for category, values in scores.items()}
    pooled = [score for values in scores.values() for score in values]
    limits = {
        name: compute_thresholds(values, **rates).rounded_up() for name, values in {POOLED: pooled, **scores}.items()
    }
    return Calibration(scale=scale, limits=limits, scores=scores)


def count_decisions(scores: Sequence[float], thresholds: Thresholds) -> dict[Decision, int]:
    """Count the parts that get each decision."""
    counts = dict.fromkeys(Decision, 0)
    for score in scores:
        counts[thresholds.decide(score)] += 1
    return counts


def _is_finite_number(value: object) -> bool:
    """Whether it is a finite number; false for booleans and for integers that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %".replace(".0 %", " %")
