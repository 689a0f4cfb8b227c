"""`inspect-kd train`: train a student or a teacher; write a verified artifact and a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo

MAX_DIGITS = 9
"""Longer numbers are no numbers of pixels, and Python refuses to convert those of more than 4300 digits."""

if TYPE_CHECKING:
    from inspect_kd.api import Run
    from inspect_kd.config import Recipe
    from inspect_kd.datasets import DataSet
    from inspect_kd.datasets.manifest import Manifest


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
    smallest_defect: Annotated[
        str | None,
        typer.Option(
            help="Side of the smallest defect that must be found, in pixels of the image, for example 12px: large images are then "
            "cut into tiles that show it. Default: 2 % of the image's shorter side."
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch",
            help="If the images of a named data set are not on this machine, accept its licence and download them. Without it, "
            "you are asked if you are at a terminal; otherwise nothing is downloaded.",
        ),
    ] = False,
    zones: Annotated[
        Path | None,
        typer.Option(
            help="Zones of the part, as a YAML file of polygons or a label image: places that are ignored, or judged more "
            "or less strictly."
        ),
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
    """Train a student or a teacher on sound parts; write its artifact, thresholds and report.

    Examples:

        inspect-kd train --data my_parts/

        inspect-kd train --data mvtec --fetch --set fit.steps=800

        inspect-kd train --data boards/ --smallest-defect 12px

        inspect-kd train --data boards/ --zones zones.yaml

        inspect-kd train --data my_parts/ --teachers clip_ada,sam_spt --unlabelled last_week/

        inspect-kd train --data my_parts/ --start runs/my_parts-omni_ad --labelled found_by_hand/

        inspect-kd train --data my_parts/ --resume
    """
    from inspect_kd.cli.needs import require_training
    from inspect_kd.training.run import is_started_by_rank_zero

    require_training()
    from inspect_kd import api
    from inspect_kd.cli.bench import split_names
    from inspect_kd.cli.download import check_download_is_possible, download
    from inspect_kd.datasets import find_missing
    from inspect_kd.training.hardware import Hardware

    is_helper = is_started_by_rank_zero()
    recipe = api.plan_recipe(
        model or choose_model(quiet=is_helper),
        [*smallest_defect_change(smallest_defect), *zones_change(zones), *(overrides or [])],
        teachers=split_names(teachers or []),
        unlabelled=unlabelled,
        labelled=labelled,
        start=start,
    )
    # Rank 0 downloads the images before it starts the helper processes.
    missing = {} if is_helper else find_missing(api.list_sources(data, recipe))
    check_download_is_possible(missing.values(), accepted=fetch)
    data_set = None if data in missing else api.open_data(data, recipe)
    data_name = missing[data].name if data_set is None else data_set.name
    folder = api.choose_run_folder(out, name or f"{data_name}-{recipe.name}", resume=resume)
    if dry_run:
        show_plan(recipe, data_set, list(missing.values()), folder.path, as_json)
        return
    for manifest in missing.values():
        download(manifest, accepted=fetch, option="--fetch")
    if data_set is None:
        data_set = api.open_data(data, recipe)
    hardware = Hardware(device=device, devices=devices, precision=precision, workers=workers)
    run = api.run_training(recipe, data_set, folder, resume=resume, hardware=hardware)
    if not is_helper:
        show_result(run, as_json)
        run.require_artifacts()


def smallest_defect_change(text: str | None) -> list[str]:
    """Return the change of the recipe for `--smallest-defect`, whose text is a number of pixels, with or without `px`."""
    from inspect_kd.errors import UsageError

    if text is None:
        return []
    digits = text.strip().removesuffix("px").strip().lstrip("0")  # YAML reads numbers with a leading zero to the base 8
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS):
        raise UsageError(f"--smallest-defect {text[:40]}: give a number of pixels, for example 12px")
    return [f"data.smallest_defect={digits}"]


def zones_change(path: Path | None) -> list[str]:
    """Return the change of the recipe for `--zones`."""
    return [] if path is None else [f"data.zones={json.dumps(str(path))}"]


def choose_model(*, quiet: bool) -> str:
    """Choose the default recipe, or, with a message, the one that needs no download."""
    from inspect_kd import api
    from inspect_kd.config import DEFAULT_RECIPE, load_recipe

    recipe = api.choose_model()
    if recipe != DEFAULT_RECIPE and not quiet:
        encoder = load_recipe(DEFAULT_RECIPE).student["encoder"]
        echo(
            f"no weights for '{encoder}' in INSPECT_KD_WEIGHTS, and the hub cannot be reached: using --model {recipe}, whose "
            "smaller encoder comes with the package",
            err=True,
        )
    return recipe


def show_plan(recipe: Recipe, data: DataSet | None, downloads: Sequence[Manifest], folder: Path, as_json: bool) -> None:
    """Print what a training would do; `data` is None if its images must be downloaded first."""
    from inspect_kd import api
    from inspect_kd.progress_display import show_progress
    from inspect_kd.training.prepare_images import advise_on_training_images, fit_to_training_images
    from inspect_kd.training.run import build_student, build_teacher, sources_of

    presentations, advice = None, []
    if data is not None:
        with show_progress() as progress:
            presentations = fit_to_training_images(recipe, data, progress)
            advice = list(advise_on_training_images(recipe, data, presentations, progress))
    model = build_student(recipe) if recipe.student else build_teacher(recipe)
    # The heads count as trained: they are frozen only until their stages of the distillation.
    is_trained = [p.requires_grad or key.startswith("heads.") for key, p in model.named_parameters()]
    parameter_counts = [p.numel() for p in model.parameters()]
    parameters = {
        "trainable": sum(n for n, trained in zip(parameter_counts, is_trained, strict=True) if trained),
        "frozen": sum(n for n, trained in zip(parameter_counts, is_trained, strict=True) if not trained),
    }
    if as_json:
        samples = [] if data is None else data.samples
        echo(
            json.dumps(
                {
                    "run": str(folder),
                    "recipe": recipe.model_dump(mode="json"),
                    "samples": dict(sorted(Counter(sample.category for sample in samples).items())),
                    "parameters": parameters,
                    "presentations": {} if presentations is None else presentations.summary(),
                    "downloads": [manifest.summarise_download() for manifest in downloads],
                    "advice": [each.to_json(data.source) for each in advice] if data else [],
                }
            )
        )
        return
    echo(recipe.to_yaml())
    for manifest in downloads:
        echo(f"'{manifest.name}' is not on this machine; the training would first download it:")
        for line in manifest.describe_download():
            echo(f"    {line}")
    echo("the images cannot be counted before the download" if data is None else api.summarise(data))
    echo(
        f"parameters: {parameters['trainable']:,} to train, {parameters['frozen']:,} frozen "
        f"({'; '.join(f'{source.name}, {source.origin}' for source in sources_of(model))})"
    )
    echo(f"run: {folder} (dry run: nothing was written)")


def show_result(run: Run, as_json: bool) -> None:
    """Print the metrics and the paths of the report and the artifact."""
    manifest = run.manifest
    if as_json:
        typer.echo(json.dumps({"run": str(run.path), **manifest}))
        return
    for metric, value in run.metrics.get("mean", {}).items():
        echo(f"{metric:<14} {value if isinstance(value, str) else f'{value:.4f}'}")
    echo(f"report    {run.report}")
    if manifest.get("refused"):
        return
    echo(f"artifact  {run.artifact()}")
    echo(f"next      inspect-kd predict {run.artifact()} IMAGES… --overlays out/")
