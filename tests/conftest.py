import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the hub
os.environ.pop("FORCE_COLOR", None)

import pytest
import torch

torch.set_num_threads(1)  # two threads on a busy machine can be a hundred times slower


@pytest.fixture(scope="session")
def flux():
    from tiny import tiny_flux

    return tiny_flux()


@pytest.fixture(scope="session")
def wan():
    from tiny import tiny_wan

    return tiny_wan()
