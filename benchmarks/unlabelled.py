"""What do teachers add by looking at parts from the line that nobody has labelled? Writes docs/results/unlabelled.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python benchmarks/unlabelled.py [--seeds 0 1 2] [--only ARM …]

As in labelling.py half of the test parts, sound and defective, play the line, and the other half measures. The teachers look at
the line's parts beside the drawn ones; no label of theirs is used. What is finished is not done again, as in distillation.py.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distillation import TEACHERS, finished
from labelling import halves
from real_data import RESULTS, ROOT, SETS, load

from inspect_kd.bench import ablate
from inspect_kd.cli.progress import show_progress
from inspect_kd.train.run import environment
from inspect_kd.types import Sample, Split

MODEL = "omni_ad"
ARMS = ("fit", "all teachers", "unlabelled")


def as_folder(line: Sequence[Sample], folder: Path) -> Path:
    """Copies, as links out of a folder are refused; their names tell nothing of what is shown."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(line):
        shutil.copyfile(sample.image, folder / f"{number:04d}{sample.image.suffix}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--teachers", nargs="*", default=TEACHERS, help="Their runs, where they have studied these parts already."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "unlabelled")
    arguments = parser.parse_args()
    every = load(list(SETS), MODEL)
    line, measured = halves(every)
    data = replace(every, samples=[s for s in every.samples if s.split is not Split.TEST] + measured)
    folder = as_folder(line, arguments.out.resolve() / "line")
    arms = [arm for arm in ablate.arms(arguments.teachers, str(folder)) if arm.name in ARMS]
    chosen = [arm for arm in arms if arm.name in arguments.only]
    with show_progress() as progress:
        ablate.ablate(MODEL, data, chosen, arguments.seeds, arguments.out, progress)
    found = {arm.name: finished(arguments.out, arm) for arm in arms}
    machine = environment("cpu") | {"command": "python benchmarks/unlabelled.py"}
    page = ablate.write(RESULTS, arms, found, machine, "unlabelled", "What parts from the line add")
    told = f"\n{len(line)} test parts of the sets played the line; the figures are of the {len(measured)} others.\n"
    page.write_text(page.read_text() + told)
    print(page.read_text())


if __name__ == "__main__":
    main()
