"""Where the hub is silent, refuses, or isn't there: told within seconds, and what is here loads."""

import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import numpy as np
import pytest
from huggingface_hub import constants, hf_api
from PIL import Image
from test_cli import FLUX, refused

from spectrum.pipeline import weights
from spectrum.pipeline.discover import discover

SMALL = ["--steps", 4, "--speedup", 1, "--dtype", "float32", "--seed", 1, "--quiet"]


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    """Have the hub be at another address, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_PATIENCE", 0.3)

    def at(url):
        files = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + files)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(hf_api.api, "endpoint", url)

    return at


@pytest.fixture
def silent(endpoint):
    """It takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint(f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.fixture
def absent(endpoint):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    endpoint(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("hub", ["silent", "absent"])
def test_a_hub_that_is_out_of_reach_is_told_at_once(spectrum, request, monkeypatch, hub):
    request.getfixturevalue(hub)
    monkeypatch.setattr("spectrum.pipeline.loading.choose_device", lambda _: 1 / 0)  # comes later
    began = time.monotonic()
    for model in ("flux.1-dev", "some/pipeline"):
        told = spectrum("gen", "-m", model, "x")
        refused(told, "the hub can't be reached", "run `hf download", code=1)
    assert "accept its licence" in spectrum("gen", "-m", "flux.1-dev", "x")[2]
    assert time.monotonic() - began < 10


def test_a_refusal_is_an_answer(endpoint):
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        log_message = staticmethod(lambda *_: None)

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint(f"http://127.0.0.1:{server.server_port}")
        assert weights.hub_answers("some/pipeline")
        server.shutdown()


def test_a_model_of_the_hub_is_planned_by_its_scheduler(endpoint):
    """The index alone doesn't say whether the noise is predicted, which decides S."""
    files = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler"},
    }

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.wfile.write(self.answer())

        def answer(self):
            name = self.path.partition("/resolve/main/")[2]
            body = json.dumps(files.get(name, {"id": "some/diffusion"})).encode()
            self.send_response(200 if name in files or "/api/" in self.path else 404)
            for header, value in {
                "ETag": f'"{len(body)}-{name[:5]}"', "X-Repo-Commit": "0" * 40,
                "Content-Length": str(len(body)),
            }.items():  # fmt: skip
                self.send_header(header, value)
            self.end_headers()
            return body

        log_message = staticmethod(lambda *_: None)

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint(f"http://127.0.0.1:{server.server_port}")
        assert discover("some/diffusion").predicts_noise is True
        del files["scheduler/scheduler_config.json"]
        assert discover("some/other").predicts_noise is None
        server.shutdown()


def test_weights_in_the_cache_load_without_the_hub(spectrum, silent, folders, tmp_path):
    model = tmp_path / "cache" / "models--black-forest-labs--FLUX.1-dev"
    (model / "snapshots").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    os.symlink(folders / "flux", model / "snapshots" / ("0" * 40))
    assert spectrum("gen", *FLUX, *SMALL, "-o", "a.png", "x") == (0, "a.png\n", "")
    assert spectrum("gen", *FLUX, *SMALL, "--weights", folders / "flux", "-o", "b.png", "x")[0] == 0
    assert np.array_equal(Image.open("a.png"), Image.open("b.png"))


def test_a_lora_of_a_silent_hub(spectrum, silent, folders):
    small = [*FLUX, *SMALL, "--weights", folders / "flux"]
    told = spectrum("gen", *small, "--lora", "some/lora", "x")
    refused(told, "--lora some/lora: not on this", "hf download some/lora", code=1)
