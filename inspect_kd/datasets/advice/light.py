"""Advise on light: how much its brightness and contrast change between sound pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.contact_sheet import draw_contact_sheet, spread_over
from inspect_kd.datasets.advice.products import Products
from inspect_kd.datasets.advice.sound_picture import SoundPicture
from inspect_kd.datasets.alignment.pose import to_grey

MAX_LIGHT = 1.25
"""Ratio of the 90th to the 10th percentile of brightness from which the light is not steady."""
MIN_PICTURES = 5


def measure_light(pictures: Sequence[SoundPicture]) -> tuple[float, float]:
    """Return the ratio of the 90th to the 10th percentile of the pictures' brightness, and that of their contrast."""
    greys = [to_grey(picture.small) for picture in pictures]
    brightness, contrast = ([1 + float(measure(grey)) for grey in greys] for measure in (np.mean, np.std))
    return _ratio(brightness), _ratio(contrast)


def _ratio(values: Sequence[float]) -> float:
    low, high = np.percentile(values, [10, 90])
    return float(high / low)


def advise_on_light(category: str, pictures: Sequence[SoundPicture], products: Products | None) -> list[Advice]:
    """Advise where the light is not steady; within each product, where there are several."""
    groups = products.members if products else (tuple(range(len(pictures))),)
    groups = tuple(members for members in groups if len(members) >= MIN_PICTURES)
    if not groups:
        return []
    measured = [(measure_light([pictures[i] for i in members]), members) for members in groups]
    # The median product decides, so that a single one that is measured badly does not.
    (brightness, contrast), members = sorted(measured)[(len(measured) - 1) // 2]
    if brightness < MAX_LIGHT:
        return []
    shown = [pictures[i] for i in members]
    return [
        Advice(
            topic="light",
            category=category,
            number=brightness,
            measure="brightness of the 90th percentile over that of the 10th",
            text=f"the light is not steady: brightness differs by a factor of {brightness:.2f} between sound pictures, contrast by "
            f"{contrast:.2f}",
            remedy="fix exposure, gain and white balance and shield the station; where that is impossible, add sound parts in every "
            "light that occurs, then train again",
            changes=(),
            picture=draw_contact_sheet(spread_over(shown, [float(to_grey(p.small).mean()) for p in shown])),
        )
    ]
