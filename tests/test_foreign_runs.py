"""Foreign and broken runs are refused in one line, and nothing in them is executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from inspect_kd.cli.demo import remove_earlier_demo
from inspect_kd.datasets import open_for_recipe
from inspect_kd.datasets.drawn import draw_sample
from inspect_kd.errors import BadInput
from inspect_kd.training import artifacts, checkpoint
from inspect_kd.training.metrics_log import begin_log, open_log
from inspect_kd.training.pipeline import finish_run
from inspect_kd.training.run import RunFolder, load_run
from inspect_kd.types import NoProgress
from inspect_kd.work_folder import MARKER
from tests.builders import edit_recipe, make_job
from tests.small_models import Evil


@pytest.fixture
def copied_run(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "r")


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "run.json").read_text())
    edit(content)
    (folder / "run.json").write_text(json.dumps(content))


def set_encoder(folder: Path, name: str, **arguments: object) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("encoder: embedded", f"encoder: {name}"))
    from inspect_kd import weights

    def edit(content: dict[str, Any]) -> None:
        content["encoder"] |= {"name": name, "build": arguments}
        content["files"]["recipe.yaml"] = weights.sha256(recipe)

    edit_manifest(folder, edit)


def test_encoder_of_a_foreign_run_loads_no_file(copied_run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (copied_run / "evil.pth").write_bytes(pickle.dumps(Evil(marker)))
    set_encoder(copied_run, "resnet18", checkpoint_path=str(copied_run / "evil.pth"))
    with pytest.raises(BadInput, match=r"encoder 'resnet18': model arguments .*checkpoint_path"):
        load_run(copied_run)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["hf-hub:evil/model", "local-dir:/nowhere"])
def test_encoder_of_a_foreign_run_is_not_downloaded(
    name: str, copied_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    set_encoder(copied_run, f"'{name}'")
    edit_manifest(copied_run, lambda content: content["encoder"].update(name=name))
    with pytest.raises(BadInput, match=f"no encoder named '{name}'"):
        load_run(copied_run)


MANIFEST_EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "files": lambda content: content.pop("files"),
    "data": lambda content: content.update(data=5),
    "encoder: missing": lambda content: content.pop("encoder"),
    "unknown key 'more'": lambda content: content["encoder"].update(more=1),
    "the run's encoder is resnet18": lambda content: content["encoder"].update(name="resnet18"),
}
"""A part of the message → the edit of the manifest that causes it."""


@pytest.mark.parametrize("error", MANIFEST_EDITS)
def test_broken_manifest_is_refused_in_one_line(error: str, copied_run: Path) -> None:
    edit_manifest(copied_run, MANIFEST_EDITS[error])
    with pytest.raises(BadInput, match=error) as raised:
        load_run(copied_run)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"files": {}, "files": {}}'])
def test_manifest_that_is_not_a_json_object_is_refused(text: str, copied_run: Path) -> None:
    (copied_run / "run.json").write_text(text)
    with pytest.raises(BadInput, match=r"run\.json: .*train the run again"):
        load_run(copied_run)


def test_weights_of_another_student_are_refused(copied_run: Path) -> None:
    from safetensors.torch import save_file

    from inspect_kd import weights

    save_file({"a": torch.zeros(1)}, copied_run / "student.safetensors")
    digest = weights.sha256(copied_run / "student.safetensors")
    edit_manifest(copied_run, lambda content: content["files"].update({"student.safetensors": digest}))
    with pytest.raises(BadInput, match=r"student\.safetensors: not the weights of its recipe"):
        load_run(copied_run)


def make_safetensors(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        make_safetensors(b"[]"),
        make_safetensors(b"{}"),
        make_safetensors(b'{"__metadata__": 5}'),
        make_safetensors(b'{"__metadata__": {"progress": "[]"}}'),
    ],
)
def test_broken_checkpoint_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"checkpoint\.safetensors: .*train again") as raised:
        checkpoint.load(path, torch.nn.Linear(1, 1), None)
    assert "\n" not in str(raised.value)


def test_checkpoint_stays_until_the_manifest_is_written(copied_run: Path, parts: Path) -> None:
    finished = load_run(copied_run)
    folder = finished.folder
    folder.checkpoint.write_bytes(b"progress")
    folder.manifest.unlink()
    folder.manifest.mkdir()  # so that no file of its name can be written
    data = open_for_recipe(str(parts), finished.recipe)
    job = make_job(finished.recipe, data, folder.path, presentations=finished.presentations)
    with pytest.raises(OSError, match=r"run\.json"):
        finish_run(job, finished.model, {}, time.monotonic())
    assert folder.checkpoint.read_bytes() == b"progress"


def test_two_exports_keep_each_others_result_and_remove_abandoned_folders(copied_run: Path, parts: Path) -> None:
    pytest.importorskip("openvino")
    for name in (".inspect-kd-export-old", ".inspect-kd-export-young"):
        (copied_run / name).mkdir()
        (copied_run / name / MARKER).touch()
    (copied_run / ".export-2025").mkdir()  # the user's own folder
    for old in (".inspect-kd-export-old", ".export-2025"):
        os.utime(copied_run / old, (0, 0))
    edit_manifest(copied_run, lambda content: content.update(refused={"onnx": "missed", "openvino": "missed"}))
    runs = load_run(copied_run), load_run(copied_run)  # as in two processes that start together
    data = open_for_recipe(str(parts), runs[0].recipe)
    for finished, deployment in zip(runs, ("onnx", "openvino"), strict=True):
        artifacts.convert(finished, data, deployment, progress=NoProgress())
    manifest = json.loads((copied_run / "run.json").read_text())
    assert manifest["refused"] == {} and {"onnx", "openvino"} <= set(manifest["parity"])
    assert sorted(path.name for path in copied_run.glob(".*")) == [".export-2025", ".inspect-kd-export-young"]


@pytest.fixture
def earlier_demo(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "demo" / "parts")
    (tmp_path / "demo" / "parts" / "r.onnx").rename(tmp_path / "demo" / "parts" / "parts.onnx")
    draw_sample(tmp_path / "demo" / "sample", 0, size=64, train=1, test_good=1, per_kind=1)
    for name in ("overlays/000.jpg", "overlays/000-2.jpg", "my-run/run.json"):
        (tmp_path / "demo" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "demo" / name).touch()
    return tmp_path / "demo"


def test_demo_removes_its_own_files_and_no_other_run(earlier_demo: Path) -> None:
    remove_earlier_demo(earlier_demo)
    assert [path.name for path in earlier_demo.iterdir()] == ["my-run"]


@pytest.mark.parametrize(
    "name", ["parts/notes.txt", "parts/more/parts.onnx", "sample/my_photo.png", "overlays/line3.jpg", "sample/a/b.png"]
)
def test_demo_deletes_no_file_that_it_did_not_write(name: str, earlier_demo: Path) -> None:
    (earlier_demo / name).parent.mkdir(exist_ok=True)
    (earlier_demo / name).write_text("mine")
    before = {*earlier_demo.rglob("*")}
    with pytest.raises(BadInput, match=f"{name}: was not "):
        remove_earlier_demo(earlier_demo)
    assert {*earlier_demo.rglob("*")} == before


def test_demo_deletes_no_folder_that_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "report.html").write_text("mine")
    with pytest.raises(BadInput, match="parts: not a run"):
        remove_earlier_demo(tmp_path)
    assert (tmp_path / "parts" / "report.html").exists()


def test_teacher_of_a_foreign_run_is_not_downloaded(
    copied_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local server stands for the hub; timm's model would be fetched from it."""
    requests: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200 if self.path == "/" else 404)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    from huggingface_hub import constants

    from inspect_kd.models.encoders import weights_available

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INSPECT_KD_WEIGHTS", raising=False)
    teacher = {"build": "memory", "encoder": "resnet18"}
    edit_recipe(copied_run, lambda recipe: recipe.update(student={}, teacher=teacher, distill={}))
    (copied_run / "student.safetensors").rename(copied_run / "teacher.safetensors")

    def rename_weights(content: dict[str, Any]) -> None:
        content["files"]["teacher.safetensors"] = content["files"].pop("student.safetensors")

    edit_manifest(copied_run, rename_weights)
    try:
        with pytest.raises(BadInput, match="not on this machine, and loading a run downloads nothing"):
            load_run(copied_run)
        assert requests == [] and constants.HF_HUB_OFFLINE is False
        assert weights_available("resnet18") and requests  # the server would have been asked
    finally:
        server.shutdown()
        server.server_close()


def test_teacher_of_a_foreign_run_does_not_fill_the_memory(copied_run: Path) -> None:
    teacher = {"build": "memory", "encoder": "embedded", "rows": 10**9}
    edit_recipe(copied_run, lambda recipe: recipe.update(student={}, teacher=teacher, distill={}))
    (copied_run / "student.safetensors").rename(copied_run / "teacher.safetensors")

    def rename_weights(content: dict[str, Any]) -> None:
        content["files"]["teacher.safetensors"] = content["files"].pop("student.safetensors")

    edit_manifest(copied_run, rename_weights)
    with pytest.raises(BadInput, match="builds more than"):
        load_run(copied_run)


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_link_in_place_of_the_log_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    log = RunFolder(tmp_path).metrics
    log.symlink_to("victim")
    begin_log(log)
    with open_log(log) as lines:
        lines.write("{}\n")
    assert (tmp_path / "victim").read_text() == "precious" and log.read_text() == "{}\n"


def test_link_that_replaces_the_log_later_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    for plant in (Path.symlink_to, Path.hardlink_to):
        plant(tmp_path / "metrics.jsonl", tmp_path / "victim")
        with pytest.raises(BadInput, match="in the place of the log"):
            open_log(tmp_path / "metrics.jsonl")
        (tmp_path / "metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(BadInput, match="in the place of the log"):
        open_log(tmp_path / "metrics.jsonl")
    assert (tmp_path / "victim").read_text() == "precious"


def test_resume_keeps_readable_lines_up_to_the_checkpoint(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b'{"step": 1}\n\0\0\0\n[1]\nnone\n{"step": 2}\n{"step": 3}\n{"step": 2}')
    begin_log(log, steps=2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'
