"""Train the embedded encoder: a small plain network learns the features of a pretrained one, on drawn scenes only.

    python -m inspect_kd.distill.encoder --weights DIR --to models/embedded_encoder.safetensors

Unusual here: no photograph is used, so the weights are free of any data set's licence. On one machine, with the same
versions, the same seed gives the same file.

Shapes: B batch, C channels, h w feature grid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inspect_kd.datasets.textures import draw_scene
from inspect_kd.distill.shipped_weights import FIRST_HELD_OUT, Optimization, build_parser, save_weights
from inspect_kd.models.embedded_encoder import CHANNELS, EmbeddedEncoder
from inspect_kd.models.encoders import Encoder, EncoderSpec, build_encoder

TEACHER = "mobilenetv2_100"


class Scenes(Dataset[Tensor]):
    """Drawn scenes from number `first` on; each number always gives the same scene."""

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
    """Train the encoder; returns it with its metrics on held-out scenes."""
    torch.manual_seed(seed)
    teacher = build_encoder(TEACHER)
    body = EmbeddedEncoder().to(memory_format=torch.channels_last)
    spec = EncoderSpec(name="embedded", mean=(0.5,) * 3, std=(0.5,) * 3, licence="Apache-2.0", source="in training")
    student = Encoder(body, CHANNELS, spec)
    body.requires_grad_(True)
    statistics = compute_statistics(teacher, size)
    optimization = Optimization(body, rate=rate, steps=steps, warm_up=0.1, print_every=100)
    scenes = DataLoader(Scenes(0, steps * batch, size), batch_size=batch, num_workers=workers)
    body.train()
    for images in scenes:
        inputs = images.float().contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            targets = normalise(teacher(inputs), statistics)
        pairs = zip(targets, normalise(student(inputs), statistics), strict=True)
        loss = torch.stack([distance(target, features) for target, features in pairs]).sum()
        optimization.take_step(loss)
    body.eval()
    return body, {
        "steps": steps,
        "batch": batch,
        "size": size,
        "held_out_cosine": mean_similarity(teacher, student, statistics, size),
    }


def distance(target_BChw: Tensor, features_BChw: Tensor) -> Tensor:
    """1 - cosine, as students compare features, plus a small term for the features' length."""
    angular = (1 - F.cosine_similarity(target_BChw, features_BChw, dim=1)).mean()
    return angular + 0.2 * F.smooth_l1_loss(features_BChw, target_BChw)


ChannelStatistics = list[tuple[Tensor, Tensor]]
"""Mean and standard deviation of the channels, for each level."""


def compute_statistics(teacher: Encoder, size: int, scenes: int = 64) -> ChannelStatistics:
    """Compute the statistics of the teacher's features on held-out scenes."""
    with torch.no_grad():
        levels = [
            torch.cat(level)
            for level in zip(*(teacher(batch) for batch in held_out_batches(scenes, size)), strict=True)
        ]
    return [(x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), keepdim=True) + 1e-3) for x in levels]


def normalise(features: list[Tensor], statistics: ChannelStatistics) -> list[Tensor]:
    return [(x - mean) / std for x, (mean, std) in zip(features, statistics, strict=True)]


def held_out_batches(count: int, size: int) -> Iterator[Tensor]:
    """Yield held-out scenes in batches of 16."""
    scenes = Scenes(FIRST_HELD_OUT, count, size)
    for start in range(0, count, 16):
        yield torch.stack([scenes[i] for i in range(start, min(start + 16, count))]).float()


def mean_similarity(teacher: Encoder, student: Encoder, statistics: ChannelStatistics, size: int) -> list[float]:
    """Mean cosine similarity of teacher and student at each level, on held-out scenes."""
    sums, count = torch.zeros(3), 0
    with torch.no_grad():
        for batch in held_out_batches(64, size):
            pairs = zip(normalise(teacher(batch), statistics), normalise(student(batch), statistics), strict=True)
            sums += torch.stack([F.cosine_similarity(t, s, dim=1).mean() for t, s in pairs])
            count += 1
    return [round(value, 4) for value in (sums / count).tolist()]


def main() -> None:
    parser = build_parser(__doc__, to="models/embedded_encoder.safetensors", steps=3000, batch=16, rate=3e-3)
    parser.add_argument("--weights", required=True, help=f"folder that holds {TEACHER}*.safetensors")
    parser.add_argument("--size", type=int, default=160)
    arguments = parser.parse_args()
    os.environ["INSPECT_KD_WEIGHTS"] = arguments.weights
    torch.set_num_threads(arguments.threads)
    body, metrics = distill(
        steps=arguments.steps,
        batch=arguments.batch,
        size=arguments.size,
        rate=arguments.rate,
        workers=arguments.workers,
    )
    save_weights(body, arguments.to, metrics, teacher=TEACHER)


if __name__ == "__main__":
    main()
