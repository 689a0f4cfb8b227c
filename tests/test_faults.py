"""Faults of the operating system and Ctrl-C: one line, an exit code, no files left behind.

A limit on the size of files (RLIMIT_FSIZE) imitates a full disk: it needs no permissions, and raises the same kind of error from
the same call.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzzing import graphs
from tests.tiny import command

PROGRAM = [sys.executable, "-m", "inspect_kd"]
LONG_NAME = "a" * 5000


def prepare_child(max_file_bytes: int | None) -> Callable[[], None]:
    """Return a function that limits the size of a child's files, and enables Ctrl-C even if the tests run in the background."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    return prepare


def call(*arguments: str | Path, max_file_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=prepare_child(max_file_bytes),
    )


def get_error_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the error line of a program that failed with the exit code 4."""
    assert result.returncode == 4, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert "Traceback" not in result.stderr
    assert lines[-1].startswith("inspect-kd: ")
    return lines[-1]


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_key_on_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    key = tmp_path / "quality.pem"
    assert get_error_line(call("keygen", "--no-locked", key, max_file_bytes=50)).startswith(
        f"inspect-kd: {key}: File too large"
    )
    assert list_files(tmp_path) == []
    assert call("keygen", "--no-locked", key).returncode == 0


def test_signature_on_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    key, artifact = tmp_path / "quality.pem", tmp_path / "part.onnx"
    artifact.write_bytes(graphs.artifact().SerializeToString())
    assert call("keygen", "--no-locked", key).returncode == 0
    before = list_files(tmp_path)
    assert "part.onnx.sig: File too large" in get_error_line(call("sign", artifact, "--key", key, max_file_bytes=50))
    assert list_files(tmp_path) == before


def test_sign_off_on_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom inspect_kd.sign_off import SignOff\nfrom inspect_kd.types import Thresholds\n"
        "thresholds = Thresholds(reinspect=0.5, reject=1.0)\n"
        "SignOff(by='Ada', thresholds=thresholds, default_thresholds=thresholds, artifact='part', sha256='0' * 64).write(Path(sys.argv[1]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=prepare_child(50),
    )
    assert "OSError" in result.stderr and "File too large" in result.stderr
    assert list_files(tmp_path / "store") == []


def test_recipe_copied_to_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    assert get_error_line(call("cp", "models", "omni_ad", copy, max_file_bytes=50)).startswith(
        f"inspect-kd: {copy}: File too large"
    )
    assert list_files(tmp_path) == []


def test_data_set_drawn_on_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    line = get_error_line(call("data", "draw", "--to", tmp_path / "parts", max_file_bytes=1000))
    assert ".png: File too large" in line
    assert list_files(tmp_path) == []


def test_training_on_a_full_disk_names_the_file(parts: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        command(parts, tmp_path), capture_output=True, text=True, check=False, preexec_fn=prepare_child(20_000)
    )
    assert f"{tmp_path / 'r' / 'checkpoint.safetensors'}: File too large" in get_error_line(result)


def test_every_part_is_inspected_when_overlays_fill_the_disk(run: Path, parts: Path, tmp_path: Path) -> None:
    images = sorted((parts / "board" / "test" / "good").iterdir())
    result = call("predict", run, *images, "--overlays", tmp_path / "out", max_file_bytes=300)
    assert f"{tmp_path / 'out' / images[0].stem}.jpg: File too large" in get_error_line(result)
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == [str(path) for path in images]
    assert list_files(tmp_path / "out") == []


def test_label_next_can_be_repeated_after_a_full_disk(run: Path, parts: Path, tmp_path: Path) -> None:
    arguments = ("label-next", run, parts / "board" / "test" / "good", "-n", "2", "--out", tmp_path / "to_label")
    assert f"{tmp_path / 'to_label' / '001_'}" in get_error_line(call(*arguments, max_file_bytes=300))
    assert call(*arguments).returncode == 0
    assert len(list_files(tmp_path / "to_label")) == 2


def test_full_disk_is_not_reported_as_a_broken_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("part.png", bytes(5000))
    digest = hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    downloaded = tmp_path / "home" / "downloads" / f"{digest[:16]}-a.zip"
    downloaded.parent.mkdir(parents=True)
    (tmp_path / "a.zip").rename(downloaded)
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntitle: Mine\nlicence: {name: x, commercial: true}\n"
        f"source: {{archives: [{{url: 'http://127.0.0.1/a.zip', sha256: '{digest}'}}]}}\n"
    )
    result = subprocess.run(
        [*PROGRAM, "data", "get", str(tmp_path / "mine.yaml"), "--yes"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=prepare_child(1000),
        env=os.environ | {"INSPECT_KD_DATA": str(tmp_path / "home")},
    )
    assert "part.png: File too large" in get_error_line(result)


@pytest.mark.parametrize(("arguments", "unbuffered"), [(["version"], ""), (["data", "ls"], "1"), (["--help"], "")])
def test_output_that_cannot_be_written_exits_with_4(arguments: list[str], unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    assert "the output could not be written: No space left on device" in get_error_line(result)


@pytest.mark.parametrize("arguments", [["version"], ["data", "ls"]], ids=" ".join)
def test_closed_pipe_exits_with_4(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert get_error_line(result) == "inspect-kd: stopped: the program that read the output has closed it"


@pytest.mark.parametrize(
    "arguments", [["verify", LONG_NAME], ["data", "check", LONG_NAME]], ids=lambda arguments: arguments[0]
)
def test_argument_of_5000_characters_exits_with_4(arguments: list[str]) -> None:
    line = get_error_line(call(*arguments))
    assert line.endswith("File name too long; shorten it") and len(line) < 500


def test_folder_that_cannot_be_created_exits_with_4(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}" in get_error_line(
        call("keygen", "--no-locked", tmp_path / "file" / "keys" / "quality.pem")
    )


def test_full_stderr_does_not_change_the_exit_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*PROGRAM, "verify", str(tmp_path / "none.onnx")], stderr=full, check=False)
    assert result.returncode == 3


def test_interrupted_predict_prints_its_summary(run: Path, parts: Path) -> None:
    image = next((parts / "board" / "test" / "good").iterdir())
    with subprocess.Popen(
        [*PROGRAM, "predict", str(run), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare_child(None),
    ) as child:
        assert child.stdin and child.stdout and child.stderr
        child.stdin.write(f"{image}\n")
        child.stdin.flush()
        decision = json.loads(child.stdout.readline())["decision"]
        child.send_signal(signal.SIGINT)
        lines = child.stderr.read().splitlines()
        assert child.wait() == 130
    assert lines[0] == f"1 {decision}"
    assert lines[1].startswith("inspect-kd: stopped")
