"""One powermeter module: a meter of the hub, as EVerest sees it. Knows topics and messages, nothing of how a broker is reached.

Values go out once, when they are new. When none came within ``max_age`` there is nothing to send and no communication check either, so that
EVerest sees the fault. A transaction is durable before its start is answered, and its record is durable before it leaves; what EVerest asks
twice is answered twice with the same record (FACTS 2.7, 8).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from gridloom import __version__
from gridloom.core import faults, ids, subjects
from gridloom.core.clock import synchronised
from gridloom.core.errors import Conflict, GridloomError, InvalidInput, NotFound
from gridloom.core.events import new_event
from gridloom.core.hub import Hub
from gridloom.core.model import Device, DeviceKind, EventState, MeterReading, Reading, Transaction, TransactionState
from gridloom.core.ports import LatestValue, Write
from gridloom.core.registry import Link
from gridloom.core.subjects import DeviceState, Told
from gridloom.integrations.everest import mapping, messages, ocmf
from gridloom.integrations.everest.config import Powermeter
from gridloom.integrations.everest.keys import PublicKey, Signer
from gridloom.integrations.everest.messages import SignedMeterValue, StartTransactionReply, StartTransactionRequest, StopTransactionReply
from gridloom.integrations.everest.misunderstood import Misunderstood
from gridloom.links import mqtt
from gridloom.links.mqtt import Handler

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that a stop waits for a fresh register: EVerest's state machine stands still meanwhile."""
SOON = 10.0
"""Seconds of ``max_age`` up to which a meter is so quick that one value may bound both ends of a transaction."""
REQUESTS = 100
"""Requests that wait for their turn; beyond, they are refused at once."""
REFUSALS = 100
"""Ids of transactions that were refused, and are remembered as such."""
LONGEST = 65_536
"""Bytes of a request; EVerest's own are below 2,000."""
_GAP = 5.0
_LONG = 100

Reply = StartTransactionReply | StopTransactionReply
R = TypeVar("R", StartTransactionReply, StopTransactionReply)
T = TypeVar("T")


class Wire(Protocol):
    """What a module needs of the connection to its broker."""

    connected: bool

    def subscribe(self, topic: str, handler: Handler, *, kept: bool = True) -> None:
        """Hear a topic; ``kept`` false: not what the broker had kept for us."""
        ...

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Be told of each connection."""
        ...

    def send(self, topic: str, payload: bytes | str, *, qos: int = 0, retain: bool = False) -> bool:
        """Publish; False when it cannot be."""
        ...

    async def deliver(self, topic: str, payload: bytes | str, *, retain: bool = False) -> bool:
        """Publish, and wait whether the broker has it."""
        ...


class Failed(GridloomError):
    """A transaction cannot begin or end; EVerest is told ``status`` and why."""

    def __init__(self, message: str, status: messages.Status = "UNEXPECTED_ERROR") -> None:
        super().__init__(message)
        self.answer = status


class Malformed(GridloomError):
    """A request with a wrong member, which is named; nothing was changed."""


class Module:
    """``everest:MODULE_ID``: the powermeter of this configuration on this wire."""

    def __init__(self, settings: Powermeter, prefix: str, signer: Signer, wire: Wire, hub: Hub) -> None:
        self.settings = settings
        self.id = f"everest:{settings.module_id}"
        self._prefix = prefix
        self._base = f"{prefix}everest_api/1/powermeter/{settings.module_id}/"
        self._signer = signer
        self._wire = wire
        self._hub = hub
        self.period = settings.check_timeout / 3
        self._values = mapping.Values(settings.location)
        self._fresh = asyncio.Event()
        self._lock = asyncio.Lock()
        self._requests: set[asyncio.Task[None]] = set()
        self._heartbeat: tuple[int, float] | None = None
        self._echoed = False
        self._restarted = True  # the hub or EVerest, since the last record
        self._rival = ""
        self._begun = 0.0
        self._lost = False
        self._listening: list[Callable[[], None]] = []
        self._link: Link | None = None
        self.reason = "the meter has not said anything yet"
        metrics = hub.metrics
        self._misunderstood = Misunderstood(hub, settings.module_id)
        self._sent = metrics.counter("gridloom_everest_values_total", "Values that EVerest was sent.", ("module",))
        self._transactions = metrics.counter("gridloom_everest_transactions_total", "Starts and stops by their answer.", ("module", "what", "status"))
        wire.subscribe(self._base + "e2m/start_transaction", self._hear_start, kept=False)
        wire.subscribe(self._base + "e2m/stop_transaction", self._hear_stop, kept=False)
        wire.subscribe(self._base + "e2m/heartbeat", self._hear_heartbeat)
        wire.subscribe(self._base + "m2e/public_key_ocmf", self._hear_key)
        wire.on_connect(self._connected)

    # ------------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Follow the meter. Whether it can be a powermeter at all says ``missing``."""
        attributes = {"meter": self.settings.device, "public_key": self._signer.public.hex}
        gateway = Device(id=self.id, integration="everest", identity=self.settings.module_id, kind=DeviceKind.GATEWAY, attributes=attributes)
        await self._hub.registry.register(gateway)
        self._link = self._hub.registry.attach(self.id)
        self._listening = [
            self._hub.bus.listen(subjects.readings(self.settings.device), self._hear_readings),
            self._hub.bus.listen(subjects.device(self.settings.device), self._hear_device),
        ]
        self._begun = self._hub.clock.monotonic()
        self._lost = self._hub.alarms.raised(self.id, "powermeter.lost") is not None
        await self._remember_key()
        await self._remember_values()

    @property
    def name(self) -> str:
        """The module_id."""
        return self.settings.module_id

    @property
    def meter(self) -> str:
        """The device that is its meter."""
        return self.settings.device

    @property
    def public_key(self) -> PublicKey:
        """Of the key that signs now."""
        return self._signer.public

    async def sign_with(self, signer: Signer) -> None:
        """Another key from now on: told, and handed to EVerest. A record that is being made is finished first."""
        async with self._lock:
            self._signer = signer
            await self._remember_key()
            attributes = {"public_key": signer.public.hex}
            gateway = Device(id=self.id, integration="everest", identity=self.settings.module_id, kind=DeviceKind.GATEWAY, attributes=attributes)
            await self._hub.registry.register(gateway)
            self._echoed = False
            self._send_key()

    async def _remember_key(self) -> None:
        """Tell once when another key signs than before."""
        mine = self._signer.public.fingerprint
        document = await self._hub.documents.get("key", self.settings.module_id)
        known = None if document is None else msgspec.json.decode(document.body, type=str)
        if known == mine:
            return
        put = self._hub.documents.put("key", self.settings.module_id, msgspec.json.encode(mine))
        data = {"from": known, "to": mine}
        events = [] if known is None else [new_event("signing_key.changed", self.id, self._hub.clock, data=data)]
        await self._hub.intake.events(events, [put])

    async def _remember_values(self) -> None:
        """What the meter said before the hub was started, with its age."""
        try:
            values = await self._hub.registry.latest_values(self.settings.device)
        except NotFound:
            self.reason = f"the hub does not know {self.settings.device} yet"
            return
        now, monotonic = self._hub.clock.now(), self._hub.clock.monotonic()
        for value in values:
            if value.received <= now:  # else it was heard by a clock that was ahead, and its age is not known
                self._values.remind(_as_reading(value), monotonic - (now - value.received) / 1_000_000)

    async def stop(self) -> None:
        """Hear no more. Requests that are being answered are given a moment."""
        for leave in self._listening:
            leave()
        self._listening = []
        if self._requests:
            await asyncio.wait(self._requests, timeout=1)
        for task in self._requests:
            task.cancel()
        if self._link is not None:
            self._link.detach("the hub is stopping")

    def missing(self) -> str:
        """Why the meter cannot be a powermeter, or empty: what it says it measures lacks the energy register."""
        try:
            meter = self._hub.registry.get(self.settings.device)
        except NotFound:
            return ""
        if not meter.measurands or mapping.ENERGY in meter.measurands:
            return ""
        return (
            f"module_id = {self.settings.module_id!r}: {meter.id} cannot give energy_Wh_import.total ({mapping.ENERGY}), which EVerest needs; "
            f"it gives {', '.join(meter.measurands[:10])}"
        )

    async def tick(self) -> None:
        """Three times per ``check_timeout``: say that there are values, as long as there are."""
        silence = self._silence()
        self.reason = silence or self._rival
        if self._wire.connected and not silence:
            self._wire.send(self._base + "m2e/communication_check", b"true")
        if self._link is not None:
            if self._wire.connected:
                self._link.online()
            else:
                self._link.offline("the broker is not connected")
        young = self._hub.clock.monotonic() - self._begun < self.settings.max_age  # the meter has its time to speak at first
        if bool(silence) != self._lost and not (silence and young):
            self._lost = bool(silence)
            state = EventState.RAISED if silence else EventState.CLEARED
            await self._hub.intake.event(new_event("powermeter.lost", self.id, self._hub.clock, state=state, message=silence))

    # --------------------------------------------------------------------------------------------------------- the meter

    def _hear_readings(self, _: str, told: Told) -> None:
        if not self._values.take(told.reading, self._hub.clock.monotonic()):
            return
        self._fresh.set()
        self._fresh = asyncio.Event()
        if self._refused_by_owner():
            return
        values = mapping.powermeter(self._values, self._oldest(), self._meter_id())
        if values is not None and self._wire.send(self._base + "m2e/powermeter_values", messages.encode(values)):
            self._sent.inc(module=self.settings.module_id)

    def _hear_device(self, _: str, state: DeviceState) -> None:
        if state.removed:
            self._values = mapping.Values(self.settings.location)
            return
        reason = self.missing()
        if reason and reason != self.reason:
            self.reason = reason
            log.error("a meter cannot be a powermeter", extra={"module": self.settings.module_id, "reason": reason})

    def _silence(self) -> str:
        """Why nothing can be told of the meter now, or empty."""
        if self._refused_by_owner():
            return f"the owner of {self.meter} refused that its readings leave the hub"
        if self._values.register(self._oldest()) is not None:
            return ""
        try:
            self._meter()
        except NotFound:
            return f"the hub does not know {self.meter} yet; it has not told its energy register"
        return self.missing() or f"{self.meter} has not told its energy register for {self.settings.max_age:g} s"

    def _refused_by_owner(self) -> bool:
        return self.settings.device in self._hub.registry.refusing()

    def _oldest(self) -> float:
        return self._hub.clock.monotonic() - self.settings.max_age

    def _meter(self) -> Device:
        return self._hub.registry.get(self.settings.device)

    def _meter_id(self) -> str:
        meter = self._meter()
        return meter.serial or meter.identity

    # ------------------------------------------------------------------------------------------------------- the charger

    def _connected(self) -> None:
        self._echoed, self._rival = False, ""
        self._send_key()

    def _send_key(self) -> None:
        # Retained, so that an EVerest which starts later hears it when it subscribes (FACTS 2.4).
        self._wire.send(self._base + "m2e/public_key_ocmf", messages.encode(self._signer.public.hex), qos=1, retain=True)

    def _hear_key(self, topic: str, payload: bytes) -> None:
        """Our own key comes back. Another's behind it is of another hub in our place: EVerest would get two answers to everything."""
        if payload == messages.encode(self._signer.public.hex):
            self._echoed = True
        elif self._echoed and not self._rival:
            self._rival = f"somebody else is the powermeter {self.settings.module_id!r} on this broker too: two hubs with the same module_id?"
            log.error("two powermeters with one name", extra={"topic": topic, "reason": self._rival})

    def _hear_heartbeat(self, topic: str, payload: bytes) -> None:
        try:
            number = msgspec.json.decode(payload, type=int)
        except msgspec.DecodeError as error:
            self._misunderstood.tell(topic, str(error))
            return
        now = self._hub.clock.monotonic()
        if self._heartbeat is not None and number < self._heartbeat[0]:
            self._restarted = True
        if self._heartbeat is not None and (number <= self._heartbeat[0] or now - self._heartbeat[1] > _GAP):
            self._send_key()  # EVerest was started again, and has forgotten it
        self._heartbeat = (number, now)

    def _hear_start(self, topic: str, payload: bytes) -> None:
        self._request(topic, payload, StartTransactionReply, self._start)

    def _hear_stop(self, topic: str, payload: bytes) -> None:
        self._request(topic, payload, StopTransactionReply, self._stop)

    def _request(self, topic: str, payload: bytes, kind: type[R], act: Callable[[bytes], Awaitable[R]]) -> None:
        """Answer one request in its turn: start and stop of a module never overlap."""
        if len(payload) > LONGEST:
            self._misunderstood.tell(topic, f"$: expected at most {LONGEST} bytes, got {len(payload)}")
            return
        try:
            request = messages.decode(messages.Request, payload)
        except msgspec.DecodeError as error:
            self._misunderstood.tell(topic, str(error))
            where = messages.reply_to(payload)
            if where and not self._reply_fault(where):
                self._reply(where, kind(status="UNEXPECTED_ERROR", error=f"the request cannot be understood: {error}"))
            return
        headers = request.headers
        where = headers.replyTo if isinstance(headers, messages.Headers) and isinstance(headers.replyTo, str) else ""
        fault = self._reply_fault(where) if where else ""
        if fault:
            self._misunderstood.tell(topic, f"$.headers.replyTo: {fault}")
            return
        if len(self._requests) >= REQUESTS:
            self._reply(where, kind(status="UNEXPECTED_ERROR", error=f"{REQUESTS} requests wait already"))
            return
        task = asyncio.get_running_loop().create_task(self._answer(topic, bytes(request.payload), where, kind, act))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answer(self, topic: str, payload: bytes, where: str, kind: type[R], act: Callable[[bytes], Awaitable[R]]) -> None:
        what = topic.rpartition("/")[2]
        reply: Reply
        try:
            async with self._lock:
                reply = await act(payload)
        except Malformed as error:
            self._misunderstood.tell(topic, error.message)
            self._reply(where, kind(status="UNEXPECTED_ERROR", error=error.message))
            return
        except Failed as error:
            reply = kind(status=error.answer, error=error.message)
        except GridloomError as error:  # the store is full, the meter is gone from the registry: EVerest must not wait for its time-out
            reply = kind(status="UNEXPECTED_ERROR", error=error.message)
        except Exception:  # as above; what it was is for the log, not for EVerest
            log.exception("a request of EVerest could not be answered", extra={"module": self.settings.module_id, "topic": topic})
            reply = kind(status="UNEXPECTED_ERROR", error="internal error")
        if reply.status != "OK":
            await self._tell_refusal(what, reply)
        self._transactions.inc(module=self.settings.module_id, what=what, status=reply.status)
        self._reply(where, reply)

    def _reply(self, where: str, reply: Reply) -> None:
        if where:
            self._wire.send(self._prefix + where, messages.encode(reply))

    def _reply_fault(self, where: str) -> str:
        """Why nothing can be answered there, or empty."""
        return mqtt.topic_fault(self._prefix + where)

    async def _tell_refusal(self, what: str, reply: Reply) -> None:
        event = new_event("transaction.refused", self.id, self._hub.clock, message=str(reply.error), data={"what": what, "status": reply.status})
        try:
            await self._hub.intake.event(event)
        except GridloomError as error:  # the answer must go out all the same
            log.warning("a refusal could not be recorded", extra={"module": self.settings.module_id, "reason": error.message})

    # ------------------------------------------------------------------------------------------------------ transactions

    async def _start(self, payload: bytes) -> StartTransactionReply:
        try:
            request = _read(StartTransactionRequest, payload, "start_transaction")
        except Malformed:
            await self._remember_refusal(_leniently(payload))
            raise
        key = request.transaction_id
        if not key:
            raise Malformed("$.payload.transaction_id: expected at least one character, got ''")
        request = self._one_of_a_group(request)
        known = await self._hub.transactions.find(device=self.id, key=key, limit=1)
        if known:
            if known[0].state is TransactionState.RUNNING:  # asked again: an answer was lost
                if mapping.found_again(known[0].data["request"]) != request:
                    raise Failed(f"transaction {key!r} runs already, and was asked for otherwise")
                return self._started(known[0])
            raise Failed(f"transaction {key!r} is {known[0].state.value} already")
        try:
            return await self._begin(request)
        except GridloomError:
            await self._remember_refusal(key)
            raise

    def _one_of_a_group(self, request: StartTransactionRequest) -> StartTransactionRequest:
        """EVerest may name several flags of a group, a record holds one: the first."""
        first: dict[str, messages.IdentificationFlag] = {}
        for flag in request.identification_flags:
            first.setdefault(flag.partition("_")[0], flag)
        kept = tuple(first.values())
        if kept != request.identification_flags:
            reason = f"$.payload.identification_flags: a record has one of a group; {', '.join(kept)} of {', '.join(request.identification_flags)}"
            self._misunderstood.tell(self._base + "e2m/start_transaction", reason)
        return msgspec.structs.replace(request, identification_flags=kept)

    async def _begin(self, request: StartTransactionRequest) -> StartTransactionReply:
        key = request.transaction_id
        running = await self._hub.transactions.current(self.id)
        if running is not None:
            raise Failed(f"transaction {running.key!r} runs; stop it first")
        silence = self._silence()
        register = self._values.register(self._oldest())
        if silence or register is None:
            raise Failed(silence, "NOT_SUPPORTED")
        begin = mapping.Boundary(mapping.boundary(self.settings.device, register), "B", _clock_letter())
        meter = mapping.facts(self._meter())
        data: dict[str, Any] = {"meter": self.settings.device, "facts": meter, "clock": begin.clock, "request": mapping.kept(request)}
        writes: list[Write] = []
        record, page, write = await self._record(meter, request, [begin])  # also when it is not handed out: a fault is told now, not at the stop
        if self.settings.records == "two":
            data |= {"begin_record": record, "begin_page": page, "begin_public_key": self._signer.public.hex, "notice": ocmf.NOTICE}
            writes.append(write)
        event = new_event("transaction.started", self.id, self._hub.clock, subject=key, data={"transaction": key, "meter": self.settings.device})
        transaction = await self._hub.transactions.begin(
            Transaction(
                id="",
                device=self.id,
                key=key,
                started=begin.reading.time,
                location=self.settings.location,
                identification=str(request.identification_data or ""),
                begin=begin.reading,
                data=data,
            ),
            events=[event],
            writes=writes,
        )
        return self._started(transaction)

    def _started(self, transaction: Transaction) -> StartTransactionReply:
        shortest, longest = self.settings.shortest, self.settings.longest
        unset = msgspec.UNSET
        return StartTransactionReply(
            status="OK",
            transaction_min_stop_time=unset if shortest is None else mapping.timestamp(transaction.started + int(shortest * 1_000_000)),
            transaction_max_stop_time=unset if longest is None else mapping.timestamp(transaction.started + int(longest * 1_000_000)),
            signed_meter_value=self._signed(transaction, "begin_") or unset,
        )

    async def _stop(self, payload: bytes) -> StopTransactionReply:
        key = _transaction_id(payload)
        if not key:
            running = await self._hub.transactions.current(self.id)
            if running is None:
                return StopTransactionReply(status="OK")
            return self._stopped(await self._end(running))
        found = await self._hub.transactions.find(device=self.id, key=key, limit=1)
        if not found and _short(key) in await self._refusals():
            raise Failed(f"transaction {key!r} did not begin here", "NOT_SUPPORTED")
        if not found:
            return await self._last(key)
        if found[0].state is TransactionState.ENDED:
            return self._stopped(found[0])
        return self._stopped(await self._end(found[0]))

    async def _refusals(self) -> list[str]:
        document = await self._hub.documents.get("refused", self.settings.module_id)
        return [] if document is None else msgspec.json.decode(document.body, type=list[str])

    async def _remember_refusal(self, key: str) -> None:
        """EVerest charges on without us, and may ask at the end all the same: it must not be given the record of another."""
        if not key:
            return
        key = _short(key)
        keys = [*(one for one in await self._refusals() if one != key), key][-REFUSALS:]
        await self._hub.documents.commit([self._hub.documents.put("refused", self.settings.module_id, msgspec.json.encode(keys))])

    async def _last(self, key: str) -> StopTransactionReply:
        """The last record for an id that we do not know (FACTS 2.7), with a word that it is another's: only after a restart."""
        if not self._restarted:
            raise Failed(f"transaction {key!r} is not known, and nobody was restarted since the last one")
        last = await self._hub.transactions.last(self.id)
        if last is None or "record" not in last.data:
            raise Failed(f"transaction {key!r} is not known, and there is no record of another")
        reply = self._stopped(last)
        return msgspec.structs.replace(reply, error=f"transaction {key!r} is not known; this is the last record, of {last.key!r}")

    def _stopped(self, transaction: Transaction) -> StopTransactionReply:
        record = self._signed(transaction, "")
        if record is None:
            raise Failed(f"transaction {transaction.key!r} ended without a record: {transaction.reason or 'no reason is known'}")
        return StopTransactionReply(
            status="OK", signed_meter_value=record, start_signed_meter_value=self._signed(transaction, "begin_") or msgspec.UNSET
        )

    def _signed(self, transaction: Transaction, which: Literal["", "begin_"]) -> SignedMeterValue | None:
        """The record of the end, or of the begin if that was signed by itself."""
        record = transaction.data.get(f"{which}record")
        if record is None:
            return None
        moment = transaction.started if which else transaction.ended or transaction.started
        return mapping.signed(record, transaction.data[f"{which}public_key"], moment)

    async def _end(self, transaction: Transaction) -> Transaction:
        """Take the register, sign, keep, and only then hand out. Raises Failed; the transaction does not block the next one."""
        begin, meter = transaction.begin, transaction.data["facts"]
        if begin is None:
            raise await self._lose(transaction, "its begin was not kept")
        await self._refuse_late(transaction)
        end = await self._ending(transaction, begin, meter)
        boundaries = [mapping.Boundary(begin, "B", transaction.data["clock"]), end]
        request = mapping.found_again(transaction.data["request"])
        for _ in range(3):
            record, page, write = await self._record(meter, request, boundaries[1:] if "begin_record" in transaction.data else boundaries)
            signed = {"record": record, "page": page, "public_key": self._signer.public.hex, "notice": ocmf.NOTICE}
            told = {"transaction": transaction.key, "page": page}
            event = new_event("transaction.ended", self.id, self._hub.clock, subject=transaction.key, data=told)
            try:
                ended = await self._hub.transactions.end(
                    self.id, transaction.key, ended=end.reading.time, end=end.reading, reason="stopped", data=signed, events=[event], writes=[write]
                )
                self._restarted = False
                return ended
            except Conflict as error:  # somebody else took this page
                log.warning("a page of the records was taken", extra={"module": self.settings.module_id, "reason": error.message})
        raise Failed("the record could not be kept: its page was taken three times")

    async def _refuse_late(self, transaction: Transaction) -> None:
        """The end of a lost transaction may come later, but not when another has begun: it would be billed for that one's energy."""
        newest = await self._hub.transactions.find(device=self.id, limit=1)
        if newest and newest[0].id != transaction.id:
            raise Failed(f"transaction {transaction.key!r} had no end when {newest[0].key!r} began; there is no receipt")

    async def _ending(self, transaction: Transaction, begin: MeterReading, meter: Mapping[str, str]) -> mapping.Boundary:
        """The register at the end, if it can be one. Raises Failed."""
        register = self._register(begin)
        if register is None:
            transaction = await self._remember_stop(transaction)
            register = await self._wait_for_register(begin, transaction.data["stop_asked"])
        if register is None:
            raise await self._lose(transaction, self._silence() or f"{self.settings.device} has not told its energy register since the begin")
        now = mapping.facts(self._meter())
        if now["MS"] != meter["MS"]:
            raise await self._lose(transaction, f"it began with the meter {meter['MS']} and {now['MS']} is there now; there is no receipt")
        asked = transaction.data.get("stop_asked", register.received)
        if not -self.settings.max_age <= (register.received - asked) / 1_000_000 <= PATIENCE:
            raise await self._lose(transaction, f"its stop was asked at {mapping.timestamp(asked)}; the register of then is not known; no receipt")
        end = mapping.boundary(self.settings.device, register)
        first, last = mapping.register_of(begin), mapping.register_of(end)
        if last < first:
            went = f"from {first} to {last} Wh"
            raise await self._lose(transaction, f"the register of {self.settings.device} went backwards, {went}; there is no receipt")
        if end.time < begin.time:
            raise await self._lose(transaction, "the hub's clock was set back since the begin; there is no receipt before it has passed that time")
        return mapping.Boundary(end, "E", _clock_letter())

    async def _remember_stop(self, transaction: Transaction) -> Transaction:
        """Keep the moment (µs) of the first stop that found no end, also over a crash: what is drawn after it belongs in no receipt."""
        if "stop_asked" in transaction.data:
            return transaction
        return await self._hub.transactions.update(self.id, transaction.key, data={"stop_asked": self._hub.clock.now()})

    def _register(self, begin: MeterReading) -> mapping.Value | None:
        """A fresh register; of a slow meter one that came after the begin."""
        register = None if self._refused_by_owner() else self._values.register(self._oldest())
        return register if register is not None and (self.settings.max_age <= SOON or register.received > begin.received) else None

    async def _wait_for_register(self, begin: MeterReading, asked: int) -> mapping.Value | None:
        """As ``_register``, until ``PATIENCE`` seconds after the stop was asked at ``asked``."""
        clock = self._hub.clock
        deadline = clock.monotonic() + min(PATIENCE, PATIENCE - (clock.now() - asked) / 1_000_000)
        while True:
            left = deadline - clock.monotonic()
            if left <= 0:
                return None
            try:
                await clock.wait_for(self._fresh.wait(), left)
            except TimeoutError:
                return None
            register = self._register(begin)
            if register is not None:
                return register

    async def _lose(self, transaction: Transaction, reason: str) -> Failed:
        """There is no honest receipt: say so, and let the next transaction begin. A later stop takes no register but one of this time."""
        await self._remember_stop(transaction)
        event = new_event("ocmf.failed", self.id, self._hub.clock, subject=transaction.key, message=reason, data={"transaction": transaction.key})
        await self._hub.transactions.lose(self.id, transaction.key, reason=reason, events=[event])
        return Failed(f"transaction {transaction.key!r}: {reason}")

    async def _record(
        self, meter: Mapping[str, str], request: StartTransactionRequest, boundaries: Sequence[mapping.Boundary]
    ) -> tuple[str, str, Write]:
        """A signed record, its page, and the write that makes sure that the page is never given twice."""
        document = await self._hub.documents.get("page", self.settings.module_id)
        last = None if document is None else msgspec.json.decode(document.body, type=str)
        page = ocmf.next_page(last)
        record = ocmf.sign(ocmf.build(mapping.draft(meter, request, page, boundaries, __version__)), self._signer)
        version = 0 if document is None else document.version
        return record, page, self._hub.documents.put("page", self.settings.module_id, msgspec.json.encode(page), expect=version)


def _read(kind: type[T], payload: bytes, what: str) -> T:
    try:
        return faults.read_json(kind, payload, what, path="$.payload")
    except InvalidInput as error:
        raise Malformed(error.message) from None


def _transaction_id(payload: bytes) -> str:
    """Both shapes of a stop: the id alone, as EVerest sends it, or the document's object (FACTS 2.2)."""
    if payload.lstrip()[:1] == b'"':
        return _read(str, payload, "stop_transaction")
    return _read(messages.StopTransactionRequest, payload, "stop_transaction").transaction_id


def _leniently(payload: bytes) -> str:
    """The id in a start that cannot be understood otherwise; empty when there is none."""
    try:
        return msgspec.json.decode(payload, type=messages.StopTransactionRequest).transaction_id
    except msgspec.DecodeError:
        return ""


def _short(key: str) -> str:
    """An id as refusals are remembered by: bounded."""
    return key if len(key) <= _LONG else ids.digest(key)


def _clock_letter() -> str:
    """OCMF's letter for the clock: S when the system says that it is synchronised, else I (informative)."""
    return "S" if synchronised() else "I"


def _as_reading(value: LatestValue) -> MeterReading:
    return MeterReading(
        value.device, value.time, value.received, (Reading(value.type, value.value, value.exponent, quality=value.quality),), value.source
    )
