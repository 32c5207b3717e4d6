"""The two kinds of error that a user of Spectrum can cause. Messages are one line that says what
is wrong and what to do."""


class SpectrumError(Exception):
    """Something failed on the way: weights missing, a file that can't be written."""


class UsageError(SpectrumError, ValueError):
    """What was asked for can't be had: a wrong name, value or combination."""


class DeviceError(SpectrumError):
    """The device is of no use any more, so this process is not either."""
