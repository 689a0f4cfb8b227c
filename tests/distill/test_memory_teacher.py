"""The memory teacher: heat where no sound part looks like it, and the coreset that it keeps."""

from __future__ import annotations

import numpy as np
import torch

from inspect_kd.models.layers.neighbours import choose_coreset, distance_map
from inspect_kd.types import ImageU8
from tests.distill.builders import memory_teacher


def grey_part() -> ImageU8:
    return np.random.default_rng(0).integers(90, 130, (64, 64, 3), dtype=np.uint8)


def test_memory_is_hot_where_no_sound_part_looks_like_it() -> None:
    teacher, sound = memory_teacher(rows=4096), grey_part()
    damaged = sound.copy()
    damaged[20:36, 20:36] = (250, 20, 20)
    heatmap = teacher.predict([sound, damaged]).heatmap_B1HW
    assert heatmap.min() >= 0 and heatmap.max() <= 1
    distance = teacher._map(teacher._tensor([damaged]))[0, 0]
    assert distance[6:8, 6:8].mean() > 1.5 * distance[12:, 12:].mean()


def test_part_in_one_bank_is_measured_by_the_other() -> None:
    teacher, rng = memory_teacher(rows=4096), np.random.default_rng(0)
    base = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
    stored = np.clip(base + rng.integers(-5, 5, base.shape), 0, 255).astype(np.uint8)
    with torch.no_grad():
        patches = teacher.patches(teacher._tensor([stored]))
        own, other = (distance_map(patches, teacher._bank(bank), 64).mean() for bank in range(2))
    assert own < 1e-3 < other
    assert teacher._map(teacher._tensor([stored])).mean() > 0.5 * other


def test_coreset_keeps_rare_rows() -> None:
    """A thousand equal rows and three rare ones, of which a random choice of eight would miss some."""
    torch.manual_seed(0)
    usual = torch.tensor([1.0, 0.0, 0.0]) + 0.01 * torch.randn(1000, 3)
    rows = torch.nn.functional.normalize(torch.cat([usual, torch.eye(3), -torch.eye(3)[:1]]), dim=1)
    kept = choose_coreset(rows, 8)
    assert len(set(kept.tolist())) == 8
    assert {1001, 1002, 1003} <= set(kept.tolist())
    assert (1 - rows @ rows[kept].T).amin(dim=1).max() < 0.01


def test_sound_places_are_nearer_to_a_coreset_than_to_random_rows() -> None:
    assert memory_teacher(rows=24, coreset=True).zero_distance < memory_teacher(rows=24, coreset=False).zero_distance


def test_medium_heat_is_predicted_with_full_confidence() -> None:
    """Heat 0.5 is a large distance, not uncertainty: its probability is measured on drawn defects."""
    damaged = [grey_part() for _ in range(4)]
    for number, image in enumerate(damaged):
        image[20:36, 20:36] += np.uint8(10 * number)
    output = memory_teacher().predict(damaged)
    medium = (output.heatmap_B1HW > 0.1) & (output.heatmap_B1HW < 0.9)
    assert medium.any() and output.confidence_B1HW[medium].min() == 1
