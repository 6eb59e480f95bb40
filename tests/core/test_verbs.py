"""Every order of the received documents has exactly one verb, and a wrong argument is told with its path, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.errors import InvalidInput
from gridloom.core.model import Role
from gridloom.core.verbs import TABLE, Nothing, RelaySet, json_schema, masked, validate

SPECS = Path(__file__).parents[1] / "data" / "specs"
ORDERS = [verb for verb in TABLE.values() if verb.kind == "order"]

# --------------------------------------------------------------------------------------------------------------- orders of the documents

OS3P = {
    "ChangeConfiguration": "device.configuration.set",
    "ClearSingleStreetlightProfile": "light.schedule.clear",
    "GetConfiguration": "device.configuration.get",
    "GetEffectiveStreetlightDaySchedule": "light.schedule.get",
    "GetFile": "device.files.get",
    "OverrideStreetlight": "light.override",
    "Reset": "device.reset",
    "ResetMVFaultIndicator": "os3p.fault_indicator.reset",
    "ResumeStreetlight": "light.resume",
    "SetStreetlightProfile": "light.schedule.set",
    "TestMVFaultIndicator": "os3p.fault_indicator.test",
    "TriggerMessage": "device.trigger",
    "UpdateFirmware": "device.firmware.update",
}
# OS³P's member -> ours; what is missing here is the same in snake_case
OS3P_MEMBERS = {
    "contactorId": "contactor",
    "connectorId": "connector",
    "at": "date",
    "fileType": "what",
    "startTime": "begin",
    "stopTime": "end",
    "clearAllSchedules": "clear_all",
    "streetlightProfiles": "profiles",
    "requestedMessage": "message",
    "retrieveDate": "retrieve_time",
    "retryInterval": "retry_interval_s",
    "key": "keys",
    "recurrencyKind": "recurrence",
    "offset": "offset_s",
}

EKM = {
    # meter
    "SetMeterPassword": "ekm.password.set",
    "SetCTRatio": "ekm.ct_ratio.set",
    "SetTime": "device.clock.set",
    "SetMaxDemandResetInterval": "ekm.max_demand.interval.set",
    "SetMaxDemandResetNow": "ekm.max_demand.reset",
    "SetMaxDemandPeriod": "ekm.max_demand.period.set",
    "SetLCD": "ekm.lcd.set",
    "SetPulseInputRatio": "ekm.pulse_input.ratio.set",
    "SetPulseOutputRatio": "ekm.pulse_output.ratio.set",
    "SetZeroResettableKWH": "ekm.resettable_energy.reset",
    "SetRelay": "relay.set",
    "SetHolidayDates": "ekm.holidays.set",
    "SetSchedule": "ekm.schedule.set",
    "SetSeasonSchedules": "ekm.seasons.set",
    "SetWeekendHolidaySchedules": "ekm.weekend_holiday.set",
    "GetSchedules": "ekm.schedules.get",
    "GetTariffData": "ekm.tariff_data.get",
    # ioStack
    "SetPassword": "ekm.iostack.password.set",
    "ScanOneWire": "ekm.one_wire.scan",
    "GetStatus": "device.status.get",
    "SetDateTime": "device.clock.set",
    "ResetDICount": "ekm.digital_input.reset",
    "SetDOLevel": "ekm.digital_output.set",
    # gateway (ours)
    "ScanMeters": "ekm.meters.scan",
    "StopScan": "ekm.meters.scan.stop",
    "SetPollInterval": "ekm.poll_interval.set",
}

OCPP = {
    "CancelReservation": "ocpp.reservation.cancel",
    "ChangeAvailability": "charge.availability",
    "ChangeConfiguration": "device.configuration.set",
    "ClearCache": "ocpp.cache.clear",
    "ClearChargingProfile": "ocpp.charging_profile.clear",
    "DataTransfer": "ocpp.data_transfer",
    "GetCompositeSchedule": "ocpp.composite_schedule.get",
    "GetConfiguration": "device.configuration.get",
    "GetDiagnostics": "device.files.get",
    "GetLocalListVersion": "ocpp.local_list.version.get",
    "RemoteStartTransaction": "charge.start",
    "RemoteStopTransaction": "charge.stop",
    "ReserveNow": "ocpp.reservation.set",
    "Reset": "device.reset",
    "SendLocalList": "ocpp.local_list.set",
    "SetChargingProfile": "ocpp.charging_profile.set",
    "TriggerMessage": "device.trigger",
    "UnlockConnector": "charge.unlock",
    "UpdateFirmware": "device.firmware.update",
    # security extension
    "CertificateSigned": "ocpp.certificate.signed",
    "DeleteCertificate": "ocpp.certificate.delete",
    "ExtendedTriggerMessage": "device.trigger",
    "GetInstalledCertificateIds": "ocpp.certificates.get",
    "GetLog": "device.files.get",
    "InstallCertificate": "ocpp.certificate.install",
    "SignedUpdateFirmware": "device.firmware.update",
    "ChangeConfiguration AuthorizationKey": "ocpp.authorization_key.set",
}

EVEREST = {
    "pause_charging": "charge.pause",
    "resume_charging": "charge.resume",
    "stop_transaction": "charge.stop",
    "enable_disable": "charge.availability",
    "force_unlock": "charge.unlock",
    "get_evse": "device.status.get",
    "provided_token": "charge.start",
    "withdraw_authorization": "everest.authorization.withdraw",
    "set_external_limits": "charge.limit",
    "set_external_limits (lift)": "charge.limit.clear",
    "get_errors": "everest.errors.get",
    "session_cost": "everest.session_cost.set",
    "tariff_message": "everest.tariff_message.set",
}

WITTY = {
    "set-charge-mode": "charge.mode",
    "start": "charge.start",
    "stop": "charge.stop",
    "PUT ledPower": "device.led.set",
    "PUT friendlyName": "device.manage",
    "PUT tariff1": "tariff.manage",
    "PUT averageEvConsumption": "device.manage",
    "POST charging-stations": "device.manage",
    "DELETE charging-stations": "device.manage",
    "authorize-tic": "consent.manage",
    "POST tariffs": "tariff.manage",
    "POST installations": "site.manage",
    "POST invitations": "grant.manage",
    "POST invitations/operators/accept": "invitation.accept",
    "POST users/operators/disable": "grant.manage",
    "POST event-subscriptions": "webhook.manage",
    "GET event-subscriptions": "webhooks.read",
    "GET users": "grants.read",
    "GET tariffs": "tariffs.read",
    "POST measures/operators/sum": "readings.read",
    "POST logs/operators/list": "events.read",
}


@pytest.mark.parametrize("source", [OS3P, EKM, OCPP, EVEREST, WITTY], ids=["os3p", "ekm", "ocpp", "everest", "witty"])
def test_every_order_of_the_document_has_a_verb(source: dict[str, str]) -> None:
    assert [verb for verb in source.values() if verb not in TABLE] == []


def server_initiated() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads((SPECS / "os3p_server_initiated.json").read_text(encoding="utf-8"))
    return schemas


def test_the_thirteen_messages_of_os3p_have_one_verb_each() -> None:
    assert set(OS3P) == set(server_initiated())
    assert len(set(OS3P.values())) == 13


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def ours(name: str, known: dict[str, Any]) -> str:
    return snake(name) if snake(name) in known else OS3P_MEMBERS.get(name, snake(name))


def contains(theirs: dict[str, Any], mine: dict[str, Any], definitions: dict[str, Any], path: str) -> None:
    """Our schema can say everything that the document's can."""
    if "anyOf" in mine:
        mine = next(part for part in mine["anyOf"] if part.get("type") != "null")
    if "$ref" in mine:
        mine = definitions[mine["$ref"].rpartition("/")[2]]
    if theirs.get("type") == "object":
        for name, member in theirs["properties"].items():
            assert ours(name, mine["properties"]) in mine["properties"], f"{path}.{name}"
            contains(member, mine["properties"][ours(name, mine["properties"])], definitions, f"{path}.{name}")
    elif theirs.get("type") == "array":
        contains(theirs["items"], mine["items"], definitions, f"{path}[]")
        assert theirs.get("maxItems", 0) <= mine.get("maxItems", 10**9), path
        assert theirs.get("minItems", 0) == mine.get("minItems", 0), path
    elif "enum" in theirs:
        assert {snake(value).strip("_") for value in theirs["enum"]} <= {snake(str(value)).strip("_") for value in mine["enum"]}, path
    elif theirs["type"] == "integer" and path != "TriggerMessage.connectorId":
        assert mine.get("minimum", -(10**9)) <= theirs.get("minimum", 0), path
        assert mine.get("maximum", 10**9) >= theirs.get("maximum", 1), path
    elif "maxLength" in theirs:
        assert mine["maxLength"] == theirs["maxLength"], path


@pytest.mark.parametrize("action", sorted(OS3P))
def test_whatever_os3p_can_order_the_verb_can_say(action: str) -> None:
    schema = json_schema(OS3P[action])
    contains(server_initiated()[action], schema, schema.get("$defs", {}), action)


def test_no_vendor_order_is_without_a_source() -> None:
    named = set(EKM.values()) | set(OS3P.values()) | set(OCPP.values()) | set(EVEREST.values())
    assert {verb.name for verb in ORDERS if verb.name.split(".")[0] in ("ekm", "os3p", "ocpp", "everest")} <= named


# --------------------------------------------------------------------------------------------------------------- the table itself


def test_rows_are_complete() -> None:
    for name, verb in TABLE.items():
        assert name == verb.name
        assert verb.kind in ("order", "read", "manage")
        assert verb.meaning.endswith("."), name
        assert verb.roles, name
        assert verb.timeout > 0, name


def test_every_order_has_an_argument_type_of_its_own() -> None:
    types = [verb.arguments for verb in ORDERS]
    assert len(set(types)) == len(types)
    assert Nothing not in types
    assert all(verb.arguments is Nothing for verb in TABLE.values() if verb.kind != "order")


def test_arguments_are_strict_frozen_and_snake_case() -> None:
    for verb in TABLE.values():
        config = verb.arguments.__struct_config__
        assert config.frozen, verb.name
        assert config.forbid_unknown_fields, verb.name
        assert all(field == field.lower() for field in verb.arguments.__struct_fields__), verb.name


def test_secrets_are_arguments() -> None:
    for verb in TABLE.values():
        assert set(verb.secrets) <= set(verb.arguments.__struct_fields__), verb.name


def test_whatever_is_called_password_is_secret() -> None:
    for verb in TABLE.values():
        hidden = {field for field in verb.arguments.__struct_fields__ if "password" in field or field == "location"}
        assert hidden <= set(verb.secrets), verb.name
    assert TABLE["ocpp.authorization_key.set"].secrets == ("key",)


def test_what_may_not_be_sent_twice() -> None:
    assert {verb.name for verb in ORDERS if not verb.idempotent} == {
        "relay.set",  # a pulse
        "device.reset",
        "device.identify",
        "device.clock.set",  # the time would be an old one
        "device.firmware.update",
        "charge.start",
        "charge.unlock",
        "os3p.fault_indicator.test",
        "os3p.fault_indicator.reset",
        "ekm.password.set",  # the old password is wrong by then
        "ekm.max_demand.reset",
        "ekm.resettable_energy.reset",
        "ekm.iostack.password.set",
        "ekm.digital_input.reset",
        "ekm.meters.scan",
        "ocpp.data_transfer",
        "ocpp.authorization_key.set",
    }


# --------------------------------------------------------------------------------------------------------------- roles


def allowed(role: Role) -> set[str]:
    return {verb.name for verb in TABLE.values() if role in verb.roles}


def test_admin_may_everything() -> None:
    assert allowed(Role.ADMIN) == set(TABLE)


def test_operator_may_all_but_accounts_and_what_is_the_owners() -> None:
    assert set(TABLE) - allowed(Role.OPERATOR) == {
        "account.manage",
        "token.manage",
        "hub.manage",
        "grant.manage",
        "consent.manage",
        "invitation.accept",
    }


def test_owner_orders_and_reads_and_sets_prices_but_does_not_run_the_hub() -> None:
    mine = allowed(Role.OWNER)
    assert {verb.name for verb in ORDERS} <= mine
    assert {"readings.read", "costs.read", "tariff.manage", "consent.manage", "grant.manage", "device.manage", "webhook.manage"} <= mine
    assert not mine & {"account.manage", "token.manage", "hub.manage", "hub.read", "device.approve", "key.manage", "invitation.accept"}


def test_installer_sees_no_consumption_no_costs_and_orders_nothing_of_use() -> None:
    assert allowed(Role.INSTALLER) == {
        "device.read",
        "site.read",
        "alarms.read",
        "invitation.accept",
        # commissioning
        "device.identify",
        "device.status.get",
        "device.clock.set",
        "device.configuration.get",
        "ekm.ct_ratio.set",
        "ekm.pulse_input.ratio.set",
        "ekm.pulse_output.ratio.set",
        "ekm.one_wire.scan",
        "ekm.meters.scan",
        "ekm.meters.scan.stop",
        "ekm.poll_interval.set",
    }


def test_viewer_only_reads() -> None:
    assert {TABLE[name].kind for name in allowed(Role.VIEWER)} == {"read"}
    assert "readings.read" in allowed(Role.VIEWER)
    assert not allowed(Role.VIEWER) & {"audit.read", "hub.read", "grants.read"}


# --------------------------------------------------------------------------------------------------------------- validation


def faults(verb: str, arguments: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refused:
        validate(verb, arguments)
    return {fault.path: fault.reason for fault in refused.value.faults}


def test_right_arguments_become_the_verbs_struct() -> None:
    assert validate("relay.set", {"relay": 1, "state": "closed", "duration_s": 1}) == RelaySet(relay=1, state="closed", duration_s=1)


def test_every_wrong_argument_is_told_at_once() -> None:
    found = faults("relay.set", {"relay": 99, "state": "close", "duration": 3, "password": 12345678})
    assert set(found) == {"$.relay", "$.state", "$.duration", "$.password"}
    assert "1" in found["$.relay"]
    assert "16" in found["$.relay"]
    assert "99" in found["$.relay"]
    assert '"closed"' in found["$.state"]
    assert "duration_s" in found["$.duration"]


def test_missing_and_wrong_together_deep_inside() -> None:
    period = {"start": {"kind": "sunset", "offset_s": 100_000}, "end": {"kind": "noon"}}
    profile = {"stack_level": -1, "recurrence": "Daily", "valid_from": "2026-02-31", "day_schedule": [period]}
    found = faults("light.schedule.set", {"contactor": 5, "profiles": [profile]})
    assert set(found) == {
        "$.contactor",
        "$.profiles[0].profile_id",
        "$.profiles[0].stack_level",
        "$.profiles[0].recurrence",
        "$.profiles[0].valid_from",
        "$.profiles[0].day_schedule[0].start.offset_s",
        "$.profiles[0].day_schedule[0].end.kind",
    }


def test_a_secret_is_not_repeated_in_a_fault() -> None:
    with pytest.raises(InvalidInput) as refused:
        validate("ekm.password.set", {"new_password": "hunter2hunter2", "password": "sesame!!"})
    told = str(refused.value) + repr(refused.value.faults)
    assert {fault.path for fault in refused.value.faults} == {"$.new_password", "$.password"}
    assert "hunter2" not in told
    assert "sesame" not in told


def test_an_unknown_verb_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"relay\.set"):
        validate("relay.sett", {})


def test_nothing_means_nothing() -> None:
    assert validate("device.read", {}) == Nothing()
    assert set(faults("device.read", {"x": 1})) == {"$.x"}


@pytest.mark.parametrize("verb", [verb.name for verb in ORDERS])
def test_every_order_tells_all_missing_and_unknown_arguments(verb: str) -> None:
    required = {f"$.{field.name}" for field in msgspec.structs.fields(TABLE[verb].arguments) if field.required}
    assert set(faults(verb, {"zzz": 1})) == {"$.zzz"} | required


SENSIBLE: dict[str, dict[str, Any]] = {
    "relay.set": {"relay": 2, "state": "open"},
    "device.trigger": {"message": "MeterValues", "connector": 1},
    "device.clock.set": {"time": "2026-11-21T01:00:00+01:00"},
    "device.configuration.set": {"key": "Geolocation", "value": "[52.09,5.12]"},
    "device.led.set": {"brightness_percent": 30},
    "device.files.get": {"what": "meter_value_history", "location": "ftp://root:root@sftp.oursystem.foo/tmp", "begin": "2013-02-01T15:09:18Z"},
    "device.firmware.update": {"location": "ftp://root:root@fork.gir.foo/tmp/kvcbx-updt.amx", "retries": 4, "retry_interval_s": 20},
    "charge.limit": {"current_a": 16, "phases": 3, "duration_s": 300},
    "charge.mode": {"mode": "deferredExclusive"},
    "charge.availability": {"available": False},
    "light.override": {"action": "suspend"},
    "light.schedule.set": {
        "contactor": 1,
        "clear_all": True,
        "profiles": [
            {
                "profile_id": 1,
                "stack_level": 2,
                "recurrence": "daily",
                "valid_from": "2015-06-06",
                "valid_to": "2019-09-06",
                "day_schedule": [
                    {"start": {"kind": "sunset", "offset_s": 3600}, "end": {"kind": "absolute", "time": "01:00:00"}},
                    {"start": {"kind": "absolute", "time": "06:00:00.500"}, "end": {"kind": "sunrise", "offset_s": 0}},
                ],
            }
        ],
    },
    "light.schedule.clear": {"contactor": 1, "stack_level": 3},
    "light.schedule.get": {"contactor": 1, "date": "2015-07-07"},
    "ekm.password.set": {"new_password": "12345678"},
    "ekm.ct_ratio.set": {"ct_ratio": 400},
    "ekm.max_demand.interval.set": {"interval": "daily"},
    "ekm.max_demand.period.set": {"period_min": 60},
    "ekm.lcd.set": {"items": [1, 9, 10, 11, 12]},
    "ekm.pulse_input.ratio.set": {"line": 1, "ratio": 55},
    "ekm.pulse_output.ratio.set": {"ratio": 40},
    "ekm.holidays.set": {"dates": [{"month": 12, "day": 25}]},
    "ekm.schedule.set": {"schedule": 1, "periods": [{"hour": 0, "minute": 0, "tariff": 1}]},
    "ekm.seasons.set": {"seasons": [{"month": 1, "day": 1, "schedule": 1}]},
    "ekm.weekend_holiday.set": {"weekend_schedule": 1, "holiday_schedule": 2},
    "ekm.iostack.password.set": {"new_password": "new", "password": "old"},
    "ekm.digital_input.reset": {"pin": 1},
    "ekm.digital_output.set": {"pin": 4, "level": 1, "clear_watch": True},
    "ekm.meters.scan": {"first": "300000000", "last": "000300001000"},
    "ekm.poll_interval.set": {"interval_s": 60},
    "ocpp.reservation.set": {"reservation": 7, "connector": 1, "identification": "ABC", "expires": "2026-11-21T02:00:00Z"},
    "ocpp.reservation.cancel": {"reservation": 7},
    "ocpp.data_transfer": {"vendor": "com.example"},
    "ocpp.local_list.set": {"version": 3, "update": "Full", "entries": [{"identification": "ABC", "status": "Accepted"}]},
    "ocpp.charging_profile.set": {
        "connector": 1,
        "profile_id": 1,
        "stack_level": 0,
        "purpose": "TxDefaultProfile",
        "kind": "Absolute",
        "unit": "A",
        "periods": [{"start_s": 0, "limit": 6.0}],
    },
    "ocpp.composite_schedule.get": {"connector": 1, "duration_s": 3600},
    "ocpp.authorization_key.set": {"key": "0123456789abcdef"},
    "ocpp.certificate.install": {"use": "CentralSystemRootCertificate", "certificate": "-----BEGIN"},
    "ocpp.certificate.signed": {"chain": "-----BEGIN"},
    "ocpp.certificate.delete": {
        "certificate": {"algorithm": "SHA256", "issuer_name_hash": "aa", "issuer_key_hash": "bb", "serial": "01"},
    },
    "ocpp.certificates.get": {"use": "ManufacturerRootCertificate"},
    "everest.authorization.withdraw": {"evse": 1},
    "everest.session_cost.set": {"session": "uuid", "currency": "EUR", "amount": "1.25"},
    "everest.tariff_message.set": {"text": "0.25 EUR/kWh"},
}


@pytest.mark.parametrize("verb", [verb.name for verb in ORDERS])
def test_sensible_arguments_are_accepted(verb: str) -> None:
    assert isinstance(validate(verb, SENSIBLE.get(verb, {})), TABLE[verb].arguments)


@pytest.mark.parametrize(
    ("verb", "arguments", "word"),
    [
        ("charge.limit", {"phases": 1}, "power_w"),
        ("device.firmware.update", {}, "location"),
        ("device.firmware.update", {"file": "a.bin", "location": "https://h/a.bin"}, "either"),
        ("device.firmware.update", {"file": "a.bin", "signature": "x"}, "signing_certificate"),
        ("device.files.get", {"what": "syslog", "begin": "2026-02-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "before"),
        ("light.schedule.clear", {}, "everything"),
        ("light.schedule.clear", {"profile_id": 2, "stack_level": 3}, "exactly one"),
        ("ekm.meters.scan", {"first": "5", "last": "4"}, "below"),
        ("ekm.meters.scan", {"first": "1", "last": "1000001"}, "at most 1000000 addresses"),
        ("everest.authorization.withdraw", {}, "identification"),
    ],
)
def test_rules_over_several_arguments(verb: str, arguments: dict[str, Any], word: str) -> None:
    (reason,) = faults(verb, arguments).values()
    assert word in reason


def profile(**changes: Any) -> dict[str, Any]:
    day = [{"start": {"kind": "absolute", "time": "20:00:00"}, "end": {"kind": "absolute", "time": "23:00:00"}}]
    return {"profile_id": 1, "stack_level": 1, "recurrence": "daily", "day_schedule": day} | changes


@pytest.mark.parametrize(
    ("profiles", "path", "word"),
    [
        ([profile(recurrence="weekly")], "$.profiles[0]", "valid_from"),
        ([profile(), profile(profile_id=2)], "$", "stack_level 1 is used twice"),
        ([profile(), profile(stack_level=2)], "$", "profile_id 1 is used twice"),
        (
            [profile(day_schedule=[{"start": {"kind": "absolute"}, "end": {"kind": "sunrise", "offset_s": 0}}])],
            "$.profiles[0].day_schedule[0].start",
            "time",
        ),
        (
            [profile(day_schedule=[{"start": {"kind": "sunset"}, "end": {"kind": "sunrise", "offset_s": 0}}])],
            "$.profiles[0].day_schedule[0].start",
            "offset_s",
        ),
        ([profile(day_schedule=[])], "$.profiles[0].day_schedule", "1"),
        ([], "$.profiles", "1"),
    ],
)
def test_rules_of_street_light_profiles(profiles: list[dict[str, Any]], path: str, word: str) -> None:
    found = faults("light.schedule.set", {"contactor": 1, "profiles": profiles})
    assert set(found) == {path}
    assert word in found[path]


@given(relay=st.integers(-5, 25), duration=st.integers(-5, 10_010))
def test_ranges_are_those_of_the_table(relay: int, duration: int) -> None:
    wrong = {"$.relay"} if not 1 <= relay <= 16 else set()
    if not 0 <= duration <= 9_999:
        wrong.add("$.duration_s")
    arguments = {"relay": relay, "state": "open", "duration_s": duration}
    if wrong:
        assert set(faults("relay.set", arguments)) == wrong
    else:
        assert validate("relay.set", arguments) == RelaySet(relay=relay, state="open", duration_s=duration)


@pytest.mark.parametrize("time", ["2026-11-21T01:00:00", "2026-13-21T01:00:00Z", "now", 5])
def test_a_time_needs_a_zone(time: Any) -> None:
    assert set(faults("device.clock.set", {"time": time})) == {"$.time"}


# --------------------------------------------------------------------------------------------------------------- masks and schemas


def test_masked_shows_no_secret() -> None:
    arguments = {"relay": 1, "state": "closed", "password": "12345678"}
    assert masked("relay.set", arguments) == {"relay": 1, "state": "closed", "password": "***"}
    assert arguments["password"] == "12345678"
    assert masked("relay.set", {"relay": 1, "password": None}) == {"relay": 1, "password": None}


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("Url", "ftp://joe:pw@10.0.0.1/x", "ftp://***@10.0.0.1/x"),
        ("ApnPassword", "pw", "***"),
        ("AuthorizationKey", "pw", "***"),
        ("ApnPassword", "", ""),
        ("Geolocation", "[52.09,5.12]", "[52.09,5.12]"),
    ],
)
def test_masked_shows_no_secret_that_is_the_value_of_a_configuration_key(key: str, value: str, shown: str) -> None:
    assert masked("device.configuration.set", {"key": key, "value": value}) == {"key": key, "value": shown}


@pytest.mark.parametrize("verb", list(TABLE))
def test_every_verb_has_a_json_schema(verb: str) -> None:
    schema = json_schema(verb)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(TABLE[verb].arguments.__struct_fields__)
    assert {name for name, member in schema["properties"].items() if member.get("writeOnly")} == set(TABLE[verb].secrets)
    referenced = {part.partition('"')[0] for part in json.dumps(schema).split('"#/$defs/')[1:]}
    assert referenced == set(schema.get("$defs", {}))


def test_the_schema_says_the_range() -> None:
    relay = json_schema("relay.set")["properties"]["relay"]
    assert (relay["minimum"], relay["maximum"]) == (1, 16)


@pytest.mark.parametrize("password", ["12345678\n", "١٢٣٤٥٦٧٨", "1234567", "123456789"])
def test_a_meter_password_is_eight_plain_digits_and_nothing_behind(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate("ekm.password.set", {"new_password": password})
    assert [fault.path for fault in refused.value.faults] == ["$.new_password"]
    assert password not in str(refused.value)
