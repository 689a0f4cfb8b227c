"""Losses against a teacher's output or a label: one class each, its source named.

All are implemented from the papers. Heat is the probability of a defect at a place; tokens are dense features.

Shapes: B batch, C channels, P class vectors, N pooled places, M = N * N, h w token grid, m m grid of heat.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.layers.losses import focal_loss

MAX_SIDE = 14
"""Largest grid for relations: tokens are pooled to 14 x 14, since a full Gram matrix would be larger than the features."""


@dataclass(frozen=True, slots=True)
class TokenImitation:
    """1 - cosine of tokens: MDist of LLaVA-KD (arXiv 2410.16236). With the teacher's tokens of the same image it is the plain
    stream of STLM (arXiv 2412.12606); with those of the image before its synthetic defect was added, STLM's denoising stream."""

    def __call__(self, student_BChw: Tensor, teacher_BChw: Tensor) -> Tensor:
        return (1 - F.cosine_similarity(student_BChw, teacher_BChw, dim=1, eps=1e-6)).mean()


@dataclass(frozen=True, slots=True)
class TokenRelations:
    """1 - cosine of the Gram matrices: RDist of LLaVA-KD. It compares which places are similar, so channels need
    not correspond."""

    def __call__(self, student_BChw: Tensor, teacher_BChw: Tensor) -> Tensor:
        student_gram_BM, teacher_gram_BM = self._gram(student_BChw), self._gram(teacher_BChw)
        return (1 - F.cosine_similarity(student_gram_BM, teacher_gram_BM, dim=1, eps=1e-6)).mean()

    @staticmethod
    def _gram(tokens_BChw: Tensor) -> Tensor:
        side = min(MAX_SIDE, tokens_BChw.shape[-1])
        rows_BNC = F.normalize(F.adaptive_avg_pool2d(tokens_BChw, side).flatten(2).transpose(1, 2), dim=2)
        return (rows_BNC @ rows_BNC.transpose(1, 2)).flatten(1)


@dataclass(frozen=True, slots=True)
class PromptAgreement:
    """KL divergence of the student's class probabilities from the teacher's, by cosine of tokens and class vectors: PromptKD
    (arXiv 2403.02781)."""

    scale: float = 14.0
    """Multiplier of the cosines. CLIP's own 100 would make nearly every probability 0 or 1."""
    temperature: float = 1.0

    def __call__(self, student_BChw: Tensor, teacher_BChw: Tensor, vectors_PC: Tensor) -> Tensor:
        student, teacher = (self._log_probabilities(tokens, vectors_PC) for tokens in (student_BChw, teacher_BChw))
        kl_Bhw = (teacher.exp() * (teacher - student)).sum(dim=1)
        return self.temperature**2 * kl_Bhw.mean()

    def _log_probabilities(self, tokens_BChw: Tensor, vectors_PC: Tensor) -> Tensor:
        cosine_BPhw = torch.einsum("bchw,pc->bphw", F.normalize(tokens_BChw, dim=1), vectors_PC)
        return (self.scale * cosine_BPhw / self.temperature).log_softmax(dim=1)


@dataclass(frozen=True, slots=True)
class HeatImitation:
    """Cross-entropy with the teachers' probability of a defect, weighted at each place by their confidence: the KL of MulKI and
    PromptKD up to a constant. Its optimum is the mean of the targets; an L1 loss would have their median, which is near 0
    nearly everywhere."""

    def __call__(self, logits_B1mm: Tensor, target_B1mm: Tensor, weight_B1mm: Tensor) -> Tensor:
        loss_B1mm = F.binary_cross_entropy_with_logits(logits_B1mm, target_B1mm, reduction="none")
        return _weighted_mean(loss_B1mm, weight_B1mm)


@dataclass(frozen=True, slots=True)
class WeightedL1:
    """Mean absolute difference of heat, weighted at each place by the confidence in its target (see distill/reliability.py)."""

    def __call__(self, student_B1mm: Tensor, target_B1mm: Tensor, weight_B1mm: Tensor) -> Tensor:
        return _weighted_mean((student_B1mm - target_B1mm).abs(), weight_B1mm)


@dataclass(frozen=True, slots=True)
class DynamicContrast:
    """|student - teacher| divided by |student - earlier student|: the pull and push of DCKD. Both are weighted by heat, since
    most places are sound and would make the push vanish. The push has a lower bound, because at first both students are equal."""

    floor: float = 0.02
    """Lower bound of the push. The ratio is multiplied by it too, so the loss never exceeds the pull."""

    def __call__(self, student_B1mm: Tensor, target_B1mm: Tensor, weight_B1mm: Tensor, earlier_B1mm: Tensor) -> Tensor:
        hot_B1mm = weight_B1mm * torch.maximum(target_B1mm, earlier_B1mm)
        pull = WeightedL1()(student_B1mm, target_B1mm, hot_B1mm)
        push = WeightedL1()(student_B1mm, earlier_B1mm, hot_B1mm)
        return self.floor * pull / push.clamp_min(self.floor)


@dataclass(frozen=True, slots=True)
class FocalL1:
    """Focal cross-entropy plus L1 against a mask, as in STLM and DeSTSeg, over the images that have a mask."""

    gamma: float = 4.0

    def __call__(self, logits_B1mm: Tensor, mask_B1mm: Tensor, has_mask_B: Tensor) -> Tensor:
        if not has_mask_B.any():
            return logits_B1mm.sum() * 0
        heat, mask = logits_B1mm[has_mask_B].sigmoid(), mask_B1mm[has_mask_B]
        return focal_loss(heat, mask, self.gamma) + (heat - mask).abs().mean()


@dataclass(frozen=True, slots=True)
class ImageLabelLoss:
    """Cross-entropy of the mean logit of the hottest places, for parts that are labelled without a mask."""

    share: float = 0.01
    """Share of the places that count as hottest."""

    def __call__(self, logits_B1mm: Tensor, defective_B: Tensor, has_label_B: Tensor) -> Tensor:
        if not has_label_B.any():
            return logits_B1mm.sum() * 0
        places = logits_B1mm[has_label_B].flatten(1)
        hottest_B = places.topk(max(1, round(self.share * places.shape[1])), dim=1).values.mean(dim=1)
        return F.binary_cross_entropy_with_logits(hottest_B, defective_B[has_label_B].float())


def _weighted_mean(value_B1mm: Tensor, weight_B1mm: Tensor) -> Tensor:
    return (weight_B1mm * value_B1mm).sum() / weight_B1mm.sum().clamp_min(1e-6)
