"""Numbers in recipes and on the command line: what is not a number of the expected kind is refused in one line."""

from __future__ import annotations

import pytest

from inspect_kd.cli.train import smallest_defect_change
from inspect_kd.config import load_recipe
from inspect_kd.errors import UsageError


@pytest.mark.parametrize(
    "setting", ["data.smallest_defect", "data.tile", "data.bits", "fit.steps", "fit.learning_rate"]
)
@pytest.mark.parametrize("value", ["true", "false"])
def test_true_and_false_are_no_numbers(setting: str, value: str) -> None:
    with pytest.raises(
        UsageError, match=rf"{setting}: input should be a number, not true or false \(found {value.title()}\)$"
    ):
        load_recipe("omni_ad", [f"{setting}={value}"])


def test_switches_take_true_and_false() -> None:
    assert load_recipe("omni_ad", ["distill.tune_decoder=true"]).distill.tune_decoder


@pytest.mark.parametrize(
    "text", ["9" * 5000, "0", "000", "-1", "1.5", "", "px", "12 mm", "²"], ids=lambda text: text[:5]
)
def test_smallest_defect_that_is_no_number_of_pixels_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--smallest-defect .{0,40}: give a number of pixels, for example 12px$"):
        smallest_defect_change(text)


@pytest.mark.parametrize("text", ["12", "12px", " 12 px ", "012"])
def test_smallest_defect_is_a_number_of_pixels(text: str) -> None:
    assert smallest_defect_change(text) == ["data.smallest_defect=12"]
