"""The artifacts that the Studio offers, each opened when it is first used.

Browsers select an artifact by its name, never by a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from inspect_kd.errors import BadInput, printable
from inspect_kd.inspector import Inspector


class ArtifactLibrary:
    """Artifacts by name."""

    def __init__(self, artifacts: Sequence[Path], threads: int = 1, trust: Path | None = None) -> None:
        self.paths = _name_artifacts(artifacts)
        self.threads, self.trust = threads, trust
        self._inspectors: dict[str, Inspector] = {}
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        return list(self.paths)

    def open(self, name: str | None) -> Inspector:
        """The inspector of an artifact, opened once. None: the first artifact."""
        name = name or self.names[0]
        if name not in self.paths:
            raise BadInput(f"no artifact named '{name}'; there are: {', '.join(self.names)}")
        with self._lock:
            if name not in self._inspectors:
                self._inspectors[name] = Inspector(self.paths[name], threads=self.threads, trust=self.trust)
            return self._inspectors[name]


def find_artifacts(runs: Path) -> list[Path]:
    """Artifacts of the runs in a folder, the newest first: `<run>/<run>.onnx`, also one folder deeper."""
    patterns = ("*/*.onnx", "*/*/*.onnx")
    found = [path for pattern in patterns for path in runs.glob(pattern) if path.stem == path.parent.name]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def find_examples(artifact: Path) -> Path | None:
    """The folder of the drawn sample parts, which `inspect-kd demo` writes beside its run; None for other artifacts."""
    sample = artifact.parent.parent / "sample"
    return sample if sample.is_dir() else None


def example_images(folder: Path, per_kind: int = 3) -> list[Path]:
    """The first images of each kind (sound, and each kind of defect) from the test split of an MVTec folder."""
    kinds = sorted(path for path in folder.glob("*/test/*") if path.is_dir())
    return [image for kind in kinds for image in sorted(kind.iterdir())[:per_kind]]


def _name_artifacts(artifacts: Sequence[Path]) -> dict[str, Path]:
    """Paths by file name; artifacts of the same name also get the name of their folder, then a number."""
    paths_by_name: dict[str, Path] = {}
    for path in dict.fromkeys(artifact.resolve() for artifact in artifacts):
        stem = printable(path.name.removesuffix(".onnx"))
        folder = path.parent.parent if printable(path.parent.name) == stem else path.parent
        with_folder = f"{stem} ({printable(folder.name)})"
        candidates = [stem, with_folder, *(f"{with_folder} {number}" for number in range(2, len(artifacts) + 2))]
        paths_by_name[next(name for name in candidates if name not in paths_by_name)] = path
    return paths_by_name
