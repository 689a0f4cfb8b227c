"""Early stopping by the synthetic gap: how far synthetic defects stand out from the sound parts that carry them.

The reconstruction loss keeps falling even when the student learns to copy its input, including defects; the gap then shrinks.
It is a pixel average precision (larger is better), measured on held-out sound parts with the same synthetic defects every time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from inspect_kd.chunks import evenly_spread
from inspect_kd.config import Fit
from inspect_kd.datasets.batches import ImageStore, as_input, to_tensor
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.datasets.view import stack_weights
from inspect_kd.datasets.zones import Weights, average_places
from inspect_kd.metrics import PixelCounts
from inspect_kd.models.base import Student
from inspect_kd.training.checkpoint import TrainingState
from inspect_kd.types import ImageU8, Mask

MAX_PARTS = 32
"""Number of parts over all categories: enough for a steady figure, few enough to be measured often."""
MIN_GAP_SHARE = 0.97
"""A gap below this share of the widest counts as worse. Any other gap makes the later weights the best: they had a lower learning
rate, and the measurement on a few dozen parts is noisy."""
EARLIEST_STOP = 0.5
"""Share of the steps before which training never stops: the gap is still noisy there."""


class SyntheticPairs:
    """Images of held-out sound parts, each followed by its copy with a synthetic defect; always the same."""

    def __init__(self, store: ImageStore, seed: int) -> None:
        self.images: list[ImageU8] = []
        self.masks: list[Mask | None] = []
        self.weights: list[Weights | None] = []
        """The zones' weights of each image, (H, W); None without zones."""
        for index in evenly_spread(len(store), MAX_PARTS):
            rng = np.random.default_rng([seed, index])
            frame = store.sound_frame(index, rng)
            sound = frame.image.copy()  # a view would keep the whole image
            donor = store.frame((index + 1) % len(store), rng)
            defect = add_defect(sound, rng, donor=donor, inspected=frame.inspected)
            self.images += [sound, defect.image]
            self.weights += [frame.weights_HW] * 2
            self.masks += [None, defect.mask]

    def measure_gap(self, student: Student) -> float:
        """The synthetic gap: average precision of the defects' pixels among all pixels, 0 to 1."""
        student.eval()
        device = next(student.parameters()).device
        with torch.inference_mode():
            heatmaps = [
                student(*(each.to(device) for each in batch)).heatmap_B1HW[:, 0].float().cpu()
                for batch in self._batches(student)
            ]
        student.train()
        counts = PixelCounts()
        for heatmap, mask in zip(torch.cat(heatmaps).numpy(), self.masks, strict=True):
            counts.add(heatmap, mask)
        return counts.ap().value or 0.0

    def grid_weights(self, side: int) -> list[Weights | None]:
        """The zones' weights of each image, averaged to `side` places along each axis; None without zones."""
        return [None if weights is None else average_places(weights, side) for weights in self.weights]

    def _batches(self, student: Student, size: int = 16) -> Iterator[list[Tensor]]:
        """Batches of all images (B, 3, H, W), with zones also their weights (B, 1, h, w)."""
        weights = self.grid_weights(student.weights_side(self.images[0].shape[0])) if self.images else []
        for start in range(0, len(self.images), size):
            images_B3HW = as_input(torch.stack([to_tensor(image) for image in self.images[start : start + size]]))
            stacked = stack_weights(weights[start : start + size])
            yield [images_B3HW] if stacked is None else [images_B3HW, torch.from_numpy(stacked)]


def record_gap(state: TrainingState, gap: float) -> bool:
    """Record a new measurement; returns whether the weights that it was measured on are the best so far."""
    if gap < MIN_GAP_SHARE * state.best_gap:
        state.stale += 1
        return False
    state.best_gap = max(state.best_gap, gap)
    state.best_step, state.stale = state.step, 0
    return True


def should_stop(state: TrainingState, settings: Fit) -> bool:
    return state.stale >= settings.patience and state.step >= EARLIEST_STOP * settings.steps
