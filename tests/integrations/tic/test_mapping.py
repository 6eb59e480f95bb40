"""The translation: every captured frame, and what changes from one frame to the next, as readings and events of the core."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integrations.tic.splitter import split

from gridloom.core.clock import rfc3339
from gridloom.core.events import TABLE as EVENTS
from gridloom.core.measurands import TABLE as MEASURANDS
from gridloom.core.model import DeviceKind, Event, EventState, MeterReading, Phase, Quality, Reading, ReadingType, Severity, TimeSource
from gridloom.integrations.tic.codec import Damage, Frame, Group, Parser, encode
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.mapping import SLOW, URGENT, Mapping, MappingState
from gridloom.integrations.tic.messages import PortState, TicFrame, UsbInfo

DATA = Path(__file__).parents[2] / "data" / "tic" / "frames"
FILES = sorted(file.stem for file in DATA.glob("*.bin"))
PARIS = ZoneInfo("Europe/Paris")
PORT = PortState("/dev/ttyUSB0", "1-1", "pci-0000:00:14.0-usb-0:1:1.0", None, None, "reading", "", 0, UsbInfo(0x0403, 0x6015))
NOW = 1_704_376_680_000_000  # 2 s after the DATE of std_mono_hphc_nb
SECOND = 1_000_000
IMPORT = "Energy.Active.Import.Register"


def captured(name: str) -> bytes:
    return (DATA / f"{name}.bin").read_bytes()


def frames(data: bytes) -> list[Frame]:
    return [one for one in Parser().feed(data) if isinstance(one, Frame)]


def frame_of(name: str, **changes: str | None) -> Frame:
    """A captured frame with other values. A label is spelled ``PJOURF_1`` for PJOURF+1; ``HORODATE/value`` sets both, None takes the group out."""
    (read,) = frames(captured(name))
    wanted = {label.replace("_", "+"): value for label, value in changes.items()}
    groups = []
    for group in read.groups:
        value = wanted.pop(group.label, group.value)
        if value is None:
            continue
        horodate, _, rest = value.rpartition("/") if group.horodate else ("", "", value)
        groups.append(Group(group.label, rest, horodate or group.horodate, group.valid))
    for label, value in wanted.items():  # new ones stand before the last
        assert value is not None, f"{label} is not in the frame"
        horodate, _, rest = value.rpartition("/")
        groups.insert(-1, Group(label, rest, horodate))
    (made,) = frames(encode(read.mode, groups))
    assert not made.partial
    return made


class Line:
    """A mapping with the time going on by a second per frame."""

    def __init__(self, now: int = NOW, state: MappingState | None = None, *, simulated: bool = False) -> None:
        self.mapping = Mapping(PARIS, state, simulated=simulated)
        self.now = now

    def hear(self, frame: Frame) -> tuple[list[MeterReading], list[Event]]:
        self.now += SECOND
        early = [event for group in frame.groups for event in self.mapping.group_events(group, self.now)]
        readings, late = self.mapping.frame(frame, self.now, PORT)
        for event in early + late:
            row = EVENTS[event.kind]
            assert "tic" in row.integrations or not row.integrations, event.kind
            assert row.alarm == (event.state is not EventState.OCCURRED), event.kind
            assert event.severity is row.severity
            assert (event.time, event.received) == (self.now, self.now)
            msgspec.json.encode(event)
        for reading in readings:
            for one in reading.readings:
                assert one.type.unit == MEASURANDS[one.type.measurand].unit, one
        return readings, early + late

    def events(self, frame: Frame) -> list[Event]:
        return self.hear(frame)[1]

    def kinds(self, frame: Frame) -> list[tuple[str, str, str]]:
        return [(event.kind, event.state.value, event.subject) for event in self.events(frame)]


def values(reading: MeterReading) -> dict[tuple[str, str | None, str | None, str | None], Any]:
    return {
        (one.type.measurand, one.type.phase, one.type.tariff, one.type.location): one.number if not isinstance(one.value, str) else one.value
        for one in reading.readings
    }


def value(reading: MeterReading, measurand: str, phase: str | None = None, tariff: str | None = None, location: str | None = None) -> Any:
    return values(reading)[measurand, phase, tariff, location]


# -------------------------------------------------------------------------------------------------------------- all captures


@pytest.mark.parametrize("name", FILES)
def test_every_captured_number_becomes_a_reading_with_its_own_value(name: str) -> None:
    """Against the splitter, which shares no code with us: nothing is lost and nothing is added."""
    from tests.integrations.tic.test_labels import MEANING

    line = Line()
    sent: list[MeterReading] = []
    expected = split(captured(name))
    for frame, raw in zip(frames(captured(name)), expected, strict=True):
        readings, _ = line.hear(frame)
        if not any(group["label"] in ("ADCO", "ADSC") and group["valid"] for group in raw["groups"]):
            assert readings == []
            continue
        sent += readings
        first = readings[0]
        assert first.device == f"tic:{next(group['value'] for group in raw['groups'] if group['label'] in ('ADCO', 'ADSC'))}"
        assert first.received == line.now
        native = first.native
        assert isinstance(native, TicFrame)
        assert [(one.label, one.horodate, one.value, one.valid) for one in native.groups] == [
            (one["label"], one["horodate"], one["value"], one["valid"]) for one in raw["groups"]
        ]
        assert (native.mode, native.port, native.port_id, native.port_path, native.captured) == (
            Mode(raw["mode"]),
            PORT.name,
            PORT.port_id,
            PORT.port_path,
            line.now,
        )
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(native), type=TicFrame) == native
        every = {key: number for reading in sent for key, number in values(reading).items()}
        for group in raw["groups"]:
            if group["label"] in MEANING and group["valid"]:
                measurand, phase, tariff = MEANING[group["label"]]
                factor = {"PREF": 1000, "PCOUP": 1000, "PEJP": 60}.get(group["label"], 1)
                if group["label"] not in ("CCASN", "CCASN-1"):
                    assert every[measurand, phase, tariff, None] == int(group["value"]) * factor, group
            elif group["label"] in MEANING:
                assert (MEANING[group["label"]][0], None, None, None) not in every
        if name != "his_tri_short_adir1":  # a short frame has no registers
            assert (IMPORT, None, None, None) in values(first)


def test_the_total_of_historic_mode_is_the_sum_of_its_registers_and_says_so() -> None:
    for name, total in (
        ("his_mono_hchp", 10_558_376 + 11_141_458),
        ("his_mono_tempo", 18_328_856 + 23_739_545 + 1_466_099 + 2_132_883 + 860_118 + 844_115),
        ("his_mono_ejp_synthetic", 123_456 + 23_456),
        ("his_tri_base_ticmeter", 62_105_110),
    ):
        (reading,) = Line().hear(frame_of(name))[0]
        (found,) = [one for one in reading.readings if one.type == ReadingType(IMPORT, "Wh")]
        assert (found.value, found.quality) == (total, Quality.DERIVED)


def test_no_total_is_made_up_when_one_register_is_damaged() -> None:
    data = bytearray(captured("his_mono_hchp"))
    data[data.index(b"HCHP ") + 6] ^= 1
    (reading,) = Line().hear(frames(bytes(data))[0])[0]
    assert (IMPORT, None, None, None) not in values(reading)
    assert value(reading, IMPORT, tariff="HC") == 10_558_376
    assert (IMPORT, None, "HP", None) not in values(reading)


def test_the_total_of_standard_mode_is_the_meters_own() -> None:
    reading = Line().hear(frame_of("std_mono_hphc_nb"))[0][0]
    (found,) = [one for one in reading.readings if one.type == ReadingType(IMPORT, "Wh")]
    assert (found.value, found.quality) == (3_971_026, Quality.GOOD)
    assert (value(reading, IMPORT, tariff="tariff1"), value(reading, IMPORT, tariff="distributor4")) == (2_296_120, 160_645)


def test_a_producer() -> None:
    line = Line()
    read = frames(captured("std_mono_producer_stream3_fixck"))
    first, *timed = line.hear(read[0])[0]
    assert value(first, "Energy.Active.Export.Register") == 2_983_292
    assert value(first, "Power.Apparent.Export") == 1_953
    assert value(first, "Energy.Reactive.Q3.Register") == 161_843
    assert value(first, "Power.Direction") == -1
    assert [(rfc3339(one.time), [each.type.measurand for each in one.readings]) for one in timed] == [
        ("2022-08-31T11:22:06Z", ["PreviousDayMax.Power.Apparent.Export"]),
        ("2022-08-31T18:02:51Z", ["PreviousDayMax.Power.Apparent.Import"]),
        ("2022-09-01T05:23:53Z", ["DayMax.Power.Apparent.Import"]),
        ("2022-09-01T12:20:00Z", ["DayMax.Power.Apparent.Export"]),
        ("2022-09-01T14:30:00Z", ["Mean.Voltage"]),
    ]
    third = [line.hear(frame)[0] for frame in read[1:]][-1]
    assert len(third) == 1, "horodated values only when they change"
    assert value(third[0], "Energy.Active.Export.Register") == 2_983_302


# ----------------------------------------------------------------------------------------------------------------------- time


def test_a_frame_of_standard_mode_is_of_the_meters_time() -> None:
    reading = Line().hear(frame_of("std_mono_hphc_nb"))[0][0]
    assert (rfc3339(reading.time), reading.source) == ("2024-01-04T13:57:58Z", TimeSource.DEVICE)


def test_a_frame_of_historic_mode_is_of_the_hubs_time() -> None:
    line = Line()
    reading = line.hear(frame_of("his_mono_hchp"))[0][0]
    assert (reading.time, reading.source) == (line.now, TimeSource.HUB)


@pytest.mark.parametrize("changes", [{"DATE": "h240104145758/"}, {"STGE": "003BC401"}])
def test_a_degraded_clock_is_not_believed_and_is_told(changes: dict[str, str | None]) -> None:
    line = Line()
    readings, events = line.hear(frame_of("std_mono_hphc_nb", **changes))
    assert (readings[0].time, readings[0].source) == (line.now, TimeSource.HUB)
    assert all(one.quality == Quality.CLOCK_DEGRADED for one in readings[0].readings)
    assert [(event.kind, event.state) for event in events] == [("clock.degraded", EventState.RAISED)]
    assert line.kinds(frame_of("std_mono_hphc_nb")) == [("clock.degraded", "cleared", "")]
    assert line.kinds(frame_of("std_mono_hphc_nb")) == []


def test_a_value_of_a_degraded_horodate_says_so() -> None:
    readings = Line().hear(frame_of("std_mono_hphc_nb", UMOY1="h240104145000/235"))[0]
    (mean,) = [reading for reading in readings if reading.readings[0].type.measurand == "Mean.Voltage"]
    assert mean.readings[0].quality == Quality.CLOCK_DEGRADED


def test_a_frame_without_a_date_is_of_the_hubs_time() -> None:
    line = Line()
    data = bytearray(captured("std_mono_hphc_nb"))
    data[data.index(b"DATE\t") + 7] ^= 1
    reading = line.hear(frames(bytes(data))[0])[0][0]
    assert (reading.time, reading.source) == (line.now, TimeSource.HUB)
    assert reading.readings[0].quality == Quality.GOOD


def test_a_clock_that_is_far_off_is_told_and_so_is_its_repair() -> None:
    line = Line(NOW + 3_600 * SECOND)
    (event,) = line.events(frame_of("std_mono_hphc_nb"))
    assert (event.kind, event.state, event.data["offset_s"]) == ("device.clock.wrong", EventState.RAISED, -3_603)
    assert event.data["device_time"] == "2024-01-04T13:57:58Z"
    assert line.events(frame_of("std_mono_hphc_nb")) == []
    assert line.kinds(frame_of("std_mono_hphc_nb", DATE="H240104155758/")) == [("device.clock.wrong", "cleared", "")]


def test_load_curve_and_maxima_are_sent_once_each_at_their_own_time() -> None:
    line = Line()
    sent = line.hear(frame_of("std_mono_hphc_nb"))[0][1:]
    assert {(rfc3339(one.time), one.readings[0].type.measurand, one.readings[0].value) for one in sent} == {
        ("2023-12-28T23:06:15Z", "PreviousDayMax.Power.Apparent.Import", 130),
        ("2024-01-04T01:46:47Z", "DayMax.Power.Apparent.Import", 130),
        ("2024-01-04T12:00:00Z", "Mean.Power.Active.Import", 48),
        ("2024-01-04T13:00:00Z", "Mean.Power.Active.Import", 75),
        ("2024-01-04T13:50:00Z", "Mean.Voltage", 235),
    }
    assert all(one.source is TimeSource.DEVICE and one.native is None for one in sent)
    assert line.hear(frame_of("std_mono_hphc_nb"))[0][1:] == []
    # the curve moves on: n becomes n-1, which was sent already
    moved = {"CCASN": "H240104150000/00099", "CCASN-1": "H240104140000/00075"}
    (new,) = line.hear(frame_of("std_mono_hphc_nb", **moved))[0][1:]
    assert (rfc3339(new.time), new.readings[0].value) == ("2024-01-04T14:00:00Z", 99)


# ------------------------------------------------------------------------------------------------------------------ how often


def test_what_seldom_changes_is_sent_when_it_does_and_every_hour() -> None:
    line = Line()
    first = values(line.hear(frame_of("std_mono_hphc_nb"))[0][0])
    second = values(line.hear(frame_of("std_mono_hphc_nb"))[0][0])
    seldom = {key[0] for key in first.keys() - second.keys()}
    assert seldom == {
        IMPORT,
        "Power.Apparent.Subscribed",
        "Power.Apparent.Breaking",
        "Tariff.Register",
        "Tariff.Running",
        "Relay.State",
        "Power.Direction",
    }
    assert {key[2] for key in first.keys() - second.keys() if key[0] == IMPORT} == {f"tariff{n}" for n in range(3, 11)}
    assert {key[0] for key in second} == {IMPORT, "Current.Import", "Voltage", "Power.Apparent.Import"}
    changed = values(line.hear(frame_of("std_mono_hphc_nb", PREF="09", RELAIS="002", NTARF="01", EASF03="000000001"))[0][0])
    assert changed["Power.Apparent.Subscribed", None, None, None] == 9_000
    assert changed["Relay.State", None, None, "relay:2"] == 1
    assert ("Relay.State", None, None, "relay:1") not in changed
    assert changed["Tariff.Running", None, None, None] == "tariff1"
    assert changed[IMPORT, None, "tariff3", None] == 1
    line.now += SLOW
    hourly = values(line.hear(frame_of("std_mono_hphc_nb"))[0][0])
    assert first.keys() == hourly.keys()


def test_readings_of_a_simulator_say_so() -> None:
    readings = Line(simulated=True).hear(frame_of("std_mono_hphc_nb"))[0]
    assert all(one.quality & Quality.SIMULATED for reading in readings for one in reading.readings)


def test_what_is_no_number_is_left_out() -> None:
    reading = Line().hear(frame_of("std_mono_hphc_nb", SINSTS="-0093", IRMS1="0p0", URMS1=""))[0][0]
    assert not {"Power.Apparent.Import", "Current.Import", "Voltage"} & {key[0] for key in values(reading)}
    assert isinstance(reading.native, TicFrame)


# ---------------------------------------------------------------------------------------------------------------- who it is


def test_a_frame_without_a_good_address_is_nobodys_until_one_is_known() -> None:
    line = Line()
    assert line.mapping.identify(frame_of("his_mono_hchp", ADCO="0203225p7077")) is None
    assert line.hear(frames(captured("his_mono_base_linky"))[0]) == ([], [])
    line.hear(frame_of("his_mono_base_linky_fixck"))
    readings, _ = line.hear(frames(captured("his_mono_base_linky"))[0])
    assert readings[0].device == "tic:022672001765"
    assert isinstance(readings[0].native, TicFrame)
    assert readings[0].native.serial == "022672001765"


def test_another_meter_on_the_line_is_told_and_its_facts_are_its_own() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    readings, events = line.hear(frame_of("std_mono_base_linkytic", DATE="H240104145758/"))
    assert readings[0].device == "tic:012345678910"
    assert [(event.kind, event.device, event.data["from"], event.data["to"]) for event in events] == [
        ("meter.changed", "tic:012345678910", "022161988996", "012345678910")
    ]
    assert line.mapping.state.facts["contract:calendar"] == "base"


def test_another_meter_in_a_damaged_frame_is_believed_the_second_time() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    data = bytearray(encode(Mode.STANDARD, frame_of("std_mono_hphc_nb", ADSC="022161988987").groups))  # two digits that cancel out
    data[data.index(b"URMS1\t") + 7] ^= 1
    first, second = frames(bytes(data) * 2)
    assert line.mapping.identify(first) is None
    assert line.mapping.identify(first) is None, "asking twice is not hearing twice"
    assert line.hear(first) == ([], [])
    assert line.mapping.identify(second) == "022161988987"
    assert line.kinds(second)[0] == ("meter.changed", "occurred", "")
    line.hear(frame_of("std_mono_hphc_nb"))
    assert line.hear(first) == ([], [])
    line.hear(frame_of("std_mono_hphc_nb"))
    assert line.hear(second) == ([], []), "not twice running"


def test_a_point_of_delivery_that_changes_is_told() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    (event,) = line.events(frame_of("std_mono_hphc_nb", PRM="12590441986009"))
    assert (event.kind, event.data["label"], event.data["to"]) == ("meter.changed", "PRM", "12590441986009")


def test_the_device() -> None:
    mapping = Mapping(PARIS)
    device = mapping.device(frame_of("std_mono_hphc_nb"), PORT)
    assert (device.id, device.integration, device.identity, device.kind) == ("tic:022161988996", "tic", "022161988996", DeviceKind.METER)
    assert (device.vendor, device.model, device.serial) == ("Sagemcom", "Linky single-phase 60 A G3, feed from above", "022161988996")
    assert device.attributes == {
        "mode": "standard",
        "tic_type": "standardMono",
        "contract": "H PLEINE/CREUSE",
        "grid_subscription": "STANDARD",
        "subscribed": "6 kVA",
        "breaking": "6 kVA",
        "behaviour": "consumer",
        "tic_version": "02",
        "year": "2021",
        "port": "/dev/ttyUSB0",
    }
    assert {IMPORT, "Voltage", "Power.Apparent.Import", "Tariff.Running", "Relay.State", "Mean.Power.Active.Import"} <= set(device.measurands)
    with pytest.raises(ValueError, match="ttyUSB0"):
        Mapping(PARIS).device(frames(captured("his_mono_base_linky"))[0], PORT)


@pytest.mark.parametrize(
    ("name", "type", "subscription", "contract", "subscribed"),
    [
        ("his_mono_base_linky_fixck", "historicMono", "BASE", "BASE", "30 A"),
        ("his_mono_hchp", "historicMono", "HCHP", "HC", "30 A"),
        ("his_mono_ejp_synthetic", "historicMono", "EJP", "EJP", "30 A"),
        ("his_mono_tempo", "historicMono", "TEMPO", "BBR", "30 A"),
        ("his_tri_hchp_linky_fixck", "historicTri", "HCHP", "HC", "20 A"),
        ("std_mono_producer_nb_fixck", "standardMono", "STANDARD", "PRODUCTEUR", "3 kVA"),
    ],
)
def test_the_contract_of_a_device(name: str, type: str, subscription: str, contract: str, subscribed: str) -> None:
    attributes = Mapping(PARIS).device(frame_of(name), PORT).attributes
    assert (attributes["tic_type"], attributes["grid_subscription"], attributes["contract"], attributes["subscribed"]) == (
        type,
        subscription,
        contract,
        subscribed,
    )


def test_every_measurand_that_is_sent_was_announced() -> None:
    for name in FILES:
        line = Line()
        for frame in frames(captured(name)):
            readings, _ = line.hear(frame)
            if readings:
                announced = set(line.mapping.device(frame, PORT).measurands)
                assert {one.type.measurand for reading in readings for one in reading.readings} <= announced, name


# ------------------------------------------------------------------------------------------------------------------ overload


def test_overload_of_a_single_phase_is_told_at_its_group_once_and_cleared() -> None:
    line = Line()
    quiet, over = frame_of("his_mono_base_linky_fixck"), frame_of("his_mono_base_adps_fixck")
    assert line.kinds(quiet) == []
    parser = Parser()
    raw = captured("his_mono_base_adps_fixck")
    end = raw.index(b"\r", raw.index(b"ADPS")) + 1
    early = [event for one in parser.feed(raw[:end]) if isinstance(one, Group) for event in line.mapping.group_events(one, NOW)]
    assert [(event.kind, event.state, event.subject, event.severity) for event in early] == [("overload", EventState.RAISED, "L1", Severity.ERROR)]
    assert early[0].data == {"label": "ADPS", "current_a": 28, "subscribed_a": 30}
    assert line.kinds(over) == []
    assert line.kinds(over) == []
    (event,) = line.events(quiet)
    assert (event.kind, event.state, event.subject) == ("overload", EventState.CLEARED, "L1")


@pytest.mark.parametrize(("label", "phase"), [("ADIR1", "L1"), ("ADIR2", "L2"), ("ADIR3", "L3")])
def test_overload_of_three_phases_in_short_and_long_frames(label: str, phase: str) -> None:
    line = Line()
    long = frame_of("his_tri_hchp_linky_fixck")
    line.hear(long)
    short = frames(
        encode(
            Mode.HISTORIC,
            [Group(label, "025"), Group("ADCO", "056476013529"), Group("IINST1", "002"), Group("IINST2", "004"), Group("IINST3", "002")],
        )
    )[0]
    readings, events = line.hear(short)
    assert [(event.kind, event.state.value, event.subject, event.data["current_a"], event.data["subscribed_a"]) for event in events] == [
        ("overload", "raised", phase, 25, 20)
    ]
    assert values(readings[0]) == {
        ("Current.Overload", phase, None, None): 25,
        ("Current.Import", "L1", None, None): 2,
        ("Current.Import", "L2", None, None): 4,
        ("Current.Import", "L3", None, None): 2,
    }
    assert line.kinds(frame_of("his_tri_hchp_linky_fixck", **{label: "025"})) == []
    assert line.kinds(long) == [("overload", "cleared", phase)]


def test_overload_by_the_status_register() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    (event,) = line.events(frame_of("std_mono_hphc_nb", STGE="003AC481", SINSTS="06400"))
    assert (event.kind, event.state, event.subject) == ("overload", EventState.RAISED, "")
    assert (event.data["power_va"], event.data["reference_va"]) == (6_400, 6_000)
    assert line.kinds(frame_of("std_mono_hphc_nb")) == [("overload", "cleared", "")]


def test_a_damaged_or_cut_frame_never_ends_an_overload() -> None:
    line = Line()
    line.hear(frame_of("his_mono_base_adps_fixck"))
    raw = bytearray(captured("his_mono_base_adps_fixck"))
    raw[raw.index(b"ADPS") + 6] ^= 1
    assert line.kinds(frames(bytes(raw))[0]) == []
    raw = bytearray(captured("his_mono_base_adps_fixck"))
    raw[raw.index(b"ADPS")] = 0x2A
    assert line.kinds(frames(bytes(raw))[0]) == []
    raw = bytearray(captured("his_mono_base_linky_fixck"))
    cut = frames(bytes(raw[: raw.index(b"\r", 60) + 1]) + b"\x03")[0]
    assert cut.partial
    assert line.kinds(cut) == []


def test_a_group_with_a_wrong_checksum_tells_nothing() -> None:
    line = Line()
    line.hear(frame_of("his_mono_base_linky_fixck"))
    assert line.mapping.group_events(Group("ADPS", "028", valid=False, mode=Mode.HISTORIC), NOW) == []
    bad = encode(Mode.HISTORIC, [*frame_of("his_mono_base_linky_fixck").groups[:-1], Group("ADPS", "028", valid=False), Group("MOTDETAT", "000000")])
    assert line.kinds(frames(bad)[0]) == []


def test_nothing_is_told_of_a_meter_that_nobody_knows_yet() -> None:
    line = Line()
    assert line.mapping.group_events(Group("ADPS", "028"), NOW) == []
    line.hear(frame_of("his_mono_base_linky_fixck"))
    line.mapping.group_events(Group("ADCO", "999999999999"), NOW)  # another one begins to speak
    assert line.mapping.group_events(Group("ADPS", "028"), NOW) == []


def test_labels_that_are_not_urgent_tell_nothing_early() -> None:
    line = Line()
    over = frame_of("std_mono_hphc_nb", STGE="003AC487", RELAIS="255", MSG1="COUPURE")
    line.hear(frame_of("std_mono_hphc_nb"))
    told = {group.label: [event.kind for event in line.mapping.group_events(group, NOW)] for group in over.groups}
    assert {label: kinds for label, kinds in told.items() if kinds} == {"STGE": ["overload", "breaker.opened"]}
    assert set(told) & URGENT >= {"STGE", "PREF", "SINSTS", "ADSC"}


# ---------------------------------------------------------------------------------------------------- tariffs, colours, peaks


def test_tariff_changes_of_historic_mode() -> None:
    line = Line()
    assert line.kinds(frame_of("his_mono_hchp")) == []
    (event,) = line.events(frame_of("his_mono_hchp", PTEC="HP.."))
    assert (event.kind, event.data) == ("tariff.changed", {"from": "HC", "to": "HP", "name": "HP.."})
    assert line.events(frame_of("his_mono_hchp", PTEC="HPn.")) == []


def test_tariff_changes_of_standard_mode() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    (event,) = line.events(frame_of("std_mono_hphc_nb", NTARF="01", LTARF=" HEURE  CREUSE  ", STGE="003AC001"))
    assert (event.kind, event.subject) == ("tariff.changed", "")
    assert (event.data["from"], event.data["to"], event.data["name"]) == ("tariff2", "tariff1", "HEURE CREUSE")
    (event,) = line.events(frame_of("std_mono_hphc_nb", NTARF="01", LTARF=" HEURE  CREUSE  ", STGE="003A8001"))
    assert (event.kind, event.subject, event.data["from"], event.data["to"]) == ("tariff.changed", "distributor", "distributor4", "distributor3")


def test_tempo_of_historic_mode() -> None:
    line = Line()
    (event,) = line.events(frame_of("his_mono_tempo"))
    assert (event.kind, event.data) == ("tariff.tomorrow", {"colour": "red"})
    assert line.kinds(frame_of("his_mono_tempo", PTEC="HPJB")) == [("tariff.changed", "occurred", "")]
    told = line.events(frame_of("his_mono_tempo", PTEC="HCJR", DEMAIN="----"))
    assert [(event.kind, event.data.get("colour")) for event in told] == [("tariff.changed", None), ("tariff.today", "red")]
    assert [(event.kind, event.data["colour"]) for event in line.events(frame_of("his_mono_tempo", PTEC="HCJR", DEMAIN="ROUG"))] == [
        ("tariff.tomorrow", "red")
    ]
    assert line.events(frame_of("his_mono_tempo", OPTARIF="BBR)", PTEC="HCJR", DEMAIN="ROUG")) == [], "the fourth character is data"


def stge(**fields: int) -> str:
    """STGE of std_mono_hphc_nb with other fields, put together here by hand."""
    first = {"contact": 0, "breaker": 1, "cover": 4, "overvoltage": 6, "overload": 7, "behaviour": 8, "direction": 9, "euridis": 19, "plc": 21}
    first |= {"synchronised": 23, "today": 24, "tomorrow": 26, "notice": 28, "peak": 30}
    return f"{0x003AC401 + sum(number << first[name] for name, number in fields.items()):08X}"


def test_tempo_of_standard_mode() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb", STGE=stge(today=1)))
    told = line.events(frame_of("std_mono_hphc_nb", STGE=stge(today=1, tomorrow=2)))
    assert [(event.kind, event.data["colour"]) for event in told] == [("tariff.tomorrow", "white")]
    told = line.events(frame_of("std_mono_hphc_nb", STGE=stge(today=2)))
    assert [(event.kind, event.data["colour"], event.data["from"]) for event in told] == [("tariff.today", "white", "blue")]
    assert line.events(frame_of("std_mono_hphc_nb", STGE=stge(today=2))) == []


def test_ejp_of_historic_mode() -> None:
    line = Line()
    assert line.kinds(frame_of("his_mono_ejp_synthetic", PEJP=None, ADPS=None)) == []
    (event,) = line.events(frame_of("his_mono_ejp_synthetic", ADPS=None))
    assert (event.kind, event.data) == ("peak.notice", {"peak": "EJP", "minutes": 30})
    assert line.events(frame_of("his_mono_ejp_synthetic", ADPS=None)) == []
    assert line.kinds(frame_of("his_mono_ejp_synthetic", ADPS=None, PEJP=None, PTEC="PM..")) == [
        ("tariff.changed", "occurred", ""),
        ("peak.begin", "occurred", ""),
    ]
    assert line.kinds(frame_of("his_mono_ejp_synthetic", ADPS=None, PEJP=None)) == [("tariff.changed", "occurred", ""), ("peak.end", "occurred", "")]
    assert line.kinds(frame_of("his_mono_ejp_synthetic", ADPS=None)) == [("peak.notice", "occurred", "")], "the next one"


def test_mobile_peaks_of_standard_mode() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    ahead = {"DPM1": "H240105070000/", "FPM1": "H240106010000/"}
    (event,) = line.events(frame_of("std_mono_hphc_nb", STGE=stge(notice=1), **ahead))
    assert (event.kind, event.data["peak"], event.data["begin"], event.data["end"]) == (
        "peak.notice",
        "PM1",
        "2024-01-05T06:00:00Z",
        "2024-01-06T00:00:00Z",
    )
    assert line.events(frame_of("std_mono_hphc_nb", STGE=stge(notice=1), **ahead)) == []
    assert line.kinds(frame_of("std_mono_hphc_nb", STGE=stge(peak=1), DATE="H240105070001/", **ahead))[0] == ("peak.begin", "occurred", "")
    assert line.kinds(frame_of("std_mono_hphc_nb", STGE=stge(), DATE="H240106010001/", **ahead)) == [("peak.end", "occurred", "")]
    (event,) = line.events(frame_of("std_mono_hphc_nb", STGE=stge(notice=2), DATE="H240106010001/"))
    assert (event.kind, event.data["peak"]) == ("peak.notice", "PM2")
    assert "begin" not in event.data


def test_a_space_for_a_season_is_read_by_the_zone() -> None:
    line = Line()
    (event,) = line.events(frame_of("std_mono_hphc_nb", DPM1=" 240105070000/", FPM1=" 000000000000/"))
    assert (event.kind, event.data["begin"]) == ("peak.notice", "2024-01-05T06:00:00Z")


# --------------------------------------------------------------------------------------------- contract, mode, calendar, messages


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("his_mono_hchp", {"ISOUSC": "45"}, {"subscribed": {"from": "30 A", "to": "45 A"}}),
        ("his_mono_hchp", {"OPTARIF": "BASE"}, {"option": {"from": "HC", "to": "BASE"}}),
        (
            "std_mono_hphc_nb",
            {"PREF": "09", "PCOUP": "09"},
            {"reference": {"from": "6 kVA", "to": "9 kVA"}, "breaking": {"from": "6 kVA", "to": "9 kVA"}},
        ),
        ("std_mono_hphc_nb", {"NGTF": "      BASE      "}, {"calendar": {"from": "H PLEINE/CREUSE", "to": "BASE"}}),
        ("std_mono_hphc_nb", {"STGE": "003AC501"}, {"behaviour": {"from": "consumer", "to": "producer"}}),
    ],
)
def test_contract_changes(name: str, changes: dict[str, str | None], told: dict[str, Any]) -> None:
    line = Line()
    line.hear(frame_of(name))
    (event,) = line.events(frame_of(name, **changes))
    assert (event.kind, event.data["changes"]) == ("contract.changed", told)
    assert line.events(frame_of(name, **changes)) == []


def test_words_of_a_damaged_frame_are_believed_the_second_time() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    data = bytearray(encode(Mode.STANDARD, frame_of("std_mono_hphc_nb", NGTF="H PLEINE/CREUSF ").groups))
    data[data.index(b"URMS1\t") + 7] ^= 1
    first, second = frames(bytes(data) * 2)
    assert line.events(first) == []
    assert line.kinds(second) == [("contract.changed", "occurred", "")]


def test_a_switch_of_mode_overnight_is_told_and_no_alarm_stays_behind() -> None:
    line = Line()
    line.hear(frame_of("his_mono_base_adps_fixck"))
    switched = frame_of("std_mono_hphc_nb", ADSC="022672001765")
    told = line.events(switched)
    assert [(event.kind, event.state.value, event.subject) for event in told] == [
        ("line.mode.changed", "occurred", ""),
        ("overload", "cleared", "L1"),
    ]
    assert (told[0].data["from"], told[0].data["to"]) == ("historicMono", "standardMono")
    line.hear(frame_of("std_mono_hphc_nb", ADSC="022672001765", STGE=stge(cover=1)))
    assert line.kinds(frame_of("his_mono_base_adps_fixck")) == [
        ("overload", "raised", "L1"),  # at its group, and once
        ("line.mode.changed", "occurred", ""),
        ("cover.open", "cleared", ""),
    ]


def test_three_phases_are_seen() -> None:
    line = Line()
    line.hear(frame_of("his_mono_hchp", ADCO="056476013529"))
    (event, *_) = line.events(frame_of("his_tri_hchp_linky_fixck"))
    assert (event.kind, event.data["to"]) == ("line.mode.changed", "historicTri")


def test_calendar_changes() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    told = line.events(frame_of("std_mono_hphc_nb", NJOURF_1="01", PJOURF_1="0000C001 07008002 NONUTILE"))
    assert [(event.kind, event.subject) for event in told] == [("tariff.calendar.changed", "NJOURF+1"), ("tariff.calendar.changed", "PJOURF+1")]
    assert told[1].data["blocks"] == [
        {"time": "00:00", "action": 0xC001, "tariff": 1, "contact": "closed"},
        {"time": "07:00", "action": 0x8002, "tariff": 2, "contact": "open"},
    ]
    line = Line()
    line.hear(frame_of("his_mono_hchp"))
    assert line.kinds(frame_of("his_mono_hchp", HHPHC="C")) == [("tariff.calendar.changed", "occurred", "HHPHC")]


def test_messages_of_the_distributor() -> None:
    line = Line()
    assert line.events(frame_of("std_mono_hphc_nb")) == []
    (event,) = line.events(frame_of("std_mono_hphc_nb", MSG1="  COUPURE LE 12  A 14H          "))
    assert (event.kind, event.subject, event.message) == ("message.received", "MSG1", "COUPURE LE 12 A 14H")
    assert line.events(frame_of("std_mono_hphc_nb", MSG1="COUPURE LE 12  A 14H            ")) == []
    assert line.events(frame_of("std_mono_hphc_nb")) == []
    assert line.kinds(frame_of("std_mono_hphc_nb", MSG2="COUPURE")) == [("message.received", "occurred", "MSG2")]


# ------------------------------------------------------------------------------------------------------------- states of STGE


@pytest.mark.parametrize(
    ("field", "kind", "off"),
    [("cover", "cover.open", "cover.open"), ("overvoltage", "fault.overvoltage", "fault.overvoltage"), ("overload", "overload", "overload")],
)
def test_conditions_of_the_status_register(field: str, kind: str, off: str) -> None:
    line = Line()
    assert line.kinds(frame_of("std_mono_hphc_nb", STGE=stge(**{field: 1}))) == [(kind, "raised", "")], "told at first sight, too"
    assert line.kinds(frame_of("std_mono_hphc_nb", STGE=stge(**{field: 1}))) == []
    assert line.kinds(frame_of("std_mono_hphc_nb", STGE="0000000G")) == [], "what is unreadable clears nothing"
    assert line.kinds(frame_of("std_mono_hphc_nb")) == [(off, "cleared", "")]


def test_the_captured_open_cover() -> None:
    assert ("cover.open", "raised", "") in Line().kinds(frame_of("std_mono_hphc_tic2ws"))


def test_the_breaking_device() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    (event,) = line.events(frame_of("std_mono_hphc_nb", STGE=stge(breaker=1)))
    assert (event.kind, event.state, event.data["cause"]) == ("breaker.opened", EventState.RAISED, "overpower")
    (event,) = line.events(frame_of("std_mono_hphc_nb", STGE=stge(breaker=4)))
    assert event.data["cause"] == "order"
    assert line.kinds(frame_of("std_mono_hphc_nb", STGE=stge(breaker=7))) == []
    assert line.kinds(frame_of("std_mono_hphc_nb")) == [("breaker.closed", "occurred", "")]
    assert line.kinds(frame_of("std_mono_hphc_nb")) == []


def test_other_states_of_the_status_register() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    (event,) = line.events(frame_of("std_mono_hphc_nb", STGE=stge(direction=1)))
    assert (event.kind, event.data["direction"]) == ("energy.direction.changed", "export")
    (event,) = line.events(frame_of("std_mono_hphc_nb", STGE=stge(direction=1, synchronised=1)))
    assert event.kind == "meter.communication.changed"
    assert (event.data["euridis"], event.data["plc"], event.data["synchronised"]) == ("secured", "new-locked", "yes")


def test_relays() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    told = line.events(frame_of("std_mono_hphc_nb", RELAIS="005", STGE="003AC400"))
    assert [(event.kind, event.subject, event.data["closed"], event.data["virtual"]) for event in told] == [
        ("relay.changed", "relay:1", True, False),
        ("relay.changed", "relay:3", True, True),
    ]
    # RELAIS is damaged: of the contact, STGE tells
    groups = [Group(one.label, one.value, one.horodate, one.label != "RELAIS") for one in frame_of("std_mono_hphc_nb").groups]
    assert line.kinds(frames(encode(Mode.STANDARD, groups))[0]) == [("relay.changed", "occurred", "relay:1")]


def test_missing_potential() -> None:
    line = Line()
    assert line.kinds(frame_of("his_tri_base_ticmeter")) == []
    readings, events = line.hear(frame_of("his_tri_base_ticmeter", PPOT="04"))
    assert [(event.kind, event.state.value, event.subject) for event in events] == [("potential.missing", "raised", "L2")]
    assert value(readings[0], "Potential.Missing", Phase.L2) == 1
    assert line.kinds(frame_of("his_tri_base_ticmeter")) == [("potential.missing", "cleared", "L2")]


def test_the_status_word() -> None:
    line = Line()
    assert line.kinds(frame_of("his_tri_base_cbetm")) == []
    (event,) = line.events(frame_of("his_tri_base_cbetm", MOTDETAT="400001"))
    assert (event.kind, event.data["bits"]) == ("device.status.changed", [0, 22])


# ---------------------------------------------------------------------------------------------------------------------- memory


def test_nothing_is_told_again_after_a_restart() -> None:
    line = Line()
    over = frame_of("std_mono_hphc_nb", STGE=stge(overload=1, tomorrow=3, cover=1), MSG1="COUPURE")
    assert len(line.events(over)) == 4
    kept = msgspec.json.decode(msgspec.json.encode(line.mapping.state), type=MappingState)
    again = Line(line.now, kept)
    assert again.mapping.serial == "022161988996"
    assert again.events(over) == []
    assert again.kinds(frame_of("std_mono_hphc_nb", MSG1="COUPURE")) == [("overload", "cleared", ""), ("cover.open", "cleared", "")]


def test_the_state_is_given_out_when_it_changed() -> None:
    line = Line()
    assert line.mapping.changed_state() is None
    line.hear(frame_of("std_mono_hphc_nb"))
    assert line.mapping.changed_state() == line.mapping.state
    line.hear(frame_of("std_mono_hphc_nb"))
    assert line.mapping.changed_state() is None
    line.hear(frame_of("std_mono_hphc_nb", NTARF="01"))
    assert line.mapping.changed_state() is not None


def test_a_meter_that_comes_back_brings_its_state() -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    kept = line.mapping.state
    line.hear(frame_of("std_mono_base_linkytic", DATE="H240104145758/"))
    (event,) = line.mapping.meet("022161988996", line.now, kept)
    assert (event.kind, event.device) == ("meter.changed", "tic:022161988996")
    assert line.kinds(frame_of("std_mono_hphc_nb", NTARF="01")) == [("tariff.changed", "occurred", "")]


def test_the_same_frame_at_the_same_time_gives_events_of_the_same_id() -> None:
    first, second = Line().events(frame_of("his_mono_tempo")), Line().events(frame_of("his_mono_tempo"))
    assert first == second
    assert first[0].id
    assert Line(NOW + 1).events(frame_of("his_mono_tempo"))[0].id != first[0].id


LABELS = (
    *("ADSC", "ADCO", "DATE", "STGE", "RELAIS", "PTEC", "NTARF", "OPTARIF", "DEMAIN", "PPOT"),
    *("ADPS", "PEJP", "MSG1", "PJOURF+1", "DPM1", "EAST", "BASE", "CCASN", "X9"),
)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
HORODATES = st.sampled_from(["", "H240104145758", "E990230000000"])


@given(st.lists(st.lists(st.tuples(st.sampled_from(LABELS), TEXTS, HORODATES), max_size=12), max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_value_of_a_group_makes_the_mapping_raise(rows: list[list[tuple[str, str, str]]], partial: bool) -> None:
    line = Line()
    line.hear(frame_of("std_mono_hphc_nb"))
    for row in rows:
        groups = tuple(Group(label, text, horodate) for label, text, horodate in row)
        line.hear(Frame(Mode.STANDARD if partial else Mode.HISTORIC, groups, partial, (Damage("noise"),) if partial else (), 0))


def test_reading_type_of_a_reading_has_no_float() -> None:
    readings, _ = Line().hear(frame_of("std_mono_producer_nb_fixck"))
    assert all(isinstance(one.value, int | str) for reading in readings for one in reading.readings)
    assert all(isinstance(one, Reading) for one in readings[0].readings)
