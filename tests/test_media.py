import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from spectrum.pipeline.media import read_metadata, to_uint8, write_frames, write_mp4, write_png

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
    write_frames(tmp_path / "a", flat((9, 8, 7), 2), {"schema": 1})
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["0000.png", "0001.png"]
