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

DATA_SETS = {"tile": "magnetic_tile/tile", "bottle": "mvtec_ad/bottle"}


def real_scores(folder: Path) -> np.ndarray:
    """Scores of two thirds of the real sound parts: the largest distance of their features to the mean of the other third."""
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


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize(("n", "reject", "reinspect"), [(60, 0.02, 0.05), (30, 0.01, 0.05)])
def test_promise_holds_on_real_sound_parts(real_data: Path, name: str, n: int, reject: float, reinspect: float) -> None:
    scores = real_scores(real_data / DATA_SETS[name])
    assert len(scores) > 2 * n
    rng = np.random.default_rng(1)
    trials = 400
    ng_shares, not_ok_shares = [], []
    for _ in range(trials):
        order = rng.permutation(scores)
        calibrated = compute_thresholds(order[:n].tolist(), reject_rate=reject, reinspect_rate=reinspect)
        decisions = [calibrated.thresholds.decide(float(score)) for score in order[n:]]
        ng_shares.append(np.mean([decision is Decision.NG for decision in decisions]))
        not_ok_shares.append(np.mean([decision is not Decision.OK for decision in decisions]))
    # Three standard errors of the simulated mean.
    assert np.mean(ng_shares) <= calibrated.reject_promise + 3 * np.std(ng_shares) / math.sqrt(trials)
    assert np.mean(not_ok_shares) <= calibrated.reinspect_promise + 3 * np.std(not_ok_shares) / math.sqrt(trials)
    assert np.mean(not_ok_shares) > 0.2 * calibrated.reinspect_promise, "the bound is loose"
