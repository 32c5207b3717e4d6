"""`spectrum compare`: figures, rivals, the folder and the page, on tiny pipelines."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import FLUX, WAN, but, files, refused
from test_media import read_mp4

from spectrum.compare import metrics
from spectrum.compare.caches import (
    NotForThisClass,
    check_class,
    firstblock_threshold,
    taylorseer_steps,
)
from spectrum.compare.comparison import Case, Comparison
from spectrum.compare.metrics import PSNR_LIMIT, likeness, spread
from spectrum.compare.page import page
from spectrum.compare.rivals import DEFAULT_RIVALS, find_rivals
from spectrum.compare.running import make, prepared
from spectrum.compare.sheet import AMPLIFY, contact, difference, stacked, strip
from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.generate import generate
from spectrum.pipeline.loading import Options
from spectrum.pipeline.media import read_metadata
from spectrum.pipeline.request import resolve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
METHODS = ["published:0.5", "hold", "diffusers-taylorseer"]


@pytest.fixture
def flux_args(folders):
    return [*FLUX, "--weights", folders / "flux", "--steps", 12, "--speedup", 1.5]


@pytest.fixture
def wan_args(folders):
    return [*WAN, "--weights", folders / "wan", "--steps", 8, "--speedup", 1.5]


def methods(*names):
    return [part for name in names for part in ("--method", name)]


def frames(seed, shape=(3, 32, 48, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def pixels(seed, shape=(3, 32, 48, 3)):
    return np.random.default_rng(seed).random(shape, np.float32)


# -- figures -------------------------------------------------------------------------------------


def test_psnr_is_of_each_frame_in_float():
    reference = pixels(0) / 2
    near = reference.copy()
    near[1] += 0.1 / 255  # less than rounding to 8 bits would show
    near[2] += 20 / 255
    expected = [PSNR_LIMIT, 20 * np.log10(255 / 0.1), 20 * np.log10(255 / 20)]
    assert likeness(near, reference).psnr == pytest.approx(np.mean(expected), abs=1e-3)


def test_ssim_of_equal_and_of_unlike_pictures():
    assert likeness(pixels(0), pixels(0)).ssim == pytest.approx(1)
    assert abs(likeness(pixels(0), pixels(1)).ssim) < 0.1
    assert likeness(pixels(0)[:1], pixels(0)[:1]).ssim == pytest.approx(1)
    with pytest.raises(ValueError, match="can't be compared"):
        likeness(pixels(0), pixels(0)[:2])


def test_lpips_is_left_out_rather_than_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert not metrics.has_lpips()
    assert likeness(pixels(0), pixels(1)).lpips is None


def test_lpips_where_its_weights_are_here(monkeypatch):
    class Half:
        reset = staticmethod(lambda: None)

        def __call__(self, a, b):
            assert a.shape == b.shape == (1, 3, 32, 48)
            return torch.tensor(0.5)

    monkeypatch.setattr(metrics, "has_lpips", lambda: True)
    monkeypatch.setattr(metrics, "_lpips", Half)
    assert likeness(pixels(0), pixels(1)).lpips == 0.5


def test_spread():
    assert spread([3.0]) == metrics.Spread(3.0, None)
    assert spread([1.0, 2.0, 3.0]).error == pytest.approx(1 / np.sqrt(3))


# -- sheets --------------------------------------------------------------------------------------


def test_differences_are_amplified_up_to_white():
    black = np.zeros((1, 4, 4, 3), np.uint8)
    assert (difference(black + 3, black) == 3 * AMPLIFY).all()
    assert (difference(black, black + 200) == 255).all()


def test_sheets_hold_what_they_show():
    films = [(f"film {k}", [frames(k, (5, 32, 48, 3))] * 2) for k in range(7)]
    sheet = contact("seven", films)
    body = stacked([sheet, sheet])
    assert len(sheet) == 5
    assert body.shape[1] % 2 == body.shape[2] % 2 == 0
    assert sheet.shape[2] == 4 * 288 + 3 * 8  # six times as large; four and three
    assert strip("one", [("film", frames(0, (5, 32, 48, 3)))]).shape[0] == 1


@pytest.mark.parametrize(
    "text", ["a red cat " * 10000, "x" * 100000, "two\nlines", "\u0301" * 99999]
)
def test_captions_of_any_length_are_cut_at_once(text):
    began = time.process_time()
    assert contact(text, [(text, [frames(0)])]).shape[2] == 288
    assert time.process_time() - began < 2


# -- rivals --------------------------------------------------------------------------------------


@pytest.fixture
def ask():
    preset = find_preset("flux.1-dev")

    return partial(resolve, preset, "x", width=32, height=32, steps=12)


def test_the_rivals_by_default(ask):
    rivals = find_rivals([], ask, 1.5)
    assert sorted(rival.name for rival in rivals) == sorted(DEFAULT_RIVALS)
    assert rivals[-1].kind == "firstblock"  # the costly search last
    half = next(rival for rival in rivals if rival.name == "published:0.5")
    assert half.request.method.forecaster.blend == 0.5
    few = find_rivals([], ask, 6)  # too few steps for a warm-up of five
    assert "largest speedup" in next(r.reason for r in few if r.name == "published")
    assert [rival.name for rival in find_rivals(["hold"], ask, 2)] == ["hold", "fewer-steps"]


def test_errors_name_the_argument(ask):
    with pytest.raises(UsageError, match="give `method` diffusers-taylorseer"):
        find_rivals(["diffusers-taylorseer:2"], ask, 1.5)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("fewer-steps", 7), ("fewer-steps:heun", 3), ("fewer-steps:unipc", 7)],
)
def test_step_reduction_gives_the_scheduler_back(flux, ask, name, steps):
    own = flux.scheduler
    rival = prepared(flux, find_rivals([name], ask, 1.5)[0], "x", 0, 7)
    assert rival.request.steps == steps  # Heun calls the denoiser twice a step
    if name.endswith("heun"):
        with pytest.raises(UsageError, match="FluxPipeline refuses this"):
            make(flux, rival, "x", 0)
    else:
        assert make(flux, rival, "x", 0).computed == steps
    assert flux.scheduler is own


@pytest.mark.parametrize("pipeline", ["flux", "wan"])
@pytest.mark.parametrize("name", ["diffusers-taylorseer", "diffusers-firstblock"])
def test_caches_of_diffusers_leave_the_pipeline_as_it_was(request, ask, pipeline, name):
    pipe = request.getfixturevalue(pipeline)
    if pipeline == "wan":
        ask = partial(resolve, find_preset("wan2.1-1.3b"), "x", width=32, height=32, frames=5)
    ask = partial(ask, steps=8)
    plain = ask(speedup=1.0)
    before = generate(pipe, plain, 0).frames
    rival = find_rivals([name], ask, 2)[-1]
    rival = prepared(pipe, rival, "x", 0, 4)
    made = make(pipe, rival, "x", 0)
    assert 4 <= made.computed < 8
    assert made.generation.report.num_steps == 8
    assert not pipe.transformer.is_cache_enabled
    assert "forward" not in vars(pipe.transformer.blocks[-1] if pipeline == "wan" else
                                 pipe.transformer.single_transformer_blocks[-1])  # fmt: skip
    assert (generate(pipe, plain, 0).frames == before).all()


def test_taylorseers_own_rule():
    assert taylorseer_steps(50, 5, 3) == 3 + 10  # 0 1 2, then 4 9 ... 49


@pytest.mark.parametrize(("budget", "expected"), [(7, 7), (1, 2), (11, 12)])
def test_the_threshold_computes_the_budget_or_a_bit_more(budget, expected):
    tried = []

    def computed(threshold):  # 12 steps below 0.003, then 7, then 2
        tried.append(threshold)
        return 12 if threshold < 0.003 else 7 if threshold < 0.3 else 2

    found = firstblock_threshold(computed, budget)
    assert len(tried) <= 6
    assert computed(found) == expected


def test_classes_that_caches_do_not_take():
    bare = SimpleNamespace(transformer=torch.nn.Linear(2, 2))
    with pytest.raises(NotForThisClass, match="none of diffusers' caches"):
        check_class(bare, "firstblock")


# -- the command ---------------------------------------------------------------------------------


def test_images(spectrum, flux_args, tmp_path):
    (tmp_path / "two.txt").write_text("a red cat\n\na <b>{{table}}</b> dog\n")
    code, out, err = spectrum(
        "compare", *flux_args, "--prompts", "two.txt", "--seed", 7, *methods(*METHODS),
    )  # fmt: skip
    assert code == 0, err
    folder = tmp_path / "compare-flux.1-dev-two"
    assert files(folder) == ["index.html", "pictures", "result.json", "sheet.png"]
    result = json.loads((folder / "result.json").read_text())
    assert [case["seed"] for case in result["cases"]] == [7, 8]
    assert {m["name"] for m in result["methods"]} == {*METHODS, "fewer-steps"}
    for method in result["methods"]:
        assert method["unavailable"] is None, method
        assert len(method["runs"]) == 2
        assert method["psnr"]["worst"] <= method["psnr"]["mean"]
        assert method["psnr"]["error"] is not None
        assert set(method["speedup"]) == {"denoise", "whole"}
        assert (method["gain"] is None) == (method["name"] == "fewer-steps")
        for run in method["runs"]:
            assert (folder / run["file"]).is_file()
            assert (folder / run["difference"]).is_file()
    means = [method["psnr"]["mean"] for method in result["methods"]]
    assert means == sorted(means, reverse=True)
    steps = {m["name"]: m["computed_steps"]["mean"] for m in result["methods"]}
    assert steps["hold"] == steps["published:0.5"] == steps["fewer-steps"] == 8
    assert steps["diffusers-taylorseer"] == 8
    assert result["methods"][0]["name"] in out.splitlines()[1]
    assert out.splitlines()[0].split() == (
        ["METHOD", "COMPUTED", "DENOISING", "WHOLE", "PSNR", "WORST", "SSIM", "GAIN"]
    )
    assert "seed 8, hold: 8 computed" in err
    assert read_metadata(folder / "pictures" / "1-hold.png")["method"] == "hold"
    refused(spectrum("show", folder / "pictures" / "1-diffusers-taylorseer.png"), "did not write")
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.size == (2 * 16 + 5 * 320 + 4 * 8, sheet.height)
    html = (folder / "index.html").read_text()
    assert "a &lt;b&gt;{{table}}&lt;/b&gt; dog" in html
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert html.count("data:image/png;base64,") == 2 * 5
    # The folder is kept, and replaced if that is asked for.
    again = ["compare", *flux_args, *methods("hold"), "-o", folder, "--quiet", "x"]
    refused(spectrum(*again), "exists already", "--force")
    code, out, err = spectrum(*again, "--force", "--json", "--seeds", 2)
    assert (code, err) == (0, "")
    assert json.loads(out)["cases"] == [{"prompt": "x", "seed": 0}, {"prompt": "x", "seed": 1}]
    assert json.loads(out) == json.loads((folder / "result.json").read_text())
    assert not (folder / "pictures" / "1-published-0.5.png").exists()


def test_a_video(spectrum, wan_args, tmp_path):
    code, out, err = spectrum(
        "compare", *wan_args, *methods("hold", "fewer-steps:euler"), "-o", "film", "a cat"
    )
    assert code == 0, err
    assert files(tmp_path / "film") == (
        ["index.html", "pictures", "result.json", "sheet.png", "side-by-side.mp4", "strip.png"]
    )
    assert "±" not in out  # one seed has no spread
    _, film = read_mp4(tmp_path / "film" / "side-by-side.mp4")
    assert len(film) == 5
    assert film.shape[2] == 2 * 16 + 4 * 6 * 32 + 3 * 8  # six times as large
    result = json.loads((tmp_path / "film" / "result.json").read_text())
    assert (result["media"], result["frames"]) == ("video", 5)
    assert len(read_mp4(tmp_path / "film" / "pictures" / "1-hold-difference.mp4")[1]) == 5
    html = (tmp_path / "film" / "index.html").read_text()
    assert html.count("data:video/mp4;base64,") == 4 + 3  # plain has no difference
    if CHROMIUM:
        dom = browse(tmp_path / "film" / "index.html", "#key=1&time=0.1", tmp_path)
        assert "<title>1 of 4 shown, 7 films ready, 0 off</title>" in dom


def test_a_rival_that_fails_is_left_out(spectrum, flux_args, tmp_path, monkeypatch):
    def fail(pipe, kind):
        raise NotForThisClass("it has no blocks")

    monkeypatch.setattr("spectrum.compare.running.check_class", fail)
    code, out, err = spectrum(
        "compare", *flux_args, *methods("diffusers-firstblock"), "-o", "x", "x"
    )
    assert code == 0, err
    assert "diffusers-firstblock  not for this class: it has no blocks" in out
    assert "not for this class" in (tmp_path / "x" / "index.html").read_text()


def test_nothing_is_left_of_a_comparison_that_fails(spectrum, flux_args, tmp_path, monkeypatch):
    def broken(*_):
        raise SpectrumError("odd")

    monkeypatch.setattr("spectrum.compare.comparison.likeness", broken)
    code, out, err = spectrum("compare", *flux_args, *methods("hold"), "-o", "x", "x")
    assert (code, out) == (1, "")
    assert "there is nothing to compare: hold: odd" in err
    assert files(tmp_path) == []


def test_what_was_measured_outlives_a_full_disk(spectrum, flux_args, tmp_path, monkeypatch):
    from spectrum.pipeline.files import write

    no_room = {"1-fewer-steps.png", "1-fewer-steps-difference.png"}

    def full(path, make):
        if path.name in no_room:
            raise OSError(28, "No space left on device", str(path))
        return write(path, make)

    monkeypatch.setattr("spectrum.compare.folder.write", full)
    args = ["compare", *flux_args, *methods("fewer-steps"), "x", "-o", "x"]
    code, out, err = spectrum(*args)
    assert code == 1
    assert "fewer-steps  8 of 12" in out
    reason = "pictures/1-fewer-steps.png could not be written: No space left on device"
    missing = ["pictures/1-fewer-steps.png", "pictures/1-fewer-steps-difference.png", "index.html"]
    assert f"  note: {reason}; measuring goes on\n" in err
    last = err.splitlines()[-1]
    assert last.startswith(f"spectrum: {reason}; all was measured, and x has the figures")
    assert last.endswith(f"but not {', '.join(missing)}")
    assert files(tmp_path / "x") == ["pictures", "result.json", "sheet.png"]
    assert files(tmp_path / "x" / "pictures") == ["1-plain.png"]
    result = json.loads((tmp_path / "x" / "result.json").read_text())
    assert (result["missing"], result["files"]) == (missing, ["sheet.png", "result.json"])
    run = result["methods"][0]["runs"][0]
    assert run["file"] is run["difference"] is None
    assert run["likeness"]["psnr"] > 0
    # The folder is ours, and gives way; of the page alone the same is told.
    no_room = {"index.html"}
    code, out, err = spectrum(*args, "--force", "--quiet", "--json")
    assert (code, json.loads(out)["missing"]) == (1, ["index.html"])
    assert err.count("\n") == 1
    assert len(files(tmp_path / "x" / "pictures")) == 3


def test_figures_outlive_their_folder(spectrum, flux_args, tmp_path, monkeypatch):
    def gone(*_):
        raise OSError(5, "Input/output error", "x")

    monkeypatch.setattr("spectrum.pipeline.folders._place", gone)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, out, err = spectrum("compare", *flux_args, *methods("fewer-steps"), "-q", "-o", "x", "x")
    assert code == 1
    assert "fewer-steps  8 of 12" in out
    assert err == (
        "spectrum: x could not be written: Input/output error; its pictures are lost, its figures"
        f" were saved as {tmp_path / 'spectrum-saved.json'}\n"
    )
    assert files(tmp_path) == ["spectrum-saved.json"]
    assert json.loads((tmp_path / "spectrum-saved.json").read_text())["methods"][0]["psnr"]


def test_refusals_of_compare(spectrum, flux_args, tmp_path):
    refused(spectrum("compare", *flux_args), "give one prompt", "--prompts FILE")
    refused(spectrum("compare", *flux_args, "--prompts", "x.txt", "x"), "give one prompt")
    refused(spectrum("compare", *flux_args, "--prompts", "no.txt"), "no.txt", "No such file")
    (tmp_path / "empty.txt").write_text("\n \n")
    refused(spectrum("compare", *flux_args, "--prompts", "empty.txt"), "no prompt in it")
    refused(spectrum("compare", *flux_args, "--prompts", "empty.txt", "--seeds", 2), "one prompt")
    refused(spectrum("compare", *flux_args, *methods("tailor1"), "x"), "did you mean 'taylor1'")
    refused(spectrum("compare", *flux_args, *methods("hold:0.5"), "x"), "no ridge to blend")
    refused(spectrum("compare", *flux_args, *methods("published:half"), "x"), "a blend between")
    refused(spectrum("compare", *flux_args, *methods("published:2"), "x"), "between 0 and 1")
    refused(spectrum("compare", *flux_args, *methods("diffusers-taylorseer:2"), "x"), "takes no")
    refused(spectrum("compare", *flux_args, *methods("fewer-steps:eiler"), "x", "-q"), "euler")
    refused(spectrum("compare", *but(flux_args, "--speedup", 1), "x"), "above 1")
    refused(spectrum("compare", *but(flux_args, "--speedup", 99), "x"), "largest speedup")
    refused(spectrum("compare", "-m", "flux.1-schnell", "x"), "nothing to compare")
    refused(spectrum("compare", *flux_args, "--frames", 5, "x"), "makes images")
    refused(spectrum("compare", *flux_args, "-o", "no/x", "x"), "mkdir -p", code=1)
    refused(spectrum("compare", *flux_args, "-o", "empty.txt", "x"), "is a file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    refused(spectrum("compare", *flux_args, "-o", "mine", "--force", "x"), "not replaced")
    assert files(tmp_path) == ["empty.txt", "mine"]


# -- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [None, 80, 60, 40])
def test_a_table_fits_a_terminal_and_no_figure_is_broken(width):
    from spectrum_cli.compare import table

    mean = {"mean": 42.5, "error": 1.25, "worst": 41.0, "median": 3.5}
    method = {
        "name": "published:0.5", "runs": [1], "computed_steps": mean, "psnr": mean, "gain": mean,
        "speedup": {"denoise": mean, "whole": mean}, "ssim": mean, "lpips": mean,
    }  # fmt: skip
    left_out = {"name": "a-cache-of-others", "unavailable": "no", "runs": [], "lpips": None}
    *rows, last = table({"methods": [method, left_out], "steps": 50}, width)
    assert max(map(len, rows)) <= (width or 200)
    assert last == "a-cache-of-others  no"
    heads = rows[0].split()
    assert (heads[0], "PSNR" in heads, len(heads) == 9) == ("METHOD", True, width is None)
    assert "42.50 ± 1.25" in rows[1]


def test_the_page_shows_what_looks_like_markup_as_it_is(tmp_path):
    hostile = "</script><script>alert('x')</script> & {{ about }} {% raw %} \u2028"
    (tmp_path / "x.png").write_bytes(b"x")
    likely = {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1}
    run = {"file": "x.png", "difference": "x.png", "likeness": likely}
    mean = {"mean": 2.0, "error": None, "worst": 1.0, "median": 2.0}
    method = {
        "name": hostile, "runs": [run], "computed_steps": mean, "cache": hostile, "psnr": mean,
        "speedup": {"denoise": mean, "whole": mean}, "ssim": mean, "lpips": mean, "gain": None,
    }  # fmt: skip
    left_out = {"name": hostile, "unavailable": hostile, "runs": [], "cache": None, "lpips": None}
    texts = ["model", "pipeline", "scheduler", "negative_prompt", "machine", "device", "dtype"]
    html = page(
        dict.fromkeys(texts, hostile) | {
            "cases": [{"prompt": hostile, "seed": 1}], "methods": [method, left_out],
            "plain": {"runs": [run]}, "media": "image", "width": 2, "height": 1, "frames": 1,
            "fps": None, "steps": 8, "speedup": 2.0, "guidance": None, "difference_times": 8,
            "threads": 1, "versions": {hostile: "1"},
        },
        tmp_path,
    )  # fmt: skip
    assert html.startswith("<!DOCTYPE html>")
    assert html.count("<script>") == 1
    about = json.loads(re.search("^const about = (.*);$", html, re.M)[1])
    assert about["names"] == ["plain", hostile]
    shown = Text()
    shown.feed(html)
    assert hostile in "".join(shown.parts["h2"])
    assert "".join(shown.parts["td"]).count(hostile) == 3
    assert "".join(shown.parts["dd"]).count(hostile) == 9
    assert "".join(shown.parts["title"]).startswith(hostile)


class Text(HTMLParser):
    """All text, by the element that it stands in."""

    def __init__(self):
        super().__init__()
        self.parts, self.tag = defaultdict(list), ""

    def handle_starttag(self, tag, attrs):
        self.tag = tag

    def handle_data(self, data):
        self.parts[self.tag].append(data)


# -- the page in a browser -----------------------------------------------------------------------

# Put at the end of the page: presses keys, reads the large picture, and says so in the title.
LOOK = """<script>
const seen = {};
const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const pixels = () => {
  copy.drawImage(cases[0].canvas, 0, 0);
  return [...copy.getImageData(0, 0, 32, 32).data];
};
const press = key => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
window.addEventListener("load", () => setTimeout(() => {
  if (about.fps) {
    const all = [...document.querySelectorAll("video")];
    const off = cases[0].media.filter(film => Math.abs(film.currentTime - state.time) > 1e-3);
    const ready = all.filter(film => film.readyState >= 2 && !film.error);
    document.title = `${keyOf(cases[0])} of ${names.length} shown, ${ready.length} films ready,`
      + ` ${off.length} off`;
    return;
  }
  seen.start = [state.key, cases[0].shown.textContent, pixels()];
  press("1"); seen.one = [state.key, cases[0].shown.textContent, pixels()];
  press("d"); seen.apart = [state.key, cases[0].shown.textContent, pixels()];
  press("d"); press("1"); seen.back = [state.key, cases[0].shown.textContent, pixels()];
  cases[0].tiles[2].dispatchEvent(new MouseEvent("mouseenter"));
  seen.hover = [keyOf(cases[0]), cases[0].shown.textContent, pixels()];
  cases[0].canvas.dispatchEvent(new MouseEvent("mouseenter"));
  seen.over = [keyOf(cases[0]), cases[0].shown.textContent, pixels()];
  document.title = JSON.stringify(seen);
}, about.fps ? 1500 : 0));
</script></body>"""


def browse(page, state, tmp_path):
    """The page's DOM after our script has run, with nothing said on the console."""
    looked = page.with_name("looked.html")
    looked.write_text(page.read_text().replace("</body>", LOOK))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'chromium'}", "--virtual-time-budget=4000", "--dump-dom",
        f"{looked.as_uri()}{state}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    return result.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_the_page_flips(flux, ask, tmp_path):
    folder, cpu = tmp_path / "page", torch.device("cpu")
    rivals = find_rivals(["even", "hold"], ask, 1.5)
    case = Case("x", 3)
    options = Options(dtype="float32")
    comparison = Comparison(flux, ask(speedup=1.0), rivals, [case], 1.5, cpu, options)
    comparison.write(folder)
    result = comparison.result
    dom = browse(folder / "index.html", "#key=2", tmp_path)
    seen = json.loads(re.search("<title>(.*?)</title>", dom, re.S)[1].replace("&lt;", "<"))

    def picture(run):
        with Image.open(folder / run["file"]) as image:
            return np.asarray(image.convert("RGBA"))

    def shown(name):
        return np.reshape(seen[name][2], (32, 32, 4))

    first, second = (method["runs"][0] for method in result["methods"][:2])
    plain = result["plain"]["runs"][0]
    assert seen["start"][:2] == [2, result["methods"][1]["name"]]
    assert (shown("start") == picture(second)).all()
    assert seen["one"][:2] == [1, result["methods"][0]["name"]]
    assert (shown("one") == picture(first)).all()
    assert seen["apart"][1].endswith("− plain, ×8")
    with Image.open(folder / first["difference"]) as image:
        assert (shown("apart")[..., :3] == np.asarray(image)).all()
    assert seen["back"][:2] == [0, "plain"]
    assert (shown("back") == picture(plain)).all()
    assert (shown("hover") == picture(second)).all()
    assert seen["over"][:2] == [0, "plain"]
    assert (shown("over") == picture(plain)).all()


def test_a_speedup_is_told_by_plain_steps_beside_the_run():
    """One plain run, slow because the machine was busy, would make all rivals look fast."""
    from spectrum.compare.figures import Outcome, methods
    from spectrum.compare.metrics import Likeness
    from spectrum.compare.rivals import Rival

    plain = Outcome(10, 0.0, 100.0, 0.0, "a", None, None, plain_step=10.0)
    near = Likeness(30.0, 0.9, None)
    cases = [
        {"plain": plain, "hold": Outcome(5, 0.5, 5.0, 0.5, "b", "c", near, plain_step=step)}
        for step in (1.0, 1.0, 40.0)
    ]
    (found,) = methods([Rival("hold", "method", None)], cases)
    assert found["speedup"]["denoise"]["median"] == pytest.approx(2.0)
    assert found["speedup"]["whole"]["median"] == pytest.approx(11 / 6)


def test_plain_steps_are_timed_beside_each_run_and_a_busy_machine_is_told(
    spectrum, flux_args, monkeypatch
):
    args = [*flux_args, "--method", "hold", "-o", "cmp", "a red circle"]
    monkeypatch.setattr("spectrum_cli.compare.BUSY", 0.0)
    code, _, err = spectrum("compare", *args)
    assert code == 0
    assert "warning: plain steps took from" in err
    document = json.loads(Path("cmp/result.json").read_text())
    steps = [run["seconds"]["plain_step"] for m in document["methods"] for run in m["runs"]]
    assert len(steps) == 2  # hold and fewer-steps
    pace = document["plain_step_seconds"]
    assert 0 < pace["least"] <= min(steps) <= max(steps) <= pace["most"]
