"""Whose artifact this is, and that nobody has changed it: ed25519 over the file's digest, detached, beside the file.

Unusual here: the signed statement names what it is for and when it was made, so that no signature of anything else, and none
of another kind of file, passes for one of an artifact. No torch, no runtime: an artifact is verified before any parser
touches it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from inspect_kd import atomic_write, strict_json
from inspect_kd.errors import BadInput, UsageError

SCHEMA = 1
PURPOSE = "inspect-kd artifact"
LARGEST = 64 * 2**10
"""Bytes that a signature or a key may have; a real one has hundreds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    sha256: str
    """Of the artifact."""
    signed: str
    """When, by the signer's clock."""
    key: str
    """Fingerprint of the public key."""
    signature: str
    """Base64."""
    schema: int = SCHEMA

    def statement(self) -> bytes:
        """What is signed."""
        return f"{PURPOSE} v{self.schema}\n{self.sha256}\n{self.signed}\n{self.key}\n".encode()


@dataclass(frozen=True, slots=True)
class Signer:
    """Somebody whose artifacts are trusted."""

    name: str
    key: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.key)


def signature_of(artifact: Path) -> Path:
    """Where its signature lies."""
    return artifact.with_name(artifact.name + ".sig")


def trust_store() -> Path:
    """$INSPECT_KD_TRUST, else a folder of the user's: public keys, a file a signer."""
    return Path(os.environ.get("INSPECT_KD_TRUST") or Path.home() / ".config" / "inspect-kd" / "trust")


def make_keys(private: Path, passphrase: str | None) -> Path:
    """A new pair; the private key is for its owner's eyes only. Returns the public one's file."""
    public = private.with_suffix(".pub")
    for path in (private, public):
        if path.exists():
            raise UsageError(
                f"{path} exists: a key is never overwritten, what it signed would be lost; choose another name"
            )
    key = Ed25519PrivateKey.generate()
    locked: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        locked = serialization.BestAvailableEncryption(passphrase.encode())
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    private.parent.mkdir(parents=True, exist_ok=True)
    atomic_write.write_new(private, content, mode=0o600)
    try:
        atomic_write.write_new(public, _pem(key.public_key()))
    except OSError:
        # Half a pair would block the next try.
        private.unlink(missing_ok=True)
        raise
    return public


def sign(artifact: Path, private: Path, passphrase: str | None = None) -> Path:
    """Write the signature beside the artifact; returns its file."""
    key = _private_key(private, passphrase)
    unsigned = Signature(
        sha256=_digest(artifact),
        signed=datetime.now(UTC).isoformat(timespec="seconds"),
        key=fingerprint(key.public_key()),
        signature="",
    )
    made = base64.b64encode(key.sign(unsigned.statement())).decode()
    to = signature_of(artifact)
    atomic_write.write_text(to, json.dumps(asdict(unsigned) | {"signature": made}, indent=1) + "\n")
    return to


def verify(artifact: Path, trusted: list[Signer]) -> tuple[Signer, Signature]:
    """Who signed it and when, or why it must not be used. What is returned has been held against the file's bytes."""
    content = _read(artifact)
    return verify_bytes(content, artifact, trusted)


def verify_bytes(content: bytes, artifact: Path, trusted: list[Signer]) -> tuple[Signer, Signature]:
    """The same of bytes that were read already: what is verified is then what is run."""
    if not trusted:
        raise BadInput(
            f"no signer is trusted: put public keys into {trust_store()} (or set INSPECT_KD_TRUST), or name one with --trust"
        )
    signature = _read_signature(artifact)
    if hashlib.sha256(content).hexdigest() != signature.sha256:
        raise BadInput(f"{artifact}: changed since {signature.signed}, when it was signed; do not use it")
    for signer in trusted:
        if signer.fingerprint != signature.key:
            continue
        try:
            signer.key.verify(base64.b64decode(signature.signature, validate=True), signature.statement())
        except (InvalidSignature, ValueError) as error:
            raise BadInput(f"{artifact}: its signature is forged or damaged; do not use it") from error
        return signer, signature
    known = ", ".join(f"{signer.name} ({signer.fingerprint})" for signer in trusted)
    raise BadInput(f"{artifact}: signed by {signature.key}, who is not trusted here; trusted: {known}")


def signers(source: Path) -> list[Signer]:
    """Of one public key, or of a folder of them."""
    files = sorted(source.glob("*.pub")) if source.is_dir() else [source]
    if not source.exists():
        return []
    return [Signer(file.stem, _public_key(file)) for file in files]


def fingerprint(key: Ed25519PublicKey) -> str:
    """Sixteen digits that people can compare aloud."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _digest(artifact: Path) -> str:
    return hashlib.sha256(_read(artifact)).hexdigest()


def _read(artifact: Path) -> bytes:
    if not artifact.is_file():
        raise BadInput(f"{artifact}: no such artifact")
    return artifact.read_bytes()


def _read_signature(artifact: Path) -> Signature:
    path = signature_of(artifact)
    if not path.is_file():
        raise BadInput(f"{artifact}: not signed ({path.name} is not beside it); `inspect-kd sign` does that")
    if path.stat().st_size > LARGEST:
        raise BadInput(f"{path}: {path.stat().st_size} bytes is no signature")
    try:
        content = strict_json.loads(path.read_bytes())
        signature = Signature(**content)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: not a signature of this program ({type(error).__name__})") from error
    texts = (signature.sha256, signature.signed, signature.key, signature.signature)
    if signature.schema != SCHEMA or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"{path}: a signature of schema {signature.schema!r}; this program reads schema {SCHEMA}")
    if not re.fullmatch(r"[0-9a-f]{64}", signature.sha256) or "\n" in signature.signed + signature.key:
        raise BadInput(f"{path}: not a signature of this program")
    return signature


def _private_key(path: Path, passphrase: str | None) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(_key_bytes(path), passphrase.encode() if passphrase else None)
    except TypeError as error:
        needed = "is locked: give its passphrase" if not passphrase else "is not locked: leave the passphrase out"
        raise UsageError(f"{path} {needed}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: not a private key, or the passphrase is wrong") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: not an ed25519 key; `inspect-kd keygen` makes one")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(_key_bytes(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: not a public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: not an ed25519 key; `inspect-kd keygen` makes one")
    return key


def _key_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"{path}: no such key; `inspect-kd keygen` makes one")
    if path.stat().st_size > LARGEST:
        raise UsageError(f"{path}: {path.stat().st_size} bytes is no key")
    return path.read_bytes()
