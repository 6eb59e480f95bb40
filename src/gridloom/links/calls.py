"""Calls over a WebSocket, in both directions at once: who asks gets an answer, in order, while we may ask too (CONFORMANCE R21, R22, R24).

One task per connection reads; a second one answers and exists only while there is something to answer. Nothing here knows what a text means:
that is the ``Grammar``'s (``codecs.ocppj``), which is taken by its shape.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from gridloom.core.clock import Clock
from gridloom.core.errors import DeviceError, DeviceTimeout, Offline, Refused, Unanswered

log = logging.getLogger(__name__)

UNSUPPORTED_DATA = 1003
BINARY_FRAME = "binary-frame"
"""R24, as a fault beside those of the grammar."""
INTERNAL_ERROR = "InternalError"
"""What a peer is told of a handler that broke (R19)."""
MAX_WAITING = 16
MAX_WAITING_BYTES = 1 << 20
"""CALLs of the peer that may wait for their turn; while there are as many nothing is read."""
MAX_QUEUED = 64
"""Our own calls that may wait for their turn."""


class CallRefused(DeviceError):
    """A CALLERROR: raised by ``Calls.call`` when one came, and by a handler to send one.

    ``error_code`` as it is understood (of ``codecs.ocppj.ErrorCode``); ``details``: one JSON object; ``spelt``: the code as it came, if it came.
    """

    def __init__(self, error_code: str, description: str = "", details: bytes = b"{}", *, spelt: str = "") -> None:
        said = spelt or error_code
        super().__init__(f"{said}: {description}" if description else said)
        self.error_code = error_code
        self.spelt = spelt
        self.description = description
        self.details = details


class Socket(Protocol):
    """What is asked of a connection: ``links.websocket.Connection`` and its client twin."""

    @property
    def writable(self) -> bool:
        """Whether the peer takes what is sent."""

    async def receive(self) -> str | bytes | None:
        """The next message; None when no more will come."""

    def send(self, message: str) -> bool:
        """Send; False when it is closed."""

    async def drain(self) -> None:
        """Wait until it is writable, or closed."""

    def close(self, code: int, reason: str) -> None:
        """Begin to close."""


class HeardCall(Protocol):
    """The peer asks."""

    @property
    def kind(self) -> Literal["call"]: ...
    @property
    def id(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def fault(self) -> str | None: ...


class HeardAnswer(Protocol):
    """The peer asked, and the grammar itself has the answer."""

    @property
    def kind(self) -> Literal["answer"]: ...
    @property
    def text(self) -> str: ...
    @property
    def fault(self) -> str | None: ...


class HeardResult(Protocol):
    """The peer answers."""

    @property
    def kind(self) -> Literal["result"]: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def fault(self) -> str | None: ...


class HeardFailure(Protocol):
    """The peer refuses; ``text`` is its code as it came, ``code`` as it is understood."""

    @property
    def kind(self) -> Literal["failure"]: ...
    @property
    def code(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def details(self) -> bytes: ...
    @property
    def fault(self) -> str | None: ...


class HeardNothing(Protocol):
    """Nothing to act upon; ``close``: the code to close with, or None."""

    @property
    def kind(self) -> Literal["ignored"]: ...
    @property
    def close(self) -> int | None: ...
    @property
    def fault(self) -> str | None: ...


class Grammar(Protocol):
    """What a text means and how one is written (``codecs.ocppj.Connection``)."""

    def receive(self, message: str) -> HeardCall | HeardAnswer | HeardResult | HeardFailure | HeardNothing:
        """Never raises."""

    def next_id(self) -> str:
        """For our next CALL."""

    def call(self, id: str, action: str, payload: bytes) -> str:
        """Our CALL."""

    def timed_out(self, id: str) -> None:
        """Nobody waits for the answer to our CALL any more."""

    def result(self, id: str, payload: bytes) -> str:
        """Our CALLRESULT."""

    def error(self, id: str, code: str, description: str, details: bytes) -> str:
        """Our CALLERROR."""


Handler = Callable[[str, bytes], Awaitable[bytes]]


def _not_counted(fault: str) -> None:
    """For those who do not count faults."""


class Calls:
    """The calls of one connection. ``await run()`` until the connection ends; meanwhile ``await call(…)`` from any task, handlers included.

    ``answer(action, payload)`` is the handler of what the peer asks: it returns the payload of the CALLRESULT, or raises CallRefused. One CALL is
    handled after the other, and answered in that order. What a handler starts as a task or by ``loop.call_soon`` just before it returns comes
    after its answer. What it raises else is logged and answered InternalError, without a word of it.

    While ``max_waiting`` CALLs or ``max_waiting_bytes`` wait nothing is read: then the answer to a call of our own waits behind them too, at most
    until its time-out. ``device`` names the peer in errors and logs. ``on_fault(name)`` is told of each thing that was wrong: names of the
    grammar's faults, and ``binary-frame``.
    """

    __slots__ = (
        "_answer", "_bytes", "_clock", "_device", "_ended", "_grammar", "_max_queued", "_max_waiting", "_max_waiting_bytes", "_on_fault",
        "_outstanding", "_queued", "_room", "_socket", "_timeout", "_turn", "_waiting", "_worker",
    )  # fmt: skip

    def __init__(
        self,
        socket: Socket,
        grammar: Grammar,
        *,
        clock: Clock,
        answer: Handler,
        device: str = "the peer",
        timeout: float = 30.0,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        max_queued: int = MAX_QUEUED,
        on_fault: Callable[[str], None] = _not_counted,
    ) -> None:
        self._socket = socket
        self._grammar = grammar
        self._clock = clock
        self._answer = answer
        self._device = device
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._max_queued = max_queued
        self._on_fault = on_fault
        self._waiting: list[HeardCall | HeardAnswer] = []  # short; a deque takes 600 bytes, and most connections are idle
        self._turn: asyncio.Lock | None = None
        self._bytes = 0
        self._room: asyncio.Future[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._outstanding: asyncio.Future[bytes] | None = None
        self._queued = 0
        self._ended = False

    # ---------------------------------------------------------------------------------------------------------- the peer asks

    async def run(self) -> None:
        """Read and answer until the connection ends. Then every call that waits raises Offline, and the handler that runs is waited for
        (at most ``timeout``); CALLs that nobody has looked at are dropped: they were not answered.
        """
        try:
            await self._listen()
            self._end()
            if self._worker is not None:
                await self._clock.wait_for(self._worker, self._timeout)
        except TimeoutError:
            log.warning("a handler did not finish after its connection ended, and is cancelled", extra={"device": self._device})
        finally:
            self._end()
            if self._worker is not None:
                self._worker.cancel()

    async def _listen(self) -> None:
        while (message := await self._socket.receive()) is not None:
            if isinstance(message, bytes):
                self._on_fault(BINARY_FRAME)
                self._socket.close(UNSUPPORTED_DATA, "messages are text")
                return
            heard = self._grammar.receive(message)
            if heard.fault is not None:
                self._on_fault(heard.fault)
            if heard.kind == "call" or heard.kind == "answer":
                await self._wait_in_line(heard)
            elif heard.kind == "ignored":
                if heard.close is not None:
                    self._socket.close(heard.close, heard.fault or "")
                    return
            else:
                self._hand_over(heard)

    async def _wait_in_line(self, heard: HeardCall | HeardAnswer) -> None:
        self._waiting.append(heard)
        self._bytes += _size(heard)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        while len(self._waiting) >= self._max_waiting or self._bytes >= self._max_waiting_bytes:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def _work(self) -> None:
        try:
            while self._waiting:
                heard = self._waiting.pop(0)
                self._bytes -= _size(heard)
                self._read_on()
                text = heard.text if heard.kind == "answer" else await self._handle(heard)
                if not self._socket.send(text):
                    self._drop()  # nobody is there to be answered
                elif not self._socket.writable:
                    await self._socket.drain()
        finally:
            self._worker = None

    def _read_on(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _drop(self) -> None:
        self._waiting.clear()
        self._bytes = 0
        self._read_on()

    async def _handle(self, call: HeardCall) -> str:
        try:
            return self._grammar.result(call.id, await self._answer(call.action, call.payload))
        except CallRefused as refused:
            return self._grammar.error(call.id, refused.error_code, refused.description, refused.details)
        except asyncio.CancelledError:
            worker = asyncio.current_task()
            if worker is None or worker.cancelling():
                raise
            log.exception("what a call waited for was cancelled", extra={"device": self._device, "action": call.action})
        except Exception:  # a handler that breaks must not end the connection, nor tell a stranger why
            log.exception("a call could not be handled", extra={"device": self._device, "action": call.action})
        return self._grammar.error(call.id, INTERNAL_ERROR, "the call could not be handled", b"{}")

    # ------------------------------------------------------------------------------------------------------------- we ask

    async def call(self, action: str, payload: bytes, *, timeout: float | None = None) -> bytes:
        """Ask the peer; the payload of its CALLRESULT. One at a time, first come first served; ``timeout`` (seconds) runs from the sending.

        Raises CallRefused when a CALLERROR came (``error_code`` as it is understood), DeviceTimeout, Unanswered when the connection ended before
        the answer, Offline when there was none to send it on, Refused when ``max_queued`` wait already.
        """
        if self._queued > self._max_queued:
            raise Refused(f"{self._device}: {action} cannot wait: {self._max_queued} calls do already")
        if self._turn is None:
            self._turn = asyncio.Lock()
        self._queued += 1
        try:
            async with self._turn:
                return await self._ask(action, payload, self._timeout if timeout is None else timeout)
        finally:
            self._queued -= 1

    async def _ask(self, action: str, payload: bytes, timeout: float) -> bytes:
        if self._ended:  # the socket may still be open, but nobody would read the answer
            raise self._offline(action)
        id = self._grammar.next_id()
        text = self._grammar.call(id, action, payload)
        outstanding: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._outstanding = outstanding
        try:
            if not self._socket.send(text):
                raise self._offline(action)
            return await self._clock.wait_for(outstanding, timeout)
        except TimeoutError:
            raise DeviceTimeout(f"{self._device}: no answer to {action} within {timeout:g} s") from None
        finally:
            self._outstanding = None
            self._grammar.timed_out(id)

    def _hand_over(self, heard: HeardResult | HeardFailure) -> None:
        if self._outstanding is None or self._outstanding.done():
            return
        if heard.kind == "result":
            self._outstanding.set_result(heard.payload)
        else:
            self._outstanding.set_exception(CallRefused(heard.code, heard.description, heard.details, spelt=heard.text))

    def _offline(self, action: str) -> Offline:
        return Offline(f"{self._device}: {action} was not sent: the connection has ended")

    def _end(self) -> None:
        self._ended = True
        self._drop()
        if self._outstanding is not None and not self._outstanding.done():
            self._outstanding.set_exception(Unanswered(f"{self._device}: the connection ended before the answer came"))


def _size(heard: HeardCall | HeardAnswer) -> int:
    return len(heard.text) if heard.kind == "answer" else len(heard.payload)
