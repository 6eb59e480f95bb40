"""One powermeter module: a meter of the hub, as EVerest sees it. Knows topics and messages, nothing of how a broker is reached.

Values go out once, when they are new. When none came within ``max_age`` there is nothing to send and no communication check either, so that
EVerest sees the fault. A transaction is durable before its start is answered, and its record is durable before it leaves; what EVerest asks
twice is answered twice with the same record (FACTS 2.7, 8).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from gridloom import __version__
from gridloom.core import faults, subjects
from gridloom.core.errors import Conflict, GridloomError, InvalidInput, NotFound
from gridloom.core.events import new_event
from gridloom.core.hub import Hub
from gridloom.core.model import Device, DeviceKind, EventState, MeterReading, Reading, Transaction, TransactionState
from gridloom.core.ports import LatestValue
from gridloom.core.registry import Link
from gridloom.core.subjects import DeviceState, Told
from gridloom.integrations.everest import mapping, messages, ocmf
from gridloom.integrations.everest.config import Powermeter
from gridloom.integrations.everest.keys import Signer
from gridloom.integrations.everest.messages import SignedMeterValue, StartTransactionReply, StartTransactionRequest, StopTransactionReply
from gridloom.links.mqtt import Handler

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that a stop waits for a fresh register: EVerest's state machine stands still meanwhile."""
SOON = 10.0
"""Seconds of ``max_age`` up to which a meter is so quick that one value may bound both ends of a transaction."""
REQUESTS = 100
"""Requests that wait for their turn; beyond, they are refused at once."""
_GAP = 5_000_000
_CLOCK = Path("/run/systemd/timesync/synchronized")

Reply = StartTransactionReply | StopTransactionReply
R = TypeVar("R", StartTransactionReply, StopTransactionReply)


class Wire(Protocol):
    """What a module needs of the connection to its broker."""

    connected: bool

    def subscribe(self, topic: str, handler: Handler) -> None:
        """Hear a topic."""
        ...

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Be told of each connection."""
        ...

    def send(self, topic: str, payload: bytes | str, *, qos: int = 0, retain: bool = False) -> bool:
        """Publish."""
        ...


class Failed(GridloomError):
    """A transaction cannot begin or end; EVerest is told ``status`` and why."""

    def __init__(self, message: str, status: messages.Status = "UNEXPECTED_ERROR") -> None:
        super().__init__(message)
        self.answer = status


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
        self._max_age = int(settings.max_age * 1_000_000)
        self._values = mapping.Values(settings.location)
        self._fresh = asyncio.Event()
        self._lock = asyncio.Lock()
        self._requests: set[asyncio.Task[None]] = set()
        self._heartbeat: tuple[int, int] | None = None
        self._lost = False
        self._listening: list[Callable[[], None]] = []
        self._link: Link | None = None
        self.reason = "the meter has not said anything yet"
        metrics = hub.metrics
        self._refused = metrics.counter("gridloom_everest_malformed_total", "Messages of EVerest that could not be understood.", ("module", "topic"))
        self._sent = metrics.counter("gridloom_everest_values_total", "Values that EVerest was sent.", ("module",))
        self._transactions = metrics.counter("gridloom_everest_transactions_total", "Starts and stops by their answer.", ("module", "what", "status"))
        wire.subscribe(self._base + "e2m/start_transaction", self._hear_start)
        wire.subscribe(self._base + "e2m/stop_transaction", self._hear_stop)
        wire.subscribe(self._base + "e2m/heartbeat", self._hear_heartbeat)
        wire.on_connect(self._connected)

    # ------------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Follow the meter. Raises ConfigurationError (from ``check``) for a meter that cannot be a powermeter."""
        await self._hub.registry.register(
            Device(
                id=self.id,
                integration="everest",
                identity=self.settings.module_id,
                kind=DeviceKind.GATEWAY,
                attributes={"meter": self.settings.device, "public_key": self._signer.public.hex},
            )
        )
        self._link = self._hub.registry.attach(self.id)
        self._listening = [
            self._hub.bus.listen(subjects.readings(self.settings.device), self._hear_readings),
            self._hub.bus.listen(subjects.device(self.settings.device), self._hear_device),
        ]
        try:
            for value in await self._hub.registry.latest_values(self.settings.device):
                self._values.take(_as_reading(value))
        except NotFound:
            self.reason = f"the hub does not know {self.settings.device} yet"

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
        alive = self._wire.connected and self._values.register(self._oldest()) is not None
        if alive:
            self._wire.send(self._base + "m2e/communication_check", b"true")
        if self._link is not None:
            if self._wire.connected:
                self._link.online()
            else:
                self._link.offline("the broker is not connected")
        silent = self._values.register(self._oldest()) is None
        if silent:
            self.reason = self.missing() or f"{self.settings.device} has not told its energy register for {self.settings.max_age:g} s"
        else:
            self.reason = ""
        if silent != self._lost:
            self._lost = silent
            state = EventState.RAISED if silent else EventState.CLEARED
            await self._hub.intake.event(new_event("powermeter.lost", self.id, self._hub.clock, state=state, message=self.reason))

    # --------------------------------------------------------------------------------------------------------- the meter

    def _hear_readings(self, _: str, told: Told) -> None:
        if not self._values.take(told.reading):
            return
        self._fresh.set()
        self._fresh = asyncio.Event()
        values = mapping.powermeter(self._values, self._oldest(), self._meter_id())
        if values is not None and self._wire.send(self._base + "m2e/powermeter_values", messages.encode(values)):
            self._sent.inc(module=self.settings.module_id)

    def _hear_device(self, _: str, state: DeviceState) -> None:
        reason = self.missing()
        if reason and reason != self.reason:
            self.reason = reason
            log.error("a meter cannot be a powermeter", extra={"module": self.settings.module_id, "reason": reason})

    def _oldest(self) -> int:
        return self._hub.clock.now() - self._max_age

    def _meter(self) -> Device:
        return self._hub.registry.get(self.settings.device)

    def _meter_id(self) -> str:
        meter = self._meter()
        return meter.serial or meter.identity

    # ------------------------------------------------------------------------------------------------------- the charger

    def _connected(self) -> None:
        self._heartbeat = None
        self._send_key()

    def _send_key(self) -> None:
        # Retained, so that an EVerest which starts later hears it when it subscribes (FACTS 2.4).
        self._wire.send(self._base + "m2e/public_key_ocmf", messages.encode(self._signer.public.hex), qos=1, retain=True)

    def _hear_heartbeat(self, topic: str, payload: bytes) -> None:
        try:
            number = msgspec.json.decode(payload, type=int)
        except msgspec.DecodeError as error:
            self._malformed(topic, str(error))
            return
        now = self._hub.clock.now()
        if self._heartbeat is not None and (number < self._heartbeat[0] or now - self._heartbeat[1] > _GAP):
            self._send_key()  # EVerest was started again, and has forgotten it
        self._heartbeat = (number, now)

    def _hear_start(self, topic: str, payload: bytes) -> None:
        self._request(topic, payload, StartTransactionReply, self._start)

    def _hear_stop(self, topic: str, payload: bytes) -> None:
        self._request(topic, payload, StopTransactionReply, self._stop)

    def _request(self, topic: str, payload: bytes, kind: type[R], act: Callable[[bytes], Any]) -> None:
        """Answer one request in its turn: start and stop of a module never overlap."""
        try:
            request = messages.decode(messages.Request, payload)
        except msgspec.DecodeError as error:
            self._malformed(topic, str(error))
            where = messages.reply_to(payload)
            if where:
                self._reply(where, kind(status="UNEXPECTED_ERROR", error=f"the request cannot be understood: {error}"))
            return
        headers = request.headers
        where = headers.replyTo if isinstance(headers, messages.Headers) and isinstance(headers.replyTo, str) else ""
        if len(self._requests) >= REQUESTS:
            self._reply(where, kind(status="UNEXPECTED_ERROR", error=f"{REQUESTS} requests wait already"))
            return
        task = asyncio.get_running_loop().create_task(self._answer(topic, bytes(request.payload), where, kind, act))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answer(self, topic: str, payload: bytes, where: str, kind: type[R], act: Callable[[bytes], Any]) -> None:
        what = topic.rpartition("/")[2]
        reply: Reply
        try:
            async with self._lock:
                reply = await act(payload)
        except InvalidInput as error:
            self._malformed(topic, error.message)
            reply = kind(status="UNEXPECTED_ERROR", error=error.message)
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
        if where and "+" not in where and "#" not in where:
            self._wire.send(self._prefix + where, messages.encode(reply))

    def _malformed(self, topic: str, reason: str) -> None:
        self._refused.inc(module=self.settings.module_id, topic=topic.rpartition("/")[2])
        log.warning("a message of EVerest cannot be understood", extra={"topic": topic, "reason": reason})

    async def _tell_refusal(self, what: str, reply: Reply) -> None:
        event = new_event("transaction.refused", self.id, self._hub.clock, message=str(reply.error), data={"what": what, "status": reply.status})
        try:
            await self._hub.intake.event(event)
        except GridloomError as error:  # the answer must go out all the same
            log.warning("a refusal could not be recorded", extra={"module": self.settings.module_id, "reason": error.message})

    # ------------------------------------------------------------------------------------------------------ transactions

    async def _start(self, payload: bytes) -> StartTransactionReply:
        request = faults.read_json(StartTransactionRequest, payload, "start_transaction", path="$.payload")
        key = request.transaction_id
        known = await self._hub.transactions.find(device=self.id, key=key, limit=1)
        if known:
            if known[0].state is TransactionState.RUNNING:  # asked again: an answer was lost
                return self._started(known[0])
            raise Failed(f"transaction {key!r} has ended already")
        running = await self._hub.transactions.current(self.id)
        if running is not None:
            raise Failed(f"transaction {running.key!r} runs; stop it first")
        register = self._values.register(self._oldest())
        if register is None:
            reason = self.missing() or f"{self.settings.device} has not told its energy register within {self.settings.max_age:g} s"
            raise Failed(reason, "NOT_SUPPORTED")
        begin = mapping.boundary(self.settings.device, register)
        data: dict[str, Any] = {"meter": self.settings.device, "request": mapping.kept(request)}
        writes: list[Any] = []
        record, page, write = await self._record(request, [(begin, "B")])  # also when it is not handed out: a fault is told now, not at the stop
        if self.settings.records == "two":
            data |= {"begin_record": record, "begin_page": page, "public_key": self._signer.public.hex, "key": self._signer.public.fingerprint}
            writes.append(write)
        event = new_event("transaction.started", self.id, self._hub.clock, subject=key, data={"transaction": key, "meter": self.settings.device})
        transaction = await self._hub.transactions.begin(
            Transaction(
                id="",
                device=self.id,
                key=key,
                started=begin.time,
                location=self.settings.location,
                identification=str(request.identification_data or ""),
                begin=begin,
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
            signed_meter_value=self._signed(transaction, "begin_record") or unset,
        )

    async def _stop(self, payload: bytes) -> StopTransactionReply:
        key = _transaction_id(payload)
        if not key:
            running = await self._hub.transactions.current(self.id)
            if running is None:
                return StopTransactionReply(status="OK")
            return self._stopped(await self._end(running))
        found = await self._hub.transactions.find(device=self.id, key=key, limit=1)
        if not found:
            return await self._last(key)
        if found[0].state is TransactionState.ENDED:
            return self._stopped(found[0])
        return self._stopped(await self._end(found[0]))

    async def _last(self, key: str) -> StopTransactionReply:
        """The last record for an id that we do not know (FACTS 2.7), with a word that it is another's."""
        last = await self._hub.transactions.last(self.id)
        if last is None or "record" not in last.data:
            raise Failed(f"transaction {key!r} is not known, and there is no record of another")
        reply = self._stopped(last)
        return msgspec.structs.replace(reply, error=f"transaction {key!r} is not known; this is the last record, of {last.key!r}")

    def _stopped(self, transaction: Transaction) -> StopTransactionReply:
        record = self._signed(transaction, "record")
        if record is None:
            raise Failed(f"transaction {transaction.key!r} ended without a record: {transaction.reason or 'no reason is known'}")
        return StopTransactionReply(
            status="OK", signed_meter_value=record, start_signed_meter_value=self._signed(transaction, "begin_record") or msgspec.UNSET
        )

    def _signed(self, transaction: Transaction, name: str) -> SignedMeterValue | None:
        record = transaction.data.get(name)
        if record is None:
            return None
        moment = transaction.started if name == "begin_record" else transaction.ended or transaction.started
        return mapping.signed(record, transaction.data["public_key"], moment)

    async def _end(self, transaction: Transaction) -> Transaction:
        """Take the register, sign, keep, and only then hand out. Raises Failed; the transaction does not block the next one."""
        begin = transaction.begin
        if begin is None:
            raise await self._lose(transaction, "its begin was not kept")
        register = await self._register(begin)
        if register is None:
            raise await self._lose(transaction, f"{self.settings.device} did not tell its energy register within {PATIENCE:g} s")
        end = mapping.boundary(self.settings.device, register)
        if Decimal(mapping.register_of(end)) < Decimal(mapping.register_of(begin)):
            went = f"from {mapping.register_of(begin)} to {mapping.register_of(end)} Wh"
            raise await self._lose(transaction, f"the register of {self.settings.device} went backwards, {went}: there is no receipt")
        request = mapping.found_again(transaction.data["request"])
        readings = [(end, "E")] if "begin_record" in transaction.data else [(begin, "B"), (end, "E")]
        for _ in range(3):
            record, page, write = await self._record(request, readings)
            data = {"record": record, "page": page, "public_key": self._signer.public.hex, "key": self._signer.public.fingerprint}
            event = new_event(
                "transaction.ended", self.id, self._hub.clock, subject=transaction.key, data={"transaction": transaction.key, "page": page}
            )
            try:
                return await self._hub.transactions.end(
                    self.id, transaction.key, ended=end.time, end=end, reason="stopped", data=data, events=[event], writes=[write]
                )
            except Conflict as error:  # somebody else took this page
                log.warning("a page of the records was taken", extra={"module": self.settings.module_id, "reason": error.message})
        raise Failed("the record could not be kept: its page was taken three times")

    async def _register(self, begin: MeterReading) -> mapping.Value | None:
        """A fresh register; of a slow meter one that came after the begin. Waits for it up to ``PATIENCE`` seconds."""
        deadline = self._hub.clock.monotonic() + PATIENCE
        while True:
            register = self._values.register(self._oldest())
            if register is not None and (self.settings.max_age <= SOON or register.received > begin.received):
                return register
            left = deadline - self._hub.clock.monotonic()
            if left <= 0:
                return None
            try:
                await self._hub.clock.wait_for(self._fresh.wait(), left)
            except TimeoutError:
                return None

    async def _lose(self, transaction: Transaction, reason: str) -> Failed:
        """There is no honest receipt: say so, and let the next transaction begin. A later stop of the same id may still find its end."""
        event = new_event("ocmf.failed", self.id, self._hub.clock, subject=transaction.key, message=reason, data={"transaction": transaction.key})
        await self._hub.transactions.lose(self.id, transaction.key, reason=reason, events=[event])
        return Failed(f"transaction {transaction.key!r}: {reason}")

    async def _record(self, request: StartTransactionRequest, readings: Sequence[tuple[MeterReading, str]]) -> tuple[str, str, Any]:
        """A signed record, its page, and the write that makes sure that the page is never given twice."""
        document = await self._hub.documents.get("page", self.settings.module_id)
        last = None if document is None else msgspec.json.decode(document.body, type=str)
        page = ocmf.next_page(last)
        draft = mapping.draft(self._meter(), request, page, readings, _clock_status(), __version__)
        record = ocmf.sign(ocmf.build(draft), self._signer)
        version = 0 if document is None else document.version
        return record, page, self._hub.documents.put("page", self.settings.module_id, msgspec.json.encode(page), expect=version)


def _transaction_id(payload: bytes) -> str:
    """Both shapes of a stop: the id alone, as EVerest sends it, or the document's object (FACTS 2.2)."""
    if payload.lstrip()[:1] == b'"':
        return faults.read_json(str, payload, "stop_transaction", path="$.payload")
    return faults.read_json(messages.StopTransactionRequest, payload, "stop_transaction", path="$.payload").transaction_id


def _clock_status() -> str:
    """OCMF's letter: S when the system says that its clock is synchronised, else I (informative)."""
    return "S" if _CLOCK.exists() else "I"


def _as_reading(value: LatestValue) -> MeterReading:
    return MeterReading(
        value.device, value.time, value.received, (Reading(value.type, value.value, value.exponent, quality=value.quality),), value.source
    )
