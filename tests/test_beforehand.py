"""What is known to fail is told before anything heavy is imported; and what is read of diffusers'
source is what diffusers has."""

import inspect
import json
import subprocess
import sys

import diffusers
import pytest
from diffusers.models.attention_dispatch import AttentionBackendName
from test_cli import refused

from spectrum.errors import UsageError
from spectrum.pipeline import beforehand, known
from spectrum.pipeline.catalog import find_preset, preset_paths
from spectrum.pipeline.discover import parameters
from spectrum.pipeline.loading import Options
from spectrum.pipeline.request import resolve
from spectrum.pipeline.sampler import FLOW_SCHEDULERS, SCHEDULERS

HEAVY = ("torch", "diffusers", "transformers")
WRONG = {
    "no model 'demo-imag'": ["gen", "x", "-m", "demo-imag"],
    "no scheduler 'foo'": ["gen", "x", "--scheduler", "foo"],
    "no scheduler 'ddim'": ["gen", "x", "--scheduler", "ddim", "-m", "demo-image"],
    "there are euler, dpm++, unipc": ["gen", "x", "--scheduler", "heun"],
    "no attention backend 'foo'": ["gen", "x", "--attention", "foo"],
    "takes no argument 'foo'": ["gen", "x", "--set", "foo=1"],
    "no device 'gpu'": ["gen", "x", "--device", "gpu"],
    "leave it on the CPU": ["gen", "x", "--device", "cpu", "--offload", "model"],
    "keeps none but the denoised sample": ["gen", "x", "--history", "host"],
    "host spares the memory of a GPU": [
        "gen",
        "x",
        "--method",
        "published",
        "--history",
        "host",
        "--device",
        "cpu",
    ],
    "no --history 'disk'": ["gen", "x", "--history", "disk"],
    "none of these methods keeps": ["compare", "x", "--method", "spectrum", "--history", "host"],
    "keeps none but": ["batch", "jobs.txt", "-o", "out", "--history", "device"],
    "works from an image": ["gen", "x", "-m", "qwen-image-edit"],
    "from 1 to 10,000, not 10000000": ["gen", "x", "--steps", "10000000"],
    "less than or equal to 10000": ["gen", "x", "-n", "1000000000"],
    "from 1 to 16,384": ["gen", "x", "--width", "1000000000"],
    "from 1 to 10,000, not 100001": ["gen", "x", "-m", "demo-video", "--frames", "100001"],
    "from 1 to 1,000, not 5000": ["gen", "x", "-m", "demo-video", "--fps", "5000"],
    "no model 'demo-imagg'": ["inspect", "demo-imagg"],
    "no attention backend 'bar'": ["inspect", "demo-image", "--attention", "bar"],
    "no method 'foo'": ["compare", "x", "--method", "foo"],
    "no scheduler 'bar'": ["compare", "x", "--method", "fewer-steps:bar"],
    "a speedup to tune for": ["tune", "demo-image", "--speedups", "0.5"],
    "no attention backend 'baz'": ["tune", "demo-image", "--attention", "baz"],
    "takes no argument 'bar'": ["batch", "jobs.txt", "-o", "out", "--set", "bar=1"],
    "no scheduler 'baz'": ["batch", "jobs.txt", "-o", "out", "--scheduler", "baz"],
}
SCRIPT = """
import json, sys, io, contextlib
from spectrum_cli.main import run
for args in json.loads(sys.argv[1]):
    sys.argv = ["spectrum", *args]
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            code = run()
        except SystemExit as leave:
            code = leave.code
    heavy = [name for name in json.loads(sys.argv0) if name in sys.modules]
    print(json.dumps([code, err.getvalue(), heavy]))
"""


def test_what_is_known_is_told_without_importing_what_is_heavy(tmp_path):
    (tmp_path / "jobs.txt").write_text("x\n")
    script = SCRIPT.replace("sys.argv0", repr(json.dumps(HEAVY)))
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(list(WRONG.values()))],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(WRONG)
    for words, (code, err, heavy) in zip(WRONG, outcomes, strict=True):
        assert (code, heavy) == (2, []), (words, err)
        assert words in err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.txt"]


def pipelines():
    presets = [find_preset(name) for name in preset_paths()]
    return sorted({kind for p in presets for kind in (p.pipeline, p.image_pipeline) if kind})


def test_pipelines_take_what_their_source_says():
    for name in pipelines():
        real, told = parameters(getattr(diffusers, name)), known.pipeline_parameters(name)
        assert list(told) == list(real), name
        for key, parameter in told.items():
            if parameter.default is not known.UNREADABLE:
                assert parameter.default == real[key].default, (name, key)


def test_names_of_schedulers_and_backends_are_diffusers_own():
    names = known.scheduler_names()
    assert {*SCHEDULERS.values(), *FLOW_SCHEDULERS.values()} <= names
    assert all(name in names for name in dir(diffusers) if name.endswith("Scheduler"))
    for name in FLOW_SCHEDULERS.values():
        taken = inspect.signature(getattr(diffusers, name).set_timesteps).parameters
        assert known.takes_sigmas(name) or "sigmas" not in taken
    assert set(known.attention_backends()) == {name.value for name in AttentionBackendName}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of Kolors
def test_the_pipeline_that_takes_an_image_is_diffusers_own():
    from diffusers.pipelines import auto_pipeline as auto

    from_image = auto.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
    for kind, cls in auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.items():
        expected = from_image[kind].__name__ if kind in from_image else None
        assert known.image_to_image(cls.__name__) == expected


def folder_of(pipeline, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("pipeline", "reason"),
    [
        ("StableAudioPipeline", "makes sound alone"),
        ("AceStepPipeline", "makes sound alone"),
        ("WanAnimatePipeline", r"works from a film \(pose_video, face_video\)"),
        ("CogVideoXVideoToVideoPipeline", r"works from a film \(video\)"),
        ("HeliosPyramidPipeline", "takes no `steps`"),
        ("LTX2LatentUpsamplePipeline", "takes no `prompt`"),
    ],
)
def test_a_pipeline_that_a_command_can_not_ask_is_refused(pipeline, reason, tmp_path):
    with pytest.raises(UsageError, match=f"{pipeline} {reason}.*; call it from Python"):
        find_preset(folder_of(pipeline, tmp_path))


@pytest.mark.parametrize(
    ("pipeline", "argument", "image"),
    [
        ("SanaImageToVideoPipeline", "frames", "required"),
        ("LattePipeline", "video_length", "none"),
        ("Kandinsky6TI2VAPipeline", "num_frames", "optional"),
        ("LTXConditionPipeline", "num_frames", "optional"),  # a film may be given, or not
    ],
)
def test_how_many_frames_are_asked_for_by_the_pipelines_own_name(
    pipeline, argument, image, tmp_path
):
    preset = find_preset(folder_of(pipeline, tmp_path))
    arguments = resolve(preset, "x", frames=9).arguments()
    assert {name for name, value in arguments.items() if value == 9} == {argument}
    assert (preset.media, preset.image) == ("video", image)


def test_of_a_diffusers_that_is_built_otherwise_nothing_is_refused_beforehand(monkeypatch):
    monkeypatch.setattr(known, "_root", lambda: None)
    for found in vars(known).values():
        if hasattr(found, "cache_clear"):
            found.cache_clear()
    try:
        assert known.pipeline_parameters("FluxPipeline") is None
        extras = ["whatever=1"]
        request = resolve(find_preset("demo-image"), "x", scheduler="Any", extras=extras)
        beforehand.check(request, "auto", Options(attention="any"))
    finally:
        for found in vars(known).values():
            if hasattr(found, "cache_clear"):
                found.cache_clear()


@pytest.mark.parametrize("model", ["sdxl", "sd3.5-large"])
def test_a_scheduler_that_the_pipeline_can_use_is_not_refused(spectrum, model):
    """For want of weights, which is told later."""
    refused(spectrum("gen", "-m", model, "--scheduler", "heun", "x"), "hf download", code=1)
