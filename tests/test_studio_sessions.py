"""Sessions of the Studio's page: a new one closes none with parts, lost parts are reported, names are escaped."""

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
"""The default limit of sessions."""


def images(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/test/*/*.png"))


@pytest.fixture
def page(run: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[dict[str, Any], Any]]]:
    """The real page without its server: its event handlers by name, and the Studio."""
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
        made.sessions.close()


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
        lines = answer.read().decode().strip().splitlines()
    return lines[-2].removeprefix("event: "), lines[-1].removeprefix("data: ")


def test_many_empty_sessions_close_none_with_parts(run: Path, parts: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    with studio(run / "r.onnx", "--no-train", folder=tmp_path) as server:
        operator = Client(server.address, verbose=False)
        operator.predict([handle_file(path) for path in images(parts)[:2]], "", "", api_name="/inspect")
        for number in range(2 * OTHERS):
            assert call(server, "parts", f"other{number}")[0] == "complete"
        assert len(operator.predict(api_name="/parts")) == 2


def test_new_session_is_refused_while_all_others_have_parts(page: Any, parts: Path) -> None:
    import gradio as gr

    handlers, made = page()
    content = images(parts)[0].read_bytes()
    for number in range(OTHERS):
        made.sessions.get(str(number)).add(content, "p.png")
    with pytest.raises(gr.Error, match="all 16 sessions of this Studio are in use: close a tab"):
        handlers["parts"](request("new"))
    assert [len(made.sessions.get(str(number)).parts) for number in range(OTHERS)] == [1] * OTHERS
    made.sessions.get("3").clear()
    assert handlers["parts"](request("new")) == []


def test_lost_parts_are_reported_once_and_thresholds_are_restored(page: Any, parts: Path) -> None:
    import gradio as gr

    handlers, made = page()
    session = made.sessions.get("operator")
    session.add(images(parts)[0].read_bytes(), "p.png")
    session.set_thresholds(0.25, 0.5)
    session.last_active = -1e9  # long idle
    for number in range(OTHERS):
        made.sessions.get(f"other{number}")
    assert len(made.sessions.get("operator").parts) == 1, "empty sessions make room first"
    session.last_active = -1e9
    for number in range(OTHERS):
        made.sessions.get(f"other{number}").add(images(parts)[0].read_bytes(), "p.png")
    made.sessions.close_session("other0")
    with pytest.raises(gr.Error, match="Your session was cleared; parts lost: 1"):
        handlers["parts"](request("operator"))
    assert handlers["parts"](request("operator")) == []
    limits = made.sessions.get("operator").thresholds
    assert (limits.reinspect, limits.reject) == (0.25, 0.5), "as its page still shows"


def test_lost_connection_is_reported_on_the_page(page: Any, parts: Path) -> None:
    from inspect_kd.apps.studio.handlers import page_session

    _, made = page()
    made.sessions.get("operator").add(images(parts)[0].read_bytes(), "p.png")
    made.sessions.close_session("operator")
    with pytest.warns(UserWarning, match=r"parts lost: 1\. The connection was lost"):
        page_session(made, request("operator"))
    page_session(made, request("operator"))


def test_artifact_name_is_escaped_in_the_sign_off_message(page: Any) -> None:
    name = "<img src=x onerror=alert(1)>"
    handlers, made = page(name)
    limits = made.sessions.get("me").thresholds
    message = handlers["sign_off"]("Ada <b>", name, "", limits.reinspect, limits.reject, request("me"))
    assert "signed off by Ada &lt;b&gt;" in message
    assert "<img" not in message and "&lt;img src=x onerror=alert(1)&gt;.onnx" in message


def test_second_studio_on_the_same_runs_is_refused(run: Path, tmp_path: Path) -> None:
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


def test_names_in_error_messages_are_escaped(page: Any) -> None:
    import gradio as gr

    handlers, _ = page()
    with pytest.raises(gr.Error, match="no artifact named '&lt;img src=x&gt;'"):
        handlers["card"]("<img src=x>")
    with pytest.raises(gr.Error, match="no export named '&lt;b&gt;'"):
        handlers["export"]("<b>", request("me"))


def test_stopped_change_of_artifact_changes_nothing(page: Any, parts: Path) -> None:
    handlers, made = page("r", "second")
    session, me = made.sessions.get("operator"), request("operator")
    for path in images(parts)[:3]:
        session.add(path.read_bytes(), path.name)
    handlers["move_sliders"](0.25, 0.5, me)
    layers, limits = [part.heat_layer for part in session.all_parts()], session.thresholds
    change = handlers["change_artifact"]("second", "", me)
    next(change)
    change.close()
    exported = json.loads(Path(handlers["export"]("json", me)).read_text())
    assert exported["artifact"]["name"] == "r" and session.thresholds == limits
    assert [part.heat_layer for part in session.all_parts()] == layers
    artifact, *_ = handlers["stop_batch"](me)
    assert artifact["value"] == "r", "the page shows the artifact that the scores are of"
    *_, (artifact, _, reinspect, *_) = handlers["change_artifact"]("second", "", me)
    exported = json.loads(Path(handlers["export"]("json", me)).read_text())
    assert exported["artifact"]["name"] == "second" and artifact["value"] == "second"
    assert not {part.heat_layer for part in session.all_parts()} & set(layers)
    assert not any(layer.exists() for layer in layers) and reinspect["value"] == round(
        session.default_thresholds.reinspect, 3
    )


def test_sign_off_refuses_thresholds_that_the_page_does_not_show(page: Any) -> None:
    handlers, made = page()
    session, me = made.sessions.get("me"), request("me")
    handlers["move_sliders"](0.25, 0.5, me)
    assert "check them again, then sign off" in handlers["sign_off"]("Ada", "r", "", 0.3, 0.5, me)
    assert not (made.settings.store / "calibrations").exists()
    assert "signed off by Ada" in handlers["sign_off"]("Ada", "r", session.category or "", 0.25, 0.5, me)
