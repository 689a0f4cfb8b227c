"""The chosen part as HTML: the decision in words, the picture in layers, its regions as a table.

Unusual here: picture, heat and contours are layers of their own. Opacity, contours, numbers and the slider between original
and heat are then the browser's work; a moved threshold sends some hundred bytes of outline and no picture.
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
from inspect_kd.apps.studio.parts import PREVIEW, Part
from inspect_kd.types import Decision, Inspection, Region, Thresholds

Address = Callable[[Path], str]
"""Where the browser fetches a picture."""
CLASSES = {Decision.OK: "ok", Decision.REINSPECT: "re", Decision.NG: "ng"}
SMOOTHING = 0.7
"""Pixels of the drawing by which an outline may be simplified."""
SLACK = 3
"""Pixels by which an outline may leave its region's box: one is drawn at the picture's scale, the other measured at the heat's."""
Points = npt.NDArray[np.int32]


def verdict(decision: Decision) -> str:
    """Icon and word: readable without colour."""
    return (
        f'<span class="verdict {CLASSES[decision]}"><i aria-hidden="true">{texts.ICONS[decision]}</i>{decision}</span>'
    )


def banner(part: Part, answer: Inspection) -> str:
    """The answer in words, with the limits it was held against."""
    limits = texts.AGAINST.format(reinspect=answer.thresholds.reinspect, reject=answer.thresholds.reject)
    size = f"{part.image_size[0]} × {part.image_size[1]}"
    return (
        f'<div class="banner {CLASSES[answer.decision]}" role="status" data-shown="{part.key} {part.mark or ""}">'
        f'<span class="word"><i aria-hidden="true">{texts.ICONS[answer.decision]}</i>'
        f'{answer.decision}</span><span class="figure"><b>{answer.score:.3f}</b><small>{texts.SCORE}</small></span>'
        f'<span class="about"><span class="file">{escape(part.name)}</span>'
        f"<small>{limits} · {size} px · {part.milliseconds:.0f} ms</small>{_mark(part, answer.thresholds)}</span></div>"
    )


def viewer(part: Part | None, answer: Inspection | None, address: Address) -> str:
    """Banner and picture; an invitation where there is none."""
    if part is None or answer is None:
        return f'<div class="empty"><b>{texts.EMPTY_VIEW}</b><span>{texts.EMPTY_HINT}</span></div>'
    picture = stage(part, answer, part.layer, address)
    return banner(part, answer) + picture


def stage(part: Part, answer: Inspection, layer: Path, address: Address, *, wipe: bool = True) -> str:
    """The layers, one above the other, in the original's proportions."""
    width, height = part.preview_size
    handle = (
        f'<input class="wipe" type="range" min="0" max="100" value="0" data-wipe aria-label="{texts.WIPE}"><span class="handle"></span>'
        if wipe
        else ""
    )
    return (
        f'<div class="stage"><div class="layers" style="aspect-ratio:{width}/{height};--ratio:{width / height:.4f}">'
        f'<img class="photo" src="{address(part.preview)}" width="{width}" height="{height}" '
        f'alt="{escape(texts.ALT_PREVIEW.format(name=part.name))}">'
        f'<div class="over"><img class="heat" src="{address(layer)}" alt="">{outlines(answer)}</div>{handle}</div></div>'
    )


def outlines(answer: Inspection) -> str:
    """Contours at the RE-INSPECT limit and the regions' numbers, as fine for a small part as for a large one."""
    scale = PREVIEW / max(1, *answer.image_size)
    size = max(1, round(answer.image_size[0] * scale)), max(1, round(answer.image_size[1] * scale))
    lines = _contours(answer, size) if answer.regions else []
    paths = "".join("M" + "L".join(f"{x} {y}" for x, y in line) + "Z" for line in lines)
    radius = max(size) / 46
    numbers = "".join(
        _number(number, _anchor(region, lines, answer, size), radius, size)
        for number, region in enumerate(answer.regions, 1)
    )
    return (
        f'<svg class="outlines {CLASSES[answer.decision]}" viewBox="0 0 {size[0]} {size[1]}" aria-hidden="true" '
        f'style="--stroke:{max(size) / 420:.2f}px"><path class="halo" d="{paths}"/><path class="contour" d="{paths}"/>'
        f'<g class="numbers" font-size="{1.25 * radius:.1f}">{numbers}</g></svg>'
    )


def regions_table(answer: Inspection | None) -> str:
    """Numbered as in the picture, the hottest first."""
    if answer is None:
        return ""
    if not answer.regions:
        return f'<h3>{texts.REGIONS}</h3><p class="soft">{texts.NO_REGIONS}</p>'
    head = "".join(f'<th scope="col">{column}</th>' for column in texts.REGION_COLUMNS)
    rows = "".join(_row(number, region, answer) for number, region in enumerate(answer.regions, 1))
    return (
        f'<h3>{texts.REGIONS} <span class="soft">{len(answer.regions)}</span></h3>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{texts.REGIONS}">'
        f'<table class="regions"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(number: int, region: Region, answer: Inspection) -> str:
    total = max(1, answer.image_size[0] * answer.image_size[1])
    cells = (
        f"{region.peak:.2f}",
        f"{region.x}, {region.y}",
        f"{region.width} × {region.height}",
        f"{100 * region.area / total:.2f} %",
    )
    return f'<tr><th scope="row"><i class="no">{number}</i></th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _mark(part: Part, thresholds: Thresholds) -> str:
    if part.mark is None:
        return ""
    decision = thresholds.decide(part.score)
    text = texts.MARKED_RIGHT if decision is part.mark else texts.MARKED_WRONG
    if decision is Decision.REINSPECT:
        text = texts.MARKED_DOUBT
    return f'<span class="marked {CLASSES[part.mark]}">{text.format(mark=part.mark)} · {texts.MARK_STORED}</span>'


def _contours(answer: Inspection, size: tuple[int, int]) -> list[Points]:
    heatmap = overlay.enlarge(answer.heatmap, *size)
    # Where no place is above the limit the hottest is shown, as the regions have it.
    limit = min(answer.thresholds.reinspect, overlay.BRIGHTEST * float(heatmap.max()))
    lines, _ = cv2.findContours((heatmap > limit).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [cv2.approxPolyDP(line, SMOOTHING, True).reshape(-1, 2).astype(np.int32) for line in lines]


def _anchor(region: Region, lines: list[Points], answer: Inspection, size: tuple[int, int]) -> tuple[float, float]:
    """The highest point of the region's outline: the corner of its box may lie far from a bent one."""
    across, down = size[0] / max(1, answer.image_size[0]), size[1] / max(1, answer.image_size[1])
    left, top = region.x * across, region.y * down
    right, bottom = (region.x + region.width) * across, (region.y + region.height) * down
    inside = [
        (float(x), float(y))
        for line in lines
        for x, y in line
        if left - SLACK <= x <= right + SLACK and top - SLACK <= y <= bottom + SLACK
    ]
    return min(inside, key=lambda point: point[1], default=(left, top))


def _number(number: int, at: tuple[float, float], radius: float, size: tuple[int, int]) -> str:
    """A plate above the place, inside the picture."""
    x = min(max(at[0], radius), size[0] - radius)
    y = min(max(at[1] - radius, radius), size[1] - radius)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        f'<text x="{x:.1f}" y="{y:.1f}" dy=".35em" text-anchor="middle">{number}</text>'
    )
