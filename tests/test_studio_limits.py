"""Limits of the Studio's requests: sessions, paths below a prefix, bodies, the disk limit."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.studio_server import Server, studio
from tests.test_studio_http import JSON, MULTIPART, Answer, ask, call, file_arguments, multipart, upload, uploaded_files

FORM = {"Content_Type": "application/x-www-form-urlencoded"}
PREFIXES = ("", "/studio")


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Studio with a prefix, a small disk limit, and an unreachable HTTP proxy in its environment."""
    words = (run / "r.onnx", "--no-train", "--max-disk", "64", "--root-path", "/studio")
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    with studio(*words, folder=tmp_path_factory.mktemp("limits"), **proxy) as server:
        yield server


@pytest.fixture(scope="module")
def studio_with_password(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    words = (run / "r.onnx", "--no-train", "--root-path", "/studio")
    with studio(*words, folder=tmp_path_factory.mktemp("locked"), INSPECT_KD_AUTH="ada:secret") as server:
        yield server


def post(server: Server, path: str, content: object) -> Answer:
    return ask(server, "POST", path, json.dumps(content).encode(), **JSON)


def send_raw(server: Server, head: str, body: bytes) -> bytes:
    """Send a request byte for byte; return the status line of the response."""
    host, _, port = server.address.removeprefix("http://").partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=60)) as connection:
        connection.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode() + body)
        return connection.recv(100).partition(b"\r\n")[0]


# Sessions


def test_call_outside_the_queue_or_without_a_session_changes_nothing(server: Server) -> None:
    call(server, "decide", 0.5, 1.0)
    for route in ("run", "api"):
        for session in ({}, {"session_hash": ""}, {"session_hash": "tests"}):
            assert post(server, f"/gradio_api/{route}/decide", {"data": [1.5, 1.5], **session}).status == 404
    for _ in range(17):  # one more than the limit of sessions
        event = json.loads(post(server, "/gradio_api/call/decide", {"data": [1.5, 1.5]}).body)["event_id"]
        answer = ask(server, "GET", f"/gradio_api/call/decide/{event}").body.decode()
        assert "event: error" in answer and "session_hash" in answer
    assert '"reject": 1.0' in call(server, "decide", 0.5, 1.0)


@pytest.mark.parametrize("thresholds", [(1e9, 1e9), (0.5, 1e400), (float("nan"), 1.0), (-1.0, 1.0)], ids=str)
def test_thresholds_beyond_the_sliders_are_refused(server: Server, thresholds: tuple[float, float]) -> None:
    call(server, "decide", 0.5, 1.0)
    assert "event: error" in call(server, "decide", *thresholds)
    assert '"reject": 1.0' in call(server, "decide", 0.5, 1.0)


# Paths


@pytest.mark.parametrize("prefix", PREFIXES)
def test_rules_apply_with_and_without_the_prefix(server: Server, prefix: str) -> None:
    for path in ("file=/etc/passwd", "proxy=http://outside.invalid/", "deep_link", "component_server"):
        assert ask(server, "GET", f"{prefix}/gradio_api/{path}").status == 403, path
    chunked = f"POST {prefix}/gradio_api/upload HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked"
    assert send_raw(server, chunked, b"0\r\n\r\n") == b"HTTP/1.1 411 Length Required"
    answer = ask(server, "POST", f"{prefix}/gradio_api/upload", multipart(("a.png", b"a")), **MULTIPART)
    (path,) = json.loads(answer.body)
    assert "uploads" in Path(path).parts
    assert ask(server, "GET", f"{prefix}/gradio_api/file={path}").status == 403
    call(server, "inspect", file_arguments(path), "", "")
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask(server, "GET", f"{prefix}/", **link).status == 200


def test_prefix_given_twice_reaches_nothing(server: Server) -> None:
    assert ask(server, "GET", "/studio/studio/gradio_api/file=/etc/passwd").status in (403, 404)
    answer = ask(server, "POST", "/studio/studio/gradio_api/upload", multipart(("a.png", b"a")), **MULTIPART)
    assert answer.status == 403


def test_wrong_logins_count_under_every_prefix_and_claimed_address(studio_with_password: Server) -> None:
    body = b"username=ada&password=wrong"
    answers = [
        ask(
            studio_with_password,
            "POST",
            f"{PREFIXES[number % 2]}/login",
            body,
            **FORM,
            X_Forwarded_For=f"10.0.0.{number}",
        ).status
        for number in range(12)
    ]
    assert answers == [400] * 10 + [429] * 2


@pytest.mark.parametrize("changes", [{}, {"meta": None}, {"meta": {"_type": "other"}}], ids=str)
def test_event_opens_no_file_that_was_not_uploaded(server: Server, tmp_path: Path, changes: dict[str, Any]) -> None:
    dependencies = json.loads(ask(server, "GET", "/config").body)["dependencies"]
    camera = next(each["id"] for each in dependencies if each["api_name"] == "inspect_camera")
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    for file in (
        {"path": str(secret)},
        {"url": secret.as_uri()},
        {"path": None, "url": "http://outside.invalid/a.png"},
    ):
        body = {"data": [file | changes], "fn_index": camera, "session_hash": "camera"}
        post(server, "/gradio_api/queue/join", body)
        events = ask(server, "GET", "/gradio_api/queue/data?session_hash=camera").body.decode()
        assert "not a file that was sent" in events


# Bodies


@pytest.mark.parametrize("prefix", PREFIXES)
def test_bodies_are_limited(server: Server, prefix: str) -> None:
    for path, headers in (("call/inspect", JSON), ("queue/join", MULTIPART)):
        assert ask(server, "POST", f"{prefix}/gradio_api/{path}", bytes(2**20 + 1), **headers).status == 413
    chunk = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
    head = f"POST {prefix}/gradio_api/cancel HTTP/1.1\r\nContent-Type: application/json\r\n"
    assert send_raw(server, f"{head}Transfer-Encoding: chunked", chunk * 2).startswith(b"HTTP/1.1 413")
    many_values = json.dumps({"data": [[]] * 100_000, "fn_index": 0, "session_hash": "values"}).encode()
    answer = ask(server, "POST", f"{prefix}/gradio_api/queue/join", many_values, **JSON)
    assert len(many_values) < 2**20 and answer.status == 413 and b"brackets" in answer.body


@pytest.mark.parametrize("prefix", PREFIXES)
def test_without_a_login_no_body_is_read(studio_with_password: Server, prefix: str) -> None:
    for path in ("cancel", "queue/join", "call/inspect", "run/refresh", "api/predict", "reset", "upload"):
        # The announced body never arrives.
        head = f"POST {prefix}/gradio_api/{path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000"
        assert send_raw(studio_with_password, head, b"[").startswith(b"HTTP/1.1 401"), path
    for path in ("config", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/file=x", "gradio_api/queue/data"):
        assert ask(studio_with_password, "GET", f"{prefix}/{path}").status in (401, 403), path


@pytest.mark.parametrize("prefix", PREFIXES)
def test_public_route_reads_no_body(studio_with_password: Server, prefix: str) -> None:
    """65 bodies that never end would take the memory for all bodies, also for those of logins."""
    for path in ("", "robots.txt", "theme.css", "assets/x.js", "gradio_api/app_id"):
        # The announced body never arrives.
        head = f"POST {prefix}/{path} HTTP/1.1\r\nContent-Length: 1000000"
        assert send_raw(studio_with_password, head, b"a").startswith(b"HTTP/1.1 405"), path
    for method, path in (("PUT", "robots.txt"), ("GET", "login"), ("DELETE", "config"), ("OPTIONS", "gradio_api/info")):
        answer = ask(studio_with_password, method, f"{prefix}/{path}")
        assert answer.status == 405 and answer.headers["allow"] in ("GET, HEAD", "POST"), path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_idle_connections_keep_nobody_out(studio_with_password: Server) -> None:
    host, _, port = studio_with_password.address.removeprefix("http://").partition(":")
    pid = studio_with_password.process.pid
    files_before = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    idle: list[socket.socket] = []
    try:
        for _ in range(700):
            idle.append(socket.create_connection((host, int(port)), timeout=60))
        assert ask(studio_with_password, "GET", "/studio/").status == 200
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) - files_before < 530
        soft, hard = (int(limit) for limit in open_file_limits(pid))
        assert soft == min(hard, 65_536)
    finally:
        for connection in idle:
            connection.close()


def open_file_limits(pid: int) -> list[str]:
    """The soft and the hard limit of a process."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[3:5] for line in lines if line.startswith("Max open files"))


def test_connection_with_a_running_request_is_not_closed_for_a_new_one() -> None:
    from types import SimpleNamespace

    from inspect_kd.apps.studio.server.connection_limit import waiting_order

    def connection(waiting_since: float, **cycle: bool) -> SimpleNamespace:
        return SimpleNamespace(waiting_since=waiting_since, cycle=SimpleNamespace(**cycle) if cycle else None)

    running, answered = connection(0.0, response_complete=False), connection(1.0, response_complete=True)
    silent, newest = connection(2.0), connection(3.0)
    assert sorted([running, newest, answered, silent], key=waiting_order) == [answered, silent, newest, running]


def test_refused_connections_are_logged_in_one_line_per_minute() -> None:
    from inspect_kd.apps.studio.server.connection_limit import AcceptErrors

    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord("asyncio", logging.ERROR, "", 0, text, (), (OSError, OSError(24, "x"), None))

    errors, passed = AcceptErrors(), []
    for _ in range(1000):
        entry = record("socket.accept() out of system resource\nsocket: <socket>")
        if errors.filter(entry):
            passed.append(entry)
    assert len(passed) == 1 and "\n" not in passed[0].getMessage() and passed[0].exc_info is None
    assert errors.filter(record("another fault"))


def test_page_needs_no_login_to_show_the_login_form(studio_with_password: Server) -> None:
    page = ask(studio_with_password, "GET", "/studio/")
    assert page.status == 200
    for path in (
        "theme.css",
        "gradio_api/app_id",
        *re.findall(rb'(?:src|href)="\.?/?([^":]+\.(?:js|css))"', page.body),
    ):
        name = path if isinstance(path, str) else path.decode()
        assert ask(studio_with_password, "GET", f"/studio/{name.removeprefix('studio/')}").status == 200, name


def test_body_that_is_late_or_exceeds_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect_kd.apps.studio.server import body_limit

    async def unfinished(scope: Any, app: Any) -> list[Any]:
        pieces, sent_messages = iter([b"x" * 60, b"x" * 60]), []

        async def receive() -> dict[str, Any]:
            for piece in pieces:
                return {"type": "http.request", "body": piece, "more_body": True}
            return await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: Any) -> None:
            sent_messages.append(message)

        await app(scope, receive, send)
        return sent_messages

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "root_path": "", "headers": []}
    app = body_limit.BodyLimit(unreachable, read_s=0.01)
    assert asyncio.run(unfinished(scope, app))[0]["status"] == 408 and app.held_bytes == 0
    monkeypatch.setattr(body_limit, "MAX_HELD_BYTES", 100)
    assert asyncio.run(unfinished(scope, app))[0]["status"] == 503 and app.held_bytes == 0


# Routes


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "path",
    [
        *("gradio_api/custom_component/%1b%5d0;X%07/client/x/y", "gradio_api/dev/reload", "gradio_api/runs"),
        *(
            "gradio_api/queue/status",
            "gradio_api/token",
            "monitoring",
            "monitoring/summary",
            "pwa_icon/192",
            "openapi.json",
        ),
    ],
)
def test_route_that_the_studio_does_not_use_is_refused(server: Server, prefix: str, path: str) -> None:
    assert ask(server, "GET", f"{prefix}/{path}").status == 403


def test_names_of_uploads_are_not_kept(server: Server, run: Path, tmp_path: Path) -> None:
    from inspect_kd.apps.studio.app import build
    from inspect_kd.apps.studio.server.upload_gate import UploadGate
    from inspect_kd.apps.studio.server.uploads import Uploads
    from inspect_kd.apps.studio.settings import Settings

    assert ask(server, "GET", f"/gradio_api/upload_progress?upload_id={'a' * 1000}").status == 204
    scopes: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = UploadGate(application, Uploads(tmp_path), lambda: 2**20, 1)
    kind = MULTIPART["Content-Type"]
    assert asyncio.run(status_of(gate, "/gradio_api/upload", b"", kind, 0, query=b"upload_id=a")) == 400
    assert scopes[0]["query_string"] == b""

    async def build_in_loop() -> tuple[Any, Any]:
        return build(Settings(artifacts=(run / "r.onnx",), store=tmp_path / "store"), tmp_path / "received")

    page, studio = asyncio.run(build_in_loop())
    page.upload_file_set.update(["a", "b"])
    studio.sessions.close()
    assert not page.upload_file_set


def test_login_must_be_a_small_form(studio_with_password: Server) -> None:
    from inspect_kd.apps.studio.server.body_limit import BodyLimit
    from inspect_kd.apps.studio.server.routes import LOGIN, find_route

    max_bytes = find_route(LOGIN).max_bytes
    assert max_bytes == 2**14
    assert ask(studio_with_password, "POST", "/login", b"", **MULTIPART).status in (415, 429)
    assert asyncio.run(status_of(BodyLimit(unreachable), "/login", bytes(max_bytes + 1), FORM["Content_Type"])) == 413
    assert asyncio.run(status_of(BodyLimit(unreachable), "/login/", b"", "multipart/form-data; boundary=x")) == 415


async def unreachable(*_: object) -> None:
    raise AssertionError("the application was reached")


async def status_of(
    app: Any, path: str, body: bytes | None, kind: str, length: int | None = None, query: bytes = b""
) -> int:
    """The status that middleware sends for one request; a body of None never arrives."""
    sent_messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        if body is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent_messages.append(message)

    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": headers, "query_string": query}
    await app(scope, receive, send)
    return int(sent_messages[0]["status"])


# The disk limit


def test_upload_with_two_sizes_is_refused(server: Server) -> None:
    before = uploaded_files(server)
    body = multipart(("a.png", bytes(2**20)))
    head = "POST /gradio_api/upload HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 0\r\n"
    answer = send_raw(server, f"{head}Transfer-Encoding: chunked", b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
    assert answer.split()[1] in (b"400", b"411") and uploaded_files(server) == before


def test_slow_upload_reserves_little_room_and_ends_when_it_stalls(server: Server, tmp_path: Path) -> None:
    host, _, port = server.address.removeprefix("http://").partition(":")
    headers = {"Host": "localhost", **MULTIPART, "Content-Length": 60 * 2**20}
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\n"
        + "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        + "\r\n"
    )
    with closing(socket.create_connection((host, int(port)))) as slow:
        slow.sendall(head.encode() + multipart(("a.png", b"a"))[:-10])
        other = upload(server, ("b.png", bytes(30 * 2**20)))
        assert other.status == 200
        call(server, "inspect", file_arguments(*json.loads(other.body)), "", "")

    from starlette.exceptions import HTTPException

    from inspect_kd.apps.studio.server.upload_gate import UploadGate
    from inspect_kd.apps.studio.server.uploads import Uploads

    async def read(_: object, receive: Any, __: object) -> None:
        await receive()

    gate = UploadGate(read, Uploads(tmp_path), lambda: 2**20, 1, idle_s=0.01)
    with pytest.raises(HTTPException, match="send it again"):
        asyncio.run(status_of(gate, "/gradio_api/upload", None, MULTIPART["Content-Type"], 5))
    with pytest.raises(HTTPException, match="no room left"):
        full = UploadGate(read, Uploads(tmp_path), lambda: -1 if full.uploads.incoming else 5, 1)
        asyncio.run(status_of(full, "/gradio_api/upload", b"12345", MULTIPART["Content-Type"], 5))
    assert not gate.uploads.incoming and not full.uploads.incoming


def test_pictures_and_exports_count_in_the_disk_limit(run: Path, parts: Path, tmp_path: Path) -> None:
    from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
    from inspect_kd.apps.studio.inspect.batches import write_export
    from inspect_kd.apps.studio.server.uploads import bytes_below
    from inspect_kd.apps.studio.sessions import Sessions
    from inspect_kd.apps.studio.settings import Settings
    from inspect_kd.errors import BadInput

    settings = Settings(artifacts=(run / "r.onnx",), store=tmp_path / "store")
    sessions = Sessions(ArtifactLibrary(settings.artifacts), settings, tmp_path / "shown")
    try:
        before, session = sessions.free_bytes(), sessions.get("me")
        session.add(next(parts.rglob("*.png")).read_bytes(), "p.png")
        assert before - sessions.free_bytes() == bytes_below(session.folders.private) + bytes_below(
            session.folders.served
        )
        session.artifact = "a" * 240
        session.library.paths["a" * 240] = run / "r.onnx"
        assert write_export(type("S", (), {"settings": settings})(), session, "html").is_file(), "its name is cut"
        session.free_bytes = lambda: 10
        with pytest.raises(BadInput, match="no room left"):
            write_export(type("S", (), {"settings": settings})(), session, "csv")
        for number in range(1100):
            session.refuse(str(number), "no image")
        assert len(session.refused_files) == 1000
        with pytest.raises(BadInput, match="session"):
            sessions.get("")
        for thresholds in ((1e9, 1e9), (0.5, float("inf")), (float("nan"), 1.0), (-1.0, 1.0)):
            with pytest.raises(BadInput, match="must lie between 0 and"):
                session.set_thresholds(*thresholds)
    finally:
        sessions.close()


def test_disk_use_is_measured_while_folders_disappear(tmp_path: Path) -> None:
    from inspect_kd.apps.studio.server.uploads import bytes_below

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_bytes(b"12345")
    expected = bytes_below(tmp_path, 1)
    assert 5 < expected < 10_000 and bytes_below(tmp_path / "missing", 1) == 0

    def come_and_go() -> None:
        for number in range(2000):
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number)).rmdir()

    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(come_and_go)
        while not others.done():
            assert bytes_below(tmp_path, 1) == expected


# Logout and start


def test_image_on_a_foreign_page_cannot_log_the_user_out(studio_with_password: Server) -> None:
    for foreign in ({}, {"Referer": "http://evil.example/page"}):
        assert ask(studio_with_password, "GET", "/logout", **foreign).status == 403
    assert (
        ask(studio_with_password, "GET", "/studio/logout", Referer=f"{studio_with_password.address}/studio/").status
        != 403
    )


def test_studio_listens_on_an_ipv6_address(run: Path, tmp_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    command = [sys.executable, "-P", "-m", "inspect_kd", "ui", str(run / "r.onnx"), "--no-train", "--host", "::1"]
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            assert f"http://[::1]:{port}/" in process.stdout.readline()
        finally:
            process.terminate()


def test_failed_start_is_one_line_and_leaves_no_folder(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no artifact")
    for words, reason in (
        ((run / "r.onnx", "--host", "no.such.host.invalid", "--open"), "give --host an address of this machine"),
        ((broken,), "broken.onnx"),
    ):
        command = [sys.executable, "-P", "-m", "inspect_kd", "ui", *map(str, words), "--no-train"]
        (tmp_path / "temporary").mkdir(exist_ok=True)
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
            timeout=60,
        )
        assert result.returncode != 0 and reason in result.stderr and "Traceback" not in result.stderr
        assert not list((tmp_path / "temporary").glob("inspect-kd-*"))
