"""Time one image on one CPU thread, for our students and anomalib's lightest models, in one run and one runtime.

    INSPECT_KD_WEIGHTS=… python -m benchmarks.latency

Weights do not change the time, so students are untrained and peers random. Each model is one ONNX file for 256x256 images.
Models take turns, so that a busy moment of the machine affects all of them. Writes docs/results/latency.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from benchmarks.results import Content, publish
from inspect_kd.bench import peers
from inspect_kd.bench.cost import BATCH, count_gflop, export_file, measure_peak_gflops, time_files
from inspect_kd.bench.entries import PEERS, SIZE
from inspect_kd.config import load_recipe
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.training.presets import FIT_ALONE
from inspect_kd.training.run import build_student, environment

STUDENTS = ("omni_ad", "omni_ras", "ras", "embedded")
LIGHT_PEERS = ("stfpm_r18", "fastflow_r18", "padim_r18")


class EncoderAlone(nn.Module):
    """A student's encoder, whose time is a lower bound of the student's; the mean keeps all its levels from being optimised away."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images_NHW3: torch.Tensor) -> torch.Tensor:
        levels = self.encoder(images_NHW3.permute(0, 3, 1, 2).float())
        return torch.stack([level.mean(dim=(1, 2, 3)) for level in levels])


def make_student(recipe: str, *changes: str) -> nn.Module:
    return ArtifactGraph(build_student(load_recipe(recipe, list(changes))), 1.0)


def make_encoder(recipe: str) -> nn.Module:
    return EncoderAlone(build_student(load_recipe(recipe)).encoder)


def make_peer(name: str) -> nn.Module:
    return peers.PeerGraph(peers.build(PEERS[name], random=True))


def profile_operators(file: Path, folder: Path, runs: int = 40) -> dict[str, float]:
    """Measure milliseconds by kind of operator, with ONNX Runtime's profiler."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE, 3), dtype=np.uint8)
    for _ in range(runs):
        session.run(None, {session.get_inputs()[0].name: image})
    times_by_node: dict[str, list[float]] = defaultdict(list)
    kind_by_node = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times_by_node[event["name"]].append(event["dur"] / 1e3)
            kind_by_node[event["name"]] = event["args"]["op_name"]
    total: dict[str, float] = defaultdict(float)
    for node, times in times_by_node.items():
        total[kind_by_node[node]] += float(np.median(times))
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def page(content: Content) -> str:
    machine, rows, peak = content["environment"], content["models"], content["peak_gflops"]
    profile = content["omni_ad_by_operator_ms"]
    times_of_peers = {name: row["cpu_ms"] for name, row in rows.items() if name.startswith("anomalib")}
    fastest = min(times_of_peers, key=lambda name: times_of_peers[name])
    lines = [
        "# What an image costs on a CPU",
        "",
        f"Written by `python -m benchmarks.latency`, {machine['started'][:10]}: ONNX Runtime {machine['packages']['onnxruntime']}, "
        f"one thread, {SIZE}x{SIZE}, everything from pixels to heatmap and score; weights are random, which does not change the time. "
        f"This thread's peak in a matrix product, same run: {peak:.0f} GFLOP/s. Times differ between machines and moments; the ratios "
        "are comparable.",
        "",
        f"| model | CPU ms | p50 ms | p99 ms | ms an image in batches of {BATCH} | GFLOP | share of peak | file MB | of {fastest} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["cpu_ms"]):
        times = " | ".join(f"{row[key]:.1f}" for key in ("cpu_ms", "p50_ms", "p99_ms", "batched_cpu_ms"))
        share, ratio = row["gflop"] / row["cpu_ms"] * 1e3 / peak, row["cpu_ms"] / times_of_peers[fastest]
        lines.append(f"| {name} | {times} | {row['gflop']:.2f} | {share:.0%} | {row['file_mb']:.1f} | {ratio:.2f} |")
    total = sum(profile.values())
    lines += [
        "",
        "## Where omni_ad's time goes",
        "",
        "By kind of operator, from ONNX Runtime's profiler, which itself takes some time.",
        "",
        "| operator | ms | share |",
        "|---|---|---|",
        *[f"| {name} | {ms:.2f} | {ms / total:.0%} |" for name, ms in list(profile.items())[:10]],
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    makers: dict[str, Callable[[], nn.Module]] = {
        **{name: partial(make_student, name) for name in STUDENTS},
        "omni_ad without its head": partial(make_student, "omni_ad", *FIT_ALONE, "student.head_width=0"),
        "omni_ad, plain convolutions": partial(make_student, "omni_ad", "student.local=plain"),
        "encoder of omni_ad alone": partial(make_encoder, "omni_ad"),
        "encoder of embedded alone": partial(make_encoder, "embedded"),
        **{f"anomalib {PEERS[name].name}": partial(make_peer, name) for name in LIGHT_PEERS},
    }
    files, rows = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, make) in enumerate(makers.items()):
            model = make()
            files[name] = Path(folder) / f"{number}.onnx"
            rows[name] = {"gflop": count_gflop(model, SIZE)}
            export_file(model, files[name], SIZE)
            rows[name]["file_mb"] = files[name].stat().st_size / 1e6
            print(f"{name}: exported, {len(onnx.load(files[name]).graph.node)} nodes", flush=True)
        times_of, failures = time_files(files, rounds=arguments.rounds)
        assert not failures, failures
        for name, times in times_of.items():
            rows[name] |= times
        profile = profile_operators(files["omni_ad"], Path(folder))
    measured = {"peak_gflops": measure_peak_gflops(), "models": rows, "omni_ad_by_operator_ms": profile}
    publish("latency", {"environment": environment("cpu"), **measured}, page)


if __name__ == "__main__":
    main()
