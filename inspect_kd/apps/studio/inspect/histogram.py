"""Histogram of scores with both thresholds as inline SVG: inspected parts above the line, held-out sound parts below it.

Unusual here: the axis has the range of the sliders, and its last bar counts all higher scores. The thresholds therefore keep their
place, however high the highest score is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.viewer import CSS_CLASSES
from inspect_kd.types import Thresholds

WIDTH, HEIGHT = 300, 118
AXIS_Y, FOOTER = 64, 16
BARS = 46
LAST_BAR_WIDTH = 12
MARGIN = 34
"""A label nearer to the edge is written on the other side of its line."""


def histogram(scores: Sequence[float], held_out: Sequence[float], thresholds: Thresholds, slider_max: float) -> str:
    """Draw the scores of inspected parts and of held-out sound parts. `slider_max` is the sliders' upper end."""
    plot_width = WIDTH - LAST_BAR_WIDTH
    step = plot_width / BARS

    def x(value: float) -> float:
        return min(value / slider_max, 1.0) * plot_width

    def bar_of(value: float) -> int:
        return BARS if value >= slider_max else max(0, int(value / slider_max * BARS))

    low, high, floor = x(thresholds.reinspect), x(thresholds.reject), HEIGHT - FOOTER
    shapes = [_rect("band-re", low, 14, high - low, floor - 14), _rect("band-ng", high, 14, WIDTH - high, floor - 14)]
    above, below = _count_scores(scores, bar_of), _count_scores(held_out, bar_of)
    room_above, room_below = AXIS_Y - 19, HEIGHT - FOOTER - AXIS_Y - 2
    for i in range(BARS + 1):
        left, width = (i * step, step - 0.8) if i < BARS else (plot_width + 2, LAST_BAR_WIDTH - 3)
        if above[i]:
            css_class = CSS_CLASSES[thresholds.decide((i + 0.5) * slider_max / BARS if i < BARS else slider_max * 1.01)]
            height = max(2.0, above[i] / max(above) * room_above)
            shapes.append(_rect(css_class, left, AXIS_Y - height, width, height))
        if below[i]:
            shapes.append(_rect("cal", left, AXIS_Y + 1, width, max(2.0, below[i] / max(below) * room_below)))
    shapes.append(f'<line class="axis" x1="0" x2="{WIDTH}" y1="{AXIS_Y}" y2="{AXIS_Y}"/>')
    shapes.append(_threshold_line(x(thresholds.reinspect), thresholds.reinspect, to_the_left=True))
    shapes.append(_threshold_line(x(thresholds.reject), thresholds.reject, to_the_left=False))
    for tick in (slider_max * i / 4 for i in range(5)):
        anchor = "start" if tick == 0 else "middle"
        label = f"{tick:.2g}" if tick < slider_max else f"≥ {tick:.2g}"
        shapes.append(
            f'<text x="{min(x(tick), WIDTH - 12):.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{label}</text>'
        )
    label = texts.HISTOGRAM.format(shown=len(scores), sound=len(held_out))
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
    )


def slider_range(thresholds: Thresholds) -> float:
    """The sliders' upper end: the highest threshold that may be chosen."""
    return thresholds.highest_allowed


def _threshold_line(at: float, value: float, *, to_the_left: bool) -> str:
    if at < MARGIN or at > WIDTH - MARGIN:
        to_the_left = at >= MARGIN
    anchor, dx = ("end", -4) if to_the_left else ("start", 4)
    return (
        f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{HEIGHT - FOOTER}"/>'
        f'<text class="limit" x="{at + dx:.1f}" y="11" text-anchor="{anchor}">{value:.2f}</text>'
    )


def _count_scores(scores: Sequence[float], bar_of: Callable[[float], int]) -> list[int]:
    counts = [0] * (BARS + 1)
    for score in scores:
        counts[bar_of(score)] += 1
    return counts


def _rect(css_class: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{css_class}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
