"""Fit an alignment to sound parts, and choose the method: the one after which the parts look most alike, or none.

Likeness is the mean correlation of the parts' grey levels with their median. A method is considered only if it finds practically
every sound part: each part that it misses would be rejected on the line.

Unusual here: images are read one at a time, and only small pictures of them are kept, since 150 images of 20 megapixels would take
9 GB. Frames are cut from the full images, which may be read again for that: once for the silhouette, and once for all templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.chunks import evenly_spread
from inspect_kd.datasets.alignment.alignment import MAX_PIXELS, Alignment, is_within_limits
from inspect_kd.datasets.alignment.by_silhouette import (
    ShrunkPart,
    SilhouetteReference,
    find_part,
    fit_silhouette_reference,
)
from inspect_kd.datasets.alignment.by_template import ShrunkImage, TemplateReference, shrink_image
from inspect_kd.datasets.alignment.pose import MAX_SIDE, Grey, NotFound, Pose, correlation, cut_frame, size_of, to_grey
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
class SoundImage:
    """What is kept of a sound image: its size, and the small pictures in which the methods look for the part."""

    size: tuple[int, int]
    """(width, height)"""
    view: Grey
    part: ShrunkPart | NotFound
    shrunk: ShrunkImage


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
    refused: str | None = None
    """Why the method cannot be used on images or parts of this size, in words that follow its name."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AlignmentChoice:
    """The result of the chosen method, and the results of all that were tried."""

    chosen: MethodResult
    tried: tuple[MethodResult, ...]
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each sound image."""

    @property
    def parts(self) -> int:
        """Number of sound parts that the methods were tried on."""
        return len(self.sizes)

    def describe(self) -> str:
        """Say in one line what was chosen and why."""
        figures = ", ".join(
            f"{each.method} {each.refused or f'{each.likeness:.3f}'}"
            + (f" ({each.missed} of {self.parts} not found)" if each.missed else "")
            for each in self.tried
        )
        return f"align: {self.chosen.method}; likeness of {self.parts} sound parts: {figures}"


def choose_alignment(images: Sequence[ImageU8], method: Method) -> AlignmentChoice:
    """Fit the requested method to sound parts, or with `auto` the best one."""
    sound = [_summarise(image) for image in images]
    none = MethodResult(method="none", alignment=None, missed=0, likeness=_likeness([each.view for each in sound]))
    fits = {"silhouette": _try_silhouette, "template": _try_template}
    too_large = _describe_too_large(each.size for each in sound)
    wanted = [name for name in fits if method in (name, "auto")]
    tried = [none]
    for name in wanted:
        if method == "auto" and none.likeness >= ALIKE:
            break
        result = _refuse(name, too_large) if too_large else fits[name](sound, images)
        tried.append(result)
        if method == name and result.alignment is None:
            reason = f"finds no part in {result.missed} of {len(images)} sound images: {result.reason}"
            raise BadInput(f"data.align: {name} {result.refused or reason}")
        if too_large:
            break  # no method takes such images
        # The silhouette is preferred: it is cheaper, and judges the outline too.
        if name == "silhouette" and _is_clearly_better(result, none, len(images)):
            break
    chosen = tried[-1] if method in fits else none
    if method == "auto":
        for result in tried[1:]:
            if _is_clearly_better(result, chosen, len(images)):
                chosen = result
    return AlignmentChoice(chosen=chosen, tried=tuple(tried), sizes=tuple(each.size for each in sound))


def _summarise(image: ImageU8) -> SoundImage:
    return SoundImage(size=size_of(image), view=_view(image), part=find_part(image), shrunk=shrink_image(image))


def _describe_too_large(sizes: Iterable[tuple[int, int]]) -> str | None:
    """Say why images cannot be aligned, if one is too large for it."""
    for width, height in sizes:
        if max(width, height) > MAX_SIDE:
            return (
                f"takes images of at most {MAX_SIDE} pixels a side, and one has {width}x{height}: crop the images, or set "
                "data.align=none"
            )
    return None


def _refuse(method: str, reason: str) -> MethodResult:
    return MethodResult(method=method, alignment=None, missed=0, likeness=0.0, refused=reason)


def _is_clearly_better(result: MethodResult, other: MethodResult, parts: int) -> bool:
    return (
        result.alignment is not None
        and result.missed <= MAX_MISSED * parts
        and 1 - result.likeness <= CLEARLY * (1 - other.likeness)
    )


def _try_silhouette(sound: Sequence[SoundImage], images: Sequence[ImageU8]) -> MethodResult:
    found = [_with_extent(each.part) for each in sound]
    parts = [each for each in found if isinstance(each, ShrunkPart)]
    reasons = [each.reason for each in found if isinstance(each, NotFound)]
    if len(parts) <= len(images) / 2:
        return MethodResult(
            method="silhouette", alignment=None, missed=len(reasons), likeness=0.0, reason=_most_common(reasons)
        )
    reference = fit_silhouette_reference(parts)
    if not is_within_limits(reference.frame):
        width, height = reference.frame
        return _refuse(
            "silhouette",
            f"needs a frame of {width}x{height} pixels around the parts, and the limit is {MAX_SIDE} a side and "
            f"{MAX_PIXELS // 10**6} million in all: crop or shrink the images, or set data.align=none",
        )
    return _measure([reference], [each.part for each in sound], images)[0]


def _with_extent(part: ShrunkPart | NotFound) -> ShrunkPart | NotFound:
    """Leave out a part that is too thin to be seen as an area."""
    is_line = isinstance(part, ShrunkPart) and part.is_line
    return NotFound("the part is a line of single pixels once its image is shrunk") if is_line else part


def _try_template(sound: Sequence[SoundImage], images: Sequence[ImageU8]) -> MethodResult:
    candidates = [sound[index] for index in evenly_spread(len(sound), CANDIDATES)]
    references = [TemplateReference(frame=each.size, grey=each.shrunk.grey) for each in candidates]
    results = _measure(references, [each.shrunk for each in sound], images)
    best = min(results, key=lambda result: (result.missed, -result.likeness), default=None)
    if best is None or best.missed > len(images) / 2:
        missed = len(images) if best is None else best.missed
        return MethodResult(
            method="template", alignment=None, missed=missed, likeness=0.0, reason="no match with any reference picture"
        )
    return best


def _measure(
    references: Sequence[SilhouetteReference | TemplateReference], pictures: Sequence[Any], images: Sequence[ImageU8]
) -> list[MethodResult]:
    """Align all parts by each reference, and set the quality that sound parts reach; each image is read once.

    `pictures`: the small picture of each image in which this kind of reference looks for the part.
    """
    poses: list[list[Pose]] = [[] for _ in references]
    views: list[list[Grey]] = [[] for _ in references]
    reasons: list[list[str]] = [[] for _ in references]
    for index, picture in enumerate(pictures):
        image = None
        for number, reference in enumerate(references):
            pose, fault = reference.locate_in(picture)
            if fault is not None or pose is None:
                reasons[number].append(fault.reason if fault else "")
                continue
            image = images[index] if image is None else image
            views[number].append(_view(cut_frame(image, pose.matrix, reference.frame)))
            poses[number].append(pose)
    return [_result(*each) for each in zip(references, poses, views, reasons, strict=True)]


def _result(
    reference: SilhouetteReference | TemplateReference,
    poses: Sequence[Pose],
    views: Sequence[Grey],
    reasons: Sequence[str],
) -> MethodResult:
    alignment = Alignment(
        reference=reference, min_quality=_lowest_quality([pose.quality for pose in poses]) if poses else 0.0
    )
    return MethodResult(
        method=alignment.method,
        alignment=alignment if poses else None,
        missed=len(reasons),
        likeness=_likeness(views) if poses else 0.0,
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
