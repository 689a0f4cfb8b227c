"""How the report, the command line and the Studio show alignment and tiles, on one complete run."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
from inspect_kd.apps.studio.artifact.view import card_page
from inspect_kd.apps.studio.compare import view as compare
from inspect_kd.apps.studio.inspect import exports, gallery, viewer
from inspect_kd.apps.studio.inspect.parts import Part
from inspect_kd.apps.studio.session import Session
from inspect_kd.apps.studio.sessions import Sessions
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.inspector import Inspector
from inspect_kd.types import Decision
from tests.tiny import command
from tests.turned_tree import draw_turned_parts

CUT_OFF = "the part is cut off by the picture's border"
NOT_FOUND_SCORE = "1000000"
"""The score of a part that was not found: tables and JSON contain it, and pages never show it."""


@pytest.fixture(scope="module")
def turned_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_turned_parts(tmp_path_factory.mktemp("turned") / "parts")


@pytest.fixture(scope="module")
def aligned_run(turned_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    result = subprocess.run(command(turned_parts, out), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return out / "r"


def run_program(*arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "inspect_kd", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_run_counts_parts_that_were_not_found(aligned_run: Path) -> None:
    manifest = json.loads((aligned_run / "run.json").read_text())
    assert manifest["not_found"] == {"bracket": {"sound": 1, "defective": 2}, "strip": {"sound": 0, "defective": 0}}
    assert [manifest["presentations"][name][key] for name, key in (("bracket", "align"), ("strip", "tile"))] == [
        "silhouette",
        64,
    ]


def test_report_shows_alignment_tiles_and_reasons(aligned_run: Path) -> None:
    page = (aligned_run / "report.html").read_text()
    section = page[page.index("How the parts are presented") : page.index("What the thresholds promise")]
    for text in ("silhouette", "tiles of 64 pixels", "likeness of", "1 sound, 2 defective"):
        assert text in section
    assert section.count("as the model sees it") == 6 and section.count("as photographed") == 7
    assert NOT_FOUND_SCORE not in page and CUT_OFF.replace("'", "&#x27;") in page
    scores = json.loads((aligned_run / "report.json").read_text())["scores"]
    assert {row["image"]: row["cause"] for row in scores if "cause" in row and row["kind"] == "good"} == {
        "005.png": "not_found"
    }


def test_eval_lists_parts_that_were_not_found(aligned_run: Path, turned_parts: Path) -> None:
    table = " ".join(run_program("eval", aligned_run, "--data", turned_parts).split())
    assert "of these not found" in table and "agrees with the reference by" in table and NOT_FOUND_SCORE not in table
    figures = json.loads(run_program("eval", aligned_run, "--data", turned_parts, "--json"))
    assert figures["not_found"]["bracket"] == {"sound": 1, "defective": 2}


def test_predict_prints_the_cause_and_outlines_the_frame(aligned_run: Path, turned_parts: Path, tmp_path: Path) -> None:
    folder = turned_parts / "bracket/test/good"
    lines = run_program("predict", aligned_run, folder, "--category", "bracket", "--overlays", tmp_path).splitlines()
    records = [json.loads(line) for line in lines]
    assert [(record["decision"], record["cause"], record["explanation"]) for record in records[5:]] == [
        ("NG", "not_found", CUT_OFF)
    ]
    assert not any("cause" in record for record in records[:5])
    inspection = Inspector(aligned_run / "r.onnx", category="bracket", quarantine=False)(folder / "000.png")
    assert inspection.frame is not None
    (x, y), *_ = inspection.frame
    red, green, blue = (int(value) for value in cv2.imread(str(tmp_path / "000.jpg"))[round(y), round(x)][::-1])
    assert blue > green > red, "the corner of the frame has the outline's colour"


def test_label_next_prints_the_cause(aligned_run: Path, turned_parts: Path) -> None:
    arguments = ("label-next", aligned_run, turned_parts / "bracket/test/broken", "--category", "bracket")
    records = [json.loads(line) for line in run_program(*arguments).splitlines()]
    assert [record["cause"] for record in records] == ["not_found"] * 2
    assert all(record["explanation"].startswith("agrees with the reference by") for record in records)


def test_bench_latency_measures_alignment_separately(aligned_run: Path, turned_parts: Path) -> None:
    image = turned_parts / "bracket/test/good/000.png"
    arguments = ("bench-latency", aligned_run, "--batches", "1", "--rounds", "2", "--json")
    rows = json.loads(run_program(*arguments, "--image", image))["artifacts"][str(aligned_run / "r.onnx")]
    assert list(rows) == [
        "1",
        "alignment of bracket, 128x128",
        "1, from an image of bracket",
        "1, from an image of strip",
    ]
    alignment, whole = rows["alignment of bracket, 128x128"], rows["1, from an image of bracket"]
    assert 0 < alignment["cpu_ms"] < whole["cpu_ms"]


@pytest.fixture
def session(aligned_run: Path, turned_parts: Path, tmp_path: Path) -> Iterator[Session]:
    """A session with all brackets of the test split, inspected as brackets."""
    second = tmp_path / "second.onnx"
    second.write_bytes((aligned_run / "r.onnx").read_bytes())
    settings = Settings(artifacts=(aligned_run / "r.onnx", second), store=tmp_path / "store")
    sessions = Sessions(ArtifactLibrary(settings.artifacts), settings, tmp_path / "shown")
    session = sessions.get("me")
    for path in sorted(turned_parts.glob("bracket/test/*/*.png")):
        assert isinstance(session.add(path.read_bytes(), f"{path.parent.name}-{path.name}"), Part)
    list(session.change_artifact("r", "bracket"))
    yield session
    sessions.close()


def part_named(session: Session, name: str) -> Part:
    return next(part for part in session.all_parts() if part.name == name)


def test_change_of_category_inspects_again_where_categories_are_presented_differently(
    session: Session, aligned_run: Path, turned_parts: Path
) -> None:
    inspector = Inspector(aligned_run / "r.onnx", category="bracket", quarantine=False)
    for name in ("broken-000.png", "good-000.png", "good-005.png"):
        kind, file = name.split("-")
        expected, actual = (
            inspector(turned_parts / "bracket/test" / kind / file),
            session.inspection(part_named(session, name)),
        )
        assert (actual.score, actual.cause, actual.explanation, actual.frame, actual.regions) == (
            expected.score,
            expected.cause,
            expected.explanation,
            expected.frame,
            expected.regions,
        )
    list(session.change_artifact("r", None))
    assert part_named(session, "good-000.png").location.category == "bracket", "the category is recognised"


def test_studio_shows_the_reason_but_no_score_of_a_part_that_was_not_found(session: Session) -> None:
    part = part_named(session, "good-005.png")
    inspection = session.inspection(part)
    page = viewer.viewer(part, inspection, lambda path: path.name)
    assert "not found" in page and CUT_OFF.replace("'", "&#x27;") in page and '<polygon class="frame"' in page
    for _ in session.comparison.run("second"):
        pass
    session.gallery.select(part.number)
    session.set_thresholds(0.1, 0.2)
    panels = gallery.gallery(session, lambda path: path.name) + gallery.scores_panel(session)
    comparison = compare.side_by_side(session, lambda path: path.name) + compare.decisions_of_both(
        session, lambda path: path.name
    )
    assert "not found" in panels and "Not found, NG under any thresholds: 3 inspected" in panels
    assert comparison.count("not found") >= 2
    assert NOT_FOUND_SCORE not in page + panels + comparison + exports.as_html(session)


def test_exports_keep_the_score_and_add_the_cause(session: Session) -> None:
    rows = {row["image"]: row for row in csv.DictReader(io.StringIO(exports.as_csv(session)))}
    missed, found = rows["good-005.png"], rows["good-000.png"]
    assert (missed["score"], missed["cause"], missed["explanation"]) == (f"{NOT_FOUND_SCORE}.0", "not_found", CUT_OFF)
    assert (found["cause"], found["explanation"]) == ("", "")
    content = json.loads(exports.as_json(session))
    assert content["what_if"]["not_found"]["shown"] == 3
    assert [part["cause"] for part in content["parts"][:3]] == ["not_found"] * 3


def test_no_thresholds_accept_a_part_that_was_not_found(session: Session) -> None:
    highest = session.default_thresholds.highest_allowed
    session.set_thresholds(highest, highest)
    assert session.inspection(part_named(session, "broken-000.png")).decision is Decision.NG


def test_card_shows_alignment_and_tiles(session: Session, aligned_run: Path) -> None:
    page = card_page(session.inspector, aligned_run / "r.onnx")
    assert "How the parts are presented" in page and page.count("data:image/png;base64,") == 1
    for text in ("silhouette", "tiles of 64 px", "in tiles of 64", "likeness of"):
        assert text in page
