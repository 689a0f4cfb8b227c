"""Signatures: what is signed is the very file, by somebody who is trusted here; everything else is refused with its reason."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from inspect_kd.errors import BadInput, UsageError
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
    signer, signature = verify(artifact, signers(keys))
    assert signer.name == "quality" and signature.key == signer.fingerprint and len(signer.fingerprint) == 16
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


def of_another_file(artifact: Path) -> None:
    told = json.loads(signature_of(artifact).read_text())
    content = artifact.read_bytes() + b"\0"
    artifact.write_bytes(content)
    import hashlib

    signature_of(artifact).write_text(json.dumps(told | {"sha256": hashlib.sha256(content).hexdigest()}))


def earlier(artifact: Path) -> None:
    told = json.loads(signature_of(artifact).read_text())
    signature_of(artifact).write_text(json.dumps(told | {"signed": "2020-01-01T00:00:00+00:00"}))


def none(artifact: Path) -> None:
    signature_of(artifact).unlink()


def damaged(artifact: Path) -> None:
    signature_of(artifact).write_text("{")


def another_schema(artifact: Path) -> None:
    told = json.loads(signature_of(artifact).read_text())
    signature_of(artifact).write_text(json.dumps(told | {"schema": 2}))


def huge(artifact: Path) -> None:
    signature_of(artifact).write_bytes(b" " * 2**20)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip_a_byte, "changed since"),
        (of_another_file, "forged or damaged"),
        (earlier, "forged or damaged"),
        (none, "not signed"),
        (damaged, "not a signature"),
        (another_schema, "schema 2"),
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
    told = json.loads(signature_of(artifact).read_text())
    trusted = signers(keys / "quality.pub")
    signature_of(artifact).write_text(json.dumps(told | {"key": trusted[0].fingerprint}))
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
    flip_a_byte(artifact)
    assert call("predict", artifact, image, "--trusted").returncode == 3
