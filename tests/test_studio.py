"""The Studio without Gradio: decisions, counts, pictures, marks, exports, artifacts, and the files of sessions."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspect_kd.apps.studio import session as session_module
from inspect_kd.apps.studio.artifact.library import ArtifactLibrary, example_images, find_artifacts, find_examples
from inspect_kd.apps.studio.artifact.view import card_page
from inspect_kd.apps.studio.compare import view as compare
from inspect_kd.apps.studio.inspect import exports, gallery, viewer
from inspect_kd.apps.studio.inspect.gallery_state import PAGE_SIZE
from inspect_kd.apps.studio.inspect.histogram import histogram
from inspect_kd.apps.studio.inspect.marks import MarkContext, MarkStore
from inspect_kd.apps.studio.inspect.parts import Part, inspect_part
from inspect_kd.apps.studio.inspect.what_if import compute_what_if, held_out_scores, ordered_thresholds
from inspect_kd.apps.studio.session import RefusedFile, Session, display_name
from inspect_kd.apps.studio.sessions import Sessions
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.datasets import list_samples
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.types import Decision, Thresholds
from tests.studio_server import need


def images(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/test/*/*.png"))


@pytest.fixture
def settings(run: Path, tmp_path: Path) -> Settings:
    second = tmp_path / "second" / "second.onnx"
    second.parent.mkdir()
    shutil.copy(run / "r.onnx", second)
    return Settings(artifacts=(run / "r.onnx", second), store=tmp_path / "store")


@pytest.fixture
def sessions(settings: Settings, tmp_path: Path) -> Iterator[Sessions]:
    sessions = Sessions(ArtifactLibrary(settings.artifacts), settings, tmp_path / "shown")
    yield sessions
    sessions.close()


@pytest.fixture
def session(sessions: Sessions, parts: Path) -> Session:
    session = sessions.get("me")
    for path in images(parts):
        assert isinstance(session.add(path.read_bytes(), path.name), Part)
    return session


def address(path: Path) -> str:
    """Stand in for the function that returns the URL of a served file."""
    return path.name


# Decisions


def test_session_decides_like_the_inspector(session: Session, run: Path, parts: Path) -> None:
    inspector = Inspector(run / "r.onnx")
    for part, path in zip(session.all_parts(), images(parts), strict=True):
        expected, actual = inspector(path), session.inspection(part)
        assert (actual.score, actual.regions, actual.decision) == (expected.score, expected.regions, expected.decision)
        assert np.array_equal(actual.heatmap, expected.heatmap)


def test_moved_threshold_runs_no_model_and_decides_like_the_inspector(
    session: Session, run: Path, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_call(*_: object) -> None:
        raise AssertionError("the model ran")

    median = float(np.median([part.score for part in session.all_parts()]))
    monkeypatch.setattr(session.inspector, "predict_batch", fail_on_call)
    session.set_thresholds(median * 0.8, median)
    inspector = Inspector(run / "r.onnx", thresholds=Thresholds(reinspect=median * 0.8, reject=median))
    inspections = [inspector(path) for path in images(parts)]
    assert [session.inspection(part).regions for part in session.all_parts()] == [
        inspection.regions for inspection in inspections
    ]
    counts = session.what_if().inspected
    assert counts == {d: sum(inspection.decision is d for inspection in inspections) for d in Decision}
    assert counts[Decision.NG] > 0 and counts[Decision.NG] < len(inspections)


def test_two_hundred_parts_are_rendered_within_a_third_of_a_second(session: Session) -> None:
    """The test times everything that a moved threshold changes: decisions, counts, histogram, cards and the selected part."""
    originals = session.all_parts()
    for number in range(1000, 1200 - len(originals)):
        session.parts[number] = replace(originals[number % len(originals)], number=number, score=0.01 * (number - 1000))
    assert len(session.parts) == 200
    durations = []
    for threshold in (0.5, 0.9, 1.3):
        start = time.perf_counter()
        session.set_thresholds(threshold * 0.7, threshold)
        part = session.gallery.selected_part()
        assert part is not None
        page = viewer.viewer(part, session.inspection(part), address) + gallery.gallery(session, address)
        page += gallery.scores_panel(session)
        durations.append(time.perf_counter() - start)
        ng = sum(part.score > threshold for part in session.parts.values())
        assert f'data-filter="NG" aria-pressed="false">✕ NG <b>{ng}</b>' in page
    # The fastest of three, because the machine may be busy.
    assert min(durations) < 0.3


def test_promise_at_default_thresholds_equals_the_calibration(session: Session) -> None:
    """The bound that is recomputed at the artifact's own thresholds is the one on its card."""
    calibration = session.inspector.card.calibration
    limits = calibration.limits["*"]
    result = compute_what_if([], held_out_scores(calibration, None), limits.thresholds, limits.thresholds)
    assert result.reinspect_promise == pytest.approx(limits.reinspect_promise)
    assert result.reject_promise <= limits.reject_promise + 1e-9
    n = len(held_out_scores(calibration, None))
    assert n == limits.n and sum(result.held_out.values()) == n
    all_rejected = compute_what_if([], held_out_scores(calibration, None), ordered_thresholds(0, 0), limits.thresholds)
    assert all_rejected.reject_promise == all_rejected.reinspect_promise == 1.0


def test_sliders_cannot_cross_and_snap_to_the_default_thresholds(session: Session) -> None:
    session.set_thresholds(1.5, 0.125)
    assert session.thresholds == Thresholds(reinspect=0.125, reject=0.125)
    # The sliders show rounded values; decisions use the exact thresholds.
    session.set_thresholds(round(session.default_thresholds.reinspect, 3), round(session.default_thresholds.reject, 3))
    assert session.thresholds == session.default_thresholds


def test_category_has_its_own_thresholds_and_held_out_parts(session: Session) -> None:
    calibration = session.inspector.card.calibration
    category = session.inspector.card.categories[0]
    session.set_artifact("r", category)
    assert session.thresholds == calibration.limits[category].thresholds
    assert sum(session.what_if().held_out.values()) == calibration.limits[category].n < calibration.limits["*"].n
    with pytest.raises(BadInput, match="no calibration for category"):
        session.set_artifact("r", "nothing")
    assert session.category == category


def test_scores_panel_shows_the_change_from_the_default_thresholds(session: Session) -> None:
    session.set_thresholds(0.0, 0.0)
    panel = gallery.scores_panel(session)
    ng = sum(session.default_thresholds.decide(part.score) is Decision.NG for part in session.all_parts())
    assert f'<b>{len(session.parts)}</b> <small class="change">{len(session.parts) - ng:+d}</small>' in panel


def test_nan_score_is_ng() -> None:
    counts = compute_what_if([float("nan")], [], ordered_thresholds(0.5, 1.0), ordered_thresholds(0.5, 1.0))
    assert counts.inspected[Decision.OK] == 0 and counts.inspected[Decision.NG] == 1


# Bad input


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"not an image", "notes.txt", "not a readable image"),
        (b"", "empty.png", "the file is empty"),
        (b"x" * (2**20 + 1), "large.png", "larger than 1 MB"),
    ],
)
def test_bad_file_is_refused_in_one_line_and_the_batch_continues(
    sessions: Sessions, parts: Path, content: bytes, name: str, reason: str
) -> None:
    sessions.settings = replace(sessions.settings, max_upload_mb=1)
    session = sessions.get("me")
    image = images(parts)[0]
    answers = [session.add(data, n) for data, n in ((content, name), (image.read_bytes(), image.name))]
    assert isinstance(answers[0], RefusedFile) and answers[0].name == name and reason in answers[0].reason
    assert name not in answers[0].reason and "\n" not in answers[0].reason
    assert isinstance(answers[1], Part) and len(session.parts) == 1
    assert reason in gallery.gallery(session, address)
    assert any(row.get("error") and row["decision"] == "NG" for row in exports.export_rows(session))


def test_truncated_image_is_refused(session: Session, parts: Path) -> None:
    content = images(parts)[0].read_bytes()
    answer = session.add(content[: len(content) // 2], "truncated.png")
    assert isinstance(answer, RefusedFile) and "broken or truncated" in answer.reason


def test_file_names_are_neither_paths_nor_markup(session: Session, parts: Path) -> None:
    content = images(parts)[0].read_bytes()
    part = session.add(content, "../../etc/<img src=x onerror=alert(1)>.png")
    assert isinstance(part, Part) and part.original.parent == session.folders.private
    session.gallery.select(part.number)
    page = (
        viewer.viewer(part, session.inspection(part), address)
        + gallery.gallery(session, address)
        + exports.as_html(session)
    )
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert display_name("a\\b/c\x00.png") == "c.png" and display_name("") == "part"


def test_parts_and_disk_space_are_limited(sessions: Sessions, parts: Path) -> None:
    content = images(parts)[0].read_bytes()
    sessions.settings = replace(sessions.settings, max_parts=2)
    session = sessions.get("few")
    answers = [session.add(content, "p.png") for _ in range(3)]
    assert isinstance(answers[2], RefusedFile) and "no more than 2 parts in one session" in answers[2].reason
    sessions.settings = replace(sessions.settings, max_kept_mb=1)
    answer = sessions.get("tight").add(content, "p.png")
    assert isinstance(answer, RefusedFile) and "no room left" in answer.reason


def test_refused_files_beyond_the_list_are_counted(session: Session) -> None:
    for number in range(1100):
        session.refuse(f"{number}.png", "no more than 500 parts in one session")
    assert len(session.refused_files) == 1000
    shown = gallery.gallery(session, address)
    assert "1100 files were not inspected" in shown and "and 1080 more" in shown
    rows = exports.export_rows(session)
    assert rows[-1]["image"] == "and 100 more" and rows[-1]["decision"] == "NG" and "at most 1000" in rows[-1]["error"]
    page = exports.as_html(session)
    assert "1100 files were not inspected" in page and "and 100 more" in page
    session.clear()
    assert "were not inspected" not in gallery.gallery(session, address)


def test_heatmap_counts_before_it_is_written(session: Session, parts: Path) -> None:
    content = images(parts)[0].read_bytes()
    heatmap_bytes = session.all_parts()[0].heatmap().nbytes
    session.free_bytes = lambda: len(content) + session_module.RESERVE_BYTES + heatmap_bytes - 1
    files = [sorted(folder.iterdir()) for folder in session.folders]
    refused = session.add(content, "large.png")
    assert isinstance(refused, RefusedFile) and "no room left" in refused.reason
    assert [sorted(folder.iterdir()) for folder in session.folders] == files
    session.free_bytes = lambda: session_module.RESERVE_BYTES + heatmap_bytes - 1
    for change in (session.change_artifact("second", None), session.comparison.run("second")):
        with pytest.raises(BadInput, match="no room left"):
            next(change)
    assert [sorted(folder.iterdir()) for folder in session.folders] == files


# Files of sessions


def test_closing_a_session_waits_for_an_event_that_uses_it(session: Session) -> None:
    with ThreadPoolExecutor(1) as pool:
        with session.lock:
            closing = pool.submit(session.close)
            time.sleep(0.2)
            assert session.parts and not closing.done()
        closing.result(10)
    assert not session.parts and not session.folders.private.exists()


def test_clearing_and_closing_remove_all_files(sessions: Sessions, parts: Path) -> None:
    content = images(parts)[0].read_bytes()
    session = sessions.get("me")
    session.add(content, "p.png")
    folders = [session.folders.private, session.folders.served]
    assert all(any(folder.iterdir()) for folder in folders)
    session.clear()
    assert not any(path for folder in folders for path in folder.iterdir()) and session.gallery.selected_part() is None
    sessions.close_session("me")
    assert not any(folder.exists() for folder in folders) and len(sessions) == 0


def test_least_recent_empty_session_is_closed_for_a_new_one(sessions: Sessions) -> None:
    sessions.settings = replace(sessions.settings, max_sessions=2)
    first, second = sessions.get("first"), sessions.get("second")
    sessions.get("first")
    sessions.get("third")
    assert first.folders.private.exists() and not second.folders.private.exists() and sessions.get("first") is first


def test_served_folder_contains_previews_only(session: Session) -> None:
    for path in session.folders.served.iterdir():
        assert path.suffix in {".jpg", ".png"}
    assert not [part for part in session.all_parts() if part.original.is_relative_to(session.folders.served)]
    from PIL import Image

    session.add(large_png(), "large.png")
    with Image.open(session.all_parts()[-1].preview) as preview:
        assert max(preview.size) == 1024


def large_png() -> bytes:
    import cv2

    _, encoded = cv2.imencode(".png", np.full((1500, 900, 3), 90, np.uint8))
    return encoded.tobytes()


# Gallery


def test_gallery_filters_sorts_and_steps(session: Session) -> None:
    scores = [part.score for part in session.gallery.filtered_parts()]
    assert scores == sorted(scores, reverse=True)
    median = scores[len(scores) // 2]
    session.set_thresholds(median, median)
    session.gallery.set_filter("NG")
    assert 0 < len(session.gallery.filtered_parts()) < len(scores) and all(
        part.score > median for part in session.gallery.filtered_parts()
    )
    session.gallery.set_order("best")
    assert [part.score for part in session.gallery.filtered_parts()] == sorted(
        part.score for part in session.gallery.filtered_parts()
    )
    session.gallery.select(session.gallery.filtered_parts()[0].number)
    session.gallery.step(1)
    assert session.gallery.selected == session.gallery.filtered_parts()[1].number
    session.gallery.step(-1)
    session.gallery.step(-1)
    assert session.gallery.selected == session.gallery.filtered_parts()[0].number
    session.gallery.set_filter("no such filter")
    assert session.gallery.filter == "all" and sum(
        session.gallery.counts()[name] for name in ("OK", "RE-INSPECT", "NG")
    ) == len(scores)
    session.gallery.select(987654)
    assert session.gallery.selected_part() is not None


def test_gallery_shows_many_parts_in_pages(session: Session) -> None:
    first = session.all_parts()[0]
    for number in range(1000, 1000 + PAGE_SIZE):
        session.parts[number] = replace(first, number=number, score=0.0)
    shown = gallery.gallery(session, address)
    assert shown.count("data-part=") == PAGE_SIZE and "1 of 2" in shown
    session.gallery.turn_page(1)
    assert gallery.gallery(session, address).count("data-part=") == len(session.parts) - PAGE_SIZE
    session.gallery.turn_page(5)
    assert session.gallery.page == 1


# HTML


def test_regions_have_the_same_numbers_in_table_and_picture(session: Session) -> None:
    part = max(session.all_parts(), key=lambda part: part.score)
    session.set_thresholds(0.3, 0.6)
    inspection = session.inspection(part)
    assert inspection.regions
    picture = viewer.viewer(part, inspection, address)
    numbers = re.findall(r"text-anchor=\"middle\">(\d+)</text>", picture)
    assert numbers == [str(n) for n in range(1, len(inspection.regions) + 1)]
    table = viewer.regions_table(inspection)
    assert re.findall(r"class=\"no\">(\d+)<", table) == numbers
    assert f"{inspection.regions[0].peak:.2f}" in table
    # The decision is also written in words, with the thresholds.
    assert f"</i>{inspection.decision}</span>" in picture and "RE-INSPECT above 0.300 · NG above 0.600" in picture


def test_outlines_change_with_the_threshold(session: Session) -> None:
    part = max(session.all_parts(), key=lambda part: part.score)
    outlines = []
    for threshold in (0.3, 0.8):
        session.set_thresholds(threshold, 1.0)
        outlines.append(
            re.findall(r'class="contour" d="([^"]*)"', viewer.viewer(part, session.inspection(part), address))[0]
        )
    assert outlines[0] and outlines[1] and outlines[0] != outlines[1]


@pytest.mark.parametrize("interrupt", ["cancel", "clear"])
def test_part_whose_inspection_is_interrupted_is_dropped(
    session: Session, parts: Path, monkeypatch: pytest.MonkeyPatch, interrupt: str
) -> None:
    def inspect_and_interrupt(*arguments: Any, **options: Any) -> Part:
        part = inspect_part(*arguments, **options)
        getattr(session, interrupt)()
        return part

    expected_parts = {} if interrupt == "clear" else dict(session.parts)
    monkeypatch.setattr(session_module, "inspect_part", inspect_and_interrupt)
    assert isinstance(session.add(images(parts)[0].read_bytes(), "late.png"), RefusedFile)
    assert session.parts == expected_parts and session.refused_files == []
    assert len(list(session.folders.private.iterdir())) == 2 * len(expected_parts)


def test_heat_layer_is_transparent_below_half_the_threshold(session: Session) -> None:
    import cv2

    part = session.all_parts()[0]
    layer, heat = cv2.imread(str(part.heat_layer), cv2.IMREAD_UNCHANGED), part.heatmap()
    assert layer.shape == (*heat.shape, 4)
    assert (layer[heat < 0.5][:, 3] == 0).all() and (layer[heat > 1.5][:, 3] == 255).all()


def test_histogram_counts_all_parts_and_shows_both_thresholds() -> None:
    thresholds = Thresholds(reinspect=0.5, reject=1.0)
    chart = histogram([0.1, 0.7, 1.5, 99.0], [0.2, 0.3], thresholds, thresholds.highest_allowed)
    assert [chart.count(f'class="{kind}"') for kind in ("ok", "re", "ng", "cal")] == [1, 1, 2, 2]
    assert ">0.50<" in chart and ">1.00<" in chart and "4 inspected parts" in chart
    assert histogram([], [], thresholds, 2.0).count("<rect") == 2
    assert Thresholds(reinspect=1, reject=3.0).highest_allowed == 6.0


# Exports and marks


def test_exports_contain_the_same_records(session: Session) -> None:
    session.add(b"no image", "=1+1.png")
    session.set_thresholds(0.5, 0.9)
    content = json.loads(exports.as_json(session))
    rows = list(csv.DictReader(io.StringIO(exports.as_csv(session))))
    assert len(rows) == len(content["parts"]) == len(session.parts) + 1
    assert [row["decision"] for row in rows] == [part["decision"] for part in content["parts"]]
    scores = [float(row["score"]) for row in rows if row["score"]]
    assert scores == sorted(scores, reverse=True) and float(rows[0]["ng_above"]) == 0.9
    # A spreadsheet must not take a file's name for a formula.
    assert rows[-1]["image"] == "'=1+1.png" and rows[-1]["error"]
    page = exports.as_html(session)
    assert page.count("<figure>") == len(session.parts) and "http" not in page and "not a readable image" in page
    with pytest.raises(UsageError, match="no export named 'exe'"):
        exports.export(session, "exe")


def test_marks_are_stored_in_a_layout_for_training(session: Session, tmp_path: Path) -> None:
    marks = MarkStore(tmp_path / "store")
    context = MarkContext(artifact="r", artifact_sha256="a", category="board", thresholds=session.thresholds, by="Ada")
    ok_part, ng_part, changed_part = session.all_parts()[:3]
    assert marks.put(ok_part, Decision.OK, context).read_bytes() == ok_part.original.read_bytes()
    marks.put(ng_part, Decision.NG, context)
    marks.put(changed_part, Decision.OK, context)
    marks.put(changed_part, Decision.NG, context)
    marks.put(changed_part, Decision.NG, context)
    samples = list_samples(tmp_path / "store" / "marked" / "board")
    assert sorted(sample.kind for sample in samples) == ["defect", "defect", "good"]
    assert {sample.category for sample in samples} == {"board"}
    marks.take_back(ng_part, context)
    assert ng_part.mark is None and len(list_samples(tmp_path / "store" / "marked" / "board")) == 2
    lines = [json.loads(line) for line in (tmp_path / "store" / "marks.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["OK", "NG", "OK", "NG", "NG", None]
    assert lines[0]["by"] == "Ada" and lines[0]["decision"] == str(session.thresholds.decide(ok_part.score))
    with pytest.raises(BadInput, match="OK or NG"):
        marks.put(ok_part, Decision.REINSPECT, context)


@pytest.mark.parametrize("second_mark", [None, Decision.NG], ids=["taken back", "corrected"])
def test_mark_of_a_former_category_or_artifact_does_not_stay_stored(
    session: Session, tmp_path: Path, second_mark: Decision | None
) -> None:
    marks, number = MarkStore(tmp_path / "store"), session.all_parts()[0].number
    context = MarkContext(artifact="r", artifact_sha256="a", category="board", thresholds=session.thresholds)
    marks.put(session.parts[number], Decision.OK, context)
    list(session.change_artifact("second", None))  # inspects the parts again
    changed, part = replace(context, artifact="second", category=None), session.parts[number]
    expected = [] if second_mark is None else [marks.put(part, second_mark, changed)]
    if second_mark is None:
        assert marks.take_back(part, changed)
    assert [path for path in (tmp_path / "store" / "marked").rglob("*") if path.is_file()] == expected
    assert part.mark is second_mark


def test_taking_a_mark_back_keeps_the_image_that_another_session_marked(session: Session, tmp_path: Path) -> None:
    context = MarkContext(artifact="r", artifact_sha256="a", category="board", thresholds=session.thresholds)
    marks, first = MarkStore(tmp_path / "store"), session.all_parts()[0]
    second, third = replace(first), replace(first)  # the same image in other sessions
    stored = marks.put(first, Decision.OK, context)
    assert marks.put(second, Decision.OK, context) == stored
    assert not marks.take_back(second, context) and stored.exists() and second.mark is None
    # Also after a restart of the Studio.
    later = MarkStore(tmp_path / "store")
    later.put(third, Decision.OK, context)
    assert not later.take_back(third, context) and stored.exists()
    journal = [json.loads(line) for line in (tmp_path / "store" / "marks.jsonl").read_text().splitlines()]
    assert journal[-1]["verdict"] is None and tmp_path / "store" / journal[-1]["file"] == stored
    assert marks.take_back(first, context) and not stored.exists()


def test_opposite_mark_of_an_image_replaces_the_one_of_another_session(session: Session, tmp_path: Path) -> None:
    context = MarkContext(artifact="r", artifact_sha256="a", category="board", thresholds=session.thresholds)
    marks, first = MarkStore(tmp_path / "store"), session.all_parts()[0]
    second, third = replace(first), replace(first)
    marks.put(first, Decision.OK, context)
    defect = marks.put(second, Decision.NG, context)
    assert [path for path in (tmp_path / "store" / "marked").rglob("*") if path.is_file()] == [defect]
    good = marks.put(third, Decision.OK, context)
    marks.take_back(first, context)
    marks.take_back(second, context)
    assert [path for path in (tmp_path / "store" / "marked").rglob("*") if path.is_file()] == [good]


def test_file_name_in_csv_is_no_formula_for_any_separator(session: Session) -> None:
    """Where the list separator is `;`, as in German, `a;=HYPERLINK(A1)` would be two cells, the second one a formula."""
    names = ["a;=HYPERLINK(A1).png", "b;+1.png", 'c";@x.png', "d; =1.png", "-2.png", "＝1.png"]
    for name in names:
        session.add(b"no image", name)
    text = exports.as_csv(session)
    for separator in (";", ",", "\t", "|"):
        for quotes in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            cells = [
                cell for line in csv.reader(io.StringIO(text), delimiter=separator, quoting=quotes) for cell in line
            ]
            assert [cell for cell in cells if cell.strip(" \"'")[:1] in tuple("=+@＝") and "'" not in cell] == []
    restored_names = [row["image"].replace("'", "") for row in csv.DictReader(io.StringIO(text)) if row["error"]]
    assert restored_names == names, "names are changed in no other way"


@pytest.mark.parametrize("by", ["\ud800", "x" * 100_000, "two\nlines", "\x1b[31m"])
def test_mark_by_an_unprintable_name_stores_no_image(session: Session, tmp_path: Path, by: str) -> None:
    marks, part = MarkStore(tmp_path / "store"), session.all_parts()[0]
    with pytest.raises(UsageError, match="at most 120 printable characters"):
        marks.put(
            part,
            Decision.NG,
            MarkContext(artifact="r", artifact_sha256="a", category="b", thresholds=session.thresholds, by=by),
        )
    assert part.mark is None and not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_failed_journal_write_keeps_the_earlier_mark(session: Session, tmp_path: Path) -> None:
    marks, part = MarkStore(tmp_path / "store"), session.all_parts()[0]
    context = MarkContext(artifact="r", artifact_sha256="a", category="board", thresholds=session.thresholds)
    before = marks.put(part, Decision.OK, context)
    (tmp_path / "store" / "marks.jsonl").unlink()
    (tmp_path / "store" / "marks.jsonl").mkdir()  # so that no line can be written
    for change in (lambda: marks.put(part, Decision.NG, context), lambda: marks.take_back(part, context)):
        with pytest.raises((OSError, EnvironmentFault)):
            change()
        assert [path for path in (tmp_path / "store" / "marked").rglob("*") if path.is_file()] == [before]
        assert part.mark is Decision.OK


def test_artifact_name_that_is_not_utf8_is_recorded_as_json(session: Session, tmp_path: Path) -> None:
    marks = MarkStore(tmp_path / "store")
    name = os.fsdecode(b"Pr\xfcfling")
    marks.put(
        session.all_parts()[0],
        Decision.NG,
        MarkContext(artifact=name, artifact_sha256="a", category=None, thresholds=session.thresholds),
    )
    assert json.loads((tmp_path / "store" / "marks.jsonl").read_bytes())["artifact"] == name


def test_marked_image_stays_in_its_folder_and_is_not_read_as_a_mask(session: Session, tmp_path: Path) -> None:
    marks = MarkStore(tmp_path / "store")
    context = MarkContext(artifact="../../x", artifact_sha256="a", category=None, thresholds=session.thresholds)
    part = replace(session.all_parts()[0], name="../../a_mask.png")
    path = marks.put(part, Decision.NG, context)
    assert path.resolve().is_relative_to((tmp_path / "store" / "marked").resolve())
    assert [sample.image for sample in list_samples(path.parents[1])] == [path]


def test_wrong_calls_follow_the_thresholds(session: Session) -> None:
    part = session.all_parts()[0]
    session.set_thresholds(part.score, part.score + 1)
    part.mark = Decision.NG
    assert part.is_wrong_call(session.thresholds) and session.gallery.counts()["wrong"] == 1
    session.set_thresholds(part.score / 4, part.score / 2)
    assert (
        not part.is_wrong_call(session.thresholds)
        and session.gallery.counts()["wrong"] == 0
        and session.gallery.counts()["marked"] == 1
    )


# Artifacts


def test_name_of_the_pooled_thresholds_is_no_category(session: Session) -> None:
    with pytest.raises(BadInput, match="no category"):
        list(session.change_artifact("r", "*"))
    assert session.category is None


def test_card_of_an_artifact_whose_file_was_moved_says_so(session: Session, tmp_path: Path) -> None:
    page = card_page(session.inspector, tmp_path / "moved.onnx")
    assert "moved or removed" in page and session.inspector.digest in page


def test_comparison_shows_parts_with_different_decisions(session: Session) -> None:
    assert list(session.comparison.run("second")) == list(range(1, len(session.parts) + 1))
    pairs = session.comparison.decisions()
    # The second artifact is a copy of the first.
    assert len(pairs) == len(session.parts) and all(first is second for _, first, second in pairs)
    assert "Both artifacts decide the same for every part." in compare.decisions_of_both(session, address)
    session.set_thresholds(0.0, 0.0)
    different = [part for part, first, second in session.comparison.decisions() if first is not second]
    shown = compare.decisions_of_both(session, address)
    assert different and shown.count("data-part=") == len(different)
    assert compare.side_by_side(session, address).count('class="stage"') == 2
    list(session.change_artifact("second", None))
    assert not session.comparison.predictions and "Choose a second artifact" in compare.decisions_of_both(
        session, address
    )


def test_change_of_artifact_inspects_again_and_keeps_marks(session: Session) -> None:
    part = session.all_parts()[0]
    part.mark = Decision.OK
    before = {part.number: (part.score, part.heat_layer) for part in session.all_parts()}
    assert len(list(session.change_artifact("second", None))) == len(before)
    after = {part.number: (part.score, part.heat_layer) for part in session.all_parts()}
    assert {n: s for n, (s, _) in after.items()} == {n: s for n, (s, _) in before.items()}
    assert not {layer for _, layer in before.values()} & {layer for _, layer in after.values()}
    assert not any(layer.exists() for _, layer in before.values()) and session.parts[part.number].mark is Decision.OK


def test_change_of_artifact_is_completed_or_undone(session: Session) -> None:
    before, artifact = session.all_parts(), session.artifact
    files = sorted(session.folders.served.iterdir()), sorted(session.folders.private.iterdir())
    session.set_thresholds(0.25, 0.5)
    for end in ("stopped", "closed", "failed"):
        change = session.change_artifact("second", None)
        next(change)
        if end == "stopped":
            session.cancel()
            with pytest.raises(UsageError, match="was stopped"):
                list(change)
        elif end == "failed":
            original = session.all_parts()[-1].original
            original.rename(original.with_suffix(".away"))
            with pytest.raises(FileNotFoundError):
                list(change)
            original.with_suffix(".away").rename(original)
        change.close()
        assert (session.artifact, session.all_parts()) == (artifact, before), end
        assert session.thresholds == Thresholds(reinspect=0.25, reject=0.5), end
        assert (sorted(session.folders.served.iterdir()), sorted(session.folders.private.iterdir())) == files, end


def test_mark_made_during_a_change_of_artifact_is_kept(session: Session) -> None:
    change = session.change_artifact("second", None)
    next(change)
    session.all_parts()[0].mark = Decision.NG
    list(change)
    assert session.artifact == "second" and session.all_parts()[0].mark is Decision.NG


def test_part_inspected_by_the_former_artifact_is_refused(
    session: Session, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact changes while a part is decoded: its score must not be compared with the new thresholds."""
    from inspect_kd.apps.studio.inspect import parts as parts_module

    decode, count = parts_module.decode_image, len(session.parts)

    def change_artifact_and_decode(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(parts_module, "decode_image", decode)
        list(session.change_artifact("second", None))
        return decode(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(parts_module, "decode_image", change_artifact_and_decode)
    answer = session.add(images(parts)[0].read_bytes(), "late.png")
    assert isinstance(answer, RefusedFile) and "send it again" in answer.reason and len(session.parts) == count


def test_library_opens_names_and_no_paths(settings: Settings, run: Path) -> None:
    library = ArtifactLibrary([*settings.artifacts, run / ".." / "r" / "r.onnx"])
    assert library.names == ["r", "second"]
    assert library.open("second") is library.open("second") and library.open(None) is library.open("r")
    for name in ("../r/r.onnx", str(run / "r.onnx"), "nothing"):
        with pytest.raises(BadInput, match="no artifact named"):
            library.open(name)


def test_artifacts_of_the_same_name_get_different_names(tmp_path: Path) -> None:
    library = ArtifactLibrary(
        [tmp_path / "a" / "part.onnx", tmp_path / "b" / "part.onnx", tmp_path / "c" / "b" / "part.onnx"]
    )
    assert library.names == ["part", "part (b)", "part (b) 2"]


def test_artifacts_of_runs_are_found_newest_first(run: Path, tmp_path: Path) -> None:
    older, newer, other = (
        tmp_path / name for name in ("older/older.onnx", "demo/newer/newer.onnx", "newer/other.onnx")
    )
    for age, path in enumerate((newer, older, other)):
        path.parent.mkdir(parents=True)
        shutil.copy(run / "r.onnx", path)
        os.utime(path, (10**9 - age, 10**9 - age))
    assert find_artifacts(tmp_path) == [newer, older]
    assert find_artifacts(tmp_path / "older") == [] and find_examples(tmp_path / "r" / "r.onnx") is None


def test_parts_of_the_demo_are_offered_as_examples(parts: Path) -> None:
    found = find_examples(parts.parent / "parts" / "parts.onnx")
    assert found == parts and len(example_images(parts, per_kind=1)) == len(list(parts.glob("*/test/*")))


def test_card_shows_categories_licences_versions_and_digest(session: Session, settings: Settings) -> None:
    page = card_page(session.inspector, settings.artifacts[0])
    card = session.inspector.card
    for text in (*card.categories, *card.licences, *card.versions, session.inspector.digest, "not signed"):
        assert text in page
    assert "decisions that flipped" in page and card.calibration.limits["*"].describe()[:40] in page


# Start


def test_studio_needs_no_torch(run: Path, parts: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfor name in ('torch', 'timm', 'lightning'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from inspect_kd.apps.studio.inspect import gallery\nfrom inspect_kd.apps.studio.sessions import Sessions\n"
        "from inspect_kd.apps.studio.settings import Settings\nfrom inspect_kd.apps.studio.artifact.library import ArtifactLibrary\n"
        "artifact, image, folder = map(Path, sys.argv[1:])\n"
        "settings = Settings(artifacts=(artifact,), store=folder)\n"
        "sessions = Sessions(ArtifactLibrary(settings.artifacts), settings, folder / 'shown')\n"
        "session = sessions.get('x'); session.add(image.read_bytes(), image.name)\n"
        "print(len(gallery.gallery(session, str)) > 300, 'gradio' in sys.modules); sessions.close()"
    )
    words = [sys.executable, "-c", program, str(run / "r.onnx"), str(images(parts)[0]), str(tmp_path)]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.stdout.split() == ["True", "False"], answer.stderr


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--runs", "none"), 3, "inspect-kd demo"),
        (("missing.onnx",), 3, "missing.onnx"),
        (("--host", "0.0.0.0"), 2, "--auth NAME:PASSWORD"),
        (("--auth", "nobody"), 2, "--auth needs NAME:PASSWORD"),
    ],
)
def test_start_is_refused_in_one_line(words: tuple[str, ...], code: int, reason: str, tmp_path: Path) -> None:
    need("gradio", find_spec("gradio") is not None)
    answer = subprocess.run(
        [sys.executable, "-m", "inspect_kd", "ui", *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert answer.returncode == code and reason in answer.stderr and "Traceback" not in answer.stderr, answer.stderr


def test_missing_gradio_names_the_extra_to_install(tmp_path: Path) -> None:
    program = (
        "import sys, importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'gradio' else find(name, *a)\n"
        "sys.argv = ['inspect-kd', 'ui']\nfrom inspect_kd.cli import main\nmain()"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 4 and "pip install 'inspect-kd[ui,cpu]'" in answer.stderr
