"""The errors of a Substation: which stand, what a test has made of them, and how each is told (annex A6.6, A7.9, A7.11; N9 to N12, S20 to S24).

The three texts of Table 5 say that an error of the medium voltage is over, and they name no group. So they are told when the last group of that
error is well again; before, another text says which one is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gridloom.core.clock import rfc3339
from gridloom.integrations.os3p.messages import StatusNotification
from gridloom.integrations.os3p.state import Fault, Raised, Vault

RESOLVED = {
    "MVFaultIndicatorError": "Indicator fault (MV) resolved",
    "OverCurrentFailure": "Over current error (MV) resolved",
    "GroundFailure": "Ground failure resolved",
}
"""Table 5: the errors of the medium-voltage fault indicators, and how one says that they are over."""
KEY = "status"
"""Of the queue: notifications of the station are told in their order."""


class Faults:
    """Compares what stands with what was told, and tells the difference."""

    def __init__(self, vault: Vault, now: Callable[[], int]) -> None:
        self._vault = vault
        self._now = now

    @property
    def raised(self) -> tuple[Raised, ...]:
        """What was told and stands."""
        return self._vault.state.raised

    def indicated(self) -> bool:
        """Whether any fault indicator is in alarm, by a fault or by a test (S21)."""
        return any(one.fault.code in RESOLVED for one in self.raised)

    def found(self, standing: Iterable[Fault]) -> None:
        """What stands now."""
        standing = tuple(dict.fromkeys(standing))
        known = {one.fault for one in self.raised}
        if known != set(standing):
            testing = self._vault.state.testing
            new = [Raised(fault, self._now(), testing and fault.code in RESOLVED) for fault in standing if fault not in known]
            stays = [one for one in self.raised if one.fault in standing]
            self._tell(stays, new, [one for one in self.raised if one.fault not in standing])

    def reset(self, standing: Iterable[Fault]) -> None:
        """The indicators were reset, and ``standing`` is what there is now: what is still there is told again, and is no test (S23)."""
        standing = tuple(dict.fromkeys(standing))
        indicators = [one for one in self.raised if one.fault.code in RESOLVED]
        others = [one for one in self.raised if one.fault.code not in RESOLVED]
        new = [Raised(fault, self._now()) for fault in standing if fault.code in RESOLVED]
        self._vault.commit(testing=False)
        self._tell(others, new, [one for one in indicators if one.fault not in standing])

    def _tell(self, stays: list[Raised], new: list[Raised], gone: list[Raised]) -> None:
        status = []
        rest = [*stays, *gone, *new]
        for one in gone:
            rest.remove(one)
            status.append(self._resolved(one, rest))
        status += [self._error(one) for one in new]
        self._vault.commit(add=[(KEY, message) for message in status], raised=(*stays, *new))

    def _error(self, one: Raised) -> StatusNotification:
        fault = one.fault
        other = fault.code == "OtherError"
        return StatusNotification(
            status="Faulted", errorCode=fault.code, info=fault.group[:128] or None, timestamp=rfc3339(one.since), test=one.test,
            vendorId=(fault.vendor_id or ("Gridloom" if other else None)), vendorErrorCode=(fault.vendor_code or ("unknown" if other else None)),
        )  # fmt: skip

    def _resolved(self, one: Raised, rest: list[Raised]) -> StatusNotification:
        last = all(other.fault.code != one.fault.code for other in rest)
        name = RESOLVED.get(one.fault.code, f"{one.fault.code} resolved")
        info = name if last else f"{one.fault.code} resolved: {one.fault.group}"
        return StatusNotification(
            status="Faulted" if rest else "Ok", errorCode="NoError", info=info[:128], timestamp=rfc3339(self._now()), test=one.test
        )  # fmt: skip

    def report(self) -> list[StatusNotification]:
        """The state of the station now: each error that stands, or that there is none (S3)."""
        if self.raised:
            return [self._error(one) for one in self.raised]
        return [StatusNotification(status="Ok", errorCode="NoError", timestamp=rfc3339(self._now()))]
