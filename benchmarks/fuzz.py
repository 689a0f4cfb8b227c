"""Feed mutated inputs to everything that reads files: artifacts, images, recipes, manifests, data sets, signatures, archives.

    python -m benchmarks.fuzz [--seconds 900 | --count N] [--seed 0] [--only card …] [--artifact part.onnx] [--add]

Each target gets a share of the time; `--add` keeps the results of other seeds. Writes docs/results/fuzz.{json,md}. The input of each
finding is in runs/fuzz/<target>-<seed>-<number>.bin; `--only TARGET --seed SEED --start NUMBER --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import os
from functools import reduce
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.training.run import environment
from tests.fuzzing.harness import Result, fuzz
from tests.fuzzing.targets import ARTIFACT_VARIABLE, TARGETS

# Relative shares of the time. Targets that process thousands of inputs per second need less.
TIME_SHARES = {"onnx": 6, "openvino": 6, "images": 6, "quarantine": 3, "quarantine_openvino": 3, "layouts": 3}
DEFAULT_TIME_SHARE = 4
INPUTS_OF = {
    "wire": "the check that an artifact keeps no tensors in other files",
    "card": "an artifact's card, and the code on the line that uses it",
    "calibration": "a run's calibration.json",
    "images": "PNG, JPEG, BMP, TIFF, WebP",
    "recipes": "recipes and `--set`",
    "deployments": "deployment recipes",
    "manifests": "manifests, and the data set behind them",
    "layouts": "folders and tables in ten layouts, links and pipes among them",
    "signatures": "signatures, public keys, changed artifacts",
    "archives": "zip and tar",
    "onnx": "artifacts in ONNX Runtime, no quarantine",
    "openvino": "artifacts in OpenVINO, no quarantine",
    "quarantine": "artifacts as users open them, ONNX Runtime",
    "quarantine_openvino": "artifacts as users open them, OpenVINO",
}


def content_of(results: list[Result], *, add: bool) -> Content:
    """Collect the results by target and seed; `add` keeps the published results of other seeds."""
    machine = environment("cpu")
    if artifact := os.environ.get(ARTIFACT_VARIABLE):
        # Only the file name is published, not the machine's folders.
        machine["command"] = machine["command"].replace(artifact, Path(artifact).name)
    content: dict[str, Any] = {"environment": machine, "targets": {}}
    if add:
        content["targets"] = load_results("fuzz")["targets"]
    for result in results:
        entry = result.to_json() | {"commit": machine["commit"], "command": machine["command"]}
        content["targets"].setdefault(result.target, {})[str(result.seed)] = entry
    return content


def page(content: Content) -> str:
    targets = content["targets"].values()
    commits = ", ".join(dict.fromkeys(entry["commit"] for by_seed in targets for entry in by_seed.values()))
    results = [reduce(Result.__add__, map(Result.from_json, by_seed.values())) for by_seed in targets]
    return "\n".join(page_lines(results, content["environment"], commits)) + "\n"


def page_lines(results: list[Result], machine: dict[str, Any], commits: str) -> list[str]:
    inputs, findings = sum(result.inputs for result in results), sum(len(result.findings) for result in results)
    minutes = sum(result.seconds for result in results) / 60
    lines = [
        "# Mutated inputs",
        "",
        f"Written by `python -m benchmarks.fuzz`, {machine['started'][:10]}, commit {commits}, Python "
        f"{machine['python']}, ONNX Runtime {machine['packages'].get('onnxruntime')}: **{inputs:,} inputs in {minutes:.0f} minutes, "
        f"{findings} findings**. A finding is a crash, more CPU seconds than the target's limit, more than 1.5 GB beyond the memory of "
        "the worker at its start, an error that is not one of the program's own one-line errors, a file opened outside the folder, or a "
        "worker that keeps growing.",
        "",
        "| target | what is fed | inputs | accepted | refused | broke, held by the quarantine | findings | peak MB | kept | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        refused = {name: count for name, count in result.outcomes.items() if name != "accepted"}
        reasons = ", ".join(f"{count:,} {name}" for name, count in sorted(refused.items())) or "–"
        held = f"{sum(result.contained.values())} of {result.broke}" if result.broke else "–"
        kept = f"{result.growth_kb / 1024:.1f} MB in {result.growth_inputs:,}" if result.growth_inputs else "–"
        lines.append(
            f"| {result.target} | {INPUTS_OF[result.target]} | {result.inputs:,} | {result.outcomes['accepted']:,} | {reasons} | {held} | "
            f"{len(result.findings)} | {result.peak_mb} | {kept} | {result.seconds / 60:.1f} |"
        )
    lines += [
        "",
        "*Broke, held by the quarantine*: the second number counts the inputs that made a native runtime crash, hang or use memory "
        "without bound in a worker without the quarantine. For each place in each worker, one of them was then opened with the "
        "quarantine; the first number counts those that it refused in one line (any other is a finding). *Kept*: the memory that the "
        "longest-lived worker gained over the last two thirds of its inputs, after collecting and trimming. *Peak MB* does not "
        "include the quarantine's child processes, which have their own limits.",
    ]
    for result in results:
        lines += [f"- {f.target} {f.index}: {f.kind}: {f.text}" for f in result.findings]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=900, help="time for all targets together; starting workers does not count"
    )
    parser.add_argument("--count", type=int, default=10**9, help="limit of inputs per target")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(TARGETS), default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--artifact", type=Path, help="a real artifact to mutate, besides the tiny one")
    parser.add_argument("--add", action="store_true", help="keep the published results of other seeds")
    arguments = parser.parse_args()
    if arguments.artifact:
        os.environ[ARTIFACT_VARIABLE] = str(arguments.artifact)
    shares = {name: TIME_SHARES.get(name, DEFAULT_TIME_SHARE) for name in arguments.only}
    results = []
    for name, share in shares.items():
        result = fuzz(
            name,
            seconds=arguments.seconds * share / sum(shares.values()),
            seed=arguments.seed,
            start=arguments.start,
            stop=arguments.start + arguments.count,
            findings_folder=ROOT / "runs" / "fuzz",
        )
        results.append(result)
        print(f"{name}: {result.inputs:,} inputs, {len(result.findings)} findings, {result.seconds:.0f} s", flush=True)
    publish("fuzz", content_of(results, add=arguments.add), page)


if __name__ == "__main__":
    main()
