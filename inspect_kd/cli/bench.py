"""`inspect-kd bench`: compare students with anomalib's models and a nearest-neighbour memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo

if TYPE_CHECKING:
    from inspect_kd.config import Recipe
    from inspect_kd.datasets import DataSet

DEFAULT_STUDENTS = ["omni_ad", "embedded"]


def bench(
    data: Annotated[
        list[str],
        typer.Option(
            "--data", "-d", help="A data set's name, a manifest, or a folder. Repeatable: one model is trained on all."
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Recipes of students. Repeatable. Default: omni_ad and embedded."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Models to compare with, see below, or `none`. Repeatable. Default: all."),
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Also train one model for each category.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Time limit of each compared model's training. Default: the time of the slowest student.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; finished entries in it are not repeated.")] = Path(
        "bench"
    ),
    timing: Annotated[bool, typer.Option(help="Measure the latency of all models at the end.")] = True,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Instead of comparing models, measure what each stage of the distillation is worth to one student.",
        ),
    ] = False,
    teachers: Annotated[
        list[str] | None,
        typer.Option("--teachers", "-t", help="With --ablate: recipes or runs of teachers. Repeatable."),
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="With --ablate: unlabelled images from the line, for the teachers.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --ablate: trainings of each variant.")] = 3,
) -> None:
    """Compare accuracy (seven metrics), latency, memory and size with anomalib's models on the same images, splits and runtime.

    With the student's encoder: memory (nearest neighbours), patchcore, padim, stfpm, fastflow,
    supersimplenet. With ResNet18: stfpm_r18, fastflow_r18, padim_r18, reverse_distillation_r18.
    With their own: efficient_ad, dinomaly. Each is trained in a separate process; if one fails,
    the reason is shown.

    Writes bench.html (with plots), bench.md, bench.csv and bench.json. It can be stopped and called
    again: entries finished with the same data, recipe and minutes are not repeated.

    Examples:

        inspect-kd bench --data mvtec

        inspect-kd bench --data my_parts/ --against patchcore --against stfpm --minutes 5

        inspect-kd bench --data my_parts/ --ablate --teachers memory --teachers clip_ada --seeds 3
    """
    from inspect_kd.bench import page, runner
    from inspect_kd.bench.entries import MEMORY, PEERS, select_entries
    from inspect_kd.cli.needs import require_training
    from inspect_kd.errors import UsageError, name_file_in_errors
    from inspect_kd.progress_display import show_progress
    from inspect_kd.training.run import environment

    require_training()
    if ablate:
        if against or alone or len(models or []) > 1:
            raise UsageError(
                "--ablate compares variants of one student: leave out --against, --alone and further --model"
            )
        run_ablation(data, (models or DEFAULT_STUDENTS)[0], split_names(teachers or []), unlabelled, seeds, out)
        return
    if teachers or unlabelled:
        raise UsageError("--teachers and --unlabelled need --ablate")
    students = models or DEFAULT_STUDENTS
    selected = select_entries(students, [] if against == ["none"] else against or [*MEMORY, *PEERS])
    recipes = load_comparable_recipes(students)
    settings = list_settings(open_as_one(data, recipes[0]), alone=alone)
    with show_progress() as progress, name_file_in_errors(out):
        results = runner.run_benchmark(settings, selected, out, minutes, progress)
        costs = runner.measure_costs(selected, out, next(iter(settings)), progress) if timing else {}
    comparison = page.Comparison(entries=selected, results=results, costs=costs, environment=environment("cpu"))
    with name_file_in_errors(out):
        written = page.write(out, comparison)
    echo((out / "bench.md").read_text(encoding="utf-8"))
    echo(f"{written}: the same with plots; bench.csv and bench.json are in the same folder")


def split_names(values: list[str]) -> list[str]:
    """Split the values of an option that may be repeated or hold commas."""
    return [name for value in values for name in value.split(",") if name]


def run_ablation(
    data: list[str], model: str, teachers: list[str], unlabelled: Path | None, seeds: int, out: Path
) -> None:
    """Run the ablation of `--ablate`, and print its page."""
    from inspect_kd.bench import ablate
    from inspect_kd.config import load_recipe
    from inspect_kd.errors import name_file_in_errors
    from inspect_kd.progress_display import show_progress
    from inspect_kd.training.run import environment

    arms = ablate.list_arms(teachers, None if unlabelled is None else str(unlabelled))
    with show_progress() as progress, name_file_in_errors(out):
        results = ablate.ablate(model, open_as_one(data, load_recipe(model)), arms, range(seeds), out, progress)
    with name_file_in_errors(out):
        page = ablate.write(out, arms, results, environment("cpu"))
    echo(page.read_text(encoding="utf-8"))


def load_comparable_recipes(students: list[str]) -> list[Recipe]:
    """Load the students' recipes; refuse those whose input differs from that of the compared models."""
    from inspect_kd.bench.entries import SIZE
    from inspect_kd.config import load_recipe
    from inspect_kd.errors import UsageError

    recipes = [load_recipe(student) for student in students]
    for recipe in recipes:
        if not recipe.student:
            raise UsageError(f"--model {recipe.name}: is a teacher's recipe; name students only")
        if recipe.data.size != SIZE or isinstance(recipe.data.tile, int) or recipe.data.bits:
            raise UsageError(
                f"--model {recipe.name}: models are compared on whole 8-bit images at {SIZE}x{SIZE}; the recipe must not set another "
                "data.size, data.tile or data.bits"
            )
    return recipes


def open_as_one(data: list[str], recipe: Recipe) -> DataSet:
    """Open all data sets as one, split as the recipe says."""
    from inspect_kd.datasets import open_for_recipe, union
    from inspect_kd.errors import UsageError

    data_sets = [open_for_recipe(name, recipe) for name in data]
    most_common = Counter(category for data_set in data_sets for category in data_set.categories).most_common(1)
    if most_common and most_common[0][1] > 1:
        raise UsageError(
            f"--data: two data sets have a category '{most_common[0][0]}'; rename one, or compare them separately"
        )
    return data_sets[0] if len(data_sets) == 1 else union(data_sets, "+".join(data_set.name for data_set in data_sets))


def list_settings(whole: DataSet, *, alone: bool) -> dict[str, DataSet]:
    """Return the benchmark's settings: a name for each data set to train on, all categories together and, with `alone`, each category."""
    settings = {"unified" if len(whole.categories) > 1 else whole.name: whole}
    if alone and len(whole.categories) > 1:
        settings |= {f"{category} alone": whole.only(category) for category in whole.categories}
    return settings
