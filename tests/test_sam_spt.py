"""Self-perception tuning: the published numbers of parameters, what it leaves untouched, and that it learns to draw and to refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.models.sam import closer, load
from inspect_kd.models.sam.boundary import agreement
from inspect_kd.models.sam.losses import PLACES, mask_loss, sample, tuning_losses
from inspect_kd.models.sam.prompting import Place, as_prompt, nowhere, places_in, spoilt
from inspect_kd.models.sam.tuning import Masks, Prompt, SelfPerception, about, drawn_boxes, relation, tuned_parameters
from inspect_kd.models.teachers import sam_spt
from inspect_kd.resize import resize
from tests.builders import clip_folder
from tests.test_clip_ada import lessons
from tests.test_models import Evil

SIDE, MASK_SIDE = 256, 64


def tiny_sam() -> Any:
    torch.manual_seed(0)
    return load.load_sam("tiny", None, random=True).model


def perception(**changes: Any) -> SelfPerception:
    torch.manual_seed(1)
    return SelfPerception(tiny_sam(), **({"temperature": 0.1, "tune_encoder": False} | changes))


def embedding(count: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(count, 64, 16, 16, generator=torch.Generator().manual_seed(seed))


def boxes(*edges: tuple[float, float, float, float]) -> Prompt:
    return Prompt(torch.tensor(edges))


@pytest.mark.parametrize(
    ("backend", "encoder", "all_tuned"),
    [
        ("sam_vit_b", 294_912, 390_144),
        ("sam_vit_l", 786_432, 881_664),
        ("sam_vit_h", 1_310_720, 1_405_952),
    ],
)
def test_as_many_parameters_as_published(backend: load.Backend, encoder: int, all_tuned: int) -> None:
    with torch.device("meta"):
        sam = load.build_sam(backend)
        decoders = tuned_parameters(SelfPerception(sam.requires_grad_(False), temperature=1.0, tune_encoder=False))
        both = tuned_parameters(SelfPerception(sam, temperature=1.0, tune_encoder=True))
    assert decoders == 95_232 and both == all_tuned == decoders + encoder


def test_the_draft_is_sams_own_until_something_is_learnt() -> None:
    sam, embedded = tiny_sam(), embedding()
    sparse, dense = sam.prompt_encoder(points=None, boxes=torch.tensor([[20.0, 30, 120, 160]]), masks=None)
    with torch.no_grad():
        expected, iou = sam.mask_decoder(
            embedded, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False
        )
        masks = SelfPerception(sam, temperature=0.1, tune_encoder=True)(embedded, boxes((20, 30, 120, 160)))
    assert torch.allclose(masks.draft_K1hw, expected, atol=1e-5)
    # The second decoder is SAM's own too, asked about the draft and its box.
    (rows, columns), cell = np.nonzero(expected[0, 0].numpy() > 0), SIDE / MASK_SIDE
    drawn = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]) * cell
    sparse, dense = sam.prompt_encoder(points=None, boxes=drawn, masks=expected)
    again, iou = sam.mask_decoder(embedded, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False)
    assert torch.allclose(masks.final_K1hw, again, atol=1e-5)
    assert torch.allclose(masks.iou_K, iou[:, 0], atol=1e-5)


def test_the_box_of_what_is_drawn() -> None:
    logits, asked = -torch.ones(2, 1, 8, 16), torch.tensor([[1.0, 2, 3, 4], [5.0, 6, 7, 8]])
    logits[0, 0, 2, 3:6] = logits[0, 0, 5, 4] = 1
    assert drawn_boxes(logits, asked, (32, 32)).tolist() == [[6, 8, 12, 24], [5, 6, 7, 8]]


def test_the_second_decoder_keeps_what_the_guide_told() -> None:
    sam, embedded, box = tiny_sam(), embedding(), torch.tensor([[20.0, 30, 120, 160]])
    coarse = 8 * torch.randn(1, 1, MASK_SIDE, MASK_SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        masks = SelfPerception(sam, temperature=0.1, tune_encoder=False)(embedded, Prompt(box, masks_K1hw=coarse))
        drawn = drawn_boxes(masks.draft_K1hw, box, (SIDE, SIDE))
        sparse, dense = sam.prompt_encoder(points=None, boxes=drawn, masks=(masks.draft_K1hw + coarse) / 2)
        again, _ = sam.mask_decoder(embedded, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False)
    assert torch.allclose(masks.final_K1hw, again, atol=1e-5)


def test_squares_hold_what_was_drafted_and_stay_inside() -> None:
    drawn = torch.tensor([[100.0, 120, 140, 130], [0.0, 0, 10, 4], [250.0, 250, 256, 256], [10.0, 20, 250, 60]])
    assert closer.squares(drawn, 256).tolist() == [
        [80, 85, 160, 165],
        [0, 0, 64, 64],
        [192, 192, 256, 256],
        [0, 0, 256, 256],
    ]


def test_a_square_is_cut_from_the_image_as_it_lies() -> None:
    large = np.arange(512 * 1024 * 3, dtype=np.uint32).reshape(512, 1024, 3).astype(np.uint8)
    assert np.array_equal(closer.cut(large, torch.tensor([64, 32, 128, 96]), SIDE), large[64:192, 256:512])


def test_prompts_go_into_the_square_and_masks_come_back_from_it() -> None:
    square, points = torch.tensor([[64, 128, 128, 192]]), torch.tensor([[[96.0, 160], [10, 10], [0, 0]]])
    mask = torch.full((1, 1, MASK_SIDE, MASK_SIDE), -5.0)
    mask[0, 0, 36:42, 20:30] = 5  # rows 144..168, columns 80..120 of the input
    prompt = Prompt(torch.tensor([[80.0, 144, 120, 300]]), points, torch.tensor([[1.0, 0, -1]]), mask)
    seen = closer.seen_in(prompt, square, SIDE)
    assert seen.boxes_K4 is not None and seen.boxes_K4.tolist() == [[64, 64, 224, 255]]
    assert seen.points_KP2 is not None and seen.points_KP2.tolist() == [[[128, 128], [0, 0], [0, 0]]]
    assert seen.labels_KP is not None and seen.labels_KP.tolist() == [[1, -1, -1]]
    assert seen.masks_K1hw is not None
    back = closer.laid_out(seen.masks_K1hw, square, SIDE)
    said, truth = back[0, 0].numpy() > 0, np.zeros((SIDE, SIDE), bool)
    truth[144:168, 80:120] = True
    assert back[0, 0, 0, 0] == closer.NOTHING and agreement(said, truth)[0] > 0.9


def test_the_closer_look_is_of_the_square_around_the_draft(folder: str) -> None:
    teacher, near = (teacher_of(folder, closer=closer, random=False) for closer in (True, False))
    damaged, rng = np.zeros((SIDE, SIDE), bool), np.random.default_rng(0)
    damaged[60:90, 100:120] = True
    image, place = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8), spoilt(damaged, rng, MASK_SIDE)
    with torch.no_grad():
        masks, (square,) = teacher._answer([image], [place])
        drawn = drawn_boxes(masks.draft_K1hw, torch.tensor([place.box]), (SIDE, SIDE))
        assert square.tolist() == closer.squares(drawn, SIDE)[0].tolist()
        assert torch.equal(near._answer([image], [place]).squares_K4, torch.tensor([[0, 0, SIDE, SIDE]]))
        left, top, right, bottom = square.tolist()
        assert left < 100 and right > 120 and top < 60 and bottom > 90 and right - left < SIDE
        cells = load.embed(
            teacher.spt.sam,
            torch.from_numpy(resize(image[top:bottom, left:right], SIDE, SIDE)).permute(2, 0, 1)[None].float(),
        )
        asked = about(masks.draft_K1hw, as_prompt([place], torch.device("cpu")), (SIDE, SIDE))
        final, iou, presence = teacher.spt.refined(cells, closer.seen_in(asked, square[None], SIDE))
    assert torch.allclose(final, masks.final_K1hw, atol=1e-4) and torch.allclose(iou, masks.iou_K, atol=1e-4)
    assert torch.allclose(presence, masks.presence_K, atol=1e-4)


def test_what_is_studied_closer_is_the_truth_of_the_square(folder: str) -> None:
    teacher = teacher_of(folder, closer=True, random=False)
    masks, truth, shown = teacher._ask(lessons(8), np.random.default_rng(0))
    assert truth.shape == shown.shape == masks.final_K1hw.shape
    there = truth.flatten(1).amax(dim=1) > 0
    assert there.any() and not there.all() and not torch.equal(truth, shown)
    assert shown[~there].sum() == 0


def test_the_encoder_is_sams_own_until_something_is_learnt() -> None:
    sam, image = tiny_sam(), torch.rand(1, 3, SIDE, SIDE) * 255
    before = load.embed(sam, image)
    tuned = SelfPerception(sam, temperature=0.1, tune_encoder=True)
    assert torch.equal(load.embed(tuned.sam, image), before)


def test_several_boxes_at_once_are_several_boxes_one_by_one() -> None:
    spt, embedded = perception(), embedding()
    _move(spt)
    edges = [(10.0, 10, 60, 80), (100.0, 30, 220, 90), (5.0, 150, 250, 250)]
    together = spt(embedded.expand(3, -1, -1, -1), boxes(*edges))
    for number, box in enumerate(edges):
        alone = spt(embedded, boxes(box))
        for all_of_them, one in zip(together, alone, strict=True):
            assert torch.allclose(all_of_them[number : number + 1], one, atol=1e-4)


def test_nothing_but_the_tuned_parts_learns() -> None:
    spt = perception(tune_encoder=True)
    before = {key: value.clone() for key, value in spt.state_dict().items()}
    embedded = load.embed(spt.sam, torch.rand(2, 3, SIDE, SIDE) * 255)
    masks = spt(embedded, boxes((10, 10, 90, 90), (50, 60, 200, 220)))
    truth = torch.zeros(2, 1, MASK_SIDE, MASK_SIDE)
    truth[0, 0, 10:40, 10:40] = 1
    torch.stack(list(tuning_losses(masks, truth, truth, torch.Generator()).values())).sum().backward()
    learning = {name for name, p in spt.named_parameters() if p.grad is not None}
    assert learning == {name for name, p in spt.named_parameters() if p.requires_grad}
    assert all("down" in n or "up." in n or n.startswith("presence.") or ".relating." in n for n in learning)
    torch.optim.SGD([p for p in spt.parameters() if p.requires_grad], lr=1e-2).step()
    changed = {key for key, value in spt.state_dict().items() if not torch.equal(before[key], value)}
    assert changed and changed <= learning


def test_the_draft_is_not_taught_through_the_final_mask() -> None:
    spt = perception()
    spt(embedding(), boxes((10, 10, 90, 90))).final_K1hw.sum().backward()
    assert all(p.grad is None for p in spt.draft.parameters())


@pytest.mark.parametrize(("temperature", "least", "most"), [(1.0, 245, 255), (0.05, 1, 150)])
def test_cells_are_related_without_themselves(temperature: float, least: int, most: int) -> None:
    rows = relation(embedding(), temperature)
    assert torch.allclose(rows.sum(dim=2), torch.ones(1, 256), atol=1e-4) and rows[0].diagonal().max() == 0
    neighbours = torch.exp(-(rows.clamp_min(1e-12) * rows.clamp_min(1e-12).log()).sum(dim=2)).mean()
    assert least < neighbours < most


def test_the_relation_by_hand() -> None:
    cells = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]]).T.reshape(1, 2, 1, 3)
    rows = relation(cells, 0.5)[0]
    expected = torch.softmax(torch.tensor([0.6, 0.0]) / 0.5, dim=0)
    assert torch.allclose(rows[0], torch.tensor([0.0, *expected]), atol=1e-6)


def test_losses_by_hand() -> None:
    logits, truth = torch.tensor([[[[0.0, 20.0], [-20.0, -20.0]]]]), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    found = torch.tensor([0.5, 1.0, 0.0, 0.0])
    expected = np.log(2) / 4 + 1 - (2 * 1.5 + 1) / (found.sum() + 2 + 1)
    assert mask_loss(logits, truth, torch.Generator()) == pytest.approx(float(expected), abs=1e-5)
    empty = Masks(logits, logits, torch.zeros(1), torch.tensor([3.0]))
    told = tuning_losses(empty, torch.zeros_like(truth), torch.zeros_like(truth), torch.Generator())
    assert told["presence"] == pytest.approx(float(np.log1p(np.exp(3.0))), abs=1e-4)
    large = torch.linspace(-30, 30, 256 * 256).reshape(1, 1, 256, 256)
    assert told["estimate"] == pytest.approx(0.0)
    # Where there is nothing the draft has to draw nothing; what the second decoder draws there is not held against it.
    assert told["final"] == 0 and told["draft"] > 5
    there = tuning_losses(empty, truth, truth, torch.Generator())
    assert there["estimate"] == pytest.approx(0.25) and there["final"] == there["draft"] == pytest.approx(
        float(expected)
    )
    picked, _ = sample(large, (large > 0).float(), torch.Generator().manual_seed(0))
    assert picked.shape == (1, PLACES) and picked.abs().mean() < 0.6 * large.abs().mean()


def test_agreement_by_hand() -> None:
    truth = np.zeros((100, 100), bool)
    truth[20:60, 20:60] = True
    said = np.roll(truth, 10, axis=1)
    overlap, boundary = agreement(said, truth)
    assert overlap == pytest.approx(1200 / 2000) and boundary < overlap
    assert agreement(truth, truth) == (1.0, 1.0) and agreement(~truth, truth)[0] == 0.0


def test_places_follow_a_heatmap() -> None:
    heat = np.zeros((16, 16), np.float32)
    heat[2:4, 2:4], heat[10, 12] = 0.8, 0.9
    (first, cells), (second, _) = places_in(heat, 0.5, SIDE, MASK_SIDE)
    assert first.box == pytest.approx((190.8, 158.8, 209.2, 177.2)) and cells.sum() == 1
    assert second.box == pytest.approx((29.6, 29.6, 66.4, 66.4))
    assert first.inside == ((200.0, 168.0),) and len(second.inside) == 3 and len(first.outside) == 2
    assert first.logits is not None and first.logits.shape == (MASK_SIDE, MASK_SIDE) and first.logits.max() > 4
    assert places_in(heat, 0.95, SIDE, MASK_SIDE) == []


def test_spoilt_prompts_err_but_point_at_the_defect() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[100:140, 60:90] = True
    rng, sizes = np.random.default_rng(0), []
    for _ in range(60):
        left, top, right, bottom = spoilt(mask, rng, MASK_SIDE).box
        assert 0 <= left < right <= SIDE - 1 and 0 <= top < bottom <= SIDE - 1
        assert left < 90 and right > 60 and top < 140 and bottom > 100
        sizes.append((right - left) * (bottom - top) / 1200)
    assert min(sizes) < 2.5 and max(sizes) > 6
    tiny = np.zeros((SIDE, SIDE), bool)
    tiny[30:36, 200:206] = True
    assert all(_touches(spoilt(tiny, rng, MASK_SIDE).box, (200, 30, 206, 36), 30) for _ in range(60))


def test_false_alarms_are_told_as_defects_are() -> None:
    """Nothing but the picture may tell them apart."""
    rng, mask = np.random.default_rng(0), np.zeros((SIDE, SIDE), bool)
    mask[100:140, 60:100] = True
    kinds = [[nowhere(SIDE, MASK_SIDE, rng) for _ in range(80)], [spoilt(mask, rng, MASK_SIDE) for _ in range(80)]]
    for places in kinds:
        assert {len(place.inside) for place in places} == {1, 2, 3} and all(len(p.outside) == 2 for p in places)
    rough = [np.mean([np.abs(np.diff(p.logits)).mean() for p in places if p.logits is not None]) for places in kinds]
    assert 0.6 < rough[0] / rough[1] < 1.6
    centres = np.array([[(p.box[0] + p.box[2]) / 2, (p.box[1] + p.box[3]) / 2] for p in kinds[0]])
    assert centres.min() < 60 and centres.max() > 190


def test_a_place_without_points_is_told_as_sam_tells_it() -> None:
    places = [Place((1, 2, 30, 40), ((5.0, 6.0),), ((1.0, 1.0),)), Place((5, 5, 20, 20))]
    prompt = as_prompt(places, torch.device("cpu"))
    assert (
        prompt.labels_KP is not None and prompt.labels_KP.tolist() == [[1, 0], [-1, -1]] and prompt.masks_K1hw is None
    )


def _touches(box: tuple[float, ...], other: tuple[float, ...], reach: float) -> bool:
    across = box[0] < other[2] + reach and box[2] > other[0] - reach
    return across and box[1] < other[3] + reach and box[3] > other[1] - reach


def _move(spt: SelfPerception) -> None:
    """Away from where it began."""
    with torch.no_grad():
        for p in spt.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))


# ── the teacher ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return clip_folder(tmp_path_factory.mktemp("clip"))


def teacher_of(folder: str, **changes: Any) -> sam_spt.Teacher:
    torch.manual_seed(0)
    guide = {"model": folder, "pretrained": None, "licence": "MIT", "vv_blocks": 2}
    return sam_spt.build(
        sam_spt.Config(**({"guide": guide, "backend": "tiny", "random": True, "cache": False} | changes)), 64
    )


def test_what_it_keeps_is_small_and_enough(folder: str) -> None:
    torch.manual_seed(0)
    teacher, image = teacher_of(folder), lessons(2)[1].image
    yielded = list(teacher.fit(lessons(8), epochs=2, batch=4, rate=1e-2, seed=0))
    assert len(yielded) == teacher.count_steps(8, epochs=2, batch=4)
    learnt = teacher.adapted_state()
    assert not any(".frozen." in key or key.startswith("guide.prompts") for key in learnt)
    assert sum(value.numel() * 4 for value in learnt.values()) < 200_000
    torch.manual_seed(5)
    fresh = teacher_of(folder)
    place = spoilt(np.pad(np.ones((40, 40), bool), 108), np.random.default_rng(0), MASK_SIDE)
    large = np.repeat(np.repeat(image, 4, axis=0), 4, axis=1)
    wanted, before = teacher._answer([large], [place]).masks, fresh._answer([large], [place]).masks
    assert learnt.keys() == fresh.adapted_state().keys()
    fresh.load_state_dict(learnt, strict=False)
    assert not torch.equal(before.final_K1hw, wanted.final_K1hw)
    again = fresh._answer([large], [place]).masks
    assert all(torch.equal(one, other) for one, other in zip(again, wanted, strict=True))
    assert torch.equal(fresh.predict([image]).heatmap_B1HW, teacher.predict([image]).heatmap_B1HW)


def test_the_tuning_has_a_pace_of_its_own(folder: str) -> None:
    """Adam's first step is as long as its rate: of the presence head ten times as long, of the guide the same."""
    moved = []
    for pace in (1.0, 10.0):
        torch.manual_seed(0)
        teacher = teacher_of(folder, learning_rate_scale=pace)
        before = float(teacher.spt.presence.bias.detach())
        torch.manual_seed(0)
        list(teacher.fit(lessons(4), epochs=1, batch=8, rate=1e-3, seed=0))
        guide = {key: value for key, value in teacher.adapted_state().items() if key.startswith("guide.")}
        moved.append((abs(float(teacher.spt.presence.bias.detach()) - before), guide))
    (slow, first), (fast, second) = moved
    assert slow == pytest.approx(1e-3, rel=0.05) and fast == pytest.approx(1e-2, rel=0.05)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_guides_settings_are_written_out(folder: str) -> None:
    settings = sam_spt.Config(guide={"model": folder, "vv_blocks": 2})
    assert settings.guide["sigma"] == 4.0 and settings.guide["vv_blocks"] == 2
    with pytest.raises(UsageError, match=r"teacher\.guide: unknown key 'vvblocks'; did you mean 'vv_blocks'"):
        sam_spt.Config(guide={"vvblocks": 2})


def test_where_the_guide_sees_nothing_sam_is_not_asked(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, image = teacher_of(folder), lessons(2)[1].image
    teacher.guide.suspicious.fill_(1.0)
    monkeypatch.setattr(teacher.spt, "forward", None)
    assert torch.equal(teacher.predict([image]).heatmap_B1HW, teacher.guide.predict([image]).heatmap_B1HW)


@pytest.mark.parametrize(
    ("presence", "iou", "share", "taken"),
    [(9, 0.9, 0.1, True), (-9, 0.9, 0.1, False), (9, 0.2, 0.1, False), (9, 0.9, 0.9, False), (9, 0.9, 0.0, False)],
)
def test_a_mask_is_accepted_or_left(
    folder: str, monkeypatch: pytest.MonkeyPatch, presence: float, iou: float, share: float, taken: bool
) -> None:
    """Presence, SAM's own estimate, its size and its place decide."""
    guide = {"model": folder, "pretrained": None, "vv_blocks": 2, "closer": False}
    teacher, image = teacher_of(folder, guide=guide), lessons(2)[1].image
    coarse = teacher.guide.heat(teacher.guide.predict([image]).tokens_BChw)[0, 0]
    teacher.guide.suspicious.copy_(coarse.max() - 1e-4)
    hottest = divmod(int(coarse.argmax()), coarse.shape[1])
    logits = -torch.ones(1, 1, MASK_SIDE, MASK_SIDE)
    half = round(MASK_SIDE * share**0.5 / 2)
    row, column = (round((cell + 0.5) * MASK_SIDE / coarse.shape[0]) for cell in hottest)
    logits[0, 0, max(0, row - half) : row + half, max(0, column - half) : column + half] = 9.0
    if share > 0.5:
        logits[:] = 9.0
    masks = Masks(logits, logits, torch.tensor([iou]), torch.tensor([float(presence)]))
    answer = sam_spt.Answer(masks, torch.tensor([[0, 0, SIDE, SIDE]]))
    monkeypatch.setattr(teacher, "_answer", lambda images, places: answer)
    guided, refined = teacher.guide.predict([image]).heatmap_B1HW, teacher.predict([image]).heatmap_B1HW
    assert torch.equal(guided, refined) != taken


def test_sams_weights_are_read_safely_and_from_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_real_shapes_load_and_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAM ViT-B as published, from a file of its name as the release has it: 94 million numbers."""
    torch.manual_seed(0)
    state = load.build_sam("sam_vit_b").state_dict()
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "sam_vit_b_01ec64.pth")
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    loaded = load.load_sam("sam_vit_b", None)
    # A file of SAM's shape and name, but not SAM's: nobody knows its terms.
    assert loaded.source.licence == "unknown" and len(loaded.source.sha256) == 64
    assert load.load_sam("sam_vit_b", None, licence="MIT").source.licence == "MIT"
    assert sum(p.numel() for p in loaded.model.parameters()) == pytest.approx(93.7e6, rel=0.01)
    spt = SelfPerception(loaded.model, temperature=0.1, tune_encoder=False)
    masks = spt(torch.randn(1, 256, 64, 64), boxes((100, 100, 400, 500)))
    assert masks.final_K1hw.shape == (1, 1, 256, 256)


def test_a_mask_elsewhere_is_left_and_a_neighbours_box_takes_nothing_away(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, image = teacher_of(folder), lessons(2)[1].image
    before = teacher.guide.predict([image]).heatmap_B1HW
    cells, hot, nothing = torch.zeros(64, 64, dtype=torch.bool), torch.zeros(64, 64), torch.zeros(64, 64)
    cells[20:24, 20:24], hot[10:30, 10:30] = True, 1.0
    first = sam_spt.Segment((slice(10, 30), slice(10, 30)), cells, hot)
    second = sam_spt.Segment((slice(10, 40), slice(10, 40)), cells, nothing)
    monkeypatch.setattr(teacher, "segments", lambda image, tokens: [first, second])
    after = teacher.predict([image]).heatmap_B1HW
    peak, weight = before[0, 0][cells].max(), teacher.settings.weight
    expected = before[0, 0, 10:30, 10:30] * (1 - weight) + weight * peak
    assert torch.allclose(after[0, 0, 10:30, 10:30], expected, atol=1e-6)
    assert torch.allclose(after[0, 0, 30:40, 30:40], before[0, 0, 30:40, 30:40] * (1 - weight), atol=1e-6)
    assert torch.equal(after[0, 0, 40:], before[0, 0, 40:])


def test_random_weights_are_never_kept(folder: str) -> None:
    assert not teacher_of(folder, cache=True).keeps
