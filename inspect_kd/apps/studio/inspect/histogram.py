"""Histogram of scores with both thresholds as inline SVG: inspected parts above the line, held-out sound parts below it.

Unusual here: the axis is that of the sliders. One bar at its end counts everything beyond, so that the thresholds stay in the
middle of the picture however high the worst score is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inspect_kd.apps.studio import texts
from inspect_kd.types import Decision, Thresholds

WIDTH, HEIGHT, MIDDLE, FOOT = 300, 118, 64, 16
BARS = 46
BEYOND = 12
"""Width of the last bar's place."""
MARGIN = 34
"""A label this near to the edge is written on the other side of its line."""
KINDS = {Decision.OK: "ok", Decision.REINSPECT: "re", Decision.NG: "ng"}


def histogram(scores: Sequence[float], held_out: Sequence[float], thresholds: Thresholds, most: float) -> str:
    """Draw both sets of scores. `most` is the sliders' upper end."""
    plot = WIDTH - BEYOND
    step = plot / BARS

    def x(value: float) -> float:
        return min(value / most, 1.0) * plot

    def bar(value: float) -> int:
        return BARS if value >= most else max(0, int(value / most * BARS))

    low, high, floor = x(thresholds.reinspect), x(thresholds.reject), HEIGHT - FOOT
    parts = [_rect("band-re", low, 14, high - low, floor - 14), _rect("band-ng", high, 14, WIDTH - high, floor - 14)]
    above, below = _counts(scores, bar), _counts(held_out, bar)
    room_above, room_below = MIDDLE - 19, HEIGHT - FOOT - MIDDLE - 2
    for i in range(BARS + 1):
        left, width = (i * step, step - 0.8) if i < BARS else (plot + 2, BEYOND - 3)
        if above[i]:
            kind = KINDS[thresholds.decide((i + 0.5) * most / BARS if i < BARS else most * 1.01)]
            height = max(2.0, above[i] / max(above) * room_above)
            parts.append(_rect(kind, left, MIDDLE - height, width, height))
        if below[i]:
            parts.append(_rect("cal", left, MIDDLE + 1, width, max(2.0, below[i] / max(below) * room_below)))
    parts.append(f'<line class="axis" x1="0" x2="{WIDTH}" y1="{MIDDLE}" y2="{MIDDLE}"/>')
    parts.append(_threshold_line(x(thresholds.reinspect), thresholds.reinspect, to_the_left=True))
    parts.append(_threshold_line(x(thresholds.reject), thresholds.reject, to_the_left=False))
    for tick in (most * i / 4 for i in range(5)):
        anchor = "start" if tick == 0 else "middle"
        label = f"{tick:.2g}" if tick < most else f"≥ {tick:.2g}"
        parts.append(f'<text x="{min(x(tick), WIDTH - 12):.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{label}</text>')
    label = texts.HISTOGRAM.format(shown=len(scores), sound=len(held_out))
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def slider_range(thresholds: Thresholds) -> float:
    """The sliders' upper end: the highest threshold that may be chosen."""
    return thresholds.highest_allowed


def _threshold_line(at: float, value: float, *, to_the_left: bool) -> str:
    if at < MARGIN or at > WIDTH - MARGIN:
        to_the_left = at >= MARGIN
    anchor, dx = ("end", -4) if to_the_left else ("start", 4)
    return (
        f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{HEIGHT - FOOT}"/>'
        f'<text class="limit" x="{at + dx:.1f}" y="11" text-anchor="{anchor}">{value:.2f}</text>'
    )


def _counts(scores: Sequence[float], bar: Callable[[float], int]) -> list[int]:
    counts = [0] * (BARS + 1)
    for score in scores:
        counts[bar(score)] += 1
    return counts


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
