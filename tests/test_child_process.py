"""No process that the program starts imports modules from the working directory."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import inspect_kd
from inspect_kd.child_process import python_command, python_environment
from tests.planted import executed_modules, plant_modules
from tests.studio_server import studio

ROOT = Path(inspect_kd.__file__).parents[1]
MAX_WAIT_S = 240


@pytest.fixture
def planted_folder(tmp_path: Path) -> Path:
    return tmp_path / "planted"


@pytest.fixture
def execution_log(planted_folder: Path) -> Path:
    return plant_modules(planted_folder)


def test_child_processes_of_the_studio_import_nothing_from_its_working_directory(
    run: Path, parts: Path, planted_folder: Path, execution_log: Path, tmp_path: Path
) -> None:
    arguments = (run / "r.onnx", "--train-on", parts.parent)
    with studio(*arguments, folder=planted_folder, INSPECT_KD_CACHE=str(tmp_path / "cache")) as server:
        from gradio_client import Client

        client = Client(server.address, verbose=False)
        checked = client.predict(f"{parts.name}/board", api_name="/train_check")
        started = client.predict(f"{parts.name}/board", "embedded", "t", True, 0, api_name="/train_start")
        try:
            state = _wait_until_it_trains(client)
        finally:
            _stop(client)
    assert executed_modules(execution_log) == []
    assert (tmp_path / "cache" / "quarantine" / "passed.json").is_file(), "the artifact was not opened by a child first"
    assert checked["sound"] and started["name"] == "t" and state["phase"] in ("presentation", "advice", "train")


def _wait_until_it_trains(client: object) -> dict[str, object]:
    end = time.monotonic() + MAX_WAIT_S
    while time.monotonic() < end:
        state: dict[str, object] = client.predict("t", api_name="/train_state")  # type: ignore[attr-defined]
        if state["phase"] or state["state"] == "failed":
            return state
        time.sleep(0.2)
    raise AssertionError(f"after {MAX_WAIT_S} s the training had neither started nor failed")


def _stop(client: object) -> None:
    from gradio_client.exceptions import AppError

    try:
        client.predict("t", api_name="/train_stop")  # type: ignore[attr-defined]
    except AppError:
        return  # the training has failed, so there is nothing to stop
    while client.predict("t", api_name="/train_state")["state"] == "stopping":  # type: ignore[attr-defined]
        time.sleep(0.2)


BENCH_SCRIPT = """
import sys
from pathlib import Path
from inspect_kd.bench import runner, cost
from inspect_kd.bench.entries import Entry
if __name__ == "__main__":
    artifact, folder = map(Path, sys.argv[1:])
    folder.mkdir()
    runner._run_in_process(Entry(name="none", maker="nobody"), None, folder, 1.0)
    print((folder / runner.RESULT_FILE).read_text())
    print(cost.measure_memory(artifact))
"""


def test_child_processes_of_bench_import_nothing_from_the_working_directory(
    run: Path, planted_folder: Path, execution_log: Path, tmp_path: Path
) -> None:
    script = tmp_path / "bench.py"  # started without -P, like an installed command
    script.write_text(BENCH_SCRIPT)
    command = [sys.executable, str(script), str(run / "r.onnx"), str(tmp_path / "entry")]
    result = subprocess.run(command, cwd=planted_folder, capture_output=True, text=True, check=True)
    assert executed_modules(execution_log) == []
    assert "nobody" in result.stdout and float(result.stdout.split()[-1]) > 0


QUARANTINE_SCRIPT = """
import os, sys
from inspect_kd.inspector import Inspector
artifact, *caches = sys.argv[1:]
for cache in caches:
    os.environ["INSPECT_KD_CACHE"] = cache
    size = Inspector(artifact).size
    sys.path.insert(0, os.getcwd())  # as `python -m` does; this process has already imported its modules
print(size)
"""


def test_quarantine_does_not_import_from_its_parents_working_directory(
    run: Path, planted_folder: Path, execution_log: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-P",
        "-c",
        QUARANTINE_SCRIPT,
        str(run / "r.onnx"),
        str(tmp_path / "1"),
        str(tmp_path / "2"),
    ]
    result = subprocess.run(command, cwd=planted_folder, capture_output=True, text=True, check=False)
    assert executed_modules(execution_log) == []
    assert result.stdout.strip() == "64", result.stderr


def test_import_path_with_a_colon_is_not_split(
    planted_folder: Path, execution_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half after the colon would be a folder in the working directory."""
    monkeypatch.syspath_prepend(str(tmp_path / f"x:{planted_folder.name}"))
    monkeypatch.chdir(planted_folder.parent)
    program = "import typer, json, numpy"
    subprocess.run(python_command("-c", program), env=python_environment(), check=True)
    assert executed_modules(execution_log) == []


def test_python_is_started_by_one_module_only() -> None:
    """Every other module starts Python through `child_process`, which restricts its imports."""
    found = {path.relative_to(ROOT).as_posix() for path in _sources() if _starts_python(path)}
    assert found == {"inspect_kd/child_process.py"}


def _sources() -> Iterator[Path]:
    yield from sorted((ROOT / "inspect_kd").rglob("*.py"))
    yield from sorted((ROOT / "benchmarks").rglob("*.py"))


def _starts_python(path: Path) -> bool:
    starters = {"sys.executable", "multiprocessing.get_context", "multiprocessing.Process", "multiprocessing.Pool"}
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{name.name}" for name in node.names}
    return not names.isdisjoint(starters)
