"""Signatures: what is signed is the very file, by somebody who is trusted here; everything else is refused with its reason."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from inspect_kd.cli import app
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.signing import make_keys, sign, signature_of, signers, verify


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "quality.pem", None)
    return tmp_path


@pytest.fixture
def artifact(run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "part.onnx"
    shutil.copyfile(run / "r.onnx", copy)
    return copy


def test_a_signed_artifact_is_verified_and_runs(keys: Path, artifact: Path) -> None:
    made = sign(artifact, keys / "quality.pem")
    assert made == signature_of(artifact) and made.stat().st_size < 1000
    signer, statement = verify(artifact, signers(keys))
    assert signer.name == "quality" and statement.key == signer.fingerprint and len(signer.fingerprint) == 16
    assert Inspector(artifact, trust=keys).size == 64


def test_the_private_key_is_for_its_owner(tmp_path: Path) -> None:
    public = make_keys(tmp_path / "k.pem", "open sesame")
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes() and b"PUBLIC" in public.read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        make_keys(tmp_path / "k.pem", None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match="is locked"):
        sign(tmp_path / "a.onnx", tmp_path / "k.pem")
    with pytest.raises(UsageError, match="passphrase is wrong"):
        sign(tmp_path / "a.onnx", tmp_path / "k.pem", "open barley")
    sign(tmp_path / "a.onnx", tmp_path / "k.pem", "open sesame")
    verify(tmp_path / "a.onnx", signers(public))


def flip_a_byte(artifact: Path) -> None:
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(bytes(content))


def restate(artifact: Path, **changes: object) -> None:
    """Another statement over the old signature."""
    told = json.loads(signature_of(artifact).read_text())
    signature_of(artifact).write_text(json.dumps(told | {"statement": told["statement"] | changes}))


def of_another_file(artifact: Path) -> None:
    content = artifact.read_bytes() + b"\0"
    artifact.write_bytes(content)
    restate(artifact, sha256=hashlib.sha256(content).hexdigest())


def earlier(artifact: Path) -> None:
    restate(artifact, created="2020-01-01T00:00:00+00:00")


def of_another_name(artifact: Path) -> None:
    restate(artifact, name="other.onnx")


def none(artifact: Path) -> None:
    signature_of(artifact).unlink()


def damaged(artifact: Path) -> None:
    signature_of(artifact).write_text("{")


def later_version(artifact: Path) -> None:
    restate(artifact, version=3)


def huge(artifact: Path) -> None:
    signature_of(artifact).write_bytes(b" " * 2**20)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip_a_byte, "changed since"),
        (of_another_file, "forged or damaged"),
        (earlier, "forged or damaged"),
        (of_another_name, "forged or damaged"),
        (none, "not signed"),
        (damaged, "not a signature"),
        (later_version, "version 3"),
        (huge, "is no signature"),
    ],
)
def test_whatever_is_not_the_signed_file_is_refused(
    keys: Path, artifact: Path, harm: Callable[[Path], None], reason: str
) -> None:
    sign(artifact, keys / "quality.pem")
    harm(artifact)
    with pytest.raises(BadInput, match=reason):
        verify(artifact, signers(keys))
    with pytest.raises(BadInput, match=reason):
        Inspector(artifact, trust=keys)


@pytest.mark.parametrize("name", ["tile.onnx", "part.openvino.onnx"])
def test_a_renamed_artifact_is_not_anothers(keys: Path, artifact: Path, name: str) -> None:
    sign(artifact, keys / "quality.pem")
    other = artifact.rename(artifact.with_name(name))
    signature_of(artifact).rename(signature_of(other))
    with pytest.raises(BadInput, match=r"signed under the name part\.onnx.* sign it again"):
        Inspector(other, trust=keys)
    sign(other, keys / "quality.pem")
    verify(other, signers(keys))


def test_an_authentic_statement_of_another_kind_or_target_is_refused(keys: Path, artifact: Path) -> None:
    """Not only its name is held against the file."""
    from inspect_kd.signing import Kind, Statement

    key = serialization.load_pem_private_key((keys / "quality.pem").read_bytes(), None)
    sign(artifact, keys / "quality.pem")
    statement = json.loads(signature_of(artifact).read_text())["statement"]
    for changes in ({"kind": Kind.SIGN_OFF, "target": ""}, {"target": "openvino"}):
        other = Statement(**(statement | changes))
        assert isinstance(key, Ed25519PrivateKey)
        made = base64.b64encode(key.sign(other.to_bytes())).decode()
        signature_of(artifact).write_text(json.dumps({"statement": asdict(other), "signature": made}))
        with pytest.raises(BadInput, match=r"was signed as: .*; it is used as: artifact onnx"):
            verify(artifact, signers(keys))


def test_signatures_of_version_1_are_refused_with_the_remedy(keys: Path, artifact: Path) -> None:
    """They bound the file's bytes alone."""
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    signer = signers(keys)[0]
    signed = "2026-01-01T00:00:00+00:00"
    key = serialization.load_pem_private_key((keys / "quality.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    made = key.sign(f"inspect-kd artifact v1\n{digest}\n{signed}\n{signer.fingerprint}\n".encode())
    former = {"sha256": digest, "signed": signed, "key": signer.fingerprint, "schema": 1}
    signature_of(artifact).write_text(json.dumps(former | {"signature": base64.b64encode(made).decode()}))
    with pytest.raises(BadInput, match=r"version 1.* `inspect-kd sign .*part\.onnx --key KEY`"):
        verify(artifact, signers(keys))


@pytest.mark.parametrize("what", ["folder", "key"])
def test_a_trust_store_that_others_may_write_is_not_believed(keys: Path, what: str) -> None:
    assert signers(keys)
    (keys if what == "folder" else keys / "quality.pub").chmod(0o777)
    with pytest.raises(EnvironmentFault, match="others may write there"):
        signers(keys)


def test_a_stranger_and_nobody_are_told_apart(keys: Path, artifact: Path, tmp_path: Path) -> None:
    sign(artifact, keys / "quality.pem")
    other = make_keys(tmp_path / "elsewhere" / "stranger.pem", None)
    with pytest.raises(BadInput, match=r"not trusted here; trusted: stranger"):
        verify(artifact, signers(other))
    with pytest.raises(BadInput, match="no signer is trusted"):
        verify(artifact, signers(tmp_path / "none"))


def test_a_key_that_claims_anothers_fingerprint_signs_nothing(keys: Path, artifact: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "thief.pem", None)
    sign(artifact, tmp_path / "thief.pem")
    trusted = signers(keys / "quality.pub")
    restate(artifact, key=trusted[0].fingerprint)
    with pytest.raises(BadInput, match="forged"):
        verify(artifact, trusted)


def test_other_keys_are_no_keys(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ec.pem").write_bytes(pem)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match="not an ed25519 key"):
        sign(tmp_path / "a.onnx", tmp_path / "ec.pem")
    (tmp_path / "no.pub").write_text("no key")
    with pytest.raises(UsageError, match="not a public key"):
        signers(tmp_path / "no.pub")


def test_the_commands_go_the_whole_way(run: Path, parts: Path, artifact: Path, tmp_path: Path) -> None:
    environment = os.environ | {"INSPECT_KD_TRUST": str(tmp_path / "trust"), "INSPECT_KD_PASSPHRASE": "geheim"}

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "inspect_kd", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    image = next(parts.rglob("test/good/*.png"))
    assert call("keygen", tmp_path / "quality.pem").returncode == 0
    refused = call("predict", artifact, image, "--trusted")
    assert refused.returncode == 3 and "no signer is trusted" in refused.stderr
    (tmp_path / "trust").mkdir()
    shutil.copy(tmp_path / "quality.pub", tmp_path / "trust")
    assert "not signed" in call("verify", artifact).stderr
    assert call("sign", artifact, "--key", tmp_path / "quality.pem").returncode == 0
    fine = call("verify", artifact)
    assert fine.returncode == 0 and "signed by quality" in fine.stdout
    assert call("predict", artifact, image, "--trusted").returncode == 0
    unsigned = shutil.copy(artifact, tmp_path / "unsigned.onnx")
    for words in (("label-next", artifact, image), ("eval", artifact, "--data", parts)):
        assert call(*words, "--trusted").returncode == 0
        refused = call(words[0], unsigned, *words[2:], "--trusted")
        assert refused.returncode == 3 and "not signed" in refused.stderr, words
    refused = call("ui", unsigned, "--trusted", "--store", tmp_path / "studio")
    assert refused.returncode == 3 and "not signed" in refused.stderr
    flip_a_byte(artifact)
    assert call("predict", artifact, image, "--trusted").returncode == 3


def test_empty_name_of_a_trust_store_is_not_the_working_directory(
    keys: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(keys)
    sign(artifact, keys / "quality.pem", None)
    with pytest.raises(UsageError, match="name is empty"):
        Inspector(artifact, trust="")
    answer = CliRunner().invoke(app, ["verify", str(artifact), "--trust", ""])
    assert isinstance(answer.exception, UsageError) and "name is empty" in str(answer.exception)
