"""Honest and hostile stations in any order, over real sockets, against a model of what the Central System must answer, keep and count.

Two stations do what the document says (boot, heartbeats, values, lights, also late, twice and again after a lost answer), and on the same connections
everything that they must not: broken JSON, used and endless ids, doubled keys, depth, binary and unmasked frames, size, floods, half messages. The
model knows the rules by their numbers in CONFORMANCE and shares nothing with the code.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.core.world import until
from tests.integrations.os3p.central import Central, central, section
from tests.integrations.os3p.station import BINARY, PING, TEXT, CallError, Station, connected, knock

from gridloom.core.settings import Duration
from gridloom.integrations.os3p.files import Files
from gridloom.integrations.os3p.server import CentralSystem

IDENTITIES = ("SUBS 1", "Übergabe/2")
PROBE = "PROBE"
BEGIN = datetime(2025, 11, 20, 16, 0, tzinfo=UTC)
MOST_BYTES = 65_536
STATUS, MODE = "StreetlightStatusNotification", "StreetlightModeStatusNotification"
T = TypeVar("T")

identities = st.sampled_from(IDENTITIES)
minutes = st.integers(0, 12)
contactors = st.sampled_from((1, 2, 4))
WITHOUT_ANSWER = {
    "": "not-json", "nonsense": "not-json", '[2,"a","Heartbeat",{}': "not-json", '[2,"a","Heartbeat",{}]]': "not-json", "[2,'a']": "not-json",
    "{}": "not-an-array", '"2"': "not-an-array", "null": "not-an-array", "[]": "unknown-type", '[9,"a","Heartbeat",{}]': "unknown-type",
    '["2","a","Heartbeat",{}]': "unknown-type", "[2]": "no-id", '[2,7,"Heartbeat",{}]': "no-id", '[2,"\\ud800","Heartbeat",{}]': "no-id",
    '[3,"nobody",{}]': "unknown-answer", '[4,"nobody","GenericError","",{}]': "unknown-answer", '[4,"1"]': "unknown-answer",
}  # fmt: skip
"""Text and what it is counted as (R4, R14, R17)."""
REFUSED = {
    "too few": ('"Heartbeat"', "ProtocolError", "missing-element"),
    "too many": ('"Heartbeat",{},{}', "FormationViolation", "extra-element"),
    "no action": ("7,{}", "FormationViolation", "wrong-element"),
    "no object": ('"Heartbeat",[]', "FormationViolation", "payload-no-object"),
    "doubled key": ('"Heartbeat",{"a":1,"b":{"c":2,"c":2}}', "FormationViolation", "duplicate-key"),
    "not a number": ('"Heartbeat",{"a":NaN}', "FormationViolation", "no-number"),
    "infinity": ('"Heartbeat",{"a":-Infinity}', "FormationViolation", "no-number"),
    "half a pair": ('"Heartbeat",{"a":"\\udfff"}', "FormationViolation", "lone-surrogate"),
    "deep": (f'"Heartbeat",{{"a":{"[" * 50}{"]" * 50}}}', "FormationViolation", "too-deep"),
    "very deep": (f'"Heartbeat",{{"a":{"[" * 20_000}{"]" * 20_000}}}', "FormationViolation", "too-deep"),
}
"""What follows the id, the code of the answer, and what it is counted as (R8, R19, R20, R23)."""
BROKEN = {
    "binary": (BINARY, b"x", True, 1003, "binary-frame"),
    "no text": (TEXT, b'[2,"a","Heartbeat",{"a":"\xc3\x28"}]', True, 1007, "not-utf8"),
    "too big": (TEXT, b" " * (MOST_BYTES + 1), True, 1009, "too-big"),
    "unmasked": (TEXT, b"[]", False, 1002, "websocket-frame"),
    "continued": (0, b"of nothing", True, 1002, "websocket-frame"),
    "reserved": (0x40 | TEXT, b"[]", True, 1002, "websocket-frame"),
}
"""Frames that end the connection: opcode, payload, whether masked, the close code, and what they are counted as (R23, R24)."""


class Model:
    """What must be known of one station."""

    def __init__(self) -> None:
        self.accepted = False
        self.told: set[tuple[str, int | None, int, str]] = set()
        self.lights: dict[tuple[str, int | None], tuple[int, str]] = {}
        self.values: dict[int, Decimal] = {}
        self.station: Station | None = None
        self.used: list[str] = []

    def tells(self, field: str, contactor: int | None, minute: int, value: str) -> None:
        """A guaranteed event was answered (N21)."""
        event = (field, contactor, minute, value)
        if event in self.told:
            return
        self.told.add(event)
        known = self.lights.get((field, contactor))
        if known is None or minute >= known[0]:
            self.lights[field, contactor] = (minute, value)

    def holds(self, field: str, contactor: int) -> str | None:
        """Of a contactor: what was told of it or of all (N15)."""
        own, every = self.lights.get((field, contactor)), self.lights.get((field, None))
        if own is None or every is None:
            return (own or every or (0, None))[1]
        return own[1] if own[0] >= every[0] else every[1]


async def replied(call: Awaitable[Any]) -> Any:
    """The payload of the result, or the code of the error."""
    try:
        return await call
    except CallError as error:
        return error.code


def moment(minute: int) -> str:
    """RFC 3339."""
    return (BEGIN + timedelta(minutes=minute)).isoformat()


class Machine(RuleBasedStateMachine):
    """One Central System over a store of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="gridloom-machine-")
        self.stack = contextlib.AsyncExitStack()
        self.models = {identity: Model() for identity in IDENTITIES}
        self.ids = (f"id{number}" for number in itertools.count())
        self.deviations: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.one: Central = self.do(self.begin())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Let everybody live until it is done."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    async def begin(self) -> Central:
        """The hub with three known stations, of which one is accepted and stays."""
        settings = section(max_message=MOST_BYTES, boot_grace=Duration("1h"))
        one = await self.stack.enter_async_context(central(Path(self.folder.name), settings))
        for identity in (*IDENTITIES, PROBE):
            await one.add(identity)
        self.probe = await connected(one.where, PROBE)
        await self.probe.boot()
        self.answers["BootNotification ok"] += 1
        return one

    def teardown(self) -> None:
        """What is kept is what was told; then everything ends in order."""
        try:
            self.do(self.check())
        finally:
            self.do(self.end())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.folder.cleanup()

    async def end(self) -> None:
        """Everybody leaves."""
        for station in (self.probe, *(model.station for model in self.models.values())):
            if station is not None:
                station.cut()
        await asyncio.sleep(0)
        await self.stack.aclose()

    async def check(self) -> None:
        """The store against the model."""
        for identity, model in self.models.items():
            device = f"os3p:{identity}"
            found = await self.one.world.query.events(self.one.world.admin, devices=(device,), limit=1_000)
            lights = [event for event in found.events if event.kind.startswith("light.")]
            keys = []
            for event in lights:
                field = "mode" if event.kind == "light.mode.changed" else "status"
                minute = (datetime.fromtimestamp(event.time / 1e6, UTC) - BEGIN) // timedelta(minutes=1)
                keys.append((field, event.data["contactor"], minute, event.data[field]))
            assert Counter(keys) == Counter(model.told), "each guaranteed event once, and no other (N21, N22)"
            state = (await self.one.show(identity)).lights
            for contactor in (1, 2, 3, 4):
                now = None if state is None else state.of(contactor)
                for field in ("status", "mode"):
                    told = None if now is None else getattr(now, field)
                    assert (None if told is None else told.value) == model.holds(field, contactor), (identity, contactor, field)
            values = [value for value in await self.one.world.registry.latest_values(device) if value.type.measurand == "Frequency"]
            newest = {Decimal(value.value).scaleb(value.exponent) for value in values}
            assert newest == ({model.values[max(model.values)]} if model.values else set())

    # ------------------------------------------------------------------------------------------------------- honest stations

    def on_line(self, identity: str) -> Station:
        """The station's connection; a new one if it has none."""
        model = self.models[identity]
        if model.station is None or model.station.ended is not None:
            model.station = self.do(connected(self.one.where, identity))
            model.station.replies["TriggerMessage"] = {"status": "Accepted"}
            model.used = []
        return model.station

    def call(self, identity: str, action: str, payload: Any) -> bool:
        """A proper CALL: answered with a result if the station is accepted, else refused (B20). Whether it was a result."""
        station, model = self.on_line(identity), self.models[identity]
        id = next(self.ids)
        model.used.append(id)
        model.accepted |= action == "BootNotification"
        answer = self.do(replied(station.call(action, payload, id=id)))
        if isinstance(answer, str):
            assert (answer, model.accepted) == ("SecurityError", False)
            self.answers[f"{action} SecurityError"] += 1
            return False
        assert model.accepted
        assert answer.keys() == {"BootNotification": {"status", "currentTime", "interval"}, "Heartbeat": {"currentTime"}}.get(action, set())
        self.answers[f"{action} ok"] += 1
        return True

    @rule(identity=identities)
    def boots(self, identity: str) -> None:
        assert self.call(identity, "BootNotification", {"vendor": "V", "model": "M", **dict.fromkeys(FIELDS, "")})

    @rule(identity=identities)
    def heartbeats(self, identity: str) -> None:
        self.call(identity, "Heartbeat", {})

    @rule(identity=identities, minute=minutes, value=st.integers(4_900, 5_100))
    def measures(self, identity: str, minute: int, value: int) -> None:
        sample = {"value": f"{value / 100:.2f}", "measurand": "Frequency", "unit": "Hz"}
        if self.call(identity, "MeterValues", {"meterValue": [{"timestamp": moment(minute), "sampledValue": [sample]}]}):
            self.models[identity].values[minute] = Decimal(value) / 100

    @rule(identity=identities, contactor=contactors, minute=minutes, value=st.sampled_from(("On", "Off")), times=st.integers(1, 2))
    def switches(self, identity: str, contactor: int, minute: int, value: str, times: int) -> None:
        for _ in range(times):
            if self.call(identity, STATUS, {"contactorId": contactor, "status": value, "timestamp": moment(minute)}):
                self.models[identity].tells("status", contactor, minute, value)

    @rule(
        identity=identities, contactor=st.none() | contactors, minute=minutes, value=st.sampled_from(("Schedule", "LocalOverride", "RemoteOverride"))
    )
    def changes_its_mode(self, identity: str, contactor: int | None, minute: int, value: str) -> None:
        payload = {"mode": value, "timestamp": moment(minute)} | ({} if contactor is None else {"contactorId": contactor})
        if self.call(identity, MODE, payload):
            self.models[identity].tells("mode", contactor, minute, value)

    @precondition(lambda self: any(model.told for model in self.models.values()))
    @rule(data=st.data())
    def tells_again_what_was_answered(self, data: st.DataObject) -> None:
        identity = data.draw(st.sampled_from([identity for identity, model in self.models.items() if model.told]))
        field, contactor, minute, value = data.draw(st.sampled_from(sorted(self.models[identity].told, key=repr)))
        payload = {field: value, "timestamp": moment(minute)} | ({} if contactor is None else {"contactorId": contactor})
        assert self.call(identity, STATUS if field == "status" else MODE, payload)

    @rule(identity=identities, contactor=contactors, minute=minutes)
    def loses_an_answer_and_tells_again(self, identity: str, contactor: int, minute: int) -> None:
        model, station = self.models[identity], self.on_line(identity)
        payload = {"contactorId": contactor, "status": "On", "timestamp": moment(minute)}
        before = self.now()
        station.say([2, "lost", STATUS, payload])
        self.do(asyncio.sleep(0))
        station.cut()
        model.station = None
        self.do(until(lambda: self.gone(identity)))
        self.do(asyncio.sleep(0.01))
        self.answers += Counter(self.now()) - Counter(before)  # whether it came through is the line's business
        if self.call(identity, STATUS, payload):
            model.tells("status", contactor, minute, "On")

    def gone(self, identity: str) -> bool:
        """Whether its connection has ended on the hub's side; one that was not accepted was never online."""
        station = self.one.service._stations._stations.get(identity)
        return (station is None or station.connection is None) and not self.one.online(identity)

    @rule(identity=identities)
    def connects_a_second_time(self, identity: str) -> None:
        old = self.on_line(identity)
        self.models[identity].station = None
        self.on_line(identity)
        assert self.do(old.closed()).code == 1008, "the newest wins (C16)"

    @rule(identity=identities, how=st.sampled_from(("cut", "close")))
    def leaves(self, identity: str, how: str) -> None:
        station = self.on_line(identity)
        self.models[identity].station = None
        if how == "close":
            self.do(station.close())
        station.cut()
        self.do(until(lambda: self.gone(identity)))

    @rule(identity=identities, pieces=st.lists(st.integers(1, 30), min_size=1, max_size=4))
    def speaks_in_fragments(self, identity: str, pieces: list[int]) -> None:
        station, model = self.on_line(identity), self.models[identity]
        id = next(self.ids)
        text = json.dumps([2, id, "Heartbeat", {}]).encode()
        before, opcode = len(station.messages), TEXT
        for size in pieces:
            station.frame(opcode, text[:size], fin=False)
            station.frame(PING, b"in between")
            text, opcode = text[size:], 0
        station.frame(opcode, text)
        self.do(until(lambda: any(message[1] == id for message in station.messages[before:])))
        self.answers["Heartbeat ok" if model.accepted else "Heartbeat SecurityError"] += 1
        model.used.append(id)

    @rule(identity=identities, count=st.integers(2, 60))
    def floods(self, identity: str, count: int) -> None:
        station, model = self.on_line(identity), self.models[identity]
        ids = [next(self.ids) for _ in range(count)]
        for id in ids:
            station.say([2, id, "Heartbeat", {}])
            station.frame(PING, b"")
        self.do(until(lambda: any(message[:2] in ([3, ids[-1]], [4, ids[-1]]) for message in station.messages)))
        assert [message[1] for message in station.messages if message[0] != 2][-count:] == ids, "in order (R21)"
        self.answers["Heartbeat ok" if model.accepted else "Heartbeat SecurityError"] += count
        model.used += ids

    # ------------------------------------------------------------------------------------------------------ hostile stations

    @rule(identity=identities, text=st.sampled_from(sorted(WITHOUT_ANSWER)))
    def says_what_is_not_answered(self, identity: str, text: str) -> None:
        station = self.on_line(identity)
        station.say(text)
        self.deviations[WITHOUT_ANSWER[text]] += 1
        before = len([message for message in station.messages if message[0] != 2])
        self.call(identity, "Heartbeat", {})
        assert len([message for message in station.messages if message[0] != 2]) == before + 1

    def asks_badly(self, identity: str, id: str, rest: str, code: str, fault: str) -> None:
        """A CALL that is refused by its looks, whoever asks."""
        station = self.on_line(identity)
        waiting: asyncio.Future[Any] = self.loop.create_future()
        station._waiting[id] = waiting
        station.say(f"[2,{json.dumps(id)},{rest}]")
        assert self.do(replied(station.answered(waiting))) == code
        self.deviations[fault] += 1

    @rule(identity=identities, what=st.sampled_from(sorted(REFUSED)))
    def asks_what_cannot_be_trusted(self, identity: str, what: str) -> None:
        id = next(self.ids)
        self.on_line(identity)
        self.models[identity].used.append(id)
        self.asks_badly(identity, id, *REFUSED[what])

    @rule(identity=identities, length=st.integers(37, 200))
    def has_a_long_id(self, identity: str, length: int) -> None:
        self.asks_badly(identity, "x" * length, '"Heartbeat",{}', "PropertyConstraintViolation", "id-too-long")

    @rule(identity=identities, data=st.data())
    def uses_an_id_again(self, identity: str, data: st.DataObject) -> None:
        if self.on_line(identity) and self.models[identity].used:
            id = data.draw(st.sampled_from(self.models[identity].used[-200:]))
            self.asks_badly(identity, id, '"Heartbeat",{}', "GenericError", "id-used-before")

    @rule(identity=identities, action=st.sampled_from(("Nonsense", "heartbeat", "Reset", "\U0001f600")))
    def asks_for_what_there_is_not(self, identity: str, action: str) -> None:
        station, model, id = self.on_line(identity), self.models[identity], next(self.ids)
        model.used.append(id)
        expected = "SecurityError" if not model.accepted else "NotSupported" if action == "Reset" else "NotImplemented"
        assert self.do(replied(station.call(action, {}, id=id))) == expected
        self.answers[f"{'Reset' if action == 'Reset' else 'unknown'} {expected}"] += 1

    @rule(identity=identities, how=st.sampled_from(sorted(BROKEN)))
    def breaks_the_line(self, identity: str, how: str) -> None:
        opcode, payload, masked, code, fault = BROKEN[how]
        station = self.on_line(identity)
        station.frame(opcode, payload, masked=masked)
        assert self.do(station.closed()).code == code
        self.models[identity].station = None
        self.deviations[fault] += 1
        self.do(until(lambda: self.gone(identity)))

    @rule(identity=identities, size=st.integers(1, 900))
    def sends_half_a_message_and_goes(self, identity: str, size: int) -> None:
        station = self.on_line(identity)
        station.writer.write(b"\x81\xfe\x03\xe8mask" + b"y" * size)
        self.do(asyncio.sleep(0))
        station.cut()
        self.models[identity].station = None
        self.do(until(lambda: self.gone(identity)))

    @rule(identity=st.sampled_from(("SUBS", "subs 1", "x" * 300, "%00")))
    def a_stranger_knocks(self, identity: str) -> None:
        assert self.do(knock(self.one.where, identity)).status in (400, 404)

    @rule()
    def the_hub_is_started_anew(self) -> None:
        async def again() -> None:
            await self.one.service.stop()
            self.one.service = CentralSystem(self.one.settings, self.one.hub, Files(self.one.settings, self.one.hub))
            await self.one.start()

        leaving = [model.station for model in self.models.values() if model.station is not None] + [self.probe]
        self.do(again())
        for station in leaving:
            assert self.do(station.closed()).code == 1001
        for model in self.models.values():
            model.station = None
        self.probe = self.do(connected(self.one.where, PROBE))

    # ------------------------------------------------------------------------------------------------------------ what holds

    def now(self) -> dict[str, int]:
        """The hub's count of CALLs by action and answer."""
        return {key: int(value) for key, value in self.one.count("gridloom_os3p_calls_total").items() if value}

    @invariant()
    def others_are_answered(self) -> None:
        assert self.do(self.probe.call("Heartbeat"))["currentTime"]
        self.answers["Heartbeat ok"] += 1

    @invariant()
    def everything_is_counted(self) -> None:
        assert self.one.count("gridloom_os3p_deviations_total") == self.deviations
        assert self.now() == self.answers

    @invariant()
    def memory_is_bounded(self) -> None:
        service = self.one.service
        connections = {PROBE} | {identity for identity, model in self.models.items() if model.station is not None}
        self.do(until(lambda: len(service._server or ()) == len(connections)))
        assert set(service._stations._stations) <= {PROBE, *IDENTITIES}
        self.do(until(lambda: len(service._office._tasks) <= 2 * len(connections)))
        assert len(service._office.locks) == 0


FIELDS = ("stationNumber", "serialNumber", "firmwareVersion", "iccid", "imsi")


def test_honest_and_hostile_stations_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.stations.MOST_REPLACED", 1_000)  # all forty steps are one minute
    # Not shrunk: a failure is often something that one waits for, and forty steps can be read.
    phases = (Phase.reuse, Phase.generate)
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=80, stateful_step_count=40, deadline=None, phases=phases, suppress_health_check=list(HealthCheck)),
    )
