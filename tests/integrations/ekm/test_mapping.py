"""What a meter says in the core's words, and what is ordered in the meter's."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.ekm.test_codec import ADDRESS, FRAME_A, FRAME_B_SAME, replaced

from gridloom.core import clock, measurands, verbs
from gridloom.core.errors import DeviceError, InvalidInput, Unsupported
from gridloom.core.model import MeterReading, Phase, Quality, ReadingType, TimeSource
from gridloom.integrations.ekm import mapping
from gridloom.integrations.ekm.codec import Read
from gridloom.integrations.ekm.mapping import Translation
from gridloom.integrations.ekm.models import MODELS
from gridloom.integrations.ekm.models.settings import SETTINGS

V4, V3 = MODELS["v4"], MODELS["v3"]
PARIS = ZoneInfo("Europe/Paris")
TOTAL = ReadingType("Energy.Active.Import.Register", "Wh")


def moment(text: str, zone: str = "Europe/Paris") -> int:
    return clock.from_datetime(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


METER_TIME = moment("2018-09-11T05:10:56")


def read(a: bytes = FRAME_A, b: bytes = FRAME_B_SAME, received: int = METER_TIME + 1_500_000) -> Read:
    return Read(ADDRESS, "v4", (a, b), received)


def value(reading: MeterReading, measurand: str, phase: Phase | None = None, tariff: str | None = None, location: str | None = None) -> Any:
    found = [one for one in reading.readings if one.type == ReadingType(measurand, one.type.unit, phase, tariff, location)]
    assert len(found) == 1, f"{measurand} {phase} {tariff} {location}: {len(found)}"
    return found[0].number


def test_the_captured_frames_in_base_units() -> None:
    a = replaced(replaced(FRAME_A, 230, b"1"), 16, b"00123456")
    reading, events = Translation(ADDRESS, V4, PARIS).read(read(a))
    assert events == []
    assert reading.device == f"ekm:{ADDRESS}"
    assert value(reading, "Energy.Active.Import.Register") == Decimal(12_345_600)
    assert value(reading, "Energy.Active.Import.Register", tariff="1") == Decimal(31_108_800)
    assert value(reading, "Energy.Active.Export.Register", tariff="2") == Decimal(279_700)
    assert value(reading, "Voltage", Phase.L1) == Decimal("118.4")
    assert value(reading, "Frequency") == Decimal("60.02")
    assert value(reading, "Power.Factor", Phase.L1) == Decimal("0.99")
    assert value(reading, "MaxDemand.Power.Active.Import") == Decimal(22_640)
    assert value(reading, "Demand.Period") == 900
    assert value(reading, "CT.Ratio") == 400
    assert value(reading, "Pulse.Count", location="input:1") == 4
    assert value(reading, "Pulse.Ratio", location="input:2") == 3
    assert value(reading, "Relay.State", location="relay:1") == 0
    for one in reading.readings:
        assert measurands.TABLE[one.type.measurand].unit == one.type.unit
    assert isinstance(reading.native, Read)


@pytest.mark.parametrize(("digit", "exponent"), [(b"0", 0), (b"1", -1), (b"2", -2)])
def test_the_scale_of_the_a_reply_holds_for_both(digit: bytes, exponent: int) -> None:
    reading, _ = Translation(ADDRESS, V4, PARIS).read(read(replaced(replaced(FRAME_A, 230, digit), 16, b"00001000")))
    assert value(reading, "Energy.Active.Import.Register") == Decimal(1_000_000).scaleb(exponent)
    assert value(reading, "Energy.Active.Import.Register", tariff="1") == Decimal(311_088_000).scaleb(exponent)


def test_energy_of_a_scale_that_is_none_is_left_out() -> None:
    reading, _ = Translation(ADDRESS, V4, PARIS).read(read(replaced(FRAME_A, 230, b"7")))
    assert not [one for one in reading.readings if one.type.measurand.startswith("Energy.Active")]
    assert value(reading, "Voltage", Phase.L1) == Decimal("118.4")


def test_a_line_that_gives_back_is_export_and_the_total_is_net() -> None:
    a = replaced(replaced(FRAME_A, 228, b"4"), 131, b"0000100000020000003000000600")
    reading, _ = Translation(ADDRESS, V4, PARIS).read(read(a))
    assert (value(reading, "Power.Active.Import", Phase.L1), value(reading, "Power.Active.Export", Phase.L1)) == (0, 100)
    assert (value(reading, "Power.Active.Import", Phase.L2), value(reading, "Power.Active.Export", Phase.L2)) == (200, 0)
    assert value(reading, "Power.Active.Import") == 400
    total = next(one for one in reading.readings if one.type == ReadingType("Power.Active.Import", "W"))
    assert total.quality & Quality.DERIVED
    assert value(reading, "Power.Direction", Phase.L1) == -1


def test_what_seldom_moves_is_told_when_it_changes_and_once_an_hour() -> None:
    translation = Translation(ADDRESS, V4, PARIS)
    first, _ = translation.read(read())
    second, _ = translation.read(read(received=METER_TIME + 3_000_000))
    assert len(second.readings) < len(first.readings) / 2
    assert not [one for one in second.readings if one.type.measurand == "CT.Ratio"]
    changed, _ = translation.read(read(b=replaced(FRAME_B_SAME, 168, b"0200"), received=METER_TIME + 4_000_000))
    assert value(changed, "CT.Ratio") == 200
    later, _ = translation.read(read(received=METER_TIME + 3_700_000_000))
    assert value(later, "Pulse.Ratio", location="input:1") == 1000


def test_a_power_that_becomes_zero_again_is_told() -> None:
    translation = Translation(ADDRESS, V4, PARIS)
    given_back = replaced(replaced(FRAME_A, 228, b"4"), 131, b"0000100000020000003000000600")
    translation.read(read())
    translation.read(read(given_back))
    reading, _ = translation.read(read())
    assert value(reading, "Power.Active.Export", Phase.L1) == 0


# -------------------------------------------------------------------------------------------------------------------- time


def test_the_meters_clock_is_the_time_of_its_values_while_it_agrees() -> None:
    reading, events = Translation(ADDRESS, V4, PARIS).read(read(received=METER_TIME + 200_000_000))
    assert (reading.time, reading.source, reading.received) == (METER_TIME, TimeSource.DEVICE, METER_TIME + 200_000_000)
    assert events == []
    assert not any(one.quality & Quality.CLOCK_DEGRADED for one in reading.readings)


@pytest.mark.parametrize("a", [FRAME_A, replaced(FRAME_A, 233, b"99999999999999"), replaced(FRAME_A, 233, b"180931030510  ")])
def test_a_clock_that_is_wrong_is_not_believed_but_told(a: bytes) -> None:
    translation = Translation(ADDRESS, V4, PARIS)
    received = METER_TIME + 3_600_000_000
    reading, events = translation.read(read(a, received=received))
    assert (reading.time, reading.source) == (received, TimeSource.HUB)
    assert all(one.quality & Quality.CLOCK_DEGRADED for one in reading.readings)
    assert [(one.kind, one.state.value) for one in events] == [("device.clock.wrong", "raised")]
    assert translation.read(read(a, received=received + 1))[1] == []
    _, events = translation.read(read())
    assert [(one.kind, one.state.value) for one in events] == [("device.clock.wrong", "cleared")]


def test_the_hour_that_comes_twice_is_the_one_that_is_now() -> None:
    for fold in (0, 1):
        now = clock.from_datetime(datetime(2026, 10, 25, 2, 30, tzinfo=PARIS, fold=fold))
        assert mapping.meter_time("26102501023000", PARIS, now + 1_000_000) == now


@given(st.datetimes(datetime(2020, 1, 1), datetime(2098, 1, 1)), st.sampled_from(["Europe/Paris", "America/Los_Angeles", "UTC"]))  # noqa: DTZ001
def test_the_time_that_is_set_is_the_time_that_is_read(local: datetime, zone: str) -> None:
    now = clock.from_datetime(local.replace(microsecond=0, tzinfo=UTC))
    digits = mapping.time_digits(now, ZoneInfo(zone))
    assert mapping.meter_time(digits, ZoneInfo(zone), now) == now


@pytest.mark.parametrize(
    ("text", "digits"),
    [("2018-09-11T05:10:56", "18091103051056"), ("2018-09-14T09:48:13", "18091406094813"), ("2026-11-22T00:00:00", "26112201000000")],
)
def test_weekdays_are_those_of_real_meters(text: str, digits: str) -> None:
    """Sunday is 01: from captured frames (FACTS 1.7)."""
    assert mapping.time_digits(moment(text), PARIS) == digits


# ------------------------------------------------------------------------------------------------------------------ events


def test_what_changes_is_an_event_once() -> None:
    translation = Translation(ADDRESS, V4, PARIS)
    assert translation.read(read())[1] == []
    changed = read(
        replaced(replaced(replaced(FRAME_A, 227, b"4"), 228, b"2"), 229, b"3"),
        replaced(replaced(FRAME_B_SAME, 147, b"00226500"), 231, b"\x01"),
    )
    _, events = translation.read(changed)
    assert [(one.kind, one.subject) for one in events] == [
        ("relay.changed", "relay:1"), ("input.changed", "input:1"), ("energy.direction.changed", "L3"), ("device.status.changed", ""),
        ("demand.peak", ""),
    ]  # fmt: skip
    assert events[0].data == {"from": 0, "to": 1}
    assert translation.read(changed)[1] == []
    translation.forget_states()
    assert "relay.changed" not in [one.kind for one in translation.read(read())[1]]


# ------------------------------------------------------------------------------------------------------------------ orders


def write(verb: str, model: Any = V4, **arguments: Any) -> Any:
    return mapping.write(verb, verbs.validate(verb, arguments), model, now=lambda: moment("2026-11-21T12:00:00"), zone=PARIS)


@pytest.mark.parametrize(
    ("verb", "arguments", "register", "data"),
    [
        ("relay.set", {"relay": 1, "state": "closed", "duration_s": 1}, "0081", "10001"),
        ("relay.set", {"relay": 2, "state": "open"}, "0082", "00000"),
        ("ekm.ct_ratio.set", {"ct_ratio": 400}, "00D0", "0400"),
        ("ekm.max_demand.period.set", {"period_min": 30}, "0050", "2"),
        ("ekm.max_demand.interval.set", {"interval": "daily"}, "00D5", "3"),
        ("ekm.max_demand.reset", {}, "0040", "000000"),
        ("ekm.pulse_input.ratio.set", {"line": 2, "ratio": 55}, "00A1", "0055"),
        ("ekm.pulse_output.ratio.set", {"ratio": 40}, "00D4", "0040"),
        ("ekm.weekend_holiday.set", {"weekend_schedule": 1, "holiday_schedule": 2}, "00C0", "0102"),
        ("ekm.resettable_energy.reset", {}, "00D3", ""),
        ("ekm.password.set", {"new_password": "12345678"}, "0020", "12345678"),
        ("ekm.lcd.set", {"items": [1, 28, 51]}, "00D2", "012851" + "00" * 37),
        ("ekm.holidays.set", {"dates": [{"month": 2, "day": 29}, {"month": 12, "day": 25}]}, "00B0", "02291225" + "0000" * 18),
        ("ekm.schedule.set", {"schedule": 6, "periods": [{"hour": 0, "minute": 0, "tariff": 1}, {"hour": 22, "minute": 30, "tariff": 4}]},
         "0075", "000001223004" + "0" * 36),
        ("ekm.seasons.set", {"seasons": [{"month": 1, "day": 1, "schedule": 1}, {"month": 6, "day": 15, "schedule": 6}]},
         "0080", "010101061506" + "0" * 36),
    ],
)  # fmt: skip
def test_every_setting_as_the_facts_have_it(verb: str, arguments: dict[str, Any], register: str, data: str) -> None:
    made = write(verb, **arguments)
    assert (made.register, made.data) == (register, data)
    assert made.once == (not verbs.TABLE[verb].idempotent)


def test_the_clock_is_set_to_the_moment_of_sending_or_to_the_one_that_is_asked() -> None:
    assert write("device.clock.set").data() == "26112107120000"
    assert write("device.clock.set", time="2026-11-22T11:00:00Z").data() == "26112201120000"


def test_an_hour_of_demand_is_the_digit_of_the_model() -> None:
    assert [write("ekm.max_demand.period.set", MODELS[name], period_min=60).data for name in ("v3", "v4", "v5")] == ["3", "3", "4"]


@pytest.mark.parametrize(
    ("verb", "arguments", "path", "words"),
    [
        ("relay.set", {"relay": 3, "state": "open"}, "$.relay", "1 to 2, got 3"),
        ("ekm.lcd.set", {"items": [1, 46]}, "$.items[1]", "got 46"),
        ("ekm.holidays.set", {"dates": [{"month": 4, "day": 31}]}, "$.dates[0].day", "1 to 30 in month 4, got 31"),
        ("ekm.seasons.set", {"seasons": [{"month": 2, "day": 30, "schedule": 1}]}, "$.seasons[0].day", "1 to 29"),
    ],
)
def test_what_no_meter_can_take_is_refused_with_its_path(verb: str, arguments: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        write(verb, **arguments)
    assert [fault.path for fault in refused.value.faults] == [path]


def test_a_v3_has_what_a_v3_has() -> None:
    can = {verb for verb in mapping.WRITES if verb in mapping.meter_verbs(V3)}
    assert can == {verb for verb, setting in mapping.WRITES.items() if SETTINGS[setting].v3}
    assert "relay.set" not in can
    with pytest.raises(Unsupported, match="v3 has no such setting"):
        write("relay.set", V3, relay=1, state="open")
    assert set(mapping.WRITES) <= set(mapping.meter_verbs(V4))


def test_a_password_is_eight_digits_and_never_repeated() -> None:
    arguments = verbs.validate("relay.set", {"relay": 1, "state": "open", "password": "secret"})
    with pytest.raises(InvalidInput, match="eight digits") as refused:
        mapping.password_of(arguments)
    assert "secret" not in refused.value.message
    assert mapping.password_of(verbs.validate("relay.set", {"relay": 1, "state": "open"})) == "00000000"


def test_a_clock_that_did_not_take_the_time_is_told() -> None:
    with pytest.raises(DeviceError, match="18091103051056"):
        mapping.clock_after(ADDRESS, V4, FRAME_A, "26112107120000")
    assert mapping.clock_after(ADDRESS, V4, FRAME_A, "18091103051054")["local_time"] == "2018-09-11T05:10:56"


@given(st.binary(min_size=255, max_size=255), st.sampled_from(["v3", "v4", "v5"]), st.integers(0, 4_000_000_000_000_000))
def test_whatever_a_frame_holds_it_is_translated(data: bytes, name: str, received: int) -> None:
    model = MODELS[name]
    seven = data.translate(bytes(byte & 0x7F for byte in range(256)))
    reading, _ = Translation(ADDRESS, model, PARIS).read(Read(ADDRESS, name, (seven,) * len(model.layouts), received))
    assert {one.type.measurand for one in reading.readings} <= set(measurands.TABLE)


def test_the_tables_name_nothing_that_is_not_there() -> None:
    for model in MODELS.values():
        assert set(mapping.meter_measurands(model)) <= set(measurands.TABLE)
        assert set(mapping.meter_verbs(model)) <= set(verbs.TABLE)
    assert set(mapping.IOSTACK_VERBS) | set(mapping.GATEWAY_VERBS) <= set(verbs.TABLE)
    assert Path(mapping.__file__).exists()
