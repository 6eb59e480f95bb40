"""One tree of errors. Each names the device, the field and what was expected; ``web.problems`` gives each its HTTP status.

GridloomError
├── ConfigurationError      a wrong configuration: key, file, line, what is allowed (exit code 2)
├── InvalidInput            what somebody sent is wrong; carries every offending field
├── NotFound                it does not exist, or not for this principal (existence is not disclosed)
├── Forbidden               it exists, the principal sees it, but the role is not enough
├── Unauthenticated         no valid token or password
├── Conflict                compare-and-swap lost, or the state does not allow it now
├── Refused                 an order that cannot be carried out, refused before anything was sent
│   ├── Unsupported         the device has no such capability
│   └── Offline             the device is not connected and the caller did not want to wait
├── DeviceError             the device answered, and the answer is no
├── DeviceTimeout           the device did not answer in time
│   └── Unanswered          the connection ended after something was sent and before the answer came
└── StorageError            the store cannot do it now
    ├── StorageFull         no space left: readings pause, an alarm is raised
    └── StorageCorrupt      a store that was set aside (quarantine)
"""

from __future__ import annotations

import msgspec


class FieldFault(msgspec.Struct, frozen=True):
    """One offending field: its JSON path (``$.a[2].b``) or byte offset, and the reason with what was expected and what came."""

    path: str
    reason: str


class GridloomError(Exception):
    """Root of the tree. ``code`` is the machine-readable name on our own wires; ``status`` its HTTP status."""

    code = "internal-error"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(GridloomError):
    """A wrong configuration; the message names key, file, line and what is allowed."""

    code = "configuration"


class InvalidInput(GridloomError):
    """What somebody sent is wrong; ``faults`` names every offending field."""

    code = "invalid-input"
    status = 400

    def __init__(self, message: str, faults: tuple[FieldFault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class NotFound(GridloomError):
    """It does not exist, or not for this principal."""

    code = "not-found"
    status = 404


class Forbidden(GridloomError):
    """The principal sees the thing but needs another role for this."""

    code = "forbidden"
    status = 403


class Unauthenticated(GridloomError):
    """No valid token or password came with the request."""

    code = "unauthenticated"
    status = 401


class Conflict(GridloomError):
    """The present state does not allow it, or somebody else was faster."""

    code = "conflict"
    status = 409


class Refused(GridloomError):
    """An order that cannot be carried out; nothing was sent to the device."""

    code = "refused"
    status = 409


class Unsupported(Refused):
    """The device has no such capability."""

    code = "unsupported"


class Offline(Refused):
    """The device is not connected and the caller did not want to wait."""

    code = "offline"


class DeviceError(GridloomError):
    """The device answered, and the answer is no. ``message`` holds its own words."""

    code = "device-refused"
    status = 502


class DeviceTimeout(GridloomError):
    """The device did not answer in time; whether it acted is not known."""

    code = "device-timeout"
    status = 504


class Unanswered(DeviceTimeout):
    """The connection ended after something was sent and before the answer came; whether the device acted is not known."""

    code = "unanswered"


class StorageError(GridloomError):
    """The store cannot do it now."""

    code = "storage"
    status = 503


class StorageFull(StorageError):
    """No space is left on the store's disk."""

    code = "storage-full"


class StorageCorrupt(StorageError):
    """The store's file is damaged; it was set aside and the message names how to restore."""

    code = "storage-corrupt"
