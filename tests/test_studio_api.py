"""The Studio's named endpoints, through Gradio's own client, on a server as a user starts it."""

from __future__ import annotations

import csv
import http.client
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from inspect_kd.datasets import list_samples
from inspect_kd.inspector import Inspector
from inspect_kd.sign_off import read_sign_off
from tests.studio_server import Server, need, studio, twin

ENDPOINTS = {
    "/artifacts",
    "/card",
    "/clear",
    "/decide",
    "/export",
    "/inspect",
    "/mark",
    "/parts",
    "/save_calibration",
}
ZONES_ENDPOINTS = {f"/zones_{word}" for word in ("runs", "frame", "check", "export")}
TRAINING_ENDPOINTS = {f"/train_{word}" for word in ("folders", "check", "start", "state", "stop", "resume")}


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    with studio(run / "r.onnx", twin(run / "r.onnx", folder), "--max-upload", "1", folder=folder) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Any:
    """A client with a new session."""
    need("gradio_client", True)
    from gradio_client import Client

    return Client(server.address, verbose=False)


def file_arguments(*paths: Path) -> list[Any]:
    from gradio_client import handle_file

    return [handle_file(path) for path in paths]


def images(parts: Path) -> list[Path]:
    return sorted(parts.glob("*/test/*/*.png"))[:6]


def inspect(client: Any, *paths: Path) -> list[dict[str, Any]]:
    answers = client.predict(file_arguments(*paths), "", "", api_name="/inspect")
    assert isinstance(answers, list)
    return answers


def test_endpoints_are_named_and_documented(client: Any) -> None:
    api = client.view_api(return_format="dict")
    assert (
        set(api["named_endpoints"]) == ENDPOINTS | TRAINING_ENDPOINTS | ZONES_ENDPOINTS and not api["unnamed_endpoints"]
    )
    assert all(len(endpoint["description"]) > 20 for endpoint in api["named_endpoints"].values())


def test_option_no_train_removes_the_training_endpoints(run: Path, tmp_path: Path) -> None:
    with studio(run, "--no-train", folder=tmp_path) as server:
        from gradio_client import Client

        api = Client(server.address, verbose=False).view_api(return_format="dict")
        assert set(api["named_endpoints"]) == ENDPOINTS


def test_client_inspects_decides_signs_off_marks_and_exports(
    client: Any, server: Server, run: Path, parts: Path, tmp_path: Path
) -> None:
    assert client.predict(api_name="/artifacts") == ["r", "second"]
    assert client.predict("r", api_name="/card")["name"] == Inspector(run / "r.onnx").card.name
    text_file = tmp_path / "notes.txt"
    text_file.write_text("no image")
    answers = inspect(client, *images(parts)[:3], text_file, *images(parts)[3:])
    inspector = Inspector(run / "r.onnx")
    inspected = [answer for answer in answers if "error" not in answer]
    assert [round(inspector(path).score, 6) for path in images(parts)] == [answer["score"] for answer in inspected]
    assert len(answers) == 7 and answers[3]["decision"] == "NG" and "not a readable image" in answers[3]["error"]

    scores = sorted(answer["score"] for answer in inspected)
    threshold = (scores[2] + scores[3]) / 2
    result = client.predict(threshold, threshold, api_name="/decide")
    assert result["shown"] == {"OK": 3, "RE-INSPECT": 0, "NG": 3}
    assert {result["decisions"][str(a["part"])] for a in inspected if a["score"] > threshold} == {"NG"}
    rows = client.predict(api_name="/parts")
    assert [row["score"] for row in rows if "score" in row] == scores[::-1] and rows[0]["regions"]

    saved = client.predict("Ada", threshold, threshold, api_name="/save_calibration")
    signed = read_sign_off(server.store / "calibrations" / saved["file"])
    assert signed.by == "Ada" and signed.thresholds.reject == threshold and signed.sha256 == inspector.digest

    marks = [
        client.predict(inspected[i]["part"], decision, "Ada", api_name="/mark")
        for i, decision in ((0, "OK"), (1, "NG"))
    ]
    assert [mark["wrong_call"] for mark in marks] == [
        inspected[0]["score"] > threshold,
        inspected[1]["score"] <= threshold,
    ]
    assert {sample.kind for sample in list_samples(server.store / "marked" / "r")} == {"good", "defect"}

    for file_type in ("csv", "json", "html"):
        content = Path(client.predict(file_type, api_name="/export")).read_text()
        assert "notes.txt" in content
        if file_type == "csv":
            assert len(list(csv.DictReader(content.splitlines()))) == 7
        if file_type == "json":
            assert len(json.loads(content)["parts"]) == 7
    assert client.predict(api_name="/clear") == 6 and client.predict(api_name="/parts") == []


def test_sessions_do_not_see_each_other(client: Any, server: Server, parts: Path) -> None:
    from gradio_client import Client

    inspect(client, images(parts)[0])
    assert Client(server.address, verbose=False).predict(api_name="/parts") == []
    assert len(client.predict(api_name="/parts")) == 1


@pytest.mark.parametrize(
    ("endpoint", "arguments", "reason"),
    [
        ("/card", ("../r",), "no artifact named"),
        ("/mark", (12345, "OK", "Ada"), "give the number of a part of this session"),
        ("/save_calibration", ("", 0.5, 1.0), "a person's name"),
        ("/export", ("exe",), "no export named"),
        ("/decide", ("a", 1.0), "reinspect: 'a' is not of type float"),
        ("/mark", (1.5, "OK", "Ada"), "part: 1.5 is not of type int"),
        ("/card", ([1],), "artifact: .1. is not of type str"),
        ("/train_start", ("sample", "embedded", "r", False, 1.5), "seed: 1.5 is not of type int"),
    ],
)
def test_wrong_arguments_are_explained(client: Any, endpoint: str, arguments: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        client.predict(*arguments, api_name=endpoint)


def test_refused_sign_off_changes_no_thresholds(client: Any, parts: Path) -> None:
    inspect(client, images(parts)[0])
    before = client.predict(api_name="/parts")[0]["thresholds"]
    with pytest.raises(Exception, match="a person's name"):
        client.predict("", before["reinspect"] / 2, before["reject"] / 2, api_name="/save_calibration")
    assert client.predict(api_name="/parts")[0]["thresholds"] == before


def test_paths_from_clients_are_not_opened(client: Any, server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    forged_file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    body = {"data": [[forged_file], "", ""]}
    status, answer = _post(f"{server.address}/gradio_api/call/inspect", body)
    assert status == 200
    _, events = _get(f"{server.address}/gradio_api/call/inspect/{json.loads(answer)['event_id']}")
    assert "event: error" in events and "event: complete" not in events
    for path in (
        secret,
        "/etc/passwd",
        server.store / "marks.jsonl",
        *server.temporary.glob("inspect-kd-studio-*/*/*"),
    ):
        assert _get(f"{server.address}/gradio_api/file={path}")[0] in (403, 404)
    assert _get(f"{server.address}/gradio_api/file=http://127.0.0.1:9/")[0] >= 400


def test_upload_that_is_too_large_is_refused(client: Any, server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG" + bytes(2 * 2**20))
    with pytest.raises(Exception, match="maximum"):
        inspect(client, large)
    # The client refused it. Without that check, the server refuses 200 MB.
    head = b"--x\r\nContent-Disposition: form-data; name=files; filename=large.png\r\n\r\n"
    tail, megabytes = b"\r\n--x--\r\n", 200
    host = server.address.removeprefix("http://")
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", str(len(head) + megabytes * 2**20 + len(tail)))
        connection.endheaders(head)
        with suppress(ConnectionError):  # the server need not read all of it
            for _ in range(megabytes):
                connection.send(bytes(2**20))
            connection.send(tail)
        assert connection.getresponse().status == 413
    stored_bytes = sum(path.stat().st_size for path in server.temporary.rglob("*") if path.is_file())
    assert stored_bytes < 20 * 2**20


def test_login_protects_everything_and_exit_removes_all_files(run: Path, parts: Path, tmp_path: Path) -> None:
    from gradio_client import Client

    with studio(run / "r.onnx", folder=tmp_path, INSPECT_KD_AUTH="ada:secret") as server:
        # Without the password, neither the page's configuration nor a picture is served.
        for path in ("config", "gradio_api/info", "gradio_api/file=/etc/passwd"):
            assert _get(f"{server.address}/{path}")[0] in (401, 403)
        with pytest.raises(Exception, match=r"(?i)auth|credentials|log"):
            Client(server.address, verbose=False)
        client = Client(server.address, auth=("ada", "secret"), verbose=False)
        answer = inspect(client, images(parts)[0])[0]
        client.predict(answer["part"], "NG", "somebody else", api_name="/mark")
        # The login's name is recorded, not the given one.
        assert json.loads((server.store / "marks.jsonl").read_text())["by"] == "ada"
        uploaded = list(server.temporary.glob("inspect-kd-studio-*/*/*"))
        assert uploaded
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert not list(server.temporary.glob("inspect-kd-*")), "temporary files stayed behind"


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def _post(url: str, body: dict[str, Any]) -> tuple[int, str]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read().decode()
