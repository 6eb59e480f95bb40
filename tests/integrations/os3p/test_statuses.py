"""What stations say about themselves: alarms and their ends, guaranteed events of street lights, progress of files and firmware."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.clock import rfc3339
from gridloom.core.events import TABLE as EVENTS
from gridloom.core.model import Event, EventState, Reading, ReadingType, Severity, TimeSource
from gridloom.integrations.os3p import lights
from gridloom.integrations.os3p.lights import Lights
from gridloom.integrations.os3p.messages import (
    ErrorCode,
    FileStatus,
    FirmwareStatus,
    FirmwareStatusNotification,
    GetFileStatusNotification,
    StatusNotification,
    StreetlightModeStatusNotification,
    StreetlightStatusNotification,
)
from gridloom.integrations.os3p.reading import read
from gridloom.integrations.os3p.statuses import (
    ERRORS,
    FAULTED,
    FILE,
    FIRMWARE,
    KINDS,
    MOST_SUBJECTS,
    Alarm,
    light,
    light_reading,
    progress,
    status,
)

DEVICE = "os3p:SUBS 1"
NOW = 1_795_222_683_000_000
SECOND = 1_000_000
TIME = "2026-11-21T00:58:00Z"
STRINGS = {
    "Indicator fault (MV) resolved": "fault.indicator",
    "Over current error (MV) resolved": "fault.overcurrent",
    "Ground failure resolved": "fault.ground",
}


def told(raised: set[Alarm] | None = None, **members: Any) -> list[Event]:
    """The events of a StatusNotification as it comes from the wire; ``raised`` is changed as the alarms are."""
    payload = {"status": "Faulted", "errorCode": "NoError", **members}
    message = read("StatusNotification", json.dumps(payload).encode(), "client").message
    raised = set() if raised is None else raised
    events = status(message, DEVICE, NOW, raised)
    for event in events:
        assert EVENTS[event.kind].alarm is (event.state is not EventState.OCCURRED)
        (raised.add if event.state is EventState.RAISED else raised.discard)((event.kind, event.subject))
    return events


def shown(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(event.kind, event.subject, event.state.value) for event in events]


# ------------------------------------------------------------------------------------------------------------------- error codes


def test_the_table_has_every_error_code() -> None:
    assert set(ERRORS) | {"NoError"} == set(get_args(ErrorCode))
    assert {row.resolved: row.kind for row in ERRORS.values() if row.resolved} == STRINGS  # N12
    assert len(KINDS) == 12
    for row in ERRORS.values():
        assert EVENTS[row.kind].alarm
        assert "os3p" in EVENTS[row.kind].integrations
        assert row.severity is EVENTS[row.kind].severity


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_raises_its_alarm_and_the_station_is_faulted(code: str) -> None:
    raised: set[Alarm] = set()
    fault, station = told(raised, errorCode=code, info="group 2", timestamp=TIME)
    assert (fault.kind, fault.state, fault.subject, fault.message) == (ERRORS[code].kind, EventState.RAISED, "", "group 2")
    assert (rfc3339(fault.time), fault.source, fault.received) == (TIME, TimeSource.DEVICE, NOW)
    assert fault.severity is EVENTS[fault.kind].severity
    assert fault.data == {"status": "Faulted", "code": code, "info": "group 2"}
    assert (station.kind, station.state) == (FAULTED, EventState.RAISED)
    assert shown(told(raised, errorCode=code)) == [(ERRORS[code].kind, "", "raised")]  # again; the station already was
    assert told(raised, errorCode=code)[0].id != fault.id
    assert shown(told(raised, status="Ok")) == [(ERRORS[code].kind, "", "cleared"), (FAULTED, "", "cleared")]
    assert raised == set()


def test_an_error_code_of_the_vendors_own_is_an_alarm_with_the_code_as_subject() -> None:
    raised: set[Alarm] = set()
    fault, station = told(raised, errorCode="FireAlarm", info="hall 2")
    assert (fault.kind, fault.state, fault.subject, fault.message) == ("fault.other", EventState.RAISED, "FireAlarm", "FireAlarm: hall 2")
    assert fault.data["code"] == "FireAlarm"
    assert shown([station]) == [(FAULTED, "", "raised")]
    assert shown(told(raised, errorCode="Siren", test=True)) == [("fault.other", "test:Siren", "raised")]
    assert shown(told(raised, status="Ok")) == [
        ("fault.other", "FireAlarm", "cleared"),
        ("fault.other", "test:Siren", "cleared"),
        (FAULTED, "", "cleared"),
    ]


@pytest.mark.parametrize("text", STRINGS)
@pytest.mark.parametrize("spell", [str, str.upper, lambda text: f"  {text} "])
def test_n12_a_fixed_string_ends_its_alarm_and_no_other(text: str, spell: Any) -> None:
    """N9: the station may still be faulted. I29: whatever the letters and blanks."""
    raised = {(kind, "") for kind in STRINGS.values()} | {(FAULTED, "")}
    (event,) = told(raised, info=spell(text))
    assert shown([event]) == [(STRINGS[text], "", "cleared")]
    assert raised == {(kind, "") for kind in STRINGS.values() if kind != STRINGS[text]} | {(FAULTED, "")}


def test_the_end_of_an_error_nobody_heard_of_is_told_too() -> None:
    assert shown(told(info="Ground failure resolved", status="Ok")) == [("fault.ground", "", "cleared")]


def test_other_text_without_an_error_ends_nothing_while_the_station_is_faulted() -> None:
    raised = {("fault.ground", ""), (FAULTED, "")}
    (event,) = told(raised, info="Ground failure resolved, perhaps")
    assert (event.kind, event.state, event.message) == ("fault.resolved", EventState.OCCURRED, "Ground failure resolved, perhaps")
    assert raised == {("fault.ground", ""), (FAULTED, "")}


def test_ok_without_an_error_ends_all_of_the_station_and_nothing_else() -> None:
    raised = {("fault.ground", ""), ("fault.other", "V:7"), ("fault.overcurrent", "test"), (FAULTED, ""), ("device.offline", "")}
    events = told(raised, status="Ok", info="Ground failure resolved")
    assert shown(events) == [
        ("fault.ground", "", "cleared"),
        ("fault.other", "V:7", "cleared"),
        ("fault.overcurrent", "test", "cleared"),
        (FAULTED, "", "cleared"),
    ]
    assert raised == {("device.offline", "")}
    assert told(raised, status="Ok") == []


def test_ok_with_an_error_raises_it_and_ends_only_the_stations_fault() -> None:
    raised = {("fault.ground", ""), (FAULTED, "")}
    assert shown(told(raised, status="Ok", errorCode="WeakSignal")) == [("fault.signal", "", "raised"), (FAULTED, "", "cleared")]
    assert raised == {("fault.ground", ""), ("fault.signal", "")}


def test_n11_a_test_is_no_error() -> None:
    raised: set[Alarm] = set()
    (event,) = told(raised, errorCode="OverCurrentFailure", test=True, info="group 1")
    assert (event.kind, event.subject, event.severity) == ("fault.overcurrent", "test", Severity.INFO)
    assert event.data["test"] is True
    told(raised, errorCode="OverCurrentFailure")
    assert raised == {("fault.overcurrent", "test"), ("fault.overcurrent", ""), (FAULTED, "")}
    assert shown(told(set(raised), info="Over current error (MV) resolved")) == [
        ("fault.overcurrent", "", "cleared"),
        ("fault.overcurrent", "test", "cleared"),
    ]
    told(raised, info="Over current error (MV) resolved", test=True)
    assert raised == {("fault.overcurrent", ""), (FAULTED, "")}  # S24: the end of a test leaves the real error


def test_n10_errors_of_the_vendor_are_kept_apart() -> None:
    raised: set[Alarm] = set()
    (event, _) = told(raised, errorCode="OtherError", vendorId="Acme", vendorErrorCode="17", info="door")
    assert (event.kind, event.subject, event.message) == ("fault.other", "Acme:17", "Acme:17: door")
    assert event.data["vendorId"] == "Acme"
    assert event.data["vendorErrorCode"] == "17"
    told(raised, errorCode="OtherError", vendorErrorCode="18")
    told(raised, errorCode="OtherError", vendorErrorCode="19", test=True)
    assert raised == {("fault.other", "Acme:17"), ("fault.other", "18"), ("fault.other", "test:19"), (FAULTED, "")}
    (long, *_) = told(errorCode="OtherError", vendorId="x" * 128, vendorErrorCode="y" * 64)
    assert len(long.subject) == 120


def test_a_code_that_nobody_knows_is_another_error() -> None:
    message = StatusNotification(status="Faulted", errorCode="DoorOpen")  # type: ignore[arg-type]
    event, _ = status(message, DEVICE, NOW, ())
    assert (event.kind, event.subject, event.message, event.data["code"]) == ("fault.other", "DoorOpen", "DoorOpen", "DoorOpen")


def test_i30_the_example_has_nothing_to_tell() -> None:
    """Empty strings are absent."""
    example: dict[str, Any] = {
        "status": "Ok",
        "errorCode": "NoError",
        "info": "",
        "timestamp": "2013-02-01T15:09:18Z",
        "vendorId": "",
        "vendorErrorCode": "",
    }
    assert told(**example) == []


def test_without_a_time_it_is_that_of_arrival() -> None:
    event, _ = told(errorCode="WeakSignal")
    assert (event.time, event.source, event.message) == (NOW, TimeSource.HUB, "WeakSignal")


# ----------------------------------------------------------------------------------------------------------------- street lights


def test_the_examples_of_street_lights() -> None:
    at = "2013-02-01T15:09:18Z"
    switched = light(StreetlightStatusNotification(contactorId=2, status="On", timestamp=at), DEVICE, NOW)
    event = switched.event
    assert (switched.contactor, switched.field, switched.value) == (2, "status", "On")
    assert (event.kind, event.subject, rfc3339(event.time), event.source) == ("light.switched", "contactor:2", at, TimeSource.DEVICE)
    assert event.data == {"contactor": 2, "status": "On"}
    every = light(StreetlightModeStatusNotification(mode="LocalOverride", timestamp=at), DEVICE, NOW)
    assert (every.contactor, every.event.kind, every.event.subject) == (None, "light.mode.changed", "")  # N15
    assert every.event.data == {"contactor": None, "mode": "LocalOverride"}
    one = light(StreetlightModeStatusNotification(contactorId=1, mode="Schedule", timestamp=at), DEVICE, NOW)
    assert (one.contactor, one.field, one.value, one.event.subject) == (1, "mode", "Schedule", "contactor:1")


def test_n18_an_unexpected_switch_is_a_warning() -> None:
    event = light(StreetlightStatusNotification(contactorId=1, status="Off", timestamp=TIME, unexpected=True), DEVICE, NOW).event
    assert (event.kind, event.severity) == ("light.switched.unexpectedly", Severity.WARNING)


def test_n21_the_id_is_the_same_whenever_it_is_delivered_and_another_for_anything_else() -> None:
    def id(contactor: int | None = 1, mode: str = "Schedule", time: str = TIME, device: str = DEVICE, received: int = NOW) -> str:
        return light(StreetlightModeStatusNotification(contactorId=contactor, mode=mode, timestamp=time), device, received).event.id  # type: ignore[arg-type]

    same = {id(), id(received=NOW + 86_400 * SECOND), id(time="2026-11-21T01:58:00+01:00")}
    assert len(same) == 1
    others = {id(contactor=2), id(contactor=None), id(mode="RemoteOverride"), id(time="2026-11-21T00:58:01Z"), id(device="os3p:SUBS 2")}
    switched = light(StreetlightStatusNotification(contactorId=1, status="On", timestamp=TIME), DEVICE, NOW).event.id
    assert len(same | others | {switched}) == 7
    unreadable = "9999-12-31T23:59:59-14:00"
    assert id(time=unreadable) == id(time=unreadable, received=NOW + SECOND)


def test_a_switch_is_a_reading_and_a_change_of_mode_is_none() -> None:
    change = light(StreetlightStatusNotification(contactorId=3, status="On", timestamp=TIME), DEVICE, NOW)
    reading = light_reading(change)
    assert reading is not None
    assert (reading.device, rfc3339(reading.time), reading.received, reading.source) == (DEVICE, TIME, NOW, TimeSource.DEVICE)
    assert [(one.type, one.value) for one in reading.readings] == [(ReadingType("Contactor.State", "1", location="contactor:3"), 1)]
    off = light_reading(light(StreetlightStatusNotification(contactorId=3, status="Off", timestamp=TIME), DEVICE, NOW))
    assert off is not None
    assert isinstance(off.readings[0], Reading)
    assert off.readings[0].value == 0
    assert light_reading(light(StreetlightModeStatusNotification(contactorId=3, mode="Schedule", timestamp=TIME), DEVICE, NOW)) is None


Sent = tuple[int | None, str]
switches = st.tuples(st.integers(1, 4), st.sampled_from(["On", "Off"]))
modes = st.tuples(st.none() | st.integers(1, 4), st.sampled_from(["Schedule", "LocalOverride", "RemoteOverride"]))


def notification(what: Sent, second: int) -> StreetlightStatusNotification | StreetlightModeStatusNotification:
    contactor, value = what
    timestamp = rfc3339(NOW - 1_000 * SECOND + second * SECOND)
    if value in ("On", "Off"):
        return StreetlightStatusNotification(contactorId=contactor, status=value, timestamp=timestamp)  # type: ignore[arg-type]
    return StreetlightModeStatusNotification(contactorId=contactor, mode=value, timestamp=timestamp)  # type: ignore[arg-type]


def after(sent: list[StreetlightStatusNotification | StreetlightModeStatusNotification]) -> list[tuple[str | None, str | None]]:
    """The state of the four contactors after deliveries, an hour apart."""
    state = Lights()
    for hours, message in enumerate(sent):
        change = light(message, DEVICE, NOW + hours * 3_600 * SECOND)
        state = lights.updated(state, change.contactor, change.field, change.value, change.event.time, change.event.received) or state
    held = [state.of(contactor) for contactor in range(1, 5)]
    return [(one.status.value if one.status else None, one.mode.value if one.mode else None) for one in held]


@given(st.lists(switches | modes, max_size=12), st.data())
def test_n21_any_order_and_repetition_of_deliveries_gives_the_same_state(what: list[Sent], data: st.DataObject) -> None:
    """Late events never overwrite a newer state; times differ, for a station that tells two states of one moment leaves its order to decide."""
    sent = [notification(one, second) for second, one in enumerate(what)]
    again = data.draw(st.lists(st.sampled_from(sent), max_size=12)) if sent else []
    assert after(data.draw(st.permutations(sent + again))) == after(sent)
    expected: list[tuple[str | None, str | None]] = []
    for contactor in range(1, 5):
        on = [value for number, value in what if number == contactor and value in ("On", "Off")]
        mode = [value for number, value in what if number in (contactor, None) and value not in ("On", "Off")]
        expected.append((on[-1] if on else None, mode[-1] if mode else None))
    assert after(sent) == expected


# ----------------------------------------------------------------------------------------------------------- files and firmware


@pytest.mark.parametrize(
    ("word", "kind", "done"),
    [
        ("Downloading", "device.firmware.progress", None),
        ("Downloaded", "device.firmware.progress", None),
        ("DownloadFailed", "device.firmware.failed", False),
        ("Installing", "device.firmware.progress", None),
        ("InstallationFailed", "device.firmware.failed", False),
        ("Installed", "device.firmware.installed", True),
    ],
)
def test_the_progress_of_firmware(word: FirmwareStatus, kind: str, done: bool | None) -> None:
    told = progress(FirmwareStatusNotification(status=word, requestId="r1"), DEVICE, NOW)
    assert (told.request, told.done) == ("r1", done)
    assert told.event is not None
    assert (told.event.kind, told.event.time, told.event.source) == (kind, NOW, TimeSource.HUB)
    assert told.event.data == {"status": word, "requestId": "r1"}
    assert told.event.message == told.words


@pytest.mark.parametrize(
    ("word", "kind", "done"),
    [("Uploading", "device.file.progress", None), ("Uploaded", "device.file.uploaded", True), ("UploadFailed", "device.file.failed", False)],
)
def test_the_progress_of_files(word: FileStatus, kind: str, done: bool | None) -> None:
    told = progress(GetFileStatusNotification(status=word), DEVICE, NOW)
    assert (told.request, told.done) == ("", done)
    assert told.event is not None
    assert (told.event.kind, told.event.data) == (kind, {"status": word})


def test_every_status_of_a_transfer_is_known_and_none_is_nothing() -> None:
    assert set(FIRMWARE) | {"None"} == set(get_args(FirmwareStatus))
    assert set(FILE) | {"None"} == set(get_args(FileStatus))
    for message in (FirmwareStatusNotification(status="None", requestId="r1"), GetFileStatusNotification(status="None", requestId="r1")):
        assert progress(message, DEVICE, NOW) == ("r1", None, "", None)  # N3
    for step in (*FIRMWARE.values(), *FILE.values()):
        assert "os3p" in EVENTS[step.kind].integrations


# ------------------------------------------------------------------------------------------------------------- bounds and secrets


@pytest.mark.parametrize(("test", "prefix"), [(False, ""), (True, "test:")])
def test_N10_errors_of_the_vendor_beyond_so_many_are_one_alarm(test: bool, prefix: str) -> None:
    known = {f"{prefix}V:{number}" for number in range(MOST_SUBJECTS)}

    def subject(code: str, raised: list[Alarm], before: set[str]) -> str:
        error = StatusNotification(status="Ok", errorCode="OtherError", vendorId="V", vendorErrorCode=code, test=test)
        return status(error, DEVICE, NOW, raised, before)[0].subject

    raised = [("fault.other", one) for one in known]
    for now, before in ((raised, set()), ([], known), (raised[:50], known)):
        assert subject("new", now, before) == f"{prefix}other"
        assert subject("7", now, before) == f"{prefix}V:7"
    assert subject("new", raised[1:], set()) == f"{prefix}V:new"
    assert status(StatusNotification(status="Ok", errorCode="GroundFailure"), DEVICE, NOW, raised)[0].subject == ""


def test_S27_credentials_in_a_status_are_masked() -> None:
    place = "ftp://joe:SEKRET7@10.0.0.1/x"
    told = status(StatusNotification(status="Ok", errorCode="OtherError", info=place, vendorId=place, vendorErrorCode=place), DEVICE, NOW, [])
    told += status(StatusNotification(status="Ok", errorCode="NoError", info=place), DEVICE, NOW, [])
    assert "SEKRET7" not in str(told)
    assert "ftp://***@10.0.0.1/x" in told[0].message
