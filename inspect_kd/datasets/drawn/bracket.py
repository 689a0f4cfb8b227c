"""Draw a brass bracket that lies on a dark mat at any angle; its shape is not symmetric.

Unusual here: the part is drawn upright, then laid on the mat at its own angle and place, and shaded last. Lamp and mat stay as they
are while the part turns, as under a fixed camera.
"""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.datasets.drawn.surface import RENDER, Surface, box, disc, distance_to, grid, line, ring, wander
from inspect_kd.datasets.textures import Field, Rng, noise_field

KINDS = ("scratch", "missing_hole", "broken_end", "stain", "bent_tab")
MAX_SHIFT = 0.1
"""Largest distance from the middle, in each direction. No part of the bracket is more than 0.37 from its middle."""
# Centre, width, height and corner radius of the two arms; the long one has a round end.
LONG_ARM, SHORT_ARM = (0.4875, 0.585, 0.665, 0.17, 0.085), (0.735, 0.4775, 0.17, 0.385, 0.04)
# Where the tab grows out of the long arm, its width and its length.
TAB, TAB_WIDTH, TAB_LENGTH = (0.41, 0.51), 0.075, 0.13
# Round holes: x, y, radius.
HOLES = [(0.245, 0.585, 0.040), (0.735, 0.585, 0.048), (0.735, 0.355, 0.034), (0.735, 0.455, 0.017)]
SLOT = (0.40, 0.60, 0.12, 0.046, 0.023)
BEND = 0.505
"""Height at which the short arm is bent towards the camera."""
BRASS, MAT = (0.64, 0.47, 0.22), (0.075, 0.092, 0.112)
BEVEL = 5
"""Width of the rounded edges in pixels."""


def draw(rng: Rng, kind: str | None, defect_rng: Rng) -> Surface:
    outline = _outline(defect_rng if kind == "bent_tab" else None)
    outline *= 1 - _holes(rng, defect_rng if kind == "missing_hole" else None)
    part = _brass(rng)
    if kind == "broken_end":
        outline *= _break_end(part, defect_rng)
    _mark(part, rng)
    if kind in _DEFECTS:
        _DEFECTS[kind](part, outline, defect_rng)
    _raise_part(part, outline)
    return _lay_on_mat(part, outline, rng)


def _outline(defect_rng: Rng | None) -> Field:
    """Return the cover of the bracket without holes; with random numbers, its tab is bent to one side."""
    turn = 0.0 if defect_rng is None else float(defect_rng.uniform(22, 42) * defect_rng.choice([-1, 1]))
    # The tab turns about its root, which lies a little within the arm.
    angle, reach = np.radians(turn), TAB_LENGTH / 2 - 0.015
    tab = box(
        TAB[0] + reach * np.sin(angle), TAB[1] - reach * np.cos(angle), TAB_WIDTH, TAB_LENGTH, turn=turn, corner=0.018
    )
    arms = [box(*arm[:4], corner=arm[4]) for arm in (LONG_ARM, SHORT_ARM)]
    inside_corner = box(0.635, 0.485, 0.06, 0.06) * (1 - disc(0.605, 0.455, 0.045))
    return np.asarray(np.maximum.reduce([*arms, tab, inside_corner]), np.float32)


def _holes(rng: Rng, defect_rng: Rng | None) -> Field:
    """Return the cover of the punched holes; with random numbers, one hole is missing."""
    missing = -1 if defect_rng is None else int(defect_rng.integers(len(HOLES) + 1))
    holes = [disc(x + rng.normal(0, 0.001), y + rng.normal(0, 0.001), radius) for x, y, radius in HOLES]
    holes.append(box(*SLOT[:4], corner=SLOT[4]))
    return np.asarray(np.maximum.reduce([hole for number, hole in enumerate(holes) if number != missing]), np.float32)


def _brass(rng: Rng) -> Surface:
    """Return sheet brass over the whole area: rolling streaks, clouds of tarnish, and a short arm that is bent upwards."""
    tone = rng.uniform(0.94, 1.06)
    part = Surface((BRASS[0] * tone, BRASS[1] * tone, BRASS[2] * tone * rng.uniform(0.92, 1.08)), gloss=0.30)
    streaks: Field = cv2.blur(rng.random((RENDER, RENDER), dtype=np.float32) - 0.5, (91, 1)) * 5
    streaks += cv2.blur(rng.random((RENDER, RENDER), dtype=np.float32) - 0.5, (13, 1)) * 1.2
    clouds = noise_field(RENDER, RENDER, rng, cell=70, octaves=4)
    part.colour *= (0.92 + 0.14 * clouds + 0.16 * streaks)[:, :, None]
    part.height += 0.5 * streaks + 3.0 * noise_field(RENDER, RENDER, rng, cell=140, octaves=2)
    rows, columns = grid()
    bent = np.clip(BEND - rows, 0, 1) * (columns > 0.6)
    part.height += bent * np.float32(RENDER * rng.uniform(0.05, 0.09))
    crease = np.exp(-(((rows - BEND) / 0.006) ** 2)) * (columns > 0.65)
    part.colour *= 1 - 0.22 * crease[:, :, None]
    return part


def _mark(part: Surface, rng: Rng) -> None:
    """Machine rings around the large holes, and stamp the part's number, deeper in one part than in another."""
    for x, y, radius in HOLES[:3]:
        part.height -= 1.6 * ring(x, y, radius + 0.016, 0.006)
    stamp = np.zeros((RENDER, RENDER), np.uint8)
    place = (round(0.495 * RENDER), round(0.605 * RENDER))
    cv2.putText(stamp, "B204", place, cv2.FONT_HERSHEY_SIMPLEX, 0.62, 255, 2, cv2.LINE_AA)
    depth = cv2.GaussianBlur(stamp.astype(np.float32) / 255, (0, 0), 0.8) * np.float32(rng.uniform(0.7, 1.0))
    part.height -= 2.2 * depth
    part.colour *= 1 - 0.45 * depth[:, :, None]


def _raise_part(part: Surface, outline: Field) -> None:
    """Give the part its thickness and rounded edges."""
    solid = (outline > 0.5).astype(np.uint8)
    within = np.clip(cv2.distanceTransform(solid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / BEVEL, 0, 1)
    rounded = cv2.GaussianBlur(np.sqrt(1 - (1 - within) ** 2).astype(np.float32), (0, 0), 1.0)
    part.height += 9 * rounded
    part.colour *= (0.62 + 0.38 * rounded)[:, :, None]


def _lay_on_mat(part: Surface, outline: Field, rng: Rng) -> Surface:
    """Lay the part on the mat, anywhere near the middle and at any angle, with its shadow."""
    mat = Surface(MAT, gloss=0.02)
    grain = noise_field(RENDER, RENDER, rng, cell=4, octaves=2)
    mat.colour *= (0.8 + 0.25 * noise_field(RENDER, RENDER, rng, cell=140, octaves=3) + 0.15 * grain)[:, :, None]
    mat.height += 1.6 * grain
    pose: Field = cv2.getRotationMatrix2D((RENDER / 2, RENDER / 2), float(rng.uniform(0, 360)), 1.0)
    pose[:, 2] += rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * RENDER
    cover, height, gloss, colour = (
        cv2.warpAffine(field, pose, (RENDER, RENDER), flags=cv2.INTER_LINEAR, borderMode=border)
        for field, border in (
            (outline, cv2.BORDER_CONSTANT),
            (part.height, cv2.BORDER_REPLICATE),
            (part.gloss, cv2.BORDER_REPLICATE),
            (part.colour, cv2.BORDER_REPLICATE),
        )
    )
    away = np.array([[1, 0, 0.012 * RENDER], [0, 1, 0.016 * RENDER]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(cover, away, (RENDER, RENDER)), (0, 0), 0.01 * RENDER)
    mat.colour *= 1 - 0.6 * shadow[:, :, None]
    mat.paint(cover, colour)
    mat.gloss += cover * (gloss - mat.gloss)
    mat.height += cover * (height - mat.height)
    return mat


def _break_end(part: Surface, defect_rng: Rng) -> Field:
    """Return the cover of what is left after one arm's end broke off; the break is dull and grainy."""
    rows, columns = grid()
    ragged = noise_field(RENDER, RENDER, defect_rng, cell=24, octaves=4) - 0.5
    slant = np.float32(defect_rng.uniform(-0.5, 0.5))
    if defect_rng.random() < 0.6:
        from_end = columns - 0.155 + slant * (rows - 0.585)
        lost = defect_rng.uniform(0.09, 0.20)
    else:
        from_end = np.where(columns > 0.64, rows - 0.285 + slant * (columns - 0.735), 1)
        lost = defect_rng.uniform(0.07, 0.16)
    from_break = from_end - np.float32(lost) - 0.05 * ragged
    grain = noise_field(RENDER, RENDER, defect_rng, cell=5, octaves=3)
    fracture = np.clip(1 - np.abs(from_break) / 0.014, 0, 1)
    part.paint(fracture, np.array([0.42, 0.36, 0.26], np.float32) * (0.55 + 0.8 * grain)[:, :, None], gloss=0.04)
    part.height += fracture * (grain - 0.5) * 6
    return np.asarray(np.clip(from_break / np.float32(0.004), 0, 1), np.float32)


def _place(outline: Field, defect_rng: Rng) -> tuple[float, float]:
    """Return a random place on the part, not too close to its edge."""
    while True:
        x, y = defect_rng.uniform(0.16, 0.82, 2)
        row, column, margin = int(y * RENDER), int(x * RENDER), round(0.02 * RENDER)
        if outline[row - margin : row + margin + 1, column - margin : column + margin + 1].min() > 0.5:
            return float(x), float(y)


def _scratch(part: Surface, outline: Field, defect_rng: Rng) -> None:
    start, length = _place(outline, defect_rng), defect_rng.uniform(0.12, 0.30)
    points = wander(start, defect_rng.uniform(0, 6.3), length, defect_rng, restless=0.06)
    groove = line(points, defect_rng.uniform(0.005, 0.009), soft=0.0012)
    part.height -= groove * defect_rng.uniform(2.5, 4.5)
    part.paint(groove * np.float32(defect_rng.uniform(0.6, 0.95)), (0.98, 0.90, 0.66), gloss=0.5)


def _stain(part: Surface, outline: Field, defect_rng: Rng) -> None:
    """Add a spot of oxide: brown to black, or green."""
    x, y = _place(outline, defect_rng)
    size = defect_rng.uniform(0.03, 0.07)
    ragged = noise_field(RENDER, RENDER, defect_rng, cell=30, octaves=4, roughness=0.6)
    cover = np.clip((1.1 * ragged + 0.45 - distance_to(x, y) / size) * 3, 0, 1)
    colours = np.array([[0.24, 0.13, 0.06], [0.10, 0.075, 0.06], [0.16, 0.34, 0.26]], np.float32)
    grain = noise_field(RENDER, RENDER, defect_rng, cell=7, octaves=3)[:, :, None]
    colour = colours[defect_rng.integers(len(colours))] * (0.7 + 0.6 * grain)
    part.paint(cover * np.float32(defect_rng.uniform(0.6, 0.9)), colour, gloss=0.03)


_DEFECTS = {"scratch": _scratch, "stain": _stain}
