"""`spectrum tune`: the search on made-up figures, the command on tiny pipelines, what it writes."""

import json
import random
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import but, refused
from tiny import tiny_flux

from spectrum.compare.metrics import spread
from spectrum.errors import UsageError
from spectrum.gaussian import Prior
from spectrum.methods import METHODS, tuned_method
from spectrum.pipeline.catalog import find_preset, preset_paths
from spectrum.pipeline.generate import generate
from spectrum.pipeline.media import to_uint8
from spectrum.pipeline.preset import ALWAYS, read_preset, trust_word
from spectrum.pipeline.request import resolve
from spectrum.schedule import ExplicitSchedule, LeastError
from spectrum.timeline import UNIT_SCALE, Timeline
from spectrum.tune import bench as bench_module
from spectrum.tune import budget, candidates
from spectrum.tune import scale as scale_module
from spectrum.tune.bench import Bench, Case
from spectrum.tune.candidates import Choice, Fewer, Planned, law, planned, usual
from spectrum.tune.presettext import tuned_yaml, write_preset
from spectrum.tune.scale import FittedScale
from spectrum.tune.search import Found, Tuning, tune
from spectrum.tune.settings import untuned

MEAN_KEYS = {"mean", "standard_error"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "flux"
    tiny_flux().save_pretrained(folder)
    return folder


@pytest.fixture
def args(weights, tmp_path, monkeypatch):
    """A search of few candidates."""
    for module in (candidates, scale_module, budget):
        monkeypatch.setattr(module, "SCALES", (2.0,))
    monkeypatch.setattr(candidates, "POWERS", (1.25,))
    monkeypatch.setattr(candidates, "LENGTHS", (1.0, 2.0))
    monkeypatch.setattr(candidates, "TRUSTS", (-0.5, 0.0))
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\n")
    return [
        "tune", "flux.1-dev", "--weights", weights, "--width", 32, "--height", 32, "--dtype",
        "float32", "--steps", 12, "--speedups", 3, "--prompts", "prompts.txt",
    ]  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """Calls of the pipeline; the one numbered `stop` is interrupted."""
    real, calls = bench_module.generate, []

    def generate(pipe, request, seed, on_step=None, observe=None):
        calls.append(seed)
        if len(calls) == counter.stop:
            raise KeyboardInterrupt
        return real(pipe, request, seed, on_step, observe)

    class Counter:
        stop = None

        def taken(self):
            count = len(calls)
            calls.clear()
            return count

    counter = Counter()
    monkeypatch.setattr(bench_module, "generate", generate)
    return counter


@pytest.fixture
def favour(monkeypatch):
    """Make some candidates better than they are, by 9 dB."""
    real = Bench.quality

    def make(wanted):
        better = lambda self, what, case: real(self, what, case) + 9 * wanted(what)  # noqa: E731
        monkeypatch.setattr(Bench, "quality", better)

    return make


def is_long(what):
    return isinstance(what, Choice) and what.length == 2


def is_large(what):
    return not isinstance(what, Fewer) and what.scale > 10


# -- the command ---------------------------------------------------------------------------------


def test_a_preset_that_can_be_used(spectrum, args, counted, favour, tmp_path, weights):
    favour(is_long)
    code, out, err = spectrum(*args, "--json", "-o", "mine.yaml")
    assert code == 0, err
    assert "\x1b" not in err
    document = json.loads(out)
    (result,) = document["results"]
    assert document["runs"] == document["runs_now"] == counted.taken()
    assert [case["seed"] for case in document["prompts"]] == [0, 1]
    assert document["check_seeds"] == [2, 3]
    assert result["computed"] == len(result["steps"]) == 4
    assert result["speedup"] == 3
    assert set(result["psnr"]) == {"tuned", "by_scale", "default", "fewer_steps"}
    assert all({"each", *MEAN_KEYS} == set(line) for line in result["psnr"].values())
    assert set(result["gain_over_default"]) == MEAN_KEYS
    assert set(document["scale"]["gain_over_default"]) == MEAN_KEYS
    assert result["own_steps"]
    preset = read_preset(tmp_path / "mine.yaml")
    assert preset.cache.method == "spectrum"
    assert preset.cache.speedup == find_preset("flux.1-dev").cache.speedup
    (tuned,) = preset.cache.tuned
    assert tuned.steps == result["steps"]
    assert (tuned.length, trust_word(tuned.trust)) == (result["length"], result["trust"])
    request = resolve(preset, "x", steps=12, speedup=3)
    assert request.schedule == ExplicitSchedule(tuple(result["steps"]))
    method = tuned_method(result["length"], tuned.trust)
    assert request.method == replace(method, scale=document["scale"]["scale"])
    with Image.open(tmp_path / "mine.png") as picture:
        assert picture.size == (800, 500)
    plain = np.load(tmp_path / "mine.tune" / "plain-000.npy")
    assert plain.shape == (1, 32, 32, 3)
    assert plain.dtype == np.float16
    assert 0 <= plain.min() < plain.max() <= 1
    assert len(np.unique(plain)) > 256  # not rounded to 8 bits
    code, out, err = spectrum(
        "gen", "-m", "mine.yaml", "--weights", weights, "--width", 32, "--height", 32, "--steps",
        12, "--speedup", 3, "x",
    )  # fmt: skip
    assert code == 0, err
    assert "4 of 12 steps computed" in err

    # Again: everything is known, so nothing is run, and the same comes out.
    assert refused(spectrum(*args, "-o", "mine.yaml"), "mine.yaml", "--force")
    counted.taken()
    before = (tmp_path / "mine.yaml").read_text()
    code, out, err = spectrum(*args, "-o", "mine.yaml", "--force")
    assert code == 0, err
    assert counted.taken() == 0
    assert (tmp_path / "mine.yaml").read_text() == before
    assert "4 of 12" in out
    assert "● tuned" in out or "* tuned" in out
    assert "mine.yaml" in out.splitlines()[-1]

    # Other settings are not mixed with these.
    for written in ("mine.yaml", "mine.png"):
        (tmp_path / written).unlink()
    assert refused(spectrum(*args, "--guidance", 2, "-o", "mine.yaml"), "guidance", "--force")
    assert counted.taken() == 0


def test_a_scale_that_all_sizes_and_speedups_profit_from(spectrum, args, favour, tmp_path):
    favour(is_large)
    code, out, err = spectrum(*args, "-o", "mine.yaml")
    assert code == 0, err
    cache = read_preset(tmp_path / "mine.yaml").cache
    assert cache.scale == pytest.approx(6 * 2, rel=0.5)
    assert f"scale {cache.scale:g}, where the default has 6" in out
    assert "it is used for every speedup, size and number of steps" in out
    asked = ["--steps", 30, "--speedup", 5, "--width", 512, "--height", 512]  # not looked at
    code, out, _ = spectrum("plan", "-m", "mine.yaml", *asked)
    assert code == 0
    assert f"pictures of 1,024 latent positions: scale {4 * cache.scale:.3g}" in out
    plain = spectrum("plan", "-m", "flux.1-dev", *asked)[1]
    assert out.splitlines()[3] != plain.splitlines()[3]  # other steps
    code, out, _ = spectrum("plan", "-m", "mine.yaml", "--width", 1024, "--height", 1024, "--json")
    assert json.loads(out)["scale"] == pytest.approx(8 * cache.scale)


def test_nothing_is_written_where_nothing_is_better(spectrum, args, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_module, "psnr", lambda ours, theirs: 30.0)
    code, out, err = spectrum(*args, "-o", "mine.yaml")
    assert code == 0, err
    assert "none: the default stays" in out
    assert "the default's: none was better" in out
    assert "no steps were surely better than those the default computes" in out
    assert out.splitlines()[-1].endswith("no preset is written")
    assert "wrote" not in err
    assert not list(tmp_path.glob("mine.[yp]*"))
    code, out, err = spectrum(*args, "-o", "mine.yaml", "--json", "--quiet")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["output"] is document["plot"] is None
    assert not document["scale"]["better_than_default"]
    assert not document["results"][0]["own_steps"]


def test_an_interrupted_search_goes_on(spectrum, args, counted, favour, tmp_path):
    favour(is_long)
    counted.stop = 9
    result = spectrum(*args, "--quiet")
    assert refused(result, "interrupted", "same command", code=130)
    assert counted.taken() == 9
    assert not (tmp_path / "flux.1-dev-tuned.yaml").exists()
    state = json.loads((tmp_path / "flux.1-dev-tuned.tune" / "results.json").read_text())
    assert len(state["runs"]) == 8
    counted.stop = None
    code, out, err = spectrum(*args, "--json", "--quiet")
    assert code == 0
    assert err == ""
    assert json.loads(out)["runs"] == counted.taken() + 8
    assert read_preset(tmp_path / "flux.1-dev-tuned.yaml").cache.tuned
    assert not list(tmp_path.rglob("*.partial"))


def test_without_matplotlib_all_but_the_picture_comes_out(
    spectrum, args, favour, tmp_path, monkeypatch
):
    favour(is_long)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = spectrum(*args, "-o", "mine.yaml")
    assert code == 0, err
    assert "pip install 'spectrum-diffusion[plot]'" in err.splitlines()[0]  # before the search
    assert "wrote mine.yaml; use it" in err
    assert "4 of 12" in out
    assert "● tuned" in out or "* tuned" in out
    assert not (tmp_path / "mine.png").exists()
    code, out, err = spectrum(*args, "-o", "mine.yaml", "--force", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["plot"] is None


def test_too_little_time_is_said_at_once_where_no_machine_has_it(spectrum, args, counted, tmp_path):
    result = spectrum(*args, "--quiet", "--minutes", 0.0001)
    assert refused(result, "--minutes 0.0001", "runs at least")
    assert counted.taken() == 0
    assert not list(tmp_path.glob("*.tune"))


def test_too_little_time_on_this_machine_is_said_after_two_runs_and_leaves_nothing(
    spectrum, args, counted, tmp_path, monkeypatch
):
    monkeypatch.setattr("spectrum.tune.budget._FASTEST", 0)
    assert refused(spectrum(*args, "--quiet", "--minutes", 0.0001), "--minutes 0.0001", "or more")
    assert counted.taken() == 2
    assert not list(tmp_path.glob("*.tune"))


def test_the_estimate_does_not_trust_a_slow_first_run(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST)
    bench.plain(0)
    bench.store.runs["plain #0"] |= {"step_seconds": 3.0, "other_seconds": 50.0}
    assert bench.timing() == (3.0, 50.0)
    bench.plain(1)
    assert bench.timing() == (0.1, 0.0)


def test_a_folder_of_other_things_is_no_store(spectrum, args, tmp_path):
    (tmp_path / "mine.tune").mkdir()
    (tmp_path / "mine.tune/plain-000.npy").write_text("mine")
    assert refused(spectrum(*args, "--force", "-o", "mine.yaml"), "mine.tune holds other things")
    assert (tmp_path / "mine.tune/plain-000.npy").read_text() == "mine"


def test_refusals(spectrum, args, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "there.yaml").write_text("")
    for broken in ("\x07", "\x0c", "\x85", "\u2028", "\ufffe"):  # some end a line of a comment
        (tmp_path / "broken.txt").write_text(f"a cat\n\na\tdog\nan elephant {broken}on ice\n")
        result = spectrum(*but(args, "--prompts", "broken.txt"))
        assert refused(result, "broken.txt: line 4", "control character", repr(broken))
    assert refused(spectrum(*but(args, "--speedups", "fast")), "--speedups", "fast")
    assert refused(spectrum(*but(args, "--speedups", "1")), "above 1")
    assert refused(spectrum(*but(args, "--speedups", "20")), "largest speedup")
    assert refused(spectrum(*args, "-o", "mine.json"), "mine.yaml")
    assert refused(spectrum(*args, "-o", "no/mine.yaml"), "mkdir", code=1)
    assert refused(spectrum(*args, "-o", "there.yaml"), "--force")
    assert refused(spectrum(*but(args, "--prompts", "none.txt")), "none.txt")
    assert refused(spectrum(*but(args, "--prompts", "empty.txt")), "no prompt")
    assert refused(spectrum(*args, "--image", "x.png"), "--image")
    assert refused(spectrum("tune", "flux.1-schnell"), "nothing to tune")
    assert refused(spectrum("tune", "elephant"), "elephant")
    assert not list(tmp_path.glob("*.tune"))


# -- the search ----------------------------------------------------------------------------------


SHOWN = Prior(0.4, power=1.5, fall=0.0, settle=0.0)  # how x₀ moves in its plain runs


class MadeUp(Bench):
    """A model that is best with these steps, length and trust; prompts differ more than that."""

    def __init__(self, base, folder, best, cases=8, process=SHOWN):
        super().__init__(lambda: None, base, [Case("x", k) for k in range(cases)], folder, {})
        self.best = best
        levels = list(base.preset.levels(base.run_steps))
        covariance = process.covariance(tuple(levels)) if process else None
        self.shown = {
            "levels": levels,
            "moves": process and np.diff(np.diff(covariance, axis=0), axis=1).tolist(),
        }

    def plain(self, case):
        times = {"seconds": 5, "step_seconds": 0.1, "other_seconds": 0.0}
        self.store.runs[f"plain #{case}"] = {**times, **self.shown}
        self._ask(f"plain #{case}")

    def quality(self, what, case):
        key = f"{what.key} #{case}"
        self.store.runs.setdefault(key, {"seconds": 1.1, "steps": None})
        self._ask(key)
        noise = random.Random(key).gauss(0, 0.05)
        prompt = random.Random(case).gauss(30, 5)
        if isinstance(what, Fewer):
            return prompt - 10
        if isinstance(what, Planned):
            what = usual(what.request(self.base).plan.computed_steps, what.scale)
        far = sum(abs(a - b) for a, b in zip(what.steps, self.best.steps, strict=False))
        kind = abs(what.length - self.best.length) + (what.trust != self.best.trust)
        return prompt - 0.5 * far - kind + noise


@pytest.fixture
def base():
    return resolve(find_preset("demo-image"), "x", speedup=1)


# ends as some of the grid do
BEST = Choice((0, 1, 3, 6, 10, 15, 21, 28, 37, 42, 46), 2.0, 0.0, scale=4.0)


def default_choice(base, speedup):
    """The default's, as far as the preset tells."""
    plan = planned(base, speedup)
    return usual(plan.request(base).plan.computed_steps, plan.scale)


def grid(bench, start):
    return candidates.grid(bench.base, start, bench.levels(), bench.observed())


def test_the_best_is_found(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST)
    tuning = tune(bench, [4.5], minutes=60)
    (found,) = tuning.found
    assert found.best == replace(BEST, scale=tuning.scale.chosen)
    assert found.better
    assert found.default == default_choice(base, 4.5)
    assert found.gain.mean == pytest.approx(
        np.mean(np.subtract(found.tuned_psnr, found.default_psnr))
    )
    assert found.gain_over_fewer.mean == pytest.approx(10, abs=0.1)


def test_the_default_stays_where_nothing_is_better(base, tmp_path):
    bench = MadeUp(base, tmp_path, default_choice(base, 4.5))
    tuning = tune(bench, [4.5], minutes=60)
    (found,) = tuning.found
    assert found.best == found.scaled == found.default
    assert not tuning.better
    assert not found.better
    assert found.gain.mean == 0


class OfOneScale(MadeUp):
    """A model that wants another scale, and no steps but those that follow from it."""

    def __init__(self, base, folder, wanted, cases=8):
        super().__init__(base, folder, None, cases)
        self.wanted = wanted

    def quality(self, what, case):
        key = f"{what.key} #{case}"
        self.store.runs.setdefault(key, {"seconds": 1.1, "steps": None})
        self._ask(key)
        noise = random.Random(key).gauss(0, 0.2)
        prompt = random.Random(case).gauss(30, 5)
        if isinstance(what, Fewer):
            return prompt - 10
        planned = isinstance(what, Planned) or what == usual(self.known_steps(what), what.scale)
        return prompt - 2 * abs(np.log2(what.scale / self.wanted)) - (not planned) + noise

    def known_steps(self, choice):
        return self.known(Planned(len(choice.steps), choice.scale)).steps


@pytest.mark.parametrize("factor", [0.25, 0.36, 1.0, 1.4, 2.7, 4.0])
def test_the_scale_is_fitted_over_all_speedups(base, tmp_path, factor):
    bench = OfOneScale(base, tmp_path, UNIT_SCALE * factor)
    tuning = tune(bench, [3, 4.5, 6], minutes=60)
    scale = tuning.scale
    assert scale.default == UNIT_SCALE
    assert abs(np.log2(scale.chosen / bench.wanted)) < 0.26  # half of what lies between two tried
    assert scale.better == tuning.better == (factor != 1)
    assert len(scale.tried) <= 9
    assert scale.gain.mean == pytest.approx(2 * abs(np.log2(factor)), abs=0.6)
    assert scale.gain.error is not None
    for one in tuning.found:
        assert one.best == one.scaled
        assert one.best.scale == scale.chosen
        assert one.default.scale == UNIT_SCALE
        assert (
            one.gain.mean == pytest.approx(scale.gain.mean, abs=0.6)
            if factor != 1
            else not one.gain.mean
        )
    seen = [key for key in bench.asked if "scale" in key and "length" not in key]
    assert len(seen) < 250  # of 3 speedups and 16 prompts, and those that `known_steps` asks for


def test_a_scale_that_the_preset_states_is_tried_too(base, tmp_path):
    cache = base.preset.cache.model_copy(update={"scale": 30.0})
    stated = base.preset.model_copy(update={"cache": cache})
    request = resolve(untuned(stated), "x", speedup=1)
    scale = tune(OfOneScale(request, tmp_path, 30.0), [4.5], minutes=60).scale
    assert (scale.default, scale.chosen) == (UNIT_SCALE, 30)


def test_a_scale_that_only_the_search_likes_is_not_taken(base, tmp_path):
    class Flattered(OfOneScale):
        def quality(self, what, case):
            found = super().quality(what, case)
            return found if case in self.searched else 30.0

    scale = tune(Flattered(base, tmp_path, 24.0), [4.5], minutes=60).scale
    assert scale.best == 24
    assert scale.search_gain.mean > 3
    assert not scale.better
    assert scale.chosen == scale.default


@pytest.mark.parametrize("cases", [1, 2, 3, 8])
@pytest.mark.parametrize("minutes", [6, 15, None])
def test_time_is_kept(base, tmp_path, minutes, cases):
    bench = MadeUp(base, tmp_path, BEST, cases)
    found = tune(bench, [3.5, 4.5], minutes).found
    assert [one.count for one in found] == [14, 11]
    limit = 60 * minutes if minutes else 600
    assert bench.seconds <= limit * 1.1 + 20


@pytest.mark.parametrize("speedup", [2.5, 4.5, 6.2, 20])
def test_the_default_is_said_by_its_steps_length_and_trust(base, tmp_path, speedup):
    bench = MadeUp(base, tmp_path, BEST)
    bench.plain(0)
    plan = planned(base, speedup)
    assert plan.request(base).method == replace(METHODS["spectrum"], scale=base.method.scale)
    assert plan.request(base).schedule is None
    steps = list(range(plan.count))
    bench.store.runs[f"{plan.key} #0"] = {"seconds": 1, "psnr": 30.0, "steps": steps}
    choice = bench.known(plan)
    assert choice == Choice(tuple(steps), 1.0, METHODS["spectrum"].loop.trust, law(base))
    assert choice.request(base).method == plan.request(base).method
    assert choice.request(base).schedule == ExplicitSchedule(choice.steps)


@pytest.mark.parametrize("speedup", [3.5, 6.2])
def test_the_grid_begins_near_the_default(base, tmp_path, speedup):
    bench = MadeUp(base, tmp_path, BEST)
    bench.plain(0)
    default = default_choice(base, speedup)
    choices = grid(bench, default)
    assert choices[0] == default
    assert len(set(choices)) == len(choices)
    assert all(len(one.steps) == len(default.steps) for one in choices)
    assert all(one.steps[0] == 0 for one in choices)

    def differs(one):
        return sum(getattr(one, name) != getattr(default, name) for name in ("length", "trust")) + (
            one.steps != default.steps
        )

    near = [min(2, differs(one)) for one in choices]
    assert near == sorted(near)
    kinds = {(one.length, one.trust) for one in choices}
    assert kinds == {(long, trust) for long in candidates.LENGTHS for trust in candidates.TRUSTS}
    assert len(choices) == len(kinds) * len({one.steps for one in choices})
    for prior in candidates.scaled(base, default.scale):
        steps = LeastError(len(default.steps), prior).computed_steps(base.timeline)
        assert any(one.steps == tuple(steps) for one in choices)


@dataclass(frozen=True)
class Given(Prior):
    """A covariance that does not follow from the levels."""

    rows: tuple = ()

    def covariance(self, levels):
        return np.array(self.rows) - self.rows[0][0]


def seen_covariance(shown, part, scale):
    """Of the mean of plain runs' ways, begun at the part's first step."""
    ways = np.linalg.cholesky(np.array(shown)).cumsum(0)  # x₀ at the steps after the first
    ways = np.vstack([np.zeros(len(ways)), ways])[part]
    ways = ways - ways[0]
    return Given(scale=scale, rows=tuple(map(tuple, ways @ ways.T)))


@pytest.mark.parametrize("name", ["demo-image", "wan2.2-t2v-a14b"])
def test_the_grid_holds_steps_by_what_plain_runs_showed(name, tmp_path):
    base = resolve(find_preset(name), "x", speedup=1)
    count, handover = base.run_steps, base.preset.handover(base.run_steps)
    assert (handover > 0) == (name != "demo-image")
    default = default_choice(base, 4)
    bench = MadeUp(
        base, tmp_path / "a", default, cases=2, process=Prior(0.2, power=2.5, fall=0.0, settle=0.0)
    )
    bench.plain(0)
    bench.plain(1)
    levels = bench.levels()
    assert levels == pytest.approx(base.preset.levels(count))
    # prompts count alike, however far x₀ moves with them
    other = Prior(0.1, power=1.5, fall=0.0, settle=0.0).covariance(levels)
    other = 1e4 * np.diff(np.diff(other, axis=0), axis=1)
    bench.store.runs["plain #1"]["moves"] = other.tolist()
    first = np.array(bench.store.runs["plain #0"]["moves"])
    shown = first / np.trace(first) + other / np.trace(other)
    np.testing.assert_allclose(bench.observed(), shown / 2, rtol=1e-9)
    placements = {one.steps for one in grid(bench, default)}
    priors_alone = MadeUp(base, tmp_path / "b", default, cases=2, process=None)
    priors_alone.plain(0)
    assert priors_alone.observed() is None
    without = {one.steps for one in grid(priors_alone, default)}
    assert without < placements
    expected = set()
    for scale in {prior.scale for prior in candidates.scaled(base, default.scale)}:
        steps = []
        for begin, end in ((0, handover), (handover, count)):
            mine = sum(begin <= step < end for step in default.steps)
            if mine:
                part = slice(begin, end + 1)  # the first denoiser's run goes on where it ends
                prior = seen_covariance(shown, part, scale)
                timeline = Timeline(levels[part], goes_on=begin < handover)
                found = LeastError(mine, prior).computed_steps(timeline)
                steps += [begin + step for step in found]
        expected.add(tuple(steps))
    assert placements == without | expected
    assert all({0, handover} <= set(steps) for steps in placements)
    assert all(len(steps) == len(default.steps) for steps in placements)


def test_what_later_plain_runs_showed_is_not_mixed_up_with_the_first(base, tmp_path):
    default = default_choice(base, 4.5)
    first = MadeUp(
        base, tmp_path / "a", default, cases=1, process=Prior(0.2, power=2.5, fall=0.0, settle=0.0)
    )
    other = MadeUp(
        base, tmp_path / "b", default, cases=1, process=Prior(3.0, power=0.3, fall=0.0, settle=0.0)
    )
    grids = []
    for bench in (first, other):
        bench.plain(0)
        grids.append({one.steps for one in grid(bench, default)})
    shown = Prior(3.0, power=0.3, fall=0.0, settle=0.0)
    steps = LeastError(len(default.steps), shown).computed_steps(base.timeline)
    assert tuple(steps) in grids[1]
    assert tuple(steps) not in grids[0]


def test_moves_of_another_number_of_steps_are_left_aside(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST, cases=2)
    bench.plain(0)
    assert bench.observed().shape == (49, 49)
    bench.store.runs["plain #0"]["moves"] = [[1.0]]
    assert bench.observed() is None


def test_levels_that_the_scheduler_does_not_tell_are_the_presets(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST)
    bench.plain(0)
    bench.store.runs["plain #0"]["levels"] = None
    assert bench.levels() == base.preset.levels(50)
    bench.store.runs["plain #0"]["levels"] = [1.0, *np.linspace(1, 0.1, 50)]
    assert bench.levels() == tuple(np.linspace(1, 0.1, 50))


def test_plain_runs_record_levels_and_moves(flux, tmp_path):
    preset = untuned(find_preset("flux.1-dev"))
    base = resolve(preset, "x", width=32, height=32, steps=12, speedup=1)
    bench = Bench(lambda: flux, base, [Case("x", 3), Case("y", 4)], tmp_path, {})
    bench.plain(0)
    bench.plain(1)
    ways = []
    for number, case in enumerate(bench.cases[:2]):
        ways.append([])
        request = replace(base, prompt=case.prompt)
        made = generate(flux, request, case.seed, observe=lambda _, x0: ways[-1].append(x0))
        np.testing.assert_array_equal(bench.plain(number), made.pixels.astype(np.float16))
        np.testing.assert_array_equal(to_uint8(made.pixels), made.frames)
        assert made.pixels.dtype == np.float32
    state = json.loads((tmp_path / "results.json").read_text())
    for case, way in enumerate(ways):
        run = state["runs"][f"plain #{case}"]
        assert run["levels"] == pytest.approx(flux.scheduler.sigmas[:12].tolist())
        moves = torch.stack(way).flatten(1).double().diff(dim=0).numpy()
        assert len(moves) == 11
        np.testing.assert_allclose(run["moves"], moves @ moves.T, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(run["moves"], np.transpose(run["moves"]))
    again = Bench(lambda: None, base, bench.cases[:2], tmp_path, {})
    again.plain(0)
    assert again.levels() == bench.levels()
    np.testing.assert_array_equal(again.observed(), bench.observed())
    assert again.runs_done == 0


def test_results_of_other_settings_are_kept_apart(base, tmp_path):
    MadeUp(base, tmp_path, BEST).store.record("x", {"seconds": 1, "psnr": 30})
    assert MadeUp(base, tmp_path, BEST).recorded == 1
    with pytest.raises(UsageError, match="cases"):
        MadeUp(base, tmp_path, BEST, cases=3)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UsageError, match="remove"):
        MadeUp(base, tmp_path, BEST)


def test_a_run_that_is_known_to_be_the_same_is_not_done_again(flux, counted, tmp_path):
    base = resolve(
        find_preset("flux.1-dev"), "x", width=32, height=32, steps=12, speedup=1, method="spectrum"
    )

    def bench(name):
        return Bench(lambda: flux, base, [Case("x", 1)], tmp_path / name, {})

    first, always = bench("a"), Choice((0, 2, 5, 8, 11), 1.0, ALWAYS, law(base))
    trusted = first.quality(always, 0)
    trends = first.store.runs[f"{always.key} #0"]["trends"]
    assert len(trends) == 3
    counted.taken()
    for trust in (-0.5, 0.0, 0.2, 1e9):
        choice = replace(always, trust=trust)
        known = first._same(choice, 0)
        assert (known is not None) == (min(trends) > trust)
        if known:
            assert first.quality(choice, 0) == trusted
            assert counted.taken() == 0
            assert bench("b").quality(choice, 0) == pytest.approx(trusted)
            counted.taken()
    assert first._same(replace(always, trust=-0.5, scale=1.0), 0) is None


def test_the_default_with_its_steps_said_is_the_same_run(flux, counted, tmp_path):
    base = resolve(
        untuned(find_preset("flux.1-dev")), "x", width=32, height=32, steps=12, speedup=1
    )
    for scale in (law(base), 1.0):
        plan = Planned(4, scale)
        bench = Bench(lambda: flux, base, [Case("x", 1)], tmp_path / f"{scale}", {})
        default = bench.known(plan)
        counted.taken()
        assert bench.quality(default, 0) == bench.quality(plan, 0)
        assert counted.taken() == 0
        other = Bench(lambda: flux, base, [Case("x", 1)], tmp_path / f"{scale} again", {})
        assert other.quality(default, 0) == pytest.approx(bench.quality(plan, 0))
        assert counted.taken() == 2


# -- the preset ----------------------------------------------------------------------------------


AS_THE_LAW = FittedScale(4.0, 4.0, (1.0, 4.0), spread([0.0, 0.0]), spread([0.0, 0.0]))
ANOTHER = FittedScale(4.0, 5.66, (4.0, 5.66), spread([1.0, 2.0]), spread([1.0, 2.0]))


def made_up(best=BEST, scale=AS_THE_LAW):
    count = len(best.steps) if best else 11
    default = Choice((*range(count - 1), 49), 1.0, -0.5, 4.0)
    scaled = replace(default, scale=scale.chosen)
    figures = ((30.0, 32.0), (29.5, 31.0), (29.0, 30.5), (20.0, 21.0))
    found = Found(50, default, scaled, best or scaled, *figures, 9, spread([1.0, 2.0]))
    return Tuning(scale, (found,))


@pytest.mark.parametrize("name", preset_paths())
def test_everything_else_of_a_preset_stays(name, tmp_path):
    preset = find_preset(name)
    text = tuned_yaml(preset, made_up(), ["Tuned.", "  by a test"])
    path = tmp_path / "mine.yaml"
    write_preset(path, text)
    after = read_preset(path)
    assert after.cache.tuned[0].steps == list(BEST.steps)
    weights = f"embedded:{name}" if preset.weights == "embedded" else preset.weights
    same = {"cache": preset.cache, "name": preset.name, "path": preset.path}
    assert after.weights == weights
    assert after.embedded_folder == preset.embedded_folder
    assert after.model_copy(update={**same, "weights": preset.weights}) == preset
    comments = {line for line in preset.path.read_text().splitlines() if line.startswith("#")}
    assert comments <= set(text.splitlines())
    assert text.startswith("# Tuned.\n#   by a test\n#\n")
    assert "+1.25 ± 0.25 dB over the default" in text


def test_what_was_tuned_before_for_other_steps_stays(tmp_path):
    preset, path = find_preset("demo-image"), tmp_path / "mine.yaml"
    write_preset(path, tuned_yaml(preset, made_up(), []))
    other = Choice((0, 20, 49), 4.0, ALWAYS, 4.0)
    write_preset(path, tuned_yaml(read_preset(path), made_up(other), []), replace=True)
    assert "length: 4, trust: always," in path.read_text()
    after = read_preset(path).cache.tuned
    kept = [(entry.steps, entry.length, entry.trust) for entry in after]
    assert kept[0] == (list(other.steps), 4.0, ALWAYS)
    assert (list(BEST.steps), BEST.length, BEST.trust) in kept[1:]
    again = replace(BEST, steps=(*BEST.steps[:-2], 43, 46))  # found anew
    write_preset(path, tuned_yaml(read_preset(path), made_up(again), []), replace=True)
    steps = [entry.steps for entry in read_preset(path).cache.tuned]
    assert steps == [list(again.steps), list(other.steps)]


def test_a_scale_is_written_alone_where_no_steps_were_better(tmp_path):
    text = tuned_yaml(find_preset("demo-image"), made_up(None, ANOTHER), [])
    write_preset(tmp_path / "mine.yaml", text)
    cache = read_preset(tmp_path / "mine.yaml").cache
    assert (cache.scale, cache.tuned) == (5.66, [])
    assert "# +1.50 ± 0.50 dB over the default, which is 4; mean of" in text
    text = tuned_yaml(find_preset("demo-image"), made_up(BEST, ANOTHER), [])
    write_preset(tmp_path / "mine.yaml", text, replace=True)
    cache = read_preset(tmp_path / "mine.yaml").cache
    assert (cache.scale, cache.tuned[0].steps) == (5.66, list(BEST.steps))
    assert "+0.75 ± 0.25 dB over the plan by this scale" in text
    text = tuned_yaml(read_preset(tmp_path / "mine.yaml"), made_up(BEST), [])
    write_preset(tmp_path / "mine.yaml", text, replace=True)
    assert read_preset(tmp_path / "mine.yaml").cache.scale is None  # the law's was as good now


@pytest.mark.filterwarnings("ignore")  # of diffusers, which the command silences
def test_a_model_without_a_file_is_written_out(weights, tmp_path):
    preset = find_preset(str(weights))
    write_preset(tmp_path / "mine.yaml", tuned_yaml(preset, made_up(), []))
    after = read_preset(tmp_path / "mine.yaml")
    assert after.weights == str(weights)
    assert after.pipeline == "FluxPipeline"
    assert after.guidance == preset.guidance


def test_nothing_unreadable_is_written(tmp_path):
    with pytest.raises(UsageError):
        write_preset(tmp_path / "mine.yaml", "weights: [\n")
    assert list(tmp_path.iterdir()) == []
