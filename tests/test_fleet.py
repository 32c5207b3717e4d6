"""`spectrum batch --workers`: workers of a local Ray, and what becomes of jobs when they die."""

import gc
import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import light
import numpy as np
import pytest
from commands import Command
from PIL import Image
from rich.console import Console
from test_batch_command import jobs_of, manifest, whole

from spectrum.batch.claims import Claims
from spectrum.batch.fleet import Fleet, _Queue
from spectrum.batch.hand import Hand
from spectrum.batch.jobs import grouped
from spectrum.batch.ray_session import Devices, import_ray
from spectrum.batch.store import FolderError, Store
from spectrum.batch.watch import Watch
from spectrum.errors import SpectrumError, UsageError
from spectrum.report import Report, Step
from spectrum_cli import batch_display
from spectrum_cli.batch_source import Stream

try:
    import_ray()
except UsageError as problem:
    pytest.skip(f"{problem}", allow_module_level=True)

TWO = Devices(2, gpus=False)


@pytest.fixture(scope="module")
def ray():
    """One Ray for all tests of this process, as a program may have one."""
    ray = import_ray()
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(light.__file__).parent), prepend=os.pathsep)
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        except Exception as error:  # it has 30 seconds to start
            end(ray, handler)
            pytest.fail(f"Ray doesn't start: {error}")
    yield ray
    end(ray, handler)


def end(ray, handler):
    with warnings.catch_warnings():  # it doesn't wait for its processes
        warnings.simplefilter("ignore", ResourceWarning)
        ray.shutdown()
        gc.collect()
    signal.signal(signal.SIGTERM, handler)


def left_over(folder):
    """What nobody is to leave behind."""
    return [*folder.glob(".*.partial"), *(folder / ".spectrum" / "claims").iterdir()]


def claimed(folder):
    claims = folder / ".spectrum" / "claims"
    return sorted(claims.glob("*.*[0-9]")) if claims.exists() else []


# -- as it is used -------------------------------------------------------------------------------


def test_two_workers_make_what_one_process_makes_though_one_is_killed(spectrum, tmp_path):
    """The same pixels, bitwise; the job of the killed one is made by the other."""
    prompts = [f"a {colour} circle" for colour in ("red", "blue", "green", "pink", "white")]
    (tmp_path / "p.txt").write_text("\n".join(prompts))
    args = ["batch", "p.txt", "--width", 32, "--height", 32, "--steps", 60, "--speedup", 2]
    command = Command(tmp_path, *args, "-o", "out", "--workers", 2)
    out, killed = tmp_path / "out", 0
    while command.is_alive and not killed:
        time.sleep(0.05)
        for path in claimed(out):
            time.sleep(0.1)  # so that it is at work
            if path.exists():
                killed = json.loads(path.read_text())["pid"]
                os.kill(killed, signal.SIGKILL)
                break
    assert command.wait(300) == 0, command.err
    assert command.err.count("the process that was making it died") == 1
    assert len(command.out.splitlines()) == 5  # paths, and nothing that Ray says
    lines = whole(out, 5)
    assert [line["attempt"] for line in lines] == [1] * 5
    assert left_over(out) == []
    assert spectrum(*args, "-o", "alone", "-q")[0] == 0
    for line in lines:
        ours, alone = (Image.open(tmp_path / folder / line["file"]) for folder in ("out", "alone"))
        assert np.array_equal(ours, alone)


def test_wrong_usage(spectrum, tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("a red circle\n")

    def refused(*args, told):
        code, out, err = spectrum("batch", "p.txt", "-o", "out", *args)
        assert (code, out) == (2, "")
        assert err.startswith(f"spectrum: {told}")
        assert not (tmp_path / "out").exists()

    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    refused("--gpus", 2, told="--gpus 2: torch sees 0 here; --workers takes cores instead")
    refused("--gpus", 1, "--workers", 1, told="--gpus or --workers, not both")
    refused("--gpus", 1, "--device", "cpu", told="--device cpu: --gpus and --ray choose the GPUs")
    refused("--workers", 1, "--device", "cuda", told="--device cuda: --workers are of CPU cores")
    monkeypatch.setattr("spectrum_cli.batch.read", lambda _: Stream(iter(())))
    code, _, err = spectrum("batch", "-", "-o", "out", "--workers", 2)
    assert (code, "--gpus, --workers or --ray is for a file" in err) == (2, True)
    monkeypatch.setitem(sys.modules, "ray", None)
    refused("--workers", 2, told="several devices need Ray, which is not installed: `pip install")


def test_a_cluster_that_is_not_there(spectrum, tmp_path, monkeypatch):
    """Ray itself would look for it for minutes, and is not asked."""
    monkeypatch.setattr("ray.init", None)
    (tmp_path / "p.txt").write_text("a red circle\n")
    code, _, err = spectrum("batch", "p.txt", "-o", "out", "--ray", "127.0.0.1:1")
    assert code == 1
    told = err.splitlines()[-1]
    assert told.startswith("spectrum: --ray 127.0.0.1:1: no cluster can be joined: ")


# -- what becomes of jobs ------------------------------------------------------------------------


def test_who_kills_its_worker_twice_is_set_aside(ray, spectrum, tmp_path, monkeypatch):
    monkeypatch.setattr("spectrum_cli.batch._begin", light.begin)
    prompts = ["deadly", "a", "done and dead", "broken device", "b"]
    (tmp_path / "p.txt").write_text("\n".join(prompts))
    code, out, err = spectrum("batch", "p.txt", "-o", "out", "--workers", 2, "--json")
    assert code == 1
    told = [json.loads(line) for line in out.splitlines()]
    assert {line["prompt"]: line["status"] for line in told} == {
        "deadly": "failed", "a": "done", "done and dead": "done", "broken device": "failed",
        "b": "done",
    }  # fmt: skip
    assert told[-1]["prompt"] == "deadly"  # tried again when all others had been
    assert "died, 2 times" in told[-1]["error"]
    assert err.count("line 1: the process that was making it died\n") == 2
    lines = manifest(tmp_path / "out")
    assert len({line["id"] for line in lines}) == len(lines) == 5
    assert sorted(path.read_text() for path in (tmp_path / "out").glob("*.png")) == [
        "a", "b", "done and dead",
    ]  # fmt: skip
    assert left_over(tmp_path / "out") == []


def test_an_interrupt_drops_all_that_is_under_way(ray, spectrum, tmp_path, monkeypatch):
    monkeypatch.setattr("spectrum_cli.batch._begin", light.begin)
    (tmp_path / "p.txt").write_text("slow\nslow too\nb\n")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup
    out = tmp_path / "out"

    def interrupt():
        while len(list(out.glob(".*.partial"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        code, printed, err = spectrum("batch", "p.txt", "-o", "out", "--workers", 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, printed) == (130, "")
    told = "spectrum: interrupted; the jobs under way were dropped, 0 of 3 done; to go on: spectrum"
    assert err.splitlines()[-1] == f"{told} batch p.txt -o out --workers 2"
    assert left_over(out) == []
    assert list(out.glob("*.png")) == []


class Told(Watch):
    """Lets a job go that another process has, when that is waited for."""

    def __init__(self, claim):
        self.claim = claim

    def waiting(self, count):
        self.claim.release()


def test_others_may_share_the_folder(ray, tmp_path):
    jobs = jobs_of({"prompt": "a"}, {"prompt": "b"})
    store = Store(tmp_path / "out")
    claim = Claims(store.claims.folder).take(jobs[0].id)
    ended = list(Fleet(store, light.Light, TWO, watch=Told(claim)).run(jobs))
    assert [one.job.request.prompt for one in ended] == ["b", "a"]
    assert all(one.now and one.record.status == "done" for one in ended)
    assert not any(one.now for one in Fleet(store, light.Light, TWO).run(jobs))


def test_what_is_wrong_with_the_folder_or_the_devices_ends_it(ray, tmp_path):
    jobs = jobs_of({"prompt": "full"}, {"prompt": "b"})
    store = Store(tmp_path / "out")
    with pytest.raises(FolderError, match="No space left on device"):
        list(Fleet(store, light.Light, Devices(1, False)).run(jobs))
    assert left_over(tmp_path / "out") == []
    with pytest.raises(UsageError, match="no device here"):
        list(Fleet(store, light.nowhere, TWO).run(jobs))
    with pytest.raises(UsageError, match="this machine has no GPU that Ray sees"):
        list(Fleet(store, light.Light, Devices(1)).run(jobs))
    with pytest.raises(UsageError, match="the cluster auto has 2 cores, not 3"):
        list(Fleet(store, light.Light, Devices(3, False, "auto")).run(jobs))
    unshared = Store(tmp_path / "other")
    unshared.folder = Path(tmp_path / "elsewhere")
    with pytest.raises(SpectrumError, match=r"doesn't see .*elsewhere; use a folder"):
        list(Fleet(unshared, light.Light, Devices(1, False)).run(jobs))


def test_an_actor_goes_on_with_its_model():
    models = ("demo-image", "demo-video", "demo-image", "demo-video", "demo-image")
    jobs = jobs_of(*[{"prompt": str(k), "model": model} for k, model in enumerate(models)])
    queue, first, second = _Queue(grouped(jobs)), None, None
    given = []
    while queue:
        one = queue.next(first, (first, second))
        given.append([one.request.prompt])
        first = one.model
        if queue:
            other = queue.next(second, (first, second))
            given[-1].append(other.request.prompt)
            second = other.model
    assert given == [["0", "1"], ["2", "3"], ["4"]]


# -- what is seen of them ------------------------------------------------------------------------


class Late:
    """A device's time of a step, asked for in another thread."""

    seconds = 0.5


def test_how_far_the_workers_are_is_seen(tmp_path, monkeypatch):
    lines = io.StringIO()
    terminal = Console(file=lines, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(batch_display, "console", lambda: terminal)
    monkeypatch.setattr("spectrum_cli.output.console", lambda: terminal)
    jobs = jobs_of({"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"})
    display = batch_display.Display(tmp_path, jobs, quiet=False, as_json=False)
    hand = Hand(str(tmp_path), light.Light, False, str(tmp_path))
    report = Report(4, [0, 3])
    with display:
        for job in jobs[:2]:
            display.begin(job)
        hand._watch.begin(jobs[0])
        hand._watch.stage("encode")
        display.seen(jobs[0], hand.look())
        report.steps.append(Step(0, True, Late()))
        hand._watch.on_step(report, None)
        look = hand.look()
        report.steps.append(Step(1, False, Late()))
        assert (look.stage, [step.took for step in look.report.steps]) == ("denoise", [0.5])
        display.seen(jobs[0], look)
        terminal.print(display)
        shown = lines.getvalue().splitlines()
        assert "0 of 3 done" in shown
        assert "demo-image  b  seed 0" in shown
        assert any(line.startswith("●···") or line.startswith("#...") for line in shown)
        display.lost(jobs[1], died=True)
        assert "line 2: the process that was making it died" in lines.getvalue()
        lines.truncate(0)
        terminal.print(display)
        assert "demo-image  b  seed 0" not in lines.getvalue()
        assert "denoise 0" in lines.getvalue()  # alone, all is told of it
