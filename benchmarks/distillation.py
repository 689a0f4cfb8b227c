"""What each part of the distillation is worth, three real categories in one student. Writes docs/results/distillation.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python benchmarks/distillation.py [--seeds 0 1 2] [--only ARM …]

An arm that is finished is not done again, and the page holds all that are: the program can be stopped, called again, and called
beside itself for another seed. On two cores: 12 minutes a seed for the fit, then about 7 an arm.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from real_data import RESULTS, ROOT, SETS, load

from inspect_kd.bench import ablate
from inspect_kd.cli.follow import follow
from inspect_kd.train.run import environment

MODEL = "omni_ad"
TEACHERS = ["clip_ada_local", "memory"]
WITH_SAM = ablate.Arm(
    name="clip_ada_local and sam_spt_tiny",
    changes=ablate.taught_by(["clip_ada_local", "sam_spt_tiny"]),
    why="the two that the program is named for: where, and how far it reaches",
)


def main() -> None:
    arms = [*ablate.arms(TEACHERS, None), WITH_SAM]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", choices=[arm.name for arm in arms], default=[arm.name for arm in arms])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "distillation")
    arguments = parser.parse_args()
    chosen = [arm for arm in arms if arm.name in arguments.only]
    with follow() as watch:
        ablate.ablate(MODEL, load(list(SETS), MODEL), chosen, arguments.seeds, arguments.out, watch)
    found = {arm.name: finished(arguments.out, arm) for arm in arms}
    print(ablate.write(RESULTS, arms, found, environment("cpu")).read_text())


def finished(out: Path, arm: ablate.Arm) -> list[dict]:
    files = sorted(out.glob(f"seed*/{ablate.as_file(arm)}/{ablate.RESULT}"))
    return [json.loads(file.read_text()) | {"seed": int(file.parts[-3].removeprefix("seed"))} for file in files]


if __name__ == "__main__":
    main()
