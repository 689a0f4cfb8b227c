"""A plain weave: yarns over and under each other, each with its own thickness, tone and fluff."""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.datasets.drawn.surface import RENDER, Surface, distance_to, grid, line, wander
from inspect_kd.datasets.textures import Field, Rng, noise_field

KINDS = ("hole", "oil_spot", "broken_yarn", "foreign_thread", "snag")
YARNS = 26


def draw(rng: Rng, kind: str | None, harm: Rng) -> Surface:
    surface = Surface((0.09, 0.085, 0.08), gloss=0.01)
    rows, columns = grid()
    if kind == "snag":
        rows, columns = _pulled(rows, columns, harm)
    # Yarns are never quite straight.
    rows = rows + 0.004 * (noise_field(RENDER, RENDER, rng, cell=110, octaves=2) - 0.5)
    columns = columns + 0.004 * (noise_field(RENDER, RENDER, rng, cell=110, octaves=2) - 0.5)
    missing = int(harm.integers(5, YARNS - 5)) if kind == "broken_yarn" else -1
    weft, weft_over, weft_tone = _yarns(rows, columns, rng)
    warp, _, warp_tone = _yarns(columns, rows, rng)
    gap = _gap(rows, columns, missing, harm) if missing >= 0 else 0
    weft = weft * (1 - gap)
    fibre = noise_field(RENDER, RENDER, rng, cell=5, octaves=2)
    # Both systems count the same cells: where the weft is on top, the warp is below.
    _lay(surface, warp, warp_tone, (0.66, 0.64, 0.58), fibre)
    _lay(surface, weft * weft_over, weft_tone, (0.78, 0.74, 0.64), fibre)
    # Nothing holds the warp up where the weft is gone: a dark line of slack yarns.
    surface.colour *= 1 - 0.5 * np.asarray(gap, np.float32)[..., None]
    if kind in _HARM:
        _HARM[kind](surface, harm)
    return surface


def _yarns(across: Field, along: Field, rng: Rng) -> tuple[Field, Field, Field]:
    """Round profile, where it lies above the other system, and tone, of one system of parallel yarns."""
    number = np.floor(across * YARNS).astype(np.int32).clip(-1, YARNS) + 1
    place = across * YARNS - np.floor(across * YARNS) - 0.5
    thick = rng.normal(0.49, 0.008, YARNS + 2).astype(np.float32)[number]
    profile = np.sqrt(np.clip(1 - (place / thick) ** 2, 0, 1)).astype(np.float32)
    phase = (np.floor(along * YARNS).astype(np.int32) + number) % 2
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * (along * YARNS))).astype(np.float32)
    tone = rng.normal(1, 0.025, YARNS + 2).astype(np.float32)[number]
    return profile * (0.55 + 0.45 * swell), phase.astype(np.float32), tone


def _lay(surface: Surface, profile: Field, tone: Field, colour: tuple[float, float, float], fibre: Field) -> None:
    cover = np.clip(profile * 2.5, 0, 1)
    surface.paint(
        cover, np.array(colour, np.float32) * (tone * (0.72 + 0.5 * fibre) * (0.6 + 0.4 * profile))[:, :, None]
    )
    surface.height += cover * (profile * 5 - surface.height)


def _place(harm: Rng) -> tuple[float, float]:
    x, y = harm.uniform(0.15, 0.85, 2)
    return float(x), float(y)


def _pulled(rows: Field, columns: Field, harm: Rng) -> tuple[Field, Field]:
    """Yarns drawn together towards one place."""
    x, y = _place(harm)
    size = harm.uniform(0.07, 0.11)
    pull = np.exp(-((distance_to(x, y) / size) ** 2)) * np.float32(harm.uniform(0.75, 1.0))
    return rows + (rows - np.float32(y)) * pull, columns + (columns - np.float32(x)) * pull * 0.6


def _gap(rows: Field, columns: Field, number: int, harm: Rng) -> Field:
    """Where one weft yarn is missing."""
    start, length = harm.uniform(0.05, 0.5), harm.uniform(0.2, 0.45)
    here = np.abs(rows * YARNS - number - 0.5) < 0.5
    return (here & (columns > start) & (columns < start + length)).astype(np.float32)


def _hole(surface: Surface, harm: Rng) -> None:
    x, y = _place(harm)
    size = harm.uniform(0.025, 0.06)
    frayed = noise_field(RENDER, RENDER, harm, cell=14, octaves=4)
    cover = np.clip((size * (0.75 + 0.6 * frayed) - distance_to(x, y)) / 0.006, 0, 1)
    surface.paint(cover, (0.03, 0.03, 0.03), gloss=0)
    surface.height -= cover * 6


def _oil_spot(surface: Surface, harm: Rng) -> None:
    x, y = _place(harm)
    size = harm.uniform(0.05, 0.11)
    ragged = noise_field(RENDER, RENDER, harm, cell=60, octaves=3)
    cover: Field = np.clip((size * (0.7 + 0.6 * ragged) - distance_to(x, y)) / 0.03, 0, 1)
    cover = cv2.GaussianBlur(cover, (0, 0), 3)
    surface.colour *= 1 - cover[:, :, None] * np.array([0.50, 0.58, 0.72], np.float32) * np.float32(
        harm.uniform(1.05, 1.3)
    )
    surface.gloss += cover * 0.12


def _foreign_thread(surface: Surface, harm: Rng) -> None:
    colours = np.array([[0.75, 0.12, 0.10], [0.10, 0.20, 0.55], [0.10, 0.10, 0.10], [0.92, 0.90, 0.85]])
    points = wander(_place(harm), harm.uniform(0, 6.3), harm.uniform(0.15, 0.4), harm, restless=0.35)
    cover = line(points, harm.uniform(0.009, 0.014), soft=0.0015)
    surface.paint(cover, colours[harm.integers(len(colours))], gloss=0.05)
    surface.height += cover * 5


_HARM = {"hole": _hole, "oil_spot": _oil_spot, "foreign_thread": _foreign_thread}
