"""Names with line breaks fake no line of the program's output, no sheet is replaced, and large seeds are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from inspect_kd.errors import BadInput
from tests import trees


def call(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inspect_kd", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_error_shows_a_line_break_of_a_name_escaped() -> None:
    assert str(BadInput("x\n99 OK.png: no such file")) == "x\\n99 OK.png: no such file"
    assert str(BadInput("two problems:", "a\nb: unknown")) == "two problems:\na\\nb: unknown"


def test_data_check_shows_a_line_break_of_a_name_escaped(tmp_path: Path) -> None:
    for number in range(8):
        trees.picture(tmp_path / "parts" / "good" / f"{number}.png", number)
    broken = trees.picture(tmp_path / "parts" / "good" / "a\ninspect-kd: 99 OK.png")
    broken.write_bytes(broken.read_bytes()[:200])
    answer = call("data", "check", "parts", cwd=tmp_path)
    assert answer.returncode == 3, answer.stderr
    assert "a\\ninspect-kd: 99 OK.png" in answer.stdout
    assert not any(line.startswith("inspect-kd:") for line in answer.stdout.splitlines())


def test_label_next_replaces_no_sheet(tmp_path: Path) -> None:
    (tmp_path / "to_label_sheet.jpg").write_bytes(b"mine")
    answer = call("label-next", "none.onnx", "parts", "--out", "to_label", cwd=tmp_path)
    assert answer.returncode == 3 and "to_label_sheet.jpg: exists already, and would be replaced" in answer.stderr
    assert (tmp_path / "to_label_sheet.jpg").read_bytes() == b"mine"


def test_seed_beyond_64_bits_is_a_usage_error(tmp_path: Path) -> None:
    answer = call("data", "draw", "--seed", 2**63, "--to", "drawn", cwd=tmp_path)
    assert answer.returncode == 2 and not (tmp_path / "drawn").exists()
