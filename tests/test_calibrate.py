"""Thresholds keep their promised rates, in simulations and in edge cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from inspect_kd.calibrate import (
    POOLED,
    Calibration,
    calibrate,
    calibrate_scaled,
    compute_thresholds,
    conformal_threshold,
    parts_needed,
)
from inspect_kd.errors import BadInput
from inspect_kd.types import Decision, Thresholds

DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.normal(5, 1, n),
    "heavy-tailed": lambda rng, n: np.abs(rng.standard_cauchy(n)),
    "skewed": lambda rng, n: rng.lognormal(0, 1.5, n),
    "bimodal": lambda rng, n: np.where(rng.random(n) < 0.3, rng.normal(2, 0.1, n), rng.normal(9, 1, n)),
    "few values": lambda rng, n: rng.integers(1, 6, n).astype(float),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (99, 0.01), (150, 0.02), (7, 0.05)])
def test_promise_holds_for_any_distribution(name: str, n: int, rate: float) -> None:
    rng = np.random.default_rng(7)
    exceeding_shares, trials = [], 1500
    for _ in range(trials):
        scores = DISTRIBUTIONS[name](rng, n)
        threshold, promise = conformal_threshold(scores, rate)
        exceeding_shares.append(np.mean(DISTRIBUTIONS[name](rng, 200) > threshold))
    # Three standard errors of the simulated mean: the promise is an expectation over calibrations.
    assert np.mean(exceeding_shares) <= promise + 3 * np.std(exceeding_shares) / math.sqrt(trials)


@pytest.mark.parametrize("possible_scores", [4, 10])
def test_promise_holds_for_tied_scores_in_another_runtime(possible_scores: int) -> None:
    """The other runtime's scores differ slightly; of 4 or 10 possible scores, many equal the threshold."""
    rng = np.random.default_rng(11)
    score_values = np.sort(rng.uniform(0.02, 0.05, possible_scores))
    rejected_shares, not_ok_shares, trials = [], [], 400
    for _ in range(trials):
        calibration = calibrate({"a": rng.choice(score_values, 150)}, reject_rate=0.02, reinspect_rate=0.05)
        category_thresholds = calibration.for_category("a")
        scores = np.float32(rng.choice(score_values, 200) / calibration.scale) + rng.uniform(-2e-6, 2e-6, 200)
        decisions = [category_thresholds.thresholds.decide(float(score)) for score in scores]
        rejected_shares.append(np.mean([decision is Decision.NG for decision in decisions]))
        not_ok_shares.append(np.mean([decision is not Decision.OK for decision in decisions]))
    for shares, promise in (
        (rejected_shares, category_thresholds.reject_promise),
        (not_ok_shares, category_thresholds.reinspect_promise),
    ):
        assert np.mean(shares) <= promise + 3 * np.std(shares) / math.sqrt(trials)


def test_identical_scores_a_rounding_above_the_threshold_are_ok() -> None:
    calibration = calibrate({"a": [0.04] * 150}, reject_rate=0.02, reinspect_rate=0.05)
    rounded_up = float(np.nextafter(np.nextafter(np.float32(0.04 / calibration.scale), np.float32(9)), np.float32(9)))
    assert calibration.for_category(None).thresholds.decide(rounded_up) is Decision.OK
    scaled = calibrate_scaled(1.0, {"a": [1.0] * 150}, reject_rate=0.02, reinspect_rate=0.05)
    assert scaled.for_category("a").thresholds.decide(1.00000024) is Decision.OK
    assert scaled.for_category("a").thresholds.decide(1.001) is Decision.NG


def test_promise_is_tight_where_scores_are_continuous() -> None:
    rng = np.random.default_rng(3)
    rates = [np.mean(rng.normal(size=400) > conformal_threshold(rng.normal(size=99), 0.05)[0]) for _ in range(800)]
    assert 0.04 < np.mean(rates) <= 0.055


def test_promise_depends_on_the_number_of_parts() -> None:
    assert parts_needed(0.01) == 99
    assert parts_needed(0.05) == 19
    of_9_parts = compute_thresholds(list(range(1, 10)), reject_rate=0.01, reinspect_rate=0.05)
    assert of_9_parts.promises_less
    assert of_9_parts.reject_promise == pytest.approx(0.1)
    assert "99 held-out sound parts" in of_9_parts.describe()
    of_99_parts = compute_thresholds(list(range(1, 100)), reject_rate=0.01, reinspect_rate=0.05)
    assert not of_99_parts.promises_less
    assert of_99_parts.thresholds == Thresholds(reinspect=95, reject=99)


def test_too_few_parts_widen_the_reinspect_band() -> None:
    category_thresholds = compute_thresholds([1.0, 2.0, 3.0], reject_rate=0.01, reinspect_rate=0.05)
    assert category_thresholds.thresholds == Thresholds(reinspect=3.0, reject=4.0)


def test_scores_are_decided_by_thresholds_and_nan_is_ng() -> None:
    thresholds = Thresholds(reinspect=0.8, reject=1.0)
    decisions = [thresholds.decide(score) for score in (0.5, 0.8, 0.9, 1.0, 1.1, math.inf, math.nan)]
    assert decisions == [Decision.OK, Decision.OK, Decision.REINSPECT, Decision.REINSPECT, *[Decision.NG] * 3]


def test_pooled_reject_threshold_is_one() -> None:
    rng = np.random.default_rng(0)
    calibration = calibrate({"a": rng.random(80), "b": 3 + rng.random(80)}, reject_rate=0.01, reinspect_rate=0.05)
    assert calibration.for_category(None).thresholds.reject == pytest.approx(1.0)
    assert calibration.for_category("a").thresholds.reject < calibration.for_category("b").thresholds.reject


def test_calibration_survives_json() -> None:
    calibration = calibrate({"a": [1.0, 2.0], "b": [3.0, 4.0]}, reject_rate=0.01, reinspect_rate=0.05)
    restored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert restored.limits == calibration.limits


def test_unknown_category_is_refused_with_the_known_ones() -> None:
    calibration = calibrate({"a": [1.0, 2.0], "b": [3.0, 4.0]}, reject_rate=0.01, reinspect_rate=0.05)
    with pytest.raises(BadInput, match="there is one for: a, b"):
        calibration.for_category("c")


@pytest.mark.parametrize("value", [math.nan, math.inf, -5.0])
def test_impossible_thresholds_are_refused(value: float) -> None:
    content = calibrate({"a": [1.0, 2.0]}, reject_rate=0.01, reinspect_rate=0.05).to_json()
    content["limits"][POOLED]["thresholds"]["reject"] = value
    with pytest.raises(BadInput, match="impossible thresholds"):
        Calibration.from_json(content)


@pytest.mark.parametrize(
    ("scores", "reject_rate", "reinspect_rate", "reason"),
    [
        ([1.0, math.nan], 0.01, 0.05, "finite"),
        ([0.0, 0.0], 0.01, 0.05, "collapsed"),
        ([1.0], 0.05, 0.01, "must not be below"),
    ],
)
def test_unusable_scores_or_rates_are_refused(
    scores: list[float], reject_rate: float, reinspect_rate: float, reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        calibrate({"a": scores}, reject_rate=reject_rate, reinspect_rate=reinspect_rate)


def test_excessive_pooled_threshold_is_refused() -> None:
    content = calibrate({"a": [1.0, 2.0, 3.0]}, reject_rate=0.01, reinspect_rate=0.05).to_json()
    content["limits"][POOLED]["thresholds"]["reject"] = 1e9
    with pytest.raises(BadInput, match=r"pooled reject threshold is 1e\+09"):
        Calibration.from_json(content)
