"""MQTT: one connection to a broker, kept for ever. Whoever holds it subscribes once and is heard again after every outage.

aiomqtt (on paho) is the driver, imported when the first link starts. What is sent while there is no connection is dropped and counted: a
measured value that comes late is worse than none, and what must stand on a broker is sent again by ``on_connect``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, NamedTuple
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
_TIMEOUT = 10.0

Handler = Callable[[str, bytes], None]
"""Told the topic and the payload of a message; quick and synchronous."""


class Will(NamedTuple):
    """What the broker says for us when we are gone without a word."""

    topic: str
    payload: bytes
    retain: bool = True


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


class Mqtt:
    """A connection to ``broker``; ``client_id`` is unique on it. Starts at once and connects for ever, with a back-off.

    ``ca_file``: whom to trust with ``mqtts://`` instead of the machine's authorities. ``will`` is left with the broker at each connect.
    """

    def __init__(self, broker: Broker, *, client_id: str, clock: Clock, random: Random, ca_file: str | None = None, will: Will | None = None) -> None:
        self.broker = broker
        self.connected = False
        self.reason = "not connected yet"
        """Why it is not connected; empty while it is."""
        self.dropped = 0
        """Messages that could not be sent: no connection, or a broker that takes them too slowly."""
        self._client_id = client_id
        self._clock = clock
        self._ca_file = ca_file
        self._will = will
        self._backoff = Backoff(clock, random, first=0.5, cap=30.0, stable=10.0)
        self._handlers: dict[str, list[tuple[Handler, bool]]] = {}
        self._wild: list[str] = []
        self._callbacks: list[Callable[[], None]] = []
        self._waiting: deque[tuple[str, bytes, int, bool]] = deque()
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
        """Hand a message to the connection; never waits. False when there is none: the message is dropped."""
        if not self.connected:
            self.dropped += 1
            return False
        if len(self._waiting) >= QUEUE:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((topic, payload.encode() if isinstance(payload, str) else payload, qos, retain))
        self._more.set()
        return True

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
        """Say goodbye to the broker. What waits is given a second to leave. Never raises."""
        if self._task is None:
            return
        for _ in range(20):
            if not (self.connected and self._waiting):
                break
            await self._clock.sleep(0.05 * self._clock.speed)  # the broker's time does not run faster
        self._stopping = True
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
        async with client:
            for topic in self._handlers:
                await client.subscribe(topic)
            self._waiting.clear()
            self.connected, self.reason = True, ""
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
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, client: aiomqtt.Client) -> None:
        import aiomqtt

        while self.connected:  # not only until it is cancelled: asyncio.wait_for of Python 3.11 may swallow that inside the driver
            while self._waiting:
                topic, payload, qos, retain = self._waiting.popleft()
                try:
                    await client.publish(topic, payload, qos=qos, retain=retain)
                except aiomqtt.MqttError as error:
                    self.dropped += 1
                    log.debug("mqtt: a message was lost", extra={"broker": self.broker.url, "topic": topic, "reason": str(error)})
                except ValueError as error:  # a topic that MQTT forbids: one message's fault, not the connection's
                    self.dropped += 1
                    log.warning("mqtt: a message that cannot be sent", extra={"broker": self.broker.url, "topic": topic[:200], "reason": str(error)})
            if self.connected:
                self._more.clear()
                await self._more.wait()

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


def _why(error: Exception) -> str:
    """In words. aiomqtt hides the reason one exception further down."""
    words = str(error) or type(error).__name__
    cause = error.__cause__
    return f"{words} ({cause})" if cause is not None and str(cause) and str(cause) not in words else words
