"""What was made is never lost, and what was there before neither."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import Command
from test_cli import FLUX, WAN, refused
from test_cli import files as all_files

from spectrum.pipeline import generate as generating
from spectrum.pipeline.folders import MARKER
from spectrum.pipeline.media import read_metadata

SMALL = ["--steps", "4", "--speedup", "1.3"]


def files(folder):
    return [name for name in all_files(folder) if name != "config"]  # of matplotlib


@pytest.fixture
def flux_args(folders):
    return [*FLUX, "--weights", str(folders / "flux"), *SMALL]


@pytest.fixture
def wan_args(folders):
    return [*WAN, "--weights", str(folders / "wan"), *SMALL]


@pytest.fixture
def meanwhile(monkeypatch):
    """Something that happens while a run goes on."""

    def happens(act):
        def generate(*args, real=generating.generate, **kwargs):
            act()
            return real(*args, **kwargs)

        monkeypatch.setattr(generating, "generate", generate)

    return happens


def test_four_at_once(flux_args, tmp_path):
    """Each keeps its picture, one of them the name; the others say so."""
    folder = tmp_path / "out"
    folder.mkdir()
    args = ["gen", *flux_args, "-q"]
    named = [Command(folder, *args, "-o", "x.png", "--seed", k, "x") for k in range(4)]
    codes = [command.wait() for command in named]
    paths = [command.out.strip() for command in named]
    assert sorted(paths) == files(folder) == ["x-2.png", "x-3.png", "x-4.png", "x.png"]
    for seed, (command, code, path) in enumerate(zip(named, codes, paths, strict=True)):
        assert read_metadata(folder / path)["seed"] == seed
        told = f"spectrum: x.png was taken by something else meanwhile: this one is {path}\n"
        assert (code, command.err) == ((0, "") if path == "x.png" else (1, told))


def test_a_default_name_that_is_taken_meanwhile(spectrum, flux_args, tmp_path, meanwhile):
    meanwhile(lambda: (tmp_path / "flux.1-dev-x-1.png").write_text("theirs"))
    code, out, err = spectrum("gen", *flux_args, "--seed", 1, "x")
    assert (code, out) == (0, "flux.1-dev-x-1-2.png\n")
    assert "flux.1-dev-x-1.png exists already and was kept" in err
    assert (tmp_path / "flux.1-dev-x-1.png").read_text() == "theirs"


def test_a_link_or_a_folder_that_appears_meanwhile(
    spectrum, flux_args, wan_args, tmp_path, meanwhile
):
    meanwhile(lambda: (tmp_path / "x.png").symlink_to("nowhere"))
    code, out, err = spectrum("gen", *flux_args, "-o", "x.png", "--json", "x")
    assert (code, json.loads(out)["outputs"]) == (1, ["x-2.png"])
    assert "x.png was taken" in err
    (tmp_path / "x.png").unlink()
    meanwhile(lambda: (tmp_path / "f").mkdir())
    assert spectrum("gen", *wan_args, "-o", "f.png", "x")[:2] == (1, "f-2\n")
    assert files(tmp_path) == ["f", "f-2", "x-2.png", "x.png"]  # x.png by the first again
    assert files(tmp_path / "f") == []


def test_force_replaces_a_folder_of_ours_and_no_other(spectrum, wan_args, tmp_path, meanwhile):
    args = ["gen", *wan_args, "-q", "-o", "f.png"]
    assert spectrum(*args, "x")[0] == 0
    refused(spectrum(*args, "y"), "f exists already")
    assert spectrum(*args, "--force", "y")[:2] == (0, "f\n")
    assert read_metadata(tmp_path / "f/0000.png")["prompt"] == "y"
    (tmp_path / "f/2023.png").write_text("mine")
    refused(spectrum(*args, "--force", "y"), "2023.png")
    (tmp_path / "f/2023.png").unlink()
    meanwhile(lambda: (tmp_path / "f/2023.png").write_text("mine"))
    assert spectrum(*args, "--force", "z")[:2] == (1, "f-2\n")
    assert (tmp_path / "f/2023.png").read_text() == "mine"
    (tmp_path / "f" / MARKER).unlink()
    refused(spectrum(*args, "--force", "y"), "was not made by spectrum")


def test_a_comparison_replaces_nothing_of_others(
    spectrum, flux_args, tmp_path, meanwhile, monkeypatch
):
    args = ["compare", *flux_args, "-q", "--method", "hold", "x"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "result.json").write_text("{}")
    refused(spectrum(*args, "-o", "mine", "--force"), "was not made by spectrum")
    assert spectrum(*args, "-o", "cmp")[0] == 0
    (tmp_path / "link").symlink_to("cmp")
    refused(spectrum(*args, "-o", "link"), "exists already")
    assert spectrum(*args, "-o", "link", "--force")[0] == 0
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "gone").symlink_to("nowhere")
    refused(spectrum(*args, "-o", "gone"), "gone")
    refused(spectrum(*args, "-o", "gone", "--force"), "gone")
    meanwhile(lambda: (tmp_path / "new").mkdir(exist_ok=True))
    monkeypatch.setattr("spectrum.compare.comparison.generate", generating.generate)
    code, _, err = spectrum(*args, "-o", "new")
    assert (code, err) == (
        1, "spectrum: new was taken by something else meanwhile: this one is new-2\n"
    )  # fmt: skip
    assert files(tmp_path) == ["cmp", "gone", "link", "mine", "new", "new-2"]
    assert files(tmp_path / "new") == []


def test_names_that_no_file_system_takes_are_refused_at_once(spectrum, flux_args, tmp_path):
    for name in ("x" * 260 + ".png", "猫" * 90 + ".png"):
        refused(spectrum("gen", *flux_args, "-o", name, "x"), "name too long")
    refused(spectrum("gen", *flux_args, "-n", 2, "-o", "x" * 250 + ".png", "x"), "name too long")
    code, out, _ = spectrum("gen", *flux_args, "--seed", 1, "-q", "猫" * 300)
    assert code == 0
    assert files(tmp_path) == [out.strip()]


def test_what_fails_at_the_write_is_saved_elsewhere(
    spectrum, flux_args, wan_args, tmp_path, meanwhile, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    meanwhile(lambda: shutil.rmtree(tmp_path / "out", ignore_errors=True))
    code, out, err = spectrum("gen", *flux_args, "-q", "-o", "out/x.png", "a red cat")
    saved = tmp_path / "tmp/spectrum-saved.png"
    assert (code, out) == (1, "")
    assert err.startswith("spectrum: out/x.png could not be written: ")
    assert err.endswith(f"; it was saved as {saved}\n")
    assert read_metadata(saved)["prompt"] == "a red cat"
    monkeypatch.setattr("spectrum.pipeline.media._CODECS", {"mp4": "-c:v no-such-codec"})
    code, out, err = spectrum("gen", *wan_args, "-q", "-o", "x.mp4", "a cat")
    assert (code, out) == (1, "")
    assert "x.mp4 could not be written: ffmpeg" in err
    assert err.endswith("; it was saved as spectrum-saved\n")
    assert read_metadata(tmp_path / "spectrum-saved/0004.png")["prompt"] == "a cat"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_loses_no_picture(flux_args, tmp_path):
    """The picture goes to where temporary files are, and nothing is left on the disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no mounts here")
    try:
        command = Command(disk, "gen", *flux_args, "-q", "-o", "x.png", "x")
        (disk / "full").write_bytes(b"x" * 4096)
        assert command.wait() == 1
        assert command.err.count("\n") == 1
        assert "No space left on device; it was saved as /" in command.err
        assert files(disk) == ["full"]
    finally:
        subprocess.run(["umount", disk], check=True)
    saved = command.err.rpartition(" ")[2].strip()
    assert read_metadata(Path(saved))["prompt"] == "x"
    Path(saved).unlink()


# -- where it goes -------------------------------------------------------------------------------


def test_the_fields_of_a_name(spectrum, flux_args, tmp_path):
    name = "{model}_{index}-{seed}_{prompt:8}.webp"
    code, out, _ = spectrum("gen", *flux_args, "-q", "--seed", "3,1-2", "-o", name, "A red cat!")
    assert code == 0
    assert out.split() == [
        "flux.1-dev_1-3_a-red.webp", "flux.1-dev_2-1_a-red.webp", "flux.1-dev_3-2_a-red.webp",
    ]  # fmt: skip
    assert [read_metadata(tmp_path / path)["seed"] for path in out.split()] == [3, 1, 2]
    refused(spectrum("gen", *flux_args, "-o", "{sed}.png", "x"), "{sed}", "{seed}")
    _, out, _ = spectrum("gen", *flux_args, "-q", "-n", 2, "--seed", 3, "-o", "{model}.jpg", "x")
    assert out.split() == ["flux.1-dev-3.jpg", "flux.1-dev-4.jpg"]


@pytest.mark.parametrize("seed", ["1-x", "-3", "4-2", "1,,2", "4294967296", "x", ""])
def test_what_is_no_seed(spectrum, flux_args, seed):
    refused(spectrum("gen", *flux_args, f"--seed={seed}", "x"), "--seed")


def test_standard_output(flux_args, wan_args, tmp_path):
    (tmp_path / "out").mkdir()
    picture = Command(tmp_path / "out", "gen", *flux_args, "-o", "-", "x")
    film = Command(tmp_path / "out", "gen", *wan_args, "-o", "-", "x")
    assert (picture.wait(), film.wait()) == (0, 0)
    assert picture._out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert film._out.read_bytes()[4:8] == b"ftyp"
    assert "wrote a .png to standard output  (" in picture.err
    assert files(tmp_path / "out") == []
    beside = Command(tmp_path / "out", "gen", *flux_args, "-o", "-", "--preview", 1, "x")
    several = Command(tmp_path / "out", "gen", *flux_args, "-o", "-", "-n", 2, "x")
    both = Command(tmp_path / "out", "gen", *flux_args, "-o", "-", "--json", "x")
    assert (several.wait(), both.wait(), beside.wait()) == (2, 2, 2)


def test_endings_that_are_not_written(spectrum, flux_args, wan_args):
    refused(spectrum("gen", *flux_args, "-o", "x.bmp", "x"), ".png, .jpg, .jpeg, .webp", "x.png")
    refused(spectrum("gen", *wan_args, "-o", "x.jpg", "x"), ".mp4, .webm, .gif, .webp, .png")
    refused(spectrum("gen", *wan_args, "-o", "x.gif", "--fps", 60, "x"), "50 frames", "--fps 50")
    assert spectrum("gen", *wan_args, "-q", "-o", "x.gif", "x")[:2] == (0, "x.gif\n")
    code, _, err = spectrum("rerun", "x.gif")
    assert code == 0
    assert err.endswith("the same film as x.gif\n")


def test_what_a_jpeg_has_no_room_for_is_refused_before_the_run(spectrum, tmp_path):
    long = "a red circle" + "猫" * 10500  # of each, six letters are kept
    refused(spectrum("gen", long, "-o", "a.jpeg"), "a JPEG has no room", "write a .png")
    assert spectrum("gen", long, "-o", "a.webp", "--dry-run")[0] == 0
    assert spectrum("gen", long[:9000], "-o", "a.jpg", "--dry-run")[0] == 0
    (tmp_path / "jobs.txt").write_text(f"x\n{long}\n")
    batch = spectrum("batch", "jobs.txt", "-o", "out", "--name", "{index}.jpg")
    refused(batch, "jobs.txt, line 2: a JPEG has no room")
