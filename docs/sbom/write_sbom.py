"""Write the CycloneDX bills of materials of the wheel and of the environment that constraints.txt locks.

`make sbom` writes both beside this file; `--check` compares instead. The same sources give the same bytes: the files
contain no time, serial number or path. Licences come from the installed packages' metadata.

Exit codes: 1 if a file is not current, or constraints.txt does not list exactly the needed packages; 4 if the installed packages
are not the locked ones.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors import safe_open

import inspect_kd

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS: dict[str, list[str]] = {"base": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
# The extras that the Makefile installs, and the platform that constraints.txt names.
LOCKED_EXTRAS = ("base", "train", "openvino", "ui", "cpu", "dev")
LOCKED_PLATFORM: dict[str, str | AbstractSet[str]] = {
    **{name: str(value) for name, value in default_environment().items()},
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
MAX_LICENCE_NAME_LENGTH = 200
"""A longer `License` field holds the text of a licence, not its name."""


class NotLocked(Exception):
    """The installed packages are not those of constraints.txt."""


class WrongConstraints(Exception):
    """constraints.txt pins a package that nothing needs, or lacks one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check = parser.parse_args().check
    try:
        texts = {"wheel.cdx.json": render(wheel_bom()), "environment.cdx.json": render(environment_bom())}
    except (NotLocked, WrongConstraints) as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 4 if isinstance(error, NotLocked) else 1
    for name, text in texts.items():
        path = FOLDER / name
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"sbom: docs/sbom/{name} is not current: run `make sbom` and commit the file", file=sys.stderr)
            return 1
    return 0


def wheel_bom() -> Bom:
    """Describe the wheel: the weights inside it, and the packages that it requires, without versions."""
    requirements: dict[str, dict[str, str]] = {}
    for extra, lines in REQUIREMENTS.items():
        for requirement in map(Requirement, lines):
            requirements.setdefault(canonicalize_name(requirement.name), {})[extra] = str(requirement)
    components = [describe_weights(path) for path in sorted((ROOT / "models").glob("*.safetensors"))]
    components += [describe_requirement(name, extras) for name, extras in requirements.items()]
    return make_bom(components, {}, {str(component.bom_ref.value) for component in components})


def environment_bom() -> Bom:
    """Describe the environment: every installed package at its locked version, with its dependencies."""
    needs, direct = resolve()
    check_versions(set(needs))
    return make_bom([describe_package(name) for name in needs], needs, direct)


def make_bom(components: Iterable[Component], needs: dict[str, set[str]], direct: set[str]) -> Bom:
    """Join components and their dependencies into a document without time and serial number."""
    product = Component(
        name=PROJECT["name"],
        version=inspect_kd.__version__,
        type=ComponentType.LIBRARY,
        bom_ref=PROJECT["name"],
        purl=PackageURL("pypi", name=PROJECT["name"], version=inspect_kd.__version__),
        licenses=[declare_licence(PROJECT["license"])],
    )
    by_ref = {component.bom_ref.value: component for component in components}
    bom = Bom(components=by_ref.values(), metadata=BomMetaData(component=product))
    bom.register_dependency(product, [by_ref[name] for name in direct])
    for name, others in needs.items():
        bom.register_dependency(by_ref[name], [by_ref[other] for other in others])
    # The library always sets both, and the schema does not require them.
    bom.serial_number = None  # type: ignore[assignment]
    bom.metadata.timestamp = None  # type: ignore[assignment]
    return bom


def resolve() -> tuple[dict[str, set[str]], set[str]]:
    """Return the dependencies of each package on the locked platform, and the direct dependencies of inspect-kd."""
    direct = [Requirement(line) for extra in LOCKED_EXTRAS for line in REQUIREMENTS[extra]]
    needs: dict[str, set[str]] = {}
    seen = set()
    waiting = [package for requirement in direct for package in name_with_extras(requirement)]
    while waiting:
        name, extra = package = waiting.pop()
        if package in seen:
            continue
        seen.add(package)
        others = [other for requirement in read_requirements(name, extra) for other in name_with_extras(requirement)]
        needs.setdefault(name, set()).update(other for other, _ in others)
        waiting += others
    return needs, {canonicalize_name(requirement.name) for requirement in direct}


def name_with_extras(requirement: Requirement) -> list[tuple[str, str]]:
    """(name, "") for the package itself, and (name, extra) for each extra of the requirement."""
    return [(canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras)]


def read_requirements(name: str, extra: str) -> Iterator[Requirement]:
    """Yield what an installed package requires on the locked platform, with one extra or, if `extra` is empty, without."""
    for requirement in map(Requirement, read_metadata(name).get_all("Requires-Dist") or []):
        if requirement.marker is None or requirement.marker.evaluate({**LOCKED_PLATFORM, "extra": extra}):
            yield requirement


@cache
def read_metadata(name: str) -> PackageMetadata:
    try:
        return distribution(name).metadata
    except PackageNotFoundError:
        raise NotLocked(f"{name} is not installed; run `make lint` to install the locked environment") from None


def check_versions(names: set[str]) -> None:
    """Raise unless constraints.txt pins exactly these packages, and exactly those versions are installed."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    locked: dict[str, str] = {canonicalize_name(name): version for name, version in pins.items()}
    wrong = [f"remove {name}, which nothing needs" for name in sorted(set(locked) - names)]
    wrong += [f"pin {name}, which is needed" for name in sorted(names - set(locked))]
    if wrong:
        raise WrongConstraints(f"constraints.txt: {'; '.join(wrong)}")
    installed = {name: read_metadata(name)["Version"] for name in sorted(names)}
    unlocked = [f"{name} {version}" for name, version in installed.items() if version != locked[name]]
    if unlocked:
        raise NotLocked(
            f"{', '.join(unlocked)} installed, constraints.txt names other versions; run `make lint` to install them"
        )


def describe_package(name: str) -> Component:
    metadata = read_metadata(name)
    return Component(
        name=metadata["Name"],
        version=metadata["Version"],
        type=ComponentType.LIBRARY,
        bom_ref=name,
        purl=PackageURL("pypi", name=name, version=metadata["Version"]),
        licenses=find_licences(metadata),
    )


def find_licences(metadata: PackageMetadata) -> list[License]:
    """Return the licence expression, else the name in the older field, else the classifiers."""
    for field in ("License-Expression", "License"):
        for text in metadata.get_all(field) or []:
            if text != "UNKNOWN" and "\n" not in text and len(text) <= MAX_LICENCE_NAME_LENGTH:
                return [declare_licence(text)]
    classifiers = metadata.get_all("Classifier") or []
    return [declare_licence(text.rpartition(" :: ")[2]) for text in classifiers if text.startswith("License :: ")]


def declare_licence(text: str) -> License:
    return LicenseFactory().make_from_string(text, license_acknowledgement=LicenseAcknowledgement.DECLARED)


def describe_requirement(name: str, extras: dict[str, str]) -> Component:
    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        bom_ref=name,
        scope=ComponentScope.REQUIRED if "base" in extras else ComponentScope.OPTIONAL,
        purl=PackageURL("pypi", name=name),
        properties=[Property(name=f"inspect-kd:requirement:{extra}", value=text) for extra, text in extras.items()],
    )


def describe_weights(path: Path) -> Component:
    with safe_open(path, framework="numpy") as file:
        licence = file.metadata()["licence"]
    return Component(
        name=path.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"models/{path.name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256(path.read_bytes()).hexdigest())],
        licenses=[declare_licence(licence)],
    )


def render(bom: Bom) -> str:
    text: str = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise ValueError(f"the bill of materials breaks the CycloneDX schema: {problem}")
    return text


if __name__ == "__main__":
    raise SystemExit(main())
