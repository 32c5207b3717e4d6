"""The prior of x₀'s way: its covariance against the process that it stands for."""

from itertools import pairwise

import numpy as np
import pytest

from spectrum.gaussian import Prior, expected_miss, gap_errors, log_ratios, share
from spectrum.timeline import flow_levels, scale_of

FLOW = flow_levels(12, 3.0)
EVEN = tuple(np.linspace(0.93, 0.06, 9))
LARGE = Prior(scale=scale_of(32_760))
PRIORS = [Prior(), LARGE, Prior(length=0.3), Prior(4.0, scale=1.0, power=1.0, fall=0.0, settle=0.0)]


def ratios(levels):
    """λ of levels below 1 at all steps but the first, which is 2 before the second at most."""
    level = np.asarray(levels[1:])
    rest = np.log((1 - level) / level)
    first = np.log((1 - levels[0]) / levels[0]) if levels[0] < 1 else -np.inf
    return np.array([max(first, rest[0] - 2.0), *rest])


RATIOS = ratios(FLOW)


def simulated(prior, paths=20_000, points=60):
    """Values of the stated process at the steps: dx₀/dλ = speed(ρ) · Ornstein-Uhlenbeck."""
    generator = np.random.default_rng(0)
    velocity = generator.standard_normal(paths)  # stationary, of variance 1
    where, ways = np.zeros(paths), [np.zeros(paths)]
    for begin, end in pairwise(RATIOS):
        gap = (end - begin) / points
        decay = np.exp(-gap / prior.length)
        for point in range(points):
            rho = np.exp(-begin - (point + 0.5) * gap)
            speed = (rho / (prior.scale + rho)) ** prior.power
            speed *= (prior.scale / (prior.scale + rho)) ** prior.fall
            if prior.settle:
                leap = 1 - np.exp(RATIOS[0] - RATIOS[1])
                undecided = (prior.scale / (prior.scale + np.exp(-RATIOS[1]))) ** 0.5
                since = max(0.0, begin + (point + 0.5) * gap - RATIOS[1])
                speed = np.hypot(speed, leap * undecided * np.exp(-since / prior.settle))
            fresh = generator.standard_normal(paths)
            after = decay * velocity + np.sqrt(1 - decay**2) * fresh
            where = where + speed * gap * (velocity + after) / 2
            velocity = after
        ways.append(where)
    return np.array(ways)  # [N, paths]


def conditional(covariance, sought, known):
    """Coefficient and covariance left of contrasts, given another contrast.  # rows of [., N]"""
    between, size = sought @ covariance @ known, known @ covariance @ known
    left = sought @ covariance @ sought.T - np.outer(between, between) / size
    return between / size, left


def contrast(count, begin, end):
    row = np.zeros(count)
    row[begin] -= 1
    row[end] += 1
    return row


@pytest.mark.parametrize("levels", [FLOW, EVEN, flow_levels(50, 12.0), flow_levels(300, 0.5)])
@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_a_covariance_is_one(prior, levels):
    covariance = prior.covariance(levels)
    assert covariance.shape == (len(levels), len(levels))
    np.testing.assert_allclose(covariance, covariance.T, rtol=1e-12)
    values = np.linalg.eigvalsh(covariance)
    assert values[0] > -1e-12 * values[-1]
    assert (covariance[0] == 0).all()
    assert (covariance[:, 0] == 0).all()
    assert (np.diag(covariance)[1:] > 0).all()


@pytest.mark.parametrize(
    "prior",
    [
        Prior(),
        Prior(length=0.3, scale=1.0, fall=1.0, settle=0.0),
        Prior(4.0, power=0.5, settle=1.0),
    ],
    ids=repr,
)
def test_it_is_that_of_the_stated_process(prior):
    drawn = np.cov(simulated(prior))
    covariance = prior.covariance(FLOW)
    # sampling error of 20,000 paths: about 1 % of the standard deviations' product
    deviations = np.sqrt(np.diag(covariance))
    assert np.abs(drawn - covariance).max() < 0.03 * deviations.max() ** 2
    apart = np.abs(drawn - covariance)[1:, 1:] / np.outer(deviations, deviations)[1:, 1:]
    assert apart.max() < 0.04
    # the moves at the end are small: of each step's own size
    np.testing.assert_allclose(
        np.diff(np.diff(drawn, axis=0), axis=1).diagonal(),
        np.diff(np.diff(covariance, axis=0), axis=1).diagonal(),
        rtol=0.05,
    )


@pytest.mark.parametrize("length", [0.3, 1.0, 4.0])
def test_an_even_speed_has_a_closed_form(length):
    """∫₀ˢ∫₀ᵗ exp(−|u − v| / ℓ) du dv for s ≤ t."""
    at = ratios(FLOW) - ratios(FLOW)[0]
    s, t = np.minimum(at[:, None], at), np.maximum(at[:, None], at)
    decayed = 1 - np.exp(-s / length) + np.exp(-(t - s) / length) - np.exp(-t / length)
    np.testing.assert_allclose(
        Prior(length, power=0.0, fall=0.0, settle=0.0).covariance(FLOW),
        2 * length * s - length**2 * decayed,
        rtol=2e-3,
        atol=1e-6,
    )


@pytest.mark.parametrize("levels", [FLOW, EVEN])
def test_ratios_rise_from_two_before_the_second(levels):
    np.testing.assert_allclose(log_ratios(levels), ratios(levels), atol=1e-4)
    assert (np.diff(log_ratios(levels)) > 0).all()


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_a_share_is_the_regression_coefficient(prior):
    covariance = prior.covariance(FLOW)
    for known, sought in [((0, 3), (3, 5)), ((2, 4), (4, 11)), ((1, 9), (1, 4)), ((3, 4), (7, 8))]:
        rows = contrast(12, *sought)[None]
        (expected,), _ = conditional(covariance, rows, contrast(12, *known))
        assert share(covariance, known, sought) == pytest.approx(expected, rel=1e-9)
        assert share(covariance, known, known) == pytest.approx(1, abs=1e-12)
    parts = share(covariance, (2, 6), (2, 4)) + share(covariance, (2, 6), (4, 6))
    assert parts == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_the_expected_miss_is_what_regression_leaves(prior):
    covariance = prior.covariance(FLOW)
    for before, last, step in [(0, 1, 2), (0, 4, 5), (3, 7, 11)]:
        sought = contrast(12, last, step)[None]
        _, left = conditional(covariance, sought, contrast(12, before, last))
        held = sought @ covariance @ sought.T
        told = expected_miss(covariance, (before, last, step))
        assert told == pytest.approx(float(left[0, 0]) ** 0.5, rel=1e-6)
        assert expected_miss(covariance, (last, step)) == pytest.approx(float(held[0, 0]) ** 0.5)
        assert told < expected_miss(covariance, (last, step))


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_errors_of_gaps_are_those_that_the_solver_makes_of_them(prior):
    """Euler's step towards x₀ keeps the noise: ε = (x − α x₀) / σ, so the error of x at the next
    level is σ'/σ of the one before, and (α' − α σ'/σ) of the error of x₀."""
    count, covariance = len(EVEN), prior.covariance(EVEN)
    for a in range(count):
        errors = gap_errors(prior, EVEN, a)
        assert errors.shape == (a + 1, count - a)
        missed = np.array([contrast(count, a, step) for step in range(count)])
        weights, ends = np.zeros(count), {}
        for step in range(a, count - 1):
            sigma, after = EVEN[step], EVEN[step + 1]
            weights = weights * after / sigma
            weights[step] += (1 - after) - (1 - sigma) * after / sigma
            rho = after / (1 - after)
            left = (prior.scale / (prior.scale + rho)) ** prior.contracts
            ends[step + 1] = weights / (1 - after) * left
        ends[count] = np.eye(count)[-1]  # where all the noise is gone
        for before in range(a + 1):  # a itself: none
            left = missed @ covariance @ missed.T
            if before < a:
                _, left = conditional(covariance, missed, contrast(count, before, a))
            for end, weight in ends.items():
                expected = weight @ left @ weight
                assert errors[before, end - a - 1] == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert errors[:, 0] == pytest.approx(0, abs=1e-12)  # no forecast, no error


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
@pytest.mark.parametrize(
    "levels", [(1.0,), (0.4,), (1.0, 0.0), (1.0, 0.6, 0.3, 0.0), (0.5, 0.0), (1.0, 0.999, 0.001)]
)
def test_levels_of_exactly_one_and_none_and_single_steps(prior, levels):
    covariance = prior.covariance(levels)
    assert np.isfinite(covariance).all()
    assert np.linalg.eigvalsh(covariance)[0] >= -1e-15
    for a in range(len(levels)):
        errors = gap_errors(prior, levels, a)
        assert np.isfinite(errors).all()
        assert (errors >= 0).all()
    for p, a, j in zip(range(9), range(1, 9), range(2, len(levels)), strict=False):
        gap = log_ratios(levels)[a] - log_ratios(levels)[p]
        found = share(covariance, (p, a), (a, j))
        assert found > 0
        if not prior.fall and not prior.settle:  # where x₀ never speeds up
            assert found < 1 / (1 - np.exp(-gap / prior.length))


def test_of_a_gaussian_mode_the_law_is_the_exact_one_at_both_ends():
    """A mode of variance v: x₀ = v/√(v + ρ²) and y = √(v + ρ²), times a number that stays."""
    prior, v = Prior(scale=5.0, power=2.0, fall=1.0, contracts=1.0), 25.0
    for rho, power in [(0.01, 2), (1000.0, -1)]:  # exponents of the speed
        near = np.array([rho, 1.01 * rho])
        exact = np.diff(np.log(v * near**2 / (v + near**2) ** 1.5)) / np.log(1.01)
        assert exact == pytest.approx(power, abs=0.01)
        assert np.diff(np.log(prior.speed(near))) / np.log(1.01) == pytest.approx(power, abs=0.02)
    level = np.array([1e-4, 0.5, 1 - 1e-4])
    rho = level / (1 - level)
    exact = np.sqrt(v / (v + rho**2)) / (1 - level)  # 1/α of an error of x is in y
    np.testing.assert_allclose(prior.remains(level)[[0, 2]], exact[[0, 2]], rtol=1e-3)
    assert 0.7 * exact[1] < prior.remains(level)[1] < exact[1]


def test_errors_made_far_above_the_scale_count_as_those_of_a_gaussian_mode():
    """As 1/ρ in the speed and 1/ρ in what is left, however the two share it."""
    prior, level = Prior(scale=5.0), np.array([1 - 1e-4, 1 - 1e-5])
    rho = level / (1 - level)
    counts = prior.speed(rho) * prior.remains(level) * (1 - level)
    assert counts[0] / counts[1] == pytest.approx(100, rel=0.01)


def test_the_scale_goes_with_the_side_of_the_picture():
    assert scale_of(4 * 4096) == 2 * scale_of(4096) == 16 * scale_of(64)
    assert scale_of(64, 3.0) == 3.0
