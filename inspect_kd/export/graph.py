"""The graph of an artifact: uint8 images in, calibrated heatmap and score out.

Shapes: N batch, H W image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from inspect_kd.models.base import Student
from inspect_kd.types import BatchPrediction


class ArtifactGraph(nn.Module):
    """A student with the artifact's input layout and calibrated outputs; the student itself normalises the images.

    `scale`: the student's raw score at the reject threshold, which becomes 1.0.
    """

    def __init__(self, student: nn.Module, scale: float) -> None:
        super().__init__()
        self.student = student
        self.scale = scale

    def weights_side(self, size: int) -> int | None:
        """Side of the grid of zones' weights that the student takes; None for a teacher, which takes none."""
        return self.student.weights_side(size) if isinstance(self.student, Student) else None

    def forward(self, images_NHW3: Tensor, weights_N1hw: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # Cast first, then transpose: TensorRT accepts uint8 only at graph inputs and outputs.
        images_N3HW = images_NHW3.float().permute(0, 3, 1, 2)
        output: Any = self.student(images_N3HW) if weights_N1hw is None else self.student(images_N3HW, weights_N1hw)
        return output.heatmap_B1HW / self.scale, output.score_B / self.scale


class TorchModel:
    """The graph run by PyTorch: the reference that every target is compared with."""

    def __init__(self, graph: ArtifactGraph, size: int) -> None:
        self.graph = graph.eval()
        self.size = size
        self.weights_side = graph.weights_side(size)

    def predict_batch(
        self, images_NHW3: npt.NDArray[np.uint8], weights_N1hw: npt.NDArray[np.float32] | None = None
    ) -> BatchPrediction:
        device = next(self.graph.parameters()).device
        inputs = [torch.from_numpy(each).to(device) for each in (images_NHW3, weights_N1hw) if each is not None]
        with torch.inference_mode():
            heatmaps, scores = self.graph(*inputs)
        return BatchPrediction(scores.float().cpu().numpy(), heatmaps[:, 0].float().cpu().numpy())
