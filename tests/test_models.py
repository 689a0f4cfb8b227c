"""Students: their common contract, layers, encoders, weights, and published sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from torch import Tensor, nn

from inspect_kd import config, registry, weights
from inspect_kd.datasets.batches import Sweep
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.models import encoders
from inspect_kd.models.base import ModelOutput
from inspect_kd.models.encoders import EncoderSpec, build_encoder, empty_encoder, weights_available
from inspect_kd.models.layers.attention import LearnedMemory, LearnedQueries
from inspect_kd.models.layers.discrepancy import GaussianSmoothing, gaussian_taps, top_mean
from inspect_kd.models.layers.features import box_sum, join
from inspect_kd.models.layers.omni_block import GlobalBranch, OmniBlock, PlainBranch
from inspect_kd.models.layers.prototypes import Prototypes
from inspect_kd.models.layers.ras_former import EncoderLayer, neighbourhood
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.models.rebuild_config import CompareConfig
from inspect_kd.models.students import omni_ad, ras
from inspect_kd.types import Sample
from tests.small_models import FEW_PROTOTYPES, Evil, gated, images, small, small_ras

for_every_student = pytest.mark.parametrize("build", [small, small_ras, gated])


def test_weights_from_the_hub_have_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher's outputs are cached under this digest; without it they would be computed in every step."""
    monkeypatch.setattr(encoders, "_can_fetch_weights", lambda name: True)
    build_body = encoders._timm_body
    # Build the network with random weights instead of downloading them.
    monkeypatch.setattr(
        encoders, "_timm_body", lambda *arguments, **options: build_body(*arguments, **options | {"pretrained": False})
    )
    monkeypatch.delenv("INSPECT_KD_WEIGHTS", raising=False)
    torch.manual_seed(0)
    first = build_encoder("mobilenetv2_050").spec.sha256
    torch.manual_seed(0)
    assert len(first) == 64 and build_encoder("mobilenetv2_050").spec.sha256 == first
    torch.manual_seed(1)
    assert build_encoder("mobilenetv2_050").spec.sha256 != first


def test_plain_branch_merges_into_one_kernel_in_eval_mode() -> None:
    torch.manual_seed(0)
    branch, x = PlainBranch(6), torch.randn(4, 6, 9, 9)
    for norm in branch.norms:
        assert isinstance(norm, nn.BatchNorm2d)
        norm.momentum = None  # use the statistics of this batch alone
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    branch(x)
    outputs = [branch.wide(x), branch.narrow(x), x]
    expected = sum(norm.eval()(output) for norm, output in zip(branch.norms, outputs, strict=True)).relu()
    assert torch.allclose(branch.eval()(x), expected, atol=1e-5) and expected.std() > 0.1


def test_plain_branch_exports_one_convolution_instead_of_three() -> None:
    counts = []
    for local in ("depthwise", "plain"):
        student = small(local=local)
        student.fit_statistics([images(8)])
        program = torch.export.export(student.eval(), (images(1),))
        counts.append(sum("conv2d" in str(node.target) for node in program.graph.nodes))
    assert counts[0] - counts[1] == 2 * 3  # in each of three blocks


def test_omni_ad_refuses_four_levels() -> None:
    levels, half = (2, 4, 8, 16), (0.5, 0.5, 0.5)
    spec = EncoderSpec(name="mobilenetv2_050", mean=half, std=half, licence="", source="", strides=levels)
    with pytest.raises(UsageError, match=r"student\.strides: omni_ad takes three levels"):
        omni_ad.build(omni_ad.Config(strides=levels), empty_encoder(spec))


def test_registry_lists_students_by_file_name() -> None:
    assert registry.names("models.students") == ["omni_ad", "ras"]
    with pytest.raises(UsageError, match="there are: omni_ad, ras"):
        registry.load("models.students", "omni")


@for_every_student
def test_prediction_of_an_image_does_not_depend_on_its_batch(build: Callable[..., RebuildStudent]) -> None:
    student = build().eval()
    student.fit_statistics([images(4, seed=9)])
    batch = images(3)
    batched, single = student(batch), student(batch[1:2])
    assert batched.heatmap_B1HW.shape == (3, 1, 64, 64) and batched.score_B.shape == (3,)
    assert torch.allclose(batched.heatmap_B1HW[1:2], single.heatmap_B1HW, atol=1e-5)
    assert batched.heatmap_B1HW.min() >= -1e-4


@for_every_student
def test_every_trainable_parameter_gets_a_gradient(build: Callable[..., RebuildStudent]) -> None:
    student = build().train()
    student.fit_statistics([images(4, seed=9)])
    batch = images(4)
    torch.stack(list(student.losses(batch, batch).values())).sum().backward()
    assert parameters_without_gradient(student) == []


def parameters_without_gradient(module: nn.Module) -> list[str]:
    """Names of trainable parameters whose gradient is missing or zero."""
    return [
        name
        for name, p in module.named_parameters()
        # A key's bias shifts all scores of a query alike, which a softmax ignores.
        if p.requires_grad and "key.bias" not in name and (p.grad is None or p.grad.abs().max() == 0)
    ]


@pytest.mark.parametrize("kind", [LearnedQueries, LearnedMemory])
def test_removing_either_attention_changes_the_output(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    student = small(compare=()).eval()
    before = student(images()).heatmap_B1HW
    original = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: torch.zeros_like(original(self, x)))
    after = student(images()).heatmap_B1HW
    assert (before - after).abs().max() > 1e-3 * before.abs().max()


def test_learned_tokens_differ_and_every_parameter_of_the_block_gets_a_gradient() -> None:
    block = OmniBlock(16, heads=4)
    tokens = [module.tokens_TC for module in block.modules() if isinstance(module, LearnedQueries | LearnedMemory)]
    assert len(tokens) == 2 and all(token.std(dim=0).min() > 0.01 for token in tokens)
    block(torch.randn(2, 16, 12, 12)).square().sum().backward()
    assert parameters_without_gradient(block) == []


def test_learned_queries_summarise_any_grid_in_64_tokens() -> None:
    branch = GlobalBranch(16, 4, "batch", overview=24).eval()
    x = torch.randn(1, 16, 24, 24)
    gathered = branch.gather(branch.norm_in(x).flatten(2).transpose(1, 2))
    assert gathered.shape == (1, 64, 16)


def test_length_power_scales_the_distance_by_feature_length() -> None:
    rows = torch.rand(4, 6, 8, 8) + 0.1
    both = [Prototypes(6, 3, window=1, length_power=power) for power in (0.0, 1.0)]
    for prototypes in both:
        prototypes.add(rows, torch.Generator().manual_seed(0))
        prototypes.fit(torch.ones(1, 6, 1, 1), torch.Generator().manual_seed(0))
    by_angle, by_angle_and_length = both
    features = torch.rand(1, 6, 8, 8)
    assert torch.allclose(by_angle(features), by_angle(3 * features), atol=1e-6)
    assert torch.allclose(3 * by_angle_and_length(features), by_angle_and_length(3 * features), atol=1e-5)
    lengths = features.norm(dim=1, keepdim=True) / rows.norm(dim=1).mean()
    assert torch.allclose(by_angle_and_length(features), by_angle(features) * lengths, atol=1e-5)


def test_score_weight_changes_the_score_but_not_the_map() -> None:
    def predict(score_weight: float | None) -> ModelOutput:
        compare = (
            FEW_PROTOTYPES[0],
            CompareConfig(strides=(16,), prototypes=16, weight=2.0, score_weight=score_weight),
        )
        student = small(compare=compare).eval()
        student.fit_statistics([images(4, seed=9)])
        return student(images())

    unweighted, weighted = predict(None), predict(6.0)
    assert torch.equal(unweighted.heatmap_B1HW, weighted.heatmap_B1HW) and not torch.allclose(
        unweighted.score_B, weighted.score_B
    )
    map_weights, score_weights = small(
        compare=(CompareConfig(strides=(16,), weight=2.0, score_weight=6.0),)
    ).scorer.weights
    assert sum(map_weights) == pytest.approx(sum(score_weights)) and score_weights[1] / score_weights[
        0
    ] == pytest.approx(6)


@pytest.mark.parametrize(
    ("side", "overview", "positions"), [(32, 16, 256), (32, 32, 1024), (8, 16, 64), (24, 16, 144), (40, 16, 100)]
)
def test_attention_runs_on_at_most_the_overview_grid(side: int, overview: int, positions: int) -> None:
    branch = GlobalBranch(16, 4, "batch", overview).eval()
    counts: list[int] = []
    branch.gather.register_forward_pre_hook(lambda _, arguments: counts.append(arguments[0].shape[1]))
    branch.explain.register_forward_pre_hook(lambda _, arguments: counts.append(arguments[0].shape[1]))
    x = torch.randn(2, 16, side, side)
    assert branch(x).shape == x.shape and counts == [positions, positions]


def test_sweep_covers_all_sound_images_in_equal_shares_of_categories() -> None:
    samples = [Sample(image=Path(f"{c}{i}.png"), category=c) for c, n in (("a", 40), ("b", 7)) for i in range(n)]
    draws = [draw for batch in Sweep(samples, max_images=1000, repeat=False, batch=8, seed=0) for draw in batch]
    assert {draw.index for draw in draws} == set(range(47))
    assert Counter(samples[draw.index].category for draw in draws) == {"a": 40, "b": 40}
    capped = [draw.index for batch in Sweep(samples, max_images=20, repeat=False, batch=8, seed=0) for draw in batch]
    assert len(capped) == 20 and len(set(capped)) >= 16
    capped_again = [
        draw.index for batch in Sweep(samples, max_images=20, repeat=False, batch=8, seed=0) for draw in batch
    ]
    assert capped == capped_again
    with_repeats = [draw for batch in Sweep(samples, max_images=200, repeat=True, batch=8, seed=0) for draw in batch]
    assert len(with_repeats) == 200 and len({draw.seed for draw in with_repeats}) == 200


@for_every_student
def test_two_trainings_are_bit_identical(build: Callable[..., RebuildStudent]) -> None:
    def train_and_predict() -> tuple[Tensor, Tensor]:
        student = build().train()
        student.fit_statistics([images(4, seed=9)])
        optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-3)
        for step in range(2):
            torch.manual_seed(step)
            batch = images(4, seed=step)
            loss = torch.stack(list(student.losses(batch, batch).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.detach(), student.eval()(images()).heatmap_B1HW.detach()

    first, second = train_and_predict(), train_and_predict()
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_omni_ad_paper_has_the_published_size() -> None:
    recipe = config.load_recipe("omni_ad_paper")
    options = {key: value for key, value in recipe.student.items() if key != "build"}
    settings = config.fill(omni_ad.Config, options, where="test")
    spec = EncoderSpec(name="resnet34", mean=(0, 0, 0), std=(1, 1, 1), licence="", source="")
    student = omni_ad.build(settings, empty_encoder(spec))
    parameter_count = sum(p.numel() for p in student.parameters())
    ffn_parameter_count = sum(
        p.numel()
        for m in student.modules()
        if isinstance(m, GlobalBranch)
        for f in (m.gather_ffn, m.explain_ffn)
        for p in f.parameters()
    )
    assert round(parameter_count / 1e6, 1) == 36.2
    assert round((parameter_count - ffn_parameter_count) / 1e6, 1) == 29.9


def test_ras_paper_has_the_published_size() -> None:
    recipe = config.load_recipe("ras_paper")
    options = {key: value for key, value in recipe.student.items() if key != "build"}
    settings = config.fill(ras.Config, options, where="test")
    spec = EncoderSpec(
        name="efficientnet_b4", mean=(0, 0, 0), std=(1, 1, 1), licence="", source="", strides=settings.strides
    )
    student = ras.build(settings, empty_encoder(spec)).eval()
    assert student.encoder.channels == (24, 32, 56, 160) and student.embed.in_features == 272
    # Published: 22.8 million, with all of EfficientNet-B4; we drop its unused stages.
    full_encoder = sum(p.numel() for p in timm.create_model("efficientnet_b4", features_only=True).parameters())
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    assert trained + full_encoder == pytest.approx(22.8e6, rel=0.01)
    assert student(images(1, 224)).heatmap_B1HW.shape == (1, 1, 224, 224)


@for_every_student
def test_encoder_is_frozen_and_stays_in_eval_mode(build: Callable[..., RebuildStudent]) -> None:
    student = build().train()
    assert not student.encoder.training and not any(p.requires_grad for p in student.encoder.parameters())
    before = {key: value.clone() for key, value in student.encoder.state_dict().items()}
    batch = images(4)
    sum(student.losses(batch, batch).values()).backward()
    assert all(torch.equal(before[key], value) for key, value in student.encoder.state_dict().items())


@pytest.mark.parametrize("normalise", ["none", "spread", "full"])
def test_feature_norm_follows_the_recipe(normalise: str) -> None:
    student = small(normalise=normalise, compare=())
    batch = images(8)
    student.fit_statistics([batch[:4], batch[4:]])
    raw_levels = student.encoder(batch)
    for normalised, raw_level in zip(student.feature_norm(raw_levels), raw_levels, strict=True):
        is_centred = normalised.mean(dim=(0, 2, 3)).abs().max() < 1e-3
        has_unit_std = (normalised.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-2
        assert is_centred == (normalise == "full")
        assert has_unit_std == (normalise != "none")
        assert torch.equal(normalised, raw_level) == (normalise == "none")


@for_every_student
def test_loss_compares_a_synthetic_input_with_its_sound_target(build: Callable[..., RebuildStudent]) -> None:
    student = build(noise_strength=0.0).eval()
    sound = images(2)
    synthetic = sound.clone()
    synthetic[:, :, 16:32, 16:32] = 255 - synthetic[:, :, 16:32, 16:32]
    to_itself, to_sound = (student.losses(synthetic, target)["rebuild"] for target in (synthetic, sound))
    assert not torch.isclose(to_itself, to_sound)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "instance"},
        {"noise": "norm"},
        {"noise_strength": 3.0},
        {"target_window": 3},
        {"hard_power": 3.0},
        {"normalise": "none"},
        {"rebuild": ((4, 8), (16,))},
        {"rebuild": ((8,),)},
        {"dims": (32, 24, 16, 12), "depths": (1, 1, 1, 1), "rebuild": ((4,), (8,), (16,))},
    ],
    ids=str,
)
def test_every_training_option_changes_the_loss(changes: dict[str, object]) -> None:
    def loss(student: omni_ad.OmniAdStudent) -> Tensor:
        student.fit_statistics([images(4, seed=9)])
        torch.manual_seed(1)
        return student.train().losses(batch, batch)["rebuild"]

    batch = images(4)
    changed = loss(small(**changes))
    changed.backward()
    assert torch.isfinite(changed) and not torch.isclose(changed, loss(small()), rtol=1e-5)


@pytest.mark.parametrize("changes", [{"sigma": 9.0}, {"score_share": 0.2}, {"compare": ()}], ids=str)
def test_every_scoring_option_changes_the_score(changes: dict[str, object]) -> None:
    def score(student: omni_ad.OmniAdStudent) -> Tensor:
        student.fit_statistics([images(4, seed=9)])
        return student.eval()(images()).score_B

    assert not torch.allclose(score(small(**changes)), score(small()), rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "changes", "message"),
    [
        (small, {"rebuild": ((4, 7),)}, "student.rebuild.*strides"),
        (small, {"rebuild": ()}, "at least one group"),
        (small, {"rebuild": ((4,), (8,), (16,))}, "student.dims.*stride 8.*stride 4"),
        (small, {"compare": (CompareConfig(strides=(32,)),)}, "student.compare.*strides"),
        (small, {"compare": (CompareConfig(strides=(8,), window=2),)}, "odd window"),
        (small, {"target_window": 2}, "student.target_window"),
        (small, {"normalise": "full"}, "student.normalise"),
        (small_ras, {"rebuild": ((4, 8), (16,))}, "one group"),
    ],
)
def test_contradicting_settings_are_refused(
    build: Callable[..., RebuildStudent], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build(**changes)


def test_ras_refuses_images_of_another_size() -> None:
    with pytest.raises(UsageError, match=r"student\.grid is 4.*8x8.*divided by 16"):
        small_ras().eval()(images(size=128))


def test_ras_attention_masks_the_neighbourhood() -> None:
    torch.manual_seed(0)
    layer, is_masked = EncoderLayer(16, 2, 16).eval(), neighbourhood(6, 3)
    assert is_masked.sum(dim=1).tolist()[0] == 4 and int(is_masked.sum(dim=1).max()) == 9
    x = torch.randn(1, 36, 16)
    changed = x.clone()
    changed[:, 14] += 1  # row 2, column 2
    zero_queries = torch.zeros(1, 36, 16)

    def attend(tokens: Tensor) -> Tensor:
        return layer.attention.attend(zero_queries, tokens, tokens, 1, is_masked)

    is_changed = (attend(x) - attend(changed)).abs().amax(dim=2)[0] > 1e-7
    assert torch.equal(is_changed, ~is_masked[14])


def test_prototypes_measure_the_distance_from_training_features() -> None:
    generator = torch.Generator().manual_seed(0)
    known_features = torch.zeros(2, 8, 5, 5)
    known_features[0, :3], known_features[1, 3:5] = 1.0, 2.0
    prototypes = Prototypes(8, count=6, window=3)
    prototypes.add(known_features, generator)
    prototypes.fit(torch.ones(1, 8, 1, 1), generator)
    assert prototypes(known_features).abs().max() < 1e-5 and prototypes(7 * known_features).abs().max() < 1e-5
    new_features = torch.zeros(1, 8, 5, 5)
    new_features[:, 6] = 1.0
    assert prototypes(new_features).min() > 0.99
    assert prototypes.collected == []


def test_join_averages_levels_to_the_coarsest_grid() -> None:
    fine, coarse = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    joined = join([fine, coarse], (4, 8), (4, 8))
    assert torch.allclose(joined[:, :3], nn.functional.avg_pool2d(fine, 2), atol=1e-6)
    assert torch.equal(joined[:, 3:], coarse)


def test_box_sum_is_a_scaled_mean() -> None:
    fine = torch.randn(2, 3, 8, 8)
    assert torch.allclose(box_sum(fine, 3) / 9, nn.functional.avg_pool2d(fine, 3, 1, 1), atol=1e-6)


def test_smoothing_kernel_extends_to_4_sigma() -> None:
    assert gaussian_taps(4.0).numel() == 33
    assert gaussian_taps(1.0)[0] < 1e-3
    flat = torch.full((1, 1, 16, 16), 3.0)
    assert torch.allclose(GaussianSmoothing(1.0)(flat), flat, atol=1e-5)


def test_score_is_robust_to_a_dead_pixel() -> None:
    heat = torch.zeros(1, 1, 64, 64)
    heat[0, 0, 5, 5] = 100
    assert top_mean(heat, 0.003).item() == pytest.approx(100 / 12)


def test_mobilenet_loads_from_the_local_folder(real_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(real_weights))
    encoder = build_encoder("mobilenetv2_100")
    assert encoder.channels == (24, 32, 96)
    assert [tuple(level.shape[1:]) for level in encoder(images(1, 256))] == [(24, 64, 64), (32, 32, 32), (96, 16, 16)]
    assert encoder.spec.licence == "Apache-2.0" and len(encoder.spec.sha256) == 64
    full_model = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same").eval()
    full_model.load_state_dict(weights.load_state(next(real_weights.glob("mobilenetv2_100*"))))
    image = images(1, 256)
    expected = full_model.forward_intermediates(image / 127.5 - 1, indices=(1, 2, 3), intermediates_only=True)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(encoder(image), expected, strict=True))
    # The stages behind the last level are dropped.
    assert sum(p.numel() for p in encoder.parameters()) < 0.7e6


def test_missing_weights_error_names_folder_and_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"INSPECT_KD_WEIGHTS.*hub.*--model embedded"):
        build_encoder("mobilenetv2_100")
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(EnvironmentFault, match="no such folder"):
        build_encoder("mobilenetv2_100")
    with pytest.raises(UsageError, match="neither `embedded` nor a model that timm knows"):
        monkeypatch.delenv("INSPECT_KD_WEIGHTS")
        build_encoder("resnet999")


def test_weights_are_available_from_package_hub_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    # A host that refuses the connection, then one that accepts it.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert weights_available("embedded") and not weights_available("mobilenetv2_100")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as hub:
        Thread(target=hub.handle_request, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        assert weights_available("mobilenetv2_100")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not weights_available("mobilenetv2_100")
    (tmp_path / "mobilenetv2_100.safetensors").touch()
    assert weights_available("mobilenetv2_100")


def test_malicious_checkpoint_is_refused_without_running_code(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    torch.save({"weight": Evil(marker)}, tmp_path / "resnet18.pt")
    with pytest.raises(BadInput, match=r"resnet18\.pt"):
        weights.load_state(tmp_path / "resnet18.pt")
    assert not marker.exists()
    (tmp_path / "torn.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BadInput, match="not a readable weights file"):
        weights.load_state(tmp_path / "torn.safetensors")


def test_encoder_refuses_weights_of_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "resnet18.safetensors")
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(tmp_path))
    with pytest.raises(BadInput, match="not the weights of 'resnet18'"):
        build_encoder("resnet18")


def test_embedded_encoder_is_small_and_has_no_constant_channel() -> None:
    from inspect_kd import zoo

    assert zoo.asset("models", "embedded_encoder.safetensors").stat().st_size < 2e6
    encoder = build_encoder("embedded")
    assert encoder.channels == (24, 32, 96)
    assert min(level.std(dim=(0, 2, 3)).min() for level in encoder(images(4, 128))) > 0.01
