"""`spectrum tune`: the search on made-up figures, the command on tiny pipelines, what it writes."""

import json
import random
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import refused
from tiny import tiny_flux

from spectrum.compare.metrics import spread
from spectrum.errors import UsageError
from spectrum.gaussian import Prior
from spectrum.methods import METHODS, tuned_method
from spectrum.pipeline.catalog import find_preset, preset_paths
from spectrum.pipeline.media import to_uint8
from spectrum.pipeline.preset import read_preset, trust_word
from spectrum.pipeline.request import resolve
from spectrum.schedule import ExplicitSchedule, LeastError
from spectrum.timeline import Timeline
from spectrum.tune import tuning
from spectrum.tune.tuning import Case, Choice, Found, default_choice, tune, tuned_yaml

MEAN_KEYS = {"mean", "standard_error"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "flux"
    tiny_flux().save_pretrained(folder)
    return folder


@pytest.fixture
def args(weights, tmp_path, monkeypatch):
    """A search of few candidates."""
    monkeypatch.setattr(tuning, "SCALES", (2.0,))
    monkeypatch.setattr(tuning, "POWERS", (1.25,))
    monkeypatch.setattr(tuning, "LENGTHS", (1.0, 2.0))
    monkeypatch.setattr(tuning, "TRUSTS", (-0.5, 0.0))
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\n")
    return [
        "tune", "flux.1-dev", "--weights", weights, "--width", 32, "--height", 32, "--dtype",
        "float32", "--steps", 12, "--speedups", 3, "--prompts", "prompts.txt",
    ]  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """Calls of the pipeline; the one numbered `stop` is interrupted."""
    real, calls = tuning.generate, []

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
    monkeypatch.setattr(tuning, "generate", generate)
    return counter


# -- the command ---------------------------------------------------------------------------------


def test_a_preset_that_can_be_used(spectrum, args, counted, tmp_path, weights):
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
    assert set(result["psnr"]) == {"tuned", "default", "fewer_steps"}
    assert all({"each", *MEAN_KEYS} == set(line) for line in result["psnr"].values())
    assert set(result["gain_over_default"]) == MEAN_KEYS
    preset = read_preset(tmp_path / "mine.yaml")
    assert preset.cache.method == "spectrum"
    assert preset.cache.speedup == find_preset("flux.1-dev").cache.speedup
    (tuned,) = preset.cache.tuned
    assert tuned.steps == result["steps"]
    assert (tuned.length, trust_word(tuned.trust)) == (result["length"], result["trust"])
    request = resolve(preset, "x", steps=12, speedup=3)
    assert request.schedule == ExplicitSchedule(tuple(result["steps"]))
    assert request.method == tuned_method(result["length"], tuned.trust)
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


def test_an_interrupted_search_goes_on(spectrum, args, counted, tmp_path):
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


def test_without_matplotlib_all_but_the_picture_comes_out(spectrum, args, tmp_path, monkeypatch):
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


def test_too_little_time_is_said_after_the_first_run(spectrum, args, counted):
    assert refused(spectrum(*args, "--quiet", "--minutes", 0.0001), "--minutes 0.0001", "or more")
    assert counted.taken() == 1


def test_refusals(spectrum, args, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "there.yaml").write_text("")
    assert refused(spectrum(*args, "--speedups", "fast"), "--speedups", "fast")
    assert refused(spectrum(*args, "--speedups", "1"), "above 1")
    assert refused(spectrum(*args, "--speedups", "20"), "largest speedup")
    assert refused(spectrum(*args, "-o", "mine.json"), "mine.yaml")
    assert refused(spectrum(*args, "-o", "no/mine.yaml"), "mkdir", code=1)
    assert refused(spectrum(*args, "-o", "there.yaml"), "--force")
    assert refused(spectrum(*args, "--prompts", "none.txt"), "none.txt")
    assert refused(spectrum(*args, "--prompts", "empty.txt"), "no prompt")
    assert refused(spectrum(*args, "--image", "x.png"), "--image")
    assert refused(spectrum("tune", "flux.1-schnell"), "nothing to tune")
    assert refused(spectrum("tune", "elephant"), "elephant")
    assert not list(tmp_path.glob("*.tune"))


# -- the search ----------------------------------------------------------------------------------


SHOWN = Prior(0.4, power=1.5, fall=0.0, settle=0.0)  # how x₀ moves in its plain runs


class MadeUp(tuning.Bench):
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
        self._runs[f"plain #{case}"] = {**times, **self.shown}
        self._ask(f"plain #{case}")

    def quality(self, what, case):
        key = f"{what.key} #{case}"
        self._runs.setdefault(key, {"seconds": 1.1})
        self._ask(key)
        noise = random.Random(key).gauss(0, 0.05)
        prompt = random.Random(case).gauss(30, 5)
        if isinstance(what, tuning.Fewer):
            return prompt - 10
        far = sum(abs(a - b) for a, b in zip(what.steps, self.best.steps, strict=False))
        kind = abs(what.length - self.best.length) + (what.trust != self.best.trust)
        return prompt - 0.5 * far - kind + noise


@pytest.fixture
def base():
    return resolve(find_preset("demo-image"), "x", speedup=1)


BEST = Choice((0, 1, 3, 6, 10, 15, 21, 28, 37, 42, 46), 2.0, 0.0)  # ends as some of the grid do


def test_the_best_is_found(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST)
    (found,) = tune(bench, [4.5], minutes=60)
    assert found.best == BEST
    assert found.better
    assert found.default == replace(default_choice(base, 4.5), usual=False)
    assert found.gain.mean == pytest.approx(
        np.mean(np.subtract(found.tuned_psnr, found.default_psnr))
    )
    assert found.gain_over_fewer.mean == pytest.approx(10, abs=0.1)


def test_the_default_stays_where_nothing_is_better(base, tmp_path):
    bench = MadeUp(base, tmp_path, replace(default_choice(base, 4.5), usual=False))
    (found,) = tune(bench, [4.5], minutes=60)
    assert found.best == found.default
    assert not found.better
    assert found.gain.mean == 0


@pytest.mark.parametrize("cases", [1, 2, 3, 8])
@pytest.mark.parametrize("minutes", [6, 15, None])
def test_time_is_kept(base, tmp_path, minutes, cases):
    bench = MadeUp(base, tmp_path, BEST, cases)
    found = tune(bench, [3.5, 4.5], minutes)
    assert [one.count for one in found] == [14, 11]
    limit = 60 * minutes if minutes else 600
    assert bench.seconds <= limit * 1.1 + 20


@pytest.mark.parametrize("speedup", [2.5, 4.5, 6.2, 20])
def test_the_default_is_said_by_its_steps_length_and_trust(base, tmp_path, speedup):
    bench = MadeUp(base, tmp_path, BEST)
    bench.plain(0)
    guess = default_choice(base, speedup)
    assert guess.usual
    assert guess.request(base).method == replace(METHODS["spectrum"], scale=base.method.scale)
    assert guess.request(base).schedule is None
    bench._runs[f"{guess.key} #0"] = {"seconds": 1, "steps": list(range(len(guess.steps)))}
    choice = bench.known_default(guess)
    assert choice == Choice(tuple(range(len(guess.steps))), 1.0, METHODS["spectrum"].loop.trust)
    assert replace(choice.request(base).method, scale=None) == METHODS["spectrum"]
    assert choice.request(base).schedule == ExplicitSchedule(choice.steps)


@pytest.mark.parametrize("speedup", [3.5, 6.2])
def test_the_grid_begins_near_the_default(base, tmp_path, speedup):
    bench = MadeUp(base, tmp_path, BEST)
    bench.plain(0)
    default = replace(default_choice(base, speedup), usual=False)
    grid = tuning._grid(bench, default)
    assert grid[0] == default
    assert len(set(grid)) == len(grid)
    assert all(len(one.steps) == len(default.steps) for one in grid)
    assert all(one.steps[0] == 0 for one in grid)

    def differs(one):
        return sum(getattr(one, name) != getattr(default, name) for name in ("length", "trust")) + (
            one.steps != default.steps
        )

    near = [min(2, differs(one)) for one in grid]
    assert near == sorted(near)
    kinds = {(one.length, one.trust) for one in grid}
    assert kinds == {(length, trust) for length in tuning.LENGTHS for trust in tuning.TRUSTS}
    assert len(grid) == len(kinds) * len({one.steps for one in grid})
    for prior in tuning.scaled(bench.base):
        steps = LeastError(len(default.steps), prior).computed_steps(base.timeline)
        assert any(one.steps == tuple(steps) for one in grid)


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
    default = replace(default_choice(base, 4), usual=False)
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
    bench._runs["plain #1"]["moves"] = other.tolist()
    first = np.array(bench._runs["plain #0"]["moves"])
    shown = first / np.trace(first) + other / np.trace(other)
    np.testing.assert_allclose(bench.observed(), shown / 2, rtol=1e-9)
    placements = {one.steps for one in tuning._grid(bench, default)}
    priors_alone = MadeUp(base, tmp_path / "b", default, cases=2, process=None)
    priors_alone.plain(0)
    assert priors_alone.observed() is None
    without = {one.steps for one in tuning._grid(priors_alone, default)}
    assert without < placements
    expected = set()
    for scale in {prior.scale for prior in tuning.scaled(base)}:
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
    default = replace(default_choice(base, 4.5), usual=False)
    first = MadeUp(
        base, tmp_path / "a", default, cases=1, process=Prior(0.2, power=2.5, fall=0.0, settle=0.0)
    )
    other = MadeUp(
        base, tmp_path / "b", default, cases=1, process=Prior(3.0, power=0.3, fall=0.0, settle=0.0)
    )
    grids = []
    for bench in (first, other):
        bench.plain(0)
        grids.append({one.steps for one in tuning._grid(bench, default)})
    shown = Prior(3.0, power=0.3, fall=0.0, settle=0.0)
    steps = LeastError(len(default.steps), shown).computed_steps(base.timeline)
    assert tuple(steps) in grids[1]
    assert tuple(steps) not in grids[0]


def test_moves_of_another_number_of_steps_are_left_aside(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST, cases=2)
    bench.plain(0)
    assert bench.observed().shape == (49, 49)
    bench._runs["plain #0"]["moves"] = [[1.0]]
    assert bench.observed() is None


def test_levels_that_the_scheduler_does_not_tell_are_the_presets(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST)
    bench.plain(0)
    bench._runs["plain #0"]["levels"] = None
    assert bench.levels() == base.preset.levels(50)
    bench._runs["plain #0"]["levels"] = [1.0, *np.linspace(1, 0.1, 50)]
    assert bench.levels() == tuple(np.linspace(1, 0.1, 50))


def test_plain_runs_record_levels_and_moves(flux, tmp_path):
    preset = tuning.untuned(find_preset("flux.1-dev"))
    base = resolve(preset, "x", width=32, height=32, steps=12, speedup=1)
    bench = tuning.Bench(lambda: flux, base, [Case("x", 3), Case("y", 4)], tmp_path, {})
    bench.plain(0)
    bench.plain(1)
    ways = []
    for number, case in enumerate(bench.cases[:2]):
        ways.append([])
        request = replace(base, prompt=case.prompt)
        made = tuning.generate(flux, request, case.seed, observe=lambda _, x0: ways[-1].append(x0))
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
    again = tuning.Bench(lambda: None, base, bench.cases[:2], tmp_path, {})
    again.plain(0)
    assert again.levels() == bench.levels()
    np.testing.assert_array_equal(again.observed(), bench.observed())
    assert again.runs_done == 0


def test_results_of_other_settings_are_kept_apart(base, tmp_path):
    MadeUp(base, tmp_path, BEST)._record("x", {"seconds": 1})
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
        return tuning.Bench(lambda: flux, base, [Case("x", 1)], tmp_path / name, {})

    first, always = bench("a"), Choice((0, 2, 5, 8, 11), 1.0, tuning.ALWAYS)
    trusted = first.quality(always, 0)
    trends = first._runs[f"{always.key} #0"]["trends"]
    assert len(trends) == 3
    default = first.known_default(default_choice(base, 3))
    assert first.quality(default, 0) == pytest.approx(
        first.quality(replace(default, usual=True), 0)
    )
    counted.taken()
    for trust in (-0.5, 0.0, 0.2, 1e9):
        choice = Choice(always.steps, 1.0, trust)
        known = first._same(choice, 0)
        assert (known is not None) == (min(trends) > trust)
        if known:
            assert first.quality(choice, 0) == trusted
            assert counted.taken() == 0
            assert bench("b").quality(choice, 0) == pytest.approx(trusted)
            counted.taken()


# -- the preset ----------------------------------------------------------------------------------


def made_up_found(best=BEST):
    default = Choice((*range(len(best.steps) - 1), 49), 1.0, -0.5)
    figures = ((30.0, 32.0), (29.0, 30.5), (20.0, 21.0))
    return Found(50, default, best, *figures, 9, spread([1.0, 2.0]))


@pytest.mark.parametrize("name", preset_paths())
def test_everything_else_of_a_preset_stays(name, tmp_path):
    preset = find_preset(name)
    text = tuned_yaml(preset, [made_up_found()], ["Tuned.", "  by a test"])
    path = tmp_path / "mine.yaml"
    tuning.write_preset(path, text)
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
    tuning.write_preset(path, tuned_yaml(preset, [made_up_found()], []))
    other = Choice((0, 20, 49), 4.0, tuning.ALWAYS)
    tuning.write_preset(path, tuned_yaml(read_preset(path), [made_up_found(other)], []))
    assert "length: 4, trust: always," in path.read_text()
    after = read_preset(path).cache.tuned
    kept = [(entry.steps, entry.length, entry.trust) for entry in after]
    assert kept[0] == (list(other.steps), 4.0, tuning.ALWAYS)
    assert (list(BEST.steps), BEST.length, BEST.trust) in kept[1:]
    again = replace(BEST, steps=(*BEST.steps[:-2], 43, 46))  # found anew
    tuning.write_preset(path, tuned_yaml(read_preset(path), [made_up_found(again)], []))
    steps = [entry.steps for entry in read_preset(path).cache.tuned]
    assert steps == [list(again.steps), list(other.steps)]


def test_the_default_is_written_where_nothing_was_better(tmp_path):
    found = made_up_found()
    found = replace(found, best=found.default)
    text = tuned_yaml(find_preset("demo-image"), [found], [])
    tuning.write_preset(tmp_path / "mine.yaml", text)
    entry = read_preset(tmp_path / "mine.yaml").cache.tuned[0]
    assert entry.steps == list(found.default.steps)
    assert (entry.length, entry.trust) == (1.0, -0.5)
    assert "nothing was surely better" in text
    assert "over the default" not in text


@pytest.mark.filterwarnings("ignore")  # of diffusers, which the command silences
def test_a_model_without_a_file_is_written_out(weights, tmp_path):
    preset = find_preset(str(weights))
    tuning.write_preset(tmp_path / "mine.yaml", tuned_yaml(preset, [made_up_found()], []))
    after = read_preset(tmp_path / "mine.yaml")
    assert after.weights == str(weights)
    assert after.pipeline == "FluxPipeline"
    assert after.guidance == preset.guidance


def test_nothing_unreadable_is_written(tmp_path):
    with pytest.raises(UsageError):
        tuning.write_preset(tmp_path / "mine.yaml", "weights: [\n")
    assert list(tmp_path.iterdir()) == []
