"""Ablation of the default recipe's fit: change one setting at a time, with three real categories in one model.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.ablation [--only VARIANT …]

Writes docs/results/ablation.{json,md} with all variants that have been run so far, also those that lose. A complete run is not
trained again, so the program can be stopped and called again. A variant takes about eight minutes on one core. `distillation.py`
is the ablation of the stages after the fit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.real_data import SETS, train
from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.config import load_recipe
from inspect_kd.training.presets import FIT_ALONE
from inspect_kd.training.run import environment


class Variant(NamedTuple):
    recipe: str
    changes: list[str]
    reason: str


VARIANTS = {
    "default": Variant("omni_ad", [], "as shipped"),
    "no_prototypes": Variant("omni_ad", ["student.compare=[]"], "reconstruction alone"),
    "one_weight": Variant(
        "omni_ad",
        ["student.compare=[{strides: [4, 8], prototypes: 512}, {strides: [16], weight: 2, length_power: 0.5}]"],
        "score and map weigh alike",
    ),
    "angle_alone": Variant(
        "omni_ad",
        [
            "student.compare=[{strides: [4, 8], prototypes: 512}, {strides: [16], weight: 2, score_weight: 6}]",
        ],
        "prototypes compared by angle only, not by length",
    ),
    "overview_32": Variant("omni_ad", ["student.overview=32"], "attention at stride 8 sees every cell"),
    "centred": Variant(
        "omni_ad",
        ["student.compare=[]", "student.normalise=full"],
        "reconstruction alone, features centred too",
    ),
    "raw": Variant("omni_ad", ["student.normalise=none"], "features as the encoder gives them"),
    "rebuild_16": Variant("omni_ad", ["student.rebuild=[[4, 8], [16]]"], "the coarse level rebuilt as well"),
    "three_levels": Variant(
        "omni_ad",
        [
            "student.rebuild=[[4], [8], [16]]",
            "student.dims=[128, 96, 64, 32]",
            "student.depths=[1, 1, 1, 1]",
        ],
        "every level at its own grid, as in the paper",
    ),
    "loose_target": Variant("omni_ad", ["student.target_window=3"], "rebuild local means"),
    "plain_loss": Variant("omni_ad", ["student.hard_power=0"], "all places weigh the same"),
    "no_noise": Variant("omni_ad", ["student.noise_strength=0"], "nothing to undo in the bottleneck"),
    "smooth_2": Variant("omni_ad", ["student.sigma=2"], "half the smoothing of the map"),
    "smooth_8": Variant("omni_ad", ["student.sigma=8"], "twice the smoothing"),
    "to_the_end": Variant("omni_ad", ["fit.patience=1000"], "no stop rule: all 400 steps"),
    "longer": Variant("omni_ad", ["fit.steps=1200", "fit.patience=1000"], "no stop rule, three times the steps"),
    "plain": Variant(
        "omni_ad", ["student.local=plain"], "one dense convolution, folded, in the place of two depthwise ones"
    ),
    "embedded_encoder": Variant("omni_ad", ["student.encoder=embedded"], "the encoder that comes with the package"),
    "instance_norm": Variant("omni_ad", ["student.norm=instance"], "as in the paper; does not fold"),
    "deeper": Variant("omni_ad", ["student.depths=[1, 2, 2]"], "twice the blocks"),
    "narrow": Variant("omni_ad", ["student.dims=[96, 64, 48]", "student.neck=48"], "a narrower decoder"),
    "denoise": Variant("omni_ad", ["fit.denoise=0.5"], "half of a batch with synthetic defects, sound targets"),
    "top_0.3_percent": Variant("omni_ad", ["student.score_share=0.003"], "score from fewer places"),
    "top_3_percent": Variant("omni_ad", ["student.score_share=0.03"], "score from more places"),
    "large": Variant("omni_ad", ["data.size=384"], "more pixels"),
    "omni_ras": Variant("omni_ras", [], "the gate between stages"),
    "ras": Variant("ras", [], "the other student"),
}
COLUMNS = ("image_auroc", "pixel_ap", "pixel_aupro")


def page(content: Content) -> str:
    machine, results = content["environment"], content["variants"]
    lines = [
        "# What each trick is worth",
        "",
        f"Written by `python -m benchmarks.ablation`, {machine['started'][:10]}, {machine['cores']} CPU cores. One model for "
        f"{', '.join(SETS)}, MobileNetV2 encoder, the fit alone (S0: no teachers, no head that learns synthetic defects), seed 0. A cell: "
        "image AUROC / pixel AP / pixel AUPRO. One seed; the standard deviation over three seeds is in row `fit` of "
        f"[distillation.md](distillation.md). Fits that were stopped early: {stopped_early(results) or 'none'}. "
        "These categories are the development set: defaults were chosen on them.",
        "",
        "| variant | changed | " + " | ".join(SETS) + " | mean | minutes | commit |",
        "|---|---|" + "---|" * (len(SETS) + 3),
    ]
    for name, manifest in results.items():
        variant = VARIANTS[name]
        cells = [_cell(manifest["metrics"][category]) for category in [*SETS, "mean"]]
        changed = f"{variant.reason}: `{' '.join(variant.changes)}`" if variant.changes else variant.reason
        minutes, commit = manifest["train_seconds"] / 60, manifest.get("commit", "")
        lines.append(f"| {name} | {changed} | " + " | ".join(cells) + f" | {minutes:.1f} | {commit} |")
    return "\n".join(lines) + "\n"


def stopped_early(results: dict[str, dict[str, Any]]) -> str:
    """Name the variants whose fit ended before its last step."""
    recipes = {name: load_recipe(VARIANTS[name].recipe, VARIANTS[name].changes) for name in results}
    return ", ".join(name for name, run in results.items() if run["steps"] < recipes[name].fit.steps)


def _cell(metrics: dict[str, float]) -> str:
    return " / ".join(f"{metrics[column]:.3f}" for column in COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "ablation")
    arguments = parser.parse_args()
    results = load_results("ablation").get("variants", {})
    for name in arguments.only:
        variant = VARIANTS[name]
        results[name] = train(list(SETS), variant.recipe, arguments.out / name, [*FIT_ALONE, *variant.changes])
        ordered = {name: results[name] for name in VARIANTS if name in results}
        publish("ablation", {"environment": environment("cpu"), "variants": ordered}, page)


if __name__ == "__main__":
    main()
