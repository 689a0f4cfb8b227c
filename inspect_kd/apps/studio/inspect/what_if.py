"""The effect of thresholds: on the inspected parts, and on the held-out sound parts of the calibration.

The held-out counts give a bound: with k of n held-out sound scores above a threshold, a new sound part is above it with
probability at most (k + 1) / (n + 1). This inverts `inspect_kd.calibrate`, which computes the threshold from the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspect_kd.calibrate import POOLED, Calibration, count_decisions
from inspect_kd.types import Decision, Thresholds

ROUNDING = 0.51e-5
"""Half a unit of the last digit with which the card stores scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """Decisions counted under some thresholds, and the promise that they carry."""

    thresholds: Thresholds
    inspected: dict[Decision, int]
    """The inspected parts under these thresholds."""
    by_default: dict[Decision, int]
    """The same parts under the artifact's own thresholds."""
    held_out: dict[Decision, int]
    """Held-out sound parts of the calibration under these thresholds."""
    reject_promise: float
    reinspect_promise: float

    def to_json(self) -> dict[str, Any]:
        def plain(counts: dict[Decision, int]) -> dict[str, int]:
            return {str(decision): count for decision, count in counts.items()}

        return {
            "thresholds": {"reinspect": self.thresholds.reinspect, "reject": self.thresholds.reject},
            "shown": plain(self.inspected),
            "shown_before": plain(self.by_default),
            "held_out_sound": plain(self.held_out),
            "promise": {"reject": round(self.reject_promise, 6), "reinspect": round(self.reinspect_promise, 6)},
        }


def what_if(scores: Sequence[float], held_out: Sequence[float], thresholds: Thresholds, default: Thresholds) -> WhatIf:
    """Count decisions of inspected and of held-out scores. `default`: the artifact's own thresholds."""
    # A score equal to the threshold must not count as above it because the card has rounded it up.
    rounded = Thresholds(reinspect=thresholds.reinspect + ROUNDING, reject=thresholds.reject + ROUNDING)
    sound = count_decisions(held_out, rounded)
    n = len(held_out)
    not_ok = n - sound[Decision.OK]
    return WhatIf(
        thresholds=thresholds,
        inspected=count_decisions(scores, thresholds),
        by_default=count_decisions(scores, default),
        held_out=sound,
        reject_promise=(sound[Decision.NG] + 1) / (n + 1),
        reinspect_promise=(not_ok + 1) / (n + 1),
    )


def held_out_scores(calibration: Calibration, category: str | None) -> list[float]:
    """The held-out scores of one category, or of all."""
    chosen = calibration.scores if category in (None, POOLED) else {"": calibration.scores.get(str(category), ())}
    return [float(score) for scores in chosen.values() for score in scores]


def ordered_thresholds(reinspect: float, reject: float) -> Thresholds:
    """Thresholds from two independent sliders: RE-INSPECT is lowered to NG where it lies above."""
    return Thresholds(reinspect=min(float(reinspect), float(reject)), reject=float(reject))
