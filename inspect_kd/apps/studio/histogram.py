"""Scores against both thresholds as inline SVG: held-out sound parts below the line, the parts on the desk above it.

Unusual here: the axis is that of the sliders, and one bar at its end holds whatever lies beyond, so that the limits stay in
the middle of the picture however bad the worst part is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inspect_kd.apps.studio import texts
from inspect_kd.types import Decision, Thresholds

WIDTH, HEIGHT, MIDDLE, FOOT = 300, 118, 64, 16
BARS = 46
BEYOND = 12
"""Width of the last bar's place."""


def histogram(scores: Sequence[float], held_out: Sequence[float], limits: Thresholds, most: float) -> str:
    """`most`: the sliders' upper end."""
    plot = WIDTH - BEYOND
    step = plot / BARS

    def x(value: float) -> float:
        return min(value / most, 1.0) * plot

    def bar(value: float) -> int:
        return BARS if value >= most else max(0, int(value / most * BARS))

    low, high, floor = x(limits.reinspect), x(limits.reject), HEIGHT - FOOT
    parts = [_rect("band-re", low, 14, high - low, floor - 14), _rect("band-ng", high, 14, WIDTH - high, floor - 14)]
    above, below = _counts(scores, bar), _counts(held_out, bar)
    tall, deep = MIDDLE - 19, HEIGHT - FOOT - MIDDLE - 2
    for i in range(BARS + 1):
        left, wide = (i * step, step - 0.8) if i < BARS else (plot + 2, BEYOND - 3)
        if above[i]:
            kind = _kind(limits, (i + 0.5) * most / BARS if i < BARS else most * 1.01)
            height = max(2.0, above[i] / max(above) * tall)
            parts.append(_rect(kind, left, MIDDLE - height, wide, height))
        if below[i]:
            parts.append(_rect("cal", left, MIDDLE + 1, wide, max(2.0, below[i] / max(below) * deep)))
    parts.append(f'<line class="axis" x1="0" x2="{WIDTH}" y1="{MIDDLE}" y2="{MIDDLE}"/>')
    for value, anchor, dx in ((limits.reinspect, "end", -4), (limits.reject, "start", 4)):
        at = x(value)
        # Near the rim the figure changes sides, or it would be cut.
        anchor, dx = ("start", 4) if at < 34 else ("end", -4) if at > WIDTH - 34 else (anchor, dx)
        parts.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{HEIGHT - FOOT}"/>')
        parts.append(f'<text class="limit" x="{at + dx:.1f}" y="11" text-anchor="{anchor}">{value:.2f}</text>')
    for tick in (most * i / 4 for i in range(5)):
        anchor = "start" if tick == 0 else "middle"
        shown = f"{tick:.2g}" if tick < most else f"≥ {tick:.2g}"
        parts.append(f'<text x="{min(x(tick), WIDTH - 12):.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{shown}</text>')
    label = texts.HISTOGRAM.format(shown=len(scores), sound=len(held_out))
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def slider_range(limits: Thresholds) -> float:
    """Room to both sides of the artifact's own limits."""
    return limits.highest_allowed


def _counts(scores: Sequence[float], bar: Callable[[float], int]) -> list[int]:
    counts = [0] * (BARS + 1)
    for score in scores:
        counts[bar(score)] += 1
    return counts


def _kind(limits: Thresholds, value: float) -> str:
    return {Decision.OK: "ok", Decision.REINSPECT: "re", Decision.NG: "ng"}[limits.decide(value)]


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
