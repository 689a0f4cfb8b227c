"""The streaming metrics agree with scikit-learn's and anomalib's, on random and on real heatmaps."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.metrics import METRICS, CategoryMetrics, ImageScores, PixelCounts, bin_of, mean_of
from inspect_kd.resize import resize
from inspect_kd.types import Split

Maps = list[tuple[np.ndarray, np.ndarray]]


def random_maps(kind: str, count: int = 12, side: int = 48) -> Maps:
    rng = np.random.default_rng(5)
    maps: Maps = []
    for index in range(count):
        mask = np.zeros((side, side), bool)
        for _ in range(index % 4):
            y, x = rng.integers(0, side - 9, 2)
            mask[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = True
        heat = rng.normal(1, 0.4, (side, side)) + mask * rng.uniform(0.2, 1.2)
        if kind == "heavy-tailed":
            heat = np.exp(3 * heat)
        if kind == "ties":
            heat = np.round(heat * 2) / 2
        if kind == "negative":
            heat = heat - 2
        if kind == "tiny":
            heat = heat * 1e-20
        maps.append((heat.astype(np.float32), mask))
    return maps


def count_pixels(maps: Maps) -> PixelCounts:
    counts = PixelCounts()
    for heat, mask in maps:
        counts.add(heat, mask)
    return counts


def reference_metrics(maps: Maps) -> dict[str, float]:
    """The metrics of anomalib and scikit-learn."""
    import torch
    from anomalib.metrics.aupro import _AUPRO
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    heat, truth = np.stack([m[0] for m in maps]), np.stack([m[1] for m in maps])
    precision, recall, _ = precision_recall_curve(truth.ravel(), heat.ravel())
    aupro = _AUPRO(fpr_limit=0.3)
    low, high = heat.min(), heat.max()
    # anomalib needs maps between 0 and 1; scaling does not change the curves.
    aupro.update(torch.from_numpy((heat - low) / (high - low)), torch.from_numpy(truth.astype(int)))
    return {
        "auroc": float(roc_auc_score(truth.ravel(), heat.ravel())),
        "ap": float(average_precision_score(truth.ravel(), heat.ravel())),
        "f1max": float(np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-12))),
        "aupro": float(aupro.compute()),
    }


def assert_agreement(maps: Maps) -> None:
    counts, expected = count_pixels(maps), reference_metrics(maps)
    for name, value in expected.items():
        measured = getattr(counts, name)().value
        assert measured == pytest.approx(value, abs=1e-3), name


@pytest.mark.parametrize("kind", ["plain", "heavy-tailed", "ties", "negative", "tiny"])
def test_pixel_metrics_agree_with_references_on_random_maps(kind: str) -> None:
    assert_agreement(random_maps(kind))


@pytest.fixture(scope="module")
def real_maps(real_data: Path) -> Maps:
    """Heatmaps of a crude detector: the blurred difference from the mean sound part."""
    data = open_dataset(real_data / "mvtec_ad")
    sound = [resize(read_image(s.image), 128, 128).astype(np.float32) for s in data.select(Split.TRAIN)[:24]]
    mean = np.mean(sound, axis=0)
    maps: Maps = []
    for sample in data.select(Split.TEST)[::3]:
        heat = cv2.GaussianBlur(np.abs(resize(read_image(sample.image), 128, 128) - mean).mean(axis=2), (0, 0), 3)
        mask = read_mask(sample.mask, size=(128, 128)) if sample.mask else np.zeros((128, 128), bool)
        maps.append((heat.astype(np.float32), mask))
    return maps


def test_pixel_metrics_agree_with_references_on_real_maps(real_maps: Maps) -> None:
    assert_agreement(real_maps)
    assert count_pixels(real_maps).auroc().value > 0.7


def test_image_metrics_agree_with_anomalib(real_maps: Maps) -> None:
    import torch
    from anomalib.metrics.auroc import _AUROC
    from anomalib.metrics.f1_score import _F1Max
    from torchmetrics.classification import BinaryAveragePrecision

    truth = [bool(mask.any()) for _, mask in real_maps]
    # Between 0 and 1: torchmetrics treats other values as logits, and its sigmoid would make all of them 1.
    scores = [float(heat.max()) / 255 for heat, _ in real_maps]
    image_scores = ImageScores()
    for score, defective in zip(scores, truth, strict=True):
        image_scores.add(score, defective)
    expected = {"auroc": _AUROC(), "f1max": _F1Max(), "ap": BinaryAveragePrecision()}
    for name, metric in expected.items():
        metric.update(torch.tensor(scores), torch.tensor(truth).int())
        assert getattr(image_scores, name)().value == pytest.approx(float(metric.compute()), abs=1e-3), name


def test_merged_counts_equal_a_single_count() -> None:
    maps = random_maps("plain", 20)
    merged, others = count_pixels(maps[:7]), count_pixels(maps[7:])
    merged.merge(others)
    whole = count_pixels(maps)
    for name in ("auroc", "ap", "f1max", "aupro"):
        assert getattr(merged, name)().value == pytest.approx(getattr(whole, name)().value, abs=1e-12)


def test_bins_preserve_the_order_of_floats() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(
        np.concatenate([rng.normal(size=500), 10.0 ** rng.uniform(-30, 30, 500), [0, -1e-20, np.inf, -np.inf]])
    ).astype(np.float32)
    assert (np.diff(bin_of(values).astype(np.int64)) >= 0).all()


def test_unmeasurable_metrics_have_a_reason() -> None:
    rng = np.random.default_rng(0)
    heat, mask = rng.random((16, 16)).astype(np.float32), np.zeros((16, 16), bool)
    mask[3:6, 3:6] = True
    sound_only, no_mask, defects_only = CategoryMetrics(), CategoryMetrics(), CategoryMetrics()
    sound_only.add(0.2, heat, None, False)
    no_mask.add(0.2, heat, None, False)
    no_mask.add(0.9, heat, None, True)
    defects_only.add(0.9, heat, mask, True)
    assert {measure.reason for measure in sound_only.measures().values()} == {"no defective part in the test"}
    measures_without_mask = no_mask.measures()
    assert measures_without_mask["image_auroc"].value == 1.0
    assert measures_without_mask["pixel_ap"].reason == "no defective part has a mask"
    assert defects_only.measures()["image_auroc"].reason == "no sound part in the test"
    assert defects_only.measures()["pixel_auroc"].value is not None
    mean = mean_of({"a": measures_without_mask, "b": sound_only.measures()})
    assert mean["image_auroc"].value == 1.0 and mean["pixel_ap"].value is None and mean["pixel_ap"].reason
    assert set(measures_without_mask) == set(METRICS)


def test_constant_map_has_chance_level_metrics() -> None:
    counts = PixelCounts()
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    counts.add(np.ones((8, 8), np.float32), mask)
    assert counts.auroc().value == 0.5
    assert counts.ap().value == pytest.approx(4 / 64)
    assert counts.aupro().value == pytest.approx(0.15)


def test_memory_stays_small_over_many_maps() -> None:
    rng = np.random.default_rng(0)
    counts = PixelCounts()
    for _ in range(60):
        counts.add(rng.lognormal(0, 2, (256, 256)).astype(np.float32), None)
    counts.sound.compact()
    assert counts.sound.bins.nbytes + counts.sound.weights.nbytes < 2e6
    assert math.isclose(counts.sound.weights.sum(), 60 * 256 * 256)
