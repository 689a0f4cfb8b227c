"""Compare heads that read a blend of the nearest prototypes with heads that read the nearest one. Writes docs/results/blend.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.blend [--seeds 0 1] [--parts 3000] [--steps 1500]

For each seed the default recipe is fitted once on six real data sets, then stage S2 is trained once with each way of comparing features
with prototypes. The nearest prototype alone, as in earlier versions, is not continuous: where two tie, torch and a runtime may choose
different ones. Time is that of the exported graphs in ONNX Runtime on one thread, measured in turns. An arm is not measured again with
a seed for which it is finished.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.results import ROOT, Content, publish
from inspect_kd.bench import ablate
from inspect_kd.calibrate import calibrate
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet, open_for_recipe, union
from inspect_kd.export import to_onnx
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.models.layers import prototypes
from inspect_kd.models.layers.prototypes import PrototypeComparison, Prototypes
from inspect_kd.progress_display import show_progress
from inspect_kd.resize import RESIZE
from inspect_kd.stopwatch import time_in_turns
from inspect_kd.training.presets import FIT_ALONE, LABEL_HEAD
from inspect_kd.training.run import environment, load_run

MODEL, SIZE = "omni_ad", 256
# Folder below the data → regular expression for file names; images with equal matches show one part.
SETS = {"mvtec_ad": None, "mpdd": None, "magnetic_tile": r"num_(\d+)", "piped": None, "screws4": None, "lookout": None}
ROUNDS = 60


def compare_with_nearest(layer: Prototypes, joined_BChw: torch.Tensor) -> PrototypeComparison:
    """Multiply features with the one prototype whose cosine is largest."""
    grid = joined_BChw.shape[-2:]
    direction_BNC, length_BN1 = layer._directions(joined_BChw)
    nearest_BNC = layer.prototypes_KC[(direction_BNC @ layer.prototypes_KC.T).argmax(dim=2)]
    product_BNC = direction_BNC * nearest_BNC
    return PrototypeComparison(
        layer._distance(product_BNC.sum(dim=2), length_BN1, grid),
        product_BNC.transpose(1, 2).unflatten(2, grid),
        (length_BN1 / layer.usual_length).transpose(1, 2).unflatten(2, grid),
    )


WAYS: dict[str, Callable[[Prototypes, torch.Tensor], PrototypeComparison]] = {
    "nearest alone": compare_with_nearest,
    "blend": Prototypes.compare_channels,
}


def load_all_sets() -> DataSet:
    root = Path(os.environ.get("INSPECT_KD_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    recipe = load_recipe(MODEL)
    return union([open_for_recipe(root / name, recipe, group=group) for name, group in SETS.items()], "six")


def export(run: Path, to: Path) -> bytes:
    """Export a fitted student with heads; its graph depends on the current `Prototypes.compare_channels`."""
    card = ArtifactCard(
        name="blend",
        target="onnx",
        size=SIZE,
        resize=RESIZE,
        categories=("a",),
        calibration=calibrate({"a": [0.1, 0.2]}, reject_rate=0.5, reinspect_rate=0.5),
    )
    to_onnx.export(ArtifactGraph(load_run(run).model.eval(), 1.0), to, card=card, opset=20)
    return to.read_bytes()


def measure_times(files: dict[str, bytes]) -> dict[str, dict[str, float]]:
    noise = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    runtimes = {name: to_onnx.Runtime(content, name) for name, content in files.items()}
    turns = time_in_turns(
        {name: partial(runtime.predict_batch, noise) for name, runtime in runtimes.items()}, ROUNDS, max_runs=4
    )
    return {name: times.summarise() for name, times in turns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument(
        "--parts", type=int, default=load_recipe(MODEL).distill.max_samples, help="number of samples of stage S2"
    )
    parser.add_argument(
        "--steps", type=int, default=load_recipe(MODEL).distill.supervise.steps, help="number of steps of stage S2"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "blend")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changes = (
        *FIT_ALONE,
        *LABEL_HEAD,
        f"distill.max_samples={arguments.parts}",
        f"distill.supervise.steps={arguments.steps}",
    )
    data, results, files = load_all_sets(), {}, {}
    for name, compare_channels in WAYS.items():
        Prototypes.compare_channels = compare_channels  # type: ignore[method-assign]
        arm = ablate.Arm(name=name, changes=changes, explanation="")
        with show_progress() as progress:
            results |= ablate.ablate(MODEL, data, [arm], arguments.seeds, arguments.out, progress)
        with TemporaryDirectory() as folder:
            files[name] = export(arguments.out / f"seed{arguments.seeds[0]}" / "start", Path(folder) / "x.onnx")
    publish("blend", {"environment": environment("cpu"), "ways": results, "times": measure_times(files)}, page)


def page(content: Content) -> str:
    machine, results, times = content["environment"], content["ways"], content["times"]
    seeds = sorted({result["seed"] for by_seed in results.values() for result in by_seed})
    categories = list(results["blend"][0]["metrics"])
    lines = [
        "# The nearest prototype alone, or a blend of the nearest",
        "",
        f"Written by `{machine['command']}`, {machine['started'][:10]}, torch "
        f"{machine['packages']['torch']}, one thread. One `{MODEL}` student for six categories, seeds {', '.join(map(str, seeds))}; "
        f"the blend is of {prototypes.NEIGHBOURS} prototypes whose cosine is at most {prototypes.REACH} below the largest. A cell: image "
        "AUROC / pixel AP / AUPRO, the mean over seeds. Time: the graph of the fitted student with heads in ONNX Runtime.",
        "",
        "| heads read | " + " | ".join([*categories, "CPU ms, median of turns"]) + " |",
        "|---|" + "---|" * (len(categories) + 1),
    ]
    for name, by_seed in results.items():
        cells = [
            " / ".join(mean_cell(by_seed, category, metric) for metric in ablate.TABLE_METRICS)
            for category in categories
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {times[name]['cpu_ms']:.2f} |")
    return "\n".join(lines) + "\n"


def mean_cell(by_seed: list[dict[str, Any]], category: str, metric: str) -> str:
    values = [result["metrics"][category][metric] for result in by_seed]
    return "–" if any(not isinstance(value, float) for value in values) else f"{mean(values):.4f}"


if __name__ == "__main__":
    main()
