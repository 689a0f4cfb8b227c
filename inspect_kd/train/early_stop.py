"""The early stop's yardstick: how far synthetic defects stand out from the sound parts that carry them.

The reconstruction loss keeps falling while the student learns to copy, defects too; the gap is what then narrows. It is
measured on held-out sound parts, with the same defects every time, and never on a real defect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from inspect_kd.datasets.batches import ImageStore, to_tensor
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.metrics import PixelCounts
from inspect_kd.types import Heatmap, ImageU8, Mask

MOST_PARTS = 32
"""Over all categories: enough for a steady figure, few enough to be asked often."""


class SyntheticGap:
    """Pairs of a sound part and its damaged twin, drawn once."""

    def __init__(self, store: ImageStore, seed: int) -> None:
        self.parts: list[ImageU8] = []
        self.masks: list[Mask | None] = []
        for index in spread_over(len(store), MOST_PARTS):
            rng = np.random.default_rng([seed, index])
            sound = store.frame(index, rng).copy()  # a view would keep the whole image
            defect = add_defect(sound, rng, donor=store.frame((index + 1) % len(store), rng))
            self.parts += [sound, defect.image]
            self.masks += [None, defect.mask]

    def batches(self, size: int = 16) -> Iterator[Tensor]:
        """All images, sound and damaged in turn: uint8 (B, 3, H, W)."""
        for start in range(0, len(self.parts), size):
            yield torch.stack([to_tensor(part) for part in self.parts[start : start + size]])

    def measure(self, heatmaps: Sequence[Heatmap]) -> float:
        """Average precision of the damaged pixels among all pixels: 0 to 1."""
        counts = PixelCounts()
        for heatmap, mask in zip(heatmaps, self.masks, strict=True):
            counts.add(heatmap, mask)
        return counts.ap().value or 0.0


def spread_over(count: int, most: int) -> list[int]:
    """At most so many indices, evenly spread."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
