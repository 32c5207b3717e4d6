"""The command in processes of its own that start at once: they are forked from one that has
imported everything. For kills, races, signals and pipes."""

import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it says while it is imported
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "spectrum.batch.run",
        "spectrum_cli.batch_display",
        "spectrum_cli.main",
        "peft",
        "diffusers.pipelines.flux.pipeline_flux",
        "transformers.models.auto.modeling_auto",
        "transformers.models.clip.tokenization_clip",
        "transformers.models.t5.tokenization_t5",
        "torch._dynamo",
        "PIL.PngImagePlugin",
    ]
)


def heed_signals():
    """A suite in the background (nohup) ignores some, and children inherit that."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def _main(args, folder, out, err, source):
    import torch

    torch.set_num_threads(1)
    heed_signals()
    os.chdir(folder)
    os.dup2(os.open(source, os.O_RDONLY), 0)  # waits for the other end of a pipe
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["spectrum", *map(str, args)]
    from spectrum_cli.__main__ import main

    main()


class Command:
    """`spectrum ARGS` in a folder, begun; its words are kept in files beside the folder."""

    count = 0

    def __init__(self, folder, *args, source=os.devnull):
        Command.count += 1
        stem = Path(folder).parent / f"{Path(folder).name}.{Command.count}"
        self._out, self._err = Path(f"{stem}.out"), Path(f"{stem}.err")
        given = (args, str(folder), str(self._out), str(self._err), str(source))
        self._process = _SERVER.Process(target=_main, args=given)
        self._process.start()

    def send(self, number=signal.SIGKILL):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(self._process.pid, number)

    def wait(self, timeout=120):
        """The exit code; minus the signal's number for one that was killed."""
        self._process.join(timeout)
        assert self._process.exitcode is not None
        return self._process.exitcode

    @property
    def is_alive(self):
        return self._process.is_alive()

    @property
    def out(self):
        return self._out.read_text() if self._out.exists() else ""

    @property
    def err(self):
        return self._err.read_text() if self._err.exists() else ""

    def wait_for(self, there, timeout=60):
        """Until `there()` is true, or the process has ended."""
        until = time.monotonic() + timeout
        while not there() and self.is_alive and time.monotonic() < until:
            time.sleep(0.005)
        assert time.monotonic() < until
