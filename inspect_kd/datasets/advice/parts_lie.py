"""Advise on the pose of parts: measure by their silhouettes how they are turned and shifted, and how much of the picture they fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspect_kd.config import Data
from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.contact_sheet import COLUMNS, draw_contact_sheet, spread_over
from inspect_kd.datasets.advice.sound_picture import SoundPicture
from inspect_kd.datasets.alignment.by_silhouette import ROUND
from inspect_kd.datasets.alignment.fit import MAX_MISSED
from inspect_kd.datasets.alignment.silhouette import Silhouette
from inspect_kd.datasets.presentation import Presentation

MIN_FOUND = 0.9
"""Least share of pictures with a silhouette: with fewer the pictures do not show single parts on a plain background."""
MAX_AREA_RATIO = 2.0
"""Largest ratio of silhouettes' areas (90th over 10th percentile): parts of one kind have about the same size."""
MAX_ANGLE = 10.0
"""The spread is large if more than one part in ten is turned by more than this many degrees from the average direction."""
MAX_SHIFT = 0.08
"""The spread is large if more than one part in ten is shifted by more than this share of the picture's side from the median place."""
MIN_FILLED = 0.25
"""Least share of the picture that the box around all parts should fill; otherwise cropping is advised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseSpread:
    """How the parts of a category lie in their pictures."""

    angles: tuple[float, ...]
    """Degrees from the average direction; empty for round parts."""
    angle: float
    """Nine in ten parts are turned by at most this many degrees; 0 for round parts."""
    shift: float
    """Nine in ten parts are shifted by at most this share of the picture's side."""
    filled: float
    """Share of the picture that the box around all parts fills."""

    @property
    def is_large(self) -> bool:
        return self.angle > MAX_ANGLE or self.shift > MAX_SHIFT


def measure_pose_spread(pictures: Sequence[SoundPicture]) -> PoseSpread | None:
    """Measure how parts lie; None where the pictures do not show single parts on a plain background."""
    found = [picture.silhouette for picture in pictures if picture.silhouette is not None]
    if not found or len(found) < MIN_FOUND * len(pictures):
        return None
    area = [silhouette.area / silhouette.mask.size for silhouette in found]
    if np.percentile(area, 90) > MAX_AREA_RATIO * np.percentile(area, 10):
        return None
    places = np.array([_place(silhouette) for silhouette in found])
    angles: tuple[float, ...] = ()
    if np.median([silhouette.axis_ratio for silhouette in found]) >= ROUND:
        angles = _angles_from_average([silhouette.angle for silhouette in found])
    boxes = np.array([_box(silhouette) for silhouette in found])
    left, top = np.percentile(boxes[:, :2], 1, axis=0)
    right, bottom = np.percentile(boxes[:, 2:], 99, axis=0)
    return PoseSpread(
        angles=angles,
        angle=float(np.percentile(np.abs(angles), 90)) if angles else 0.0,
        shift=float(np.percentile(np.abs(places - np.median(places, axis=0)), 90, axis=0).max()),
        filled=float((right - left) * (bottom - top)),
    )


def _place(silhouette: Silhouette) -> tuple[float, float]:
    height, width = silhouette.mask.shape
    return silhouette.x / width, silhouette.y / height


def _box(silhouette: Silhouette) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a silhouette as shares of the picture."""
    height, width = silhouette.mask.shape
    rows, columns = np.nonzero(silhouette.mask.any(axis=1))[0], np.nonzero(silhouette.mask.any(axis=0))[0]
    return (
        float(columns[0]) / width,
        float(rows[0]) / height,
        float(columns[-1] + 1) / width,
        float(rows[-1] + 1) / height,
    )


def _angles_from_average(angles: Sequence[float]) -> tuple[float, ...]:
    """Return the degrees from the average direction, -90 to 90; an axis is the same when it is turned by 180 degrees."""
    doubled = 2 * np.asarray(angles)
    average = np.angle(np.mean(np.exp(1j * doubled)))
    return tuple(float(angle) for angle in np.degrees(np.angle(np.exp(1j * (doubled - average)))) / 2)


def advise_on_pose(
    category: str,
    pictures: Sequence[SoundPicture],
    spread: PoseSpread | None,
    settings: Data,
    presentation: Presentation | None,
) -> list[Advice]:
    """Advise on turned and shifted parts, and on parts that fill little of the picture."""
    if spread is None:
        return []
    is_aligned = presentation is not None and presentation.alignment is not None
    missed = [picture for picture in pictures if picture.silhouette is None]
    if spread.is_large:
        return [_advise_on_spread(category, pictures, missed, spread, settings, is_aligned=is_aligned)]
    if spread.filled < MIN_FILLED and not is_aligned and len(missed) <= MAX_MISSED * len(pictures):
        return [
            Advice(
                topic="background",
                category=category,
                number=spread.filled,
                measure="share of the picture inside the box around all parts",
                text=f"the parts lie in {100 * spread.filled:.0f} % of the picture; the rest is background",
                remedy="let the pictures be cropped to the part",
                changes=("--set", "data.align=silhouette"),
                picture=draw_contact_sheet(pictures[:COLUMNS]),
            )
        ]
    return []


def _advise_on_spread(
    category: str,
    pictures: Sequence[SoundPicture],
    missed: Sequence[SoundPicture],
    spread: PoseSpread,
    settings: Data,
    *,
    is_aligned: bool,
) -> Advice:
    found = [picture for picture in pictures if picture.silhouette is not None]
    by_angle = spread.angle > MAX_ANGLE
    turned = f"turned by up to {spread.angle:.0f}°" if by_angle else "hardly turned"
    text = f"nine in ten parts are {turned} and shifted by up to {100 * spread.shift:.0f} % of the picture"
    shown = spread_over(found, spread.angles if by_angle else [_place(p.silhouette)[0] for p in found if p.silhouette])
    listed: tuple[SoundPicture, ...] = ()
    changes: tuple[str, ...] | None = None
    is_switched_off = settings.align == "none"
    too_many_missed = len(missed) > MAX_MISSED * len(pictures)
    if is_aligned or not (is_switched_off or too_many_missed):
        remedy = "training aligns them by itself where that makes them more alike (data.align)"
    elif is_switched_off:
        remedy, changes = "let training align them", ("--set", "data.align=auto")
    else:
        reasons = [picture.not_found for picture in missed]
        remedy = (
            f"they are not aligned, because {len(missed)} of {len(pictures)} pictures show no single part "
            f"({max(set(reasons), key=reasons.count)}): take these pictures again or leave them out"
        )
        listed, shown, changes = tuple(missed), [*missed[:COLUMNS], *shown], ()
    return Advice(
        topic="pose",
        category=category,
        number=spread.angle if by_angle else spread.shift,
        measure="angle in degrees of nine in ten parts"
        if by_angle
        else "shift of nine in ten parts as a share of the picture",
        text=text,
        remedy=remedy,
        changes=changes,
        done=changes is None,
        picture=draw_contact_sheet(shown),
        files=tuple(picture.sample.image for picture in listed),
    )
