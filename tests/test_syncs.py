"""Nothing waits for the device on the way of a forecast step."""

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from test_engine import CALLS, sample
from torch.utils._python_dispatch import TorchDispatchMode

from spectrum import SpectralCache, SpectrumError
from spectrum.schedule import ExplicitSchedule

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": lambda: UniPCMultistepScheduler(**FLOW),
    "dpm++": lambda: DPMSolverMultistepScheduler(**FLOW),
}
# What makes the host wait on a GPU: a tensor's value, or a shape that depends on values.
WAITS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique")


class Waits(TorchDispatchMode):
    """Counts them, step by step."""

    def __init__(self):
        super().__init__()
        self.steps, self.now = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.now += any(name.startswith(word) for word in WAITS)
        return func(*args, **(kwargs or {}))

    def on_step(self, _report, step):
        if step is not None:
            self.steps.append(self.now)
        self.now = 0


def forced(pipe, call, **how):
    waits = Waits()
    with SpectralCache(pipe, on_step=waits.on_step, **how) as cache, waits:
        sample(pipe, call)
    return waits.steps, cache.report


@pytest.mark.parametrize("target", ["denoised", "feature"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_forecast_step_waits(flux, wan, monkeypatch, name, target):
    pipe, call = (flux, CALLS["flux"]) if name == "euler" else (wan, CALLS["wan"])
    monkeypatch.setattr(pipe, "scheduler", SCHEDULERS[name]())
    with SpectralCache(pipe, schedule=ExplicitSchedule((0, 5)), target=target):
        sample(pipe, call)  # blocks and heads are found
    schedule = ExplicitSchedule((0, 1, 4, 8, 11))
    waits, report = forced(pipe, call, schedule=schedule, target=target)
    plain, _ = forced(pipe, call, speedup=1)
    for step in report.forecast_steps:
        assert waits[step] <= plain[step]  # dpm++ itself does
    assert sum(waits) > 0  # computed steps do: or nothing was counted


@pytest.mark.parametrize("target", ["denoised", "feature"])
def test_a_model_that_puts_out_no_numbers_is_told(flux, target):
    calls = []

    def poison(_module, _args, output):
        calls.append(1)
        if len(calls) == 4:
            return (output[0] * float("nan"), *output[1:])
        return None

    with SpectralCache(flux, schedule=ExplicitSchedule((0, 1, 4, 6, 9, 11)), target=target):
        sample(flux, CALLS["flux"])
        part = flux.transformer if target == "denoised" else flux.transformer.norm_out
        if target == "denoised":
            hook = part.register_forward_hook(poison)
        else:
            hook = part.register_forward_pre_hook(
                lambda _module, args: (args[0] * float("nan"), *args[1:])
            )
        try:
            with pytest.raises(SpectrumError, match=r"at step \d+ that are no numbers"):
                sample(flux, CALLS["flux"])
        finally:
            hook.remove()
        assert torch.isfinite(sample(flux, CALLS["flux"])).all()
