"""`inspect-kd train`: from a folder of good parts to a verified artifact and a report."""

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
            help="A recipe's name (`inspect-kd ls models`) or a YAML file. Default: omni_ad; embedded where no weights for "
            "omni_ad's encoder can be had.",
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
            help="Distil: a teacher's recipe (it studies first) or its run's folder; repeatable, or with commas.",
        ),
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Images from the line that nobody has looked at, for the teachers to look at.")
    ] = None,
    labelled: Annotated[
        str | None, typer.Option(help="A data set with real defects, outlined or not, for the student to learn.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Take the fit of this run over, and do only what follows it: minutes saved.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run's name; default <data>-<recipe>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped training, to the same numbers.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print recipe, counts and sizes, and stop.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, or bf16-mixed on a GPU.")] = "32-true",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images; 0 suits a CPU.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a student on sound parts, or a teacher alone; write its artifact, thresholds and report.

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
    from inspect_kd.train.run import FOLDER_OF_ALL, RunFolder, choose_folder, is_helper_process

    need_training()
    helper = is_helper_process()
    chosen = model or default_model(quiet=helper)
    extras = distilled(chosen, teachers or [], unlabelled, labelled, start)
    recipe, data_set = prepare(data, chosen, [*extras, *(overrides or [])])
    if helper:
        # One of several devices' processes, started by the first, which has chosen the folder for all.
        folder = RunFolder(Path(os.environ[FOLDER_OF_ALL]))
    else:
        folder = choose_folder(out, name or f"{data_set.name}-{recipe.name}", resume=resume)
        os.environ[FOLDER_OF_ALL] = str(folder.path)
    if dry_run:
        show_plan(recipe, data_set, folder.path, as_json)
        return
    from inspect_kd.train.artifacts import require_artifacts
    from inspect_kd.train.fit import fit
    from inspect_kd.train.hardware import Hardware
    from inspect_kd.train.teach import teach

    hardware = Hardware(device=device, devices=devices, precision=precision, workers=workers)
    with show_progress(quiet=helper) as progress, file_named(folder.path):
        progress.note(summary(data_set))
        if recipe.teacher:
            teach(recipe, data_set, folder, hardware=hardware, progress=progress)
        else:
            fit(recipe, data_set, folder, hardware=hardware, progress=progress, resume=resume)
    if not helper:
        show_result(folder.path, as_json)
        require_artifacts(folder.path)


def default_model(*, quiet: bool) -> str:
    """The default recipe, or the one that needs no download; which, is said."""
    from inspect_kd.config import load_recipe
    from inspect_kd.models.encoders import within_reach

    encoder = load_recipe(DEFAULT).student["encoder"]
    if within_reach(encoder):
        return DEFAULT
    if not quiet:
        echo(
            f"no weights for '{encoder}' in INSPECT_KD_WEIGHTS, and no hub: taking --model {FALLBACK}, whose smaller encoder "
            "comes with the package",
            err=True,
        )
    return FALLBACK


def distilled(
    model: str, teachers: list[str], unlabelled: Path | None, labelled: str | None, start: Path | None
) -> list[str]:
    """The options as changes of the recipe, and what they need that it does not have."""
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
                raise UsageError(f"--{key} {value}: the recipe can only hold a path that is text; name a link to it")
            changes.append(f"distill.{key}={json.dumps(str(value))}")
    return changes


def prepare(data: str, model: str, overrides: list[str]) -> tuple[Recipe, DataSet]:
    """The resolved recipe and the data set split as it says."""
    from inspect_kd.config import load_recipe
    from inspect_kd.datasets import open_dataset
    from inspect_kd.datasets.splits import Holdout

    recipe = load_recipe(model, overrides)
    settings = recipe.data
    holdout = Holdout(
        seed=recipe.fit.seed, calibration=settings.calibration, validation=settings.validation, test=settings.test
    )
    return recipe, open_dataset(data, holdout=holdout, categories=settings.categories or None, group=settings.group)


def summary(data: DataSet) -> str:
    """One line on what was found."""
    from inspect_kd.types import Split

    counts = ", ".join(f"{len(data.select(split))} {split}" for split in Split)
    defects = sum(sample.defective for sample in data.samples)
    categories = f"{len(data.categories)} categor{'y' if len(data.categories) == 1 else 'ies'}"
    return f"{data.name} ({data.layout}): {categories} ({', '.join(data.categories)}); {counts}; {defects} defective"


def show_plan(recipe: Recipe, data: DataSet, folder: Path, as_json: bool) -> None:
    """What a training would do."""
    import json

    from inspect_kd.train.run import build_student, build_teacher, sources_of

    model = build_student(recipe) if recipe.student else build_teacher(recipe)
    # The heads are at rest until their stages come.
    learns = [p.requires_grad or key.startswith("heads.") for key, p in model.named_parameters()]
    numbers = [p.numel() for p in model.parameters()]
    sizes = {
        "trainable": sum(n for n, yes in zip(numbers, learns, strict=True) if yes),
        "frozen": sum(n for n, yes in zip(numbers, learns, strict=True) if not yes),
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
    echo(f"run: {folder} (nothing was written)")


def show_result(folder: Path, as_json: bool) -> None:
    """Where everything is, and what it is worth."""
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
