import inspect
import shutil
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
from PIL import Image

from spectrum.errors import UsageError
from spectrum.pipeline.catalog import find_preset, preset_paths
from spectrum.pipeline.discover import parameters, pipeline_class
from spectrum.pipeline.generate import call_arguments
from spectrum.pipeline.preset import read_preset
from spectrum.pipeline.request import resolve
from spectrum.schedule import WindowSchedule
from spectrum.timeline import Timeline

SHIPPED = sorted(path.stem for path in (Path(__file__).parent.parent / "presets").glob("*.yaml"))
PAPER = ("flux.1-dev", "sd3.5-large", "sdxl", "hunyuanvideo", "wan2.1-14b")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty current folder and an empty user folder."""
    here, user = tmp_path / "here" / "presets", tmp_path / "config" / "spectrum" / "presets"
    here.mkdir(parents=True)
    user.mkdir(parents=True)
    monkeypatch.chdir(here.parent)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return here, user


def test_those_that_ship_are_found(places):
    assert list(preset_paths()) == sorted(SHIPPED)
    assert {"demo-image", "demo-video", *PAPER} <= set(SHIPPED)
    for name in SHIPPED:
        assert find_preset(name).name == name


def test_the_current_folder_comes_before_the_users_before_the_package(places):
    here, user = places
    shipped = find_preset("wan2.1-14b").path
    shutil.copy(shipped, user / shipped.name)
    assert find_preset("wan2.1-14b").path == user / shipped.name
    shutil.copy(shipped, here / shipped.name)
    assert find_preset("wan2.1-14b").path.resolve() == here / shipped.name


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_models_reach_both_published_schedules(name):
    preset = find_preset(name)
    plan = resolve(preset, "x", method="published").plan
    assert preset.steps == 50
    assert list(plan.computed_steps) == WindowSchedule(alpha=0.75).computed_steps(Timeline.flow(50))
    plan = resolve(preset, "x", method="published", speedup=5).plan
    assert list(plan.computed_steps) == WindowSchedule(alpha=3).computed_steps(Timeline.flow(50))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_preset_says_is_what_its_pipeline_takes(name):
    preset = find_preset(name)
    for kind in filter(None, (preset.pipeline, preset.image_pipeline)):
        cls = pipeline_class(kind, name)
        taken = parameters(cls)
        picture = Image.new("RGB", (64, 64)) if "image" in taken else None
        request = replace(resolve(preset, "x"), image=picture)
        call_arguments(cls, request)  # raises for one that it doesn't take
        components = inspect.signature(cls.__init__).parameters
        assert set(preset.parameters) | set(preset.dtypes) <= set(components)
        if preset.scheduler:
            assert hasattr(diffusers, preset.scheduler.name)
        required = [n for n, p in taken.items() if p.default is p.empty and n != "prompt"]
        assert set(required) <= {"image", "kwargs"}, required


def test_the_published_settings():
    flux, wan = find_preset("flux.1-dev"), find_preset("wan2.1-14b")
    assert (flux.size.width, flux.size.height, flux.guidance.scale) == (1024, 1024, 3.5)
    assert (wan.size.width, wan.size.height, wan.video.frames, wan.video.fps) == (832, 480, 81, 16)
    assert (wan.guidance.scale, wan.dtypes) == (5.0, {"vae": "float32"})
    assert wan.scheduler.settings == {"flow_shift": 3.0}
    assert flux.steps == wan.steps == 50


def test_the_size_of_a_feature():
    wan = find_preset("wan2.1-14b")
    assert wan.feature_bytes(832, 480, 81, "bfloat16") == 21 * 30 * 52 * 5120 * 2  # 320 MiB


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fps: 16", "fps: 0", "video.fps: Input should be greater than or equal to 1, not 0"),
        ("media: video", "media: film", "media: "),
        ("speedup: 3.5", "speedup: fast", "cache.speedup: "),
        ("speedup: 3.5", "method: publish", "did you mean 'published'"),
        ("speedup: 3.5", "method: hold\n  blend: 0.5", "no ridge to blend"),
        ("speedup: 3.5", "scale: 0", "cache.scale: Input should be greater than 0, not 0"),
        ("fps: 16", "fps: 16, fpss: 1", "video.fpss: unknown key (did you mean fps?)"),
        ("dtype: bfloat16", "dtype: int8", "dtype: "),
        ("branches: 2", "branches: 3", "guidance.branches: "),
        ("media: video", "media: image", "section video if, and only if"),
        ("steps: 50", "steps: 50\nname: x", "a preset's name is its file's"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    text = find_preset("wan2.1-14b").path.read_text()
    assert old in text
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError) as error:
        read_preset(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[1, 2, 3]", "cache.tuned.0: steps are rising numbers, of which the first is 0"),
        ("[0, 5, 5]", "cache.tuned.0: steps are rising"),
        ("[0, 5, 50]", "cache.tuned.0: steps of 50 are at most 49"),
    ],
)
def test_tuned_steps_are_those_of_a_run(tmp_path, steps, message):
    text, path = find_preset("demo-image").path.read_text(), tmp_path / "a.yaml"
    tuned = f"{{num_steps: 50, length: 1, trust: -0.5, steps: {steps}}}"
    path.write_text(text.replace("  speedup: 4.5", f"  speedup: 4.5\n  tuned: [{tuned}]"))
    with pytest.raises(UsageError) as error:
        read_preset(path)
    assert message in str(error.value)


def test_numbers_that_yaml_reads_as_text(tmp_path):
    text = find_preset("wan2.1-14b").path.read_text().replace("speedup: 3.5", "speedup: 35e-1")
    (tmp_path / "a.yaml").write_text(text)
    assert read_preset(tmp_path / "a.yaml").cache.speedup == 3.5


def test_a_trust_is_a_share_or_always(tmp_path):
    text, path = find_preset("demo-image").path.read_text(), tmp_path / "a.yaml"
    tuned = "{num_steps: 50, length: 4, trust: always, steps: [0, 9, 30]}"
    text = text.replace("  method: spectrum", f"  method: spectrum\n  tuned: [{tuned}]")
    path.write_text(text)
    assert read_preset(path).cache.tuned[0].trust == float("-inf")
    path.write_text(text.replace("trust: always", "trust: -0.5"))
    assert read_preset(path).cache.tuned[0].trust == -0.5
    for wrong in (".inf", ".nan", "sometimes"):
        path.write_text(text.replace("trust: always", f"trust: {wrong}"))
        with pytest.raises(UsageError, match=r"cache\.tuned\.0\.trust"):
            read_preset(path)
