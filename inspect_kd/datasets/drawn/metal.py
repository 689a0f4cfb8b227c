"""Draw a brushed metal plate with a grid of chamfered holes."""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.datasets.drawn.surface import RENDER, Surface, box, disc, distance_to, line, wander
from inspect_kd.datasets.textures import Field, Rng, noise_field

KINDS = ("scratch", "dent", "rust", "blocked_hole", "burr")
HOLES = [(0.26 + 0.24 * column, 0.26 + 0.24 * row) for row in range(3) for column in range(3)]
RADIUS = 0.052


def draw(rng: Rng, kind: str | None, defect_rng: Rng) -> Surface:
    surface = Surface((0.10, 0.10, 0.11), gloss=0.02)
    plate = box(0.5, 0.5, 0.86, 0.86, corner=0.05, soft=0.006)
    tone = rng.uniform(0.56, 0.64)
    surface.paint(plate, (tone, tone, tone * 1.03), gloss=0.22)
    streaks = _brushing(rng)
    surface.colour *= 1 + plate[:, :, None] * (0.30 * (streaks - 0.5))[:, :, None]
    surface.height += (
        plate * 7 + plate * streaks * 0.35 + plate * (noise_field(RENDER, RENDER, rng, cell=150, octaves=2) - 0.5) * 5
    )
    defective_hole = int(defect_rng.integers(len(HOLES))) if kind in {"blocked_hole", "burr"} else -1
    for number, (x, y) in enumerate(HOLES):
        _hole(surface, x + rng.normal(0, 0.0012), y + rng.normal(0, 0.0012), rng)
        if number == defective_hole:
            _block_hole(surface, x, y, defect_rng) if kind == "blocked_hole" else _add_burr(surface, x, y, defect_rng)
    if kind in _DEFECTS:
        _DEFECTS[kind](surface, defect_rng)
    return surface


def _brushing(rng: Rng) -> Field:
    """Generate streaks of several lengths, as from an abrasive belt."""
    streaks = np.zeros((RENDER, RENDER), np.float32)
    for length, weight in ((25, 0.3), (121, 0.5), (301, 0.5)):
        streaks += (
            weight
            * cv2.blur(rng.random((RENDER, RENDER), dtype=np.float32) - 0.5, (length, 1))
            * np.float32(np.sqrt(length))
        )
    clipped: Field = np.clip(0.5 + streaks, 0, 1)
    return clipped


def _hole(surface: Surface, x: float, y: float, rng: Rng) -> None:
    distance = distance_to(x, y)
    chamfer = np.clip((RADIUS + 0.012 - distance) / 0.012, 0, 1)
    surface.height -= chamfer * rng.uniform(5, 6)
    shadow = np.clip((distance - RADIUS * 0.2) / RADIUS, 0, 1)[:, :, None] * 0.05
    surface.paint(disc(x, y, RADIUS), (0.035, 0.035, 0.04), gloss=0)
    surface.colour += disc(x, y, RADIUS)[:, :, None] * shadow


def _place(defect_rng: Rng) -> tuple[float, float]:
    """Return a random position on the plate between the holes."""
    while True:
        x, y = defect_rng.uniform(0.14, 0.86, 2)
        if min(np.hypot(x - hx, y - hy) for hx, hy in HOLES) > RADIUS + 0.03:
            return float(x), float(y)


def _scratch(surface: Surface, defect_rng: Rng) -> None:
    length = defect_rng.uniform(0.12, 0.45)
    points = wander(_place(defect_rng), defect_rng.uniform(0.3, 2.8), length, defect_rng, restless=0.06)
    # Restrict the scratch to the plate.
    on_plate = surface.gloss > 0.15
    groove = line(points, defect_rng.uniform(0.004, 0.008), soft=0.0012) * on_plate
    surface.height -= groove * defect_rng.uniform(2, 4)
    surface.paint(groove * np.float32(defect_rng.uniform(0.5, 0.9)), (0.95, 0.95, 0.96), gloss=0.5)


def _dent(surface: Surface, defect_rng: Rng) -> None:
    x, y = _place(defect_rng)
    size = defect_rng.uniform(0.025, 0.05)
    pit = np.exp(-((distance_to(x, y) / size) ** 2)).astype(np.float32)
    surface.height -= pit * np.float32(defect_rng.uniform(9, 16))


def _rust(surface: Surface, defect_rng: Rng) -> None:
    x, y = _place(defect_rng)
    size = defect_rng.uniform(0.03, 0.09)
    ragged = noise_field(RENDER, RENDER, defect_rng, cell=26, octaves=5, roughness=0.65)
    cover = np.clip((1.1 * ragged + 0.45 - distance_to(x, y) / size) * 4, 0, 1) * (surface.gloss > 0.15)
    grain = noise_field(RENDER, RENDER, defect_rng, cell=6, octaves=3)[:, :, None]
    brown = np.array([0.42, 0.20, 0.08], np.float32) * (0.6 + 0.8 * grain)
    surface.paint(cover * np.float32(defect_rng.uniform(0.6, 0.95)), brown, gloss=0.02)
    surface.height += cover * (grain[:, :, 0] - 0.4) * 3


def _block_hole(surface: Surface, x: float, y: float, defect_rng: Rng) -> None:
    """Fill a hole with swarf, wholly or partly."""
    offset = defect_rng.uniform(-0.6, 0.6, 2) * RADIUS * (defect_rng.random() < 0.6)
    cover = disc(x, y, RADIUS) * disc(x + offset[0], y + offset[1], RADIUS)
    grain = noise_field(RENDER, RENDER, defect_rng, cell=9, octaves=4)
    surface.paint(cover, np.array([0.40, 0.39, 0.37], np.float32) * (0.5 + grain[:, :, None]), gloss=0.1)
    surface.height += cover * grain * 6


def _add_burr(surface: Surface, x: float, y: float, defect_rng: Rng) -> None:
    """Add a curled edge that protrudes from the rim."""
    start, sweep = defect_rng.uniform(0, 2 * np.pi), defect_rng.uniform(1.0, 2.2)
    angles = np.linspace(start, start + sweep, 20)
    reach = RADIUS + 0.004 + 0.024 * np.sin(np.linspace(0, np.pi, 20)) * (0.6 + 0.8 * defect_rng.random(20))
    curl = line(np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1), 0.018, soft=0.002)
    surface.paint(curl, (0.85, 0.85, 0.86), gloss=0.7)
    surface.height += curl * 7


_DEFECTS = {"scratch": _scratch, "dent": _dent, "rust": _rust}
