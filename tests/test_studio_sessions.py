"""Sessions of the Studio's page: a newcomer takes nobody's parts, whoever lost some is told, names are text."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from inspect_kd.apps.studio.settings import Settings
from tests.studio_server import Server, need, studio

OTHERS = 16
"""Desks of a Studio, as many as its settings say."""


def images(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/test/*/*.png"))


@pytest.fixture
def page(run: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[dict[str, Any], Any]]]:
    """The real page without its server: its handlers by name, and the Studio behind them."""
    need("gradio", find_spec("gradio") is not None)

    def build(*names: str) -> tuple[dict[str, Any], Any]:
        from inspect_kd.apps.studio.app import build

        async def built(settings: Settings) -> tuple[Any, Any]:
            return build(settings, tmp_path / "received")

        artifacts = tuple(Path(shutil.copy(run / "r.onnx", tmp_path / f"{name}.onnx")) for name in names or ("r",))
        # In a running loop: without one, Gradio makes many, and leaves them open.
        page, made = asyncio.run(built(Settings(artifacts=artifacts, store=tmp_path / "store")))
        studios.append(made)
        return {str(block.api_name or ""): block.fn for block in page.fns.values()} | {
            block.fn.__name__: block.fn for block in page.fns.values() if block.fn is not None
        }, made

    studios: list[Any] = []
    yield build
    for made in studios:
        made.desks.close()


def request(session: str, username: str | None = None) -> Any:
    import gradio as gr

    return gr.Request(username=username, session_hash=session)


def call(server: Server, endpoint: str, session: str, *words: object) -> tuple[str, str]:
    """The event that ends a call, and its content."""
    url = f"{server.address}/gradio_api/call/{endpoint}"
    body = json.dumps({"data": words, "session_hash": session}).encode()
    begun = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(begun, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=60) as answer:
        told = answer.read().decode().strip().splitlines()
    return told[-2].removeprefix("event: "), told[-1].removeprefix("data: ")


def test_sixteen_other_sessions_leave_an_operators_parts_where_they_are(run: Path, parts: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    with studio(run / "r.onnx", "--no-train", folder=tmp_path) as server:
        operator = Client(server.address, verbose=False)
        operator.predict([handle_file(path) for path in images(parts)[:2]], "", "", api_name="/inspect")
        for number in range(2 * OTHERS):
            assert call(server, "parts", f"other{number}")[0] == "complete"
        assert len(operator.predict(api_name="/parts")) == 2


def test_where_all_desks_are_in_use_the_newcomer_is_told_what_to_do(page: Any, parts: Path) -> None:
    import gradio as gr

    handlers, made = page()
    content = images(parts)[0].read_bytes()
    for number in range(OTHERS):
        made.desks.of(str(number)).add(content, "p.png")
    with pytest.raises(gr.Error, match="all 16 desks of this Studio are in use: close a tab"):
        handlers["parts"](request("newcomer"))
    assert [len(made.desks.of(str(number)).parts) for number in range(OTHERS)] == [1] * OTHERS
    made.desks.of("3").clear()
    assert handlers["parts"](request("newcomer")) == []


def test_who_lost_parts_is_told_once_and_finds_the_thresholds_again(page: Any, parts: Path) -> None:
    import gradio as gr

    handlers, made = page()
    desk = made.desks.of("operator")
    desk.add(images(parts)[0].read_bytes(), "p.png")
    desk.move(0.25, 0.5)
    desk.touched = -1e9  # silent since long ago
    for number in range(OTHERS):
        made.desks.of(f"other{number}")
    assert len(made.desks.of("operator").parts) == 1, "empty desks make room first"
    desk.touched = -1e9
    for number in range(OTHERS):
        made.desks.of(f"other{number}").add(images(parts)[0].read_bytes(), "p.png")
    made.desks.leave("other0")
    with pytest.raises(gr.Error, match="Your desk was cleared; parts lost: 1"):
        handlers["parts"](request("operator"))
    assert handlers["parts"](request("operator")) == []
    limits = made.desks.of("operator").thresholds
    assert (limits.reinspect, limits.reject) == (0.25, 0.5), "as its page still shows"


def test_a_lost_connection_is_told_on_the_page(page: Any, parts: Path) -> None:
    from inspect_kd.apps.studio.sessions import page_desk

    _, made = page()
    made.desks.of("operator").add(images(parts)[0].read_bytes(), "p.png")
    made.desks.leave("operator")
    with pytest.warns(UserWarning, match=r"parts lost: 1\. The connection was lost"):
        page_desk(made, request("operator"))
    page_desk(made, request("operator"))


def test_the_name_of_an_artifact_is_text_in_the_sign_off_message(page: Any) -> None:
    name = "<img src=x onerror=alert(1)>"
    handlers, made = page(name)
    limits = made.desks.of("me").thresholds
    said = handlers["sign"]("Ada <b>", name, "", limits.reinspect, limits.reject, request("me"))
    assert "signed off by Ada &lt;b&gt;" in said
    assert "<img" not in said and "&lt;img src=x onerror=alert(1)&gt;.onnx" in said


def test_a_second_studio_on_one_folder_of_runs_is_told_who_looks_after_it(run: Path, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    with studio(run / "r.onnx", "--runs", runs, "--train-on", str(tmp_path), folder=tmp_path / "first") as first:
        words = [sys.executable, "-P", "-m", "inspect_kd", "ui", str(run / "r.onnx"), "--runs", runs]
        second = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
        assert second.returncode == 4 and "Traceback" not in second.stderr
        line = second.stderr.strip().splitlines()[-1]
        assert line.startswith(f"inspect-kd: {runs} is in use by process {first.process.pid} on ")
        assert line.endswith("or leave the Train tab out with --no-train")
        with studio(run / "r.onnx", "--runs", runs, "--no-train", folder=tmp_path / "third"):
            pass


def test_names_in_error_messages_are_text(page: Any) -> None:
    import gradio as gr

    handlers, _ = page()
    with pytest.raises(gr.Error, match="no artifact named '&lt;img src=x&gt;'"):
        handlers["card"]("<img src=x>")
    with pytest.raises(gr.Error, match="no export named '&lt;b&gt;'"):
        handlers["export"]("<b>", request("me"))


def test_a_stopped_change_of_artifact_changes_neither_parts_nor_artifact_nor_limits(page: Any, parts: Path) -> None:
    handlers, made = page("r", "second")
    desk, me = made.desks.of("operator"), request("operator")
    for path in images(parts)[:3]:
        desk.add(path.read_bytes(), path.name)
    handlers["moved"](0.25, 0.5, me)
    layers, limits = [part.layer for part in desk.all_parts()], desk.thresholds
    change = handlers["chosen"]("second", "", me)
    next(change)
    change.close()
    exported = json.loads(Path(handlers["export"]("json", me)).read_text())
    assert exported["artifact"]["name"] == "r" and desk.thresholds == limits
    assert [part.layer for part in desk.all_parts()] == layers
    artifact, *_ = handlers["stop_batch"](me)
    assert artifact["value"] == "r", "the page shows the artifact that the scores are of"
    *_, (artifact, _, reinspect, *_) = handlers["chosen"]("second", "", me)
    exported = json.loads(Path(handlers["export"]("json", me)).read_text())
    assert exported["artifact"]["name"] == "second" and artifact["value"] == "second"
    assert not {part.layer for part in desk.all_parts()} & set(layers)
    assert not any(layer.exists() for layer in layers) and reinspect["value"] == round(desk.usual.reinspect, 3)


def test_what_is_signed_is_what_the_page_showed(page: Any) -> None:
    handlers, made = page()
    desk, me = made.desks.of("me"), request("me")
    handlers["moved"](0.25, 0.5, me)
    assert "look at it again, then sign off" in handlers["sign"]("Ada", "r", "", 0.3, 0.5, me)
    assert not (made.settings.store / "calibrations").exists()
    assert "signed off by Ada" in handlers["sign"]("Ada", "r", desk.category or "", 0.25, 0.5, me)
