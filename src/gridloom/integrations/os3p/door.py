"""Who is let in: the handshake of a station (CONFORMANCE C2 to C14, FACTS I21, I43).

In this order: the path and its identity (400, 404), whether the hub knows it (404), its certificate (403), its secret (401), the subprotocol (C9).
How many may come at once is the listener's. All is judged in memory, but for a secret that people made up: it takes a thread some ms, the first
time. What strangers do leaves an event, bounded in number.
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Awaitable, Mapping
from typing import Any

from gridloom.core.events import new_event
from gridloom.core.hub import Hub
from gridloom.core.subjects import HUB
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.reports import Reports
from gridloom.integrations.os3p.stations import Stations, device_id, identity_fault
from gridloom.links.websocket import PROTOCOL_ERROR, Accept, Decision, HandshakeRequest, Reject

_VERSIONS = frozenset({"1.0", "v1.0"})
"""What may stand between path and identity, beside the names of the subprotocols (C14)."""
_UNRESERVED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")
_LATER = (("Retry-After", "600"),)
_CHALLENGE = (("WWW-Authenticate", 'Basic realm="OS3P", charset="UTF-8"'),)


class Malformed(ValueError):
    """A path that no station's identity was encoded into."""


class Visitor:
    """What is known of a connection from its handshake."""

    __slots__ = ("identity", "secure")

    def __init__(self, identity: str, secure: bool) -> None:
        self.identity = identity
        self.secure = secure


def decoded(segment: str) -> str:
    """The identity in a path segment, percent-decoded exactly once (C4). Raises Malformed for what RFC 3986 does not allow, or no UTF-8."""
    if not _UNRESERVED.fullmatch(segment):
        raise Malformed("an identity in a URL is percent-encoded (RFC 3986)")
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes((int(found[1], 16),)), segment.encode("ascii"))
    try:
        identity = raw.decode()
    except UnicodeDecodeError:
        raise Malformed("the percent-encoded identity is not UTF-8") from None
    fault = identity_fault(identity)
    if fault is not None:
        raise Malformed(fault)
    return identity


class Door:
    """``admit`` of the listener."""

    def __init__(self, section: Section, hub: Hub, stations: Stations, reports: Reports) -> None:
        self._section = section
        self._hub = hub
        self._stations = stations
        self._reports = reports
        self._prefix = f"{section.path}/"
        self._versions = _VERSIONS | set(section.subprotocols)
        self._refused = hub.metrics.counter("gridloom_os3p_refused_total", "Stations that were not let in, by reason.", ("reason",))

    def admit(self, request: HandshakeRequest) -> Decision | Awaitable[Decision]:
        """Every rule of the handshake."""
        try:
            identity = self._identity(request.path)
        except Malformed as error:
            return self._turn_away("path", Reject(400, f"{error}."))
        if identity is None:
            return self._turn_away("path", Reject(404, f"A station connects to {self._prefix}IDENTITY."))
        refusal = self._stranger(identity, request) or self._uncertified(identity, request)
        if refusal is not None:
            return refusal
        accounts, device = self._hub.accounts, device_id(identity)
        if not accounts.has_credential(device) and self._section.basic_auth == "optional":
            return self._welcome(identity, request)
        secret = _text(request.secret(identity))
        if secret is None:
            return self._unauthenticated(identity, request, "no secret")
        right = accounts.check_credential(device, secret)
        return self._verified(identity, request, secret) if right is None else self._decided(identity, request, right)

    async def _verified(self, identity: str, request: HandshakeRequest, secret: str) -> Decision:
        return self._decided(identity, request, await self._hub.accounts.verify_credential(device_id(identity), secret))

    def _decided(self, identity: str, request: HandshakeRequest, right: bool) -> Decision:
        return self._welcome(identity, request) if right else self._unauthenticated(identity, request, "a wrong secret")

    def _welcome(self, identity: str, request: HandshakeRequest) -> Decision:
        """C7, C9, C11; C16 with measure."""
        subprotocol = next((name for name in request.subprotocols if name in self._section.subprotocols), None)
        if subprotocol is None:
            self._refused.inc(reason="subprotocol")
            return Accept(close=(PROTOCOL_ERROR, f"the subprotocols here are {', '.join(self._section.subprotocols)}"))
        wait = self._stations.contested(identity)
        if wait:
            later = (("Retry-After", str(math.ceil(wait))),)
            return self._turn_away("contested", Reject(503, "A station of this identity is connected; too many came in its place.", later))
        return Accept(subprotocol=subprotocol, context=Visitor(identity, request.secure))

    def unsecured(self, address: str, error: Exception) -> None:
        """A TLS handshake failed: told where TLS says why, as of a certificate that has ended; a line that only ended is counted."""
        self._refused.inc(reason="tls")
        if not isinstance(error, ssl.SSLError):
            return
        why = getattr(error, "verify_message", "") or (error.reason or "no TLS").replace("_", " ").lower()
        message = f"a TLS handshake from {address} failed: {why}"
        data = {"address": address, "reason": why}
        self._reports.tell(new_event("device.credential.refused", HUB, self._hub.clock, message=message, data=data), address)

    # ------------------------------------------------------------------------------------------------------------- details

    def _identity(self, path: str) -> str | None:
        """None when the path is none of ours. Raises Malformed."""
        if not path.startswith(self._prefix):
            return None
        first, slash, rest = path[len(self._prefix) :].partition("/")
        if slash:
            if first not in self._versions or "/" in rest:
                return None
            first = rest
        return decoded(first) if first else None

    def _stranger(self, identity: str, request: HandshakeRequest) -> Reject | None:
        """C8."""
        if self._stations.admission(identity) is not None:
            return None
        if self._section.accept != "known":
            return self._turn_away("full", Reject(503, "Too many stations wait to be accepted.", _LATER)) if self._stations.full else None
        data = {"identity": identity, "address": request.address}
        self._reports.tell(new_event("device.unknown", HUB, self._hub.clock, message=f"{device_id(identity)} is not known", data=data), identity)
        return self._turn_away("unknown", Reject(404, "This station is not known here."))

    def _uncertified(self, identity: str, request: HandshakeRequest) -> Reject | None:
        """A certificate of our authorities names the station that its URL names."""
        if self._section.client_ca_file is None:
            return None
        if not request.certificate:
            if self._section.client_certificate == "optional":
                return None
            return self._suspect(identity, request, "no certificate", Reject(403, "A station presents a client certificate here."))
        if identity in _names(request.certificate):
            return None
        return self._suspect(identity, request, "a certificate of another name", Reject(403, "The certificate is not that of this station."))

    def _unauthenticated(self, identity: str, request: HandshakeRequest, what: str) -> Reject:
        """HTTP Basic: the name is the identity."""
        return self._suspect(identity, request, what, Reject(401, "Identity and secret of the station, please.", _CHALLENGE))

    def _suspect(self, identity: str, request: HandshakeRequest, what: str, reject: Reject) -> Reject:
        device = device_id(identity)
        about = device if self._stations.admission(identity) is not None else HUB
        data = {"identity": identity, "address": request.address}
        message = f"{device} presented {what}"
        self._reports.tell(new_event("device.credential.refused", about, self._hub.clock, message=message, data=data), identity)
        return self._turn_away("credential", reject)

    def _turn_away(self, reason: str, reject: Reject) -> Reject:
        self._refused.inc(reason=reason)
        return reject


def _text(secret: bytes | None) -> str | None:
    """Ours are text; None for what is none."""
    try:
        return None if secret is None else secret.decode()
    except UnicodeDecodeError:
        return None


def _names(certificate: Mapping[str, Any]) -> set[str]:
    """The common names and the alternative names of a certificate."""
    common = {value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"}
    return common | {value for _, value in certificate.get("subjectAltName", ()) if isinstance(value, str)}
