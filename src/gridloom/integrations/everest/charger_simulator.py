"""An EVerest charger, simulated: an EvseManager with a car, and the API modules by which it is driven (FACTS 2.9), all with one module id.

For users without a charger, for demos and tests. It meters what the car draws: as many amperes as the hub's limit and the car allow. What it is
sent is read strictly; what cannot be read is dropped without a reply, as EVerest does.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gridloom.core.clock import Clock
from gridloom.core.model import Phase
from gridloom.integrations.everest import charger_messages as words
from gridloom.integrations.everest import messages
from gridloom.integrations.everest.charger import AUTHORIZATION, COSTS, ERRORS, LIMITS, MANAGER, SESSION_COST, TOKENS
from gridloom.integrations.everest.charger_mapping import moment
from gridloom.integrations.everest.mapping import timestamp
from gridloom.integrations.everest.messages import Current, Powermeter, SignedMeterValue, Totals, Voltage
from gridloom.integrations.everest.module import Wire

VOLTS = 230.0
PHASES = 3
CAR = 16.0
"""Amperes of a phase that the car takes at most."""
LEAST = 6.0
"""Amperes below which nothing is drawn (IEC 61851)."""
_NO_LIMIT = words.ExternalLimits(schedule_import=())

T = TypeVar("T")


class EverestCharger:
    """One EVSE. ``tell`` hears in words what happens; ``record`` gives the signed record of the charger's own meter at the end, if it has one."""

    def __init__(
        self,
        wire: Wire,
        module_id: str,
        clock: Clock,
        *,
        prefix: str = "",
        energy: float = 0.0,
        record: SignedMeterValue | None = None,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.plugged = False
        self.token = ""
        self.session = ""
        self.transaction = False
        self.enabled = True
        self.paused = False
        self.energy = energy
        """Wh that the charger's own meter counted."""
        self._begun = energy
        self.limits = _NO_LIMIT
        self.errors: dict[str, words.ErrorObject] = {}
        self.checks = dict.fromkeys((MANAGER, LIMITS, TOKENS, AUTHORIZATION, ERRORS, COSTS, SESSION_COST), 0)
        """Communication checks that every module got."""
        self._wire, self._clock, self._tell, self._record = wire, clock, tell, record
        self._prefix, self._module = prefix, module_id
        self._heartbeat = 0
        self._enforced: float | None = None
        for api in self.checks:
            self._hear(api, "communication_check", bool, self._checked(api))
        self._answer(MANAGER, "get_evse", None, lambda _: self._describe())
        self._answer(MANAGER, "enable_disable", words.EnableDisable, self._enable)
        self._answer(MANAGER, "pause_charging", None, lambda _: self._pause(True))
        self._answer(MANAGER, "resume_charging", None, lambda _: self._pause(False))
        self._answer(MANAGER, "stop_transaction", words.StopCharging, lambda asked: self._finish(asked.reason))
        self._answer(MANAGER, "force_unlock", int, lambda connector: connector == 1)
        self._answer(AUTHORIZATION, "withdraw_authorization", words.Withdraw, self._withdraw)
        self._answer(ERRORS, "active_errors", None, lambda _: words.ErrorList(errors=tuple(self.errors.values())))
        self._hear(LIMITS, "set_external_limits", words.ExternalLimits, self._limit)
        self._hear(TOKENS, "provided_token", words.ProvidedIdToken, self._take)
        self._hear(SESSION_COST, "session_cost", words.SessionCost, lambda cost: self._tell(f"display: {messages.encode(cost).decode()}"))
        self._hear(SESSION_COST, "tariff_message", words.TariffMessage, lambda text: self._tell(f"display: {text.messages[0].content}"))

    # --------------------------------------------------------------------------------------------------------- its life

    async def run(self) -> None:
        """Heartbeats, and once a second what the meter and the session say; for ever."""
        last = self._clock.now()
        while True:
            for api in self.checks:
                self._say(api, "heartbeat", self._heartbeat)
            self._heartbeat += 1
            now = self._clock.now()
            self.energy += PHASES * VOLTS * self.current() * (now - last) / 3_600_000_000
            last = now
            self._say(MANAGER, "powermeter", self.meter())
            if self.session:
                self.tell_state()
            self._tell_limit()
            await self._clock.sleep(1.0)

    def restart(self) -> None:
        """As after a power cut: it counts from 0 and knows no limit."""
        self._heartbeat, self.limits = 0, _NO_LIMIT

    def plug(self) -> None:
        """A car arrives."""
        self.plugged = True
        if not self.session:
            self.session = str(uuid.uuid4())
            self._event("SessionStarted", session_started=words.SessionStarted(reason="EVConnected"))
        self._try()

    def unplug(self) -> None:
        """The car leaves."""
        self._finish("EVDisconnected")
        self.plugged = False
        self._event("SessionFinished")
        self.session, self.token = "", ""
        self.tell_state()

    def present(self, card: str) -> None:
        """Somebody holds a card to the reader; it is known."""
        tag = words.IdToken(value=card, type="ISO14443")
        self._take(words.ProvidedIdToken(id_token=tag, authorization_type="RFID", prevalidated=True))

    def fail(self, kind: str, message: str) -> None:
        """Something is wrong with the charger."""
        error = words.ErrorObject(
            type=kind, uuid=str(uuid.uuid4()), timestamp=timestamp(self._clock.now()), severity="High", message=message, description=message,
            origin=words.Origin(module_id="yeti", implementation_id="board_support"),
        )  # fmt: skip
        self.errors[kind] = error
        self._say(ERRORS, "error_raised", error)

    def repair(self, kind: str) -> None:
        """It is not wrong any more."""
        self._say(ERRORS, "error_cleared", self.errors.pop(kind))

    def cost(self, cents: int) -> None:
        """What the charger itself says that the session costs, in cents of a euro."""
        chunk = words.CostChunk(cost=words.Money(value=cents))
        currency = words.Currency(code="EUR", decimals=2)
        self._say(COSTS, "session_cost", words.SessionCost(session_id=self.session, currency=currency, status="Running", cost_chunks=(chunk,)))

    # ------------------------------------------------------------------------------------------------------- what it is

    @property
    def state(self) -> str:
        """As ``session_info`` has it."""
        if not self.enabled:
            return "Disabled"
        if not self.session:
            return "Unplugged"
        if not self.transaction:
            return "AuthRequired" if self.plugged else "Preparing"
        if self.paused:
            return "ChargingPausedEVSE"
        return "Charging" if self.current() > 0 else "WaitingForEnergy"

    def allowed(self) -> float | None:
        """Amperes of a phase that the hub's schedule allows now; None is no limit."""
        now = self._clock.now()
        valid = [one for one in self.limits.schedule_import if (moment(one.timestamp) or 0) <= now] or list(self.limits.schedule_import[:1])
        if not valid:
            return None
        limits = valid[-1].limits_to_root
        phases = PHASES if isinstance(limits.ac_max_phase_count, UnsetType) else float(limits.ac_max_phase_count.value)
        found = [] if isinstance(limits.ac_max_current_A, UnsetType) else [float(limits.ac_max_current_A.value)]
        found += [] if isinstance(limits.total_power_W, UnsetType) else [float(limits.total_power_W.value) / VOLTS / max(phases, 1)]
        return min(found) if found else None

    def current(self, phase: Phase = Phase.L1) -> float:
        """Amperes of a phase that the car draws now."""
        allowed = self.allowed()
        drawn = CAR if allowed is None else min(CAR, allowed)
        return drawn if self.transaction and self.enabled and not self.paused and drawn >= LEAST else 0.0

    def meter(self) -> Powermeter:
        """The charger's own meter."""
        current = self.current()
        return Powermeter(
            timestamp=timestamp(self._clock.now()),
            energy_Wh_import=Totals(total=self.energy),
            power_W=Totals(total=PHASES * VOLTS * current),
            current_A=Current(L1=current, L2=current, L3=current, N=0.0),
            voltage_V=Voltage(L1=VOLTS, L2=VOLTS, L3=VOLTS),
        )

    def tell_state(self) -> None:
        """``session_info``."""
        self._say(
            MANAGER,
            "session_info",
            {
                "state": self.state, "charged_energy_wh": round(self.energy - self._begun), "discharged_energy_wh": 0, "session_duration_s": 0,
                "latest_total_w": round(PHASES * VOLTS * self.current()), "timestamp": timestamp(self._clock.now()),
            },
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------ what it does

    def _checked(self, api: str) -> Callable[[bool], None]:
        def count(_: bool) -> None:
            self.checks[api] += 1

        return count

    def _describe(self) -> words.Evse:
        self._say(MANAGER, "evse_id", "DE*PNX*E12345*1")
        capabilities = words.HardwareCapabilities(
            max_current_A_import=32, min_current_A_import=6, max_phase_count_import=3, min_phase_count_import=1, connector_type="IEC62196Type2Cable"
        )
        self._say(MANAGER, "hw_capabilities", capabilities)
        self._enforced = None
        self._tell_limit()
        return words.Evse(id=1, connectors=(words.Connector(id=1, type="cType2"),))

    def _enable(self, asked: words.EnableDisable) -> bool:
        self.enabled = asked.source.enable_state == "Enable"
        self._event("Enabled" if self.enabled else "Disabled", source=asked.source)
        return self.enabled

    def _pause(self, paused: bool) -> bool:
        if not self.transaction or self.paused is paused:
            return False
        self.paused = paused
        self._event("ChargingPausedEVSE" if paused else "ChargingResumed")
        return True

    def _take(self, token: words.ProvidedIdToken) -> None:
        status = "Accepted" if token.prevalidated is True and self.enabled else "Rejected"
        self._say(AUTHORIZATION, "token_validation_status", words.TokenStatus(token=token, status=status))
        if status == "Accepted":
            self.token = token.id_token.value
            self._tell(f"authorized: {self.token}")
            if not self.session:
                self.session = str(uuid.uuid4())
                self._event("SessionStarted", session_started=words.SessionStarted(reason="Authorized"))
            self._event("Authorized")
            self._try()

    def _withdraw(self, asked: words.Withdraw) -> str:
        if not isinstance(asked.id_token, UnsetType) and asked.id_token.value != self.token:
            return "AuthorizationNotFound"
        if not isinstance(asked.evse_id, UnsetType) and asked.evse_id != 1:
            return "EvseNotFound"
        self.token = ""
        self._finish("DeAuthorized")
        return "Accepted"

    def _limit(self, limits: words.ExternalLimits) -> None:
        self.limits = limits
        self._tell(f"limit: {self.allowed()} A")
        self._tell_limit()

    def _tell_limit(self) -> None:
        allowed = self.allowed()
        current = 32.0 if allowed is None else min(32.0, allowed)
        if current != self._enforced:
            self._enforced = current
            limits = words.Limits(ac_max_current_A=words.LimitValue(value=current, source="energy"))
            self._say(MANAGER, "enforced_limits", {"uuid": "evse", "valid_for": 60, "schedule": [], "limits_root_side": limits})

    def _try(self) -> None:
        """A transaction begins when there are a car and somebody who pays."""
        if not (self.plugged and self.token and self.enabled) or self.transaction:
            return
        self.transaction, self.paused, self._begun = True, False, self.energy
        tag = words.ProvidedIdToken(id_token=words.IdToken(value=self.token, type="Central"), authorization_type="OCPP")
        self._event("TransactionStarted", transaction_started=words.TransactionStarted(meter_value=self.meter(), id_tag=tag))
        self._tell(f"transaction {self.session} begins at {self.energy:.0f} Wh")

    def _finish(self, reason: str) -> bool:
        if not self.transaction:
            return False
        self.transaction = False
        ended = words.TransactionFinished(meter_value=self.meter(), reason=reason, signed_meter_value=UNSET if self._record is None else self._record)
        self._event("TransactionFinished", transaction_finished=ended)
        self._tell(f"transaction {self.session} ends at {self.energy:.0f} Wh: {reason}")
        return True

    # ---------------------------------------------------------------------------------------------------------- the wire

    def _event(self, event: str, **more: Any) -> None:
        self._say(MANAGER, "session_event", words.SessionEvent(uuid=self.session, event=event, timestamp=timestamp(self._clock.now()), **more))

    def _topic(self, api: str, tail: str) -> str:
        return f"{self._prefix}everest_api/1/{api}/{self._module}/{tail}"

    def _say(self, api: str, what: str, message: object) -> None:
        self._wire.send(self._topic(api, f"e2m/{what}"), messages.encode(message))

    def _hear(self, api: str, what: str, kind: type[T], act: Callable[[T], None]) -> None:
        def hear(topic: str, payload: bytes) -> None:
            try:
                said = messages.decode(kind, payload)
            except msgspec.DecodeError as error:
                self._tell(f"Invalid data: Deserialization failed: {topic} {error}")
                return
            act(said)

        self._wire.subscribe(self._topic(api, f"m2e/{what}"), hear)

    def _answer(self, api: str, what: str, kind: type[T] | None, act: Callable[[T], object]) -> None:
        """A request with a reply; ``kind`` of its payload, None when it has none."""

        def hear(topic: str, payload: bytes) -> None:
            try:
                asked = msgspec.json.decode(payload, type=_Asked)
                result = act(messages.decode(kind, bytes(asked.payload)) if kind is not None else None)  # type: ignore[arg-type]  # no payload, no type
            except msgspec.DecodeError as error:
                self._tell(f"Invalid data: Deserialization failed: {topic} {error}")
                return
            where = asked.headers.replyTo
            if isinstance(where, str):
                self._wire.send(self._prefix + where, messages.encode(result))

        self._wire.subscribe(self._topic(api, f"m2e/{what}"), hear)


class _Asked(messages.Message, frozen=True, kw_only=True):
    headers: messages.Headers = messages.Headers()
    payload: msgspec.Raw = msgspec.Raw(b"null")
