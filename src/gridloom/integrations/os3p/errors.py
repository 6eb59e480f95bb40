"""Errors of OS³P: a payload that is refused, and an answer that says no where the schema has no place for it."""

from __future__ import annotations

from gridloom.codecs import ocppj
from gridloom.codecs.ocppj import ErrorCode
from gridloom.core.errors import DeviceError, FieldFault
from gridloom.links.calls import CallRefused


class PayloadRefused(CallRefused):
    """A payload that cannot be accepted: raised while a CALL is answered it is its CALLERROR, with the code of R20 and the path in the details.

    ``path`` is that of the fault which decided the code; ``faults`` are all of them.
    """

    code = "os3p-payload"

    def __init__(self, faults: tuple[FieldFault, ...], error_code: ErrorCode | None = None) -> None:
        """``error_code``: of the first fault, if its wording does not tell."""
        fault = ocppj.payload_fault(faults)
        super().__init__(error_code or fault.code, fault.description, fault.details)
        self.path = fault.path
        self.faults = faults


class RefusedInBody(DeviceError):
    """A response with a status that its schema does not have, and which is no Accepted (I2, I25, I41). ``answered``: that status."""

    code = "os3p-refused"

    def __init__(self, action: str, status: str) -> None:
        super().__init__(f"{action}: the station answered {status}")
        self.answered = status
