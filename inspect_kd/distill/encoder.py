"""Train the embedded encoder: a small plain network learns the features of a pretrained one, on drawn scenes only.

    python -m inspect_kd.distill.encoder --weights DIR --to models/embedded_encoder.safetensors

Unusual here: no photograph is used, so the weights are free of any data set's licence. The same seed gives the same file
on the same machine and versions.

Shapes: B batch, C channels, h w feature grid.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inspect_kd.datasets.textures import draw_scene
from inspect_kd.models.embedded_encoder import CHANNELS, EmbeddedEncoder
from inspect_kd.models.encoders import Encoder, EncoderSpec, build_encoder

TEACHER = "mobilenetv2_100"
HELD_OUT = 10**9
"""Scenes from this number on are held out from training."""


class Scenes(Dataset[Tensor]):
    """Drawn scenes; scene `i` is always the same."""

    def __init__(self, first: int, count: int, size: int) -> None:
        self.first, self.count, self.size = first, count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([7, self.first + index])
        return torch.from_numpy(draw_scene(self.size, self.size, rng)).permute(2, 0, 1)


def distill(
    *, steps: int, batch: int, size: int, rate: float, workers: int, seed: int = 0
) -> tuple[EmbeddedEncoder, dict[str, Any]]:
    """Train the encoder; returns it with its figures on held-out scenes."""
    torch.manual_seed(seed)
    teacher = build_encoder(TEACHER)
    body = EmbeddedEncoder().to(memory_format=torch.channels_last)
    spec = EncoderSpec(name="embedded", mean=(0.5,) * 3, std=(0.5,) * 3, licence="Apache-2.0", source="in training")
    student = Encoder(body, CHANNELS, spec)
    body.requires_grad_(True)
    norms = feature_norms(teacher, size)
    optimizer = torch.optim.AdamW(body.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    scenes = DataLoader(Scenes(0, steps * batch, size), batch_size=batch, num_workers=workers)
    began = time.monotonic()
    body.train()
    for step, images in enumerate(scenes, start=1):
        clean = images.float().contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            targets = normalised(teacher(clean), norms)
        loss = torch.stack(
            [distance(t, s) for t, s in zip(targets, normalised(student(clean), norms), strict=True)]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(body.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps} loss {loss.item():.4f} {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
    body.eval()
    return body, {
        "steps": steps,
        "batch": batch,
        "size": size,
        "held_out_cosine": similarity(teacher, student, norms, size),
    }


def distance(target_BChw: Tensor, features_BChw: Tensor) -> Tensor:
    """Mostly the direction, by which students compare; also the length."""
    angle = (1 - F.cosine_similarity(target_BChw, features_BChw, dim=1)).mean()
    return angle + 0.2 * F.smooth_l1_loss(features_BChw, target_BChw)


Norms = list[tuple[Tensor, Tensor]]
"""Mean and spread of each level."""


def feature_norms(teacher: Encoder, size: int, scenes: int = 64) -> Norms:
    """Mean and spread of each level's channels over held-out scenes."""
    with torch.no_grad():
        levels = [torch.cat(level) for level in zip(*(teacher(batch) for batch in held_out(scenes, size)), strict=True)]
    return [(x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), keepdim=True) + 1e-3) for x in levels]


def normalised(features: list[Tensor], norms: Norms) -> list[Tensor]:
    return [(x - mean) / spread for x, (mean, spread) in zip(features, norms, strict=True)]


def held_out(count: int, size: int) -> Iterator[Tensor]:
    """Batches of held-out scenes."""
    scenes = Scenes(HELD_OUT, count, size)
    for start in range(0, count, 16):
        yield torch.stack([scenes[i] for i in range(start, min(start + 16, count))]).float()


def similarity(teacher: Encoder, student: Encoder, norms: Norms, size: int) -> list[float]:
    """Mean cosine of teacher and student at each level, on held-out scenes."""
    sums, count = torch.zeros(3), 0
    with torch.no_grad():
        for batch in held_out(64, size):
            pairs = zip(normalised(teacher(batch), norms), normalised(student(batch), norms), strict=True)
            sums += torch.stack([F.cosine_similarity(t, s, dim=1).mean() for t, s in pairs])
            count += 1
    return [round(value, 4) for value in (sums / count).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help=f"folder that holds {TEACHER}*.safetensors")
    parser.add_argument("--to", type=Path, default=Path("models/embedded_encoder.safetensors"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["INSPECT_KD_WEIGHTS"] = arguments.weights
    torch.set_num_threads(arguments.threads)
    body, figures = distill(
        steps=arguments.steps,
        batch=arguments.batch,
        size=arguments.size,
        rate=arguments.rate,
        workers=arguments.workers,
    )
    print(json.dumps(figures))  # noqa: T201
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in body.state_dict().items()}
    tensors = {key: value.contiguous() for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    save_file(
        tensors, arguments.to, metadata={"licence": "Apache-2.0", "teacher": TEACHER, "facts": json.dumps(figures)}
    )


if __name__ == "__main__":
    main()
