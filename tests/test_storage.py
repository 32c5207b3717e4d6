"""Where features are kept makes no difference to what is made of them."""

import pytest
import torch

from spectrum import SpectralCache
from spectrum.errors import UsageError
from spectrum.history import FeatureHistory
from spectrum.parallel import own_norm
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


def test_what_is_stored_moves_along():
    storage = Storage("host")
    moved = storage.placed([torch.ones(2), torch.zeros(2)])
    assert [feature.device.type for feature in moved] == ["cpu", "cpu"]


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
