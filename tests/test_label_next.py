"""Which parts to label next: far from what is known, and handed over so that a person can begin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspect_kd.label_next import CELLS, next_to_label, opinion


def test_an_opinion_is_how_probable_damage_is_and_where() -> None:
    heatmap = np.zeros((64, 64), np.float32)
    heatmap[0, 0], heatmap[-1, -1] = 1.0, 3.0
    told = opinion(heatmap).reshape(CELLS, CELLS)
    assert told[0, 0] == pytest.approx(0.5) and told[-1, -1] > 0.98 and told[0, 1:].max() == 0
    assert opinion(np.full((70, 90), 0.5, np.float32)).shape == (CELLS * CELLS,)


def test_the_farthest_and_what_is_doubted_take_turns() -> None:
    points = [np.array(p, np.float32) for p in ([0.1, 0], [1, 0], [0.95, 0], [0, 0.6], [0, 1])]
    chosen = next_to_label(points, [], 4)
    # The two corners are certain defects; the doubtful one comes before the second, though it is nearer.
    assert [choice.index for choice in chosen] == [1, 3, 4, 0]
    assert [choice.novelty for choice in chosen] == pytest.approx([1.0, 0.6, 0.4, 0.1])
    known = next_to_label(points, [np.array([1, 0], np.float32)], 2)
    assert [choice.index for choice in known] == [4, 3], "what is known already teaches nothing"
    assert sorted(choice.index for choice in next_to_label(points, [], 9)) == [0, 1, 2, 3, 4]


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inspect_kd", "label-next", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_chooses_copies_and_draws_a_sheet(run: Path, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "line").mkdir()
    broken = tmp_path / "line" / "broken.png"
    broken.write_bytes(b"no image")
    out = tmp_path / "to_label"
    answer = call(run, parts / "bottle" / "test", broken, "-n", 3, "--out", out)
    assert answer.returncode == 0, answer.stderr
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(lines) == 3 and all({"image", "novelty", "score", "decision"} == set(line) for line in lines)
    assert lines[0]["novelty"] >= lines[2]["novelty"] > 0
    assert "left out" in answer.stderr and "broken.png" in answer.stderr
    copies = sorted(out.glob("0*"))
    assert [copy.name[4:] for copy in copies] == [Path(line["image"]).name for line in lines]
    sheet = cv2.imread(str(tmp_path / "to_label_sheet.jpg"))
    assert sheet is not None and sheet.shape[1] > 3 * 60

    known = call(run, parts / "bottle" / "test", "-n", 3, "--known", lines[0]["image"])
    assert lines[0]["image"] not in [json.loads(line)["image"] for line in known.stdout.splitlines()][:1]
    again = call(run, parts / "bottle" / "test", "--out", out)
    assert again.returncode == 3 and "not empty" in again.stderr
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-m", "inspect_kd", "label-next", str(run), str(parts / "bottle" / "test"), "-n", "1"]
    here = subprocess.run([*command, "--out", "."], cwd=tmp_path / "here", capture_output=True, text=True, check=False)
    assert here.returncode == 0 and (tmp_path / "here_sheet.jpg").is_file(), here.stderr
    none = call(run, broken)
    assert none.returncode == 3 and "no image to choose from" in none.stderr
