"""Parts that were not found in their images: every display says so instead of showing a score, and they are counted apart."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspect_kd import overlay
from inspect_kd.apps.studio.inspect.gallery import not_found_note
from inspect_kd.apps.studio.inspect.histogram import histogram
from inspect_kd.apps.studio.inspect.what_if import compute_what_if
from inspect_kd.calibrate import calibrate
from inspect_kd.datasets.alignment import Alignment, choose_alignment
from inspect_kd.datasets.alignment.example import draw_example
from inspect_kd.datasets.presentation import Presentation
from inspect_kd.datasets.view import View
from inspect_kd.evaluate import Evaluation, Verdict
from inspect_kd.metrics import CategoryMetrics, mean_of
from inspect_kd.report.charts import draw_histogram
from inspect_kd.report.pictures import Example, choose_examples, data_uri
from inspect_kd.report.pictures_file import FILE_NAME, read_pictures, write_pictures
from inspect_kd.types import NOT_FOUND, NOT_FOUND_SCORE, Decision, Inspection, Sample, Thresholds, format_score
from tests.turned_parts import OUTLINE, SIDE, cluttered_scene, random_parts

REASON = "agrees with the reference by 0.49, a sound part by at least 0.94"
THRESHOLDS = Thresholds(reinspect=0.8, reject=1.0)


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    chosen = choose_alignment([image for _, image in random_parts(20)], "silhouette").chosen.alignment
    assert chosen is not None
    return chosen


def evaluation() -> Evaluation:
    """Evaluate ten sound parts, of which one was not found, and ten defective parts, of which two were not found."""
    metrics, verdicts = CategoryMetrics(), []
    for i in range(20):
        is_defective, reason = i >= 10, REASON if i in (9, 18, 19) else None
        score = NOT_FOUND_SCORE if reason else (1.2 if is_defective else 0.5) + 0.01 * i
        metrics.add(score, np.full((4, 4), score, np.float32), np.eye(4) > 0 if is_defective else None, is_defective)
        sample = Sample(image=Path(f"{i}.png"), category="bracket", kind="dent" if is_defective else "good")
        verdicts.append(Verdict(sample=sample, score=score, decision=THRESHOLDS.decide(score), not_found=reason))
    measures = {"bracket": metrics.measures()}
    return Evaluation(measures=measures | {"mean": mean_of(measures)}, verdicts=verdicts)


def test_score_of_a_part_that_was_not_found_is_written_as_words() -> None:
    assert (format_score(NOT_FOUND_SCORE), format_score(0.834, 3)) == ("not found", "0.834")


def test_overlay_names_the_decision_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    written, put_text = [], cv2.putText

    def record(image: np.ndarray, text: str, *arguments: object) -> object:
        written.append(text)
        return put_text(image, text, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cv2, "putText", record)
    inspection = Inspection(
        score=NOT_FOUND_SCORE,
        decision=Decision.NG,
        heatmap=np.zeros((8, 8), np.float32),
        regions=(),
        thresholds=THRESHOLDS,
        cause=NOT_FOUND,
        explanation=REASON,
    )
    overlay.draw(np.full((700, 900, 3), 90, np.uint8), inspection)
    assert written == ["NG X  not found", REASON]
    written.clear()
    overlay.draw(np.full((64, 64, 3), 90, np.uint8), inspection)
    assert written == ["NG X  not found"], "the reason would be unreadable in so small a picture"


def test_overlay_outlines_the_inspected_frame() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    inspection = Inspection(
        score=0.1, decision=Decision.OK, heatmap=np.zeros((8, 8), np.float32), regions=(), thresholds=THRESHOLDS
    )
    framed = replace(inspection, frame=((20, 20), (180, 20), (180, 80), (20, 80)))
    difference = overlay.draw(image, framed, badge=False) != overlay.draw(image, inspection, badge=False)
    rows, columns = np.nonzero(difference.any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((20, 80, 20, 180), abs=2)
    assert not difference[30:70, 30:170].any()


def test_histogram_gives_parts_that_were_not_found_their_own_column() -> None:
    calibration, sound, defective = [0.5, 0.6, 0.7], [0.55, 0.65], [1.2, 3.0]
    missed = [NOT_FOUND_SCORE]
    chart = draw_histogram(calibration + missed, sound + missed, defective + 2 * missed, THRESHOLDS)
    without = draw_histogram(calibration, sound, defective, THRESHOLDS)
    ticks = re.compile(r'text-anchor="middle">([\d.e+]+)</text>')
    assert ticks.findall(chart) == ticks.findall(without) != []
    assert ">not found</text>" in chart and "not found" not in without
    assert "of these 1 calibration parts, 1 sound, 2 defective parts not found" in chart
    assert "not found" in draw_histogram(missed, [], [], THRESHOLDS), "also where no part was found"


def test_evaluation_counts_parts_that_were_not_found() -> None:
    assert evaluation().to_json()["not_found"] == {"bracket": {"sound": 1, "defective": 2}}


def test_report_shows_parts_that_were_not_found_under_their_own_headings() -> None:
    calibration = calibrate({"bracket": [0.5, 0.6, 0.9]}, reject_rate=0.3, reinspect_rate=0.3)
    chosen = choose_examples(evaluation(), calibration)
    names = {heading: [verdict.sample.image.stem for verdict in verdicts] for heading, verdicts in chosen.items()}
    assert names["Sound parts that were not found in their images"] == ["9"]
    assert sorted(names["Defective parts that were not found in their images"]) == ["18", "19"]
    assert names["Clearest defects"][0] == "17"
    assert "Sound parts that were stopped" not in names


def test_reason_is_stored_with_the_reports_pictures(tmp_path: Path) -> None:
    picture = data_uri(np.full((8, 8, 3), 90, np.uint8))
    example = Example(
        name="9.png",
        category="bracket",
        kind="good",
        score=NOT_FOUND_SCORE,
        decision=Decision.NG,
        image_uri=picture,
        heatmap_uri=picture,
        explanation=REASON,
    )
    write_pictures({"Missed": [example]}, tmp_path / FILE_NAME)
    record = json.loads((tmp_path / FILE_NAME).read_text())
    assert (record["score"], record["cause"]) == (NOT_FOUND_SCORE, "not_found")
    assert read_pictures(tmp_path, max_lines=3) == [example]


@pytest.mark.parametrize(
    ("missed", "sentence"),
    [
        (1, "1 of the 40 was not found in the image; it counts as NG"),
        (3, "3 of the 40 were not found in the image; they"),
    ],
)
def test_promise_says_how_many_sound_parts_were_not_found(missed: int, sentence: str) -> None:
    scores = [*np.linspace(0.3, 0.9, 40 - missed), *[math.inf] * missed]
    calibration = calibrate({"bracket": scores, "plate": [0.4, 0.5]}, reject_rate=0.1, reinspect_rate=0.1)
    assert sentence in calibration.describe("bracket")
    assert calibration.count_not_found("bracket") == calibration.count_not_found() == missed
    assert "not found" not in calibration.describe("plate")


def test_promise_that_more_parts_would_not_improve_names_the_cause() -> None:
    scores = [*np.linspace(0.3, 0.9, 110), *[math.inf] * 10]
    text = calibrate({"bracket": scores}, reject_rate=0.01, reinspect_rate=0.05).describe("bracket")
    assert "The requested 1 % cannot be promised while so many sound parts are not found." in text
    assert "needs" not in text and "at most 9.1 % are NG" in text


def test_studio_counts_parts_that_were_not_found_beside_the_histogram() -> None:
    scores, held_out = [0.5, NOT_FOUND_SCORE, NOT_FOUND_SCORE], [0.4, 0.6, NOT_FOUND_SCORE]
    counts = compute_what_if(scores, held_out, THRESHOLDS, THRESHOLDS).to_json()
    assert counts["not_found"] == {"shown": 2, "held_out_sound": 1}
    assert counts["shown"]["NG"] == 2 and counts["held_out_sound"]["NG"] == 1
    assert histogram(scores, held_out, THRESHOLDS, 2.0) == histogram([0.5], [0.4, 0.6], THRESHOLDS, 2.0)
    assert "2 inspected, 1 held-out" in not_found_note(scores, held_out)
    assert not_found_note([0.5], [0.4]) == ""


def test_outline_of_the_frame_lies_around_the_part(alignment: Alignment) -> None:
    presentation = Presentation(view=View(size=64), alignment=alignment)
    for matrix, image in random_parts(8, seed=300):
        frame = presentation.prepare(image).frame
        assert frame is not None
        corners = np.array(frame, np.float32)
        sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
        assert sides == pytest.approx([*alignment.frame] * 2, abs=0.05)
        outline = (matrix @ np.vstack([OUTLINE.T, np.ones(len(OUTLINE))])).T.astype(np.float32)
        assert all(cv2.pointPolygonTest(corners, (float(x), float(y)), False) > 0 for x, y in outline)


def test_image_without_a_part_has_no_frame(alignment: Alignment) -> None:
    prepared = Presentation(view=View(size=64), alignment=alignment).prepare(np.full((SIDE, SIDE, 3), 128, np.uint8))
    assert prepared.fault is not None and prepared.frame is None


@pytest.mark.parametrize(("width", "height"), [(64, 320), (300, 200), (40, 500), (700, 33)])
def test_tiles_cover_the_image(width: int, height: int) -> None:
    view = View(size=64, tile=100)
    corners = view.tile_corners(width, height)
    assert len(corners) == view.count(width, height)
    covered = np.zeros((height, width), bool)
    for left, top in corners:
        covered[round(top) : round(top) + 100, round(left) : round(left) + 100] = True
    assert covered.all()
    assert View(size=64).tile_corners(width, height) == []


def test_alignment_finds_the_part_in_the_example_drawn_from_it(alignment: Alignment) -> None:
    rng = np.random.default_rng(3)
    boards = [cluttered_scene(rng.uniform(-8, 8), *rng.uniform(-20, 20, 2), seed=i) for i in range(12)]
    template = choose_alignment(boards, "template").chosen.alignment
    assert template is not None
    for each in (alignment, template):
        found = each.locate(draw_example(each))
        assert found.fault is None and found.pose is not None and found.pose.quality > 0.8
