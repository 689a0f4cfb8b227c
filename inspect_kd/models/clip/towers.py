"""Image towers of a CLIP with dense features in the space of its text: a plain ViT, or a timm network.

The query-key attention in a plain ViT's last blocks mixes patches, so that their similarity with text localises worse than
chance. The V-V path (CLIP Surgery) runs beside the ordinary path: values attend to values, without the feed-forward layer. The
blocks themselves stay unchanged.

Shapes: B batch, C channels of the shared space, D width, N tokens (class token first), h w grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.errors import UsageError
from inspect_kd.models.clip.load import LoadedClip
from inspect_kd.models.layers.features import FeatureNorm, join

MEAN_DEVIATION = 0.8
"""Mean absolute deviation of a normal variable, in standard deviations."""
MAX_DEVIATION = 6.0
"""Larger deviations are clamped to this many standard deviations."""
AttentionKind = Literal["query_key", "value_value"]


class TowerOutput(NamedTuple):
    """Features of the patches and of the whole image, both of unit length."""

    dense_BChw: Tensor
    whole_BC: Tensor


class Tower(nn.Module):
    """Image half of a CLIP, for images 0..255. Its buffers are saved with the learned weights."""

    mean: Tensor
    std: Tensor
    width: int

    def __init__(self, clip: LoadedClip) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(clip.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(clip.std).view(1, 3, 1, 1))

    def fit(self, batches_B3HW: Iterable[Tensor]) -> None:
        """Estimate statistics of sound parts; does nothing by default, because a real CLIP needs none."""


class VitTower(Tower):
    def __init__(self, clip: LoadedClip, vv_blocks: int) -> None:
        super().__init__(clip)
        self.visual = clip.model.visual
        if not _is_plain_vit(self.visual):
            raise UsageError(f"teacher.model: {clip.source.name} is not a plain ViT, so it has no V-V path")
        blocks, patch = self.visual.transformer.resblocks, self.visual.patch_size[0]
        if self.visual.image_size[0] % patch:
            raise UsageError(
                f"data.size: {self.visual.image_size[0]} is not a multiple of {patch}, the patch size of {clip.source.name}"
            )
        if vv_blocks > len(blocks):
            raise UsageError(f"teacher.vv_blocks: {vv_blocks}, but the tower has {len(blocks)} blocks")
        self.vv_blocks = vv_blocks
        self.width = self.visual.proj.shape[1]

    def forward(self, images_B3HW: Tensor) -> TowerOutput:
        tokens_BND = self.visual._embeds((images_B3HW - self.mean) / self.std)
        vv_tokens_BND = tokens_BND
        blocks = self.visual.transformer.resblocks
        for number, block in enumerate(blocks):
            if number == len(blocks) - self.vv_blocks:
                vv_tokens_BND = tokens_BND
            normed_BND = block.ln_1(tokens_BND)
            if number >= len(blocks) - self.vv_blocks:
                vv_tokens_BND = vv_tokens_BND + block.ls_1(attend(block.attn, normed_BND, "value_value"))
            tokens_BND = tokens_BND + block.ls_1(attend(block.attn, normed_BND, "query_key"))
            tokens_BND = tokens_BND + block.ls_2(block.mlp(block.ln_2(tokens_BND)))
        dense_BND = self._project(vv_tokens_BND if self.vv_blocks else tokens_BND)[:, 1:]
        side = images_B3HW.shape[-1] // self.visual.patch_size[1]
        dense_BChw = dense_BND.transpose(1, 2).unflatten(2, (-1, side))
        return TowerOutput(F.normalize(dense_BChw, dim=1), F.normalize(self._project(tokens_BND)[:, 0], dim=1))

    def _project(self, tokens_BND: Tensor) -> Tensor:
        projected_BNC: Tensor = self.visual.ln_post(tokens_BND) @ self.visual.proj
        return projected_BNC


def _is_plain_vit(visual: Any) -> bool:
    from open_clip.transformer import VisionTransformer

    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
        return False
    return all(isinstance(block.attn, nn.MultiheadAttention) for block in visual.transformer.resblocks)


def attend(attention: Any, x_BND: Tensor, kind: AttentionKind) -> Tensor:
    """Multi-head self-attention of a block by query and key, or by its values alone."""
    query_BND, key_BND, value_BND = F.linear(x_BND, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    if kind == "value_value":
        query_BND = key_BND = value_BND
    per_head = [x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for x in (query_BND, key_BND, value_BND)]
    mixed_BND = F.scaled_dot_product_attention(*per_head).transpose(1, 2).flatten(2)
    attended_BND: Tensor = attention.out_proj(mixed_BND)
    return attended_BND


class TimmTower(Tower):
    """Dense features of a timm network: levels joined, normalised, and projected by a fixed matrix at each position.

    Unusual here: channels are normalised over sound parts, because a classifier's features share no space with text, and directions are
    comparable only when all channels have one scale. `deviations` adds the absolute deviation of each channel from its mean,
    which no direction in the values themselves can express.
    """

    def __init__(self, clip: LoadedClip, strides: tuple[int, ...], *, deviations: bool) -> None:
        super().__init__(clip)
        self.visual = clip.model.visual
        reductions = [info["reduction"] for info in self.visual.trunk.feature_info]
        if not set(strides) <= set(reductions):
            raise UsageError(
                f"teacher.strides: {clip.source.name} has features at strides {reductions}, not at {list(strides)}"
            )
        self.strides = strides
        # The last feature map at each stride.
        self.indices = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides]
        channels = [self.visual.trunk.feature_info[index]["num_chs"] for index in self.indices]
        self.spread = FeatureNorm(channels, "full")  # the name is a key of saved runs
        self.width = self.visual.head.proj.out_features
        self.deviations = deviations
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # An orthogonal matrix preserves angles if the width suffices.
            head = nn.init.orthogonal_(torch.empty(self.width, (1 + deviations) * sum(channels)))
        self.register_buffer("head_CD", head)

    head_CD: Tensor

    def fit(self, batches_B3HW: Iterable[Tensor]) -> None:
        self.spread.fit(self._levels(batch) for batch in batches_B3HW)

    def forward(self, images_B3HW: Tensor) -> TowerOutput:
        levels = self.spread(self._levels(images_B3HW))
        joined_BDhw = join(levels, self.strides, self.strides)
        if self.deviations:
            joined_BDhw = torch.cat([joined_BDhw, joined_BDhw.abs().clamp_max(MAX_DEVIATION) - MEAN_DEVIATION], dim=1)
        dense_BChw = F.conv2d(joined_BDhw, self.head_CD[:, :, None, None])
        return TowerOutput(F.normalize(dense_BChw, dim=1), F.normalize(dense_BChw.mean(dim=(2, 3)), dim=1))

    def _levels(self, images_B3HW: Tensor) -> list[Tensor]:
        outputs = self.visual.forward_intermediates(
            (images_B3HW - self.mean) / self.std, indices=self.indices, intermediates_only=True, stop_early=True
        )
        return list(outputs["image_intermediates"])
