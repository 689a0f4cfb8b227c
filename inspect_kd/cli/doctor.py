"""`inspect-kd doctor`: what is installed, what really works, and what to do about the rest."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from inspect_kd.cli.echo import echo
from inspect_kd.versions import installed

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "anomalib",
    "onnx",
)
LITTLE_DISK_GB = 5


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    name: str
    state: str
    """ok, note or fault"""
    text: str


def doctor(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """DoctorCheck this machine: versions, providers really obtained, OpenCV clashes, weights, disk. Exit 4 on a fault."""
    from inspect_kd.errors import EnvironmentFault

    checks = [*versions(), *opencv(), *providers(), torch_devices(), encoder_weights(), disk()]
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            echo(f"{ {'ok': '✓', 'note': '•', 'fault': '✗'}[check.state] } {check.name:<12} {check.text}")
    faults = [check.name for check in checks if check.state == "fault"]
    if faults:
        raise EnvironmentFault(f"faults: {', '.join(faults)}")


def versions() -> list[DoctorCheck]:
    found = installed(PACKAGES)
    checks = [DoctorCheck("packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))]
    if "torch" not in found:
        checks.append(
            DoctorCheck(
                "training",
                "note",
                "torch is not installed: this machine inspects, it does not train (inspect-kd[train])",
            )
        )
    return checks


def opencv() -> list[DoctorCheck]:
    """Two distributions of cv2 overwrite each other's files."""
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
    here = list(installed(names))
    if len(here) > 1:
        return [
            DoctorCheck(
                "opencv",
                "fault",
                f"{' and '.join(here)} share their files: pip uninstall {' '.join(here)}; pip install {names[1]}",
            )
        ]
    return [DoctorCheck("opencv", "ok", here[0] if here else "found, but by no known distribution")]


def providers() -> list[DoctorCheck]:
    """Open a session with every provider that the runtime lists: a listed one may still fail to load."""
    both = installed(("onnxruntime", "onnxruntime-gpu"))
    if len(both) > 1:
        text = "onnxruntime and onnxruntime-gpu overwrite each other: pip uninstall both, then install inspect-kd[cpu] or [gpu]"
        return [DoctorCheck("runtime", "fault", text)]
    if find_spec("onnxruntime") is None:
        return [DoctorCheck("runtime", "fault", "no ONNX Runtime: pip install 'inspect-kd[cpu]' or 'inspect-kd[gpu]'")]
    import onnxruntime

    checks = []
    for provider in onnxruntime.get_available_providers():
        if provider == "AzureExecutionProvider":
            continue  # calls a cloud service; never used here
        obtained = _obtained(onnxruntime, provider)
        state = "ok" if obtained else "note"
        checks.append(
            DoctorCheck(
                "runtime",
                state,
                f"{provider}: {'a session runs on it' if obtained else 'listed, but a session falls back to the CPU'}",
            )
        )
    return checks


def _obtained(onnxruntime: Any, provider: str) -> bool:
    if provider != "CPUExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(IDENTITY, sess_options=options, providers=[provider])
    except Exception:
        # Any failure to open is the answer to the question that is asked here.
        return False
    return provider in session.get_providers()


def torch_devices() -> DoctorCheck:
    if find_spec("torch") is None:
        return DoctorCheck("gpu", "note", "not asked: torch is not installed")
    import torch

    if torch.cuda.is_available():
        return DoctorCheck(
            "gpu", "ok", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        )
    return DoctorCheck(
        "gpu", "note", f"torch {torch.__version__} finds none; training runs on {torch.get_num_threads()} CPU threads"
    )


def encoder_weights() -> DoctorCheck:
    from inspect_kd import weights, zoo

    shipped = zoo.asset("models", "embedded_encoder.safetensors")
    embedded = "embedded encoder shipped" if shipped.is_file() else "embedded encoder missing"
    folder = weights.local_folder()
    if folder is None:
        return DoctorCheck(
            "weights", "note", f"{embedded}; INSPECT_KD_WEIGHTS is not set: other encoders come from the hub"
        )
    files = sorted(path.name for path in folder.iterdir() if path.suffix in {".safetensors", ".pt", ".pth"})
    return DoctorCheck(
        "weights", "ok" if files else "note", f"{embedded}; {folder}: {', '.join(files) or 'no weights in it'}"
    )


def disk() -> DoctorCheck:
    from inspect_kd import zoo

    home = zoo.data_home()
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    here = shutil.disk_usage(Path()).free / 1e9
    state = "ok" if min(free, here) > LITTLE_DISK_GB else "note"
    return DoctorCheck("disk", state, f"{free:.0f} GB free for data sets ({home}), {here:.0f} GB here")


# The smallest valid model (one Identity node, opset 13), so that asking for a provider needs no artifact and no onnx package.
IDENTITY = bytes.fromhex(
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a02080142040a00100d"
)
