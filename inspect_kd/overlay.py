"""Draw heatmaps, regions and decisions over images. No torch.

Unusual here: the colour scale is fixed by the calibration (1.0 is the threshold) and never stretched to one image's minimum
and maximum, which would make every sound part look alarming.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.errors import printable
from inspect_kd.types import Decision, FrameOutline, Heatmap, ImageU8, Inspection, Region, format_score

HEAT_AT_FIRST_COLOUR, HEAT_AT_FULL_COLOUR = 0.5, 2.0
"""On the calibrated scale, where 1.0 is the reject threshold."""
# From amber through red to near-white: visible on grey metal, and in greyscale print by its brightness.
_RAMP = np.array([[255, 196, 60], [255, 150, 30], [240, 70, 30], [205, 20, 60], [255, 235, 245]], np.float32)
COLOURS = {Decision.OK: (34, 139, 84), Decision.REINSPECT: (214, 137, 16), Decision.NG: (200, 30, 45)}
MARKS = {Decision.OK: "OK", Decision.REINSPECT: "RE-INSPECT ?", Decision.NG: "NG X"}
MIN_AREA = 2e-5
"""Smallest region, as a share of the heatmap or of one tile."""
MAX_REGIONS = 50
MAX_STROKE = 100
"""Line width in pixels; OpenCV draws no line wider than 32767."""
SMALLEST_TEXT = 0.32
"""Least size of letters that people can read, as a factor of the size of OpenCV's font."""
FRAME_COLOUR = (40, 200, 255)
HOTTEST_SHARE = 0.9
"""If no pixel exceeds the threshold, the regions above this share of the largest heat are shown."""


def enlarge(heatmap: Heatmap, width: int, height: int) -> Heatmap:
    """Resize a heatmap to an image's size."""
    return cv2.resize(heatmap, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def find_regions(
    heatmap: Heatmap, threshold: float, width: int, height: int, *, model_input_pixels: int | None = None
) -> tuple[Region, ...]:
    """Find connected regions above the threshold, in pixels of the original image, the hottest first.

    `model_input_pixels`: number of pixels of one model input; an image in tiles has a larger heatmap. None: that of the heatmap.
    """
    map_height, map_width = heatmap.shape
    above = (heatmap > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    x_scale, y_scale = width / map_width, height / map_height
    regions = []
    for label in range(1, count):
        left, top, w, h, area = (int(value) for value in stats[label])
        inside = np.where(
            labels[top : top + h, left : left + w] == label, heatmap[top : top + h, left : left + w], -np.inf
        )
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        if area < MIN_AREA * (model_input_pixels or heatmap.size):
            continue
        x, y = int(left * x_scale), int(top * y_scale)
        regions.append(
            Region(
                x=x,
                y=y,
                width=max(1, min(width, round((left + w) * x_scale)) - x),
                height=max(1, min(height, round((top + h) * y_scale)) - y),
                area=max(1, round(area * x_scale * y_scale)),
                peak=float(inside.max()),
                peak_x=min(width - 1, int((left + column + 0.5) * x_scale)),
                peak_y=min(height - 1, int((top + row + 0.5) * y_scale)),
            )
        )
    return tuple(sorted(regions, key=lambda region: -region.peak)[:MAX_REGIONS])


def regions_to_show(
    score: float, heatmap: Heatmap, threshold: float, image_size: tuple[int, int], *, model_input_pixels: int
) -> tuple[Region, ...]:
    """Find the regions to show for a part that is not OK: those above the threshold, else the hottest ones."""
    if score <= threshold:
        return ()
    width, height = image_size
    return find_regions(heatmap, threshold, width, height, model_input_pixels=model_input_pixels) or find_regions(
        heatmap, HOTTEST_SHARE * float(heatmap.max()), width, height, model_input_pixels=model_input_pixels
    )


def colour(heatmap: Heatmap) -> tuple[ImageU8, npt.NDArray[np.float32]]:
    """Map a heatmap to colours and their opacity (H, W), 0 to 1."""
    strength = np.clip((heatmap - HEAT_AT_FIRST_COLOUR) / (HEAT_AT_FULL_COLOUR - HEAT_AT_FIRST_COLOUR), 0, 1)
    positions = np.linspace(0, 1, len(_RAMP))
    table = np.stack([np.interp(np.linspace(0, 1, 256), positions, _RAMP[:, c]) for c in range(3)], axis=1).astype(
        np.uint8
    )
    return table[(strength * 255).astype(np.uint8)], np.clip(strength * 2.2, 0, 1).astype(np.float32)


def blend_heatmap(image: ImageU8, heatmap: Heatmap, opacity: float = 0.6) -> ImageU8:
    """Blend a heatmap over an image."""
    height, width = image.shape[:2]
    tint, alpha = colour(enlarge(heatmap, width, height))
    weight = (alpha * opacity)[:, :, None]
    return (image * (1 - weight) + tint * weight).astype(np.uint8)


def draw(
    image: ImageU8,
    inspection: Inspection,
    *,
    opacity: float = 0.6,
    contours: bool = True,
    numbers: bool = True,
    badge: bool = True,
) -> ImageU8:
    """Draw heatmap, the inspected frame, contours at the threshold, numbered regions and the decision."""
    picture = blend_heatmap(image, inspection.heatmap, opacity)
    height, width = picture.shape[:2]
    stroke = min(max(1, round(max(height, width) / 400)), MAX_STROKE)
    if inspection.frame is not None:
        draw_frame(picture, inspection.frame, stroke)
    if contours and inspection.regions:
        above = (enlarge(inspection.heatmap, width, height) > inspection.thresholds.reinspect).astype(np.uint8)
        lines, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, lines, -1, (255, 255, 255), stroke + 1, cv2.LINE_AA)
        cv2.drawContours(picture, lines, -1, (200, 30, 45), stroke, cv2.LINE_AA)
    if numbers:
        for number, region in enumerate(inspection.regions, start=1):
            _label(picture, str(number), (region.x, region.y - 4 * stroke), COLOURS[inspection.decision], 0.8)
    if badge:
        text = f"{MARKS[inspection.decision]}  {format_score(inspection.score)}"
        bottom = _label(picture, text, (4 * stroke, 4 * stroke), COLOURS[inspection.decision], 1.0)
        if inspection.explanation is not None:
            _caption(picture, inspection.explanation, (4 * stroke, bottom + stroke), COLOURS[inspection.decision])
    return picture


def draw_frame(picture: ImageU8, frame: FrameOutline, stroke: int, scale: float = 1.0) -> None:
    """Draw the outline of the inspected frame; `scale` is the picture's size over that of the original image."""
    line = np.round(scale * np.array(frame) - 0.5).astype(np.int32)
    cv2.polylines(picture, [line], True, (20, 30, 40), stroke + 1, cv2.LINE_AA)
    cv2.polylines(picture, [line], True, FRAME_COLOUR, stroke, cv2.LINE_AA)


def outline(image: ImageU8, mask: npt.NDArray[np.bool_], tint: tuple[int, int, int] = (40, 200, 255)) -> ImageU8:
    """Draw the outline of a mask as a thin line."""
    picture = image.copy()
    height, width = picture.shape[:2]
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    lines, _ = cv2.findContours(resized, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, lines, -1, tint, max(1, round(max(height, width) / 250)), cv2.LINE_AA)
    return picture


def thumbnail(image: ImageU8, side: int) -> ImageU8:
    """Shrink an image to at most `side` pixels, keeping its proportions."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def contact_sheet(pictures: Sequence[tuple[str, ImageU8]], side: int = 256, max_columns: int = 5) -> ImageU8:
    """Arrange thumbnails in rows, each with its name beneath."""
    strip, gap = 22, 8
    columns = min(max_columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (side + strip + gap) + gap, columns * (side + gap) + gap, 3), 245, np.uint8)
    for index, (name, picture) in enumerate(pictures):
        small = thumbnail(picture, side)
        height, width = small.shape[:2]
        top = gap + index // columns * (side + strip + gap)
        left = gap + index % columns * (side + gap)
        y, x = top + (side - height) // 2, left + (side - width) // 2
        sheet[y : y + height, x : x + width] = small
        # OpenCV ends the process when it draws a lone surrogate, which a file name may hold.
        name = printable(name)
        shown = name if len(name) <= 34 else f"{name[:31]}..."
        cv2.putText(sheet, shown, (left, top + side + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return sheet


def _caption(picture: ImageU8, text: str, at: tuple[int, int], tint: tuple[int, int, int]) -> None:
    """Write a sentence under the decision, in letters that fit the picture's width; leave it out if they would be too small to read."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    fitting = (picture.shape[1] - 3 * at[0]) / width
    size = min(0.6 * _text_size(picture), fitting)
    if size >= SMALLEST_TEXT:
        _label(picture, text, at, tint, size / _text_size(picture))


def _text_size(picture: ImageU8) -> float:
    return float(np.clip(max(picture.shape[:2]) / 640, SMALLEST_TEXT, 3.0))


def _label(picture: ImageU8, text: str, at: tuple[int, int], tint: tuple[int, int, int], scale: float) -> int:
    """Write white text on a coloured box, moved to lie inside the picture; return the row below the box."""
    height, width = picture.shape[:2]
    size = scale * _text_size(picture)
    thick = max(1, round(1.6 * size))
    (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    pad = max(2, h // 3)
    x = int(np.clip(at[0], 0, max(0, width - w - 2 * pad)))
    y = int(np.clip(at[1], 0, max(0, height - h - base - 2 * pad)))
    cv2.rectangle(picture, (x, y), (x + w + 2 * pad, y + h + base + 2 * pad), tint, -1)
    cv2.putText(
        picture, text, (x + pad, y + h + pad), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thick, cv2.LINE_AA
    )
    return y + h + base + 2 * pad
