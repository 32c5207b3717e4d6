import io
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
import tiny_videos
import torch
from PIL import Image

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.formats import check
from spectrum.pipeline.media import (
    encode,
    opaque,
    read_frames,
    read_metadata,
    to_uint8,
    write_frames,
    write_mp4,
    write_png,
)  # fmt: skip
from spectrum.pipeline.sound import sound_of

DOCUMENT = {"schema": 1, "prompt": 'a=b; #c \\d "e"\nü → 猫', "computed_steps": list(range(300))}


def read_mp4(path):
    """What ffmpeg says of the video stream, and its frames.  # [F, H, W, 3]"""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    probe = subprocess.run([ffmpeg, "-i", path], capture_output=True, text=True, check=False)
    facts = next(line for line in probe.stderr.splitlines() if "Video: " in line)
    width, height = map(int, re.search(r", (\d+)x(\d+)", facts).groups())
    command = [ffmpeg, "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.check_output(command)
    return facts, np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def flat(colour, frames=5, height=34, width=50):
    return np.broadcast_to(np.uint8(colour), (frames, height, width, 3))


def test_rounding():
    assert to_uint8(np.array([-1, 0, 0.4999 / 255, 0.5001 / 255, 1, 2])).tolist() == [
        0, 0, 0, 1, 255, 255,
    ]  # fmt: skip


def test_a_png_keeps_its_document(tmp_path):
    write_png(tmp_path / "a.png", flat((9, 8, 7))[0], DOCUMENT)
    assert read_metadata(tmp_path / "a.png") == DOCUMENT


@pytest.mark.parametrize("size", [(34, 50), (64, 64), (18, 16)])
def test_an_mp4_has_the_size_asked_for(tmp_path, size):
    write_mp4(tmp_path / "a.mp4", flat((9, 8, 7), 5, *size), 12, DOCUMENT)
    facts, frames = read_mp4(tmp_path / "a.mp4")
    assert frames.shape == (5, *size, 3)
    assert " 12 fps" in facts
    assert read_metadata(tmp_path / "a.mp4") == DOCUMENT


@pytest.mark.parametrize(
    "colour", [(200, 30, 30), (20, 180, 40), (30, 40, 200), (255, 255, 255), (0, 0, 0)]
)
def test_an_mp4_keeps_its_colours(tmp_path, colour):
    write_mp4(tmp_path / "a.mp4", flat(colour), 8, {"schema": 1})
    _, frames = read_mp4(tmp_path / "a.mp4")
    assert np.abs(frames.astype(int) - np.array(colour)).max() <= 3


def test_a_failed_mp4_leaves_nothing(tmp_path):
    with pytest.raises(Exception, match="ffmpeg could not write it"):
        write_mp4(tmp_path / "a.mp4", flat((9, 8, 7), 5, 33, 51), 8, {"schema": 1})
    assert list(tmp_path.iterdir()) == []


def test_frames_are_numbered(tmp_path):
    write_frames(tmp_path / "a", flat((9, 8, 7), 3), {"schema": 1})
    write_frames(tmp_path / "a", flat((9, 8, 7), 2), {"schema": 1}, replace=True)
    assert sorted(p.name for p in (tmp_path / "a").glob("0*")) == ["0000.png", "0001.png"]


# -- sound ---------------------------------------------------------------------------------------


def streams(path):
    """What ffmpeg says of a file: the lines of its streams, and its seconds."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    said = subprocess.run([ffmpeg, "-i", path], capture_output=True, text=True, check=False).stderr
    hours, minutes, seconds = re.search(r"Duration: (\d+):(\d+):([\d.]+)", said).groups()
    lines = [line for line in said.splitlines() if "Stream #" in line]
    return lines, 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def heard(path, rate):
    """The sound, as ffmpeg decodes it.  # [samples, 2]"""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        path,
        "-f",
        "f32le",
        "-ac",
        "2",
    ]
    raw = subprocess.check_output([*command, "-ar", str(rate), "-"])
    return np.frombuffer(raw, np.float32).reshape(-1, 2)


@pytest.mark.parametrize("seconds", [0.5, 3])
def test_a_films_sound(tmp_path, seconds):
    """No longer than the frames; left and right stay apart."""
    rate, path = 24000, tmp_path / "a.mp4"
    time = np.arange(int(seconds * rate)) / rate
    audio = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros_like(time)], 1).astype(np.float32)
    write_mp4(path, flat((9, 8, 7), 16), 8, DOCUMENT, audio, rate)
    lines, whole = streams(path)
    assert len(lines) == 2
    assert "Audio: aac" in lines[1]
    assert "24000 Hz, stereo" in lines[1]
    assert whole == pytest.approx(2, abs=0.1)
    sound = heard(path, rate)
    assert len(sound) / rate == pytest.approx(min(seconds, 2), abs=0.1)
    left, right = np.abs(sound[2000:10000]).max(0)
    assert left == pytest.approx(1, abs=0.1)
    assert right < 0.05
    spectrum = np.abs(np.fft.rfft(sound[: rate // 2, 0]))
    assert np.argmax(spectrum) * 2 == pytest.approx(440, abs=4)
    assert read_metadata(path) == DOCUMENT
    assert len(read_mp4(path)[1]) == 16


def test_a_film_without_sound(tmp_path):
    write_mp4(tmp_path / "a.mp4", flat((9, 8, 7)), 8, DOCUMENT)
    lines, _ = streams(tmp_path / "a.mp4")
    assert [re.search(r": (\w+): ", line)[1] for line in lines] == ["Video"]


def test_the_sound_of_ltx_2(spectrum, tmp_path, monkeypatch):
    tiny_videos.CASES["ltx-2"].build().save_pretrained(tmp_path / "ltx-2")
    args = ["gen", "-m", "ltx-2", "--weights", "ltx-2", "--width", 32, "--height", 32, "--seed", 1]
    args += ["--frames", 9, "--steps", 4, "--speedup", 1.3, "--dtype", "float32"]
    args += ["--set", "max_sequence_length=16", "a cat"]
    assert spectrum(*args, "-q", "-o", "a.mp4")[:2] == (0, "a.mp4\n")
    lines, _ = streams(tmp_path / "a.mp4")
    assert "Audio: aac" in lines[1]
    assert "16000 Hz, stereo" in lines[1]
    assert np.abs(heard(tmp_path / "a.mp4", 16000)).max() > 0.001
    code, _, err = spectrum(*args, "-o", "a.png")
    assert code == 0
    assert "the sound is not in it: pictures hold none" in err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a cat\n")))
    code, _, err = spectrum("batch", "-", *args[1:-1], "-o", "out", "--name", "{index}.webp")
    assert code == 0
    assert "the sound is not in it: pictures hold none" in err
    code, _, err = spectrum("rerun", "a.mp4")
    assert code == 0
    assert err.endswith("the same film as a.mp4\n")
    assert (heard("a.mp4", 16000) == heard("a-again.mp4", 16000)).all()


def test_sound_is_that_of_a_pipeline_with_a_vocoder():
    config = SimpleNamespace(output_sampling_rate=24000)
    pipe = SimpleNamespace(vocoder=SimpleNamespace(config=config))
    sound = torch.tensor([[[0.5, 2.0, -2.0], [0.0, 0.25, 0.0]]])
    audio, rate = sound_of(pipe, (None, sound))
    assert rate == 24000
    assert audio.tolist() == [[0.5, 0], [1, 0.25], [-1, 0]]
    assert sound_of(SimpleNamespace(), (None, [False])) is None  # a safety checker's word
    assert sound_of(pipe, (None, None)) is None  # Kandinsky 6 without sound; with it:
    single, rate = sound_of(
        SimpleNamespace(vocoder=1, audio_sample_rate=9), (None, np.ones((2, 5)))
    )
    assert (single.shape, rate) == ((5, 1), 9)
    with pytest.raises(SpectrumError, match="sound is not finite"):
        sound_of(pipe, (None, sound / 0))


# -- what could lose a film or a picture at its end ----------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_a_picture_in_any_format(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    encode(path, ending, flat((200, 30, 30), 1), DOCUMENT)
    assert read_metadata(path) == DOCUMENT
    found = read_frames(path, (1, 34, 50))
    assert np.abs(found.astype(int) - (200, 30, 30)).max() <= 3


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".gif", ".webp"])
def test_a_film_in_any_format(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    frames = np.stack([np.full((34, 50, 3), (40 * k, 90, 20), np.uint8) for k in range(5)])
    encode(path, ending, frames, DOCUMENT, 8)
    assert read_metadata(path) == DOCUMENT
    found = read_frames(path, (5, 34, 50))
    assert np.abs(found.astype(int) - frames).max() <= 6


@pytest.mark.parametrize(("ending", "fps"), [(".gif", 8), (".gif", 50), (".webp", 60)])
def test_a_film_of_pictures_lasts_as_long_as_it_says(tmp_path, ending, fps):
    path = tmp_path / f"a{ending}"
    frames = np.stack([np.full((34, 50, 3), (40 * k, 90, 20), np.uint8) for k in range(5)])
    encode(path, ending, frames, DOCUMENT, fps)
    shown = []
    with Image.open(path) as film:
        for number in range(5):
            film.seek(number)
            film.load()
            shown.append(film.info["duration"])
    assert abs(sum(shown) - 5000 / fps) <= (5 if ending == ".gif" else 0.5)
    assert max(shown) - min(shown) <= (10 if ending == ".gif" else 1)
    with pytest.raises(UsageError, match="50 frames a second at most"):
        check(".GIF", SimpleNamespace(frames=2, fps=51))
    check(".gif", SimpleNamespace(frames=2, fps=50))


@pytest.mark.parametrize(("ending", "fps"), [(".gif", 8), (".gif", 30), (".webp", 24)])
@pytest.mark.parametrize("shades", [[0, 0, 0, 9, 9], [0, 9, 9, 0, 0], [9, 9, 9, 9, 9]])
def test_equal_pictures_are_frames_each(tmp_path, ending, fps, shades):
    """They are written as one that lasts longer."""
    path = tmp_path / f"a{ending}"
    frames = np.stack([np.full((34, 50, 3), (20 * k, 90, 20), np.uint8) for k in shades])
    encode(path, ending, frames, DOCUMENT, fps)
    found = read_frames(path, (5, 34, 50), fps)
    assert np.abs(found.astype(int) - frames).max() <= 6
    for shape, rate in (((4, 34, 50), fps), ((5, 34, 51), fps), ((5, 34, 50), fps + 3)):
        if len(set(shades)) > 1:
            assert read_frames(path, shape, rate) is None


def test_a_png_that_moves_is_none_of_ours(tmp_path):
    first, second = (Image.new("RGB", (50, 34), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    assert read_frames(tmp_path / "a.png", (1, 34, 50)) is None
    assert read_frames(tmp_path / "a.png", (5, 34, 50), 8) is None


def test_a_webm_has_sound(tmp_path):
    audio = np.zeros((16000, 1), np.float32)
    encode(tmp_path / "a.webm", ".webm", flat((9, 8, 7), 8), DOCUMENT, 8, audio, 16000)
    assert "Audio: opus" in streams(tmp_path / "a.webm")[0][1]


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".webp", ".gif", ".png"])
def test_a_document_of_any_length_and_content(tmp_path, monkeypatch, ending):
    """An argument of a command may have 128 kB, and a colon in a name is a protocol to ffmpeg."""
    monkeypatch.chdir(tmp_path)
    document = {"schema": 1, "prompt": "猫 =;#\\\n" * 40000}
    name = Path(f"a:b{ending}")
    encode(name, ending, flat((9, 8, 7), 2), document, 8)
    assert read_metadata(name) == document
    cycle = []
    cycle.append(cycle)
    odd = {"schema": 1, "half": "\ud800", "nan": float("nan"), "set": {2}, "in": [cycle], (1,): 2}
    encode(name, ending, flat((9, 8, 7), 2), odd, 8)
    found = read_metadata(name)
    assert (found["half"], found["nan"], found["set"], found["(1,)"]) == ("?", "nan", "{2}", 2)


def test_a_jpeg_says_what_it_cannot_hold(tmp_path):
    with pytest.raises(SpectrumError, match=r"write a \.png"):
        encode(tmp_path / "a.jpg", ".jpg", flat((9, 8, 7), 1), {"prompt": "x" * 70000})


def test_what_is_transparent_is_in_front_of_white():
    picture = np.array([[0.2, 0.4, 0.6, 1.0], [0.2, 0.4, 0.6, 0.5], [0.2, 0.4, 0.6, 0.0]])
    assert np.allclose(opaque(picture), [[0.2, 0.4, 0.6], [0.6, 0.7, 0.8], [1, 1, 1]])
    assert np.array_equal(opaque(picture[:, :3]), picture[:, :3])
