"""Options: the same on every command, and named by every error as the command line names them."""

import ast
import inspect
import json
import re
import shlex
import sys
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch
import typer
from diffusers import FluxPipeline
from PIL import Image
from test_cli import FLUX, but, refused
from tiny import tiny_flux

from spectrum.errors import SpectrumError
from spectrum.pipeline import known
from spectrum.pipeline.discover import parameters
from spectrum.pipeline.generate import plain
from spectrum.pipeline.inputs import parse_extras
from spectrum.pipeline.loading import Options
from spectrum.pipeline.media import read_metadata
from spectrum_cli import flags
from spectrum_cli.help import PANELS
from spectrum_cli.main import app

ROOT = Path(__file__).parent.parent
LOADING = {
    "gen": ["gen", "-m", "flux.1-dev", "x"],
    "compare": ["compare", "-m", "flux.1-dev", "--method", "hold", "--speedup", 1.5, "x"],
    "tune": ["tune", "flux.1-dev", "--speedups", 1.5, "--minutes", 1],
    "inspect": ["inspect", "flux.1-dev"],
}
SMALL = [*FLUX[2:], "--quiet"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "flux"
    tiny_flux().save_pretrained(folder)
    return folder


@pytest.fixture(params=LOADING)
def loading(request, weights):
    """A command that loads a small model."""
    steps = [] if request.param == "inspect" else ["--steps", 6]
    return [*LOADING[request.param], *SMALL, *steps, "--weights", weights]


@pytest.fixture
def gen_args(weights):
    steps = ["--steps", 6, "--speedup", 1.5, "--dtype", "float32", "--seed", 1]
    return ["gen", *FLUX, "--weights", weights, *steps, "--quiet"]


def commands():
    return typer.main.get_command(app).commands


# -- of the machine ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADING)
def test_every_command_that_loads_takes_all_machine_options(name):
    taken = {flag for p in commands()[name].params for flag in (*p.opts, *p.secondary_opts)}
    machine = "weights device dtype offload quantize vae-tiling no-vae-tiling compile attention"
    assert {f"--{flag}" for flag in machine.split()} <= taken


def test_the_machine_options_reach_the_loading(spectrum, monkeypatch, loading, weights):
    seen = []

    def stop(request, device, options):
        seen.append((device, options))
        raise SpectrumError("enough")

    monkeypatch.setattr("spectrum.pipeline.loading.load_pipeline", stop)
    monkeypatch.setattr("spectrum.pipeline.beforehand.check", lambda *_: None)  # for they can't be
    given = ["--device", "cpu", "--dtype", "float16", "--offload", "group", "--quantize", "fp8"]
    given += ["--no-vae-tiling", "--compile", "--attention", "native"]
    refused(spectrum(*loading, *given), "enough", code=1)
    expected = Options("float16", weights, "group", "fp8", False, True, "native")
    assert seen == [(torch.device("cpu"), expected)]


def test_the_machine_options_that_cannot_be_had(spectrum, loading, tmp_path):
    refused(spectrum(*loading, "--attention", "flsh"), "did you mean 'flash'")
    refused(spectrum(*loading, "--quantize", "int2"), "no --quantize 'int2'", "int8, int4, fp8")
    for option in ("--dtype", "--quantize", "--attention", "--offload", "--device"):
        refused(spectrum(*loading, option, ""), "''")
    refused(spectrum(*loading, "--offload", "group", "--device", "cpu"), "--offload moves")
    refused(spectrum(*loading, "--dtype", "half"), "float16")
    refused(spectrum(*loading, "--device", "gpu"), "auto, cuda, cuda:N, mps and cpu")
    refused(
        spectrum(*but(loading, "--weights", tmp_path)), "no model_index.json", "--weights takes"
    )


def test_the_dtype_is_that_of_the_run(spectrum, weights, tmp_path):
    small = [*SMALL, "--weights", weights, "--dtype", "float32"]
    _, out, _ = spectrum(*LOADING["inspect"], *small, "--json")
    assert json.loads(out)["feature_bytes"] == 64 * 32 * 4  # tokens of numbers of bytes
    _, out, _ = spectrum(*LOADING["compare"], *small, "--steps", 6, "--json", "-o", "both")
    assert json.loads(out)["dtype"] == "float32"


def test_memory_is_told_by_every_command(spectrum, monkeypatch, loading):
    from spectrum.pipeline.fit import Expectation

    huge = Expectation({"transformer": 2**40}, 0, 2**30, 2**40, "cuda")
    monkeypatch.setattr("spectrum.pipeline.fit.expect", lambda *_: huge)
    monkeypatch.setattr("spectrum.pipeline.loading.load_pipeline", lambda *_: 1 / 0)
    loading.remove("--quiet")
    err = spectrum(*loading)[2]
    assert "memory: weights 1024.0 GiB" in err
    assert "warning: 1024.0 GiB on a device that has 1.0 GiB free; --offload group" in err


def test_compare_tells_the_memory_of_the_method_that_keeps_most(spectrum, monkeypatch):
    monkeypatch.setattr("spectrum.pipeline.weights.check_reachable", lambda *_: None)
    monkeypatch.setattr("spectrum.pipeline.loading.load_pipeline", lambda *_: 1 / 0)
    for method, told in {"spectrum": "history 0 bytes,", "published": "history 336 MiB,"}.items():
        err = spectrum("compare", "-m", "flux.1-dev", "--method", method, "--device", "cpu", "x")[2]
        assert told in err, err


# -- of a request --------------------------------------------------------------------------------


def test_guidance_moves_no_step_of_a_plan(spectrum):
    plans = []
    for guidance in (1, 9):
        _, out, _ = spectrum("plan", "--guidance", guidance, "--steps", 50, "--json")
        plans.append(json.loads(out))
    assert plans[1]["computed_steps"] == plans[0]["computed_steps"]
    refused(spectrum("plan", "--guidance", -1), "--guidance is 0 or more")


@pytest.mark.parametrize("command", ["gen", "compare", "plan"])
def test_help_names_every_method(spectrum, monkeypatch, command):
    from spectrum.methods import METHODS

    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = spectrum(command, "--help")
    words = " ".join(out.replace("│", " ").split())
    assert ", ".join(METHODS).replace("published", "published (the paper's)") in words


# -- errors --------------------------------------------------------------------------------------


def test_an_argument_becomes_the_flag_of_the_command():
    group = typer.main.get_command(app).commands
    flags.learn([*group.values(), group["inspect"]])
    told = flags.with_flags(
        "`speedup`, `negative_prompt`, `loras`, `extras`, `num_images`, `vae_tiling` of `model`:"
        " `always`, `spectrum models` and `guidance_scale` stay, and `hf auth login` too"
    )
    assert told == (
        "--speedup, --negative-prompt, --lora, --set, --num-images, --vae-tiling of MODEL:"
        " `always`, `spectrum models` and `guidance_scale` stay, and `hf auth login` too"
    )
    flags.learn([*group.values(), group["gen"]])
    assert flags.with_flags("`model`, `seed`") == "--model, --seed"


def test_what_the_library_refuses_is_named_as_it_was_typed(spectrum, weights):
    args = ["gen", *FLUX, "--weights", weights]
    refused(spectrum(*args, "--strength", 0.5, "x"), "give one as --image")
    refused(spectrum(*args, "--set", "height=8", "x"), "--set height: use --height for it")
    refused(spectrum(*args, "--lora", "no.safetensors", "x"), "--lora no.safetensors: no such file")
    refused(spectrum(*args, "--negative-prompt", "y", "x"), "leave --negative-prompt")
    refused(spectrum(*args, "--quality", "good", "--speedup", 2, "x"), "it or --speedup")
    refused(spectrum("gen", "-m", "fux", "x"), "`spectrum models`")
    refused(spectrum("gen", "-m", "sdxl", "--weights", weights, "x"), "give the --model that")
    refused(spectrum("inspect", "sdxl", "--weights", weights), "give the MODEL that")


def texts(tree):
    """Every string of a module but its docstrings, f-strings put together."""
    inside, documents = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [getattr(part, "value", "") for part in node.values]
            inside |= {id(part) for part in node.values}
            yield node.lineno, "".join(part if isinstance(part, str) else "…" for part in parts)
        elif isinstance(node, ast.Expr):
            documents.add(id(node.value))
    for node in ast.walk(tree):
        ours = isinstance(node, ast.Constant) and id(node) not in inside | documents
        if ours and isinstance(node.value, str):
            yield node.lineno, node.value


# "." is all of the library, to which this is to be widened.
@pytest.mark.parametrize("folder", ["."])
def test_the_library_speaks_of_arguments(folder):
    found = []
    for path in sorted((ROOT / "spectrum" / folder).rglob("*.py")):
        for line, text in texts(ast.parse(path.read_text())):
            without_commands = re.sub(r"`[^`]* [^`]*`", "", text)
            if re.search(r"--[a-zA-Z]", without_commands):
                found.append(f"{path.name}:{line}: {text}")
    assert found == []


def test_what_the_pipeline_checks_is_wrong_usage(spectrum, monkeypatch, gen_args):
    told = "FluxPipeline refuses this: `max_sequence_length` cannot be greater than 512"
    refused(spectrum(*gen_args, "--set", "max_sequence_length=513", "x"), told)
    monkeypatch.setattr(known, "sets_sigmas", lambda _: False)  # or it would be known beforehand
    told = "FluxPipeline refuses this: The current scheduler class"  # in a helper of its module
    refused(spectrum(*gen_args, "--scheduler", "heun", "--set", f"sigmas={[1] * 6}", "x"), told)


@pytest.mark.parametrize(
    "place",
    [
        "transformers.T5EncoderModel.forward",  # before denoising
        "diffusers.FluxTransformer2DModel.forward",
        "diffusers.AutoencoderKL.decode",
    ],
)
@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_a_defect_is_not_called_wrong_usage(spectrum, gen_args, monkeypatch, place, kind):
    def broken(*_args, **_kwargs):
        raise kind("two\nlines")

    monkeypatch.setattr(place, broken)
    told = f"{kind.__name__}: two lines; SPECTRUM_DEBUG=1 shows where it happened"
    refused(spectrum(*gen_args, "x"), told, code=1)
    monkeypatch.setenv("SPECTRUM_DEBUG", "1")
    with pytest.raises(kind, match="two"):
        spectrum(*gen_args, "x")


@pytest.mark.parametrize(("place", "code"), [("encode_prompt", 2), ("_unpack_latents", 1)])
def test_only_before_it_denoises_does_the_pipeline_check(
    spectrum, gen_args, monkeypatch, place, code
):
    """Its own module may raise for other reasons later."""

    def broken(*_args, **_kwargs):
        raise TypeError("odd")

    own = FunctionType(broken.__code__, vars(sys.modules[FluxPipeline.__module__]))
    monkeypatch.setattr(FluxPipeline, place, own)
    refused(spectrum(*gen_args, "x"), "odd", code=code)


def test_an_argument_that_the_pipeline_needs(spectrum, monkeypatch, gen_args):
    needed = inspect.Parameter("mask_image", inspect.Parameter.KEYWORD_ONLY)
    taken = {**parameters(FluxPipeline), "mask_image": needed}
    monkeypatch.setattr("spectrum.pipeline.known.pipeline_parameters", lambda _: taken)
    refused(spectrum(*gen_args, "x"), "needs --set mask_image=VALUE")


# -- provenance ----------------------------------------------------------------------------------


def picture(path):
    return np.asarray(Image.open(path))


def again(spectrum, file):
    """What `show` says makes the file again."""
    code, _, err = spectrum("show", file)
    assert code == 0
    words = shlex.split(err.removeprefix("again: "))
    assert words[:2] == ["spectrum", "gen"]
    return words[1:]


def test_show_repeats_the_weights(spectrum, gen_args, weights):
    assert spectrum(*gen_args, "-o", "a.png", "it's `seed`")[0] == 0
    assert read_metadata(Path("a.png"))["weights"] == str(weights)
    words = again(spectrum, "a.png")
    assert words[words.index("--weights") + 1] == str(weights)
    assert words[-1] == "it's `seed`"
    assert spectrum(*words, "-q", "-o", "b.png")[0] == 0
    assert np.array_equal(picture("a.png"), picture("b.png"))


def test_show_repeats_what_decides_pixels(spectrum, gen_args, tmp_path):
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "in.png")
    given = ["--method", "published", "--blend", 0.25, "--target", "denoised", "--guidance", 2.5]
    given += ["--image", "in.png", "--strength", 0.75, "--scheduler", "euler"]
    given += ["--set", "max_sequence_length=8", "--vae-tiling", "--attention", "native"]
    given += ["--device", "cpu", "--steps", 8, "--speedup", 1.2]
    args = [*but(gen_args, *given[-4:]), *given[:-4]]
    assert spectrum(*args, "-o", "a.png", "x") == (0, "a.png\n", "")
    document = read_metadata(Path("a.png"))
    assert document["vae_tiling"] is True
    assert document["compile"] is False
    keys = ("offload", "quantize", "attention", "device", "dtype")
    assert [document[key] for key in keys] == ["none", None, "native", "cpu", "float32"]
    words = again(spectrum, "a.png")
    assert set(map(str, given)) <= {*words, "max_sequence_length=8"}
    assert spectrum(*words, "-q", "-o", "b.png")[0] == 0
    assert np.array_equal(picture("a.png"), picture("b.png"))
    assert read_metadata(Path("b.png")) == document


def test_where_features_were_kept_decides_no_pixel(spectrum, gen_args):
    kept = ["--method", "published", "--history", "device"]
    args = but(gen_args, "--steps", 8, "--speedup", 1.2)
    assert spectrum(*args, *kept, "-o", "a.png", "x")[0] == 0
    assert read_metadata(Path("a.png"))["history"] == "device"
    assert "--history" not in again(spectrum, "a.png")
    assert spectrum("rerun", "a.png", "-q", "-o", "b.png")[0] == 0
    assert read_metadata(Path("b.png"))["history"] == "device"
    code, _, err = spectrum("rerun", "a.png", "--method", "spectrum", "-q", "-o", "c.png")
    assert (code, err) == (0, "")
    assert read_metadata(Path("c.png"))["history"] == "auto"


def test_show_knows_a_preset_by_its_file(spectrum, gen_args, tmp_path):
    """Elsewhere than where names are looked for."""
    _, text, _ = spectrum("models", "show", "flux.1-dev")
    (tmp_path / "mine.yaml").write_text(text)
    args = ["mine.yaml" if word == "flux.1-dev" else word for word in gen_args]
    assert spectrum(*args, "-o", "a.png", "x")[0] == 0
    words = again(spectrum, "a.png")
    assert words[words.index("--model") + 1] == "mine.yaml"
    assert spectrum(*words, "-q", "-o", "b.png")[0] == 0
    assert np.array_equal(picture("a.png"), picture("b.png"))


def test_show_leaves_out_what_gen_knows_or_would_refuse(spectrum):
    args = ["gen", "-m", "demo-video", "--steps", 3, "--seed", 1, "--frames", 1, "--guidance", 1]
    assert spectrum(*args, "-q", "-o", "a.png", "a red circle")[0] == 0
    words = again(spectrum, "a.png")
    assert not {"--weights", "--fps", "--negative-prompt"} & {*words}
    assert spectrum(*words, "-q", "-o", "b.png")[0] == 0
    assert np.array_equal(picture("a.png"), picture("b.png"))


def test_an_image_among_the_extras_is_a_path(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    extras = parse_extras([f"mask_image={tmp_path / 'in.png'}"])
    assert extras["mask_image"].size == (8, 8)
    assert plain(extras["mask_image"]) == str(tmp_path / "in.png")
    assert plain(parse_extras(["day=2020-01-02"])["day"]) == "2020-01-02"


# -- help, and the command line as such ----------------------------------------------------------


def test_every_option_stands_in_a_panel():
    known_names = " ".join(PANELS.values()).split()
    for name, command in commands().items():
        if name not in ("models", "doctor"):
            missing = {p.name for p in command.params} - {*known_names, "file"}
            assert not missing, (name, missing)
    assert len(known_names) == len({*known_names})


def test_help_has_panels_and_no_type_beside_flags(spectrum, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = spectrum("gen", "--help")
    for panel in PANELS:
        assert f"─ {panel} ─" in out
    for command in (["gen"], ["models"], []):
        assert "<bool>" not in spectrum(*command, "--help")[1]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("gen --steps 20 --steps=30 x", "--steps is given twice: 20 and 30; give it once"),
        ("gen -m a --model b -m a x", "--model is given 3 times: a and b and a; give it once"),
        ("gen --seed 1 --seed 2 x", "--seed is given twice: 1 and 2; give it once, several as"),
        (
            "gen --size 32x64 --width 32 x",
            "--width is given twice: 32 and 32",
        ),
        ("gen --vae-tiling --no-vae-tiling x", "--vae-tiling and --no-vae-tiling are both given"),
        ("compare -o a x -o b", "--output is given twice: a and b"),
        ("batch x.txt -o a --name b --name c", "--name is given twice"),
        ("tune --minutes 1 --minutes 2", "--minutes is given twice"),
        ("plan -s 2 -s 3", "--speedup is given twice"),
        ("inspect --dtype fp16 --dtype fp32", "--dtype is given twice"),
        ("rerun a.png -o a.png -o b.png", "--output is given twice"),
    ],
)
def test_no_value_is_ignored_for_a_later_one(spectrum, args, told):
    refused(spectrum(*args.split()), told)


def test_what_may_be_given_again(spectrum, monkeypatch):
    """What is repeatable, a flag that says the same, and an option beside its variable."""
    monkeypatch.setenv("SPECTRUM_MODEL", "demo-video")
    twice = ["--set", "a=1", "--set", "b=2", "--json", "--json", "-m", "demo-image"]
    refused_by = json.loads(spectrum("gen", *twice, "x")[1])["error"]
    assert "takes no argument 'a'" in refused_by
    assert spectrum("gen", "--dry-run", "--seed", 1, "--", "--seed", "--seed")[0] == 2
    assert spectrum("gen", "--dry-run", "--seed", 1, "--", "--seed")[1] == "demo-video-seed-1.mp4\n"


def test_values_that_say_nothing_are_not_taken(spectrum):
    for option in ("--target", "--method", "--quality", "--scheduler", "--model"):
        refused(spectrum("gen", option, "", "x"), "''")
    for option in ("--guidance", "--speedup", "--strength", "--blend", "--quality"):
        for value in ("nan", "inf", "-inf"):
            refused(spectrum("gen", option, value, "x"), option[2:])
    refused(spectrum("gen", "--set", "sigmas=[1, .nan]", "x"), "not a finite number")
    refused(spectrum("gen", "--set", "true_cfg_scale=3", "x"), "use --guidance for it")
    refused(spectrum("gen", "--lora", "a/b:nan", "x"), "--lora", "nan")
    refused(spectrum("tune", "--minutes", "nan"), "--minutes")
    refused(spectrum("plan", "--alpha", "nan"), "--alpha")


def test_what_is_no_place_of_this_machine(spectrum):
    refused(spectrum("gen", "-m", "https://huggingface.co/org/name", "x"), "https://", "org/name")
    refused(spectrum("gen", "-m", "./models/mine", "x"), "no folder ./models/mine")
    refused(spectrum("gen", "--image", "https://host/x.png", "x"), "no address is fetched")
    refused(spectrum("gen", "--weights", "https://host/x", "x"), "no address", "as --model")
    refused(spectrum("gen", "--weights", "https://host/x.gguf", "x"), "x.gguf", "hf download")


def test_a_prompt_that_is_not_utf_8(spectrum):
    refused(spectrum("gen", "caf\udce9"), "not text in UTF-8")


def test_a_model_is_named_either_way(spectrum):
    for command in ("plan", "tune", "inspect"):
        refused(spectrum(command, "demo-imag"), "no model 'demo-imag'")
        refused(spectrum(command, "-m", "demo-imag"), "no model 'demo-imag'")
        refused(spectrum(command, "demo-image", "-m", "demo-video"), "the model is given twice")
    refused(spectrum("inspect"), "which MODEL?")
    assert spectrum("plan", "demo-video")[1] == spectrum("plan", "-m", "demo-video")[1]


def test_plan_takes_quality_and_scheduler(spectrum):
    _, out, _ = spectrum("plan", "--quality", "good", "--json")
    document = json.loads(out)
    assert document["computed_steps"] == [0, 1, 49]
    assert document["forecast_steps"] is document["ideal_speedup"] is None
    assert "only the run shows" in spectrum("plan", "--quality", "good")[1]
    assert "not yet those of euler" in spectrum("plan", "--scheduler", "euler")[1]
    refused(spectrum("plan", "--scheduler", "heun"), "sets the noise levels itself")
    refused(spectrum("plan", "--quality", "good", "--speedup", 2), "give it or --speedup")


def test_plan_names_the_method_whose_schedule_it_shows(spectrum):
    assert "method published" in spectrum("plan", "--alpha", 3)[1]
    assert "method affine" in spectrum("plan", "--alpha", 3, "--method", "affine")[1]
    refused(spectrum("plan", "--alpha", 3, "--method", "spectrum"), "of the published schedule")


def test_short_names_of_dtypes():
    from spectrum.pipeline.preset import check_dtype

    assert [check_dtype(name) for name in ("bf16", "fp16", "fp32", "float16")] == [
        "bfloat16", "float16", "float32", "float16",
    ]  # fmt: skip


def test_values_are_completed():
    found = {
        parameter.name: parameter._custom_shell_complete
        for name in ("gen", "compare") for parameter in commands()[name].params
    }  # fmt: skip
    expected = {
        "scheduler": "euler-ancestral", "dtype": "bf16", "offload": "group", "quantize": "int8",
        "quality": "draft", "target": "denoised", "model": "demo-video", "attention": "native",
    }  # fmt: skip
    for name, value in expected.items():
        assert value in [item.value for item in found[name](None, None, value[:3])], name
    methods = [item.value for item in found["method"](None, None, "fewer")]
    assert methods == ["fewer-steps"]  # of compare, which has gen's too


def test_advice_fits_what_failed():
    from types import SimpleNamespace

    from spectrum.errors import out_of_memory
    from spectrum.pipeline.generate import _remedy

    on_cpu = out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert on_cpu == out_of_memory(MemoryError())
    assert "`offload`" not in on_cpu
    assert "`offload` model" in out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(ValueError("odd")) is None
    assert "float32" not in _remedy(SimpleNamespace(dtype=torch.float32))
    assert "float32" in _remedy(SimpleNamespace(dtype=torch.bfloat16))


def test_what_a_file_system_refuses_is_no_defect(spectrum, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "a.png")

    monkeypatch.setattr("spectrum_cli.gen.seeds_from", full)
    code, _, err = spectrum("gen", "x")
    assert (code, err) == (1, "spectrum: a.png: No space left on device\n")
    refused(spectrum("gen", "-m", "x" * 300, "x"), "no model")
    refused(spectrum("show", "."), ". is no folder of numbered frames")
