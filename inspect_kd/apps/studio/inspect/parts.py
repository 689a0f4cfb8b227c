"""One part of a session: its original on disk, its pictures for the browser, its heatmap.

Unusual here: the heatmap is stored on disk, so that hundreds of parts need little memory. A moved threshold reads it again, and
the model does not run. The browser gets the heat as a layer of its own, so that changing its opacity needs no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from inspect_kd import overlay
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.images import decode_image
from inspect_kd.inspector import Inspector
from inspect_kd.types import Decision, Heatmap, Inspection, Thresholds

PREVIEW, THUMB = 1024, 232
"""Longest sides, in pixels."""
QUALITY = 86


class SessionFolders(NamedTuple):
    """Folders for the files of a session."""

    private: Path
    """Originals and heatmaps, for the server alone."""
    served: Path
    """Pictures and exports that the browser may fetch."""


@dataclass(kw_only=True, slots=True)
class Part:
    """An inspected part."""

    number: int
    name: str
    """As uploaded: text for people, never a path."""
    sha256: str
    original: Path
    heat: Path
    preview: Path
    thumb: Path
    layer: Path
    score: float
    image_size: tuple[int, int]
    milliseconds: float
    mark: Decision | None = None
    """A person's verdict: OK or NG."""

    @property
    def key(self) -> str:
        """Identifies the part, also among parts of the same number that the session had before it was cleared."""
        return f"{self.number}-{self.sha256[:12]}"

    def remove_pictures(self) -> None:
        """Remove everything that one inspection wrote; the original stays."""
        for path in (self.heat, self.preview, self.thumb, self.layer):
            path.unlink(missing_ok=True)

    @property
    def preview_size(self) -> tuple[int, int]:
        """Width and height of the preview."""
        width, height = self.image_size
        scale = min(1.0, PREVIEW / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def heatmap(self) -> Heatmap:
        """Read the stored heatmap."""
        stored: Heatmap = np.load(self.heat, allow_pickle=False)
        return stored

    def inspection(self, inspector: Inspector, thresholds: Thresholds) -> Inspection:
        """Decision and regions under these thresholds, from the stored score and heatmap."""
        heatmap = self.heatmap()
        return Inspection(
            score=self.score,
            decision=thresholds.decide(self.score),
            heatmap=heatmap,
            regions=inspector.regions(self.score, heatmap, thresholds, self.image_size),
            thresholds=thresholds,
            image=self.name,
            image_size=self.image_size,
            milliseconds=self.milliseconds,
        )

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
) -> Part:
    """Decode and inspect an image, write its heatmap and pictures.

    `generation` counts inspections of the part: browsers cache pictures by address, so each needs a new one.
    """
    image = decode_image(content, name, bits=inspector.card.bits)
    inspection = inspector(image)
    stem = f"{number:05d}"
    part = Part(
        number=number,
        name=name,
        sha256=sha256,
        original=folders.private / stem,
        heat=folders.private / f"{stem}-{generation}.npy",
        preview=folders.served / f"{stem}-{generation}-preview.jpg",
        thumb=folders.served / f"{stem}-{generation}-thumb.jpg",
        layer=folders.served / f"{stem}-{generation}-heat.png",
        score=inspection.score,
        image_size=inspection.image_size,
        milliseconds=inspection.milliseconds,
    )
    np.save(part.heat, inspection.heatmap, allow_pickle=False)
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    write_image(part.preview, overlay.thumbnail(image, PREVIEW), jpeg)
    write_image(part.thumb, overlay.blend_heatmap(overlay.thumbnail(image, THUMB), inspection.heatmap), jpeg)
    write_heat_layer(part.layer, inspection.heatmap)
    return part


def write_heat_layer(to: Path, heatmap: Heatmap) -> None:
    """Write the heat alone, transparent below half the threshold, on the fixed colour scale."""
    height, width = heatmap.shape
    scale = min(1.0, PREVIEW / max(height, width))
    if scale < 1:
        heatmap = overlay.enlarge(heatmap, max(1, round(width * scale)), max(1, round(height * scale)))
    tint, alpha = overlay.colour(heatmap)
    write_image(to, np.dstack([tint, (alpha * 255).astype(np.uint8)]), [cv2.IMWRITE_PNG_COMPRESSION, 3])
