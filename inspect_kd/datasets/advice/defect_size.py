"""Advise on scale: how large a small defect still is in the model's input, and how far a long picture is squashed into a square."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from inspect_kd.config import Data
from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.contact_sheet import draw_contact_sheet
from inspect_kd.datasets.advice.sound_picture import SoundPicture
from inspect_kd.datasets.presentation import Presentation
from inspect_kd.datasets.tile_choice import MIN_VISIBLE_PIXELS, assumed_defect, choose_tile

MAX_ASPECT = 2.5
"""Longest side over the shortest from which squashing into a square distorts defects."""
LARGEST_SIZE, SIZE_STEP = 1024, 32
"""Largest side of the model's input that is advised, and the step between sides, in pixels."""
PICTURES_SHOWN = 3
DEFECT_SIZE = "size in pixels of the smallest defect in the model's input"


def advise_on_scale(
    category: str,
    pictures: Sequence[SoundPicture],
    settings: Data,
    presentation: Presentation | None,
    *,
    whole_images: bool,
) -> list[Advice]:
    """Advise where a small defect vanishes at the model's scale, or where pictures are squashed."""
    width, height = _typical_size(pictures, presentation)
    shorter, longer = sorted((width, height))
    defect = settings.smallest_defect or assumed_defect(shorter)
    choice = choose_tile((width, height), settings.size, settings.overlap, defect)
    is_automatic = settings.tile == "auto" and not whole_images
    tile = (choice.tile if is_automatic else None) if settings.tile == "auto" else settings.tile
    if presentation is not None:
        tile = presentation.view.tile
    assumed = "" if settings.smallest_defect else " (assumed: 2 % of the shorter side; --smallest-defect names it)"
    whole_scale = f"pictures of {width}x{height} at {settings.size}x{settings.size}"
    if is_automatic and tile is not None:
        number = defect * settings.size / longer
        text = f"a defect of {defect} pixels{assumed} would become {number:.1f} pixels in {whole_scale}"
        remedy = f"training cuts them into tiles of {tile} by itself (data.tile), {choice.frames} frames a part"
        return [_advice(category, number, DEFECT_SIZE, text, remedy, None, pictures)]
    scaled_defect = defect * min(1.0, settings.size / (tile or longer))
    if not is_automatic and scaled_defect < min(MIN_VISIBLE_PIXELS, defect):
        scale = f"tiles of {tile} at {settings.size}x{settings.size}" if tile else whole_scale
        text = f"a defect of {defect} pixels{assumed} becomes {scaled_defect:.1f} pixels in {scale}; {MIN_VISIBLE_PIXELS:g} are needed"
        if whole_images:
            remedy, changes = "give the model a larger input, or crop the pictures", _larger_input(longer, defect)
        else:
            remedy, changes = "cut the pictures into smaller tiles", ("--set", f"data.tile={choice.tile}")
        return [_advice(category, scaled_defect, DEFECT_SIZE, text, remedy, changes, pictures)]
    if tile is None and longer > MAX_ASPECT * shorter:
        text = f"pictures of {width}x{height} are squashed by {longer / shorter:.1f} in one direction"
        if whole_images:
            remedy, changes = "crop the pictures", ()
        else:
            side = max(shorter, math.ceil(settings.size / 2))
            remedy, changes = "cut them into tiles as wide as the shorter side", ("--set", f"data.tile={side}")
        return [
            _advice(category, longer / shorter, "longer side over the shorter one", text, remedy, changes, pictures)
        ]
    return []


def _typical_size(pictures: Sequence[SoundPicture], presentation: Presentation | None) -> tuple[int, int]:
    """Return the (width, height) of the reference frame of aligned parts, or of the median picture."""
    if presentation is not None and presentation.alignment is not None:
        return presentation.alignment.frame
    width, height = np.median([picture.size for picture in pictures], axis=0)
    return int(width), int(height)


def _larger_input(longer: int, defect: int) -> tuple[str, ...]:
    """Return the options for the model's input at which the defect is visible in whole pictures, or for the largest input."""
    size = math.ceil(MIN_VISIBLE_PIXELS / defect * longer / SIZE_STEP) * SIZE_STEP
    return ("--set", f"data.size={min(size, LARGEST_SIZE)}")


def _advice(
    category: str,
    number: float,
    measure: str,
    text: str,
    remedy: str,
    changes: tuple[str, ...] | None,
    pictures: Sequence[SoundPicture],
) -> Advice:
    return Advice(
        topic="scale",
        category=category,
        number=number,
        measure=measure,
        text=text,
        remedy=remedy,
        changes=changes,
        done=changes is None,
        picture=draw_contact_sheet(pictures[:PICTURES_SHOWN]),
    )
