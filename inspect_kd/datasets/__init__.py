"""Data sets: how they lie on disk, what they hold, how they are split.

`open_dataset` takes a name, a manifest, a CSV or any folder of images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from inspect_kd import zoo
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.types import Sample, Split

if TYPE_CHECKING:
    from inspect_kd.datasets.manifest import Manifest
    from inspect_kd.datasets.splits import Holdout


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """All samples of a data set, each with its split."""

    name: str
    root: Path
    layout: str
    samples: list[Sample]
    source: str = ""
    """What `open_dataset` would find it by again: a manifest's name or an absolute path."""
    manifest: Manifest | None = None

    @property
    def categories(self) -> list[str]:
        return sorted({sample.category for sample in self.samples})

    def select(self, split: Split, category: str | None = None) -> list[Sample]:
        return [s for s in self.samples if s.split is split and category in (None, s.category)]

    def only(self, category: str) -> DataSet:
        """One category of it as a data set of its own."""
        samples = [sample for sample in self.samples if sample.category == category]
        return replace(self, name=category, samples=samples)

    @cached_property
    def digest(self) -> str:
        """Identity of names, sizes and splits; `data check` looks at the contents."""
        digest = hashlib.sha256()
        for s in sorted(self.samples, key=lambda s: str(s.image)):
            try:
                line = f"{s.category}|{s.kind}|{s.split}|{s.image.name}|{s.image.stat().st_size}\n"
            except OSError as error:
                raise BadInput(f"{s.image}: cannot be read ({error.strerror})") from error
            # A name that is no text, as other systems leave them, is a name all the same.
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def union(parts: Sequence[DataSet], name: str) -> DataSet:
    """Several data sets as one; categories that share a name become one category."""
    samples = [sample for part in parts for sample in part.samples]
    source = ", ".join(part.source for part in parts)
    return DataSet(
        name=name,
        root=parts[0].root,
        layout="+".join(dict.fromkeys(p.layout for p in parts)),
        samples=samples,
        source=source,
    )


def open_dataset(
    data: str | Path,
    *,
    holdout: Holdout | None = None,
    categories: Sequence[str] | None = None,
    group: str | None = None,
) -> DataSet:
    """Find, scan and split a data set. `group` overrides the manifest's regular expression over file names."""
    from inspect_kd.datasets import layouts
    from inspect_kd.datasets.splits import Holdout, assign

    manifest, root = _locate(str(data))
    layout, samples = layouts.scan(root, manifest.layout if manifest else None)
    if categories:
        unknown = set(categories) - {sample.category for sample in samples}
        if unknown:
            there = ", ".join(sorted({sample.category for sample in samples}))
            raise UsageError(f"{data}: no category {', '.join(sorted(unknown))}; there are: {there}")
        samples = [sample for sample in samples if sample.category in categories]
    pattern = group or (manifest.group if manifest else None)
    if pattern:
        samples = _grouped(samples, pattern)
    name = manifest.name if manifest else re.sub(r"[^A-Za-z0-9_.-]+", "_", root.resolve().stem)
    return DataSet(
        name=name,
        root=root,
        layout=layout,
        samples=assign(samples, holdout or Holdout()),
        source=str(data) if manifest else str(root.resolve()),
        manifest=manifest,
    )


def every_sample(data: str | Path) -> list[Sample]:
    """Of a data set, or of folders of defects without one sound part, with no splits."""
    from inspect_kd.datasets import layouts
    from inspect_kd.datasets.layouts import folder

    manifest, root = _locate(str(data))
    samples: list[Sample] = []
    try:
        layout, samples = layouts.scan(root, manifest.layout if manifest else None)
    except BadInput:
        layout = ""
        if not root.is_dir() or not folder.defects_by_kind(root):
            raise
    # In a data set a folder with a few masks is a category whose other images are sound; here it is a kind of defect.
    return (folder.defects_by_kind(root) if layout in ("", "masks_beside") else []) or samples


def every_image(root: Path) -> list[Path]:
    """All images below a folder that could be parts: masks are none."""
    from inspect_kd.datasets.find_images import find_in_folder
    from inspect_kd.datasets.layouts._walk import MASK_FOLDERS, inside, is_mask

    if not root.is_dir():
        raise BadInput(f"{root}: no such folder")
    files = (path for path in find_in_folder(root) if path.is_file())
    return sorted(
        inside(root, p) for p in files if not is_mask(p) and not {*MASK_FOLDERS} & set(p.relative_to(root).parts)
    )


def _locate(data: str) -> tuple[Manifest | None, Path]:
    """A folder or CSV as it is; a manifest with the folder of its images."""
    from inspect_kd.datasets.manifest import load_manifest

    path = zoo.expand_user(data)
    if path.is_dir() or path.suffix.lower() == ".csv":
        return None, path
    looks_like_a_path = "/" in data or "\\" in data or path.exists()
    if looks_like_a_path and path.suffix.lower() not in {".yaml", ".yml"}:
        raise BadInput(f"{data}: no such folder, CSV or manifest")
    manifest = load_manifest(data)
    folder = manifest.folder()
    if manifest.source.drawn is not None:
        from inspect_kd.datasets.drawn import draw_sample

        return manifest, draw_sample(folder, manifest.source.drawn)
    if not folder.is_dir():
        raise EnvironmentFault(
            f"the images of '{manifest.name}' are not at {folder}: `inspect-kd data get {manifest.name}` fetches them; "
            f"or set INSPECT_KD_DATA, or give their folder: --data PATH. The data sets are: {', '.join(zoo.names('datasets'))}"
        )
    return manifest, folder


def _grouped(samples: list[Sample], pattern: str) -> list[Sample]:
    from inspect_kd.datasets.manifest import compile_group

    try:
        expression = compile_group(pattern)
    except ValueError as error:
        raise UsageError(f"data.group: {error}") from error
    found = [(sample, expression.search(sample.image.stem)) for sample in samples]
    return [replace(sample, group=match[1 if match.re.groups else 0]) if match else sample for sample, match in found]
