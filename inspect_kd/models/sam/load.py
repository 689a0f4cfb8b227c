"""Load a SAM of segment-anything: the published ViTs, MobileSAM, or the tiny one shipped with the package.

Unusual here: weights are loaded safely; segment-anything's own builders unpickle whatever a file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from inspect_kd import weights, zoo
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.models.base import WeightsSource

Backend = Literal["sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam", "tiny"]
SHAPES: dict[str, dict[str, Any]] = {
    "sam_vit_b": {"width": 768, "depth": 12, "heads": 12, "global_blocks": (2, 5, 8, 11)},
    "sam_vit_l": {"width": 1024, "depth": 24, "heads": 16, "global_blocks": (5, 11, 17, 23)},
    "sam_vit_h": {"width": 1280, "depth": 32, "heads": 16, "global_blocks": (7, 15, 23, 31)},
    "tiny": {
        "width": 64,
        "depth": 4,
        "heads": 4,
        "global_blocks": (1, 3),
        "size": 256,
        "channels": 64,
        "window": 7,
        "inner": 256,
    },
}
TINY_WEIGHTS = "tiny_sam.safetensors"
PUBLISHED_DIGESTS = ("01ec64", "0b3195", "4b8939")
"""First digits of the SHA-256 of SAM's published files. Other files may be fine-tuned, under other licences."""
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSam:
    model: Any
    source: WeightsSource


def load_sam(
    backend: Backend, checkpoint: str | None, *, random: bool = False, licence: str | None = None
) -> LoadedSam:
    """Load a frozen SAM: from the named file, from INSPECT_KD_WEIGHTS, or the shipped tiny one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are reproducible
        sam = _build_mobile_sam() if backend == "mobile_sam" else build_sam(backend)
    if random:
        return LoadedSam(
            model=_freeze(sam), source=WeightsSource(name=backend, licence="none", origin="random weights")
        )
    path = _find_weights(backend, checkpoint)
    try:
        sam.load_state_dict(weights.load_state(path))
    except RuntimeError as error:
        raise BadInput(f"{path}: not the weights of {backend} ({weights.short_message(error)})") from error
    digest = weights.sha256(path)
    is_published = path == zoo.asset("models", TINY_WEIGHTS) or digest.startswith(PUBLISHED_DIGESTS)
    weights_licence = "Apache-2.0" if is_published else licence or "unknown"
    source = WeightsSource(name=backend, licence=weights_licence, origin=f"file {path.name}", sha256=digest)
    return LoadedSam(model=_freeze(sam), source=source)


def build_sam(backend: Backend) -> Any:
    """Build the architecture without weights."""
    return _build(**SHAPES[backend])


def _build(
    *,
    width: int,
    depth: int,
    heads: int,
    global_blocks: tuple[int, ...],
    size: int = 1024,
    patch: int = 16,
    channels: int = 256,
    window: int = 14,
    inner: int = 2048,
) -> Any:
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid = size // patch
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            out_chans=channels,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=global_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=channels, image_embedding_size=(grid, grid), input_image_size=(size, size), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=channels,
            transformer=TwoWayTransformer(depth=2, embedding_dim=channels, num_heads=8, mlp_dim=inner),
            iou_head_hidden_dim=channels,
        ),
        pixel_mean=MEAN,
        pixel_std=STD,
    )


def _build_mobile_sam() -> Any:
    """Build MobileSAM: the encoder of its own package, with SAM's prompt encoder and decoder."""
    try:
        from mobile_sam import sam_model_registry
    except ImportError as error:
        raise EnvironmentFault(
            "teacher.backend mobile_sam needs the package mobile_sam from MobileSAM's repository; install it, or use sam_vit_b or tiny"
        ) from error
    return sam_model_registry["vit_t"]()


def _find_weights(backend: Backend, checkpoint: str | None) -> Path:
    if checkpoint:
        path = zoo.expand_user(checkpoint)
        if not path.is_file():
            raise BadInput(f"{path}: no such weights file")
        return path
    if backend == "tiny":
        return zoo.asset("models", TINY_WEIGHTS)
    folder = weights.local_folder()
    # Published files have a digest in their names: sam_vit_b_01ec64.pth.
    candidates = (
        [path for path in sorted(folder.glob(f"{backend}*")) if path.suffix in {".pth", ".pt", ".safetensors"}]
        if folder
        else []
    )
    if not candidates:
        where = f"none in {folder}" if folder else "INSPECT_KD_WEIGHTS is not set"
        raise EnvironmentFault(
            f"no weights for {backend}: {where}. Put the file of the segment-anything release ({backend}_….pth) there; "
            "`--model sam_spt_tiny` needs none"
        )
    return candidates[0]


def _freeze(sam: Any) -> Any:
    return sam.requires_grad_(False).eval()


def embed(sam: Any, images_B3HW: torch.Tensor) -> torch.Tensor:
    """Run the image encoder on images 0..255 of its own size: (B, C, h, w)."""
    embedding_BChw: torch.Tensor = sam.image_encoder((images_B3HW - sam.pixel_mean) / sam.pixel_std)
    return embedding_BChw
