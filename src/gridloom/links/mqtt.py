"""MQTT: one connection to a broker, kept for ever. Whoever holds it subscribes once and is heard again after every outage.

aiomqtt (on paho) is the driver, imported when the first link starts. What is sent while there is no connection is dropped and counted: a
measured value that comes late is worse than none, and what must stand on a broker is sent again by ``on_connect``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.links.backoff import Backoff

if TYPE_CHECKING:
    import aiomqtt

log = logging.getLogger(__name__)

QUEUE = 1_000
"""Messages that wait for a broker that takes them slowly; beyond, the oldest is dropped."""
KEEPALIVE = 15
"""Seconds; a broker that is silent for one and a half times as long is taken for dead."""
LEVELS = 200
"""Levels of a topic that every broker takes (Mosquitto's own limit)."""
_TIMEOUT = 10.0
_LONGEST = 65_535
_REFUSED = 0x80

Handler = Callable[[str, bytes], None]
"""Told the topic and the payload of a message; quick and synchronous."""


class Will(NamedTuple):
    """What the broker says for us when we are gone without a word."""

    topic: str
    payload: bytes
    retain: bool = True


class _Message(NamedTuple):
    """``done``: told whether the broker acknowledged it, where somebody waits for that."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    done: asyncio.Future[bool] | None = None


class Broker(NamedTuple):
    """Where a broker is. ``url`` is as the owner wrote it, without credentials."""

    url: str
    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"Broker({self.url})"


def broker(text: str) -> Broker:
    """The parts of ``mqtt://[user:password@]host[:port]`` or ``mqtts://…``. Raises ValueError that says what is wrong, without the credentials."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("the port is not a number from 0 to 65535") from None
    if parts.scheme not in ("mqtt", "mqtts"):
        raise ValueError("it does not begin with mqtt:// or mqtts://")
    if not parts.hostname:
        raise ValueError("it names no host")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("there is something behind the port")
    tls = parts.scheme == "mqtts"
    port = port or (8883 if tls else 1883)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    username, password = (None if word is None else unquote(word) for word in (parts.username, parts.password))
    return Broker(f"{parts.scheme}://{host}:{port}", parts.hostname, port, tls, username, password)


def topic_fault(topic: str) -> str:
    """Why a topic cannot be published to, or empty. A broker may end the whole connection for one such topic."""
    try:
        length = len(topic.encode())
    except UnicodeEncodeError:
        return "it is not Unicode"
    if not 0 < length <= _LONGEST:
        return f"expected 1 to {_LONGEST} bytes, got {length}"
    if "+" in topic or "#" in topic:
        return "it has a wildcard"
    if topic.count("/") >= LEVELS:
        return f"expected at most {LEVELS} levels, got {topic.count('/') + 1}"
    wrong = next((sign for sign in topic if unicodedata.category(sign) == "Cc" or _is_no_character(ord(sign))), None)
    return "" if wrong is None else f"it has the forbidden character U+{ord(wrong):04X}"


def _is_no_character(code: int) -> bool:
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


class Mqtt:
    """A connection to ``broker``; ``client_id`` is unique on it. Starts at once and connects for ever, with a back-off.

    ``ca_file``: whom to trust with ``mqtts://`` instead of the machine's authorities. ``will`` is left with the broker at each connect.
    """

    def __init__(self, broker: Broker, *, client_id: str, clock: Clock, random: Random, ca_file: str | None = None, will: Will | None = None) -> None:
        self.broker = broker
        self.connected = False
        self.reason = "not connected yet"
        """Why it is not connected, or what the broker refuses to let us hear; else empty."""
        self.dropped = 0
        """Messages that could not be sent: no connection, a broker that takes them too slowly or not at all, a topic that MQTT forbids."""
        self._client_id = client_id
        self._clock = clock
        self._ca_file = ca_file
        self._will = will
        self._backoff = Backoff(clock, random, first=0.5, cap=30.0, stable=10.0)
        self._handlers: dict[str, list[tuple[Handler, bool]]] = {}
        self._wild: list[str] = []
        self._callbacks: list[Callable[[], None]] = []
        self._waiting: deque[_Message] = deque()
        self._unanswered: set[asyncio.Task[None]] = set()
        self._refused = ""
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    # ------------------------------------------------------------------------------------------------------------ use

    def subscribe(self, topic: str, handler: Handler, *, kept: bool = True) -> None:
        """Hear ``topic`` (wildcards allowed) at QoS 0. Call before ``start``.

        ``kept`` false: not what the broker had kept for us (a retained message): an order from yesterday is none.
        """
        self._handlers.setdefault(topic, []).append((handler, kept))
        if "+" in topic or "#" in topic:
            self._wild.append(topic)

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call at each connection, after the subscriptions are in force."""
        self._callbacks.append(callback)

    def send(self, topic: str, payload: bytes | str, *, qos: int = 0, retain: bool = False) -> bool:
        """Hand a message to the connection; never waits. False when there is none, or for a topic that MQTT forbids: the message is dropped."""
        return self._put(_Message(topic, payload.encode() if isinstance(payload, str) else payload, qos, retain))

    async def deliver(self, topic: str, payload: bytes | str, *, retain: bool = False) -> bool:
        """Send at QoS 1 and wait: True when the broker has acknowledged it. False: it has not, or not in time, or there is no connection."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._put(_Message(topic, payload.encode() if isinstance(payload, str) else payload, 1, retain, done))
        return await done

    def _put(self, message: _Message) -> bool:
        fault = topic_fault(message.topic)
        if fault:
            log.warning("mqtt: a message that cannot be sent", extra={"broker": self.broker.url, "topic": repr(message.topic[:200]), "reason": fault})
        if fault or not self.connected:
            self._drop(message)
            return False
        if len(self._waiting) >= QUEUE:
            self._drop(self._waiting.popleft())
        self._waiting.append(message)
        self._more.set()
        return True

    def _drop(self, message: _Message) -> None:
        self.dropped += 1
        _tell(message, False)

    # ----------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Begin to connect; does not wait for it. Raises ConfigurationError when the authorities' file cannot be used."""
        context = self._context()
        self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._keep(context))

    async def wait(self) -> None:
        """Until it is stopped, or failed in a way that it should not."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Say goodbye to the broker. What waits is given a second to leave; the rest is counted and logged. Never raises."""
        if self._task is None:
            return
        for _ in range(20):
            if not (self.connected and (self._waiting or self._unanswered)):
                break
            await self._clock.sleep(0.05 * self._clock.speed)  # the broker's time does not run faster
        self._stopping = True
        left = len(self._waiting) + len(self._unanswered)
        if left:
            log.warning("mqtt: stopped before everything was sent", extra={"broker": self.broker.url, "messages": left})
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    # --------------------------------------------------------------------------------------------------------- details

    def _context(self) -> ssl.SSLContext | None:
        if not self.broker.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{self.broker.url}: the certificates in {self._ca_file} cannot be used: {error}") from None

    async def _keep(self, context: ssl.SSLContext | None) -> None:
        import aiomqtt

        while not self._stopping:
            try:
                await self._once(context)
            except (aiomqtt.MqttError, OSError) as error:
                self._lost(_why(error))
            finally:
                self.connected = False
            await self._backoff.wait()

    async def _once(self, context: ssl.SSLContext | None) -> None:
        import aiomqtt

        will = None if self._will is None else aiomqtt.Will(self._will.topic, self._will.payload, 1, self._will.retain)
        client = aiomqtt.Client(
            self.broker.host,
            self.broker.port,
            username=self.broker.username,
            password=self.broker.password,
            identifier=self._client_id,
            tls_context=context,
            will=will,
            keepalive=KEEPALIVE,
            timeout=_TIMEOUT,
            max_queued_incoming_messages=10 * QUEUE,
            # Else a reply behind a value waits for the broker's delayed acknowledgement of the value, 40 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        client.pending_calls_threshold = QUEUE
        async with client:
            refused = [topic for topic in self._handlers if not _granted(await client.subscribe(topic))]
            self.connected, self.reason = True, self._not_heard(refused)
            self._backoff.up()
            log.info("mqtt: connected", extra={"broker": self.broker.url})
            for callback in self._callbacks:
                callback()
            writer = asyncio.get_running_loop().create_task(self._write(client))
            try:
                async for message in client.messages:
                    self._hear(message)
            finally:
                self.connected = False
                self._more.set()
                for task in (writer, *self._unanswered):
                    task.cancel()
                await asyncio.gather(writer, *self._unanswered, return_exceptions=True)
                while self._waiting:
                    self._drop(self._waiting.popleft())

    async def _write(self, client: aiomqtt.Client) -> None:
        while self.connected:  # not only until it is cancelled: asyncio.wait_for of Python 3.11 may swallow that inside the driver
            while self._waiting:
                message = self._waiting.popleft()
                if message.qos == 0:
                    await self._publish(client, message)
                elif len(self._unanswered) >= QUEUE:
                    self._drop(message)
                else:  # the line goes on while the broker takes its time to acknowledge
                    task = asyncio.get_running_loop().create_task(self._publish(client, message))
                    self._unanswered.add(task)
                    task.add_done_callback(self._unanswered.discard)
                    await asyncio.sleep(0)  # it is handed over now: what is sent later leaves later
            if self.connected:
                self._more.clear()
                await self._more.wait()

    async def _publish(self, client: aiomqtt.Client, message: _Message) -> None:
        """Hand it over; at QoS 1 until the broker has acknowledged it."""
        import aiomqtt

        try:
            await client.publish(message.topic, message.payload, qos=message.qos, retain=message.retain)
        except aiomqtt.MqttError as error:
            self._drop(message)
            log.debug("mqtt: a message was lost", extra={"broker": self.broker.url, "topic": message.topic, "reason": str(error)})
        except asyncio.CancelledError:
            self._drop(message)
            raise
        else:
            _tell(message, True)

    def _not_heard(self, topics: list[str]) -> str:
        """What is wrong when the broker refused to let us hear ``topics``; warned of once."""
        reason = f"the broker refuses us the topic {topics[0]}" + (f" and {len(topics) - 1} more" if topics[1:] else "") if topics else ""
        if reason and reason != self._refused:
            log.warning("mqtt: a subscription was refused", extra={"broker": self.broker.url, "topic": topics[0], "reason": reason})
        self._refused = reason
        return reason

    def _hear(self, message: aiomqtt.Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else b""
        topic = message.topic.value
        for wanted in (topic, *(one for one in self._wild if message.topic.matches(one))):
            for handler, kept in self._handlers.get(wanted, ()):
                if message.retain and not kept:
                    log.warning("mqtt: a retained message is not an order", extra={"broker": self.broker.url, "topic": topic[:200]})
                    continue
                try:
                    handler(topic, payload)
                except Exception:  # one message's handler must not end the connection for all
                    log.exception("mqtt: a handler failed", extra={"broker": self.broker.url, "topic": topic[:200]})

    def _lost(self, reason: str) -> None:
        if self.connected or reason != self.reason:
            log.warning("mqtt: no connection", extra={"broker": self.broker.url, "reason": reason})
        self.connected, self.reason = False, reason


def _tell(message: _Message, delivered: bool) -> None:
    if message.done is not None and not message.done.done():
        message.done.set_result(delivered)


def _granted(codes: Iterable[Any]) -> bool:
    """The answer to a subscription: numbers, or the driver's objects with a ``value``."""
    return all(getattr(code, "value", code) < _REFUSED for code in codes)


def _why(error: Exception) -> str:
    """In words. aiomqtt hides the reason one exception further down."""
    words = str(error) or type(error).__name__
    cause = error.__cause__
    return f"{words} ({cause})" if cause is not None and str(cause) and str(cause) not in words else words
