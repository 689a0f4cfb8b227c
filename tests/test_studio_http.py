"""Hostile HTTP requests to a Studio as a user starts it: hosts, origins, uploads, logins."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.studio_server import Server, studio

FOREIGN_ORIGIN = "https://evil.example"
SAVE_CALIBRATION = "/gradio_api/call/save_calibration"
SESSION = "tests"
SIGN_OFF = json.dumps({"data": ["Eve", 0.5, 1.0], "session_hash": SESSION}).encode()
JSON = {"Content-Type": "application/json"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
LOG_HOSTS = """
import os, sys
def record(event, args):
    if event in ("socket.getaddrinfo", "socket.connect"):
        with open(os.environ["HOST_LOG"], "a") as file:
            print(args, file=file)
sys.addaudithook(record)
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class RestartedStudio:
    server: Server
    """A server with a small disk limit, started after another one was killed."""
    abandoned_folders: list[Path]
    host_log: Path
    """A file that names every host that the server's process has looked up or connected to."""


@pytest.fixture(scope="module")
def restarted_studio(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartedStudio]:
    folder = tmp_path_factory.mktemp("studio")
    host_log = folder / "hosts"
    host_log.touch()
    (folder / "sitecustomize.py").write_text(LOG_HOSTS)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    picture = next(parts.rglob("*.png")).read_bytes()
    words = (run / "r.onnx", "--no-train", "--max-disk", "64")
    with studio(*words, folder=folder) as killed:
        first, _ = json.loads(upload(killed, ("a.png", picture), ("b.png", picture + b" ")).body)
        call(killed, "inspect", file_arguments(first), "", "")
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        abandoned = list(killed.temporary.glob("inspect-kd-*"))
    with studio(*words, folder=folder, PYTHONPATH=path, HOST_LOG=str(host_log)) as server:
        yield RestartedStudio(server, abandoned, host_log)


@pytest.fixture
def server(restarted_studio: RestartedStudio) -> Server:
    return restarted_studio.server


@pytest.fixture(scope="module")
def proxied_studio(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Studio with a password and two public names, as behind a reverse proxy."""
    names = "studio.example Line.example:8443"
    environment = {"INSPECT_KD_AUTH": "ada:secret", "INSPECT_KD_ALLOW_HOST": names, "FORWARDED_ALLOW_IPS": "127.0.0.1"}
    with studio(run / "r.onnx", "--no-train", folder=tmp_path_factory.mktemp("proxied"), **environment) as server:
        yield server


def ask(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Send one request; underscores in header names become hyphens."""
    http_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=60)) as connection:
        connection.request(method, path, body, http_headers)
        answer = connection.getresponse()
        return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())


def multipart(*files: tuple[str, bytes]) -> bytes:
    head = "--x\r\nContent-Disposition: form-data; name=files; filename="
    return b"".join(f"{head}{name}\r\n\r\n".encode() + content + b"\r\n" for name, content in files) + b"--x--\r\n"


def upload(server: Server, *files: tuple[str, bytes], **headers: str) -> Answer:
    return ask(server, "POST", "/gradio_api/upload", multipart(*files), **MULTIPART, **headers)


def call(server: Server, endpoint: str, *data: object) -> str:
    """Call an endpoint; return its events as text."""
    body = json.dumps({"data": data, "session_hash": SESSION}).encode()
    event = json.loads(ask(server, "POST", f"/gradio_api/call/{endpoint}", body, **JSON).body)["event_id"]
    return ask(server, "GET", f"/gradio_api/call/{endpoint}/{event}").body.decode()


def file_arguments(*paths: str) -> list[dict[str, object]]:
    return [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]


def uploaded_files(server: Server) -> list[Path]:
    """Non-empty files of uploads on disk."""
    folders = server.temporary.glob("inspect-kd-received-*")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return [path for path in files if "shown" not in path.parts]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# Hosts and origins


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "10.1.2.3", ""])
def test_foreign_host_is_refused_on_every_route(server: Server, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", SAVE_CALIBRATION), ("POST", "/gradio_api/upload")):
        answer = ask(server, method, path, b"{}" if method == "POST" else None, Host=host)
        assert (answer.status, b"--allow-host" in answer.body) == (403, True), (method, path)


def test_loopback_names_are_accepted(server: Server) -> None:
    port = server.address.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert ask(server, "GET", "/", Host=host, Origin=f"http://{host.lower()}").status == 200


@pytest.mark.parametrize(
    "foreign_headers",
    [
        {"Origin": FOREIGN_ORIGIN},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_page_of_another_origin_changes_nothing(server: Server, foreign_headers: dict[str, str]) -> None:
    before = uploaded_files(server)
    answers = [
        ask(server, "POST", SAVE_CALIBRATION, SIGN_OFF, Content_Type="text/plain", **foreign_headers),
        ask(server, "POST", SAVE_CALIBRATION, SIGN_OFF, **JSON, **foreign_headers),
        ask(server, "POST", "/gradio_api/run/save_calibration", SIGN_OFF, **JSON, **foreign_headers),
        ask(server, "POST", "/gradio_api/queue/join", SIGN_OFF, **JSON, **foreign_headers),
        ask(server, "GET", "/logout", **foreign_headers),
        upload(server, ("a.png", b"x"), **foreign_headers),
    ]
    assert [answer.status for answer in answers] == [403] * len(answers)
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)
    assert uploaded_files(server) == before and not (server.store / "calibrations").exists()


def test_foreign_origin_gets_no_cors_permission(server: Server) -> None:
    preflight = {"Origin": FOREIGN_ORIGIN, "Access_Control_Request_Method": "POST"}
    for host in ({}, {"Host": "studio.example"}):
        answer = ask(server, "OPTIONS", SAVE_CALIBRATION, **preflight, **host)
        assert answer.status == 403 and "access-control-allow-origin" not in answer.headers


def test_own_page_and_programs_are_accepted(server: Server, parts: Path) -> None:
    own = {"Origin": server.address, "Sec_Fetch_Site": "same-origin"}
    picture = next(parts.rglob("*.png")).read_bytes()
    for headers in (own, {}, {"Sec_Fetch_Site": "none"}):
        answer = upload(server, ("part.png", picture), **headers)
        assert answer.status == 200
        assert '"score"' in call(server, "inspect", file_arguments(*json.loads(answer.body)), "", "")


def test_link_on_another_site_opens_the_page_only(server: Server) -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask(server, "GET", "/", **link).status == 200
    assert ask(server, "GET", "/", **(link | {"Sec_Fetch_Dest": "iframe"})).status == 403
    assert [ask(server, "GET", path, **link).status for path in ("/config", "/logout")] == [403, 403]


def test_every_response_has_the_security_headers(server: Server) -> None:
    for path, headers in (("/", {}), ("/theme.css", {}), ("/missing", {}), ("/", {"Host": "evil.example"})):
        sent_headers = ask(server, "GET", path, **headers).headers
        policy = dict(rule.split(" ", 1) for rule in sent_headers["content-security-policy"].split("; "))
        assert policy["frame-ancestors"] == policy["object-src"] == policy["script-src-attr"] == "'none'"
        assert policy["default-src"] == "'self'" and "http" not in sent_headers["content-security-policy"]
        assert (sent_headers["x-frame-options"], sent_headers["x-content-type-options"]) == ("DENY", "nosniff")


def test_foreign_page_cannot_use_a_login(proxied_studio: Server) -> None:
    cookie = {"Cookie": login(proxied_studio, "secret").headers["set-cookie"].partition(";")[0]}
    public_host, local_host = {"Host": "studio.example"}, {}
    for host in (public_host, local_host):
        answer = ask(
            proxied_studio, "POST", SAVE_CALIBRATION, SIGN_OFF, **JSON, **cookie, **host, Origin=FOREIGN_ORIGIN
        )
        assert answer.status == 403 and "access-control-allow-origin" not in answer.headers
    assert not (proxied_studio.store / "calibrations").exists()
    for host, origin in (
        (public_host, "https://studio.example"),
        (local_host, "https://studio.example"),
        ({"Host": "studio.example:443"}, "https://studio.example"),
        (local_host, "https://line.example:8443"),
    ):
        assert (
            ask(proxied_studio, "POST", SAVE_CALIBRATION, SIGN_OFF, **JSON, **cookie, **host, Origin=origin).status
            == 200
        )
    wait_for(lambda: len(list((proxied_studio.store / "calibrations").glob("*.json"))) == 4)


# Served and fetched files


@pytest.mark.parametrize(
    "name", ["file=https://outside.invalid/a.png", "file=http://outside.invalid", "proxy=https://outside.invalid/"]
)
def test_file_route_fetches_nothing_from_other_hosts(restarted_studio: RestartedStudio, name: str) -> None:
    assert ask(restarted_studio.server, "GET", f"/gradio_api/{name}").status == 403
    assert "outside.invalid" not in restarted_studio.host_log.read_text()


@pytest.mark.parametrize("url", [None, "https://outside.invalid/b.png", "data:image/png;base64,aGVsbG8="])
def test_event_fetches_no_file_from_other_hosts(restarted_studio: RestartedStudio, url: str | None) -> None:
    for endpoint, before, after in (("inspect", [], ["", ""]), ("card", [], []), ("save_calibration", [], [1.0, 2.0])):
        file = {"path": "https://outside.invalid/a.png", "url": url, "meta": {"_type": "gradio.FileData"}}
        hidden = {"path": "x", "inner": file}  # a file inside a value that looks like a file
        for given in ([file], file, [hidden]):
            assert "event: error" in call(restarted_studio.server, endpoint, *before, given, *after)
    assert "outside.invalid" not in restarted_studio.host_log.read_text()


def test_uploads_are_not_served(server: Server, parts: Path) -> None:
    picture = next(parts.rglob("*.png")).read_bytes()
    (path,) = json.loads(upload(server, ("secret.png", picture)).body)
    assert Path(path).read_bytes() == picture
    for route in (f"file={path}", f"file/{path}", f"file={path.replace('uploads', 'shown/../uploads')}"):
        assert ask(server, "GET", f"/gradio_api/{route}").status in (403, 404)
    # Clean up: inspecting an upload removes it.
    call(server, "inspect", file_arguments(path), "", "")


# Uploads


def test_upload_is_removed_after_it_was_read(server: Server, parts: Path) -> None:
    picture = next(parts.rglob("*.png")).read_bytes()
    before = uploaded_files(server)
    paths = json.loads(upload(server, ("a.png", picture), ("a.png", picture), ("b.txt", b"no image")).body)
    other = json.loads(upload(server, ("a.png", picture)).body)
    assert len({*paths, *other}) == 4, "no two uploads share a file"
    answer = call(server, "inspect", file_arguments(*paths), "", "")
    assert answer.count('"score"') == 2 and "not a readable image" in answer
    assert not any(Path(path).exists() for path in paths) and Path(other[0]).exists()
    assert '"score"' in call(server, "inspect", file_arguments(*other), "", "")
    assert "send it again" in call(server, "inspect", file_arguments(*other), "", "")
    assert set(uploaded_files(server)) <= set(before)


def test_uploads_count_in_the_disk_limit(server: Server) -> None:
    first = upload(server, ("a.png", bytes(40 * 2**20)))
    assert first.status == 200
    second = upload(server, ("b.png", bytes(40 * 2**20)))
    assert second.status == 413 and b"no room left" in second.body
    call(server, "inspect", file_arguments(*json.loads(first.body)), "", "")
    assert not [path for path in uploaded_files(server) if path.stat().st_size > 2**20]
    third = upload(server, ("c.png", bytes(40 * 2**20)))
    assert third.status == 200
    call(server, "inspect", file_arguments(*json.loads(third.body)), "", "")


def has_large_upload(server: Server) -> bool:
    """Whether more than half a megabyte of an upload is on the disk; the Studio may remove files meanwhile."""
    for path in uploaded_files(server):
        with suppress(FileNotFoundError):
            if path.stat().st_size > 2**19:
                return True
    return False


def test_aborted_upload_leaves_nothing(server: Server) -> None:
    with closing(http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=60)) as connection:
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Type", MULTIPART["Content-Type"])
        connection.putheader("Content-Length", str(2**22))
        connection.endheaders(multipart(("a.png", bytes(2**21)))[:-20])
        wait_for(lambda: has_large_upload(server))
    wait_for(lambda: not has_large_upload(server))


def test_next_start_removes_the_folders_of_a_killed_studio(restarted_studio: RestartedStudio) -> None:
    assert len(restarted_studio.abandoned_folders) == 2
    assert not any(folder.exists() for folder in restarted_studio.abandoned_folders)


# Logins


def login(server: Server, password: str, **headers: str) -> Answer:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return ask(
        server, "POST", "/login", urlencode({"username": "ada", "password": password}).encode(), **form, **headers
    )


def test_wrong_logins_are_slowed_down(proxied_studio: Server) -> None:
    address, other = {"X_Forwarded_For": "10.0.0.1"}, {"X_Forwarded_For": "10.0.0.2"}  # as the proxy reports them
    assert all(login(proxied_studio, "secret", **address).status == 200 for _ in range(20)), (
        "correct logins are not limited"
    )
    assert [login(proxied_studio, f"wrong {number}", **address).status for number in range(20)] == [400] * 10 + [
        429
    ] * 10
    refused = login(proxied_studio, "secret", **address)
    assert refused.status == 429 and 0 < int(refused.headers["retry-after"]) <= 30
    assert ask(proxied_studio, "POST", "/login/", b"", **JSON, **address).status == 429
    assert login(proxied_studio, "secret", **other).status == 200, "another address is not locked out"
