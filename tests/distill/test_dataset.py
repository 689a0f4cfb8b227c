"""The distillation's dataset: generated, unlabelled and labelled samples, and their cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inspect_kd.config import load_recipe
from inspect_kd.datasets import open_dataset
from inspect_kd.training.distill_data import DistillDataset, SampleCache, pool_mask
from inspect_kd.training.head_inputs import HeadInputs
from inspect_kd.training.real_parts import RealParts
from inspect_kd.types import NoProgress, Sample
from tests.builders import make_job
from tests.distill.builders import masked_defects, student_with_heads

GENERATED = 10
"""Number of generated samples. In `dataset`, sample 10 is unlabelled, 11 and 12 (mirrored) have a mask, 13 and 14 only a label."""


def make_dataset(parts: Path, real: RealParts, cache: SampleCache | None = None) -> DistillDataset:
    changes = ["data.size=64", "distill.variants=2", f"distill.max_samples={GENERATED}", "data.flip=horizontal"]
    job = make_job(load_recipe("embedded", changes), open_dataset(parts), parts)
    return DistillDataset(job, side=64, grid=16, real=real, cache=cache)


@pytest.fixture
def real(parts: Path) -> RealParts:
    """One unlabelled part, one part labelled with a mask, and one labelled without a mask."""
    first, second = (replace(sample, split=None) for sample in masked_defects(open_dataset(parts))[:2])
    return RealParts(unlabelled=[Sample(image=first.image, category="")], labelled=[first, replace(second, mask=None)])


@pytest.fixture
def dataset(parts: Path, real: RealParts) -> DistillDataset:
    return make_dataset(parts, real)


def test_labelled_parts_are_mirrored_too(dataset: DistillDataset) -> None:
    assert len(dataset) == GENERATED + 1 + 2 * 2
    mask, mirrored = dataset.label(11).mask_1mm, dataset.label(12).mask_1mm
    assert mask.any() and torch.equal(mask.flip(-1), mirrored)


def test_label_marks_unknown_masks_and_defects(dataset: DistillDataset) -> None:
    generated = [dataset.label(number) for number in range(GENERATED)]
    assert all(label.is_mask_known and label.mask_1mm.any() == label.defective for label in generated)
    unlabelled, with_mask, _, without_mask = (dataset.label(number) for number in (10, 11, 12, 13))
    assert unlabelled.defective is None and not unlabelled.is_mask_known
    assert with_mask.defective and with_mask.is_mask_known
    assert without_mask.defective and not without_mask.is_mask_known


def test_batch_labels_mark_masks_labels_and_sound_twins(dataset: DistillDataset) -> None:
    labels = dataset.labels([0, 10, 13], torch.device("cpu"))
    assert labels.has_mask_B.tolist() == [True, False, False]
    assert labels.has_label_B.tolist() == [True, False, True]
    assert labels.has_sound_twin_B.tolist() == [True, False, False]


def test_batch_is_one_quarter_labelled_and_one_quarter_unlabelled(dataset: DistillDataset) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        numbers = dataset.sample_numbers(8, rng, with_teachers=True)
        assert sum(n < GENERATED for n in numbers) == 4 and sum(n == 10 for n in numbers) == 2


def test_unlabelled_parts_are_sampled_only_with_teachers(dataset: DistillDataset) -> None:
    numbers = dataset.sample_numbers(8, np.random.default_rng(0), with_teachers=False)
    assert 10 not in numbers and sum(n > 10 for n in numbers) == 2


def test_thin_defect_stays_in_the_pooled_mask() -> None:
    mask = np.zeros((64, 64), bool)
    mask[20, 20] = True
    assert pool_mask(mask, 16).sum() == 1


def test_dataset_with_more_labels_reuses_generated_samples_and_their_head_inputs(
    parts: Path, real: RealParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = student_with_heads().eval()
    first = make_dataset(parts, RealParts())
    inputs = HeadInputs(student, first, NoProgress())
    assert len(inputs.all_inputs) == GENERATED
    second = make_dataset(parts, RealParts(labelled=real.labelled), cache=first.cache)
    monkeypatch.setattr(second, "generated_samples", [])  # generating a sample again would fail
    extended = HeadInputs(student, second, NoProgress(), computed_NChw=inputs.all_inputs).all_inputs
    assert len(extended) == len(second) == GENERATED + 2 * 2
    assert torch.equal(extended[:GENERATED], inputs.all_inputs) and not torch.equal(extended[10], extended[11])
    assert second[0] is first[0]
