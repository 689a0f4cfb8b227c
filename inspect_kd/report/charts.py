"""Charts as inline SVG: they scale, they print, they need no script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inspect_kd.types import Thresholds

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 180, 34, 26
BARS = 48


def histogram(
    calibration: Sequence[float], sound: Sequence[float], defective: Sequence[float], limits: Thresholds
) -> str:
    """Scores on a logarithmic axis, both thresholds as lines; sound parts above the axis, defective ones below."""
    values = [*calibration, *sound, *defective]
    positive = [value for value in values if value > 0]
    low = math.log10(min([*positive, limits.reinspect]) * 0.9)
    high = math.log10(max([*positive, limits.reject]) * 1.1)
    step = (WIDTH - LEFT) / BARS

    def bar(value: float) -> int:
        place = (math.log10(max(value, 10**low)) - low) / (high - low)
        return min(BARS - 1, max(0, int(place * BARS)))

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT)

    rows = [("cal", calibration), ("sound", sound), ("bad", defective)]
    counts = {name: [0] * BARS for name, _ in rows}
    for name, scores in rows:
        for score in scores:
            counts[name][bar(score)] += 1
    upper = max(1, *(a + b for a, b in zip(counts["cal"], counts["sound"], strict=True)))
    lower = max(1, *counts["bad"])
    middle = HEIGHT * (0.5 if defective else 0.86)
    parts = []
    for i in range(BARS):
        left, base = LEFT + i * step, middle
        for name in ("cal", "sound"):
            tall = counts[name][i] / upper * (middle - 16)
            base -= tall
            parts.append(
                f'<rect class="{name}" x="{left:.1f}" y="{base:.1f}" width="{step - 1:.1f}" height="{tall:.1f}"/>'
            )
        deep = counts["bad"][i] / lower * (HEIGHT - BOTTOM - middle)
        parts.append(f'<rect class="bad" x="{left:.1f}" y="{middle:.1f}" width="{step - 1:.1f}" height="{deep:.1f}"/>')
    for name, value, anchor, dx in (("RE-INSPECT", limits.reinspect, "end", -4), ("NG", limits.reject, "start", 4)):
        at = x(value)
        parts.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="limit" x="{at + dx:.1f}" y="12" text-anchor="{anchor}">{name} {value:.2f}</text>')
    for tick in _ticks(10**low, 10**high):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{middle}" y2="{middle}"/>')
    label = f"Histogram of scores: {len(calibration)} calibration parts, {len(sound)} sound and {len(defective)} defective test parts"
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside the range."""
    candidates = [m * 10.0**e for e in range(-4, 5) for m in (1, 1.5, 2, 3, 5, 7)]
    inside = [tick for tick in candidates if low <= tick <= high]
    return inside if len(inside) <= 12 else inside[:: math.ceil(len(inside) / 12)]


def curve(points: Sequence[tuple[float, float]], name: str, digits: int = 3) -> str:
    """A line over the steps, with its last and its extreme values."""
    if len(points) < 2:
        return ""
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    tall = 120

    def place(step: float, value: float) -> str:
        across = LEFT + 14 + (step - steps[0]) / max(1.0, steps[-1] - steps[0]) * (WIDTH / 2 - LEFT - 24)
        return f"{across:.1f},{10 + (high - value) / span * (tall - 30):.1f}"

    line = " ".join(place(s, v) for s, v in points)
    return (
        f'<svg class="chart half" viewBox="0 0 {WIDTH // 2} {tall}" role="img" aria-label="{name}, last value {values[-1]:.{digits}f}">'
        f'<polyline points="{line}"/><text x="0" y="14">{high:.{digits}f}</text><text x="0" y="{tall - 18}">{low:.{digits}f}</text>'
        f'<text x="{WIDTH / 2}" y="{tall - 4}" text-anchor="end">step {steps[-1]:.0f}</text>'
        f'<text class="name" x="{LEFT + 14}" y="{tall - 4}">{name}</text></svg>'
    )
