"""A nearest-neighbour memory of our encoder's patches, as a reference for accuracy. It is too slow for a production line.

The memory keeps a random subset of the patches of all sound images.

Shapes: B batch, C channels, H W image, h w feature grid, N patches.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.bench.cost import count_gflop, export_file
from inspect_kd.bench.entries import SIZE, Entry
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.view import View
from inspect_kd.evaluate import measure, measures_to_json, predict_samples
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.models.base import ModelOutput
from inspect_kd.models.encoders import Encoder, build_encoder
from inspect_kd.models.layers.discrepancy import GaussianSmoothing, top_mean
from inspect_kd.models.layers.neighbours import GROUPS, MAP_STRIDE, PatchExtractor, distance_map
from inspect_kd.types import Progress, Split

MAX_PATCHES = 60_000
"""Largest number of patches kept of each group of features; searching more would take seconds per image."""
SIGMA = 4.0
"""Smoothing of the heatmap, in pixels."""
SCORE_SHARE = 0.01
"""Share of the highest pixels whose mean is the score."""


class NearestNeighbours(nn.Module):
    """Score each patch by its distance to the nearest patch in the memory."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.patches = PatchExtractor(encoder)
        self.banks: list[Tensor] = []
        self.smooth = GaussianSmoothing(SIGMA / MAP_STRIDE)

    def fit(self, store: ImageStore, progress: Progress) -> None:
        """Fit the feature normalisation in a first pass, keep random patches in a second."""
        generator = torch.Generator().manual_seed(0)
        self.patches.feature_norm.fit(self.patches.encoder(_image(store, i)) for i in range(len(store)))
        progress.phase("collect", len(store))
        per_image = max(1, MAX_PATCHES // len(store))
        banks: list[list[Tensor]] = [[] for _ in GROUPS]
        for i in range(len(store)):
            for bank, patches_BNC in zip(banks, self.patches(_image(store, i)), strict=True):
                rows_NC = patches_BNC[0]
                bank.append(rows_NC[torch.randperm(len(rows_NC), generator=generator)[:per_image]].clone())
            progress.advance()
        self.banks = [torch.cat(rows) for rows in banks]

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        map_B1hw = self.smooth(distance_map(self.patches(images_B3HW), self.banks, images_B3HW.shape[-1]))
        heatmap = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return ModelOutput(score_B=top_mean(map_B1hw, SCORE_SHARE), heatmap_B1HW=heatmap)


def _image(store: ImageStore, index: int) -> Tensor:
    return torch.from_numpy(store[index]).permute(2, 0, 1)[None].float()


def run_entry(entry: Entry, data: DataSet, folder: Path, minutes: float, progress: Progress) -> dict[str, Any]:
    assert entry.encoder is not None
    memory = NearestNeighbours(build_encoder(entry.encoder)).eval()
    began = time.monotonic()
    memory.fit(ImageStore(data.select(Split.TRAIN), Presentations.plain(View(size=SIZE)), budget_mb=1024), progress)
    seconds = round(time.monotonic() - began, 1)
    graph = ArtifactGraph(memory, 1.0)
    export_file(graph, folder / "model.onnx", SIZE)
    patches_kept = sum(len(bank) for bank in memory.banks)
    return {
        "metrics": measures_to_json(
            measure(
                predict_samples(TorchModel(graph, SIZE), data.select(Split.TEST), Presentations.plain(View(size=SIZE)))
            )
        ),
        "gflop": count_gflop(graph, SIZE),
        "train_seconds": seconds,
        "note": f"{patches_kept:,} patches kept",
    }
