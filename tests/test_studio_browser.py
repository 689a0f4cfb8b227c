"""The Studio in a real browser: the work of an operator, step by step."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspect_kd.datasets import list_samples
from inspect_kd.sign_off import read_sign_off
from tests.studio_server import Server, artifact_and_images, chromium, need, open_studio, studio, twin

FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def server(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    artifact, _ = artifact_and_images(run, parts)
    with studio(artifact, twin(artifact, folder), "--max-upload", "1", folder=folder) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*FAKE_CAMERA) as browser:
        yield browser


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """A new tab; requests to other hosts and script errors fail the test."""
    with open_studio(browser, server.address, permissions=["camera"]) as page:
        yield page


@pytest.fixture
def images(run: Path, parts: Path) -> list[Path]:
    return artifact_and_images(run, parts)[1]


def upload(page: Any, *paths: Path, expect: int | None = None) -> None:
    page.set_input_files("#drop input[type=file]", [str(path) for path in paths])
    wait_for(lambda: count(page, "all") == (len(paths) if expect is None else expect))
    page.wait_for_selector("#progress .progress", state="hidden")


def count(page: Any, name: str) -> int:
    """The number that a filter of the gallery shows; 0 before there are filters."""
    chip = page.locator(f"[data-filter='{name}'] b")
    return int(chip.inner_text()) if chip.count() else 0


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def set_slider(page: Any, slider: str, value: float) -> None:
    """Set a slider by its number field."""
    field = page.locator(f"#{slider} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def scores(page: Any) -> list[float]:
    return [float(text) for text in page.locator("#gallery .card .row b").all_inner_texts()]


def test_operator_uploads_sets_thresholds_filters_and_downloads(page: Any, images: list[Path], tmp_path: Path) -> None:
    text_file, broken_image = tmp_path / "notes.txt", tmp_path / "broken.png"
    text_file.write_text("no image")
    broken_image.write_bytes(images[0].read_bytes()[:200])
    upload(page, *images, text_file, broken_image, expect=8)
    refused = page.locator(".refused").inner_text()
    assert "2 files were not inspected" in refused and "notes.txt" in refused and "broken.png" in refused
    shown_scores = scores(page)
    assert shown_scores == sorted(shown_scores, reverse=True) and len(shown_scores) == 8
    # Cards show two decimals: in the widest gap between scores, rounding moves no score across the threshold.
    low, high = max(pairwise(reversed(shown_scores)), key=lambda pair: pair[1] - pair[0])
    assert high - low > 0.02
    threshold = round((low + high) / 2, 3)
    set_slider(page, "reinspect", threshold)
    set_slider(page, "reject", threshold)
    wait_for(lambda: count(page, "NG") == sum(score > threshold for score in shown_scores))
    wait_for(lambda: f"NG above {threshold:.3f}" in page.locator("#viewer .banner").inner_text())
    page.click("[data-filter=NG]")
    wait_for(lambda: len(scores(page)) == count(page, "NG"))
    assert page.locator("#gallery .card .verdict").all_inner_texts() == ["✕\nNG"] * count(page, "NG")
    with page.expect_download() as download:
        page.click("#download-csv")
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert len(rows) == 10 and sum(row["decision"] == "NG" for row in rows) == count(page, "NG") + 2
    with page.expect_download() as download:
        page.click("#download-html")
    saved = tmp_path / "page.html"
    shutil.copy(download.value.path(), saved)
    saved_page = page.context.new_page()
    saved_page.goto(saved.as_uri())
    assert saved_page.locator("figure img").count() == 8


def test_dragged_slider_ends_where_it_was_released(page: Any, images: list[Path]) -> None:
    """A drag sends many changes at once; the last one must win."""
    upload(page, *images[:3])
    track = page.locator("#reject input[type=range]")
    box = track.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(30):
        page.mouse.move(box["x"] + (0.5 - 0.013 * step) * box["width"], box["y"] + box["height"] / 2)
    page.mouse.up()
    value = float(page.locator("#reject input[type=number]").input_value())
    assert 0.05 < value < 0.6
    wait_for(lambda: f"NG above {value:.3f}" in page.locator("#viewer .banner").inner_text())


def test_sliders_do_not_undo_each_other(page: Any, images: list[Path]) -> None:
    """The request of the first slider is delayed until the second has been moved."""
    upload(page, *images[:3])
    delayed_requests: list[Any] = []
    page.route(
        "**/queue/join*", lambda route: route.continue_() if delayed_requests else delayed_requests.append(route)
    )
    set_slider(page, "reinspect", 0.0)
    wait_for(lambda: page.locator("#viewer").count() == 1 and bool(delayed_requests))
    set_slider(page, "reject", 0.0)
    page.wait_for_timeout(1000)
    delayed_requests[0].continue_()
    page.wait_for_timeout(1000)
    wait_for(lambda: count(page, "NG") == 3, seconds=30)
    assert "NG above 0.000" in page.locator("#viewer .banner").inner_text()


def test_keys_mark_parts_and_a_sign_off_needs_a_name(page: Any, server: Server, images: list[Path]) -> None:
    upload(page, *images[:4])
    page.locator("#gallery .card").first.click()
    wait_for(lambda: page.locator("#gallery .card").first.get_attribute("aria-pressed") == "true")
    page.keyboard.press("o")
    page.wait_for_selector("#viewer .marked")
    page.keyboard.press("j")
    wait_for(lambda: page.locator("#gallery .card").nth(1).get_attribute("aria-pressed") == "true")
    page.keyboard.press("n")
    wait_for(lambda: count(page, "marked") == 2)
    (folder,) = (server.store / "marked").iterdir()
    kinds = [sample.kind for sample in list_samples(folder)]
    assert sorted(kinds) == ["defect", "good"]
    # Giving the same mark again removes it.
    page.keyboard.press("n")
    wait_for(lambda: count(page, "marked") == 1)
    page.click("#sign-off button")
    page.click("#sign")
    assert "a person's name" in page.locator("#signed .bad").inner_text()
    assert not (server.store / "calibrations").exists()
    set_slider(page, "reject", 1.234)
    wait_for(lambda: "NG above 1.234" in page.locator("#viewer .banner").inner_text())
    page.fill("#signer input, #signer textarea", "Ada Lovelace")
    page.click("#sign")
    page.wait_for_selector("#signed .good")
    (saved,) = (server.store / "calibrations").iterdir()
    assert read_sign_off(saved).by == "Ada Lovelace" and read_sign_off(saved).thresholds.reject == 1.234
    # Letters typed into a field are no shortcuts.
    assert count(page, "marked") == 1


CLICK_NEXT_AND_NG = """() => {
    const shown = document.querySelector("#viewer .file").innerText;
    for (const id of ["next", "say-ng"]) document.getElementById(id).click();
    return shown;
}"""


def test_mark_applies_to_the_part_shown_at_the_click(page: Any, server: Server, images: list[Path]) -> None:
    """Both clicks leave the page before either is answered, and Gradio may handle the second one first."""
    upload(page, *images[:4])
    shown_names, earlier_marks = [], len(marks(server))
    for number in range(1, 7):
        page.locator("#gallery .card").first.click()
        wait_for(lambda: page.locator("#gallery .card").first.get_attribute("aria-pressed") == "true")
        # Read in the same script as the clicks: an earlier response may change the page at any moment.
        shown_names.append(page.evaluate(CLICK_NEXT_AND_NG))
        wait_for(lambda number=number: len(marks(server)) == earlier_marks + number)
    assert [mark["image"] for mark in marks(server)[earlier_marks:]] == shown_names


def marks(server: Server) -> list[dict[str, Any]]:
    journal = server.store / "marks.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def hold_key(page: Any, key: str) -> None:
    """Press a key, let the system repeat it, and release it."""
    for _ in range(10):
        page.keyboard.down(key)
        page.wait_for_timeout(60)
    page.keyboard.up(key)


def test_key_that_is_held_down_marks_once(page: Any, server: Server, images: list[Path]) -> None:
    upload(page, *images[:2])
    earlier_marks = len(marks(server))
    hold_key(page, "n")
    page.wait_for_selector("#viewer .marked")
    page.wait_for_timeout(1000)
    assert [mark["verdict"] for mark in marks(server)[earlier_marks:]] == ["NG"] and count(page, "marked") == 1


def test_fast_keys_mark_the_parts_that_they_are_meant_for(page: Any, server: Server, images: list[Path]) -> None:
    """All keys are pressed before the first answer: N, next, N, next, …"""
    upload(page, *images[:6])
    page.locator("#gallery .card").first.click()
    wait_for(lambda: page.locator("#gallery .card").first.get_attribute("aria-pressed") == "true")
    names, earlier_marks = page.locator("#gallery .card .name").all_inner_texts(), len(marks(server))
    for key in "njnjnjnjnjnj":  # the last j is pressed at the last part
        page.keyboard.press(key)
    page.keyboard.press("k")
    page.keyboard.press("o")
    wait_for(lambda: len(marks(server)) == earlier_marks + 7)
    made = [(mark["image"], mark["verdict"]) for mark in marks(server)[earlier_marks:]]
    assert made == [*((name, "NG") for name in names), (names[4], "OK")] and count(page, "marked") == 6


def test_next_key_works_after_a_refused_mark(page: Any, images: list[Path]) -> None:
    upload(page, *images[:2])
    page.locator("#gallery .card").first.click()
    wait_for(lambda: page.locator("#gallery .card").first.get_attribute("aria-pressed") == "true")
    page.evaluate("document.querySelector('#viewer [data-shown]').dataset.shown = '999-gone '")
    page.keyboard.press("n")
    page.keyboard.press("j")
    wait_for(lambda: page.locator("#gallery .card").nth(1).get_attribute("aria-pressed") == "true", seconds=5)
    assert "nothing was stored" in page.locator(".toast-body").inner_text()


def test_held_arrow_key_stops_when_it_is_released(page: Any, images: list[Path]) -> None:
    upload(page, *images[:3])
    page.locator("#gallery .card").first.click()
    hold_key(page, "j")
    wait_for(lambda: page.locator("#gallery .card").nth(2).get_attribute("aria-pressed") == "true")
    page.keyboard.press("k")
    wait_for(lambda: page.locator("#gallery .card").nth(1).get_attribute("aria-pressed") == "true")


def test_number_field_left_empty_keeps_its_threshold(page: Any, images: list[Path]) -> None:
    upload(page, *images[:3])
    set_slider(page, "reject", 1.234)
    wait_for(lambda: "NG above 1.234" in page.locator("#viewer .banner").inner_text())
    field = page.locator("#reject input[type=number]")
    field.fill("")
    page.wait_for_timeout(500)
    assert not page.locator(".toast-body").count()
    field.press("Tab")
    page.wait_for_timeout(1000)
    assert field.input_value() == "1.234" and "NG above 1.234" in page.locator("#viewer .banner").inner_text()


def test_hidden_file_in_a_drop_is_refused_alone(page: Any, images: list[Path], tmp_path: Path) -> None:
    """macOS writes `._a.png` beside `a.png` on disks of other systems."""
    hidden = tmp_path / "._a.png"
    hidden.write_bytes(b"\x00\x05\x16\x07")
    upload(page, *images[:2], hidden, expect=2)
    assert "1 file was not inspected" in page.locator(".refused").inner_text()


def test_layers_change_without_the_server(page: Any, images: list[Path]) -> None:
    upload(page, *images[:1])
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    heat = page.locator("#viewer .heat")
    page.locator("[data-view=heat]").fill("20")
    assert heat.evaluate("e => getComputedStyle(e).opacity") == "0.2"
    page.locator("[data-view=numbers]").uncheck()
    page.locator("#viewer [data-wipe]").fill("50")
    assert page.locator("#viewer .over").evaluate("e => getComputedStyle(e).clipPath") == "inset(0px 0px 0px 50%)"
    page.keyboard.press("h")
    assert not heat.is_visible()
    page.keyboard.press("h")
    assert heat.is_visible() and urls == []
    sizes = page.evaluate(
        "[...document.querySelectorAll('#viewer img')].map(i => Math.max(i.naturalWidth, i.naturalHeight))"
    )
    assert sizes and all(0 < side <= 1024 for side in sizes)


def test_comparison_counts_equal_decisions_and_the_card_names_licences(page: Any, images: list[Path]) -> None:
    upload(page, *images[:4])
    set_slider(page, "reinspect", 0.0)
    set_slider(page, "reject", 0.0)
    wait_for(lambda: count(page, "NG") == 4)
    page.get_by_role("tab", name="Compare").click()
    page.click("#compare-now")
    page.wait_for_selector("#compare-table .matrix")
    wait_for(lambda: "of 4 parts get the same decision" in page.locator("#compare-table").inner_text())
    assert sum(int(text) for text in page.locator(".matrix td:not(:empty)").all_inner_texts()) == 4
    assert page.locator("#compare-pair .stage").count() == 2
    page.get_by_role("tab", name="Artifact").click()
    page.wait_for_selector("#card h3")
    text = page.locator("#card").inner_text()
    assert "What the thresholds promise" in text and "Licences of the weights inside" in text


def test_camera_pictures_are_inspected(page: Any) -> None:
    def capture() -> None:
        # A picture can only be taken once the camera shows one.
        page.click("#camera [aria-label='capture photo']", trial=True)
        page.wait_for_function("document.querySelector('#camera video')?.readyState === 4")
        page.wait_for_timeout(500)
        page.click("#camera [aria-label='capture photo']")

    page.click("#camera-box > button")
    page.click("#camera [title='grant webcam access'] button")
    capture()
    wait_for(lambda: count(page, "all") == 1)
    assert re.search(r"camera-\d{6}\.png", page.locator("#viewer .banner").inner_text())
    capture()  # the camera stays open for the next part
    wait_for(lambda: count(page, "all") == 2)


def test_pasted_image_is_inspected(page: Any, images: list[Path]) -> None:
    content = list(images[0].read_bytes())
    page.evaluate(
        """bytes => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], 'pasted.png', {type: 'image/png'}));
        document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true})); }""",
        content,
    )
    wait_for(lambda: count(page, "all") == 1)
    assert "pasted.png" in page.locator("#viewer .banner").inner_text()


def test_upload_that_is_too_large_is_reported_and_the_page_works_on(
    page: Any, server: Server, images: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.write(images[0].read_bytes()[:100])
        file.truncate(200 * 2**20)
    page.set_input_files("#drop input[type=file]", str(large))
    page.get_by_text(re.compile("maximum allowed size|too large|exceeds", re.IGNORECASE)).first.wait_for()
    stored_bytes = sum(path.stat().st_size for path in server.temporary.rglob("*") if path.is_file())
    assert stored_bytes < 20 * 2**20
    upload(page, *images[:1])


@pytest.mark.parametrize("attempt", range(3))
def test_batch_can_be_stopped(page: Any, tmp_path: Path, attempt: int) -> None:
    """Inspecting large flat images takes long. The test runs three times, because a race may lose files sent after a stop."""
    first = tmp_path / "0.png"
    cv2.imwrite(str(first), np.full((4000, 4000, 3), 90, np.uint8))
    paths = [first, *(Path(shutil.copy(first, tmp_path / f"{n}.png")) for n in range(1, 40))]
    page.set_input_files("#drop input[type=file]", [str(path) for path in paths])
    page.locator("#stop").click()
    page.get_by_text("Stopped:").wait_for()
    inspected_count = count(page, "all")
    assert inspected_count < len(paths) and page.locator("#stop").is_hidden()
    page.wait_for_timeout(1500)
    upload(page, first, expect=inspected_count + 1)


def test_closing_a_tab_removes_its_files(browser: Any, server: Server, images: list[Path]) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_selector("#viewer .empty")
    upload(page, images[0])
    folder = max(server.temporary.glob("inspect-kd-studio-*/*"), key=lambda folder: folder.stat().st_mtime)
    assert any(folder.iterdir())
    context.close()
    wait_for(lambda: not folder.exists(), 60)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_has_no_serious_accessibility_violation(page: Any, server: Server, images: list[Path], theme: str) -> None:
    need("axe-playwright-python", find_spec("axe_playwright_python") is not None)
    from axe_playwright_python.sync_playwright import Axe

    page.goto(f"{server.address}/?__theme={theme}")
    page.wait_for_selector("#viewer .empty")
    upload(page, *images[:3])
    page.wait_for_timeout(500)
    for tab in ("Inspect", "Compare", "Artifact", "Train"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        violations = Axe().run(page).response["violations"]
        serious = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
        problems = [(violation["id"], [node["html"][:160] for node in violation["nodes"]][:4]) for violation in serious]
        assert problems == [], json.dumps(problems, indent=1)


@pytest.mark.parametrize("width", [1280, 1920, 420])
def test_page_does_not_scroll_sideways(page: Any, images: list[Path], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    upload(page, *images[:3])
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
