"""Locks name their holder, are released by a kill, follow no planted link and leave no file behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inspect_kd.errors import EnvironmentFault
from inspect_kd.file_lock import hold_lock

HOLDER = """
import sys, time
from pathlib import Path
from inspect_kd.file_lock import hold_lock
with hold_lock(Path(sys.argv[1]), "it", "wait"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_lock_names_its_holder_and_is_released_by_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "run" / ".lock"
    holder = subprocess.Popen([sys.executable, "-P", "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        message = rf"^runs/r is in use by process {holder.pid} on {socket.gethostname()} since 20\d\d-\S+: wait$"
        with pytest.raises(EnvironmentFault, match=message), hold_lock(file, "runs/r", "wait"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert file.is_file(), "a killed process leaves its lock file"
    with hold_lock(file, "runs/r", "wait"):
        assert json.loads(file.read_bytes())["pid"] == os.getpid()
    assert list(file.parent.iterdir()) == [], "no file is left in an existing folder"


def test_folder_with_other_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    with hold_lock(tmp_path / "run" / ".lock", "it", "wait"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with (
        pytest.raises(EnvironmentFault, match=r"\.lock: no lock could be taken"),
        hold_lock(tmp_path / ".lock", "it", "wait"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"pid": "x", "host": 1, "since": 2}', b"\xff" * 9999])
def test_broken_lock_file_still_locks(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with hold_lock(file, "it", "wait"):
        file.write_bytes(text)
        with (
            pytest.raises(EnvironmentFault, match=r"^it is in use by another process: wait$"),
            hold_lock(file, "it", "wait"),
        ):
            pass


def test_recreated_folder_can_be_locked_again(tmp_path: Path) -> None:
    file = tmp_path / "run" / ".lock"
    with hold_lock(file, "it", "wait"):
        file.unlink()
        file.parent.rmdir()
        with hold_lock(file, "it", "wait"):
            pass
        assert not file.exists()


def test_hard_link_pipe_and_folder_are_refused_unchanged(tmp_path: Path) -> None:
    file, precious = tmp_path / ".lock", tmp_path / "precious"
    precious.write_text("precious")

    def refused() -> None:
        with (
            pytest.raises(EnvironmentFault, match=r"\.lock: (no lock|a pipe, a device or a hard link)"),
            hold_lock(file, "it", "wait"),
        ):
            pass

    file.hardlink_to(precious)
    refused()
    file.unlink()
    os.mkfifo(file)
    refused()
    file.unlink()
    file.mkdir()
    refused()
    assert precious.read_text() == "precious"


def test_existing_empty_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with hold_lock(tmp_path / "run" / ".lock", "it", "wait"):
        pass
    assert (tmp_path / "run").is_dir()


def test_refusal_waits_until_a_holder_has_written_its_name(tmp_path: Path) -> None:
    """Of two processes started at once the second may read the file between the first's locking and writing."""
    file = tmp_path / ".lock"
    with hold_lock(file, "it", "wait"):
        holder = file.read_bytes()
        file.write_bytes(b"")
        timer = threading.Timer(0.3, file.write_bytes, [holder])
        timer.start()
        with (
            pytest.raises(EnvironmentFault, match=rf"^it is in use by process {os.getpid()} on "),
            hold_lock(file, "it", "wait"),
        ):
            pass
        timer.join()
