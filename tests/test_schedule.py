from itertools import pairwise

import pytest
from test_forecast import GOLDEN

from spectrum.errors import UsageError
from spectrum.schedule import (
    EvenSchedule,
    ExplicitSchedule,
    Planner,
    WindowSchedule,
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
