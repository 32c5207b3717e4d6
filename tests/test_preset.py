import shutil

import pytest

from spectrum.errors import UsageError
from spectrum.preset import find_preset, preset_paths, read_preset

SHIPPED = ("demo-image", "demo-video", "flux.1-dev", "wan2.1-14b")


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
    for name in SHIPPED:
        assert find_preset(name).name == name


def test_the_current_folder_comes_before_the_users_before_the_package(places):
    here, user = places
    shipped = find_preset("wan2.1-14b").path
    shutil.copy(shipped, user / shipped.name)
    assert find_preset("wan2.1-14b").path == user / shipped.name
    shutil.copy(shipped, here / shipped.name)
    assert find_preset("wan2.1-14b").path.resolve() == here / shipped.name


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
        ("method: published", "method: publish", "did you mean 'published'"),
        ("method: published", "method: hold", "no ridge to blend"),
        ("fps: 16", "fps: 16, fpss: 1", "video.fpss: unknown key"),
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


def test_numbers_that_yaml_reads_as_text(tmp_path):
    text = find_preset("wan2.1-14b").path.read_text().replace("speedup: 3.5", "speedup: 35e-1")
    (tmp_path / "a.yaml").write_text(text)
    assert read_preset(tmp_path / "a.yaml").cache.speedup == 3.5
