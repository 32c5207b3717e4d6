"""Ray, begun for one batch, or joined; kept quiet, and kept from this process's signals."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.files import SIGNALS, uninterrupted
from spectrum.words import counted

_PATIENCE = 5.0  # seconds for a cluster to answer
_STORE = 2**27  # bytes that Ray sets aside for objects; jobs and records are small


@dataclass(frozen=True)
class Devices:
    """What to work on: so many GPUs, or cores if not `gpus`; of a cluster that `address` names
    (`auto` is the one that this machine belongs to), or of this machine. No count: all there are.
    """

    count: int | None
    gpus: bool = True
    address: str | None = None


def import_ray() -> Any:
    """Ray itself. Raises UsageError that says how to install it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What it would print of a worker's death, to standard output at that, is told by the batch.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError:
        raise UsageError(
            "several devices need Ray, which is not installed:"
            " `pip install 'spectrum-diffusion[ray]'`"
        ) from None
    return ray


@contextmanager
def session(devices: Devices) -> Iterator[tuple[Any, int]]:
    """Ray, and how many workers to start. A Ray that this process uses already is used as it is;
    one that is begun here ends here.

    Raises UsageError for devices that are not there, SpectrumError for a cluster that is not.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray, _count(ray, devices)
        return
    try:
        with _own_signals():
            _begin(ray, devices)
        yield ray, _count(ray, devices)
    finally:
        with uninterrupted():
            ray.shutdown()


def _begin(ray: Any, devices: Devices) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if devices.address is None:
        cores = max(devices.count or 1, os.cpu_count() or 1)
        local = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE}
        try:
            ray.init("local", **local, **quiet)
        except Exception as error:  # of no class of its own
            raise SpectrumError(f"Ray can't be started here: {_line(error)}") from error
        return
    host, _, port = devices.address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdecimal():  # Ray would try for minutes
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        ray.init(devices.address, **quiet)
    except Exception as error:
        told = f"`ray` {devices.address}: no cluster can be joined: {_line(error)}"
        raise SpectrumError(told) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _count(ray: Any, devices: Devices) -> int:
    """How many workers. Raises UsageError where there are not as many devices."""
    have = int(ray.cluster_resources().get("GPU" if devices.gpus else "CPU", 0))
    where = f"the cluster {devices.address}" if devices.address else "this machine"
    if not have and devices.gpus:
        raise UsageError(f"{where} has no GPU that Ray sees; `workers` takes cores instead")
    if (devices.count or 0) > have:
        has = counted(have, "GPU" if devices.gpus else "core")
        raise UsageError(f"{where} has {has}, not {devices.count}")
    return devices.count or have


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes over SIGTERM; it is given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
