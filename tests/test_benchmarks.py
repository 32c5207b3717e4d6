import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import leave_one_out
from contenders import ToTheEnd, found_schedules
from influence import Influenced, error_at_end, regrets
from leave_one_out import (
    Law,
    cells_of,
    chosen,
    held_out_table,
    laws_of,
    report,
    shortfall,
    verdict,
)
from matching import matched, solver
from models import load_model
from placement import by_scale, distance
from speeds import banded, fitted, speeds
from tables import Sheet, cells_table, chart, open_sheet, read_sheets, sheet_table, summary

import spectrum
from spectrum.gaussian import Prior
from spectrum.schedule import LeastError
from spectrum.schedulers import denoised_coefficients, noise_levels
from spectrum.timeline import Timeline, flow_levels

# diffusers turns tensors into arrays in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "shift": (FlowMatchEulerDiscreteScheduler(shift=3.0), {}),
    "dynamic shift": (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), {"mu": 0.4675}),
    "flow UniPC": (UniPCMultistepScheduler(**FLOW), {}),
    "Euler": (EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1), {}),
    "DPM++": (DPMSolverMultistepScheduler(), {}),
}


def noise(scheduler):
    """σ/α of each step."""
    levels = torch.tensor(noise_levels(scheduler), dtype=torch.float64)
    return levels / (1 - levels)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_matched_levels(name):
    scheduler, arguments = SCHEDULERS[name]
    own, same, lower = scheduler, matched(scheduler, 1), matched(scheduler, 8)
    for each in (own, same, lower):
        each.set_timesteps(20, **arguments)
    assert torch.equal(own.sigmas, same.sigmas)
    assert torch.equal(own.timesteps, same.timesteps)
    assert type(lower).__name__ == type(own).__name__
    assert lower.sigmas[0] == own.sigmas[0]
    assert lower.timesteps[0] == own.timesteps[0]
    torch.testing.assert_close(noise(lower)[1:], noise(own)[1:] / 8, rtol=1e-4, atol=1e-6)
    assert lower.sigmas[-1] == own.sigmas[-1] == 0
    assert denoised_coefficients(lower) is not None


@pytest.mark.parametrize("count", [3, 6, 10, 14, 20])
def test_steps_to_the_end(count):
    timeline = Timeline.flow(50)
    steps, free = ToTheEnd(count).computed_steps(timeline), LeastError(count)
    assert len(set(steps)) == count
    assert (steps[0], steps[-1]) == (0, 49)
    planned = free.computed_steps(timeline)
    assert (steps == planned) == (planned[-1] == 49)


def test_matched_flow_is_shifted():
    lower = matched(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 8)
    lower.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=math.log(4.0))
    times, shift = torch.tensor([1.0, 0.75, 0.5, 0.25]), 4.0 / 8
    expected = shift * times / (1 + (shift - 1) * times)
    torch.testing.assert_close(lower.sigmas[:-1], expected)
    torch.testing.assert_close(lower.timesteps, 1000 * expected)


def test_matched_timesteps_are_those_of_the_sigmas():
    lower = matched(EulerDiscreteScheduler(**BETAS), 8)
    lower.set_timesteps(20)
    known = ((1 - lower.alphas_cumprod) / lower.alphas_cumprod).sqrt()
    for sigma, timestep in zip(lower.sigmas[1:-4], lower.timesteps[1:-3], strict=True):
        below, above = known[int(timestep)], known[int(timestep) + 1]
        assert below <= sigma * (1 + 1e-5)
        assert sigma <= above * (1 + 1e-5)


def test_matched_steps_run_to_the_end():
    lower = matched(SCHEDULERS["flow UniPC"][0], 8)
    lower.set_timesteps(6)
    goal, x = torch.full((1, 4), 0.5), torch.randn(1, 4)
    for timestep, sigma in zip(lower.timesteps, lower.sigmas, strict=False):
        x = lower.step((x - goal) / sigma, timestep, x).prev_sample
    torch.testing.assert_close(x, goal, rtol=0, atol=1e-3)


def test_other_solver_has_the_same_shift():
    own = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert solver(own, "unipc").config.flow_shift == 3.0
    assert type(solver(EulerDiscreteScheduler(**BETAS), "dpm++")) is DPMSolverMultistepScheduler


def sheet_of(model, **columns):
    """Of one cell: dB of two prompts for each contender, given as their mean."""
    column = {name.replace("_", "@"): [mean - 1, mean + 1] for name, mean in columns.items()}
    return Sheet(model, match=8, steps=50, figures={"10": column})


def test_an_embedded_model_at_another_side(tmp_path):
    folder = tmp_path / "demo-image-256"
    folder.symlink_to(Path(spectrum.__file__).parent / "models" / "demo-image")
    model = load_model(str(folder), 1, 1)
    assert (model.name, model.unit_scale) == ("demo-image-256", 6.0)
    assert model.sample(1).shape == (1, 1, 256, 256, 3)


def test_sheet_comes_back_from_its_file(tmp_path):
    sheet = sheet_of("a", spectrum=30, hold=20)
    sheet.save(tmp_path)
    assert open_sheet(tmp_path, "a", 8, 50) == sheet
    assert read_sheets(tmp_path) == [sheet]
    assert open_sheet(tmp_path, "a", 1, 50).figures == {}


def test_table_compares_with_the_best_rival():
    sheet = sheet_of("a", spectrum=30, spectrum_2=33, hold=20, even=25)
    lines = list(sheet_table(sheet))
    assert lines[2].startswith("| `spectrum@2` | 33.0 ± 1.0 |")
    assert lines[-1] == "| *`spectrum` over the best rival* | 5.0 ± 0.0 (even) |"


def test_all_cells_in_one_table():
    table = list(cells_table([sheet_of("a", spectrum=30, hold=22), sheet_of("b", hold=22)]))
    assert table[2:] == ["| a | 10 of 50, / 8 | 30.0 ± 1.0 | +8.0 ± 0.0 | `hold` |"]


def test_no_gains_no_summary():
    alone = sheet_of("a", spectrum_2=33)
    assert list(summary([alone])) == []
    assert len(list(summary([alone, sheet_of("b", spectrum=30, hold=22)]))) == 5


def test_chart_has_points_of_one_count_but_lines_of_several():
    sheet = sheet_of("a", spectrum=30, spectrum_2=33, found=20)  # no candidate in a rival's place
    assert chart(sheet).series == {"spectrum": [(10, 30, 1)], "found": [(10, 20, 1)]}
    sheet.figures["14"] = {"spectrum": [40, 42]}
    assert chart(sheet).series == {"spectrum": [(10, 30, 1), (14, 41, 1)]}


def test_left_out_model_has_no_say():
    """Of models of guidance 1 the constant decides alone, and of one of 16 the exponent too."""
    sheets = [
        sheet_of("a", spectrum_2=30, spectrum_8=20, hold=22),
        sheet_of("b", spectrum_2=20, spectrum_8=24, hold=22),
        sheet_of("c", spectrum_2=20, spectrum_8=23, hold=22),
    ]
    for sheet, guidance in zip(sheets, (1, 1, 16), strict=True):
        sheet.conditions = f"Pipeline, Scheduler, guidance {guidance}, 2 prompts"
    models = cells_of(sheets)
    laws = laws_of(models)
    assert laws == [Law(2, 0), Law(8, 0), Law(2, 0.5)]
    assert laws[2].nearest(models["c"][0]) == "spectrum@8"
    assert chosen(models, laws, None) == Law(2, 0.5)
    assert chosen(models, laws, "a") == Law(8, 0)
    lines = list(verdict(models, laws))
    assert lines[0] == "- mean over 3 left-out models: -2.0 ± 0.0 dB"
    assert lines[3].endswith(": 3 cells")


def test_a_model_is_left_out_with_all_its_guidances():
    sheets = [
        sheet_of("a", spectrum_2=30, spectrum_8=20, hold=22),
        sheet_of("a@g16", spectrum_2=20, spectrum_8=23),  # without a rival: has a say, no gain
        sheet_of("b", spectrum_2=20, spectrum_8=24, hold=22),
    ]
    for sheet, guidance in zip(sheets, (1, 16, 1), strict=True):
        sheet.conditions = (
            f"Pipeline, Scheduler, predicts a velocity, guidance {guidance}, 2 prompts"
        )
    models = cells_of(sheets)
    assert list(models) == ["a", "b"]
    assert shortfall(models["a"], Law(2, 0)) == 1.5
    assert shortfall(models["a"], Law(2, 0.5)) == 0
    assert chosen(models, laws_of(models), "b") == Law(2, 0.5)
    assert sum("| a |" in line for line in held_out_table(models, laws_of(models))) == 1
    for few in ({"a": models["a"]}, {"a": models["a"], "b": models["a"][1:]}):  # one without rivals
        assert len(list(report(few, "a velocity"))) == 1


def test_laws_are_fitted_within_a_kind(tmp_path, monkeypatch, capsys):
    """Those that predict the noise have no say in what the others are given."""
    for name, kind, best in [("a", "a velocity", 2), ("b", "a velocity", 2), ("c", "the noise", 8),
                             ("d", "the noise", 8)]:  # fmt: skip
        columns = {f"spectrum_{scale}": 30 if scale == best else 20 for scale in (2, 8)}
        sheet = sheet_of(name, **columns, hold=22)
        sheet.conditions = f"Pipeline, Scheduler, predicts {kind}, guidance 1, 2 prompts"
        sheet.save(tmp_path)
    monkeypatch.setattr(sys, "argv", ["leave_one_out.py", str(tmp_path)])
    leave_one_out.main()
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "with no model left out" in line] == [
        "- with no model left out: 2", "- with no model left out: 8",
    ]  # fmt: skip


def test_found_schedules_fit_the_count():
    found = found_schedules(50, 10)
    assert found
    for name, plan in {**found, **found_schedules(50, 20)}.items():
        assert len(plan) == int(name.split()[-1])
        assert plan[0] == 0
        assert plan[-1] < 50
    assert len(found_schedules(50, 20)) == 4
    assert found_schedules(28, 10) == {}


def test_distance_of_schedules():
    assert distance([0, 5, 10], [0, 7, 14]) == 2


def test_schedules_by_the_picture_come_by_themselves():
    rows = [
        {"model": "FLUX.1-dev", "of": 50, "method": "search_hill_psnr", "steps": [0, 1, 2, 5, 49]},
        {"model": "FLUX.1-dev", "of": 50, "method": "teacache_top1", "steps": [0, 46, 47, 48, 49]},
    ]
    [_, _, everything, searched] = by_scale(rows)
    assert searched.startswith("| 1 searched by the picture |")
    pairs = zip(everything.split("|")[2:-1], searched.split("|")[2:-1], strict=True)
    assert all(float(both) > float(near) for both, near in pairs)


def test_the_scale_of_a_speed_is_found():
    prior = Prior(scale=9.0, settle=0.0)
    levels = flow_levels(200, 3.0)
    sums = prior.covariance(levels)[1:, 1:]  # of x₀ − x₀(first step)
    moves = np.diff(np.diff(sums, axis=0, prepend=0), axis=1, prepend=0)
    rho, speed = speeds(levels, moves)
    assert fitted(rho, speed) == pytest.approx(9, rel=0.05)
    [above, at, below] = banded(rho, speed, (100, 30, 5, 1))
    assert above < at > below


def test_no_plan_has_less_error_than_the_best():
    """By recorded moves, of a way that is steady in λ here, and a measured influence."""
    timeline, steps = Timeline.flow(12), 11
    moves = np.full((steps, steps), 1.0) + np.eye(steps)
    truth = Influenced(moves=moves, rhos=np.array([0.1, 1.0]), left=np.array([1.0, 0.1]))
    found = list(regrets(truth, timeline))
    assert min(found) >= 0
    assert max(found) > 1
    # x₀ held from step 3 on, of which the first change is seen at 4: at the end all changes are
    assert error_at_end(truth, timeline, (3, 12)) == pytest.approx(8 * 8 + 8)
    assert truth.remains(np.array([0.5])) == pytest.approx(0.1 / 0.5)  # ρ = 1, α = ½
