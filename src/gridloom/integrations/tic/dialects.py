"""TRANSLATION: the native message into the three wire dialects of TIC2WebSocket.

``document`` is the published text, ``v1`` and ``v2`` what the programs of version 1.0.0 and 2.0.0 really send. The differences are those of
``shared/specs/tic/FACTS.md`` section 0, the decisions those of section 11; ``docs/reference/tic2websocket.md`` shows them side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.messages import ErrorKind, PortState, TicFrame, TicGroup
from gridloom.integrations.tic.wire import Identifier, Malformed, Request, Stream

_encode = msgspec.json.Encoder().encode
Code = tuple[int, str]
"""An error as it is told: its number and its text."""


class Dialect(ABC):
    """What the three have in common. ``zone``: in whose local time clients are told the time (they get no zone)."""

    name = ""
    time_key = "dateTime"
    identifier_key = "identifier"
    groups_key = "content"

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._second = -1
        self._shown = ""

    # ------------------------------------------------------------------------------------------------------------ answers

    def answer(self, now: int, name: str, data: Any = None) -> bytes:
        """A request was carried out. ``data`` None: the answer has none."""
        return self.encoded(self.head(now, "RESPONSE", name) | {"errorCode": 0} | ({} if data is None else {"data": data}))

    def refusal(self, now: int, name: str, code: Code) -> bytes:
        """A request was not carried out."""
        return self.encoded(self.head(now, "RESPONSE", name) | {"errorCode": code[0], "errorMessage": code[1]})

    def available(self, streams: Sequence[Stream]) -> list[dict[str, Any]]:
        """``data`` of GetAvailableTICs."""
        return [self.identifier(stream) for stream in streams]

    def modems(self, ports: Sequence[PortState]) -> list[dict[str, Any]]:
        """``data`` of GetModemsInfo."""
        return [self.modem(port) for port in ports]

    def frame(self, frame: TicFrame, stream: Stream) -> dict[str, Any]:
        """``data`` of ReadTIC."""
        return {
            "mode": frame.mode.value.upper(),
            "captureDateTime": self.time(frame.captured),
            self.identifier_key: self.identifier(stream),
            self.groups_key: self.groups(frame.groups),
        }

    # ------------------------------------------------------------------------------------------------------------- events

    def data_event(self, now: int, frame: TicFrame, stream: Stream) -> bytes:
        """OnTICData."""
        return self.encoded(self.head(now, "EVENT", "OnTICData") | {"data": self.frame(frame, stream)})

    def error_event(self, now: int, kind: ErrorKind, stream: Stream, frame: TicFrame | None = None) -> bytes | None:
        """OnError, or None where this dialect does not tell such an error. ``frame``: the damaged one."""
        code = self.error(kind, stream)
        if code is None:
            return None
        data = {"errorCode": code[0], "errorMessage": code[1], self.identifier_key: self.identifier(stream)}
        return self.encoded(self.head(now, "EVENT", "OnError") | {"data": data})

    def withholds(self, frame: TicFrame) -> bool:
        """Whether clients are told an error (``checksum``) instead of this frame."""
        return False

    # -------------------------------------------------------------------------------------------------- where they differ

    def head(self, now: int, type: str, name: str) -> dict[str, Any]:
        """The first members of every message."""
        return {self.time_key: self.time(now), "name": name, "type": type}

    def encoded(self, message: dict[str, Any]) -> bytes:
        """As it is laid out on the wire."""
        return _encode(message)

    def time(self, moment: int) -> str:
        """µs as ``dd/MM/yyyy HH:mm:ss`` of the zone."""
        second = moment // 1_000_000
        if second != self._second:
            self._second = second
            self._shown = datetime.fromtimestamp(second, self._zone).strftime("%d/%m/%Y %H:%M:%S")
        return self._shown

    def identifier(self, stream: Stream) -> dict[str, Any]:
        """All that is known of a stream."""
        return {"serialNumber": stream.serial, "portName": stream.port, "portId": stream.port_id}

    @abstractmethod
    def modem(self, port: PortState) -> dict[str, Any]:
        """One modem."""

    def groups(self, groups: Sequence[TicGroup]) -> dict[str, str]:
        """Label to value; of a label that came twice the last. Without groups whose checksum is wrong; DATE, which has no value, gives its time."""
        return {group.label: group.value or group.horodate for group in groups if group.valid}

    def malformed(self, found: Malformed) -> tuple[str, Code]:
        """Name and error of the answer to a request that could not be read."""
        return found.name or "ErrorResponse", (found.code, found.reason)

    @abstractmethod
    def not_found(self, request: Request, identifier: Identifier, place: int) -> Code:
        """An identifier (the ``place``-th) matches no stream."""

    @abstractmethod
    def timeout(self) -> Code:
        """ReadTIC heard nothing in time."""

    @abstractmethod
    def internal(self, reason: str) -> Code:
        """It is our fault, or we cannot now."""

    @abstractmethod
    def error(self, kind: ErrorKind, stream: Stream) -> Code | None:
        """Number and text of an OnError event."""


class Document(Dialect):
    """As the published document has it."""

    name = "document"
    identifier_key = "ticIdentifier"
    _errors: Mapping[str, Code] = {
        "timeout": (-5, "TIC frame reading timeout"),
        "unplugged": (-6, "TIC stream unplugged"),
        "unreadable": (-1, "TIC frame unreadable"),
    }

    def head(self, now: int, type: str, name: str) -> dict[str, Any]:
        """In the document's order, which differs between answers and events."""
        if type == "EVENT":
            return {"type": type, "dateTime": self.time(now), "name": name}
        return {"type": type, "name": name, "dateTime": self.time(now)}

    def modem(self, port: PortState) -> dict[str, Any]:
        """All members, null where nothing is known."""
        usb = port.usb
        return {
            "portName": port.name,
            "modemType": usb and usb.modem_type,
            "productId": usb and usb.product_id,
            "vendorId": usb and usb.vendor_id,
            "productName": usb and usb.product,
            "manufacturerName": usb and usb.manufacturer,
            "serialNumber": usb and usb.serial,
            "portId": port.port_id,
        }

    def not_found(self, request: Request, identifier: Identifier, place: int) -> Code:
        """The document's one text; of a list, also which."""
        text = "The given TIC identifier doesn't match with current TIC stream"
        return (-7, f"{text}: data[{place}] {_as_json(identifier)}" if request.listed else text)

    def timeout(self) -> Code:
        """FACTS 11."""
        return (-13, "TIC frame reading timeout")

    def internal(self, reason: str) -> Code:
        """FACTS 11."""
        return (-99, reason)

    def error(self, kind: ErrorKind, stream: Stream) -> Code | None:
        """A damaged group is left out of its frame, and no error."""
        return self._errors.get(kind)


class Version1(Dialect):
    """As the program of version 1.0.0."""

    name = "v1"

    def identifier(self, stream: Stream) -> dict[str, Any]:
        """What is not known is left out."""
        return _known({"serialNumber": stream.serial, "portName": stream.port, "portId": stream.port_id})

    def modem(self, port: PortState) -> dict[str, Any]:
        """What is not known is left out. ``native``: a port of the machine itself."""
        usb = port.usb
        described = {
            "portName": port.name,
            "modemType": usb and usb.modem_type,
            "productId": usb and usb.product_id,
            "vendorId": usb and usb.vendor_id,
            "productName": usb and usb.product,
            "manufacturer": usb and usb.manufacturer,
            "serialNumber": usb and usb.serial,
            "portId": port.port_id,
            "native": usb is None,
        }
        return _known(described)

    def withholds(self, frame: TicFrame) -> bool:
        """One bad checksum costs the whole frame."""
        return not all(group.valid for group in frame.groups)

    def error_event(self, now: int, kind: ErrorKind, stream: Stream, frame: TicFrame | None = None) -> bytes | None:
        """With ``partialTICFrame``: the good groups of a frame that was withheld."""
        if kind != "checksum" or frame is None:
            return super().error_event(now, kind, stream, frame)
        good = [{group.label: _group_of_v1(frame.mode, group)} for group in frame.groups if group.valid]
        partial = {"partialTICFrame": {"ticMode": frame.mode.value.upper(), "ticFrame": good}}
        code, text = 27, "TIC frame with an invalid checksum"
        data = {"identifier": self.identifier(stream), "errorCode": code, "errorMessage": text, "data": partial}
        return self.encoded(self.head(now, "EVENT", "OnError") | {"data": data})

    def not_found(self, request: Request, identifier: Identifier, place: int) -> Code:
        """The identifier as JSON (FACTS 3)."""
        return (-12 if request.name == "ReadTIC" else -10, f"Stream {_as_json(identifier)} not found! (5)")

    def timeout(self) -> Code:
        """FACTS 0 and 11."""
        return (-13, "TIC read timeout (1006)")

    def internal(self, reason: str) -> Code:
        """FACTS 11."""
        return (-7, reason)

    def error(self, kind: ErrorKind, stream: Stream) -> Code | None:
        """FACTS 0, 3, 4."""
        match kind:
            case "timeout":
                return (1006, "TIC read timeout")
            case "unplugged":
                known = _as_json(Identifier(stream.serial, stream.port_id, stream.port))
                return (6, f"TICCore stream {known} has been unplugged (unsubscribe has been forced)")
            case "unreadable" | "checksum":
                return (27, "TIC frame with an invalid checksum")


class Version2(Dialect):
    """As the program of version 2.0.0."""

    name = "v2"
    time_key = "datetime"
    groups_key = "frame"

    def encoded(self, message: dict[str, Any]) -> bytes:
        """Over many lines, indented by two."""
        return msgspec.json.format(_encode(message), indent=2)

    def time(self, moment: int) -> str:
        """Local time as Java's LocalDateTime prints it: 0, 3 or 6 decimals (our clock has no more); no seconds where they are zero."""
        second, fraction = divmod(moment, 1_000_000)
        if second != self._second:
            self._second = second
            self._shown = datetime.fromtimestamp(second, self._zone).strftime("%Y-%m-%dT%H:%M:%S")
        if not fraction:
            return self._shown.removesuffix(":00") if self._shown.endswith(":00") else self._shown
        return f"{self._shown}.{fraction // 1_000:03d}" if not fraction % 1_000 else f"{self._shown}.{fraction:06d}"

    def identifier(self, stream: Stream) -> dict[str, Any]:
        """``portId`` is udev's path here."""
        return {"serialNumber": stream.serial, "portName": stream.port, "portId": stream.port_path}

    def modem(self, port: PortState) -> dict[str, Any]:
        """What is not known is left out, but for the type. Numbers above 7FFF, which do not fit its signed type, are never sent (FACTS 5)."""
        usb = port.usb
        described = {
            "portName": port.name,
            "productId": usb and _signed(usb.product_id),
            "vendorId": usb and _signed(usb.vendor_id),
            "productName": usb and usb.product,
            "manufacturer": usb and usb.manufacturer,
            "serialNumber": usb and usb.serial,
            "portId": port.port_path,
        }
        return _known(described) | {"modemType": usb and usb.modem_type}

    def groups(self, groups: Sequence[TicGroup]) -> dict[str, str]:
        """Horodate TAB value in one text; a group with a wrong checksum stands under its label with ``!`` before it."""
        return {
            group.label if group.valid else f"!{group.label}": f"{group.horodate}\t{group.value}" if group.horodate else group.value
            for group in groups
        }

    def data_event(self, now: int, frame: TicFrame, stream: Stream) -> bytes:
        """Flat: there is no ``data``."""
        return self.encoded(self.head(now, "EVENT", "OnTICData") | self.frame(frame, stream))

    def error_event(self, now: int, kind: ErrorKind, stream: Stream, frame: TicFrame | None = None) -> bytes | None:
        """Flat, with ``frame`` null."""
        code = self.error(kind, stream)
        if code is None:
            return None
        told = {"identifier": self.identifier(stream), "errorCode": code[0], "errorMessage": code[1], "frame": None}
        return self.encoded(self.head(now, "EVENT", "OnError") | told)

    def malformed(self, found: Malformed) -> tuple[str, Code]:
        """Its decoder hides every cause (FACTS 3)."""
        if found.code != -1:
            return "ErrorResponse", (-5, "Failed to decode Message from JSON object")
        return "ErrorResponse", (-1, "Input JSON string is null or empty" if found.empty else "Input is not a valid JSON string")

    def not_found(self, request: Request, identifier: Identifier, place: int) -> Code:
        """The identifier as Java prints a map (FACTS 3)."""
        return (-12 if request.name == "ReadTIC" else -10, f"Stream {_as_java(identifier)} not found! (5)")

    def timeout(self) -> Code:
        """FACTS 3."""
        return (-13, "TIC read timeout (7)")

    def internal(self, reason: str) -> Code:
        """FACTS 11."""
        return (-7, reason)

    def error(self, kind: ErrorKind, stream: Stream) -> Code | None:
        """A damaged group is marked in its frame, and no error."""
        match kind:
            case "timeout":
                return (7, "TIC read timeout")
            case "unplugged":
                known = _as_java(Identifier(stream.serial, stream.port_path, stream.port))
                return (6, f"TICCore stream {known} has been unplugged (unsubscribe has been forced)")
            case "unreadable":
                return (99, "TIC read failed: no group of the frame could be read")
            case "checksum":
                return None


DIALECTS: Mapping[str, type[Dialect]] = {kind.name: kind for kind in (Document, Version1, Version2)}


def _known(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}


def _as_json(identifier: Identifier) -> str:
    members = {"serialNumber": identifier.serial, "portName": identifier.port_name, "portId": identifier.port_id}
    return _encode(_known(members)).decode()


def _as_java(identifier: Identifier) -> str:
    members = {"portId": identifier.port_id, "portName": identifier.port_name, "serialNumber": identifier.serial}
    return "{" + ", ".join(f"{key}={'null' if value is None else value}" for key, value in members.items()) + "}"


def _signed(number: int | None) -> int | None:
    return None if number is None or number > 0x7FFF else number


def _group_of_v1(mode: Mode, group: TicGroup) -> dict[str, Any]:
    """``checksum`` as a number: of a good group it is what the rule of its mode gives (historic S1, standard S2)."""
    if mode is Mode.HISTORIC:
        covered = f"{group.label} {group.value}"
    else:
        covered = f"{group.label}\t{group.horodate}\t{group.value}\t" if group.horodate else f"{group.label}\t{group.value}\t"
    told: dict[str, Any] = {"data": group.value, "checksum": (sum(covered.encode("latin-1", "replace")) & 0x3F) + 0x20}
    return told | ({"dateTime": group.horodate} if group.horodate else {})
