import json
from pathlib import Path

import numpy as np
import pytest

from spectrum.forecast import AffineRidge, ChebyshevRidge, Extrapolation, Hold, TaylorSeer
from spectrum.gaussian import Kriging, Prior, share
from spectrum.timeline import Timeline, flow_levels

GOLDEN = json.loads((Path(__file__).parent / "data" / "published_method.json").read_text())
CASES = GOLDEN["forecast_cases"]
STEPS = [0, 1, 2, 3, 4, 6, 11, 19, 30]
FLOW, LARGE = Timeline.flow(50), Timeline(flow_levels(50, 12.0), scale=32.0)
ALL = [
    ChebyshevRidge(), AffineRidge(), Hold(), Extrapolation(), Extrapolation(2),
    Extrapolation(1, damping=0.5), TaylorSeer(1), TaylorSeer(2),
    Kriging(), Kriging(Prior(0.3, 0.75)), 
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_published_forecasts_are_reproduced(case):
    forecaster = ChebyshevRidge(case["degree"], case["ridge"], case["blend"])
    for step, expected in case["forecasts"].items():
        computed = [s for s in case["computed_steps"] if s < int(step)]
        features = np.array([case["features"][str(s)] for s in computed])
        forecast = (
            forecaster.weights(computed, int(step), Timeline.flow(case["num_steps"])) @ features
        )
        assert np.abs(forecast - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("forecaster", ALL, ids=repr)
@pytest.mark.parametrize("count", [1, 2, 3, len(STEPS)])
def test_one_float64_weight_per_computed_step(forecaster, count):
    weights = forecaster.weights(STEPS[:count], 35, FLOW)
    assert weights.shape == (count,)
    assert weights.dtype == np.float64
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("forecaster", ALL[1:], ids=repr)
def test_all_but_the_published_keep_a_constant(forecaster):
    for count in range(1, len(STEPS) + 1):
        weights = forecaster.weights(STEPS[:count], STEPS[count - 1] + 3, FLOW)
        assert weights.sum() == pytest.approx(1, abs=1e-9)


def test_the_published_ridge_shrinks_a_constant():
    assert 0.6 < ChebyshevRidge().weights(STEPS, 43, FLOW).sum() < 0.97


@pytest.mark.parametrize("forecaster", ALL, ids=repr)
def test_only_the_newest_features_that_it_keeps_have_weight(forecaster):
    weights = forecaster.weights(STEPS, 35, FLOW)
    kept = len(STEPS) if forecaster.keeps is None else forecaster.keeps
    assert (weights[: len(STEPS) - kept] == 0).all()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_extrapolation_is_exact_on_polynomials_of_its_order(order):
    def feature(t):
        return 2 - t + 0.1 * t**order

    values = feature(np.array(STEPS, dtype=float))
    assert Extrapolation(order).weights(STEPS, 37, FLOW) @ values == pytest.approx(feature(37))


def test_damping_goes_from_hold_to_the_full_slope():
    hold, half, full = (Extrapolation(1, d).weights(STEPS, 35, FLOW) for d in (0, 0.5, 1))
    np.testing.assert_allclose(hold, Hold().weights(STEPS, 35, FLOW))
    np.testing.assert_allclose(half, (hold + full) / 2)


def test_taylor_is_a_series_of_backward_differences_at_true_distances():
    h = np.array([1.0, 3.0, 4.0])  # at steps 0, 2, 5
    first = (4 - 3) / 3
    second = (first - (3 - 1) / 2) / 3
    x = 8 - 5
    expected = 4 + x * first + x**2 / 2 * second
    assert TaylorSeer(2).weights([0, 2, 5], 8, FLOW) @ h == pytest.approx(expected)
    np.testing.assert_allclose(
        TaylorSeer(1).weights([0, 2, 5], 8, FLOW), Extrapolation(1).weights([0, 2, 5], 8, FLOW)
    )


def test_blend_is_a_mixture_with_linear_extrapolation():
    ridge, linear = (
        ChebyshevRidge().weights(STEPS, 35, FLOW),
        Extrapolation().weights(STEPS, 35, FLOW),
    )
    half = ChebyshevRidge(blend=0.5).weights(STEPS, 35, FLOW)
    np.testing.assert_allclose(half, (ridge + linear) / 2)


def test_the_time_axis_is_the_runs_own_unless_fixed():
    scaled = ChebyshevRidge().weights([0, 2, 4], 6, Timeline.flow(100))
    np.testing.assert_allclose(ChebyshevRidge().weights([0, 1, 2], 3, FLOW), scaled)
    fixed = ChebyshevRidge(axis=50)
    np.testing.assert_array_equal(
        fixed.weights([0, 2, 4], 6, Timeline.flow(100)), fixed.weights([0, 2, 4], 6, FLOW)
    )


KRIGING = [
    (Kriging(), FLOW), (Kriging(Prior(0.3, power=1.25, fall=0.0)), FLOW),
    (Kriging(Prior(4.0, fall=0.0)), LARGE),
]  # fmt: skip


def test_the_smoother_of_two_forecasts_goes_on_where_the_velocity_changes_steadily():
    """Here as a sine of λ, times the noise level."""
    ratios = np.linspace(-2, 3, 50)
    timeline = Timeline(tuple(1 / (1 + np.exp(ratios))))
    way = np.cumsum(np.array(timeline.levels) * np.sin(ratios))
    usual = Kriging()
    steps = [10, 16, 22]
    off = [
        abs(float(forecaster.weights(steps, step, timeline) @ way[steps]) - way[step])
        for step in (25, 28)
        for forecaster in (usual.smoother, usual)
    ]
    assert off[0] < off[1] / 2
    assert off[2] < off[3] / 2
    weights = usual.smoother.weights([2, *steps], 28, timeline)
    assert weights[0] == 0  # three steps, no more
    assert (weights[1:] != 0).all()
    assert weights.sum() == pytest.approx(1)
    assert (usual.keeps, usual.smoother.keeps) == (2, 3)
    np.testing.assert_allclose(  # of two steps the smoother knows two
        usual.smoother.weights([4], 9, timeline), usual.weights([4], 9, timeline)
    )


@pytest.mark.parametrize(("forecaster", "timeline"), KRIGING)
def test_kriging_holds_one_feature_and_keeps_the_newest_where_it_is(forecaster, timeline):
    assert forecaster.weights([4], 9, timeline).tolist() == [1.0]
    for count in range(2, len(STEPS) + 1):
        newest = forecaster.weights(STEPS[:count], STEPS[count - 1], timeline)
        np.testing.assert_allclose(newest, [0.0] * (count - 1) + [1.0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("forecaster", "timeline"), KRIGING)
@pytest.mark.parametrize(("before", "last"), [(0, 3), (3, 4), (10, 20), (40, 44)])
def test_krigings_share_grows_with_distance_and_stays_bounded(forecaster, timeline, before, last):
    """Velocity fades by exp(−distance / length), and so much is known of it by the last gap."""
    shares = [-forecaster.weights([before, last], step, timeline)[0] for step in range(last, 50)]
    assert (np.diff(shares) > 0).all()
    level = np.array(timeline.levels)
    level[0] = min(level[0], 1 / (1 + (1 / level[1] - 1) * np.exp(-2)))
    at = np.log(1 / level - 1)
    length = forecaster.prior.length
    known = 1 - np.exp(-(at[last] - at[before]) / length)
    most = (1 - np.exp(-(at[last:] - at[last]) / length)) / known
    assert (np.array(shares) <= most * 1.01 + 1e-12).all()


@pytest.mark.parametrize(("forecaster", "timeline"), KRIGING)
@pytest.mark.parametrize(("a", "b"), [(0, 1), (0, 7), (20, 31), (44, 49)])
def test_between_two_computed_steps_the_change_comes_about_by_and_by(forecaster, timeline, a, b):
    shares = [forecaster.between(a, b, step, timeline) for step in range(a, b + 1)]
    assert shares[0] == pytest.approx(0, abs=1e-12)
    assert shares[-1] == pytest.approx(1, abs=1e-9)
    assert (np.diff(shares) > 0).all()


def test_kriging_takes_the_levels_of_its_run():
    steps = [0, 4, 9]
    usual = Kriging().weights(steps, 15, FLOW)
    other = Kriging().weights(steps, 15, Timeline(flow_levels(50, 12.0)))
    covariance = Kriging().prior.covariance(flow_levels(50, 12.0))
    assert other[1] == pytest.approx(-share(covariance, (4, 9), (9, 15)), rel=2e-4)
    assert other[1] != pytest.approx(usual[1], rel=0.02)
    assert other.tolist() == [0.0, other[1], 1 - other[1]]
    larger = Kriging().weights(steps, 15, Timeline(flow_levels(50, 3.0), scale=9.0))
    assert larger[1] != pytest.approx(usual[1], rel=1e-3)
    longer = Kriging(Prior(4.0, fall=0.0)).weights(steps, 15, FLOW)
    assert longer[1] < usual[1]  # the velocity stays alike for longer: more of the last change
    # the same levels, passed in half the steps
    np.testing.assert_allclose(
        Kriging().weights([2, 8], 14, Timeline.flow(24)),
        Kriging().weights([4, 16], 28, Timeline.flow(48)),
        rtol=2e-3,
    )
