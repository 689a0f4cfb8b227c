"""Render surfaces with height, colour and gloss under a lamp, and imitate the camera.

Everything is drawn at `RENDER` pixels and reduced at the end; coordinates and lengths are shares of the side, 0 to 1. The cover of a shape
is a field (RENDER, RENDER): the share of each pixel that the shape covers, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.textures import Field, Rng
from inspect_kd.types import ImageU8

RENDER = 384
Picture = npt.NDArray[Any]
"""float32 (RENDER, RENDER, 3), 0 to 1, roughly linear."""


@dataclass(slots=True)
class Light:
    """Position, strength and colour of the lamp in one image."""

    angle: float
    """Direction in the image plane from which the light comes, in radians."""
    height: float
    """The lamp's height divided by its horizontal distance."""
    strength: float
    ambient: float
    warmth: float
    falloff: float
    """How much brighter the image is towards the lamp, per side of the image."""

    @staticmethod
    def sample(rng: Rng, *, angle_std: float = 0.35) -> Light:
        """Sample a random lamp."""
        return Light(
            angle=-2.2 + rng.normal(0, angle_std),
            height=rng.uniform(0.9, 1.3),
            strength=rng.uniform(0.75, 0.95),
            ambient=rng.uniform(0.25, 0.35),
            warmth=rng.normal(0, 0.025),
            falloff=rng.uniform(0.0, 0.22),
        )


class Surface:
    """Colour, height and gloss maps that a part is drawn into."""

    def __init__(self, colour: tuple[float, float, float], gloss: float = 0.1) -> None:
        self.colour: Picture = np.empty((RENDER, RENDER, 3), np.float32)
        self.colour[:] = colour
        self.height: Field = np.zeros((RENDER, RENDER), np.float32)
        self.gloss: Field = np.full((RENDER, RENDER), gloss, np.float32)

    def paint(self, cover: Field, colour: npt.ArrayLike, gloss: float | None = None) -> None:
        """Blend a colour in with the opacity `cover`; only its bounding box is touched, because most shapes are small."""
        x, y, width, height = cv2.boundingRect((cover > 0).astype(np.uint8))
        here = np.s_[y : y + height, x : x + width]
        paint = np.asarray(colour, np.float32)
        patch = self.colour[here]
        patch += cover[here][:, :, None] * ((paint[here] if paint.ndim == 3 else paint) - patch)
        if gloss is not None:
            self.gloss[here] += cover[here] * (np.float32(gloss) - self.gloss[here])

    def shade(self, light: Light) -> Picture:
        """Render the surface: diffuse light from its slope, highlights from its gloss."""
        slope_x = cv2.Scharr(self.height, cv2.CV_32F, 1, 0, scale=1 / 32)
        slope_y = cv2.Scharr(self.height, cv2.CV_32F, 0, 1, scale=1 / 32)
        toward = np.array([np.cos(light.angle), np.sin(light.angle), light.height], np.float32)
        toward /= np.linalg.norm(toward)
        normal_z = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
        facing = np.clip((-slope_x * toward[0] - slope_y * toward[1] + toward[2]) * normal_z, 0, 1)
        half = toward + np.array([0, 0, 1], np.float32)
        half /= np.linalg.norm(half)
        mirror = np.clip((-slope_x * half[0] - slope_y * half[1] + half[2]) * normal_z, 0, 1) ** 40
        rows, columns = np.mgrid[:RENDER, :RENDER].astype(np.float32) / RENDER - 0.5
        fall = 1 + np.float32(light.falloff) * (columns * toward[0] + rows * toward[1])
        bright = (light.ambient + light.strength * facing) * fall
        shine = (self.gloss * mirror * light.strength * fall)[:, :, None]
        tint = np.array([1 + light.warmth, 1, 1 - light.warmth], np.float32)
        lit: Picture = (self.colour * bright[:, :, None] + shine) * tint
        return lit


def expose(
    picture: Picture, rng: Rng, size: int, *, shift: tuple[float, float], turn: float, endless: bool
) -> tuple[Picture, Picture]:
    """Apply the camera's pose, blur and resolution; return the image without noise, and the noise."""
    # Beyond the rendered area an endless material is mirrored; otherwise the background continues.
    beyond = cv2.BORDER_REFLECT_101 if endless else cv2.BORDER_REPLICATE
    middle = RENDER / 2
    pose = cv2.getRotationMatrix2D((middle, middle), turn, 1.0)
    pose[:, 2] += np.array(shift) * RENDER
    posed = cv2.warpAffine(picture, pose, (RENDER, RENDER), flags=cv2.INTER_LINEAR, borderMode=beyond)
    posed = cv2.GaussianBlur(posed, (0, 0), float(rng.uniform(0.5, 0.9)))
    small = cv2.resize(posed, (size, size), interpolation=cv2.INTER_AREA) * np.float32(rng.normal(1, 0.03))
    noise = rng.normal(0, rng.uniform(0.006, 0.012), small.shape).astype(np.float32)
    return small, noise


def to_bytes(picture: Picture) -> ImageU8:
    """Convert to 8 bit with a soft shoulder instead of hard clipping, like a camera."""
    curve = np.tanh(picture * 0.95) / np.tanh(np.float32(1.25))
    values: ImageU8 = (255 * np.clip(curve, 0, 1) + 0.5).astype(np.uint8)
    return values


def disc(x: float, y: float, radius: float, soft: float = 0.004) -> Field:
    """Return the cover of a disc."""
    return _within(x, y, radius + soft, lambda dx, dy: _edge(np.float32(radius) - np.hypot(dx, dy), soft))


def ring(x: float, y: float, radius: float, width: float, soft: float = 0.004) -> Field:
    """Return the cover of a ring."""

    def cover(dx: Field, dy: Field) -> Field:
        return _edge(np.float32(width / 2) - np.abs(np.hypot(dx, dy) - np.float32(radius)), soft)

    return _within(x, y, radius + width + soft, cover)


def box(
    x: float, y: float, width: float, height: float, turn: float = 0.0, soft: float = 0.004, corner: float = 0.0
) -> Field:
    """Return the cover of a rectangle with round corners; (x, y) is its centre, `turn` is in degrees."""
    c, s = np.float32(np.cos(np.radians(turn))), np.float32(np.sin(np.radians(turn)))

    def cover(dx: Field, dy: Field) -> Field:
        u = np.abs(dx * c + dy * s) - np.float32(width / 2 - corner)
        v = np.abs(dy * c - dx * s) - np.float32(height / 2 - corner)
        outside = np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0)
        return _edge(np.float32(corner) - outside, soft)

    return _within(x, y, float(np.hypot(width, height)) / 2 + soft, cover)


def distance_to(x: float, y: float) -> Field:
    """Return the distance of each pixel to a point."""
    rows, columns = grid()
    away: Field = np.hypot(columns - np.float32(x), rows - np.float32(y))
    return away


@cache
def grid() -> tuple[Field, Field]:
    """Return the row and column of each pixel, 0 to 1. Cached: do not change in place."""
    axis = (np.arange(RENDER, dtype=np.float32) + 0.5) / RENDER
    return np.repeat(axis[:, None], RENDER, axis=1), np.repeat(axis[None], RENDER, axis=0)


def _within(x: float, y: float, reach: float, cover: Callable[[Field, Field], Field]) -> Field:
    """Compute a cover only within `reach` of a point; it is zero elsewhere."""
    field = np.zeros((RENDER, RENDER), np.float32)
    left, right = (int(np.clip((x + sign * reach) * RENDER + sign, 0, RENDER)) for sign in (-1, 1))
    top, bottom = (int(np.clip((y + sign * reach) * RENDER + sign, 0, RENDER)) for sign in (-1, 1))
    if left < right and top < bottom:
        rows, columns = (axis[top:bottom, left:right] for axis in grid())
        field[top:bottom, left:right] = cover(columns - np.float32(x), rows - np.float32(y))
    return field


def line(points: npt.ArrayLike, width: float, soft: float = 0.0) -> Field:
    """Return the cover of a polyline; points are (x, y)."""
    cover = np.zeros((RENDER, RENDER), np.uint8)
    pixels = np.rint(np.asarray(points, np.float64) * RENDER * 16).astype(np.int32)
    cv2.polylines(cover, [pixels.reshape(-1, 1, 2)], False, 255, max(1, round(width * RENDER)), cv2.LINE_AA, shift=4)
    field = cover.astype(np.float32) / 255
    return cv2.GaussianBlur(field, (0, 0), soft * RENDER) if soft else field


def wander(
    start: tuple[float, float], angle: float, length: float, rng: Rng, *, restless: float = 0.15, steps: int = 24
) -> npt.NDArray[np.float64]:
    """Return the points of a randomly bending line; `restless` is the standard deviation of its turn at each step, in radians."""
    turns = angle + np.cumsum(rng.normal(0, restless, steps))
    moves = length / steps * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return np.array(start) + np.vstack([np.zeros((1, 2)), np.cumsum(moves, axis=0)])


def _edge(inside: Field, soft: float) -> Field:
    """Return the cover of a shape from each pixel's distance inside its outline; the edge is `soft` wide."""
    edge: Field = np.clip(inside / np.float32(soft) + np.float32(0.5), 0, 1)
    return edge
