"""Try out an artifact that is new on this machine in a child process with limits, before this process opens it.

A runtime's parser is native code, and damaged files can make it crash, allocate without end or loop; on a line that would
stop the station. So a child process loads the artifact, reads its card and predicts a batch of each size in `BATCHES`. Artifacts
that pass are recorded by digest and by the versions of the program and its runtimes, so each is tried only once.

This is not a sandbox: it protects the process from broken files, not the machine from exploits. Against those, sign artifacts
(`signing`): an artifact signed by a trusted key skips the quarantine. Only the child, `python -m inspect_kd.quarantine`,
imports a runtime; neither imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd import atomic_write, registry, strict_json, zoo
from inspect_kd.child_process import python_command, python_environment
from inspect_kd.errors import BadInput, EnvironmentFault, GateFailed, InspectKDError, UsageError
from inspect_kd.file_owner import make_own_folder, refuse_writable_by_others
from inspect_kd.versions import installed_versions

MAX_SECONDS = 60
"""Time limit of the child: it takes half a second on a desktop, many seconds on a small machine that compiles for OpenVINO."""
BASE_MEGABYTES = 3072
"""The child may allocate this and four times the file's size beyond its memory at start, where the system can limit it."""
BATCHES = (1, 2, 8)
"""Batch sizes that the child predicts, since a graph may behave differently for each; the last is the largest in use."""
MAX_RECORDED = 256
"""Largest number of artifacts in the record of those that passed."""
MAX_BYTES = 64 * 2**10
"""Largest size of the record's file."""
VERSIONED_PACKAGES = ("inspect-kd", "onnxruntime", "onnxruntime-gpu", "openvino")
"""Distributions whose versions are part of a record's key."""
READY = "inspect-kd quarantine: ready\n"
"""Printed by the child before it opens the artifact. If it dies earlier, the artifact is not to blame."""
ERRORS = {error.__name__: error for error in (BadInput, EnvironmentFault, GateFailed, UsageError)}
"""Errors that the child may report, by the names that it reports."""
ADVICE = "sign it and demand the signature (`trust`), or pass quarantine=False for a file of your own"


def admit(content: bytes, path: Path, target: str) -> None:
    """Raise if an artifact must not be opened here. `target` names its runtime."""
    key, record = _record_key(content, target), zoo.cache_home() / "quarantine" / "passed.json"
    _refuse_writable_record(record)
    if key in _read_record(record):
        return
    _try_in_child(content, path, target)
    _add_to_record(record, key)


def _record_key(content: bytes, target: str) -> str:
    """Identify an artifact together with the versions that it was tried with: another runtime may crash on it."""
    versions = (
        f"{target} {platform.machine()} {sorted(installed_versions(VERSIONED_PACKAGES).items())} batches {BATCHES}"
    )
    return hashlib.sha256(hashlib.sha256(content).digest() + versions.encode()).hexdigest()


def _refuse_writable_record(record: Path) -> None:
    """Refuse a record that another user may write, or create if it does not exist yet."""
    for path in (record.parent, record):
        refuse_writable_by_others(path, "artifacts recorded there are opened without quarantine", "$INSPECT_KD_CACHE")


def _read_record(record: Path) -> list[str]:
    """Read the keys of artifacts that passed, the latest last. Refusals are not recorded: a busy machine may cause one."""
    try:
        if record.stat().st_size > MAX_BYTES:
            return []
        content = strict_json.loads(record.read_bytes())
        return [key for key in content["passed"] if isinstance(key, str)]
    except (OSError, ValueError, TypeError, KeyError):
        # Missing, or not written by this program.
        return []


def _add_to_record(record: Path, key: str) -> None:
    """Record an artifact that passed. Two processes at once may lose an entry, which costs one more trial."""
    passed = [*_read_record(record), key][-MAX_RECORDED:]
    # On a full or read-only disk the artifact is tried again at each start.
    with contextlib.suppress(OSError):
        make_own_folder(record.parent)
        atomic_write.write_text(record, json.dumps({"passed": passed}), mode=0o600)


def _try_in_child(content: bytes, path: Path, target: str) -> None:
    """Try an artifact in a child process; raise if it fails there."""
    try:
        command = python_command("-m", "inspect_kd.quarantine", target, str(path), str(_memory_limit(content)))
    except EnvironmentFault:
        raise EnvironmentFault(
            f"{path}: a new artifact is first opened in a child process, but there is no Python interpreter to start: {ADVICE}"
        ) from None
    environment = python_environment() | {"PYTHONIOENCODING": "utf-8:surrogateescape"}
    try:
        finished = subprocess.run(
            command, input=content, capture_output=True, timeout=MAX_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"{path}: refused: it did not finish within {MAX_SECONDS} s in quarantine; it may loop without end"
        ) from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: the quarantine process could not be started ({error}): {ADVICE}") from error
    _check_result(finished, path)


def _check_result(finished: subprocess.CompletedProcess[bytes], path: Path) -> None:
    """Raise the error that the child reported, or one that describes its crash."""
    _, ready, report = finished.stdout.decode("utf-8", "replace").partition(READY)
    if not ready:
        last_line = finished.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise EnvironmentFault(f"{path}: the quarantine process did not start ({' '.join(last_line)}): {ADVICE}")
    if finished.returncode != 0 or not report.strip():
        raise BadInput(f"{path}: refused: it crashed the runtime in quarantine ({_describe_exit(finished.returncode)})")
    result: dict[str, Any] = strict_json.loads(report.strip().splitlines()[-1])
    if result.get("passed") is not True:
        raise ERRORS.get(result["error"], BadInput)(result["text"])


def _describe_exit(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _memory_limit(content: bytes) -> int:
    """Return the megabytes that the child may allocate beyond its memory at start."""
    return BASE_MEGABYTES + 4 * len(content) // 2**20


def main() -> None:
    """Run the child: read the artifact from stdin, print the result to stdout."""
    target, name, megabytes = sys.argv[1:]
    content = sys.stdin.buffer.read()
    module: Any = registry.load("export", f"to_{target}")
    # A TensorRT engine takes minutes to build, and GPU memory cannot be limited: such a file is opened as plain ONNX.
    runtime = getattr(module, "VerificationRuntime", module.Runtime)
    _set_limits(int(megabytes))
    print(READY, end="", flush=True)  # noqa: T201  (the parent reads it)
    print(json.dumps(_try_artifact(runtime, content, name)), flush=True)  # noqa: T201


def _try_artifact(runtime: Any, content: bytes, name: str) -> dict[str, Any]:
    """Load an artifact, predict every batch size, and return what the child reports."""
    try:
        model = runtime(content, name)
        black = np.zeros((model.size, model.size, 3), np.uint8)
        noise = np.random.default_rng(0).integers(0, 256, black.shape, dtype=np.uint8)
        for size in BATCHES:
            model.predict_batch(np.stack([noise, black] * max(BATCHES))[:size])
    except InspectKDError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        return {
            "error": "BadInput",
            "text": f"{name}: refused: it exceeded the memory limit of the quarantine",
        }
    return {"passed": True}


def _set_limits(megabytes: int) -> None:
    """Limit this process's memory and CPU time, and forbid core dumps. Without the `resource` module only the parent's timeout applies."""
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS + 1))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        max_bytes = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


if __name__ == "__main__":
    main()
