"""`inspect-kd keygen`, `sign` and `verify`: sign artifacts and calibrations, verify signatures.

These commands need neither torch nor ONNX Runtime.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inspect_kd.sign_off import SignOff

PASSPHRASE_VARIABLE = "INSPECT_KD_PASSPHRASE"
SIGNABLE = "An artifact (.onnx), a run's folder, or a calibration from the Studio (.json)."


def keygen(
    private: Annotated[
        Path, typer.Argument(help="File of the private key; the public key gets the same name with .pub.")
    ],
    locked: Annotated[
        bool, typer.Option(help=f"Lock the private key with a passphrase, from a prompt or ${PASSPHRASE_VARIABLE}.")
    ] = True,
) -> None:
    """Make a pair of ed25519 keys: the private key signs artifacts, the public key goes to every line that trusts it.

    Examples:

        inspect-kd keygen keys/quality.pem

        cp keys/quality.pub ~/.config/inspect-kd/trust/
    """
    from inspect_kd.errors import printable
    from inspect_kd.signing import fingerprint, load_signers, make_keys

    passphrase = _passphrase("Passphrase for the new key", confirm=True) if locked else None
    public = make_keys(private, passphrase)
    typer.echo(printable(f"private key  {private} (keep it secret{'' if passphrase else ': it is not locked'})"))
    typer.echo(printable(f"public key   {public}, fingerprint {fingerprint(load_signers(public)[0].key)}"))


def sign(
    artifact: Annotated[Path, typer.Argument(help=SIGNABLE)],
    key: Annotated[Path, typer.Option("--key", "-k", help="Private key from `inspect-kd keygen`.")],
) -> None:
    """Sign an artifact, or thresholds that were signed off in the Studio; the signature is written to <file>.sig.

    It is valid for this file under this name; a changed or renamed file must be signed again.

    Examples:

        inspect-kd sign runs/bottle --key keys/quality.pem

        inspect-kd sign studio/calibrations/bottle-all-2026-01-31-1.json --key keys/quality.pem
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.errors import UsageError, printable
    from inspect_kd.export.card import ArtifactCard
    from inspect_kd.export.wire import card_text
    from inspect_kd.sign_off import parse_sign_off
    from inspect_kd.signing import SignedKind, kind_of, read_signable, sign_bytes

    path = artifact_of(artifact)
    # Read the file once, because it could be replaced before the person has read the summary or typed the passphrase.
    content = read_signable(path)
    if kind_of(path)[0] is SignedKind.SIGN_OFF:
        sign_off = parse_sign_off(content, path)
        typer.echo(printable(f"{path.name}: {_describe(sign_off)}, signed off by {sign_off.by}"))
    else:
        # Parsing the card raises for any other file, so that only an artifact gets an artifact's signature.
        card = ArtifactCard.parse(card_text(content, str(path)), str(path))
        typer.echo(printable(f"{path.name}: the artifact {card.name} ({', '.join(card.categories)})"))
    try:
        written = sign_bytes(content, path, key, os.environ.get(PASSPHRASE_VARIABLE))
    except UsageError as error:
        if "is locked" not in str(error):
            raise
        written = sign_bytes(content, path, key, _passphrase(printable(f"Passphrase of {key}"), confirm=False))
    typer.echo(printable(f"{written}: {path.name} is signed"))


def _describe(sign_off: SignOff) -> str:
    """Describe the new thresholds, the artifact's own and the artifact, with its digest, since a sign-off may claim any name."""
    new, default = sign_off.thresholds, sign_off.default_thresholds
    return (
        f"RE-INSPECT above {new.reinspect:g} (was {default.reinspect:g}), NG above {new.reject:g} (was {default.reject:g}), for "
        f"{sign_off.artifact} ({sign_off.category or 'all categories'}), sha256 {sign_off.sha256[:12]}"
    )


def verify(
    artifact: Annotated[Path, typer.Argument(help=SIGNABLE)],
    trust: Annotated[
        Path | None, typer.Option(help="A public key, or a folder of them; default: the trust store.")
    ] = None,
) -> None:
    """Show who signed an artifact or a calibration, or why it must not be used (exit code 3). The file itself is not parsed.

    Examples:

        inspect-kd verify part.onnx

        inspect-kd verify part.onnx --trust keys/quality.pub
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.errors import printable
    from inspect_kd.signing import load_signers, trust_store
    from inspect_kd.signing import verify as verify_signature

    path = artifact_of(artifact)
    signer, statement = verify_signature(path, load_signers(trust or trust_store()))
    text = f"{path}: unchanged, signed by {signer.name} ({signer.fingerprint}) on {statement.created}"
    typer.echo(printable(text))


def _passphrase(question: str, *, confirm: bool) -> str | None:
    """Return the passphrase from the environment, or ask for it."""
    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    if passphrase is not None:
        return passphrase or None
    return str(typer.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)) or None
