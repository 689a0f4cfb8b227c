"""Each loss of the distillation, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inspect_kd.distill import losses

HALVES_1C22 = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]])
"""A 2 x 2 grid of tokens: the upper two have only channel 0, the lower two only channel 1."""


def tokens(*channels: list[float]) -> Tensor:
    """Tokens side by side, each given by its channels: (1, C, 1, N)."""
    return torch.tensor(channels).float().T[None, :, None, :]


def test_token_imitation_compares_directions() -> None:
    student, teacher = tokens([1, 0], [0, 2]), tokens([3, 0], [1, 0])
    assert losses.TokenImitation()(student, teacher).item() == pytest.approx((0 + 1) / 2)


def test_token_relations_ignore_the_order_of_channels() -> None:
    swapped = torch.cat([HALVES_1C22[:, 1:], HALVES_1C22[:, :1], torch.zeros(1, 1, 2, 2)], dim=1)
    assert losses.TokenRelations()(HALVES_1C22, swapped).item() == pytest.approx(0, abs=1e-6)


def test_token_relations_compare_gram_matrices() -> None:
    uniform = torch.ones(1, 1, 2, 2)
    # Gram matrix of HALVES_1C22: 8 of 16 are one; of `uniform` all 16 are: cosine 8 / (sqrt 8 * sqrt 16).
    assert losses.TokenRelations()(HALVES_1C22, uniform).item() == pytest.approx(1 - 8 / math.sqrt(8 * 16), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_prompt_agreement_is_the_kl_of_two_classes(temperature: float) -> None:
    vectors, teacher, student = torch.eye(2), tokens([1, 0]), tokens([0, 1])
    loss = losses.PromptAgreement(scale=2.0, temperature=temperature)
    assert loss(teacher, teacher, vectors).item() == pytest.approx(0, abs=1e-6)
    p = 1 / (1 + math.exp(-2 / temperature))
    by_hand = temperature**2 * (p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p))
    assert loss(student, teacher, vectors).item() == pytest.approx(by_hand, rel=1e-5)


def test_heat_imitation_is_minimal_at_the_mean_of_the_targets() -> None:
    """The targets of four places with equal logits are 1, 0, 0 and 0: their mean is 0.25, their median 0."""
    logits, target, weight = torch.zeros(1, 1, 1, 4), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]]), torch.ones(1, 1, 1, 4)
    assert losses.HeatImitation()(logits, target, weight).item() == pytest.approx(math.log(2))
    shift = torch.tensor(0.0, requires_grad=True)
    gradients = {}
    for probability in (0.01, 0.25, 0.5):
        logit = math.log(probability / (1 - probability))
        loss = losses.HeatImitation()(shift + logit + logits, target, weight)
        (gradients[probability],) = torch.autograd.grad(loss, shift)
    assert gradients[0.25].item() == pytest.approx(0, abs=1e-6)
    assert gradients[0.01] < 0 < gradients[0.5]


def test_heat_imitation_ignores_places_of_weight_zero() -> None:
    logits, target = torch.full((1, 1, 1, 4), -2.0), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    weight = torch.tensor([[[[0.0, 1.0, 1.0, 0.5]]]])
    assert losses.HeatImitation()(logits, target, weight).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_weighted_l1_ignores_places_of_weight_zero() -> None:
    heat, target = torch.tensor([[[[0.2, 0.9]]]]), torch.tensor([[[[0.5, 0.0]]]])
    loss = losses.WeightedL1()
    assert loss(heat, target, torch.tensor([[[[1.0, 0.0]]]])).item() == pytest.approx(0.3)
    assert loss(heat, target, torch.tensor([[[[1.0, 0.5]]]])).item() == pytest.approx((0.3 + 0.45) / 1.5)


def test_contrast_divides_the_distance_from_the_teacher_by_that_from_the_earlier_student() -> None:
    heat, target, weight = torch.full((1, 1, 1, 2), 0.5), torch.full((1, 1, 1, 2), 0.9), torch.ones(1, 1, 1, 2)
    contrast = losses.DynamicContrast(floor=0.05)
    assert contrast(heat, target, weight, heat - 0.2).item() == pytest.approx(0.05 * 0.4 / 0.2)
    assert contrast(heat, target, weight, heat).item() == pytest.approx(0.4), "the divisor is bounded"


def test_contrast_is_not_diluted_by_sound_places() -> None:
    sound = torch.zeros(1, 1, 1, 98)
    heat, target, earlier = (torch.cat([torch.full((1, 1, 1, 2), value), sound], dim=3) for value in (0.5, 0.9, 0.3))
    loss = losses.DynamicContrast(floor=0.05)(heat, target, torch.ones_like(heat), earlier)
    assert loss.item() == pytest.approx(0.05 * 0.4 / 0.2)


def test_focal_l1_ignores_images_without_a_mask() -> None:
    logits, mask = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])
    loss = losses.FocalL1(gamma=2)(logits, mask, torch.tensor([True, False]))
    assert loss.item() == pytest.approx(0.25 * math.log(2) + 0.5)
    assert losses.FocalL1()(logits, mask, torch.tensor([False, False])).item() == 0


def test_image_label_loss_takes_the_hottest_places() -> None:
    logits = torch.tensor([[[[3.0, -9.0, -9.0, -9.0]]], [[[9.0, 9.0, 9.0, 9.0]]]])
    loss = losses.ImageLabelLoss(share=0.25)(logits, torch.tensor([True, True]), torch.tensor([True, False]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)
