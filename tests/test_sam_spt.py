"""Self-perception tuning: published parameter counts, agreement with SAM, prompts, crops, losses, and the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.models.sam import crops, load
from inspect_kd.models.sam.boundary import iou_and_boundary_iou
from inspect_kd.models.sam.losses import SAMPLED_PIXELS, mask_loss, sample_pixels, tuning_losses
from inspect_kd.models.sam.prompting import (
    RegionPrompt,
    degraded_prompt,
    false_alarm_prompt,
    heatmap_prompts,
    stack_prompts,
)
from inspect_kd.models.sam.tuning import (
    PromptBatch,
    SelfPerception,
    SptOutput,
    cell_relation,
    count_tuned_parameters,
    mask_boxes,
    refining_prompts,
)
from inspect_kd.models.teachers import sam_spt
from inspect_kd.resize import resize
from tests.builders import save_tiny_clip
from tests.small_models import Evil, teacher_samples

SIDE, MASK_SIDE = 256, 64


def tiny_sam() -> Any:
    torch.manual_seed(0)
    return load.load_sam("tiny", None, random=True).model


def perception(**changes: Any) -> SelfPerception:
    torch.manual_seed(1)
    return SelfPerception(tiny_sam(), **({"temperature": 0.1, "tune_encoder": False} | changes))


def make_embedding(count: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(count, 64, 16, 16, generator=torch.Generator().manual_seed(seed))


def boxes(*edges: tuple[float, float, float, float]) -> PromptBatch:
    return PromptBatch(torch.tensor(edges))


@pytest.mark.parametrize(
    ("backend", "encoder", "total"),
    [
        ("sam_vit_b", 294_912, 390_144),
        ("sam_vit_l", 786_432, 881_664),
        ("sam_vit_h", 1_310_720, 1_405_952),
    ],
)
def test_parameter_counts_are_as_published(backend: load.Backend, encoder: int, total: int) -> None:
    with torch.device("meta"):
        sam = load.build_sam(backend)
        decoders = count_tuned_parameters(
            SelfPerception(sam.requires_grad_(False), temperature=1.0, tune_encoder=False)
        )
        with_encoder = count_tuned_parameters(SelfPerception(sam, temperature=1.0, tune_encoder=True))
    assert decoders == 95_232 and with_encoder == total == decoders + encoder


def test_untrained_decoders_agree_with_sam() -> None:
    sam, embedding = tiny_sam(), make_embedding()
    sparse, dense = sam.prompt_encoder(points=None, boxes=torch.tensor([[20.0, 30, 120, 160]]), masks=None)
    with torch.no_grad():
        expected, iou = sam.mask_decoder(
            embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False
        )
        output = SelfPerception(sam, temperature=0.1, tune_encoder=True)(embedding, boxes((20, 30, 120, 160)))
    assert torch.allclose(output.draft_K1hw, expected, atol=1e-5)
    # The second decoder, prompted by the draft and its box, agrees too.
    (rows, columns), cell = np.nonzero(expected[0, 0].numpy() > 0), SIDE / MASK_SIDE
    box = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]) * cell
    sparse, dense = sam.prompt_encoder(points=None, boxes=box, masks=expected)
    refined, iou = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False)
    assert torch.allclose(output.final_K1hw, refined, atol=1e-5)
    assert torch.allclose(output.iou_K, iou[:, 0], atol=1e-5)


def test_mask_boxes_enclose_masks_and_keep_the_prompt_of_empty_ones() -> None:
    logits, prompt_boxes = -torch.ones(2, 1, 8, 16), torch.tensor([[1.0, 2, 3, 4], [5.0, 6, 7, 8]])
    logits[0, 0, 2, 3:6] = logits[0, 0, 5, 4] = 1
    assert mask_boxes(logits, prompt_boxes, (32, 32)).tolist() == [[6, 8, 12, 24], [5, 6, 7, 8]]


def test_second_decoder_gets_the_mean_of_draft_and_coarse_map() -> None:
    sam, embedding, box = tiny_sam(), make_embedding(), torch.tensor([[20.0, 30, 120, 160]])
    coarse = 8 * torch.randn(1, 1, MASK_SIDE, MASK_SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = SelfPerception(sam, temperature=0.1, tune_encoder=False)(
            embedding, PromptBatch(box, masks_K1hw=coarse)
        )
        draft_box = mask_boxes(output.draft_K1hw, box, (SIDE, SIDE))
        sparse, dense = sam.prompt_encoder(points=None, boxes=draft_box, masks=(output.draft_K1hw + coarse) / 2)
        refined, _ = sam.mask_decoder(
            embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False
        )
    assert torch.allclose(output.final_K1hw, refined, atol=1e-5)


def test_crop_squares_enclose_the_draft_and_stay_inside_the_image() -> None:
    drafts = torch.tensor([[100.0, 120, 140, 130], [0.0, 0, 10, 4], [250.0, 250, 256, 256], [10.0, 20, 250, 60]])
    assert crops.crop_squares(drafts, 256).tolist() == [
        [80, 85, 160, 165],
        [0, 0, 64, 64],
        [192, 192, 256, 256],
        [0, 0, 256, 256],
    ]


def test_crops_are_cut_from_the_full_image() -> None:
    large = np.arange(512 * 1024 * 3, dtype=np.uint32).reshape(512, 1024, 3).astype(np.uint8)
    assert np.array_equal(crops.crop_image(large, torch.tensor([64, 32, 128, 96]), SIDE), large[64:192, 256:512])


def test_prompts_are_moved_into_the_crop_and_masks_back() -> None:
    square, points = torch.tensor([[64, 128, 128, 192]]), torch.tensor([[[96.0, 160], [10, 10], [0, 0]]])
    mask = torch.full((1, 1, MASK_SIDE, MASK_SIDE), -5.0)
    mask[0, 0, 36:42, 20:30] = 5  # rows 144..168, columns 80..120 of the input
    prompts = PromptBatch(torch.tensor([[80.0, 144, 120, 300]]), points, torch.tensor([[1.0, 0, -1]]), mask)
    cropped = crops.crop_prompts(prompts, square, SIDE)
    assert cropped.boxes_K4 is not None and cropped.boxes_K4.tolist() == [[64, 64, 224, 255]]
    assert cropped.points_KP2 is not None and cropped.points_KP2.tolist() == [[[128, 128], [0, 0], [0, 0]]]
    assert cropped.labels_KP is not None and cropped.labels_KP.tolist() == [[1, -1, -1]]
    assert cropped.masks_K1hw is not None
    uncropped = crops.uncrop_masks(cropped.masks_K1hw, square, SIDE)
    predicted, truth = uncropped[0, 0].numpy() > 0, np.zeros((SIDE, SIDE), bool)
    truth[144:168, 80:120] = True
    assert uncropped[0, 0, 0, 0] == crops.OUTSIDE_LOGIT and iou_and_boundary_iou(predicted, truth)[0] > 0.9


def test_second_decoder_runs_on_the_crop_around_the_draft(clip_folder: str) -> None:
    teacher, without_crops = (
        teacher_of(clip_folder, closer=refine_on_crop, random=False) for refine_on_crop in (True, False)
    )
    mask, rng = np.zeros((SIDE, SIDE), bool), np.random.default_rng(0)
    mask[60:90, 100:120] = True
    image, prompt = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8), degraded_prompt(mask, rng, MASK_SIDE)
    with torch.no_grad():
        output, (square,) = teacher._segment([image], [prompt])
        draft_box = mask_boxes(output.draft_K1hw, torch.tensor([prompt.box]), (SIDE, SIDE))
        assert square.tolist() == crops.crop_squares(draft_box, SIDE)[0].tolist()
        assert torch.equal(without_crops._segment([image], [prompt]).squares_K4, torch.tensor([[0, 0, SIDE, SIDE]]))
        left, top, right, bottom = square.tolist()
        assert left < 100 and right > 120 and top < 60 and bottom > 90 and right - left < SIDE
        crop_embedding = load.embed(
            teacher.spt.sam,
            torch.from_numpy(resize(image[top:bottom, left:right], SIDE, SIDE)).permute(2, 0, 1)[None].float(),
        )
        batch = stack_prompts([prompt], torch.device("cpu"))
        refining = refining_prompts(output.draft_K1hw, batch, (SIDE, SIDE))
        cropped = crops.crop_prompts(refining, square[None], SIDE)
        final, iou, presence = teacher.spt.refine_draft(crop_embedding, cropped)
    assert torch.allclose(final, output.final_K1hw, atol=1e-4) and torch.allclose(iou, output.iou_K, atol=1e-4)
    assert torch.allclose(presence, output.presence_K, atol=1e-4)


def test_truth_of_the_final_mask_is_cropped_with_its_square(clip_folder: str) -> None:
    teacher = teacher_of(clip_folder, closer=True, random=False)
    output, truth, cropped_truth = teacher._predict_with_truth(teacher_samples(8), np.random.default_rng(0))
    assert truth.shape == cropped_truth.shape == output.final_K1hw.shape
    defective = truth.flatten(1).amax(dim=1) > 0
    assert defective.any() and not defective.all() and not torch.equal(truth, cropped_truth)
    assert cropped_truth[~defective].sum() == 0


def test_untrained_encoder_agrees_with_sam() -> None:
    sam, image = tiny_sam(), torch.rand(1, 3, SIDE, SIDE) * 255
    before = load.embed(sam, image)
    tuned = SelfPerception(sam, temperature=0.1, tune_encoder=True)
    assert torch.equal(load.embed(tuned.sam, image), before)


def test_a_batch_of_boxes_gives_the_same_masks_as_single_boxes() -> None:
    spt, embedding = perception(), make_embedding()
    _perturb(spt)
    edges = [(10.0, 10, 60, 80), (100.0, 30, 220, 90), (5.0, 150, 250, 250)]
    batch = spt(embedding.expand(3, -1, -1, -1), boxes(*edges))
    for number, box in enumerate(edges):
        single_output = spt(embedding, boxes(box))
        for batched, single in zip(batch, single_output, strict=True):
            assert torch.allclose(batched[number : number + 1], single, atol=1e-4)


def test_only_tuned_parameters_get_gradients() -> None:
    spt = perception(tune_encoder=True)
    before = {key: value.clone() for key, value in spt.state_dict().items()}
    embedding = load.embed(spt.sam, torch.rand(2, 3, SIDE, SIDE) * 255)
    output = spt(embedding, boxes((10, 10, 90, 90), (50, 60, 200, 220)))
    truth = torch.zeros(2, 1, MASK_SIDE, MASK_SIDE)
    truth[0, 0, 10:40, 10:40] = 1
    torch.stack(list(tuning_losses(output, truth, truth, torch.Generator()).values())).sum().backward()
    trained = {name for name, p in spt.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in spt.named_parameters() if p.requires_grad}
    assert all("down" in n or "up." in n or n.startswith("presence.") or ".relating." in n for n in trained)
    torch.optim.SGD([p for p in spt.parameters() if p.requires_grad], lr=1e-2).step()
    changed = {key for key, value in spt.state_dict().items() if not torch.equal(before[key], value)}
    assert changed and changed <= trained


def test_final_mask_sends_no_gradient_to_the_draft() -> None:
    spt = perception()
    spt(make_embedding(), boxes((10, 10, 90, 90))).final_K1hw.sum().backward()
    assert all(p.grad is None for p in spt.draft.parameters())


@pytest.mark.parametrize(("temperature", "minimum", "maximum"), [(1.0, 245, 255), (0.05, 1, 150)])
def test_cell_relation_excludes_the_cell_itself(temperature: float, minimum: int, maximum: int) -> None:
    rows = cell_relation(make_embedding(), temperature)
    assert torch.allclose(rows.sum(dim=2), torch.ones(1, 256), atol=1e-4) and rows[0].diagonal().max() == 0
    # The exponential of the entropy, i.e. the perplexity.
    effective_neighbours = torch.exp(-(rows.clamp_min(1e-12) * rows.clamp_min(1e-12).log()).sum(dim=2)).mean()
    assert minimum < effective_neighbours < maximum


def test_cell_relation_equals_a_hand_computed_softmax() -> None:
    cells = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]]).T.reshape(1, 2, 1, 3)
    rows = cell_relation(cells, 0.5)[0]
    expected = torch.softmax(torch.tensor([0.6, 0.0]) / 0.5, dim=0)
    assert torch.allclose(rows[0], torch.tensor([0.0, *expected]), atol=1e-6)


def test_mask_loss_equals_a_hand_computed_value() -> None:
    logits, truth = torch.tensor([[[[0.0, 20.0], [-20.0, -20.0]]]]), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    probabilities = torch.tensor([0.5, 1.0, 0.0, 0.0])
    expected = np.log(2) / 4 + 1 - (2 * 1.5 + 1) / (probabilities.sum() + 2 + 1)
    assert mask_loss(logits, truth, torch.Generator()) == pytest.approx(float(expected), abs=1e-5)


def test_tuning_losses_equal_hand_computed_values() -> None:
    logits, truth = torch.tensor([[[[0.0, 20.0], [-20.0, -20.0]]]]), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    output = SptOutput(logits, logits, torch.zeros(1), torch.tensor([3.0]))
    sound = tuning_losses(output, torch.zeros_like(truth), torch.zeros_like(truth), torch.Generator())
    assert sound["presence"] == pytest.approx(float(np.log1p(np.exp(3.0))), abs=1e-4)
    assert sound["estimate"] == pytest.approx(0.0)
    # On a sound region, the draft is penalised for its mask, the final mask is not.
    assert sound["final"] == 0 and sound["draft"] > 5
    defective = tuning_losses(output, truth, truth, torch.Generator())
    assert defective["estimate"] == pytest.approx(0.25)
    assert defective["final"] == defective["draft"] == mask_loss(logits, truth, torch.Generator())


def test_sampled_pixels_are_mostly_uncertain_ones() -> None:
    large = torch.linspace(-30, 30, 256 * 256).reshape(1, 1, 256, 256)
    sampled, _ = sample_pixels(large, (large > 0).float(), torch.Generator().manual_seed(0))
    assert sampled.shape == (1, SAMPLED_PIXELS) and sampled.abs().mean() < 0.6 * large.abs().mean()


def test_iou_and_boundary_iou_of_shifted_masks() -> None:
    truth = np.zeros((100, 100), bool)
    truth[20:60, 20:60] = True
    shifted = np.roll(truth, 10, axis=1)
    iou, boundary_iou = iou_and_boundary_iou(shifted, truth)
    assert iou == pytest.approx(1200 / 2000) and boundary_iou < iou
    assert iou_and_boundary_iou(truth, truth) == (1.0, 1.0) and iou_and_boundary_iou(~truth, truth)[0] == 0.0


def test_heatmap_prompts_follow_hot_regions() -> None:
    heat = np.zeros((16, 16), np.float32)
    heat[2:4, 2:4], heat[10, 12] = 0.8, 0.9
    (first, cells), (second, _) = heatmap_prompts(heat, 0.5, SIDE, MASK_SIDE)
    assert first.box == pytest.approx((190.8, 158.8, 209.2, 177.2)) and cells.sum() == 1
    assert second.box == pytest.approx((29.6, 29.6, 66.4, 66.4))
    assert first.inside == ((200.0, 168.0),) and len(second.inside) == 3 and len(first.outside) == 2
    assert first.logits is not None and first.logits.shape == (MASK_SIDE, MASK_SIDE) and first.logits.max() > 4
    assert heatmap_prompts(heat, 0.95, SIDE, MASK_SIDE) == []


def test_degraded_prompts_have_errors_but_touch_the_defect() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[100:140, 60:90] = True
    rng, sizes = np.random.default_rng(0), []
    for _ in range(60):
        left, top, right, bottom = degraded_prompt(mask, rng, MASK_SIDE).box
        assert 0 <= left < right <= SIDE - 1 and 0 <= top < bottom <= SIDE - 1
        assert left < 90 and right > 60 and top < 140 and bottom > 100
        sizes.append((right - left) * (bottom - top) / 1200)
    assert min(sizes) < 2.5 and max(sizes) > 6
    tiny = np.zeros((SIDE, SIDE), bool)
    tiny[30:36, 200:206] = True
    assert all(_touches(degraded_prompt(tiny, rng, MASK_SIDE).box, (200, 30, 206, 36), 30) for _ in range(60))


def test_false_alarm_prompts_resemble_prompts_of_defects() -> None:
    """Only the image may distinguish them."""
    rng, mask = np.random.default_rng(0), np.zeros((SIDE, SIDE), bool)
    mask[100:140, 60:100] = True
    prompt_sets = [
        [false_alarm_prompt(SIDE, MASK_SIDE, rng) for _ in range(80)],
        [degraded_prompt(mask, rng, MASK_SIDE) for _ in range(80)],
    ]
    for prompts in prompt_sets:
        assert {len(prompt.inside) for prompt in prompts} == {1, 2, 3} and all(len(p.outside) == 2 for p in prompts)
    roughness = [
        np.mean([np.abs(np.diff(p.logits)).mean() for p in prompts if p.logits is not None]) for prompts in prompt_sets
    ]
    assert 0.6 < roughness[0] / roughness[1] < 1.6
    centres = np.array([[(p.box[0] + p.box[2]) / 2, (p.box[1] + p.box[3]) / 2] for p in prompt_sets[0]])
    assert centres.min() < 60 and centres.max() > 190


def test_missing_points_are_stacked_with_label_minus_1() -> None:
    prompts = [RegionPrompt((1, 2, 30, 40), ((5.0, 6.0),), ((1.0, 1.0),)), RegionPrompt((5, 5, 20, 20))]
    batch = stack_prompts(prompts, torch.device("cpu"))
    assert batch.labels_KP is not None and batch.labels_KP.tolist() == [[1, 0], [-1, -1]]
    assert batch.masks_K1hw is None


def _touches(box: tuple[float, ...], other: tuple[float, ...], reach: float) -> bool:
    across = box[0] < other[2] + reach and box[2] > other[0] - reach
    return across and box[1] < other[3] + reach and box[3] > other[1] - reach


def _perturb(spt: SelfPerception) -> None:
    """Change all trained parameters."""
    with torch.no_grad():
        for p in spt.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))


# ── the teacher ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def teacher_of(clip_folder: str, **changes: Any) -> sam_spt.SamSptTeacher:
    torch.manual_seed(0)
    guide = {"model": clip_folder, "pretrained": None, "licence": "MIT", "vv_blocks": 2}
    return sam_spt.build(
        sam_spt.Config(**({"guide": guide, "backend": "tiny", "random": True, "cache": False} | changes)), 64
    )


def test_adapted_state_is_small_and_restores_the_teacher(clip_folder: str) -> None:
    torch.manual_seed(0)
    teacher, image = teacher_of(clip_folder), teacher_samples(2)[1].image
    steps = list(teacher.fit(teacher_samples(8), epochs=2, batch=4, learning_rate=1e-2, seed=0))
    assert len(steps) == teacher.count_steps(8, epochs=2, batch=4)
    adapted = teacher.adapted_state()
    assert not any(".frozen." in key or key.startswith("guide.prompts") for key in adapted)
    assert sum(value.numel() * 4 for value in adapted.values()) < 200_000
    torch.manual_seed(5)
    fresh = teacher_of(clip_folder)
    prompt = degraded_prompt(np.pad(np.ones((40, 40), bool), 108), np.random.default_rng(0), MASK_SIDE)
    large = np.repeat(np.repeat(image, 4, axis=0), 4, axis=1)
    expected, before = teacher._segment([large], [prompt]).output, fresh._segment([large], [prompt]).output
    assert adapted.keys() == fresh.adapted_state().keys()
    fresh.load_state_dict(adapted, strict=False)
    assert not torch.equal(before.final_K1hw, expected.final_K1hw)
    restored = fresh._segment([large], [prompt]).output
    assert all(torch.equal(one, other) for one, other in zip(restored, expected, strict=True))
    assert torch.equal(fresh.predict([image]).heatmap_B1HW, teacher.predict([image]).heatmap_B1HW)


def test_learning_rate_scale_applies_to_the_tuning_alone(clip_folder: str) -> None:
    """Adam's first step equals the learning rate: a scale of 10 makes it ten times larger for the presence head only."""
    changes = []
    for scale in (1.0, 10.0):
        torch.manual_seed(0)
        teacher = teacher_of(clip_folder, learning_rate_scale=scale)
        before = float(teacher.spt.presence.bias.detach())
        torch.manual_seed(0)
        list(teacher.fit(teacher_samples(4), epochs=1, batch=8, learning_rate=1e-3, seed=0))
        guide = {key: value for key, value in teacher.adapted_state().items() if key.startswith("guide.")}
        changes.append((abs(float(teacher.spt.presence.bias.detach()) - before), guide))
    (small_step, first_guide), (large_step, second_guide) = changes
    assert small_step == pytest.approx(1e-3, rel=0.05) and large_step == pytest.approx(1e-2, rel=0.05)
    assert all(torch.equal(first_guide[key], second_guide[key]) for key in first_guide)


def test_guide_settings_are_written_out_in_full(clip_folder: str) -> None:
    settings = sam_spt.Config(guide={"model": clip_folder, "vv_blocks": 2})
    assert settings.guide["sigma"] == 4.0 and settings.guide["vv_blocks"] == 2
    with pytest.raises(UsageError, match=r"teacher\.guide: unknown key 'vvblocks'; did you mean 'vv_blocks'"):
        sam_spt.Config(guide={"vvblocks": 2})


def test_sam_does_not_run_where_the_guide_finds_nothing(clip_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, image = teacher_of(clip_folder), teacher_samples(2)[1].image
    teacher.guide.region_threshold.fill_(1.0)
    monkeypatch.setattr(teacher.spt, "forward", None)
    assert torch.equal(teacher.predict([image]).heatmap_B1HW, teacher.guide.predict([image]).heatmap_B1HW)


@pytest.mark.parametrize(
    ("presence", "iou", "area_share", "is_accepted"),
    [(9, 0.9, 0.1, True), (-9, 0.9, 0.1, False), (9, 0.2, 0.1, False), (9, 0.9, 0.9, False), (9, 0.9, 0.0, False)],
)
def test_masks_are_accepted_by_presence_iou_and_size(
    clip_folder: str, monkeypatch: pytest.MonkeyPatch, presence: float, iou: float, area_share: float, is_accepted: bool
) -> None:
    guide = {"model": clip_folder, "pretrained": None, "vv_blocks": 2, "closer": False}
    teacher, image = teacher_of(clip_folder, guide=guide), teacher_samples(2)[1].image
    coarse = teacher.guide.heat(teacher.guide.predict([image]).tokens_BChw)[0, 0]
    teacher.guide.region_threshold.copy_(coarse.max() - 1e-4)
    hottest_cell = divmod(int(coarse.argmax()), coarse.shape[1])
    logits = -torch.ones(1, 1, MASK_SIDE, MASK_SIDE)
    half_side = round(MASK_SIDE * area_share**0.5 / 2)
    row, column = (round((index + 0.5) * MASK_SIDE / coarse.shape[0]) for index in hottest_cell)
    logits[0, 0, max(0, row - half_side) : row + half_side, max(0, column - half_side) : column + half_side] = 9.0
    if area_share > 0.5:
        logits[:] = 9.0
    output = SptOutput(logits, logits, torch.tensor([iou]), torch.tensor([float(presence)]))
    segmentation = sam_spt.Segmentation(output, torch.tensor([[0, 0, SIDE, SIDE]]))
    monkeypatch.setattr(teacher, "_segment", lambda images, prompts: segmentation)
    guide_heatmap, heatmap = teacher.guide.predict([image]).heatmap_B1HW, teacher.predict([image]).heatmap_B1HW
    assert torch.equal(guide_heatmap, heatmap) != is_accepted


def test_sam_weights_are_loaded_safely_from_the_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"no weights for sam_vit_b.*release"):
        load.load_sam("sam_vit_b", None)
    torch.save({"pixel_mean": Evil(tmp_path / "owned")}, tmp_path / "sam_vit_b_01ec64.pth")
    with pytest.raises(BadInput, match="holds more than tensors"):
        load.load_sam("sam_vit_b", None)
    assert not (tmp_path / "owned").exists()
    save_file({"x": torch.zeros(1)}, tmp_path / "sam_vit_b_01ec64.safetensors")
    with pytest.raises(BadInput, match="not the weights of sam_vit_b"):
        load.load_sam("sam_vit_b", str(tmp_path / "sam_vit_b_01ec64.safetensors"))
    with pytest.raises(EnvironmentFault, match="mobile_sam"):
        load.load_sam("mobile_sam", None)


def test_sam_vit_b_loads_from_a_file_with_the_released_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAM ViT-B as published: 94 million parameters."""
    torch.manual_seed(0)
    state = load.build_sam("sam_vit_b").state_dict()
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "sam_vit_b_01ec64.pth")
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    loaded = load.load_sam("sam_vit_b", None)
    # Architecture and name are SAM's, the digest is not: the licence is unknown.
    assert loaded.source.licence == "unknown" and len(loaded.source.sha256) == 64
    assert load.load_sam("sam_vit_b", None, licence="MIT").source.licence == "MIT"
    assert sum(p.numel() for p in loaded.model.parameters()) == pytest.approx(93.7e6, rel=0.01)
    spt = SelfPerception(loaded.model, temperature=0.1, tune_encoder=False)
    output = spt(torch.randn(1, 256, 64, 64), boxes((100, 100, 400, 500)))
    assert output.final_K1hw.shape == (1, 1, 256, 256)


def test_an_empty_mask_does_not_erase_an_overlapping_one(clip_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, image = teacher_of(clip_folder), teacher_samples(2)[1].image
    before = teacher.guide.predict([image]).heatmap_B1HW
    cells, full_mask, empty_mask = torch.zeros(64, 64, dtype=torch.bool), torch.zeros(64, 64), torch.zeros(64, 64)
    cells[20:24, 20:24], full_mask[10:30, 10:30] = True, 1.0
    first = sam_spt.AcceptedMask((slice(10, 30), slice(10, 30)), cells, full_mask)
    second = sam_spt.AcceptedMask((slice(10, 40), slice(10, 40)), cells, empty_mask)
    monkeypatch.setattr(teacher, "accepted_masks", lambda image, tokens: [first, second])
    after = teacher.predict([image]).heatmap_B1HW
    peak, weight = before[0, 0][cells].max(), teacher.settings.weight
    expected = before[0, 0, 10:30, 10:30] * (1 - weight) + weight * peak
    assert torch.allclose(after[0, 0, 10:30, 10:30], expected, atol=1e-6)
    assert torch.allclose(after[0, 0, 30:40, 30:40], before[0, 0, 30:40, 30:40] * (1 - weight), atol=1e-6)
    assert torch.equal(after[0, 0, 40:], before[0, 0, 40:])


def test_embeddings_of_random_weights_are_not_cached(clip_folder: str) -> None:
    assert not teacher_of(clip_folder, cache=True).caches_embeddings
