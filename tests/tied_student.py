"""A small student whose heads depend on prototypes, and images with positions that tie between two prototypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.calibrate import calibrate
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import Conversion, VerificationData, load_deployment, make_artifact
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.export.verify import Truth, WeightedImages
from inspect_kd.models.encoders import Encoder, EncoderSpec
from inspect_kd.models.layers.features import join
from inspect_kd.models.layers.prototypes import Prototypes
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.models.rebuild_config import CompareConfig, RebuildConfig
from inspect_kd.resize import RESIZE

SIZE = 64


class Pyramid(nn.Module):
    """A small random encoder: only the comparison of its features is tested, and a real one takes long to export."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            [nn.Conv2d(3, 6, 4, stride=4), nn.Conv2d(6, 6, 2, stride=2), nn.Conv2d(6, 48, 2, stride=2)]
        )

    def forward(self, x_BChw: Tensor) -> list[Tensor]:
        features = []
        for level in self.levels:
            x_BChw = level(x_BChw)
            features.append(x_BChw)
        return features


class SmallStudent(RebuildStudent):
    def __init__(self, config: RebuildConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.decoder = nn.Conv2d(12, 12, 1)

    def reconstruct(self, features: list[Tensor]) -> list[Tensor]:
        return [self.decoder(join(features, self.encoder.strides, (4, 8)))]

    def decoder_tail(self) -> nn.Module:
        return self.decoder


def tied_student() -> tuple[ArtifactGraph, np.ndarray]:
    """Build the student's graph and its images."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images_NHW3 = np.concatenate(
        [
            np.repeat(rng.integers(0, 256, (4, 1, 1, 3)), SIZE, axis=1).repeat(SIZE, axis=2),  # flat images
            rng.integers(0, 256, (4, 8, 8, 3)).repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2),
        ]
    ).astype(np.uint8)
    images_B3HW = torch.from_numpy(images_NHW3).permute(0, 3, 1, 2).float()
    spec = EncoderSpec(name="pyramid", mean=(0.5,) * 3, std=(0.25,) * 3, licence="", source="random")
    config = RebuildConfig(head_width=8, compare=(CompareConfig(strides=(16,), prototypes=64),))
    student = SmallStudent(config, Encoder(Pyramid(), (6, 6, 48), spec)).eval()
    student.fit_statistics([images_B3HW])
    plant_ties(student, images_B3HW)
    heads = student.heads
    assert heads is not None
    with torch.no_grad():
        head_inputs_BChw = student.compute_maps(images_B3HW).head_inputs_BChw
        assert head_inputs_BChw is not None
        heads.fit_normalisation(head_inputs_BChw)
        heads.label[0].weight.normal_(std=0.3)
    heads.blend_weights.copy_(torch.tensor([[0.1, 1.0, 0.0]] * 2))
    return ArtifactGraph(student.eval(), scale=1.0), images_NHW3


def plant_ties(student: RebuildStudent, images_B3HW: Tensor) -> None:
    """Set pairs of prototypes at equal distances on either side of the features of some positions."""
    memory = student.memories[0]
    assert isinstance(memory, Prototypes)
    features = student.features(images_B3HW)
    direction_BNC, _ = memory._directions(join(features, student.encoder.strides, (16,)))
    count = len(memory.prototypes_KC) // 2
    middle_KC = direction_BNC[:, ::2].flatten(0, 1)[:count]
    offset_KC = torch.randn(count, middle_KC.shape[1])
    offset_KC = F.normalize(offset_KC - (offset_KC * middle_KC).sum(dim=1, keepdim=True) * middle_KC, dim=1)
    pairs = [F.normalize(middle_KC + side * 0.3 * offset_KC, dim=1) for side in (1, -1)]
    memory.prototypes_KC.copy_(torch.cat(pairs))


def export_tied(graph: ArtifactGraph, images_NHW3: np.ndarray, deployment: str, output: Path) -> Conversion:
    """Export the student as a deployment, verified on the images with ties."""
    calibration = calibrate({"a": list(np.linspace(0.1, 0.9, 30))}, reject_rate=0.05, reinspect_rate=0.1)
    card = ArtifactCard(
        name="tied",
        target=deployment.partition("_")[0],
        size=SIZE,
        resize=RESIZE,
        categories=("a",),
        calibration=calibration,
    )
    truths = [Truth(False, "a", f"{number}.png") for number in range(len(images_NHW3))]
    verification = VerificationData(
        real=[(images_NHW3, truths)],
        sound=lambda: WeightedImages(images_NHW3),
        checked=lambda: WeightedImages(images_NHW3),
    )
    return make_artifact(graph, output, card=card, deployment=load_deployment(deployment), verification=verification)
