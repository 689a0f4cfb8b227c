"""Self-perception tuning: two decoders on one frozen SAM, of which the second sees the first one's draft.

After "Promptable Anomaly Segmentation with SAM Through Self-Perception Tuning" (AAAI 2025), written anew. LoRA of rank 8 on
queries and values, a relation-aware adapter after each two-way block, draft logits as the second decoder's mask prompt. Ours:
the second decoder is asked about the box of what was drafted, for boxes of heatmaps are poor, and may look closer
(`closer.py`); and a presence head, since SAM draws a mask for any box, also on a perfect part.

Shapes: K prompts, C channels, h w embedding grid (N cells), 4h 4w mask logits, T tokens.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANK, ALPHA = 8, 1


class Masks(NamedTuple):
    draft_K1hw: Tensor
    final_K1hw: Tensor
    """Logits, both."""
    iou_K: Tensor
    """What SAM itself thinks of the final mask."""
    presence_K: Tensor
    """Logit: whether there is anything at all."""


class Lora(nn.Module):
    """A frozen linear layer and a low-rank correction that begins at nothing."""

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
    """The same for a fused projection: queries and values are corrected, keys are left alone."""

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
    """SAM's mask decoder with corrected attentions and the relation of image cells after each block; one mask a prompt."""

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
        self.relating = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in transformer.layers)

    def forward(
        self, embedding_KChw: Tensor, place_1Chw: Tensor, sparse_KTC: Tensor, dense_KChw: Tensor, relation_KNN: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits (K, 1, 4h, 4w), SAM's own estimate of the IoU (K,), and the token that it reads it from (K, C)."""
        strengths = list(self.relating)
        return decode(self.decoder, embedding_KChw, place_1Chw, sparse_KTC, dense_KChw, (relation_KNN, strengths))


def decode(
    decoder: Any,
    embedding_KChw: Tensor,
    place_1Chw: Tensor,
    sparse_KTC: Tensor,
    dense_KChw: Tensor,
    related: tuple[Tensor, list[Tensor]] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """SAM's mask decoder for one mask a prompt; unlike the package's own it takes prompts of different images at once."""
    transformer = decoder.transformer
    own_TC = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens_KTC = torch.cat([own_TC.expand(len(sparse_KTC), -1, -1), sparse_KTC], dim=1)
    cells_KNC = (embedding_KChw + dense_KChw).flatten(2).transpose(1, 2)
    place_KNC = place_1Chw.flatten(2).transpose(1, 2).expand(len(tokens_KTC), -1, -1)
    asked_KTC = tokens_KTC
    for number, layer in enumerate(transformer.layers):
        asked_KTC, cells_KNC = layer(queries=asked_KTC, keys=cells_KNC, query_pe=tokens_KTC, key_pe=place_KNC)
        if related is not None:
            relation_KNN, strengths = related
            cells_KNC = cells_KNC + strengths[number] * (relation_KNN @ cells_KNC)
    found_KTC = transformer.final_attn_token_to_image(q=asked_KTC + tokens_KTC, k=cells_KNC + place_KNC, v=cells_KNC)
    asked_KTC = transformer.norm_final_attn(asked_KTC + found_KTC)
    fine_KDhw = decoder.output_upscaling(cells_KNC.transpose(1, 2).unflatten(2, embedding_KChw.shape[-2:]))
    # The first mask token is the one for unambiguous prompts.
    hyper_KD = decoder.output_hypernetworks_mlps[0](asked_KTC[:, 1])
    mask_K1hw = torch.einsum("kd,kdhw->khw", hyper_KD, fine_KDhw)[:, None]
    return mask_K1hw, decoder.iou_prediction_head(asked_KTC[:, 0])[:, 0], asked_KTC[:, 0]


class SelfPerception(nn.Module):
    """Draft, then refine. Works on embeddings, which may come from a cache."""

    def __init__(self, sam: Any, *, temperature: float, tune_encoder: bool) -> None:
        super().__init__()
        self.sam = sam
        self.temperature = temperature
        self.draft, self.refine = TunedDecoder(sam.mask_decoder), TunedDecoder(sam.mask_decoder)
        self.presence = nn.Linear(sam.mask_decoder.transformer_dim, 1)
        if tune_encoder:
            for block in sam.image_encoder.blocks:
                block.attn.qkv = LoraQkv(block.attn.qkv)

    def forward(self, embedding_KChw: Tensor, prompt: Prompt) -> Masks:
        """Both decoders on one embedding, as published."""
        draft_K1hw = self.drafted(embedding_KChw, prompt)
        size = self.sam.prompt_encoder.input_image_size
        return Masks(draft_K1hw, *self.refined(embedding_KChw, about(draft_K1hw, prompt, size)))

    def drafted(self, embedding_KChw: Tensor, prompt: Prompt) -> Tensor:
        draft_K1hw, _, _ = self._asked(self.draft, embedding_KChw, prompt)
        return draft_K1hw

    def refined(self, embedding_KChw: Tensor, prompt: Prompt) -> tuple[Tensor, Tensor, Tensor]:
        """The final mask's logits, SAM's own estimate of its IoU, and presence."""
        final_K1hw, iou_K, token_KC = self._asked(self.refine, embedding_KChw, prompt)
        return final_K1hw, iou_K, self.presence(token_KC)[:, 0]

    def _asked(self, decoder: TunedDecoder, embedding_KChw: Tensor, prompt: Prompt) -> tuple[Tensor, Tensor, Tensor]:
        encoder = self.sam.prompt_encoder
        points = None if prompt.points_KP2 is None else (prompt.points_KP2, prompt.labels_KP)
        sparse_KTC, dense_KChw = encoder(points=points, boxes=prompt.boxes_K4, masks=prompt.masks_K1hw)
        # Of one image seen through several prompts the relation is the same.
        same = embedding_KChw.stride(0) == 0
        relation_KNN = relation(embedding_KChw[:1] if same else embedding_KChw, self.temperature)
        answered: tuple[Tensor, Tensor, Tensor] = decoder(
            embedding_KChw, encoder.get_dense_pe(), sparse_KTC, dense_KChw, relation_KNN
        )
        return answered


class Prompt(NamedTuple):
    """What SAM is asked about each of K places, in pixels of its input."""

    boxes_K4: Tensor | None
    points_KP2: Tensor | None = None
    labels_KP: Tensor | None = None
    """1 inside, 0 outside, -1 no point."""
    masks_K1hw: Tensor | None = None
    """Logits of a coarse mask, at the resolution of SAM's own masks."""


def about(draft_K1hw: Tensor, prompt: Prompt, size: tuple[int, int]) -> Prompt:
    """What the second decoder is asked: of the draft, which it does not change, and about the draft's own box."""
    heard_K1hw = draft_K1hw.detach()
    boxes_K4 = None if prompt.boxes_K4 is None else drawn_boxes(heard_K1hw, prompt.boxes_K4, size)
    if prompt.masks_K1hw is not None:
        # Published prompts are boxes. Where a guide has told a coarse map, the second decoder must not lose it.
        heard_K1hw = (heard_K1hw + prompt.masks_K1hw) / 2
    return prompt._replace(boxes_K4=boxes_K4, masks_K1hw=heard_K1hw)


def drawn_boxes(logits_K1hw: Tensor, asked_K4: Tensor, size: tuple[int, int]) -> Tensor:
    """The box around what each mask holds, in pixels of SAM's input; what was asked about where it holds nothing."""
    drawn_K4 = asked_K4.clone()
    down, across = size[0] / logits_K1hw.shape[2], size[1] / logits_K1hw.shape[3]
    for number, mask_hw in enumerate(logits_K1hw[:, 0] > 0):
        if mask_hw.any():
            rows, columns = mask_hw.any(dim=1).nonzero()[:, 0], mask_hw.any(dim=0).nonzero()[:, 0]
            left, right = columns[0] * across, (columns[-1] + 1) * across
            top, bottom = rows[0] * down, (rows[-1] + 1) * down
            drawn_K4[number] = torch.stack([left, top, right, bottom])
    return drawn_K4


def relation(embedding_KChw: Tensor, temperature: float) -> Tensor:
    """How like each cell is to every other one, rows of sum 1: (K, N, N). At temperature 1 this is nearly a global mean."""
    cells_KNC = F.normalize(embedding_KChw.flatten(2).transpose(1, 2), dim=2)
    likeness_KNN = cells_KNC @ cells_KNC.transpose(1, 2) / temperature
    itself_NN = torch.eye(likeness_KNN.shape[1], dtype=torch.bool, device=likeness_KNN.device)
    return likeness_KNN.masked_fill(itself_NN, float("-inf")).softmax(dim=2)


def tuned_parameters(spt: SelfPerception) -> int:
    """What the paper counts: all that is trained but our presence head."""
    return sum(p.numel() for name, p in spt.named_parameters() if p.requires_grad and not name.startswith("presence."))
