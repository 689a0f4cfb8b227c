"""Train the tiny SAM: a complete, small SAM that segments what its prompt points at, trained on drawn scenes only.

    python -m inspect_kd.distill.tiny_sam --to first.safetensors
    python -m inspect_kd.distill.tiny_sam --start first.safetensors --steps 1500 --rate 5e-4 --first-counts 0.25 \
        --to models/tiny_sam.safetensors

For machines without a published SAM: self-perception tuning then starts from these weights. No photograph is used. As in the
tuning, each step has two rounds: the first round's logits are the mask prompt of the second.

Shapes: B batch (one prompt per image), C channels, m m mask logits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.datasets.textures import draw_scene
from inspect_kd.distill.shipped_weights import FIRST_HELD_OUT, Optimization, build_parser, save_weights
from inspect_kd.models.sam.boundary import iou_and_boundary_iou
from inspect_kd.models.sam.load import build_sam, embed
from inspect_kd.models.sam.losses import mask_iou, mask_loss
from inspect_kd.models.sam.prompting import RegionPrompt, degraded_prompt, stack_prompts
from inspect_kd.models.sam.tuning import decode
from inspect_kd.types import ImageU8, Mask
from inspect_kd.weights import load_state

FIRST_CONTINUED_SAMPLE = 10**8
"""A training with `--start` uses the samples from this number on; one without it uses those from 0 on."""
BACKGROUNDS = 500
"""Number of scenes that are drawn once and used for many samples: drawing one takes as long as a training step."""
KINDS = ("texture", "own_texture", "paste", "stain", "missing")
"""Compact kinds of defects: lines and specks would cover a few mask cells, from which SAM would learn empty masks."""
AREA_SHARES = (0.004, 0.15)
"""Smallest and largest share of the image that a defect covers."""
MIN_PROMPTED_SHARE = 1e-3
"""Share of the image below which the visible pixels of a defect are too few for a prompt."""


class PromptedScene(NamedTuple):
    """A drawn scene with synthetic defects, the mask of one of them, and a prompt for it."""

    image: ImageU8
    truth: Mask
    prompt: RegionPrompt


class PromptedScenes(Dataset[PromptedScene]):
    """Drawn scenes with synthetic defects, with a prompt for one of them; sample `i` is always the same."""

    def __init__(self, first: int, count: int, side: int, mask_side: int, backgrounds: int = BACKGROUNDS) -> None:
        self.first, self.count, self.side, self.mask_side = first, count, side, mask_side
        scenes = (
            draw_scene(side, side, np.random.default_rng([11, first + i])) for i in range(min(backgrounds, count))
        )
        self.backgrounds = list(scenes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PromptedScene:
        rng = np.random.default_rng([12, self.first + index])
        image, donor = (self._background(rng) for _ in range(2))
        masks: list[Mask] = []
        for _ in range(int(rng.integers(1, 4))):
            defect = add_defect(image, rng, donor=donor, kinds=KINDS, shares=AREA_SHARES)
            masks = [mask & ~defect.mask for mask in masks]
            masks.append(defect.mask)
            image = defect.image
        large = [mask for mask in masks if mask.mean() > MIN_PROMPTED_SHARE] or [masks[-1]]
        truth = large[int(rng.integers(len(large)))]
        prompt = degraded_prompt(truth, rng, self.mask_side)
        return PromptedScene(
            image, truth, prompt if rng.random() < 0.5 else replace(prompt, box=_rough_box(truth, rng))
        )

    def _background(self, rng: np.random.Generator) -> ImageU8:
        background = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        rotated = np.rot90(background, int(rng.integers(4)))
        return np.ascontiguousarray(rotated[::-1] if rng.random() < 0.5 else rotated)


def _rough_box(truth: Mask, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A box as a person would draw it: each edge is wrong by up to a tenth of the side."""
    rows, columns = np.nonzero(truth)
    width, height = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
    errors = rng.uniform(-0.1, 0.1, 4) * np.array([width, height, width, height])
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) + errors
    left, top, right, bottom = (float(edge) for edge in edges.clip(0, truth.shape[0] - 1))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def train(
    *, steps: int, batch: int, rate: float, workers: int, start: Path | None, first_weight: float, seed: int = 0
) -> tuple[Any, dict[str, Any]]:
    """Train SAM; returns it with its metrics on held-out scenes."""
    torch.manual_seed(seed)
    sam = build_sam("tiny").train()
    if start is not None:
        sam.load_state_dict(load_state(start))
    side, mask_side = int(sam.image_encoder.img_size), int(sam.prompt_encoder.mask_input_size[0])
    optimization = Optimization(sam, rate=rate, steps=steps, warm_up=0.05, print_every=50)
    batches = DataLoader(
        PromptedScenes(0 if start is None else FIRST_CONTINUED_SAMPLE, steps * batch, side, mask_side),
        batch_size=batch,
        num_workers=workers,
        collate_fn=list,
    )
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    for scenes in batches:
        truth_B1mm = pool_truths(scenes, mask_side)
        use_points, use_logits = rng.random() < 0.5, rng.random() < 0.5
        terms = []
        rounds = run_two_rounds(sam, scenes, points=use_points, logits=use_logits)
        for weight, (mask_B1mm, estimated_iou_B) in zip((first_weight, 1.0), rounds, strict=True):
            true_iou_B = mask_iou(mask_B1mm, truth_B1mm)
            terms.append(
                weight * (mask_loss(mask_B1mm, truth_B1mm, generator) + F.mse_loss(estimated_iou_B, true_iou_B))
            )
        loss = torch.stack(terms).sum()
        optimization.take_step(loss, iou=float(true_iou_B.mean()))
    return sam.eval(), {"steps": steps, "batch": batch, **evaluate_sam(sam.eval(), side, mask_side)}


def run_two_rounds(sam: Any, scenes: list[PromptedScene], *, points: bool, logits: bool) -> list[tuple[Tensor, Tensor]]:
    """Return mask logits and SAM's estimate of their IoU, for each round."""
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float()
    prompt = stack_prompts([scene.prompt.select(points=points, logits=logits) for scene in scenes], torch.device("cpu"))
    encoder, embedded = sam.prompt_encoder, embed(sam, images)
    points_and_labels = None if prompt.points_KP2 is None else (prompt.points_KP2, prompt.labels_KP)
    sparse, dense = encoder(points=points_and_labels, boxes=prompt.boxes_K4, masks=prompt.masks_K1hw)
    first_B1mm, first_iou_B, _ = decode(sam.mask_decoder, embedded, encoder.get_dense_pe(), sparse, dense)
    _, dense = encoder(points=None, boxes=None, masks=first_B1mm.detach().clamp(-16, 16))
    second_B1mm, second_iou_B, _ = decode(sam.mask_decoder, embedded, encoder.get_dense_pe(), sparse, dense)
    return [(first_B1mm, first_iou_B), (second_B1mm, second_iou_B)]


def pool_truths(scenes: list[PromptedScene], mask_side: int) -> Tensor:
    masks = torch.from_numpy(np.stack([scene.truth for scene in scenes])).float()[:, None]
    return F.adaptive_max_pool2d(masks, mask_side)


def evaluate_sam(sam: Any, side: int, mask_side: int, count: int = 200) -> dict[str, float]:
    """Mean IoU and boundary IoU of both rounds on held-out scenes, with and without a coarse map in the prompt."""
    dataset = PromptedScenes(FIRST_HELD_OUT, count, side, mask_side)
    measures: dict[str, list[tuple[float, float]]] = {}
    for begin in range(0, count, 8):
        scenes = [dataset[i] for i in range(begin, min(begin + 8, count))]
        truth = pool_truths(scenes, mask_side)[:, 0].numpy() > 0
        for name, logits in (("with_map", True), ("without", False)):
            with torch.no_grad():
                rounds = run_two_rounds(sam, scenes, points=True, logits=logits)
            for number, (mask_B1mm, _) in enumerate(rounds, start=1):
                predicted = mask_B1mm[:, 0].numpy() > 0
                measures.setdefault(f"{name}_{number}", []).extend(map(iou_and_boundary_iou, predicted, truth))
    metrics: dict[str, float] = {}
    for name, pairs in measures.items():
        iou, boundary = np.mean(pairs, axis=0)
        metrics |= {f"iou_{name}": round(float(iou), 4), f"boundary_iou_{name}": round(float(boundary), 4)}
    return metrics


def main() -> None:
    parser = build_parser(__doc__, to="models/tiny_sam.safetensors", steps=4000, batch=8, rate=2e-3)
    parser.add_argument("--start", type=Path, help="start from these weights, and train on other scenes")
    parser.add_argument(
        "--first-counts", type=float, default=1.0, help="weight of the first round's loss; the second one's is 1"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sam, metrics = train(
        steps=arguments.steps,
        batch=arguments.batch,
        rate=arguments.rate,
        workers=arguments.workers,
        start=arguments.start,
        first_weight=arguments.first_counts,
    )
    save_weights(sam, arguments.to, metrics)


if __name__ == "__main__":
    main()
