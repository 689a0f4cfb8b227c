"""Thresholds that a person signs off: a new file each time, valid for one artifact only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inspect_kd.cli import app
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.sign_off import SignOff, read_sign_off
from inspect_kd.signing import load_signers, make_keys, sign, verify
from inspect_kd.types import Thresholds
from tests.fuzzing import graphs

DEFAULT_THRESHOLDS = Thresholds(reinspect=0.7, reject=1.0)


def make_sign_off(**changes: object) -> SignOff:
    fields = {
        "by": "Ada",
        "thresholds": Thresholds(reinspect=0.5, reject=0.9),
        "default_thresholds": DEFAULT_THRESHOLDS,
        "artifact": "part",
        "sha256": "a" * 64,
    }
    return SignOff(**{**fields, **changes})  # type: ignore[arg-type]


def test_second_sign_off_does_not_overwrite_the_first(tmp_path: Path) -> None:
    first, second = make_sign_off().write(tmp_path), make_sign_off(by="Grace").write(tmp_path)
    assert first != second
    assert read_sign_off(first).by == "Ada" and read_sign_off(second).by == "Grace"
    assert read_sign_off(first) == make_sign_off(date=read_sign_off(first).date)


@pytest.mark.parametrize("name", ["", "   ", "x" * 200, "line\nbreak"])
def test_unusable_name_of_the_person_who_signs_off_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="a person's name"):
        make_sign_off(by=name)


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.5), (float("nan"), 1.0), (0.1, float("inf")), (-1.0, 1.0)])
def test_impossible_thresholds_are_refused(low: float, high: float, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="impossible thresholds"):
        make_sign_off(thresholds=Thresholds(reinspect=low, reject=high))
    path = make_sign_off().write(tmp_path)
    content = json.loads(path.read_text()) | {"thresholds": {"reinspect": low, "reject": high}}
    path.write_text(json.dumps(content))
    # NaN and infinity are not valid JSON.
    with pytest.raises(BadInput, match=r"impossible thresholds|not a signed-off calibration"):
        read_sign_off(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"inspect_kd_calibration": 2}', '{"inspect_kd_calibration": 1}'])
def test_other_json_is_refused_with_its_file_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(BadInput, match=r"c\.json: "):
        read_sign_off(tmp_path / "c.json")


def test_sign_off_is_valid_for_its_artifact_and_category_only() -> None:
    sign_off = make_sign_off(category="bottle")
    assert sign_off.thresholds_for("a" * 64, "bottle", DEFAULT_THRESHOLDS, ("bottle", "tile")) == sign_off.thresholds
    assert sign_off.thresholds_for("a" * 64, None, DEFAULT_THRESHOLDS, ("bottle",)) == sign_off.thresholds
    with pytest.raises(BadInput, match="another artifact"):
        sign_off.thresholds_for("b" * 64, "bottle", DEFAULT_THRESHOLDS, ("bottle",))
    with pytest.raises(UsageError, match="for bottle, not for tile"):
        sign_off.thresholds_for("a" * 64, "tile", DEFAULT_THRESHOLDS, ("bottle",))


def test_thresholds_of_one_category_are_not_used_for_all(tmp_path: Path) -> None:
    """Otherwise thresholds for one category could pass another category's defects."""
    artifact = tmp_path / "part.onnx"
    artifact.write_bytes(graphs.artifact().SerializeToString())
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    sign_off = make_sign_off(sha256=digest, category="a")
    file = sign_off.write(tmp_path)
    assert Inspector(artifact, calibration=file, category="a").thresholds == sign_off.thresholds
    words = [sys.executable, "-m", "inspect_kd", "predict", artifact, tmp_path, "--calibration", file]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 2 and not answer.stdout
    assert answer.stderr.count("\n") == 1 and "add --category a" in answer.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact": "part\u001b[2K\rpart: NG above 1"},
        {"artifact": [1]},
        {"category": ["bottle"]},
        {"category": "bottle\u202e"},
        {"sha256": 7},
        {"date": "\n"},
        {"thresholds": {"reinspect": True, "reject": 2}},
        {"thresholds": {"reinspect": 0.5, "reject": "0.9"}},
    ],
)
def test_unprintable_text_and_wrong_types_are_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = make_sign_off().write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(BadInput, match=r"must be printable text|must be numbers"):
        read_sign_off(path)


def test_sign_signs_the_bytes_that_it_showed(tmp_path: Path) -> None:
    """The file is replaced during the prompt for the passphrase."""
    public = make_keys(tmp_path / "key.pem", "open sesame")
    file = make_sign_off().write(tmp_path)
    original = file.read_bytes()
    environment = {name: value for name, value in os.environ.items() if name != "INSPECT_KD_PASSPHRASE"}
    words = [sys.executable, "-m", "inspect_kd", "sign", file, "--key", tmp_path / "key.pem"]
    pipe = subprocess.PIPE
    # Without a terminal the child reads the passphrase from stdin.
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
    ) as child:
        assert child.stdout is not None
        assert b"NG above 0.9" in child.stdout.readline()
        file.write_bytes(original.replace(b'"reject": 0.9', b'"reject": 1.9'))
        _, errors = child.communicate(b"open sesame\n", timeout=60)
    assert child.returncode == 0, errors
    with pytest.raises(BadInput, match="changed since"):
        verify(file, load_signers(public))
    file.write_bytes(original)
    verify(file, load_signers(public))


def test_excessive_thresholds_are_refused(tmp_path: Path) -> None:
    """A threshold of 1e300 would make every part OK. A false claim of the former thresholds must not permit it."""
    with pytest.raises(BadInput, match="is too high: clear defects may score below it"):
        make_sign_off(thresholds=Thresholds(reinspect=1e300, reject=1e300))
    path = make_sign_off().write(tmp_path)
    high = {"reinspect": 1e300, "reject": 1e300}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thresholds": high}))
    with pytest.raises(BadInput, match="is too high"):
        read_sign_off(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thresholds": high, "was": high}))
    with pytest.raises(BadInput, match="is too high"):
        read_sign_off(path).thresholds_for("a" * 64, None, DEFAULT_THRESHOLDS, ("bottle",))


def test_trusted_refuses_a_sign_off_without_a_signature(run: Path, parts: Path, tmp_path: Path) -> None:
    """The artifact's signature is not enough: thresholds decide as much as the artifact."""
    artifact, store = tmp_path / "part.onnx", tmp_path / "trust"
    shutil.copy(run / "r.onnx", artifact)
    store.mkdir()
    shutil.copy(make_keys(tmp_path / "key.pem", None), store)
    environment = os.environ | {"INSPECT_KD_TRUST": str(store)}

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "inspect_kd", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    sign(artifact, tmp_path / "key.pem")
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    thresholds = Thresholds(reinspect=0.0, reject=0.0)
    file = make_sign_off(sha256=digest, thresholds=thresholds).write(tmp_path)
    predict = ("predict", artifact, next(parts.rglob("test/good/*.png")), "--trusted", "--calibration", file)
    refused = call(*predict)
    assert refused.returncode == 3 and not refused.stdout
    assert f"{file}: not signed" in refused.stderr and "inspect-kd sign" in refused.stderr
    signed = call("sign", file, "--key", tmp_path / "key.pem")
    assert signed.returncode == 0 and f"sha256 {digest[:12]}, signed off by Ada" in signed.stdout
    assert "signed by key" in call("verify", file).stdout
    accepted = call(*predict)
    assert accepted.returncode == 0 and json.loads(accepted.stdout)["decision"] == "NG", accepted.stderr
    file.write_text(file.read_text().replace('"reject": 0.0', '"reject": 1.5', 1))
    changed = call(*predict)
    assert changed.returncode == 3 and "changed since" in changed.stderr


def test_predict_applies_a_sign_off(run: Path, parts: Path, tmp_path: Path) -> None:
    artifact = run / "r.onnx"
    digest = Inspector(artifact).digest
    images = [str(path) for path in sorted(parts.glob("*/test/good/*.png"))[:2]]
    words = [sys.executable, "-m", "inspect_kd", "predict", str(artifact), *images, "--calibration"]
    strict = make_sign_off(sha256=digest, thresholds=Thresholds(reinspect=0.0, reject=0.0)).write(tmp_path)
    answer = subprocess.run([*words, str(strict)], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert answer.returncode == 0 and len(lines) == 2, answer.stderr
    assert all(line["decision"] == "NG" and line["thresholds"] == {"reinspect": 0.0, "reject": 0.0} for line in lines)
    foreign = make_sign_off().write(tmp_path)
    answer = subprocess.run([*words, str(foreign)], capture_output=True, text=True, check=False)
    assert answer.returncode == 3 and "another artifact" in answer.stderr and not answer.stdout


def test_signed_sign_off_named_like_an_artifact_is_refused(run: Path, tmp_path: Path) -> None:
    """`sign` shows no thresholds for an artifact, so its signature must not make thresholds valid."""
    make_keys(tmp_path / "key.pem", None)
    artifact = tmp_path / "r.onnx"
    shutil.copyfile(run / "r.onnx", artifact)
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    renamed = make_sign_off(sha256=digest, category=None).write(tmp_path).rename(tmp_path / "next.onnx")
    for file in (artifact, renamed):
        sign(file, tmp_path / "key.pem")
    with pytest.raises(
        BadInput, match=r"next\.onnx: is signed as artifact because of its name, and is used as sign-off"
    ):
        Inspector(artifact, trust=tmp_path / "key.pub", calibration=renamed)


def test_sign_refuses_a_sign_off_named_like_an_artifact(run: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "key.pem", None)
    renamed = make_sign_off().write(tmp_path).rename(tmp_path / "next.onnx")
    answer = CliRunner().invoke(app, ["sign", str(renamed), "--key", str(tmp_path / "key.pem")])
    assert isinstance(answer.exception, BadInput) and not (tmp_path / "next.onnx.sig").exists()
    shutil.copyfile(run / "r.onnx", renamed)
    answer = CliRunner().invoke(app, ["sign", str(renamed), "--key", str(tmp_path / "key.pem")])
    assert answer.exit_code == 0 and "next.onnx: the artifact r (" in answer.stdout
