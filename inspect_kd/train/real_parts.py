"""Parts beside the data set: those that nobody has looked at, and the few that somebody has labelled. Never test parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inspect_kd.datasets import DataSet, every_image, every_sample
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.types import Sample, Split


def unlabelled_parts(folder: str | None, data: DataSet) -> list[Sample]:
    """Every image below a folder, whatever the names around it say."""
    if folder is None:
        return []
    samples = [Sample(image=path, category="") for path in every_image(Path(folder))]
    if not samples:
        raise BadInput(f"distill.unlabelled: no image below {folder}")
    _refuse_tested(samples, data, "distill.unlabelled", folder)
    return samples


def labelled_parts(source: str | None, data: DataSet) -> list[Sample]:
    """Defects, outlined or not, and the sound parts among them."""
    if source is None:
        return []
    samples = every_sample(source)
    if not any(sample.defective for sample in samples):
        raise BadInput(f"distill.labelled: no defect in {source}; sound parts belong into the data set itself")
    _refuse_tested(samples, data, "distill.labelled", source)
    return samples


def outlined_parts(source: str | None, data: DataSet) -> list[Sample]:
    """Defects that somebody has outlined: what a teacher can study."""
    if source is None:
        return []
    samples = [sample for sample in every_sample(source) if sample.mask is not None]
    if not samples:
        raise BadInput(f"teach.labelled: no defect with a mask in {source}")
    _refuse_tested(samples, data, "teach.labelled", source)
    return samples


def _refuse_tested(samples: Sequence[Sample], data: DataSet, option: str, source: str) -> None:
    tested = {sample.image.resolve() for sample in data.select(Split.TEST)}
    if any(sample.image.resolve() in tested for sample in samples):
        raise UsageError(f"{option}: {source} holds images that the model would be tested on")
