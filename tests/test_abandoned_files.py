"""Clean-up removes only files of killed processes, and nothing is written through links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inspect_kd import atomic_write
from inspect_kd.work_folder import MARKER, work_folder


def make_old(path: Path) -> None:
    os.utime(path, (0, 0))


def test_work_folder_removes_only_marked_and_old_folders_of_its_purpose(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in ("export-old", "export-young", "teacher-old", "export-unmarked"):
        (tmp_path / f".inspect-kd-{name}").mkdir()
        if name != "export-unmarked":
            (tmp_path / f".inspect-kd-{name}" / MARKER).touch()
        if name != "export-young":
            make_old(tmp_path / f".inspect-kd-{name}")
    outside.mkdir()
    (outside / MARKER).touch()
    (tmp_path / ".inspect-kd-export-link").symlink_to(outside)
    os.utime(tmp_path / ".inspect-kd-export-link", (0, 0), follow_symlinks=False)
    with work_folder(tmp_path, "export") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".inspect-kd-export-link",
        ".inspect-kd-export-unmarked",
        ".inspect-kd-export-young",
        ".inspect-kd-teacher-old",
        "outside",
    ]


@pytest.mark.parametrize("name", ["film.mp4.partial", ".download.partial", ".a.0123456789abcdef.part.partial"])
def test_partial_files_of_other_programs_are_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a download")
    make_old(tmp_path / name)
    atomic_write.remove_abandoned(tmp_path)
    assert (tmp_path / name).exists()


SWAP_BEFORE_REOPENING = """
import os, sys
from pathlib import Path
from inspect_kd import atomic_write
from inspect_kd.work_folder import MARKER, work_folder

folder, victim = Path(sys.argv[1]), sys.argv[2]

def swap(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".partial") and os.path.lexists(arguments[0]):
        os.unlink(arguments[0])
        os.symlink(victim, arguments[0])

sys.addaudithook(swap)
atomic_write.write_bytes(folder / "metrics.jsonl", b"new content")
"""


def test_partial_file_is_opened_only_once(tmp_path: Path) -> None:
    """If it were opened by name a second time, another user of the folder could first put a link in its place."""
    victim, shared = tmp_path / "victim", tmp_path / "shared"
    victim.write_text("precious")
    shared.mkdir()
    command = [sys.executable, "-c", SWAP_BEFORE_REOPENING, str(shared), str(victim)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert victim.read_text() == "precious"
    assert (shared / "metrics.jsonl").read_bytes() == b"new content"


def test_partial_file_is_written_through_its_handle(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with atomic_write.partial_file(tmp_path / "a.png") as partial:
        (partial_path,) = tmp_path.glob(".a.png.*.partial")
        partial_path.unlink()
        partial_path.symlink_to(victim)
        partial.write(b"an image")
    assert victim.read_text() == "precious"
