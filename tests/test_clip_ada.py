"""The CLIP-ADA-style teacher: what the paper and the packages fix to the digit, and that nothing but its words learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inspect_kd import config
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.models.base import TeacherSample
from inspect_kd.models.clip.closer import Window, paste_closer, suspicious_windows
from inspect_kd.models.clip.heat import share_by_affinity, similarity
from inspect_kd.models.clip.load import load_clip
from inspect_kd.models.clip.prompts import Prompts, Text, tokenize
from inspect_kd.models.clip.towers import VitTower, attend
from inspect_kd.models.teachers import clip_ada
from tests.builders import clip_folder
from tests.test_models import Evil


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return clip_folder(tmp_path_factory.mktemp("clip"))


def teacher_of(folder: str, **changes: Any) -> clip_ada.Teacher:
    settings = {"model": folder, "pretrained": None, "licence": "MIT", "vv_blocks": 2} | changes
    return clip_ada.build(clip_ada.Config(**settings), 64)


def images(count: int = 2, size: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 255


def lessons(count: int = 16, size: int = 64) -> list[TeacherSample]:
    """Grey noise; every other one with a bright square, so that there is something to learn."""
    rng, made = np.random.default_rng(0), []
    for number in range(count):
        image = rng.integers(90, 140, (size, size, 3), dtype=np.uint8)
        mask = None
        if number % 2:
            row, column = rng.integers(0, size - 20, 2)
            mask = np.zeros((size, size), bool)
            mask[row : row + 20, column : column + 20] = True
            image[mask] = 250
        made.append(TeacherSample(image=image, mask=mask))
    return made


def study(teacher: clip_ada.Teacher, *, epochs: int = 8, rate: float = 1e-2) -> list[float]:
    told = list(teacher.fit(lessons(), epochs=epochs, batch=4, rate=rate, seed=0))
    assert len(told) == teacher.count_steps(16, epochs=epochs, batch=4)
    return [figures["loss"] for figures in told if figures]


def test_injected_words_are_read_as_encode_text_reads_them(folder: str) -> None:
    clip = load_clip(folder, None, size=64, random=False, licence=None).model
    prompts = Prompts(clip, "pair", 12)
    text = [
        "one two three four five six seven eight nine ten red sky object.",
        "a b c d e f g h i j k l damaged object.",
    ]
    tokens = tokenize(text, 32)
    words = clip.token_embedding(tokens)[:, 1:13]
    length = prompts.tokens_PT.shape[1]
    assert torch.equal(prompts.tokens_PT[:, 13:], tokens[:, 13:length])
    embedded, ends = prompts.inject(words), tokens.argmax(dim=1)
    whole = torch.cat([embedded, clip.token_embedding(tokens[:, length:])], dim=1)
    expected = clip.encode_text(tokens)
    assert torch.equal(Text(clip).read(whole, ends), expected)
    # Cut after its end a sentence is read the same; the kernels for another length may round otherwise.
    assert torch.allclose(Text(clip).read(embedded, ends), expected, atol=1e-6)


def test_the_words_of_vit_b_16_are_as_many_as_published() -> None:
    shape = open_clip.get_model_config("ViT-B-16")
    small = {
        **shape,
        "vision_cfg": {**shape["vision_cfg"], "layers": 1},
        "text_cfg": {**shape["text_cfg"], "layers": 1},
    }
    prompts = Prompts(open_clip.CLIP(**small).requires_grad_(False), "pair", 12)
    assert sum(p.numel() for p in prompts.parameters() if p.requires_grad) == 12_288


@pytest.mark.parametrize("vv_blocks", [0, 1, 4])
def test_the_ordinary_path_is_open_clips_own(folder: str, vv_blocks: int) -> None:
    loaded = load_clip(folder, None, size=64, random=False, licence=None)
    tower, visual = VitTower(loaded, vv_blocks), loaded.model.visual
    block, x = visual.transformer.resblocks[0], torch.randn(2, 65, 64)
    assert torch.allclose(attend(block.attn, x, "query_key"), block.attention(x), atol=1e-5)
    assert not torch.allclose(attend(block.attn, x, "value_value"), block.attention(x), atol=1e-2)
    normed = (images() - tower.mean) / tower.std
    seen = tower(images())
    whole = loaded.model.encode_image(normed, normalize=True)
    assert torch.allclose(seen.whole_BC, whole, atol=1e-5)
    last = visual.forward_intermediates(normed, indices=1, normalize_intermediates=True, intermediates_only=True)
    ordinary = torch.einsum("bdhw,dc->bchw", last["image_intermediates"][0], visual.proj)
    same = torch.allclose(seen.dense_BChw, torch.nn.functional.normalize(ordinary, dim=1), atol=1e-5)
    assert same == (vv_blocks == 0)


def test_one_value_value_step_by_hand(folder: str) -> None:
    """softmax(v v' / sqrt(d)) v a head, then the block's own output layer."""
    attention = load_clip(folder, None, size=64, random=False, licence=None).model.visual.transformer.resblocks[0].attn
    x = torch.randn(1, 5, 64)
    value = x[0] @ attention.in_proj_weight[128:].T + attention.in_proj_bias[128:]
    heads = []
    for head in value.split(16, dim=1):
        weights = torch.stack([torch.softmax(torch.stack([row @ other / 4 for other in head]), dim=0) for row in head])
        heads.append(weights @ head)
    expected = torch.cat(heads, dim=1) @ attention.out_proj.weight.T + attention.out_proj.bias
    assert torch.allclose(attend(attention, x, "value_value")[0], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["pair", "single"])
def test_only_the_words_learn_and_the_vectors_replace_them(folder: str, mode: str) -> None:
    teacher = teacher_of(folder, prompt_mode=mode)
    frozen = {key: value.clone() for key, value in teacher.state_dict().items() if key.startswith(teacher.frozen)}
    losses = study(teacher)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    trained = {"prompts.words_PLD"} | ({"prompts.slope", "prompts.level"} if mode == "single" else set())
    assert {name for name, p in teacher.named_parameters() if p.requires_grad} == trained
    changed = {key for key, before in frozen.items() if not torch.equal(before, teacher.state_dict()[key])}
    assert changed == trained
    assert {name for name, p in teacher.named_parameters() if p.grad is not None} == trained
    prompts, dense = (
        teacher.prompts,
        teacher.predict(list(images().byte().permute(0, 2, 3, 1).numpy())).tokens_BChw,
    )
    assert prompts is not None
    live = similarity(dense, prompts(), prompts.slope, prompts.level)
    for _ in range(teacher.settings.affinity_steps):
        live = share_by_affinity(live, dense)
    teacher.release_training_state()
    # The stored vectors say what the sentences say, when nobody can read them any more.
    assert torch.equal(teacher.heat(dense), live)
    assert not any(key.startswith("prompts") for key in teacher.state_dict())
    assert sum(value.numel() for value in teacher.adapted_state().values()) < 10_000
    with pytest.raises(RuntimeError, match="settled"):
        study(teacher)


def test_what_was_studied_is_found(folder: str) -> None:
    teacher = teacher_of(folder)
    study(teacher, epochs=20)
    unseen = [lesson for lesson in lessons(40)[20:] if lesson.mask is not None]
    for lesson in unseen:
        heatmap = teacher.predict([lesson.image]).heatmap_B1HW[0, 0].numpy()
        assert lesson.mask is not None
        assert heatmap[lesson.mask].mean() > heatmap[~lesson.mask].mean() + 0.05


def test_a_study_is_the_same_every_time(folder: str) -> None:
    first, second = teacher_of(folder), teacher_of(folder)
    assert study(first, epochs=2) == study(second, epochs=2)
    assert all(torch.equal(value, second.adapted_state()[key]) for key, value in first.adapted_state().items())


@pytest.mark.parametrize(
    "changes", [{"affinity_steps": 0}, {"affinity_steps": 2}, {"vv_blocks": 0}, {"sigma": 9.0}, {"words": 4}], ids=str
)
def test_every_switch_changes_the_map(folder: str, changes: dict[str, Any]) -> None:
    usual, other = teacher_of(folder), teacher_of(folder, **changes)
    assert not torch.allclose(usual(images()).heatmap_B1HW, other(images()).heatmap_B1HW, atol=1e-5)


def test_a_closer_look_changes_suspicious_parts_only(folder: str) -> None:
    teacher, blunt = teacher_of(folder), teacher_of(folder, closer=False)
    for each in (teacher, blunt):
        study(each)
    sound, damaged = (lesson.image for lesson in lessons(2, size=256))
    teacher.suspicious.fill_(1.0)
    assert torch.equal(teacher.predict([sound, damaged]).heatmap_B1HW, blunt.predict([sound, damaged]).heatmap_B1HW)
    coarse = teacher.heat(teacher.predict([damaged]).tokens_BChw)
    teacher.suspicious.fill_(float(coarse.max()) - 1e-4)
    assert not torch.equal(teacher.predict([damaged]).heatmap_B1HW, blunt.predict([damaged]).heatmap_B1HW)


def test_windows_are_around_hot_places_and_inside_the_image() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[0, 0], heat[10:12, 15], heat[5, 5] = 0.9, 0.95, 0.2
    first, second = suspicious_windows(heat, 0.5)
    assert first == Window(pytest.approx(0.425), pytest.approx(0.65), 0.25) and second == Window(0.0, 0.0, 0.25)
    assert first.cut(np.zeros((400, 200, 3), np.uint8)).shape == (100, 50, 3)
    many = (np.indices((20, 20)).sum(axis=0) % 4 == 0) & (np.arange(20) % 4 == 0)[:, None]
    assert len(suspicious_windows(many.astype(np.float32), 0.5)) == 5
    pasted = paste_closer(torch.full((8, 8), 0.5), [Window(0.0, 0.0, 0.25)], torch.tensor([[[0.9]]]))
    assert torch.allclose(pasted[:2, :2], torch.tensor(0.7)) and torch.all(pasted[2:] == 0.5)
    cool = paste_closer(torch.full((8, 8), 0.5), [Window(0.0, 0.0, 0.25)], torch.tensor([[[0.1]]]))
    assert torch.all(cool == 0.5)


def test_weights_are_never_random_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    empty = clip_folder(tmp_path / "empty", weights=False)
    with pytest.raises(BadInput, match="expected one file of weights, found 0"):
        teacher_of(empty)
    with pytest.raises(UsageError, match="needs a tag or a file"):
        teacher_of("ViT-B-16", licence=None)
    with pytest.raises(UsageError, match=r"no weights called 'laion2c'.*laion2b_s34b_b88k"):
        teacher_of("ViT-B-16", pretrained="laion2c", licence=None)
    with pytest.raises(
        EnvironmentFault, match=r"hub cannot be reached.*ViT-B-16\.laion2b_s34b_b88k\.safetensors.*clip_ada_local"
    ):
        teacher_of("ViT-B-16", pretrained="laion2b_s34b_b88k", licence=None)
    with pytest.raises(EnvironmentFault, match=r"no weights for 'mobilenetv2_100'.*from a folder alone"):
        teacher_of("timm:mobilenetv2_100")
    with pytest.raises(UsageError, match=r"teacher\.model: ViT-Z-16"):
        teacher_of("ViT-Z-16", random=True)


@pytest.mark.parametrize(
    ("model", "tag"), [("ViT-B-16", "openai"), ("ViT-B-16", "dfn2b"), ("ViT-B-16", "somewhere/ViT-B-16.openai.pt")]
)
def test_weights_of_another_activation_are_an_error(model: str, tag: str) -> None:
    with pytest.raises(UsageError, match="another activation"):
        load_clip(model, tag, size=224, random=False, licence=None)


def test_a_tags_licence_is_its_own_and_a_files_is_told() -> None:
    with pytest.raises(UsageError, match=r"teacher\.licence: the weights of a tag"):
        load_clip("ViT-B-16", "metaclip_400m", size=224, random=False, licence="MIT")


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("RN50", 224, "no plain ViT"),
        ("ViT-B-32", 240, "no multiple of the patches"),
        ("ViT-L-14-CLIPA", 224, "text tower"),
    ],
)
def test_a_clip_that_cannot_be_read_is_told(
    model: str, size: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real shapes, one layer deep: what is asked is what kind they are."""
    shape = open_clip.get_model_config(model)
    vision = shape["vision_cfg"] | ({"layers": 1} if model != "RN50" else {"layers": [1, 1, 1, 1], "width": 8})
    shape |= {"vision_cfg": vision, "text_cfg": shape["text_cfg"] | {"layers": 1}}
    monkeypatch.setattr(open_clip.factory, "get_model_config", lambda name: shape)
    with pytest.raises(UsageError, match=message):
        clip_ada.build(clip_ada.Config(model=model, pretrained=None, random=True, vv_blocks=1), size)


@pytest.mark.parametrize("changes", [{"sigma": 0}, {"words": 0}, {"vv_blocks": -1}, {"score_share": 0}], ids=str)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        config.fill(clip_ada.Config, changes, where="test")


def test_too_many_words_leave_no_room(folder: str) -> None:
    with pytest.raises(UsageError, match=r"teacher\.words: 28"):
        teacher_of(folder, words=28)


def test_a_malicious_clip_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    clip_folder(tmp_path, weights=False)
    torch.save({"state_dict": {"visual.proj": Evil(tmp_path / "owned")}}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(BadInput, match="holds more than tensors"):
        teacher_of(f"local-dir:{tmp_path}")
    assert not (tmp_path / "owned").exists()


def test_real_shapes_load_from_a_file_of_the_tags_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B/16 as LAION published it, from the local folder: 150 million numbers, positions enlarged to 21x21 patches."""
    torch.manual_seed(0)
    state = open_clip.create_model("ViT-B-16").state_dict()
    save_file(
        {key: value.half().contiguous() for key, value in state.items()},
        tmp_path / "ViT-B-16.laion2b_s34b_b88k.safetensors",
    )
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    recipe = config.load_recipe("clip_ada")
    options = {key: value for key, value in recipe.teacher.items() if key != "build"}
    teacher = clip_ada.build(config.fill(clip_ada.Config, options, where="test"), recipe.data.size)
    assert teacher.sources[0].licence == "MIT (LAION)" and len(teacher.sources[0].sha256) == 64
    assert sum(p.numel() for p in teacher.parameters() if p.requires_grad) == 12_288
    assert torch.allclose(teacher.tower.visual.conv1.weight, state["visual.conv1.weight"], atol=1e-3)
    glance = teacher.predict([np.zeros((300, 200, 3), np.uint8)])
    assert glance.tokens_BChw.shape == (1, 512, 21, 21) and glance.heatmap_B1HW.shape == (1, 1, 336, 336)


def test_the_stand_in_sees_with_real_weights(real_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(real_weights))
    recipe = config.load_recipe("clip_ada_local")
    options = {key: value for key, value in recipe.teacher.items() if key != "build"}
    teacher = clip_ada.build(config.fill(clip_ada.Config, options, where="test"), 128)
    kept = load_file(next(real_weights.glob("mobilenetv2_100*.safetensors")))
    assert torch.allclose(teacher.tower.visual.trunk.conv_stem.weight, kept["conv_stem.weight"].float())
    study(teacher, epochs=2)
    assert teacher.tower.spread.spread(0).std() > 0
    assert teacher.predict([np.zeros((50, 80, 3), np.uint8)]).tokens_BChw.shape == (1, 256, 8, 8)
    assert teacher.sources[0].licence == "Apache-2.0"
