"""Draw a plain weave: alternating yarns, each with its own thickness, tone and fibres."""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.datasets.drawn.surface import RENDER, Surface, distance_to, grid, line, wander
from inspect_kd.datasets.textures import Field, Rng, noise_field

KINDS = ("hole", "oil_spot", "broken_yarn", "foreign_thread", "snag")
YARNS = 26


def draw(rng: Rng, kind: str | None, defect_rng: Rng) -> Surface:
    surface = Surface((0.09, 0.085, 0.08), gloss=0.01)
    rows, columns = grid()
    if kind == "snag":
        rows, columns = _pull_yarns(rows, columns, defect_rng)
    # Yarns are never quite straight.
    rows = rows + 0.004 * (noise_field(RENDER, RENDER, rng, cell=110, octaves=2) - 0.5)
    columns = columns + 0.004 * (noise_field(RENDER, RENDER, rng, cell=110, octaves=2) - 0.5)
    missing = int(defect_rng.integers(5, YARNS - 5)) if kind == "broken_yarn" else -1
    weft, weft_over, weft_tone = _yarns(rows, columns, rng)
    warp, _, warp_tone = _yarns(columns, rows, rng)
    gap = _gap(rows, columns, missing, defect_rng) if missing >= 0 else 0
    weft = weft * (1 - gap)
    fibre = noise_field(RENDER, RENDER, rng, cell=5, octaves=2)
    # Warp and weft share a grid of cells: where the weft is on top, the warp is below.
    _lay_yarns(surface, warp, warp_tone, (0.66, 0.64, 0.58), fibre)
    _lay_yarns(surface, weft * weft_over, weft_tone, (0.78, 0.74, 0.64), fibre)
    # Where the weft is missing, the warp sinks and shows as a dark line.
    surface.colour *= 1 - 0.5 * np.asarray(gap, np.float32)[..., None]
    if kind in _DEFECTS:
        _DEFECTS[kind](surface, defect_rng)
    return surface


def _yarns(across: Field, along: Field, rng: Rng) -> tuple[Field, Field, Field]:
    """Return the profile of parallel yarns, where they lie on top of the other yarns, and their tones."""
    number = np.floor(across * YARNS).astype(np.int32).clip(-1, YARNS) + 1
    from_middle = across * YARNS - np.floor(across * YARNS) - 0.5
    half_width = rng.normal(0.49, 0.008, YARNS + 2).astype(np.float32)[number]
    profile = np.sqrt(np.clip(1 - (from_middle / half_width) ** 2, 0, 1)).astype(np.float32)
    is_on_top = (np.floor(along * YARNS).astype(np.int32) + number) % 2
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * (along * YARNS))).astype(np.float32)
    tone = rng.normal(1, 0.025, YARNS + 2).astype(np.float32)[number]
    return profile * (0.55 + 0.45 * swell), is_on_top.astype(np.float32), tone


def _lay_yarns(surface: Surface, profile: Field, tone: Field, colour: tuple[float, float, float], fibre: Field) -> None:
    cover = np.clip(profile * 2.5, 0, 1)
    surface.paint(
        cover, np.array(colour, np.float32) * (tone * (0.72 + 0.5 * fibre) * (0.6 + 0.4 * profile))[:, :, None]
    )
    surface.height += cover * (profile * 5 - surface.height)


def _place(defect_rng: Rng) -> tuple[float, float]:
    """Return a random position (x, y) away from the border."""
    x, y = defect_rng.uniform(0.15, 0.85, 2)
    return float(x), float(y)


def _pull_yarns(rows: Field, columns: Field, defect_rng: Rng) -> tuple[Field, Field]:
    """Pull the yarns towards one point."""
    x, y = _place(defect_rng)
    size = defect_rng.uniform(0.07, 0.11)
    pull = np.exp(-((distance_to(x, y) / size) ** 2)) * np.float32(defect_rng.uniform(0.75, 1.0))
    return rows + (rows - np.float32(y)) * pull, columns + (columns - np.float32(x)) * pull * 0.6


def _gap(rows: Field, columns: Field, number: int, defect_rng: Rng) -> Field:
    """Return the area in which one weft yarn is missing."""
    start, length = defect_rng.uniform(0.05, 0.5), defect_rng.uniform(0.2, 0.45)
    here = np.abs(rows * YARNS - number - 0.5) < 0.5
    return (here & (columns > start) & (columns < start + length)).astype(np.float32)


def _hole(surface: Surface, defect_rng: Rng) -> None:
    x, y = _place(defect_rng)
    size = defect_rng.uniform(0.025, 0.06)
    frayed = noise_field(RENDER, RENDER, defect_rng, cell=14, octaves=4)
    cover = np.clip((size * (0.75 + 0.6 * frayed) - distance_to(x, y)) / 0.006, 0, 1)
    surface.paint(cover, (0.03, 0.03, 0.03), gloss=0)
    surface.height -= cover * 6


def _oil_spot(surface: Surface, defect_rng: Rng) -> None:
    x, y = _place(defect_rng)
    size = defect_rng.uniform(0.05, 0.11)
    ragged = noise_field(RENDER, RENDER, defect_rng, cell=60, octaves=3)
    cover: Field = np.clip((size * (0.7 + 0.6 * ragged) - distance_to(x, y)) / 0.03, 0, 1)
    cover = cv2.GaussianBlur(cover, (0, 0), 3)
    surface.colour *= 1 - cover[:, :, None] * np.array([0.50, 0.58, 0.72], np.float32) * np.float32(
        defect_rng.uniform(1.05, 1.3)
    )
    surface.gloss += cover * 0.12


def _foreign_thread(surface: Surface, defect_rng: Rng) -> None:
    colours = np.array([[0.75, 0.12, 0.10], [0.10, 0.20, 0.55], [0.10, 0.10, 0.10], [0.92, 0.90, 0.85]])
    points = wander(
        _place(defect_rng), defect_rng.uniform(0, 6.3), defect_rng.uniform(0.15, 0.4), defect_rng, restless=0.35
    )
    cover = line(points, defect_rng.uniform(0.009, 0.014), soft=0.0015)
    surface.paint(cover, colours[defect_rng.integers(len(colours))], gloss=0.05)
    surface.height += cover * 5


_DEFECTS = {"hole": _hole, "oil_spot": _oil_spot, "foreign_thread": _foreign_thread}
