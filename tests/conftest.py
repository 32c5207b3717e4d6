import os
import shutil
import signal
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the hub
os.environ.pop("FORCE_COLOR", None)

import pytest
import torch

# Nor heed what whoever runs the tests prefers, in this process or in those that it starts.
for name in [name for name in os.environ if name.startswith("SPECTRUM_")]:
    del os.environ[name]
CONFIG = os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="spectrum-tests-")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # two threads on a busy machine can be a hundred times slower


def pytest_unconfigure():
    shutil.rmtree(CONFIG, ignore_errors=True)


@pytest.fixture(scope="session")
def flux():
    from tiny import tiny_flux

    return tiny_flux()


@pytest.fixture(scope="session")
def wan():
    from tiny import tiny_wan

    return tiny_wan()


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Tiny pipelines as `save_pretrained` writes them: flux/ and wan/; not to be written to."""
    from tiny import tiny_flux, tiny_wan

    root = tmp_path_factory.mktemp("weights")
    tiny_flux().save_pretrained(root / "flux")
    tiny_wan().save_pretrained(root / "wan")
    return root


@pytest.fixture
def spectrum(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    from spectrum_cli.main import run

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["spectrum", *map(str, args)])
        try:
            code = run()
        except SystemExit as leave:
            code = leave.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call
