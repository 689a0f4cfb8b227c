"""Parts beside the data set: those that nobody has looked at, and the few that somebody has labelled.

None of them may be a part that is held out for thresholds, early stop or test, under whatever name: contents are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspect_kd.config import Distill, Recipe
from inspect_kd.datasets import DataSet, list_images, list_samples
from inspect_kd.datasets.images import read_image
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.types import Progress, Sample, Split


@dataclass(frozen=True, slots=True)
class RealParts:
    """Both of them."""

    unlabelled: list[Sample]
    labelled: list[Sample]

    @property
    def digest(self) -> str:
        """Of names, sizes and what is known; of none it is empty."""
        lines = [
            f"{sample.kind}|{sample.defective}|{file.name}|{file.stat().st_size}"
            for sample in (*self.unlabelled, *self.labelled)
            for file in (sample.image, sample.mask)
            if file is not None
        ]
        told = "\n".join([str(len(self.unlabelled)), *lines]).encode(errors="surrogateescape")
        return hashlib.sha256(told).hexdigest() if lines else ""


def real_parts(recipe: Recipe, data: DataSet, progress: Progress) -> RealParts:
    """Found before a training begins: a mistyped folder must not cost a fit."""
    settings = recipe.distill
    return RealParts(unlabelled_parts(settings, data, recipe.data.bits, progress), labelled_parts(settings, data))


def unlabelled_parts(settings: Distill, data: DataSet, bits: int | None, progress: Progress) -> list[Sample]:
    """Images below a folder, whatever the names around them say; of very many an even choice. What cannot be read is left out."""
    folder = settings.unlabelled
    if folder is None:
        return []
    paths = list_images(Path(folder))
    if len(paths) > settings.max_samples:
        progress.note(f"{folder}: {settings.max_samples} of {len(paths)} images take part (distill.max_samples)")
        paths = [paths[int(i)] for i in np.linspace(0, len(paths) - 1, settings.max_samples)]
    samples = []
    for path in paths:
        try:
            read_image(path, bits=bits)
        except BadInput as error:
            progress.note(f"left out: {error}")
        else:
            samples.append(Sample(image=path, category=""))
    if not samples:
        raise BadInput(f"distill.unlabelled: no image below {folder}")
    _refuse_held_out(samples, data, "distill.unlabelled", folder)
    return samples


def labelled_parts(settings: Distill, data: DataSet) -> list[Sample]:
    """Defects, outlined or not, and the sound parts among them."""
    source = settings.labelled
    if source is None:
        return []
    samples = list_samples(source)
    if not any(sample.defective for sample in samples):
        raise BadInput(f"distill.labelled: no defect in {source}; sound parts belong into the data set itself")
    _refuse_held_out(samples, data, "distill.labelled", source)
    return samples


def outlined_parts(source: str | None, data: DataSet) -> list[Sample]:
    """Defects that somebody has outlined: what a teacher can study."""
    if source is None:
        return []
    samples = [sample for sample in list_samples(source) if sample.mask is not None]
    if not samples:
        raise BadInput(f"teach.labelled: no defect with a mask in {source}")
    _refuse_held_out(samples, data, "teach.labelled", source)
    return samples


def _refuse_held_out(samples: Sequence[Sample], data: DataSet, option: str, source: str) -> None:
    held_out = [sample for sample in data.samples if sample.split is not Split.TRAIN]
    sizes = {sample.image.stat().st_size for sample in samples}
    # Files of another length are other files; only the rest are read.
    contents = {_content(sample.image): sample for sample in held_out if sample.image.stat().st_size in sizes}
    for sample in samples:
        twin = contents.get(_content(sample.image)) if contents else None
        if twin is not None:
            raise UsageError(
                f"{option}: {sample.image} is {twin.image} of the data set, which is held out ({twin.split}): whoever learns from "
                f"it cannot be measured by it. Take it out of {source}"
            )


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
