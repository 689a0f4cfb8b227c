"""`inspect-kd data`: which data sets there are, what a folder holds and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from inspect_kd.cli.echo import echo

app = typer.Typer(help="Data sets: list, check, fetch, draw.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SHOWN_FINDINGS = 40


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the data sets that the program knows, their licences, and whether their images are here."""
    from inspect_kd import zoo
    from inspect_kd.datasets.manifest import load_manifest

    manifests = [load_manifest(name) for name in zoo.names("datasets")]
    rows = [
        (m.name, m.title, m.licence.name, m.licence.commercial, len(m.categories), m.folder().is_dir())
        for m in manifests
    ]
    if as_json:
        keys = ("name", "title", "licence", "commercial", "categories", "present")
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    from rich.table import Table

    from inspect_kd.cli.console import PlainConsole

    table = Table("name", "title", "licence", "factory use", "categories", "images here")
    for name, title, licence, commercial, categories, present in rows:
        table.add_row(name, title, licence, "yes" if commercial else "no", str(categories), "yes" if present else "–")
    PlainConsole().print(table)
    echo(f"images live in {zoo.data_home()} (set INSPECT_KD_DATA to change it); any folder works as --data, too")


@app.command("check")
def check(
    data: Annotated[str, typer.Argument(help="A data set's name, a manifest, a CSV or any folder.")],
    group: Annotated[
        str | None, typer.Option(help="Regular expression over file names whose first group names the part.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a data set holds and what is wrong with it. Exit 3 on an error.

    Example: inspect-kd data check my_parts/
    """
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.datasets import open_dataset
    from inspect_kd.datasets.check import check as look
    from inspect_kd.errors import BadInput, printable
    from inspect_kd.types import Split

    found = open_dataset(data, group=group)
    with show_progress() as progress:
        findings = look(found, progress)
    counts = {c: {str(s): len(found.select(s, c)) for s in Split} for c in found.categories}
    defects = {c: sum(s.defective for s in found.samples if s.category == c) for c in found.categories}
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        listed = [{"severity": f.severity, "text": f.text, "files": [str(file) for file in f.files]} for f in findings]
        typer.echo(json.dumps({"layout": found.layout, "counts": counts, "defective": defects, "findings": listed}))
    else:
        _show(found.name, found.layout, counts, defects)
        for finding in findings[:SHOWN_FINDINGS]:
            mark = {"error": "✗", "warning": "!", "note": "•"}[finding.severity]
            echo(f"{mark} {finding.text}")
            for file in finding.files[:3]:
                echo(f"    {printable(str(file))}")
        if len(findings) > SHOWN_FINDINGS:
            echo(f"… and {len(findings) - SHOWN_FINDINGS} more (--json lists all)")
    if errors:
        raise BadInput(f"{data}: {errors} error{'s' if errors > 1 else ''}")


def _show(name: str, layout: str, counts: dict[str, dict[str, int]], defects: dict[str, int]) -> None:
    from rich.table import Table

    from inspect_kd.cli.console import PlainConsole

    table = Table(
        "category",
        "train",
        "calibration",
        "validation",
        "test",
        "of these defective",
        title=f"{name} (layout: {layout})",
    )
    for category, splits in counts.items():
        table.add_row(
            category, *[str(splits[s]) for s in ("train", "calibration", "validation", "test")], str(defects[category])
        )
    PlainConsole().print(table)


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A data set's name or a manifest.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the licence without being asked.")] = False,
) -> None:
    """Fetch a data set. Shows the licence first; goes on where an earlier attempt stopped.

    Example: inspect-kd data get mvtec
    """
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.datasets.fetch import get as fetch
    from inspect_kd.datasets.manifest import load_manifest
    from inspect_kd.errors import UsageError

    manifest = load_manifest(name)
    echo(f"{manifest.title}: {manifest.licence.name} {manifest.licence.url}".rstrip(), err=True)
    if not manifest.licence.commercial:
        echo("NOT for commercial use: measure with it, do not ship what is trained on it.", err=True)
    if manifest.citation:
        echo(f"cite: {manifest.citation}", err=True)
    if not yes and not typer.confirm("Accept the licence and fetch?", err=True):
        raise UsageError("not fetched: the licence was not accepted")
    with show_progress() as progress:
        folder = fetch(manifest, progress)
    echo(folder)


@app.command("draw")
def draw(
    to: Annotated[Path | None, typer.Option(help="Folder; default: below INSPECT_KD_DATA.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Another seed draws other parts.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (.jpg or .png).")] = None,
) -> None:
    """Draw the embedded data set `sample`: four kinds of parts, with defects and exact masks.

    Example: inspect-kd data draw --to parts/ --sheet parts.jpg
    """
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.datasets.drawn import contact_sheet, draw_sample
    from inspect_kd.datasets.manifest import load_manifest

    with show_progress() as progress:
        folder = draw_sample(to or load_manifest("sample").folder(), seed, progress=progress)
    echo(folder)
    if sheet is not None:
        echo(contact_sheet(folder, sheet))
