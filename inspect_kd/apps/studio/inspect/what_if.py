"""The effect of thresholds: on the inspected parts, and on the held-out sound parts of the calibration.

The held-out counts give a bound: with k of n held-out sound scores above a threshold, a new sound part is above it with
probability at most (k + 1) / (n + 1). This inverts `inspect_kd.calibrate`, which computes the threshold from that probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspect_kd.calibrate import POOLED, Calibration, count_decisions
from inspect_kd.types import Decision, Thresholds, is_not_found

ROUNDING = 0.51e-5
"""Half a unit of the last decimal place to which the card rounds its scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """Decisions counted under some thresholds, and what these thresholds promise for new sound parts."""

    thresholds: Thresholds
    inspected: dict[Decision, int]
    """The inspected parts under these thresholds."""
    inspected_by_default: dict[Decision, int]
    """The same parts under the artifact's own thresholds."""
    held_out: dict[Decision, int]
    """Held-out sound parts of the calibration under these thresholds."""
    not_found: int
    """Inspected parts that were not found in their images, NG under any thresholds."""
    held_out_not_found: int
    """Held-out sound parts that were not found."""
    reject_promise: float
    """Upper bound on the probability that a new sound part is NG."""
    reinspect_promise: float
    """Upper bound on the probability that a new sound part is NG or RE-INSPECT."""

    def to_json(self) -> dict[str, Any]:
        def by_name(counts: dict[Decision, int]) -> dict[str, int]:
            return {str(decision): count for decision, count in counts.items()}

        return {
            "thresholds": {"reinspect": self.thresholds.reinspect, "reject": self.thresholds.reject},
            "shown": by_name(self.inspected),
            "shown_before": by_name(self.inspected_by_default),
            "held_out_sound": by_name(self.held_out),
            "not_found": {"shown": self.not_found, "held_out_sound": self.held_out_not_found},
            "promise": {"reject": round(self.reject_promise, 6), "reinspect": round(self.reinspect_promise, 6)},
        }


def compute_what_if(
    scores: Sequence[float], held_out: Sequence[float], thresholds: Thresholds, default: Thresholds
) -> WhatIf:
    """Count decisions of inspected and of held-out scores. `default`: the artifact's own thresholds."""
    # The card may have rounded up a score that equals the threshold; it must still not count as above the threshold.
    rounded = Thresholds(reinspect=thresholds.reinspect + ROUNDING, reject=thresholds.reject + ROUNDING)
    held_out_counts = count_decisions(held_out, rounded)
    n = len(held_out)
    not_ok = n - held_out_counts[Decision.OK]
    return WhatIf(
        thresholds=thresholds,
        inspected=count_decisions(scores, thresholds),
        inspected_by_default=count_decisions(scores, default),
        held_out=held_out_counts,
        not_found=sum(map(is_not_found, scores)),
        held_out_not_found=sum(map(is_not_found, held_out)),
        reject_promise=(held_out_counts[Decision.NG] + 1) / (n + 1),
        reinspect_promise=(not_ok + 1) / (n + 1),
    )


def held_out_scores(calibration: Calibration, category: str | None) -> list[float]:
    """The held-out scores of one category, or of all."""
    by_category = calibration.scores if category in (None, POOLED) else {"": calibration.scores.get(str(category), ())}
    return [float(score) for scores in by_category.values() for score in scores]


def ordered_thresholds(reinspect: float, reject: float) -> Thresholds:
    """Thresholds from two independent sliders: RE-INSPECT is lowered to NG where it lies above."""
    return Thresholds(reinspect=min(float(reinspect), float(reject)), reject=float(reject))
