"""`inspect-kd keygen`, `sign`, `verify`: whose artifact this is, and that nobody has changed it. No torch, no runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

PASSPHRASE = "INSPECT_KD_PASSPHRASE"


def keygen(
    private: Annotated[Path, typer.Argument(help="File of the private key; the public one gets its name with .pub.")],
    locked: Annotated[
        bool, typer.Option(help=f"Ask for a passphrase that locks the private key (or take ${PASSPHRASE}).")
    ] = True,
) -> None:
    """Make a pair of ed25519 keys: the private one signs artifacts, the public one goes to every line that trusts it.

    Examples:

        inspect-kd keygen keys/quality.pem

        cp keys/quality.pub ~/.config/inspect-kd/trust/
    """
    from inspect_kd.signing import fingerprint, make_keys, signers

    passphrase = _passphrase("Passphrase for the new key", confirm=True) if locked else None
    public = make_keys(private, passphrase)
    typer.echo(f"private key  {private} (keep it to yourself{'' if passphrase else ': it is not locked'})")
    typer.echo(f"public key   {public}, fingerprint {fingerprint(signers(public)[0].key)}")


def sign(
    artifact: Annotated[Path, typer.Argument(help="An artifact (.onnx), or a run's folder.")],
    key: Annotated[Path, typer.Option("--key", "-k", help="Private key, of `inspect-kd keygen`.")],
) -> None:
    """Sign an artifact: its signature lies beside it as <artifact>.sig. Any later change of the file voids it.

    Examples:

        inspect-kd sign runs/bottle --key keys/quality.pem
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.errors import UsageError
    from inspect_kd.signing import sign as make

    path = artifact_of(artifact)
    try:
        written = make(path, key, os.environ.get(PASSPHRASE))
    except UsageError as error:
        if "is locked" not in str(error):
            raise
        written = make(path, key, _passphrase(f"Passphrase of {key}", confirm=False))
    typer.echo(f"{written}: {path.name} is signed")


def verify(
    artifact: Annotated[Path, typer.Argument(help="An artifact (.onnx), or a run's folder.")],
    trust: Annotated[
        Path | None, typer.Option(help="A public key, or a folder of them; default: the trust store.")
    ] = None,
) -> None:
    """Say who signed an artifact, or why it must not be used (exit code 3). Nothing in the file is parsed before that is known.

    Examples:

        inspect-kd verify part.onnx

        inspect-kd verify part.onnx --trust keys/quality.pub
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.signing import signers, trust_store
    from inspect_kd.signing import verify as check

    path = artifact_of(artifact)
    signer, signature = check(path, signers(trust or trust_store()))
    typer.echo(f"{path}: unchanged, signed by {signer.name} ({signer.fingerprint}) on {signature.signed}")


def _passphrase(question: str, *, confirm: bool) -> str | None:
    """From the environment, else from a person; nobody else is asked."""
    found = os.environ.get(PASSPHRASE)
    if found is not None:
        return found or None
    return str(typer.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)) or None
