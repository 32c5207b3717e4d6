"""The sound of a film: from what a pipeline returns to a file that ffmpeg reads."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectrum.errors import SpectrumError

Audio = NDArray[np.float32]  # [samples, channels] in [-1, 1]


def sound_of(pipe: Any, output: tuple[Any, ...], index: int = 0) -> tuple[Audio, int] | None:
    """The sound beside one sample's frames of a pipeline that has a vocoder, and its samples a
    second; None of any other. Raises SpectrumError if it is not finite.

    output: frames # [B, F, H, W, 3] and sound # [B, channels, samples] or, of one, [B, samples]
    """
    if len(output) < 2 or output[1] is None or getattr(pipe, "vocoder", None) is None:
        return None
    waves = torch.as_tensor(output[1][index]).float().cpu().numpy()
    audio = waves.reshape(-1, waves.shape[-1]).T
    if not np.isfinite(audio).all():
        raise SpectrumError("the model's sound is not finite; try `dtype` float32")
    rate = getattr(pipe, "audio_sample_rate", None)  # Kandinsky 6
    rate = rate or pipe.vocoder.config.output_sampling_rate
    return np.clip(audio, -1, 1, dtype=np.float32), int(rate)


def write_wave(path: Path, audio: Audio, sample_rate: int) -> None:
    """In 16-bit samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(audio.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((audio * 32767).round().astype("<i2").tobytes())
