"""Where features are kept makes no difference to what is made of them."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_flux

from spectrum import SpectralCache
from spectrum.errors import UsageError
from spectrum.history import FeatureHistory
from spectrum.parallel import own_norm
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.fit import Expectation, expect
from spectrum.pipeline.generate import generate
from spectrum.pipeline.loading import Options
from spectrum.pipeline.request import resolve
from spectrum.storage import Storage


@pytest.fixture
def full_device(monkeypatch):
    """A feature on a device, played by "meta", whose memory is full from the second on."""
    given = []
    empty, feature = torch.empty, torch.ones(3, device="meta")

    def limited(*shape, device=None, pin_memory=False, **rest):
        assert not pin_memory  # "meta" has no CUDA to pin it for
        if device is not None and device.type == "meta":
            if given:
                raise torch.OutOfMemoryError("full")
            given.append(device)
        return empty(*shape, device=device, **rest)

    monkeypatch.setattr(torch, "empty", limited)
    return feature


def test_a_full_device_turns_to_the_host(full_device):
    storage, feature = Storage("auto"), full_device
    assert storage.room(feature, torch.float32).device.type == "meta"
    assert storage.room(feature, torch.float32).device.type == "cpu"
    assert storage.on_host
    assert storage.room(feature, torch.float32).device.type == "cpu"


def test_a_full_device_is_an_error_where_nothing_may_move(full_device):
    storage = Storage("device")
    storage.room(full_device, torch.float32)
    with pytest.raises(torch.OutOfMemoryError):
        storage.room(full_device, torch.float32)


class OnDevice(torch.Tensor):
    """A tensor that says of itself to be on a device with memory of its own."""

    device = torch.device("meta")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_what_is_stored_moves_along_with_the_room_that_is_used_again():
    """A full device is found at some feature; the next append takes all to the host."""
    storage = Storage("auto")
    history = FeatureHistory(2, torch.float32, storage, own_norm)
    for step in range(2):
        history.append(step, torch.full((3,), float(step)))
    history._features = [one.as_subclass(OnDevice) for one in history._features]
    assert storage.placed(history._features) is history._features
    storage.on_host = True
    history.append(2, torch.full((3,), 2.0))
    assert [type(one) for one in history._features] == [torch.Tensor] * 2
    assert history.steps == [1, 2]
    assert history.forecast([1.0, 0.0]).tolist() == [1, 1, 1]
    assert history.forecast([0.0, 1.0]).tolist() == [2, 2, 2]


def test_a_feature_is_narrowed_before_it_is_copied():
    history = FeatureHistory(2, torch.bfloat16, Storage("host"), own_norm)
    history.append(0, torch.tensor([1.0, 257.0]))
    assert history.nbytes == 4
    assert history.forecast([1.0]).tolist() == [1.0, 256.0]


def test_no_such_place():
    with pytest.raises(UsageError, match="no history 'disk'"):
        Storage("disk")


def test_host_and_device_make_the_same_picture(flux):
    def made(place):
        with SpectralCache(flux, 2.0, method="published", history=place) as cache:
            latents = flux(
                "a", num_inference_steps=12, output_type="latent",
                generator=torch.Generator().manual_seed(0),
            ).images  # fmt: skip
        assert cache.report.stored_bytes > 0
        return latents

    assert torch.equal(made("host"), made("device"))


@pytest.mark.parametrize("place", ["device", "host"])
def test_the_place_that_is_asked_for_reaches_the_cache(monkeypatch, place):
    made = []
    monkeypatch.setattr("spectrum.engine.Storage", lambda at: made.append(at) or Storage(at))
    request = resolve(find_preset("flux.1-dev"), "x", method="published", history=place, steps=8)
    sized = replace(request, width=16, height=16, guidance=1.0)
    generate(tiny_flux(), sized, 0)
    assert made == [place]


def test_what_is_kept_on_the_host_takes_no_room_on_the_device():
    preset = find_preset("flux.1-dev")
    kept = {}
    for place in ("device", "host"):
        request = resolve(preset, "x", method="published", history=place)
        kept[place] = expect(request, torch.device("cpu"), Options())
    history = kept["device"].history
    assert history > 2**27
    assert kept["host"].history == history
    assert kept["device"].on_device - kept["host"].on_device == history


def test_the_host_is_what_makes_a_large_history_fit():
    room = Expectation({"transformer": 20}, 10, 25, 30, "cuda")
    assert room.advice() == "`history` host would fit"
    assert replace(room, on_device=20, place="host").fits
    larger = replace(room, weights={"transformer": 200}, on_device=210, history=30)
    assert "`history` host" in larger.advice()
