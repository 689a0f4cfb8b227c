"""Text from data is printed literally, without Rich markup or control characters."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import inspect_kd
from tests import trees

NAMES = ("[/x]", "bolt[m8]", ":warning:")


def write_table(root: Path, categories: tuple[str, ...]) -> Path:
    """Write a data set with the given categories, and return its table."""
    rows = ["image,label,category"]
    for number, category in enumerate(categories):
        for part_number in range(10):
            image = trees.picture(root / "images" / f"{number}_{part_number}.png", number)
            rows.append(f"images/{image.name},good,{category}")
    (root / "parts.csv").write_text("\n".join(rows))
    return root / "parts.csv"


def run_on_terminal(*arguments: str) -> tuple[int, str]:
    """Run Python with stderr on a terminal; return its exit code and the text that the terminal shows."""
    master, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=terminal) as child:
        os.close(terminal)
        output = b""
        while block := _read(master):
            output += block
    os.close(master)
    return child.returncode, output.decode(errors="replace")


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # the other end is closed
        return b""


def test_data_check_prints_categories_literally(tmp_path: Path) -> None:
    table = write_table(tmp_path, (*NAMES, "red\x1b[2J"))
    command = [sys.executable, "-m", "inspect_kd", "data", "check", str(table)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in NAMES)
    assert "\x1b" not in result.stdout and "red\\x1b[2J" in result.stdout


def test_progress_prints_names_literally() -> None:
    program = (
        "from inspect_kd.progress_display import show_progress\nwith show_progress() as progress:\n"
        f"    progress.note({' '.join(NAMES)!r})\n    progress.phase({NAMES[0]!r}, 1)\n    progress.advance(1, loss=1.0)"
    )
    code, output = run_on_terminal("-c", program)
    assert code == 0, output
    assert " ".join(NAMES) in output


def test_only_one_module_imports_the_rich_console() -> None:
    folder = Path(inspect_kd.__file__).parent
    importers = [path.name for path in folder.rglob("*.py") if "rich.console" in path.read_text()]
    assert importers == ["plain_console.py"]


def test_control_characters_in_file_names_and_manifests_are_escaped(tmp_path: Path) -> None:
    root = trees.BUILDERS["mvtec"](tmp_path / "set")
    good = root / "screw" / "train" / "good"
    (good / "\x1b]0;evil\x07.png").write_bytes((good / "0.png").read_bytes())
    (tmp_path / "evil.yaml").write_text(
        'name: evil\ntitle: "\\e]0;title\\a"\ncitation: "\\e[2Jcite"\nlicence: {name: "\\e[31mfree", commercial: true}\n'
        "source: {by_hand: Ask.}\n"
    )
    for arguments in (["data", "check", str(root)], ["data", "get", "--yes", str(tmp_path / "evil.yaml")]):
        result = subprocess.run([sys.executable, "-m", "inspect_kd", *arguments], capture_output=True, text=True)
        assert "\\x1b]0;" in result.stdout + result.stderr and "\x1b" not in result.stdout + result.stderr
