"""`inspect-kd ls` and `inspect-kd cp`: see what is shipped, copy a recipe to change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from inspect_kd.cli.echo import echo

Room = Literal["models", "datasets", "export"]


def ls(
    room: Annotated[Room | None, typer.Argument(help="models, datasets or export; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List recipes, data sets and deployments that come with the program."""
    from inspect_kd import config, zoo

    rooms: list[Room] = [room] if room else ["models", "datasets", "export"]
    found = {kind: {name: _about(config.read_yaml(zoo.find(kind, name))) for name in zoo.names(kind)} for kind in rooms}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for kind, entries in found.items():
        echo(kind)
        for name, about in entries.items():
            echo(f"  {name:<16} {about}")


def cp(
    room: Annotated[Room, typer.Argument(help="models, datasets or export.")],
    name: Annotated[str, typer.Argument(help="What to copy.")],
    to: Annotated[Path, typer.Argument(help="A new file or a folder.")] = Path(),
) -> None:
    """Copy a shipped YAML to change it.

    Example: inspect-kd cp models omni_ad mine.yaml && inspect-kd train --model mine.yaml --data my_parts/
    """
    from inspect_kd import atomic_write, zoo
    from inspect_kd.errors import UsageError

    source = zoo.find(room, name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise UsageError(f"{target} is there already; nothing was copied")
    atomic_write.write_new(target, source.read_bytes())
    echo(f"{target}")


def _about(content: dict[str, object]) -> str:
    return str(content.get("about") or content.get("title") or "")
