"""What an image costs on one CPU thread: our students beside anomalib's lightest models, in one run, one runtime.

    INSPECT_KD_WEIGHTS=… python benchmarks/latency.py

Weights do not matter to the clock: students are untrained, peers random. Each model is one ONNX file for 256x256 images;
models take turns, so that a busy moment of the machine hits all. Writes docs/results/latency.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from real_data import RESULTS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inspect_kd.config import load_recipe
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.export.to_onnx import open_session
from inspect_kd.train.run import build_student, environment

SIDE, BATCH = 256, 8
STUDENTS = ("omni_ad", "omni_ras", "ras", "embedded")


class EncoderAlone(nn.Module):
    """The floor under a student: its encoder, and a mean so that nothing of it can be left out."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images_NHW3: torch.Tensor) -> torch.Tensor:
        levels = self.encoder(images_NHW3.permute(0, 3, 1, 2).float())
        return torch.stack([level.mean(dim=(1, 2, 3)) for level in levels])


def student(recipe: str) -> nn.Module:
    return ArtifactGraph(build_student(load_recipe(recipe)), 1.0)


def encoder_of(recipe: str) -> nn.Module:
    return EncoderAlone(build_student(load_recipe(recipe)).encoder)


def peer(name: str) -> nn.Module:
    """One of anomalib's models on ResNet18, with random weights."""
    import timm
    from anomalib import models

    with patch("timm.create_model", partial(_without_weights, timm.create_model)):
        model: Any = getattr(models, name)(backbone="resnet18").model
    if name == "Padim":
        # What a training would have gathered at each of 64x64 places.
        features = model.n_features
        model.gaussian.mean = torch.zeros(features, 64 * 64)
        model.gaussian.inv_covariance = torch.eye(features).repeat(64 * 64, 1, 1)
    return model


def _without_weights(create: Callable[..., nn.Module], *args: Any, **options: Any) -> nn.Module:
    return create(*args, **options | {"pretrained": False})


def to_file(model: nn.Module, path: Path, *, ours: bool) -> None:
    shape = (2, SIDE, SIDE, 3) if ours else (2, 3, SIDE, SIDE)
    example = torch.zeros(shape, dtype=torch.uint8 if ours else torch.float32)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.onnx.export(
        model.eval(), (example,), dynamo=True, dynamic_shapes=dynamic, opset_version=20, verbose=False
    )
    assert program is not None
    program.save(str(path), external_data=False)


def gflop(model: nn.Module, *, ours: bool) -> float:
    shape = (1, SIDE, SIDE, 3) if ours else (1, 3, SIDE, SIDE)
    model.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(shape, dtype=torch.uint8 if ours else torch.float32))
    return float(counter.get_total_flops()) / 1e9


def image_for(session: Any, batch: int) -> np.ndarray:
    rng, ours = np.random.default_rng(0), session.get_inputs()[0].type == "tensor(uint8)"
    if ours:
        return rng.integers(0, 255, (batch, SIDE, SIDE, 3), dtype=np.uint8)
    return rng.random((batch, 3, SIDE, SIDE), dtype=np.float32)


def clock(sessions: dict[str, Any], batch: int, rounds: int, runs: int) -> dict[str, dict[str, float]]:
    """CPU and wall milliseconds an image; models take turns."""
    cpu: dict[str, list[float]] = {name: [] for name in sessions}
    wall: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 1):
        for name, session in sessions.items():
            feed = {session.get_inputs()[0].name: image_for(session, batch)}
            for _ in range(runs):
                began, began_cpu = time.perf_counter(), time.process_time()
                session.run(None, feed)
                if turn:  # the first turn warms up
                    cpu[name].append(1e3 * (time.process_time() - began_cpu) / batch)
                    wall[name].append(1e3 * (time.perf_counter() - began) / batch)
    return {
        name: {
            "cpu_ms": float(np.median(cpu[name])),
            "p50_ms": float(np.median(wall[name])),
            "p99_ms": float(np.percentile(wall[name], 99)),
        }
        for name in sessions
    }


def machine_peak(side: int = 1024, runs: int = 9) -> float:
    """GFLOP/s of one thread in a large matrix product, the most that any graph could reach here."""
    torch.set_num_threads(1)
    a, b = torch.rand(side, side), torch.rand(side, side)
    seconds = []
    for _ in range(runs):
        began = time.process_time()
        torch.mm(a, b)
        seconds.append(time.process_time() - began)
    return 2 * side**3 / float(np.median(seconds[1:])) / 1e9


def write(rows: dict[str, dict[str, float]], peak: float) -> None:
    machine = environment("cpu")
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"environment": machine, "peak_gflops": peak, "models": rows}
    (RESULTS / "latency.json").write_text(json.dumps(content, indent=1) + "\n")
    peers = {name: row["cpu_ms"] for name, row in rows.items() if name.startswith("anomalib")}
    fastest = min(peers, key=lambda name: peers[name])
    lines = [
        "# What an image costs on a CPU",
        "",
        f"Written by `python benchmarks/latency.py`, {machine['started'][:10]}: ONNX Runtime {machine['packages']['onnxruntime']}, "
        f"one thread, {SIDE}x{SIDE}, everything from bytes to map and score (peers: from normalised floats; their weights are random). "
        f"This thread's peak in a matrix product, same run: {peak:.0f} GFLOP/s. Times differ between machines and moments; the ratios "
        "are what to read.",
        "",
        f"| model | CPU ms | p50 ms | p99 ms | ms an image in batches of {BATCH} | GFLOP | share of peak | file MB | of {fastest} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["cpu_ms"]):
        times = " | ".join(f"{row[key]:.1f}" for key in ("cpu_ms", "p50_ms", "p99_ms", "batched_cpu_ms"))
        share, ratio = row["gflop"] / row["cpu_ms"] * 1e3 / peak, row["cpu_ms"] / peers[fastest]
        lines.append(f"| {name} | {times} | {row['gflop']:.2f} | {share:.0%} | {row['file_mb']:.1f} | {ratio:.2f} |")
    (RESULTS / "latency.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    makers: dict[str, tuple[Callable[[], nn.Module], bool]] = {
        **{name: (partial(student, name), True) for name in STUDENTS},
        "encoder of omni_ad alone": (partial(encoder_of, "omni_ad"), True),
        "encoder of embedded alone": (partial(encoder_of, "embedded"), True),
        **{f"anomalib {name}, ResNet18": (partial(peer, name), False) for name in ("Stfpm", "Fastflow", "Padim")},
    }
    sessions, rows = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, ours) in makers.items():
            path = Path(folder) / "model.onnx"
            model = make()
            to_file(model, path, ours=ours)
            rows[name] = {"gflop": gflop(model, ours=ours), "file_mb": path.stat().st_size / 1e6}
            sessions[name] = open_session(path.read_bytes(), name, device="cpu", threads=1, allow_cpu=True)
            print(f"{name}: exported, {len(onnx.load(path).graph.node)} nodes", flush=True)
    single = clock(sessions, 1, arguments.rounds, 12)
    batched = clock(sessions, BATCH, max(1, arguments.rounds // 3), 2)
    for name, row in rows.items():
        row |= single[name] | {"batched_cpu_ms": batched[name]["cpu_ms"]}
    write(rows, machine_peak())
    print((RESULTS / "latency.md").read_text())


if __name__ == "__main__":
    main()
