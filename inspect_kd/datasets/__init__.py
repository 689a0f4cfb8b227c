"""Open, list and split data sets.

`open_dataset` takes a name, a manifest, a CSV or any folder of images; `open_for_recipe` also splits it as a recipe says.
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
    from inspect_kd.config import Recipe
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
    """Argument for `open_dataset` to open it again: a manifest's name or an absolute path."""
    manifest: Manifest | None = None

    @property
    def categories(self) -> list[str]:
        return sorted({sample.category for sample in self.samples})

    def select(self, split: Split, category: str | None = None) -> list[Sample]:
        return [s for s in self.samples if s.split is split and category in (None, s.category)]

    def only(self, category: str) -> DataSet:
        """Return a data set of one category."""
        samples = [sample for sample in self.samples if sample.category == category]
        return replace(self, name=category, samples=samples)

    @cached_property
    def digest(self) -> str:
        """Digest of the samples' names, sizes and splits; file contents are compared by `data check` only."""
        digest = hashlib.sha256()
        for s in sorted(self.samples, key=lambda s: str(s.image)):
            try:
                line = f"{s.category}|{s.kind}|{s.split}|{s.image.name}|{s.image.stat().st_size}\n"
            except OSError as error:
                raise BadInput(f"{s.image}: cannot be read ({error.strerror})") from error
            # File names need not be valid UTF-8.
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def union(data_sets: Sequence[DataSet], name: str) -> DataSet:
    """Join several data sets; categories that share a name become one category."""
    samples = [sample for data in data_sets for sample in data.samples]
    source = ", ".join(data.source for data in data_sets)
    return DataSet(
        name=name,
        root=data_sets[0].root,
        layout="+".join(dict.fromkeys(data.layout for data in data_sets)),
        samples=samples,
        source=source,
    )


def open_dataset(
    data: str | Path,
    *,
    holdout: Holdout | None = None,
    categories: Sequence[str] | None = None,
    group: str | None = None,
    may_draw: bool = True,
) -> DataSet:
    """Find, scan and split a data set. `group` overrides the manifest's regular expression over file names.

    `may_draw=False`: a drawn data set that does not exist yet is an error, so that nothing is written.
    """
    from inspect_kd.datasets import layouts
    from inspect_kd.datasets.splits import Holdout, assign_splits

    manifest, root = _locate(str(data), may_draw=may_draw)
    layout, samples = layouts.scan(root, manifest.layout if manifest else None)
    if categories:
        unknown = set(categories) - {sample.category for sample in samples}
        if unknown:
            known = ", ".join(sorted({sample.category for sample in samples}))
            raise UsageError(f"{data}: no category {', '.join(sorted(unknown))}; there are: {known}")
        samples = [sample for sample in samples if sample.category in categories]
    pattern = group or (manifest.group if manifest else None)
    if pattern:
        samples = _assign_groups(samples, pattern)
    name = manifest.name if manifest else re.sub(r"[^A-Za-z0-9_.-]+", "_", root.resolve().stem)
    return DataSet(
        name=name,
        root=root,
        layout=layout,
        samples=assign_splits(samples, holdout or Holdout()),
        source=str(data) if manifest else str(root.resolve()),
        manifest=manifest,
    )


def open_for_recipe(data: str | Path, recipe: Recipe, *, group: str | None = None) -> DataSet:
    """Open a data set with the categories, groups and held-out shares that a recipe sets; `group` overrides the recipe's."""
    from inspect_kd.datasets.splits import Holdout

    settings = recipe.data
    holdout = Holdout(
        seed=recipe.fit.seed, calibration=settings.calibration, validation=settings.validation, test=settings.test
    )
    return open_dataset(data, holdout=holdout, categories=settings.categories or None, group=group or settings.group)


def list_samples(data: str | Path) -> list[Sample]:
    """List the samples of a data set without splitting it; folders of defects without any sound part are accepted, too."""
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
    # The layout masks_beside takes images without masks as sound; here each folder is a kind of defect.
    return (folder.defects_by_kind(root) if layout in ("", "masks_beside") else []) or samples


def list_images(root: Path) -> list[Path]:
    """List all images below a folder except masks."""
    from inspect_kd.datasets.find_images import find_in_folder
    from inspect_kd.datasets.layouts._walk import MASK_FOLDERS, check_inside, is_mask

    if not root.is_dir():
        raise BadInput(f"{root}: no such folder")
    files = (path for path in find_in_folder(root) if path.is_file())
    return sorted(
        check_inside(root, p) for p in files if not is_mask(p) and not {*MASK_FOLDERS} & set(p.relative_to(root).parts)
    )


def find_missing(sources: Sequence[str]) -> dict[str, Manifest]:
    """Return the manifests of those data sets whose images must be downloaded first, by the name or path that was given."""
    manifests = {source: _find_manifest(source) for source in sources}
    return {
        source: manifest
        for source, manifest in manifests.items()
        if manifest is not None and manifest.source.drawn is None and not manifest.is_downloaded()
    }


def describe_missing(manifest: Manifest) -> str:
    """Return the message about a data set whose images are not on this machine."""
    by_hand = manifest.source.by_hand
    remedy = (
        f"`inspect-kd data get {manifest.name}` downloads them"
        if by_hand is None
        else f"{manifest.title} must be downloaded by hand. {by_hand} Homepage: {manifest.homepage}"
    )
    return (
        f"the images of '{manifest.name}' are not at {manifest.folder()}: {remedy}; "
        f"or set INSPECT_KD_DATA, or name their folder: --data PATH. Known data sets: {', '.join(zoo.names('datasets'))}"
    )


def _find_manifest(data: str) -> Manifest | None:
    """Return the manifest that a name or a path means; None for a folder or a CSV."""
    from inspect_kd.datasets.manifest import load_manifest

    path = zoo.expand_user(data)
    if path.is_dir() or path.suffix.lower() == ".csv":
        return None
    is_path = "/" in data or "\\" in data or path.exists()
    if is_path and path.suffix.lower() not in {".yaml", ".yml"}:
        raise BadInput(f"{data}: no such folder, CSV or manifest")
    return load_manifest(data)


def _locate(data: str, *, may_draw: bool = True) -> tuple[Manifest | None, Path]:
    """Return the manifest, if there is one, and the folder or CSV that holds the images."""
    manifest = _find_manifest(data)
    if manifest is None:
        return None, zoo.expand_user(data)
    if manifest.source.drawn is not None and not may_draw and not manifest.is_downloaded():
        raise EnvironmentFault(
            f"'{manifest.name}' is not drawn yet at {manifest.folder()}: `inspect-kd data draw` draws it"
        )
    if manifest.source.drawn is not None and may_draw:
        from inspect_kd.datasets.drawn import draw_sample

        return manifest, draw_sample(manifest.folder(), manifest.source.drawn)
    if not manifest.is_downloaded():
        raise EnvironmentFault(describe_missing(manifest))
    return manifest, manifest.folder()


def _assign_groups(samples: list[Sample], pattern: str) -> list[Sample]:
    from inspect_kd.datasets.manifest import compile_group

    try:
        expression = compile_group(pattern)
    except ValueError as error:
        raise UsageError(f"data.group: {error}") from error
    matches = [(sample, expression.search(sample.image.stem)) for sample in samples]
    return [replace(sample, group=match[1 if match.re.groups else 0]) if match else sample for sample, match in matches]
