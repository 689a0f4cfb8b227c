"""Draw the mouth of a bottle from above: rings of dark glass on a light table."""

from __future__ import annotations

import numpy as np

from inspect_kd.datasets.drawn.surface import RENDER, Surface, disc, distance_to, grid, line, wander
from inspect_kd.datasets.textures import Field, Rng, noise_field

KINDS = ("chipped_rim", "crack", "contamination", "water_spot")
OUTER, MOUTH = 0.43, 0.215
"""Radius of the glass and of its opening."""
# Radius and height of the glass from the centre outwards.
PROFILE = np.array(
    [
        [0.0, -14],
        [0.19, -13],
        [0.21, -8],
        [0.23, 6],
        [0.26, 13],
        [0.30, 14],
        [0.335, 9],
        [0.35, 1],
        [0.37, 0],
        [0.39, 5],
        [0.415, 4],
        [0.43, -4],
        [0.44, -8],
    ]
)


def draw(rng: Rng, kind: str | None, defect_rng: Rng) -> Surface:
    surface = Surface((0.84, 0.84, 0.83), gloss=0.03)
    surface.colour *= 0.97 + 0.05 * noise_field(RENDER, RENDER, rng, cell=120, octaves=2)[:, :, None]
    x, y = 0.5 + rng.normal(0, 0.004, 2)
    distance = distance_to(x, y) * np.float32(1 + rng.normal(0, 0.006))
    shadow = np.clip(1 - (distance_to(x + 0.015, y + 0.02) - OUTER) / 0.05, 0, 1)
    surface.colour *= 1 - 0.28 * shadow[:, :, None]
    glass = np.clip((OUTER - distance) / 0.005, 0, 1)
    if kind == "chipped_rim":
        glass, distance = _break_rim(glass, distance, x, y, defect_rng)
    amber = rng.uniform(0.9, 1.1)
    surface.paint(glass, (0.15 * amber, 0.10 * amber, 0.062), gloss=0.85)
    _tint(surface, glass, distance, x, y, rng)
    surface.height += glass * np.interp(distance, PROFILE[:, 0], PROFILE[:, 1]).astype(np.float32)
    surface.height += glass * (noise_field(RENDER, RENDER, rng, cell=70, octaves=2) - 0.5) * 1.6
    if kind in _DEFECTS:
        _DEFECTS[kind](surface, x, y, defect_rng)
    return surface


def _tint(surface: Surface, glass: Field, distance: Field, x: float, y: float, rng: Rng) -> None:
    """Add the light that passes through the glass: bright where it is thin, in arcs that vary between bottles."""
    rows, columns = grid()
    angle = np.arctan2(rows - np.float32(y), columns - np.float32(x))
    for radius, width, colour in (
        (0.405, 0.012, (0.55, 0.36, 0.20)),
        (0.345, 0.010, (0.62, 0.42, 0.22)),
        (0.225, 0.012, (0.40, 0.27, 0.15)),
    ):
        arc = 0.55 + 0.45 * np.cos(angle * rng.integers(1, 3) + rng.uniform(0, 6.3))
        cover = np.exp(-(((distance - np.float32(radius)) / np.float32(width)) ** 2)) * arc
        surface.paint((glass * cover * 0.8).astype(np.float32), colour)
    surface.paint(glass * np.clip((0.195 - distance) / 0.02, 0, 1), (0.045, 0.04, 0.042), gloss=0.25)


def _place_on_glass(
    x: float, y: float, defect_rng: Rng, low: float = 0.05, high: float = 0.40
) -> tuple[float, float, float]:
    """Return a random place (x, y) between `low` and `high` from the centre of the glass, and its direction from the centre in radians."""
    angle, radius = defect_rng.uniform(0, 2 * np.pi), defect_rng.uniform(low, high)
    return float(x + radius * np.cos(angle)), float(y + radius * np.sin(angle)), float(angle)


def _break_rim(glass: Field, distance: Field, x: float, y: float, defect_rng: Rng) -> tuple[Field, Field]:
    """Break a ragged chip out of the outer or inner rim: return the cover of the glass, and the changed distances from its centre."""
    outer = defect_rng.random() < 0.6
    cx, cy, _ = _place_on_glass(x, y, defect_rng, *((OUTER, OUTER) if outer else (MOUTH + 0.01, MOUTH + 0.02)))
    size = defect_rng.uniform(0.035, 0.08)
    ragged = noise_field(RENDER, RENDER, defect_rng, cell=22, octaves=3)
    bite = np.clip((size * (0.7 + 0.6 * ragged) - distance_to(cx, cy)) / 0.008, 0, 1)
    if outer:
        return glass * (1 - bite), distance
    return glass, distance - bite * np.float32(0.06)


def _crack(surface: Surface, x: float, y: float, defect_rng: Rng) -> None:
    sx, sy, angle = _place_on_glass(x, y, defect_rng, 0.22, 0.40)
    along = angle + np.pi / 2 + defect_rng.normal(0, 0.5)
    points = wander((sx, sy), along, defect_rng.uniform(0.16, 0.32), defect_rng, restless=0.16)
    inside = np.clip((OUTER - distance_to(x, y)) / 0.005, 0, 1)
    cover = line(points, defect_rng.uniform(0.006, 0.010), soft=0.001) * inside
    surface.paint(cover, (0.80, 0.72, 0.62), gloss=0.6)
    glow = line(points, 0.02, soft=0.006) * inside
    surface.paint(glow * 0.35, (0.55, 0.42, 0.30))


def _contamination(surface: Surface, x: float, y: float, defect_rng: Rng) -> None:
    """Add a crumb of paper, cork or plastic."""
    cx, cy, _ = _place_on_glass(x, y, defect_rng, 0.03, 0.38)
    size = defect_rng.uniform(0.02, 0.05)
    ragged = noise_field(RENDER, RENDER, defect_rng, cell=16, octaves=4)
    cover = np.clip((size * (0.5 + ragged) - distance_to(cx, cy)) / 0.005, 0, 1)
    colours = np.array([[0.72, 0.62, 0.42], [0.85, 0.84, 0.80], [0.35, 0.28, 0.20], [0.25, 0.45, 0.62]])
    grain = noise_field(RENDER, RENDER, defect_rng, cell=8, octaves=3)[:, :, None]
    surface.paint(
        cover, colours[defect_rng.integers(len(colours))].astype(np.float32) * (0.7 + 0.5 * grain), gloss=0.05
    )
    surface.height += cover * (6 + 5 * grain[:, :, 0])


def _water_spot(surface: Surface, x: float, y: float, defect_rng: Rng) -> None:
    """Add a dried drop: a pale film with a brighter border."""
    cx, cy, _ = _place_on_glass(x, y, defect_rng, 0.10, 0.36)
    size = defect_rng.uniform(0.03, 0.06)
    wobble = noise_field(RENDER, RENDER, defect_rng, cell=50, octaves=2) * np.float32(0.3 * size)
    distance = distance_to(cx, cy) + wobble
    film = np.clip((size - distance) / 0.006, 0, 1) * disc(x, y, OUTER)
    rim = np.exp(-(((distance - size * 0.95) / 0.006) ** 2)).astype(np.float32) * disc(x, y, OUTER)
    surface.paint(film * np.float32(defect_rng.uniform(0.22, 0.35)), (0.70, 0.70, 0.68))
    surface.paint(rim * np.float32(defect_rng.uniform(0.5, 0.7)), (0.85, 0.85, 0.83))


_DEFECTS = {"crack": _crack, "contamination": _contamination, "water_spot": _water_spot}
