"""The stages after the fit: what each one trains, on which batches, and with which losses.

S0, the fit, trains every reconstruction student (`training/fit.py`). Decoder and heads have opposite goals. The decoder
must fail on defects: head losses do not update it, except its last layers under `tune_decoder`, where the fit's loss is added.
The heads must detect defects: the fit does not update them.

Shapes: B batch, C channels, P class vectors, h w token grid, m m grid of heat.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.config import Distill
from inspect_kd.distill.losses import (
    DynamicContrast,
    FocalL1,
    HeatImitation,
    ImageLabelLoss,
    PromptAgreement,
    TokenImitation,
    TokenRelations,
)
from inspect_kd.distill.reliability import Reliability, average, fuse
from inspect_kd.distill.teacher_cache import PooledTeacherOutput
from inspect_kd.models.layers.heads import DefectHeads, HeadOutputs
from inspect_kd.models.rebuild import RebuildStudent

EMA_DECAY = 0.99
"""Share of its previous value that the moving average of the heads' weights keeps at a step."""

TeacherOutputs = Mapping[str, PooledTeacherOutput]
"""Outputs by the teacher's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLabels:
    """Masks and labels of a batch, and which of them are valid."""

    mask_B1mm: Tensor
    has_mask_B: Tensor
    """Whether the mask is exact; False where the image has none."""
    defective_B: Tensor
    has_label_B: Tensor
    """Whether `defective_B` is known to be right."""
    has_sound_twin_B: Tensor
    """Whether the part comes from a sound training part, with or without a synthetic defect: its sound twin is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedBatch:
    """Batch of a stage that freezes the student's body: the inputs of its heads are computed once for all steps."""

    labels: BatchLabels
    head_inputs_BChw: Tensor
    teacher_outputs: TeacherOutputs
    """Empty in a stage without teachers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveBatch:
    """Batch of a stage that trains the student's decoder: the head inputs are computed from images at each step."""

    labels: BatchLabels
    images_B3HW: Tensor
    sound_B3HW: Tensor
    """The sound twin where it is known, otherwise the image itself."""
    teacher_outputs: TeacherOutputs
    sound_teacher_outputs: TeacherOutputs
    """Teachers' outputs for the sound twins; empty if `denoising_weight` is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherInfo:
    """What a stage needs to know about a teacher, besides its outputs."""

    channels: int
    """Channels of its tokens."""
    class_vectors_PC: Tensor | None
    reliability: Reliability


class Stage(ABC):
    """One stage of the distillation. `auxiliary` holds modules that are trained too and discarded after the stage."""

    def __init__(self, student: RebuildStudent, teachers: Mapping[str, TeacherInfo], settings: Distill) -> None:
        if student.heads is None:
            raise ValueError("the student has no heads, which distillation trains; set student.head_width above 0")
        self.student, self.heads, self.teachers, self.settings = student, student.heads, teachers, settings
        self.auxiliary = nn.ModuleDict()
        torch.manual_seed(0)
        self.build_auxiliary()

    @abstractmethod
    def trainable_parts(self) -> list[nn.Module]:
        """The modules of the student that this stage trains."""

    def build_auxiliary(self) -> None:  # noqa: B027  (not every stage needs some)
        """Add the modules that only this stage needs to `auxiliary`."""

    def after_step(self) -> None:  # noqa: B027
        """Hook that runs after each step of the optimizer."""

    def select_trainable(self) -> list[nn.Parameter]:
        """Return the parameters that this stage trains; freeze all others of the student."""
        self.student.requires_grad_(False).eval()
        for module in self.trainable_parts():
            module.requires_grad_(True).train()
        modules = [*self.trainable_parts(), self.auxiliary]
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def finish(self) -> None:
        self.student.requires_grad_(False).eval()

    def build_projectors(self, channels: int) -> nn.ModuleDict:
        """Build, for each teacher, a projection to the channels of its tokens."""
        return nn.ModuleDict({name: nn.Conv2d(channels, info.channels, 1) for name, info in self.teachers.items()})


class HeadStage(Stage):
    """A stage that trains heads alone and freezes the student's body."""

    @abstractmethod
    def losses(self, batch: CachedBatch) -> dict[str, Tensor]: ...

    def head_outputs(self, batch: CachedBatch) -> HeadOutputs:
        outputs: HeadOutputs = self.heads(batch.head_inputs_BChw)
        return outputs


class Align(HeadStage):
    """S1. Train only the heads' trunk, to imitate the teachers' tokens and the relations between them."""

    def build_auxiliary(self) -> None:
        self.auxiliary["project"] = self.build_projectors(self.heads.width)

    def trainable_parts(self) -> list[nn.Module]:
        return [self.heads.trunk]

    def losses(self, batch: CachedBatch) -> dict[str, Tensor]:
        tokens_BChw = self.head_outputs(batch).tokens_BChw
        terms = {}
        for name, output in batch.teacher_outputs.items():
            pooled = F.adaptive_avg_pool2d(tokens_BChw, output.tokens_BChw.shape[-1])
            projected = _project(self.auxiliary["project"], name, pooled)
            terms[f"{name}_tokens"] = TokenImitation()(projected, output.tokens_BChw)
            if self.settings.relation_weight:
                relations = TokenRelations()(pooled, output.tokens_BChw)
                terms[f"{name}_relations"] = self.settings.relation_weight * relations
            vectors_PC = self.teachers[name].class_vectors_PC
            if vectors_PC is not None:
                terms[f"{name}_prompts"] = PromptAgreement()(projected, output.tokens_BChw, vectors_PC)
        return terms


class Supervise(HeadStage):
    """S2. Train the label head and its trunk on masks of synthetic defects and, where there are any, of real ones."""

    def trainable_parts(self) -> list[nn.Module]:
        return [self.heads.trunk, self.heads.label]

    def losses(self, batch: CachedBatch) -> dict[str, Tensor]:
        return label_losses(self.head_outputs(batch), batch.labels)


class Refine(Stage):
    """S3. Train the imitation head on the teachers' heat, weighted by their confidence; trunk and label head are frozen.

    The optional contrast increases the distance to the output of `earlier`, a moving average (EMA) of the heads.
    """

    def build_auxiliary(self) -> None:
        self.auxiliary["earlier"] = copy.deepcopy(self.heads).requires_grad_(False)

    def trainable_parts(self) -> list[nn.Module]:
        return [self.heads.imitation]

    def after_step(self) -> None:
        """Update the moving average of the heads."""
        earlier = self.auxiliary["earlier"]
        with torch.no_grad():
            for averaged, current in zip(earlier.parameters(), self.heads.parameters(), strict=True):
                averaged.lerp_(current, 1 - EMA_DECAY)
            for averaged_buffer, buffer in zip(earlier.buffers(), self.heads.buffers(), strict=True):
                averaged_buffer.copy_(buffer)

    def imitation_losses(
        self, outputs: HeadOutputs, head_inputs_BChw: Tensor, teachers: TeacherOutputs
    ) -> dict[str, Tensor]:
        target, weight = self._fuse_teachers(teachers)
        terms = {"imitate": HeatImitation()(outputs.imitation_B1mm, target, weight)}
        if self.settings.contrast_weight:
            heat, earlier = outputs.imitation_B1mm.sigmoid(), self._earlier_heat(head_inputs_BChw)
            terms["contrast"] = self.settings.contrast_weight * DynamicContrast()(heat, target, weight, earlier)
        return terms

    def _fuse_teachers(self, outputs: TeacherOutputs) -> tuple[Tensor, Tensor]:
        """Return the teachers' fused probability of a defect at each place, and its weight."""
        heats = [output.heat_B1mm for output in outputs.values()]
        if self.settings.teacher_weights == "equal":
            return average(heats)
        reliabilities = [self.teachers[name].reliability for name in outputs]
        confidences = [output.confidence_B1mm for output in outputs.values()]
        return fuse(heats, confidences, reliabilities, self.settings.weight_temperature)

    def _earlier_heat(self, head_inputs_BChw: Tensor) -> Tensor:
        earlier = self.auxiliary["earlier"]
        assert isinstance(earlier, DefectHeads)
        with torch.no_grad():
            outputs: HeadOutputs = earlier.eval()(head_inputs_BChw)
            return outputs.imitation_B1mm.sigmoid()


class RefineHead(Refine, HeadStage):
    """S3 with a frozen decoder."""

    def losses(self, batch: CachedBatch) -> dict[str, Tensor]:
        return self.imitation_losses(self.head_outputs(batch), batch.head_inputs_BChw, batch.teacher_outputs)


class RefineDecoder(Refine):
    """S3 under `tune_decoder`: the last layers of the decoder are trained too; the fit's loss is added to preserve the reconstruction."""

    def build_auxiliary(self) -> None:
        super().build_auxiliary()
        if self.settings.denoising_weight:
            channels = self.student.channels_of(self.student.settings.rebuild[0])
            self.auxiliary["denoise"] = self.build_projectors(channels)

    def trainable_parts(self) -> list[nn.Module]:
        return [*super().trainable_parts(), self.student.decoder_tail()]

    def losses(self, batch: LiveBatch) -> dict[str, Tensor]:
        tail = self.student.decoder_tail().eval()  # its BatchNorm keeps the statistics of sound parts
        maps = self.student.compute_maps(batch.images_B3HW)
        tail.train()
        assert maps.head_outputs is not None and maps.head_inputs_BChw is not None
        terms = label_losses(maps.head_outputs, batch.labels)
        terms |= self.imitation_losses(maps.head_outputs, maps.head_inputs_BChw, batch.teacher_outputs)
        terms |= self._denoising_losses(maps.rebuilt[0], batch)
        sound_B3HW = batch.sound_B3HW[batch.labels.has_sound_twin_B]
        with bottleneck_noise(self.student):
            terms |= self.student.losses(sound_B3HW, sound_B3HW)
        return terms

    def _denoising_losses(self, rebuilt_BChw: Tensor, batch: LiveBatch) -> dict[str, Tensor]:
        """Compute the loss only for parts whose sound twin is known."""
        terms = {}
        for name, output in batch.sound_teacher_outputs.items():
            tokens_BChw = output.tokens_BChw[batch.labels.has_sound_twin_B]
            rebuilt = F.adaptive_avg_pool2d(rebuilt_BChw[batch.labels.has_sound_twin_B], tokens_BChw.shape[-1])
            projected = _project(self.auxiliary["denoise"], name, rebuilt)
            terms[f"{name}_stream"] = self.settings.denoising_weight * TokenImitation()(projected, tokens_BChw)
        return terms


STAGES = ("align", "supervise", "refine")
"""The stages' names, in their order."""


def build_stage(
    name: str, student: RebuildStudent, teachers: Mapping[str, TeacherInfo], settings: Distill
) -> HeadStage | RefineDecoder:
    if name == "align":
        return Align(student, teachers, settings)
    if name == "supervise":
        return Supervise(student, teachers, settings)
    return (
        RefineDecoder(student, teachers, settings) if settings.tune_decoder else RefineHead(student, teachers, settings)
    )


def freezes_body(name: str, settings: Distill) -> bool:
    """Whether the stage trains no module of the student but its heads."""
    return name != "refine" or not settings.tune_decoder


def label_losses(outputs: HeadOutputs, labels: BatchLabels) -> dict[str, Tensor]:
    """Pixel loss where a mask exists, otherwise image-level loss."""
    terms = {"label": FocalL1()(outputs.label_B1mm, labels.mask_B1mm, labels.has_mask_B)}
    image_only_B = labels.has_label_B & ~labels.has_mask_B
    if image_only_B.any():
        terms["verdict"] = ImageLabelLoss()(outputs.label_B1mm, labels.defective_B, image_only_B)
    return terms


@contextmanager
def bottleneck_noise(student: RebuildStudent) -> Iterator[None]:
    """Switch on the student's training noise, without changing the mode of any submodule."""
    student.training = True
    try:
        yield
    finally:
        student.training = False


def _project(projectors: nn.Module, name: str, tokens_BChw: Tensor) -> Tensor:
    assert isinstance(projectors, nn.ModuleDict)
    projected: Tensor = projectors[name](tokens_BChw)
    return projected
