import json
from pathlib import Path

import numpy as np
import pytest

from spectrum.forecast import AffineRidge, ChebyshevRidge, Extrapolation, Hold, TaylorSeer

GOLDEN = json.loads((Path(__file__).parent / "data" / "published_method.json").read_text())
CASES = GOLDEN["forecast_cases"]
STEPS = [0, 1, 2, 3, 4, 6, 11, 19, 30]
ALL = [
    ChebyshevRidge(), AffineRidge(), Hold(), Extrapolation(), Extrapolation(2),
    Extrapolation(1, damping=0.5), TaylorSeer(1), TaylorSeer(2),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_published_forecasts_are_reproduced(case):
    forecaster = ChebyshevRidge(case["degree"], case["ridge"], case["blend"])
    for step, expected in case["forecasts"].items():
        computed = [s for s in case["computed_steps"] if s < int(step)]
        features = np.array([case["features"][str(s)] for s in computed])
        forecast = forecaster.weights(computed, int(step), case["num_steps"]) @ features
        assert np.abs(forecast - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("forecaster", ALL, ids=repr)
@pytest.mark.parametrize("count", [1, 2, 3, len(STEPS)])
def test_one_float64_weight_per_computed_step(forecaster, count):
    weights = forecaster.weights(STEPS[:count], 35, 50)
    assert weights.shape == (count,)
    assert weights.dtype == np.float64
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("forecaster", ALL[1:], ids=repr)
def test_all_but_the_published_keep_a_constant(forecaster):
    for count in range(1, len(STEPS) + 1):
        weights = forecaster.weights(STEPS[:count], STEPS[count - 1] + 3, 50)
        assert weights.sum() == pytest.approx(1, abs=1e-9)


def test_the_published_ridge_shrinks_a_constant():
    assert 0.6 < ChebyshevRidge().weights(STEPS, 43, 50).sum() < 0.97


@pytest.mark.parametrize("forecaster", ALL, ids=repr)
def test_only_the_newest_features_that_it_keeps_have_weight(forecaster):
    weights = forecaster.weights(STEPS, 35, 50)
    kept = len(STEPS) if forecaster.keeps is None else forecaster.keeps
    assert (weights[: len(STEPS) - kept] == 0).all()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_extrapolation_is_exact_on_polynomials_of_its_order(order):
    def feature(t):
        return 2 - t + 0.1 * t**order

    values = feature(np.array(STEPS, dtype=float))
    assert Extrapolation(order).weights(STEPS, 37, 50) @ values == pytest.approx(feature(37))


def test_damping_goes_from_hold_to_the_full_slope():
    hold, half, full = (Extrapolation(1, d).weights(STEPS, 35, 50) for d in (0, 0.5, 1))
    np.testing.assert_allclose(hold, Hold().weights(STEPS, 35, 50))
    np.testing.assert_allclose(half, (hold + full) / 2)


def test_taylor_is_a_series_of_backward_differences_at_true_distances():
    h = np.array([1.0, 3.0, 4.0])  # at steps 0, 2, 5
    first = (4 - 3) / 3
    second = (first - (3 - 1) / 2) / 3
    x = 8 - 5
    expected = 4 + x * first + x**2 / 2 * second
    assert TaylorSeer(2).weights([0, 2, 5], 8, 50) @ h == pytest.approx(expected)
    np.testing.assert_allclose(
        TaylorSeer(1).weights([0, 2, 5], 8, 50), Extrapolation(1).weights([0, 2, 5], 8, 50)
    )


def test_blend_is_a_mixture_with_linear_extrapolation():
    ridge, linear = ChebyshevRidge().weights(STEPS, 35, 50), Extrapolation().weights(STEPS, 35, 50)
    half = ChebyshevRidge(blend=0.5).weights(STEPS, 35, 50)
    np.testing.assert_allclose(half, (ridge + linear) / 2)


def test_the_time_axis_is_the_runs_own_unless_fixed():
    scaled = ChebyshevRidge().weights([0, 2, 4], 6, 100)
    np.testing.assert_allclose(ChebyshevRidge().weights([0, 1, 2], 3, 50), scaled)
    fixed = ChebyshevRidge(axis=50)
    np.testing.assert_array_equal(fixed.weights([0, 2, 4], 6, 100), fixed.weights([0, 2, 4], 6, 50))
