"""The Dockerfiles are safe and minimal, and their wheel and commands work. No container daemon is needed."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "apps").rglob("Dockerfile"))
LINE_DOCKERFILES = [path for path in DOCKERFILES if path.parent.name != "studio"]
"""Dockerfiles of containers that inspect the images whose paths they read from stdin."""
ARTIFACT = "/artifact/part.onnx"


def relative_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """Return (word, rest) of each instruction, without comments; continued lines are joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def list_copied_sources(path: Path) -> list[str]:
    """Return the paths that are copied from the checkout."""
    return [
        source
        for word, rest in read_instructions(path)
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]


def test_three_dockerfiles_exist() -> None:
    assert [relative_name(path) for path in LINE_DOCKERFILES] == ["apps/Dockerfile", "apps/jetson/Dockerfile"]
    assert [relative_name(path) for path in DOCKERFILES if path not in LINE_DOCKERFILES] == ["apps/studio/Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=relative_name)
def test_dockerfile_has_no_torch_no_host_and_no_root_user(path: Path) -> None:
    steps = read_instructions(path)
    text = "\n".join(f"{word} {rest}" for word, rest in steps)
    assert not re.search(r"torch|\btrain\b|\[(all|gpu)\]", text), "no torch where parts are inspected"
    assert not re.search(r"://|index-url|extra-index|trusted-host|ADD ", text), "nothing from a named host"
    bases = [rest.split()[0] for word, rest in steps if word == "FROM"]
    bases += [rest.partition("=")[2] for word, rest in steps if word == "ARG" and rest.startswith("BASE=")]
    assert bases and not any(re.match(r"[^/]*[.:][^/]*/", base) for base in bases), "no registry before a base's name"
    users = [rest for word, rest in steps if word == "USER"]
    assert users and not re.match(r"(root|0)\b", users[-1])
    last_change = max(index for index, (word, _) in enumerate(steps) if word in {"RUN", "COPY"})
    assert last_change < steps.index(("USER", users[-1])), "nothing is run or copied after the user is set"
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD"} <= {word for word, _ in steps} or path not in LINE_DOCKERFILES


@pytest.mark.parametrize("path", DOCKERFILES, ids=relative_name)
def test_copied_sources_are_not_ignored(path: Path) -> None:
    ignored = {line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")}
    for source in list_copied_sources(path):
        assert (ROOT / source).exists()
        assert not ignored & {source, *(str(parent) for parent in Path(source).parents)}


@pytest.fixture(scope="module", params=LINE_DOCKERFILES, ids=relative_name)
def dockerfile_and_wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Dockerfile, and the folder of its unpacked wheel, which is built from the copied sources alone."""
    path: Path = request.param
    source, wheel_folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("image")
    for name in list_copied_sources(path):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheel_folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(wheel_folder.glob("*.whl"))) as wheel:
        wheel.extractall(wheel_folder)
    return path, wheel_folder


def test_wheel_has_every_module_and_recipe(dockerfile_and_wheel: tuple[Path, Path]) -> None:
    _, wheel_folder = dockerfile_and_wheel
    sources = [path for path in (ROOT / "inspect_kd").rglob("*") if path.suffix in {".py", ".css"}]
    shipped = [
        path for folder in ("models", "datasets", "export") for path in (ROOT / folder).rglob("*") if path.is_file()
    ]
    assert len(sources) > 50 and len(shipped) > 10
    assert all((wheel_folder / path.relative_to(ROOT)).is_file() for path in sources)
    assert all((wheel_folder / "inspect_kd" / "_zoo" / path.relative_to(ROOT)).is_file() for path in shipped)


def forbid_writing_files() -> None:
    """Allow writing to pipes only; a read-only root file system would be less strict."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def run_command(wheel_folder: Path, command: list[str], artifact: Path, stdin: str = "") -> subprocess.CompletedProcess:
    """Run a command of the Dockerfile with this Python, the wheel and the given artifact."""
    entry = {"python3": [sys.executable], "inspect-kd": [sys.executable, "-m", "inspect_kd"]}
    command = entry[command[0]] + [word.replace(ARTIFACT, str(artifact)) for word in command[1:]]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(wheel_folder), "HOME": "/nonexistent"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        input=stdin,
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=forbid_writing_files,
    )


def read_command(path: Path, instruction: str) -> list[str]:
    """Return the command of an ENTRYPOINT, CMD or HEALTHCHECK, which is written as JSON."""
    rest = next(rest for word, rest in read_instructions(path) if word == instruction)
    return json.loads(rest[rest.index("[") :])


def test_commands_run_and_write_nothing(dockerfile_and_wheel: tuple[Path, Path], run: Path, parts: Path) -> None:
    path, wheel_folder = dockerfile_and_wheel
    images = sorted(parts.rglob("test/*/*.png"))[:3]
    command = read_command(path, "ENTRYPOINT") + read_command(path, "CMD")
    result = run_command(wheel_folder, command, run / "r.onnx", "\n".join(map(str, images)))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(image) for image in images]
    assert all("score" in line for line in lines)


def test_health_check_fails_for_a_broken_or_missing_artifact(
    dockerfile_and_wheel: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    path, wheel_folder = dockerfile_and_wheel
    command = read_command(path, "HEALTHCHECK")
    result = run_command(wheel_folder, command, run / "r.onnx")
    assert result.returncode == 0, result.stderr
    (tmp_path / "broken.onnx").write_bytes((run / "r.onnx").read_bytes()[:9999])
    for artifact in (tmp_path / "broken.onnx", tmp_path / "none.onnx"):
        assert run_command(wheel_folder, command, artifact).returncode != 0
