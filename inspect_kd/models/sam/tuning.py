"""Self-perception tuning: two decoders on one frozen SAM; the second refines the first one's draft.

After "Promptable Anomaly Segmentation with SAM Through Self-Perception Tuning" (AAAI 2025), implemented from the paper: LoRA of
rank 8 on queries and values, a relation-aware adapter after each two-way block, draft logits as the second decoder's mask prompt.
Our changes: the second decoder gets the draft's box, because boxes from heatmaps are poor, and optionally a crop around it
(`crops.py`); a presence head rejects masks without a defect, because SAM outlines something in any box.

Shapes: K prompts, P points, C channels, D upscaled channels, h w embedding grid (N cells), 4h 4w mask logits, T tokens.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANK, ALPHA = 8, 1
"""Rank and scale of LoRA: its correction is multiplied by ALPHA / RANK."""


class SptOutput(NamedTuple):
    draft_K1hw: Tensor
    """Mask logits of the first decoder."""
    final_K1hw: Tensor
    """Mask logits of the second decoder."""
    iou_K: Tensor
    """SAM's own estimate of the final mask's IoU."""
    presence_K: Tensor
    """Logit of the presence of a defect."""


class Lora(nn.Module):
    """A frozen linear layer and a low-rank correction that starts at zero."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.down = nn.Linear(frozen.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, frozen.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        corrected: Tensor = self.frozen(x) + self.up(self.down(x)) * (ALPHA / RANK)
        return corrected


class LoraQkv(nn.Module):
    """LoRA for a fused projection: corrects queries and values, not keys."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        width = frozen.in_features
        self.frozen = frozen
        self.query_down, self.value_down = (nn.Linear(width, RANK, bias=False) for _ in range(2))
        self.query_up, self.value_up = (nn.Linear(RANK, width, bias=False) for _ in range(2))
        nn.init.zeros_(self.query_up.weight)
        nn.init.zeros_(self.value_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        query, value = self.query_up(self.query_down(x)), self.value_up(self.value_down(x))
        corrected: Tensor = self.frozen(x) + torch.cat([query, torch.zeros_like(query), value], dim=-1) * (ALPHA / RANK)
        return corrected


class TunedDecoder(nn.Module):
    """SAM's mask decoder with LoRA in its attentions and a relation adapter after each block; one mask per prompt."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = deepcopy(decoder)
        transformer = self.decoder.transformer
        attentions = [transformer.final_attn_token_to_image]
        for layer in transformer.layers:
            attentions += [layer.self_attn, layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
        for attention in attentions:
            attention.q_proj, attention.v_proj = Lora(attention.q_proj), Lora(attention.v_proj)
        width = self.decoder.transformer_dim
        # Strength of the relation adapter in each channel; the name is a key of saved runs.
        self.relating = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in transformer.layers)

    def forward(
        self,
        embedding_KChw: Tensor,
        position_1Chw: Tensor,
        sparse_KTC: Tensor,
        dense_KChw: Tensor,
        relation_KNN: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits (K, 1, 4h, 4w), SAM's own estimate of the IoU (K,), and the token from which it is computed (K, C)."""
        strengths = list(self.relating)
        return decode(self.decoder, embedding_KChw, position_1Chw, sparse_KTC, dense_KChw, (relation_KNN, strengths))


def decode(
    decoder: Any,
    embedding_KChw: Tensor,
    position_1Chw: Tensor,
    sparse_KTC: Tensor,
    dense_KChw: Tensor,
    relation: tuple[Tensor, list[Tensor]] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run SAM's mask decoder, one mask per prompt; unlike segment-anything's own, prompts may belong to different images."""
    transformer = decoder.transformer
    output_tokens_TC = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens_KTC = torch.cat([output_tokens_TC.expand(len(sparse_KTC), -1, -1), sparse_KTC], dim=1)
    cells_KNC = (embedding_KChw + dense_KChw).flatten(2).transpose(1, 2)
    position_KNC = position_1Chw.flatten(2).transpose(1, 2).expand(len(tokens_KTC), -1, -1)
    queries_KTC = tokens_KTC
    for number, layer in enumerate(transformer.layers):
        queries_KTC, cells_KNC = layer(queries=queries_KTC, keys=cells_KNC, query_pe=tokens_KTC, key_pe=position_KNC)
        if relation is not None:
            relation_KNN, strengths = relation
            cells_KNC = cells_KNC + strengths[number] * (relation_KNN @ cells_KNC)
    attended_KTC = transformer.final_attn_token_to_image(
        q=queries_KTC + tokens_KTC, k=cells_KNC + position_KNC, v=cells_KNC
    )
    queries_KTC = transformer.norm_final_attn(queries_KTC + attended_KTC)
    fine_KDhw = decoder.output_upscaling(cells_KNC.transpose(1, 2).unflatten(2, embedding_KChw.shape[-2:]))
    # The first mask token is the one for unambiguous prompts.
    hyper_KD = decoder.output_hypernetworks_mlps[0](queries_KTC[:, 1])
    mask_K1hw = torch.einsum("kd,kdhw->khw", hyper_KD, fine_KDhw)[:, None]
    return mask_K1hw, decoder.iou_prediction_head(queries_KTC[:, 0])[:, 0], queries_KTC[:, 0]


class SelfPerception(nn.Module):
    """Both decoders on one SAM; they take image embeddings, which may come from a cache."""

    def __init__(self, sam: Any, *, temperature: float, tune_encoder: bool) -> None:
        super().__init__()
        self.sam = sam
        self.temperature = temperature
        self.draft, self.refine = TunedDecoder(sam.mask_decoder), TunedDecoder(sam.mask_decoder)
        self.presence = nn.Linear(sam.mask_decoder.transformer_dim, 1)
        if tune_encoder:
            for block in sam.image_encoder.blocks:
                block.attn.qkv = LoraQkv(block.attn.qkv)

    def forward(self, embedding_KChw: Tensor, prompts: PromptBatch) -> SptOutput:
        """Run both decoders on one embedding, as published."""
        draft_K1hw = self.predict_draft(embedding_KChw, prompts)
        size = self.sam.prompt_encoder.input_image_size
        return SptOutput(draft_K1hw, *self.refine_draft(embedding_KChw, refining_prompts(draft_K1hw, prompts, size)))

    def predict_draft(self, embedding_KChw: Tensor, prompts: PromptBatch) -> Tensor:
        draft_K1hw, _, _ = self._run(self.draft, embedding_KChw, prompts)
        return draft_K1hw

    def refine_draft(self, embedding_KChw: Tensor, prompts: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The final mask's logits, SAM's own estimate of its IoU, and presence."""
        final_K1hw, iou_K, token_KC = self._run(self.refine, embedding_KChw, prompts)
        return final_K1hw, iou_K, self.presence(token_KC)[:, 0]

    def _run(
        self, decoder: TunedDecoder, embedding_KChw: Tensor, prompts: PromptBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        encoder = self.sam.prompt_encoder
        points = None if prompts.points_KP2 is None else (prompts.points_KP2, prompts.labels_KP)
        sparse_KTC, dense_KChw = encoder(points=points, boxes=prompts.boxes_K4, masks=prompts.masks_K1hw)
        # An expanded embedding (stride 0) belongs to several prompts on one image, which share its relation.
        is_one_image = embedding_KChw.stride(0) == 0
        relation_KNN = cell_relation(embedding_KChw[:1] if is_one_image else embedding_KChw, self.temperature)
        outputs: tuple[Tensor, Tensor, Tensor] = decoder(
            embedding_KChw, encoder.get_dense_pe(), sparse_KTC, dense_KChw, relation_KNN
        )
        return outputs


class PromptBatch(NamedTuple):
    """Prompts for K masks, in pixels of SAM's input."""

    boxes_K4: Tensor | None
    points_KP2: Tensor | None = None
    labels_KP: Tensor | None = None
    """1 inside, 0 outside, -1 no point."""
    masks_K1hw: Tensor | None = None
    """Logits of a coarse mask, at the resolution of SAM's own masks."""


def refining_prompts(draft_K1hw: Tensor, prompts: PromptBatch, size: tuple[int, int]) -> PromptBatch:
    """Prompts for the second decoder: the draft, without gradient, and the draft's own box."""
    mask_prompts_K1hw = draft_K1hw.detach()
    boxes_K4 = None if prompts.boxes_K4 is None else mask_boxes(mask_prompts_K1hw, prompts.boxes_K4, size)
    if prompts.masks_K1hw is not None:
        # The published prompts are boxes only. A coarse map in the first prompt must also reach the second decoder.
        mask_prompts_K1hw = (mask_prompts_K1hw + prompts.masks_K1hw) / 2
    return prompts._replace(boxes_K4=boxes_K4, masks_K1hw=mask_prompts_K1hw)


def mask_boxes(logits_K1hw: Tensor, empty_K4: Tensor, size: tuple[int, int]) -> Tensor:
    """Bounding box of each mask, in pixels of SAM's input; `empty_K4` for an empty mask."""
    boxes_K4 = empty_K4.clone()
    scale_y, scale_x = size[0] / logits_K1hw.shape[2], size[1] / logits_K1hw.shape[3]
    for number, mask_hw in enumerate(logits_K1hw[:, 0] > 0):
        if mask_hw.any():
            rows, columns = mask_hw.any(dim=1).nonzero()[:, 0], mask_hw.any(dim=0).nonzero()[:, 0]
            left, right = columns[0] * scale_x, (columns[-1] + 1) * scale_x
            top, bottom = rows[0] * scale_y, (rows[-1] + 1) * scale_y
            boxes_K4[number] = torch.stack([left, top, right, bottom])
    return boxes_K4


def cell_relation(embedding_KChw: Tensor, temperature: float) -> Tensor:
    """Similarity of each cell to every other one, (K, N, N); rows sum to 1, and are nearly uniform at temperature 1."""
    cells_KNC = F.normalize(embedding_KChw.flatten(2).transpose(1, 2), dim=2)
    similarity_KNN = cells_KNC @ cells_KNC.transpose(1, 2) / temperature
    diagonal_NN = torch.eye(similarity_KNN.shape[1], dtype=torch.bool, device=similarity_KNN.device)
    return similarity_KNN.masked_fill(diagonal_NN, float("-inf")).softmax(dim=2)


def count_tuned_parameters(spt: SelfPerception) -> int:
    """Count the tuned parameters as the paper does, without our presence head."""
    return sum(p.numel() for name, p in spt.named_parameters() if p.requires_grad and not name.startswith("presence."))
