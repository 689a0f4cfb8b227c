"""Prompts for SAM: from a heatmap when looking, from a true mask spoilt as heatmaps spoil it when studying.

A CLIP map knows cells, not pixels: its boxes are off, too large, sometimes around two defects, and sometimes around nothing.

Shapes: K prompts, P points, H W input, m m mask logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inspect_kd.models.hot_places import hot_places
from inspect_kd.models.sam.tuning import Prompt
from inspect_kd.types import Mask

Map = npt.NDArray[np.float32]
ENLARGED = 1.15
INSIDE, OUTSIDE = 3, 2
"""Points of each kind at most."""
CELLS = (12, 37)
"""Cells along a side of the heatmaps that are imitated."""
STEEP = 8.0
"""Logit of a map's peak over its threshold."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place to ask about, in pixels of SAM's input."""

    box: tuple[float, float, float, float]
    """left, top, right, bottom"""
    inside: tuple[tuple[float, float], ...] = ()
    outside: tuple[tuple[float, float], ...] = ()
    logits: Map | None = None

    def bare(self, *, points: bool, logits: bool) -> Place:
        """Without what is not wanted."""
        kept = (self.inside, self.outside) if points else ((), ())
        return Place(self.box, *kept, self.logits if logits else None)


def places_in(heat: Map, above: float, side: int, mask_side: int) -> list[tuple[Place, Mask]]:
    """Connected hot places of a heatmap, hottest first, each with the cells that it covers."""
    height, width = heat.shape
    logits = _as_logits(heat, above, mask_side)
    found = []
    for cells in hot_places(heat, above):
        rows, columns = np.nonzero(cells)
        box = _grown((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), side / width, side / height, side)
        hottest = np.argsort(-heat[rows, columns])[:INSIDE]
        inside = tuple(((columns[i] + 0.5) * side / width, (rows[i] + 0.5) * side / height) for i in hottest)
        found.append((Place(box, inside, _coolest(heat, box, side), logits), cells))
    return found


def spoilt(mask: Mask, rng: np.random.Generator, mask_side: int) -> Place:
    """A true mask as a heatmap would have told of it."""
    side, cells = mask.shape[0], int(rng.integers(*CELLS))
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), side / cells * float(rng.uniform(0.4, 1.2)))
    coarse = np.asarray(cv2.resize(blurred, (cells, cells), interpolation=cv2.INTER_AREA), np.float32)
    coarse = coarse / max(float(coarse.max()), 1e-6)
    truth = coarse.copy()
    coarse += rng.normal(0, 0.03, coarse.shape).astype(np.float32)
    above = 0.3
    # One of the places; where two defects lie near to each other their cells have run together.
    _, labels = cv2.connectedComponents((coarse > above).astype(np.uint8), connectivity=8)
    label = labels[np.unravel_index(int(np.argmax(truth)), truth.shape)]
    rows, columns = np.nonzero(labels == label)
    box = _jittered((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), side / cells, side, rng)
    hottest = np.argsort(-coarse[rows, columns])[: int(rng.integers(1, INSIDE + 1))]
    inside = tuple(
        ((columns[i] + rng.random()) * side / cells, (rows[i] + rng.random()) * side / cells) for i in hottest
    )
    return Place(box, inside, _coolest(coarse, box, side), _as_logits(coarse, above, mask_side))


def nowhere(side: int, mask_side: int, rng: np.random.Generator) -> Place:
    """A heatmap's false alarm: told exactly as a defect is told, where there is none."""
    pretended = np.zeros((side, side), np.uint8)
    centre = tuple(int(at) for at in rng.integers(0, side, 2))
    axes = tuple(max(1, int(side * np.exp(rng.uniform(np.log(0.01), np.log(0.2))))) for _ in range(2))
    cv2.ellipse(pretended, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return spoilt(pretended > 0, rng, mask_side)


def as_prompt(places: list[Place], device: torch.device) -> Prompt:
    """Several places as one batch; a place with fewer points than others is filled up with SAM's `no point`."""
    most = max(len(place.inside) + len(place.outside) for place in places)
    boxes_K4 = torch.tensor([place.box for place in places], dtype=torch.float32, device=device)
    points_KP2 = labels_KP = None
    if most:
        points_KP2 = torch.zeros(len(places), most, 2, device=device)
        labels_KP = -torch.ones(len(places), most, device=device)
        for number, place in enumerate(places):
            told = [*((point, 1.0) for point in place.inside), *((point, 0.0) for point in place.outside)]
            for index, (point, label) in enumerate(told):
                points_KP2[number, index] = torch.tensor(point, device=device)
                labels_KP[number, index] = label
    masks_K1hw: Tensor | None = None
    if all(place.logits is not None for place in places):
        masks_K1hw = torch.from_numpy(np.stack([place.logits for place in places if place.logits is not None]))[
            :, None
        ].to(device)
    return Prompt(boxes_K4, points_KP2, labels_KP, masks_K1hw)


def _as_logits(heat: Map, above: float, mask_side: int) -> Map:
    """0 at the threshold, +STEEP at the peak, at most as far below."""
    span = max(float(heat.max()) - above, 1e-6)
    logits = np.clip(STEEP * (heat - above) / span, -STEEP, STEEP)
    return np.asarray(cv2.resize(logits, (mask_side, mask_side), interpolation=cv2.INTER_LINEAR), np.float32)


def _coolest(heat: Map, box: tuple[float, float, float, float], side: int) -> tuple[tuple[float, float], ...]:
    """The coolest cells within reach of the box."""
    height, width = heat.shape
    reach = 0.5 * max(box[2] - box[0], box[3] - box[1], side / width)
    rows, columns = np.mgrid[:height, :width]
    x, y = (columns + 0.5) * side / width, (rows + 0.5) * side / height
    near = (x > box[0] - reach) & (x < box[2] + reach) & (y > box[1] - reach) & (y < box[3] + reach)
    if not near.any():
        return ()
    order = np.argsort(np.where(near, heat, np.inf), axis=None)[:OUTSIDE]
    return tuple((float(x.flat[i]), float(y.flat[i])) for i in order if near.flat[i])


def _grown(cells: tuple[Any, ...], across: float, down: float, side: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = cells[0] * across, cells[1] * down, cells[2] * across, cells[3] * down
    more_x, more_y = (ENLARGED - 1) / 2 * (right - left), (ENLARGED - 1) / 2 * (bottom - top)
    return _inside((left - more_x, top - more_y, right + more_x, bottom + more_y), side)


def _jittered(
    cells: tuple[Any, ...], cell: float, side: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Centre off by a quarter at most, 0.7 to 2 times as large."""
    left, top, right, bottom = (float(edge) * cell for edge in cells)
    width, height = right - left, bottom - top
    x = (left + right) / 2 + rng.uniform(-0.25, 0.25) * width
    y = (top + bottom) / 2 + rng.uniform(-0.25, 0.25) * height
    scale = float(np.exp(rng.uniform(np.log(0.7), np.log(2.0))))
    return _inside((x - scale * width / 2, y - scale * height / 2, x + scale * width / 2, y + scale * height / 2), side)


def _inside(box: tuple[float, float, float, float], side: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(min(max(edge, 0.0), side - 1.0)) for edge in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)
