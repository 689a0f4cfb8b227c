"""A search finds every image or reports an error, also with links, unreadable folders and unusual names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inspect_kd.cli.predict import MAX_LINE_BYTES, bounded_lines, find_images
from inspect_kd.datasets import layouts
from inspect_kd.datasets.find_images import find_by_pattern, find_in_folder
from inspect_kd.errors import BadInput
from tests.trees import mask, picture


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in folders, some of them hidden."""
    for name in ("a.png", "x/a.png", "x/y/a.png", "x/y/b.txt", "x/.h/a.png", ".z/a.png", "[1]/a.png"):
        (tmp_path / "parts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "parts" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "parts"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("*/*.png", ["[1]/a.png", "x/a.png"]),
        ("*/a.png", ["[1]/a.png", "x/a.png"]),
        ("x/?/a.png", ["x/y/a.png"]),
        ("**/a.png", ["[1]/a.png", "a.png", "x/a.png", "x/y/a.png"]),
        ("x/**/*.*", ["x/a.png", "x/y/a.png", "x/y/b.txt"]),
        ("x/**", ["x/a.png", "x/y/a.png", "x/y/b.txt"]),
        (".*/*.png", [".z/a.png"]),
        ("x/.h/*", ["x/.h/a.png"]),
        ("[[]1]/*", ["[1]/a.png"]),
        ("x/../*.png", ["x/../a.png"]),
        ("*/none.png", []),
        ("none/*.png", []),
        ("a.png/*", []),
        ("**/**/b.*", ["x/y/b.txt"]),
    ],
)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_pattern_finds_what_a_shell_finds(pattern: str, expected: list[str], is_absolute: bool, parts: Path) -> None:
    root = parts if is_absolute else Path("parts")
    assert find_by_pattern(f"{root}/{pattern}") == sorted(root / name for name in expected)


@pytest.mark.parametrize(
    ("call", "unreadable"),
    [
        ("find_images(['parts/*/*.png'])", "parts/x"),
        ("find_images(['parts/*/a.png'])", "parts/x/a.png"),
        ("find_images(['parts/**/a.png'])", "parts/x"),
        ("find_images(['parts/*/*/a.png'])", "parts/x"),
        ("find_images(['parts/x/y/*.png'])", "parts/x/y"),
        ("find_images(['parts'])", "parts/x"),
        ("find_images(['link'])", "link/y"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_unreadable_folder_is_an_error_for_every_pattern(call: str, unreadable: str, parts: Path) -> None:
    """Otherwise a plain name below an unreadable folder would look like a missing file."""
    (parts.parent / "link").mkdir()
    (parts.parent / "link" / "y").symlink_to(parts / "x" / "y")
    program = (
        "import os\nimport numpy, cv2\nfrom inspect_kd.cli.predict import find_images\n"
        "import inspect_kd.datasets.find_images\n"
        "if os.geteuid() == 0:\n    os.setresuid(65534, 65534, 65534)\n"
        f"try:\n    print('found', list({call}))\nexcept OSError as error:\n    print(type(error).__name__, error.filename)"
    )
    folders = (parts.parent, *list(parts.parent.parents)[:2])
    modes = [folder.stat().st_mode for folder in folders]
    try:
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode | 0o055)
        (parts / "x").chmod(0)
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=parts.parent)
    finally:
        (parts / "x").chmod(0o755)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode & 0o7777)
    assert result.stdout.strip() == f"PermissionError {unreadable}", result.stderr


@pytest.mark.parametrize("search", [find_in_folder, lambda root: find_by_pattern(f"{root}/**/*.png")])
def test_linked_folder_elsewhere_is_an_error(search: Callable[[Path], list[Path]], parts: Path) -> None:
    """Otherwise its parts would be left out unnoticed."""
    elsewhere = parts.parent / "elsewhere"
    elsewhere.mkdir()
    (parts / "today").symlink_to(elsewhere)
    with pytest.raises(BadInput, match=r"parts/today: a link to the folder .*elsewhere, which is not searched"):
        search(parts)


@pytest.mark.parametrize("search", [find_in_folder, lambda root: find_by_pattern(f"{root}/**/*.png")])
def test_link_within_the_searched_folder_finds_each_image_once(
    search: Callable[[Path], list[Path]], parts: Path
) -> None:
    before = search(parts)
    (parts / "latest").symlink_to("x")
    (parts / "circle").symlink_to(".")
    (parts / "nowhere").symlink_to("nowhere")
    assert search(parts) == before


def test_linked_image_is_found(parts: Path) -> None:
    (parts / "b.png").symlink_to("a.png")
    assert parts / "b.png" in find_in_folder(parts)


def test_endless_line_of_stdin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a.png\n" + b"b" * MAX_LINE_BYTES + b"\n")
    with (tmp_path / "lines").open("rb") as stream:
        lines = bounded_lines(stream)
        assert next(lines) == b"a.png\n"
        with pytest.raises(BadInput, match="a line of more than 65536 bytes"):
            next(lines)


def test_folder_named_like_a_pattern_is_searched(parts: Path) -> None:
    assert list(find_images(["parts/x/y", "parts/[1]"])) == [Path("parts/x/y/a.png"), Path("parts/[1]/a.png")]


# --- unreadable masks


def write_images_and_one_mask(root: Path) -> Path:
    for name in ("0.png", "1.png", "oil.png"):
        picture(root / name)
    mask(root / "0_mask.png")
    return root


@pytest.mark.parametrize("name", ["oil_mask.gif", "oil_mask.png", "oil_gt.tga", "oil_label.json"])
def test_mask_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    """Otherwise its part would count as sound, and be used for training."""
    root = write_images_and_one_mask(tmp_path / "parts")
    (root / name).symlink_to("nowhere") if name.endswith("png") else (root / name).write_bytes(b"GIF89a")
    with pytest.raises(BadInput, match=rf"{name}: has a mask's name, but is no readable image"):
        layouts.scan(root)
    (root / name).unlink()
    (root / f"{name}.txt").write_text("notes")
    layout, samples = layouts.scan(root)
    assert layout == "masks_beside" and [s.kind for s in samples] == ["defect", "good", "good"]


def test_other_file_beside_a_readable_mask_is_ignored(tmp_path: Path) -> None:
    root = write_images_and_one_mask(tmp_path / "parts")
    (root / "0_label.json").write_text("{}")
    (root / "other_mask.gif").write_bytes(b"GIF89a")
    assert len(layouts.scan(root)[1]) == 3


def test_folder_whose_only_mask_cannot_be_read_is_not_sound_only(tmp_path: Path) -> None:
    for name in ("0.png", "oil.png"):
        picture(tmp_path / "parts" / name)
    assert layouts.scan(tmp_path / "parts")[0] == "sound_only"
    (tmp_path / "parts" / "oil_mask.gif").write_bytes(b"GIF89a")
    with pytest.raises(BadInput, match="no layout recognised"):
        layouts.scan(tmp_path / "parts")
