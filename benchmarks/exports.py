"""What each deployment does to one student, on real parts. Writes docs/results/exports.{json,md}.

    INSPECT_KD_REAL_DATA=… python benchmarks/exports.py [--run RUN] [--only DEPLOYMENT …]

The run is that of `benchmarks/real_data.py --only unified`. Minutes a deployment; int8 measures every convolution by itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from real_data import RESULTS, ROOT, SETS, load

from inspect_kd import zoo
from inspect_kd.cli.progress import show_progress
from inspect_kd.report.conversion import speed, time_ratio
from inspect_kd.train.artifacts import convert
from inspect_kd.train.run import environment, load_run
from inspect_kd.versions import installed

MODEL = "omni_ad"


def main() -> None:
    names = zoo.names("export")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "bench" / f"{'-'.join(SETS)}-{MODEL}")
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    arguments = parser.parse_args()
    kept = RESULTS / "exports.json"
    told: dict[str, Any] = json.loads(kept.read_text())["deployments"] if kept.is_file() else {}
    data, finished = load(list(SETS), MODEL), load_run(arguments.run)
    for name in arguments.only:
        with show_progress() as progress:
            _, conversion = convert(finished, data, name, progress=progress)
        ratio = time_ratio(conversion) if conversion.times else None
        told[name] = conversion.to_json() | {
            "commit": environment("cpu")["commit"],
            "ratio": ratio,
            "speed": speed(conversion),
        }
        write({name: told[name] for name in names if name in told})
    # With no deployment named the page alone is written anew.
    write({name: told[name] for name in names if name in told})


def write(told: dict[str, Any]) -> None:
    machine = environment("cpu")
    (RESULTS / "exports.json").write_text(json.dumps({"environment": machine, "deployments": told}, indent=1) + "\n")
    lines = [
        "# One student, every deployment",
        "",
        f"Written by `python benchmarks/exports.py`, {machine['started'][:10]}, {machine['cores']} CPU cores, ONNX Runtime "
        f"{machine['packages'].get('onnxruntime')}, OpenVINO {installed(('openvino',)).get('openvino')}. One student (`{MODEL}`) for "
        f"{', '.join(SETS)}, held against torch on real parts. Times: CPU time of one thread beside plain fp32 in ONNX Runtime, in turns. "
        "TensorRT's files were run by ONNX Runtime: no GPU was at hand.",
        "",
        f"| deployment | verdict | file | largest change of a score | decisions that flip | {' | '.join(f'AUROC {c}' for c in SETS)} "
        "| CPU time, × fp32 | convolutions in bytes | commit |",
        "|---|---|---|---|---|" + "---|" * (len(SETS) + 3),
    ]
    lines += [row(name, one) for name, one in told.items()]
    (RESULTS / "exports.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def row(name: str, told: dict[str, Any]) -> str:
    parity, quantised = told["parity"], told["quantised"]
    verdict = "refused: " + "; ".join(told["missed"]) if told["missed"] else "accepted"
    flips = parity["flips"] + parity["near_flips"]
    aurocs = (parity["aurocs"].get(category) for category in SETS)
    in_bytes = (
        f"{quantised['convolutions'] - len(quantised['left'])} of {quantised['convolutions']}" if quantised else "–"
    )
    cells = [
        name,
        verdict,
        f"{told['file_bytes'] / 1e6:.2f} MB",
        f"{parity['score']:.1e}",
        f"{flips} of {parity['real_images']}",
        *(f"{pair[0]:.4f} → {pair[1]:.4f}" if pair else "–" for pair in aurocs),
        f"{told['ratio']:.2f}" if told["ratio"] else "1",
        in_bytes,
        str(told["commit"]),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
