"""Frozen encoders of the students: any timm model with features at strides 4, 8 and 16, or the embedded one.

An `EncoderSpec` describes an encoder and is saved with the run, so that a student is rebuilt without the pretrained weights.

Shapes: B batch, C channels, H W image, h w feature grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inspect_kd import weights, zoo
from inspect_kd.errors import BadInput, UsageError

STRIDES = (4, 8, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """Everything that is needed to rebuild an encoder, except its weights."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    source: str
    """Where the weights came from, as a text for people."""
    sha256: str = ""
    build: dict[str, Any] = field(default_factory=dict)
    """Arguments of `timm.create_model`; the name is a key of saved runs."""
    strides: tuple[int, ...] = STRIDES


class Encoder(nn.Module):
    """A frozen feature extractor; stays in eval mode while the student around it trains."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, channels: tuple[int, ...], spec: EncoderSpec) -> None:
        super().__init__()
        self.body = body
        self.channels = channels
        self.strides = spec.strides
        self.spec = spec
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Encoder:
        return super().train(False)

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        return list(self.body((images_B3HW - self.mean) / self.std))


def build_encoder(name: str, strides: tuple[int, ...] = STRIDES) -> Encoder:
    """Build an encoder with pretrained weights: embedded, from the local folder, or from the hub."""
    if name == "embedded":
        if strides != STRIDES:
            raise UsageError(f"the embedded encoder has features at strides {STRIDES}, not at {strides}")
        path = zoo.asset("models", "embedded_encoder.safetensors")
        return _with_weights(embedded_spec(path), path)
    local = weights.find_local(name)
    if local is None:
        return _from_hub(name, strides)
    card = local.card
    spec = EncoderSpec(
        name=name,
        mean=card.mean,
        std=card.std,
        licence=card.licence,
        source=f"local file {local.path.name}",
        sha256=weights.sha256(local.path),
        build=card.build,
        strides=strides,
    )
    return _with_weights(spec, local.path)


def embedded_spec(path: Path) -> EncoderSpec:
    from inspect_kd.models import embedded_encoder

    return EncoderSpec(
        name="embedded",
        mean=embedded_encoder.MEAN,
        std=embedded_encoder.STD,
        licence="Apache-2.0",
        source="shipped with inspect-kd",
        sha256=weights.sha256(path),
    )


def empty_encoder(spec: EncoderSpec) -> Encoder:
    """Build an encoder without weights, to load a state dict into it."""
    _refuse_unknown(spec)
    if spec.name == "embedded":
        from inspect_kd.models.embedded_encoder import EmbeddedEncoder

        body = EmbeddedEncoder()
        return Encoder(body, tuple(body.channels), spec)
    body, channels = _timm_body(spec.name, spec.strides, pretrained=False, **spec.build)
    return Encoder(body, channels, spec)


def _refuse_unknown(spec: EncoderSpec) -> None:
    """Guard against other people's runs: some model names make timm download weights, some arguments make it load files."""
    if spec.name != "embedded":
        import timm

        if not timm.is_model(spec.name):
            raise BadInput(f"no encoder named '{spec.name}': it is neither `embedded` nor a model that timm knows")
    allowed = [{}, *(card.build for card in weights.CARDS.values())]
    if spec.build not in allowed:
        raise BadInput(
            f"encoder '{spec.name}': model arguments {spec.build} are not allowed (allowed: {allowed}); train the run again"
        )


def _with_weights(spec: EncoderSpec, path: Path) -> Encoder:
    encoder = empty_encoder(spec)
    missing, _ = encoder.body.load_state_dict(weights.load_state(path), strict=False)
    if missing:
        raise BadInput(
            f"{path}: not the weights of '{spec.name}': {len(missing)} tensors are missing, first {missing[0]}"
        )
    return encoder


def _from_hub(name: str, strides: tuple[int, ...]) -> Encoder:
    import timm

    if not timm.is_model(name):
        raise UsageError(f"no encoder named '{name}': it is neither `embedded` nor a model that timm knows")
    folder = weights.local_folder()
    cause = f"none in {folder}" if folder else "INSPECT_KD_WEIGHTS is not set"
    if not _can_fetch_weights(name):
        raise weights.missing_weights(name, f"{cause}, and the hub cannot be reached")
    try:
        body, channels = _timm_body(name, strides, pretrained=True)
    except UsageError:
        raise
    except Exception as error:
        # The hub client raises a dozen unrelated classes for "no network", "no such file" and "no space left".
        raise weights.missing_weights(
            name, f"{cause}, and the hub did not give them ({type(error).__name__})"
        ) from error
    config = body.pretrained_cfg if isinstance(getattr(body, "pretrained_cfg", None), dict) else {}
    spec = EncoderSpec(
        name=name,
        mean=tuple(config.get("mean", weights.IMAGENET_MEAN)),
        std=tuple(config.get("std", weights.IMAGENET_STD)),
        licence=str(config.get("license") or "unknown"),
        source=f"hub {config.get('hf_hub_id') or name}",
        sha256=weights.digest_tensors(body.state_dict()),
        strides=strides,
    )
    return Encoder(body, channels, spec)


def weights_available(name: str) -> bool:
    """Whether an encoder's weights are available: shipped, local, downloaded before, or on a hub that can be reached."""
    return name == "embedded" or weights.find_local(name) is not None or _can_fetch_weights(name)


def _can_fetch_weights(name: str) -> bool:
    """Whether the weights were downloaded before, or the hub can be reached now."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    if repository and isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
        return True
    return weights.hub_is_reachable()


def _timm_body(name: str, strides: tuple[int, ...], *, pretrained: bool, **build: Any) -> tuple[Any, tuple[int, ...]]:
    import timm

    probe: Any = timm.create_model(name, pretrained=False, features_only=True)
    reductions = probe.feature_info.reduction()
    if not set(strides) <= set(reductions):
        raise UsageError(f"encoder '{name}' has features at strides {reductions}; this student needs {list(strides)}")
    # The last feature map at each stride.
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides)
    body: Any = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=indices, **build)
    drop_unused_stages(body)
    return body, tuple(body.feature_info.channels())


def drop_unused_stages(body: Any) -> None:
    """Remove the stages after the last feature: timm would keep and run them, a third of MobileNetV2's weights."""
    stages = [name.split(".") for name in body.feature_info.module_name()]
    if all(len(stage) == 2 and stage[0] == "blocks" for stage in stages):
        body.blocks = body.blocks[: 1 + max(int(number) for _, number in stages)]
