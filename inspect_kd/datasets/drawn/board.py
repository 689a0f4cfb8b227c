"""Draw a printed circuit board of a fixed design; placement, solder and print vary as in production."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.drawn.surface import RENDER, Surface, box, disc, distance_to, line, ring, wander
from inspect_kd.datasets.textures import Rng, noise_field

KINDS = ("missing_part", "turned_part", "solder_bridge", "broken_trace", "scratch")
# Centre, width and height.
CHIP = (0.5, 0.47, 0.30, 0.26)
LEGS_PER_SIDE = 6
# Small components: x, y, turn in degrees.
PASSIVES = [
    (0.17, 0.22, 0),
    (0.17, 0.36, 0),
    (0.17, 0.50, 0),
    (0.83, 0.30, 90),
    (0.83, 0.50, 90),
    (0.36, 0.84, 90),
    (0.50, 0.84, 90),
    (0.64, 0.84, 90),
]
PADS = [(0.14 + 0.103 * i, 0.085) for i in range(8)]
VIAS = [(0.27, 0.68), (0.73, 0.68), (0.73, 0.19), (0.30, 0.16), (0.86, 0.72), (0.14, 0.70), (0.57, 0.70)]
TRACES = [
    [(0.14, 0.085), (0.14, 0.16), (0.21, 0.22)],
    [(0.243, 0.085), (0.243, 0.12), (0.30, 0.16)],
    [(0.346, 0.085), (0.40, 0.16), (0.40, 0.30)],
    [(0.449, 0.085), (0.449, 0.30)],
    [(0.655, 0.085), (0.655, 0.14), (0.73, 0.19)],
    [(0.861, 0.085), (0.861, 0.20), (0.83, 0.26)],
    [(0.21, 0.36), (0.30, 0.36), (0.34, 0.40)],
    [(0.21, 0.50), (0.34, 0.50)],
    [(0.14, 0.70), (0.14, 0.60), (0.20, 0.50)],
    [(0.27, 0.68), (0.36, 0.68), (0.36, 0.80)],
    [(0.57, 0.70), (0.50, 0.76), (0.50, 0.80)],
    [(0.73, 0.68), (0.64, 0.76), (0.64, 0.80)],
    [(0.83, 0.54), (0.86, 0.60), (0.86, 0.72)],
    [(0.66, 0.44), (0.74, 0.44), (0.83, 0.34)],
]
GOLD, SOLDER, TRACE = (0.80, 0.62, 0.26), (0.74, 0.75, 0.77), (0.10, 0.42, 0.24)


def draw(rng: Rng, kind: str | None, defect_rng: Rng) -> Surface:
    surface = Surface((0.035, 0.235, 0.125), gloss=0.12)
    surface.colour *= 0.9 + 0.2 * noise_field(RENDER, RENDER, rng, cell=60, octaves=4)[:, :, None]
    broken_trace = int(defect_rng.integers(len(TRACES))) if kind == "broken_trace" else -1
    for number, points in enumerate(TRACES):
        _draw_trace(surface, np.array(points), defect_rng if number == broken_trace else None)
    for x, y in VIAS:
        surface.paint(ring(x, y, 0.011, 0.009), GOLD, gloss=0.5)
        surface.paint(disc(x, y, 0.007), (0.02, 0.03, 0.02), gloss=0)
    for x, y in PADS:
        pad = box(x, y, 0.055, 0.075, corner=0.006)
        surface.paint(pad, np.array(GOLD, np.float32) * np.float32(rng.normal(1, 0.04)), gloss=0.55)
        surface.height += pad * 1.5
    chosen_passive = int(defect_rng.integers(len(PASSIVES)))
    for number, (x, y, turn) in enumerate(PASSIVES):
        dx, dy, skew = rng.normal(0, 0.001), rng.normal(0, 0.001), rng.normal(0, 0.7)
        is_chosen = number == chosen_passive
        if is_chosen and kind == "turned_part":
            skew += defect_rng.choice([-1, 1]) * defect_rng.uniform(22, 60)
            dx += defect_rng.normal(0, 0.006)
        _draw_passive(
            surface,
            (x + dx, y + dy),
            (x, y),
            turn,
            turn + skew,
            number,
            is_missing=is_chosen and kind == "missing_part",
        )
    _draw_chip(surface, rng, bridge_rng=defect_rng if kind == "solder_bridge" else None)
    _draw_print(surface)
    if kind == "scratch":
        _add_scratch(surface, defect_rng)
    return surface


def _draw_trace(surface: Surface, points: np.ndarray, break_rng: Rng | None) -> None:
    """Draw a copper trace; if `break_rng` is given, break it near the middle of its longest segment."""
    copper = line(points, 0.018, soft=0.001)
    if break_rng is not None:
        lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
        longest = int(np.argmax(lengths))
        middle = points[longest] + (points[longest + 1] - points[longest]) * break_rng.uniform(0.35, 0.65)
        gap = box(middle[0], middle[1], 0.044, 0.044, turn=float(break_rng.uniform(0, 45)))
        copper = copper * (1 - gap)
        # The trace burnt through and left charred laminate with a pale centre.
        ragged = noise_field(RENDER, RENDER, break_rng, cell=18, octaves=3)
        size = break_rng.uniform(0.035, 0.06)
        char = np.clip((size * (0.5 + ragged) - distance_to(middle[0], middle[1])) / 0.012, 0, 1)
        surface.paint(char * np.float32(break_rng.uniform(0.65, 0.95)), (0.09, 0.06, 0.04), gloss=0.02)
        surface.paint(gap * line(points, 0.026) * np.float32(0.6), (0.45, 0.40, 0.26))
    surface.paint(copper * np.float32(0.9), TRACE)
    surface.height += copper * 1.6


def _draw_passive(
    surface: Surface,
    at: tuple[float, float],
    pads_at: tuple[float, float],
    pads_turn: float,
    body_turn: float,
    number: int,
    *,
    is_missing: bool,
) -> None:
    """Draw a resistor or capacitor on two pads; the pads stay at their design position."""
    for side in (-1, 1):
        px = pads_at[0] + side * 0.048 * np.cos(np.radians(pads_turn))
        py = pads_at[1] + side * 0.048 * np.sin(np.radians(pads_turn))
        pad = box(px, py, 0.036, 0.058, turn=pads_turn, corner=0.004)
        surface.paint(pad, SOLDER, gloss=0.5)
        surface.height += pad * 1.2
    if is_missing:
        return
    body = box(*at, 0.104, 0.054, turn=body_turn, corner=0.004)
    shadow = box(at[0] + 0.006, at[1] + 0.008, 0.104, 0.054, turn=body_turn, soft=0.012)
    surface.colour *= 1 - 0.45 * shadow[:, :, None]
    colour = (0.09, 0.09, 0.10) if number % 3 else (0.62, 0.47, 0.33)
    surface.paint(body, colour, gloss=0.18)
    surface.height += body * 5
    for side in (-1, 1):
        ex = at[0] + side * 0.042 * np.cos(np.radians(body_turn))
        ey = at[1] + side * 0.042 * np.sin(np.radians(body_turn))
        cap = box(ex, ey, 0.022, 0.055, turn=body_turn, corner=0.003)
        surface.paint(cap, SOLDER, gloss=0.6)
    if number % 3:
        _draw_text(surface, f"{10 + number}3", at, 0.26, (0.85, 0.85, 0.85), turn=pads_turn)


def _draw_chip(surface: Surface, rng: Rng, bridge_rng: Rng | None) -> None:
    """Draw the chip with its legs; if `bridge_rng` is given, a blob of solder joins two neighbouring legs."""
    x, y, width, height = CHIP
    x, y = x + rng.normal(0, 0.0015), y + rng.normal(0, 0.0015)
    places = x - width / 2 + 0.025 + (width - 0.05) * np.arange(LEGS_PER_SIDE) / (LEGS_PER_SIDE - 1)
    for side in (-1, 1):
        for place in places:
            leg_y = y + side * (height / 2 + 0.018)
            surface.paint(box(place, leg_y + side * 0.014, 0.030, 0.034, corner=0.005), SOLDER, gloss=0.45)
            leg = box(place, leg_y, 0.020, 0.046, corner=0.002)
            surface.paint(leg, (0.80, 0.81, 0.82), gloss=0.7)
            surface.height += leg * 2.5
    if bridge_rng is not None:
        first, side = int(bridge_rng.integers(LEGS_PER_SIDE - 1)), bridge_rng.choice([-1, 1])
        middle = (places[first] + places[first + 1]) / 2
        size = (bridge_rng.uniform(0.075, 0.10), bridge_rng.uniform(0.045, 0.065))
        blob = box(middle, y + side * (height / 2 + 0.036), *size, corner=0.02, soft=0.008)
        surface.paint(blob, (0.80, 0.81, 0.83), gloss=0.7)
        surface.height += blob * 5
    shadow = box(x + 0.010, y + 0.012, width, height, soft=0.02)
    surface.colour *= 1 - 0.4 * shadow[:, :, None] * (1 - box(x, y, width, height)[:, :, None])
    body = box(x, y, width, height, corner=0.008, soft=0.008)
    surface.paint(
        body,
        np.array([0.055, 0.055, 0.06], np.float32)
        * (0.9 + 0.3 * noise_field(RENDER, RENDER, rng, cell=4, octaves=2)[:, :, None]),
        gloss=0.10,
    )
    surface.height += body * 9
    dimple = disc(x - width / 2 + 0.030, y + height / 2 - 0.030, 0.012)
    surface.height -= dimple * 3
    _draw_text(surface, "IKD-26", (x, y - 0.03), 0.62, (0.5, 0.5, 0.5))
    _draw_text(
        surface, f"{int(rng.integers(20, 29))}{int(rng.integers(10, 52))}", (x, y + 0.05), 0.42, (0.30, 0.30, 0.30)
    )


def _draw_print(surface: Surface) -> None:
    """Draw the white print: labels and the outline of the chip."""
    white = (0.86, 0.87, 0.84)
    for text, place in (("R1", (0.285, 0.22)), ("C4", (0.83, 0.40)), ("J1", (0.93, 0.085)), ("U2", (0.70, 0.27))):
        _draw_text(surface, text, place, 0.38, white)
    outline = box(CHIP[0], CHIP[1], 0.36, 0.40) - box(CHIP[0], CHIP[1], 0.352, 0.392)
    surface.paint(np.clip(outline, 0, 1) * np.float32(0.8), white)


def _draw_text(
    surface: Surface,
    text: str,
    at: tuple[float, float],
    scale: float,
    colour: tuple[float, float, float],
    turn: float = 0,
) -> None:
    ink: npt.NDArray[Any] = np.zeros((RENDER, RENDER), np.uint8)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    origin = (int(at[0] * RENDER - width / 2), int(at[1] * RENDER + height / 2))
    cv2.putText(ink, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
    if turn:
        pose = cv2.getRotationMatrix2D((at[0] * RENDER, at[1] * RENDER), -turn, 1)
        ink = cv2.warpAffine(ink, pose, (RENDER, RENDER))
    surface.paint(ink.astype(np.float32) / 255, colour)


def _add_scratch(surface: Surface, defect_rng: Rng) -> None:
    """Add a scratch through the solder mask, down to pale laminate and copper."""
    x, y = defect_rng.uniform(0.15, 0.85, 2)
    points = wander(
        (float(x), float(y)),
        float(defect_rng.uniform(0, 6.3)),
        defect_rng.uniform(0.15, 0.4),
        defect_rng,
        restless=0.08,
    )
    groove = line(points, defect_rng.uniform(0.007, 0.012), soft=0.0012)
    surface.paint(groove * np.float32(defect_rng.uniform(0.6, 0.95)), (0.62, 0.60, 0.42), gloss=0.1)
    surface.height -= groove * 2
