"""Train the tiny SAM: a complete, small SAM that segments what its prompt points at, trained on drawn scenes only.

    python -m inspect_kd.distill.tiny_sam --to first.safetensors
    python -m inspect_kd.distill.tiny_sam --start first.safetensors --steps 1500 --rate 5e-4 --first-counts 0.25 \
        --to models/tiny_sam.safetensors

A stand-in for machines that have no SAM, so that self-perception tuning runs with trained weights. No photograph is used.
Each step has two rounds, the second with the first one's logits as its mask prompt: the branch that tuning needs.

Shapes: B batch (one prompt an image), C channels, m m mask logits.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.datasets.textures import draw_scene
from inspect_kd.models.sam.boundary import iou_and_boundary_iou
from inspect_kd.models.sam.load import build_sam, embed
from inspect_kd.models.sam.losses import mask_iou, mask_loss
from inspect_kd.models.sam.prompting import RegionPrompt, degraded_prompt, stack_prompts
from inspect_kd.models.sam.tuning import decode
from inspect_kd.types import ImageU8, Mask
from inspect_kd.weights import load_state

HELD_OUT = 10**9
"""Scenes and pieces from this number on are held out from training."""
CONTINUED = 10**8
"""Scenes and pieces from this number on are those of a training that starts from given weights."""
BACKGROUNDS = 500
"""Scenes drawn once and used for many samples: drawing one costs as much as a step."""
KINDS = ("texture", "own_texture", "paste", "stain", "missing")
"""Kinds of pieces with an interior: lines and specks are a few cells here, from which SAM would learn empty masks."""
SHARES = (0.004, 0.15)
"""Smallest and largest share of the image that a piece covers."""
MIN_SHARE = 1e-3
"""Share of the image below which a piece is too small for a prompt."""


class PromptedPiece(NamedTuple):
    """A drawn scene, the mask of one of its pieces, and a prompt for this piece."""

    image: ImageU8
    truth: Mask
    place: RegionPrompt


class Pieces(Dataset[PromptedPiece]):
    """Drawn scenes with foreign pieces, one of which is prompted for; sample `i` is always the same."""

    def __init__(self, first: int, count: int, side: int, mask_side: int, backgrounds: int = BACKGROUNDS) -> None:
        self.first, self.count, self.side, self.mask_side = first, count, side, mask_side
        drawn = (draw_scene(side, side, np.random.default_rng([11, first + i])) for i in range(min(backgrounds, count)))
        self.backgrounds = list(drawn)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PromptedPiece:
        rng = np.random.default_rng([12, self.first + index])
        image, donor = (self._background(rng) for _ in range(2))
        pieces: list[Mask] = []
        for _ in range(int(rng.integers(1, 4))):
            defect = add_defect(image, rng, donor=donor, kinds=KINDS, shares=SHARES)
            pieces = [piece & ~defect.mask for piece in pieces]
            pieces.append(defect.mask)
            image = defect.image
        large = [piece for piece in pieces if piece.mean() > MIN_SHARE] or [pieces[-1]]
        truth = large[int(rng.integers(len(large)))]
        place = degraded_prompt(truth, rng, self.mask_side)
        return PromptedPiece(image, truth, place if rng.random() < 0.5 else replace(place, box=_rough_box(truth, rng)))

    def _background(self, rng: np.random.Generator) -> ImageU8:
        background = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        turned = np.rot90(background, int(rng.integers(4)))
        return np.ascontiguousarray(turned[::-1] if rng.random() < 0.5 else turned)


def _rough_box(truth: Mask, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A box as a person would draw it, off by up to a tenth."""
    rows, columns = np.nonzero(truth)
    width, height = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
    off = rng.uniform(-0.1, 0.1, 4) * np.array([width, height, width, height])
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) + off
    left, top, right, bottom = (float(edge) for edge in edges.clip(0, truth.shape[0] - 1))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def train(
    *, steps: int, batch: int, rate: float, workers: int, start: Path | None, first_weight: float, seed: int = 0
) -> tuple[Any, dict[str, Any]]:
    """Train SAM; returns it with its figures on held-out scenes."""
    torch.manual_seed(seed)
    sam = build_sam("tiny").train()
    if start is not None:
        sam.load_state_dict(load_state(start))
    side, mask_side = int(sam.image_encoder.img_size), int(sam.prompt_encoder.mask_input_size[0])
    optimizer = torch.optim.AdamW(sam.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    scenes = DataLoader(
        Pieces(0 if start is None else CONTINUED, steps * batch, side, mask_side),
        batch_size=batch,
        num_workers=workers,
        collate_fn=list,
    )
    generator, rng, began = torch.Generator().manual_seed(seed), np.random.default_rng(seed), time.monotonic()
    for step, prompted in enumerate(scenes, start=1):
        truth_B1mm = true_masks(prompted, mask_side)
        points, logits = rng.random() < 0.5, rng.random() < 0.5
        terms = []
        rounds = two_rounds(sam, prompted, points=points, logits=logits)
        for weight, (mask_B1mm, iou_B) in zip((first_weight, 1.0), rounds, strict=True):
            overlap_B = mask_iou(mask_B1mm, truth_B1mm)
            terms.append(weight * (mask_loss(mask_B1mm, truth_B1mm, generator) + F.mse_loss(iou_B, overlap_B)))
        loss = torch.stack(terms).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            figures = f"loss {loss.item():.4f} iou {overlap_B.mean():.3f} {time.monotonic() - began:.0f} s"
            print(f"step {step}/{steps} {figures}", flush=True)  # noqa: T201
    return sam.eval(), {"steps": steps, "batch": batch, **evaluate_sam(sam.eval(), side, mask_side)}


def two_rounds(sam: Any, prompted: list[PromptedPiece], *, points: bool, logits: bool) -> list[tuple[Tensor, Tensor]]:
    """Mask logits and SAM's estimates of their IoU: from the prompt alone, and with the first mask as a further prompt."""
    images = torch.from_numpy(np.stack([piece.image for piece in prompted])).permute(0, 3, 1, 2).float()
    prompt = stack_prompts(
        [piece.place.select(points=points, logits=logits) for piece in prompted], torch.device("cpu")
    )
    encoder, embedded = sam.prompt_encoder, embed(sam, images)
    points_and_labels = None if prompt.points_KP2 is None else (prompt.points_KP2, prompt.labels_KP)
    sparse, dense = encoder(points=points_and_labels, boxes=prompt.boxes_K4, masks=prompt.masks_K1hw)
    first, first_iou, _ = decode(sam.mask_decoder, embedded, encoder.get_dense_pe(), sparse, dense)
    _, dense = encoder(points=None, boxes=None, masks=first.detach().clamp(-16, 16))
    second, second_iou, _ = decode(sam.mask_decoder, embedded, encoder.get_dense_pe(), sparse, dense)
    return [(first, first_iou), (second, second_iou)]


def true_masks(prompted: list[PromptedPiece], mask_side: int) -> Tensor:
    masks = torch.from_numpy(np.stack([piece.truth for piece in prompted])).float()[:, None]
    return F.adaptive_max_pool2d(masks, mask_side)


def evaluate_sam(sam: Any, side: int, mask_side: int, scenes: int = 200) -> dict[str, float]:
    """Mean IoU and boundary IoU of both rounds on held-out scenes, prompted with a coarse map, and with box and points alone."""
    pieces = Pieces(HELD_OUT, scenes, side, mask_side)
    agreements: dict[str, list[tuple[float, float]]] = {}
    for begin in range(0, scenes, 8):
        prompted = [pieces[i] for i in range(begin, min(begin + 8, scenes))]
        truth = true_masks(prompted, mask_side)[:, 0].numpy() > 0
        for name, logits in (("with_map", True), ("without", False)):
            with torch.no_grad():
                rounds = two_rounds(sam, prompted, points=True, logits=logits)
            for number, (mask_B1mm, _) in enumerate(rounds, start=1):
                predicted = mask_B1mm[:, 0].numpy() > 0
                agreements.setdefault(f"{name}_{number}", []).extend(map(iou_and_boundary_iou, predicted, truth))
    figures: dict[str, float] = {}
    for name, pairs in agreements.items():
        iou, boundary = np.mean(pairs, axis=0)
        figures |= {f"iou_{name}": round(float(iou), 4), f"boundary_iou_{name}": round(float(boundary), 4)}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("models/tiny_sam.safetensors"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="start from these weights, and train on other scenes")
    parser.add_argument(
        "--first-counts", type=float, default=1.0, help="weight of the first round's loss; the second one's is 1"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sam, figures = train(
        steps=arguments.steps,
        batch=arguments.batch,
        rate=arguments.rate,
        workers=arguments.workers,
        start=arguments.start,
        first_weight=arguments.first_counts,
    )
    print(json.dumps(figures))  # noqa: T201
    tensors = {key: value.half().contiguous() for key, value in sam.state_dict().items()}
    save_file(tensors, arguments.to, metadata={"licence": "Apache-2.0", "facts": json.dumps(figures)})


if __name__ == "__main__":
    main()
