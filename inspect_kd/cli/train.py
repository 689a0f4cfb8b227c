"""`inspect-kd train`: train on a folder of good parts; write a verified artifact and a report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo

if TYPE_CHECKING:
    from inspect_kd.config import Recipe
    from inspect_kd.datasets import DataSet


DEFAULT, FALLBACK = "omni_ad", "embedded"


def train(
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", help="A data set's name (`inspect-kd data ls`), a manifest, or any folder of images."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A recipe's name (`inspect-kd ls models`) or a YAML file. Default: omni_ad, or embedded if the weights of "
            "omni_ad's encoder are not available.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: section.key=value. Repeatable.")
    ] = None,
    teachers: Annotated[
        list[str] | None,
        typer.Option(
            "--teachers",
            "-t",
            help="Teachers to distil from: recipes (trained first) or folders of runs; repeatable, or separated by commas.",
        ),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="Folder of unlabelled images from the line, on which the student imitates the teachers."),
    ] = None,
    labelled: Annotated[
        str | None, typer.Option(help="A data set with real defects, with or without masks, for the student to learn.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Reuse this run's fitted model and run only the later stages.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run's name; default: <data>-<recipe>.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an interrupted training; the result is the same as without the interruption."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the recipe, sample counts and model size, and stop.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Number of devices.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, or bf16-mixed on a GPU.")] = "32-true",
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that load images; 0 is best for training on a CPU.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a student on sound parts, or a teacher; write its artifact, thresholds and report.

    Examples:

        inspect-kd train --data my_parts/

        inspect-kd train --data mvtec --model omni_ad --set fit.steps=800

        inspect-kd train --data my_parts/ --teachers clip_ada,sam_spt --unlabelled last_week/

        inspect-kd train --data my_parts/ --start runs/my_parts-omni_ad --labelled found_by_hand/

        inspect-kd train --data my_parts/ --resume
    """
    from inspect_kd.cli.needs import need_training
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.errors import file_named
    from inspect_kd.train.run import SHARED_FOLDER, RunFolder, choose_folder, is_helper_process

    need_training()
    helper = is_helper_process()
    model_name = model or choose_model(quiet=helper)
    extras = list_overrides(model_name, teachers or [], unlabelled, labelled, start)
    recipe, data_set = prepare(data, model_name, [*extras, *(overrides or [])])
    if helper:
        # Started by the first of several devices' processes, which has chosen the folder.
        folder = RunFolder(Path(os.environ[SHARED_FOLDER]))
    else:
        folder = choose_folder(out, name or f"{data_set.name}-{recipe.name}", resume=resume)
        os.environ[SHARED_FOLDER] = str(folder.path)
    if dry_run:
        show_plan(recipe, data_set, folder.path, as_json)
        return
    from inspect_kd.train import pipeline
    from inspect_kd.train.artifacts import require_artifacts
    from inspect_kd.train.hardware import Hardware
    from inspect_kd.train.job import Job

    hardware = Hardware(device=device, devices=devices, precision=precision, workers=workers)
    with show_progress(quiet=helper) as progress, file_named(folder.path):
        progress.note(summary(data_set))
        job = Job(recipe=recipe, data=data_set, folder=folder, hardware=hardware, progress=progress)
        pipeline.train(job, resume=resume)
    if not helper:
        show_result(folder.path, as_json)
        require_artifacts(folder.path)


def choose_model(*, quiet: bool) -> str:
    """Choose the default recipe, or, with a message, the one that needs no download."""
    from inspect_kd.config import load_recipe
    from inspect_kd.models.encoders import weights_available

    encoder = load_recipe(DEFAULT).student["encoder"]
    if weights_available(encoder):
        return DEFAULT
    if not quiet:
        echo(
            f"no weights for '{encoder}' in INSPECT_KD_WEIGHTS, and the hub cannot be reached: using --model {FALLBACK}, whose "
            "smaller encoder comes with the package",
            err=True,
        )
    return FALLBACK


def list_overrides(
    model: str, teachers: list[str], unlabelled: Path | None, labelled: str | None, start: Path | None
) -> list[str]:
    """Turn the options into overrides of the recipe, with the further settings that they need."""
    import json

    from inspect_kd.cli.bench import split_names
    from inspect_kd.config import load_recipe
    from inspect_kd.errors import UsageError
    from inspect_kd.train.presets import needed

    names = split_names(teachers)
    changes = needed(load_recipe(model), teachers=bool(names), labels=labelled is not None)
    if names:
        changes.append(f"distill.teachers={json.dumps(names)}")
    for key, value in (("unlabelled", unlabelled), ("labelled", labelled), ("start", start)):
        if value is not None:
            if not str(value).isprintable():
                raise UsageError(f"--{key} {value}: the recipe can only hold a printable path; use a link to it")
            changes.append(f"distill.{key}={json.dumps(str(value))}")
    return changes


def prepare(data: str, model: str, overrides: list[str]) -> tuple[Recipe, DataSet]:
    """Return the resolved recipe, and the data set split as it says."""
    from inspect_kd.config import load_recipe
    from inspect_kd.datasets import open_for_recipe

    recipe = load_recipe(model, overrides)
    return recipe, open_for_recipe(data, recipe)


def summary(data: DataSet) -> str:
    """Summarise a data set in one line."""
    from inspect_kd.types import Split

    counts = ", ".join(f"{len(data.select(split))} {split}" for split in Split)
    defects = sum(sample.defective for sample in data.samples)
    categories = f"{len(data.categories)} categor{'y' if len(data.categories) == 1 else 'ies'}"
    return f"{data.name} ({data.layout}): {categories} ({', '.join(data.categories)}); {counts}; {defects} defective"


def show_plan(recipe: Recipe, data: DataSet, folder: Path, as_json: bool) -> None:
    """Print what a training would do."""
    import json

    from inspect_kd.train.run import build_student, build_teacher, sources_of

    model = build_student(recipe) if recipe.student else build_teacher(recipe)
    # The heads are frozen until their stages.
    is_trained = [p.requires_grad or key.startswith("heads.") for key, p in model.named_parameters()]
    numbers = [p.numel() for p in model.parameters()]
    sizes = {
        "trainable": sum(n for n, trained in zip(numbers, is_trained, strict=True) if trained),
        "frozen": sum(n for n, trained in zip(numbers, is_trained, strict=True) if not trained),
    }
    if as_json:
        counts = {category: len([s for s in data.samples if s.category == category]) for category in data.categories}
        echo(
            json.dumps(
                {"run": str(folder), "recipe": recipe.model_dump(mode="json"), "samples": counts, "parameters": sizes}
            )
        )
        return
    echo(recipe.to_yaml())
    echo(summary(data))
    echo(
        f"parameters: {sizes['trainable']:,} to train, {sizes['frozen']:,} frozen "
        f"({'; '.join(f'{source.name}, {source.origin}' for source in sources_of(model))})"
    )
    echo(f"run: {folder} (dry run: nothing was written)")


def show_result(folder: Path, as_json: bool) -> None:
    """Print the metrics and where the files are."""
    import json

    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if as_json:
        typer.echo(json.dumps({"run": str(folder), **manifest}))
        return
    mean = manifest.get("metrics", {}).get("mean", {})
    for metric, value in mean.items():
        echo(f"{metric:<14} {value if isinstance(value, str) else f'{value:.4f}'}")
    echo(f"report    {folder / 'report.html'}")
    if manifest.get("refused"):
        return
    echo(f"artifact  {folder / folder.name}.onnx")
    echo(f"next      inspect-kd predict {folder / folder.name}.onnx IMAGES… --overlays out/")
