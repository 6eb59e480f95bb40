"""The mutation that each test of ``test_conformance_ss`` must notice; ``mutations.py`` applies them."""

from __future__ import annotations

from tests.integrations.os3p.mutations import Mutation

_OS3P, _OCPPJ, _CALLS = "integrations/os3p/", "codecs/ocppj.py", "links/calls.py"
_CLIENT, _LIGHTS, _FAULTS, _FILES = (f"{_OS3P}{name}.py" for name in ("client", "contactors", "faults", "files_transfer"))
_MESSAGES, _SCHEDULE, _KEYS, _TIME = (f"{_OS3P}{name}.py" for name in ("messages", "schedule", "keys", "timekeeping"))
_WEBSOCKET, _READING = "links/websocket_client.py", _OS3P + "reading.py"

_REGISTER = "        if self._is_known():\n            self._open_gate()"

MUTATIONS: dict[str, Mutation] = {
    "C1": Mutation(
        "another version of WebSocket is asked for",
        _WEBSOCKET,
        'headers.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))',
        'headers += [("Sec-WebSocket-Protocol", ", ".join(subprotocols)), ("Sec-WebSocket-Version", "8")]',
    ),
    "C3": Mutation("no slash before the identity", _CLIENT, "{base.rstrip('/')}/{quote", "{base.rstrip('/')}{quote"),
    "C4": Mutation("encoded twice", _CLIENT, "{quote(identity, safe='')}", "{quote(quote(identity, safe=''), safe='')}"),
    "C5": Mutation("the slash of the endpoint stays", _CLIENT, "{base.rstrip('/')}/", "{base}/"),
    "C6": Mutation("the last is offered first", _CLIENT, "subprotocols=settings.subprotocols,", "subprotocols=settings.subprotocols[::-1],"),
    "C10": Mutation("any subprotocol will do", _CLIENT, "if link.subprotocol not in settings.subprotocols:", 'if link.subprotocol == "":'),
    "C12": Mutation("our own authorities are forgotten", _CLIENT, "credentials=credentials, tls=settings.tls,", "credentials=credentials, tls=None,"),
    "C13": Mutation(
        "compression is offered",
        _WEBSOCKET,
        'headers.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))',
        'headers += [("Sec-WebSocket-Protocol", ", ".join(subprotocols)), ("Sec-WebSocket-Extensions", "permessage-deflate")]',
    ),
    "C15": Mutation("always at once", _CLIENT, "at_once = False  # once (C15)", "at_once = True"),
    "C17": Mutation(
        "the identity is told as the model",
        _CLIENT,
        "        boot = self.about()\n        try:",
        "        boot = msgspec.structs.replace(self.about(), model=self.identity)\n        try:",
    ),
    "C18": Mutation("the key counts from the next connection on", _CLIENT, "self._session.link.ping_interval = int(value)", "pass"),
    "R1": Mutation(
        "a comma behind each result",
        _OCPPJ,
        "return f\"[3,{_quoted(id)},{payload.decode() or '{}'}]\"",
        'return f"[3,{_quoted(id)},{payload.decode()}],"',
    ),
    "R2": Mutation("ids beyond ASCII", _OCPPJ, "return str(self._number)", 'return f"№{self._number}"'),
    "R3": Mutation("a result of type 13", _OCPPJ, 'return f"[3,{_quoted(id)},', 'return f"[13,{_quoted(id)},'),
    "R4": Mutation("an unknown type ends the connection", _OCPPJ, "return Ignored(Fault.UNKNOWN_TYPE)", "return Ignored(Fault.UNKNOWN_TYPE, 1002)"),
    "R5": Mutation("always the same id", _OCPPJ, "self._number += 1", "self._number = 1"),
    "R6": Mutation("ids are answered in upper case", _CALLS, "self._grammar.result(call.id,", "self._grammar.result(call.id.upper(),"),
    "R7": Mutation("ids of any length", _OCPPJ, "if len(id) > LONGEST_ID:", "if len(id) > 10 * LONGEST_ID:"),
    "R8": Mutation("a fifth element is overlooked", _OCPPJ, "if len(parts) > count:", "if len(parts) > count + 1:"),
    "R9": Mutation(
        "a result of four elements",
        _OCPPJ,
        "return f\"[3,{_quoted(id)},{payload.decode() or '{}'}]\"",
        "return f\"[3,{_quoted(id)},{payload.decode() or '{}'},0]\"",
    ),
    "R10": Mutation("errors without details", _OCPPJ, ",{details.decode() or '{}'}]\"", ']"'),
    "R11": Mutation(
        "null is no payload", _OCPPJ, "if parts[-1] is not None and not isinstance(parts[-1], dict):", "if not isinstance(parts[-1], dict):"
    ),
    "R12": Mutation(
        "rejected by an error",
        _CLIENT,
        'return messages.ChangeConfigurationResponse(status="Rejected")',
        'raise CallRefused(ErrorCode.GENERIC_ERROR, "rejected")',
    ),
    "R13": Mutation("a missing value is none", _MESSAGES, "    key: str\n    value: str\n", '    key: str\n    value: str = ""\n'),
    "R14": Mutation(
        "what has no id is answered",
        _OCPPJ,
        "return Ignored(Fault.NO_ID)",
        'return self._refuse(str(id), Fault.NO_ID, ErrorCode.GENERIC_ERROR, "message[1]", "is no id")',
    ),
    "R15": Mutation(
        "an id in progress is answered by another code",
        _OCPPJ,
        'Fault.ID_IN_PROGRESS, ErrorCode.GENERIC_ERROR, "message[1]"',
        'Fault.ID_IN_PROGRESS, ErrorCode.PROTOCOL_ERROR, "message[1]"',
    ),
    "R16": Mutation("used ids are forgotten", _OCPPJ, "if not self._first_use(id):", "if self._first_use(id) is None:"),
    "R17": Mutation("any answer is taken for ours", _OCPPJ, "if id != self._outstanding:", "if self._outstanding is None:"),
    "R18": Mutation("what the other side begins is not implemented", _READING, "ErrorCode.NOT_SUPPORTED)", "ErrorCode.NOT_IMPLEMENTED)"),
    "R19": Mutation("a handler that breaks is a generic error", _CALLS, 'INTERNAL_ERROR = "InternalError"', 'INTERNAL_ERROR = "GenericError"'),
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
    "R24": Mutation("binary frames are read", _CALLS, "if isinstance(message, bytes):", "if isinstance(message, bytearray):"),
    "B1": Mutation("a new station says nothing", _CLIENT, _REGISTER, _REGISTER.replace("self._is_known()", "self._is_known() is not None")),
    "B2": Mutation(
        "the gate is open before the answer",
        _CLIENT,
        "        boot = self.about()\n        try:",
        "        boot = self.about()\n        self._open_gate()\n        try:",
    ),
    "B3": Mutation("a heartbeat a day, whatever interval says", _CLIENT, "period = min(accepted.interval or DAY, DAY)", "period = DAY"),
    "B4": Mutation("the time is not taken", _CLIENT, 'if self.time.told(current_time, round_trip) == "stepped":', 'if current_time == "stepped":'),
    "B6": Mutation("back at once after a rejection", _CLIENT, "self._hold = interval  # B6", "self._hold = 0.0"),
    "B8": Mutation(
        "who waits hangs up",
        _CLIENT,
        "            return interval or PENDING",
        '            session.link.close(OK, "pending")\n            return interval or PENDING',
    ),
    "B9": Mutation(
        "who waits answers nothing", _CLIENT, "if action in self.settings.without:", "if action in self.settings.without or not self.registered:"
    ),
    "B10": Mutation(
        "who waits tells its errors",
        _CLIENT,
        "            await self._registered.wait()\n            self._watch_queue()",
        "            self._watch_queue()",
    ),
    "B11": Mutation("the interval of Pending is overlooked", _CLIENT, "return interval or PENDING", "return 100 * PENDING"),
    "B13": Mutation("new firmware stays on its connection", _FILES, "self._station.first_boot()", "pass"),
    "B14": Mutation(
        "one Central System is like another",
        _CLIENT,
        "accepted.boot == self.about() and accepted.url == ids.digest(self.settings.url)",
        "accepted.boot == self.about()",
    ),
    "B15": Mutation(
        "a changed field is overlooked",
        _CLIENT,
        "accepted.boot == self.about() and accepted.url == ids.digest(self.settings.url)",
        "accepted.url == ids.digest(self.settings.url)",
    ),
    "B16": Mutation("every start registers", _CLIENT, _REGISTER, _REGISTER.replace("self._is_known()", "self._is_known() is None")),
    "B17": Mutation("a crash is not told", _CLIENT, "        if crashed:\n", "        if crashed is None:\n"),
    "B18": Mutation(
        "each connection begins with a Heartbeat", _CLIENT, "        self._beat.set()\n", "        self._beat.set()\n        self._last_beat = 0.0\n"
    ),
    "B21": Mutation("no heartbeat before its interval", _CLIENT, "period = min(accepted.interval or DAY, DAY)", "period = accepted.interval or DAY"),
    "B22": Mutation("the whole round trip is added", _TIME, "round_trip / 2", "round_trip"),
    "B23": Mutation("longer texts", _MESSAGES, "Text20 = Annotated[str, Meta(max_length=20)]", "Text20 = Annotated[str, Meta(max_length=21)]"),
    "N1": Mutation(
        "uploads without their requestId", _FILES, 'status="Uploading", requestId=order.requestId))], must=True', 'status="Uploading"))], must=True'
    ),
    "N2": Mutation(
        "firmware without its requestId",
        _FILES,
        "FirmwareStatusNotification(status=status, requestId=order.requestId)",
        "FirmwareStatusNotification(status=status)",
    ),
    "N3": Mutation(
        "nothing under way is called uploaded", _FILES, 'GetFileStatusNotification(status="None")', 'GetFileStatusNotification(status="Uploaded")'
    ),
    "N4": Mutation("the default context is sent", _CLIENT, '{} if context == "Sample.Periodic" else {"context": context}', '{"context": context}'),
    "N5": Mutation("deprecated measurands are sent", _READING, "if sample.measurand.startswith(_DEPRECATED):", 'if sample.measurand == "":'),
    "N9": Mutation(
        "well again while another error stands",
        _FAULTS,
        'status="Faulted" if rest else "Ok", errorCode="NoError"',
        'status="Ok", errorCode="NoError"',
    ),
    "N10": Mutation("an OtherError of nobody", _FAULTS, 'fault.vendor_id or ("Gridloom" if other else None)', "fault.vendor_id"),
    "N11": Mutation("whatever comes during a test is one", _FAULTS, "testing and fault.code in RESOLVED)", "testing)"),
    "N12": Mutation("a text of our own", _FAULTS, '"Ground failure resolved"', '"Ground failure (MV) resolved"'),
    "N13": Mutation(
        "a light is an error",
        _CLIENT,
        "*self.contactors.faults(), *self._hardware])",
        '*self.contactors.faults(), *(Fault("OtherError", "light") for lamp in self.vault.state.lamps if lamp.on)])',
    ),
    "N14": Mutation("the return to Schedule is not told", _LIGHTS, "if wanted.mode != lamp.mode:", 'if wanted.mode not in (lamp.mode, "Schedule"):'),
    "N15": Mutation("each for all", _LIGHTS, "contactorId=lamp.contactor, mode=lamp.mode,", "mode=lamp.mode,"),
    "N16": Mutation(
        "a local override of the first contactor",
        _LIGHTS,
        "            told.append((str(contactor), _mode(lamp, now)))",
        "            told += [(str(contactor), _mode(lamp, now))] if contactor == 1 else []",
    ),
    "N17": Mutation(
        "another moment", _LIGHTS, "now, lamp = self._now(), self.lamp(contactor)", "now, lamp = self._now() + 1_000_000, self.lamp(contactor)"
    ),
    "N18": Mutation("nothing is unexpected", _LIGHTS, "_status(lamp, now, not excused)", "_status(lamp, now, False)"),
    "N19": Mutation(
        "told is told, answered or not",
        _CLIENT,
        "                await self.clock.sleep(0.05)\n",
        "                self.vault.commit(done=[event.seq])\n",
    ),
    "N20": Mutation(
        "what is refused is given up", _CLIENT, "if event.guaranteed or not isinstance(error, CallRefused):", "if not isinstance(error, CallRefused):"
    ),
    "N23": Mutation("the newest goes first", _CLIENT, "in self.vault.events.values():\n", "in reversed(list(self.vault.events.values())):\n"),
    "S1": Mutation("not implemented is not supported", _CLIENT, 'ErrorCode.NOT_IMPLEMENTED, f"', 'ErrorCode.NOT_SUPPORTED, f"'),
    "S2": Mutation(
        "not supported is a wrong value",
        _FILES,
        "(FieldFault(path, reason),), ErrorCode.NOT_SUPPORTED)",
        "(FieldFault(path, reason),), ErrorCode.PROPERTY_CONSTRAINT_VIOLATION)",
    ),
    "S3": Mutation("triggered values are periodic ones", _CLIENT, 'self._sampled("Trigger")', 'self._sampled("Sample.Periodic")'),
    "S4": Mutation("the answer comes last", _CLIENT, "self._begin(self._tell_all(self._session, told))", "await self._tell_all(self._session, told)"),
    "S5": Mutation(
        "connectorId is overlooked",
        _CLIENT,
        "contactors = (message.connectorId,) if message.connectorId else self.contactors.numbers",
        "contactors = self.contactors.numbers",
    ),
    "S6": Mutation("Sunset may be written", _KEYS, "Key(SUNSET, None, None,", "Key(SUNSET, bool, None,"),
    "S7": Mutation("unknown keys are passed over", _CLIENT, "unknownKey=tuple(name for name, key in found.items() if key is None)", "unknownKey=()"),
    "S8": Mutation("beyond the pole", _SCHEDULE, "abs(latitude) <= 90", "abs(latitude) <= 91"),
    "S9": Mutation("Sunset for Sunrise", _CLIENT, "one.rises == (key.name == keys.SUNRISE)", "one.rises == (key.name == keys.SUNSET)"),
    "S10": Mutation("any level", _CLIENT, "max_stack_level=int(self.vault.state.keys[keys.STACK])", "max_stack_level=1_000"),
    "S11": Mutation(
        "the contactor is overlooked",
        _LIGHTS,
        "here = [one for one in profiles if message.contactorId in (None, one.contactor)]",
        "here = list(profiles)",
    ),
    "S12": Mutation(
        "profileId wins over another stack level",
        _LIGHTS,
        "one.stack_level != message.stackLevel for one in gone",
        "one.stack_level < 0 for one in gone",
    ),
    "S13": Mutation("Suspend turns off", _SCHEDULE, 'State(present if remote == "Suspend" else remote == "On",', 'State(remote == "On",'),
    "S14": Mutation("the local switch is not asked", _CLIENT, "        if held:\n", "        if held is None:\n"),
    "S15": Mutation(
        "only another mode is told",
        _LIGHTS,
        "            told.append((str(contactor), _mode(lamps[-1], now)))",
        "            told += [(str(contactor), _mode(lamps[-1], now))] if lamp.mode != mode else []",
    ),
    "S16": Mutation(
        "without a contactor it is the first", _CLIENT, "self.contactors.numbers if contactor is None else", "(1,) if contactor is None else"
    ),
    "S17": Mutation(
        "a local override ends the remote one",
        _LIGHTS,
        "lamp = msgspec.structs.replace(lamp, mode=wanted.mode, mode_since=now)",
        "lamp = msgspec.structs.replace(lamp, mode=wanted.mode, mode_since=now, remote=lamp.remote if local is None else None)",
    ),
    "S18": Mutation(
        "resumed at the next look",
        _CLIENT,
        '        self.news()\n        self.changed()\n        return "Accepted"',
        '        self.news()\n        return "Accepted"',
    ),
    "S19": Mutation(
        "reset first, answered later",
        _CLIENT,
        "        self._begin(self._reset_soon())\n",
        "        self._again.set()\n        await asyncio.sleep(1.0)\n",
    ),
    "S20": Mutation("accepted and not tested", _CLIENT, "self._begin(self._tested())", "self.changed()"),
    "S21": Mutation("tested twice", _CLIENT, "if self.vault.state.testing or self.faults.indicated():", "if self.vault.state.testing is None:"),
    "S22": Mutation(
        "a test ends by itself",
        _CLIENT,
        "            await self.ask(self.driver.test_indicators)\n        self.changed()\n",
        "            await self.ask(self.driver.test_indicators)\n        self.changed()\n"
        "        await asyncio.sleep(0.1)\n        await self._indicators_reset()\n",
    ),
    "S23": Mutation(
        "what is still there is not told again",
        _FAULTS,
        "self._tell(others, new, [one for one in indicators if one.fault not in standing])",
        "self._tell([*others, *indicators], [], [])",
    ),
    "S24": Mutation(
        "the end of a test is no part of it", _FAULTS, "timestamp=rfc3339(self._now()), test=one.test\n", "timestamp=rfc3339(self._now())\n"
    ),
    "S25": Mutation(
        "the period is overlooked", _FILES, '"csv", self._station.meters.text(start, stop)', '"csv", self._station.meters.text(None, None)'
    ),
    "S26": Mutation("Downloaded is not told", _FILES, '        self._tell(job.order, "Downloaded")\n', ""),
    "L1": Mutation("a day from midnight to midnight", _SCHEDULE, "NOON = 43_200_000", "NOON = 0"),
    "L2": Mutation(
        "every contactor is cleared", _SCHEDULE, "message.clearAllSchedules and one.contactor == message.contactorId", "message.clearAllSchedules"
    ),
    "L3": Mutation(
        "five periods", _MESSAGES, "tuple[Period, ...], Meta(min_length=1, max_length=4)]", "tuple[Period, ...], Meta(min_length=1, max_length=5)]"
    ),
    "L4": Mutation("the lowest level wins", _SCHEDULE, "winner = max(active,", "winner = min(active,"),
    "L5": Mutation("beside the one it replaces", _SCHEDULE, "[one for one in kept if (one.contactor, one.id) not in replaced]", "list(kept)"),
    "L6": Mutation("always on Mondays", _SCHEDULE, "return apart % 7 == 0 if", "return day.weekday() == 0 if"),
    "L7": Mutation("validTo is exclusive", _SCHEDULE, "day > self.valid_to)", "day >= self.valid_to)"),
    "L8": Mutation(
        "any time without validFrom",
        _SCHEDULE,
        'if came.validFrom is None and came.recurrencyKind != "Daily":',
        'if came.validFrom is None and came.recurrencyKind == "":',
    ),
    "L9": Mutation("24 o'clock", _SCHEDULE, "2[0-3]):([0-5]", "2[0-4]):([0-5]"),
    "L10": Mutation(
        "the sun of one day", _SCHEDULE, "    seen = sun_of(within, place)\n", "    seen = sun_of(window(date(2026, 6, 21), place.zone), place)\n"
    ),
    "L11": Mutation(
        "turned round",
        _SCHEDULE,
        "cut = Span(max(start, within.start), min(end, within.end))",
        "cut = Span(max(min(start, end), within.start), min(max(start, end), within.end))",
    ),
    "L12": Mutation(
        "midnight is of the day before",
        _CLIENT,
        "messages.day(message.at), self.place()",
        'messages.day(message.at) - timedelta(days=message.at[11:13] == "00"), self.place()',
    ),
    "L14": Mutation(
        "the first profile is kept whatever follows",
        _CLIENT,
        "        installed = schedule.install(self",
        "        first = msgspec.structs.replace(message, streetlightProfiles=message.streetlightProfiles[:1])\n"
        "        self.vault.commit(profiles=schedule.install(self.vault.state.profiles, first).profiles)\n"
        "        installed = schedule.install(self",
    ),
    "L15": Mutation(
        "profiles in memory only",
        _CLIENT,
        "self.vault.commit(must=True, profiles=installed.profiles)",
        "self.vault.state.profiles = installed.profiles",
    ),
}
