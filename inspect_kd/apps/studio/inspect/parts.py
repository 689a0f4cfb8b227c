"""One part of a session: its original on disk, its pictures for the browser, its heatmap.

Unusual here: the heatmap is stored on disk, so that hundreds of parts need little memory. After a threshold moves, it is read
again; the model does not run. The browser gets the heat as a separate layer, so that it can change the opacity by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from inspect_kd import overlay
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.images import decode_image
from inspect_kd.inspector import Inspector
from inspect_kd.types import NOT_FOUND, Decision, FrameOutline, Heatmap, Inspection, Thresholds

PREVIEW_SIDE, THUMB_SIDE = 1024, 232
"""Longest sides, in pixels."""
JPEG_QUALITY = 86


class SessionFolders(NamedTuple):
    """The two folders of a session."""

    private: Path
    """Originals and heatmaps, for the server alone."""
    served: Path
    """Pictures and exports that the browser may fetch."""


class Location(NamedTuple):
    """How a part was found in its image."""

    category: str | None
    """The category whose alignment and tiles were used; None where all categories share them."""
    not_found: str | None
    """Why it was not found."""
    frame: FrameOutline | None
    """Outline of the inspected frame; None where the whole image was inspected."""

    @staticmethod
    def of(inspection: Inspection) -> Location:
        return Location(inspection.category, inspection.explanation, inspection.frame)


@dataclass(frozen=True, slots=True, eq=False)
class StoredMark:
    """A mark in the store; two marks of the same image share one file, so marks are compared by identity."""

    file: Path


@dataclass(kw_only=True, slots=True)
class Part:
    """An inspected part."""

    number: int
    name: str
    """As uploaded: text for people, never a path."""
    sha256: str
    original: Path
    heatmap_file: Path
    preview: Path
    thumb: Path
    heat_layer: Path
    """Picture of the heat alone, laid over the preview."""
    score: float
    image_size: tuple[int, int]
    milliseconds: float
    location: Location
    mark: Decision | None = None
    """A person's decision: OK or NG."""
    stored_mark: StoredMark | None = None
    """Where `mark` is stored: category and artifact may have been changed since."""

    @property
    def key(self) -> str:
        """An identifier of the part. Numbers alone are not enough: a session that is closed and opened again starts at 1."""
        return f"{self.number}-{self.sha256[:12]}"

    def remove_outputs(self) -> None:
        """Remove the files that an inspection wrote; the original stays."""
        for path in (self.heatmap_file, self.preview, self.thumb, self.heat_layer):
            path.unlink(missing_ok=True)

    @property
    def preview_size(self) -> tuple[int, int]:
        """Width and height of the preview."""
        width, height = self.image_size
        scale = min(1.0, PREVIEW_SIDE / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def heatmap(self) -> Heatmap:
        """Read the stored heatmap."""
        return read_heatmap(self.heatmap_file)

    def inspection(self, inspector: Inspector, thresholds: Thresholds) -> Inspection:
        """Decision and regions under these thresholds, from the stored score and heatmap."""
        inspection = rebuild_inspection(
            inspector, thresholds, self.score, self.heatmap(), self.image_size, self.location
        )
        return replace(inspection, image=self.name, milliseconds=self.milliseconds)

    def is_wrong_call(self, thresholds: Thresholds) -> bool:
        """Whether a person marked the opposite decision; RE-INSPECT is never a wrong call."""
        return self.mark is not None and thresholds.decide(self.score) not in (self.mark, Decision.REINSPECT)


def inspect_part(
    inspector: Inspector,
    content: bytes,
    name: str,
    sha256: str,
    number: int,
    folders: SessionFolders,
    *,
    generation: int = 0,
    category: str | None = None,
    check_disk: Callable[[int], None],
) -> Part:
    """Decode an image, inspect it as a part of `category`, and write its heatmap and pictures; the caller stores the original.

    `check_disk` is called with the heatmap's size before anything is written; it raises if there is no room.
    `generation` is part of the pictures' addresses, because browsers cache pictures by address.
    """
    image = decode_image(content, name, bits=inspector.card.bits)
    inspection = inspector(image, category=category)
    check_disk(inspection.heatmap.nbytes)
    stem = f"{number:05d}"
    part = Part(
        number=number,
        name=name,
        sha256=sha256,
        original=folders.private / stem,
        heatmap_file=folders.private / f"{stem}-{generation}.npy",
        preview=folders.served / f"{stem}-{generation}-preview.jpg",
        thumb=folders.served / f"{stem}-{generation}-thumb.jpg",
        heat_layer=folders.served / f"{stem}-{generation}-heat.png",
        score=inspection.score,
        image_size=inspection.image_size,
        milliseconds=inspection.milliseconds,
        location=Location.of(inspection),
    )
    write_heatmap(part.heatmap_file, part.heat_layer, inspection.heatmap)
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    write_image(part.preview, overlay.thumbnail(image, PREVIEW_SIDE), jpeg)
    write_image(part.thumb, overlay.blend_heatmap(overlay.thumbnail(image, THUMB_SIDE), inspection.heatmap), jpeg)
    return part


def rebuild_inspection(
    inspector: Inspector,
    thresholds: Thresholds,
    score: float,
    heatmap: Heatmap,
    image_size: tuple[int, int],
    location: Location,
) -> Inspection:
    """Decide anew by these thresholds, from a stored score, heatmap and location; the model does not run."""
    return Inspection(
        score=score,
        decision=thresholds.decide(score),
        heatmap=heatmap,
        regions=inspector.regions(score, heatmap, thresholds, image_size),
        thresholds=thresholds,
        image_size=image_size,
        category=location.category,
        cause=None if location.not_found is None else NOT_FOUND,
        explanation=location.not_found,
        frame=location.frame,
    )


def read_heatmap(file: Path) -> Heatmap:
    """Read a stored heatmap."""
    heatmap: Heatmap = np.load(file, allow_pickle=False)
    return heatmap


def write_heatmap(file: Path, heat_layer: Path, heatmap: Heatmap) -> None:
    """Store a heatmap, and its picture: the heat alone on the fixed colour scale, transparent below `overlay.FAINT`."""
    np.save(file, heatmap, allow_pickle=False)
    height, width = heatmap.shape
    scale = min(1.0, PREVIEW_SIDE / max(height, width))
    if scale < 1:
        heatmap = overlay.enlarge(heatmap, max(1, round(width * scale)), max(1, round(height * scale)))
    tint, alpha = overlay.colour(heatmap)
    write_image(heat_layer, np.dstack([tint, (alpha * 255).astype(np.uint8)]), [cv2.IMWRITE_PNG_COMPRESSION, 3])
