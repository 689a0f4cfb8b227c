"""Sign files and verify signatures: ed25519 over a statement, in a separate file beside the signed one.

Unusual here: the statement (canonical JSON) names the file, its kind and its export target. So an artifact renamed to another
part's name does not verify, nor does a calibration in the place of an artifact. No torch, no runtime: a file is verified
before any parser opens it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from inspect_kd import atomic_write, registry, strict_json, zoo
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.file_owner import refuse_writable_by_others
from inspect_kd.plain_file import MissingFile, read_plain_file

VERSION = 2
PURPOSE = "inspect-kd signature"
"""Part of the signed bytes, so that a signature made for another purpose does not verify."""
MAX_BYTES = 64 * 2**10
"""Largest size of a signature, a key or a sign-off; real ones have hundreds of bytes."""
MAX_ARTIFACT_BYTES = 2**31


class SignedKind(StrEnum):
    """Kinds of files that can be signed."""

    ARTIFACT = "artifact"
    SIGN_OFF = "sign-off"
    """Thresholds that a person has signed off in the Studio (`sign_off`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """The signed content: which file, by whom, when."""

    sha256: str
    kind: str
    name: str
    """File name without its folder; a renamed file must be signed again."""
    target: str
    """The export target of an artifact; empty for a sign-off, whose content names its artifact."""
    created: str
    """When it was signed, by the signer's clock."""
    key: str
    """Fingerprint of the public key."""
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """Encode as canonical JSON, so that every program signs and verifies the same bytes."""
        content = {"purpose": PURPOSE, **asdict(self)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@dataclass(frozen=True, slots=True)
class Signer:
    """A trusted public key and its owner's name."""

    name: str
    key: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.key)


def signature_path(file: Path) -> Path:
    """Return the path of a file's signature."""
    return file.with_name(file.name + ".sig")


def trust_store() -> Path:
    """Return the folder of trusted public keys: $INSPECT_KD_TRUST, or one in the user's home."""
    return zoo.folder_from_variable("INSPECT_KD_TRUST") or zoo.home() / ".config" / "inspect-kd" / "trust"


def make_keys(private: Path, passphrase: str | None) -> Path:
    """Write a new key pair, the private key readable by its owner only; return the public key's file."""
    if not private.name or private.is_dir():
        raise UsageError(f"{private}: is a folder; name the private key's file, such as {private / 'quality.pem'}")
    public = private.with_suffix(".pub")
    if public == private:
        raise UsageError(
            f"{private}: .pub is the public key's ending; name the private key {private.with_suffix('.pem')}"
        )
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{path} exists, and overwriting a key would void its signatures; choose another name")
    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    private.parent.mkdir(parents=True, exist_ok=True)
    atomic_write.write_new(private, content, mode=0o600)
    try:
        # Not left to the umask: a trust store refuses keys that other users may write.
        atomic_write.write_new(public, _pem(key.public_key()), mode=0o644)
    except OSError:
        # A lone private key would block the next attempt.
        private.unlink(missing_ok=True)
        raise
    return public


def sign(file: Path, private: Path, passphrase: str | None = None) -> Path:
    """Sign an artifact or a sign-off; return the signature's file, which lies beside it."""
    return sign_bytes(read_signable(file), file, private, passphrase)


def sign_bytes(content: bytes, file: Path, private: Path, passphrase: str | None = None) -> Path:
    """Sign bytes that were read already, so that the signer signs what was shown."""
    if not file.name.isprintable():
        raise UsageError(f"{file}: its name has unprintable characters and cannot be signed; rename the file")
    key = _load_private_key(private, passphrase)
    kind, target = kind_of(file)
    statement = Statement(
        sha256=hashlib.sha256(content).hexdigest(),
        kind=kind,
        name=file.name,
        target=target,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        key=fingerprint(key.public_key()),
    )
    signature = base64.b64encode(key.sign(statement.to_bytes())).decode()
    to = signature_path(file)
    atomic_write.write_text(to, json.dumps({"statement": asdict(statement), "signature": signature}, indent=1) + "\n")
    return to


def kind_of(file: Path) -> tuple[SignedKind, str]:
    """Return the kind of a file by its name, and an artifact's export target."""
    return (SignedKind.SIGN_OFF, "") if file.suffix == ".json" else (SignedKind.ARTIFACT, registry.target_of(file))


def verify(file: Path, trusted: list[Signer]) -> tuple[Signer, Statement]:
    """Return who signed a file and when; raise BadInput if it is unsigned, changed or signed by an untrusted key."""
    return verify_bytes(read_signable(file), file, trusted, kind_of(file)[0])


def verify_bytes(content: bytes, file: Path, trusted: list[Signer], kind: SignedKind) -> tuple[Signer, Statement]:
    """Verify bytes that were read already, so that the caller uses what was verified.

    `kind`: what the caller uses the file as; a file of the other kind is refused.
    """
    if kind_of(file)[0] is not kind:
        raise BadInput(
            f"{file}: is signed as {kind_of(file)[0]} because of its name, and is used as {kind}; artifacts end with .onnx, sign-offs "
            "with .json"
        )
    if not trusted:
        raise BadInput(
            f"there are no trusted keys: put public keys into {trust_store()} (or set INSPECT_KD_TRUST), or name one with --trust"
        )
    statement, signature = _read_signature(file)
    if hashlib.sha256(content).hexdigest() != statement.sha256:
        raise BadInput(f"{file}: changed since it was signed on {statement.created}; do not use it")
    signer = next((signer for signer in trusted if signer.fingerprint == statement.key), None)
    if signer is None:
        trusted_names = ", ".join(f"{signer.name} ({signer.fingerprint})" for signer in trusted)
        raise BadInput(
            f"{file}: signed with the key {statement.key}, which is not trusted here; trusted: {trusted_names}"
        )
    try:
        signer.key.verify(signature, statement.to_bytes())
    except InvalidSignature as error:
        raise BadInput(f"{file}: its signature is forged or damaged; do not use it") from error
    _refuse_another_file(statement, file)
    return signer, statement


def _refuse_another_file(statement: Statement, file: Path) -> None:
    """Refuse a signature of another name, kind or target: one part's artifact must not be used for another part."""
    kind, target = kind_of(file)
    if statement.name != file.name:
        raise BadInput(f"{file}: was signed under the name {statement.name}: rename it back, or sign it again")
    if (statement.kind, statement.target) != (kind, target):
        was, now = " ".join((statement.kind, statement.target)), " ".join((kind, target))
        raise BadInput(f"{file}: was signed as: {was}; it is used as: {now}; sign it again")


def load_signers(source: Path) -> list[Signer]:
    """Load one public key, or all in a folder."""
    if source == Path():
        # An empty setting is this path too, and keys in the working directory may come from anyone.
        raise UsageError(
            "trusted keys must not be read from the working directory; name a key or a folder of keys by its path"
        )
    if not source.exists():
        return []
    files = sorted(source.glob("*.pub")) if source.is_dir() else [source]
    for path in {source, *files}:
        refuse_writable_by_others(path, "keys in it are trusted", "$INSPECT_KD_TRUST or --trust")
    return [Signer(file.stem, _load_public_key(file)) for file in files]


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return sixteen hex digits that identify a key and that people can compare aloud."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_signable(file: Path) -> bytes:
    """Read the bytes of an artifact or of a sign-off."""
    if kind_of(file)[0] is SignedKind.SIGN_OFF:
        return read_plain_file(file, "calibration", MAX_BYTES)
    return read_plain_file(file, "artifact", MAX_ARTIFACT_BYTES)


def _read_signature(file: Path) -> tuple[Statement, bytes]:
    """Read the statement and the signature beside a file, neither verified yet."""
    path = signature_path(file)
    try:
        text = read_plain_file(path, "signature", MAX_BYTES)
    except MissingFile:
        raise BadInput(f"{file}: not signed ({path.name} is not beside it); sign it with `inspect-kd sign`") from None
    try:
        content = strict_json.loads(text)
        _refuse_other_versions(content, path, file)
        statement = Statement(**content["statement"])
        signature = base64.b64decode(content["signature"], validate=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path}: not a signature of this program ({type(error).__name__})") from error
    texts = [getattr(statement, item.name) for item in fields(Statement) if item.name != "version"]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise BadInput(f"{path}: not a signature of this program")
    return statement, signature


def _refuse_other_versions(content: Any, path: Path, file: Path) -> None:
    version = content["schema"] if "schema" in content else content["statement"].get("version")
    if version == 1:
        raise BadInput(
            f"{path}: a signature of version 1, which does not cover the file's name; sign it again: `inspect-kd sign {file} --key KEY`"
        )
    if type(version) is not int or version != VERSION:
        raise BadInput(
            f"{path}: a signature of version {version!r}; this program reads version {VERSION}: update inspect-kd"
        )


def _load_private_key(path: Path, passphrase: str | None) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(_read_key(path), passphrase.encode() if passphrase else None)
    except TypeError as error:
        problem = "is locked: give its passphrase" if not passphrase else "is not locked: leave the passphrase out"
        raise UsageError(f"{path} {problem}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: not a private key, or the passphrase is wrong") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_ed25519(path)
    return key


def _load_public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(_read_key(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: not a public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _not_ed25519(path)
    return key


def _not_ed25519(path: Path) -> UsageError:
    return UsageError(f"{path}: not an ed25519 key; `inspect-kd keygen` makes one")


def _read_key(path: Path) -> bytes:
    try:
        return read_plain_file(path, "key", MAX_BYTES)
    except BadInput as error:
        raise UsageError(f"{error}; `inspect-kd keygen` makes one") from None
