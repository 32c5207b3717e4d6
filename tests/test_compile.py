"""Compiled blocks under the cache: what is compiled once stays so; and outputs that the next call
overwrites, as those of CUDA graphs are."""

import pytest
import torch
from test_engine import CALLS, sample
from tiny import tiny_flux, tiny_wan
from torch._dynamo.callback import callback_handler
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from spectrum import SpectralCache
from spectrum.denoiser import tensors_of
from spectrum.schedule import AdaptiveSchedule

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, and the schedulers'
]
BUILD = {"flux": tiny_flux, "wan": tiny_wan}
RUNS = (
    {"speedup": 2},
    {"speedup": 1.5},
    {"speedup": 3},
    {"speedup": 1},
    {"speedup": 1.8, "target": "feature"},
    {"speedup": 1.5, "target": "feature"},
    {"speedup": 2, "method": "published"},
    {"schedule": AdaptiveSchedule(0.05)},
)


@pytest.fixture(autouse=True)
def forgotten():
    yield
    torch._dynamo.reset()


def compiled(name):
    """The pipeline, its backend, and a list that grows with every frame that is compiled, be it
    without any operation."""
    torch._dynamo.reset()
    counters.clear()
    frames = []
    callback_handler.register_start_callback(frames.append)
    pipe, backend = BUILD[name](), CompileCounterWithBackend("eager")
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
    return pipe, backend, frames


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("target", ["denoised", "feature"])
def test_nothing_is_compiled_again(name, target):
    pipe, backend, frames = compiled(name)
    sample(pipe, CALLS[name], steps=2)
    plain, graphs = len(frames), backend.frame_count
    assert graphs >= 1

    pipe, backend, frames = compiled(name)
    at_steps = []
    with SpectralCache(pipe, 2, target=target, on_step=lambda *_: at_steps.append(len(frames))):
        sample(pipe, CALLS[name])
    assert at_steps[0] == 0
    assert set(at_steps[1:]) == {plain}  # all of it at step 0, and nothing of ours
    computed = set()
    for how in RUNS:
        with SpectralCache(pipe, **how) as cache:
            sample(pipe, CALLS[name])
        computed.add(len(cache.report.computed_steps))
    assert len(computed) > 3
    assert len(frames) == plain
    assert backend.frame_count == graphs
    assert not counters["graph_break"]


def overwrite(module, branches, made):
    """Let what the module puts out live until it is called again, as if from a CUDA graph; with
    guidance by two calls a step, each has its own graph. Adds to `made` what is put out."""
    outputs = []

    def before(_module, _args):
        if len(outputs) == branches:
            for tensor in tensors_of(outputs.pop(0)):
                tensor.fill_(float("nan"))

    def after(_module, _args, output):
        copied = tuple(x.clone() for x in output) if isinstance(output, tuple) else output.clone()
        outputs.append(copied)
        made.append(copied)
        return copied

    return module.register_forward_pre_hook(before), module.register_forward_hook(after)


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("part", ["denoiser", "blocks"])
def test_outputs_may_be_overwritten_by_the_next_call(name, part, request):
    pipe, made = request.getfixturevalue(name), []
    lists = [
        child for child in pipe.transformer.children() if isinstance(child, torch.nn.ModuleList)
    ]
    modules = [pipe.transformer] if part == "denoiser" else [b for blocks in lists for b in blocks]
    branches = 2 if name == "wan" else 1
    for how in RUNS:
        with SpectralCache(pipe, **how):
            expected = sample(pipe, CALLS[name])
        handles = [handle for m in modules for handle in overwrite(m, branches, made)]
        try:
            with SpectralCache(pipe, **how):
                assert torch.equal(sample(pipe, CALLS[name]), expected)
        finally:
            for handle in handles:
                handle.remove()
    assert any(x.isnan().all() for output in made for x in tensors_of(output))
