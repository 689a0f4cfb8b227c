"""Sessions of the Studio's page: sessions with parts stay open, lost parts are reported, names are escaped."""

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

MAX_SESSIONS = 16
"""The Studio's default limit of sessions."""


def images(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/test/*/*.png"))


@pytest.fixture
def make_page(run: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[dict[str, Any], Any]]]:
    """A function that builds the page without a server, and returns its event handlers by name and its app."""
    need("gradio", find_spec("gradio") is not None)

    def make(*names: str) -> tuple[dict[str, Any], Any]:
        from inspect_kd.apps.studio.app import build

        async def build_in_loop(settings: Settings) -> tuple[Any, Any]:
            return build(settings, tmp_path / "received")

        artifacts = tuple(Path(shutil.copy(run / "r.onnx", tmp_path / f"{name}.onnx")) for name in names or ("r",))
        # Outside of a running loop, Gradio would create loops and leave them open.
        page, app = asyncio.run(build_in_loop(Settings(artifacts=artifacts, store=tmp_path / "store")))
        apps.append(app)
        return {str(block.api_name or ""): block.fn for block in page.fns.values()} | {
            block.fn.__name__: block.fn for block in page.fns.values() if block.fn is not None
        }, app

    apps: list[Any] = []
    yield make
    for app in apps:
        app.sessions.close()


def request(session: str, username: str | None = None) -> Any:
    import gradio as gr

    return gr.Request(username=username, session_hash=session)


def call(server: Server, endpoint: str, session: str, *words: object) -> tuple[str, str]:
    """Call an endpoint; return the last event and its content."""
    url = f"{server.address}/gradio_api/call/{endpoint}"
    body = json.dumps({"data": words, "session_hash": session}).encode()
    http_request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(http_request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=60) as answer:
        lines = answer.read().decode().strip().splitlines()
    return lines[-2].removeprefix("event: "), lines[-1].removeprefix("data: ")


def test_many_empty_sessions_close_none_with_parts(run: Path, parts: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    with studio(run / "r.onnx", "--no-train", folder=tmp_path) as server:
        operator = Client(server.address, verbose=False)
        operator.predict([handle_file(path) for path in images(parts)[:2]], "", "", api_name="/inspect")
        for number in range(2 * MAX_SESSIONS):
            assert call(server, "parts", f"other{number}")[0] == "complete"
        assert len(operator.predict(api_name="/parts")) == 2


def test_new_session_is_refused_while_all_others_have_parts(make_page: Any, parts: Path) -> None:
    import gradio as gr

    handlers, app = make_page()
    content = images(parts)[0].read_bytes()
    for number in range(MAX_SESSIONS):
        app.sessions.get(str(number)).add(content, "p.png")
    with pytest.raises(gr.Error, match="all 16 sessions of this Studio are in use: close a tab"):
        handlers["parts"](request("new"))
    assert [len(app.sessions.get(str(number)).parts) for number in range(MAX_SESSIONS)] == [1] * MAX_SESSIONS
    app.sessions.get("3").clear()
    assert handlers["parts"](request("new")) == []


def test_lost_parts_are_reported_once_and_thresholds_are_restored(make_page: Any, parts: Path) -> None:
    import gradio as gr

    handlers, app = make_page()
    session = app.sessions.get("operator")
    session.add(images(parts)[0].read_bytes(), "p.png")
    session.set_thresholds(0.25, 0.5)
    session.last_active = -1e9  # long idle
    for number in range(MAX_SESSIONS):
        app.sessions.get(f"other{number}")
    assert len(app.sessions.get("operator").parts) == 1, "empty sessions make room first"
    session.last_active = -1e9
    for number in range(MAX_SESSIONS):
        app.sessions.get(f"other{number}").add(images(parts)[0].read_bytes(), "p.png")
    app.sessions.close_session("other0")
    with pytest.raises(gr.Error, match="Your session was cleared; parts lost: 1"):
        handlers["parts"](request("operator"))
    assert handlers["parts"](request("operator")) == []
    thresholds = app.sessions.get("operator").thresholds
    assert (thresholds.reinspect, thresholds.reject) == (0.25, 0.5), "as its page still shows"


def test_lost_connection_is_reported_on_the_page(make_page: Any, parts: Path) -> None:
    from inspect_kd.apps.studio.handlers import page_session

    _, app = make_page()
    app.sessions.get("operator").add(images(parts)[0].read_bytes(), "p.png")
    app.sessions.close_session("operator")
    with pytest.warns(UserWarning, match=r"parts lost: 1\. The connection was lost"):
        page_session(app, request("operator"))
    page_session(app, request("operator"))


def test_artifact_name_is_escaped_in_the_sign_off_message(make_page: Any) -> None:
    name = "<img src=x onerror=alert(1)>"
    handlers, app = make_page(name)
    thresholds = app.sessions.get("me").thresholds
    message = handlers["sign_off"]("Ada <b>", name, "", thresholds.reinspect, thresholds.reject, request("me"))
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


def test_names_in_error_messages_are_escaped(make_page: Any) -> None:
    import gradio as gr

    handlers, _ = make_page()
    with pytest.raises(gr.Error, match="no artifact named '&lt;img src=x&gt;'"):
        handlers["card"]("<img src=x>")
    with pytest.raises(gr.Error, match="no export named '&lt;b&gt;'"):
        handlers["export"]("<b>", request("me"))


def test_stopped_change_of_artifact_changes_nothing(make_page: Any, parts: Path) -> None:
    handlers, app = make_page("r", "second")
    session, me = app.sessions.get("operator"), request("operator")
    for path in images(parts)[:3]:
        session.add(path.read_bytes(), path.name)
    handlers["move_sliders"](0.25, 0.5, me)
    layers, thresholds = [part.heat_layer for part in session.all_parts()], session.thresholds
    change = handlers["change_artifact"]("second", "", me)
    next(change)
    change.close()
    exported = json.loads(Path(handlers["export"]("json", me)).read_text())
    assert exported["artifact"]["name"] == "r" and session.thresholds == thresholds
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


def test_sign_off_refuses_thresholds_that_the_page_does_not_show(make_page: Any) -> None:
    handlers, app = make_page()
    session, me = app.sessions.get("me"), request("me")
    handlers["move_sliders"](0.25, 0.5, me)
    assert "check them again, then sign off" in handlers["sign_off"]("Ada", "r", "", 0.3, 0.5, me)
    assert not (app.settings.store / "calibrations").exists()
    assert "signed off by Ada" in handlers["sign_off"]("Ada", "r", session.category or "", 0.25, 0.5, me)
