"""Choose the side of tiles from the picture's size and the smallest defect that must be found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inspect_kd.datasets.view import View

VISIBLE = 3.0
"""Least size of a defect in the model's input, in pixels."""
SMALLEST_DEFECT = 0.02
"""Smallest defect, as a share of the picture's shorter side, where the user names none."""
SMALLEST_PIXELS = 8
"""Least size in pixels of the smallest defect where the user names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileChoice:
    """The side of tiles for pictures of one size, and what it costs."""

    tile: int | None
    """None: the whole picture is squashed into one frame."""
    frames: int
    """Model runs for each part."""
    reason: str

    def describe(self) -> str:
        """Say in one line what was chosen, why, and what it costs."""
        if self.tile is None:
            return f"tile: none; {self.reason}"
        cost = f"{self.frames} frames a part, so about {self.frames} times the model's time on the line"
        return f"tile: {self.tile} pixels, {cost}; {self.reason}"


def assumed_defect(shorter: int) -> int:
    """Side in pixels of the smallest defect where the user names none, by the picture's shorter side."""
    return max(SMALLEST_PIXELS, round(SMALLEST_DEFECT * shorter))


def choose_tile(picture: tuple[int, int], size: int, overlap: float, smallest_defect: int | None) -> TileChoice:
    """Squash pictures of (width, height) where the smallest defect stays visible, else choose the largest tile that shows it."""
    shorter, longer = sorted(picture)
    defect = smallest_defect or assumed_defect(shorter)
    squashed = defect * min(1.0, size / longer)
    became = f"a defect of {defect} pixels becomes {squashed:.1f} when {picture[0]}x{picture[1]} is squashed to {size}x{size}"
    if squashed >= min(VISIBLE, defect):
        return TileChoice(tile=None, frames=1, reason=became)
    tile = max(math.ceil(size / 2), min(shorter, math.floor(size * defect / VISIBLE)))
    view = View(size=size, tile=tile, overlap=overlap)
    return TileChoice(tile=tile, frames=view.count(*picture), reason=f"{became}; {VISIBLE:g} are needed")
