"""Thresholds that a person stands for: a new file each time, for one artifact alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inspect_kd.errors import BadInput, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.sign_off import SignOff, read_sign_off
from inspect_kd.types import Thresholds

WAS = Thresholds(reinspect=0.7, reject=1.0)


def sign_off(**more: object) -> SignOff:
    told = {
        "by": "Ada",
        "thresholds": Thresholds(reinspect=0.5, reject=0.9),
        "was": WAS,
        "artifact": "part",
        "sha256": "a" * 64,
    }
    return SignOff(**{**told, **more})  # type: ignore[arg-type]


def test_a_second_one_never_overwrites_the_first(tmp_path: Path) -> None:
    first, second = sign_off().write(tmp_path), sign_off(by="Grace").write(tmp_path)
    assert first != second
    assert read_sign_off(first).by == "Ada" and read_sign_off(second).by == "Grace"
    assert read_sign_off(first) == sign_off(date=read_sign_off(first).date)


@pytest.mark.parametrize("name", ["", "   ", "x" * 200, "line\nbreak"])
def test_nobody_signs_nothing(name: str) -> None:
    with pytest.raises(UsageError, match="name of the person"):
        sign_off(by=name)


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.5), (float("nan"), 1.0), (0.1, float("inf")), (-1.0, 1.0)])
def test_impossible_limits_are_refused_written_or_read(low: float, high: float, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="impossible thresholds"):
        sign_off(thresholds=Thresholds(reinspect=low, reject=high))
    path = sign_off().write(tmp_path)
    content = json.loads(path.read_text()) | {"thresholds": {"reinspect": low, "reject": high}}
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="impossible thresholds"):
        read_sign_off(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"inspect_kd_calibration": 2}', '{"inspect_kd_calibration": 1}'])
def test_what_is_no_calibration_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(BadInput, match=r"c\.json: "):
        read_sign_off(tmp_path / "c.json")


def test_another_artifact_and_another_category_refuse_it() -> None:
    signed = sign_off(category="bottle")
    assert signed.for_artifact("a" * 64, "bottle") == signed.for_artifact("a" * 64, None) == signed.thresholds
    with pytest.raises(BadInput, match="another artifact"):
        signed.for_artifact("b" * 64, "bottle")
    with pytest.raises(UsageError, match="for bottle, not for tile"):
        signed.for_artifact("a" * 64, "tile")


def test_predict_takes_it(run: Path, parts: Path, tmp_path: Path) -> None:
    artifact = run / "r.onnx"
    digest = Inspector(artifact).digest
    images = [str(path) for path in sorted(parts.glob("*/test/good/*.png"))[:2]]
    words = [sys.executable, "-m", "inspect_kd", "predict", str(artifact), *images, "--calibration"]
    strict = sign_off(sha256=digest, thresholds=Thresholds(reinspect=0.0, reject=0.0)).write(tmp_path)
    answer = subprocess.run([*words, str(strict)], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert answer.returncode == 0 and len(lines) == 2, answer.stderr
    assert all(line["decision"] == "NG" and line["thresholds"] == {"reinspect": 0.0, "reject": 0.0} for line in lines)
    strange = sign_off().write(tmp_path)
    answer = subprocess.run([*words, str(strange)], capture_output=True, text=True, check=False)
    assert answer.returncode == 3 and "another artifact" in answer.stderr and not answer.stdout
