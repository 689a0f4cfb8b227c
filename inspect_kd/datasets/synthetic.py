"""Add synthetic defects to sound images, with exact masks, for training and early stopping.

Our own variant of DRAEM, CutPaste, NSA and MemSeg. The mask is computed from the changed pixels, so it is exact. Textures are
generated, never taken from a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.textures import Field, Rng, draw_texture, noise_field
from inspect_kd.types import ImageU8, Mask

MIN_SHARE, MAX_SHARE = 0.0005, 0.15
"""Share of the image that a defect covers, sampled log-uniformly."""
MIN_DIFFERENCE = 6
"""Grey levels; a pixel that differs by more belongs to the defect."""
ATTEMPTS = 12
NO_DEFECT = "none"
"""Kind of a `Defect` without a defect, because none fits into the inspected places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Defect:
    """An image with a synthetic defect, and the defect's mask and kind."""

    image: ImageU8
    mask: Mask
    kind: str


def add_defect(
    image: ImageU8,
    rng: Rng,
    *,
    donor: ImageU8 | None = None,
    kinds: Sequence[str] | None = None,
    shares: tuple[float, float] = (MIN_SHARE, MAX_SHARE),
    inspected: Mask | None = None,
) -> Defect:
    """Add a defect to a sound image; patches are pasted from `donor`, another image of the category.

    `inspected`: the only pixels that may change; where no defect fits among them, the image stays sound and the mask empty.
    """
    source = image if donor is None or donor.shape != image.shape else donor
    part = find_part(image)
    if inspected is not None:
        part = part & inspected if (part & inspected).any() else inspected
        if not inspected.any():
            return Defect(image=image, mask=np.zeros(image.shape[:2], bool), kind=NO_DEFECT)
    names = tuple(kinds) if kinds else KINDS
    for _ in range(ATTEMPTS):
        kind = str(rng.choice(names))
        share = float(np.exp(rng.uniform(*np.log(shares))))
        synthetic = _METHODS[kind](image, source, _Site(image.shape[:2], part, share, rng))
        defect = _finish(image, synthetic, part, kind, inspected)
        if defect is not None:
            return defect
    # A spot in the opposite tone is visible on any image.
    spot = _spot(image, _Site(image.shape[:2], part, 0.004, rng), opposite=True)
    defect = _finish(image, spot, None, "spot", inspected)
    if defect is None and inspected is not None:
        return Defect(image=image, mask=np.zeros(image.shape[:2], bool), kind=NO_DEFECT)
    if defect is None:
        raise RuntimeError("a defect in the opposite tone left no visible pixel")
    return defect


def find_part(image: ImageU8) -> Mask:
    """Segment the part: pixels that differ from the border's colour, or the whole image if the border is not uniform."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ground = np.median(border, axis=0)
    if np.mean(np.abs(border - ground).max(axis=1) < 20) < 0.8:
        return np.ones((height, width), bool)
    part = (np.abs(small - ground).max(axis=2) > 20).astype(np.uint8)
    part = cv2.morphologyEx(part, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    if not 0.05 < part.mean() < 0.95:
        return np.ones((height, width), bool)
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST) > 0


class _Site:
    """A random place on the part and the area of a defect; draws shapes of that area at that place."""

    def __init__(self, shape: tuple[int, ...], part: Mask, share: float, rng: Rng) -> None:
        self.height, self.width = int(shape[0]), int(shape[1])
        self.area = max(4.0, share * self.height * self.width)
        self.rng = rng
        rows, columns = np.nonzero(part)
        index = int(rng.integers(len(rows)))
        self.row, self.column = int(rows[index]), int(columns[index])

    @property
    def radius(self) -> float:
        return float(np.sqrt(self.area / np.pi))

    def blob(self) -> Field:
        """Draw a ragged blob: noise within a soft disc, thresholded to the area."""
        side = int(min(max(8, 5 * self.radius), 2 * max(self.height, self.width)))
        noise = noise_field(side, side, self.rng, cell=max(3.0, side / 3), octaves=4)
        rows, columns = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
        stretch, angle = self.rng.uniform(0.5, 1.0), self.rng.uniform(0, np.pi)
        u, v = rows * np.cos(angle) + columns * np.sin(angle), columns * np.cos(angle) - rows * np.sin(angle)
        field = noise - 3 * np.hypot(u, v / stretch)
        threshold = np.partition(field.ravel(), -min(field.size, int(self.area)))[-min(field.size, int(self.area))]
        return self.place((field >= threshold).astype(np.float32))

    def bent_line(self) -> Field:
        """Draw a thin, randomly bending line."""
        length = self.rng.uniform(3, 9) * self.radius
        thickness = max(1, round(self.area / max(length, 1)))
        directions = np.cumsum(self.rng.normal(0, self.rng.uniform(0.02, 0.25), 24)) + self.rng.uniform(0, 2 * np.pi)
        steps = length / 24 * np.stack([np.cos(directions), np.sin(directions)], axis=1)
        points = np.cumsum(steps, axis=0)
        points += np.array([self.column, self.row]) - points.mean(axis=0)
        line = np.zeros((self.height, self.width), np.float32)
        cv2.polylines(line, [points.astype(np.int32)], False, 1.0, min(thickness, 6), cv2.LINE_AA)
        return line

    def box(self) -> Field:
        """Draw a rotated rectangle of a random aspect ratio."""
        ratio = float(np.exp(self.rng.uniform(-1.2, 1.2)))
        sides = (np.sqrt(self.area * ratio), np.sqrt(self.area / ratio))
        corners = cv2.boxPoints(((self.column, self.row), sides, float(self.rng.uniform(0, 180))))
        field = np.zeros((self.height, self.width), np.float32)
        cv2.fillPoly(field, [corners.astype(np.int32)], 1.0, cv2.LINE_AA)
        return field

    def place(self, stamp: Field) -> Field:
        """Place a stamp on an empty field, centred at the site and cropped at the borders."""
        field = np.zeros((self.height, self.width), np.float32)
        side = stamp.shape[0]
        top, left = self.row - side // 2, self.column - side // 2
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(self.height, top + side), min(self.width, left + side)
        field[y0:y1, x0:x1] = stamp[y0 - top : y1 - top, x0 - left : x1 - left]
        return field

    def soften(self, field: Field) -> Field:
        """Blur the edges, as a lens does."""
        return cv2.GaussianBlur(field, (0, 0), float(self.rng.uniform(0.4, 1.2)))


def _texture(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    """Add a ragged blob of foreign material, more or less opaque."""
    fill = draw_texture(site.height, site.width, site.rng)
    return _blend(image, fill, site.soften(site.blob()), site.rng.uniform(0.35, 1.0))


def _own_texture(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    """Add a ragged blob of the part's own material, mirrored, shifted and recoloured."""
    rng = site.rng
    fill: npt.NDArray[Any] = source[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])].astype(np.float32)
    fill = np.roll(fill, (int(rng.integers(site.height)), int(rng.integers(site.width))), axis=(0, 1))
    fill = fill * rng.uniform(0.6, 1.5, 3) + rng.uniform(-30, 30)
    return _blend(image, fill, site.soften(site.blob()), rng.uniform(0.5, 1.0))


def _paste(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    """Paste a patch of another part in a wrong place."""
    rng = site.rng
    shift = (int(rng.integers(site.height)), int(rng.integers(site.width)))
    fill = np.roll(np.rot90(source, 2) if rng.random() < 0.3 else source, shift, axis=(0, 1))
    return _blend(image, fill, site.soften(site.box()), 1.0)


def _scar(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    """Add a scratch or hairline: darker or brighter, sometimes beside an edge of the opposite tone."""
    line = site.soften(site.bent_line())
    tone = site.rng.choice([-1, 1]) * site.rng.uniform(25, 110)
    scratched = image.astype(np.float32) + tone * line[:, :, None]
    if site.rng.random() < 0.5:
        edge = np.roll(line, (1, 1), axis=(0, 1)) * (1 - line)
        scratched -= 0.6 * tone * edge[:, :, None]
    return _to_bytes(scratched)


def _stain(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    """Change tone or colour within a soft-edged blob: oil, water, burn, wear."""
    rng = site.rng
    field = cv2.GaussianBlur(site.blob(), (0, 0), max(1.0, site.radius * rng.uniform(0.1, 0.5)))
    if rng.random() < 0.6:  # noqa: SIM108  (two kinds of stain)
        gain = np.full(3, rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.25, 2.0)]))
    else:
        gain = rng.uniform(0.4, 1.6, 3)
    return _blend(image, image.astype(np.float32) * gain + rng.uniform(-25, 25), field, 1.0)


def _dent(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    """Bend the surface: pixels move outwards or inwards, and the slope is shaded."""
    rng = site.rng
    rows, columns = np.mgrid[: site.height, : site.width].astype(np.float32)
    radius = max(4.0, 1.5 * site.radius)
    y, x = (rows - site.row) / radius, (columns - site.column) / radius
    bump = np.exp(-2 * (x * x + y * y))
    push = float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.9) * radius)
    bent = cv2.remap(
        image, columns + push * x * bump, rows + push * y * bump, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    angle = rng.uniform(0, 2 * np.pi)
    shade = bump * (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(30, 110)
    return _blend(image, bent + shade[:, :, None], (bump > 0.02).astype(np.float32), 1.0)


def _missing(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    """Remove material: inpaint a blob from its surroundings."""
    hole = site.blob() > 0
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    gap = cv2.resize(hole.astype(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    gap = cv2.dilate((gap > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    filled = cv2.resize(cv2.inpaint(small, gap, 2, cv2.INPAINT_TELEA), (site.width, site.height))
    return _blend(
        image, filled.astype(np.float32) * site.rng.uniform(0.75, 1.1), site.soften(hole.astype(np.float32)), 1.0
    )


def _spots(image: ImageU8, source: ImageU8, site: _Site) -> ImageU8:
    return _spot(image, site, opposite=False)


def _spot(image: ImageU8, site: _Site, *, opposite: bool) -> ImageU8:
    """Add a few small round specks: dust, pores, splashes. With `opposite` add a single one, black on bright or white on dark places."""
    rng = site.rng
    field = np.zeros((site.height, site.width), np.float32)
    count = 1 if opposite else int(rng.integers(1, 7))
    radius = max(1.0, float(np.sqrt(min(site.area, 900) / count / np.pi)))
    for _ in range(count):
        offset = rng.normal(0, 2.5 * radius * (count > 1), 2)
        centre = (round(site.column + offset[0]), round(site.row + offset[1]))
        cv2.circle(field, centre, max(1, round(radius * rng.uniform(0.6, 1.3))), 1.0, -1, cv2.LINE_AA)
    here = image[site.row, site.column].astype(np.float32)
    colour = np.where(here > 127, 0, 255).astype(np.float32) if opposite else rng.uniform(0, 255, 3)
    return _blend(image, np.broadcast_to(colour, image.shape), site.soften(field), 1.0)


_METHODS: dict[str, Callable[[ImageU8, ImageU8, _Site], ImageU8]] = {
    "texture": _texture,
    "own_texture": _own_texture,
    "paste": _paste,
    "scar": _scar,
    "stain": _stain,
    "dent": _dent,
    "missing": _missing,
    "spots": _spots,
}
KINDS: tuple[str, ...] = tuple(_METHODS)


def _finish(
    image: ImageU8, synthetic: ImageU8, part: Mask | None, kind: str, inspected: Mask | None = None
) -> Defect | None:
    """Compute the exact mask and undo invisible changes. None if the change is too small, too large or off the part."""
    changed = np.abs(image.astype(np.int16) - synthetic).max(axis=2) > MIN_DIFFERENCE
    if inspected is not None:
        changed &= inspected
    mask = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    if inspected is not None:
        mask &= inspected
    if not max(4, 0.5 * MIN_SHARE * mask.size) <= mask.sum() <= 2 * MAX_SHARE * mask.size:
        return None
    if part is not None and (mask & part).sum() < 0.5 * mask.sum():
        return None
    return Defect(image=np.where(mask[:, :, None], synthetic, image), mask=mask, kind=kind)


def _blend(image: ImageU8, fill: npt.NDArray[Any], field: Field, opacity: float) -> ImageU8:
    weight = (field * np.float32(opacity))[:, :, None]
    return _to_bytes(image + weight * (fill.astype(np.float32) - image))


def _to_bytes(values: npt.NDArray[Any]) -> ImageU8:
    rounded: ImageU8 = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
