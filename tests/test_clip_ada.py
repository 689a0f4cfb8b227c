"""The CLIP-ADA-style teacher: agreement with open_clip and the paper, training, crops, and loading of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from inspect_kd import config
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.models.clip.crops import Crop, blend_crops, suspicious_crops
from inspect_kd.models.clip.heat import average_by_affinity, damage_probability
from inspect_kd.models.clip.load import load_clip
from inspect_kd.models.clip.prompts import LearnablePrompts, TextTower, tokenize
from inspect_kd.models.clip.towers import VitTower, attend
from inspect_kd.models.teachers import clip_ada
from tests.builders import save_tiny_clip
from tests.small_models import Evil, images, teacher_samples


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def build_teacher(clip_folder: str, **changes: Any) -> clip_ada.ClipAdaTeacher:
    settings = {"model": clip_folder, "pretrained": None, "licence": "MIT", "vv_blocks": 2} | changes
    return clip_ada.build(clip_ada.Config(**settings), 64)


def train(teacher: clip_ada.ClipAdaTeacher, *, epochs: int = 8, learning_rate: float = 1e-2) -> list[float]:
    steps = list(teacher.fit(teacher_samples(), epochs=epochs, batch=4, learning_rate=learning_rate, seed=0))
    assert len(steps) == teacher.count_steps(16, epochs=epochs, batch=4)
    return [metrics["loss"] for metrics in steps if metrics]


def test_prompts_are_encoded_as_by_encode_text(clip_folder: str) -> None:
    clip = load_clip(clip_folder, None, size=64, random=False, licence=None).model
    prompts = LearnablePrompts(clip, "pair", 12)
    text = [
        "one two three four five six seven eight nine ten red sky object.",
        "a b c d e f g h i j k l damaged object.",
    ]
    tokens = tokenize(text, 32)
    words = clip.token_embedding(tokens)[:, 1:13]
    length = prompts.tokens_PT.shape[1]
    assert torch.equal(prompts.tokens_PT[:, 13:], tokens[:, 13:length])
    embedded, ends = prompts.embed(words), tokens.argmax(dim=1)
    whole = torch.cat([embedded, clip.token_embedding(tokens[:, length:])], dim=1)
    expected = clip.encode_text(tokens)
    assert torch.equal(TextTower(clip).encode(whole, ends), expected)
    # Cutting a sentence after its end changes nothing but rounding.
    assert torch.allclose(TextTower(clip).encode(embedded, ends), expected, atol=1e-6)


def test_vit_b_16_has_the_published_number_of_learnable_values() -> None:
    architecture = open_clip.get_model_config("ViT-B-16")
    one_layer_deep = {
        **architecture,
        "vision_cfg": {**architecture["vision_cfg"], "layers": 1},
        "text_cfg": {**architecture["text_cfg"], "layers": 1},
    }
    prompts = LearnablePrompts(open_clip.CLIP(**one_layer_deep).requires_grad_(False), "pair", 12)
    assert sum(p.numel() for p in prompts.parameters() if p.requires_grad) == 12_288


@pytest.mark.parametrize("vv_blocks", [0, 1, 4])
def test_query_key_attention_agrees_with_open_clip(clip_folder: str, vv_blocks: int) -> None:
    loaded = load_clip(clip_folder, None, size=64, random=False, licence=None)
    tower, visual = VitTower(loaded, vv_blocks), loaded.model.visual
    block, x = visual.transformer.resblocks[0], torch.randn(2, 65, 64)
    assert torch.allclose(attend(block.attn, x, "query_key"), block.attention(x), atol=1e-5)
    assert not torch.allclose(attend(block.attn, x, "value_value"), block.attention(x), atol=1e-2)
    normed = (images() - tower.mean) / tower.std
    output = tower(images())
    whole = loaded.model.encode_image(normed, normalize=True)
    assert torch.allclose(output.whole_BC, whole, atol=1e-5)
    last = visual.forward_intermediates(normed, indices=1, normalize_intermediates=True, intermediates_only=True)
    ordinary = torch.einsum("bdhw,dc->bchw", last["image_intermediates"][0], visual.proj)
    is_same = torch.allclose(output.dense_BChw, torch.nn.functional.normalize(ordinary, dim=1), atol=1e-5)
    assert is_same == (vv_blocks == 0)


def test_value_value_attention_by_hand(clip_folder: str) -> None:
    """softmax(v v' / sqrt(d)) v per head, then the block's own output layer."""
    attention = (
        load_clip(clip_folder, None, size=64, random=False, licence=None).model.visual.transformer.resblocks[0].attn
    )
    x = torch.randn(1, 5, 64)
    value = x[0] @ attention.in_proj_weight[128:].T + attention.in_proj_bias[128:]
    heads = []
    for head in value.split(16, dim=1):
        weights = torch.stack([torch.softmax(torch.stack([row @ other / 4 for other in head]), dim=0) for row in head])
        heads.append(weights @ head)
    expected = torch.cat(heads, dim=1) @ attention.out_proj.weight.T + attention.out_proj.bias
    assert torch.allclose(attend(attention, x, "value_value")[0], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["pair", "single"])
def test_only_prompts_are_trained_and_stored_vectors_replace_them(clip_folder: str, mode: str) -> None:
    teacher = build_teacher(clip_folder, prompt_mode=mode)
    frozen = {key: value.clone() for key, value in teacher.state_dict().items() if key.startswith(teacher.frozen)}
    losses = train(teacher)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    trained = {"prompts.words_PLD"} | ({"prompts.slope", "prompts.centre"} if mode == "single" else set())
    assert {name for name, p in teacher.named_parameters() if p.requires_grad} == trained
    changed = {key for key, before in frozen.items() if not torch.equal(before, teacher.state_dict()[key])}
    assert changed == trained
    assert {name for name, p in teacher.named_parameters() if p.grad is not None} == trained
    dense = teacher.predict(list(images().byte().permute(0, 2, 3, 1).numpy())).tokens_BChw
    prompts = teacher.prompts
    assert prompts is not None
    heat = damage_probability(dense, prompts(), prompts.slope, prompts.centre)
    for _ in range(teacher.settings.affinity_steps):
        heat = average_by_affinity(heat, dense)
    teacher.release_training_state()
    # The stored vectors give the same heat as the prompts.
    assert torch.equal(teacher.heat(dense), heat)
    assert not any(key.startswith("prompts") for key in teacher.state_dict())
    assert sum(value.numel() for value in teacher.adapted_state().values()) < 10_000
    with pytest.raises(RuntimeError, match="dropped its text tower"):
        train(teacher)


def test_trained_teacher_finds_unseen_defects(clip_folder: str) -> None:
    teacher = build_teacher(clip_folder)
    train(teacher, epochs=20)
    unseen = [sample for sample in teacher_samples(40)[20:] if sample.mask is not None]
    for sample in unseen:
        heatmap = teacher.predict([sample.image]).heatmap_B1HW[0, 0].numpy()
        assert sample.mask is not None
        assert heatmap[sample.mask].mean() > heatmap[~sample.mask].mean() + 0.05


def test_training_is_reproducible(clip_folder: str) -> None:
    first, second = build_teacher(clip_folder), build_teacher(clip_folder)
    assert train(first, epochs=2) == train(second, epochs=2)
    assert all(torch.equal(value, second.adapted_state()[key]) for key, value in first.adapted_state().items())


@pytest.mark.parametrize(
    "changes", [{"affinity_steps": 0}, {"affinity_steps": 2}, {"vv_blocks": 0}, {"sigma": 9.0}, {"words": 4}], ids=str
)
def test_every_option_changes_the_map(clip_folder: str, changes: dict[str, Any]) -> None:
    default, changed = build_teacher(clip_folder), build_teacher(clip_folder, **changes)
    assert not torch.allclose(default(images()).heatmap_B1HW, changed(images()).heatmap_B1HW, atol=1e-5)


def test_crops_change_the_maps_of_suspicious_images_only(clip_folder: str) -> None:
    teacher, coarse_teacher = build_teacher(clip_folder), build_teacher(clip_folder, closer=False)
    for model in (teacher, coarse_teacher):
        train(model)
    sound, defective = (sample.image for sample in teacher_samples(2, size=256))
    teacher.region_threshold.fill_(1.0)
    pair = [sound, defective]
    assert torch.equal(teacher.predict(pair).heatmap_B1HW, coarse_teacher.predict(pair).heatmap_B1HW)
    coarse_heat = teacher.heat(teacher.predict([defective]).tokens_BChw)
    teacher.region_threshold.fill_(float(coarse_heat.max()) - 1e-4)
    assert not torch.equal(teacher.predict([defective]).heatmap_B1HW, coarse_teacher.predict([defective]).heatmap_B1HW)


def test_crops_are_around_hot_regions_and_inside_the_image() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[0, 0], heat[10:12, 15], heat[5, 5] = 0.9, 0.95, 0.2
    first, second = suspicious_crops(heat, 0.5)
    assert first == Crop(pytest.approx(0.425), pytest.approx(0.65), 0.25) and second == Crop(0.0, 0.0, 0.25)
    assert first.cut(np.zeros((400, 200, 3), np.uint8)).shape == (100, 50, 3)
    many_peaks = (np.indices((20, 20)).sum(axis=0) % 4 == 0) & (np.arange(20) % 4 == 0)[:, None]
    assert len(suspicious_crops(many_peaks.astype(np.float32), 0.5)) == 5


def test_crops_raise_the_heatmap_but_never_lower_it() -> None:
    raised = blend_crops(torch.full((8, 8), 0.5), [Crop(0.0, 0.0, 0.25)], torch.tensor([[[0.9]]]))
    assert torch.allclose(raised[:2, :2], torch.tensor(0.7)) and torch.all(raised[2:] == 0.5)
    unchanged = blend_crops(torch.full((8, 8), 0.5), [Crop(0.0, 0.0, 0.25)], torch.tensor([[[0.1]]]))
    assert torch.all(unchanged == 0.5)


def test_weights_are_never_random_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    empty = save_tiny_clip(tmp_path / "empty", weights=False)
    with pytest.raises(BadInput, match="expected one file of weights, found 0"):
        build_teacher(empty)
    with pytest.raises(UsageError, match="needs a tag or a file"):
        build_teacher("ViT-B-16", licence=None)
    with pytest.raises(UsageError, match=r"no weights called 'laion2c'.*laion2b_s34b_b88k"):
        build_teacher("ViT-B-16", pretrained="laion2c", licence=None)
    with pytest.raises(
        EnvironmentFault, match=r"hub cannot be reached.*ViT-B-16\.laion2b_s34b_b88k\.safetensors.*clip_ada_local"
    ):
        build_teacher("ViT-B-16", pretrained="laion2b_s34b_b88k", licence=None)
    with pytest.raises(EnvironmentFault, match=r"no weights for 'mobilenetv2_100'.*from a local folder only"):
        build_teacher("timm:mobilenetv2_100")
    with pytest.raises(UsageError, match=r"teacher\.model: ViT-Z-16"):
        build_teacher("ViT-Z-16", random=True)


@pytest.mark.parametrize(
    ("model", "tag"), [("ViT-B-16", "openai"), ("ViT-B-16", "dfn2b"), ("ViT-B-16", "somewhere/ViT-B-16.openai.pt")]
)
def test_weights_with_another_activation_are_refused(model: str, tag: str) -> None:
    with pytest.raises(UsageError, match="another activation"):
        load_clip(model, tag, size=224, random=False, licence=None)


def test_a_licence_cannot_be_set_for_a_tag() -> None:
    with pytest.raises(UsageError, match=r"teacher\.licence: the weights of a tag"):
        load_clip("ViT-B-16", "metaclip_400m", size=224, random=False, licence="MIT")


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("RN50", 224, "not a plain ViT"),
        ("ViT-B-32", 240, "not a multiple of 32, the patch size"),
        ("ViT-L-14-CLIPA", 224, "text tower"),
    ],
)
def test_unsuitable_clip_is_refused(model: str, size: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The architectures are real, but one layer deep."""
    architecture = open_clip.get_model_config(model)
    vision = architecture["vision_cfg"] | ({"layers": 1} if model != "RN50" else {"layers": [1, 1, 1, 1], "width": 8})
    architecture |= {"vision_cfg": vision, "text_cfg": architecture["text_cfg"] | {"layers": 1}}
    monkeypatch.setattr(open_clip.factory, "get_model_config", lambda name: architecture)
    with pytest.raises(UsageError, match=message):
        clip_ada.build(clip_ada.Config(model=model, pretrained=None, random=True, vv_blocks=1), size)


@pytest.mark.parametrize("changes", [{"sigma": 0}, {"words": 0}, {"vv_blocks": -1}, {"score_share": 0}], ids=str)
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        config.fill(clip_ada.Config, changes, where="test")


def test_too_many_words_are_refused(clip_folder: str) -> None:
    with pytest.raises(UsageError, match=r"teacher\.words: 28"):
        build_teacher(clip_folder, words=28)


def test_malicious_clip_is_refused_without_running_code(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path, weights=False)
    torch.save({"state_dict": {"visual.proj": Evil(tmp_path / "owned")}}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(BadInput, match="holds more than tensors"):
        build_teacher(f"local-dir:{tmp_path}")
    assert not (tmp_path / "owned").exists()


def test_vit_b_16_loads_from_a_file_named_after_its_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local folder holds all 150 million weights; position embeddings are enlarged to 21x21 patches."""
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
    output = teacher.predict([np.zeros((300, 200, 3), np.uint8)])
    assert output.tokens_BChw.shape == (1, 512, 21, 21) and output.heatmap_B1HW.shape == (1, 1, 336, 336)


def test_clip_ada_local_uses_pretrained_weights(real_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(real_weights))
    recipe = config.load_recipe("clip_ada_local")
    options = {key: value for key, value in recipe.teacher.items() if key != "build"}
    teacher = clip_ada.build(config.fill(clip_ada.Config, options, where="test"), 128)
    published = load_file(next(real_weights.glob("mobilenetv2_100*.safetensors")))
    assert torch.allclose(teacher.tower.visual.trunk.conv_stem.weight, published["conv_stem.weight"].float())
    train(teacher, epochs=2)
    assert teacher.tower.spread.std(0).std() > 0
    assert teacher.predict([np.zeros((50, 80, 3), np.uint8)]).tokens_BChw.shape == (1, 256, 8, 8)
    assert teacher.sources[0].licence == "Apache-2.0"
