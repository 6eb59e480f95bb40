"""The mutation that each test of ``test_conformance_cs`` must notice; ``mutations.py`` applies them."""

from __future__ import annotations

from tests.integrations.os3p.mutations import Mutation

_OS3P, _OCPPJ, _CALLS = "integrations/os3p/", "codecs/ocppj.py", "links/calls.py"
_DOOR, _CONVERSATION, _STATIONS = _OS3P + "door.py", _OS3P + "conversation.py", _OS3P + "stations.py"
_WEBSOCKET, _LINK = "links/websocket.py", "links/websocket_link.py"

MUTATIONS: dict[str, Mutation] = {
    "C1": Mutation("any version of WebSocket is taken", _WEBSOCKET, '.header("sec-websocket-version").strip() != "13":', '.header("host") == "":'),
    "C2": Mutation("the path is not that of the configuration", _DOOR, 'self._prefix = f"{section.path}/"', 'self._prefix = "/OS3P/"'),
    "C4": Mutation(
        "decoded twice", _DOOR, "        identity = raw.decode()\n", "        identity = __import__('urllib.parse').parse.unquote(raw.decode())\n"
    ),
    "C7": Mutation(
        "our order, not the station's",
        _DOOR,
        "(name for name in request.subprotocols if name in self._section.subprotocols)",
        "(name for name in self._section.subprotocols if name in request.subprotocols)",
    ),
    "C8": Mutation("a stranger is 403", _DOOR, 'Reject(404, "This station is not known here.")', 'Reject(403, "This station is not known here.")'),
    "C9": Mutation("who offers nothing that fits may stay", _DOOR, "if subprotocol is None:", "if subprotocol is False:"),
    "C11": Mutation(
        "only the first header line counts",
        _WEBSOCKET,
        'for line in self.headers("sec-websocket-protocol") for',
        'for line in [self.header("sec-websocket-protocol")] for',
    ),
    "C12": Mutation("TLS is configured and not used", _OS3P + "server.py", "tls=self._tls,", "tls=None,"),
    "C13": Mutation("a compressed frame is taken for text", _LINK, "if frame.rsv1 or frame.rsv2 or frame.rsv3:", "if frame.rsv2 or frame.rsv3:"),
    "C14": Mutation("no version in the URL", _DOOR, '_VERSIONS = frozenset({"1.0", "v1.0"})', "_VERSIONS: frozenset[str] = frozenset()"),
    "C16": Mutation(
        "the old connection is not closed", _CONVERSATION, 'self._connection.close(POLICY, "a newer connection', '(POLICY, "a newer connection'
    ),
    "C17": Mutation(
        "a station is what its BootNotification says",
        _STATIONS,
        "identity=station.identity,\n            kind=",
        "identity=boot.stationNumber,\n            kind=",
    ),
    "C18": Mutation("pings are not answered", _LINK, "transport.send_pong(frame.get_payload_as_bytes())", "pass"),
    "R1": Mutation(
        "what stands behind a JSON text is overlooked",
        _OCPPJ,
        "json.loads(raw.decode(), object_pairs_hook=_members, parse_int=_integer)",
        "json.JSONDecoder(object_pairs_hook=_members, parse_int=_integer).raw_decode(raw.decode())[0]",
    ),
    "R2": Mutation("ids beyond ASCII", _OCPPJ, "return str(self._number)", 'return f"№{self._number}"'),
    "R3": Mutation("a result of type 13", _OCPPJ, 'return f"[3,{_quoted(id)},', 'return f"[13,{_quoted(id)},'),
    "R4": Mutation("an unknown type ends the connection", _OCPPJ, "return Ignored(Fault.UNKNOWN_TYPE)", "return Ignored(Fault.UNKNOWN_TYPE, 1002)"),
    "R5": Mutation("always the same id", _OCPPJ, "self._number += 1", "self._number = 1"),
    "R6": Mutation("ids are answered in lower case", _CALLS, "self._grammar.result(call.id,", "self._grammar.result(call.id.lower(),"),
    "R7": Mutation("ids of any length", _OCPPJ, "if len(id) > LONGEST_ID:", "if len(id) > 10 * LONGEST_ID:"),
    "R8": Mutation("a fifth element is overlooked", _OCPPJ, "if len(parts) > count:", "if len(parts) > count + 1:"),
    "R9": Mutation("a result of four elements", _OCPPJ, "MessageType.CALLRESULT: 3}", "MessageType.CALLRESULT: 4}"),
    "R10": Mutation("errors without details", _OCPPJ, ",{details.decode() or '{}'}]\"", ']"'),
    "R11": Mutation(
        "null is no payload", _OCPPJ, "if parts[-1] is not None and not isinstance(parts[-1], dict):", "if not isinstance(parts[-1], dict):"
    ),
    "R12": Mutation(
        "rejected by an error",
        _CONVERSATION,
        'if told.status == "Rejected":',
        'if told.status == "Rejected":\n            raise CallRefused(ErrorCode.SECURITY_ERROR, "rejected")\n        if told.status == "Rejected":',
    ),
    "R13": Mutation(
        "a status that the document has is unknown", _OS3P + "messages.py", '"Installing", "InstallationFailed", "Installed"]', '"Installed"]'
    ),
    "R14": Mutation(
        "what has no id is answered",
        _OCPPJ,
        "return Ignored(Fault.NO_ID)",
        'return self._refuse(str(id), Fault.NO_ID, ErrorCode.GENERIC_ERROR, "message[1]", "is no id")',
    ),
    "R15": Mutation(
        "an id in progress is overlooked", _OCPPJ, "if self._in_progress is not None and id in self._in_progress:", "if id == 'not in progress':"
    ),
    "R16": Mutation("used ids are forgotten", _OCPPJ, "if not self._first_use(id):", "if self._first_use(id) is None:"),
    "R17": Mutation("any answer is taken for ours", _OCPPJ, "if id != self._outstanding:", "if self._outstanding is None:"),
    "R18": Mutation("what the other side begins is not implemented", _OS3P + "reading.py", "ErrorCode.NOT_SUPPORTED)", "ErrorCode.NOT_IMPLEMENTED)"),
    "R19": Mutation(
        "an incomplete CALL is a violation of form",
        _OCPPJ,
        "_SHAPE_CODES = {Fault.MISSING_ELEMENT: ErrorCode.PROTOCOL_ERROR}",
        "_SHAPE_CODES: dict[Fault, ErrorCode] = {}",
    ),
    "R20": Mutation(
        "a word in no list is of the wrong type",
        _OCPPJ,
        '"enum": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION',
        '"enum": ErrorCode.TYPE_CONSTRAINT_VIOLATION',
    ),
    "R21": Mutation("the last that came is answered first", _CALLS, "self._waiting.pop(0)", "self._waiting.pop()"),
    "R22": Mutation(
        "an answer is waited for without end", _CALLS, "return await self._clock.wait_for(outstanding, timeout)", "return await outstanding"
    ),
    "R23": Mutation("keys may come twice", _OCPPJ, "if written == raw or written == msgspec.json.format(raw, indent=-1):", "if True:"),
    "R24": Mutation("binary frames are read", _CALLS, "if isinstance(message, bytes):", "if isinstance(message, bytearray):"),
    "B5": Mutation(
        "a rejected station may stay", _CONVERSATION, 'asyncio.get_running_loop().call_soon(self._connection.close, OK, "rejected")', "pass"
    ),
    "B7": Mutation("a rejected station waits", _STATIONS, 'Admission.REJECTED: "Rejected"}', 'Admission.REJECTED: "Pending"}'),
    "B8": Mutation("who waits is closed", _CONVERSATION, 'if told.status == "Rejected":', 'if told.status != "Accepted":'),
    "B12": Mutation(
        "a second boot is refused",
        _CONVERSATION,
        "        self._booting = True  #",
        '        if self._station.record.boots:\n            raise CallRefused("GenericError", "booted already")\n        self._booting = True  #',
    ),
    "B19": Mutation("registrations are forgotten", _STATIONS, "Station(found.id, _records.decode(found.body))", "Station(found.id, Record())"),
    "B20": Mutation("everybody is taken for accepted", _CONVERSATION, "if not self._accepted and action != _BOOT:", "if action == '':"),
    "B23": Mutation(
        "longer texts", _OS3P + "messages.py", "Text20 = Annotated[str, Meta(max_length=20)]", "Text20 = Annotated[str, Meta(max_length=21)]"
    ),
    "N6": Mutation("deprecated measurands are in no list", _OS3P + "messages.py", '    "ReactiveEnergyInductive.L1", ', "    "),
    "N7": Mutation("words that no list has are refused", _OS3P + "reading.py", "if not field.keeps:", "if field.name:"),
    "N8": Mutation("the location is left out", _OS3P + "measurands.py", "marks = [place] if place else []", "marks: list[str] = []"),
    "N12": Mutation("nothing is resolved by a string", _OS3P + "statuses.py", "row = _RESOLVED.get(info.lower())", "row = _RESOLVED.get(info)"),
    "N21": Mutation(
        "each delivery is an event of its own",
        _OS3P + "statuses.py",
        'id=ids.digest(device, action, "" if contactor is None else str(contactor), key, value),',
        "id=ids.unique(received),",
    ),
    "N22": Mutation(
        "answered first, stored later",
        _CONVERSATION,
        "            await hub.intake.events([event], writes)",
        '            self._office.begin(hub.intake.events([event], writes), "later")  # type: ignore[arg-type]',
    ),
    "S27": Mutation(
        "secrets of orders are shown", "core/verbs.py", '"***" if name in secrets and value is not None', '"***" if name in () and value is not None'
    ),
    "L1": Mutation("a day from midnight to midnight", _OS3P + "schedule.py", "NOON = 43_200_000", "NOON = 0"),
    "L13": Mutation(
        "every part clears what the one before has set",
        _OS3P + "orders.py",
        "clearAllSchedules=arguments.clear_all and not index,",
        "clearAllSchedules=arguments.clear_all,",
    ),
}
