"""`spectrum batch`: what comes in, what it is called, and a folder that survives everything."""

import errno
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from commands import Command
from PIL import Image
from test_cli import but

from spectrum.batch import claims as claims_module
from spectrum.batch import store as store_module
from spectrum.batch.claims import Claims
from spectrum.batch.jobs import Checker, JobErrors, check_jobs, grouped, in_shard, parse_shard
from spectrum.batch.manifest import Record
from spectrum.batch.names import MOST_BYTES, Names, asked_name, safe, words
from spectrum.batch.reading import Problem, Raw, kind_of, read_jobs, read_line
from spectrum.batch.run import Model, Worker
from spectrum.batch.store import FolderError, LostClaim, Store
from spectrum.batch.together import calls, why_alone
from spectrum.batch.values import sweep, validated
from spectrum.errors import UsageError
from spectrum.pipeline import files as files_module
from spectrum.pipeline import generate as generate_module
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.formats import endings
from spectrum.pipeline.loading import Options, load_pipeline
from spectrum.pipeline.media import encode_png, read_metadata

SMALL = ["--width", 32, "--height", 32, "--steps", 4, "--speedup", 2]
ID = "0123456789abcdef"


# -- what comes in -------------------------------------------------------------------------------


def test_lines_and_json_lines():
    text = "a red circle\r\n\n  -n 3 {x}\n# not a comment\n"
    raws = list(read_jobs(text, "lines"))
    assert [(raw.line, raw.values["prompt"]) for raw in raws] == [
        (1, "a red circle"), (3, "-n 3 {x}"), (4, "# not a comment"),
    ]  # fmt: skip
    raws = list(read_jobs('{"prompt": "x", "seed": 3}\n[1]\n{"prompt\n', "jsonl"))
    assert raws[0] == Raw(1, {"prompt": "x", "seed": 3})
    assert [problem.line for problem in raws[1:]] == [2, 3]
    assert all(isinstance(problem, Problem) for problem in raws[1:])
    assert read_line(1, '{"prompt": "x"}') == Raw(1, {"prompt": "x"})  # of a stream: either
    assert read_line(2, "x") == Raw(2, {"prompt": "x"})


def test_csv():
    text = 'prompt;Lora;seed\n"a;\nb";;3\n\nc\n'
    assert list(read_jobs(text.lower(), "csv")) == [
        Raw(2, {"prompt": "a;\nb", "seed": "3"}), Raw(5, {"prompt": "c"}),
    ]  # fmt: skip
    problems = list(read_jobs("promt,seed\nx,1,2\n", "csv"))
    told = [str(problem) for problem in problems]
    assert "line 1: the first line of a CSV names its columns" in told[0]
    assert told[1] == "line 1: unknown key 'promt'; did you mean prompt?"
    assert "line 2: 3 cells under 2 names" in told[2]
    assert "not CSV" in str(list(read_jobs('prompt,seed\n"x', "csv"))[-1])


def test_yaml():
    text = "steps: 8\njobs:\n- a red circle\n- {prompt: b, steps: 9}\n- &one\n  prompt: c\n- 3\n"
    assert list(read_jobs(text, "yaml")) == [
        Raw(3, {"steps": 8, "prompt": "a red circle"}),
        Raw(4, {"steps": 9, "prompt": "b"}),
        Raw(5, {"steps": 8, "prompt": "c"}),
        Problem(7, "a job is a prompt, or a mapping such as {prompt: a red circle}"),
    ]
    assert list(read_jobs("- a\n- b\n", "yaml")) == [
        Raw(1, {"prompt": "a"}),
        Raw(2, {"prompt": "b"}),
    ]
    for text in ("jobs: 3", "a: [", "", "- !!python/object/apply:os.getpid []", "a: 2020-99-99"):
        assert isinstance(list(read_jobs(text, "yaml"))[-1], Problem)


def test_kinds():
    assert kind_of(".JSONL", "") == "jsonl"
    assert kind_of("", '{"prompt"') == "jsonl"
    assert kind_of("", "prompt,seed, --lora") == "csv"
    assert kind_of("", "prompt,seed,joy") == "lines"
    assert kind_of("", "prompt") == "lines"
    assert kind_of("", "jobs:") == "yaml"
    assert kind_of(".txt", "jobs:") == "lines"


def test_values():
    given = {"negative-prompt": "x", "lora": "a/b", "set": {"a": [1, "x"]}, "seed": "3"}
    assert validated({**given, "quality": 0.03, "width": None}) == {
        "negative_prompt": "x", "loras": ("a/b",), "extras": ('a=[1, "x"]',), "seed": 3,
        "quality": "0.03",
    }  # fmt: skip
    wrong = [
        ({"sed": 1}, "unknown key 'sed'; did you mean seed?"),
        ({"lora": "a", "loras": "b"}, "loras is given twice"),
        ({"seed": "x"}, "seed: a whole number, not 'x'"),
        ({"seed": True}, "seed: a number is needed, not True"),
        ({"seed": 2**32}, "seed: less than 4294967296"),
        ({"steps": 10**9}, "steps: less than or equal to 10000"),
        ({"guidance": float("nan")}, "guidance: a finite number, not nan"),
        ({"target": "output"}, "target: 'feature' or 'denoised', not 'output'"),
        ({"prompt": "x\ud800"}, "prompt: half of a surrogate pair"),
        ({"prompt": ["y" * 999]}, "prompt: a valid string, not ['yyy"),
    ]
    for values, told in wrong:
        with pytest.raises(UsageError, match=re.escape(told)) as caught:
            validated(values)
        assert len(str(caught.value)) < 200


def test_sweeps():
    assert sweep(None, []) == [{}]
    assert [one["seed"] for one in sweep("1-3,7", [])] == [1, 2, 3, 7]
    swept = sweep("5", ["speedup=1,4.5", "steps=8-9"])
    assert len(swept) == 4
    assert swept[1] == {"seed": 5, "speedup": 1.0, "steps": 9}
    assert sweep(None, ["model=a,b"])[1] == {"model": "b"}
    for seeds, texts in (
        ("8-1", []), ("x", []), ("", []), (None, ["speedup"]), (None, ["prompt=a,b"]),
        (None, ["steps=1,,2"]), ("1", ["seed=2"]), (None, ["sped=1,2"]), ("1-9999999999", []),
        ("0-59999", ["steps=1-2"]),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"`seeds`|`sweep`"):
            sweep(seeds, texts)


# -- names ---------------------------------------------------------------------------------------

NASTY = [
    "", " ", "-rf /", "../../etc/passwd", ".hidden", "con", "CON.txt", "com¹", "nul ", "a/b\\c:d",
    "tab\tline\nend", "\x00\x1b[31m\x7f\x9f", "«quotes» \"'`$(rm)`", "*?<>|", "x" * 10_000,
    "क्षत्रिय" * 99, "日本語の絵" * 99, "👩‍👩‍👧 🎨" * 99, "e\u0301" * 400, "שלום العالم",
    "a\u202egnp.exe", "\u2028\u2029", "ends. ", "~x", "\ud800", "a" * 239 + "é", "{index}", "%n%s",
]  # fmt: skip


@pytest.mark.parametrize("prompt", NASTY)
@pytest.mark.parametrize(
    "template", ["{prompt}", "{index}-{prompt:40}-{seed}", "{model} {prompt:9}"]
)
def test_any_prompt_makes_a_safe_name(tmp_path, prompt, template):
    names = Names(template)
    values = {"prompt": prompt, "index": 1, "seed": 2, "model": prompt[:50]}
    for _ in range(3):
        name = names.of(values, ".png", 1)
        assert len(name.encode()) <= 255
        assert name[0] not in "-. ~"
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e]', name)
        assert not re.match(r"(con|nul|com[0-9¹²³])\.", name, re.I)
        stem = name.removesuffix(".png")
        assert stem == stem.rstrip(". ")
        assert safe(stem[:MOST_BYTES]) == stem or len(stem.encode()) > MOST_BYTES
        (tmp_path / name).open("x").close()
    assert len(list(tmp_path.iterdir())) == 3


def test_names_tell_what_they_are_of():
    values = {"prompt": "A Red   circle, on blue", "index": 7, "seed": 3, "speedup": "4.5"}
    assert Names().of(values, ".png", 1) == "0007-a-red-circle-on-blue-3.png"
    assert Names("{prompt:10} {speedup}x").of(values, ".mp4", 1) == "a-red 4.5x.mp4"
    assert words("été 日本 हिन्दी!") == "été-日本-हिन्दी"
    names = Names("{prompt:1}")
    made = [names.of({"prompt": p}, ".png", 1) for p in ("a", "A", "a", "b")]
    assert made == ["a.png", "a-2.png", "a-3.png", "b.png"]
    for template in ("{promt}", "a/{seed}", "", "{", "{seed:x}"):
        with pytest.raises(UsageError, match="`name`"):
            Names(template)


def test_a_job_names_its_output():
    stills, films = endings(False, 1), endings(True, 9)
    assert asked_name("hero", stills) == asked_name("hero.PNG", stills) == ("hero", ".png")
    assert asked_name("v1.5", films) == ("v1.5", ".mp4")
    assert asked_name("a.jpeg", stills) == ("a", ".jpeg")
    assert asked_name("a.gif", films) == ("a", ".gif")
    for output in ("a/b", "a.mp4", "a.bmp", "-x", "con", "a?.png", " ", "..", "x\n"):
        with pytest.raises(UsageError, match="output"):
            asked_name(output, stills) and asked_name(output.strip(" ") + "\n?", stills)


def test_lines_that_name_one_file_are_an_error_and_jobs_of_a_line_have_numbers():
    x = {"prompt": "x", "output": "a.jpg"}
    swept = jobs_of(x, {"prompt": "y"}, sweep=[{"seed": 1}, {"seed": 2}])
    assert [job.name for job in swept[:2]] == ["a.jpg", "a-2.jpg"]
    still, film = {"prompt": "x"}, {"prompt": "x", "model": "demo-video"}
    assert [job.name for job in jobs_of(still, names=Names("{seed}.JPG"))] == ["0.jpg"]
    with pytest.raises(JobErrors, match=r"^line 2: `name` in .jpg: this job writes .mp4"):
        jobs_of(still, film, names=Names("{seed}.jpg"))
    png, jpg = jobs_of({"prompt": "x", "seed": 0}, x)
    assert png.id != jpg.id  # other pixels
    film = {"prompt": "x", "model": "demo-video", "output": "b.gif", "fps": 60}
    with pytest.raises(JobErrors) as wrong:
        jobs_of({"prompt": "y"}, x, {"prompt": "y", "output": "A.JPG"}, {**x, "seed": 5}, film,
                {"prompt": "z", "output": "0001-y-0.png"})  # fmt: skip
    assert wrong.value.problems == [
        "line 3: output 'A.jpg' is what line 2 writes; give each its own",
        "line 4: output 'a.jpg' is what line 2 writes; give each its own",
        "line 5: a GIF shows 50 frames a second at most, not 60; give `fps` 50, or write an .mp4,"
        " .webm or .webp",
        "line 6: output '0001-y-0.png' is what line 1 writes; give each its own",
    ]


# -- jobs ----------------------------------------------------------------------------------------


def checker(**kwargs):
    defaults = kwargs.pop("defaults", {"model": "demo-image"})
    return Checker(defaults, find_preset, lambda _: Options(), **kwargs)


def jobs_of(*values, **kwargs):
    return check_jobs([Raw(k, v) for k, v in enumerate(values, 1)], checker(**kwargs))


def test_a_job_is_known_by_what_decides_its_pixels(tmp_path):
    def id_of(options=None, **values):
        asked = checker()
        asked.layout = lambda _: options or Options()
        return asked.jobs(Raw(1, {"prompt": "x", **values}))[0].id

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "b.png")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "c.png")
    ids = [
        id_of(), id_of(seed=1), id_of(steps=20), id_of(speedup=2), id_of(method="hold"),
        id_of(negative_prompt="y", guidance=2), id_of(guidance=2), id_of(model="flux.1-dev"),
        id_of(image=tmp_path / "a.png"), id_of(image=tmp_path / "c.png"), id_of(quality="good"),
        id_of(options=Options(dtype="float16")), id_of(scheduler="heun"),
        id_of(extras={"max_sequence_length": 9}),
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)
    assert id_of() == id_of(seed=0) == id_of(output="other") == id_of(steps=50)
    assert id_of(image=tmp_path / "a.png") == id_of(image=tmp_path / "b.png")
    mine = tmp_path / "mine.yaml"
    text = find_preset("flux.1-dev").path.read_text()
    mine.write_text(text)
    assert id_of(model=str(mine)) == id_of(model="flux.1-dev")
    mine.write_text(text.replace("speedup: 3.5", "speedup: 3"))
    assert id_of(model=str(mine), speedup=3.5) != id_of(model="flux.1-dev", speedup=3.5)


def test_seeds_that_nobody_names():
    asked = [{"prompt": p} for p in ("a", "b", "a", "a")]
    assert [job.seed for job in jobs_of(*asked, seed=7)] == [7, 7, 8, 9]
    more = jobs_of({"prompt": "new"}, *asked, seed=7)  # a line that comes first moves no seed
    assert [job.id for job in more[1:]] == [job.id for job in jobs_of(*asked, seed=7)]
    twice = checker()
    found = check_jobs(
        [Raw(1, {"prompt": "a", "seed": 3}), Raw(2, {"prompt": "a", "seed": 3})], twice
    )
    assert (len(found), twice.repeated) == (1, 1)


def test_all_errors_at_once():
    values = [{"prompt": "x", "width": 33}] * 3 + [{"prompt": ""}, {"prompt": "ok"}, {"steps": 0}]
    values += [{"prompt": "x", "model": "fux"}, {"seed": 3}, {"prompt": "x", "width": 33}]
    with pytest.raises(JobErrors) as caught:
        jobs_of(*values)
    told = caught.value.problems
    assert told[0].startswith("lines 1-3, 9: demo-image takes a width in multiples of 16")
    assert [line.partition(":")[0] for line in told[1:]] == ["line 4", "line 6", "line 7", "line 8"]
    with pytest.raises(JobErrors, match="seed is given here, and swept too"):
        jobs_of({"prompt": "x", "seed": 1}, sweep=sweep("1-2", []))
    with pytest.raises(JobErrors, match="`fps` means nothing"):
        jobs_of({"prompt": "x", "model": "demo-video", "frames": 1, "fps": 8})


def test_groups_and_shards():
    jobs = jobs_of(*[{"prompt": str(k), "model": ("demo-image", "sdxl")[k % 2]} for k in range(10)])
    assert [job.index for job in grouped(jobs)] == [1, 3, 5, 7, 9, 2, 4, 6, 8, 10]
    shares = [[job.index for job in in_shard(jobs, (k, 3))] for k in (1, 2, 3)]
    assert shares == [[1, 4, 7, 10], [2, 5, 8], [3, 6, 9]]
    assert parse_shard("2/8") == (2, 8)
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UsageError, match="`shard`"):
            parse_shard(text)


def test_an_image_is_looked_at_and_not_kept(tmp_path):
    picture = Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned
    picture.save(tmp_path / "a.jpg", exif=exif)
    (job,) = jobs_of({"prompt": "x", "image": str(tmp_path / "a.jpg")})
    assert job.request.height > job.request.width
    assert job.request.arguments()["image"].size == (job.request.width, job.request.height)
    Image.effect_noise((99, 99), 90).save(tmp_path / "b.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:5000])
    (job,) = jobs_of({"prompt": "x", "image": str(tmp_path / "cut.png")})  # the head is whole
    with pytest.raises(UsageError, match=r"cut.png: the image can't be read"):
        job.request.arguments()["image"].read()
    with pytest.raises(JobErrors, match="no such file"):
        jobs_of({"prompt": "x", "image": str(tmp_path / "gone.jpg")})


def test_ten_thousand_lines_are_checked_in_five_seconds(tmp_path):
    """In a process of its own, that is not to import what is heavy."""
    lines = [
        json.dumps({"prompt": f"a red circle {k}", "seed": k, "steps": 20 + k % 3, "width": 64})
        for k in range(10_000)
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join([*lines, '{"prompt": "x", "width": 33}']))
    code = (
        "import sys; from spectrum_cli.main import run; sys.argv[0] = 'spectrum'\n"
        "try: code = run()\nexcept SystemExit as leave: code = leave.code\n"
        "print(code, 'torch' in sys.modules, 'diffusers' in sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-c", code, "batch", "jobs.jsonl", "-o", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert result.stdout == "2 False False\n"
    assert result.stderr.startswith("spectrum: jobs.jsonl, line 10001: demo-image takes a width")
    assert not (tmp_path / "out").exists()


# -- claims --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "claims").mkdir()
    return tmp_path / "claims"


def test_a_claim_is_one_owners(folder):
    one, other = Claims(folder), Claims(folder)
    claim = one.take(ID)
    assert claim.holds
    assert other.take(ID) is None
    assert one.take(ID) is None
    claim.release()
    assert list(folder.iterdir()) == []
    with other.take(ID) as claim:
        assert not claim.is_inherited
        assert one.take(ID) is None
    assert list(folder.iterdir()) == []


def test_a_dead_owner_holds_nothing(folder):
    process = os.fork()
    if process == 0:
        Claims(folder).take(ID)
        os._exit(0)
    os.waitpid(process, 0)
    assert [path.name for path in folder.iterdir()] == [f"{ID}.1"]
    claim = Claims(folder).take(ID)
    assert claim.is_inherited
    assert Claims(folder).take(ID) is None
    claim.release()
    assert list(folder.iterdir()) == []
    Claims(folder).take(ID).abandon()
    assert Claims(folder).take(ID).is_inherited


@pytest.mark.parametrize("place", ["another machine", "no locks", "nothing written"])
def test_without_a_lock_it_is_a_lease(folder, monkeypatch, place):
    if place == "no locks":
        monkeypatch.setattr(files_module, "fcntl", None)
    mine = Claims(folder, lease=0.3, beat=0.05)
    claim = mine.take(ID)
    if place == "another machine":
        monkeypatch.setattr(claims_module, "_kernel", lambda: "another")
    if place == "nothing written":
        claim.path.write_text("")
        monkeypatch.setattr(files_module, "fcntl", None)
    other = Claims(folder, lease=0.3, beat=9)
    until = time.monotonic() + 0.8
    while time.monotonic() < until:  # its heart beats
        assert other.take(ID) is None
        time.sleep(0.02)
    mine._held.clear()  # and stops
    until = time.monotonic() + 5
    while (found := other.take(ID)) is None and time.monotonic() < until:
        time.sleep(0.02)
    assert found.holds
    assert not claim.holds


def test_many_at_once_and_one_has_it(folder):
    """Threads with claims of their own are as processes to each other."""
    held, most, taken = Counter(), Counter(), Counter()
    guard = threading.Lock()

    def hammer(seed):
        claims, chance = Claims(folder), random.Random(seed)
        for _ in range(60):
            name = chance.choice(["a" * 16, "b" * 16])
            if claim := claims.take(name):
                with guard:
                    held[name] += 1
                    taken[name] += 1
                    most[name] = max(most[name], held[name])
                time.sleep(chance.random() / 1000)
                with guard:
                    held[name] -= 1
                chance.choice([claim.release, claim.abandon])()

    threads = [threading.Thread(target=hammer, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most.values()) == {1}
    assert min(taken.values()) > 10


# -- the folder ----------------------------------------------------------------------------------


def record(**given):
    return Record(**{"id": ID, "index": 1, "status": "done", "seconds": 1.5, **given})


def put(store, name="a.png", red=200, **given):
    """A picture that says of which job it is."""
    one = record(**given)
    pixels = np.full((8, 8, 3), red, np.uint8)
    document = {"schema": 1, "computed_steps": [0, 2], "job": {"id": one.id, "seconds": 1.5}}
    with store.claim(one.id) as claim:
        return store.put(claim, one, name, lambda path: encode_png(path, pixels, document))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".spectrum")


def test_a_store_knows_what_is_done(tmp_path):
    store = Store(tmp_path / "out")
    assert store.ended(ID) is None
    made = put(store)
    assert (made.file, made.bytes) == ("a.png", (tmp_path / "out" / "a.png").stat().st_size)
    assert names(tmp_path / "out") == ["a.png", "manifest.jsonl"]
    again = Store(tmp_path / "out")
    assert again.ended(ID) == made
    store.record(record(id="f" * 16, status="failed", error="x"))
    assert again.ended("f" * 16) is None
    again.refresh()
    assert again.ended("f" * 16).error == "x"
    assert Store(tmp_path / "out", retry_failed=True).ended("f" * 16) is None
    (tmp_path / "out" / "a.png").write_bytes(b"")  # as a disk may leave it
    assert again.ended(ID) is None
    (tmp_path / "out" / "a.png").unlink()
    assert again.ended(ID) is None


def test_an_old_folder_calls_the_estimated_speedup_measured(tmp_path):
    """In its manifest, and in its pictures, which tell the same where that is lost."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    job = {"id": ID, "index": 1, "seconds": 1.5, "measured_speedup": 2.5, "attempt": 1}
    (tmp_path / "out").mkdir()
    encode_png(tmp_path / "out" / "a.png", pixels, {"schema": 1, "job": job})
    from_picture = Store(tmp_path / "out").ended(ID)
    line = {**job, "status": "done", "file": "a.png", "bytes": from_picture.bytes}
    (tmp_path / "out" / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    assert Store(tmp_path / "out").ended(ID) == from_picture
    assert from_picture.estimated_speedup == 2.5
    assert "measured_speedup" not in from_picture.model_dump()


@pytest.mark.parametrize("links", [True, False])
def test_nothing_is_overwritten(tmp_path, monkeypatch, links):
    def no_links(*_args, **_kwargs):
        raise PermissionError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    store = Store(tmp_path)
    (tmp_path / "a.png").write_text("mine")
    (tmp_path / "a-2.png").symlink_to("nowhere")
    assert put(store).file == "a-3.png"
    assert (tmp_path / "a.png").read_text() == "mine"
    assert names(tmp_path) == ["a-2.png", "a-3.png", "a.png", "manifest.jsonl"]


def test_the_manifest_is_written_again_from_the_folder(tmp_path):
    store = Store(tmp_path)
    made = put(store)
    (tmp_path / "foreign.png").write_text("no picture")
    (tmp_path / "manifest.jsonl").unlink()
    found = Store(tmp_path).ended(ID)
    assert found == made.model_copy(update={"index": 0, "computed_steps": [0, 2]})
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 1
    Store(tmp_path)
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("torn", ['{"id":"0123', "\x00\x00", "[]", '{"id":"../x"}'])
def test_a_torn_line_is_passed_over_and_mended(tmp_path, torn):
    store = Store(tmp_path)
    put(store)
    manifest = tmp_path / "manifest.jsonl"
    with manifest.open("a") as file:
        file.write(torn)
    again = Store(tmp_path)
    assert again.ended(ID)
    again.record(record(id="f" * 16, status="failed"))
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [line["id"] for line in lines] == [ID, "f" * 16]
    store.refresh()
    assert store.records.keys() == {ID, "f" * 16}
    whole = manifest.read_bytes().rstrip(b"\n")  # only the end is missing: nothing is lost
    manifest.write_bytes(whole)
    Store(tmp_path).record(record(id="e" * 16, status="failed"))
    assert manifest.read_bytes().startswith(whole + b"\n")
    assert len(Store(tmp_path).records) == 3


@pytest.mark.parametrize("moment", ["before it is placed", "before the line", "before the end"])
def test_a_death_between_two_steps_loses_nothing(tmp_path, monkeypatch, moment):
    process = os.fork()
    if process == 0:
        store = Store(tmp_path)
        if moment == "before it is placed":
            store_module.place = lambda *_: os._exit(1)  # of this process alone
        elif moment == "before the line":
            store.record = lambda *_: os._exit(1)
        else:
            store.claims.release = lambda *_: os._exit(1)
        put(store)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1
    running = Store.__new__(Store)  # one that was opened before, and cleaned nothing
    running.__dict__.update(Store(tmp_path / "elsewhere").__dict__, folder=tmp_path)
    store = Store(tmp_path)
    assert bool(store.ended(ID)) is (moment != "before it is placed")
    if store.ended(ID) is None:
        put(store)
    assert names(tmp_path)[:1] == ["a.png"]
    assert [n for n in names(tmp_path) if n.startswith(".")] == []
    assert list((tmp_path / ".spectrum" / "claims").iterdir()) == []
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 1


def test_who_takes_over_looks_what_the_dead_had_made(tmp_path):
    """Though its own store was opened before that."""
    running = Store(tmp_path)
    process = os.fork()
    if process == 0:
        store = Store(tmp_path)
        store.record = lambda *_: os._exit(1)
        put(store)
    os.waitpid(process, 0)
    assert running.ended(ID) is None
    with running.claim(ID):
        assert running.ended(ID).file == "a.png"


def test_a_failed_line_leaves_the_output_to_be_found(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store._manifest, "append", full)
        with pytest.raises(FolderError, match="No space left on device; mend that"):
            put(store)
    with store.claim(ID):
        assert store.ended(ID).file == "a.png"


def test_a_short_write_is_taken_back(tmp_path, monkeypatch):
    store = Store(tmp_path)
    put(store)
    before = (tmp_path / "manifest.jsonl").read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: write(handle, data[:20]))
        with pytest.raises(FolderError):
            store._manifest, store.record(record(id="f" * 16, status="failed"))
    assert (tmp_path / "manifest.jsonl").read_bytes() == before


def test_who_stood_still_too_long_puts_nothing(tmp_path):
    store = Store(tmp_path)
    with store.claim(ID) as claim:
        (tmp_path / ".spectrum" / "claims" / f"{ID}.2").write_text("")
        with pytest.raises(LostClaim):
            store.put(claim, record(), "a.png", lambda path: path.write_text("x"))
    assert names(tmp_path) == []


def test_folders_that_can_not_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        Store(tmp_path / "file")

    def read_only(*_args, **_kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", read_only)
        with pytest.raises(FolderError, match="Read-only file system"):
            Store(tmp_path / "out")


# -- the command ---------------------------------------------------------------------------------


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def whole(folder, count):
    """Every job is there once: in the manifest, and as a picture that says so."""
    done = [line for line in manifest(folder) if line["status"] == "done"]
    files = [path for path in folder.iterdir() if path.suffix == ".png"]
    assert len(done) == len(files) == count
    assert {line["file"] for line in done} == {path.name for path in files}
    for line in done:
        document = read_metadata(folder / line["file"])
        assert document["job"]["id"] == line["id"]
        assert document["computed_steps"] == line["computed_steps"]
        assert Image.open(folder / line["file"]).convert("RGB").size == (32, 32)
    assert len({line["id"] for line in done}) == count
    assert not list(folder.glob(".*.partial"))
    assert not list((folder / ".spectrum" / "claims").iterdir())
    return done


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "p.txt").write_text("a red circle\na blue ring\n\na small green star\n")
    return tmp_path / "p.txt"


def test_a_batch_in_all_its_forms(spectrum, prompts, tmp_path):
    code, out, err = spectrum("batch", prompts, "-o", "out", *SMALL, "-q")
    assert (code, err) == (0, "")
    assert out == "".join(
        f"out/000{k}-{name}-0.png\n"
        for k, name in ((1, "a-red-circle"), (2, "a-blue-ring"), (3, "a-small-green-star"))
    )
    assert [line["index"] for line in whole(tmp_path / "out", 3)] == [1, 2, 3]
    code, out, err = spectrum("batch", prompts, "-o", "out", *SMALL)
    assert (code, out) == (0, "")
    assert err.startswith("0 made, 3 made before; ")
    swept = ["--seeds", "4-5", "--sweep", "speedup=1,2", "--name", "{prompt:5}-{seed}-{speedup}x"]
    code, out, err = spectrum("batch", prompts, "-o", "two", *SMALL[:-2], *swept, "--json")
    documents = [json.loads(line) for line in out.splitlines()]
    assert [document["index"] for document in documents] == list(range(1, 13))
    assert documents[1]["file"] == "two/a-red-4-2x.png"
    assert documents[1]["computed_steps"] == [0, 2]
    assert documents[0]["computed_steps"] == [0, 1, 2, 3]
    assert documents[4] | {"line": 2, "seed": 4, "prompt": "a blue ring"} == documents[4]
    assert re.search(r"a-red-4-2x.png: .* faster; 2 of 12 done, about .* left", err)
    assert "12 made; " in err


def test_what_gen_makes(spectrum, tmp_path):
    """Picture for picture, film for film, also when the models take turns."""
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "in.png")
    jobs = [
        {"prompt": "a red circle", "seed": 3},
        {"prompt": "a red circle moves left", "model": "demo-video", "frames": 5, "seed": 1},
        {"prompt": "a blue ring", "image": "in.png", "strength": 0.5, "output": "ring.webp"},
        {"prompt": "a red circle", "seed": 4, "guidance": 2, "negative_prompt": "blue"},
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    steps = ["--steps", 6, "--speedup", 1.5]
    assert spectrum("batch", "jobs.jsonl", "-o", "out", *steps, "-q")[0] == 0
    made = {line["index"]: tmp_path / "out" / line["file"] for line in manifest(tmp_path / "out")}
    assert made[3].name == "ring.webp"
    assert made[2].suffix == ".mp4"
    for index, job in enumerate(jobs, 1):
        given = [
            f"--{k.replace('_', '-')}={v}" for k, v in job.items() if k not in ("prompt", "output")
        ]
        given += [] if "seed" in job else ["--seed=0"]
        alone = tmp_path / f"alone{made[index].suffix}"
        code, _, _ = spectrum("gen", job["prompt"], *given, *steps, "-q", "--force", "-o", alone)
        assert code == 0
        ours, other = read_metadata(made[index]), read_metadata(alone)
        assert {k: v for k, v in ours.items() if k != "job"} == other
        if alone.suffix == ".png":
            assert np.array_equal(Image.open(made[index]), Image.open(alone))
    lines = manifest(tmp_path / "out")
    (tmp_path / "out" / "manifest.jsonl").unlink()  # each file says of itself what it is
    assert spectrum("batch", "jobs.jsonl", "-o", "out", *steps, "-q")[0] == 0
    assert {x["id"]: x["file"] for x in manifest(tmp_path / "out")} == {
        x["id"]: x["file"] for x in lines
    }


def test_jobs_that_share_a_call_stay_what_they_are(spectrum, tmp_path):
    """Within 120 dB in float; here, rounded to bytes, at most a pixel in a thousand by one."""
    jobs = [{"prompt": "a red circle"}, {"prompt": "a green ring above a large pink heart"}]
    jobs += [{"prompt": "x", "steps": 5}, {"prompt": "a star", "seed": 3}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    args = ["batch", "jobs.jsonl", *SMALL[:4], "--steps", 9, "--sweep", "speedup=1,2"]
    assert spectrum(*args, "-o", "alone", "-q")[0] == 0
    code, out, err = spectrum(*args, "-o", "out", "--batch-size", 3)
    assert (code, "note" in err, len(out.splitlines())) == (0, False, 8)
    alone = {line["id"]: line for line in whole(tmp_path / "alone", 8)}
    sizes = []
    for line in whole(tmp_path / "out", 8):
        other = alone[line["id"]]
        assert line["computed_steps"] == other["computed_steps"]
        assert line["file"] == other["file"]
        ours, theirs = (
            np.asarray(Image.open(tmp_path / folder / line["file"])).astype(int)
            for folder in ("out", "alone")
        )
        assert np.abs(ours - theirs).max() <= 1
        assert (ours != theirs).mean() < 1e-3
        sizes.append(read_metadata(tmp_path / "out" / line["file"])["together"])
    assert Counter(sizes) == {3: 6, 1: 2}
    _, _, err = spectrum("rerun", "out/manifest.jsonl:1", "-o", "again.png")
    assert "it was sampled with 2 more, which round otherwise" in err


def test_what_can_share_a_call(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    jobs = jobs_of(
        {"prompt": "a"}, {"prompt": "b", "seed": 3}, {"prompt": "c", "steps": 8},
        {"prompt": "d", "negative_prompt": "x", "guidance": 2}, {"prompt": "e", "guidance": 2},
        {"prompt": "f", "image": str(tmp_path / "a.png")}, {"prompt": "g", "quality": "good"},
        {"prompt": "h"}, {"prompt": "i", "model": "kandinsky-5"}, {"prompt": "j"},
    )  # fmt: skip

    def groups(size):
        return [[job.index for job in call] for call in calls(grouped(jobs), size)]

    assert groups(1) == [[k] for k in (1, 2, 3, 4, 5, 7, 8, 10, 6, 9)]
    assert groups(3) == [[1, 2, 8], [10], [3], [4, 5], [7], [6], [9]]
    reasons = [why_alone(job) for job in jobs]
    assert [k for k, reason in enumerate(reasons, 1) if reason] == [6, 7, 9]
    assert reasons[8] == "Kandinsky5T2VPipeline is not known to keep the samples of a call apart"


@pytest.mark.parametrize("cause", ["a job", "the call"])
def test_a_call_that_fails_is_made_job_by_job_and_says_so(spectrum, monkeypatch, tmp_path, cause):
    from spectrum.batch import run

    real, alone, sizes = run.generate_together, run.generate, []

    def together(pipe, requests, seeds, on_step):
        sizes.append(len(seeds))
        if cause == "the call":
            raise torch.OutOfMemoryError("no room")
        return real(pipe, requests, seeds, on_step)

    def poisoned(pipe, request, seed, on_step):
        if "blue" in request.prompt and cause == "a job":
            raise ValueError("blue")
        return alone(pipe, request, seed, on_step)

    def encoded(pipe, requests, seeds):
        if any("blue" in request.prompt for request in requests) and cause == "a job":
            raise ValueError("blue")
        return call_of(pipe, requests, seeds)

    call_of = generate_module._call_of
    monkeypatch.setattr(run, "generate_together", together)
    monkeypatch.setattr(run, "generate", poisoned)
    monkeypatch.setattr(generate_module, "_call_of", encoded)
    (tmp_path / "p.txt").write_text("a blue ring\na red ring\na star\na cross\n")
    code, _, err = spectrum("batch", "p.txt", "-o", "out", *SMALL, "--batch-size", 2)
    lines = {line["index"]: line for line in manifest(tmp_path / "out")}
    note = "made by itself, as a call for 2 jobs failed: "
    assert note in err
    assert lines[2]["notes"][0].startswith(note)
    if cause == "a job":
        assert (code, sizes) == (1, [2, 2])  # the second call comes out
        assert lines[1]["error"] == "ValueError: blue"
        assert "notes" not in lines[3]
    else:
        assert (code, sizes) == (0, [2])  # and is not tried again
        assert "out of memory" in lines[1]["notes"][0]
        whole(tmp_path / "out", 4)


def test_what_another_process_makes_is_left_out_of_a_call(tmp_path):
    store, other = Store(tmp_path), Store(tmp_path)
    jobs = jobs_of(*({"prompt": p, "steps": 4, "width": 32, "height": 32} for p in "abc"))
    pipe = load_pipeline(jobs[0].request, torch.device("cpu"))
    worker = Worker(store, lambda _: Model(pipe, torch.device("cpu")), together=3)
    claim = other.claim(jobs[1].id)
    assert [ended.job.index for ended in worker._attempt(jobs)] == [1, 3]
    claim.release()
    assert [(ended.job.index, ended.now) for ended in worker._attempt(jobs)] == [
        (1, False), (3, False), (2, True),
    ]  # fmt: skip
    whole(tmp_path, 3)


def test_wrong_usage_is_told_before_anything_is_made(spectrum, prompts, tmp_path):
    def refused(*args, told):
        code, out, err = spectrum("batch", *args)
        assert (code, out) == (2, "")
        assert told in err
        assert not (tmp_path / "out").exists()

    out = ["-o", "out"]
    refused(prompts, told="--output")
    refused("gone.txt", *out, told="gone.txt: can't be read: No such file or directory")
    refused(tmp_path, *out, told="can't be read: Is a directory")
    refused(prompts, *out, "--width", 33, told="p.txt, lines 1-2, 4: demo-image takes a width")
    refused(prompts, *out, "--sweep", "spedup=1", told="--sweep unknown key 'spedup'; did you")
    refused(prompts, *out, "--name", "{x}", told="--name has no field {x}")
    refused(prompts, *out, "--shard", "3/2", told="--shard is one of how many")
    refused(prompts, *out, "--offload", "x", told="no --offload 'x'")
    refused(prompts, *out, "--steps", 10**9, told="less than or equal to 10000")
    refused(prompts, *out, "-m", "fux", told="no model 'fux'")
    refused(prompts, *out, "--weights", tmp_path, told="no model_index.json")
    (tmp_path / "empty.txt").write_text("\n \n")
    refused("empty.txt", *out, told="empty.txt: there is no job in it")
    (tmp_path / "latin.txt").write_bytes("x\né".encode("latin-1"))
    refused("latin.txt", *out, told="latin.txt, line 2: not text in UTF-8")
    (tmp_path / "file").write_text("")
    refused(prompts, "-o", "file", told="file is a file; give a folder as --output")


def test_a_call_is_checked_before_the_model_is_loaded(spectrum, prompts, monkeypatch):
    monkeypatch.setattr("spectrum.pipeline.loading.load_pipeline", None)
    code, _, err = spectrum("batch", prompts, "-o", "out", "--set", "max_sequence=3")
    assert code == 2
    assert "p.txt, lines 1-2, 4: demo-image (FluxPipeline) takes no argument 'max_sequence'" in err


def test_a_failed_job_does_not_stop_the_others(spectrum, prompts, monkeypatch, tmp_path):
    from spectrum.batch import run

    real, calls = run.generate, []

    def bad(pipe, request, seed, on_step):
        calls.append(request.prompt)
        if "blue" not in request.prompt:
            return real(pipe, request, seed, on_step)
        poison = pipe.transformer.register_forward_hook(lambda *all_: _not_a_number(all_[-1]))
        try:
            return real(pipe, request, seed, on_step)
        finally:
            poison.remove()

    monkeypatch.setattr(run, "generate", bad)
    args = ["batch", prompts, "-o", "out", *SMALL]
    code, out, err = spectrum(*args, "-q")
    assert (code, out.count("\n")) == (1, 2)
    assert err.startswith("spectrum: line 2: the model put out values at step 0")
    (line,) = [line for line in manifest(tmp_path / "out") if line["status"] == "failed"]
    assert (line["index"], line["attempt"], "no numbers" in line["error"]) == (2, 1, True)
    assert len(calls) == 3
    code, out, err = spectrum(*args)  # what has failed stays so
    assert (code, out, len(calls)) == (1, "", 3)
    assert "0 made, 2 made before, 1 failed (--retry-failed tries them again)" in err
    assert spectrum(*args, "-q", "--retry-failed")[0] == 1
    assert manifest(tmp_path / "out")[-1]["attempt"] == 2
    monkeypatch.setattr(run, "generate", real)
    code, out, _ = spectrum(*args, "-q", "--retry-failed")
    assert (code, out) == (0, "out/0002-a-blue-ring-0.png\n")
    assert [line["attempt"] for line in manifest(tmp_path / "out")][-1] == 3
    assert len({line["id"] for line in whole(tmp_path / "out", 3)}) == 3


def _not_a_number(output):
    return (output[0] * float("nan"), *output[1:])


@pytest.mark.parametrize("where", ["encode", "manifest"])
def test_a_full_disk_stops_and_the_same_command_goes_on(
    spectrum, prompts, monkeypatch, tmp_path, where
):
    from spectrum.batch import manifest as manifest_module
    from spectrum.batch import run

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    args = ["batch", prompts, "-o", "out", *SMALL, "-q"]
    with monkeypatch.context() as patch:
        if where == "encode":
            patch.setattr(run, "encode", full)
        else:
            patch.setattr(manifest_module.Manifest, "append", full)
        code, out, err = spectrum(*args)
    assert (code, out) == (1, "")
    told = "No space left on device; mend that, and the same command goes on"
    assert err == f"spectrum: out: {told}\n"
    assert spectrum(*args)[0] == 0  # and nothing that was made is made again
    assert [line["attempt"] for line in whole(tmp_path / "out", 3)] == [1, 1, 1]


def test_a_model_that_can_not_be_loaded_fails_its_jobs_this_time(spectrum, tmp_path, monkeypatch):
    from spectrum.errors import SpectrumError
    from spectrum.pipeline import loading

    real = loading.load_pipeline

    def load(request, *args):
        if request.preset.name == "demo-video":
            raise SpectrumError("no weights")
        return real(request, *args)

    jobs = ["{prompt: a, model: demo-video}", "{prompt: b, model: demo-video}", "a red circle"]
    (tmp_path / "jobs.yaml").write_text("steps: 4\n" + "jobs:\n- " + "\n- ".join(jobs))
    monkeypatch.setattr(loading, "load_pipeline", load)
    code, out, err = spectrum("batch", "jobs.yaml", "-o", "out", "--json", "-q", "-s", 2)
    assert code == 1
    assert err == "spectrum: line 3: no weights\nspectrum: line 4: no weights\n"
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["failed", "failed", "done"]
    assert [line["status"] for line in manifest(tmp_path / "out")] == ["done"]  # not for ever


# -- processes -----------------------------------------------------------------------------------

COUNT = 8


@pytest.fixture
def many(tmp_path):
    (tmp_path / "p.txt").write_text("a red circle\n" * COUNT)
    return ["batch", "p.txt", "-o", "out", *SMALL]


def test_killed_at_any_moment_it_goes_on(many, tmp_path):
    out = tmp_path / "out"
    chance = random.Random(1)
    kills = 0
    for k in range(12):
        command = Command(tmp_path, *many, "-q")
        if k % 2:  # while a job is under way, or is just being put in its place
            command.wait_for(lambda: list(out.glob(".*.partial")))
        else:
            done = len(list(out.glob("*.png")))
            command.wait_for(lambda done=done: len(list(out.glob("*.png"))) > done)
            time.sleep(chance.random() * 0.05)
        command.send()
        kills += command.wait() == -signal.SIGKILL
        assert command.err == ""
    command = Command(tmp_path, *many, "-q")
    assert command.wait() == 0
    assert kills >= 4
    assert [line["attempt"] for line in whole(out, COUNT)] == [1] * COUNT


def test_two_at_once_make_nothing_twice(many, tmp_path):
    commands = [Command(tmp_path, *many) for _ in range(3)]
    assert [command.wait() for command in commands] == [0, 0, 0]
    whole(tmp_path / "out", COUNT)
    printed = [line for command in commands for line in command.out.splitlines()]
    assert len(printed) == len(set(printed)) == COUNT  # each path once, by who made it
    assert all(
        f"{COUNT} of {COUNT} done" in c.err or "made by other processes" in c.err for c in commands
    )


def test_the_living_take_over_from_the_dead(many, tmp_path):
    """While they wait, without being started again."""
    first = Command(tmp_path, *but(many, "--steps", 400))
    first.wait_for(lambda: list((tmp_path / "out" / ".spectrum" / "claims").glob("*.1")))
    first.send(signal.SIGSTOP)
    second = Command(tmp_path, *but(many, "--steps", 400), "--shard", "1/8")
    second.wait_for(lambda: "waiting for 1" in second.err)
    assert second.is_alive
    first.send()
    assert second.wait() == 0
    assert first.wait() == -signal.SIGKILL
    whole(tmp_path / "out", 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_drops_the_job_and_says_how_to_go_on(many, tmp_path, number, code):
    command = Command(tmp_path, *but(many, "--steps", 300))
    command.wait_for(lambda: command.out.count("\n") >= 1)
    time.sleep(0.2)
    command.send(number)
    assert command.wait() == code
    told = command.err.splitlines()[-1]
    made = command.out.count("\n")
    assert told.startswith(
        f"spectrum: interrupted; the job under way was dropped, {made} of 8 done"
    )
    shown = " ".join(map(str, but(many, "--steps", 300)))
    assert told.endswith(f"; to go on: spectrum {shown}")
    whole(tmp_path / "out", made)


def test_a_stream_is_answered_as_it_comes(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = Command(tmp_path, "batch", "-", "-o", "out", *SMALL, source=pipe)
    with pipe.open("w") as stream:

        def ask(line, answers):
            print(line, file=stream, flush=True)
            command.wait_for(lambda: (command.out + command.err).count(".png\n") >= answers)
            return command.out.splitlines()

        assert ask("a red circle", 1) == ["out/0001-a-red-circle-0.png"]
        assert (tmp_path / "out" / "0001-a-red-circle-0.png").exists()
        assert command.is_alive
        ask("\n{oops", 0)
        assert ask('{"prompt": "a blue ring", "seed": 5}', 2)[1:] == ["out/0002-a-blue-ring-5.png"]
        ask('{"prompt": "x", "width": 33}', 0)
        # what is there already is told again, and only what is new is made
        assert ask('{"prompt": "a blue ring", "seed": 5}', 3)[2:] == ["out/0002-a-blue-ring-5.png"]
        assert ask("a red circle", 4)[3:] == ["out/0003-a-red-circle-1.png"]
        assert command.is_alive
    assert command.wait() == 1  # two lines were no jobs
    assert "spectrum: line 3: not JSON" in command.err
    assert "spectrum: line 5: demo-image takes a width" in command.err
    assert "3 made, 1 made before, 2 lines were no jobs" in command.err
    whole(tmp_path / "out", 3)


def test_a_stream_that_begins_like_a_file_is_one(tmp_path):
    (tmp_path / "p.csv").write_text("\nprompt,seed\na red circle,3\n,\n")
    command = Command(
        tmp_path, "batch", "-", "-o", "out", *SMALL, "--shard", "1/2", source=tmp_path / "p.csv"
    )
    assert command.wait() == 0
    assert command.out == "out/0001-a-red-circle-3.png\n"
    command = Command(tmp_path, "batch", "-", "-o", "out", "--shard", "1/2")
    assert command.wait() == 2
    assert "--shard is for a file" in command.err
    command = Command(tmp_path, "batch", "-", "-o", "out", "--batch-size", "2")
    assert command.wait() == 2
    assert "--batch-size is for a file" in command.err
