"""The first look at an artifact that this machine has not met: in a process of its own, with limits, before this one opens it.

A runtime's parser is native code, and damaged files crash it, or make it allocate or run without end; on a line that would
stop the station. So a child loads the artifact, reads its card and looks at one picture and at two. What it survives is remembered by
digest and by the versions of the program and its runtimes: the child is started once an artifact, not once a start.

Not a sandbox: it keeps a broken file from taking the process along, not an author of exploits from the machine. Whoever
fears the second signs artifacts (`signing`): what a trusted key has signed needs no quarantine. No torch, no runtime here
but in the child, which is `python -m inspect_kd.quarantine`.
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
from inspect_kd.versions import installed

SECONDS = 60
"""For a child to start, load and look: about half a second on a desktop, many on a small box that compiles for OpenVINO."""
MEGABYTES = 2048
"""That a child may take beyond what it has when it starts, and four times the file besides. Where the system limits memory."""
BATCHES = (1, 2)
"""Sizes of the batches that the child looks at: a line inspects one by one, and a graph may behave differently then."""
REMEMBERED = 256
LARGEST = 64 * 2**10
"""Bytes that the file of those remembered may have."""
PROGRAMS = ("inspect-kd", "onnxruntime", "onnxruntime-gpu", "openvino")
READY = "inspect-kd quarantine: ready\n"
"""Said before the artifact is touched: a child that dies without it says nothing about the file."""
KINDS = {kind.__name__: kind for kind in (BadInput, EnvironmentFault, GateFailed, UsageError)}
WAY_OUT = "sign it and demand the signature (`trust`), or pass quarantine=False for a file of your own"


def admit(content: bytes, path: Path, target: str) -> None:
    """Raise where an artifact must not be opened here. `target` names its runtime."""
    name, memory = _name(content, target), zoo.cache_home() / "quarantine" / "passed.json"
    _refuse_memory_of_others(memory)
    if name in _remembered(memory):
        return
    _ask_child(content, path, target)
    _remember(memory, name)


def _name(content: bytes, target: str) -> str:
    """What a verdict holds for: another runtime may break on what this one reads."""
    with_what = f"{target} {platform.machine()} {sorted(installed(PROGRAMS).items())} batches {BATCHES}"
    return hashlib.sha256(hashlib.sha256(content).digest() + with_what.encode()).hexdigest()


def _refuse_memory_of_others(memory: Path) -> None:
    """Also where it does not exist yet: whoever may write above it could make it first."""
    for path in (memory.parent, memory):
        refuse_writable_by_others(path, "what stands there is opened without a first look", "$INSPECT_KD_CACHE")


def _remembered(memory: Path) -> list[str]:
    """Names of those that passed, the latest last. Refusals are not kept: a busy machine may have caused one."""
    try:
        if memory.stat().st_size > LARGEST:
            return []
        content = strict_json.loads(memory.read_bytes())
        return [name for name in content["passed"] if isinstance(name, str)]
    except (OSError, ValueError, TypeError, KeyError):
        # Nothing there, or nothing that this program wrote: then nothing is known.
        return []


def _remember(memory: Path, name: str) -> None:
    """Two processes at once may lose a line, which costs one more look."""
    passed = [*_remembered(memory), name][-REMEMBERED:]
    # A disk that takes no files costs a look at each start, not the start.
    with contextlib.suppress(OSError):
        make_own_folder(memory.parent)
        atomic_write.write_text(memory, json.dumps({"passed": passed}), mode=0o600)


def _ask_child(content: bytes, path: Path, target: str) -> None:
    try:
        words = python_command("-m", "inspect_kd.quarantine", target, str(path), str(_allowance(content)))
    except EnvironmentFault:
        raise EnvironmentFault(
            f"{path}: a new artifact is first opened by a Python process, and here is none: {WAY_OUT}"
        ) from None
    environment = python_environment() | {"PYTHONIOENCODING": "utf-8:surrogateescape"}
    try:
        answer = subprocess.run(
            words, input=content, capture_output=True, timeout=SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"{path}: refused: in quarantine it did not answer within {SECONDS} s; it may loop without end"
        ) from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: no process for a first look could be started ({error}): {WAY_OUT}") from error
    _judge(answer, path)


def _judge(answer: subprocess.CompletedProcess[bytes], path: Path) -> None:
    _, ready, verdict = answer.stdout.decode("utf-8", "replace").partition(READY)
    if not ready:
        last = answer.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise EnvironmentFault(f"{path}: the process for a first look did not start ({' '.join(last)}): {WAY_OUT}")
    if answer.returncode != 0 or not verdict.strip():
        raise BadInput(f"{path}: refused: in quarantine it broke the runtime ({_death(answer.returncode)})")
    told: dict[str, Any] = strict_json.loads(verdict.strip().splitlines()[-1])
    if told.get("passed") is not True:
        raise KINDS.get(told["error"], BadInput)(told["text"])


def _death(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _allowance(content: bytes) -> int:
    return MEGABYTES + 4 * len(content) // 2**20


def main() -> None:
    """The child: artifact in on stdin, verdict out on stdout."""
    target, where, megabytes = sys.argv[1:]
    content = sys.stdin.buffer.read()
    module: Any = registry.load("export", f"to_{target}")
    # An engine takes minutes to build, and a GPU's address space has no limits: such a file is opened as plain ONNX here.
    runtime = getattr(module, "Prover", module.Runtime)
    _limit(int(megabytes))
    print(READY, end="", flush=True)  # noqa: T201  (the parent reads it)
    print(json.dumps(_look(runtime, content, where)), flush=True)  # noqa: T201


def _look(runtime: Any, content: bytes, where: str) -> dict[str, Any]:
    try:
        model = runtime(content, where)
        black = np.zeros((model.size, model.size, 3), np.uint8)
        noise = np.random.default_rng(0).integers(0, 256, black.shape, dtype=np.uint8)
        for size in BATCHES:
            model.predict_batch(np.stack([noise, black])[:size])
    except InspectKDError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except MemoryError:
        return {
            "error": "BadInput",
            "text": f"{where}: refused: in quarantine it asked for more memory than any artifact",
        }
    return {"passed": True}


def _limit(megabytes: int) -> None:
    """Memory, time, and no picture of the process on the disk. Where the system has no such limits, the parent's clock holds."""
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
