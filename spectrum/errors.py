"""The two kinds of error that a user of Spectrum can cause. Messages are one line that says what
is wrong and what to do."""


class SpectrumError(Exception):
    """Something failed on the way: weights missing, a file that can't be written."""


def out_of_memory(error: BaseException) -> str | None:
    """What to do where an error, of whatever kind, says that memory was not enough; else None."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return (
            "out of memory on the GPU: try `offload` model, `vae_tiling`, a smaller `width` and"
            " `height`, or fewer `frames`"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return (
            "out of memory: try `quantize` int8, a smaller `width` and `height`, or fewer `frames`"
        )
    return None


class UsageError(SpectrumError, ValueError):
    """What was asked for can't be had: a wrong name, value or combination."""


class DeviceError(SpectrumError):
    """The device is of no use any more, so this process is not either."""
