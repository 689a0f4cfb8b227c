"""Which pixels a polygon covers, held against exact arithmetic pixel by pixel; and which outlines cross themselves."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from inspect_kd.datasets.polygons import Corners, crosses_itself, inside_polygon, polygon_area

WIDTH, HEIGHT = 12, 10


def lies_on(pixel: tuple[int, int], start: Corners, end: Corners) -> bool:
    (x, y), (x0, y0), (x1, y1) = pixel, start, end
    on_line = (x1 - x0) * (y - y0) == (y1 - y0) * (x - x0)
    return bool(on_line and min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1))


def is_inside(pixel: tuple[int, int], corners: Corners) -> bool:
    """By the number of edges that a ray to the right crosses."""
    edges = list(zip(corners, np.roll(corners, -1, axis=0), strict=True))
    if any(lies_on(pixel, start, end) for start, end in edges):
        return True
    crossed = 0
    for (x0, y0), (x1, y1) in edges:
        if (y0 > pixel[1]) != (y1 > pixel[1]):
            crossed += int(x0) + Fraction(int((pixel[1] - y0) * (x1 - x0)), int(y1 - y0)) > pixel[0]
    return crossed % 2 == 1


def touches_itself(corners: Corners) -> bool:
    count = len(corners)
    pairs = ((corner, edge) for corner in range(count) for edge in range(count))
    return any(
        lies_on(tuple(corners[corner]), corners[edge], corners[(edge + 1) % count])
        for corner, edge in pairs
        if corner not in (edge, (edge + 1) % count)
    )


def test_pixels_inside_and_on_the_outline_are_covered() -> None:
    rng, compared = np.random.default_rng(0), 0
    for _ in range(600):
        count = int(rng.integers(3, 8))
        corners = np.stack([rng.integers(0, WIDTH + 1, count), rng.integers(0, HEIGHT + 1, count)], axis=1).astype(
            float
        )
        if crosses_itself(corners) or touches_itself(corners) or polygon_area(corners) < 1:
            continue
        compared += 1
        expected = [[is_inside((x, y), corners) for x in range(WIDTH)] for y in range(HEIGHT)]
        np.testing.assert_array_equal(inside_polygon(corners, (WIDTH, HEIGHT)), expected, err_msg=str(corners))
    assert compared > 150


def test_polygon_thinner_than_a_pixel_covers_its_line() -> None:
    level, upright = ([[1, 2.2], [9, 2.2], [9, 2.4], [1, 2.4]], [[3.2, 1], [3.4, 1], [3.4, 8], [3.2, 8]])
    assert np.argwhere(inside_polygon(np.array(level), (WIDTH, HEIGHT))).tolist() == [[2, x] for x in range(1, 10)]
    assert np.argwhere(inside_polygon(np.array(upright), (WIDTH, HEIGHT))).tolist() == [[y, 3] for y in range(1, 9)]


def test_whole_frame_is_covered_and_nothing_outside_it_is_written() -> None:
    frame = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], float)
    assert inside_polygon(frame, (WIDTH, HEIGHT)).all()
    border = np.array([[WIDTH, 0], [WIDTH, HEIGHT], [WIDTH - 0.2, HEIGHT]])
    assert not inside_polygon(border, (WIDTH, HEIGHT)).any()


def test_crossing_outline_is_found() -> None:
    assert crosses_itself(np.array([[0, 0], [5, 5], [5, 0], [0, 5]], float))
    assert not crosses_itself(np.array([[0, 0], [5, 0], [5, 5], [2, 1], [0, 5]], float))
