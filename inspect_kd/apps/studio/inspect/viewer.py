"""The selected part as HTML: the decision in words, the picture in layers, its regions as a table.

Unusual here: picture, heat and contours are separate layers. The browser changes opacity, contours, numbers and the slider
between original and heat by itself; after a threshold moves, only the outlines (some hundred bytes) are sent.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd import overlay
from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.parts import PREVIEW_SIDE, Part
from inspect_kd.report.html import Html, table
from inspect_kd.types import Decision, Inspection, Region, Thresholds, format_score, is_not_found

UrlOf = Callable[[Path], str]
"""Return the URL of a picture's file."""
CSS_CLASSES = {Decision.OK: "ok", Decision.REINSPECT: "re", Decision.NG: "ng"}
SMOOTHING = 0.7
"""Pixels of the drawing by which a contour may be simplified."""
SLACK = 3
"""Pixels by which a contour may leave its region's box, because the box is measured on the smaller heatmap."""
Contour = npt.NDArray[np.int32]


def decision_label(decision: Decision) -> Html:
    """A decision as icon and word, readable without colour."""
    return Html(
        f'<span class="verdict {CSS_CLASSES[decision]}"><i aria-hidden="true">{texts.ICONS[decision]}</i>{decision}</span>'
    )


def banner(part: Part, inspection: Inspection) -> str:
    """The decision in words, with score and thresholds."""
    thresholds = inspection.thresholds
    thresholds_text = texts.BOTH_THRESHOLDS.format(reinspect=thresholds.reinspect, reject=thresholds.reject)
    size = f"{part.image_size[0]} × {part.image_size[1]}"
    score_name = "" if is_not_found(inspection.score) else f"<small>{texts.SCORE}</small>"
    recognised = texts.RECOGNISED.format(category=inspection.category) + " · " if inspection.category else ""
    return (
        f'<div class="banner {CSS_CLASSES[inspection.decision]}" role="status" data-shown="{part.key} {part.mark or ""}">'
        f'<span class="word"><i aria-hidden="true">{texts.ICONS[inspection.decision]}</i>'
        f'{inspection.decision}</span><span class="figure"><b>{format_score(inspection.score, 3)}</b>{score_name}</span>'
        f'<span class="about"><span class="file">{escape(part.name)}</span>'
        f"{reason_line(inspection)}<small>{escape(recognised)}{thresholds_text} · {size} px · {part.milliseconds:.0f} ms</small>"
        f"{_mark_label(part, thresholds)}</span></div>"
    )


def reason_line(inspection: Inspection) -> str:
    """Why the part was not found; empty for a part that was found."""
    return f'<span class="reason">{escape(inspection.explanation)}</span>' if inspection.explanation else ""


def viewer(part: Part | None, inspection: Inspection | None, address: UrlOf) -> str:
    """Banner and picture; a hint where no part is selected."""
    if part is None or inspection is None:
        return f'<div class="empty"><b>{texts.EMPTY_VIEW}</b><span>{texts.EMPTY_HINT}</span></div>'
    return banner(part, inspection) + picture_layers(part, inspection, part.heat_layer, address)


def picture_layers(part: Part, inspection: Inspection, heat_layer: Path, address: UrlOf, *, wipe: bool = True) -> str:
    """The layers, one above the other, in the original's proportions. `wipe`: add the slider between original and heat."""
    width, height = part.preview_size
    wipe_slider = (
        f'<input class="wipe" type="range" min="0" max="100" value="0" data-wipe aria-label="{texts.WIPE}"><span class="handle"></span>'
        if wipe
        else ""
    )
    return (
        f'<div class="stage"><div class="layers" style="aspect-ratio:{width}/{height};--ratio:{width / height:.4f}">'
        f'<img class="photo" src="{address(part.preview)}" width="{width}" height="{height}" '
        f'alt="{escape(texts.ALT_PREVIEW.format(name=part.name))}">'
        f'<div class="over"><img class="heat" src="{address(heat_layer)}" alt="">{outlines(inspection)}</div>{wipe_slider}</div></div>'
    )


def outlines(inspection: Inspection) -> str:
    """Inspected frame, contours at the RE-INSPECT threshold, the regions' numbers; line widths are relative to the picture's size."""
    scale = PREVIEW_SIDE / max(1, *inspection.image_size)
    size = max(1, round(inspection.image_size[0] * scale)), max(1, round(inspection.image_size[1] * scale))
    contours = _contours(inspection, size) if inspection.regions else []
    paths = "".join("M" + "L".join(f"{x} {y}" for x, y in contour) + "Z" for contour in contours)
    radius = max(size) / 46
    numbers = "".join(
        _number_plate(number, _topmost_point(region, contours, inspection, size), radius, size)
        for number, region in enumerate(inspection.regions, 1)
    )
    return (
        f'<svg class="outlines {CSS_CLASSES[inspection.decision]}" viewBox="0 0 {size[0]} {size[1]}" aria-hidden="true" '
        f'style="--stroke:{max(size) / 420:.2f}px">{_frame_outline(inspection, size)}'
        f'<path class="halo" d="{paths}"/><path class="contour" d="{paths}"/>'
        f'<g class="numbers" font-size="{1.25 * radius:.1f}">{numbers}</g></svg>'
    )


def _frame_outline(inspection: Inspection, size: tuple[int, int]) -> str:
    if inspection.frame is None:
        return ""
    scale_x, scale_y = size[0] / max(1, inspection.image_size[0]), size[1] / max(1, inspection.image_size[1])
    points = " ".join(f"{x * scale_x:.1f},{y * scale_y:.1f}" for x, y in inspection.frame)
    return f'<polygon class="frame" points="{points}"/>'


def regions_table(inspection: Inspection | None) -> str:
    """The regions, numbered as in the picture, the hottest first."""
    if inspection is None:
        return ""
    if not inspection.regions:
        return f'<h3>{texts.REGIONS}</h3><p class="soft">{texts.NO_REGIONS}</p>'
    rows = (_region_cells(number, region, inspection) for number, region in enumerate(inspection.regions, 1))
    regions = table(texts.REGION_COLUMNS, rows, classes="regions", row_headers=True)
    return (
        f'<h3>{texts.REGIONS} <span class="soft">{len(inspection.regions)}</span></h3>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{texts.REGIONS}">{regions}</div>'
    )


def _region_cells(number: int, region: Region, inspection: Inspection) -> tuple[str, ...]:
    total = max(1, inspection.image_size[0] * inspection.image_size[1])
    return (
        Html(f'<i class="no">{number}</i>'),
        f"{region.peak:.2f}",
        f"{region.x}, {region.y}",
        f"{region.width} × {region.height}",
        f"{100 * region.area / total:.2f} %",
    )


def _mark_label(part: Part, thresholds: Thresholds) -> str:
    if part.mark is None:
        return ""
    decision = thresholds.decide(part.score)
    text = texts.MARKED_RIGHT if decision is part.mark else texts.MARKED_WRONG
    if decision is Decision.REINSPECT:
        text = texts.MARKED
    return f'<span class="marked {CSS_CLASSES[part.mark]}">{text.format(mark=part.mark)} · {texts.MARK_STORED}</span>'


def _contours(inspection: Inspection, size: tuple[int, int]) -> list[Contour]:
    heatmap = overlay.enlarge(inspection.heatmap, *size)
    # Where no heat is above the threshold, draw the contour of the hottest place, as `Inspector.regions` does.
    threshold = min(inspection.thresholds.reinspect, overlay.HOTTEST_SHARE * float(heatmap.max()))
    contours, _ = cv2.findContours((heatmap > threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [cv2.approxPolyDP(contour, SMOOTHING, True).reshape(-1, 2).astype(np.int32) for contour in contours]


def _topmost_point(
    region: Region, contours: list[Contour], inspection: Inspection, size: tuple[int, int]
) -> tuple[float, float]:
    """The topmost point of the region's contour, at which its number is drawn; a corner of the box may lie far from a bent contour."""
    scale_x, scale_y = size[0] / max(1, inspection.image_size[0]), size[1] / max(1, inspection.image_size[1])
    left, top = region.x * scale_x, region.y * scale_y
    right, bottom = (region.x + region.width) * scale_x, (region.y + region.height) * scale_y
    inside = [
        (float(x), float(y))
        for contour in contours
        for x, y in contour
        if left - SLACK <= x <= right + SLACK and top - SLACK <= y <= bottom + SLACK
    ]
    return min(inside, key=lambda point: point[1], default=(left, top))


def _number_plate(number: int, point: tuple[float, float], radius: float, size: tuple[int, int]) -> str:
    """A numbered plate above a point, kept inside the picture."""
    x = min(max(point[0], radius), size[0] - radius)
    y = min(max(point[1] - radius, radius), size[1] - radius)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        f'<text x="{x:.1f}" y="{y:.1f}" dy=".35em" text-anchor="middle">{number}</text>'
    )
