"""The messages of the API modules by which an EVerest charger is driven (FACTS 2.9), spelled as on the wire; only the members that the hub uses.

What EVerest tells is read tolerantly: unknown members are dropped, an unknown word (a new state, a new event) is a word.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from gridloom.integrations.everest.messages import Message, Number, Powermeter, SignedMeterValue

# ------------------------------------------------------------------------------------------------------------ evse_manager_consumer


class Connector(Message, frozen=True, kw_only=True):
    """One outlet of an EVSE."""

    id: int
    type: str | UnsetType = UNSET


class Evse(Message, frozen=True, kw_only=True):
    """The reply to ``get_evse``."""

    id: int
    connectors: tuple[Connector, ...]


class SessionInfo(Message, frozen=True, kw_only=True):
    """``e2m/session_info``: about once a second in a session, else when something changes."""

    state: str
    charged_energy_wh: Number
    latest_total_w: Number
    timestamp: str
    transaction_start_time: str | UnsetType = UNSET


class IdToken(Message, frozen=True, kw_only=True):
    """``type``: Central, eMAID, MacAddress, ISO14443, ISO15693, KeyCode, Local, NoAuthorization."""

    value: Annotated[str, Meta(max_length=36)]
    type: str


class ProvidedIdToken(Message, frozen=True, kw_only=True):
    """``m2e/provided_token``: a token and where it may charge."""

    id_token: IdToken
    authorization_type: str
    connectors: tuple[int, ...] | UnsetType = UNSET
    prevalidated: bool | UnsetType = UNSET


class SessionStarted(Message, frozen=True, kw_only=True):
    """``reason``: EVConnected or Authorized."""

    reason: str


class TransactionStarted(Message, frozen=True, kw_only=True):
    """The register at the begin, and who charges."""

    meter_value: Powermeter
    id_tag: ProvidedIdToken | UnsetType = UNSET
    signed_meter_value: SignedMeterValue | UnsetType = UNSET


class TransactionFinished(Message, frozen=True, kw_only=True):
    """The register at the end, and why it ended."""

    meter_value: Powermeter
    reason: str | UnsetType = UNSET
    start_signed_meter_value: SignedMeterValue | UnsetType = UNSET
    signed_meter_value: SignedMeterValue | UnsetType = UNSET


class SwitchSource(Message, frozen=True, kw_only=True):
    """Who enabled or disabled; priority 0 is the highest."""

    enable_source: str
    enable_state: str
    enable_priority: int


class SessionEvent(Message, frozen=True, kw_only=True):
    """``e2m/session_event``; ``uuid`` is of the session, which is the transaction's too."""

    uuid: str
    event: str
    timestamp: str
    session_started: SessionStarted | UnsetType = UNSET
    transaction_started: TransactionStarted | UnsetType = UNSET
    transaction_finished: TransactionFinished | UnsetType = UNSET
    source: SwitchSource | UnsetType = UNSET


class LimitValue(Message, frozen=True, kw_only=True):
    """A limit and who set it."""

    value: Number
    source: str = ""


class Limits(Message, frozen=True, kw_only=True):
    """Amperes of each phase, watts in all, number of phases."""

    ac_max_current_A: LimitValue | UnsetType = UNSET
    total_power_W: LimitValue | UnsetType = UNSET
    ac_max_phase_count: LimitValue | UnsetType = UNSET


class EnforcedLimits(Message, frozen=True, kw_only=True):
    """``e2m/enforced_limits``: what the energy manager lets this EVSE have."""

    limits_root_side: Limits


class HardwareCapabilities(Message, frozen=True, kw_only=True):
    """``e2m/hw_capabilities``."""

    max_current_A_import: Number
    min_current_A_import: Number
    max_phase_count_import: int
    min_phase_count_import: int
    connector_type: str | UnsetType = UNSET


class EvInfo(Message, frozen=True, kw_only=True):
    """``e2m/ev_info``."""

    soc: Number | UnsetType = UNSET
    evcc_id: str | UnsetType = UNSET


class EnableDisable(Message, frozen=True, kw_only=True):
    """``m2e/enable_disable``; connector 0 is the EVSE."""

    connector_id: int
    source: SwitchSource


STOP_REASONS = frozenset({
    "EmergencyStop", "EVDisconnected", "HardReset", "Local", "Other", "PowerLoss", "Reboot", "Remote", "SoftReset", "UnlockCommand", "DeAuthorized",
    "EnergyLimitReached", "GroundFault", "LocalOutOfCredit", "MasterPass", "OvercurrentFault", "PowerQuality", "SOCLimitReached", "StoppedByEV",
    "TimeLimitReached", "Timeout", "ReqEnergyTransferRejected",
})  # fmt: skip
"""The words that EVerest takes as the reason of a stop."""


class StopCharging(Message, frozen=True, kw_only=True):
    """``m2e/stop_transaction``."""

    reason: str


# ------------------------------------------------------------------------------------------------------------ the other modules


class ScheduleEntry(Message, frozen=True, kw_only=True, omit_defaults=False):
    """Limits from a moment on; the first entry holds at once, the last one for ever (FACTS 2.9)."""

    timestamp: str
    limits_to_root: Limits
    limits_to_leaves: Limits = Limits()


class ExternalLimits(Message, frozen=True, kw_only=True, omit_defaults=False):
    """``m2e/set_external_limits``: no envelope, no reply, all three arrays."""

    schedule_import: tuple[ScheduleEntry, ...]
    schedule_export: tuple[ScheduleEntry, ...] = ()
    schedule_setpoints: tuple[ScheduleEntry, ...] = ()


class Withdraw(Message, frozen=True, kw_only=True):
    """``m2e/withdraw_authorization``."""

    evse_id: int | UnsetType = UNSET
    id_token: IdToken | UnsetType = UNSET


class TokenStatus(Message, frozen=True, kw_only=True):
    """``e2m/token_validation_status``: Processing, Accepted, Rejected, TimedOut."""

    token: ProvidedIdToken
    status: str


class Origin(Message, frozen=True, kw_only=True):
    """Which module told an error."""

    module_id: str
    implementation_id: str = ""


class ErrorObject(Message, frozen=True, kw_only=True):
    """``e2m/error_raised`` and ``error_cleared``."""

    type: str
    uuid: str
    timestamp: str
    severity: Literal["High", "Medium", "Low"]
    origin: Origin
    message: str = ""
    description: str = ""
    sub_type: str = ""


class ErrorList(Message, frozen=True, kw_only=True):
    """The reply to ``active_errors``."""

    errors: tuple[ErrorObject, ...]


class Currency(Message, frozen=True, kw_only=True, omit_defaults=False):
    """``decimals``: how many digits of an amount are behind the point."""

    code: str = ""
    decimals: int = 2


class Money(Message, frozen=True, kw_only=True):
    """In the smallest unit of its currency."""

    value: int


class CostChunk(Message, frozen=True, kw_only=True):
    """Costs of a part of a session; the sum is the session's."""

    cost: Money | UnsetType = UNSET
    category: str | UnsetType = UNSET


class SessionCost(Message, frozen=True, kw_only=True):
    """``e2m/session_cost`` of the charger, ``m2e/session_cost`` of the hub. ``status``: Running, Idle, Finished."""

    session_id: str
    currency: Currency
    status: str
    cost_chunks: tuple[CostChunk, ...] | UnsetType = UNSET


class MessageContent(Message, frozen=True, kw_only=True):
    """A text for a display."""

    content: str
    format: str = "UTF8"
    language: str | UnsetType = UNSET


class TariffMessage(Message, frozen=True, kw_only=True):
    """``m2e/tariff_message``."""

    messages: tuple[MessageContent, ...]
    identifier_id: str | UnsetType = UNSET
    identifier_type: str | UnsetType = UNSET
