from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from test_forecast import GOLDEN

from spectrum.errors import UsageError
from spectrum.gaussian import Prior, expected_miss, gap_errors
from spectrum.plan import Planner, make_plan
from spectrum.schedule import (
    AdaptiveSchedule,
    EvenSchedule,
    ExplicitSchedule,
    LeastError,
    WindowSchedule,
)
from spectrum.timeline import Timeline, flow_levels, scale_of

LARGE, FLOW = Prior(scale=scale_of(32_760)), Timeline.flow(50)


@pytest.mark.parametrize("case", GOLDEN["schedules"])
def test_published_schedules_are_reproduced(case):
    schedule = WindowSchedule(case["warmup"], case["window"], case["alpha"])
    assert schedule.computed_steps(Timeline.flow(case["num_steps"])) == case["computed_steps"]


@pytest.mark.parametrize("alpha", [0.75, 3])
def test_the_planner_finds_the_published_schedules(alpha):
    steps = WindowSchedule(alpha=alpha).computed_steps(FLOW)
    assert Planner().plan(FLOW, 50 / len(steps)).computed_steps == tuple(steps)


@pytest.mark.parametrize("family", ["window", "even"])
@pytest.mark.parametrize("protect_last", [0, 1, 2])
def test_a_plan_reaches_the_speedup_or_names_the_largest(family, protect_last):
    planner = Planner(family, protect_last=protect_last)
    for num_steps in range(1, 56):
        for budget in range(1, num_steps + 1):
            try:
                steps = planner.plan(Timeline.flow(num_steps), num_steps / budget).computed_steps
            except UsageError as error:
                largest = float(str(error).rsplit(" ", 1)[1])
                assert largest < num_steps / budget
                planner.plan(Timeline.flow(num_steps), largest)
                continue
            assert budget - 1 <= len(steps) <= budget
            assert steps[0] == 0
            assert list(steps) == sorted(set(steps))
            assert set(range(max(0, num_steps - protect_last), num_steps)) <= set(steps)


def test_a_plan_of_least_error_spends_the_budget_or_names_the_largest_speedup():
    planner = Planner("least", warmup=1)
    for num_steps in (1, 2, 3, 7, 12, 25):
        for budget in range(1, num_steps + 1):
            if budget == 1 < num_steps:
                with pytest.raises(UsageError, match=f"largest speedup .* is {num_steps / 2:g}$"):
                    planner.plan(Timeline.flow(num_steps), num_steps)
                continue
            steps = planner.plan(Timeline.flow(num_steps), num_steps / budget).computed_steps
            assert len(steps) == budget
            assert steps[0] == 0
            assert list(steps) == sorted(set(steps))


def test_fifty_steps_at_four_and_a_half_compute_eleven():
    for planner in (Planner(), Planner("even"), Planner("least")):
        assert len(planner.plan(FLOW, 4.5).computed_steps) == 11


def test_speedup_one_computes_everything():
    assert Planner().plan(Timeline.flow(20), 1).computed_steps == tuple(range(20))


@pytest.mark.parametrize("speedup", [0.5, 0, -1, float("nan")])
def test_a_speedup_below_one_is_refused(speedup):
    with pytest.raises(UsageError, match="at least 1"):
        Planner().plan(FLOW, speedup)


def test_even_steps_are_evenly_spaced():
    steps = EvenSchedule(count=11).computed_steps(FLOW)
    gaps = {b - a for a, b in pairwise(steps)}
    assert steps[0] == 0
    assert steps[-1] == 49
    assert gaps <= {4, 5}


def test_an_explicit_schedule_is_checked():
    assert make_plan(ExplicitSchedule((0, 9, 3)), Timeline.flow(10)).computed_steps == (0, 3, 9)
    with pytest.raises(UsageError, match="step 0"):
        make_plan(ExplicitSchedule((1, 2)), Timeline.flow(10))
    with pytest.raises(UsageError, match="number 10"):
        make_plan(ExplicitSchedule((0, 10)), Timeline.flow(10))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 30, 49, 50, 60])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("prior", [Prior(), LARGE])
def test_least_error_spends_its_count(count, shift, prior):
    steps = LeastError(count, prior).computed_steps(Timeline.flow(50, shift))
    assert len(steps) == min(count, 50) == len(set(steps))
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] < 50


def expected_error(prior, levels, steps):
    """The sum over gaps, each with the computed step before it."""
    total, before = 0.0, None
    for a, b in pairwise([*steps, len(levels)]):
        row = a if before is None else before
        total += gap_errors(prior, levels, a)[row, b - a - 1]
        before = a
    return total


@pytest.mark.parametrize("prior", [Prior(), LARGE, Prior(0.3, 1.0), Prior(4.0, fall=0.0)])
@pytest.mark.parametrize(
    "levels", [flow_levels(9, 3.0), flow_levels(9, 0.7), tuple(np.linspace(0.95, 0.02, 9) ** 2)]
)
def test_least_error_leaves_the_least_of_all_choices(prior, levels):
    least = []
    for count in range(1, 9):
        errors = {
            (0, *rest): expected_error(prior, levels, (0, *rest))
            for rest in combinations(range(1, 9), count - 1)
        }
        found = tuple(LeastError(count, prior).computed_steps(Timeline(levels)))
        assert errors[found] == pytest.approx(min(errors.values()), rel=1e-9)
        least.append(errors[found])
    assert (np.diff(least) < 0).all()  # every step more helps


@pytest.mark.parametrize("prior", [Prior(), LARGE])
def test_least_error_is_dense_at_both_ends(prior):
    steps = LeastError(10, prior).computed_steps(FLOW)
    gaps = np.diff([*steps, 50])
    longest = int(gaps.argmax())
    assert 0 < longest < 9
    assert (np.diff(gaps[: longest + 1]) >= 0).all()
    assert (np.diff(gaps[longest:]) <= 0).all()
    assert (gaps[0] == 1) == (prior is LARGE)


def test_the_larger_the_picture_the_earlier_the_steps():
    for shift in (1.0, 3.0, 12.0):
        levels = flow_levels(50, shift)
        scales = [scale_of(positions) for positions in (64, 256, 1024, 4096, 32_760)]
        steps = [LeastError(10).computed_steps(Timeline(levels, s)) for s in scales]
        for larger, smaller in pairwise(reversed(steps)):
            assert all(a <= b for a, b in zip(larger, smaller, strict=True))
        assert sum(steps[0]) > sum(steps[1]) > sum(steps[2]) > sum(steps[4])


@pytest.mark.parametrize("count", [2, 10, 600, 999, 1000])
def test_least_error_of_a_long_run(count):
    steps = LeastError(count).computed_steps(Timeline.flow(1000))
    assert len(steps) == count == len(set(steps))
    assert steps == sorted(steps)
    assert (steps[0], steps[-1] < 1000) == (0, True)
    if count == 10:  # about as for a shorter one
        short = LeastError(10).computed_steps(Timeline.flow(100))
        assert all(abs(a - 10 * b) <= 30 for a, b in zip(steps, short, strict=True))


def test_the_planner_hands_the_timeline_on():
    planner, levels = Planner("least", warmup=1), flow_levels(50, 12.0)
    large = Timeline(levels, LARGE.scale)
    plan = planner.plan(large, 5)
    assert plan.schedule == LeastError(10)
    assert plan.computed_steps == tuple(LeastError(10, LARGE).computed_steps(Timeline(levels)))
    assert plan.computed_steps != planner.plan(FLOW, 5).computed_steps
    assert len(planner.plan(FLOW, 25).computed_steps) == 2
    with pytest.raises(UsageError, match=r"at least 2 are needed.* is 25$"):
        planner.plan(FLOW, 26)
    both = planner.plan(replace(large, handover=20), 5).computed_steps
    early = LeastError(4).computed_steps(Timeline(levels[:21], LARGE.scale, goes_on=True))
    late = LeastError(6).computed_steps(Timeline(levels[20:], LARGE.scale))
    assert both == (*early, *(20 + step for step in late))


def test_adaptive_gaps_follow_the_error():
    schedule = AdaptiveSchedule(0.1)
    assert schedule.computed_steps(FLOW) == [0, 1, 49]
    assert schedule.computed_steps(Timeline.flow(1)) == [0]
    assert schedule.next_step([0], None, FLOW) == 1
    assert schedule.next_step([0, 1], None, FLOW) == 2
    assert schedule.next_step([0, 1, 6, 10], 1e-6, FLOW) == 19  # twice the gap and one at the most
    assert schedule.next_step([0, 1, 6, 10], 1e6, FLOW) == 11
    errors = np.geomspace(1e-3, 10, 40)
    gaps = [schedule.next_step([0, 1, 6, 10], error, FLOW) - 10 for error in errors]
    assert gaps == sorted(gaps, reverse=True)
    assert len(set(gaps)) > 5
    looser = [AdaptiveSchedule(0.2).next_step([0, 1, 6, 10], 2 * e, FLOW) - 10 for e in errors]
    assert looser == gaps


@pytest.mark.parametrize("prior", [Prior(), LARGE])
@pytest.mark.parametrize("error", [0.02, 0.1, 0.3])
def test_adaptive_gaps_are_the_longest_within_the_tolerance(prior, error):
    levels, computed = flow_levels(50, 12.0), [0, 1, 8, 20]
    timeline = Timeline(levels, prior.scale)
    chosen = AdaptiveSchedule(0.05).next_step(computed, error, timeline)
    scale = error / expected_miss(prior.covariance(levels), (1, 8, 20))
    expected = scale * gap_errors(prior, levels, 20)[8] ** 0.5  # ends at 21, 22, ...
    last = max(end for end in range(21, 46) if end == 21 or (expected[: end - 20] <= 0.05).all())
    assert chosen == last


@pytest.mark.parametrize("handover", [5, 13, 26, 37])
@pytest.mark.parametrize(
    "planner", [Planner(), Planner("even", 1, protect_last=1), Planner("least")]
)
def test_two_denoisers_share_the_computed_steps(planner, handover):
    timeline = replace(Timeline.flow(40), handover=handover)
    plan = planner.plan(timeline, 2.5)
    assert len(plan.computed_steps) == 16
    assert {0, handover} <= set(plan.computed_steps)
    early = sum(step < handover for step in plan.computed_steps)
    assert abs(early - 16 * handover / 40) <= 2.5
    with pytest.raises(UsageError, match="largest speedup"):
        planner.plan(timeline, 30)
    assert planner.plan(timeline, planner.largest_speedup(40, handover))
