"""`inspect-kd demo`: train, export and inspect on the drawn data set, without a download."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

OVERLAY = re.compile(r"[0-9]{3}(-[0-9]+)?\.jpg")
"""Names of the overlays that the demo writes."""
INSPECTED_KINDS = 3
"""Number of kinds per category (good, and kinds of defect) of which the demo inspects one test image."""
DEMO_CHANGES = ["fit.steps=150", "distill.supervise.steps=300", "distill.variants=4", "distill.max_samples=560"]
"""Changes of the recipe that keep the demo below three minutes: a fifth of the supervised steps, fewer fit steps, fewer samples."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's run.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn parts.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier demo in that folder.")] = False,
) -> None:
    """Draw parts, train a student, export and check it, inspect parts, write a report: under 3 minutes on two cores."""
    from inspect_kd.cli.needs import require_training
    from inspect_kd.cli.predict import save_overlay
    from inspect_kd.cli.train import show_result
    from inspect_kd.datasets.drawn import CATEGORIES, draw_sample
    from inspect_kd.errors import UsageError, name_file_in_errors
    from inspect_kd.progress_display import show_progress

    require_training()
    if out.exists() and any(out.iterdir()):
        if not fresh:
            raise UsageError(f"{out} is not empty: --fresh deletes an earlier demo, --out names another folder")
        remove_earlier_demo(out)
    start = time.monotonic()
    with show_progress() as progress, name_file_in_errors(out):
        data_folder = draw_sample(out / "sample", seed, progress=progress)
        from inspect_kd import api
        from inspect_kd.inspector import Inspector
        from inspect_kd.training.hardware import Hardware
        from inspect_kd.training.run import RunFolder

        recipe, data = api.plan_training(data_folder, "embedded", DEMO_CHANGES)
        hardware = Hardware(device="cpu")
        run = api.run_training(recipe, data, RunFolder(out / "parts"), hardware=hardware, progress=progress)
        run.require_artifacts()
        inspector = Inspector(run.artifact())
        images = [
            path
            for category in CATEGORIES
            for kind in sorted((data_folder / category / "test").iterdir())[:INSPECTED_KINDS]
            for path in sorted(kind.iterdir())[:1]
        ]
        progress.phase("inspect", len(images))
        for path in images:
            save_overlay(path, inspector(path), out / "overlays", None)
            progress.advance()
    show_result(run, as_json=False)
    typer.echo(f"overlays  {out / 'overlays'}")
    typer.echo(f"done in {time.monotonic() - start:.0f} s; open the report in a browser")


def remove_earlier_demo(out: Path) -> None:
    """Delete the folders of an earlier demo; raise BadInput if one of them holds other files."""
    from inspect_kd.datasets.drawn import refuse_foreign_files
    from inspect_kd.errors import BadInput
    from inspect_kd.training.run import RunFolder, hold_run

    run = RunFolder(out / "parts")
    with hold_run(run, may_be_complete=True):
        refuse_foreign_files(out / "sample")
        _refuse_other_names(out / "overlays", lambda name: OVERLAY.fullmatch(name) is not None)
        _refuse_other_names(run.path, run.is_own_name)
        if not (run.is_complete or run.recipe.is_file()) and len(list(run.path.iterdir())) > 1:  # one file is the lock
            raise BadInput(f"{run.path}: not a run, as it has no recipe; move its files, or choose another --out")
        for name in ("sample", "parts", "overlays"):
            if (out / name).exists():
                shutil.rmtree(out / name)


def _refuse_other_names(folder: Path, is_own: Callable[[str], bool]) -> None:
    """Raise BadInput if the folder holds a file whose name the demo does not write."""
    from inspect_kd.datasets.find_images import files_below
    from inspect_kd.errors import BadInput

    for path in files_below(folder) if folder.is_dir() else ():
        if not is_own(path.relative_to(folder).as_posix()):
            raise BadInput(
                f"{path}: was not written by the demo and would be deleted; move it, or choose another --out"
            )
