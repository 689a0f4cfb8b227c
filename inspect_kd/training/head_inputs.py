"""The inputs of the student's heads, computed once for all samples, since they do not change while its body is frozen.

Shapes: N samples, B batch, C channels, h w grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from inspect_kd.chunks import chunks
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.training.distill_data import DistillDataset
from inspect_kd.types import Progress

BATCH = 8


class HeadInputs:
    """Head inputs of all samples, on the CPU in half precision. They are computed when first read; call `compute_all` before the body
    is trained.

    Distillations that start from one fit, on the same dataset, can share them.
    """

    def __init__(
        self, student: RebuildStudent, dataset: DistillDataset, progress: Progress, computed_NChw: Tensor | None = None
    ) -> None:
        """`computed_NChw`: inputs of the dataset's first samples, if another distillation has computed them."""
        self.student, self.dataset, self.progress = student, dataset, progress
        self.computed_NChw = torch.empty(0) if computed_NChw is None else computed_NChw

    @cached_property
    def all_inputs(self) -> Tensor:
        """Head inputs of all samples: (N, C, h, w)."""
        count, head_inputs_NChw = len(self.computed_NChw), self.computed_NChw
        self.progress.phase("look: student", len(self.dataset) - count)
        for numbers in chunks(range(count, len(self.dataset)), BATCH):
            inputs_BChw = self._compute(numbers)
            if len(head_inputs_NChw) < len(self.dataset):
                # Allocated at once: concatenating at the end would take twice the memory.
                head_inputs_NChw = torch.empty(len(self.dataset), *inputs_BChw.shape[1:], dtype=torch.float16)
                if count:
                    head_inputs_NChw[:count] = self.computed_NChw
            head_inputs_NChw[numbers] = inputs_BChw
            self.progress.advance(len(numbers))
        return head_inputs_NChw

    def compute_all(self) -> None:
        """Compute the head inputs of all samples now, unless this was done before."""
        _ = self.all_inputs

    def select(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        return self.all_inputs[list(numbers)].float().to(device)

    def _compute(self, numbers: Sequence[int]) -> Tensor:
        images = [self.dataset[number].image for number in numbers]
        device = next(self.student.parameters()).device
        with torch.no_grad():
            inputs_BChw = self.student.compute_maps(self.dataset.student_input(images, device)).head_inputs_BChw
        if inputs_BChw is None:
            raise ValueError("a student without heads has no inputs for them")
        return inputs_BChw.half().cpu()
