"""Names with line breaks cannot fake a line of the output."""

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
