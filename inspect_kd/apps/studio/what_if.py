"""What thresholds would do: to the parts on the desk, and to the held-out sound parts of the calibration.

The second is a promise: with k of n held-out sound scores above a limit, a new sound part is above it with probability at
most (k + 1) / (n + 1), which is the split-conformal bound of `inspect_kd.calibrate` read backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspect_kd.calibrate import POOLED, Calibration, count_decisions
from inspect_kd.types import Decision, Thresholds

ROUNDING = 0.51e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    thresholds: Thresholds
    shown: dict[Decision, int]
    """Parts on the desk, under these thresholds."""
    usual: dict[Decision, int]
    """The same parts under the artifact's own."""
    sound: dict[Decision, int]
    """Held-out sound parts of the calibration, under these thresholds."""
    reject_promise: float
    reinspect_promise: float

    def to_json(self) -> dict[str, Any]:
        def plain(counts: dict[Decision, int]) -> dict[str, int]:
            return {str(decision): count for decision, count in counts.items()}

        return {
            "thresholds": {"reinspect": self.thresholds.reinspect, "reject": self.thresholds.reject},
            "shown": plain(self.shown),
            "shown_before": plain(self.usual),
            "held_out_sound": plain(self.sound),
            "promise": {"reject": round(self.reject_promise, 6), "reinspect": round(self.reinspect_promise, 6)},
        }


def what_if(scores: Sequence[float], held_out: Sequence[float], thresholds: Thresholds, usual: Thresholds) -> WhatIf:
    # The card keeps its scores with five digits: a limit that is one of them must not fall below its own rounding.
    rounded = Thresholds(reinspect=thresholds.reinspect + ROUNDING, reject=thresholds.reject + ROUNDING)
    sound = count_decisions(held_out, rounded)
    n = len(held_out)
    stopped = n - sound[Decision.OK]
    return WhatIf(
        thresholds=thresholds,
        shown=count_decisions(scores, thresholds),
        usual=count_decisions(scores, usual),
        sound=sound,
        reject_promise=(sound[Decision.NG] + 1) / (n + 1),
        reinspect_promise=(stopped + 1) / (n + 1),
    )


def held_out_scores(calibration: Calibration, category: str | None) -> list[float]:
    """Of one category, or of all together."""
    chosen = calibration.scores if category in (None, POOLED) else {"": calibration.scores.get(str(category), ())}
    return [float(score) for scores in chosen.values() for score in scores]


def ordered(reinspect: float, reject: float) -> Thresholds:
    """Two sliders know nothing of each other: re-inspect never lies above reject."""
    return Thresholds(reinspect=min(float(reinspect), float(reject)), reject=float(reject))
