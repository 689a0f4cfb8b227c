"""A folder that cannot be read is an error, because its parts would not be inspected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trees import mask, picture

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
    ("call", "readable_count"),
    [
        ("find_images(['parts'])", 2),
        ("find_images(['parts/**/*.png'])", 2),
        ("find_images(['parts/*/*.png'])", 1),
        ("list_images(Path('parts'))", 2),
    ],
)
def test_unreadable_subfolder_is_an_error(call: str, readable_count: int, tmp_path: Path) -> None:
    closed = tmp_path / "parts" / "closed"
    for folder in (closed, tmp_path / "parts" / "open"):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    (tmp_path / "parts" / "b.png").touch()
    # The program's user must be able to enter the folders above.
    folders = [folder for folder in (tmp_path, *tmp_path.parents) if "pytest-" in str(folder)]
    modes = [folder.stat().st_mode for folder in folders]

    def run_program() -> str:
        answer = subprocess.run([sys.executable, "-c", PROGRAM, call], capture_output=True, text=True, cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    try:
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode | 0o055)
        assert run_program() == f"found {readable_count + 1}"
        closed.chmod(0)
        assert run_program() == "PermissionError parts/closed"
    finally:
        closed.chmod(0o755)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode & 0o7777)


MASKS = """
import os, sys
from pathlib import Path
import numpy, cv2
from inspect_kd.datasets import layouts
import inspect_kd.datasets.find_images, inspect_kd.datasets.layouts.folder, inspect_kd.datasets.layouts.mvtec
layouts.scan(Path('parts'))  # imports all modules that scanning needs, as above
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
os.chdir(sys.argv[1])
try:
    print("masks", sum(sample.mask is not None for sample in layouts.scan(Path('parts'), sys.argv[2])[1]))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no permissions of this kind")
@pytest.mark.parametrize(
    ("layout", "closed"),
    [
        ("mvtec", "ground_truth/scratch"),
        ("mvtec", "ground_truth"),
        ("folder", "ground_truth/scratch"),
        ("folder", "masks/scratch"),
    ],
)
def test_unreadable_folder_of_masks_is_an_error(layout: str, closed: str, tmp_path: Path) -> None:
    """Otherwise its defects would count as defects without masks."""
    root = tmp_path / "parts"
    good, scratch = ("train/good", "test/scratch") if layout == "mvtec" else ("good", "scratch")
    picture(root / good / "0.png")
    picture(root / scratch / "1.png")
    mask(root / (closed if "/" in closed else f"{closed}/scratch") / "1_mask.png")
    folders = [folder for folder in (tmp_path, *tmp_path.parents) if "pytest-" in str(folder)]
    modes = [folder.stat().st_mode for folder in folders]

    def run_program() -> str:
        words = [sys.executable, "-c", MASKS, str(tmp_path), layout]
        answer = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    try:
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode | 0o055)
        assert run_program() == "masks 1"
        (root / closed).chmod(0o044)  # listed, but not entered
        assert run_program() == "PermissionError"
    finally:
        (root / closed).chmod(0o755)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode & 0o7777)
