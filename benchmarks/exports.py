"""Measure how each deployment changes one student, on real parts. Writes docs/results/exports.{json,md}.

    INSPECT_KD_REAL_DATA=… python -m benchmarks.exports [--run RUN] [--only DEPLOYMENT …]

`python -m benchmarks.real_data --only unified` makes the run. Each deployment takes minutes; int8 takes longest, because the effect of each
convolution in int8 is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.real_data import SETS, load_categories
from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd import zoo
from inspect_kd.progress_display import show_progress
from inspect_kd.report.conversion import describe_speed, time_ratio
from inspect_kd.training.artifacts import convert
from inspect_kd.training.run import environment, load_run
from inspect_kd.versions import installed_versions

MODEL = "omni_ad"


def main() -> None:
    names = zoo.names("export")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "bench" / f"{'-'.join(SETS)}-{MODEL}")
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    results = load_results("exports").get("deployments", {})
    data, run = load_categories(list(SETS), MODEL), load_run(arguments.run)
    for name in arguments.only:
        with show_progress() as progress:
            _, conversion = convert(run, data, name, progress=progress)
        ratio = time_ratio(conversion) if conversion.times else None
        results[name] = conversion.to_json() | {
            "commit": environment("cpu")["commit"],
            "ratio": ratio,
            "speed": describe_speed(conversion),
        }
        machine = environment("cpu")
        machine["packages"] |= installed_versions(["openvino"])
        ordered = {name: results[name] for name in names if name in results}
        publish("exports", {"environment": machine, "deployments": ordered}, page)


def page(content: Content) -> str:
    machine = content["environment"]
    packages = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
    runtimes = (
        f"{title} {machine['packages'][name]}" for title, name in packages.items() if name in machine["packages"]
    )
    lines = [
        "# One student, every deployment",
        "",
        f"Written by `python -m benchmarks.exports`, {machine['started'][:10]}, {machine['cores']} CPU cores, "
        f"{', '.join(runtimes)}. One student (`{MODEL}`) for {', '.join(SETS)}, compared with torch on real parts. Times: CPU time of one "
        "thread in multiples of plain fp32 in ONNX Runtime, measured in turns. "
        "TensorRT's files were run by ONNX Runtime, since no GPU was available.",
        "",
        f"| deployment | outcome | file | largest change of a score | decisions that change | {' | '.join(f'AUROC {c}' for c in SETS)} "
        "| CPU time, × fp32 | convolutions in int8 | commit |",
        "|---|---|---|---|---|" + "---|" * (len(SETS) + 3),
    ]
    lines += [row(name, result) for name, result in content["deployments"].items()]
    return "\n".join(lines) + "\n"


def row(name: str, result: dict[str, Any]) -> str:
    parity, quantised = result["parity"], result["quantised"]
    outcome = "refused: " + "; ".join(result["missed"]) if result["missed"] else "accepted"
    flips = parity["flips"] + parity["near_flips"]
    aurocs = (parity["aurocs"].get(category) for category in SETS)
    int8_convolutions = (
        f"{quantised['convolutions'] - len(quantised['left'])} of {quantised['convolutions']}" if quantised else "–"
    )
    cells = [
        name,
        outcome,
        f"{result['file_bytes'] / 1e6:.2f} MB",
        f"{parity['score']:.1e}",
        f"{flips} of {parity['real_images']}",
        *(f"{pair[0]:.4f} → {pair[1]:.4f}" if pair else "–" for pair in aurocs),
        f"{result['ratio']:.2f}" if result["ratio"] else "1",
        int8_convolutions,
        str(result["commit"]),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
