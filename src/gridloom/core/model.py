"""The shared words: what every integration, the store and every API mean by a device, a reading, an event.

All times are integers: microseconds since 1970-01-01T00:00:00 UTC. All quantities are in base units (W, Wh, V, A, VA,
VAh, var, varh, Hz, °C, %, s, 1); import and export are both positive. Conversion happens in an integration's ``mapping``, nowhere else.
"""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Any, TypeVar

import msgspec


class Phase(enum.StrEnum):
    """A conductor, or a pair of them; absent means the total. OCPP's ``L1-N`` is our ``L1``."""

    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    N = "N"
    L1_L2 = "L1-L2"
    L2_L3 = "L2-L3"
    L3_L1 = "L3-L1"


class TimeSource(enum.StrEnum):
    """Whose clock a time was read from. Part of a sample's key, so that neither clock overwrites the other."""

    DEVICE = "device"
    HUB = "hub"


class Context(enum.StrEnum):
    """Why a value was taken (OCPP 1.6 ReadingContext, OS³P A6.5)."""

    PERIODIC = "Sample.Periodic"
    CLOCK = "Sample.Clock"
    TRIGGER = "Trigger"
    BEGIN = "Transaction.Begin"
    END = "Transaction.End"
    INTERRUPTION_BEGIN = "Interruption.Begin"
    INTERRUPTION_END = "Interruption.End"
    OTHER = "Other"


class Quality(enum.IntFlag):
    """What a reader should know about a value before trusting it. 0 is a plain good value."""

    GOOD = 0
    DERIVED = 1  # computed by the hub, e.g. the sum of tariff registers
    ASSUMED_UNIT = 2  # the device sent no unit; the document's one was taken
    CONVERTED = 4  # the device sent another unit or spelling than the document allows
    SUSPECT = 8  # implausible: kept, shown, never billed
    CLOCK_DEGRADED = 16  # the device says that its own clock is not to be trusted
    ESTIMATED = 32  # the device itself estimated it
    TEST = 64  # produced by a test of the device
    LATE = 128  # delivered after newer values of the same series
    SIMULATED = 256  # from a simulator


class ReadingType(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a number means. Device + ReadingType is a series.

    ``measurand`` is a name of ``core.measurands.TABLE``, or the device's own word if the table has none;
    ``unit`` is the base unit; ``tariff`` the tariff register as the contract names it (``HC``, ``HPJR``, ``tariff1``,
    ``distributor2``, ``1``…; absent is the total); ``location`` where a device has more than one point of measurement
    (``P1Meter``, ``Outlet``, ``connector:2``…).
    """

    measurand: str
    unit: str
    phase: Phase | None = None
    tariff: str | None = None
    location: str | None = None


class Reading(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One typed value. An ``int`` value counts units of ``10**exponent``; a ``float`` is taken as it is (exponent 0, never NaN or infinite).

    A ``str`` is a state (the running tariff) or a number that nobody could read (OS³P N7); mappings send one only when it changes.
    """

    type: ReadingType
    value: int | float | str
    exponent: int = 0
    context: Context = Context.PERIODIC
    quality: Quality = Quality.GOOD

    @property
    def number(self) -> int | float | Decimal:
        """The value in base units: exact (int or Decimal) unless the device gave a float. Raises ValueError for text."""
        if isinstance(self.value, str):
            raise ValueError(f"{self.type.measurand} is text here: {self.value!r}")
        if isinstance(self.value, float) or self.exponent == 0:
            return self.value
        return Decimal(self.value).scaleb(self.exponent)


class MeterReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that one device said at one moment.

    ``time`` is the moment the values are of, ``source`` whose clock said so, ``received`` the hub's clock at arrival.
    ``native`` is the vendor's own message as that integration's (tagged) Struct, for its API to answer in its own dialect; of
    native messages only the latest per device is kept.
    """

    device: str
    time: int
    received: int
    readings: tuple[Reading, ...]
    source: TimeSource = TimeSource.HUB
    native: Any = None


class Severity(enum.StrEnum):
    """How soon a person should look. Order matters: see ``rank``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 (debug) to 4 (critical)."""
        return _SEVERITIES.index(self)


_SEVERITIES = list(Severity)


class EventState(enum.StrEnum):
    """An event either just happened, or begins or ends a condition (an alarm)."""

    OCCURRED = "occurred"
    RAISED = "raised"
    CLEARED = "cleared"
    ACKNOWLEDGED = "acknowledged"


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to a device. Never a bus message.

    ``id`` is unique; an event that a device may deliver twice takes an id made of what makes it the same event (OS³P N21),
    and the second delivery is recognised and changes nothing. ``kind`` is a row of ``core.events.TABLE``. ``subject`` says which
    part of the device (``contactor:1``, ``L2``, ``connector:1``). An alarm is (device, kind, subject) from ``raised`` to ``cleared``.
    ``data`` holds JSON values only.
    """

    id: str
    kind: str
    device: str
    time: int
    received: int
    severity: Severity = Severity.INFO
    state: EventState = EventState.OCCURRED
    source: TimeSource = TimeSource.HUB
    subject: str = ""
    message: str = ""
    data: dict[str, Any] = {}


class CommandState(enum.StrEnum):
    """accepted -> sent -> done, refused, failed, expired, cancelled; unknown: under way when the process died (a late answer may still end it)."""

    ACCEPTED = "accepted"
    SENT = "sent"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Whether nothing more will be heard of the order."""
        return self not in (CommandState.ACCEPTED, CommandState.SENT)


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order to a device, from acceptance to its end. ``verb`` is a row of ``core.verbs.TABLE``, ``arguments`` its JSON values.

    ``wait_online``: whether it waits (until ``expires``) for a device that is offline, or is refused at once.
    Arguments that the verb's table marks secret (passwords) are kept only until the order ends and are never shown.
    ``origin`` is what the API that submitted it needs to answer its client, also after a restart (channel, message id).
    """

    id: str
    device: str
    verb: str
    arguments: dict[str, Any]
    account: str
    created: int
    expires: int
    state: CommandState = CommandState.ACCEPTED
    wait_online: bool = False
    client: str = ""
    address: str = ""
    token: str = ""
    origin: dict[str, str] = {}
    sent: int | None = None
    ended: int | None = None
    result: Any = None
    error: str = ""


class DeviceKind(enum.StrEnum):
    """What sort of thing it is, for a person looking at a list."""

    METER = "meter"
    CHARGER = "charger"
    SUBSTATION = "substation"
    GATEWAY = "gateway"
    IO = "io"
    OTHER = "other"


class Admission(enum.StrEnum):
    """Whether the hub deals with a device that has presented itself."""

    KNOWN = "known"
    PENDING = "pending"
    REJECTED = "rejected"


class Consent(enum.StrEnum):
    """Whether the owner lets the readings of a device out. ``refused`` holds on every way out, also for history from before."""

    UNSET = "unset"
    CONSENT = "consent"
    REFUSED = "refused"


class Site(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place with devices and people: a home, a lab, a district. ``timezone`` is an IANA name, empty means the hub's."""

    id: str
    name: str
    timezone: str = ""
    attributes: dict[str, str] = {}


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A CIM EndDevice. ``id`` is ``integration:identity``, the identity as the device itself says it.

    ``verbs`` and ``measurands`` are its capabilities, as its link registered them. ``attributes`` are facts for people
    (port, contract, ICCID…), strings only.
    """

    id: str
    integration: str
    identity: str
    kind: DeviceKind = DeviceKind.OTHER
    name: str = ""
    site: str = ""
    vendor: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    admission: Admission = Admission.KNOWN
    consent: Consent = Consent.UNSET
    verbs: tuple[str, ...] = ()
    measurands: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    created: int = 0


class TransactionState(enum.StrEnum):
    """running -> ended; lost: its end was never told and cannot be found."""

    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"


class Transaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metered interval somebody may be billed for, bounded by two readings.

    ``begin`` and ``end`` are MeterReadings of the device (registers, taken at start and stop). ``key`` is the vendor's own number
    or UUID of it, unique per device; ``location`` the connector or feeder; ``identification`` who charged (idTag, token).
    """

    id: str
    device: str
    key: str
    started: int
    state: TransactionState = TransactionState.RUNNING
    location: str | None = None
    identification: str = ""
    begin: MeterReading | None = None
    end: MeterReading | None = None
    ended: int | None = None
    reason: str = ""
    data: dict[str, Any] = {}


class Role(enum.StrEnum):
    """What an account is to a scope. ``core.accounts`` says what each may."""

    ADMIN = "admin"
    OPERATOR = "operator"
    OWNER = "owner"
    INSTALLER = "installer"
    VIEWER = "viewer"


class Grant(msgspec.Struct, frozen=True):
    """``account`` has ``role`` in ``scope``: ``*`` (the hub), ``site:ID`` or ``device:ID``."""

    account: str
    scope: str
    role: Role


class Principal(msgspec.Struct, frozen=True):
    """Who is asking: made by ``web`` or the command line after authentication, handed on to everything that decides.

    ``address`` and ``client`` (the name a client gives itself) go to the audit trail.
    """

    account: str
    grants: tuple[Grant, ...]
    token: str = ""
    address: str = ""
    client: str = ""


class Audit(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the audit trail: who ordered or changed what, when, from where, with which result."""

    id: str
    time: int
    account: str
    action: str
    target: str
    result: str
    address: str = ""
    client: str = ""
    token: str = ""
    data: dict[str, Any] = {}


T = TypeVar("T", bound=msgspec.Struct)


def native_as(message: Any, kind: type[T]) -> T | None:
    """The native message as ``kind``, whether it came by reference or over a wire; None when it is another integration's."""
    if isinstance(message, kind):
        return message
    try:
        return msgspec.convert(message, kind)
    except msgspec.ValidationError:
        return None
