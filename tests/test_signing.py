"""Signatures: only unchanged files signed by a trusted key are accepted; everything else is refused with its reason."""

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

from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.file_owner import refuse_writable_by_others
from inspect_kd.inspector import Inspector
from inspect_kd.signing import load_signers, make_keys, sign, signature_path, verify


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "quality.pem", None)
    return tmp_path


@pytest.fixture
def artifact(run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "part.onnx"
    shutil.copyfile(run / "r.onnx", copy)
    return copy


def test_signed_artifact_is_verified_and_runs(keys: Path, artifact: Path) -> None:
    signature = sign(artifact, keys / "quality.pem")
    assert signature == signature_path(artifact) and signature.stat().st_size < 1000
    signer, statement = verify(artifact, load_signers(keys))
    assert signer.name == "quality" and statement.key == signer.fingerprint and len(signer.fingerprint) == 16
    assert Inspector(artifact, trust=keys).size == 64


def test_private_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    make_keys(tmp_path / "k.pem", None)
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600


def test_existing_key_is_not_overwritten(keys: Path) -> None:
    with pytest.raises(UsageError, match="overwriting a key"):
        make_keys(keys / "quality.pem", None)


def test_locked_key_needs_its_passphrase(tmp_path: Path) -> None:
    public = make_keys(tmp_path / "k.pem", "open sesame")
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes() and b"PUBLIC" in public.read_bytes()
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match="is locked"):
        sign(tmp_path / "a.onnx", tmp_path / "k.pem")
    with pytest.raises(UsageError, match="passphrase is wrong"):
        sign(tmp_path / "a.onnx", tmp_path / "k.pem", "open barley")
    sign(tmp_path / "a.onnx", tmp_path / "k.pem", "open sesame")
    verify(tmp_path / "a.onnx", load_signers(public))


def flip_a_byte(artifact: Path) -> None:
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(bytes(content))


def change_statement(artifact: Path, **changes: object) -> None:
    """Change the statement, but not the signature."""
    content = json.loads(signature_path(artifact).read_text())
    signature_path(artifact).write_text(json.dumps(content | {"statement": content["statement"] | changes}))


def replace_file(artifact: Path) -> None:
    content = artifact.read_bytes() + b"\0"
    artifact.write_bytes(content)
    change_statement(artifact, sha256=hashlib.sha256(content).hexdigest())


def backdate(artifact: Path) -> None:
    change_statement(artifact, created="2020-01-01T00:00:00+00:00")


def change_name(artifact: Path) -> None:
    change_statement(artifact, name="other.onnx")


def delete_signature(artifact: Path) -> None:
    signature_path(artifact).unlink()


def break_signature(artifact: Path) -> None:
    signature_path(artifact).write_text("{")


def raise_version(artifact: Path) -> None:
    change_statement(artifact, version=3)


def enlarge_signature(artifact: Path) -> None:
    signature_path(artifact).write_bytes(b" " * 2**20)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flip_a_byte, "changed since"),
        (replace_file, "forged or damaged"),
        (backdate, "forged or damaged"),
        (change_name, "forged or damaged"),
        (delete_signature, "not signed"),
        (break_signature, "not a signature"),
        (raise_version, "version 3"),
        (enlarge_signature, "exceeds the limit"),
    ],
)
def test_changed_file_or_signature_is_refused(
    keys: Path, artifact: Path, change: Callable[[Path], None], reason: str
) -> None:
    sign(artifact, keys / "quality.pem")
    change(artifact)
    with pytest.raises(BadInput, match=reason):
        verify(artifact, load_signers(keys))
    with pytest.raises(BadInput, match=reason):
        Inspector(artifact, trust=keys)


@pytest.mark.parametrize("name", ["tile.onnx", "part.openvino.onnx"])
def test_renamed_artifact_is_refused(keys: Path, artifact: Path, name: str) -> None:
    sign(artifact, keys / "quality.pem")
    other = artifact.rename(artifact.with_name(name))
    signature_path(artifact).rename(signature_path(other))
    with pytest.raises(BadInput, match=r"signed under the name part\.onnx.* sign it again"):
        Inspector(other, trust=keys)
    sign(other, keys / "quality.pem")
    verify(other, load_signers(keys))


def test_valid_statement_of_another_kind_or_target_is_refused(keys: Path, artifact: Path) -> None:
    """The name is not the only field that is compared with the file."""
    from inspect_kd.signing import SignedKind, Statement

    key = serialization.load_pem_private_key((keys / "quality.pem").read_bytes(), None)
    sign(artifact, keys / "quality.pem")
    statement = json.loads(signature_path(artifact).read_text())["statement"]
    for changes in ({"kind": SignedKind.SIGN_OFF, "target": ""}, {"target": "openvino"}):
        other = Statement(**(statement | changes))
        assert isinstance(key, Ed25519PrivateKey)
        signature = base64.b64encode(key.sign(other.to_bytes())).decode()
        signature_path(artifact).write_text(json.dumps({"statement": asdict(other), "signature": signature}))
        with pytest.raises(BadInput, match=r"was signed as: .*; it is used as: artifact onnx"):
            verify(artifact, load_signers(keys))


def test_signature_of_version_1_is_refused_with_advice(keys: Path, artifact: Path) -> None:
    """A signature of version 1 covers the file's bytes, but not its name."""
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    signer = load_signers(keys)[0]
    signed = "2026-01-01T00:00:00+00:00"
    key = serialization.load_pem_private_key((keys / "quality.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    signature = key.sign(f"inspect-kd artifact v1\n{digest}\n{signed}\n{signer.fingerprint}\n".encode())
    statement = {"sha256": digest, "signed": signed, "key": signer.fingerprint, "schema": 1}
    signature_path(artifact).write_text(json.dumps(statement | {"signature": base64.b64encode(signature).decode()}))
    with pytest.raises(BadInput, match=r"version 1.* `inspect-kd sign .*part\.onnx --key KEY`"):
        verify(artifact, load_signers(keys))


@pytest.mark.parametrize("target", ["folder", "key"])
def test_trust_store_writable_by_others_is_refused(keys: Path, target: str) -> None:
    assert load_signers(keys)
    (keys if target == "folder" else keys / "quality.pub").chmod(0o777)
    with pytest.raises(EnvironmentFault, match="other users may write there"):
        load_signers(keys)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A trust store below a folder that others may write."""
    folder = tmp_path / "shared" / "own" / "trust"
    make_keys(folder / "quality.pem", None)
    (tmp_path / "shared").chmod(0o777)
    return folder


def test_trust_store_below_a_folder_writable_by_others_is_refused(store: Path, tmp_path: Path) -> None:
    """Other users could replace the folder between the check and the reading of the keys."""
    with pytest.raises(
        EnvironmentFault, match=rf"^{tmp_path}/shared: other users may write .*chmod .*INSPECT_KD_TRUST"
    ):
        load_signers(store)
    (tmp_path / "shared").chmod(0o1777)
    assert load_signers(store), "like /tmp: other users cannot move the folder"


def test_each_link_to_a_trust_store_is_checked(store: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    make_keys(own / "quality.pem", None)
    (tmp_path / "shared" / "link").symlink_to(own)
    (tmp_path / "fine").symlink_to("own")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "above").symlink_to("shared/link")
    assert load_signers(tmp_path / "fine")
    for name in ("above", "shared/link"):
        with pytest.raises(EnvironmentFault, match=rf"^{tmp_path}/shared: other users may write"):
            load_signers(tmp_path / name)
    with pytest.raises(EnvironmentFault, match="symbolic links on the path"):
        refuse_writable_by_others(tmp_path / "loop", "it is a test", "nothing")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_trust_store_below_a_folder_of_another_user_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").chmod(0o755)
    assert load_signers(store)
    os.chown(tmp_path / "shared", 65534, 65534)
    with pytest.raises(EnvironmentFault, match=rf"^{tmp_path}/shared: other users may write"):
        load_signers(store)


@pytest.mark.parametrize("trust", ["", "."])
def test_keys_of_the_working_directory_are_not_trusted(
    keys: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch, trust: str
) -> None:
    sign(artifact, keys / "quality.pem")
    monkeypatch.chdir(keys)
    with pytest.raises(UsageError, match="working directory"):
        Inspector(artifact, trust=trust)


@pytest.mark.parametrize("name", ["part\t.onnx", "part\udcff.onnx"])
def test_unprintable_file_name_is_not_signed(keys: Path, artifact: Path, name: str) -> None:
    """Its signature would never verify."""
    other = artifact.rename(artifact.with_name(name))
    with pytest.raises(UsageError, match="rename the file"):
        sign(other, keys / "quality.pem")


def test_untrusted_key_and_empty_trust_store_have_their_own_errors(keys: Path, artifact: Path, tmp_path: Path) -> None:
    sign(artifact, keys / "quality.pem")
    other = make_keys(tmp_path / "elsewhere" / "stranger.pem", None)
    with pytest.raises(BadInput, match=r"not trusted here; trusted: stranger"):
        verify(artifact, load_signers(other))
    with pytest.raises(BadInput, match="there are no trusted keys"):
        verify(artifact, load_signers(tmp_path / "none"))


def test_signature_with_a_copied_fingerprint_is_refused(keys: Path, artifact: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "thief.pem", None)
    sign(artifact, tmp_path / "thief.pem")
    trusted = load_signers(keys / "quality.pub")
    change_statement(artifact, key=trusted[0].fingerprint)
    with pytest.raises(BadInput, match="forged"):
        verify(artifact, trusted)


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ec.pem").write_bytes(pem)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match="not an ed25519 key"):
        sign(tmp_path / "a.onnx", tmp_path / "ec.pem")
    (tmp_path / "no.pub").write_text("no key")
    with pytest.raises(UsageError, match="not a public key"):
        load_signers(tmp_path / "no.pub")


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """A function that runs a command with the test's trust store and a passphrase for new keys."""
    environment = os.environ | {"INSPECT_KD_TRUST": str(tmp_path / "trust"), "INSPECT_KD_PASSPHRASE": "geheim"}

    def run_command(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "inspect_kd", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run_command


@pytest.fixture
def image(parts: Path) -> Path:
    return next(parts.rglob("test/good/*.png"))


@pytest.fixture
def signed(artifact: Path, tmp_path: Path, call: Call) -> Path:
    """An artifact signed by commands, with a key in the trust store."""
    assert call("keygen", tmp_path / "quality.pem").returncode == 0
    (tmp_path / "trust").mkdir()
    shutil.copy(tmp_path / "quality.pub", tmp_path / "trust")
    assert call("sign", artifact, "--key", tmp_path / "quality.pem").returncode == 0
    return artifact


def test_verify_command_names_the_signer(signed: Path, call: Call) -> None:
    answer = call("verify", signed)
    assert answer.returncode == 0 and "signed by quality" in answer.stdout


def test_trusted_needs_keys_in_the_trust_store(artifact: Path, image: Path, call: Call) -> None:
    answer = call("predict", artifact, image, "--trusted")
    assert answer.returncode == 3 and "there are no trusted keys" in answer.stderr


@pytest.mark.parametrize("command", ["predict", "label-next", "eval"])
def test_trusted_accepts_signed_artifacts_only(
    command: str, signed: Path, image: Path, parts: Path, tmp_path: Path, call: Call
) -> None:
    inputs = ("--data", parts) if command == "eval" else (image,)
    assert call(command, signed, *inputs, "--trusted").returncode == 0
    unsigned = shutil.copy(signed, tmp_path / "unsigned.onnx")
    refused = call(command, unsigned, *inputs, "--trusted")
    assert refused.returncode == 3 and "not signed" in refused.stderr


def test_trusted_studio_refuses_an_unsigned_artifact(signed: Path, tmp_path: Path, call: Call) -> None:
    unsigned = shutil.copy(signed, tmp_path / "unsigned.onnx")
    refused = call("ui", unsigned, "--trusted", "--store", tmp_path / "studio")
    assert refused.returncode == 3 and "not signed" in refused.stderr


def test_trusted_predict_refuses_a_changed_artifact(signed: Path, image: Path, call: Call) -> None:
    flip_a_byte(signed)
    assert call("predict", signed, image, "--trusted").returncode == 3
