"""Requests and files that would exhaust the Studio's memory, disk or workers; and forged records of trainings."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.train import log, processes, run_report, service
from inspect_kd.apps.studio.train.record import RECORD, State, TrainingRecord, TrainRequest, read_record
from inspect_kd.apps.studio.train.trainings import Trainings
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.types import Decision
from tests.studio_server import Server, studio
from tests.test_studio_http import JSON, MULTIPART, Answer, ask, file_arguments, login, multipart, wait_for

MB = 2**20
FAR_FUTURE = {"name": "far", "order": {"data": "sample", "recipe": "embedded"}, "asked": 1e300, "stop_asked": 1.0}


@dataclass(frozen=True)
class Visitor:
    """A client that is logged in."""

    server: Server
    cookie: str

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        return ask(self.server, method, f"/gradio_api/{path}", body, Cookie=self.cookie, **headers)

    def post(self, path: str, content: object) -> Answer:
        return self.ask("POST", path, json.dumps(content).encode(), **JSON)

    def upload(self, body: bytes) -> Answer:
        return self.ask("POST", "upload", body, **MULTIPART)

    def call(self, endpoint: str, *data: object, session: str = "tests") -> str:
        event = json.loads(self.post(f"call/{endpoint}", {"data": data, "session_hash": session}).body)["event_id"]
        return self.ask("GET", f"call/{endpoint}/{event}").body.decode()

    def event_number(self, name: str) -> int:
        """The number of a page event that is not a public endpoint."""
        config = json.loads(ask(self.server, "GET", "/config", Cookie=self.cookie).body)
        return int(next(each["id"] for each in config["dependencies"] if each["api_name"] == name))

    def open_and_leave_session(self, session: str) -> None:
        """Open a session by a heartbeat, and disconnect."""
        host, _, port = self.server.address.removeprefix("http://").partition(":")
        head = f"GET /gradio_api/heartbeat/{session} HTTP/1.1\r\nHost: localhost\r\nCookie: {self.cookie}\r\n\r\n"
        with closing(socket.create_connection((host, int(port)), timeout=60)) as connection:
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


@pytest.fixture(scope="module")
def visitor(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A client of a Studio with a password; its folders of runs and examples contain forged files."""
    folder = tmp_path_factory.mktemp("exhaustion")
    runs = folder / "runs"
    shutil.copytree(run, runs / "r")
    shutil.copytree(parts, runs / "sample")
    os.mkfifo(next((runs / "sample").glob("*/test/good")) / "!.png")
    (runs / "far").mkdir()
    (runs / "far" / RECORD).write_text(json.dumps(FAR_FUTURE))
    words = (runs / "r" / "r.onnx", "--runs", runs, "--train-on", parts.parent, "--max-disk", "64")
    with studio(*words, folder=folder, INSPECT_KD_AUTH="ada:secret") as server:
        yield Visitor(server, login(server, "secret").headers["set-cookie"].partition(";")[0])


def status(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
    """The status of a response that may never end."""
    with closing(http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=60)) as connection:
        connection.request(method, f"/gradio_api/{path}", body, JSON | headers)
        return connection.getresponse().status


def memory(server: Server, field: str) -> int:
    """Memory in bytes: `VmRSS` is the present size, `VmHWM` the peak since `reset_peak`."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024


def reset_peak(server: Server) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


# Uploads


@pytest.mark.parametrize("name", ["a", "files"])
def test_text_field_in_an_upload_is_refused(visitor: Visitor, name: str) -> None:
    field = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\nabc\r\n--x--\r\n'.encode()
    answer = visitor.upload(field)
    assert answer.status == 400 and b"files alone" in answer.body


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_text_field_in_an_upload_takes_little_memory(visitor: Visitor) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    size = 48 * MB
    reset_peak(visitor.server)
    before = memory(visitor.server, "VmHWM")
    with closing(http.client.HTTPConnection(visitor.server.address.removeprefix("http://"), timeout=60)) as connection:
        connection.putrequest("POST", "/gradio_api/upload")
        for key, value in (MULTIPART | {"Cookie": visitor.cookie, "Content-Length": str(len(head) + size + 9)}).items():
            connection.putheader(key, value)
        connection.endheaders()
        with suppress(OSError):  # the Studio closes the connection
            connection.send(head)
            for _ in range(size // MB):
                connection.send(b"a" * MB)
            connection.send(b"\r\n--x--\r\n")
            connection.getresponse().read()
    assert memory(visitor.server, "VmHWM") - before < 24 * MB


def test_empty_uploads_count_in_the_disk_limit_and_leave_no_folders(visitor: Visitor, tmp_path: Path) -> None:
    from inspect_kd.apps.studio.server.uploads import Uploads

    answer = visitor.upload(multipart(*((f"{number}.png", b"") for number in range(20))))
    paths = [Path(path) for path in json.loads(answer.body)]
    received_folder = paths[0].parents[2]  # where Gradio creates folders named by SHA-256
    assert len(paths) == 20 and not [path for path in received_folder.iterdir() if len(path.name) == 64]
    assert Uploads(received_folder).bytes_used() >= 20 * 1024
    # Clean up: inspecting an upload removes it.
    visitor.call("inspect", file_arguments(*map(str, paths)), "", "")


def test_file_named_twice_in_one_event_is_refused(visitor: Visitor) -> None:
    (path,) = json.loads(visitor.upload(multipart(("a.png", b"x"))).body)
    assert "the same file twice" in visitor.call("inspect", file_arguments(path, path), "", "")
    assert '"decision"' in visitor.call("inspect", file_arguments(path), "", "")


def test_paths_that_do_not_exist_make_no_files(visitor: Visitor, parts: Path) -> None:
    picture = next(parts.rglob("*.png")).read_bytes()
    (path,) = json.loads(visitor.upload(multipart(("a.png", picture))).body)
    received_folder = Path(path).parents[2]
    before = len(list(received_folder.iterdir()))
    missing = [str(received_folder / "uploads" / str(number) / "a.png") for number in range(3000)]
    answer = visitor.call("inspect", file_arguments(*missing, path), "", "", session="missing")
    assert answer.count("send it again") == 3000 and '"score"' in answer, "the batch continues"
    assert len(list(received_folder.iterdir())) == before
    too_many = [{"path": f"{received_folder}/uploads/{number}/a"} for number in range(4001)]
    assert "at most 4000 files" in visitor.call("inspect", too_many, "", "", session="missing")


def test_files_of_aborted_uploads_are_removed_before_room_is_measured(tmp_path: Path) -> None:
    from inspect_kd.apps.studio.server.upload_gate import UploadGate
    from inspect_kd.apps.studio.server.uploads import Uploads
    from tests.test_studio_limits import status_of

    async def accept(_: object, __: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    uploads = Uploads(tmp_path)
    (tmp_path / "left").write_bytes(bytes(MB))
    gate = UploadGate(accept, uploads, lambda: MB - uploads.bytes_used(), 1)
    assert asyncio.run(status_of(gate, "/gradio_api/upload", b"12345", MULTIPART["Content-Type"], 5)) == 400


@pytest.mark.parametrize("name", ["._a.png", ".hidden", "...png"])
def test_hidden_file_is_refused_alone_and_the_batch_continues(visitor: Visitor, parts: Path, name: str) -> None:
    picture = next(parts.rglob("*.png")).read_bytes()
    paths = json.loads(visitor.upload(multipart(("a.png", picture), (name, b"no image"))).body)
    answer = visitor.call("inspect", file_arguments(*paths), "", "")
    assert answer.count('"score"') == 1 and "not a readable image" in answer


@pytest.mark.parametrize("files", ["/etc/passwd", ["/etc/passwd"], [["/etc/passwd"]], 5], ids=str)
def test_values_that_are_not_files_are_refused_in_one_line(visitor: Visitor, files: object) -> None:
    assert texts.NOT_RECEIVED in visitor.call("inspect", files, "", "")


def tiff_with_shared_tags(tags: int, size: int) -> bytes:
    """A TIFF of 8x8 pixels in which this many unknown tags have the same block of data."""
    start = 8 + 2 + 12 * tags + 4
    known = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: start, 277: 1, 278: 8, 279: 64}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in known.items()]
    entries += [struct.pack("<HHII", 40_000 + number, 1, size, start) for number in range(tags - len(known))]
    return struct.pack("<2sHIH", b"II", 42, 8, tags) + b"".join(entries) + bytes(4) + b"\x80" * size


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_camera_picture_is_decoded_by_our_own_reader_alone(visitor: Visitor) -> None:
    (path,) = json.loads(visitor.upload(multipart(("c.tif", tiff_with_shared_tags(100, 4 * MB)))).body)
    reset_peak(visitor.server)
    before = memory(visitor.server, "VmHWM")
    event = {"data": file_arguments(path), "fn_index": visitor.event_number("inspect_camera"), "session_hash": "camera"}
    assert visitor.post("queue/join", event).status == 200
    events = visitor.ask("GET", "queue/data?session_hash=camera").body.decode()
    assert '"success":true' in events and texts.REFUSED_ONE in events
    assert memory(visitor.server, "VmHWM") - before < 100 * MB


def test_slow_upload_reserves_little_room(tmp_path: Path) -> None:
    from inspect_kd.apps.studio.server.upload_gate import UploadGate
    from inspect_kd.apps.studio.server.uploads import IncomingUpload, Uploads

    async def few_bytes() -> dict[str, Any]:
        return {"type": "http.request", "body": b"--x\r\n", "more_body": True}

    gate = UploadGate(lambda *_: asyncio.sleep(0), Uploads(tmp_path), lambda: 64 * MB, 64)
    incoming = IncomingUpload()
    asyncio.run(gate.receive_counted(few_bytes, incoming, 100 * MB)())  # type: ignore[arg-type]
    assert incoming.arrived_bytes == 5 and 5 < incoming.reserved_bytes < MB


# Sessions and results


def test_routes_that_gradio_leaves_open_need_a_login(visitor: Visitor) -> None:
    cancel = json.dumps({"session_hash": "a", "fn_index": 1, "event_id": "a"}).encode()
    for method, path, body in (
        ("GET", "heartbeat/nobody", None),
        ("POST", "cancel", cancel),
        ("POST", "upload", b"--x--\r\n"),
    ):
        assert status(visitor.server, method, path, body) == 401, path
    assert status(visitor.server, "POST", "stream/a/close", b"{}") == 403


def test_long_session_names_are_refused(visitor: Visitor) -> None:
    name = "s" * 65
    assert status(visitor.server, "GET", f"heartbeat/{name}", Cookie=visitor.cookie) == 403
    for event, path, data in (
        ("artifacts", "queue/join", []),
        ("artifacts", "call/artifacts", []),
        ("refresh", "run/refresh", [None, None]),
    ):
        body = {"data": data, "fn_index": visitor.event_number(event), "session_hash": name}
        answer = visitor.post(path, body)
        assert answer.status == 400 and b"at most 64" in answer.body, path


@pytest.mark.parametrize("name", ["a<gradio-sep>b", "a b", "a/b", "ä"])
def test_session_names_are_plain(visitor: Visitor, name: str) -> None:
    """With Gradio's own separator in it, a session's name would make the cancellations of all others fail."""
    assert status(visitor.server, "GET", f"heartbeat/{quote(name)}", Cookie=visitor.cookie) == 403
    for event, path in (("artifacts", "queue/join"), ("artifacts", "call/artifacts"), ("refresh", "run/refresh")):
        data = [None, None] if event == "refresh" else []
        body = {"data": data, "fn_index": visitor.event_number(event), "session_hash": name}
        answer = visitor.post(path, body)
        assert answer.status == 400 and b"each a letter" in answer.body, path


def test_session_with_many_unread_results_is_refused(visitor: Visitor) -> None:
    def send(session: str) -> Answer:
        return visitor.post("call/artifacts", {"data": [], "session_hash": session})

    answers = [send("unread") for _ in range(33)]
    assert [answer.status for answer in answers] == [200] * 32 + [400]
    assert b"have not been read" in answers[-1].body
    assert send("other").status == 200
    event = json.loads(answers[0].body)["event_id"]
    assert visitor.ask("GET", f"call/artifacts/{event}").body.count(b"event: complete") == 32
    assert send("unread").status == 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_made_up_sessions_take_little_memory(visitor: Visitor) -> None:
    for number in range(20):
        visitor.open_and_leave_session(f"first{number}")
    time.sleep(1)
    before = memory(visitor.server, "VmRSS")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visitor.open_and_leave_session, (f"made-up{number}" for number in range(120))))
    visitor.open_and_leave_session("last")
    time.sleep(1)
    assert memory(visitor.server, "VmRSS") - before < 12 * MB


def queue_and_event(session: str) -> tuple[Any, Callable[[str], Any], Any]:
    """A Gradio queue, a function that sends a result with this text, and an event of the session."""
    import gradio as gr
    from gradio.queueing import Event
    from gradio.server_messages import ProcessCompletedMessage

    with gr.Blocks(analytics_enabled=False) as page:
        gr.Button().click(lambda: None)
    queue = page.queue()._queue
    event = Event(session, next(iter(page.fns.values())), None, None)  # type: ignore[arg-type]

    def send_result(text: str) -> None:
        queue.send_message(event, ProcessCompletedMessage(output={"data": [text]}, success=True))

    return queue, send_result, event


def test_unread_results_of_a_session_have_a_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect_kd.apps.studio.server import session_limit

    monkeypatch.setattr(session_limit, "MAX_SESSION_BYTES", 100_000)

    async def fill() -> None:
        queue, send_result, event = queue_and_event("s")
        session_limit.SessionLimit(queue)
        unread = queue.pending_messages_per_session["s"] = session_limit.UnreadMessages()
        for _ in range(20):
            send_result("x" * 10_000)
        assert unread.bytes < 110_000 and not event.alive
        messages = [unread.get_nowait() for _ in range(unread.qsize())]
        assert unread.bytes == 0 and "not read in time" in messages[-1].output["error"]
        event.alive = True
        send_result("x" * 10_000)  # there is room again
        assert unread.get_nowait().output == {"data": ["x" * 10_000]}

    asyncio.run(fill())


def test_unread_results_of_all_sessions_have_a_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect_kd.apps.studio.server import session_limit

    monkeypatch.setattr(session_limit, "MAX_TOTAL_BYTES", 100_000)
    monkeypatch.setattr(session_limit, "MAX_SESSIONS", 3)

    async def fill() -> None:
        queue, send_result, event = queue_and_event("small")
        limit = session_limit.SessionLimit(queue)
        unread = queue.pending_messages_per_session
        for name in ("small", "large"):
            unread[name], queue.pending_event_ids_session[name] = session_limit.UnreadMessages(), {name}
        send_result("x" * 1000)
        event.session_hash = "large"
        for _ in range(10):
            send_result("x" * 20_000)
        assert list(unread) == list(queue.pending_event_ids_session) == ["small"], "the largest session is dropped"
        assert not event.alive
        for number in range(5):
            unread[str(number)], queue.pending_event_ids_session[str(number)] = session_limit.UnreadMessages(), {"e"}
        queue.event_ids_to_events["e"] = event
        event.session_hash = "1"
        limit.forget_idle_sessions()
        assert list(unread) == list(queue.pending_event_ids_session) == ["1", "2", "3", "4"], (
            "the oldest is dropped, a session with a running event is kept"
        )

    asyncio.run(fill())


def test_longest_idle_session_is_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect_kd.apps.studio.server import session_limit

    monkeypatch.setattr(session_limit, "MAX_SESSIONS", 2)

    async def fill() -> None:
        queue, _, _ = queue_and_event("a")
        unread, events = queue.pending_messages_per_session, queue.pending_event_ids_session

        async def accept(body: Any, **_: Any) -> None:
            events.setdefault(body.session_hash, {"e"})

        limit = session_limit.SessionLimit(queue)
        limit._push = accept
        for name in ("first", "second", "first", "third"):
            unread.setdefault(name, session_limit.UnreadMessages())
            await limit.push(SimpleNamespace(session_hash=name), None, None)
        limit.forget_idle_sessions()
        assert set(unread) == set(events) == {"first", "third"}

    asyncio.run(fill())


def test_size_of_a_message_counts_the_bytes_of_its_characters() -> None:
    from gradio.server_messages import ProcessCompletedMessage

    from inspect_kd.apps.studio.server.session_limit import size_of

    assert size_of(ProcessCompletedMessage(output={"data": ["😀" * 10_000]}, success=True)) > 40_000


def test_call_that_gradio_cannot_run_is_an_error_without_a_traceback(run: Path, tmp_path: Path) -> None:
    import gradio as gr

    from inspect_kd.apps.studio.app import build
    from inspect_kd.apps.studio.settings import Settings

    async def call_all() -> tuple[Any, list[gr.Error]]:
        settings = Settings(artifacts=(run / "r.onnx",), store=tmp_path / "store")
        page, studio = build(settings, tmp_path / "received")
        fns = list(page.fns.values())
        in_browser = next(fn for fn in fns if fn.fn is None)
        named = {fn.fn.__name__: fn for fn in fns if fn.fn is not None}
        gallery = [fn for fn in fns if fn.fn is not None and fn.fn.__name__ == "change_gallery"]
        # Gallery events in the order in which they are connected: filter, order, turn, pick.
        request, errors = SimpleNamespace(session_hash="s", username=None), []
        for fn, inputs, event in (
            (in_browser, [None], None),
            (named["change_artifact"], ["no such artifact", ""], None),
            (named["change_artifact"], ["r"], None),  # too few values
            (named["move_sliders"], ["a", 1], None),
            (named["sign_off"], ["Ada", "r", "", None, "x"], None),
            *((fn, [], data) for fn in gallery[:4] for data in ({}, {"part": "x", "by": 1e400}, None)),
            (named["pick_part"], [], {"part": []}),
        ):
            data = gr.EventData(None, event)
            with pytest.raises(gr.Error) as error:
                await page.process_api(fn, inputs, session_hash="s", event_data=data, request=request)
            errors.append(error.value)
        return studio, errors

    studio, errors = asyncio.run(call_all())
    studio.sessions.close()
    assert not any(error.print_exception or "\n" in str(error) for error in errors)


def test_large_report_is_not_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "report.html").open("wb") as file:
        file.truncate(17 * MB)
    with pytest.raises(BadInput, match="larger than 16 MB"):
        run_report.read_report(tmp_path)


# Forged files in the folders of runs and examples


def test_forged_record_ends_no_other_process(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path / "elsewhere"), "--name", "kill"]
    program = [sys.executable, "-P", "-c", "import time; time.sleep(600)", *words]
    bystander = subprocess.Popen(program, start_new_session=True)
    try:
        wait_for(lambda: b"sleep" in Path(f"/proc/{bystander.pid}/cmdline").read_bytes())
        birth = processes.process_birth(bystander.pid)
        assert birth is not None
        TrainingRecord(
            name="kill",
            request=TrainRequest(data="sample", recipe="embedded"),
            requested_at=1.0,
            pid=bystander.pid,
            process_birth=birth,
            stop_requested_at=1.0,
        ).write(tmp_path / "runs" / "kill")
        trainings = Trainings(tmp_path, tmp_path / "runs", tmp_path / "store", grace=0.0)
        for _ in range(3):
            trainings.update()
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(1)
        assert trainings.get("kill").state is State.STOPPED
    finally:
        bystander.kill()
        bystander.wait()


def test_record_from_the_far_future_breaks_no_page(visitor: Visitor) -> None:
    refresh = {"data": [None, None], "fn_index": visitor.event_number("refresh"), "session_hash": "far"}
    answer = visitor.post("run/refresh", refresh)
    assert answer.status == 200 and b"ikd-train" in answer.body


@pytest.mark.parametrize(
    "change", [{"asked": 1e300}, {"began": -1.0}, {"stop_asked": 1e12}, {"attempt": 10**400}, {"pid": 2**40}], ids=str
)
def test_record_with_impossible_numbers_is_not_read(change: dict[str, object], tmp_path: Path) -> None:
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps(FAR_FUTURE | {"asked": 1.0}))
    assert read_record(folder) is not None
    (folder / RECORD).write_text(json.dumps(FAR_FUTURE | {"asked": 1.0} | change))
    assert read_record(folder) is None


def test_metrics_are_read_up_to_a_limit(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step":1,"loss":1}\n' * 201_000)
    losses, _ = log.read_metrics(metrics)
    assert len(losses["train"]) == 200_000
    metrics.write_bytes(b"".join(b'{"step":1,"loss":1,"stage":"s%d"}\n' % number for number in range(1000)))
    losses, _ = log.read_metrics(metrics)
    assert 0 < len(losses) <= 32
    with metrics.open("wb") as file:
        file.write(b'{"step":1,"loss":1}\n')
        file.truncate(2**40)
    start = time.monotonic()
    assert log.read_metrics(metrics)[0] == {"train": [(1.0, 1.0)]} and time.monotonic() - start < 30


def test_progress_read_from_a_foreign_log_is_limited() -> None:
    progress = log.CommandProgress()
    for number in range(30_000):
        log.parse_line(
            progress,
            json.dumps({"phase": f"p{number % 500}" if number < 1000 else "train", "done": number, "loss": 1.0}),
        )
    assert len(progress.losses) <= 32 and len(progress.finished_phases) <= 32
    assert all(len(points) <= 20_001 for points in progress.losses.values())


def test_metrics_that_several_tabs_show_are_read_once(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step":1,"loss":1}\n' * 20_000)
    threads = 4
    start = threading.Barrier(threads)

    def read(_: int) -> object:
        start.wait()
        return service._metrics(metrics)

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(read, range(threads)))
    assert all(each is results[0] for each in results)


def test_pipe_among_the_examples_is_refused_without_blocking(visitor: Visitor, parts: Path) -> None:
    event = {"data": [], "fn_index": visitor.event_number("inspect_example_parts"), "session_hash": "examples"}
    assert visitor.post("queue/join", event).status == 200
    (path,) = json.loads(visitor.upload(multipart(("a.png", next(parts.rglob("*.png")).read_bytes()))).body)
    answers: list[str] = []

    def inspect() -> None:
        answers.append(visitor.call("inspect", file_arguments(path), "", "", session="another"))

    # A daemon thread: if the pipe were read, this call would never end.
    thread = threading.Thread(target=inspect, daemon=True)
    thread.start()
    thread.join(60)
    assert answers and '"score"' in answers[0]
    events = visitor.ask("GET", "queue/data?session_hash=examples").body.decode()
    assert '"success":true' in events and texts.REFUSED_ONE in events


# Sessions


@pytest.fixture
def session(run: Path, parts: Path, tmp_path: Path) -> Iterator[Any]:
    from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
    from inspect_kd.apps.studio.sessions import Sessions
    from inspect_kd.apps.studio.settings import Settings

    settings = Settings(artifacts=(run / "r.onnx",), store=tmp_path / "store")
    sessions = Sessions(ArtifactLibrary(settings.artifacts), settings, tmp_path / "served")
    try:
        session = sessions.get("me")
        for image in sorted(parts.rglob("*.png"))[:2]:
            session.add(image.read_bytes(), image.name)
        assert len(session.parts) == 2
        yield session
    finally:
        sessions.close()


def test_comparison_ends_at_the_disk_limit(session: Any) -> None:
    steps = session.comparison.run("r")
    assert next(steps) == 1
    session.free_bytes = lambda: 10
    with pytest.raises(BadInput, match="no room left"):
        next(steps)


def test_comparison_ends_when_the_parts_are_cleared(session: Any) -> None:
    steps = session.comparison.run("r")
    assert next(steps) == 1
    session.clear()
    with pytest.raises(UsageError, match="comparison was stopped"):
        next(steps)
    assert not session.comparison.predictions and not any(any(folder.iterdir()) for folder in session.folders)
    with pytest.raises(BadInput, match="stopped"), session.refuse_if_stopped(session.generation - 1):
        raise FileNotFoundError


def test_part_that_cannot_be_stored_is_refused_and_the_batch_continues(session: Any, parts: Path) -> None:
    from inspect_kd.apps.studio.session import RefusedFile

    content, served = next(parts.rglob("*.png")).read_bytes(), session.folders.served
    served.rename(served.with_name("away"))
    refused = session.add(content, "a.png")
    assert isinstance(refused, RefusedFile) and "could not be stored" in refused.reason
    assert len(list(session.folders.private.iterdir())) == 2 * 2, "its heatmap is removed"
    served.with_name("away").rename(served)
    assert not isinstance(session.add(content, "b.png"), RefusedFile)


def test_mark_is_refused_when_the_disk_is_almost_full(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspect_kd.apps.studio.inspect import marks

    store, part = marks.MarkStore(tmp_path / "store"), next(iter(session.parts.values()))
    context = marks.MarkContext(artifact="r", artifact_sha256="", category=None, thresholds=session.thresholds)
    monkeypatch.setattr(marks, "MIN_FREE_MB", 2**40)
    with pytest.raises(EnvironmentFault, match="no mark is stored"):
        store.put(part, Decision.OK, context)
    assert part.mark is None and not list((tmp_path / "store").iterdir())


def test_categories_have_folders_of_their_own(session: Any, tmp_path: Path) -> None:
    from inspect_kd.apps.studio.inspect.marks import MarkContext, MarkStore

    names = ("螺丝", "瓶子", "крышка", "a b", "a_b", "", "x" * 300, "x" * 301)
    contexts = [
        MarkContext(artifact="r", artifact_sha256="", category=name, thresholds=session.thresholds) for name in names
    ]
    folders = [MarkStore(tmp_path).folder(context).name for context in contexts]
    assert len(set(folders)) == len(names) and folders[4:6] == ["a_b", "r"] and max(map(len, folders)) < 120


def test_batch_of_a_closed_tab_ends_without_a_traceback(session: Any, parts: Path) -> None:
    from inspect_kd.apps.studio.inspect.batches import run_batch
    from inspect_kd.apps.studio.session import RefusedFile

    content = next(parts.rglob("*.png")).read_bytes()
    steps = run_batch(session, (session.add(content, str(number)) for number in range(2)), 2)
    next(steps)
    comparison = session.comparison.run("r")
    next(comparison)
    session.close()
    list(steps)
    assert isinstance(session.add(content, "late.png"), RefusedFile) and not session.parts
    with pytest.raises(BadInput, match="stopped"):
        next(comparison)


def test_aborted_upload_raises_no_error(tmp_path: Path) -> None:
    from starlette.requests import ClientDisconnect

    from inspect_kd.apps.studio.server.upload_gate import UploadGate
    from inspect_kd.apps.studio.server.uploads import Uploads
    from tests.test_studio_limits import status_of

    async def disconnect(*_: object) -> None:
        raise ClientDisconnect

    gate = UploadGate(disconnect, Uploads(tmp_path), lambda: MB, 1)
    with pytest.raises(IndexError):  # no answer was sent
        asyncio.run(status_of(gate, "/gradio_api/upload", None, MULTIPART["Content-Type"], 5))
    assert not gate.uploads.incoming
