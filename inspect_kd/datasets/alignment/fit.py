"""Fit an alignment to sound parts, and choose the method: the one after which the parts look most alike, or none.

Likeness is the mean correlation of the parts' grey levels with their median. A method is considered only if it finds practically
every sound part: each part that it misses would be rejected on the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.chunks import evenly_spread
from inspect_kd.datasets.alignment.alignment import Alignment
from inspect_kd.datasets.alignment.by_silhouette import ShrunkPart, find_part, fit_silhouette_reference
from inspect_kd.datasets.alignment.by_template import WORKING_SIDE, TemplateReference
from inspect_kd.datasets.alignment.pose import Grey, NotFound, correlation, cut_frame, shrink, size_of, to_grey
from inspect_kd.errors import BadInput
from inspect_kd.types import ImageU8

Method = Literal["none", "silhouette", "template", "auto"]
MAX_PARTS = 150
"""Most sound parts that an alignment is fitted to."""
MAX_MISSED = 0.01
"""Largest share of sound parts that a method may miss if it is chosen automatically."""
CLEARLY = 0.7
"""A method is clearly better if its unlikeness is at most this share of the other's."""
ALIKE = 0.98
"""Parts this much alike need no alignment."""
QUALITY_MARGIN = 0.02
"""A part may agree with the reference by this much less than the poorest sound parts: to find small defects is the model's task."""
LIKENESS_SIDE = 64
"""Side in pixels of the pictures whose likeness is measured."""
CANDIDATES = 8
"""Sound parts that are tried as a template's reference."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MethodResult:
    """The result of one method on sound parts."""

    method: str
    alignment: Alignment | None
    missed: int
    """Number of sound parts that the method did not find."""
    likeness: float
    """Mean correlation of the aligned parts with their median."""
    reason: str | None = None
    """Why most of the missed parts were not found."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AlignmentChoice:
    """The result of the chosen method, and the results of all that were tried."""

    chosen: MethodResult
    tried: tuple[MethodResult, ...]
    parts: int
    """Number of sound parts that the methods were tried on."""

    def describe(self) -> str:
        """Say in one line what was chosen and why."""
        figures = ", ".join(
            f"{each.method} {each.likeness:.3f}"
            + (f" ({each.missed} of {self.parts} not found)" if each.missed else "")
            for each in self.tried
        )
        return f"align: {self.chosen.method}; likeness of {self.parts} sound parts: {figures}"


def choose_alignment(images: Sequence[ImageU8], method: Method) -> AlignmentChoice:
    """Fit the requested method to sound parts, or with `auto` the best one."""
    none = MethodResult(method="none", alignment=None, missed=0, likeness=_likeness([_view(each) for each in images]))
    fits = {"silhouette": _try_silhouette, "template": _try_template}
    wanted = [name for name in fits if method in (name, "auto")]
    tried = [none]
    for name in wanted:
        if method == "auto" and none.likeness >= ALIKE:
            break
        result = fits[name](images)
        tried.append(result)
        if method == name and result.alignment is None:
            raise BadInput(
                f"data.align: {name} finds no part in {result.missed} of {len(images)} sound images: {result.reason}"
            )
        # The silhouette is preferred: it is cheaper, and judges the outline too.
        if name == "silhouette" and _is_clearly_better(result, none, len(images)):
            break
    chosen = tried[-1] if method in fits else none
    if method == "auto":
        for result in tried[1:]:
            if _is_clearly_better(result, chosen, len(images)):
                chosen = result
    return AlignmentChoice(chosen=chosen, tried=tuple(tried), parts=len(images))


def _is_clearly_better(result: MethodResult, other: MethodResult, parts: int) -> bool:
    return (
        result.alignment is not None
        and result.missed <= MAX_MISSED * parts
        and 1 - result.likeness <= CLEARLY * (1 - other.likeness)
    )


def _try_silhouette(images: Sequence[ImageU8]) -> MethodResult:
    found = [find_part(image) for image in images]
    parts = [each for each in found if isinstance(each, ShrunkPart)]
    reasons = [each.reason for each in found if isinstance(each, NotFound)]
    if len(parts) <= len(images) / 2:
        return MethodResult(
            method="silhouette", alignment=None, missed=len(reasons), likeness=0.0, reason=_most_common(reasons)
        )
    return _measure(Alignment(reference=fit_silhouette_reference(parts), min_quality=0.0), images)


def _try_template(images: Sequence[ImageU8]) -> MethodResult:
    best = None
    for index in evenly_spread(len(images), CANDIDATES):
        image = images[index]
        reference = TemplateReference(frame=size_of(image), grey=shrink(to_grey(image), WORKING_SIDE))
        result = _measure(Alignment(reference=reference, min_quality=0.0), images)
        if best is None or (result.missed, -result.likeness) < (best.missed, -best.likeness):
            best = result
    if best is None or best.missed > len(images) / 2:
        missed = len(images) if best is None else best.missed
        return MethodResult(
            method="template", alignment=None, missed=missed, likeness=0.0, reason="no match with any reference picture"
        )
    return best


def _measure(alignment: Alignment, images: Sequence[ImageU8]) -> MethodResult:
    """Align all parts, and set the least quality by what they reach."""
    views, qualities, reasons = [], [], []
    for image in images:
        aligned = alignment.locate(image)
        if aligned.fault is not None or aligned.pose is None:
            reasons.append(aligned.fault.reason if aligned.fault else "")
            continue
        views.append(_view(cut_frame(image, aligned.pose.matrix, alignment.frame)))
        qualities.append(aligned.pose.quality)
    if not views:
        return MethodResult(
            method=alignment.method, alignment=None, missed=len(images), likeness=0.0, reason=_most_common(reasons)
        )
    return MethodResult(
        method=alignment.method,
        alignment=Alignment(reference=alignment.reference, min_quality=_lowest_quality(qualities)),
        missed=len(reasons),
        likeness=_likeness(views),
        reason=_most_common(reasons),
    )


def _lowest_quality(qualities: Sequence[float]) -> float:
    """Return the quality of the poorest sound parts, less a margin that grows with how much sound parts differ."""
    poorest = float(np.quantile(qualities, MAX_MISSED, method="lower"))
    return max(0.0, poorest - 0.5 * (float(np.median(qualities)) - poorest) - QUALITY_MARGIN)


def _view(image: ImageU8) -> Grey:
    small = cv2.resize(image, (LIKENESS_SIDE, LIKENESS_SIDE), interpolation=cv2.INTER_AREA)
    return to_grey(np.asarray(small, np.uint8))


def _likeness(views: Sequence[Grey]) -> float:
    """Return the mean correlation of pictures with their median."""
    stacked: npt.NDArray[np.float32] = np.stack(views).astype(np.float32)
    median = np.median(stacked, axis=0)
    return float(np.mean([correlation(view, median) for view in stacked]))


def _most_common(reasons: Sequence[str]) -> str | None:
    return max(set(reasons), key=reasons.count) if reasons else None
