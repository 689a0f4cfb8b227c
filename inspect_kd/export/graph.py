"""The graph of an artifact: uint8 images in, calibrated heatmap and score out.

Shapes: N batch, H W image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from inspect_kd.types import BatchPrediction


class ArtifactGraph(nn.Module):
    """A student with the artifact's input layout and calibrated outputs; the student itself normalises the images."""

    def __init__(self, student: nn.Module, scale: float) -> None:
        super().__init__()
        self.student = student
        self.scale = scale

    def forward(self, images_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        # Cast first, then transpose: TensorRT accepts uint8 only at graph inputs and outputs.
        output: Any = self.student(images_NHW3.float().permute(0, 3, 1, 2))
        return output.heatmap_B1HW / self.scale, output.score_B / self.scale


class TorchModel:
    """The graph run by PyTorch: the reference that every target is compared with."""

    def __init__(self, graph: ArtifactGraph, size: int) -> None:
        self.graph = graph.eval()
        self.size = size

    def predict_batch(self, images_NHW3: npt.NDArray[np.uint8]) -> BatchPrediction:
        device = next(self.graph.parameters()).device
        with torch.inference_mode():
            heatmaps, scores = self.graph(torch.from_numpy(images_NHW3).to(device))
        return BatchPrediction(scores.float().cpu().numpy(), heatmaps[:, 0].float().cpu().numpy())
