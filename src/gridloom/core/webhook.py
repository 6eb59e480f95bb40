"""Events for other people's servers: CloudEvents 1.0 (structured mode, JSON), signed as Standard Webhooks, through the outbox.

A target gets each event that matches its filter, in order per device, at least once; ``webhook-id`` stays the same however often it is tried, so that
the other side can tell. How a request is posted, and which addresses are refused, is the injected ``post``'s matter: the core knows no HTTP library.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from gridloom.core.clock import Clock, rfc3339
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.model import Event, Severity
from gridloom.core.outbox import DeliveryFailed, Outbox, Outgoing
from gridloom.core.ports import Put
from gridloom.core.subjects import device_matches

log = logging.getLogger(__name__)

QUEUE = "webhook"
TIMEOUT = 15.0
"""Seconds a target may take to answer, as Standard Webhooks recommends."""
_GONE = 410

Post = Callable[[str, Mapping[str, str], bytes, float], Awaitable[int]]
"""``await post(url, headers, body, timeout)`` -> HTTP status. Follows no redirect. Raises OSError or TimeoutError when there is no answer."""


class WebhookTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, and what. ``name`` is unique and goes to logs instead of the URL, which may hold credentials.

    ``secret`` as Standard Webhooks writes it (``whsec_`` and base64) or any text; empty sends unsigned. ``kinds`` may end in ``.*``, in
    ``devices`` ``*`` stands for anything; no kinds or devices means any.
    """

    name: str
    url: str
    secret: str = ""
    min_severity: Severity = Severity.WARNING
    kinds: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"WebhookTarget({self.name!r})"

    def wants(self, event: Event) -> bool:
        """Whether the target is told of the event."""
        if event.severity.rank < self.min_severity.rank or (self.devices and not any(device_matches(one, event.device) for one in self.devices)):
            return False
        return not self.kinds or any(kind_matches(pattern, event.kind) for pattern in self.kinds)


def kind_matches(pattern: str, kind: str) -> bool:
    """``device.*`` is every kind below ``device``; anything else is itself."""
    return kind.startswith(pattern[:-1]) if pattern.endswith(".*") else kind == pattern


def secret_key(secret: str) -> bytes:
    """The key of a secret: base64 after ``whsec_``, else the text itself. Raises InvalidInput (``$.secret``) for base64 that is none."""
    if not secret.startswith("whsec_"):
        return secret.encode("utf-8")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        reason = "expected base64 after whsec_"
        raise InvalidInput(f"webhook secret: {reason}", (FieldFault("$.secret", reason),))
    return key


def sign(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and base64 of HMAC-SHA256 over ``id.timestamp.body`` (Standard Webhooks); ``timestamp`` in s since 1970."""
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode("ascii")


def headers(id: str, timestamp: int, body: bytes, key: bytes) -> dict[str, str]:
    """Of one request. An empty key sends no signature."""
    found = {"content-type": "application/cloudevents+json", "webhook-id": id, "webhook-timestamp": str(timestamp)}
    if key:
        found["webhook-signature"] = sign(key, id, timestamp, body)
    return found


def cloud_event(event: Event, source: str) -> dict[str, Any]:
    """The event as a CloudEvent: type ``gridloom.KIND``, subject ``/devices/ID`` (percent-encoded) and the part of the device behind it."""
    subject = f"/devices/{quote(event.device, safe=':')}" + (f"/{quote(event.subject, safe=':')}" if event.subject else "")
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": f"gridloom.{event.kind}",
        "subject": subject,
        "time": rfc3339(event.time),
        "datacontenttype": "application/json",
        "severity": event.severity.value,  # an extension attribute: targets may filter by it without looking into data
        "data": {
            "device": event.device,
            "kind": event.kind,
            "state": event.state.value,
            "severity": event.severity.value,
            "subject": event.subject,
            "message": event.message,
            "time": rfc3339(event.time),
            "received": rfc3339(event.received),
            "data": event.data,
        },
    }


class Webhooks:
    """The configured targets. Give ``writes`` to ``intake.accompany``; registers itself with the outbox.

    Raises InvalidInput for a bad secret or a name used twice.
    """

    def __init__(
        self,
        targets: Sequence[WebhookTarget],
        *,
        outbox: Outbox,
        clock: Clock,
        post: Post,
        source: str = "/gridloom",
    ) -> None:
        self._targets = {target.name: target for target in targets}
        if len(self._targets) != len(targets):
            raise InvalidInput("webhooks: two targets have the same name", (FieldFault("$.webhook", "two targets have the same name"),))
        self._keys = {target.name: secret_key(target.secret) for target in targets}
        self._outbox = outbox
        self._clock = clock
        self._post = post
        self._source = source
        outbox.register(QUEUE, self._deliver)

    def writes(self, event: Event) -> list[Put]:
        """The outbox entries of an event, one per target that wants it."""
        wanted = [target.name for target in self._targets.values() if target.wants(event)]
        if not wanted:
            return []
        payload = cloud_event(event, self._source)
        return [self._outbox.write(QUEUE, name, event.device, payload) for name in wanted]

    async def _deliver(self, entry: Outgoing) -> int:
        target = self._targets.get(entry.target)
        if target is None:
            raise DeliveryFailed("this target is no longer configured", permanent=True)
        body = msgspec.json.encode(entry.payload)
        now = self._clock.now() // 1_000_000
        status = await self._post(target.url, headers(str(entry.payload["id"]), now, body, self._keys[target.name]), body, TIMEOUT)
        if not 200 <= status < 300:
            raise DeliveryFailed(f"answered {status}", status=status, permanent=status == _GONE)
        return status
