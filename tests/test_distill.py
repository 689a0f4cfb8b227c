"""The distillation: each loss by hand, who may move what, teachers that are asked once, and a student that ships alone."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from inspect_kd import weights, zoo
from inspect_kd.bench import ablate
from inspect_kd.cli.train import list_overrides as with_options
from inspect_kd.config import Distill, Recipe, load_recipe
from inspect_kd.datasets import DataSet, open_dataset
from inspect_kd.datasets.drawn import draw_sample
from inspect_kd.distill import losses, stages
from inspect_kd.distill.reliability import Reliability, average, fuse, rising
from inspect_kd.distill.teacher_cache import CachedTeacher, PooledTeacherOutput, identity
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.models import rebuild
from inspect_kd.models.base import TeacherSample
from inspect_kd.models.layers.heads import HeadOutputs
from inspect_kd.models.layers.neighbours import coreset
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.models.teachers import memory
from inspect_kd.train import teach as teach_module
from inspect_kd.train import teachers as teachers_module
from inspect_kd.train.distill import reliability_samples
from inspect_kd.train.distill_data import DistillDataset, cells
from inspect_kd.train.fit import fit, fitted_student
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.real_parts import RealParts, labelled_parts, unlabelled_parts
from inspect_kd.train.run import RunFolder, environment
from inspect_kd.train.teachers import _identity, _seeing_alike, ready, studies
from inspect_kd.types import NoProgress, Sample, Split
from tests.test_models import images, small
from tests.tiny import TINY, command

RECIPE = {
    "name": "tiny_memory",
    "teacher": {"build": "memory", "encoder": "embedded", "rows": 256},
    "data": {"size": 64},
    "teach": {"variants": 2, "epochs": 0},
}
STEPS = 4
CHAIN = [
    "student.head_width=8",
    "distill.variants=2",
    "distill.batch=4",
    f"distill.align.steps={STEPS}",
    f"distill.supervise.steps={STEPS}",
    f"distill.refine.steps={STEPS}",
    "distill.tune_decoder=true",
    "distill.contrast_weight=1",
    "distill.denoising_weight=0.5",
    "distill.blend=[1, 1.5, 1.5]",
]


# ── losses, by hand ──────────────────────────────────────────────────────────────────────────────────────────────────


def tokens(*columns: list[float]) -> Tensor:
    """Places side by side, one column of channels each: (1, C, 1, N)."""
    return torch.tensor(columns).float().T[None, :, None, :]


def test_tokens_are_held_to_the_teachers_direction() -> None:
    student, teacher = tokens([1, 0], [0, 2]), tokens([3, 0], [1, 0])
    assert losses.TokenImitation()(student, teacher).item() == pytest.approx((0 + 1) / 2)


def test_relations_do_not_care_for_channels_but_for_likeness() -> None:
    alike = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]], [[[0.0, 0.0], [1.0, 1.0]]]]).transpose(0, 1).reshape(1, 2, 2, 2)
    turned = torch.cat([alike[:, 1:], alike[:, :1], torch.zeros(1, 1, 2, 2)], dim=1)
    assert losses.TokenRelations()(alike, turned).item() == pytest.approx(0, abs=1e-6)
    same = torch.ones(1, 1, 2, 2)
    # Gram of `alike`: 8 of 16 are one; of `same` all 16 are: cosine 8 / (sqrt 8 * sqrt 16).
    assert losses.TokenRelations()(alike, same).item() == pytest.approx(1 - 8 / math.sqrt(8 * 16), abs=1e-6)


def test_prompts_agree_where_sentences_read_the_same() -> None:
    vectors = torch.eye(2)
    teacher, student = tokens([1, 0]), tokens([0, 1])
    loss = losses.PromptAgreement(scale=2.0)
    assert loss(teacher, teacher, vectors).item() == pytest.approx(0, abs=1e-6)
    p = 1 / (1 + math.exp(-2))
    by_hand = p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p)
    assert loss(student, teacher, vectors).item() == pytest.approx(by_hand, rel=1e-5)
    warm = losses.PromptAgreement(scale=2.0, temperature=2.0)
    p = 1 / (1 + math.exp(-1))
    by_hand = 4 * (p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p))
    assert warm(student, teacher, vectors).item() == pytest.approx(by_hand, rel=1e-5)


def test_teachers_are_weighed_by_their_error_and_by_how_sure_they_are() -> None:
    """exp(-error / T), by hand: chances 0.9 and 0.5 are wrong by 0.18 and by 0.5."""
    one, other = Reliability(), Reliability()
    one.table, other.table = torch.full((64,), 0.9), torch.full((64,), 0.5)
    place, sure = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    first, second = math.exp(-0.18 / 0.5), math.exp(-0.5 / 0.5)
    target, trust = fuse([place, place], [sure, sure], [one, other], temperature=0.5)
    assert target.item() == pytest.approx((0.9 * first + 0.5 * second) / (first + second), rel=1e-5)
    assert trust.item() == 1, "a place where damage is only a chance is a place all the same"
    target, trust = fuse([place, place], [0.1 * sure, 0.4 * sure], [one, other], temperature=0.5)
    assert target.item() == pytest.approx((0.09 * first + 0.2 * second) / (0.1 * first + 0.4 * second), rel=1e-5)
    assert trust.item() == pytest.approx(0.4)


def test_the_imitation_comes_to_the_mean_of_what_teachers_say() -> None:
    """Alike places, one of four damaged in their eyes: the median would say that none is."""
    logits, target, trust = torch.zeros(1, 1, 1, 4), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]]), torch.ones(1, 1, 1, 4)
    assert losses.HeatImitation()(logits, target, trust).item() == pytest.approx(math.log(2))
    said = torch.tensor(0.0, requires_grad=True)
    found = {}
    for chance in (0.01, 0.25, 0.5):
        logit = math.log(chance / (1 - chance))
        loss = losses.HeatImitation()(said + logit + logits, target, trust)
        (found[chance],) = torch.autograd.grad(loss, said)
    assert found[0.25].item() == pytest.approx(0, abs=1e-6)
    assert found[0.01] < 0 < found[0.5]
    only_sound = torch.tensor([[[[0.0, 1.0, 1.0, 0.5]]]])
    assert losses.HeatImitation()(logits - 2, target, only_sound).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_an_untrusted_place_says_nothing() -> None:
    said, target = torch.tensor([[[[0.2, 0.9]]]]), torch.tensor([[[[0.5, 0.0]]]])
    agreement = losses.WeightedAgreement()
    assert agreement(said, target, torch.tensor([[[[1.0, 0.0]]]])).item() == pytest.approx(0.3)
    assert agreement(said, target, torch.tensor([[[[1.0, 0.5]]]])).item() == pytest.approx((0.3 + 0.45) / 1.5)


def test_the_contrast_pulls_to_the_teacher_and_pushes_from_what_was_said_before() -> None:
    said, target, trust = torch.full((1, 1, 1, 2), 0.5), torch.full((1, 1, 1, 2), 0.9), torch.ones(1, 1, 1, 2)
    contrast = losses.DynamicContrast(floor=0.05)
    assert contrast(said, target, trust, said - 0.2).item() == pytest.approx(0.05 * 0.4 / 0.2)
    assert contrast(said, target, trust, said).item() == pytest.approx(0.4), "the push is bounded"
    sound = torch.cat([target, torch.zeros(1, 1, 1, 98)], dim=3)
    far = torch.cat([said, torch.zeros(1, 1, 1, 98)], dim=3)
    was = torch.cat([said - 0.2, torch.zeros(1, 1, 1, 98)], dim=3)
    few = contrast(far, sound, torch.ones_like(sound), was).item()
    assert few == pytest.approx(0.1), "many sound places do not drown what a few have learnt"


def test_focal_and_l1_over_the_images_whose_mask_is_known() -> None:
    logits, mask = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])
    known = torch.tensor([True, False])
    assert losses.FocalL1(gamma=2)(logits, mask, known).item() == pytest.approx(0.25 * math.log(2) + 0.5)
    assert losses.FocalL1()(logits, mask, torch.tensor([False, False])).item() == 0


def test_a_verdict_without_an_outline_is_of_the_hottest_places() -> None:
    logits = torch.tensor([[[[3.0, -9.0, -9.0, -9.0]]], [[[9.0, 9.0, 9.0, 9.0]]]])
    told = losses.ImageVerdict(share=0.25)(logits, torch.tensor([True, True]), torch.tensor([True, False]))
    assert told.item() == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)


# ── whom to believe ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_trust_is_learnt_on_masks() -> None:
    good, poor = Reliability(), Reliability()
    mask = (torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    good.learn(0.9 * mask, mask)
    poor.learn(torch.full_like(mask, 0.9), mask)
    hot = torch.full((1, 1, 1, 1), 0.9)
    assert poor.chance(hot).item() == pytest.approx(0.5, abs=0.1)
    assert good.chance(hot) > 0.85 and good.error(hot) < 0.2 < poor.error(hot)
    cold = torch.zeros(1, 1, 1, 1)
    sure = torch.ones_like(hot)
    target, trust = fuse([hot, cold], [sure, sure], [good, poor], temperature=0.05)
    unheard, _ = fuse([hot, cold], [0 * sure, sure], [good, poor], temperature=0.05)
    assert unheard.item() < target.item()
    assert target.item() > 0.7 and 0 < trust.item() <= 1
    assert average([hot, cold])[0].item() == pytest.approx(0.45)


def test_more_heat_is_never_less_chance() -> None:
    damaged, seen = torch.tensor([0.0, 3.0, 1.0, 4.0]), torch.full((4,), 4.0)
    assert rising(damaged, seen).tolist() == [0.0, 0.5, 0.5, 1.0]
    table = Reliability()
    heat = torch.linspace(0, 1, 1000).view(1, 1, 10, 100)
    table.learn(heat, (heat < 0.2).float())
    chance = table.chance(heat).flatten()
    assert (chance[1:] >= chance[:-1]).all()


# ── who may move what ────────────────────────────────────────────────────────────────────────────────────────────────


def student() -> RebuildStudent:
    made = small(head_width=8)
    made.fit_statistics([images(8)])
    return made


def batch(made: RebuildStudent, teachers: int = 1, channels: int = 6) -> stages.Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(4, 1, 16, 16)
    mask[:2, :, 4:9, 4:9] = 1
    told = {
        f"t{number}": PooledTeacherOutput(
            mask * 0.8 + 0.1, torch.ones_like(mask), torch.randn(4, channels, 4, 4, generator=generator)
        )
        for number in range(teachers)
    }
    yes = torch.ones(4, dtype=torch.bool)
    with torch.no_grad():
        evidence = made.compute_maps(images(4, seed=2)).head_inputs_BChw
    return stages.Batch(
        head_inputs_BChw=evidence,
        seen_B3HW=images(4, seed=2),
        sound_B3HW=images(4, seed=3),
        mask_B1mm=mask,
        outlined_B=yes,
        defective_B=mask.flatten(1).any(dim=1),
        judged_B=yes,
        drawn_B=yes,
        told=told,
        told_sound=told,
    )


def teachers(count: int = 1, channels: int = 6) -> dict[str, stages.TeacherInfo]:
    vectors = torch.nn.functional.normalize(torch.randn(2, channels, generator=torch.Generator().manual_seed(4)), dim=1)
    taught = {}
    for number in range(count):
        reliability = Reliability()
        mask = torch.zeros(1, 1, 32, 32)
        mask[..., :16, :] = 1
        # The first is right about heat of 0.9 and of 0.1; each further one is less so.
        reliability.learn((mask * 0.8 + 0.1).roll(4 * number, dims=2), mask)
        taught[f"t{number}"] = stages.TeacherInfo(channels=channels, classes_PC=vectors, reliability=reliability)
    return taught


def moved_by(name: str, made: RebuildStudent, *, loosen: bool = False) -> set[str]:
    """Parts of the student that get a gradient in a stage."""
    stage = stages.STAGES[name](
        made,
        teachers(),
        Distill(denoising_weight=0.5, tune_decoder=True, contrast_weight=1) if loosen else Distill(contrast_weight=1),
    )
    stage.freeze_rest()
    # As if the student looked anew at each step: what a stage does not freeze would move.
    shown = replace(batch(made), head_inputs_BChw=made.compute_maps(images(4, seed=2)).head_inputs_BChw)
    torch.stack(list(stage.losses(shown).values())).sum().backward()
    return {".".join(key.split(".")[:2]) for key, p in made.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_fit_never_reaches_the_heads() -> None:
    made = student().train()
    made.requires_grad_(True)  # nothing but the loss itself keeps them apart
    torch.stack(list(made.losses(images(4), images(4)).values())).sum().backward()
    with_gradient = {key.split(".")[0] for key, p in made.named_parameters() if p.grad is not None}
    assert {"neck", "decoder"} <= with_gradient and "heads" not in with_gradient


def test_each_stage_moves_its_own_parts_alone() -> None:
    assert moved_by("align", student()) == {"heads.trunk"}
    assert moved_by("supervise", student()) == {"heads.trunk", "heads.label"}
    assert moved_by("refine", student()) == {"heads.imitation"}
    made = student()
    assert moved_by("refine", made, loosen=True) == {"heads.imitation", "decoder.stages", "decoder.heads"}
    early = [p for stage in list(made.decoder.stages)[:-1] for p in stage.parameters()]
    assert all(p.grad is None for p in [*early, *made.neck.parameters(), *made.encoder.parameters()])


def test_heads_change_nothing_before_they_have_a_voice() -> None:
    plain, with_heads = small().eval(), small(head_width=8).eval()
    assert torch.equal(plain(images()).heatmap_B1HW, with_heads(images()).heatmap_B1HW)


def move_away(made: RebuildStudent) -> None:
    """From what its imitation head used to say, without any training."""
    assert made.heads is not None
    with torch.no_grad():
        for parameter in made.heads.imitation.parameters():
            parameter += 1


def test_the_contrast_is_with_what_the_student_used_to_say() -> None:
    made = student()
    assert made.heads is not None
    stage = stages.STAGES["refine"](made, teachers(), Distill(contrast_weight=1))
    stage.freeze_rest()
    made.heads.eval()  # nothing at random between two looks
    unmoved = stage.losses(batch(made))["contrast"].item()
    before = {key: value.clone() for key, value in made.heads.named_parameters()}
    move_away(made)
    moved = stage.losses(batch(made))["contrast"].item()
    assert moved < 0.7 * unmoved, "away from what it said, the push divides"
    stage.after_step()
    earlier = dict(stage.auxiliary["earlier"].named_parameters())
    for key, now in made.heads.named_parameters():
        assert torch.allclose(earlier[key], 0.99 * before[key] + 0.01 * now, atol=1e-6), key
    for _ in range(1000):
        stage.after_step()
    assert stage.losses(batch(made))["contrast"].item() > 1.3 * moved, "the earlier student has caught up"


def test_the_imitation_head_says_what_unsure_teachers_see() -> None:
    """Where a teacher is hot, four of ten places are damaged: so much the head must say there, neither nothing nor all."""
    made, told = student(), teachers()
    assert made.heads is not None
    told["t0"].reliability.table = torch.linspace(0, 1, 64).pow(8)
    shown = batch(made)
    heat = shown.mask_B1mm * 0.89
    chance = told["t0"].reliability.chance(heat)
    assert 0.35 < chance.max() < 0.45
    evidence = shown.head_inputs_BChw
    assert evidence is not None
    bump = torch.nn.functional.adaptive_avg_pool2d(shown.mask_B1mm, evidence.shape[-1])
    evidence = evidence + evidence.std() * bump
    shown = replace(shown, head_inputs_BChw=evidence, told={"t0": shown.told["t0"]._replace(heat_B1mm=heat)})
    made.heads.fit_normalisation(evidence)
    stage = stages.STAGES["refine"](made, told, Distill())
    optimizer = torch.optim.AdamW(stage.freeze_rest(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        torch.stack(list(stage.losses(shown).values())).sum().backward()
        optimizer.step()
        stage.after_step()
    stage.finish()
    said = stage.answers(shown).imitation_B1mm.sigmoid()
    assert 0.15 < said[shown.mask_B1mm > 0].mean() < 0.45
    assert said[shown.mask_B1mm == 0].mean() < 0.03


def test_two_heads_and_the_discrepancy_are_added_as_their_voices_say() -> None:
    made = student().eval()
    assert made.heads is not None
    answers = HeadOutputs(torch.full((1, 1, 8, 8), 1.0), torch.full((1, 1, 8, 8), -2.0), torch.zeros(1, 8, 4, 4))
    made.heads.blend_weights.copy_(torch.tensor([[2.0, 3.0, 5.0], [1.0, 0.5, 0.25]]))
    discrepancy = torch.full((1, 1, 4, 4), 0.1)
    label, imitation = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))
    for use, (first, second, third) in enumerate(made.heads.blend_weights.tolist()):
        blended = made._blended(discrepancy, answers, use)
        assert blended.shape == discrepancy.shape
        assert blended.mean().item() == pytest.approx(first * 0.1 + second * label + third * imitation, rel=1e-5)
    # The discrepancy counts 1 where it is as hot as 199 of 200 places of sound parts are not.
    sound = [images(4, seed=5), images(4, seed=6)]
    where, _ = made._weights()
    with torch.no_grad():
        places = torch.cat(
            [made.smooth(rebuild._weighted(made.compute_maps(each).maps, where)).flatten() for each in sound]
        )
    made.fit_blend(sound, (1.0, 3.0, 0.5), (2.0, 0.5, 0.25))
    rare = float(np.quantile(places.numpy(), 0.995))
    assert made.heads.blend_weights.flatten().tolist() == pytest.approx(
        [1 / rare, 3, 0.5, 2 / rare, 0.5, 0.25], rel=1e-5
    )


def test_losses_of_two_steps_are_what_they_were(request: pytest.FixtureRequest) -> None:
    """Golden: whatever changes these numbers changes every distilled student."""
    torch.set_num_threads(1)
    made, found = student(), {}
    for name in stages.STAGES:
        stage = stages.STAGES[name](
            made, teachers(2), Distill(denoising_weight=0.5, tune_decoder=True, contrast_weight=1)
        )
        optimizer = torch.optim.AdamW(stage.freeze_rest(), lr=1e-2)
        if name == "refine":
            move_away(made)
        for _ in range(2):
            torch.manual_seed(0)
            terms = stage.losses(batch(made, 2))
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            stage.after_step()
            for key, value in terms.items():
                found.setdefault(f"{name}/{key}", []).append(round(value.item(), 4))
        stage.finish()
    path = Path(__file__).parent / "golden" / "distill_losses.json"
    if request.config.getoption("--update-golden"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    golden = json.loads(path.read_text())
    assert found.keys() == golden.keys()
    for key, values in golden.items():
        assert found[key] == pytest.approx(values, rel=2e-3, abs=2e-4), key


# ── teachers are asked once ──────────────────────────────────────────────────────────────────────────────────────────


def remembering(parts: int = 6, **changes: object) -> memory.Teacher:
    torch.manual_seed(0)
    made = memory.build(memory.Config(encoder="embedded", **({"rows": 128} | changes)), 64)
    rng = np.random.default_rng(0)
    base = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
    lessons = [
        TeacherSample(
            image=np.clip(base + rng.integers(-5, 5, base.shape), 0, 255).astype(np.uint8), mask=None, part=part
        )
        for part in range(parts)
    ]
    steps = list(made.fit(lessons, epochs=0, batch=4, rate=1e-3, seed=0))
    assert len(steps) == made.count_steps(parts, epochs=0, batch=4)
    return made.eval()


def test_the_memory_is_hot_where_no_sound_part_was_like_it() -> None:
    made = remembering(rows=4096)
    sound = np.clip(np.random.default_rng(0).integers(90, 130, (64, 64, 3)), 0, 255).astype(np.uint8)
    damaged = sound.copy()
    damaged[20:36, 20:36] = (250, 20, 20)
    heatmap = made.predict([sound, damaged]).heatmap_B1HW
    assert heatmap.min() >= 0 and heatmap.max() <= 1
    far = made._map(made._tensor([damaged]))[0, 0]
    assert far[6:8, 6:8].mean() > 1.5 * far[12:, 12:].mean()


def test_a_part_that_one_bank_holds_is_judged_by_the_other() -> None:
    made = remembering(rows=4096)
    rng = np.random.default_rng(0)
    base = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
    known = np.clip(base + rng.integers(-5, 5, base.shape), 0, 255).astype(np.uint8)
    with torch.no_grad():
        patches = made.patches(made._tensor([known]))
        own, other = (memory.distance_map(patches, made._bank(bank), 64).mean() for bank in range(2))
    assert own < 1e-3 < other
    assert made._map(made._tensor([known])).mean() > 0.5 * other


def test_a_coreset_leaves_no_sound_place_far_from_all_that_is_kept() -> None:
    """A thousand rows alike and three that are rare: a random choice of eight forgets rare ones, a coreset does not."""
    torch.manual_seed(0)
    usual = torch.tensor([1.0, 0.0, 0.0]) + 0.01 * torch.randn(1000, 3)
    rows = torch.nn.functional.normalize(torch.cat([usual, torch.eye(3), -torch.eye(3)[:1]]), dim=1)
    kept = coreset(rows, 8)
    assert len(set(kept.tolist())) == 8
    assert {1001, 1002, 1003} <= set(kept.tolist())
    far = (1 - rows @ rows[kept].T).amin(dim=1)
    assert far.max() < 0.01
    greedy, at_random = remembering(rows=24, coreset=True), remembering(rows=24, coreset=False)
    assert greedy.usual < at_random.usual, "sound places are nearer to what is remembered"


def test_far_from_sound_is_no_doubt() -> None:
    """A memory's heat of a half is five times as far as the rarest of sound places: what it means, drawn defects tell."""
    sound = np.random.default_rng(0).integers(90, 130, (64, 64, 3), dtype=np.uint8)
    damaged = [sound.copy() for _ in range(4)]
    for number, image in enumerate(damaged):
        image[20:36, 20:36] += np.uint8(10 * number)
    glance = remembering().predict(damaged)
    between = (glance.heatmap_B1HW > 0.1) & (glance.heatmap_B1HW < 0.9)
    assert between.any() and glance.confidence_B1HW[between].min() == 1


@pytest.mark.parametrize("sound", [8, 10, 20, 40, 64, 127, 128, 129])
def test_trust_is_learnt_from_both_kinds_however_many_parts_there_are(sound: int) -> None:
    """Damaged and untouched ones stand by turns; a step of even length could find one kind alone."""
    lessons = 8 * sound
    chosen = reliability_samples(lessons)
    damaged = sum(number % 2 for number in chosen)
    assert len(set(chosen)) == len(chosen) == min(256, lessons)
    assert 0.4 < damaged / len(chosen) < 0.6


def test_whoever_studies_first_has_studied_for_all(
    distilled: Path, home: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings that begin together want one teacher; neither sees half a run of the other's."""
    recipe = load_recipe(str(distilled / "recipe.yaml"))
    made = next(home.glob("*-tiny_memory-*"))
    there = tmp_path / made.name

    def another_is_faster(teacher: Recipe, data: DataSet, folder: RunFolder, **how: object) -> RunFolder:
        assert folder.path != there
        shutil.copytree(made, there)
        return real_study(teacher, data, folder, **how)  # type: ignore[arg-type]

    real_study = teach_module.teach
    monkeypatch.setattr(teachers_module, "teach", another_is_faster)
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    assert set(ready(recipe.distill.teachers, recipe, open_dataset(parts), tmp_path, Hardware(), NoProgress()))
    assert {path.name: path.read_bytes() for path in there.iterdir()} == files
    assert [path.name for path in tmp_path.iterdir()] == [made.name], "nothing half done is left"


def test_a_taught_run_is_a_start_unless_its_decoder_was_moved(distilled: Path, parts: Path, tmp_path: Path) -> None:
    """S3 moves its own head alone, so labels can be added to what teachers have taught; with `tune_decoder` it moves the decoder."""
    recipe = load_recipe(str(distilled / "recipe.yaml"), [f"distill.start={json.dumps(str(distilled))}"])
    data = open_dataset(parts)
    assert recipe.distill.tune_decoder
    with pytest.raises(UsageError, match="moved the decoder"):
        fitted_student(recipe, data)
    held = shutil.copytree(distilled, tmp_path / "held")
    rewrite_recipe(held, lambda told: told["distill"].update(tune_decoder=False, denoising_weight=0.0))
    start = [f"distill.start={json.dumps(str(held))}"]
    assert fitted_student(load_recipe(str(held / "recipe.yaml"), start), data).heads is not None


def test_a_training_goes_on_with_the_labels_that_it_began_with(parts: Path, tmp_path: Path) -> None:
    data, labelled = open_dataset(parts), tmp_path / "labelled" / "torn"
    labelled.mkdir(parents=True)
    line = open_dataset(draw_sample(tmp_path / "line", 7, size=64, train=6, test_good=1, per_kind=2))
    first, second = defects(line)[:2]
    shutil.copy(first.image, labelled / "1.png")
    changes = [*TINY, "student.head_width=8", "distill.supervise.steps=4", "distill.variants=2"]
    recipe = load_recipe("embedded", [*changes, f"distill.labelled={json.dumps(str(tmp_path / 'labelled'))}"])
    folder = RunFolder(tmp_path / "r")

    class Stopped(NoProgress):
        def phase(self, name: str, total: int, done: int = 0) -> None:
            if name == "supervise":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, data, folder, hardware=Hardware(), progress=Stopped())
    shutil.copy(second.image, labelled / "2.png")
    with pytest.raises(BadInput, match="labelled or unlabelled parts have changed"):
        fit(recipe, data, folder, hardware=Hardware(), progress=NoProgress(), resume=True)
    (labelled / "2.png").unlink()
    assert fit(recipe, data, folder, hardware=Hardware(), progress=NoProgress(), resume=True).complete


def test_a_teacher_studies_as_it_must_however_its_student_trains(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny_memory.yaml").write_text(json.dumps(RECIPE))
    named = f"distill.teachers={json.dumps([str(tmp_path / 'tiny_memory.yaml')])}"
    recipe, data = load_recipe("embedded", [*TINY, *CHAIN, named]), open_dataset(parts)

    class Stopped(NoProgress):
        def phase(self, name: str, total: int, done: int = 0) -> None:
            if name == "train":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            recipe,
            data,
            RunFolder(tmp_path / "r"),
            hardware=Hardware(workers=1, precision="bf16-mixed"),
            progress=Stopped(),
        )
    assert len(list(tmp_path.glob("*-tiny_memory-*/run.json"))) == 1


def test_what_tells_one_study_from_another(distilled: Path, home: Path, parts: Path, tmp_path: Path) -> None:
    """What an ablation's finished arm is known by: a teacher that has studied otherwise is another one."""
    data, student = open_dataset(parts), load_recipe(str(distilled / "recipe.yaml"))
    run, named = str(next(home.glob("*-tiny_memory-*"))), str(tmp_path / "tiny_memory.yaml")
    Path(named).write_text(json.dumps(RECIPE))
    first = studies([named, run], student, data)
    assert studies([named, run], student, data) == first
    Path(named).write_text(json.dumps(RECIPE | {"teacher": {"build": "memory", "encoder": "embedded", "rows": 255}}))
    other = studies([named, run], student, data)
    assert other[named] != first[named] and other[run] == first[run]


def test_a_second_look_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_CACHE", str(tmp_path))
    teacher = remembering()
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
    first = CachedTeacher("m", teacher, grid=16)
    assert first.ensure_cached(pictures) == 3
    told = first.predict(pictures, torch.device("cpu"))
    again = CachedTeacher("m", teacher, grid=16)
    monkeypatch.setattr(teacher, "predict", lambda images: pytest.fail("asked again"))
    assert again.ensure_cached(pictures) == 0
    assert all(torch.equal(a, b) for a, b in zip(told, again.predict(pictures, torch.device("cpu")), strict=True))
    assert told.heat_B1mm.shape == (3, 1, 16, 16) and told.tokens_BChw.shape[-1] <= 14


def test_who_has_learnt_something_else_is_somebody_else() -> None:
    one, other = remembering(), remembering(parts=7)
    assert identity(one) == identity(one) != identity(other)


def test_a_students_settings_let_no_teacher_study_again(parts: Path) -> None:
    data, teacher = open_dataset(str(parts)), load_recipe("memory")
    student = load_recipe("embedded")
    otherwise = load_recipe("embedded", ["distill.batch=7", "fit.steps=9"])
    bigger = load_recipe("memory", ["data.size=320"])
    first = _identity(_seeing_alike(teacher, student), data)
    assert _identity(_seeing_alike(teacher, otherwise), data) == first
    assert _identity(_seeing_alike(bigger, student), data) != first


# ── the whole way ────────────────────────────────────────────────────────────────────────────────────────────────────


def chain(parts: Path, out: Path, *more: str) -> list[str]:
    (out / "tiny_memory.yaml").write_text(json.dumps(RECIPE))
    sets = [word for setting in CHAIN for word in ("--set", setting)]
    return [*command(parts, out, "--teachers", str(out / "tiny_memory.yaml")), *sets, *more]


def own_cache(home: Path) -> dict[str, str]:
    return os.environ | {"INSPECT_KD_CACHE": str(home / "cache")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distilled")


@pytest.fixture(scope="module")
def distilled(parts: Path, home: Path) -> Path:
    answer = subprocess.run(chain(parts, home), capture_output=True, text=True, check=False, env=own_cache(home))
    assert answer.returncode == 0, answer.stderr
    phases = {json.loads(line).get("phase") for line in answer.stderr.splitlines() if line.startswith("{")}
    assert {"study", "train", "look: tiny_memory", "align", "supervise", "refine"} <= phases
    return home / "r"


def test_a_teacher_that_has_seen_defects_of_other_parts_is_refused(
    distilled: Path, home: Path, parts: Path, tmp_path: Path
) -> None:
    """They could be of this test. A teacher that has seen sound parts only is taken, and it is said."""
    run = next(home.glob("*-tiny_memory-*"))
    fewer = open_dataset(parts).only("metal")
    recipe = load_recipe(str(distilled / "recipe.yaml"))
    told = Loud()
    assert set(ready([str(run)], recipe, fewer, tmp_path, Hardware(), told)) == {"tiny_memory"}
    assert any("it studied other parts than these" in line for line in told.said)
    copied = shutil.copytree(run, tmp_path / "studied")
    rewrite_recipe(copied, lambda told: told["teach"].update(labelled="found/"))
    with pytest.raises(UsageError, match="studied real defects beside other parts"):
        ready([str(copied)], recipe, fewer, tmp_path, Hardware(), NoProgress())


def rewrite_recipe(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """As if the run had been made with it."""
    told = yaml.safe_load((run / "recipe.yaml").read_text())
    change(told)
    (run / "recipe.yaml").write_text(yaml.safe_dump(told))
    manifest = json.loads((run / "run.json").read_text())
    manifest["files"]["recipe.yaml"] = weights.sha256(run / "recipe.yaml")
    (run / "run.json").write_text(json.dumps(manifest))


class Loud(NoProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_every_stage_is_told_and_counted(distilled: Path) -> None:
    lines = [json.loads(line) for line in (distilled / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 24 + 3 * STEPS + 1))
    by_stage = {name: [line for line in lines if line.get("stage") == name] for name in stages.STAGES}
    assert all(len(found) == STEPS for found in by_stage.values())
    assert {"tiny_memory_tokens", "tiny_memory_relations"} <= by_stage["align"][0].keys()
    assert "label" in by_stage["supervise"][0]
    assert {"imitate", "contrast", "tiny_memory_stream", "rebuild"} <= by_stage["refine"][0].keys()
    manifest = json.loads((distilled / "run.json").read_text())
    looked = manifest["taught_by"]["tiny_memory"]
    assert looked["looked_at"] == looked["images"] > 0 and looked["cache_mb"] > 0
    card = Inspector(distilled / "r.onnx").card
    assert card.licences["taught by embedded"] == "Apache-2.0", "what the student follows from is told, not shipped"
    assert manifest["stages"] == dict.fromkeys(stages.STAGES, STEPS)


def test_the_student_ships_alone(distilled: Path, parts: Path) -> None:
    names = {path.name for path in distilled.iterdir()}
    assert not any("teacher" in name or "memory" in name for name in names)
    state = load_file(distilled / "student.safetensors")
    assert {key.split(".")[0] for key in state} <= {
        *("encoder", "feature_norm", "memories", "neck", "decoder", "heads"),
    }
    graph = onnx.load(distilled / "r.onnx").graph
    assert not [
        i.name for i in graph.initializer if "tiny_memory" in i.name or "patches" in i.name or "project" in i.name
    ]
    alone = (
        "import sys; sys.modules['torch'] = None\n"
        "from inspect_kd import Inspector\n"
        "print(Inspector(sys.argv[1])(sys.argv[2]).score)\n"
        "assert not [m for m in sys.modules if m.startswith(('inspect_kd.distill', 'inspect_kd.models'))]"
    )
    image = next(parts.rglob("test/good/*.png"))
    words = [sys.executable, "-c", alone, str(distilled / "r.onnx"), str(image)]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) > 0


def test_a_killed_distillation_resumes_to_the_same_student(distilled: Path, parts: Path, tmp_path: Path) -> None:
    """Killed inside a stage after the fit; the teacher's run and its answers are found again."""
    wanted = 24 + STEPS + 2
    words = [*chain(parts, tmp_path), "--set", "fit.checkpoint_every=1"]
    killed = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=own_cache(tmp_path))
    log, deadline = tmp_path / "r" / "metrics.jsonl", time.monotonic() + 240
    while time.monotonic() < deadline and not (log.is_file() and len(log.read_text().splitlines()) >= wanted):
        assert killed.poll() is None, "the training ended before it could be killed"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    answer = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False, env=own_cache(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert "resuming at step" in answer.stderr and "all were known" in answer.stderr
    first, second = load_file(distilled / "student.safetensors"), load_file(tmp_path / "r" / "student.safetensors")
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_a_fit_is_taken_over(distilled: Path, run: Path, parts: Path, tmp_path: Path) -> None:
    """The heads of the new run are taught; decoder and prototypes are the old run's."""
    sets = [
        word for setting in ("student.head_width=8", f"distill.supervise.steps={STEPS}") for word in ("--set", setting)
    ]
    answer = subprocess.run(
        [*command(parts, tmp_path, "--start", str(run)), *sets], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    old, new = load_file(run / "student.safetensors"), load_file(tmp_path / "r" / "student.safetensors")
    assert all(torch.equal(old[key], new[key]) for key in old)
    where, whether = new["heads.blend_weights"].tolist()
    assert where[1:] == [3.0, 0.0] and whether[1:] == [0.5, 0.0] and where[0] == whether[0] > 0
    other = subprocess.run(
        [*command(parts, tmp_path, "--start", str(run), "--name", "o"), *sets, "--set", "student.dims=[32, 16, 16]"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 2 and "another student" in other.stderr


def test_held_out_parts_teach_nobody_under_any_name(parts: Path, tmp_path: Path) -> None:
    data = open_dataset(parts)
    for split in (Split.TEST, Split.CALIBRATION, Split.VALIDATION):
        held_out = data.select(split)[0].image
        folder = tmp_path / str(split)
        folder.mkdir()
        shutil.copy(held_out, folder / "001_renamed.png")
        with pytest.raises(UsageError, match=f"held out \\({split}\\)"):
            unlabelled_parts(Distill.model_construct(unlabelled=str(folder), max_samples=10), data, None, NoProgress())
    defect = defects(data)[0]
    labelled = tmp_path / "labelled"
    for kind in ("good", "scratch"):
        (labelled / kind).mkdir(parents=True)
    shutil.copy(data.select(Split.TRAIN)[0].image, labelled / "good" / "a.png")
    shutil.copy(defect.image, labelled / "scratch" / "b.png")
    with pytest.raises(UsageError, match="cannot be measured by it"):
        labelled_parts(Distill.model_construct(labelled=str(labelled)), data)


def test_real_parts_are_found_before_anything_is_trained(parts: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        chain(parts, tmp_path, "--labelled", str(tmp_path / "nowhere")), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 3 and "nowhere" in answer.stderr and '"phase": "train"' not in answer.stderr


def test_labelled_and_unlabelled_parts_take_part(parts: Path, tmp_path: Path) -> None:
    """Another drawing of the same parts plays the line; one of its images is torn."""
    line = draw_sample(tmp_path / "line", 7, size=64, train=6, test_good=1, per_kind=1)
    for image in line.rglob("*_mask.png"):
        image.unlink()
    shutil.rmtree(line / "bottle" / "ground_truth", ignore_errors=True)
    labelled = tmp_path / "labelled"
    for sample in [s for s in open_dataset(line).samples if s.category == "bottle"]:
        (labelled / sample.kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.image, labelled / sample.kind)
    shutil.rmtree(labelled / "good", ignore_errors=True)
    unlabelled = line / "metal" / "test"
    (unlabelled / "torn.png").write_bytes(b"no image")
    words = chain(parts, tmp_path, "--labelled", str(labelled), "--unlabelled", str(unlabelled))
    answer = subprocess.run(words, capture_output=True, text=True, check=False, env=own_cache(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert "left out" in answer.stderr and "torn.png" in answer.stderr
    manifest = json.loads((tmp_path / "r" / "run.json").read_text())
    assert manifest["labelled"] > 0 and manifest["unlabelled"] > 0
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert any("verdict" in line for line in lines), "nobody has outlined them: the part as a whole is learnt"
    card = (tmp_path / "r" / "r.onnx").read_bytes()
    assert str(labelled).encode() not in card and b"tiny_memory" not in card, "neither folders nor teachers' names"
    assert "labelled parts took part" in (tmp_path / "r" / "report.html").read_text()


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="head_width"):
        load_recipe("embedded", ["distill.supervise.steps=5", "student.head_width=0"])
    with pytest.raises(UsageError, match="need `teachers:`"):
        load_recipe("embedded", ["distill.align.steps=5", "student.head_width=8", "distill.teachers=[]"])
    taught = list(ablate.taught_by(["memory"]))
    for changes, message in (
        (["distill.denoising_weight=0.5"], "set tune_decoder to true"),
        (["distill.refine.steps=0"], "nobody would listen"),
        (["distill.blend=[1, 3, 0]"], "would count nothing"),
        (["distill.supervise.steps=0", "distill.labelled=found/"], "no stage learns labels"),
    ):
        with pytest.raises(UsageError, match=message):
            load_recipe("embedded", [*taught, *changes])
    from inspect_kd.datasets import list_images

    with pytest.raises(BadInput, match="no such folder"):
        list_images(tmp_path / "none")


def test_a_pool_keeps_what_is_known_and_shows_labels_where_there_are_any(parts: Path, tmp_path: Path) -> None:
    data = open_dataset(parts)
    outlined, bare = (Sample(image=s.image, category=s.category, kind=s.kind, mask=s.mask) for s in defects(data)[:2])
    recipe = load_recipe(
        "embedded", ["data.size=64", "distill.variants=2", "distill.max_samples=10", "data.flip=horizontal"]
    )
    pool = DistillDataset(
        recipe,
        data,
        side=64,
        grid=16,
        real=RealParts([Sample(image=outlined.image, category="")], [outlined, replace(bare, mask=None)]),
    )
    assert len(pool) == 10 + 1 + 2 * 2
    drawn = [pool.known(number) for number in range(10)]
    assert all(known.outlined and known.mask_1mm.any() == known.defective for known in drawn)
    nobody, real, mirrored, unlined = (pool.known(number) for number in (10, 11, 12, 13))
    assert nobody.defective is None and not nobody.outlined
    assert real.defective and real.outlined and torch.equal(real.mask_1mm.flip(-1), mirrored.mask_1mm)
    assert unlined.defective and not unlined.outlined
    rng = np.random.default_rng(0)
    taught = [pool.draw(8, rng, taught=True) for _ in range(50)]
    assert all(sum(n < 10 for n in numbers) == 4 and sum(n == 10 for n in numbers) == 2 for numbers in taught)
    untaught = pool.draw(8, rng, taught=False)
    assert 10 not in untaught and sum(n > 10 for n in untaught) == 2
    batch = pool.batch([0, 10, 13], {}, torch.device("cpu"))
    assert batch.outlined_B.tolist() == [True, False, False] and batch.judged_B.tolist() == [True, False, True]


def test_a_thin_defect_does_not_vanish_between_cells() -> None:
    mask = np.zeros((64, 64), bool)
    mask[20, 20] = True
    assert cells(mask, 16).sum() == 1


def defects(data: DataSet) -> list[Sample]:
    return [sample for sample in data.select(Split.TEST) if sample.mask is not None]


def test_the_ablation_starts_all_arms_from_one_fit(parts: Path, tmp_path: Path) -> None:
    """Two arms, one seed, through the command line; a second call does nothing again."""
    (tmp_path / "tiny_memory.yaml").write_text(json.dumps(RECIPE))
    recipe = yaml.safe_load(zoo.find("models", "embedded").read_text())
    recipe["student"] |= {"dims": [24, 16, 16], "neck": 16, "bottleneck": 1, "heads": 2, "head_width": 8}
    recipe["student"]["compare"] = [{"strides": [16], "prototypes": 16}]
    recipe |= {"name": "tiny", "data": {"size": 64}, "fit": {"steps": 6, "batch": 4, "evaluate_every": 3}}
    recipe["distill"] = {"variants": 2, "most": 12, "batch": 4}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    data = open_dataset(parts)
    chosen = [arm for arm in ablate.arms([str(tmp_path / "tiny_memory.yaml")], None) if arm.name in {"fit", "drawn"}]
    short = [replace(arm, changes=tuple(c.replace("1500", "3") for c in arm.changes)) for arm in chosen]
    results = ablate.ablate(str(tmp_path / "tiny.yaml"), data, short, [0], tmp_path / "out", NoProgress())
    assert set(results) == {"fit", "drawn"}
    fit, drawn = results["fit"][0], results["drawn"][0]
    assert fit["metrics"] != drawn["metrics"] and drawn["stages"] == {"supervise": 3}
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("result.json")}
    assert len(files) == 2
    assert ablate.ablate(str(tmp_path / "tiny.yaml"), data, short, [0], tmp_path / "out", NoProgress()) == results
    assert all(path.stat().st_mtime_ns == when for path, when in files.items())
    for key, other in (("real", "another folder's"), ("teachers", {"memory": "another study's"})):
        told = json.loads((tmp_path / "out" / "seed0" / "drawn" / "result.json").read_text())
        (tmp_path / "out" / "seed0" / "drawn" / "result.json").write_text(json.dumps(told | {key: other}))
        again = ablate.ablate(str(tmp_path / "tiny.yaml"), data, short, [0], tmp_path / "out", NoProgress())["drawn"][0]
        assert again[key] == drawn[key] and again["metrics"] == drawn["metrics"], "done anew"
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe | {"fit": recipe["fit"] | {"steps": 5}}))
    with pytest.raises(UsageError, match="was fitted otherwise"):
        ablate.ablate(str(tmp_path / "tiny.yaml"), data, short, [0], tmp_path / "out", NoProgress())
    page = ablate.write(tmp_path / "page", short, results, environment("cpu")).read_text()
    gain = drawn["metrics"]["mean"]["pixel_ap"] - fit["metrics"]["mean"]["pixel_ap"]
    row = next(
        line for line in page.splitlines() if line.startswith("| drawn | S2: a head that learns drawn defects |")
    )
    assert f" / {gain:+.3f} / " in row
    looks = {"looked_at": 12, "images": 12, "images_a_second": 3.21, "cache_mb": 4.4, "licences": {}}
    taught = drawn | {"taught_by": {"memory": looks}}
    again = taught | {"seed": 1, "taught_by": {"memory": looks | {"looked_at": 0}}}
    page = ablate.write(tmp_path / "page", short, results | {"drawn": [taught, again]}, environment("cpu")).read_text()
    assert "| memory | 12 | 3.2 | 4 | 1 of 2 |" in page


@pytest.mark.parametrize("model", ["omni_ad", "embedded", "ras", "omni_ras"])
def test_every_student_can_listen(model: str, tmp_path: Path) -> None:
    """What teachers and labels need is added, what a recipe has is left; each arm is a recipe of each student."""
    for names, labelled in ((["memory"], None), ([], "labels/"), (["memory"], "labels/")):
        changes = with_options(model, names, None, labelled, None)
        recipe = load_recipe(model, changes)
        assert recipe.student["head_width"] == 32 and recipe.distill.supervise.steps == 1500
        assert bool(recipe.distill.refine.steps) is bool(names) and recipe.distill.labelled == labelled
        assert recipe.distill.blend == ((1.0, 1.5, 1.5) if names else (1.0, 3.0, 0.0))
    assert with_options(model, [], None, None, None) == []
    own = tmp_path / "own.yaml"
    own.write_text(load_recipe(model, ["student.head_width=8", "distill.supervise.steps=7"]).to_yaml())
    assert load_recipe(str(own), with_options(str(own), [], None, "labels/", None)).distill.supervise.steps == 7
    for arm in ablate.arms(["memory"], "line/"):
        load_recipe(model, list(arm.changes))


def test_arms_are_as_many_as_there_is_to_compare() -> None:
    assert [arm.name for arm in ablate.arms([], None)] == ["fit", "drawn"]
    names = [arm.name for arm in ablate.arms(["a", "b"], "line/")]
    assert {"a", "b", "a, at its word", "all teachers", "contrast", "unlabelled"} <= set(names)


@pytest.mark.gpu
def test_the_chain_runs_on_a_gpu(parts: Path, tmp_path: Path) -> None:
    """Teachers, stages and trust on CUDA; not run where this was written."""
    words = chain(parts, tmp_path, "--device", "cuda")
    answer = subprocess.run(words, capture_output=True, text=True, check=False, env=own_cache(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert json.loads((tmp_path / "r" / "env.json").read_text())["device"].startswith("cuda")


@pytest.mark.parametrize("stage", list(stages.STAGES))
def test_stages_take_parts_of_every_kind_in_one_batch(stage: str) -> None:
    """Drawn and known; unlabelled, of which nothing is known; labelled without an outline."""
    made = student()
    mixed = replace(
        batch(made),
        drawn_B=torch.tensor([True, True, False, False]),
        outlined_B=torch.tensor([True, True, False, False]),
        judged_B=torch.tensor([True, True, False, True]),
        defective_B=torch.tensor([True, False, False, True]),
    )
    taught = stages.STAGES[stage](made, teachers(), Distill(denoising_weight=0.5, tune_decoder=True, contrast_weight=1))
    taught.freeze_rest()
    terms = taught.losses(mixed)
    assert all(torch.isfinite(term) for term in terms.values())
    assert ("verdict" in terms) is (stage != "align")


def test_a_stage_leaves_the_statistics_of_sound_parts_alone() -> None:
    """S1 and S2 change no number of the body; S3 those of the decoder's last part, from sound parts only."""
    for name in stages.STAGES:
        made = student()
        evidence = batch(made)
        before = {key: value.clone() for key, value in made.state_dict().items()}
        stage = stages.STAGES[name](
            made, teachers(), Distill(denoising_weight=0.5, tune_decoder=True, contrast_weight=1)
        )
        optimizer = torch.optim.SGD(stage.freeze_rest(), lr=0.1)
        torch.stack(list(stage.losses(evidence).values())).sum().backward()
        optimizer.step()
        changed = {key for key, value in made.state_dict().items() if not torch.equal(value, before[key])}
        body = {key for key in changed if not key.startswith("heads.")}
        assert changed, name
        assert not {key for key in changed if key.startswith("heads.input_norm")}, name
        last = len(list(made.decoder.stages)) - 1
        allowed = (f"decoder.stages.{last}.", "decoder.heads.") if name == "refine" else ()
        assert all(key.startswith(allowed) for key in body) if allowed else not body, (name, body)


def test_the_evidence_comes_to_one_scale() -> None:
    made = student()
    heads = made.heads
    assert heads is not None
    known = made.compute_maps(images(8)).head_inputs_BChw
    assert known is not None
    heads.fit_normalisation(known.detach().half())
    even = heads.input_norm(known)
    assert even.mean(dim=(0, 2, 3)).abs().max() < 0.1
    spread = even.std(dim=(0, 2, 3))
    assert 0.8 < spread.median() < 1.2
    heads.train()
    assert not heads.input_norm.training, "its numbers are settled, not learnt on the way"
