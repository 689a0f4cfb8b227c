"""The bills of materials under docs/sbom against the wheel, constraints.txt and the installed packages."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SBOM = ROOT / "docs" / "sbom"


def load_components(name: str) -> list[dict[str, Any]]:
    components: list[dict[str, Any]] = json.loads((SBOM / name).read_text())["components"]
    return components


def test_both_bills_of_materials_are_current_and_valid() -> None:
    """`write_sbom.py --check` also validates against the CycloneDX schema."""
    answer = subprocess.run(
        [sys.executable, SBOM / "write_sbom.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if answer.returncode == 4 and "CI" not in os.environ:
        pytest.skip(answer.stderr.strip())
    assert answer.returncode == 0, answer.stderr


def test_environment_bill_lists_the_pinned_packages() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    components = load_components("environment.cdx.json")
    assert {(each["bom-ref"], each["version"]) for each in components} == {
        (canonicalize_name(name), version) for name, version in pins
    }
    assert all(each["purl"].endswith(f"@{each['version']}") for each in components)


def test_wheel_bill_lists_its_requirements_and_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = parse_email(archive.read(name))[0]
        weights = {
            Path(name).name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if name.endswith(".safetensors")
        }
    components = load_components("wheel.cdx.json")
    models = [each for each in components if each["type"] == "machine-learning-model"]
    assert {each["name"]: each["hashes"][0]["content"] for each in models} == weights
    assert all(each["licenses"] for each in models)
    required = {canonicalize_name(Requirement(line).name) for line in metadata["requires_dist"]}
    assert {each["name"] for each in components if each not in models} == required
    base = {canonicalize_name(each.name) for each in map(Requirement, metadata["requires_dist"]) if each.marker is None}
    assert {each["name"] for each in components if each.get("scope") == "required"} == base


@pytest.mark.parametrize("name", ["wheel.cdx.json", "environment.cdx.json"])
def test_bills_record_neither_machine_nor_time(name: str) -> None:
    document = json.loads((SBOM / name).read_text())
    assert document.pop("$schema") == "http://cyclonedx.org/schema/bom-1.6.schema.json"
    text = json.dumps(document)
    assert "serialNumber" not in document and "timestamp" not in document["metadata"]
    assert "externalReferences" not in text and "://" not in text and str(ROOT) not in text
