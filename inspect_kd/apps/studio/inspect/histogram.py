"""Histogram of scores with both thresholds as inline SVG: inspected parts above the axis, held-out sound parts below it.

Unusual here: the axis has the range of the sliders, and its last bar counts all higher scores. The thresholds therefore keep their
place, however high the highest score is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.viewer import CSS_CLASSES
from inspect_kd.types import Thresholds, is_not_found

WIDTH, HEIGHT = 300, 118
AXIS_Y, FOOTER = 64, 16
"""Position of the axis, and height of the tick labels at the bottom."""
BARS = 46
LAST_BAR_WIDTH = 12
MARGIN = 34
"""The label of a threshold that is nearer than this to an edge is written on the other side of its line."""


def histogram(scores: Sequence[float], held_out: Sequence[float], thresholds: Thresholds, slider_max: float) -> str:
    """Draw the scores of inspected parts and of held-out sound parts; parts that were not found have none.

    `slider_max` is the sliders' upper end.
    """
    scores, held_out = ([score for score in values if not is_not_found(score)] for values in (scores, held_out))
    plot_width = WIDTH - LAST_BAR_WIDTH
    step = plot_width / BARS

    def x(value: float) -> float:
        return min(value / slider_max, 1.0) * plot_width

    def bar_index(value: float) -> int:
        return BARS if value >= slider_max else max(0, int(value / slider_max * BARS))

    reinspect_x, reject_x, band_height = x(thresholds.reinspect), x(thresholds.reject), HEIGHT - FOOTER - 14
    shapes = [
        _rect("band-re", reinspect_x, 14, reject_x - reinspect_x, band_height),
        _rect("band-ng", reject_x, 14, WIDTH - reject_x, band_height),
    ]
    inspected_counts, held_out_counts = _count_scores(scores, bar_index), _count_scores(held_out, bar_index)
    height_above, height_below = AXIS_Y - 19, HEIGHT - FOOTER - AXIS_Y - 2
    for i in range(BARS + 1):
        left, width = (i * step, step - 0.8) if i < BARS else (plot_width + 2, LAST_BAR_WIDTH - 3)
        if inspected_counts[i]:
            css_class = CSS_CLASSES[thresholds.decide((i + 0.5) * slider_max / BARS if i < BARS else slider_max * 1.01)]
            height = max(2.0, inspected_counts[i] / max(inspected_counts) * height_above)
            shapes.append(_rect(css_class, left, AXIS_Y - height, width, height))
        if held_out_counts[i]:
            height = max(2.0, held_out_counts[i] / max(held_out_counts) * height_below)
            shapes.append(_rect("cal", left, AXIS_Y + 1, width, height))
    shapes.append(f'<line class="axis" x1="0" x2="{WIDTH}" y1="{AXIS_Y}" y2="{AXIS_Y}"/>')
    shapes.append(_threshold_line(reinspect_x, thresholds.reinspect, to_the_left=True))
    shapes.append(_threshold_line(reject_x, thresholds.reject, to_the_left=False))
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


def _threshold_line(at: float, value: float, *, to_the_left: bool) -> str:
    if at < MARGIN or at > WIDTH - MARGIN:
        to_the_left = at >= MARGIN
    anchor, dx = ("end", -4) if to_the_left else ("start", 4)
    return (
        f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{HEIGHT - FOOTER}"/>'
        f'<text class="limit" x="{at + dx:.1f}" y="11" text-anchor="{anchor}">{value:.2f}</text>'
    )


def _count_scores(scores: Sequence[float], bar_index: Callable[[float], int]) -> list[int]:
    counts = [0] * (BARS + 1)
    for score in scores:
        counts[bar_index(score)] += 1
    return counts


def _rect(css_class: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{css_class}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
