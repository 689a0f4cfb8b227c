"""Real parts beside the data set: unlabelled images from the line, and a few labelled parts.

None of them may be a part that is held out for thresholds, early stop or test, whatever its name: contents are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inspect_kd.config import Distill
from inspect_kd.datasets import DataSet, list_images, list_samples
from inspect_kd.datasets.images import read_image
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.training.job import Job
from inspect_kd.types import Progress, Sample, Split


@dataclass(frozen=True, kw_only=True, slots=True)
class RealParts:
    """Unlabelled and labelled parts beside the data set."""

    unlabelled: list[Sample] = field(default_factory=list)
    labelled: list[Sample] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Digest of names, sizes and labels; empty without parts."""
        lines = [
            f"{sample.kind}|{sample.defective}|{file.name}|{file.stat().st_size}"
            for sample in (*self.unlabelled, *self.labelled)
            for file in (sample.image, sample.mask)
            if file is not None
        ]
        content = "\n".join([str(len(self.unlabelled)), *lines]).encode(errors="surrogateescape")
        return hashlib.sha256(content).hexdigest() if lines else ""


def open_real_parts(job: Job) -> RealParts:
    """Find unlabelled and labelled parts before the fit, so that a mistyped folder fails at once."""
    settings, bits = job.recipe.distill, job.recipe.data.bits
    return RealParts(
        unlabelled=unlabelled_parts(settings, job.data, bits, job.progress), labelled=labelled_parts(settings, job.data)
    )


def unlabelled_parts(settings: Distill, data: DataSet, bits: int | None, progress: Progress) -> list[Sample]:
    """All readable images below a folder; evenly chosen ones where there are more than `max_samples`."""
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
    """Defective parts, with or without masks, and the sound parts among them."""
    source = settings.labelled
    if source is None:
        return []
    samples = list_samples(source)
    if not any(sample.defective for sample in samples):
        raise BadInput(f"distill.labelled: no defect in {source}; put sound parts into the data set itself")
    _refuse_held_out(samples, data, "distill.labelled", source)
    return samples


def outlined_parts(source: str | None, data: DataSet) -> list[Sample]:
    """Defective parts with masks, from which a teacher can learn."""
    if source is None:
        return []
    samples = [sample for sample in list_samples(source) if sample.mask is not None]
    if not samples:
        raise BadInput(f"teach.labelled: no defect with a mask in {source}")
    _refuse_held_out(samples, data, "teach.labelled", source)
    return samples


def _refuse_held_out(samples: Sequence[Sample], data: DataSet, option: str, source: str) -> None:
    """Raise where one of the samples has the content of a held-out part."""
    held_out = [sample for sample in data.samples if sample.split is not Split.TRAIN]
    sizes = {sample.image.stat().st_size for sample in samples}
    # Files of different lengths differ; only the others are read.
    contents = {_content(sample.image): sample for sample in held_out if sample.image.stat().st_size in sizes}
    for sample in samples:
        twin = contents.get(_content(sample.image)) if contents else None
        if twin is not None:
            raise UsageError(
                f"{option}: {sample.image} is {twin.image} of the data set, which is held out ({twin.split}): a model "
                f"that is trained on it cannot be measured by it. Take it out of {source}"
            )


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
