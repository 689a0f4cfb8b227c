"""`inspect-kd demo`: the whole way on the drawn data set, nothing downloaded."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

PICTURES = 3
HURRY = ["distill.supervise.steps=300", "distill.variants=4"]
"""A demonstration takes three minutes: its head learns for a fifth of what the recipe gives it."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other parts.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw an earlier demo in that folder away.")] = False,
) -> None:
    """Draw parts, train a student, prove its artifact, inspect parts with it, write the report: under 3 minutes on two cores."""
    from inspect_kd.cli.needs import need_training
    from inspect_kd.cli.predict import save_overlay
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.cli.train import prepare, show_result, summary
    from inspect_kd.datasets.drawn import CATEGORIES, draw_sample
    from inspect_kd.errors import UsageError, file_named

    need_training()
    if out.exists() and any(out.iterdir()):
        if not fresh:
            raise UsageError(f"{out} is not empty: --fresh throws it away, --out names another folder")
        remove_earlier_demo(out)
    began = time.monotonic()
    with show_progress() as progress, file_named(out):
        data_folder = draw_sample(out / "sample", seed, progress=progress)
        from inspect_kd.train import pipeline
        from inspect_kd.train.hardware import Hardware
        from inspect_kd.train.job import Job
        from inspect_kd.train.run import RunFolder

        recipe, data = prepare(str(data_folder), "embedded", HURRY)
        progress.note(summary(data))
        folder, hardware = RunFolder(out / "parts"), Hardware(device="cpu")
        pipeline.train(Job(recipe=recipe, data=data, folder=folder, hardware=hardware, progress=progress))
        from inspect_kd.inspector import Inspector
        from inspect_kd.train.artifacts import require_artifacts

        require_artifacts(folder.path)
        inspector = Inspector(folder.artifact())
        shown = [
            path
            for category in CATEGORIES
            for kind in sorted((data_folder / category / "test").iterdir())[:PICTURES]
            for path in sorted(kind.iterdir())[:1]
        ]
        progress.phase("inspect", len(shown))
        for path in shown:
            save_overlay(path, inspector(path), out / "overlays", None)
            progress.advance()
    show_result(folder.path, as_json=False)
    typer.echo(f"overlays  {out / 'overlays'}")
    typer.echo(f"done in {time.monotonic() - began:.0f} s; open the report in a browser")


def remove_earlier_demo(out: Path) -> None:
    """What a demo makes; other things in the folder are not this program's to remove."""
    from inspect_kd.train.run import RunFolder, hold_run

    with hold_run(RunFolder(out / "parts"), may_be_complete=True):
        for made in ("sample", "parts", "overlays"):
            if (out / made).exists():
                shutil.rmtree(out / made)
