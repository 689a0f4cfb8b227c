"""Measure what unlabelled parts from the line add to the distillation. Writes docs/results/unlabelled.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.unlabelled [--seeds 0 1 2] [--only ARM …]

As in labelling.py, half of the test parts, sound and defective, represent the line; the student is measured on the other half. The
teachers also predict on the line's parts, whose labels are not used. A finished arm (a variant with one seed) is not measured again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.distillation import TEACHERS, read_results, table
from benchmarks.labelling import describe_split, split_test_parts
from benchmarks.real_data import SETS, load_categories
from benchmarks.results import ROOT, Content, publish
from inspect_kd.bench import ablate
from inspect_kd.progress_display import show_progress
from inspect_kd.training.run import environment
from inspect_kd.types import Sample, Split

MODEL = "omni_ad"
ARMS = ("fit", "all teachers", "unlabelled")


def copy_to_folder(samples: Sequence[Sample], folder: Path) -> Path:
    """Copy the images and name them by numbers, so that no name reveals a label; links to other folders would be refused."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples):
        shutil.copyfile(sample.image, folder / f"{number:04d}{sample.image.suffix}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--teachers",
        nargs="*",
        default=TEACHERS,
        help="recipes of teachers, or runs of teachers that were trained on these parts",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "unlabelled")
    arguments = parser.parse_args()
    all_data = load_categories(list(SETS), MODEL)
    line_parts, measured_parts = split_test_parts(all_data)
    data = replace(all_data, samples=[s for s in all_data.samples if s.split is not Split.TEST] + measured_parts)
    line_folder = copy_to_folder(line_parts, arguments.out.resolve() / "line")
    all_arms = arms(arguments.teachers, str(line_folder))
    chosen = [arm for arm in all_arms if arm.name in arguments.only]
    with show_progress() as progress:
        ablate.ablate(MODEL, data, chosen, arguments.seeds, arguments.out, progress)
    results = {arm.name: read_results(arguments.out, arm) for arm in all_arms}
    counts = {"line": len(line_parts), "measured": len(measured_parts)}
    publish("unlabelled", {"environment": environment("cpu"), **counts, "arms": results}, page)


def arms(teachers: Sequence[str], line_folder: str) -> list[ablate.Arm]:
    return [arm for arm in ablate.list_arms(teachers, line_folder) if arm.name in ARMS]


def page(content: Content) -> str:
    text = table(arms(TEACHERS, "line"), content, "unlabelled", "What parts from the line add")
    return f"{text}\n{describe_split(content)}\n"


if __name__ == "__main__":
    main()
