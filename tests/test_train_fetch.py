"""`inspect-kd train` on a named data set that is not on this machine: it asks on a terminal, or downloads with `--fetch`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import inspect_kd
from inspect_kd.datasets.manifest import Manifest, load_manifest
from inspect_kd.errors import EnvironmentFault, UsageError
from tests.archive_server import Server, make_zip, serve_archive
from tests.tiny import TINY, command

QUESTION = "Accept the licence and download it now? [y/N]:"
ON_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
"""Runs a program on a pseudo-terminal, which is its controlling one: Ctrl-C reaches it as from a keyboard."""


pytestmark = pytest.mark.usefixtures("data_home")


@pytest.fixture
def manifest(archive_server: Server, parts: Path, tmp_path: Path) -> Path:
    """A manifest of unknown size and restricted licence; its archive holds one category in MVTec's layout."""
    files = [path for path in (parts / "metal").rglob("*") if path.is_file()]
    archive = make_zip(**{str(path.relative_to(parts)): path.read_bytes() for path in files})
    served = serve_archive(archive_server, archive).model_dump()
    licence = {"name": "CC BY-NC-SA 4.0", "url": "https://example.org/licence", "commercial": False}
    content = served | {"name": "small", "title": "Small MVTec", "licence": licence, "layout": "mvtec"}
    content["source"]["archives"] = list(content["source"]["archives"])
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.shown = ""

    def read_until(self, text: str) -> None:
        """Read until the command has shown this text; an empty text means until its end."""
        assert self.process.stdout is not None
        end = time.monotonic() + 300
        while not text or text not in self.shown:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"'{text}' was not shown: {self.shown}"
            block = os.read(self.process.stdout.fileno(), 4096)
            if not block:
                break
            self.shown += block.decode(errors="replace")

    def answer(self, keys: bytes) -> int:
        """Wait for the question, press some keys, and return the exit code."""
        self.read_until(QUESTION)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(keys)
        self.process.stdin.flush()
        self.read_until("")
        code = self.process.wait(60)
        self.process.stdin.close()
        self.process.stdout.close()
        return code


def call(*words: str, answers: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=answers, capture_output=True, text=True, check=False)


def test_train_downloads_a_named_data_set_and_trains_in_one_command(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path
) -> None:
    answer = call(*command(manifest, tmp_path / "runs", "--fetch", "--json"))
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert Path(result["run"], "r.onnx").is_file() and "image_auroc" in result["metrics"]["mean"]
    assert result["data"]["source"] == str(manifest)
    assert archive_server.ranges == [None] and (data_home / "small" / "metal" / "train" / "good").is_dir()
    assert "Small MVTec: CC BY-NC-SA 4.0 https://example.org/licence" in answer.stderr
    assert "NOT for commercial use" in answer.stderr and "size: unknown" in answer.stderr
    lines = [json.loads(line) for line in answer.stderr.splitlines() if line.startswith("{")]
    last = [line for line in lines if line.get("phase") == "download"][-1]
    assert last["done"] == last["total"] == len(archive_server.content)
    assert "on this machine" not in answer.stderr and QUESTION not in answer.stderr


@pytest.mark.parametrize(("answers", "more"), [("", ()), ("y\n", ("--dry-run",))], ids=["train", "dry run"])
def test_without_the_option_and_a_terminal_nothing_is_downloaded(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path, answers: str, more: tuple[str, ...]
) -> None:
    answer = call(*command(manifest, tmp_path / "runs", *more), answers=answers)
    assert answer.returncode == 4 and answer.stdout == ""
    line = f"the images of 'small' are not at {data_home / 'small'}: `inspect-kd data get small` downloads them"
    assert line in answer.stderr and QUESTION not in answer.stderr
    assert archive_server.ranges == [] and not data_home.exists() and not (tmp_path / "runs").exists()


def test_no_at_the_question_downloads_nothing(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path
) -> None:
    terminal = Terminal(command(manifest, tmp_path / "runs"))
    assert terminal.answer(b"n\n") == 2
    before_question, _, after_answer = terminal.shown.partition(QUESTION)
    for text in ("Small MVTec: CC BY-NC-SA 4.0", "NOT for commercial use", "size: unknown", str(data_home / "small")):
        assert text in before_question.replace("\r\n", "\n")
    assert "Small MVTec was not downloaded: the licence was not accepted; --fetch accepts it" in after_answer
    assert archive_server.ranges == [] and not data_home.exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("keys", "code", "message"),
    [(b"\x03", 130, "stopped at the question: nothing was downloaded"), (b"\x04", 2, "before a question was answered")],
    ids=["Ctrl-C", "Ctrl-D"],
)
def test_question_can_be_interrupted(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path, keys: bytes, code: int, message: str
) -> None:
    terminal = Terminal(command(manifest, tmp_path / "runs"))
    assert terminal.answer(keys) == code
    assert message in terminal.shown and "--resume" not in terminal.shown
    assert archive_server.ranges == [] and not data_home.exists()


def test_yes_at_the_question_downloads_with_a_bar_and_goes_on(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path
) -> None:
    """The unknown category stops the command when it opens the downloaded images."""
    terminal = Terminal(command(manifest, tmp_path / "runs", "--set", "data.categories=[rivet]"))
    assert terminal.answer(b"y\n") == 2
    assert "no category rivet; there are: metal" in terminal.shown
    assert (
        "download" in terminal.shown
        and f"{len(archive_server.content)}/{len(archive_server.content)}" in terminal.shown
    )
    assert (data_home / "small" / "metal").is_dir()


def test_dry_run_describes_the_download_and_writes_nothing(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path
) -> None:
    answer = call(*command(manifest, tmp_path / "runs", "--fetch", "--dry-run", "--json"))
    assert answer.returncode == 0, answer.stderr
    plan = json.loads(answer.stdout)
    assert plan["samples"] == {} and plan["parameters"]["trainable"] > 0 and plan["recipe"]["data"]["size"] == 64
    assert plan["downloads"] == [
        {
            "name": "small",
            "title": "Small MVTec",
            "licence": "CC BY-NC-SA 4.0",
            "commercial": False,
            "size": None,
            "folder": str(data_home / "small"),
        }
    ]
    answer = call(*command(manifest, tmp_path / "runs", "--fetch", "--dry-run"))
    assert "'small' is not on this machine; the training would first download it:" in answer.stdout
    assert "    NOT for commercial use" in answer.stdout and "(dry run: nothing was written)" in answer.stdout
    assert archive_server.ranges == [] and not data_home.exists() and not (tmp_path / "runs").exists()


def test_wrong_recipe_is_refused_before_the_download(archive_server: Server, manifest: Path, tmp_path: Path) -> None:
    answer = call(*command(manifest, tmp_path / "runs", "--fetch", "--set", "fit.steps=many"))
    assert answer.returncode == 2 and "fit.steps" in answer.stderr and archive_server.ranges == []


def test_data_set_that_must_be_downloaded_by_hand_gets_its_instructions(tmp_path: Path) -> None:
    answer = call(*command(Path("mpdd"), tmp_path / "runs", "--fetch"))
    assert (
        answer.returncode == 4 and "MPDD must be downloaded by hand. Download MPDD from its homepage" in answer.stderr
    )
    assert "data get" not in answer.stderr and QUESTION not in answer.stderr


def test_interrupted_download_says_how_to_finish_it(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path
) -> None:
    archive_server.may_respond.clear()
    words = command(manifest, tmp_path / "runs", "--fetch")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not archive_server.ranges and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    archive_server.may_respond.set()
    assert process.returncode == 130, shown
    assert "the download of Small MVTec is not complete; run the command again to finish it" in shown
    assert "--resume" not in shown
    assert [path for path in data_home.rglob("*") if path.is_file()] == [] and not (data_home / "small").exists()


def test_python_api_downloads_only_with_fetch(
    archive_server: Server, manifest: Path, data_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*TINY, "data.categories=[rivet]"]
    with pytest.raises(EnvironmentFault, match="are not at"):
        inspect_kd.train(manifest, model="embedded", settings=settings, out=tmp_path / "runs")
    assert archive_server.ranges == []
    with pytest.raises(UsageError, match="no category rivet; there are: metal"):
        inspect_kd.train(manifest, model="embedded", settings=settings, out=tmp_path / "runs", fetch=True)
    assert (data_home / "small" / "metal").is_dir() and "NOT for commercial use" in capsys.readouterr().err


def test_labelled_data_set_is_downloaded_too(
    archive_server: Server, manifest: Path, parts: Path, tmp_path: Path
) -> None:
    heads = ("--set", "student.head_width=8", "--set", "distill.supervise.steps=2")
    words = command(parts, tmp_path / "runs", "--labelled", str(manifest), *heads)
    answer = call(*words)
    assert answer.returncode == 4 and "the images of 'small' are not at" in answer.stderr
    plan = call(*words, "--fetch", "--dry-run", "--json")
    assert plan.returncode == 0, plan.stderr
    assert [item["name"] for item in json.loads(plan.stdout)["downloads"]] == ["small"]
    assert json.loads(plan.stdout)["samples"].keys() >= {"metal", "board"}


def test_size_of_a_known_archive_is_shown() -> None:
    mvtec: Manifest = load_manifest("mvtec")
    assert any(line.startswith("size: 5.3 GB; folder: ") for line in mvtec.describe_download())
    assert any(line.startswith("size: unknown") for line in load_manifest("visa").describe_download())
    assert "Commercial use is allowed." in load_manifest("visa").describe_download()
