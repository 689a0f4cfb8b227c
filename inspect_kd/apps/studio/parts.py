"""One part on a desk: its original on disk, its pictures for the browser, its heatmap beside them.

Unusual here: the heatmap lies on disk, so that hundreds of parts cost no memory, and is looked at again whenever a
threshold moves; the model is not. The heat travels to the browser as a layer of its own: opacity needs no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from inspect_kd import overlay
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.images import decode_image
from inspect_kd.inspector import Inspector
from inspect_kd.types import Decision, Heatmap, Inspection, Thresholds

PREVIEW, THUMB = 1024, 232
QUALITY = 86


@dataclass(kw_only=True, slots=True)
class Part:
    number: int
    name: str
    """As the sender called it: text for people, never a path."""
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
    """What a person says of it: OK or NG."""

    @property
    def key(self) -> str:
        """Tells a part from every other, also from one of the same number on an earlier desk of the session."""
        return f"{self.number}-{self.sha256[:12]}"

    def remove_pictures(self) -> None:
        """Everything that one inspection made; the original stays."""
        for path in (self.heat, self.preview, self.thumb, self.layer):
            path.unlink(missing_ok=True)

    @property
    def preview_size(self) -> tuple[int, int]:
        width, height = self.image_size
        scale = min(1.0, PREVIEW / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def heatmap(self) -> Heatmap:
        stored: Heatmap = np.load(self.heat, allow_pickle=False)
        return stored

    def inspection(self, inspector: Inspector, thresholds: Thresholds) -> Inspection:
        """The answer under these thresholds, from the stored heatmap."""
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

    def wrong(self, thresholds: Thresholds) -> bool:
        """A person says otherwise. A part that is to be looked at again is no wrong call."""
        return self.mark is not None and thresholds.decide(self.score) not in (self.mark, Decision.REINSPECT)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a desk keeps its files: `kept` for the server alone, `shown` for what the browser may fetch."""

    kept: Path
    shown: Path


def inspect_part(
    inspector: Inspector, content: bytes, name: str, sha256: str, number: int, places: Places, *, look: int = 0
) -> Part:
    """Decode, inspect, write heat and pictures; `look` counts inspections: a new heat layer needs a new address."""
    image = decode_image(content, name, bits=inspector.card.bits)
    answer = inspector(image)
    stem = f"{number:05d}"
    part = Part(
        number=number,
        name=name,
        sha256=sha256,
        original=places.kept / stem,
        heat=places.kept / f"{stem}-{look}.npy",
        preview=places.shown / f"{stem}-{look}-preview.jpg",
        thumb=places.shown / f"{stem}-{look}-thumb.jpg",
        layer=places.shown / f"{stem}-{look}-heat.png",
        score=answer.score,
        image_size=answer.image_size,
        milliseconds=answer.milliseconds,
    )
    np.save(part.heat, answer.heatmap, allow_pickle=False)
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    write_image(part.preview, overlay.thumbnail(image, PREVIEW), jpeg)
    write_image(part.thumb, overlay.blend_heatmap(overlay.thumbnail(image, THUMB), answer.heatmap), jpeg)
    write_layer(part.layer, answer.heatmap)
    return part


def write_layer(to: Path, heatmap: Heatmap) -> None:
    """Heat alone, clear where the part is cool, on the fixed colour scale."""
    tall, wide = heatmap.shape
    scale = min(1.0, PREVIEW / max(tall, wide))
    if scale < 1:
        heatmap = overlay.enlarge(heatmap, max(1, round(wide * scale)), max(1, round(tall * scale)))
    tint, alpha = overlay.colour(heatmap)
    write_image(to, np.dstack([tint, (alpha * 255).astype(np.uint8)]), [cv2.IMWRITE_PNG_COMPRESSION, 3])
