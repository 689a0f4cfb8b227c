"""Choose the side of tiles from the picture's size and the smallest defect that must be found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inspect_kd.datasets.view import View

MIN_VISIBLE_PIXELS = 3.0
"""Least side that a defect must have in the model's input."""
ASSUMED_DEFECT_SHARE = 0.02
"""Side of the smallest defect where the user names none, as a share of the picture's shorter side."""
MIN_ASSUMED_PIXELS = 8
"""Least side of the smallest defect where the user names none, in pixels of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileChoice:
    """The side of tiles for pictures of one size, and what it costs."""

    tile: int | None
    """None: the whole picture is squashed into one frame."""
    frames: int
    """Number of frames that the model predicts for each part."""
    reason: str

    def describe(self) -> str:
        """Say in one line what was chosen, why, and what it costs."""
        if self.tile is None:
            return f"tile: none; {self.reason}"
        cost = f"{self.frames} frames a part, so about {self.frames} times the model's time on the line"
        return f"tile: {self.tile} pixels, {cost}; {self.reason}"


def assumed_defect(shorter: int) -> int:
    """Return the side in pixels of the smallest defect where the user names none, from the picture's shorter side."""
    return max(MIN_ASSUMED_PIXELS, round(ASSUMED_DEFECT_SHARE * shorter))


def choose_tile(picture: tuple[int, int], size: int, overlap: float, smallest_defect: int | None) -> TileChoice:
    """Squash pictures of (width, height) where the smallest defect stays visible, else choose the largest tile that shows it."""
    shorter, longer = sorted(picture)
    defect = smallest_defect or assumed_defect(shorter)
    squashed = defect * min(1.0, size / longer)
    change = f"a defect of {defect} pixels becomes {squashed:.1f} when {picture[0]}x{picture[1]} is squashed to {size}x{size}"
    if squashed >= min(MIN_VISIBLE_PIXELS, defect):
        return TileChoice(tile=None, frames=1, reason=change)
    tile = max(math.ceil(size / 2), min(shorter, math.floor(size * defect / MIN_VISIBLE_PIXELS)))
    view = View(size=size, tile=tile, overlap=overlap)
    return TileChoice(tile=tile, frames=view.count(*picture), reason=f"{change}; {MIN_VISIBLE_PIXELS:g} are needed")
