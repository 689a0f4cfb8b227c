"""The promised rates hold on real sound parts: calibrate on some, count the decisions on the others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from inspect_kd.calibrate import compute_thresholds
from inspect_kd.datasets.images import read_image
from inspect_kd.models.encoders import build_encoder
from inspect_kd.resize import resize
from inspect_kd.types import Decision

SETS = {"tile": "magnetic_tile/tile", "bottle": "mvtec_ad/bottle"}


def real_scores(folder: Path) -> np.ndarray:
    """Score real sound parts by the largest distance of their features to the mean features of a third of them."""
    paths = sorted((folder / "train" / "good").iterdir()) + sorted((folder / "test" / "good").iterdir())
    encoder = build_encoder("embedded")
    features = []
    with torch.inference_mode():
        for path in paths:
            image = torch.from_numpy(resize(read_image(path), 96, 96)).permute(2, 0, 1)[None].float()
            features.append(torch.nn.functional.normalize(encoder(image)[1], dim=1))
    stacked = torch.cat(features)[torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))]
    reference, others = stacked[: len(paths) // 3], stacked[len(paths) // 3 :]
    return (others - reference.mean(dim=0)).norm(dim=1).flatten(1).max(dim=1).values.numpy()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("n", "reject", "reinspect"), [(60, 0.02, 0.05), (30, 0.01, 0.05)])
def test_promise_holds_on_real_sound_parts(real_data: Path, name: str, n: int, reject: float, reinspect: float) -> None:
    scores = real_scores(real_data / SETS[name])
    assert len(scores) > 2 * n
    rng = np.random.default_rng(1)
    rejected, stopped, trials = [], [], 400
    for _ in range(trials):
        order = rng.permutation(scores)
        limits = compute_thresholds(order[:n].tolist(), reject_rate=reject, reinspect_rate=reinspect)
        decisions = [limits.thresholds.decide(float(score)) for score in order[n:]]
        rejected.append(np.mean([decision is Decision.NG for decision in decisions]))
        stopped.append(np.mean([decision is not Decision.OK for decision in decisions]))
    # Three standard errors of the simulated mean.
    assert np.mean(rejected) <= limits.reject_promise + 3 * np.std(rejected) / math.sqrt(trials)
    assert np.mean(stopped) <= limits.reinspect_promise + 3 * np.std(stopped) / math.sqrt(trials)
    assert np.mean(stopped) > 0.2 * limits.reinspect_promise, "a threshold that stops nothing promises nothing"
