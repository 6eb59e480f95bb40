"""Messages of OS³P read and written: the examples of the annex, each tolerance by its number in FACTS, what senders may not say."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from tests.integrations.os3p.payloads import EXAMPLES

from gridloom.codecs.ocppj import ErrorCode
from gridloom.core.errors import InvalidInput
from gridloom.integrations.os3p import messages
from gridloom.integrations.os3p.errors import PayloadRefused, RefusedInBody
from gridloom.integrations.os3p.reading import LONGEST_TEXT, MOST_OF_A_KIND, Kind, Read, read, write

# The seven examples that break the schema, and the line of FACTS that says what to do (I5 three times: no offset).
BROKEN = {
    "SetStreetlightProfile.req.1": [(Kind.ALIAS, "$.clearSchedule")],  # I1, I5, I5
    "GetEffectiveStreetlightDaySchedule.req.1": [],  # I5
    "GetEffectiveStreetlightDaySchedule.res.1": [(Kind.EXTRA, "$.status")],  # I2
    "Reset.req.1": [(Kind.EXTRA, "$.type")],  # I3
    "ResumeStreetlight.req.1": [(Kind.EXTRA, "$.type")],  # I4
}
# Examples that satisfy the schema and yet give something to tell.
TOLD = {
    "ClearSingleStreetlightProfile.req.1": [(Kind.EXCLUSIVE, "$.stackLevel")],  # I26
    "StatusNotification.req.1": [(Kind.EMPTY, "$.info"), (Kind.EMPTY, "$.vendorId"), (Kind.EMPTY, "$.vendorErrorCode")],  # I30
}
STAMP = "2013-02-01T15:09:18Z"
BOOT = EXAMPLES["BootNotification.req.1"]
PROFILE = EXAMPLES["SetStreetlightProfile.req.1"] | {"clearAllSchedules": True}
del PROFILE["clearSchedule"]


def reading(name: str, payload: Any, **how: Any) -> Read:
    return read(name.removesuffix("Response"), json.dumps(payload).encode(), response=name.endswith("Response"), **how)


def told(found: Read) -> list[tuple[Kind, str]]:
    return [(deviation.kind, deviation.path) for deviation in found.deviations]


def meter(*samples: dict[str, Any], timestamp: Any = STAMP) -> dict[str, Any]:
    return {"meterValue": [{"timestamp": timestamp, "sampledValue": [{"value": "1", "measurand": "Voltage.L1N"} | sample for sample in samples]}]}


def profile(**changes: Any) -> dict[str, Any]:
    return PROFILE | {"streetlightProfiles": [PROFILE["streetlightProfiles"][0] | changes]}


# ------------------------------------------------------------------------------------------------------------------ the examples


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_of_the_annex_is_read(name: str) -> None:
    action, kind, _ = name.split(".")
    found = read(action, json.dumps(EXAMPLES[name]).encode(), response=kind == "res")
    assert told(found) == BROKEN.get(name, TOLD.get(name, []))
    for member, value in EXAMPLES[name].items():
        if member in found.message.__struct_fields__ and value != "":
            assert msgspec.to_builtins(getattr(found.message, member)) == json.loads(json.dumps(value), object_hook=dict) or isinstance(value, list)


@pytest.mark.parametrize("name", sorted(name for name, deviations in {**BROKEN, **TOLD}.items() if deviations and name != "StatusNotification.req.1"))
def test_a_strict_reader_refuses_an_example_that_breaks_a_rule(name: str) -> None:
    action, kind, _ = name.split(".")
    with pytest.raises(PayloadRefused) as refused:
        read(action, json.dumps(EXAMPLES[name]).encode(), response=kind == "res", strict=True)
    assert refused.value.path == {**BROKEN, **TOLD}[name][0][1]


# ------------------------------------------------------------------------------------------------------------- tolerances by number


def test_I1_clearSchedule_is_an_alias_and_a_contradiction_is_told() -> None:
    plain = {name: value for name, value in PROFILE.items() if name != "clearAllSchedules"}
    assert reading("SetStreetlightProfile", plain | {"clearSchedule": True}).message.clearAllSchedules
    same = reading("SetStreetlightProfile", PROFILE | {"clearSchedule": True})
    assert told(same) == [(Kind.ALIAS, "$.clearSchedule")]
    for order in ({"clearSchedule": False} | PROFILE, PROFILE | {"clearSchedule": False}):
        found = reading("SetStreetlightProfile", order)
        assert found.message.clearAllSchedules
        assert told(found) == [(Kind.CONTRADICTION, "$.clearSchedule")]


def test_I2_I41_a_refusal_that_the_schema_has_no_place_for_is_a_refusal() -> None:
    for name, payload in (("GetEffectiveStreetlightDayScheduleResponse", {"status": "Rejected"}), ("UpdateFirmwareResponse", {"status": "Rejected"})):
        with pytest.raises(RefusedInBody, match="Rejected") as refused:
            reading(name, payload)
        assert refused.value.answered == "Rejected"
        with pytest.raises(PayloadRefused):
            reading(name, payload, strict=True)
    assert told(reading("UpdateFirmwareResponse", {"status": "Accepted"})) == [(Kind.EXTRA, "$.status")]


@pytest.mark.parametrize(
    ("text", "date", "kind"),
    [
        ("2015-07-07T00:00:00", "2015-07-07", None),
        ("2015-07-07T23:59:59.5", "2015-07-07", None),
        ("2015-07-07T00:00:00Z", "2015-07-07", Kind.OFFSET),
        ("2015-07-07T23:00:00-11:00", "2015-07-07", Kind.OFFSET),
        ("2015-07-07", "2015-07-07", Kind.DATE),
        ("2015-07-07 12:00", "2015-07-07", Kind.DATE),
    ],
)
def test_I5_only_the_date_counts(text: str, date: str, kind: Kind | None) -> None:
    found = reading("GetEffectiveStreetlightDaySchedule", {"contactorId": 1, "at": text})
    assert messages.day(found.message.at).isoformat() == date
    assert told(found) == ([(kind, "$.at")] if kind else [])
    deep = reading("SetStreetlightProfile", profile(validFrom=text))
    assert told(deep) == ([(kind, "$.streetlightProfiles[0].validFrom")] if kind else [])


@pytest.mark.parametrize("text", ["2015-02-29", "2015-02-29T00:00:00", "today", "2015-W28-2", "2015-07-07x"])
def test_I5_what_is_no_date_is_a_fault(text: str) -> None:
    with pytest.raises(PayloadRefused) as refused:
        reading("GetEffectiveStreetlightDaySchedule", {"contactorId": 1, "at": text})
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.at")


@pytest.mark.parametrize("name", ["GetFileStatusNotification", "FirmwareStatusNotification"])
def test_I6_a_request_id_may_have_36_characters(name: str) -> None:
    assert told(reading(name, {"status": "None", "requestId": "x" * 25})) == []
    found = reading(name, {"status": "None", "requestId": "x" * 36})
    assert (found.message.requestId, told(found)) == ("x" * 36, [(Kind.LONG_ID, "$.requestId")])
    assert json.loads(write(found.message))["requestId"] == "x" * 36  # the station echoes what it was given (N1)
    with pytest.raises(PayloadRefused):
        reading(name, {"status": "None", "requestId": "x" * 37})
    with pytest.raises(PayloadRefused) as refused:
        reading(name, {"status": "None", "requestId": "x" * 26}, strict=True)
    assert refused.value.error_code == ErrorCode.PROPERTY_CONSTRAINT_VIOLATION


def test_I7_contactorId_is_an_alias_of_connectorId() -> None:
    found = reading("TriggerMessage", {"requestedMessage": "StreetlightStatusNotification", "contactorId": 2})
    assert (found.message.connectorId, told(found)) == (2, [(Kind.ALIAS, "$.contactorId")])
    both = reading("TriggerMessage", {"requestedMessage": "StreetlightStatusNotification", "contactorId": 2, "connectorId": 3})
    assert (both.message.connectorId, told(both)) == (3, [(Kind.CONTRADICTION, "$.contactorId")])


def test_I9_I10_N6_N7_words_that_no_list_has_are_kept() -> None:
    found = reading(
        "MeterValues",
        meter(
            {},
            {"measurand": "BoardTemperature", "unit": "Celsius"},
            {"unit": "KWH", "context": "Transaction.Begin", "location": "Cable", "format": "Hex"},
            {"measurand": "ReactiveEnergyInductive.L1"},
        ),
    )
    samples = found.message.meterValue[0].sampledValue
    assert samples[1] == messages.SampledValue(value="1", measurand="BoardTemperature", unit="Celsius")  # type: ignore[arg-type]
    assert (samples[2].unit, samples[2].context, samples[2].location, samples[2].format) == ("KWH", "Transaction.Begin", "Cable", "Hex")
    at = "$.meterValue[0].sampledValue"
    assert told(found) == [(Kind.UNKNOWN, f"{at}[1].{name}") for name in ("measurand", "unit")] + [
        (Kind.UNKNOWN, f"{at}[2].{name}") for name in ("unit", "context", "location", "format")
    ]
    assert "'BoardTemperature'" in found.deviations[0].note
    assert type(found.message) is messages.MeterValues
    assert all(type(sample) is messages.SampledValue for sample in samples)


def test_I12_I14_defaults_are_those_of_the_document() -> None:
    sample = reading("MeterValues", meter({})).message.meterValue[0].sampledValue[0]
    assert (sample.context, sample.format, sample.unit, sample.location) == ("Sample.Periodic", "Raw", None, None)
    assert not reading("SetStreetlightProfile", {k: v for k, v in PROFILE.items() if k != "clearAllSchedules"}).message.clearAllSchedules


def test_I15_empty_arrays_and_members_that_the_schema_does_not_forbid_pass_a_strict_reader() -> None:
    assert reading("MeterValues", {"meterValue": []}, strict=True).message.meterValue == ()
    assert reading("MeterValues", meter(), strict=True).deviations == ()
    found = reading("MeterValues", meter({"phase": "L1"}), strict=True)
    assert told(found) == [(Kind.EXTRA, "$.meterValue[0].sampledValue[0].phase")]
    assert found.deviations[0].code is None
    with pytest.raises(PayloadRefused) as refused:
        reading("MeterValues", meter() | {"connectorId": 1}, strict=True)
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.FORMATION_VIOLATION, "$.connectorId")


@pytest.mark.parametrize(("number", "text"), [(230, "230"), (-1.5, "-1.5"), (1e-7, "0.0000001"), (1e22, "10000000000000000000000"), (0.1, "0.1")])
def test_I16_a_number_is_read_as_text(number: float, text: str) -> None:
    found = reading("MeterValues", meter({"value": number}))
    assert (found.message.meterValue[0].sampledValue[0].value, told(found)) == (text, [(Kind.NUMBER, "$.meterValue[0].sampledValue[0].value")])


@pytest.mark.parametrize("value", [True, None, [], {}])
def test_I16_what_is_neither_text_nor_number_is_a_fault(value: Any) -> None:
    with pytest.raises(PayloadRefused) as refused:
        reading("MeterValues", meter({}, {"value": value}))
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.TYPE_CONSTRAINT_VIOLATION, "$.meterValue[0].sampledValue[1].value")


def test_I17_a_boot_needs_vendor_and_model_only() -> None:
    found = reading("BootNotification", {"vendor": "V", "model": "M"})
    assert (found.message.stationNumber, found.message.imsi) == ("", "")
    assert [kind for kind, _ in told(found)] == [Kind.MISSING] * 5
    with pytest.raises(PayloadRefused) as refused:
        reading("BootNotification", {"vendor": "V"})
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION, "$.model")


def test_B23_boot_fields_may_be_empty_where_not_applicable() -> None:
    assert reading("BootNotification", dict.fromkeys(BOOT, ""), strict=True).deviations == ()


def test_I22_letter_case_of_a_word() -> None:
    found = reading("ChangeConfigurationResponse", {"status": "REJECTED"})
    assert (found.message.status, told(found)) == ("Rejected", [(Kind.CASE, "$.status")])


def test_I25_a_status_NotImplemented_is_a_refusal() -> None:
    with pytest.raises(RefusedInBody, match="NotImplemented"):
        reading("TriggerMessageResponse", {"status": "NotImplemented"})


def test_I30_empty_and_null_are_absent() -> None:
    found = reading("StatusNotification", {"status": "Ok", "errorCode": "NoError", "info": "", "timestamp": "", "vendorId": None, "test": None})
    assert found.message == messages.StatusNotification(status="Ok", errorCode="NoError")
    assert sorted(told(found)) == [(Kind.EMPTY, "$.info"), (Kind.EMPTY, "$.timestamp"), (Kind.NULL, "$.test"), (Kind.NULL, "$.vendorId")]
    unit = reading("MeterValues", meter({"unit": "", "location": None}))
    assert unit.message.meterValue[0].sampledValue[0].unit is None
    assert (
        reading("GetConfigurationResponse", {"configurationKey": [{"key": "a", "readonly": True, "value": ""}]}).message.configurationKey[0].value
        == ""
    )


def test_I30_null_is_told_where_everything_else_is_right() -> None:
    found = reading("MeterValues", meter({"unit": None}))
    assert told(found) == [(Kind.NULL, "$.meterValue[0].sampledValue[0].unit")]
    with pytest.raises(PayloadRefused) as refused:
        reading("MeterValues", meter({"unit": None}), strict=True)
    assert refused.value.error_code == ErrorCode.TYPE_CONSTRAINT_VIOLATION


def test_I30_an_empty_text_for_a_contactor_is_no_contactor_at_all() -> None:
    with pytest.raises(PayloadRefused) as refused:
        reading("OverrideStreetlight", {"action": "On", "contactorId": ""})
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.TYPE_CONSTRAINT_VIOLATION, "$.contactorId")


def test_I30_an_empty_error_code_names_no_error() -> None:
    found = reading("StatusNotification", {"status": "Faulted", "errorCode": ""})
    assert (found.message.errorCode, told(found)) == ("NoError", [(Kind.ALIAS, "$.errorCode")])


def test_an_error_code_that_no_list_has_is_kept() -> None:
    payload = {"status": "Faulted", "errorCode": "FireAlarm", "info": "hall 2", "test": True}
    found = reading("StatusNotification", payload)
    assert (msgspec.to_builtins(found.message), told(found)) == (payload, [(Kind.UNKNOWN, "$.errorCode")])
    with pytest.raises(PayloadRefused) as refused:
        reading("StatusNotification", payload, strict=True)
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.errorCode")
    endless = reading("StatusNotification", payload | {"errorCode": "x" * 5_000}).message
    assert endless.errorCode == "x" * LONGEST_TEXT


@pytest.mark.parametrize(
    ("name", "member", "longest"),
    [
        ("BootNotification", "vendor", 20),
        ("BootNotification", "model", 20),
        ("BootNotification", "stationNumber", 10),
        ("BootNotification", "serialNumber", 25),
        ("BootNotification", "firmwareVersion", 50),
        ("BootNotification", "iccid", 20),
        ("BootNotification", "imsi", 20),
        ("StatusNotification", "info", 128),
        ("StatusNotification", "vendorId", 128),
        ("StatusNotification", "vendorErrorCode", 64),
    ],
)
def test_a_text_that_is_too_long_is_kept_and_told(name: str, member: str, longest: int) -> None:
    """FACTS, "What users complain about" 5."""
    payload = (BOOT if name == "BootNotification" else {"status": "Faulted", "errorCode": "FireAlarm"}) | {member: "é" * longest}
    others = told(reading(name, payload))
    for length, kept in ((longest + 1, longest + 1), (LONGEST_TEXT + 1, LONGEST_TEXT), (200_000, LONGEST_TEXT)):
        long = payload | {member: "é" * length}
        found = reading(name, long)
        assert msgspec.to_builtins(found.message) == long | {member: "é" * kept}
        assert sorted(told(found)) == sorted([*others, (Kind.LONG_TEXT, f"$.{member}")])
        with pytest.raises(PayloadRefused) as refused:
            reading(name, long | ({} if name == "BootNotification" else {"errorCode": "NoError"}), strict=True)
        assert (refused.value.error_code, refused.value.path) == (ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, f"$.{member}")
        with pytest.raises(InvalidInput) as invalid:
            write(found.message)
        assert f"$.{member}" in [fault.path for fault in invalid.value.faults]


@pytest.mark.parametrize(("kind", "needed"), [("Absolute", "time"), ("Sunset", "offset"), ("Sunrise", "offset")])
def test_I34_a_bound_without_what_it_needs_is_told(kind: str, needed: str) -> None:
    payload = profile(daySchedule=[{"start": {"kind": kind}, "end": {"kind": "Absolute", "time": "01:00:00", "offset": 1}}])
    path = f"$.streetlightProfiles[0].daySchedule[0].start.{needed}"
    assert told(reading("SetStreetlightProfile", payload)) == [(Kind.INCOMPLETE, path)]
    with pytest.raises(PayloadRefused) as refused:
        reading("SetStreetlightProfile", payload, strict=True)
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, path)


def test_I40_a_rejected_file_needs_no_name() -> None:
    assert told(reading("GetFileResponse", {"status": "Rejected"})) == [(Kind.MISSING, "$.fileName")]
    with pytest.raises(PayloadRefused):
        reading("GetFileResponse", {"status": "Accepted"})


@pytest.mark.parametrize("name", ["GetFileStatusNotification", "FirmwareStatusNotification"])
def test_I45_idle_is_none(name: str) -> None:
    found = reading(name, {"status": "Idle"})
    assert (found.message.status, told(found)) == ("None", [(Kind.ALIAS, "$.status")])


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("2013-07-01T15:09:18", "2013-07-01T15:09:18+02:00"),
        ("2013-10-27T02:30:00", "2013-10-27T02:30:00+02:00"),
        ("2013-07-01 15:09:18Z", "2013-07-01T15:09:18Z"),
        ("2013-07-01 15:09", "2013-07-01T15:09:00+02:00"),
        ("2013-07-01T15:09:18,25+0530", "2013-07-01T15:09:18.25+05:30"),
    ],
)
def test_a_moment_is_put_right_in_the_zone_of_the_station(text: str, right: str) -> None:
    found = reading("StreetlightModeStatusNotification", {"mode": "Schedule", "timestamp": text}, zone=ZoneInfo("Europe/Paris"))
    assert (found.message.timestamp, told(found)) == (right, [(Kind.TIME, "$.timestamp")])
    assert told(reading("MeterValues", meter({}, timestamp=text))) == [(Kind.TIME, "$.meterValue[0].timestamp")]


def test_a_leap_second_is_a_moment() -> None:
    assert reading("MeterValues", meter({}, timestamp="2016-12-31T23:59:60Z"), strict=True).deviations == ()


def test_a_moment_without_offset_is_utc_if_nobody_says_otherwise() -> None:
    assert reading("MeterValues", meter({}, timestamp="2013-07-01T15:09:18")).message.meterValue[0].timestamp == "2013-07-01T15:09:18+00:00"


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01T00:00:00Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T23:58:60Z",
        "2013-02-01T24:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "2013-02-30T00:00:00Z",
        "noon",
    ],
)
def test_a_moment_that_no_calendar_has_is_a_fault(text: str) -> None:
    with pytest.raises(PayloadRefused) as refused:
        reading("MeterValues", meter({}, timestamp=text))
    assert (refused.value.error_code, refused.value.path) == (ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.meterValue[0].timestamp")


def test_deviations_of_a_kind_are_bounded_and_a_remark_hides_no_violation() -> None:
    found = reading("MeterValues", meter(*[{"phase": "L1"}] * 50) | {"extra": 1})
    assert len(found.deviations) == MOST_OF_A_KIND + 1
    with pytest.raises(PayloadRefused):
        reading("MeterValues", meter(*[{"phase": "L1"}] * 50) | {"extra": 1}, strict=True)


def test_an_odd_member_name_is_named_as_it_came() -> None:
    assert told(reading("Reset", {"a {0} b": 1})) == [(Kind.EXTRA, '$["a {0} b"]')]


# ----------------------------------------------------------------------------------------------------------------- codes of faults


@pytest.mark.parametrize(
    ("name", "payload", "code", "path"),
    [
        ("OverrideStreetlight", {}, ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION, "$.action"),
        ("OverrideStreetlight", {"action": 1}, ErrorCode.TYPE_CONSTRAINT_VIOLATION, "$.action"),
        ("OverrideStreetlight", {"action": "Blink"}, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.action"),
        ("OverrideStreetlight", {"action": "On", "contactorId": 5}, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.contactorId"),
        ("OverrideStreetlight", {"action": "On", "contactorId": 1.0}, ErrorCode.TYPE_CONSTRAINT_VIOLATION, "$.contactorId"),
        ("GetFileStatusNotification", {"status": "None", "requestId": "x" * 37}, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.requestId"),
        ("SetStreetlightProfile", PROFILE | {"streetlightProfiles": []}, ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION, "$.streetlightProfiles"),
        ("SetStreetlightProfile", profile(daySchedule=[]), ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION, "$.streetlightProfiles[0].daySchedule"),
        ("GetFile", {"fileType": "Syslog", "location": "/tmp"}, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.location"),
        ("GetFile", {"fileType": "Syslog", "location": "http://[1::2::3]/"}, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.location"),
        ("GetFile", {"fileType": "Syslog", "location": "http://[fe80::g]/"}, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "$.location"),
        ("Heartbeat", [], ErrorCode.FORMATION_VIOLATION, "$"),
        ("Heartbeat", "", ErrorCode.FORMATION_VIOLATION, "$"),
        ("Nonsense", {}, ErrorCode.NOT_IMPLEMENTED, "$"),
        ("heartbeat", {}, ErrorCode.NOT_IMPLEMENTED, "$"),
    ],
)
def test_R18_R19_R20_the_code_tells_what_is_wrong(name: str, payload: Any, code: ErrorCode, path: str) -> None:
    with pytest.raises(PayloadRefused) as refused:
        reading(name, payload)
    assert (refused.value.error_code, refused.value.path) == (code, path)
    assert json.loads(refused.value.details)["path"] == path


def test_R11_null_is_an_empty_payload() -> None:
    assert read("Heartbeat", b"null", strict=True) == Read(messages.Heartbeat(), ())


def test_R18_what_only_the_other_side_may_begin_is_not_supported() -> None:
    with pytest.raises(PayloadRefused) as refused:
        read("Reset", b"{}", "client")
    assert refused.value.error_code == ErrorCode.NOT_SUPPORTED
    assert read("Reset", b"{}", "server").message == messages.Reset()


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 5000, b'{"a":1}x'])
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    with pytest.raises(PayloadRefused) as refused:
        read("Heartbeat", payload)
    assert refused.value.error_code == ErrorCode.FORMATION_VIOLATION


def test_S27_no_password_is_shown() -> None:
    location = "ftp://root:s3cret@host/x"
    message = messages.GetFile(fileType="Syslog", location=location)
    update = messages.UpdateFirmware(retrieveDate=STAMP, location=location)
    with pytest.raises(PayloadRefused) as refused:
        reading("GetFile", {"fileType": "Syslog", "location": location + " "})
    with pytest.raises(InvalidInput) as unsent:
        write(messages.GetFile(fileType="Syslog", location="gopher://root:s3cret@host/x"))
    shown = [repr(message), repr(update), str(refused.value), refused.value.details.decode(), str(unsent.value), repr(unsent.value.faults)]
    assert not [text for text in shown if "s3cret" in text]
    assert "s3cret" in write(message).decode()


# ------------------------------------------------------------------------------------------------------------------- what is sent


def bound(**members: Any) -> messages.PeriodBound:
    return messages.PeriodBound(**members)


def sent_profile(*, id: int = 1, level: int = 1, **members: Any) -> messages.StreetlightProfile:
    period = messages.Period(start=bound(kind="Sunset", offset=0), end=bound(kind="Absolute", time="01:00:00"))
    given: dict[str, Any] = {"profileId": id, "stackLevel": level, "recurrencyKind": "Daily", "daySchedule": (period,)}
    return messages.StreetlightProfile(**(given | members))


def set_profile(*profiles: messages.StreetlightProfile) -> messages.SetStreetlightProfile:
    return messages.SetStreetlightProfile(contactorId=1, streetlightProfiles=profiles)


def sampled(**members: Any) -> messages.MeterValues:
    sample = messages.SampledValue(**({"value": "1", "measurand": "Voltage.L1N"} | members))
    return messages.MeterValues(meterValue=(messages.MeterValue(timestamp=STAMP, sampledValue=(sample,)),))


STATUS: Any = "StreetlightStatusNotification"


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (messages.OverrideStreetlight(action="Blink"), "$.action"),  # type: ignore[arg-type]
        (messages.OverrideStreetlight(action="On", contactorId=5), "$.contactorId"),
        (messages.ChangeConfiguration(key="a", value=1), "$.value"),  # type: ignore[arg-type]
        (messages.HeartbeatResponse(currentTime="now"), "$.currentTime"),
        (messages.HeartbeatResponse(currentTime="2013-02-01T15:09:18"), "$.currentTime"),
        (messages.StatusNotification(status="Ok", errorCode="NoError", info=""), "$.info"),
        (messages.StatusNotification(status="Ok", errorCode="OtherError", vendorId="v"), "$.vendorErrorCode"),
        (messages.GetEffectiveStreetlightDaySchedule(contactorId=1, at="2015-07-07T00:00:00Z"), "$.at"),
        (messages.GetEffectiveStreetlightDaySchedule(contactorId=1, at="2015-07-07T12:00:00"), "$.at"),
        (messages.GetEffectiveStreetlightDaySchedule(contactorId=1, at="2015-07-07"), "$.at"),
        (messages.GetFile(fileType="Syslog", location="ftp://h/", requestId="x" * 26), "$.requestId"),
        (messages.GetFile(fileType="Syslog", location="file:///etc/passwd"), "$.location"),
        (messages.UpdateFirmware(retrieveDate=STAMP, location="h/x"), "$.location"),
        (messages.TriggerMessage(requestedMessage="Heartbeat", connectorId=1), "$.connectorId"),
        (messages.TriggerMessage(requestedMessage=STATUS, connectorId=5), "$.connectorId"),
        (messages.ClearSingleStreetlightProfile(profileId=1, stackLevel=1), "$.stackLevel"),
        (messages.MeterValues(meterValue=()), "$.meterValue"),
        (messages.MeterValues(meterValue=(messages.MeterValue(timestamp=STAMP, sampledValue=()),)), "$.meterValue[0].sampledValue"),
        (sampled(measurand="ReactiveEnergyInductive.L1"), "$.meterValue[0].sampledValue[0].measurand"),
        (sampled(measurand="BoardTemperature"), "$.meterValue[0].sampledValue[0].measurand"),
        (sampled(value="1,5"), "$.meterValue[0].sampledValue[0].value"),
        (sampled(value=" 1"), "$.meterValue[0].sampledValue[0].value"),
        (sampled(unit="Amp"), "$.meterValue[0].sampledValue[0].unit"),
        (set_profile(), "$.streetlightProfiles"),
        (set_profile(sent_profile(validFrom="2015-07-07T00:00:00+01:00")), "$.streetlightProfiles[0].validFrom"),
        (set_profile(sent_profile(validTo="2015-07-07T01:00:00")), "$.streetlightProfiles[0].validTo"),
        (set_profile(sent_profile(recurrencyKind="Weekly")), "$.streetlightProfiles[0].validFrom"),
        (set_profile(sent_profile(), sent_profile(level=2)), "$.streetlightProfiles[1].profileId"),
        (set_profile(sent_profile(), sent_profile(id=2)), "$.streetlightProfiles[1].stackLevel"),
        (
            set_profile(sent_profile(daySchedule=(messages.Period(start=bound(kind="Sunset"), end=bound(kind="Absolute", time="24:00:00")),))),
            "$.streetlightProfiles[0].daySchedule[0].start.offset",
        ),
        (
            set_profile(
                sent_profile(daySchedule=(messages.Period(start=bound(kind="Sunset", offset=1), end=bound(kind="Absolute", time="24:00:00")),))
            ),
            "$.streetlightProfiles[0].daySchedule[0].end.time",
        ),
    ],
)
def test_what_a_sender_may_not_say_names_its_path(message: messages.Message, path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        write(message)
    assert path in [fault.path for fault in refused.value.faults]


def test_every_path_is_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        write(messages.BootNotification(**dict.fromkeys(BOOT, "x" * 51)))
    assert len(refused.value.faults) == len(BOOT)


def test_what_has_its_default_is_not_sent() -> None:
    assert write(messages.StatusNotification(status="Ok", errorCode="NoError")) == b'{"status":"Ok","errorCode":"NoError"}'
    assert write(messages.GetConfiguration()) == b"{}"
    assert (
        write(messages.TriggerMessage(requestedMessage=STATUS, connectorId=4))
        == b'{"requestedMessage":"StreetlightStatusNotification","connectorId":4}'
    )
