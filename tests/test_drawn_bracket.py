"""The drawn bracket lies at any angle, is never cut by the border, and is aligned by its silhouette."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inspect_kd.datasets.alignment import choose_alignment
from inspect_kd.datasets.alignment.silhouette import Silhouette, find_silhouette
from inspect_kd.datasets.drawn import draw_part
from inspect_kd.types import ImageU8


def draw_brackets(first: int, count: int, size: int, kind: str | None = None) -> list[ImageU8]:
    return [draw_part("bracket", (5, number), kind, size).image for number in range(first, first + count)]


@pytest.mark.parametrize("size", [128, 256])
def test_auto_aligns_brackets_by_silhouette_and_finds_all_sound_ones(size: int) -> None:
    images = draw_brackets(0, 24, size)
    choice = choose_alignment(images, "auto")
    alignment = choice.chosen.alignment
    assert choice.chosen.method == "silhouette" and alignment is not None, choice.describe()
    found = [alignment.locate(image) for image in images + draw_brackets(100, 12, size)]
    assert [each.fault for each in found] == [None] * len(found)
    quadrants = {
        int(math.atan2(each.pose.matrix[1, 0], each.pose.matrix[0, 0]) // (math.pi / 2)) for each in found if each.pose
    }
    assert quadrants == {-2, -1, 0, 1}, "brackets lie at any angle"
    broken = [alignment.locate(image).fault for image in draw_brackets(0, 4, size, "broken_end")]
    assert all(fault and "agrees with the reference by" in fault.reason for fault in broken)


def test_brackets_are_shifted_and_never_cut_by_the_border() -> None:
    silhouettes = [find_silhouette(image) for image in draw_brackets(0, 30, 96)]
    parts = [each for each in silhouettes if isinstance(each, Silhouette)]
    assert len(parts) == len(silhouettes) and all(each.border_share == 0 for each in parts)
    spread = np.ptp([(each.x / 96, each.y / 96) for each in parts], axis=0)
    assert (spread > 0.15).all()
