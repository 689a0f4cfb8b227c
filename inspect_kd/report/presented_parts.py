"""The report's section on presentation: each category's alignment and tiles, why, and sound parts before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import numpy as np

from inspect_kd import overlay
from inspect_kd.chunks import evenly_spread
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Prepared, Presentation
from inspect_kd.report.html import card_table
from inspect_kd.report.pictures import SIDE, data_uri
from inspect_kd.types import ImageU8, Sample

PARTS_PER_CATEGORY = 3
"""Number of sound parts shown of each category."""
MAX_CATEGORIES = 16
"""Limit of the categories whose parts are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PresentedPart:
    """Two pictures of one sound part, as data URIs."""

    name: str
    image_uri: str
    """As photographed, with the outline of the frame."""
    picture_uri: str
    """As aligned and tiled for the model."""
    not_found: str | None = None
    """Why the part was not found in its image."""


def present_parts(samples: Sequence[Sample], presentation: Presentation, bits: int | None) -> list[PresentedPart]:
    """Draw a few parts, evenly spread over the samples; empty where the model gets the whole image."""
    if presentation.alignment is None and presentation.view.tile is None:
        return []
    return [_draw_part(samples[i], presentation, bits) for i in evenly_spread(len(samples), PARTS_PER_CATEGORY)]


def _draw_part(sample: Sample, presentation: Presentation, bits: int | None) -> PresentedPart:
    image = read_image(sample.image, bits=bits)
    prepared = presentation.prepare(image)
    photo = overlay.thumbnail(image, SIDE).copy()
    if prepared.frame is not None:
        overlay.draw_frame(photo, prepared.frame, 1, photo.shape[1] / image.shape[1])
    return PresentedPart(
        name=sample.image.name,
        image_uri=data_uri(photo),
        picture_uri=data_uri(_draw_tiles(prepared)),
        not_found=prepared.fault.reason if prepared.fault else None,
    )


def _draw_tiles(prepared: Prepared) -> ImageU8:
    """Draw the picture that is prepared for the model, with the outlines of its tiles."""
    width, height = prepared.picture_size
    picture = overlay.thumbnail(prepared.picture, SIDE).copy()
    scale = picture.shape[1] / width
    for corner in prepared.view.tile_corners(width, height):
        low = np.round(scale * np.array(corner)).astype(int)
        high = np.round(scale * np.minimum(np.array(corner) + prepared.view.tile, (width, height))).astype(int) - 1
        cv2.rectangle(picture, low.tolist(), high.tolist(), overlay.FRAME_COLOUR, 1)
    return picture


def presentation_section(
    summary: Mapping[str, Mapping[str, Any]],
    not_found: Mapping[str, Mapping[str, int]],
    presented: Mapping[str, Sequence[PresentedPart]],
) -> str:
    """Render the section. `summary`: `Presentations.summary()`; `not_found`: counts of test parts; both by category."""
    if not summary:
        return ""
    rows = [
        (name, each["align"], _tile_words(each["tile"]), _not_found_words(each, not_found.get(name, {})))
        for name, each in summary.items()
    ]
    head = ("category", "alignment", "model sees", "test parts that were not found")
    details = "".join(_category(name, each, presented.get(name, ())) for name, each in summary.items())
    return (
        "<h2>How the parts are presented</h2>"
        '<p class="soft">With alignment each part is found in its image and moved into one frame, in training and on the line alike. '
        "A part that does not agree with the reference is NG as <i>not found</i>. Left: as photographed, with the outline of the frame. "
        f"Right: what the model sees, with its tiles if there are any.</p>{card_table(head, rows)}{details}"
    )


def _tile_words(tile: int | None) -> str:
    return f"tiles of {tile} pixels" if tile else "all at once"


def _not_found_words(summary: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    if summary["align"] == "none" or not counts:
        return "–"
    return f"{counts['sound']} sound, {counts['defective']} defective"


def _category(name: str, summary: Mapping[str, Any], parts: Sequence[PresentedPart]) -> str:
    reasons = "".join(f'<p class="soft">{escape(reason)}</p>' for reason in summary["reasons"])
    figures = "".join(map(_figure, parts))
    gallery = f'<div class="gallery">{figures}</div>' if figures else ""
    return f"<h3>{escape(name)}</h3>{reasons}{gallery}" if reasons or gallery else ""


def _figure(part: PresentedPart) -> str:
    name = escape(part.name)
    reason = f'<span class="file">not found: {escape(part.not_found)}</span>' if part.not_found else ""
    return (
        f'<figure><div><img src="{part.image_uri}" alt="{name}: as photographed" loading="lazy">'
        f'<img src="{part.picture_uri}" alt="{name}: as the model sees it" loading="lazy"></div>'
        f"<figcaption><span>{name}</span>{reason}</figcaption></figure>"
    )
