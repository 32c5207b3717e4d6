"""The library as others use it: its names, what importing it costs, its structure, and threads."""

import ast
import copy
import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from test_engine import CALLS, STEPS, sample
from tqdm import tqdm

import spectrum
from spectrum import SpectralCache, UsageError, cache_of
from spectrum.tap import Tap

CORE = Path(spectrum.__file__).parent
WITHOUT_TORCH = (
    "errors",
    "report",
    "timeline",
    "gaussian",
    "forecast",
    "schedule",
    "plan",
    "methods",
)


def test_the_mathematics_is_imported_without_torch():
    names = ", ".join(f"spectrum.{name}" for name in WITHOUT_TORCH)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_interface_is_what_is_exported():
    for name in spectrum.__all__:
        found = getattr(spectrum, name)
        assert name in ("METHODS", "__version__") or found.__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = spectrum.nothing


def imports(path):
    """Modules of ours that a file imports, anywhere in it but for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = [
        node for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for node in ast.walk(test)
    ]  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node not in typing_only:
            package, _, _ = node.module.partition(".")
            if package in ("spectrum", "spectrum_cli"):
                yield node.module
                yield from (f"{node.module}.{name.name}" for name in node.names)


def test_imports_go_one_way():
    """Commands, batches, comparing and tuning, pipelines, the method; and nowhere a circle."""
    files = {}
    for folder in (CORE, CORE.parent / "spectrum_cli"):
        for path in folder.rglob("*.py"):
            module = ".".join(path.relative_to(CORE.parent).with_suffix("").parts)
            files[module.removesuffix(".__init__")] = path
    arrows = {
        module: {to for to in imports(path) if to in files and to not in ("spectrum", module)}
        for module, path in files.items()
    }

    def floor(module):
        package = module.split(".")[:2]
        if package[0] == "spectrum_cli":
            return 3
        return {"batch": 2, "compare": 2, "tune": 2, "pipeline": 1}.get(package[-1], 0)

    upwards = [
        (module, to)
        for module, found in arrows.items()
        for to in found
        if floor(to) > floor(module)
    ]
    assert not upwards
    done, under_way = set(), []

    def visit(module):
        if module in done:
            return
        assert module not in under_way, under_way
        under_way.append(module)
        for to in arrows[module]:
            visit(to)
        done.add(under_way.pop())

    for module in arrows:
        visit(module)
    assert len(done) > 40


def test_two_pipelines_in_two_threads_give_what_they_give_alone(flux, wan):
    pairs = {"flux": flux, "wan": wan}

    def run(name, out):
        with SpectralCache(pairs[name], 3) as cache:
            latents = sample(pairs[name], CALLS[name])
        with SpectralCache(pairs[name], 2, method="published") as feature:
            more = sample(pairs[name], CALLS[name])
        out[name] = latents, more, cache.report.computed_steps, feature.report.computed_steps

    alone, together = {}, {}
    for name in pairs:
        run(name, alone)
    for _ in range(3):
        threads = [threading.Thread(target=run, args=(name, together)) for name in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in pairs:
            assert torch.equal(together[name][0], alone[name][0])
            assert torch.equal(together[name][1], alone[name][1])
            assert together[name][2:] == alone[name][2:]
        together.clear()


def test_a_half_made_enable_is_undone(flux, monkeypatch):
    plain = sample(flux, CALLS["flux"])
    kinds = type(flux.transformer), type(flux.scheduler)

    def fail(_tap):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tap, "_listen_to_total", fail)
        cache = SpectralCache(flux, 3)
        with pytest.raises(KeyboardInterrupt):
            cache.enable()
    assert not cache.enabled
    assert (type(flux.transformer), type(flux.scheduler)) == kinds
    assert torch.equal(sample(flux, CALLS["flux"]), plain)
    with cache:  # and it can be enabled after all
        sample(flux, CALLS["flux"])
    assert cache.report.finished


def test_a_copy_of_a_pipeline_made_under_a_cache_is_a_plain_one(flux):
    plain = sample(flux, CALLS["flux"])
    with SpectralCache(flux, 3) as cache:
        fast = sample(flux, CALLS["flux"])
        copied = copy.deepcopy(flux)
        assert torch.equal(sample(copied, CALLS["flux"]), plain)
        assert torch.equal(sample(flux, CALLS["flux"]), fast)
    assert len(cache.reports) == 2
    assert torch.equal(sample(copied, CALLS["flux"]), plain)
    with SpectralCache(copied, 3):
        assert torch.equal(sample(copied, CALLS["flux"]), fast)


def test_what_is_pickled_or_copied_under_a_cache_is_plain(flux):
    plain = sample(flux, CALLS["flux"])
    parts = {name: getattr(flux, name) for name in ("transformer", "scheduler")}
    kinds = {name: type(part) for name, part in parts.items()}
    with SpectralCache(flux, 3):
        fast = sample(flux, CALLS["flux"])
        made = {name: copy.copy(part) for name, part in parts.items()}
        assert {name: type(part) for name, part in made.items()} == kinds
        assert type(copy.deepcopy(flux.transformer)) is kinds["transformer"]
        made = pickle.loads(pickle.dumps(parts))
        assert {name: type(part) for name, part in made.items()} == kinds
        torch.save(parts, io.BytesIO())
        whole = pickle.loads(pickle.dumps(flux))
        for copied in (whole, copy.deepcopy(flux)):
            assert vars(copied)["progress_bar"].func.__self__ is copied
        assert torch.equal(sample(flux, CALLS["flux"]), fast)
    again = FluxPipeline(**{**flux.components, **made})
    again.set_progress_bar_config(disable=True)
    assert torch.equal(sample(again, CALLS["flux"]), plain)
    assert torch.equal(sample(whole, CALLS["flux"]), plain)


def test_a_callbacks_copy_of_the_scheduler_is_its_own(flux):
    """It looks ahead with it, or sets other timesteps, and the run goes on as if it had not."""
    seen = []

    def look(pipe, step, _t, given):
        ahead, known = copy.deepcopy(pipe.scheduler), copy.copy(pipe.scheduler)
        if step < STEPS - 1:
            time, latents = known.timesteps[known.step_index], given["latents"]
            ours = ahead.step(torch.ones_like(latents), time, latents)[0]
            seen.append(torch.equal(ours, known.step(torch.ones_like(latents), time, latents)[0]))
        ahead.set_timesteps(4, mu=1.0)
        return {}

    with SpectralCache(flux, 2) as cache:
        fast = sample(flux, CALLS["flux"])
        for _ in range(2):
            looked = sample(flux, {**CALLS["flux"], "callback_on_step_end": look})
            assert torch.equal(looked, fast)
    assert seen == [True] * 2 * (STEPS - 1)
    assert len(cache.reports) == 3
    assert all(report.finished for report in cache.reports)
    assert not any(report.notes for report in cache.reports)


def test_a_copied_scheduler_may_be_set_under_a_cache(flux, monkeypatch):
    kind = type(flux.scheduler)
    with SpectralCache(flux, 3) as cache:
        fast = sample(flux, CALLS["flux"])
        for again in (copy.deepcopy, lambda one: type(one).from_config(one.config)):
            monkeypatch.setattr(flux, "scheduler", again(flux.scheduler))
            for _ in range(2):
                assert torch.equal(sample(flux, CALLS["flux"]), fast)
    assert [len(report.steps) for report in cache.reports] == [STEPS] * 5
    assert type(flux.scheduler) is kind


def test_a_cache_may_be_entered_again_and_found_again(flux):
    assert cache_of(flux) is None
    cache = SpectralCache(flux, 3)
    with cache:
        with cache:
            assert cache_of(flux) is cache
        assert cache.enabled
    assert not cache.enabled
    cache.enable()
    with cache:
        pass
    del cache
    cache_of(flux).disable()
    assert cache_of(flux) is None


def test_the_users_own_progress_bar_is_given_back(flux, monkeypatch):
    seen, bar = [], flux.progress_bar

    def own(*args, **kwargs):
        seen.append(1)
        return bar(*args, **kwargs)

    monkeypatch.setattr(flux, "progress_bar", own)
    with SpectralCache(flux, 3):
        sample(flux, CALLS["flux"])
    assert seen == [1]
    assert flux.progress_bar is own


@pytest.mark.parametrize(
    "steps", [[0, 99], [0, -1], [0, 2.5], [0, float("nan")], ["0"], [3, 4], []]
)
def test_steps_that_are_none_of_the_runs_are_refused(flux, steps):
    refused = pytest.raises(UsageError, match=r"has none with number|has to compute step 0")
    with refused, SpectralCache(flux, schedule=steps):
        sample(flux, CALLS["flux"])
    with SpectralCache(flux, schedule=[0, 4, 7]) as cache:
        sample(flux, CALLS["flux"])
    assert cache.report.computed_steps == [0, 4, 7]


def test_parts_that_pipelines_share_are_not_cached_twice_nor_by_surprise(flux):
    other = FluxPipeline.from_pipe(flux)
    other.set_progress_bar_config(disable=True)
    with SpectralCache(flux, 3) as cache:
        with pytest.raises(UsageError, match="cached already"):
            SpectralCache(other, 3).enable()
        with pytest.raises(UsageError, match="called by another pipeline"):
            sample(other, CALLS["flux"])
        assert torch.isfinite(sample(flux, CALLS["flux"])).all()
    assert len(cache.reports) == 1
    alone = copy.copy(other)
    alone.transformer = copy.deepcopy(flux.transformer)
    with SpectralCache(flux, 3), pytest.raises(UsageError, match="Scheduler is cached already"):
        SpectralCache(alone, 3).enable()


def test_a_bar_that_is_closed_is_no_runs_any_more(flux, monkeypatch):
    """In notebooks it is kept."""
    bars, other = [], FluxPipeline.from_pipe(flux)
    other.set_progress_bar_config(disable=True)

    def kept(iterable=None, total=None):
        bars.append(tqdm(iterable, total=total, file=io.StringIO()))
        return bars[-1]

    monkeypatch.setattr(flux, "progress_bar", kept)
    with SpectralCache(flux, 3) as cache:
        sample(flux, CALLS["flux"])
        with pytest.raises(UsageError, match="called by another pipeline"):
            sample(other, CALLS["flux"])
        sample(flux, CALLS["flux"])
    assert [len(report.steps) for report in cache.reports] == [STEPS] * len(bars) == [STEPS] * 2


def test_a_loop_written_by_hand_is_a_run_too(wan):
    """Without the pipeline's call, after one of another length."""
    scheduler, calls = wan.scheduler, []
    latents = torch.randn(1, 16, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    text = torch.zeros(1, 12, wan.transformer.config.text_dim)
    with SpectralCache(wan, 3) as cache:
        sample(wan, CALLS["wan"], steps=12)
        handle = wan.transformer.register_forward_hook(lambda *_: calls.append(1))
        scheduler.set_timesteps(9)
        with torch.no_grad():
            for t in scheduler.timesteps:
                velocity = wan.transformer(latents, t[None], text, return_dict=False)[0]
                latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
        handle.remove()
    assert cache.report.finished
    assert (cache.report.num_steps, len(calls)) == (9, 3)
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize("target", ["OUTPUT", "output", ""])
def test_a_target_that_there_is_not_is_refused(flux, target):
    with pytest.raises(UsageError, match="'feature' and 'denoised'"):
        SpectralCache(flux, 3, target=target)
