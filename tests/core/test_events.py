"""Everything that the received documents can tell has a kind of event: source word -> kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gridloom.core.clock import Clock
from gridloom.core.events import TABLE, clears, new_event
from gridloom.core.model import EventState, Severity, TimeSource

SPECS = Path(__file__).parents[1] / "data" / "specs"

# --------------------------------------------------------------------------------------------------------------- OS³P

OS3P_ERRORS = {
    "GroundFailure": "fault.ground",
    "HighTemperature": "fault.temperature",
    "MVFaultIndicatorError": "fault.indicator",
    "NoError": "fault.resolved",
    "OtherError": "fault.other",
    "OverCurrentFailure": "fault.overcurrent",
    "PowerMeterFailure": "fault.meter",
    "PowerSwitchFailure": "fault.switch",
    "ResetFailure": "fault.reset",
    "UnderVoltage": "fault.undervoltage",
    "OverVoltage": "fault.overvoltage",
    "WeakSignal": "fault.signal",
}
OS3P_RESOLVED = {  # the three fixed info texts (N12) clear these alarms
    "Indicator fault (MV) resolved": "fault.indicator",
    "Over current error (MV) resolved": "fault.overcurrent",
    "Ground failure resolved": "fault.ground",
}
OS3P_FIRMWARE = {
    "None": "device.firmware.progress",
    "Downloading": "device.firmware.progress",
    "Downloaded": "device.firmware.progress",
    "DownloadFailed": "device.firmware.failed",
    "Installing": "device.firmware.progress",
    "InstallationFailed": "device.firmware.failed",
    "Installed": "device.firmware.installed",
}
OS3P_FILE = {
    "None": "device.file.progress",
    "Uploaded": "device.file.uploaded",
    "Uploading": "device.file.progress",
    "UploadFailed": "device.file.failed",
}
OS3P_MODE = {"Schedule": "light.mode.changed", "LocalOverride": "light.mode.changed", "RemoteOverride": "light.mode.changed"}
OS3P_LIGHT = {"On": "light.switched", "Off": "light.switched", "unexpected": "light.switched.unexpectedly"}
OS3P_STATUS = {"Ok": "station.faulted", "Faulted": "station.faulted"}  # cleared, raised
OS3P_REGISTRATION = {"Accepted": "device.registered", "Pending": "device.pending", "Rejected": "device.rejected"}


def enum(message: str, member: str) -> set[str]:
    schemas: dict[str, Any] = json.loads((SPECS / "os3p_client_initiated.json").read_text(encoding="utf-8"))
    return set(schemas[message]["properties"][member]["enum"])


@pytest.mark.parametrize(
    ("message", "member", "kinds"),
    [
        ("StatusNotification", "errorCode", OS3P_ERRORS),
        ("StatusNotification", "status", OS3P_STATUS),
        ("FirmwareStatusNotification", "status", OS3P_FIRMWARE),
        ("GetFileStatusNotification", "status", OS3P_FILE),
        ("StreetlightModeStatusNotification", "mode", OS3P_MODE),
    ],
)
def test_every_word_of_an_os3p_notification_has_a_kind(message: str, member: str, kinds: dict[str, str]) -> None:
    assert set(kinds) == enum(message, member)
    assert all("os3p" in TABLE[kind].integrations for kind in kinds.values())


def test_street_lights_and_registration_have_kinds() -> None:
    assert set(OS3P_LIGHT) == enum("StreetlightStatusNotification", "status") | {"unexpected"}
    assert {*OS3P_LIGHT.values(), *OS3P_REGISTRATION.values()} <= set(TABLE)


def test_os3p_errors_are_alarms_that_can_be_resolved() -> None:
    for code, kind in OS3P_ERRORS.items():
        assert TABLE[kind].alarm == (code != "NoError"), code
    assert len(set(OS3P_ERRORS.values())) == len(OS3P_ERRORS)
    assert set(OS3P_RESOLVED.values()) <= {kind for code, kind in OS3P_ERRORS.items() if code != "NoError"}


OS3P_CHECKLIST = {
    "B1": "device.booted",
    "B17": "device.restarted",
    "B20": "device.data.refused",
    "B22": "device.clock.set",
    "C8": "device.unknown",
    "C10": "link.refused",
    "C16": "device.connection.replaced",
    "N20": "device.queue.full",
    "G5.1 wrong password": "device.credential.refused",
    "S20 not done": "device.order.ignored",
    "L2": "light.schedule.changed",
    "issue 5: damaged state file": "device.state.damaged",
    "issue 5: drift": "light.schedule.drift",
}

# --------------------------------------------------------------------------------------------------------------- OCPP 1.6J

OCPP_ERRORS = {
    "ConnectorLockFailure": "fault.connector_lock",
    "EVCommunicationError": "fault.ev_communication",
    "GroundFailure": "fault.ground",
    "HighTemperature": "fault.temperature",
    "InternalError": "fault.internal",
    "LocalListConflict": "fault.local_list",
    "OtherError": "fault.other",
    "OverCurrentFailure": "fault.overcurrent",
    "OverVoltage": "fault.overvoltage",
    "PowerMeterFailure": "fault.meter",
    "PowerSwitchFailure": "fault.switch",
    "ReaderFailure": "fault.reader",
    "ResetFailure": "fault.reset",
    "UnderVoltage": "fault.undervoltage",
    "WeakSignal": "fault.signal",
}
OCPP_STATUS = {
    "Available": "connector.changed",
    "Preparing": "connector.changed",
    "Charging": "session.resumed",
    "SuspendedEVSE": "session.suspended",
    "SuspendedEV": "session.suspended",
    "Finishing": "connector.changed",
    "Reserved": "reservation.changed",
    "Unavailable": "connector.changed",
    "Faulted": "station.faulted",
}
OCPP_FIRMWARE = {
    "Downloaded": "device.firmware.progress",
    "DownloadFailed": "device.firmware.failed",
    "Downloading": "device.firmware.progress",
    "Idle": "device.firmware.progress",
    "InstallationFailed": "device.firmware.failed",
    "Installing": "device.firmware.progress",
    "Installed": "device.firmware.installed",
    # signed
    "DownloadScheduled": "device.firmware.progress",
    "DownloadPaused": "device.firmware.progress",
    "InstallRebooting": "device.firmware.progress",
    "InstallScheduled": "device.firmware.progress",
    "InstallVerificationFailed": "device.firmware.failed",
    "InvalidSignature": "security.firmware.invalid",
    "SignatureVerified": "device.firmware.progress",
}
OCPP_FILE = {
    # diagnostics
    "Idle": "device.file.progress",
    "Uploaded": "device.file.uploaded",
    "UploadFailed": "device.file.failed",
    "Uploading": "device.file.progress",
    # log
    "BadMessage": "device.file.failed",
    "NotSupportedOperation": "device.file.failed",
    "PermissionDenied": "device.file.failed",
    "UploadFailure": "device.file.failed",
}
OCPP_SECURITY = {
    "FirmwareUpdated": "device.firmware.changed",
    "FailedToAuthenticateAtCsms": "security.authentication.failed",
    "CsmsFailedToAuthenticate": "security.authentication.failed",
    "FailedToAuthenticateAtCentralSystem": "security.authentication.failed",
    "CentralSystemFailedToAuthenticate": "security.authentication.failed",
    "SettingSystemTime": "device.clock.set",
    "StartupOfTheDevice": "device.booted",
    "ResetOrReboot": "device.restarted",
    "SecurityLogWasCleared": "security.log.cleared",
    "ReconfigurationOfSecurityParameters": "security.settings.changed",
    "MemoryExhaustion": "security.memory.exhausted",
    "InvalidMessages": "security.messages.invalid",
    "AttemptedReplayAttacks": "security.replay",
    "TamperDetectionActivated": "security.tamper",
    "InvalidFirmwareSignature": "security.firmware.invalid",
    "InvalidFirmwareSigningCertificate": "security.firmware.invalid",
    "InvalidCsmsCertificate": "security.certificate.invalid",
    "InvalidCentralSystemCertificate": "security.certificate.invalid",
    "InvalidChargePointCertificate": "security.certificate.invalid",
    "InvalidTLSVersion": "security.tls.refused",
    "InvalidTLSCipherSuite": "security.tls.refused",
    "something new": "security.other",
}
OCPP_MESSAGES = {  # what a charge point begins; Heartbeat and MeterValues are no events
    "Authorize Accepted": "authorization.accepted",
    "Authorize Blocked": "authorization.refused",
    "BootNotification": "device.booted",
    "DataTransfer": "vendor.message",
    "SignCertificate": "security.certificate.requested",
    "StartTransaction": "session.started",
    "StopTransaction": "session.ended",
    "no StopTransaction": "session.lost",
    "late StopTransaction": "session.recovered",
}

# --------------------------------------------------------------------------------------------------------------- Witty

WITTY_TYPES = {
    "session.started": "session.started",
    "session.ended": "session.ended",
    "cable.plugged": "cable.plugged",
    "cable.unplugged": "cable.unplugged",
    "charge.mode.changed": "charge.mode.changed",
    "key.locked": "key.locked",
    "key.unlocked": "key.unlocked",
    "tariff.changed": "tariff.changed",
    "tic.type.changed": "line.mode.changed",
    "station.online": "device.online",
    "station.offline": "device.offline",
    "error.raised": "fault.other",  # and every other fault.*
    "error.cleared": "fault.other",
    "load.shedding": "load.shedding",
    "cybersecurity": "security.tamper",  # and the others of WITTY_SECURITY
    "command.completed": "command.completed",
}
WITTY_ERRORS = {
    1: "fault.shedding",
    2: "fault.overcurrent",
    3: "fault.overvoltage",
    4: "fault.undervoltage",
    5: "fault.ground",
    6: "fault.temperature",
    7: "fault.connector_lock",
    8: "fault.meter",
    9: "fault.communication",
    10: "fault.internal",
}
WITTY_SECURITY = {
    1: "login.failed",
    2: "password.changed",
    3: "device.network.changed",
    4: "device.firmware.changed",
    5: "security.tamper",
}
WITTY_LOGS = {
    "SessionStart": "session.started",
    "SessionEnd": "session.ended",
    "KeySwitch": "key.locked",
    "ChargeMode": "charge.mode.changed",
    "CarPlug": "cable.plugged",
    "Connectivity": "device.offline",
    "CurrentTariff": "tariff.changed",
    "TicType": "line.mode.changed",
}
WITTY_SHARING = {
    "invitation": "invitation.sent",
    "accept": "invitation.accepted",
    "expirationDate": "invitation.expired",
    "disable": "grant.changed",
    "authorize-tic": "consent.changed",
    "tariffs": "price.changed",
    "Validating": "webhook.validated",
    "Failing": "webhook.failing",
    "Disabled": "webhook.disabled",
}

# --------------------------------------------------------------------------------------------------------------- TIC

STGE = {  # bits as in the table of STGE.md
    "0": "relay.changed",
    "1-3": "breaker.opened",
    "4": "cover.open",
    "6": "fault.overvoltage",
    "7": "overload",
    "8": "contract.changed",
    "9": "energy.direction.changed",
    "10-13": "tariff.changed",
    "14-15": "tariff.changed",
    "16": "clock.degraded",
    "17": "line.mode.changed",
    "19-20": "meter.communication.changed",
    "21-22": "meter.communication.changed",
    "23": "meter.communication.changed",
    "24-25": "tariff.today",
    "26-27": "tariff.tomorrow",
    "28-29": "peak.notice",
    "30-31": "peak.begin",
}
TIC = {  # labels that tell an event
    "ADSC": "meter.changed",
    "ADCO": "meter.changed",
    "PRM": "meter.changed",
    "NGTF": "contract.changed",
    "OPTARIF": "contract.changed",
    "ISOUSC": "contract.changed",
    "PREF": "contract.changed",
    "PTEC": "tariff.changed",
    "LTARF": "tariff.changed",
    "NTARF": "tariff.changed",
    "DEMAIN": "tariff.tomorrow",
    "NJOURF+1": "tariff.calendar.changed",
    "PJOURF+1": "tariff.calendar.changed",
    "PPOINTE": "tariff.calendar.changed",
    "PEJP": "peak.notice",
    "DPM1": "peak.notice",
    "FPM1": "peak.end",
    "ADPS": "overload",
    "ADIR1": "overload",
    "PPOT": "potential.missing",
    "RELAIS": "relay.changed",
    "MSG1": "message.received",
    "MSG2": "message.received",
    "MOTDETAT": "device.status.changed",
    "DATE": "clock.degraded",
}
TIC_LINE = {
    "unplugged": "line.lost",
    "plugged": "line.found",
    "permission": "line.denied",
    "busy": "line.busy",
    "silent": "line.silent",
    "noise": "line.noise",
    "breaker closed again": "breaker.closed",
}


def test_every_bit_of_stge_has_a_kind() -> None:
    text = (SPECS / "tic_STGE.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| (\d+(?:-\d+)?) \|", text, re.MULTILINE)) == set(STGE)
    assert all("tic" in TABLE[kind].integrations for kind in STGE.values())


# --------------------------------------------------------------------------------------------------------------- EVerest, EKM, the hub

EVEREST = {
    "powermeter/CommunicationFault": "fault.communication",
    "values stop": "powermeter.lost",
    "device silent": "device.silent",
    "start refused": "transaction.refused",
    "start": "transaction.started",
    "stop": "transaction.ended",
    "OCMF error": "ocmf.failed",
    "heartbeat went backwards": "device.restarted",
    "phase_seq_error": "phase.sequence.wrong",
    "register went backwards": "register.backwards",
    "clock not synchronised": "clock.degraded",
    "broker gone": "broker.lost",
    "broker back": "broker.connected",
    "error_raised": "fault.other",
    "malformed message": "device.message.refused",
    "key rotation": "signing_key.changed",
    "enforced_limits": "charge.limit.changed",
}
EKM = {
    "State_Out": "relay.changed",
    "State_Inputs": "input.changed",
    "State_Watts_Dir": "energy.direction.changed",
    "RMS_Watts_Max_Demand": "demand.peak",
    "SetMaxDemandResetNow": "demand.reset",
    "SetZeroResettableKWH": "device.counter.reset",
    "SetMeterPassword": "password.changed",
    "wrong password": "password.refused",
    "SetTime": "device.clock.set",
    "SetCTRatio": "device.settings.changed",
    "Meter_Status_Code": "device.status.changed",
    "meter silent": "device.offline",
    "gateway online": "device.online",
    "address conflict": "address.conflict",
    "bad CRC": "line.noise",
    "scan": "device.found",
    "bus unplugged": "line.lost",
    "iostack status 253": "fault.internal",
    "readings lost while the hub was away": "buffer.dropped",
}
HUB = {
    "device changed": "device.changed",
    "device removed": "device.removed",
    "device's clock": "device.clock.wrong",
    "start": "hub.started",
    "stop": "hub.stopped",
    "crash": "hub.crashed",
    "hub's clock": "hub.clock.wrong",
    "a service": "service.failed",
    "disk low": "storage.low",
    "backup": "storage.backup",
    "restore": "storage.restored",
    "disk full": "storage.full",
    "quarantine": "storage.quarantined",
    "threshold rule": "alarm.threshold",
    "silence rule": "alarm.silence",
    "rate rule": "alarm.rate",
    "acknowledged": "alarm.acknowledged",
    "order ended": "command.completed",
    "order under way at a crash": "command.unknown",
    "delivery given up": "outbox.dead",
    "delivery replayed": "outbox.replayed",
    "webhook": "webhook.failing",
    "buffer": "buffer.dropped",
    "sign-in": "login.failed",
    "token": "token.created",
    "token revoked": "token.revoked",
    "account": "account.changed",
    "site": "site.changed",
    "configuration": "configuration.changed",
    "certificate": "certificate.expiring",
    "reset": "register.reset",
    "roll-over": "register.rollover",
    "spike": "register.spike",
    "charge control": "charge.decision",
    "TIC lost while charging": "charge.fallback",
}

SOURCES: dict[str, dict[Any, str]] = {
    "os3p errors": OS3P_ERRORS,
    "os3p resolved": OS3P_RESOLVED,
    "os3p firmware": OS3P_FIRMWARE,
    "os3p file": OS3P_FILE,
    "os3p mode": OS3P_MODE,
    "os3p light": OS3P_LIGHT,
    "os3p status": OS3P_STATUS,
    "os3p registration": OS3P_REGISTRATION,
    "os3p checklist": OS3P_CHECKLIST,
    "ocpp errors": OCPP_ERRORS,
    "ocpp status": OCPP_STATUS,
    "ocpp firmware": OCPP_FIRMWARE,
    "ocpp file": OCPP_FILE,
    "ocpp security": OCPP_SECURITY,
    "ocpp messages": OCPP_MESSAGES,
    "witty types": WITTY_TYPES,
    "witty errors": WITTY_ERRORS,
    "witty security": WITTY_SECURITY,
    "witty logs": WITTY_LOGS,
    "witty sharing": WITTY_SHARING,
    "stge": STGE,
    "tic": TIC,
    "tic line": TIC_LINE,
    "everest": EVEREST,
    "ekm": EKM,
    "hub": HUB,
}


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_every_word_of_a_source_has_a_kind(source: str) -> None:
    assert [kind for kind in SOURCES[source].values() if kind not in TABLE] == []


def test_every_kind_has_a_source() -> None:
    assert set(TABLE) == {kind for source in SOURCES.values() for kind in source.values()}


def test_error_codes_of_chargers_are_alarms() -> None:
    for kind in (*OCPP_ERRORS.values(), *WITTY_ERRORS.values()):
        assert TABLE[kind].alarm, kind
        assert "ocpp" in TABLE[kind].integrations, kind
    assert len(set(OCPP_ERRORS.values())) == len(OCPP_ERRORS) == 15
    assert len(WITTY_TYPES) == 16
    assert len(set(WITTY_ERRORS.values())) == 10


@pytest.mark.parametrize("kind", ["overload", "cover.open", "clock.degraded", "potential.missing", "storage.full", "device.offline", "line.lost"])
def test_conditions_are_alarms(kind: str) -> None:
    assert TABLE[kind].alarm


# --------------------------------------------------------------------------------------------------------------- the table itself


def test_rows_are_complete() -> None:
    known = {"tic", "os3p", "ocpp", "witty", "everest", "ekm"}
    for name, kind in TABLE.items():
        assert name == kind.name
        assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", name)
        assert kind.meaning.endswith("."), name
        assert set(kind.integrations) <= known, name


def test_an_alarm_is_cleared_by_itself_or_by_an_event() -> None:
    for kind in TABLE.values():
        if not kind.alarm:
            assert kind.cleared_by == "", kind.name
        elif kind.cleared_by != kind.name:
            assert not TABLE[kind.cleared_by].alarm, kind.name
            assert kind.name in clears(kind.cleared_by)
    assert clears("device.online") == ("device.offline",)
    assert clears("line.found") == ("line.lost", "line.denied", "line.busy")
    assert clears("storage.restored") == ("storage.quarantined",)
    assert clears("overload") == ()


def test_no_row_can_be_changed() -> None:
    with pytest.raises(AttributeError):
        TABLE["overload"].alarm = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        TABLE["x"] = TABLE["overload"]  # type: ignore[index]


# --------------------------------------------------------------------------------------------------------------- new_event

NOW = 1_795_219_200_000_000


class StillClock(Clock):
    """Stands at NOW."""

    def now(self) -> int:
        return NOW


def test_an_event_takes_what_its_row_says() -> None:
    event = new_event("overload", "tic:021762010203", StillClock(), subject="L2", message="35 A", data={"current_a": 35})
    assert (event.kind, event.device, event.subject, event.message) == ("overload", "tic:021762010203", "L2", "35 A")
    assert (event.time, event.received, event.source) == (NOW, NOW, TimeSource.HUB)
    assert (event.severity, event.state) == (Severity.ERROR, EventState.RAISED)
    assert event.data == {"current_a": 35}
    assert new_event("tariff.changed", "tic:1", StillClock()).state is EventState.OCCURRED


def test_what_is_given_wins() -> None:
    event = new_event(
        "alarm.threshold",
        "tic:1",
        StillClock(),
        time=5,
        received=6,
        source=TimeSource.DEVICE,
        severity=Severity.CRITICAL,
        state=EventState.CLEARED,
        id="mine",
    )
    assert (event.time, event.received, event.source, event.severity, event.state, event.id) == (
        5,
        6,
        TimeSource.DEVICE,
        Severity.CRITICAL,
        EventState.CLEARED,
        "mine",
    )


def test_ids_are_22_characters_of_base64url_and_differ() -> None:
    ids = {new_event("hub.started", "hub", StillClock()).id for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", id) for id in ids)


def test_a_kind_that_is_not_in_the_table_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"device\.onlin'.*device\.online"):
        new_event("device.onlin", "x", StillClock())


def test_only_alarms_are_raised_and_cleared() -> None:
    with pytest.raises(ValueError, match="no alarm"):
        new_event("hub.started", "hub", StillClock(), state=EventState.RAISED)
    with pytest.raises(ValueError, match="an alarm"):
        new_event("overload", "x", StillClock(), state=EventState.OCCURRED)


def test_the_callers_data_is_not_kept() -> None:
    data = {"a": 1}
    event = new_event("hub.started", "hub", StillClock(), data=data)
    data["a"] = 2
    assert event.data == {"a": 1}
