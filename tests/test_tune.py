"""`spectrum tune`: the search on made-up figures, the command on tiny pipelines, what it writes."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_cli import refused
from tiny import tiny_flux

from spectrum import tuning
from spectrum.errors import UsageError
from spectrum.methods import METHODS, tuned_method
from spectrum.metrics import spread
from spectrum.plot import Chart, draw_chart, text_chart, ticks
from spectrum.preset import find_preset, preset_paths, read_preset
from spectrum.request import resolve
from spectrum.schedule import ExplicitSchedule
from spectrum.tuning import Case, Choice, Found, default_choice, tune, tuned_yaml

MEAN_KEYS = {"mean", "standard_error"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "flux"
    tiny_flux().save_pretrained(folder)
    return folder


@pytest.fixture
def args(weights, tmp_path, monkeypatch):
    """A search of few candidates."""
    monkeypatch.setattr(tuning, "POWERS", (1.3,))
    monkeypatch.setattr(tuning, "DAMPINGS", (0.5, 1.0))
    monkeypatch.setattr(tuning, "TRUSTS", (-0.1, tuning.NEVER))
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\n")
    return [
        "tune", "flux.1-dev", "--weights", weights, "--width", 32, "--height", 32, "--dtype",
        "float32", "--steps", 12, "--speedups", 3, "--prompts", "prompts.txt",
    ]  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """Calls of the pipeline; the one numbered `stop` is interrupted."""
    real, calls = tuning.generate, []

    def generate(pipe, request, seed, on_step=None):
        calls.append(seed)
        if len(calls) == counter.stop:
            raise KeyboardInterrupt
        return real(pipe, request, seed, on_step)

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
    assert (tuned.damping, tuned.trust) == (result["damping"], result["trust"])
    request = resolve(preset, "x", steps=12, speedup=3)
    assert request.schedule == ExplicitSchedule(tuple(result["steps"]))
    assert request.method == tuned_method(result["damping"], result["trust"])
    with Image.open(tmp_path / "mine.png") as picture:
        assert picture.size == (800, 500)
    plain = np.load(tmp_path / "mine.tune" / "plain-000.npy")
    assert plain.shape == (1, 32, 32, 3)
    assert plain.dtype == np.uint8
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


class MadeUp(tuning.Bench):
    """A model that is best with these steps, damping and trust; prompts differ more than that."""

    def __init__(self, base, folder, best, cases=8):
        super().__init__(lambda: None, base, [Case("x", k) for k in range(cases)], folder, {})
        self.best = best

    def plain(self, case):
        self._runs[f"plain #{case}"] = {"seconds": 5, "step_seconds": 0.1, "other_seconds": 0.0}
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
        kind = abs(what.damping - self.best.damping) + (what.trust != self.best.trust)
        return prompt - 0.5 * far - kind + noise


@pytest.fixture
def base():
    return resolve(find_preset("demo-image"), "x", speedup=1)


BEST = Choice((0, 1, 3, 6, 10, 15, 21, 28, 37, 42, 49), 0.75, 0.2)


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


def test_high_speedups_may_keep_the_cautious_default(base, tmp_path):
    bench = MadeUp(base, tmp_path, BEST)
    assert not bench.known_default(default_choice(base, 4.5)).usual
    choice = bench.known_default(default_choice(base, 6.2))
    assert choice.usual
    assert choice.request(base).method == METHODS["spectrum"]
    grid = tuning._grid(base, choice)
    assert grid[0] == choice
    assert grid[1] == Choice(choice.steps, choice.damping, choice.trust)
    assert len(set(grid)) == len(grid)
    assert all(len(one.steps) == len(choice.steps) for one in grid)


def test_both_denoisers_get_steps():
    base = resolve(find_preset("wan2.2-t2v-a14b"), "x", speedup=1)
    handover = base.preset.handover(base.run_steps)
    choice = default_choice(base, 3)
    assert handover in choice.steps
    for other in tuning._grid(base, choice):
        assert {0, handover} <= set(other.steps)
        assert len(other.steps) == len(choice.steps)


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

    first, always = bench("a"), Choice((0, 2, 5, 8, 11), 0.5, tuning.ALWAYS)
    trusted = first.quality(always, 0)
    trends = first._runs[f"{always.key} #0"]["trends"]
    assert len(trends) == 3
    default = first.known_default(default_choice(base, 3))
    assert first.quality(default, 0) == pytest.approx(
        first.quality(replace(default, usual=True), 0)
    )
    counted.taken()
    for trust in (-0.1, 0.2, tuning.NEVER):
        choice = Choice(always.steps, 0.5, trust)
        known = first._same(choice, 0)
        assert (known is not None) == (min(trends) > trust)
        if known:
            assert first.quality(choice, 0) == trusted
            assert counted.taken() == 0
            assert bench("b").quality(choice, 0) == pytest.approx(trusted)
            counted.taken()


# -- the preset ----------------------------------------------------------------------------------


def made_up_found(best=BEST):
    default = Choice((*range(10), 49), 0.5, -0.1, best.usual)
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
    other = Choice((0, 20, 49), 1.0, tuning.ALWAYS)
    tuning.write_preset(path, tuned_yaml(read_preset(path), [made_up_found(other)], []))
    after = read_preset(path).cache.tuned
    steps = [entry.steps for entry in after]
    assert list(other.steps) in steps
    assert after[0].trust == tuning.ALWAYS


def test_a_cautious_default_is_left_to_the_method(tmp_path):
    usual = Choice((*range(10), 49), 0.5, -0.1, usual=True)
    text = tuned_yaml(find_preset("demo-image"), [made_up_found(usual)], [])
    tuning.write_preset(tmp_path / "mine.yaml", text)
    assert read_preset(tmp_path / "mine.yaml").cache.tuned == []
    assert "nothing was surely better" in text


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


# -- the chart -----------------------------------------------------------------------------------

CHART = Chart(
    "a title", "speedup", "dB",
    {"ours": [(4.5, 30.0, 0.5), (2.5, 40.0, None)], "theirs": [(2.5, 30.0, 1.0)], "none": []},
)  # fmt: skip


def test_ticks_are_round_numbers():
    assert ticks(0.0, 10.0, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(2.3, 6.4, 5) == [3, 4, 5, 6]
    assert ticks(-0.013, 0.012, 5) == pytest.approx([-0.01, -0.005, 0, 0.005, 0.01])


def test_a_chart_has_every_series():
    picture = draw_chart(CHART, 400, 300)
    assert picture.size == (400, 300)
    colours = {colour for _, colour in picture.getcolors(400 * 300)}
    assert (0x13, 0x68, 0xAA) in colours
    assert (0xD1, 0x60, 0x0A) in colours
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_chart_in_characters():
    text = text_chart(CHART, width=40)
    assert text.count("●") == 3  # with the legend's
    assert text.count("■") == 2
    assert "a title" in text
    assert max(map(len, text.splitlines())) <= 60
    assert text_chart(CHART, encoding="ascii").isascii()
    assert text_chart(Chart("t", "x", "y", {}))
    assert draw_chart(Chart("t", "x", "y", {"one": [(3.0, 20.0, None)]}))
