"""`inspect-kd doctor`: check what is installed and working on this machine, and advise on the rest."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from inspect_kd.cli.echo import echo
from inspect_kd.versions import installed_versions

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
MIN_FREE_GB = 5
"""With less free disk space than this, the check of the disk is a note."""


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """The result of one check."""

    name: str
    state: str
    """ok, note or fault"""
    text: str


def doctor(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Check this machine: versions, working execution providers, OpenCV conflicts, weights, disk. Exit code 4 on a fault."""
    from inspect_kd.errors import EnvironmentFault

    checks = [
        *list_versions(),
        *check_opencv(),
        *check_providers(),
        check_torch_devices(),
        check_encoder_weights(),
        check_disk(),
    ]
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            echo(f"{ {'ok': '✓', 'note': '•', 'fault': '✗'}[check.state] } {check.name:<12} {check.text}")
    faults = [check.name for check in checks if check.state == "fault"]
    if faults:
        raise EnvironmentFault(f"faults: {', '.join(faults)}")


def list_versions() -> list[DoctorCheck]:
    """List the versions of important packages."""
    versions = installed_versions(PACKAGES)
    checks = [DoctorCheck("packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))]
    if "torch" not in versions:
        checks.append(
            DoctorCheck(
                "training",
                "note",
                "torch is not installed: this machine can inspect but not train (inspect-kd[train])",
            )
        )
    return checks


def check_opencv() -> list[DoctorCheck]:
    """Check that only one distribution of cv2 is installed: several overwrite each other's files."""
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
    distributions = list(installed_versions(names))
    if len(distributions) > 1:
        return [
            DoctorCheck(
                "opencv",
                "fault",
                f"{' and '.join(distributions)} overwrite each other's files: pip uninstall {' '.join(distributions)}; "
                f"pip install {names[1]}",
            )
        ]
    return [
        DoctorCheck(
            "opencv", "ok", distributions[0] if distributions else "installed, but from an unknown distribution"
        )
    ]


def check_providers() -> list[DoctorCheck]:
    """Open a session with every provider that ONNX Runtime lists, since it may still fail to load."""
    if len(installed_versions(("onnxruntime", "onnxruntime-gpu"))) > 1:
        text = "onnxruntime and onnxruntime-gpu overwrite each other: pip uninstall both, then install inspect-kd[cpu] or [gpu]"
        return [DoctorCheck("runtime", "fault", text)]
    if find_spec("onnxruntime") is None:
        return [DoctorCheck("runtime", "fault", "no ONNX Runtime: pip install 'inspect-kd[cpu]' or 'inspect-kd[gpu]'")]
    import onnxruntime

    checks = []
    for provider in onnxruntime.get_available_providers():
        if provider == "AzureExecutionProvider":
            continue  # calls a cloud service; never used here
        is_working = _provider_works(onnxruntime, provider)
        state = "ok" if is_working else "note"
        checks.append(
            DoctorCheck(
                "runtime",
                state,
                f"{provider}: {'works' if is_working else 'listed, but sessions fall back to the CPU'}",
            )
        )
    return checks


def _provider_works(onnxruntime: Any, provider: str) -> bool:
    if provider != "CPUExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(IDENTITY_MODEL, sess_options=options, providers=[provider])
    except Exception:
        # Any failure means that the provider does not work.
        return False
    return provider in session.get_providers()


def check_torch_devices() -> DoctorCheck:
    """List the GPUs that torch can use."""
    if find_spec("torch") is None:
        return DoctorCheck("gpu", "note", "not checked: torch is not installed")
    import torch

    if torch.cuda.is_available():
        return DoctorCheck(
            "gpu", "ok", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        )
    return DoctorCheck(
        "gpu", "note", f"torch {torch.__version__} finds no GPU; training uses {torch.get_num_threads()} CPU threads"
    )


def check_encoder_weights() -> DoctorCheck:
    """Check which pretrained weights are on this machine."""
    from inspect_kd import weights, zoo

    shipped = zoo.asset("models", "embedded_encoder.safetensors")
    embedded = "embedded encoder present" if shipped.is_file() else "embedded encoder missing"
    folder = weights.local_folder()
    if folder is None:
        return DoctorCheck(
            "weights", "note", f"{embedded}; INSPECT_KD_WEIGHTS is not set: other encoders come from the hub"
        )
    files = sorted(path.name for path in folder.iterdir() if path.suffix in {".safetensors", ".pt", ".pth"})
    return DoctorCheck(
        "weights", "ok" if files else "note", f"{embedded}; {folder}: {', '.join(files) or 'no weights in it'}"
    )


def check_disk() -> DoctorCheck:
    """Check the free disk space."""
    from inspect_kd import zoo

    home = zoo.data_home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    data_gb = shutil.disk_usage(existing).free / 1e9
    working_gb = shutil.disk_usage(Path()).free / 1e9
    state = "ok" if min(data_gb, working_gb) > MIN_FREE_GB else "note"
    return DoctorCheck(
        "disk", state, f"{data_gb:.0f} GB free for data sets ({home}), {working_gb:.0f} GB in the working directory"
    )


# The smallest valid model (one Identity node, opset 13), so that checking a provider needs no artifact and no onnx package.
IDENTITY_MODEL = bytes.fromhex(
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a02080142040a00100d"
)
