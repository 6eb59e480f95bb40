"""links/calls over real WebSockets: our server's side with the grammar of ``codecs.ocppj``, and the ``websockets`` library as the station."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gridloom.codecs import ocppj
from gridloom.core.clock import Clock
from gridloom.core.errors import DeviceTimeout, GridloomError, Offline, Refused, Unanswered
from gridloom.links.calls import CallRefused, Calls, Grammar, Socket
from gridloom.links.websocket import Accept, Connection, WebSocketServer

Handler = Callable[[str, bytes], Awaitable[bytes]]


async def echo(action: str, payload: bytes) -> bytes:
    return payload


class Pair:
    """A station (foreign, raw) and our ``Calls`` at the other end of a real line."""

    def __init__(self, station: ClientConnection, calls: Calls, server: WebSocketServer, faults: list[str], done: asyncio.Event) -> None:
        self.station = station
        self.calls = calls
        self.server = server
        self.faults = faults
        self.done = done

    async def say(self, *message: Any) -> None:
        await self.station.send(json.dumps(message))

    async def hear(self) -> Any:
        return json.loads(await asyncio.wait_for(self.station.recv(), 5))

    async def hear_nothing(self) -> None:
        """The line is there and nothing but the answer to this comes."""
        await self.say(2, "probe", "Probe", {})
        assert await self.hear() == [3, "probe", {}]


Join = Callable[..., Awaitable[Pair]]


@pytest.fixture
async def join() -> AsyncIterator[Join]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(answer: Handler = echo, **more: Any) -> Pair:
            made: list[Calls] = []
            faults: list[str] = []
            done = asyncio.Event()

            async def serve(connection: Connection) -> None:
                made.append(Calls(connection, ocppj.Connection(max_message=10_000), clock=Clock(), answer=answer, on_fault=faults.append, **more))
                try:
                    await made[0].run()
                finally:
                    done.set()

            server = WebSocketServer("127.0.0.1", 0, serve, admit=lambda request: Accept(), key="test.listen", clock=Clock(), max_message=20_000)
            stack.push_async_callback(server.stop)
            where = await server.start()
            station = await stack.enter_async_context(connect(f"ws://{where}/", compression=None))
            while not made:
                await asyncio.sleep(0.001)
            return Pair(station, made[0], server, faults, done)

        yield make


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come true")


def test_the_grammar_and_the_connection_fit(join: Join) -> None:
    """By their shape; mypy checks the rest."""
    grammar: Grammar = ocppj.Connection()
    kind: type[Socket] = Connection
    assert grammar.next_id()
    assert kind is Connection


# ------------------------------------------------------------------------------------------------------------- the peer asks


async def test_a_call_is_answered(join: Join) -> None:
    pair = await join()
    await pair.say(2, "7", "DataTransfer", {"data": "é"})
    assert await pair.hear() == [3, "7", {"data": "é"}]
    assert pair.faults == []


async def test_R21_pipelined_calls_are_handled_one_by_one_and_answered_in_order(join: Join) -> None:
    running = 0

    async def slow_first(action: str, payload: bytes) -> bytes:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.02 if action == "Slow" else 0)
        running -= 1
        return b"{}"

    pair = await join(slow_first)
    await pair.say(2, "0", "Slow", {})
    for number in range(1, 40):
        await (pair.say(2, str(number), "Quick", {}) if number % 3 else pair.say(2, str(number)))
    answers = [await pair.hear() for _ in range(40)]
    assert [answer[1] for answer in answers] == [str(number) for number in range(40)]
    assert [answer[0] for answer in answers[:4]] == [3, 3, 3, 4]


async def test_R15_a_duplicate_in_progress_does_not_touch_the_first(join: Join) -> None:
    handled = []

    async def slow(action: str, payload: bytes) -> bytes:
        handled.append(action)
        await asyncio.sleep(0.02)
        return b'{"first":true}'

    pair = await join(slow)
    await pair.say(2, "7", "First", {})
    await pair.say(2, "7", "Second", {})
    assert await pair.hear() == [3, "7", {"first": True}]
    assert (await pair.hear())[:3] == [4, "7", "GenericError"]
    assert (handled, pair.faults) == (["First"], ["id-in-progress"])


async def test_what_the_grammar_ignores_is_counted_and_the_line_stays(join: Join) -> None:
    pair = await join()
    for text in ("{", "[9]", '[3,"9",{}]', '[2,7,"A",{}]'):
        await pair.station.send(text)
    await pair.hear_nothing()
    assert pair.faults == ["not-json", "unknown-type", "unknown-answer", "no-id"]


async def test_R23_a_message_above_the_limit_closes_with_1009(join: Join) -> None:
    pair = await join()
    await pair.station.send("x" * 10_001)
    with pytest.raises(ConnectionClosed) as closed:
        await pair.hear()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, pair.faults) == (1009, ["too-big"])


async def test_R24_a_binary_frame_closes_with_1003(join: Join) -> None:
    pair = await join()
    await pair.station.send(b'[2,"7","Heartbeat",{}]')
    with pytest.raises(ConnectionClosed) as closed:
        await pair.hear()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, pair.faults) == (1003, ["binary-frame"])


async def test_a_handler_refuses_with_code_and_details(join: Join) -> None:
    async def refuse(action: str, payload: bytes) -> bytes:
        raise CallRefused("TypeConstraintViolation", "$.a: expected a string", b'{"path":"$.a"}')

    pair = await join(refuse)
    await pair.say(2, "7", "Any", {})
    assert await pair.hear() == [4, "7", "TypeConstraintViolation", "$.a: expected a string", {"path": "$.a"}]


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError])
async def test_R19_a_handler_that_breaks_is_an_internal_error_that_tells_nothing(
    join: Join, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """It is logged. A task of somebody else that was cancelled breaks the handler that waits for it, not the connection."""

    async def broken(action: str, payload: bytes) -> bytes:
        if action == "Broken":
            raise error("the secret")
        return b"{}"

    pair = await join(broken, device="os3p:SUBS 1")
    with caplog.at_level(logging.ERROR):
        await pair.say(2, "7", "Broken", {})
        answer = await pair.hear()
    assert answer[:3] == [4, "7", "InternalError"]
    assert answer[4] == {}
    assert "secret" not in json.dumps(answer)
    assert [record.__dict__["device"] for record in caplog.records] == ["os3p:SUBS 1"]
    await pair.hear_nothing()


@pytest.mark.parametrize(("limits", "accepted"), [({"max_waiting": 3}, 4), ({"max_waiting_bytes": 2_000}, 3)])
async def test_a_flood_is_not_read_while_too_much_waits(join: Join, limits: dict[str, int], accepted: int) -> None:
    """``accepted``: one that is handled, and those that wait; the rest stays on the line and is answered later."""
    gate = asyncio.Event()

    async def held(action: str, payload: bytes) -> bytes:
        await gate.wait()
        return b"{}"

    pair = await join(held, **limits)
    for number in range(20):
        await pair.say(2, str(number), "Flood", {"data": "x" * 990})
    await until(lambda: pair.calls._room is not None)
    await asyncio.sleep(0.02)
    assert len(pair.calls._waiting) + 1 == accepted
    gate.set()
    assert [(await pair.hear())[1] for _ in range(20)] == [str(number) for number in range(20)]


class Unread:
    """A socket on which ten CALLs came from one who reads nothing."""

    def __init__(self) -> None:
        self.writable = False
        self.read = asyncio.Event()
        self.sent: list[str] = []
        self._messages = [f'[2,"{number}","Any",{{}}]' for number in range(10)]

    async def receive(self) -> str | bytes | None:
        return self._messages.pop(0) if self._messages else None

    def send(self, message: str) -> bool:
        self.sent.append(message)
        return True

    async def drain(self) -> None:
        await self.read.wait()

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(f"closed: {code} {reason}")


async def test_who_does_not_read_his_answers_is_not_answered_any_more() -> None:
    socket = Unread()
    calls = Calls(socket, ocppj.Connection(), clock=Clock(), answer=echo, max_waiting=4)
    running = asyncio.create_task(calls.run())
    await until(lambda: calls._room is not None)
    await asyncio.sleep(0.01)
    assert len(socket.sent) == 1
    socket.writable = True
    socket.read.set()
    await asyncio.wait_for(running, 5)
    assert len(socket.sent) >= 7, "all but those that waited when the line ended"


async def test_what_a_handler_starts_comes_after_its_answer(join: Join) -> None:
    """TriggerMessage is answered before the message that it triggers is sent (S4)."""
    started = []

    async def trigger(action: str, payload: bytes) -> bytes:
        started.append(asyncio.create_task(pair.calls.call("StatusNotification", b"{}")))
        return b'{"status":"Accepted"}'

    pair = await join(trigger)
    await pair.say(2, "7", "TriggerMessage", {})
    assert await pair.hear() == [3, "7", {"status": "Accepted"}]
    kind, id, action, _ = await pair.hear()
    assert (kind, action) == (2, "StatusNotification")
    await pair.say(3, id, {})
    assert await started[0] == b"{}"


# -------------------------------------------------------------------------------------------------------------------- we ask


async def test_our_call_is_answered(join: Join) -> None:
    pair = await join()
    call = asyncio.create_task(pair.calls.call("Reset", b'{"type":"Hard"}'))
    kind, id, action, payload = await pair.hear()
    assert (kind, action, payload) == (2, "Reset", {"type": "Hard"})
    await pair.say(3, id, {"status": "Accepted"})
    assert json.loads(await call) == {"status": "Accepted"}


async def test_a_refusal_of_the_peer_is_an_error_with_its_code(join: Join) -> None:
    pair = await join()
    call = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    _, id, *_ = await pair.hear()
    await pair.say(4, id, "NotSupported", "no", {"a": 1})
    with pytest.raises(CallRefused, match="NotSupported: no") as refused:
        await call
    assert (refused.value.error_code, refused.value.description, json.loads(refused.value.details)) == ("NotSupported", "no", {"a": 1})
    assert isinstance(refused.value, GridloomError)


async def test_a_truncated_refusal_does_not_leave_the_caller_waiting(join: Join) -> None:
    pair = await join()
    call = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    _, id, *_ = await pair.hear()
    await pair.say(4, id)
    with pytest.raises(CallRefused) as refused:
        await call
    assert (refused.value.error_code, pair.faults) == ("GenericError", ["missing-element"])


async def test_an_unknown_code_is_a_generic_error_and_is_shown_as_spelt(join: Join) -> None:
    pair = await join()
    call = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    _, id, *_ = await pair.hear()
    await pair.say(4, id, "MyOwnError", "no", {})
    with pytest.raises(CallRefused, match="MyOwnError: no") as refused:
        await call
    assert (refused.value.error_code, refused.value.spelt, pair.faults) == ("GenericError", "MyOwnError", ["unknown-code"])


async def test_R21_one_of_our_calls_is_outstanding_the_others_wait_first_come_first_served(join: Join) -> None:
    pair = await join()
    tasks = [asyncio.create_task(pair.calls.call(f"Call{number}", b"{}")) for number in range(5)]
    for number in range(5):
        _, id, action, _ = await pair.hear()
        assert action == f"Call{number}"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pair.station.recv(), 0.01)
        await pair.say(3, id, {"number": number})
    assert [json.loads(answer) for answer in await asyncio.gather(*tasks)] == [{"number": number} for number in range(5)]


async def test_R21_a_handler_may_itself_ask_and_the_peer_is_answered_while_we_wait(join: Join) -> None:
    async def asks(action: str, payload: bytes) -> bytes:
        return await pair.calls.call("GetConfiguration", b"{}") if action == "BootNotification" else b"{}"

    pair = await join(asks)
    await pair.say(2, "7", "BootNotification", {})
    _, id, action, _ = await pair.hear()
    assert action == "GetConfiguration"
    await pair.say(2, "8", "Heartbeat", {})
    await pair.say(3, id, {"from": "the station"})
    assert await pair.hear() == [3, "7", {"from": "the station"}]
    assert await pair.hear() == [3, "8", {}]

    ours = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    _, id, *_ = await pair.hear()
    await pair.hear_nothing()
    await pair.say(3, id, {})
    assert await ours == b"{}"


async def test_R22_a_time_out_fails_that_call_only_and_a_late_answer_is_ignored(join: Join) -> None:
    pair = await join(timeout=0.05, device="os3p:SUBS 1")
    late, next = (asyncio.create_task(pair.calls.call(action, b"{}", timeout=timeout)) for action, timeout in (("Late", None), ("Next", 5)))
    _, id, *_ = await pair.hear()
    with pytest.raises(DeviceTimeout, match=r"os3p:SUBS 1: no answer to Late within 0\.05 s"):
        await late
    _, second, action, _ = await pair.hear()
    assert action == "Next"
    await pair.say(3, id, {"late": True})
    await pair.say(3, second, {"late": False})
    assert json.loads(await next) == {"late": False}
    assert pair.faults == ["unknown-answer"]


async def test_a_caller_that_gives_up_leaves_the_line_free(join: Join) -> None:
    pair = await join()
    call = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    await pair.hear()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    again = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    _, id, *_ = await pair.hear()
    await pair.say(3, id, {})
    assert await again == b"{}"


async def test_an_answer_that_comes_in_the_moment_of_giving_up_is_dropped(join: Join) -> None:
    pair = await join()
    call = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    await pair.hear()
    assert pair.calls._outstanding is not None
    pair.calls._outstanding.cancel()
    pair.calls._hand_over(ocppj.Result("1", b"{}"))
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_too_many_of_our_calls_are_refused(join: Join) -> None:
    pair = await join(max_queued=2, device="os3p:SUBS 1")
    tasks = [asyncio.create_task(pair.calls.call("Reset", b"{}")) for _ in range(3)]
    await pair.hear()
    with pytest.raises(Refused, match="os3p:SUBS 1: Reset cannot wait: 2"):
        await pair.calls.call("Reset", b"{}")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    again = asyncio.create_task(pair.calls.call("Reset", b"{}"))
    _, id, *_ = await pair.hear()
    await pair.say(3, id, {})
    assert await again == b"{}"


# ------------------------------------------------------------------------------------------------------------------- the end


async def test_when_the_connection_ends_what_was_sent_is_unanswered_and_what_waits_is_offline(join: Join) -> None:
    """Offline says that nothing was sent; of a Reset that went out nobody may say so."""
    pair = await join()
    tasks = [asyncio.create_task(pair.calls.call("Reset", b"{}")) for _ in range(3)]
    await pair.hear()
    await pair.station.close()
    with pytest.raises(Unanswered):
        await asyncio.wait_for(tasks[0], 5)
    for task in tasks[1:]:
        with pytest.raises(Offline):
            await asyncio.wait_for(task, 5)
    with pytest.raises(Offline):
        await pair.calls.call("Reset", b"{}")
    await asyncio.wait_for(pair.done.wait(), 5)


async def test_a_handler_that_asks_when_the_connection_ends_goes_on_and_what_waits_is_dropped(join: Join) -> None:
    ended: list[str] = []

    async def asks(action: str, payload: bytes) -> bytes:
        try:
            return await pair.calls.call("GetConfiguration", b"{}")
        except Unanswered:
            ended.append(action)
            raise

    pair = await join(asks)
    await pair.say(2, "7", "BootNotification", {})
    await pair.say(2, "8", "Heartbeat", {})
    await pair.hear()
    await until(lambda: len(pair.calls._waiting) == 1)
    await pair.station.close()
    await asyncio.wait_for(pair.done.wait(), 5)
    assert ended == ["BootNotification"]


async def test_a_flooded_connection_ends_too(join: Join) -> None:
    gate = asyncio.Event()
    handled = []

    async def held(action: str, payload: bytes) -> bytes:
        handled.append(action)
        await gate.wait()
        return b"{}"

    pair = await join(held, max_waiting=2)
    for number in range(10):
        await pair.say(2, str(number), "Flood", {})
    await until(lambda: pair.calls._room is not None)
    await pair.station.close()
    gate.set()
    await asyncio.wait_for(pair.done.wait(), 5)
    assert len(handled) == 1


async def test_a_handler_that_never_ends_is_cancelled_after_the_time_out(join: Join, caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def forever(action: str, payload: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b"{}"

    pair = await join(forever, timeout=0.05)
    await pair.say(2, "7", "Any", {})
    await until(lambda: pair.calls._worker is not None)
    await pair.station.close()
    await asyncio.wait_for(pair.done.wait(), 5)
    assert cancelled.is_set()
    assert "is cancelled" in caplog.text


async def test_who_stops_us_stops_the_handler_too(join: Join) -> None:
    cancelled = asyncio.Event()

    async def forever(action: str, payload: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b"{}"

    pair = await join(forever)
    await pair.say(2, "7", "Any", {})
    await until(lambda: pair.calls._worker is not None)
    for task in pair.server._tasks.values():
        task.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)
    with pytest.raises(Offline):  # the line is still open, but nobody reads it
        await asyncio.wait_for(pair.calls.call("Reset", b"{}"), 5)


async def test_idle_there_is_no_task_but_the_one_that_reads(join: Join) -> None:
    pair = await join()
    before = len(asyncio.all_tasks())
    await pair.say(2, "7", "Any", {})
    await pair.hear()
    await until(lambda: pair.calls._worker is None)
    gc.collect()
    assert len(asyncio.all_tasks()) == before
    assert pair.calls._outstanding is None
