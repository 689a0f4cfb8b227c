"""What a student can be asked to take from a teacher or a label: one class each, its source named.

All were written anew from the papers. Heat is a probability of `damaged`; tokens are dense features.

Shapes: B batch, C channels, P sentences, N pooled places, h w token grid, m m grid of heat.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.layers.losses import focal

MOST_SIDE = 14
"""Relations are those of at most 196 places: the Gram matrix of all would be larger than the features."""


@dataclass(frozen=True, slots=True)
class TokenImitation:
    """1 - cosine of tokens: MDist of LLaVA-KD (arXiv 2410.16236). Held to what the teacher sees in the same image it is the plain
    stream of STLM (arXiv 2412.12606), held to what it sees in the sound twin STLM's denoising stream."""

    def __call__(self, student_BChw: Tensor, teacher_BChw: Tensor) -> Tensor:
        return (1 - F.cosine_similarity(student_BChw, teacher_BChw, dim=1, eps=1e-6)).mean()


@dataclass(frozen=True, slots=True)
class TokenRelations:
    """1 - cosine of the Gram matrices: RDist of LLaVA-KD. What is like what in a part, in whatever channels."""

    def __call__(self, student_BChw: Tensor, teacher_BChw: Tensor) -> Tensor:
        student_BN, teacher_BN = self._gram(student_BChw), self._gram(teacher_BChw)
        return (1 - F.cosine_similarity(student_BN, teacher_BN, dim=1, eps=1e-6)).mean()

    @staticmethod
    def _gram(tokens_BChw: Tensor) -> Tensor:
        side = min(MOST_SIDE, tokens_BChw.shape[-1])
        rows_BNC = F.normalize(F.adaptive_avg_pool2d(tokens_BChw, side).flatten(2).transpose(1, 2), dim=2)
        return (rows_BNC @ rows_BNC.transpose(1, 2)).flatten(1)


@dataclass(frozen=True, slots=True)
class PromptAgreement:
    """KL between what stored sentences read in the teacher's tokens and in the student's: PromptKD (arXiv 2403.02781)."""

    scale: float = 14.0
    """Of the cosines. CLIP's own 100 would leave nothing between certainties."""
    temperature: float = 1.0

    def __call__(self, student_BChw: Tensor, teacher_BChw: Tensor, vectors_PC: Tensor) -> Tensor:
        student, teacher = (self._read(tokens, vectors_PC) for tokens in (student_BChw, teacher_BChw))
        kl_B1hw = (teacher.exp() * (teacher - student)).sum(dim=1)
        return self.temperature**2 * kl_B1hw.mean()

    def _read(self, tokens_BChw: Tensor, vectors_PC: Tensor) -> Tensor:
        cosine_BPhw = torch.einsum("bchw,pc->bphw", F.normalize(tokens_BChw, dim=1), vectors_PC)
        return (self.scale * cosine_BPhw / self.temperature).log_softmax(dim=1)


@dataclass(frozen=True, slots=True)
class HeatImitation:
    """Cross-entropy with the chance of damage that the teachers see, each place as far as they are sure: MulKI's and PromptKD's KL,
    but for a constant. Its optimum is their mean; that of the mean difference is their median, `sound` nearly everywhere."""

    def __call__(self, logits_B1mm: Tensor, chance_B1mm: Tensor, trust_B1mm: Tensor) -> Tensor:
        each_B1mm = F.binary_cross_entropy_with_logits(logits_B1mm, chance_B1mm, reduction="none")
        return _trusted_mean(each_B1mm, trust_B1mm)


@dataclass(frozen=True, slots=True)
class WeightedAgreement:
    """Mean difference of heat, each place as far as its target can be trusted (see `reliability`)."""

    def __call__(self, student_B1mm: Tensor, target_B1mm: Tensor, trust_B1mm: Tensor) -> Tensor:
        return _trusted_mean((student_B1mm - target_B1mm).abs(), trust_B1mm)


@dataclass(frozen=True, slots=True)
class DynamicContrast:
    """|student - teacher| over |student - what it used to say|: DCKD's pull and push, where either sees something: over a whole
    part, which is sound nearly everywhere, nothing would ever be pushed. Bounded: a student that has just begun has not moved
    away from itself yet."""

    floor: float = 0.02

    def __call__(self, student_B1mm: Tensor, target_B1mm: Tensor, trust_B1mm: Tensor, earlier_B1mm: Tensor) -> Tensor:
        there_B1mm = trust_B1mm * torch.maximum(target_B1mm, earlier_B1mm)
        pull = WeightedAgreement()(student_B1mm, target_B1mm, there_B1mm)
        push = WeightedAgreement()(student_B1mm, earlier_B1mm, there_B1mm)
        return self.floor * pull / push.clamp_min(self.floor)


@dataclass(frozen=True, slots=True)
class FocalL1:
    """Focal cross-entropy plus L1 against a mask, as in STLM and DeSTSeg, over the images whose mask is known."""

    gamma: float = 4.0

    def __call__(self, logits_B1mm: Tensor, mask_B1mm: Tensor, known_B: Tensor) -> Tensor:
        if not known_B.any():
            return logits_B1mm.sum() * 0
        found, mask = logits_B1mm[known_B].sigmoid(), mask_B1mm[known_B]
        return focal(found, mask, self.gamma) + (found - mask).abs().mean()


@dataclass(frozen=True, slots=True)
class ImageVerdict:
    """Cross-entropy of the hottest places' mean, for parts that somebody has called defective without an outline."""

    share: float = 0.01

    def __call__(self, logits_B1mm: Tensor, defective_B: Tensor, known_B: Tensor) -> Tensor:
        if not known_B.any():
            return logits_B1mm.sum() * 0
        places = logits_B1mm[known_B].flatten(1)
        hottest_B = places.topk(max(1, round(self.share * places.shape[1])), dim=1).values.mean(dim=1)
        return F.binary_cross_entropy_with_logits(hottest_B, defective_B[known_B].float())


def _trusted_mean(each_B1mm: Tensor, trust_B1mm: Tensor) -> Tensor:
    return (trust_B1mm * each_B1mm).sum() / trust_B1mm.sum().clamp_min(1e-6)
