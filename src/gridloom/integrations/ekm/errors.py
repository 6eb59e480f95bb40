"""Errors of the EKM integration: why a meter did not do what it was asked, in words that clients are shown.

An order ends as *refused* only if nothing was written (``core.errors.Refused``); everything here says that something was on the wire.
"""

from __future__ import annotations

from gridloom.core.errors import DeviceError, DeviceTimeout, Offline, Refused


class NoAnswer(DeviceTimeout):
    """The meter was asked several times and said nothing. Nothing was written into it."""

    code = "ekm-no-answer"


class Garbled(DeviceError):
    """What came was damaged each time (wrong CRC, cut off, noise). Nothing was written into the meter."""

    code = "ekm-garbled"


class Noise(Garbled):
    """What came held nothing of a reply."""


class WrongMeter(DeviceError):
    """Another meter answered. Nothing was written into either."""

    code = "ekm-wrong-meter"


class PasswordRefused(DeviceError):
    """The meter did not accept the password. Nothing was written into it."""

    code = "ekm-password"


class PulseRatioRefused(Refused):
    """This pulse output ratio does not go with the meter's CT ratio. Nothing was written."""

    code = "ekm-pulse-ratio"


class WriteRefused(DeviceError):
    """The meter accepted the password but not the setting."""

    code = "ekm-write-refused"


class Unsure(DeviceTimeout):
    """The setting was sent and no acknowledgement was understood: whether the meter acted is not known."""

    code = "ekm-unsure"


class LineLost(Offline):
    """The port went away before anything was written into the meter."""

    code = "ekm-line-lost"


class IoStackRefused(DeviceError):
    """The ioStack answered with a status that is an error (FACTS 3.1). ``status`` is its number."""

    code = "ekm-iostack"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
