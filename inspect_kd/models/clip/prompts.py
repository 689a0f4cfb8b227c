"""Learnable sentences: the first words are vectors, the rest is text, and the frozen text tower reads both.

As in CoOp and AnomalyCLIP: `[V1..V12] object.` and `[W1..W12] damaged object.`. Cutting a sentence after its end is exact,
because the tower is causal, and makes a step three times cheaper.

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
"""Of CLIP's contrast; what divides cosines here too."""
SENTENCES: dict[PromptMode, tuple[str, ...]] = {
    "pair": ("object.", "damaged object."),
    "single": ("damaged object.",),
}


class Prompts(nn.Module):
    """All that a CLIP-ADA-style teacher trains: the words, and in `single` mode the sigmoid's slope and level."""

    tokens_PT: Tensor

    def __init__(self, clip: Any, mode: PromptMode, count: int) -> None:
        super().__init__()
        self.text = Text(clip)
        tokens_PT = tokenize([f"{'x ' * count}{text}" for text in SENTENCES[mode]], clip.context_length)
        ends_P = tokens_PT.argmax(dim=1)
        if not torch.equal(ends_P, tokenize(list(SENTENCES[mode]), clip.context_length).argmax(dim=1) + count):
            raise UsageError(
                f"teacher.words: {count} leave no room for the text; this CLIP reads {clip.context_length} words"
            )
        self.register_buffer("tokens_PT", tokens_PT[:, : int(ends_P.max()) + 1], persistent=False)
        self.words_PLD = nn.Parameter(torch.empty(len(tokens_PT), count, clip.token_embedding.weight.shape[1]))
        alone = mode == "single"
        self.slope = nn.Parameter(torch.tensor(1 / TEMPERATURE), requires_grad=alone)
        self.level = nn.Parameter(torch.zeros(()), requires_grad=alone)
        self.begin(0)

    def begin(self, seed: int) -> None:
        """Words that mean nothing yet."""
        with torch.no_grad():
            noise = torch.randn(self.words_PLD.shape, generator=torch.Generator().manual_seed(seed))
            self.words_PLD.copy_(0.02 * noise)

    def forward(self) -> Tensor:
        """Each sentence as the text tower reads it, of unit length: (P, C)."""
        return F.normalize(self.text.read(self.inject(self.words_PLD), self.tokens_PT.argmax(dim=1)), dim=1)

    def inject(self, words_PLD: Tensor) -> Tensor:
        """The sentences' embeddings with these in the place of their first words."""
        with torch.no_grad():
            embedded_PTD: Tensor = self.text.token_embedding(self.tokens_PT)
        return torch.cat([embedded_PTD[:, :1], words_PLD, embedded_PTD[:, 1 + words_PLD.shape[1] :]], dim=1)


class Text(nn.Module):
    """The text half of a CLIP, frozen."""

    mask_TT: Tensor

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("mask_TT", clip.attn_mask, persistent=False)

    def read(self, embedded_PTD: Tensor, ends_P: Tensor) -> Tensor:
        """`encode_text` from the embeddings on, for sentences of any length: (P, C)."""
        length = embedded_PTD.shape[1]
        x_PTD = self.transformer(
            embedded_PTD + self.positional_embedding[:length], attn_mask=self.mask_TT[:length, :length]
        )
        x_PD = self.ln_final(x_PTD)[torch.arange(len(ends_P), device=ends_P.device), ends_P]
        projection = self.text_projection
        read_PC: Tensor = projection(x_PD) if isinstance(projection, nn.Linear) else x_PD @ projection
        return read_PC


def tokenize(sentences: list[str], length: int) -> Tensor:
    """Works offline. The end token must stay the largest number: the tower finds the end by it."""
    import open_clip

    tokens: Tensor = open_clip.tokenize(sentences, context_length=length)
    return tokens
