"""Whether the samples that a scheduler hands out come back to it as they were."""

from __future__ import annotations

import torch


class Handed:
    """The newest sample that a scheduler has handed out.

    Told by the tensor's identity and version, which needs no look at its numbers. Some pipelines
    hand on a new tensor after every step (inpainting, packed latents): then nothing can be told,
    and the first step shows it.
    """

    def __init__(self) -> None:
        self._sample: torch.Tensor | None = None
        self._version = 0
        self._comes_back: bool | None = None  # None: not known yet

    def out(self, sample: torch.Tensor) -> None:
        """The scheduler has put out this sample."""
        self._sample, self._version = sample, _version(sample)

    def back(self, sample: torch.Tensor) -> torch.Tensor | None:
        """By how much somebody has changed the sample that is given to the scheduler, a callback
        most likely: 0 where it was changed in place, None where it was not changed, or is of
        another shape, as where a pipeline goes on with some of the frames (ChronoEdit)."""
        handed = self._sample
        if handed is None:
            return None
        same = sample is handed and _version(sample) == self._version
        if self._comes_back is None:
            self._comes_back = same
        if same or not self._comes_back or sample.shape != handed.shape:
            return None
        return sample - handed


def _version(sample: torch.Tensor) -> int:
    """Raised by every operation in place; inference tensors have none."""
    return 0 if sample.is_inference() else sample._version
