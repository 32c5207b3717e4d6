"""From a model's name to its pipeline on the machine, loaded once for all that a command does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spectrum_cli.flags import with_flags
from spectrum_cli.noise import hush, silence
from spectrum_cli.output import human_bytes, say

if TYPE_CHECKING:
    import torch

    from spectrum.pipeline.fit import Expectation
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.preset import Preset
    from spectrum.pipeline.request import Request


def find_model(name: str, quiet: bool = False) -> Preset:
    """The preset of that name; for a folder or a hub id, one that its pipeline's class gives."""
    from spectrum.pipeline.catalog import find_preset, preset_paths, shadows

    by_name = name in preset_paths()
    hush()  # a name may be one of the hub, which is asked for what it is

    def asking() -> None:
        if not quiet:
            say(f"asking the hub what {name} is", style="dim")

    preset = find_preset(name, asking)
    if by_name and shadows(preset) and not quiet:
        say(f"note: {preset.path} is used in the place of the package's own {name}")
    return preset


@dataclass
class Loaded:
    """A request's pipeline and its device, found when they are first asked for.

    `seconds` is what loading took, imports included. Unless `quiet`, what a large model will take
    in memory is said beforehand.
    """

    request: Request
    device_name: str
    options: Options
    quiet: bool = False
    seconds: float = 0.0
    largest: Request | None = None  # of several with this pipeline, what takes the most memory

    def __post_init__(self) -> None:
        """Raises UsageError for what can be told without torch."""
        from spectrum.pipeline.beforehand import check

        check(self.request, self.device_name, self.options)

    @property
    def is_loaded(self) -> bool:
        return "pipe" in self.__dict__

    @cached_property
    def device(self) -> torch.device:
        """Raises UsageError for one that this machine doesn't have."""
        hush()  # torch looks for drivers
        from spectrum.pipeline.loading import choose_device

        return choose_device(self.device_name)

    @cached_property
    def pipe(self) -> Any:
        """Raises UsageError for what the pipeline can't take, SpectrumError if it can't be had."""
        began = time.perf_counter()
        hush()
        from spectrum.pipeline.weights import check_reachable

        check_reachable(self.request.preset, self.options.weights)
        request, device = self.request, self.device  # before what takes longer to import
        silence(self.quiet, request.preset.name)
        from spectrum.pipeline.fit import expect
        from spectrum.pipeline.loading import load_pipeline

        if not self.quiet:
            _say_memory(expect(self.largest or request, device, self.options))
        pipe = load_pipeline(request, device, self.options)
        self.seconds = time.perf_counter() - began
        return pipe


def _say_memory(expected: Expectation) -> None:
    if sum(expected.weights.values()) + expected.history > 2**30:
        weights = human_bytes(sum(expected.weights.values()))
        history, there = human_bytes(expected.history), ""
        if expected.history and expected.place == "host":
            there = " in host memory"
        say(f"memory: weights {weights}, history {history}{there}, and activations")
    if not expected.fits:
        say(
            f"warning: {human_bytes(expected.on_device)} on a device that has"
            f" {human_bytes(expected.available)} free; {with_flags(expected.advice())}"
        )
