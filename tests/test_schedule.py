from itertools import pairwise

import pytest
from test_forecast import GOLDEN

from spectrum.errors import UsageError
from spectrum.schedule import (
    AdaptiveSchedule,
    EvenSchedule,
    ExplicitSchedule,
    LevelSchedule,
    Planner,
    WindowSchedule,
    flow_levels,
    make_plan,
)


@pytest.mark.parametrize("case", GOLDEN["schedules"])
def test_published_schedules_are_reproduced(case):
    schedule = WindowSchedule(case["warmup"], case["window"], case["alpha"])
    assert schedule.computed_steps(case["num_steps"]) == case["computed_steps"]


@pytest.mark.parametrize("alpha", [0.75, 3])
def test_the_planner_finds_the_published_schedules(alpha):
    steps = WindowSchedule(alpha=alpha).computed_steps(50)
    assert Planner().plan(50, 50 / len(steps)).computed_steps == tuple(steps)


@pytest.mark.parametrize("family", ["window", "even"])
@pytest.mark.parametrize("protect_last", [0, 1, 2])
def test_a_plan_reaches_the_speedup_or_names_the_largest(family, protect_last):
    planner = Planner(family, protect_last=protect_last)
    for num_steps in range(1, 56):
        for budget in range(1, num_steps + 1):
            try:
                steps = planner.plan(num_steps, num_steps / budget).computed_steps
            except UsageError as error:
                largest = float(str(error).rsplit(" ", 1)[1])
                assert largest < num_steps / budget
                planner.plan(num_steps, largest)
                continue
            assert budget - 1 <= len(steps) <= budget
            assert steps[0] == 0
            assert list(steps) == sorted(set(steps))
            assert set(range(max(0, num_steps - protect_last), num_steps)) <= set(steps)


def test_fifty_steps_at_four_and_a_half_compute_eleven():
    for planner in (Planner(), Planner("even")):
        assert len(planner.plan(50, 4.5).computed_steps) == 11


def test_speedup_one_computes_everything():
    assert Planner().plan(20, 1).computed_steps == tuple(range(20))


@pytest.mark.parametrize("speedup", [0.5, 0, -1, float("nan")])
def test_a_speedup_below_one_is_refused(speedup):
    with pytest.raises(UsageError, match="at least 1"):
        Planner().plan(50, speedup)


def test_even_steps_are_evenly_spaced():
    steps = EvenSchedule(count=11).computed_steps(50)
    gaps = {b - a for a, b in pairwise(steps)}
    assert steps[0] == 0
    assert steps[-1] == 49
    assert gaps <= {4, 5}


def test_an_explicit_schedule_is_checked():
    assert make_plan(ExplicitSchedule((0, 9, 3)), 10).computed_steps == (0, 3, 9)
    with pytest.raises(UsageError, match="step 0"):
        make_plan(ExplicitSchedule((1, 2)), 10)
    with pytest.raises(UsageError, match="step 10"):
        make_plan(ExplicitSchedule((0, 10)), 10)


@pytest.mark.parametrize("count", [2, 3, 10, 30, 49, 50, 60])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 12.0])
def test_steps_by_noise_level(count, shift):
    steps = LevelSchedule(count, flow_levels(50, shift)).computed_steps(50)
    assert len(steps) == min(count, 50) == len(set(steps))
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 49)


def test_steps_by_noise_level_do_not_depend_on_how_the_scheduler_spaces_them():
    even = LevelSchedule(8, flow_levels(50, 2.5)).computed_steps(50)
    assert even == [0, 7, 14, 21, 28, 35, 42, 49]
    levels = flow_levels(50, 2.5)
    for shift in (1.0, 4.0):
        other = flow_levels(50, shift)
        steps = LevelSchedule(8, other).computed_steps(50)
        # the ends differ: so much noise is left at the last step but one
        assert all(abs(other[a] - levels[b]) < 0.05 for a, b in zip(steps, even, strict=True))


def test_adaptive_gaps_follow_the_error():
    schedule = AdaptiveSchedule(0.1)
    assert schedule.computed_steps(50) == [0, 1, 49]
    assert schedule.next_step(1, 1, None) == 2
    assert schedule.next_step(10, 4, 0.1) == 14
    assert schedule.next_step(10, 4, 0.01) == 18  # twice the gap at the most
    assert schedule.next_step(10, 4, 0.8) == 11
    assert schedule.next_step(10, 1, 9.0) == 11


@pytest.mark.parametrize("handover", [5, 13, 26, 37])
@pytest.mark.parametrize(
    "planner", [Planner(), Planner("even", 1, protect_last=1), Planner("level")]
)
def test_two_denoisers_share_the_computed_steps(planner, handover):
    plan = planner.plan(40, 2.5, handover)
    assert len(plan.computed_steps) == 16
    assert {0, handover} <= set(plan.computed_steps)
    early = sum(step < handover for step in plan.computed_steps)
    assert abs(early - 16 * handover / 40) <= 2.5
    with pytest.raises(UsageError, match="largest speedup"):
        planner.plan(40, 30, handover)
    assert planner.plan(40, planner.largest_speedup(40, handover), handover)
