"""The promise of the thresholds, by simulation and by its edge cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from inspect_kd.calibrate import POOLED, Calibration, calibrate, conformal_limit, limits_of, limits_on, parts_needed
from inspect_kd.errors import BadInput
from inspect_kd.types import Decision, Thresholds

DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.normal(5, 1, n),
    "heavy": lambda rng, n: np.abs(rng.standard_cauchy(n)),
    "skewed": lambda rng, n: rng.lognormal(0, 1.5, n),
    "two humps": lambda rng, n: np.where(rng.random(n) < 0.3, rng.normal(2, 0.1, n), rng.normal(9, 1, n)),
    "few values": lambda rng, n: rng.integers(1, 6, n).astype(float),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (99, 0.01), (150, 0.02), (7, 0.05)])
def test_promise_holds_for_any_distribution(name: str, n: int, rate: float) -> None:
    rng = np.random.default_rng(7)
    exceeded, trials = [], 1500
    for _ in range(trials):
        scores = DISTRIBUTIONS[name](rng, n)
        limit, promise = conformal_limit(scores, rate)
        exceeded.append(np.mean(DISTRIBUTIONS[name](rng, 200) > limit))
    # Three standard errors of the simulated mean: the promise is an expectation over calibrations.
    assert np.mean(exceeded) <= promise + 3 * np.std(exceeded) / math.sqrt(trials)


@pytest.mark.parametrize("values", [4, 10])
def test_the_promise_holds_for_tied_scores_in_another_runtime(values: int) -> None:
    """The same part scores a few roundings higher there, and one in four, or in ten, has the score that is the limit."""
    rng = np.random.default_rng(11)
    known = np.sort(rng.uniform(0.02, 0.05, values))
    rejected, stopped, trials = [], [], 400
    for _ in range(trials):
        calibration = calibrate({"a": rng.choice(known, 150)}, reject_rate=0.02, reinspect_rate=0.05)
        limits = calibration.limits_for("a")
        scores = np.float32(rng.choice(known, 200) / calibration.scale) + rng.uniform(-2e-6, 2e-6, 200)
        decisions = [limits.thresholds.decide(float(score)) for score in scores]
        rejected.append(np.mean([decision is Decision.NG for decision in decisions]))
        stopped.append(np.mean([decision is not Decision.OK for decision in decisions]))
    for shares, promise in ((rejected, limits.reject_promise), (stopped, limits.reinspect_promise)):
        assert np.mean(shares) <= promise + 3 * np.std(shares) / math.sqrt(trials)


def test_identical_scores_one_rounding_above_the_limit_are_ok() -> None:
    calibration = calibrate({"a": [0.04] * 150}, reject_rate=0.02, reinspect_rate=0.05)
    higher = float(np.nextafter(np.nextafter(np.float32(0.04 / calibration.scale), np.float32(9)), np.float32(9)))
    assert calibration.limits_for(None).thresholds.decide(higher) is Decision.OK
    again = limits_on(1.0, {"a": [1.0] * 150}, reject_rate=0.02, reinspect_rate=0.05)
    assert again.limits_for("a").thresholds.decide(1.00000024) is Decision.OK
    assert again.limits_for("a").thresholds.decide(1.001) is Decision.NG


def test_promise_is_tight_where_scores_are_continuous() -> None:
    rng = np.random.default_rng(3)
    rates = [np.mean(rng.normal(size=400) > conformal_limit(rng.normal(size=99), 0.05)[0]) for _ in range(800)]
    assert 0.04 < np.mean(rates) <= 0.055


def test_what_n_allows() -> None:
    assert parts_needed(0.01) == 99
    assert parts_needed(0.05) == 19
    few = limits_of(list(range(1, 10)), reject_rate=0.01, reinspect_rate=0.05)
    assert few.short
    assert few.reject_promise == pytest.approx(0.1)
    assert "99 held-out sound parts" in few.sentence()
    enough = limits_of(list(range(1, 100)), reject_rate=0.01, reinspect_rate=0.05)
    assert not enough.short
    assert enough.thresholds == Thresholds(reinspect=95, reject=99)


def test_too_few_parts_widen_the_band_for_people_not_the_promise() -> None:
    limits = limits_of([1.0, 2.0, 3.0], reject_rate=0.01, reinspect_rate=0.05)
    assert limits.thresholds == Thresholds(reinspect=3.0, reject=4.0)


def test_decisions() -> None:
    thresholds = Thresholds(reinspect=0.8, reject=1.0)
    answers = [thresholds.decide(score) for score in (0.5, 0.8, 0.9, 1.0, 1.1, math.inf, math.nan)]
    assert answers == [Decision.OK, Decision.OK, Decision.REINSPECT, Decision.REINSPECT, *[Decision.NG] * 3]


def test_pooled_reject_threshold_is_one() -> None:
    rng = np.random.default_rng(0)
    calibration = calibrate({"a": rng.random(80), "b": 3 + rng.random(80)}, reject_rate=0.01, reinspect_rate=0.05)
    assert calibration.limits_for(None).thresholds.reject == pytest.approx(1.0)
    assert calibration.limits_for("a").thresholds.reject < calibration.limits_for("b").thresholds.reject
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert again.limits == calibration.limits
    with pytest.raises(BadInput, match="there is one for: a, b"):
        calibration.limits_for("c")


@pytest.mark.parametrize("lie", [math.nan, math.inf, -5.0])
def test_lying_thresholds_are_refused(lie: float) -> None:
    content = calibrate({"a": [1.0, 2.0]}, reject_rate=0.01, reinspect_rate=0.05).to_json()
    content["limits"][POOLED]["thresholds"]["reject"] = lie
    with pytest.raises(BadInput, match="impossible thresholds"):
        Calibration.from_json(content)


def test_useless_scores_are_refused() -> None:
    with pytest.raises(BadInput, match="finite"):
        calibrate({"a": [1.0, math.nan]}, reject_rate=0.01, reinspect_rate=0.05)
    with pytest.raises(BadInput, match="collapsed"):
        calibrate({"a": [0.0, 0.0]}, reject_rate=0.01, reinspect_rate=0.05)
    with pytest.raises(BadInput, match="must not be below"):
        calibrate({"a": [1.0]}, reject_rate=0.05, reinspect_rate=0.01)


def test_pooled_limit_that_no_calibration_gives_is_refused() -> None:
    content = calibrate({"a": [1.0, 2.0, 3.0]}, reject_rate=0.01, reinspect_rate=0.05).to_json()
    content["limits"][POOLED]["thresholds"]["reject"] = 1e9
    with pytest.raises(BadInput, match=r"pooled reject threshold is 1e\+09"):
        Calibration.from_json(content)
