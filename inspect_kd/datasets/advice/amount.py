"""Advise on the number of sound parts: are they enough for thresholds with a useful promise?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from inspect_kd.calibrate import parts_needed
from inspect_kd.config import CalibrationConfig, Data
from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.contact_sheet import COLUMNS, draw_contact_sheet
from inspect_kd.datasets.advice.sound_picture import SoundPicture
from inspect_kd.types import Sample, Split

LARGEST_SHARE = 0.4
"""Largest share of the sound parts that is worth holding out for the thresholds."""


def advise_on_amount(
    category: str,
    sound: Sequence[Sample],
    pictures: Sequence[SoundPicture],
    settings: Data,
    rates: CalibrationConfig,
) -> list[Advice]:
    """Advise where the held-out sound parts cannot promise even the re-inspect rate, the larger of the two."""
    held_out = sum(sample.split is Split.CALIBRATION for sample in sound)
    asked = max(rates.reinspect_rate, rates.reject_rate)
    needed = parts_needed(asked)
    if held_out >= needed:
        return []
    share = math.ceil(100 * needed / len(sound)) / 100
    total = max(math.ceil(needed / settings.calibration), len(sound) + 1)
    remedy = f"take {total} sound parts, {total - len(sound)} more"
    changes: tuple[str, ...] = ()
    if share <= LARGEST_SHARE:
        remedy += f"; until then hold out {100 * share:.0f} % of them"
        changes = ("--set", f"data.calibration={share:g}")
    promised = 100 / (held_out + 1)
    return [
        Advice(
            topic="few parts",
            category=category,
            number=promised,
            measure="percent of sound parts that may be stopped, at best",
            text=f"{len(sound)} sound parts, of which {held_out} are held out for the thresholds, can promise at best that "
            f"{promised:.1f} % of sound parts are stopped; {100 * asked:g} % needs {needed} held-out parts",
            remedy=remedy,
            changes=changes,
            picture=draw_contact_sheet(pictures[:COLUMNS]),
        )
    ]
