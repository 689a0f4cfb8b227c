"""The wheel's requirements per extra and platform, and their agreement with the code's imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}
PLATFORMS = {
    "linux x86-64": {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    },
    "linux aarch64": {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "aarch64",
        "os_name": "posix",
    },
    "windows amd64": {
        "sys_platform": "win32",
        "platform_system": "Windows",
        "platform_machine": "AMD64",
        "os_name": "nt",
    },
    "macos arm64": {
        "sys_platform": "darwin",
        "platform_system": "Darwin",
        "platform_machine": "arm64",
        "os_name": "posix",
    },
}
# Distributions whose import name differs from their own.
IMPORT_NAMES = {
    "cyclonedx-python-lib": "cyclonedx",
    "onnxruntime-gpu": "onnxruntime",
    "open-clip-torch": "open_clip",
    "opencv-python-headless": "cv2",
    "packageurl-python": "packageurl",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
# Extras whose packages a module may import besides the base; the longest prefix counts.
EXTRAS_OF_MODULE = {
    "": (),
    "apps": ("ui",),
    "bench": ("train", "cpu", "gpu"),
    "cli.doctor": ("train", "cpu", "gpu"),
    "datasets": ("train",),
    "distill": ("train",),
    "export": ("train", "cpu", "gpu"),
    "export.to_openvino": ("openvino",),
    "export.to_tensorrt": ("tensorrt",),
    "models": ("train",),
    "tensor_cache": ("train",),
    "training": ("train",),
    "weights": ("train",),
}
# MobileSAM is on no package index: models.sam.load says how to get it.
IN_NO_EXTRA = {"mobile_sam"}


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> RawMetadata:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return parse_email(archive.read(name))[0]


def select(lines: list[str], extra: str, platform: str) -> set[str]:
    """The requirements that hold for an extra on a platform, without their markers."""
    environment = {**default_environment(), **PLATFORMS[platform]}
    found = set()
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra}):
            found.add(f"{canonicalize_name(requirement.name)}{sorted(requirement.extras) or ''}{requirement.specifier}")
    return found


def test_wheel_has_exactly_these_extras(metadata: RawMetadata) -> None:
    assert set(metadata["provides_extra"]) == {"cpu", "gpu", "train", "openvino", "tensorrt", "ui", "all", "dev"}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_wheel_requires_what_pyproject_declares(metadata: RawMetadata, extra: str, platform: str) -> None:
    declared = select(PROJECT["dependencies"] + EXTRAS[extra], extra, platform)
    assert select(metadata["requires_dist"], extra, platform) == declared


@pytest.mark.parametrize(
    ("platform", "runtime"),
    [
        ("linux x86-64", "onnxruntime-gpu"),
        ("linux aarch64", "onnxruntime"),
        ("windows amd64", "onnxruntime-gpu"),
        ("macos arm64", "onnxruntime"),
    ],
)
def test_extra_all_contains_train_openvino_ui_and_one_runtime(
    metadata: RawMetadata, platform: str, runtime: str
) -> None:
    required = select(metadata["requires_dist"], "all", platform)
    assert {re.split(r"[<>=!]", each)[0] for each in required} & RUNTIMES == {runtime}
    runtime_extra = "gpu" if runtime == "onnxruntime-gpu" else "cpu"
    assert required == set().union(
        *(select(metadata["requires_dist"], extra, platform) for extra in ("train", "openvino", "ui", runtime_extra))
    )


@pytest.mark.network
def test_installing_all_into_an_empty_environment_brings_one_runtime(wheel: Path, tmp_path: Path) -> None:
    """A dry run; fast-deps reads only the metadata of wheels instead of downloading gigabytes."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    words = ["install", "--dry-run", "--ignore-installed", "--use-feature=fast-deps", "--quiet", "--report", "-"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(tmp_path / "empty"), *words, *constraints, f"{wheel}[all]"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    names = {canonicalize_name(each["metadata"]["name"]) for each in json.loads(answer.stdout)["install"]}
    assert len(names & RUNTIMES) == 1
    assert {name for name in names if name.startswith("opencv-")} == {"opencv-python-headless"}


def test_every_import_is_in_the_base_or_in_an_extra_of_its_module() -> None:
    faults = {
        f"{module} imports {name}"
        for module, path in package_modules()
        for name in read_imports(path)
        if name not in imports_of(PROJECT["dependencies"]) | IN_NO_EXTRA
        and not any(name in imports_of(EXTRAS[extra]) for extra in extras_of(module))
    }
    assert not faults


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra not in {"all", "dev"}])
def test_every_requirement_of_an_extra_is_imported(extra: str) -> None:
    imported = {name for module, path in package_modules() if extra in extras_of(module) for name in read_imports(path)}
    # torch.onnx.export needs onnxscript, and imports it itself.
    assert imports_of(EXTRAS[extra]) - imported <= {"onnxscript"}


def test_every_requirement_of_train_names_modules_that_need_it() -> None:
    block = (ROOT / "pyproject.toml").read_text().partition("\ntrain = [\n")[2].partition("\n]\n")[0]
    lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
    assert len(lines) == len(EXTRAS["train"])
    files = dict(package_modules())
    for line in lines:
        text, _, comment = line.partition("#")
        modules, _, mention = comment.partition("through")
        names = [name for name in re.split(r"[,\s]+", modules) if name]
        assert names, f"no module is named beside {text}"
        for name in names:
            paths = [path for module, path in files.items() if module == name or module.startswith(f"{name}.")]
            import_names = imports_of([json.loads(text.strip().rstrip(","))])
            uses = (
                mention.strip() in path.read_text() if mention else import_names & read_imports(path) for path in paths
            )
            assert any(uses), f"{name} does not need {text.strip()}"


def test_imports_of_tests_benchmarks_and_docs_are_declared() -> None:
    declared = imports_of(PROJECT["dependencies"]).union(*(imports_of(lines) for lines in EXTRAS.values()))
    own = {"tests", "inspect_kd", "benchmarks"}
    paths = [path for folder in ("tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")]
    assert not {f"{path}: {name}" for path in paths for name in read_imports(path) - own - declared}


def package_modules() -> Iterator[tuple[str, Path]]:
    """(dotted name below inspect_kd, file)."""
    for path in sorted((ROOT / "inspect_kd").rglob("*.py")):
        parts = path.relative_to(ROOT / "inspect_kd").with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


@cache
def read_imports(path: Path) -> frozenset[str]:
    """Top-level names of other packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return frozenset(name.partition(".")[0] for name in names) - sys.stdlib_module_names - {"inspect_kd"}


def imports_of(requirements: list[str]) -> set[str]:
    names = [canonicalize_name(Requirement(line).name) for line in requirements]
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def extras_of(module: str) -> tuple[str, ...]:
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
    return next(EXTRAS_OF_MODULE[prefix] for prefix in prefixes if prefix in EXTRAS_OF_MODULE)
