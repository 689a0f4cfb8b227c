"""A folder that cannot be read is an error, because its parts would not be inspected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pathlib import Path
import numpy, cv2
from inspect_kd.cli.predict import find_images
from inspect_kd.datasets import list_images
# Imported before root's rights are dropped: the packages may be unreadable afterwards.
import inspect_kd.datasets.find_images, inspect_kd.datasets.images, inspect_kd.datasets.layouts._walk
if os.geteuid() == 0:  # nothing is unreadable for root
    os.setresuid(65534, 65534, 65534)
try:
    print("found", len(list(eval(sys.argv[1]))))
except OSError as error:
    print(type(error).__name__, error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no permissions of this kind")
@pytest.mark.parametrize(
    ("call", "readable"),
    [
        ("find_images(['parts'])", 2),
        ("find_images(['parts/**/*.png'])", 2),
        ("find_images(['parts/*/*.png'])", 1),
        ("list_images(Path('parts'))", 2),
    ],
)
def test_unreadable_subfolder_is_an_error(call: str, readable: int, tmp_path: Path) -> None:
    closed = tmp_path / "parts" / "closed"
    for folder in (closed, tmp_path / "parts" / "open"):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    (tmp_path / "parts" / "b.png").touch()
    folders = (tmp_path, *list(tmp_path.parents)[:2])
    modes = [folder.stat().st_mode for folder in folders]

    def run_program() -> str:
        answer = subprocess.run([sys.executable, "-c", PROGRAM, call], capture_output=True, text=True, cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    try:
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode | 0o055)
        assert run_program() == f"found {readable + 1}"
        closed.chmod(0)
        assert run_program() == "PermissionError parts/closed"
    finally:
        closed.chmod(0o755)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode & 0o7777)
