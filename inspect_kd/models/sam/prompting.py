"""Prompts for SAM: from a heatmap in prediction; in training from a true mask, with the errors of a heatmap.

The errors: boxes around the coarse cells of a CLIP map are shifted or too large; some contain two defects, some none.

Shapes: K prompts, P points, h w mask logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inspect_kd.models.hot_regions import find_hot_regions
from inspect_kd.models.sam.tuning import PromptBatch
from inspect_kd.types import Mask

Map = npt.NDArray[np.float32]
BOX_SCALE = 1.15
"""Side of a box divided by the side of its region."""
MAX_INSIDE_POINTS = 3
MAX_OUTSIDE_POINTS = 2
CELLS_RANGE = (12, 37)
"""Cells along a side of an imitated heatmap: at least the first number, below the second."""
PEAK_LOGIT = 8.0
"""Logit of a heatmap's peak, where its threshold has logit 0."""


@dataclass(frozen=True, slots=True)
class RegionPrompt:
    """Prompt for one region, in pixels of SAM's input."""

    box: tuple[float, float, float, float]
    """left, top, right, bottom"""
    inside: tuple[tuple[float, float], ...] = ()
    """Points in the region, as (x, y)."""
    outside: tuple[tuple[float, float], ...] = ()
    """Points outside the region."""
    logits: Map | None = None
    """A coarse map as mask prompt."""

    def select(self, *, points: bool, logits: bool) -> RegionPrompt:
        """Copy the prompt; points and logits are left out where their argument is False."""
        selected = (self.inside, self.outside) if points else ((), ())
        return RegionPrompt(self.box, *selected, self.logits if logits else None)


def heatmap_prompts(heat: Map, threshold: float, side: int, mask_side: int) -> list[tuple[RegionPrompt, Mask]]:
    """Prompts for the connected hot regions of a heatmap, hottest first, each with the mask of its cells."""
    height, width = heat.shape
    logits = _to_logits(heat, threshold, mask_side)
    prompts = []
    for cells in find_hot_regions(heat, threshold):
        rows, columns = np.nonzero(cells)
        box = _enlarge(
            (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), side / width, side / height, side
        )
        hottest = np.argsort(-heat[rows, columns])[:MAX_INSIDE_POINTS]
        inside = tuple(((columns[i] + 0.5) * side / width, (rows[i] + 0.5) * side / height) for i in hottest)
        prompts.append((RegionPrompt(box, inside, _coolest_points(heat, box, side), logits), cells))
    return prompts


def degraded_prompt(mask: Mask, rng: np.random.Generator, mask_side: int) -> RegionPrompt:
    """Prompt for a true mask, with the errors that a heatmap of it would have."""
    side, cells = mask.shape[0], int(rng.integers(*CELLS_RANGE))
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), side / cells * float(rng.uniform(0.4, 1.2)))
    coarse = np.asarray(cv2.resize(blurred, (cells, cells), interpolation=cv2.INTER_AREA), np.float32)
    coarse = coarse / max(float(coarse.max()), 1e-6)
    noiseless = coarse.copy()
    coarse += rng.normal(0, 0.03, coarse.shape).astype(np.float32)
    threshold = 0.3
    # Take the hottest region; regions of close defects may have merged.
    _, labels = cv2.connectedComponents((coarse > threshold).astype(np.uint8), connectivity=8)
    label = labels[np.unravel_index(int(np.argmax(noiseless)), noiseless.shape)]
    rows, columns = np.nonzero(labels == label)
    box = _jitter((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), side / cells, side, rng)
    hottest = np.argsort(-coarse[rows, columns])[: int(rng.integers(1, MAX_INSIDE_POINTS + 1))]
    inside = tuple(
        ((columns[i] + rng.random()) * side / cells, (rows[i] + rng.random()) * side / cells) for i in hottest
    )
    return RegionPrompt(box, inside, _coolest_points(coarse, box, side), _to_logits(coarse, threshold, mask_side))


def false_alarm_prompt(side: int, mask_side: int, rng: np.random.Generator) -> RegionPrompt:
    """Prompt for a random ellipse, as if it were a defect."""
    ellipse = np.zeros((side, side), np.uint8)
    centre = tuple(int(position) for position in rng.integers(0, side, 2))
    axes = tuple(max(1, int(side * np.exp(rng.uniform(np.log(0.01), np.log(0.2))))) for _ in range(2))
    cv2.ellipse(ellipse, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return degraded_prompt(ellipse > 0, rng, mask_side)


def stack_prompts(prompts: list[RegionPrompt], device: torch.device) -> PromptBatch:
    """Stack prompts into one batch; missing points are filled with SAM's `no point`."""
    max_points = max(len(prompt.inside) + len(prompt.outside) for prompt in prompts)
    boxes_K4 = torch.tensor([prompt.box for prompt in prompts], dtype=torch.float32, device=device)
    points_KP2 = labels_KP = None
    if max_points:
        points_KP2 = torch.zeros(len(prompts), max_points, 2, device=device)
        labels_KP = -torch.ones(len(prompts), max_points, device=device)
        for number, prompt in enumerate(prompts):
            points = [*((point, 1.0) for point in prompt.inside), *((point, 0.0) for point in prompt.outside)]
            for index, (point, label) in enumerate(points):
                points_KP2[number, index] = torch.tensor(point, device=device)
                labels_KP[number, index] = label
    masks_K1hw: Tensor | None = None
    logits = [prompt.logits for prompt in prompts if prompt.logits is not None]
    if len(logits) == len(prompts):
        masks_K1hw = torch.from_numpy(np.stack(logits))[:, None].to(device)
    return PromptBatch(boxes_K4, points_KP2, labels_KP, masks_K1hw)


def _to_logits(heat: Map, threshold: float, mask_side: int) -> Map:
    """Scale heat to logits: 0 at the threshold, PEAK_LOGIT at the peak, at least -PEAK_LOGIT."""
    span = max(float(heat.max()) - threshold, 1e-6)
    logits = np.clip(PEAK_LOGIT * (heat - threshold) / span, -PEAK_LOGIT, PEAK_LOGIT)
    return np.asarray(cv2.resize(logits, (mask_side, mask_side), interpolation=cv2.INTER_LINEAR), np.float32)


def _coolest_points(heat: Map, box: tuple[float, float, float, float], side: int) -> tuple[tuple[float, float], ...]:
    """Points at the coolest cells in and near the box."""
    height, width = heat.shape
    reach = 0.5 * max(box[2] - box[0], box[3] - box[1], side / width)
    rows, columns = np.mgrid[:height, :width]
    x, y = (columns + 0.5) * side / width, (rows + 0.5) * side / height
    is_near = (x > box[0] - reach) & (x < box[2] + reach) & (y > box[1] - reach) & (y < box[3] + reach)
    if not is_near.any():
        return ()
    order = np.argsort(np.where(is_near, heat, np.inf), axis=None)[:MAX_OUTSIDE_POINTS]
    return tuple((float(x.flat[i]), float(y.flat[i])) for i in order if is_near.flat[i])


def _enlarge(cell_box: tuple[Any, ...], scale_x: float, scale_y: float, side: int) -> tuple[float, float, float, float]:
    """Convert a box from cells to pixels and enlarge it by BOX_SCALE."""
    left, right = cell_box[0] * scale_x, cell_box[2] * scale_x
    top, bottom = cell_box[1] * scale_y, cell_box[3] * scale_y
    margin_x, margin_y = (BOX_SCALE - 1) / 2 * (right - left), (BOX_SCALE - 1) / 2 * (bottom - top)
    return _clamp((left - margin_x, top - margin_y, right + margin_x, bottom + margin_y), side)


def _jitter(
    cell_box: tuple[Any, ...], cell_side: float, side: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Convert a box from cells to pixels, shift it by up to a quarter of its sides, and scale it by 0.7 to 2."""
    left, top, right, bottom = (float(edge) * cell_side for edge in cell_box)
    width, height = right - left, bottom - top
    x = (left + right) / 2 + rng.uniform(-0.25, 0.25) * width
    y = (top + bottom) / 2 + rng.uniform(-0.25, 0.25) * height
    scale = float(np.exp(rng.uniform(np.log(0.7), np.log(2.0))))
    return _clamp((x - scale * width / 2, y - scale * height / 2, x + scale * width / 2, y + scale * height / 2), side)


def _clamp(box: tuple[float, float, float, float], side: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(min(max(edge, 0.0), side - 1.0)) for edge in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)
