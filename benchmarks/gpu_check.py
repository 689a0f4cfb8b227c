"""Run every check and measurement that needs a GPU, and write one report: docs/results/gpu.{json,md}.

    make gpu-check                      # or: python -m benchmarks.gpu_check [--run RUN]

Needs an NVIDIA GPU and inspect-kd[gpu,tensorrt]. Runs the tests that are marked gpu, evaluates the same parts on every device, measures
latency with fixed buffers and CUDA graphs, and compares TensorRT with ONNX Runtime layer by layer. If a step fails, the others still
run, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS, ROOT, publish
from inspect_kd.child_process import python_command, python_environment

TAIL = 40
"""Number of last lines of a step's output that go into the report."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a complete run; default: train one on drawn parts")
    parser.add_argument("--data", type=Path, help="its data, with --run")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu_check")
    arguments = parser.parse_args()
    if shutil.which("nvidia-smi") is None:
        sys.exit("gpu_check: no NVIDIA GPU found (there is no nvidia-smi); nothing was checked")
    results = {"gpu": run_step(["nvidia-smi"])}
    if arguments.run is None:
        results |= {name: run_step(command) for name, command in training_steps(arguments.work).items()}
    run = arguments.run or arguments.work / "run"
    artifact = run / f"{run.resolve().name}.onnx"
    tensorrt = run / f"{run.resolve().name}.fp16.tensorrt.onnx"
    for name, command in check_steps(run, artifact, tensorrt, arguments.data or arguments.work / "data").items():
        results[name] = run_step(command)
    publish("gpu", results, page, arguments.out)
    failed = [name for name, result in results.items() if result["status"]]
    sys.exit(f"gpu_check: {', '.join(failed)} failed" if failed else 0)


def training_steps(work: Path) -> dict[str, list[str]]:
    command = [
        *inspect_kd_command(),
        "train",
        "--data",
        str(work / "data"),
        "--model",
        "embedded",
        "--out",
        str(work),
        "--name",
        "run",
    ]
    return {
        "draw parts": [*inspect_kd_command(), "data", "draw", "--to", str(work / "data")],
        "train on the GPU": [*command, "--device", "cuda"],
    }


def check_steps(run: Path, artifact: Path, tensorrt: Path, data: Path) -> dict[str, list[str]]:
    data_folder = str(data)
    latency = [*inspect_kd_command(), "bench-latency", str(artifact)]
    return {
        "tests marked gpu": python_command("-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests")),
        "export fp16": [*inspect_kd_command(), "export", str(run), "--to", "onnx_fp16,tensorrt_fp16"],
        "metrics on the CPU": [*inspect_kd_command(), "eval", str(artifact), "--data", data_folder],
        "metrics on CUDA": [*inspect_kd_command(), "eval", str(artifact), "--data", data_folder, "--device", "cuda"],
        "metrics on TensorRT": [
            *inspect_kd_command(),
            "eval",
            str(tensorrt),
            "--data",
            data_folder,
            "--device",
            "tensorrt",
        ],
        "latency on the CPU": latency,
        "latency on CUDA": [*latency, "--device", "cuda"],
        "latency on CUDA, fixed buffers and a CUDA graph": [*latency, "--device", "cuda", "--bind", "--cuda-graph"],
        "latency on ONNX Runtime's TensorRT provider": [*latency, "--device", "tensorrt", "--bind"],
        "latency on TensorRT": [*inspect_kd_command(), "bench-latency", str(tensorrt), "--device", "tensorrt"],
        "TensorRT against ONNX Runtime, layer by layer": [
            *("polygraphy", "run", str(tensorrt), "--trt", "--onnxrt", "--strongly-typed", "--validate"),
            *("--trt-outputs", "mark", "all", "--onnx-outputs", "mark", "all", "--atol", "0.01", "--rtol", "0.01"),
        ],
    }


def inspect_kd_command() -> list[str]:
    return python_command("-m", "inspect_kd")


def run_step(command: list[str]) -> dict[str, Any]:
    """Run a command; return the command, its exit status and the end of its output, all without this machine's folders."""
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=3600, env=python_environment()
        )
        status, output = finished.returncode, finished.stdout + finished.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        status, output = 127, str(error)
    program = "python" if Path(command[0]).name.startswith("python") else command[0]
    command_text = " ".join([program, *command[1:]])
    return {
        "command": command_text.replace(f"{ROOT}/", ""),
        "status": status,
        "output": output.replace(f"{ROOT}/", "").splitlines()[-TAIL:],
    }


def page(results: dict[str, Any]) -> str:
    lines = [
        "# On a GPU",
        "",
        "Written by `make gpu-check`. Each step with its command, its exit status and the end of its output.",
        "",
    ]
    for name, result in results.items():
        lines += [
            f"## {name}: {'failed' if result['status'] else 'done'}",
            "",
            f"`{result['command']}` → {result['status']}",
            "",
        ]
        lines += ["```", *result["output"], "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
