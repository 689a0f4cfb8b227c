"""The memory teacher: heat where patches differ from those of sound parts, and its coreset."""

from __future__ import annotations

import numpy as np
import torch

from inspect_kd.models.layers.neighbours import choose_coreset, distance_map
from inspect_kd.types import ImageU8
from tests.distill.builders import memory_teacher


def grey_part() -> ImageU8:
    return np.random.default_rng(0).integers(90, 130, (64, 64, 3), dtype=np.uint8)


def test_heat_is_higher_on_a_defect() -> None:
    teacher, sound = memory_teacher(rows=4096), grey_part()
    defective = sound.copy()
    defective[20:36, 20:36] = (250, 20, 20)
    heatmap = teacher.predict([sound, defective]).heatmap_B1HW
    assert heatmap.min() >= 0 and heatmap.max() <= 1
    distance = teacher._distance_map(teacher._tensor([defective]))[0, 0]
    assert distance[6:8, 6:8].mean() > 1.5 * distance[12:, 12:].mean()


def test_stored_part_is_compared_with_the_bank_that_does_not_hold_it() -> None:
    teacher, rng = memory_teacher(rows=4096), np.random.default_rng(0)
    base = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
    stored = np.clip(base + rng.integers(-5, 5, base.shape), 0, 255).astype(np.uint8)
    with torch.no_grad():
        patches = teacher.patches(teacher._tensor([stored]))
        own, other = (distance_map(patches, teacher._bank(bank), 64).mean() for bank in range(2))
    assert own < 1e-3 < other
    assert teacher._distance_map(teacher._tensor([stored])).mean() > 0.5 * other


def test_coreset_keeps_rare_rows() -> None:
    """A random choice of eight rows would miss some of the three rare ones among a thousand."""
    torch.manual_seed(0)
    frequent = torch.tensor([1.0, 0.0, 0.0]) + 0.01 * torch.randn(1000, 3)
    rows = torch.nn.functional.normalize(torch.cat([frequent, torch.eye(3), -torch.eye(3)[:1]]), dim=1)
    chosen = choose_coreset(rows, 8)
    assert len(set(chosen.tolist())) == 8
    assert {1001, 1002, 1003} <= set(chosen.tolist())
    assert (1 - rows @ rows[chosen].T).amin(dim=1).max() < 0.01


def test_sound_patches_are_nearer_to_a_coreset_than_to_random_rows() -> None:
    assert memory_teacher(rows=24, coreset=True).zero_distance < memory_teacher(rows=24, coreset=False).zero_distance


def test_medium_heat_has_full_confidence() -> None:
    """Heat 0.5 is a large distance, not uncertainty: its probability is measured on synthetic defects."""
    parts = [grey_part() for _ in range(4)]
    for number, image in enumerate(parts):
        image[20:36, 20:36] += np.uint8(10 * number)
    output = memory_teacher().predict(parts)
    medium = (output.heatmap_B1HW > 0.1) & (output.heatmap_B1HW < 0.9)
    assert medium.any() and output.confidence_B1HW[medium].min() == 1
