"""Overlays and the report: fixed colours, escaped names, one file that asks nobody for anything."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from inspect_kd import overlay
from inspect_kd.calibrate import calibrate
from inspect_kd.evaluate import Evaluation, Verdict
from inspect_kd.metrics import CategoryMetrics, mean_of
from inspect_kd.report import Report, write_report
from inspect_kd.report.pictures import Example, data_uri
from inspect_kd.types import Decision, Inspection, Sample, Thresholds

HOSTILE = '<img src=x onerror="alert(1)">'


def inspection(heat: np.ndarray, score: float = 1.4) -> Inspection:
    thresholds = Thresholds(reinspect=0.8, reject=1.0)
    regions = overlay.find_regions(heat, 0.8, 100, 80)
    return Inspection(
        score=score, decision=thresholds.decide(score), heatmap=heat, regions=regions, thresholds=thresholds
    )


def test_heat_below_half_the_threshold_leaves_the_picture_alone() -> None:
    image = np.full((32, 32, 3), 90, np.uint8)
    assert np.array_equal(overlay.blend_heatmap(image, np.full((8, 8), 0.49, np.float32)), image)
    assert np.abs(overlay.blend_heatmap(image, np.full((8, 8), 1.5, np.float32)).astype(int) - image).max() > 60


def test_the_scale_is_not_stretched_to_one_picture() -> None:
    image = np.full((32, 32, 3), 90, np.uint8)
    quiet = np.random.default_rng(0).uniform(0, 0.4, (8, 8)).astype(np.float32)
    assert np.array_equal(overlay.blend_heatmap(image, quiet), image)


def test_regions_are_where_the_heat_is() -> None:
    heat = np.zeros((40, 50), np.float32)
    heat[10:20, 5:15] = 1.2
    heat[30:34, 40:44] = 2.0
    first, second = overlay.find_regions(heat, 1.0, 100, 80)
    assert (first.x, first.y, first.width, first.height, first.area) == (80, 60, 8, 8, 64)
    assert (second.x, second.y, second.width, second.height) == (10, 20, 20, 20)
    assert first.peak == 2.0 and 60 <= first.peak_y < 68


@pytest.mark.parametrize("shape", [(24, 24), (80, 100), (60, 900), (1500, 2000), (1, 14_000_000)])
def test_overlays_are_drawn_at_any_size(shape: tuple[int, int]) -> None:
    heat = np.zeros((40, 50), np.float32)
    heat[10:20, 5:15] = 1.6
    image = np.full((*shape, 3), 120, np.uint8)
    picture = overlay.draw(image, inspection(heat))
    assert picture.shape == image.shape and (picture != image).any()
    assert (image == 120).all(), "the caller's image is left alone"


def report(
    tmp_path: Path, *, defects: bool = True, masks: bool = True, name: str = "part.png", categories: int = 2
) -> str:
    rng = np.random.default_rng(0)
    names = [f"kind{i}" for i in range(categories)]
    calibration = calibrate({n: list(rng.uniform(0.3, 0.9, 30)) for n in names}, reject_rate=0.01, reinspect_rate=0.05)
    verdicts, measures = [], {}
    for category in names:
        metrics = CategoryMetrics()
        for i in range(12):
            bad = defects and i % 2 == 0
            score = float(rng.uniform(0.8, 2) if bad else rng.uniform(0.3, 1.1))
            mask = np.zeros((16, 16), bool)
            mask[2:5, 2:5] = True
            metrics.add(score, rng.random((16, 16)).astype(np.float32), mask if bad and masks else None, bad)
            sample = Sample(image=tmp_path / name, category=category, kind="dent" if bad else "good")
            verdicts.append(
                Verdict(sample=sample, score=score, decision=calibration.limits_for(category).thresholds.decide(score))
            )
        measures[category] = metrics.measures()
    picture = data_uri(np.full((40, 60, 3), 90, np.uint8))
    example = Example(
        name=name, category=names[0], kind="dent", score=1.2, decision=Decision.NG, original=picture, heated=picture
    )
    content = Report(
        title=f"run of {name}",
        artifact="part.onnx",
        data={
            "name": name,
            "layout": "mvtec",
            "licence": None,
            "counts": {n: dict.fromkeys(("train", "calibration", "validation", "test", "defective"), 5) for n in names},
        },
        calibration=calibration,
        evaluation=Evaluation(measures=measures | {"mean": mean_of(measures)}, verdicts=verdicts),
        examples={"Missed defects": [example]},
        history=[{"step": i, "loss": 1 / i} | ({"gap": 0.1 * i} if i % 2 == 0 else {}) for i in range(1, 9)],
        recipe=f"name: {name}",
        environment={"device": "cpu", "inspect_kd": "0"},
        facts={"best_step": 8, "parity": {"onnx": {"flips": 0, "real_images": 9}}},
    )
    return write_report(content, tmp_path / "report.html").read_text()


def test_names_are_escaped(tmp_path: Path) -> None:
    page = report(tmp_path, name=HOSTILE)
    assert HOSTILE not in page and "&lt;img src=x" in page


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"', page)
    assert "http" not in page.lower().replace("http-equiv", "")


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    assert "no defective part in the test" in report(tmp_path, defects=False)
    assert "no defective part has a mask" in report(tmp_path, masks=False)
    assert report(tmp_path, categories=17).count('<svg class="chart"') == 16


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_the_report_of_a_real_run(run: Path, width: int, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine; `make browser` installs one where it may")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((run / "report.html").as_uri())
        assert page.locator("h2").first.is_visible()
        sizes = page.evaluate("[...document.images].map(i => [i.loading = 'eager', i.src.slice(0, 5)])")
        page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        browser.close()
    assert sizes and overflow <= 0 and complaints == []
    assert not [url for url in asked if url.startswith("http")]
