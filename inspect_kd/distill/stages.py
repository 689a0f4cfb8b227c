"""The stages after the fit: what each trains, on what, and with which losses.

S0, the fit, is the training of every reconstruction student (`train/fit.py`). Two opposite goals never share a part: the
decoder must fail on defects, so no head's answer moves it, but where S3 is told to `tune_decoder` its last part, together with the
fit's own loss; the heads must answer on defects, so the fit never reaches them.

Shapes: B batch, C channels, h w token grid, m m grid of heat.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.config import Distill
from inspect_kd.distill.losses import (
    DynamicContrast,
    FocalL1,
    HeatImitation,
    ImageVerdict,
    PromptAgreement,
    TokenImitation,
    TokenRelations,
)
from inspect_kd.distill.reliability import Reliability, average, fuse
from inspect_kd.distill.teacher_cache import PooledTeacherOutput
from inspect_kd.models.layers.heads import DefectHeads, HeadOutputs
from inspect_kd.models.rebuild import RebuildStudent

FORGETS = 0.99
"""Share of itself that the earlier student keeps at a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Parts as the student sees them, and all that is known of them."""

    head_inputs_BChw: Tensor | None = None
    """What the student knows of them, where its body is at rest and need not look again."""
    seen_B3HW: Tensor | None = None
    sound_B3HW: Tensor | None = None
    """The same before it was damaged, where that is known; else what is seen."""
    mask_B1mm: Tensor
    outlined_B: Tensor
    """Whether the mask is known."""
    defective_B: Tensor
    judged_B: Tensor
    """Whether it is known that the part is defective, or not."""
    drawn_B: Tensor
    """Whether `sound` is its sound twin."""
    told: Mapping[str, PooledTeacherOutput] = field(default_factory=dict)
    """By teacher."""
    told_sound: Mapping[str, PooledTeacherOutput] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherInfo:
    """What a stage must know of a teacher beside what it says."""

    channels: int
    """Of its tokens."""
    classes_PC: Tensor | None
    reliability: Reliability


class Stage(ABC):
    """One part of the distillation. `auxiliary` learns too, and is thrown away with the stage."""

    def __init__(self, student: RebuildStudent, teachers: Mapping[str, TeacherInfo], settings: Distill) -> None:
        if student.heads is None:
            raise ValueError("a student without heads has nothing to distil into")
        self.student, self.heads, self.teachers, self.settings = student, student.heads, teachers, settings
        self.auxiliary = nn.ModuleDict()
        torch.manual_seed(0)
        self.build_auxiliary()

    @staticmethod
    def body_is_frozen(settings: Distill) -> bool:
        """Whether all of the student but its heads stays as it is."""
        return True

    @abstractmethod
    def trainable_parts(self) -> list[nn.Module]:
        """The student's parts that learn."""

    def build_auxiliary(self) -> None:  # noqa: B027  (most stages need nothing)
        """Make what it needs auxiliary."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]: ...

    def after_step(self) -> None:  # noqa: B027
        """What follows each step."""

    def freeze_rest(self) -> list[nn.Parameter]:
        """Freeze all that does not learn here; returns what does."""
        self.student.requires_grad_(False).eval()
        for part in self.trainable_parts():
            part.requires_grad_(True).train()
        parts = [*self.trainable_parts(), self.auxiliary]
        return [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]

    def finish(self) -> None:
        self.student.requires_grad_(False).eval()

    def answers(self, batch: Batch) -> HeadOutputs:
        assert batch.head_inputs_BChw is not None
        found: HeadOutputs = self.heads(batch.head_inputs_BChw)
        return found

    def projectors(self, channels: int) -> nn.ModuleDict:
        return nn.ModuleDict({name: nn.Conv2d(channels, taught.channels, 1) for name, taught in self.teachers.items()})


class Align(Stage):
    """S1. Only the heads' trunk moves: it comes to tell apart what the teachers tell apart."""

    def build_auxiliary(self) -> None:
        self.auxiliary["project"] = self.projectors(self.heads.width)

    def trainable_parts(self) -> list[nn.Module]:
        return [self.heads.trunk]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        tokens_BChw = self.answers(batch).tokens_BChw
        terms = {}
        for name, told in batch.told.items():
            pooled = F.adaptive_avg_pool2d(tokens_BChw, told.tokens_BChw.shape[-1])
            projected = _projected(self.auxiliary, name, pooled)
            terms[f"{name}_tokens"] = TokenImitation()(projected, told.tokens_BChw)
            if self.settings.relation_weight:
                terms[f"{name}_relations"] = self.settings.relation_weight * TokenRelations()(pooled, told.tokens_BChw)
            classes_PC = self.teachers[name].classes_PC
            if classes_PC is not None:
                terms[f"{name}_prompts"] = PromptAgreement()(projected, told.tokens_BChw, classes_PC)
        return terms


class Supervise(Stage):
    """S2. The label head, and the trunk under it, learn from masks: drawn ones, and real ones where there are any."""

    def trainable_parts(self) -> list[nn.Module]:
        return [self.heads.trunk, self.heads.label]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return label_losses(self.answers(batch), batch)


class Refine(Stage):
    """S3. The imitation head follows the teachers wherever they can be trusted, away from what it used to say. Trunk and label
    head stay as labels have made them. `tune_decoder` lets the decoder's last part move along, held back by the fit's own loss."""

    @staticmethod
    def body_is_frozen(settings: Distill) -> bool:
        return not settings.tune_decoder

    def build_auxiliary(self) -> None:
        self.auxiliary["earlier"] = copy.deepcopy(self.heads).requires_grad_(False)
        if self.settings.denoising_weight:
            rebuilt = sum(map(self.student.channels_of, self.student.settings.rebuild[:1]))
            self.auxiliary["denoise"] = self.projectors(rebuilt)

    def trainable_parts(self) -> list[nn.Module]:
        return [self.heads.imitation, *([self.student.decoder_tail()] if self.settings.tune_decoder else [])]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if not self.settings.tune_decoder:
            assert batch.head_inputs_BChw is not None
            return self._imitation(self.answers(batch), batch.head_inputs_BChw, batch)
        assert batch.seen_B3HW is not None and batch.sound_B3HW is not None
        last = self.student.decoder_tail().eval()  # its statistics are those of sound parts
        found = self.student.compute_maps(batch.seen_B3HW)
        last.train()
        assert found.head_outputs is not None and found.head_inputs_BChw is not None
        terms = label_losses(found.head_outputs, batch) | self._imitation(
            found.head_outputs, found.head_inputs_BChw, batch
        )
        if self.settings.denoising_weight and batch.told_sound:
            # Of drawn defects alone: elsewhere nobody knows what the part looked like before.
            for name, told in batch.told_sound.items():
                tokens_BChw = told.tokens_BChw[batch.drawn_B]
                rebuilt = F.adaptive_avg_pool2d(found.rebuilt[0][batch.drawn_B], tokens_BChw.shape[-1])
                terms[f"{name}_stream"] = self.settings.denoising_weight * TokenImitation()(
                    _projected(self.auxiliary, name, rebuilt, "denoise"), tokens_BChw
                )
        sound_B3HW = batch.sound_B3HW[batch.drawn_B]
        with noisy(self.student):
            terms |= self.student.losses(sound_B3HW, sound_B3HW)
        return terms

    def _imitation(self, answers: HeadOutputs, head_inputs_BChw: Tensor, batch: Batch) -> dict[str, Tensor]:
        target, trust = self._target(batch)
        terms = {"imitate": HeatImitation()(answers.imitation_B1mm, target, trust)}
        if self.settings.contrast_weight:
            said, earlier = answers.imitation_B1mm.sigmoid(), self._earlier(head_inputs_BChw)
            terms["contrast"] = self.settings.contrast_weight * DynamicContrast()(said, target, trust, earlier)
        return terms

    def after_step(self) -> None:
        earlier = self.auxiliary["earlier"]
        with torch.no_grad():
            for old, new in zip(earlier.parameters(), self.heads.parameters(), strict=True):
                old.lerp_(new, 1 - FORGETS)
            for before, now in zip(earlier.buffers(), self.heads.buffers(), strict=True):
                before.copy_(now)

    def _target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        heats = [told.heat_B1mm for told in batch.told.values()]
        if self.settings.teacher_weights == "equal":
            return average(heats)
        tables = [self.teachers[name].reliability for name in batch.told]
        sure = [told.confidence_B1mm for told in batch.told.values()]
        return fuse(heats, sure, tables, self.settings.weight_temperature)

    def _earlier(self, head_inputs_BChw: Tensor) -> Tensor:
        earlier = self.auxiliary["earlier"]
        assert isinstance(earlier, DefectHeads)
        with torch.no_grad():
            answers: HeadOutputs = earlier.eval()(head_inputs_BChw)
            return answers.imitation_B1mm.sigmoid()


STAGES: dict[str, type[Stage]] = {"align": Align, "supervise": Supervise, "refine": Refine}


def label_losses(answers: HeadOutputs, batch: Batch) -> dict[str, Tensor]:
    """Where there is an outline, each place; where there is none, the part as a whole."""
    terms = {"label": FocalL1()(answers.label_B1mm, batch.mask_B1mm, batch.outlined_B)}
    told_whole = batch.judged_B & ~batch.outlined_B
    if told_whole.any():
        terms["verdict"] = ImageVerdict()(answers.label_B1mm, batch.defective_B, told_whole)
    return terms


@contextmanager
def noisy(student: RebuildStudent) -> Iterator[None]:
    """The bottleneck's noise belongs to the fit's loss; nothing else of the student changes its mode."""
    student.training = True
    try:
        yield
    finally:
        student.training = False


def _projected(auxiliary: nn.ModuleDict, name: str, tokens_BChw: Tensor, which: str = "project") -> Tensor:
    projectors = auxiliary[which]
    assert isinstance(projectors, nn.ModuleDict)
    projected: Tensor = projectors[name](tokens_BChw)
    return projected
