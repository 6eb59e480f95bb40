"""EVerest's side of the wire, simulated: its powermeter API module and the EvseManager behind it, as strict and as patient as the real ones.

For users who have no EVerest at hand, for demos and for tests. Behaviour as FACTS 2.2 to 2.7: heartbeats from 0, the fault until the first
communication check, "stop whatever runs" at the start, bare strings as stop requests, replies taken in any number until one can be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import TypeVar

import msgspec

from gridloom.core.clock import Clock
from gridloom.integrations.everest import messages
from gridloom.integrations.everest.messages import Powermeter, StartTransactionReply, StartTransactionRequest, StopTransactionReply
from gridloom.integrations.everest.module import Wire

log = logging.getLogger(__name__)

FIRST_VALUE = 5.0
"""Seconds that the EvseManager waits for a first value (``initial_meter_value_timeout_ms``)."""
INITIAL = "Initial communication check"
LOST = "Bridge to implementation connection lost"

T = TypeVar("T")
R = TypeVar("R", StartTransactionReply, StopTransactionReply)


class Everest:
    """One powermeter API module and the EvseManager that uses it.

    ``tell`` hears in words what happens. ``check_timeout`` is ``cfg_communication_check_to_s`` (0: off), ``heartbeat``
    ``cfg_heartbeat_interval_ms`` in seconds, ``reply_timeout`` how long a reply is waited for (EVerest: at most 300 s).
    """

    def __init__(
        self,
        wire: Wire,
        module_id: str,
        clock: Clock,
        *,
        prefix: str = "",
        check_timeout: float = 5.0,
        heartbeat: float = 1.0,
        reply_timeout: float = 300.0,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.values: Powermeter | None = None
        self.public_key: str | None = None
        self.fault: str | None = INITIAL if check_timeout > 0 else None
        """The sub-type of the fault that makes the EVSE inoperative, or None."""
        self.session: str | None = None
        """The id of a session that was open when this EVerest went down; it is stopped at the start."""
        self._wire, self._clock, self._prefix = wire, clock, prefix
        self._base = f"{prefix}everest_api/1/powermeter/{module_id}/"
        self._own = f"everest_api/1/powermeter/{module_id}/"  # replyTo is said without the prefix
        self._check_timeout, self._heartbeat, self._reply_timeout = check_timeout, heartbeat, reply_timeout
        self._tell = tell
        self._checked = clock.monotonic()
        self._checking = check_timeout > 0
        self._waiting: dict[str, tuple[type[msgspec.Struct], asyncio.Future[msgspec.Struct]]] = {}
        self._value_came = asyncio.Event()
        wire.subscribe(self._base + "m2e/powermeter_values", self._hear_values)
        wire.subscribe(self._base + "m2e/public_key_ocmf", self._hear_key)
        wire.subscribe(self._base + "m2e/communication_check", self._hear_check)
        wire.subscribe(self._base + "m2e/reply/+", self._hear_reply)

    # -------------------------------------------------------------------------------------------------------- EvseManager

    async def run(self) -> None:
        """Heartbeats and the watch over the communication check, for ever. Ask for the start-up with ``boot`` beside it."""
        number = 0
        last = -self._heartbeat
        while True:
            now = self._clock.monotonic()
            if self._heartbeat > 0 and now - last >= self._heartbeat:
                self._wire.send(self._base + "e2m/heartbeat", str(number))
                number, last = number + 1, now
            if self._checking and now - self._checked >= self._check_timeout and self.fault is None:
                self._raise(LOST)
            await self._clock.sleep(0.1)

    async def boot(self) -> None:
        """What the EvseManager does first: stop what was left over, and whatever runs; then wait a moment for a value."""
        if self.session is not None:
            await self.stop(self.session)
            self.session = None
        await self.stop("")
        try:
            await self._clock.wait_for(self._value_came.wait(), FIRST_VALUE)
        except TimeoutError:
            self._tell(f"no value within {FIRST_VALUE:g} s")

    async def start(self, request: StartTransactionRequest) -> StartTransactionReply:
        """Begin a transaction. A reply that does not come is UNEXPECTED_ERROR without words, as EVerest has it."""
        reply = await self._ask("start_transaction", messages.encode(request), StartTransactionReply)
        self.session = request.transaction_id if reply.status != "UNEXPECTED_ERROR" else None
        return reply

    async def stop(self, transaction_id: str) -> StopTransactionReply:
        """End it; the id goes out as a bare string, contrary to the document (FACTS 2.2)."""
        reply = await self._ask("stop_transaction", msgspec.json.encode(transaction_id), StopTransactionReply)
        if transaction_id == self.session:
            self.session = None
        return reply

    # ------------------------------------------------------------------------------------------------------- the API module

    async def _ask(self, what: str, payload: bytes, kind: type[R]) -> R:
        name = str(uuid.uuid4())
        answer: asyncio.Future[msgspec.Struct] = asyncio.get_running_loop().create_future()
        self._waiting[name] = (kind, answer)
        where = msgspec.json.encode(f"{self._own}m2e/reply/{name}")
        self._wire.send(f"{self._base}e2m/{what}", b'{"headers":{"replyTo":' + where + b'},"payload":' + payload + b"}")
        try:
            found = await self._clock.wait_for(answer, self._reply_timeout)
        except TimeoutError:
            return kind(status="UNEXPECTED_ERROR")
        finally:
            del self._waiting[name]
        assert isinstance(found, kind)
        return found

    def _hear_reply(self, topic: str, payload: bytes) -> None:
        waiting = self._waiting.get(topic.rpartition("/")[2])
        if waiting is None:
            self._tell("a reply that nobody waits for was dropped")
            return
        kind, answer = waiting
        reply = self._decoded(topic, payload, kind)
        if reply is None:  # EVerest goes on waiting: a corrected second reply still works (FACTS 2.3)
            return
        if answer.done():
            self._tell("a second reply was ignored")
        else:
            answer.set_result(reply)

    def _hear_values(self, topic: str, payload: bytes) -> None:
        values = self._decoded(topic, payload, Powermeter)
        if values is not None:
            self.values = values
            self._value_came.set()

    def _hear_key(self, topic: str, payload: bytes) -> None:
        self.public_key = self._decoded(topic, payload, str) or self.public_key

    def _hear_check(self, topic: str, payload: bytes) -> None:
        alive = self._decoded(topic, payload, bool)
        if alive is None or not self._checking:
            return
        self._checked = self._clock.monotonic()
        self._checking = alive  # false clears the fault and ends the watch for good (FACTS 2.6)
        if self.fault is not None:
            self._tell(f"fault cleared: {self.fault}")
            self.fault = None

    def _raise(self, fault: str) -> None:
        self.fault = fault
        self._tell(f"fault powermeter/CommunicationFault: {fault}; the EVSE is inoperative")

    def _decoded(self, topic: str, payload: bytes, kind: type[T]) -> T | None:
        with contextlib.suppress(msgspec.DecodeError):
            return messages.decode(kind, payload)
        self._tell(f"Invalid data: Deserialization failed: {topic} {payload[:200]!r}")
        return None


def request(transaction_id: str = "", *, token: str, evse_id: str = "DE*PNX*E12345*1") -> StartTransactionRequest:
    """A start request with the members that the EvseManager fills today (FACTS 2.7)."""
    return StartTransactionRequest(
        evse_id=evse_id,
        transaction_id=transaction_id or str(uuid.uuid4()),
        identification_status="ASSIGNED",
        identification_type="ISO14443",
        identification_flags=(),
        identification_data=token,
    )
