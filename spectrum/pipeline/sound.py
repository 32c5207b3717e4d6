"""The sound of a film: from what a pipeline returns to a file that ffmpeg reads."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrum.errors import SpectrumError

Audio = NDArray[np.float32]  # [samples, channels] in [-1, 1]


def sound_of(pipe: Any, output: tuple[Any, ...], index: int = 0) -> tuple[Audio, int] | None:
    """The sound beside one sample's frames of a pipeline that has a vocoder, and its samples a
    second; None of any other. Raises SpectrumError if it is not finite.

    output: frames # [B, F, H, W, 3] and sound # [B, channels, samples]
    """
    if len(output) < 2 or getattr(pipe, "vocoder", None) is None:
        return None
    audio = output[1][index].float().cpu().numpy().T
    if not np.isfinite(audio).all():
        raise SpectrumError("the model's sound is not finite; try `dtype` float32")
    return np.clip(audio, -1, 1, dtype=np.float32), int(pipe.vocoder.config.output_sampling_rate)


def write_wave(path: Path, audio: Audio, sample_rate: int) -> None:
    """In 16-bit samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(audio.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((audio * 32767).round().astype("<i2").tobytes())
