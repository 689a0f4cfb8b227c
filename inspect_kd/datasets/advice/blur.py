"""Advise on blurred pictures: those without the finest detail that the camera could show."""

from __future__ import annotations

from collections.abc import Sequence

from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.contact_sheet import COLUMNS, draw_contact_sheet
from inspect_kd.datasets.advice.sound_picture import SoundPicture

MIN_DETAIL = -1.0
"""A picture is blurred if its finest octave holds less than half (2 to the power of -1) of the next one's energy."""


def advise_on_blur(category: str, pictures: Sequence[SoundPicture]) -> list[Advice]:
    """Advise on blurred pictures."""
    blurred = sorted((p for p in pictures if p.detail < MIN_DETAIL), key=lambda picture: picture.detail)
    if not blurred:
        return []
    are_most = len(blurred) > len(pictures) / 2
    sharpest = max(pictures, key=lambda picture: picture.detail)
    return [
        Advice(
            topic="blur",
            category=category,
            number=len(blurred),
            measure="blurred sound pictures",
            text=f"{len(blurred)} of {len(pictures)} sound pictures are blurred: their finest detail has at most "
            f"{100 * 2.0 ** blurred[-1].detail:.0f} % of the energy of detail twice as coarse",
            remedy="focus, and shorten the exposure, then take the pictures again"
            if are_most
            else "leave these pictures out, or take them again, then train",
            changes=(),
            picture=draw_contact_sheet([*blurred[: COLUMNS - 1], *([] if are_most else [sharpest])]),
            files=() if are_most else tuple(picture.sample.image for picture in blurred),
        )
    ]
