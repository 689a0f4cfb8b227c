"""Reliability of teachers: measured on masks, and used as their weights."""

from __future__ import annotations

import math

import pytest
import torch

from inspect_kd.distill.reliability import Reliability, average, fit_isotonic, fuse
from inspect_kd.training.teacher_outputs import RELIABILITY_SAMPLES, reliability_samples


def with_probability(probability: float) -> Reliability:
    reliability = Reliability()
    reliability.table = torch.full((64,), probability)
    return reliability


def measure_reliability(heat: torch.Tensor, mask: torch.Tensor) -> Reliability:
    reliability = Reliability()
    reliability.add(heat, mask)
    return reliability


@pytest.fixture
def mask() -> torch.Tensor:
    return (torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def test_probability_follows_the_masks(mask: torch.Tensor) -> None:
    reliable, unreliable = measure_reliability(0.9 * mask, mask), measure_reliability(torch.full_like(mask, 0.9), mask)
    hot = torch.full((1, 1, 1, 1), 0.9)
    assert unreliable.probability(hot).item() == pytest.approx(0.5, abs=0.1)
    assert reliable.probability(hot) > 0.85
    assert reliable.expected_error(hot) < 0.2 < unreliable.expected_error(hot)


def test_fusion_follows_the_more_reliable_teacher(mask: torch.Tensor) -> None:
    reliable, unreliable = measure_reliability(0.9 * mask, mask), measure_reliability(torch.full_like(mask, 0.9), mask)
    hot, cold, full_confidence = torch.full((1, 1, 1, 1), 0.9), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    target, weight = fuse([hot, cold], [full_confidence, full_confidence], [reliable, unreliable], temperature=0.05)
    without_reliable, _ = fuse(
        [hot, cold], [0 * full_confidence, full_confidence], [reliable, unreliable], temperature=0.05
    )
    assert target.item() > 0.7 and 0 < weight.item() <= 1
    assert without_reliable.item() < target.item()


def test_fusion_weighs_by_exp_of_the_expected_error() -> None:
    """By hand: probabilities 0.9 and 0.5 have the expected errors 0.18 and 0.5."""
    place, full_confidence = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    first, second = math.exp(-0.18 / 0.5), math.exp(-0.5 / 0.5)
    teachers = [with_probability(0.9), with_probability(0.5)]
    target, weight = fuse([place, place], [full_confidence, full_confidence], teachers, temperature=0.5)
    assert target.item() == pytest.approx((0.9 * first + 0.5 * second) / (first + second), rel=1e-5)
    assert weight.item() == 1, "only the teachers' confidence lowers the weight, not a probability near 0.5"


def test_fusion_weighs_by_the_teachers_confidence() -> None:
    place, full_confidence = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    first, second = math.exp(-0.18 / 0.5), math.exp(-0.5 / 0.5)
    teachers = [with_probability(0.9), with_probability(0.5)]
    target, weight = fuse([place, place], [0.1 * full_confidence, 0.4 * full_confidence], teachers, temperature=0.5)
    assert target.item() == pytest.approx((0.09 * first + 0.2 * second) / (0.1 * first + 0.4 * second), rel=1e-5)
    assert weight.item() == pytest.approx(0.4)


def test_average_is_the_mean_heat() -> None:
    hot, cold = torch.full((1, 1, 1, 1), 0.9), torch.zeros(1, 1, 1, 1)
    assert average([hot, cold])[0].item() == pytest.approx(0.45)


def test_isotonic_pools_adjacent_violators() -> None:
    defective, all_places = torch.tensor([0.0, 3.0, 1.0, 4.0]), torch.full((4,), 4.0)
    assert fit_isotonic(defective, all_places).tolist() == [0.0, 0.5, 0.5, 1.0]


def test_probability_never_falls_with_more_heat() -> None:
    heat = torch.linspace(0, 1, 1000).view(1, 1, 10, 100)
    probability = measure_reliability(heat, (heat < 0.2).float()).probability(heat).flatten()
    assert (probability[1:] >= probability[:-1]).all()


@pytest.mark.parametrize("sound_parts", [8, 10, 20, 40, 64, 127, 128, 129])
def test_reliability_samples_are_half_synthetic(sound_parts: int) -> None:
    variants_per_part = 8
    sample_count = variants_per_part * sound_parts
    chosen = reliability_samples(sample_count)
    synthetic_count = sum(number % 2 for number in chosen)  # sound and synthetic samples alternate
    assert len(set(chosen)) == len(chosen) == min(RELIABILITY_SAMPLES, sample_count)
    assert 0.4 < synthetic_count / len(chosen) < 0.6
