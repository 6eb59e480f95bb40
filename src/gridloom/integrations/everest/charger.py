"""An EVSE of an EVerest charger as a device of the hub: telemetry in, orders out. Knows topics, nothing of how a broker is reached.

Its API modules are asked by topic (FACTS 2.9): a request names where the answer goes, without the broker's external prefix. The hub lifts its
own limits when it stops, for EVerest has no watchdog over them; one that is left over by a crash is in force again, or lifted, after the restart.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gridloom.core import ids, verbs
from gridloom.core.errors import DeviceError, DeviceTimeout, GridloomError, NotFound, Offline, Refused, Unanswered
from gridloom.core.events import new_event
from gridloom.core.hub import Hub
from gridloom.core.model import Command, Device, DeviceKind, Event, EventState, MeterReading, ReadingType, Transaction
from gridloom.core.registry import Link
from gridloom.integrations.everest import charger_mapping as mapping
from gridloom.integrations.everest import charger_messages as wire
from gridloom.integrations.everest import messages
from gridloom.integrations.everest.charger_mapping import Limit
from gridloom.integrations.everest.config import Charger as Settings
from gridloom.integrations.everest.messages import Powermeter, SignedMeterValue
from gridloom.integrations.everest.misunderstood import Misunderstood
from gridloom.integrations.everest.module import Wire

log = logging.getLogger(__name__)

ANSWER = 10.0
"""Seconds that EVerest has to answer."""
PROBE = 5.0
"""Seconds between two questions whether EVerest is there, and without a heartbeat after which it is not."""
LIFTING = 5.0
"""Seconds that the broker has, when the hub stops, to acknowledge that a limit is lifted."""
WAITING = 1_000
"""Messages of EVerest that wait to be kept; beyond, the oldest goes."""
LONGEST = 65_536
PRIORITY = 100
"""Of an order to enable or disable that names none; 0 is the highest."""
MANAGER, LIMITS, TOKENS, AUTHORIZATION, ERRORS, COSTS, SESSION_COST = (
    "evse_manager_consumer", "external_energy_limits_consumer", "auth_token_provider", "auth_consumer", "error_history_consumer",
    "session_cost_consumer", "session_cost",
)  # fmt: skip
"""The types of API modules, as they stand in topics."""
VERBS: Mapping[str, tuple[str, ...]] = {
    MANAGER: ("charge.stop", "charge.pause", "charge.resume", "charge.availability", "charge.unlock"),
    LIMITS: ("charge.limit", "charge.limit.clear"),
    TOKENS: ("charge.start",),
    AUTHORIZATION: ("everest.authorization.withdraw",),
    ERRORS: ("everest.errors.get",),
    COSTS: (),
    SESSION_COST: ("everest.session_cost.set", "everest.tariff_message.set"),
}
MEASURANDS = ("Energy.Active.Import.Register", "Power.Active.Import", "Current.Import", "Voltage", "Current.Offered", "Power.Offered", "SoC")
_SESSION_ENERGY = ReadingType("Energy.Active.Import.Resettable", "Wh", location="session")
_FORMER = "former_limit"
"""The document of the limit that is in force again when the charge is over whose limit is in force now; one without values stands for none."""
_GONE = frozenset({"Unplugged", "Finished", "FinishedEV", "FinishedEVSE"})
"""States in which no transaction runs."""

T = TypeVar("T")
Hear = Callable[[Any], Awaitable[None]]


class Charger:
    """``everest:NAME``: the charger of this configuration on this wire."""

    def __init__(self, settings: Settings, prefix: str, wire: Wire, hub: Hub) -> None:
        self.settings = settings
        self.id = f"everest:{settings.name}"
        self.period = settings.check_timeout / 3
        self.reason = "EVerest has not said anything yet"
        self._prefix, self._wire, self._hub = prefix, wire, hub
        given = (
            (MANAGER, settings.evse_manager), (LIMITS, settings.limits), (TOKENS, settings.tokens), (AUTHORIZATION, settings.authorization),
            (ERRORS, settings.errors), (COSTS, settings.costs), (SESSION_COST, settings.session_cost),
        )  # fmt: skip
        self._modules = {type: module for type, module in given if module is not None}
        self._verbs = tuple(verb for type in self._modules for verb in VERBS[type])
        self._misunderstood = Misunderstood(hub, settings.name)
        self._dropped = hub.metrics.counter(
            "gridloom_everest_dropped_total", "Messages of a charger that came faster than they were kept.", ("module",)
        )
        self._asked: dict[str, asyncio.Future[bytes]] = {}
        self._heard: deque[tuple[Hear, Any]] = deque()
        self._more = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._authorized = asyncio.Event()
        self._refused_token = ""
        self._link: Link | None = None
        self._there = False
        self._probed = -PROBE
        self._heartbeat: tuple[int, float] | None = None
        self._state = ""
        self._gone_since: float | None = None
        self._offered: Mapping[ReadingType, Any] = {}
        self._limit: Limit | None = None
        self._former: Limit | None = None
        self._expected = False
        self._key = ""
        self._attributes: dict[str, str] = {}
        self._subscribe()
        wire.on_connect(self._connected)

    def _subscribe(self) -> None:
        for api in self._modules:
            self._wire.subscribe(self._base(api) + "e2m/+/+", self._hear_reply, kept=False)
        heard: tuple[tuple[str, str, type[Any], Hear], ...] = (
            (MANAGER, "session_event", wire.SessionEvent, self._session_event),
            (MANAGER, "session_info", wire.SessionInfo, self._session_info),
            (MANAGER, "powermeter", Powermeter, self._powermeter),
            (MANAGER, "powermeter_public_key_ocmf", str, self._public_key),
            (MANAGER, "enforced_limits", wire.EnforcedLimits, self._enforced_limits),
            (MANAGER, "hw_capabilities", wire.HardwareCapabilities, self._capabilities),
            (MANAGER, "evse_id", str, self._evse_id),
            (MANAGER, "ev_info", wire.EvInfo, self._ev_info),
            (AUTHORIZATION, "token_validation_status", wire.TokenStatus, self._token_status),
            (ERRORS, "error_raised", wire.ErrorObject, self._error_raised),
            (ERRORS, "error_cleared", wire.ErrorObject, self._error_cleared),
            (COSTS, "session_cost", wire.SessionCost, self._session_cost),
        )
        for api, tail, kind, act in heard:
            if api in self._modules:
                self._wire.subscribe(f"{self._base(api)}e2m/{tail}", self._taking(kind, act), kept=False)
        self._wire.subscribe(self._base(MANAGER) + "e2m/heartbeat", self._hear_heartbeat, kept=False)

    def _base(self, type: str) -> str:
        return f"{self._prefix}everest_api/1/{type}/{self._modules[type]}/"

    # ------------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """The device is known; what limit of ours may be in force at the charger is found again."""
        await self._register()
        self._link = self._hub.registry.attach(self.id, self._carry_out)
        document = await self._hub.documents.get("limit", self.settings.name)
        self._limit = None if document is None else msgspec.json.decode(document.body, type=Limit)
        document = await self._hub.documents.get(_FORMER, self.settings.name)
        self._former = None if document is None else msgspec.json.decode(document.body, type=Limit)
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Lift our own limit, then hear no more."""
        try:
            if self._limit is not None and self._wire.connected:
                await self._hub.clock.wait_for(self._set_limit(None), LIFTING)
        except GridloomError as error:
            log.error("a limit could not be lifted", extra={"device": self.id, "reason": error.message})
        except TimeoutError:
            reason = f"the broker has not acknowledged it within {LIFTING:g} s; it is lifted at the next start"
            log.error("a limit could not be lifted", extra={"device": self.id, "reason": reason})
        tasks = [task for task in (self._worker, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._link is not None:
            self._link.detach("the hub is stopping")

    def missing(self) -> str:
        """Nothing has to be there at the start."""
        return ""

    async def tick(self) -> None:
        """Say to every module that we are there; ask whether EVerest is; lift a limit that ended."""
        clock = self._hub.clock
        now = clock.monotonic()
        if not self._wire.connected:
            self._away("the broker is not connected")
            return
        for api in self._modules:
            self._wire.send(self._base(api) + "m2e/communication_check", b"true")
        if self._heartbeat is not None and now - self._heartbeat[1] > PROBE:
            self._heartbeat = None
            self._away("EVerest sends no heartbeat any more")
        unsure = not self._there or self._heartbeat is None
        if unsure and now - self._probed >= PROBE and (self._probing is None or self._probing.done()):
            self._probed = now
            self._probing = asyncio.get_running_loop().create_task(self._probe())
        if self._limit is not None and self._limit.until is not None and clock.now() >= self._limit.until:
            await self._set_limit(None)
        if self._gone_since is not None and now - self._gone_since > PROBE:
            self._gone_since = None
            lost = bool(self._hub.transactions.running(self.id))
            await self._lose_others(None)
            if lost or not self._expected:
                await self._end_of_charge()

    async def _register(self) -> None:
        await self._hub.registry.register(
            Device(
                id=self.id, integration="everest", identity=self.settings.name, kind=DeviceKind.CHARGER, vendor="EVerest", verbs=self._verbs,
                measurands=MEASURANDS, attributes={"evse_manager": self.settings.evse_manager} | self._attributes,
            )
        )  # fmt: skip

    def _connected(self) -> None:
        self._heartbeat = None
        self._there, self._probed = False, -PROBE

    def _away(self, reason: str) -> None:
        self._there, self.reason = False, reason
        if self._link is not None:
            self._link.offline(reason)

    async def _probe(self) -> None:
        """Ask for the EVSE. Who answers is there; who is new is told our limit again, and its errors are compared with our alarms."""
        try:
            evse = await self._ask(MANAGER, "get_evse", wire.Evse)
            self._attributes |= {"evse": str(evse.id), "connectors": ", ".join(str(one.id) for one in evse.connectors)}
            await self._register()
        except GridloomError as error:
            self._away(f"EVerest does not answer: {error.message}")
            return
        if self._there:
            return
        try:
            if self._limit is not None:
                await self._set_limit(self._limit)
            self._there, self.reason = True, ""
            if self._link is not None:
                self._link.online()
            if ERRORS in self._modules:
                await self._compare_errors()
        except GridloomError as error:
            log.warning("everest: a charger that came back", extra={"device": self.id, "reason": error.message})

    # ------------------------------------------------------------------------------------------------------------ hearing

    def _taking(self, kind: type[Any], act: Hear) -> Callable[[str, bytes], None]:
        """A handler that understands a message and puts it into the queue."""

        def take(topic: str, payload: bytes) -> None:
            try:
                if len(payload) > LONGEST:
                    raise msgspec.ValidationError(f"expected at most {LONGEST} bytes, got {len(payload)} - at `$`")
                said = messages.decode(kind, payload)
            except msgspec.DecodeError as error:
                self._misunderstood.tell(topic, str(error))
                return
            if len(self._heard) >= WAITING:
                self._heard.popleft()
                self._dropped.inc(module=self.settings.name)
            self._heard.append((act, said))
            self._more.set()

        return take

    async def _work(self) -> None:
        """One after the other, in the order in which they came."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._heard:
                act, said = self._heard.popleft()
                try:
                    await act(said)
                except GridloomError as error:
                    log.warning("everest: could not be recorded", extra={"device": self.id, "reason": error.message})
                except Exception:  # one message must not end the hearing of all that follow
                    log.exception("everest: a message of a charger could not be kept", extra={"device": self.id})

    def _hear_heartbeat(self, topic: str, payload: bytes) -> None:
        try:
            number = messages.decode(int, payload)
        except msgspec.DecodeError as error:
            self._misunderstood.tell(topic, str(error))
            return
        if self._heartbeat is not None and number <= self._heartbeat[0]:
            self._there, self._probed = False, -PROBE  # started again: it has forgotten our limit
            self._heard.append((self._event, new_event("device.restarted", self.id, self._hub.clock, message="EVerest was started again")))
            self._more.set()
        self._heartbeat = (number, self._hub.clock.monotonic())

    async def _event(self, event: Event) -> None:
        await self._hub.intake.event(event)

    async def _tell(self, reading: MeterReading) -> None:
        if reading.readings:
            await self._hub.intake.readings([reading])

    async def _powermeter(self, said: Powermeter) -> None:
        await self._tell(mapping.meter_reading(self.id, said, self._hub.clock.now()))

    async def _public_key(self, said: str) -> None:
        self._key = said

    async def _ev_info(self, said: wire.EvInfo) -> None:
        await self._tell(mapping.plain(self.id, {ReadingType("SoC", "%"): said.soc}, self._hub.clock.now()))

    async def _enforced_limits(self, said: wire.EnforcedLimits) -> None:
        values = mapping.offered(said)
        await self._tell(mapping.plain(self.id, values, self._hub.clock.now()))
        if values != self._offered:
            self._offered = values
            data = {type.measurand: value for type, value in values.items()}
            await self._event(new_event("charge.limit.changed", self.id, self._hub.clock, subject=self._subject, data=data))

    async def _capabilities(self, said: wire.HardwareCapabilities) -> None:
        self._attributes |= {
            "current_a": f"{said.min_current_A_import:g} to {said.max_current_A_import:g}",
            "phases": f"{said.min_phase_count_import} to {said.max_phase_count_import}",
        }
        await self._register()

    async def _evse_id(self, said: str) -> None:
        self._attributes["evse_id"] = said[:100]
        await self._register()

    async def _session_info(self, said: wire.SessionInfo) -> None:
        await self._tell(mapping.plain(self.id, {_SESSION_ENERGY: said.charged_energy_wh}, self._hub.clock.now()))
        if said.state in _GONE:
            self._gone_since = self._hub.clock.monotonic() if self._gone_since is None else self._gone_since
        else:
            self._gone_since = None
        before, self._state = self._state, said.state
        if before and before != said.state:
            data = {"from": before, "to": said.state}
            await self._event(new_event("connector.changed", self.id, self._hub.clock, subject=self._subject, data=data))

    async def _token_status(self, said: wire.TokenStatus) -> None:
        if said.status == "Accepted":
            self._authorized.set()
        elif said.status in ("Rejected", "TimedOut"):
            self._refused_token = said.status
            self._authorized.set()
            if not self._hub.transactions.running(self.id):
                await self._end_of_charge()
            await self._event(new_event("authorization.refused", self.id, self._hub.clock, subject=self._subject, data={"status": said.status}))

    @property
    def _subject(self) -> str:
        return f"connector:{self.settings.connector}"

    # ------------------------------------------------------------------------------------------------------- transactions

    async def _session_event(self, said: wire.SessionEvent) -> None:
        if said.event in ("Authorized", "TransactionStarted"):
            self._authorized.set()
        event = mapping.session_event(self.id, said, self.settings.connector, self._hub.clock)
        events = [] if event is None else [event]
        if said.event == "TransactionStarted" and not isinstance(said.transaction_started, UnsetType):
            self._expected = False
            await self._lose_others(said.uuid)
            await self._begin(said, said.transaction_started, events)
        elif said.event == "TransactionFinished" and not isinstance(said.transaction_finished, UnsetType):
            await self._finish(said, said.transaction_finished, events)
            await self._end_of_charge()
        elif events:
            await self._hub.intake.events(events)

    async def _begin(self, said: wire.SessionEvent, began: wire.TransactionStarted, events: Sequence[Event]) -> None:
        now = self._hub.clock.now()
        token = "" if isinstance(began.id_tag, UnsetType) else began.id_tag.id_token.value
        await self._hub.transactions.begin(
            Transaction(
                id="", device=self.id, key=said.uuid, started=mapping.moment(said.timestamp) or now, location=self._subject, identification=token,
                begin=mapping.meter_reading(self.id, began.meter_value, now), data=self._signed("begin_", began.signed_meter_value),
            ),
            events=events,
        )  # fmt: skip

    async def _finish(self, said: wire.SessionEvent, ended: wire.TransactionFinished, events: Sequence[Event]) -> None:
        now = self._hub.clock.now()
        time = mapping.moment(said.timestamp) or now
        data = self._signed("begin_", ended.start_signed_meter_value) | self._signed("", ended.signed_meter_value)
        end = mapping.meter_reading(self.id, ended.meter_value, now)
        reason = "" if isinstance(ended.reason, UnsetType) else ended.reason
        for _ in range(2):
            try:
                await self._hub.transactions.end(self.id, said.uuid, ended=time, end=end, reason=reason, data=data, events=events)
            except NotFound:  # its begin was not heard: it has none, but its end is known
                unheard = Transaction(id="", device=self.id, key=said.uuid, started=time, location=self._subject)
                await self._hub.transactions.begin(unheard)
            else:
                return

    def _signed(self, which: Literal["", "begin_"], value: SignedMeterValue | UnsetType) -> dict[str, Any]:
        """A signed record of the charger's own meter, as ``gridloom ocmf export`` finds it."""
        if isinstance(value, UnsetType) or value.encoding_method.upper() != "OCMF" or not value.signed_meter_data:
            return {}
        key = self._key if isinstance(value.public_key, UnsetType) or not value.public_key else value.public_key
        return {f"{which}record": value.signed_meter_data} | ({f"{which}public_key": key} if key else {})

    async def _lose_others(self, key: str | None) -> None:
        """Transactions whose end we did not hear, and that cannot run any more."""
        for running in self._hub.transactions.running(self.id):
            if running.key == key:
                continue
            reason = "its end was not heard"
            event = new_event(
                "session.lost", self.id, self._hub.clock, subject=self._subject, data={"session": running.key},
                message=reason, id=ids.digest(self.id, running.key, "lost"),
            )  # fmt: skip
            await self._hub.transactions.lose(self.id, running.key, reason=reason, events=[event])

    async def _session_cost(self, said: wire.SessionCost) -> None:
        try:
            await self._hub.transactions.update(self.id, said.session_id, data={"cost": mapping.told_cost(said)})
        except NotFound:
            log.info("costs of a session that is not known", extra={"device": self.id, "session": said.session_id[:60]})

    # -------------------------------------------------------------------------------------------------------------- errors

    async def _error_raised(self, said: wire.ErrorObject) -> None:
        await self._event(mapping.error_event(self.id, said, EventState.RAISED, self._hub.clock))

    async def _error_cleared(self, said: wire.ErrorObject) -> None:
        await self._event(mapping.error_event(self.id, said, EventState.CLEARED, self._hub.clock))

    async def _compare_errors(self) -> wire.ErrorList:
        """What is wrong now: alarms are raised for it, and those of errors that are no longer there are cleared."""
        active = await self._ask(ERRORS, "active_errors", wire.ErrorList)
        clock = self._hub.clock
        events = [mapping.error_event(self.id, one, EventState.RAISED, clock) for one in active.errors]
        there = {(event.kind, event.subject) for event in events}
        events += [
            new_event(alarm.kind, self.id, clock, subject=alarm.subject, state=EventState.CLEARED)
            for alarm in self._hub.alarms.raised_of(self.id)
            if alarm.kind in ("fault.other", "fault.communication") and (alarm.kind, alarm.subject) not in there
        ]
        if events:
            await self._hub.intake.events(events)
        return active

    # -------------------------------------------------------------------------------------------------------------- asking

    async def _ask(self, type: str, what: str, kind: type[T], payload: object = UNSET) -> T:
        """One request and its reply. Raises Offline, DeviceTimeout, Unanswered, DeviceError for a reply that is none."""
        name = uuid.uuid4().hex
        tail = f"e2m/{what}/{name}"
        request: dict[str, Any] = {"headers": {"replyTo": f"everest_api/1/{type}/{self._modules[type]}/{tail}"}}
        if payload is not UNSET:
            request["payload"] = payload
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[name] = answer
        try:
            self._send(type, what, request)
            said = await self._hub.clock.wait_for(answer, ANSWER)
        except TimeoutError:
            words = f"{self.id}: EVerest's module {self._modules[type]!r} has not answered {what} within {ANSWER:g} s"
            raise (DeviceTimeout(words) if self._wire.connected else Unanswered(f"{words}, and the broker is gone")) from None
        finally:
            del self._asked[name]
        try:
            return messages.decode(kind, said)
        except msgspec.DecodeError as error:
            raise DeviceError(f"{self.id}: EVerest's answer to {what} cannot be understood: {error}") from None

    def _send(self, type: str, what: str, message: object) -> None:
        if not self._wire.send(f"{self._base(type)}m2e/{what}", messages.encode(message)):
            raise Offline(f"{self.id}: the broker is not connected")

    def _hear_reply(self, topic: str, payload: bytes) -> None:
        answer = self._asked.get(topic.rpartition("/")[2])
        if answer is not None and not answer.done():
            answer.set_result(payload)

    # -------------------------------------------------------------------------------------------------------------- orders

    async def _carry_out(self, command: Command) -> Any:
        """Raises Refused, Offline, DeviceError, DeviceTimeout."""
        given = self._hub.commands.arguments(command)
        connector = getattr(given, "connector", None)
        if connector not in (None, 0, self.settings.connector):
            raise Refused(f"{self.id} is connector {self.settings.connector}, not {connector}")
        return await _ORDERS[command.verb](self, given)

    async def _start(self, given: verbs.ChargeStart) -> Any:
        token = given.identification or self.settings.identification
        if token is None:
            raise Refused(f"{self.id}: identification is missing, and [[everest.charger]] names none")
        if len(token) > 36:
            raise Refused(f"{self.id}: EVerest takes an identification of at most 36 characters, this one has {len(token)}")
        if given.current_a is not None:
            await self._limit_charge(Limit(current_a=given.current_a))
        try:
            return await self._present(token)
        except GridloomError:
            if not self._hub.transactions.running(self.id):
                await self._end_of_charge()
            raise

    async def _limit_charge(self, limit: Limit) -> None:
        """A limit for as long as the charge lasts; the one before it is kept."""
        if LIMITS in self._modules and self._former is None:
            former = self._limit or Limit()
            await self._hub.documents.commit([self._hub.documents.put(_FORMER, self.settings.name, msgspec.json.encode(former))])
            self._former = former
        await self._limited(limit)

    async def _end_of_charge(self) -> None:
        """The limit of before it is in force again, or none. What cannot be said now is said when EVerest is there again."""
        self._expected = False
        if self._former is None:
            return
        self._limit, self._former = self._former, None
        documents, name = self._hub.documents, self.settings.name
        await documents.commit([documents.put("limit", name, msgspec.json.encode(self._limit)), documents.delete(_FORMER, name)])
        try:
            await self._set_limit(self._limit)
        except GridloomError as error:
            log.warning("the limit of a charge that is over could not be lifted yet", extra={"device": self.id, "reason": error.message})

    async def _forget_former(self) -> None:
        if self._former is not None:
            self._former = None
            await self._hub.documents.commit([self._hub.documents.delete(_FORMER, self.settings.name)])

    async def _present(self, token: str) -> Any:
        """The token; EVerest says what becomes of it."""
        self._authorized.clear()
        self._refused_token = ""
        provided = wire.ProvidedIdToken(
            id_token=wire.IdToken(value=token, type="Central"), authorization_type="OCPP", connectors=(self.settings.connector,), prevalidated=True
        )
        self._send(TOKENS, "provided_token", provided)
        try:
            await self._hub.clock.wait_for(self._authorized.wait(), 3 * ANSWER)
        except TimeoutError:
            raise DeviceTimeout(f"{self.id}: EVerest has the token and does not say what became of it within {3 * ANSWER:g} s") from None
        if self._refused_token:
            raise DeviceError(f"{self.id}: the token was {self._refused_token}")
        running = self._hub.transactions.running(self.id)
        self._expected = not running
        return {"transaction": running[-1].key} if running else {"waiting": "for the car"}

    async def _stop(self, given: verbs.ChargeStop) -> Any:
        running = self._hub.transactions.running(self.id)
        if given.transaction is not None and given.transaction not in [one.key for one in running]:
            raise Refused(f"{self.id}: transaction {given.transaction!r} does not run")
        reason = given.reason if given.reason in wire.STOP_REASONS else "Remote"
        await self._yes("stop_transaction", wire.StopCharging(reason=reason))

    async def _pause(self, given: verbs.ChargePause) -> Any:
        await self._yes("pause_charging")

    async def _resume(self, given: verbs.ChargeResume) -> Any:
        await self._yes("resume_charging")

    async def _unlock(self, given: verbs.ChargeUnlock) -> Any:
        await self._yes("force_unlock", given.connector)

    async def _yes(self, what: str, payload: object = UNSET) -> None:
        if not await self._ask(MANAGER, what, bool, payload):
            raise DeviceError(f"{self.id}: EVerest answers no to {what}")

    async def _availability(self, given: verbs.ChargeAvailability) -> Any:
        priority = PRIORITY if given.priority is None else given.priority
        source = wire.SwitchSource(enable_source="MobileApp", enable_state="Enable" if given.available else "Disable", enable_priority=priority)
        enabled = await self._ask(MANAGER, "enable_disable", bool, wire.EnableDisable(connector_id=given.connector, source=source))
        if enabled is not given.available:
            state = "enabled" if enabled else "disabled"
            raise DeviceError(f"{self.id} is {state}: another source with a priority above {priority} wants it so")

    async def _limited(self, limit: Limit) -> Any:
        if LIMITS not in self._modules:
            raise Refused(f"{self.id}: [[everest.charger]] names no module for limits")
        await self._set_limit(limit)

    async def _set(self, given: verbs.ChargeLimit) -> Any:
        until = None if given.duration_s is None else self._hub.clock.now() + given.duration_s * 1_000_000
        await self._limited(Limit(given.current_a, given.power_w, given.phases, until))
        await self._forget_former()  # the order is newer than the charge: it stays

    async def _clear(self, given: verbs.ChargeLimitClear) -> Any:
        await self._set_limit(None)
        await self._forget_former()

    async def _set_limit(self, limit: Limit | None) -> None:
        """Keep it, then say it: what may be in force at the charger is known also after a crash. None lifts it, and is forgotten when delivered.

        Raises Offline, or Unanswered when the broker does not acknowledge it; it is said again when EVerest is asked next whether it is there.
        """
        if not self._wire.connected:
            raise Offline(f"{self.id}: the broker is not connected")
        now = self._hub.clock.now()
        over = limit in (None, Limit()) or (limit is not None and limit.until is not None and limit.until <= now)
        wanted = Limit() if limit is None or over else limit  # one without values, said again after a crash, lifts what was there
        documents, name = self._hub.documents, self.settings.name
        await documents.commit([documents.put("limit", name, msgspec.json.encode(wanted))])
        self._limit = wanted
        if not await self._wire.deliver(self._base(LIMITS) + "m2e/set_external_limits", messages.encode(mapping.schedule(wanted, now))):
            self._there, self._probed = False, -PROBE
            raise Unanswered(f"{self.id}: the broker has not acknowledged the limit")
        if over and self._limit is wanted:
            self._limit = None
            await documents.commit([documents.delete("limit", name), documents.delete(_FORMER, name)])

    async def _withdraw(self, given: verbs.EverestAuthorizationWithdraw) -> Any:
        token = UNSET if given.identification is None else wire.IdToken(value=given.identification, type="Central")
        evse = UNSET if given.evse is None else given.evse
        answer = await self._ask(AUTHORIZATION, "withdraw_authorization", str, wire.Withdraw(evse_id=evse, id_token=token))
        if answer != "Accepted":
            raise DeviceError(f"{self.id}: EVerest answers {answer}")

    async def _errors(self, given: verbs.EverestErrorsGet) -> Any:
        return msgspec.to_builtins(await self._compare_errors())

    async def _cost(self, given: verbs.EverestSessionCostSet) -> Any:
        self._send(SESSION_COST, "session_cost", mapping.session_cost(given.session, given.currency, given.amount, given.final))

    async def _tariff(self, given: verbs.EverestTariffMessageSet) -> Any:
        content = wire.MessageContent(content=given.text, language=UNSET if given.language is None else given.language)
        about = {} if given.session is None else {"identifier_id": given.session, "identifier_type": "SessionId"}
        self._send(SESSION_COST, "tariff_message", wire.TariffMessage(messages=(content,), **about))


_ORDERS: Mapping[str, Callable[[Charger, Any], Awaitable[Any]]] = {
    "charge.start": Charger._start,
    "charge.stop": Charger._stop,
    "charge.pause": Charger._pause,
    "charge.resume": Charger._resume,
    "charge.unlock": Charger._unlock,
    "charge.availability": Charger._availability,
    "charge.limit": Charger._set,
    "charge.limit.clear": Charger._clear,
    "everest.authorization.withdraw": Charger._withdraw,
    "everest.errors.get": Charger._errors,
    "everest.session_cost.set": Charger._cost,
    "everest.tariff_message.set": Charger._tariff,
}
