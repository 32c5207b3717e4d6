"""Where computed features are kept: on their own device, or in host memory where that is short."""

from __future__ import annotations

from typing import get_args

import torch

from spectrum.errors import UsageError
from spectrum.methods import HistoryPlace


class Storage:
    """Memory for the features of a cache's runs.

    On the host it is pinned where there is CUDA: copies run on a stream of their own, beside the
    computed step that comes next. Raises UsageError for a place that there is not.
    """

    def __init__(self, place: HistoryPlace = "auto") -> None:
        if place not in get_args(HistoryPlace):
            raise UsageError(f"no history {place!r}; there are 'auto', 'device' and 'host'")
        self.on_host = place == "host"
        self._may_move = place == "auto"
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def room(self, feature: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Uninitialised memory for a feature. Raises torch.OutOfMemoryError for a device that is
        full, unless the features may move to the host: then this one does, and those that come."""
        if not self.on_host:
            try:
                return torch.empty(feature.shape, dtype=dtype, device=feature.device)
            except torch.OutOfMemoryError:
                if not self._may_move:
                    raise
                self.on_host = True
        return torch.empty(feature.shape, dtype=dtype, pin_memory=feature.is_cuda)

    def placed(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Stored features where they now belong: on the host if that has been turned to."""
        if not self.on_host or all(feature.device.type == "cpu" for feature in features):
            return features
        return [feature.cpu() for feature in features]

    def keep(self, feature: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Copy a feature to where it is kept; what is kept, on the device of the feature, to be
        looked at before the copy has arrived."""
        if feature.device == kept.device:
            return kept.copy_(feature)
        narrow = feature.to(kept.dtype)
        if not narrow.is_cuda:
            kept.copy_(narrow)
            return narrow
        stream = self._stream(narrow.device)
        stream.wait_stream(torch.cuda.current_stream(narrow.device))
        with torch.cuda.stream(stream):
            kept.copy_(narrow, non_blocking=True)
        narrow.record_stream(stream)
        return narrow

    def fetch(self, kept: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The kept feature on the device that it came from."""
        if kept.device == device:
            return kept
        if device.type == "cuda":
            torch.cuda.current_stream(device).wait_stream(self._stream(device))
        return kept.to(device, non_blocking=True)

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[device]
