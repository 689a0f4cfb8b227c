"""The artifacts that the Studio offers, opened when somebody first asks for one.

They are known by name: a browser sends names, never paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from inspect_kd.errors import BadInput, printable
from inspect_kd.inspector import Inspector


class Shelf:
    def __init__(self, artifacts: Sequence[Path], threads: int = 1, trust: Path | None = None) -> None:
        self.paths = _named(artifacts)
        self.threads, self.trust = threads, trust
        self._open: dict[str, Inspector] = {}
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        return list(self.paths)

    def take(self, name: str | None) -> Inspector:
        """Open, or as it was opened before; None takes the first."""
        name = name or self.names[0]
        if name not in self.paths:
            raise BadInput(f"no artifact named '{name}'; there are: {', '.join(self.names)}")
        with self._lock:
            if name not in self._open:
                self._open[name] = Inspector(self.paths[name], threads=self.threads, trust=self.trust)
            return self._open[name]


def find_artifacts(runs: Path) -> list[Path]:
    """What trainings below a folder have exported, the newest first: `<run>/<run>.onnx`, also one folder deeper."""
    found = [path for depth in ("*/*.onnx", "*/*/*.onnx") for path in runs.glob(depth) if path.stem == path.parent.name]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def find_examples(artifact: Path) -> Path | None:
    """The demo's drawn parts lie beside its run."""
    sample = artifact.parent.parent / "sample"
    return sample if sample.is_dir() else None


def example_images(folder: Path, each: int = 3) -> list[Path]:
    """A few parts of each kind of an MVTec tree's test split."""
    kinds = sorted(path for path in folder.glob("*/test/*") if path.is_dir())
    return [image for kind in kinds for image in sorted(kind.iterdir())[:each]]


def _named(artifacts: Sequence[Path]) -> dict[str, Path]:
    """By file name; two of one name are told apart by their folders, then by number."""
    named: dict[str, Path] = {}
    for path in dict.fromkeys(artifact.resolve() for artifact in artifacts):
        plain = printable(path.name.removesuffix(".onnx"))
        folder = path.parent.parent if printable(path.parent.name) == plain else path.parent
        wider = f"{plain} ({printable(folder.name)})"
        choices = [plain, wider, *(f"{wider} {number}" for number in range(2, len(artifacts) + 2))]
        named[next(name for name in choices if name not in named)] = path
    return named
