"""Overlays and the report: fixed colours, escaped names, one self-contained page, pictures stored as data."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from inspect_kd import overlay
from inspect_kd.calibrate import calibrate
from inspect_kd.datasets.advice import Advice
from inspect_kd.evaluate import Evaluation, Verdict
from inspect_kd.metrics import CategoryMetrics, mean_of
from inspect_kd.report import Report, write_report
from inspect_kd.report.html import Cell, Html, table
from inspect_kd.report.page import MAX_HISTOGRAMS
from inspect_kd.report.pictures import Example, data_uri
from inspect_kd.report.pictures_file import FILE_NAME, MAX_LINE_BYTES, read_pictures
from inspect_kd.types import Decision, Inspection, Sample, Thresholds

HOSTILE = '<img src=x onerror="alert(1)">'


def inspection(heat: np.ndarray, score: float = 1.4) -> Inspection:
    thresholds = Thresholds(reinspect=0.8, reject=1.0)
    regions = overlay.find_regions(heat, 0.8, 100, 80)
    return Inspection(
        score=score, decision=thresholds.decide(score), heatmap=heat, regions=regions, thresholds=thresholds
    )


def test_heat_below_half_the_threshold_is_transparent() -> None:
    image = np.full((32, 32, 3), 90, np.uint8)
    assert np.array_equal(overlay.blend_heatmap(image, np.full((8, 8), 0.49, np.float32)), image)
    assert np.abs(overlay.blend_heatmap(image, np.full((8, 8), 1.5, np.float32)).astype(int) - image).max() > 60


def test_colour_scale_is_not_stretched_to_the_image() -> None:
    image = np.full((32, 32, 3), 90, np.uint8)
    low_heat = np.random.default_rng(0).uniform(0, 0.4, (8, 8)).astype(np.float32)
    assert np.array_equal(overlay.blend_heatmap(image, low_heat), image)


def test_regions_cover_the_hot_places() -> None:
    heat = np.zeros((40, 50), np.float32)
    heat[10:20, 5:15] = 1.2
    heat[30:34, 40:44] = 2.0
    first, second = overlay.find_regions(heat, 1.0, 100, 80)
    assert (first.x, first.y, first.width, first.height, first.area) == (80, 60, 8, 8, 64)
    assert (second.x, second.y, second.width, second.height) == (10, 20, 20, 20)
    assert first.peak == 2.0 and 60 <= first.peak_y < 68


@pytest.mark.parametrize("shape", [(24, 24), (80, 100), (60, 900), (1500, 2000), (1, 14_000_000)])
def test_overlay_has_the_size_of_the_image(shape: tuple[int, int]) -> None:
    heat = np.zeros((40, 50), np.float32)
    heat[10:20, 5:15] = 1.6
    image = np.full((*shape, 3), 120, np.uint8)
    picture = overlay.draw(image, inspection(heat))
    assert picture.shape == image.shape and (picture != image).any()
    assert (image == 120).all(), "the caller's image is not changed"


def render_report(
    tmp_path: Path,
    *,
    defects: bool = True,
    masks: bool = True,
    name: str = "part.png",
    categories: int = 2,
    advice: Sequence[Advice] = (),
) -> str:
    rng = np.random.default_rng(0)
    names = [f"kind{i}" for i in range(categories)]
    calibration = calibrate({n: list(rng.uniform(0.3, 0.9, 30)) for n in names}, reject_rate=0.01, reinspect_rate=0.05)
    verdicts, measures = [], {}
    for category in names:
        metrics = CategoryMetrics()
        for i in range(12):
            is_defective = defects and i % 2 == 0
            score = float(rng.uniform(0.8, 2) if is_defective else rng.uniform(0.3, 1.1))
            mask = np.zeros((16, 16), bool)
            mask[2:5, 2:5] = True
            metrics.add(
                score, rng.random((16, 16)).astype(np.float32), mask if is_defective and masks else None, is_defective
            )
            sample = Sample(image=tmp_path / name, category=category, kind="dent" if is_defective else "good")
            verdicts.append(
                Verdict(
                    sample=sample, score=score, decision=calibration.for_category(category).thresholds.decide(score)
                )
            )
        measures[category] = metrics.measures()
    picture = data_uri(np.full((40, 60, 3), 90, np.uint8))
    example = Example(
        name=name,
        category=names[0],
        kind="dent",
        score=1.2,
        decision=Decision.NG,
        image_uri=picture,
        heatmap_uri=picture,
    )
    report = Report(
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
        advice=advice,
    )
    return write_report(report, tmp_path / "report.html").read_text()


def test_file_names_are_escaped(tmp_path: Path) -> None:
    page = render_report(tmp_path, name=HOSTILE)
    assert HOSTILE not in page and "&lt;img src=x" in page


def test_advice_is_shown_with_its_picture_and_its_command(tmp_path: Path) -> None:
    advice = Advice(
        topic="series",
        category=HOSTILE,
        number=4,
        measure="sound pictures with a near-duplicate",
        text=f"4 pictures such as {HOSTILE}",
        remedy="keep them together",
        changes=("--set", "data.group=^(.+)_[^_]+$"),
        picture=np.full((40, 60, 3), 90, np.uint8),
    )
    page = render_report(tmp_path, name="parts", advice=[advice])
    section = page.split("What the pictures are like")[1].split("<h2>")[0]
    assert "inspect-kd train --data parts --set &#x27;data.group=^(.+)_[^_]+$&#x27;" in section
    assert section.count('src="data:image/webp;base64,') == 1 and HOSTILE not in page
    assert "What the pictures are like" not in render_report(tmp_path), "without advice there is no such section"


def test_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = render_report(tmp_path)
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"', page)
    assert "http" not in page.lower().replace("http-equiv", "")


def test_missing_metrics_are_explained(tmp_path: Path) -> None:
    assert "no defective part in the test" in render_report(tmp_path, defects=False)
    assert "no defective part has a mask" in render_report(tmp_path, masks=False)


def test_histograms_of_many_categories_are_limited(tmp_path: Path) -> None:
    assert render_report(tmp_path, categories=MAX_HISTOGRAMS + 1).count('<svg class="chart"') == MAX_HISTOGRAMS


def test_pictures_are_stored_as_data_beside_the_page(tmp_path: Path) -> None:
    page = render_report(tmp_path, name=HOSTILE)
    (example,) = read_pictures(tmp_path, max_lines=6)
    assert (example.name, example.kind, example.decision, example.score) == (HOSTILE, "dent", Decision.NG, 1.2)
    assert example.image_uri in page and example.heatmap_uri in page


def picture_line(**changes: object) -> str:
    image = "data:image/webp;base64,AA"
    record = {
        "image": "a",
        "category": "b",
        "kind": "c",
        "score": 1.5,
        "decision": "NG",
        "original": image,
        "heated": image,
    }
    return json.dumps(record | changes) + "\n"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[" * 100_000 + "\n",
        "[]\n",
        "{}\n",
        picture_line(original="https://elsewhere.invalid/a.png"),
        picture_line(heated=5),
        picture_line(image=None),
        picture_line(decision="MAYBE"),
        picture_line(score="x"),
        picture_line(original="data:image/png;base64," + "A" * MAX_LINE_BYTES),
    ],
    ids=range(10),
)
def test_malformed_pictures_of_a_run_are_skipped(line: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(line + picture_line())
    # A line that is too long is read in pieces, none of which is valid by itself.
    pictures = read_pictures(tmp_path, max_lines=6)
    assert [each.name for each in pictures] == ["a"]


def test_only_the_first_pictures_are_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(picture_line() * 9)
    assert len(read_pictures(tmp_path, max_lines=6)) == 6


def test_pictures_are_not_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(picture_line())
    (tmp_path / FILE_NAME).symlink_to("elsewhere")
    assert read_pictures(tmp_path, max_lines=6) == []


def test_table_escapes_everything_but_markup() -> None:
    rendered = table(["<a>", ""], [["<b>", Html("<i>c</i>")], [1, Cell("<d>", "same")]], classes="k", row_headers=True)
    assert rendered == (
        '<table class="k"><thead><tr><th scope="col">&lt;a&gt;</th><td></td></tr></thead><tbody>'
        '<tr><th scope="row">&lt;b&gt;</th><td><i>c</i></td></tr>'
        '<tr><th scope="row">1</th><td class="same">&lt;d&gt;</td></tr></tbody></table>'
    )


@pytest.mark.parametrize("width", [1280, 420])
def test_browser_shows_the_report_of_a_real_run(run: Path, width: int, tmp_path: Path) -> None:
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
        urls, messages = [], []
        page.on("request", lambda request: urls.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto((run / "report.html").as_uri())
        assert page.locator("h2").first.is_visible()
        sources = page.evaluate("[...document.images].map(i => [i.loading = 'eager', i.src.slice(0, 5)])")
        page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        browser.close()
    assert sources and overflow <= 0 and messages == []
    assert not [url for url in urls if url.startswith("http")]
