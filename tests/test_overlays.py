"""`inspect-kd predict --overlays`: an overlay replaces no file, also where several processes write into one folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inspect_kd import overlay
from inspect_kd.cli.predict import save_overlay
from inspect_kd.types import Decision, ImageU8, Inspection, Thresholds


@pytest.fixture
def inspection() -> Inspection:
    return Inspection(
        score=0.1,
        decision=Decision.OK,
        heatmap=np.zeros((8, 8), np.float32),
        regions=(),
        thresholds=Thresholds(reinspect=1.0, reject=1.0),
        image=None,
        image_size=(40, 30),
        milliseconds=1.0,
    )


def test_overlay_of_another_process_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inspection: Inspection
) -> None:
    """The other process writes its overlay after this one has begun with its own."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))
    out = tmp_path / "out"
    out.mkdir()
    draw = overlay.draw

    def draw_slowly(image: ImageU8, inspection: Inspection) -> ImageU8:
        (out / "a.jpg").write_bytes(b"theirs")
        return draw(image, inspection)

    monkeypatch.setattr(overlay, "draw", draw_slowly)
    assert save_overlay(tmp_path / "a.png", inspection, out, None) == 2
    assert (out / "a.jpg").read_bytes() == b"theirs"
    assert cv2.imread(str(out / "a-2.jpg")).shape == (30, 40, 3)
    assert len(list(out.iterdir())) == 2
