"""The Zones tab: what is drawn in a real browser is what `--zones` reads; what may not be seen or drawn is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspect_kd.apps.studio.zones import drawn_zones
from inspect_kd.apps.studio.zones.export import export_with_zones
from inspect_kd.apps.studio.zones.median_part import median, zones_of
from inspect_kd.apps.studio.zones.service import ZoneService
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.datasets.view import View
from inspect_kd.datasets.zones import Zone, Zones
from inspect_kd.datasets.zones_file import read_zones_file
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.inspector import Inspector
from tests.studio_server import Server, chromium, need, open_studio, studio
from tests.test_studio_browser import wait_for
from tests.test_studio_http import JSON, ask

HOSTILE = "<img src=x onerror=\"document.title='hit'\"> {{7*7}} ${1} 'é: #"
FRAMES = {"board": {"frame": [64, 48], "aligned": False}, "metal": {"frame": [32, 32], "aligned": True}}
SQUARE = [[2, 3], [20, 3], [20, 20], [2, 20]]
CROSSING = [[2, 3], [20, 20], [20, 3], [2, 20]]


def zone(polygon: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": "label", "ignore": True, "polygon": polygon, **more}


def yaml_of(*zones: dict[str, Any]) -> str:
    return drawn_zones.write_yaml(drawn_zones.parse_drawing(json.dumps(zones)))


# Without a server


def test_drawing_becomes_the_file_that_training_reads(tmp_path: Path) -> None:
    drawn = [
        zone(SQUARE, name=HOSTILE),
        {"name": "seal", "tolerance": 0.05, "category": "metal", "polygon": [[0.5, 0], [9, 0], [9, 9.25]]},
    ]
    (tmp_path / "zones.yaml").write_text(yaml_of(*drawn))
    file = read_zones_file(tmp_path / "zones.yaml", list(FRAMES))
    assert [dict(each) for each in file.zones] == drawn
    board, metal = (file.draw(name, {tuple(each["frame"])}, aligned=False) for name, each in FRAMES.items())
    assert board is not None and [each.name for each in board.zones] == [HOSTILE]
    assert metal is not None and [each.tolerance for each in metal.zones] == [None, 0.05]
    # And back into the page.
    again = drawn_zones.read_yaml((tmp_path / "zones.yaml").read_text(), FRAMES)
    assert [each["name"] for each in again] == [HOSTILE, "seal"]
    assert [[list(point) for point in each["polygon"]] for each in again] == [each["polygon"] for each in drawn]


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        ([zone(CROSSING)], "zone 'label': its outline crosses itself"),
        ([zone([[2, 3], [70, 3], [20, 20]])], r"the point \[70, 3\] lies outside the frame of 64x48 pixels"),
        ([zone([[0, 0], [32, 0], [32, 32], [0, 32]], category="metal")], "the zones ignore the whole frame"),
        ([zone(SQUARE), zone(SQUARE)], "two zones are called 'label'"),
        ([zone(SQUARE, ignore=False, tolerance=9)], "tolerance 9.* is not a number from 0.05 to 4"),
        ([zone(SQUARE, category="nut")], "no category 'nut' in the data"),
        ([zone(SQUARE, name="")], "give each zone a `name`"),
        ([zone([[2, 3], [2, 3], [2, 3]])], "its polygon has no area"),
    ],
)
def test_bad_zones_are_refused_in_one_line_that_names_the_file(zones: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadInput, match=f"^zones.yaml: .*{message}") as refusal:
        drawn_zones.check_yaml(yaml_of(*zones), FRAMES)
    assert "\n" not in str(refusal.value) and "/" not in str(refusal.value).replace("zones.yaml", "")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "7", "[7]", '[{"name": "a"}]', "[" * 5000, '[{"name": "a", "polygon": [[1, 2, 3]]}]'),
        '[{"name": "a", "polygon": [[NaN, 1]]}]',
        json.dumps([zone(SQUARE, more="x")]),
        json.dumps([zone(SQUARE)] * 20_000),
    ],
)
def test_anything_else_than_a_drawing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        drawn_zones.parse_drawing(text)


def test_zones_that_all_categories_have_are_listed_once() -> None:
    shared, own = Zone("label", ((1, 1), (9, 1), (9, 9))), Zone("seal", ((1, 1), (9, 1), (9, 9)), 0.5)
    view = View(size=64)
    presentations = Presentations(
        by_category={
            "board": Presentation(view=view, zones=Zones(frame=(20, 20), zones=(shared, own))),
            "metal": Presentation(view=view, zones=Zones(frame=(20, 20), zones=(shared,))),
        }
    )
    assert zones_of(presentations, ["board", "metal"]) == [shared.to_json(), own.to_json() | {"category": "board"}]


def test_median_shows_what_most_parts_share() -> None:
    pictures = [np.full((150, 20, 3), 90, np.uint8) for _ in range(5)]
    pictures[1][10:20], pictures[3][5:140] = 255, 0
    assert (median(pictures) == 90).all()


# Runs


@pytest.fixture(scope="module")
def runs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one finished run."""
    folder = tmp_path_factory.mktemp("zones") / "runs"
    shutil.copytree(run, folder / "r")
    return folder


def test_run_shows_images_of_the_data_folder_only(runs: Path, parts: Path, tmp_path: Path) -> None:
    service = ZoneService(parts, runs, tmp_path)
    assert service.finished_runs() == ["r"]
    described = service.describe("r", "metal")
    assert described.category == "metal" and list(described.frames) == ["board", "bottle", "fabric", "metal"]
    assert described.picture.startswith("data:image/webp;base64,") and described.parts > 3
    assert "--zones zones.yaml --output r-zones.onnx" in service.commands(described)[0]
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(BadInput, match="not below the Studio's data folder") as refusal:
        ZoneService(tmp_path / "elsewhere", runs, tmp_path).describe("r", "metal")
    assert str(parts) not in str(refusal.value)
    for name, message in (("../r", "cannot name a run"), ("", "choose a run first"), ("x", "no finished run")):
        with pytest.raises(InspectKDError, match=message):
            service.describe(name, "")


def test_link_in_the_data_folder_shows_nothing_from_outside(runs: Path, parts: Path, tmp_path: Path) -> None:
    """The run names a folder below the data folder, whose images are links to others."""
    root, changed = tmp_path / "root", tmp_path / "runs" / "r"
    shutil.copytree(parts, root / "sample", copy_function=lambda source, to: Path(to).symlink_to(source))
    shutil.copytree(runs / "r", changed)
    manifest = json.loads((changed / "run.json").read_text())
    manifest["data"]["source"] = str(root / "sample")
    (changed / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="links out of it are refused"):
        ZoneService(root, tmp_path / "runs", tmp_path).describe("r", "metal")


def test_images_of_different_sizes_have_no_place_for_zones(runs: Path, parts: Path, tmp_path: Path) -> None:
    root, changed = tmp_path / "root", tmp_path / "runs" / "r"
    shutil.copytree(parts, root / "sample")
    for path in sorted((root / "sample" / "fabric" / "train" / "good").glob("*.png"))[::2]:
        cv2.imwrite(str(path), np.full((40, 50, 3), 90, np.uint8))
    shutil.copytree(runs / "r", changed)
    manifest = json.loads((changed / "run.json").read_text())
    manifest["data"]["source"] = str(root / "sample")
    (changed / "run.json").write_text(json.dumps(manifest))
    presentation = json.loads((changed / "presentation.json").read_text())
    assert presentation["fabric"]["alignment"] is None
    service = ZoneService(root, tmp_path / "runs", tmp_path)
    with pytest.raises(BadInput, match=r"“fabric” have different sizes \(50x40, 64x64\), so zones have no fixed place"):
        service.describe("r", "fabric")
    assert service.describe("r", "board").parts > 3  # the others can be drawn on


@pytest.mark.parametrize("phase", ["", "export", "prove"])
def test_export_that_is_stopped_in_any_phase_leaves_nothing(runs: Path, tmp_path: Path, phase: str) -> None:
    """An export that is killed would leave its unfinished artifact, and one that is stopped late would leave a finished one."""
    text = "zones:\n  - {name: label, ignore: true, polygon: [[1, 1], [9, 1], [9, 9]]}\n"
    export = export_with_zones(runs / "r", text, tmp_path)
    assert any(step.phase == phase for step in export)
    export.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


# In a browser


@pytest.fixture(scope="module")
def server(runs: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    with studio(runs / "r" / "r.onnx", "--runs", runs, "--train-on", parts.parent, folder=folder) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The Zones tab in a new page; requests to other hosts and script errors fail the test."""
    with open_studio(browser, server.address, timeout_s=90) as page:
        page.get_by_role("tab", name="Zones").click()
        yield page


def open_run(page: Any) -> None:
    """Choose the run by keys."""
    page.locator("#zones-run input").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".zones-canvas svg")


def click_at(page: Any, x: float, y: float) -> None:
    """Click at a place of the frame of 64 x 64 pixels."""
    box = page.locator(".zones-canvas svg").bounding_box()
    page.mouse.click(box["x"] + x / 64 * box["width"], box["y"] + y / 64 * box["height"])


def polygons(page: Any) -> list[str]:
    return page.locator(".zones-canvas .zone .outline").evaluate_all("all => all.map(e => e.getAttribute('points'))")


def checked(page: Any) -> str:
    return str(page.locator(".zones-check").inner_text())


def row(page: Any, n: int, field: str) -> Any:
    return page.locator(f".zones-list > li:nth-child({n}) [data-field={field}]")


def test_drawn_zones_are_downloaded_loaded_and_make_an_artifact(
    page: Any, server: Server, runs: Path, parts: Path, tmp_path: Path
) -> None:
    open_run(page)
    for corner in ((8, 8), (24, 8), (24, 24), (8, 24)):
        click_at(page, *corner)
    assert page.locator(".zones-canvas .corner.draft").count() == 4
    page.keyboard.press("Backspace")
    assert page.locator(".zones-canvas .corner.draft").count() == 3
    page.keyboard.press("Control+z")
    assert page.locator(".zones-canvas .corner.draft").count() == 4
    click_at(page, 8, 8)  # on the first corner: closes
    assert polygons(page) == ["8,8 24,8 24,24 8,24"]
    page.keyboard.press("Control+z")
    assert polygons(page) == [] and page.locator(".zones-canvas .corner.draft").count() == 4
    page.keyboard.press("Control+Shift+z")
    assert polygons(page) == ["8,8 24,8 24,24 8,24"]
    row(page, 1, "name").fill(HOSTILE)

    for corner in ((40, 40), (60, 40), (60, 60)):
        click_at(page, *corner)
    page.keyboard.press("Enter")
    row(page, 2, "name").fill("seal")
    row(page, 2, "rule").select_option("tolerance")
    row(page, 2, "factor").fill("0.25")
    row(page, 2, "scope").select_option("everywhere")
    assert page.locator(".zones-canvas text").nth(1).text_content() == "2 · ×0.25"
    wait_for(lambda: "seal tolerance 0.25" in checked(page))
    assert checked(page).startswith(f"zones: {HOSTILE} ignored, ") and page.title() == "inspect-kd Studio"

    with page.expect_download() as download:
        page.click("[data-do=save]")
    saved = tmp_path / "zones.yaml"
    shutil.copy(download.value.path(), saved)
    assert download.value.suggested_filename == "zones.yaml"
    file = read_zones_file(saved, ["board", "bottle", "fabric", "metal"])
    assert [dict(each) for each in file.zones] == [
        zone([[8, 8], [24, 8], [24, 24], [8, 24]], name=HOSTILE, category="board"),
        {"name": "seal", "tolerance": 0.25, "polygon": [[40, 40], [60, 40], [60, 60]]},
    ]

    for _ in range(2):
        row(page, 1, "remove").click()
    assert polygons(page) == []
    page.set_input_files(".zones input[type=file]", str(saved))
    wait_for(lambda: polygons(page) == ["8,8 24,8 24,24 8,24", "40,40 60,40 60,60"])
    assert row(page, 1, "name").input_value() == HOSTILE

    before = {path.name: path.read_bytes() for path in (runs / "r").iterdir() if path.is_file()}
    page.click("[data-do=make]")
    page.locator("#zones-made .good").wait_for(timeout=300_000)
    artifact = server.store / "zones" / "r-zones-1.onnx"
    assert "zones/r-zones-1.onnx" in page.locator("#zones-made").inner_text()
    assert {path.name: path.read_bytes() for path in (runs / "r").iterdir() if path.is_file()} == before
    inspector = Inspector(artifact, category="board", quarantine=False)
    assert [each.name for each in inspector.presentations.of("board").zones.zones] == [HOSTILE, "seal"]  # type: ignore[union-attr]
    assert [each.name for each in inspector.presentations.of("metal").zones.zones] == ["seal"]  # type: ignore[union-attr]
    image = read_image(sorted((parts / "board" / "test" / "good").glob("*.png"))[0])
    if inspector.presentations.of("board").alignment is None:
        hidden = image.copy()
        hidden[10:22, 10:22] = (255, 0, 255)
        assert inspector(hidden).score == inspector(image).score


def test_everything_can_be_done_by_keys(page: Any) -> None:
    open_run(page)
    for _ in range(12):
        if page.evaluate("document.activeElement.matches('.zones-canvas')"):
            break
        page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert page.evaluate("document.activeElement.matches('.zones-canvas')") and "solid 3px" in outline
    page.keyboard.press("n")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")  # at 32, 31
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    assert "at least 3 corners" in page.locator(".zones-note").inner_text() and polygons(page) == []
    page.keyboard.press("Control+ArrowDown")  # stays inside the frame
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    assert polygons(page) == ["32,31 42,31 42,64"]
    assert page.locator(".zones-where").inner_text() == "zone 1 is closed"
    page.keyboard.press("c")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+c")
    page.keyboard.press("Shift+ArrowUp")
    assert polygons(page) == ["31,31 42,31 42,54"]
    assert page.locator(".zones-where").inner_text() == "Corner 3 of zone 1 at 42, 54"
    # An abandoned zone leaves nothing; both can be undone.
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    assert page.locator(".zones-canvas .corner.draft").count() == 0 and len(polygons(page)) == 1

    for _ in range(12):
        if page.evaluate("document.activeElement.dataset.field === 'name'"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("seal")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")  # tolerance
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    wait_for(lambda: checked(page).startswith("zones: seal tolerance 0.55; "))
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Delete")
    assert polygons(page) == []
    page.locator(".zones-canvas").focus()
    page.keyboard.press("Control+z")
    assert polygons(page) == ["31,31 42,31 42,54"] and row(page, 1, "name").input_value() == "seal"


def test_crossing_zone_is_refused_in_one_line(page: Any) -> None:
    open_run(page)
    for corner in ((8, 8), (24, 24), (24, 8), (8, 24)):
        click_at(page, *corner)
    page.click("[data-do=save]")
    assert "Close the zone" in page.locator(".zones-note").inner_text()
    page.click("[data-do=close]")
    expected = "zones.yaml: zone 'zone 1': its outline crosses itself; list the corners in their order around the zone"
    wait_for(lambda: checked(page) == expected)
    for button in ("save", "make"):
        page.click(f"[data-do={button}]")
        wait_for(lambda: page.locator(".zones-note").inner_text() == expected)
        page.locator(".zones-canvas").press("n")  # any change clears the line
        page.locator(".zones-canvas").press("Control+z")
        assert page.locator(".zones-note").inner_text() == ""
    # A dragged corner mends it.
    box = page.locator(".zones-canvas svg").bounding_box()
    page.mouse.move(box["x"] + 24 / 64 * box["width"], box["y"] + 24 / 64 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 30 / 64 * box["width"], box["y"] + 4 / 64 * box["height"], steps=4)
    page.mouse.up()
    assert polygons(page) == ["8,8 30,4 24,8 8,24"]
    wait_for(lambda: checked(page).startswith("zones: zone 1 ignored; "))
    page.locator(".zones-canvas").press("Control+z")  # the whole drag at once
    assert polygons(page) == ["8,8 24,24 24,8 8,24"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_zones_tab_is_accessible_and_fits(page: Any, server: Server, theme: str) -> None:
    need("axe-playwright-python", find_spec("axe_playwright_python") is not None)
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": 900, "height": 800})
    page.goto(f"{server.address}/?__theme={theme}")
    page.wait_for_selector("#viewer .empty")
    page.get_by_role("tab", name="Zones").click()
    open_run(page)
    for corner in ((8, 8), (24, 8), (24, 24)):
        click_at(page, *corner)
    page.keyboard.press("Enter")
    row(page, 1, "rule").select_option("tolerance")
    wait_for(lambda: "tolerance 0.5" in checked(page))
    violations = [each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")]
    assert violations == [], json.dumps([(each["id"], each["nodes"][0]["html"][:200]) for each in violations], indent=1)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


# Over HTTP


def test_named_endpoints_check_zones_and_refuse_foreign_runs(server: Server) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(server.address, verbose=False)
    try:
        assert client.predict(api_name="/zones_runs") == ["r"]
        found = client.predict("r", "metal", api_name="/zones_frame")
        assert found["category"] == "metal" and max(found["frame"]) <= 64 and found["zones"] == []
        lines = client.predict("r", yaml_of(zone(SQUARE)), api_name="/zones_check")
        assert len(lines) == 4 and lines[0].startswith("board: zones: label ignored; ")
        with pytest.raises(AppError, match=r"zones\.yaml: zone 'label': its outline crosses itself"):
            client.predict("r", yaml_of(zone(CROSSING)), api_name="/zones_export")
        for call in ("/zones_check", "/zones_export"):
            with pytest.raises(AppError, match="cannot name a run"):
                client.predict("../r", yaml_of(zone(SQUARE)), api_name=call)
    finally:
        client.close()


def test_zones_need_a_login_where_there_are_passwords(runs: Path, parts: Path, tmp_path: Path) -> None:
    words = (runs / "r" / "r.onnx", "--runs", runs.parent / "other", "--train-on", parts.parent)
    body = json.dumps({"data": ["r", yaml_of(zone(SQUARE))], "session_hash": "s"}).encode()
    with studio(*words, folder=tmp_path, INSPECT_KD_AUTH="ada:secret") as locked:
        for name in ("zones_runs", "zones_frame", "zones_check", "zones_export"):
            assert ask(locked, "POST", f"/gradio_api/call/{name}", body, **JSON).status == 401
        assert ask(locked, "GET", "/config").status == 401
        assert not (locked.store / "zones").exists()
