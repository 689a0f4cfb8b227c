"""The stages: which modules of the student each one trains, and with which losses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inspect_kd.config import Distill
from inspect_kd.distill.stages import STAGES, HeadStage, RefineDecoder, RefineHead, build_stage
from inspect_kd.models import scoring
from inspect_kd.models.layers.heads import HeadOutputs
from inspect_kd.models.rebuild import RebuildStudent
from tests.distill.builders import (
    EVERYTHING_ON,
    cached_batch,
    head_inputs,
    labels,
    live_batch,
    student_with_heads,
    teacher_infos,
)
from tests.small_models import images, small

GOLDEN = Path(__file__).parents[1] / "golden" / "distill_losses.json"


def losses_of(stage: HeadStage | RefineDecoder, student: RebuildStudent, teachers: int = 1) -> dict[str, Tensor]:
    if isinstance(stage, RefineDecoder):
        return stage.losses(live_batch(teachers))
    return stage.losses(cached_batch(student, teachers))


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def modules_with_gradient(name: str, student: RebuildStudent, settings: Distill) -> set[str]:
    """Modules of the student that get a gradient in a stage."""
    stage = build_stage(name, student, teacher_infos(), settings)
    stage.select_trainable()
    if isinstance(stage, RefineDecoder):
        terms = stage.losses(live_batch())
    else:
        # Head inputs with a gradient show whether the stage has frozen the body.
        terms = stage.losses(replace(cached_batch(student), head_inputs_BChw=head_inputs(student)))
    total(terms).backward()
    return {
        ".".join(key.split(".")[:2]) for key, p in student.named_parameters() if p.grad is not None and p.grad.any()
    }


def shift_imitation_head(student: RebuildStudent) -> None:
    """Change the head's output without training."""
    assert student.heads is not None
    with torch.no_grad():
        for parameter in student.heads.imitation.parameters():
            parameter.add_(1)


# ── what is trained ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_fit_does_not_reach_the_heads() -> None:
    student = student_with_heads().train()
    student.requires_grad_(True)  # heads that are frozen would get no gradient from any loss
    total(student.losses(images(4), images(4))).backward()
    with_gradient = {key.split(".")[0] for key, p in student.named_parameters() if p.grad is not None}
    assert {"neck", "decoder"} <= with_gradient and "heads" not in with_gradient


@pytest.mark.parametrize(
    ("name", "modules"),
    [("align", {"heads.trunk"}), ("supervise", {"heads.trunk", "heads.label"}), ("refine", {"heads.imitation"})],
)
def test_stage_trains_only_its_own_modules_of_the_heads(name: str, modules: set[str]) -> None:
    assert modules_with_gradient(name, student_with_heads(), Distill(contrast_weight=1)) == modules


def test_refine_trains_the_decoders_last_layers_on_request() -> None:
    student = student_with_heads()
    trained = modules_with_gradient("refine", student, EVERYTHING_ON)
    assert trained == {"heads.imitation", "decoder.stages", "decoder.heads"}
    earlier = [p for block in list(student.decoder.stages)[:-1] for p in block.parameters()]
    others = [*earlier, *student.neck.parameters(), *student.encoder.parameters()]
    assert all(p.grad is None for p in others)


@pytest.mark.parametrize("name", STAGES)
def test_stage_changes_nothing_of_the_body_but_the_decoders_last_layers_in_refine(name: str) -> None:
    student = student_with_heads()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    stage = build_stage(name, student, teacher_infos(), EVERYTHING_ON)
    optimizer = torch.optim.SGD(stage.select_trainable(), lr=0.1)
    total(losses_of(stage, student)).backward()
    optimizer.step()
    changed = {key for key, value in student.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and not {key for key in changed if key.startswith("heads.input_norm")}
    last = len(list(student.decoder.stages)) - 1
    allowed = ("heads.", f"decoder.stages.{last}.", "decoder.heads.") if name == "refine" else ("heads.",)
    assert [key for key in changed if not key.startswith(allowed)] == []


def test_heads_do_not_change_the_output_before_the_blend_is_fitted() -> None:
    plain, with_heads = small().eval(), small(head_width=8).eval()
    batch = images()
    assert torch.equal(plain(batch).heatmap_B1HW, with_heads(batch).heatmap_B1HW)


def test_head_inputs_are_normalised_by_fixed_statistics() -> None:
    student = student_with_heads()
    heads = student.heads
    assert heads is not None
    inputs = student.compute_maps(images(8)).head_inputs_BChw
    assert inputs is not None
    heads.fit_normalisation(inputs.detach().half())
    normalised = heads.input_norm(inputs)
    assert normalised.mean(dim=(0, 2, 3)).abs().max() < 0.1
    assert 0.8 < normalised.std(dim=(0, 2, 3)).median() < 1.2
    assert not heads.train().input_norm.training


# ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_contrast_falls_as_the_output_departs_from_the_earlier_one() -> None:
    student = student_with_heads()
    stage = build_stage("refine", student, teacher_infos(), Distill(contrast_weight=1))
    stage.select_trainable()
    assert student.heads is not None
    student.heads.eval()  # no dropout between two losses
    before = losses_of(stage, student)["contrast"].item()
    shift_imitation_head(student)
    assert losses_of(stage, student)["contrast"].item() < 0.7 * before


def test_earlier_heads_are_a_slow_moving_average() -> None:
    student = student_with_heads()
    stage = build_stage("refine", student, teacher_infos(), Distill(contrast_weight=1))
    stage.select_trainable()
    assert student.heads is not None
    student.heads.eval()  # no dropout between two losses
    before = {key: value.clone() for key, value in student.heads.named_parameters()}
    shift_imitation_head(student)
    shifted = losses_of(stage, student)["contrast"].item()
    stage.after_step()
    earlier = dict(stage.auxiliary["earlier"].named_parameters())
    for key, now in student.heads.named_parameters():
        assert torch.allclose(earlier[key], 0.99 * before[key] + 0.01 * now, atol=1e-6), key
    for _ in range(1000):
        stage.after_step()
    assert losses_of(stage, student)["contrast"].item() > 1.3 * shifted, "the moving average has not caught up"


def test_imitation_head_learns_the_probability_of_a_defect() -> None:
    """By its reliability table, 40 % of the places to which the teacher gives this heat are defective."""
    student, infos = student_with_heads(), teacher_infos()
    infos["t0"].reliability.table = torch.linspace(0, 1, 64).pow(8)
    batch, mask = cached_batch(student), labels().mask_B1mm
    heat = mask * 0.89
    assert 0.35 < infos["t0"].reliability.probability(heat).max() < 0.45
    inputs = batch.head_inputs_BChw
    inputs = inputs + inputs.std() * torch.nn.functional.adaptive_avg_pool2d(mask, inputs.shape[-1])
    outputs = {"t0": batch.teacher_outputs["t0"]._replace(heat_B1mm=heat)}
    batch = replace(batch, head_inputs_BChw=inputs, teacher_outputs=outputs)
    assert student.heads is not None
    student.heads.fit_normalisation(inputs)
    stage = RefineHead(student, infos, Distill())
    optimizer = torch.optim.AdamW(stage.select_trainable(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        total(stage.losses(batch)).backward()
        optimizer.step()
        stage.after_step()
    stage.finish()
    predicted = stage.head_outputs(batch).imitation_B1mm.sigmoid()
    assert 0.15 < predicted[mask > 0].mean() < 0.45
    assert predicted[mask == 0].mean() < 0.03


@pytest.mark.parametrize("name", STAGES)
def test_stage_trains_on_parts_of_every_kind_in_one_batch(name: str) -> None:
    """Two parts with masks, an unlabelled part, and one that is labelled without a mask."""
    student = student_with_heads()
    mixed = replace(
        labels(),
        has_sound_twin_B=torch.tensor([True, True, False, False]),
        has_mask_B=torch.tensor([True, True, False, False]),
        has_label_B=torch.tensor([True, True, False, True]),
        defective_B=torch.tensor([True, False, False, True]),
    )
    stage = build_stage(name, student, teacher_infos(), EVERYTHING_ON)
    stage.select_trainable()
    if isinstance(stage, RefineDecoder):
        terms = stage.losses(replace(live_batch(), labels=mixed))
    else:
        terms = stage.losses(replace(cached_batch(student), labels=mixed))
    assert all(torch.isfinite(term) for term in terms.values())
    assert ("verdict" in terms) is (name != "align")


def test_losses_of_two_steps_are_the_golden_ones(request: pytest.FixtureRequest) -> None:
    """A change of these numbers changes every distilled student."""
    torch.set_num_threads(1)
    student = student_with_heads()
    computed: dict[str, list[float]] = {}
    for name in STAGES:
        stage = build_stage(name, student, teacher_infos(2), EVERYTHING_ON)
        optimizer = torch.optim.AdamW(stage.select_trainable(), lr=1e-2)
        if name == "refine":
            shift_imitation_head(student)
        for _ in range(2):
            torch.manual_seed(0)
            terms = losses_of(stage, student, teachers=2)
            optimizer.zero_grad()
            total(terms).backward()
            optimizer.step()
            stage.after_step()
            for key, value in terms.items():
                computed.setdefault(f"{name}/{key}", []).append(round(value.item(), 4))
        stage.finish()
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(computed, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert computed.keys() == golden.keys()
    for key, values in golden.items():
        assert computed[key] == pytest.approx(values, rel=2e-3, abs=2e-4), key


# ── blending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_blend_is_the_weighted_sum_of_discrepancy_and_heads() -> None:
    student = student_with_heads().eval()
    assert student.heads is not None
    outputs = HeadOutputs(torch.full((1, 1, 8, 8), 1.0), torch.full((1, 1, 8, 8), -2.0), torch.zeros(1, 8, 4, 4))
    student.heads.blend_weights.copy_(torch.tensor([[2.0, 3.0, 5.0], [1.0, 0.5, 0.25]]))
    discrepancy = torch.full((1, 1, 4, 4), 0.1)
    label, imitation = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))
    for row, (first, second, third) in enumerate(student.heads.blend_weights.tolist()):
        blended = scoring.blend(discrepancy, outputs, student.heads.blend_weights[row])
        assert blended.shape == discrepancy.shape
        assert blended.mean().item() == pytest.approx(first * 0.1 + second * label + third * imitation, rel=1e-5)


def test_discrepancy_is_scaled_by_its_quantile_on_sound_parts() -> None:
    student = student_with_heads().eval()
    assert student.heads is not None
    sound = [images(4, seed=5), images(4, seed=6)]
    weights, _ = student.scorer.weights
    with torch.no_grad():
        places = torch.cat(
            [
                student.scorer.smooth(scoring.weighted_sum(student.compute_maps(batch).maps, weights)).flatten()
                for batch in sound
            ]
        )
    student.fit_blend(sound, (1.0, 3.0, 0.5), (2.0, 0.5, 0.25))
    high = float(np.quantile(places.numpy(), 0.995))
    expected = [1 / high, 3, 0.5, 2 / high, 0.5, 0.25]
    assert student.heads.blend_weights.flatten().tolist() == pytest.approx(expected, rel=1e-5)
