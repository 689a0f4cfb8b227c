"""`inspect-kd ui`: open the Studio in a browser; needs no torch."""

from __future__ import annotations

import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo
from inspect_kd.cli.threads import Threads

if TYPE_CHECKING:
    from inspect_kd.apps.studio.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ui(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Artifacts (.onnx) or folders of runs; the first one inspects, the others are for comparison."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback only with --auth or --open.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: the first free one from 7860 on.")
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            envvar="INSPECT_KD_AUTH", help="Users who may log in: NAME:PASSWORD, several separated by commas."
        ),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Let everyone on the network in without a password.")
    ] = False,
    store: Annotated[Path, typer.Option(help="Folder for marks and calibrations.")] = Path("studio"),
    runs: Annotated[
        Path, typer.Option(help="Folder of the runs; without ARTIFACT the newest in it are offered.")
    ] = Path("runs"),
    train_on: Annotated[
        Path, typer.Option(help="Folder that holds the data sets that may be chosen for training.")
    ] = Path(),
    no_train: Annotated[bool, typer.Option("--no-train", help="Hide the Train and Zones tabs.")] = False,
    max_upload: Annotated[int, typer.Option(min=1, help="Largest upload, in MB.")] = 100,
    max_parts: Annotated[
        int, typer.Option(min=1, help="Largest number of parts in the session of one browser tab.")
    ] = 500,
    max_disk: Annotated[
        int, typer.Option(min=64, help="Largest size of all sessions and pending uploads together, in MB.")
    ] = 4096,
    threads: Threads = 1,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="INSPECT_KD_ALLOW_HOST",
            help="Further NAME[:PORT] under which browsers reach the Studio, e.g. through a proxy; repeatable.",
        ),
    ] = None,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Refuse artifacts that no key in the trust store has signed.")
    ] = False,
    root_path: Annotated[str | None, typer.Option(help="Path prefix behind a reverse proxy.")] = None,
) -> None:
    """Open the Studio: inspect parts in a browser, adjust thresholds, mark wrong decisions, compare artifacts, train.

    Without ARTIFACT it offers the results of trainings and of `inspect-kd demo` below runs/. It
    listens on loopback by default.

    Examples:

        inspect-kd ui

        inspect-kd ui runs/bottle runs/bottle-larger --store marked/

        INSPECT_KD_AUTH=line3:secret inspect-kd ui part.onnx --host 0.0.0.0
    """
    from inspect_kd.apps.studio import texts
    from inspect_kd.apps.studio.server.allowed_hosts import is_host
    from inspect_kd.errors import EnvironmentFault, UsageError

    if find_spec("gradio") is None:
        raise EnvironmentFault(texts.NO_GRADIO)
    users = parse_users(auth)
    host = host.strip("[]")  # browsers show IPv6 addresses in brackets
    if host not in LOOPBACK and not users and not open_to_all:
        raise UsageError(texts.BEYOND_LOOPBACK.format(host=host))
    public_hosts = tuple(allow_host or ())
    for name in public_hosts:
        if not is_host(name):
            raise UsageError(texts.BAD_HOST.format(name=name))
    from inspect_kd.apps.studio.server.serve import ServerSettings, run_studio

    limits = (max_upload, max_parts, max_disk, threads)
    settings = make_settings(artifacts or [], runs, store, limits, None if no_train else train_on, trusted=trusted)
    server = ServerSettings(host=host, port=port, auth=users, public_hosts=public_hosts, root_path=root_path)
    with run_studio(settings, server) as address:
        # Containers are stopped by SIGTERM; exit normally, so that temporary files are deleted.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        echo(f"inspect-kd Studio: {address}  (Ctrl+C stops it; marks and calibrations are saved in {store})")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            echo("closed")


def make_settings(
    artifacts: list[Path],
    runs: Path,
    store: Path,
    limits: tuple[int, int, int, int],
    train_on: Path | None,
    *,
    trusted: bool,
) -> Settings:
    """Return the Studio's settings; without `artifacts` the newest ones in `runs` are offered.

    `limits`: the largest upload in MB, parts of a session, size on the disk in MB, and threads of the model.
    """
    from inspect_kd.apps.studio import texts
    from inspect_kd.apps.studio.artifact.library import find_artifacts, find_examples
    from inspect_kd.apps.studio.settings import Settings
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.errors import BadInput
    from inspect_kd.signing import trust_store

    paths = [artifact_of(artifact) for artifact in artifacts] or find_artifacts(runs)
    if not paths:
        raise BadInput(texts.NO_ARTIFACT.format(runs=runs))
    upload, parts, disk, threads = limits
    return Settings(
        artifacts=tuple(paths),
        store=store,
        runs=runs,
        train_on=train_on,
        examples=find_examples(paths[0]),
        max_upload_mb=upload,
        max_parts=parts,
        max_kept_mb=disk,
        threads=threads,
        trust=trust_store() if trusted else None,
    )


def parse_users(auth: str | None) -> tuple[tuple[str, str], ...]:
    """Parse the names and passwords of `--auth`."""
    from inspect_kd.apps.studio import texts
    from inspect_kd.errors import UsageError

    pairs = [tuple(login.split(":", 1)) for login in (auth or "").split(",") if login]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise UsageError(texts.BAD_AUTH)
    return tuple((pair[0], pair[1]) for pair in pairs)
