"""`inspect-kd ls` and `inspect-kd cp`: list the shipped YAML files, and copy one to change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from inspect_kd.cli.echo import echo
from inspect_kd.zoo import ZooKind


def ls(
    kind: Annotated[ZooKind | None, typer.Argument(help="models, datasets or export; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List recipes, data sets and deployments that come with the program."""
    from inspect_kd import config, zoo

    kinds: list[ZooKind] = [kind] if kind else ["models", "datasets", "export"]
    listed = {
        kind: {name: _about(config.read_yaml(zoo.find(kind, name))) for name in zoo.names(kind)} for kind in kinds
    }
    if as_json:
        typer.echo(json.dumps(listed))
        return
    for heading, entries in listed.items():
        echo(heading)
        for name, about in entries.items():
            echo(f"  {name:<16} {about}")


def cp(
    kind: Annotated[ZooKind, typer.Argument(help="models, datasets or export.")],
    name: Annotated[str, typer.Argument(help="Name of the file to copy.")],
    to: Annotated[Path, typer.Argument(help="A new file or a folder.")] = Path(),
) -> None:
    """Copy a shipped YAML file to change it.

    Example: inspect-kd cp models omni_ad mine.yaml && inspect-kd train --model mine.yaml --data my_parts/
    """
    from inspect_kd import atomic_write, zoo
    from inspect_kd.errors import UsageError

    source = zoo.find(kind, name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise UsageError(f"{target} exists; nothing was copied: choose another name")
    atomic_write.write_new(target, source.read_bytes())
    echo(f"{target}")


def _about(content: dict[str, object]) -> str:
    return str(content.get("about") or content.get("title") or "")
