"""`inspect-kd data`: list, check, download and draw data sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo

if TYPE_CHECKING:
    from inspect_kd.datasets.advice import Advice

app = typer.Typer(help="Data sets: list, check, download, draw.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MAX_FINDINGS = 40
"""Limit of the findings that are printed without --json."""


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the known data sets, their licences, and whether their images are on this machine."""
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

    from inspect_kd.plain_console import PlainConsole

    table = Table("name", "title", "licence", "commercial use", "categories", "downloaded")
    for name, title, licence, commercial, categories, present in rows:
        table.add_row(name, title, licence, "yes" if commercial else "no", str(categories), "yes" if present else "–")
    PlainConsole().print(table)
    echo(f"images are in {zoo.data_home()} (set INSPECT_KD_DATA to change it); --data also takes any folder")


@app.command("check")
def check(
    data: Annotated[str, typer.Argument(help="A data set's name, a manifest, a CSV or any folder.")],
    group: Annotated[
        str | None, typer.Option(help="Regular expression over file names whose first group names the part.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a data set contains, check it for errors, and advise on its pictures. Exit code 3 if it has errors.

    Example: inspect-kd data check my_parts/
    """
    from inspect_kd.config import CalibrationConfig, Data
    from inspect_kd.datasets import open_dataset
    from inspect_kd.datasets.advice import advise
    from inspect_kd.datasets.check import check as check_dataset
    from inspect_kd.errors import BadInput, printable
    from inspect_kd.progress_display import show_progress
    from inspect_kd.types import Split

    data_set = open_dataset(data, group=group, may_draw=False)
    with show_progress() as progress:
        findings = check_dataset(data_set, progress)
        advice = advise(data_set, Data(), CalibrationConfig(), progress)
    counts = {c: {str(s): len(data_set.select(s, c)) for s in Split} for c in data_set.categories}
    defects = {c: sum(s.defective for s in data_set.samples if s.category == c) for c in data_set.categories}
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        entries = [{"severity": f.severity, "text": f.text, "files": [str(file) for file in f.files]} for f in findings]
        content = {"layout": data_set.layout, "counts": counts, "defective": defects, "findings": entries}
        typer.echo(json.dumps(content | {"advice": [each.to_json(data) for each in advice]}))
    else:
        _print_counts(data_set.name, data_set.layout, counts, defects)
        for finding in findings[:MAX_FINDINGS]:
            mark = {"error": "✗", "warning": "!", "note": "•"}[finding.severity]
            echo(f"{mark} {finding.text}")
            for file in finding.files[:3]:
                echo(f"    {printable(str(file))}")
        if len(findings) > MAX_FINDINGS:
            echo(f"… and {len(findings) - MAX_FINDINGS} more (--json lists all)")
        _print_advice(advice, data)
    if errors:
        raise BadInput(f"{data}: {errors} error{'s' if errors > 1 else ''}")


def _print_advice(advice: Sequence[Advice], data: str) -> None:
    """Print each piece of advice with its remedy; it is only a note if the training follows it by itself."""
    from inspect_kd.errors import printable

    for each in advice:
        echo(printable(f"{'•' if each.done else '→'} {each.describe()}"))
        for file in each.files[:3]:
            echo(f"    {printable(str(file))}")
        command = each.command(data)
        if command:
            echo(f"    {printable(command)}")


def _print_counts(name: str, layout: str, counts: dict[str, dict[str, int]], defects: dict[str, int]) -> None:
    from rich.table import Table

    from inspect_kd.plain_console import PlainConsole

    table = Table(
        "category",
        "train",
        "calibration",
        "validation",
        "test",
        "of which defective",
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the licence without a question.")] = False,
) -> None:
    """Download a data set. Shows the licence first; continues an interrupted download.

    Example: inspect-kd data get mvtec
    """
    from inspect_kd.cli.download import download
    from inspect_kd.datasets.manifest import load_manifest

    echo(download(load_manifest(name), accepted=yes, option="--yes"))


@app.command("draw")
def draw(
    to: Annotated[Path | None, typer.Option(help="Folder; default: below INSPECT_KD_DATA.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the drawn parts.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (.jpg or .png).")] = None,
) -> None:
    """Draw the built-in data set `sample`: five kinds of parts, with defects and exact masks.

    Example: inspect-kd data draw --to parts/ --sheet parts.jpg
    """
    from inspect_kd.datasets.drawn import draw_sample, write_contact_sheet
    from inspect_kd.datasets.manifest import load_manifest
    from inspect_kd.progress_display import show_progress

    with show_progress() as progress:
        folder = draw_sample(to or load_manifest("sample").folder(), seed, progress=progress)
    echo(folder)
    if sheet is not None:
        echo(write_contact_sheet(folder, sheet))
