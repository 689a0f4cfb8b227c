"""Learnable prompts: the first words of a sentence are learned vectors, the rest is text; a frozen text tower encodes both.

As in CoOp and AnomalyCLIP: `[V1..V12] object.` and `[W1..W12] damaged object.`. Sentences are cut after their end token, which is
three times faster and changes nothing, because the tower is causal.

Shapes: P sentences, L learnable words, T tokens, D width of the text tower, C channels of the shared space.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.errors import UsageError

PromptMode = Literal["pair", "single"]
TEMPERATURE = 0.07
"""Divisor of cosines before a softmax, as in CLIP's contrastive loss."""
SENTENCES: dict[PromptMode, tuple[str, ...]] = {
    "pair": ("object.", "damaged object."),
    "single": ("damaged object.",),
}


class LearnablePrompts(nn.Module):
    """All that a CLIP-ADA-style teacher trains: the word vectors, and in `single` mode slope and centre of the sigmoid."""

    tokens_PT: Tensor

    def __init__(self, clip: Any, mode: PromptMode, count: int) -> None:
        super().__init__()
        self.text = TextTower(clip)
        tokens_PT = tokenize([f"{'x ' * count}{text}" for text in SENTENCES[mode]], clip.context_length)
        ends_P = tokens_PT.argmax(dim=1)
        if not torch.equal(ends_P, tokenize(list(SENTENCES[mode]), clip.context_length).argmax(dim=1) + count):
            raise UsageError(
                f"teacher.words: {count} leave no room for the text; this CLIP takes {clip.context_length} tokens"
            )
        self.register_buffer("tokens_PT", tokens_PT[:, : int(ends_P.max()) + 1], persistent=False)
        self.words_PLD = nn.Parameter(torch.empty(len(tokens_PT), count, clip.token_embedding.weight.shape[1]))
        is_single = mode == "single"
        self.slope = nn.Parameter(torch.tensor(1 / TEMPERATURE), requires_grad=is_single)
        self.centre = nn.Parameter(torch.zeros(()), requires_grad=is_single)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Set the word vectors to small random values."""
        with torch.no_grad():
            noise = torch.randn(self.words_PLD.shape, generator=torch.Generator().manual_seed(seed))
            self.words_PLD.copy_(0.02 * noise)

    def forward(self) -> Tensor:
        """Encode each sentence as a unit vector: (P, C)."""
        return F.normalize(self.text.encode(self.embed(self.words_PLD), self.tokens_PT.argmax(dim=1)), dim=1)

    def embed(self, words_PLD: Tensor) -> Tensor:
        """Token embeddings of the sentences, with these vectors as their first words."""
        with torch.no_grad():
            embedded_PTD: Tensor = self.text.token_embedding(self.tokens_PT)
        return torch.cat([embedded_PTD[:, :1], words_PLD, embedded_PTD[:, 1 + words_PLD.shape[1] :]], dim=1)


class TextTower(nn.Module):
    """The frozen text half of a CLIP."""

    mask_TT: Tensor

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("mask_TT", clip.attn_mask, persistent=False)

    def encode(self, embedded_PTD: Tensor, ends_P: Tensor) -> Tensor:
        """CLIP's `encode_text`, from token embeddings on, for sentences of any length: (P, C)."""
        length = embedded_PTD.shape[1]
        x_PTD = self.transformer(
            embedded_PTD + self.positional_embedding[:length], attn_mask=self.mask_TT[:length, :length]
        )
        x_PD = self.ln_final(x_PTD)[torch.arange(len(ends_P), device=ends_P.device), ends_P]
        projection = self.text_projection
        encoded_PC: Tensor = projection(x_PD) if isinstance(projection, nn.Linear) else x_PD @ projection
        return encoded_PC


def tokenize(sentences: list[str], length: int) -> Tensor:
    """Tokenize without network access. The end token has the largest id, by which the tower finds the end."""
    import open_clip

    tokens: Tensor = open_clip.tokenize(sentences, context_length=length)
    return tokens
