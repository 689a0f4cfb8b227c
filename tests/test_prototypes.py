"""The comparison with prototypes is continuous: positions that tie between prototypes give equal results in every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.models.layers.prototypes import Prototypes
from tests.tied_student import export_tied, tied_student


def feature_between(first_C: Tensor, second_C: Tensor, share: float) -> Tensor:
    """Features of one position whose direction lies between two prototypes."""
    return F.normalize(torch.lerp(first_C, second_C, share), dim=0).view(1, -1, 1, 1)


@pytest.mark.parametrize("copies", [1, 4])
def test_comparison_is_continuous_where_the_nearest_prototype_changes(copies: int) -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(8, count=12 * copies, window=1)
    distinct_KC = F.normalize(torch.rand(12, 8), dim=1)
    prototypes.prototypes_KC.copy_(distinct_KC.repeat(copies, 1))
    for first in range(12):
        for second in range(first):
            pair = distinct_KC[first], distinct_KC[second]
            before, after = (
                prototypes.compare_channels(feature_between(*pair, 0.5 + shift)) for shift in (-1e-6, 1e-6)
            )
            assert (before.product_BChw - after.product_BChw).abs().max() < 1e-3
            assert (before.distance_B1hw - after.distance_B1hw).abs().max() < 1e-5


def test_a_position_near_one_prototype_is_compared_with_it_alone() -> None:
    prototypes = Prototypes(8, count=12, window=1)
    prototypes.prototypes_KC.copy_(torch.eye(12, 8))
    direction = F.normalize(torch.tensor([1.0, 0.2, 0, 0, 0, 0, 0, 0]), dim=0)
    comparison = prototypes.compare_channels(direction.view(1, 8, 1, 1))
    assert torch.allclose(comparison.product_BChw.flatten(), direction * torch.eye(8)[0], atol=1e-3)
    assert torch.allclose(comparison.distance_B1hw, prototypes(direction.view(1, 8, 1, 1)))


def test_flat_images_give_no_duplicate_prototypes() -> None:
    prototypes = Prototypes(8, count=64, window=3)
    flat = torch.rand(4, 8, 1, 1).expand(4, 8, 6, 6)
    prototypes.add(flat, torch.Generator().manual_seed(0))
    prototypes.fit(torch.ones(1, 8, 1, 1), torch.Generator().manual_seed(0))
    used_KC = prototypes.prototypes_KC[prototypes.prototypes_KC.norm(dim=1) > 0]
    cosine_KK = used_KC @ used_KC.T
    assert len(used_KC) == 4 and cosine_KK.fill_diagonal_(0).max() < 1 - 1e-5
    assert prototypes(flat).abs().max() < 1e-5


@pytest.fixture(scope="module")
def student_and_images() -> tuple[ArtifactGraph, np.ndarray]:
    return tied_student()


@pytest.mark.parametrize("name", ["onnx", "onnx_fp16", "onnx_int8", "openvino"])
def test_tied_positions_pass_verification(
    name: str, student_and_images: tuple[ArtifactGraph, np.ndarray], tmp_path: Path
) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    conversion = export_tied(*student_and_images, name, tmp_path / "tied.onnx")
    assert not conversion.exceeded_limits, conversion.describe_exceeded_limits()
    assert (tmp_path / "tied.onnx").is_file()
