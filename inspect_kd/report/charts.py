"""Draw charts as inline SVG, which can be scaled and printed and needs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from inspect_kd.types import Thresholds, is_not_found

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 180, 34, 26
"""Size of a histogram, its left margin, and the height of the tick labels at the bottom."""
BARS = 48
NOT_FOUND_WIDTH = 66
"""Width of the column for parts that were not found."""
NOT_FOUND_ROWS = (("cal", "calibration parts"), ("sound", "sound"), ("bad", "defective parts"))


def draw_histogram(
    calibration: Sequence[float], sound: Sequence[float], defective: Sequence[float], thresholds: Thresholds
) -> str:
    """Draw scores on a logarithmic axis with both thresholds; sound parts above the axis, defective ones below.

    Parts that were not found have no score: they stand in a column of their own, right of the axis.
    """
    values = [score for score in (*calibration, *sound, *defective) if not is_not_found(score)]
    has_not_found = len(values) < len(calibration) + len(sound) + len(defective)
    end = WIDTH - NOT_FOUND_WIDTH if has_not_found else WIDTH
    positive = [value for value in values if value > 0]
    low = math.log10(min([*positive, thresholds.reinspect]) * 0.9)
    high = math.log10(max([*positive, thresholds.reject]) * 1.1)
    step = (end - LEFT) / BARS

    def bar_of(value: float) -> int:
        if is_not_found(value):
            return BARS
        share = (math.log10(max(value, 10**low)) - low) / (high - low)
        return min(BARS - 1, max(0, int(share * BARS)))

    def x_of(value: float) -> float:
        return LEFT + (math.log10(value) - low) / (high - low) * (end - LEFT)

    groups = [("cal", calibration), ("sound", sound), ("bad", defective)]
    counts = {name: [0] * (BARS + 1) for name, _ in groups}
    for name, scores in groups:
        for score in scores:
            counts[name][bar_of(score)] += 1
    max_above = max(1, *(a + b for a, b in zip(counts["cal"], counts["sound"], strict=True)))
    max_below = max(1, *counts["bad"])
    axis_y = HEIGHT * (0.5 if defective else 0.86)
    elements = []
    for i in range(BARS + has_not_found):
        left, base = (LEFT + i * step if i < BARS else end + NOT_FOUND_WIDTH / 2 - step), axis_y
        width = step - 1 if i < BARS else 2 * step
        for name in ("cal", "sound"):
            height = counts[name][i] / max_above * (axis_y - 16)
            base -= height
            elements.append(
                f'<rect class="{name}" x="{left:.1f}" y="{base:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            )
        height = counts["bad"][i] / max_below * (HEIGHT - BOTTOM - axis_y)
        elements.append(
            f'<rect class="bad" x="{left:.1f}" y="{axis_y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        )
    for name, value, anchor, dx in (
        ("RE-INSPECT", thresholds.reinspect, "end", -4),
        ("NG", thresholds.reject, "start", 4),
    ):
        at = x_of(value)
        elements.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{HEIGHT - BOTTOM}"/>')
        elements.append(
            f'<text class="limit" x="{at + dx:.1f}" y="12" text-anchor="{anchor}">{name} {value:.2f}</text>'
        )
    for tick in _ticks(10**low, 10**high):
        elements.append(f'<text x="{x_of(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:g}</text>')
    elements.append(f'<line class="axis" x1="{LEFT}" x2="{end}" y1="{axis_y}" y2="{axis_y}"/>')
    label = f"Histogram of scores: {len(calibration)} calibration parts, {len(sound)} sound and {len(defective)} defective test parts"
    if has_not_found:
        middle = end + NOT_FOUND_WIDTH / 2
        elements.append(f'<line class="axis" x1="{end + 10}" x2="{WIDTH}" y1="{axis_y}" y2="{axis_y}"/>')
        elements.append(f'<text x="{middle + 5:.1f}" y="{HEIGHT - 8}" text-anchor="middle">not found</text>')
        label += (
            ", of these " + ", ".join(f"{counts[name][BARS]} {words}" for name, words in NOT_FOUND_ROWS) + " not found"
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(elements)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """List round numbers in a range, about twelve at most."""
    candidates = [mantissa * 10.0**exponent for exponent in range(-4, 5) for mantissa in (1, 1.5, 2, 3, 5, 7)]
    inside = [tick for tick in candidates if low <= tick <= high]
    return inside if len(inside) <= 12 else inside[:: math.ceil(len(inside) / 12)]


def draw_curve(points: Sequence[tuple[float, float]], name: str, digits: int = 3) -> str:
    """Draw values over steps as a line, labelled with its extremes; empty for fewer than two points."""
    if len(points) < 2:
        return ""
    name = escape(name)
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    height = 120

    def position(step: float, value: float) -> str:
        x = LEFT + 14 + (step - steps[0]) / max(1.0, steps[-1] - steps[0]) * (WIDTH / 2 - LEFT - 24)
        return f"{x:.1f},{10 + (high - value) / span * (height - 30):.1f}"

    line = " ".join(position(s, v) for s, v in points)
    return (
        f'<svg class="chart half" viewBox="0 0 {WIDTH // 2} {height}" role="img" aria-label="{name}, last value {values[-1]:.{digits}f}">'
        f'<polyline points="{line}"/><text x="0" y="14">{high:.{digits}f}</text><text x="0" y="{height - 18}">{low:.{digits}f}</text>'
        f'<text x="{WIDTH / 2}" y="{height - 4}" text-anchor="end">step {steps[-1]:.0f}</text>'
        f'<text class="name" x="{LEFT + 14}" y="{height - 4}">{name}</text></svg>'
    )


@dataclass(frozen=True, slots=True)
class Point:
    """A named point of a scatter plot."""

    name: str
    x: float
    y: float
    is_ours: bool
    """Whether it is a model of inspect-kd, not one that it is compared with."""


def draw_scatter(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Draw named points over a logarithmic x axis; overlapping labels are moved down."""
    if not points:
        return ""
    height, label_width = 300, 120
    low, high = math.log10(min(p.x for p in points) * 0.8), math.log10(max(p.x for p in points) * 1.25)
    bottom, top = min(p.y for p in points), max(p.y for p in points)
    margin = 0.08 * (top - bottom) or 0.05
    bottom, top = bottom - margin, top + margin

    def position(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - low) / (high - low) * (WIDTH - LEFT - label_width - 12)
        return LEFT + 12 + along, 12 + (top - y) / (top - bottom) * (height - BOTTOM - 28)

    elements = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{height - BOTTOM - 8}" y2="{height - BOTTOM - 8}"/>']
    for tick in _ticks(10**low, 10**high):
        x, _ = position(tick, bottom)
        elements.append(f'<text x="{x:.1f}" y="{height - 18}" text-anchor="middle">{tick:g}</text>')
    for y in (bottom + margin, (bottom + top) / 2, top - margin):
        elements.append(f'<text x="0" y="{position(points[0].x, y)[1] + 4:.1f}">{y:.2f}</text>')
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (-p.y, p.x)):
        x, y = position(point.x, point.y)
        label_y = y + 4
        while any(abs(label_y - other_y) < 12 and abs(x - other_x) < 130 for other_x, other_y in placed):
            label_y += 12
        placed.append((x, label_y))
        kind = "ours" if point.is_ours else "peer"
        elements.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        elements.append(f'<text class="{kind}" x="{x + 8:.1f}" y="{label_y:.1f}">{escape(point.name)}</text>')
    elements.append(f'<text class="name" x="{LEFT + 12}" y="{height - 3}">{escape(x_label)}</text>')
    label = f"{y_label} against {x_label}"
    return (
        f'<figure class="plot"><figcaption>{escape(y_label)}</figcaption><svg class="chart" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(label)}">{"".join(elements)}</svg></figure>'
    )


def draw_agreement(
    pairs: Sequence[tuple[float, float]], thresholds: Sequence[float], x_label: str, y_label: str
) -> str:
    """Draw each part's score before and after a change; unchanged scores lie on the diagonal. Thresholds are drawn on both axes."""
    if not pairs:
        return ""
    side, margin = 340, 34
    highest = max([*(score for pair in pairs for score in pair), *thresholds]) * 1.05

    def along(value: float) -> float:
        return margin + min(max(value / highest, 0.0), 1.0) * (side - margin - 8)

    elements = [f'<line class="axis" x1="{margin}" y1="{side - margin}" x2="{side - 8}" y2="8"/>']
    for threshold in thresholds:
        at = along(threshold)
        elements.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="8" y2="{side - margin}"/>')
        elements.append(
            f'<line class="limit" y1="{side - at:.1f}" y2="{side - at:.1f}" x1="{margin}" x2="{side - 8}"/>'
        )
    for x, y in pairs:
        elements.append(
            f'<circle class="ours" cx="{along(x):.1f}" cy="{side - along(y):.1f}" r="2.5" fill-opacity=".55"/>'
        )
    elements.append(f'<text class="name" x="{margin}" y="{side - 8}">{escape(x_label)}, 0 to {highest:.2f}</text>')
    elements.append(f'<text class="name" x="{margin + 4}" y="18">{escape(y_label)}</text>')
    label = f"{len(pairs)} scores, {y_label} against {x_label}"
    return f'<svg class="chart half" viewBox="0 0 {side} {side}" role="img" aria-label="{escape(label)}">{"".join(elements)}</svg>'
