"""What can happen to a device or to the hub: one row per kind of Event, with severity, what clears it, and the clause it comes from.

A kind is either an *event* (it occurs, and that is all) or an *alarm* (a condition: raised, later cleared). An alarm is
(device, kind, subject); it is cleared by an event of its own kind with state ``cleared``, or by the occurrence of the kind that its
row names in ``cleared_by`` with the same device and subject (``device.offline`` by ``device.online``).

Kinds that mean the same on devices of several makes are one kind (``fault.overcurrent``, ``device.booted``); the vendor's own
word travels in ``Event.data`` (``code``, ``status``, ``vendor_code``…), so that nothing is lost. Events of the hub itself have
the device ``subjects.HUB``.

Clauses are cited as in ``core.verbs``; ``TIC X`` is the label X, ``STGE n`` bit n of the status register of standard mode.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from gridloom.core import faults
from gridloom.core.clock import Clock
from gridloom.core.model import Event, EventState, Severity, TimeSource


class EventKind(msgspec.Struct, frozen=True):
    """One row. ``severity`` is the usual one, an event may say another. ``integrations`` tell it; empty: the hub itself, for any device.

    ``alarm``: it is raised and cleared. ``cleared_by``: the kind that clears it, its own name if only its own ``cleared`` does; "" for an event.
    ``urgent``: somebody acts on it at once (load shedding), so it is told even when the disk is full and it cannot be kept.
    """

    name: str
    severity: Severity
    alarm: bool
    cleared_by: str
    meaning: str
    clause: str
    integrations: tuple[str, ...]
    urgent: bool = False


def _event(name: str, severity: Severity, meaning: str, clause: str = "", integrations: str = "", *, urgent: bool = False) -> EventKind:
    return EventKind(name, severity, False, "", meaning, clause, tuple(integrations.split()), urgent)


def _alarm(
    name: str, severity: Severity, meaning: str, clause: str = "", integrations: str = "", *, cleared_by: str = "", urgent: bool = False
) -> EventKind:
    return EventKind(name, severity, True, cleared_by or name, meaning, clause, tuple(integrations.split()), urgent)


_DEBUG, _INFO, _WARNING, _ERROR, _CRITICAL = Severity

# fmt: off
_DEVICE = (
    _event("device.online",              _INFO,    "The device is connected.", "Witty GAPS Notifications"),
    _alarm("device.offline",             _WARNING, "The device is not connected.", "Witty GAPS Notifications", cleared_by="device.online"),
    _alarm("device.silent",              _WARNING, "The device is connected but has told no reading for longer than it should.",
        "EVerest FACTS 2.7; EKM FACTS 4.6"),
    _event("device.found",               _INFO,    "A search found a device.", "EKM FACTS 1.2", "ekm tic"),
    _event("device.registered",          _INFO,    "A device became known to the hub.", "OS³P A3.1"),
    _alarm("device.pending",             _WARNING, "A device has presented itself and waits for somebody to accept or reject it.",
        "OS³P A3.1", "os3p"),
    _event("device.rejected",            _WARNING, "A device was rejected.", "OS³P A3.1", "os3p ocpp"),
    _event("device.changed",             _INFO,    "What is known about the device changed (name, site, capabilities, SIM card…)."),
    _event("device.removed",             _INFO,    "The device was removed from the hub."),
    _event("device.unknown",             _WARNING, "Something connected with an identity that the hub does not know, and was refused.",
        "OS³P G3.2 (C8)", "os3p ocpp"),
    _event("device.credential.refused",  _WARNING, "A device presented a wrong secret or certificate and was refused.",
        "OS³P G5.1; OCPP-SEC A", "os3p ocpp"),
    _event("device.connection.replaced", _INFO,    "A newer connection of the same identity took the place of an older one.",
        "OS³P C16", "os3p ocpp"),
    _event("device.booted",              _INFO,    "The device started.", "OS³P A6.1; OCPP 4.2; OCPP-SEC StartupOfTheDevice", "os3p ocpp"),
    _event("device.restarted",           _WARNING, "The device restarted without an order.",
        "OS³P A3.2 (B17); OCPP-SEC ResetOrReboot; EVerest FACTS 2.4", "os3p ocpp everest"),
    _alarm("device.data.refused",        _WARNING, "A device that was never accepted sends data; none of it is stored.", "OS³P B20", "os3p"),
    _event("device.message.refused",     _WARNING, "A message of the device could not be understood and was refused.",
        "OS³P G4.4", "os3p ocpp everest"),
    _event("device.order.ignored",       _WARNING, "The device accepted an order but did not do what it says.",
        "OS³P FACTS 6 start", "ocpp os3p everest"),
    _event("device.clock.set",           _INFO,    "The device's clock was set.",
        "OS³P B22; EKM SetTime; OCPP-SEC SettingSystemTime", "os3p ocpp ekm"),
    _alarm("device.clock.wrong",         _WARNING, "The device's clock differs from the hub's by more than is tolerated.", "EKM FACTS 1.7"),
    _event("device.settings.changed",    _INFO,    "A setting of the device was changed.", "OS³P A7.1; EKM Settings API", "os3p ocpp ekm"),
    _event("device.counter.reset",       _INFO,    "A counter or register of the device was set to zero by an order.",
        "EKM SetZeroResettableKWH, ResetDICount", "ekm"),
    _event("device.network.changed",     _WARNING, "The device joined another network.", "Witty GAPS CyberSecurity 3", "ocpp"),
    _event("device.status.changed",      _INFO,    "A status word of the device changed; its bits are in the data.",
        "EKM FACTS 1.5 Meter_Status_Code; TIC MOTDETAT", "ekm tic"),
    _event("device.firmware.changed",    _INFO,    "The device runs another firmware.",
        "Witty GAPS CyberSecurity 4; OCPP-SEC FirmwareUpdated", "os3p ocpp ekm"),
    _event("device.firmware.progress",   _INFO,    "A firmware update goes on (downloading, downloaded, verified, installing…).",
        "OS³P A6.3; OCPP 4.5", "os3p ocpp"),
    _event("device.firmware.installed",  _INFO,    "A firmware update is installed.", "OS³P A6.3; OCPP 4.5", "os3p ocpp"),
    _event("device.firmware.failed",     _ERROR,   "A firmware update failed.", "OS³P A6.3; OCPP 4.5", "os3p ocpp"),
    _event("device.file.progress",       _INFO,    "The upload of a file goes on.",
        "OS³P A6.2; OCPP 4.4; OCPP-SEC LogStatusNotification", "os3p ocpp"),
    _event("device.file.uploaded",       _INFO,    "A file was uploaded.", "OS³P A6.2; OCPP 4.4; OCPP-SEC LogStatusNotification", "os3p ocpp"),
    _event("device.file.failed",         _WARNING, "The upload of a file failed.",
        "OS³P A6.2; OCPP 4.4; OCPP-SEC LogStatusNotification", "os3p ocpp"),
    _event("device.state.damaged",       _ERROR,   "A state file was damaged and set aside; the device goes on with its last good state.",
        "OS³P B13", "os3p"),
    _alarm("device.queue.full",          _ERROR,   "The device's queue of events for the central system is full; the oldest will go.",
        "OS³P N20", "os3p"),
)

_LINE = (
    _event("line.found",        _INFO,    "A port is there and open.", "TIC FACTS 10.4", "tic ekm"),
    _alarm("line.lost",         _ERROR,   "A port is gone (unplugged, or its network end closed).",
        "TIC FACTS 4; TIC FACTS 10.4", "tic ekm", cleared_by="line.found"),
    _alarm("line.denied",       _ERROR,   "The hub may not open the port (permission).", "TIC FACTS 10.4", "tic ekm", cleared_by="line.found"),
    _alarm("line.busy",         _ERROR,   "Another program has the port.", "TIC FACTS 10.4", "tic ekm", cleared_by="line.found"),
    _alarm("line.silent",       _WARNING, "Nothing comes from the line.", "TIC FACTS 5; TIC FACTS 10.3", "tic ekm"),
    _alarm("line.noise",        _WARNING, "More of what comes from the line is damaged than is normal.", "TIC FACTS 10.1; EKM FACTS 6.1", "tic ekm"),
    _event("line.mode.changed", _INFO,    "The TIC changed between historic and standard, one and three phases.",
        "Witty IV.C.4.a TicType; STGE 17", "tic"),
    _alarm("link.refused",      _ERROR,   "The other side speaks no version of the protocol that this side speaks.", "OS³P C10", "os3p ocpp"),
    _event("broker.connected",  _INFO,    "The MQTT broker is connected.", "EVerest FACTS 2.4", "everest"),
    _alarm("broker.lost",       _ERROR,   "The MQTT broker is not connected.", "EVerest FACTS 2.4", "everest", cleared_by="broker.connected"),
    _alarm("address.conflict",  _ERROR,   "Two devices answer to one address or identity, or one answers to that of another.",
        "EKM FACTS 1.2; OS³P C16", "ekm os3p"),
)

_METER = (
    _event("tariff.changed",              _INFO,    "Another tariff register runs.",
        "Witty IV.C.4.a CurrentTariff; TIC PTEC, NTARF, LTARF; STGE 10-15", "tic ekm"),
    _event("tariff.today",                _INFO,    "The colour of the day is known or changed (Tempo).", "STGE 24-25; TIC PTEC", "tic"),
    _event("tariff.tomorrow",             _INFO,    "The colour of tomorrow is known (Tempo).", "TIC DEMAIN; STGE 26-27", "tic"),
    _event("tariff.calendar.changed",     _INFO,    "The profile of tomorrow or of the next peak day changed.",
        "TIC NJOURF+1, PJOURF+1, PPOINTE, HHPHC", "tic"),
    _event("peak.notice",                 _WARNING, "A mobile peak was announced.", "TIC PEJP; STGE 28-29; TIC DPM1-3, FPM1-3", "tic"),
    _event("peak.begin",                  _WARNING, "A mobile peak began.", "STGE 30-31; TIC PTEC PM", "tic"),
    _event("peak.end",                    _INFO,    "A mobile peak ended.", "STGE 30-31; TIC PTEC", "tic"),
    _alarm("overload",                    _ERROR,   "More than the subscribed current or power is drawn.", "TIC ADPS, ADIR1-3; STGE 7", "tic",
        urgent=True),
    _event("contract.changed",            _INFO,    "The contract changed (option, subscribed power, calendar, consumer or producer).",
        "TIC OPTARIF, ISOUSC, NGTF, PREF, PCOUP; STGE 8", "tic"),
    _event("meter.changed",               _WARNING, "Another meter is behind the line.", "TIC ADCO, ADSC, PRM", "tic"),
    _event("meter.communication.changed", _INFO,    "The state of the meter's PLC or Euridis interface changed.", "STGE 19-23", "tic"),
    _event("breaker.closed",              _INFO,    "The breaking device closed.", "STGE 1-3", "tic"),
    _alarm("breaker.opened",              _ERROR,   "The breaking device opened; the cause is in the data.",
        "STGE 1-3", "tic", cleared_by="breaker.closed", urgent=True),
    _alarm("cover.open",                  _WARNING, "The terminal cover is open.", "STGE 4", "tic"),
    _alarm("clock.degraded",              _WARNING, "The device says that its own clock is not to be trusted.",
        "STGE 16; TIC FACTS 9", "tic everest"),
    _alarm("potential.missing",           _ERROR,   "A phase has no voltage.", "TIC PPOT", "tic"),
    _alarm("phase.sequence.wrong",        _WARNING, "The phases turn the wrong way.", "EVerest Powermeter.phase_seq_error", "everest"),
    _event("energy.direction.changed",    _DEBUG,   "Active energy changed its direction.", "STGE 9; EKM FACTS 1.6 State_Watts_Dir", "tic ekm"),
    _event("message.received",            _INFO,    "The distributor wrote a message into the meter.", "TIC MSG1, MSG2", "tic"),
    _event("relay.changed",               _INFO,    "A relay, contact or output changed.", "TIC RELAIS; STGE 0; EKM FACTS 1.6 State_Out", "tic ekm"),
    _event("input.changed",               _INFO,    "A digital input changed.", "EKM FACTS 1.6 State_Inputs", "ekm"),
    _event("demand.peak",                 _INFO,    "The meter recorded a new maximum demand.", "EKM FACTS 1.5 RMS_Watts_Max_Demand", "ekm"),
    _event("demand.reset",                _INFO,    "The maximum demand was reset.", "EKM SetMaxDemandResetNow", "ekm"),
    _event("password.changed",            _INFO,    "The device's password was changed.",
        "EKM SetMeterPassword, SetPassword; Witty GAPS CyberSecurity 2", "ekm ocpp"),
    _event("password.refused",            _ERROR,   "The device refused the password; nothing was written.", "EKM FACTS 1.8", "ekm"),
    _event("register.reset",              _WARNING, "A cumulative register went back to zero."),
    _event("register.rollover",           _INFO,    "A cumulative register passed its last digit."),
    _event("register.spike",              _WARNING, "A register jumped implausibly; the value is kept and never billed."),
    _event("register.backwards",          _ERROR,   "A register is lower than it was and this is no reset.", "EVerest FACTS 4.5"),
)

_FAULT = (
    _alarm("fault.ground",           _CRITICAL, "A ground failure was detected.", "OS³P A6.6 GroundFailure; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.overcurrent",      _CRITICAL, "An overcurrent was detected.", "OS³P A6.6 OverCurrentFailure; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.overvoltage",      _ERROR,    "The voltage is too high.", "OS³P A6.6 OverVoltage; OCPP 7.6; STGE 6", "os3p ocpp tic"),
    _alarm("fault.undervoltage",     _ERROR,    "The voltage is too low.", "OS³P A6.6 UnderVoltage; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.temperature",      _ERROR,    "It is too hot inside.", "OS³P A6.6 HighTemperature; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.indicator",        _ERROR,    "A medium-voltage fault indicator does not work.", "OS³P A6.6 MVFaultIndicatorError", "os3p"),
    _alarm("fault.meter",            _ERROR,    "The device cannot read its meter.", "OS³P A6.6 PowerMeterFailure; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.switch",           _ERROR,    "The device cannot control its power switch.", "OS³P A6.6 PowerSwitchFailure; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.reset",            _ERROR,    "The device could not reset, or reset unexpectedly.",
        "OS³P A6.6 ResetFailure; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.signal",           _WARNING,  "The wireless signal is weak.", "OS³P A6.6 WeakSignal; OCPP 7.6", "os3p ocpp"),
    _alarm("fault.connector_lock",   _ERROR,    "The connector does not lock or unlock.", "OCPP 7.6 ConnectorLockFailure", "ocpp"),
    _alarm("fault.ev_communication", _WARNING,  "The charger and the car do not understand each other.", "OCPP 7.6 EVCommunicationError", "ocpp"),
    _alarm("fault.internal",         _ERROR,    "The device has an internal error.", "OCPP 7.6 InternalError; EKM FACTS 3.1 251-254", "ocpp ekm"),
    _alarm("fault.local_list",       _WARNING,  "The local authorisation list contradicts the central system.", "OCPP 7.6 LocalListConflict", "ocpp"),
    _alarm("fault.reader",           _WARNING,  "The card reader does not work.", "OCPP 7.6 ReaderFailure", "ocpp"),
    _alarm("fault.shedding",         _WARNING,  "Load was shed too often in one session.", "Witty GAPS error code 1", "ocpp"),
    _alarm("fault.communication",    _ERROR,    "A part of the device does not answer the device.",
        "EVerest FACTS 2.6 CommunicationFault; Witty GAPS error code 9", "everest ocpp"),
    _alarm("fault.other",            _ERROR,    "The device tells an error of its vendor; the code is in the data.",
        "OS³P A6.6 OtherError; OCPP 7.6; EVerest FACTS 2.9 error_raised", "os3p ocpp everest"),
    _alarm("station.faulted",        _ERROR,    "The station as a whole says that it is faulted.", "OS³P A6.6 status", "os3p ocpp"),
    _event("fault.resolved",         _INFO,     "The device says that an error is over; which one is in the data.", "OS³P A6.6 info", "os3p"),
)

_LIGHT = (
    _event("light.switched",              _INFO,    "Street lights went on or off.", "OS³P A6.8", "os3p"),
    _event("light.switched.unexpectedly", _WARNING, "Street lights went on or off without the station's order.", "OS³P A6.8 unexpected", "os3p"),
    _event("light.mode.changed",          _INFO,    "Street lights follow schedule, local override or remote override.", "OS³P A6.7", "os3p"),
    _event("light.schedule.changed",      _INFO,    "The street-light profiles of a contactor changed.", "OS³P A7.10, A7.2", "os3p"),
    _alarm("light.schedule.drift",        _WARNING, "The station's effective schedule differs from what the hub calculates.", "OS³P A7.4", "os3p"),
)

_CHARGE = (
    _event("connector.changed",      _INFO,    "The status of a connector changed; from and to are in the data.",
        "OCPP 4.9, 7.7; Witty GAPS availability", "ocpp everest"),
    _event("cable.plugged",          _INFO,    "A cable was plugged in.", "Witty GAPS Notifications", "ocpp everest"),
    _event("cable.unplugged",        _INFO,    "A cable was unplugged.", "Witty GAPS Notifications", "ocpp everest"),
    _event("key.locked",             _INFO,    "The key switch was locked.", "Witty IV.B.4 KeySwitch", "ocpp"),
    _event("key.unlocked",           _INFO,    "The key switch was unlocked.", "Witty IV.B.4 KeySwitch", "ocpp"),
    _event("authorization.accepted", _INFO,    "Somebody was allowed to charge.", "OCPP 4.1; EVerest FACTS 2.9", "ocpp everest"),
    _event("authorization.refused",  _WARNING, "Somebody was not allowed to charge.", "OCPP 4.1; EVerest FACTS 2.9", "ocpp everest"),
    _event("reservation.changed",    _INFO,    "A reservation was made, used, given up or ended.", "OCPP 5.1, 5.13", "ocpp everest"),
    _event("session.started",        _INFO,    "A charging session began.", "Witty IV.B.4 SessionStart; OCPP 4.8", "ocpp everest"),
    _event("session.suspended",      _INFO,    "Charging is suspended by car, charger or hub.",
        "OCPP 7.7 SuspendedEV, SuspendedEVSE", "ocpp everest"),
    _event("session.resumed",        _INFO,    "Charging goes on.", "OCPP 7.7 Charging", "ocpp everest"),
    _event("session.ended",          _INFO,    "A charging session ended.", "Witty IV.B.4 SessionEnd; OCPP 4.10", "ocpp everest"),
    _event("session.lost",           _WARNING, "The end of a session was never told and cannot be found.",
        "OS³P FACTS 6 lastSession", "ocpp everest"),
    _event("session.recovered",      _INFO,    "A session that was lost was found again.", "OS³P FACTS 6", "ocpp everest"),
    _event("charge.mode.changed",    _INFO,    "Another charge mode is in force.", "Witty IV.B.4 ChargeMode", "ocpp"),
    _event("charge.limit.changed",   _DEBUG,   "Another limit of current or power is in force.",
        "OCPP 5.16; EVerest FACTS 2.9 enforced_limits", "ocpp everest"),
    _event("charge.decision",        _DEBUG,   "The charge control decided; its reason in words and numbers is in the data.",
        "OS³P FACTS 6 load shedding"),
    _alarm("charge.fallback",        _WARNING, "The house meter is silent; charging is held at the safe limit.", "OS³P FACTS 6 load shedding"),
    _alarm("load.shedding",          _WARNING, "Charging is reduced because the house needs the current.", "Witty GAPS Notifications"),
    _event("vendor.message",         _INFO,    "The charger sent a message of its vendor's own.", "OCPP 4.3 DataTransfer", "ocpp"),
)

_SECURITY = (
    _event("security.tamper",                _CRITICAL, "The device detected tampering.",
        "OCPP-SEC TamperDetectionActivated; Witty GAPS CyberSecurity 5", "ocpp"),
    _event("security.authentication.failed", _ERROR,    "Device and central system did not accept each other's credentials.",
        "OCPP-SEC FailedToAuthenticateAtCsms, CsmsFailedToAuthenticate", "ocpp"),
    _event("security.settings.changed",      _WARNING,  "Security settings of the device changed.",
        "OCPP-SEC ReconfigurationOfSecurityParameters", "ocpp"),
    _event("security.log.cleared",           _WARNING,  "The device's security log was cleared.", "OCPP-SEC SecurityLogWasCleared", "ocpp"),
    _event("security.memory.exhausted",      _ERROR,    "The device ran out of memory.", "OCPP-SEC MemoryExhaustion", "ocpp"),
    _event("security.messages.invalid",      _WARNING,  "The device received messages that are not valid.", "OCPP-SEC InvalidMessages", "ocpp"),
    _event("security.replay",                _ERROR,    "The device received a message for the second time.",
        "OCPP-SEC AttemptedReplayAttacks", "ocpp"),
    _event("security.firmware.invalid",      _ERROR,    "The signature or signing certificate of a firmware is not valid.",
        "OCPP-SEC InvalidFirmwareSignature, InvalidFirmwareSigningCertificate", "ocpp"),
    _event("security.certificate.invalid",   _ERROR,    "A certificate is not valid.",
        "OCPP-SEC InvalidCsmsCertificate, InvalidChargePointCertificate", "ocpp"),
    _event("security.tls.refused",           _ERROR,    "A TLS version or cipher is not allowed.",
        "OCPP-SEC InvalidTLSVersion, InvalidTLSCipherSuite", "ocpp"),
    _event("security.certificate.requested", _INFO,     "The device asks for a signed certificate.", "OCPP-SEC SignCertificate", "ocpp"),
    _event("security.other",                 _WARNING,  "The device tells a security event that is not in this table; its type is in the data.",
        "OCPP-SEC SecurityEventNotification", "ocpp"),
)

_RECEIPT = (
    _event("transaction.started", _INFO,    "A metered transaction began.", "EVerest start_transaction", "everest"),
    _event("transaction.ended",   _INFO,    "A metered transaction ended; its signed record is in the store.", "EVerest stop_transaction", "everest"),
    _event("transaction.refused", _WARNING, "A metered transaction could not begin or end.", "EVerest FACTS 2.7 TransactionStatus", "everest"),
    _alarm("powermeter.lost",     _ERROR,   "The meter behind a powermeter module is gone; no values are published.",
        "EVerest FACTS 2.7, 8", "everest"),
    _event("ocmf.failed",         _ERROR,   "A signed record could not be made; there is no receipt.", "EVerest FACTS 4", "everest"),
    _event("signing_key.changed", _WARNING, "Another key signs; records of the former key stay verifiable.", "EVerest FACTS 4.4", "everest"),
)

_HUB = (
    _event("hub.started",           _INFO,     "The hub started."),
    _event("hub.stopped",           _INFO,     "The hub stopped in order."),
    _event("hub.crashed",           _ERROR,    "The hub had not stopped in order the last time."),
    _alarm("hub.clock.wrong",       _ERROR,    "The hub's own clock jumped or is not synchronised."),
    _alarm("service.failed",        _ERROR,    "A service of the hub does not do its work."),
    _event("configuration.changed", _INFO,     "The configuration is not that of the last start, or was changed at run time."),
    _alarm("certificate.expiring",  _WARNING,  "A certificate ends soon or has ended."),
    _alarm("storage.full",          _CRITICAL, "The disk is full: readings are not stored until there is space."),
    _alarm("storage.low",           _WARNING,  "The disk is nearly full."),
    _alarm("storage.quarantined",   _CRITICAL, "The store was damaged; it was set aside and a new one begun.", cleared_by="storage.restored"),
    _event("storage.backup",        _INFO,     "A backup was made."),
    _event("storage.restored",      _WARNING,  "The store was restored from a backup."),
    _event("alarm.acknowledged",    _INFO,     "Somebody said that an alarm was seen."),
    _alarm("alarm.threshold",       _WARNING,  "A value is beyond the limit of a rule."),
    _alarm("alarm.silence",         _WARNING,  "A value has not come for longer than a rule allows."),
    _alarm("alarm.rate",            _WARNING,  "A value changes faster than a rule allows."),
    _event("command.completed",     _INFO,     "An order ended: done, refused, failed or expired.", "Witty GAPS Notifications"),
    _event("command.unknown",       _WARNING,  "An order was under way when the hub died; whether the device acted is not known."),
    _event("outbox.dead",           _ERROR,    "Something could not be delivered and will not be tried again."),
    _event("outbox.replayed",       _INFO,     "Something that could not be delivered is tried again."),
    _event("webhook.validated",     _INFO,     "A subscription's endpoint answered the handshake.", "Witty GAPS Notifications"),
    _alarm("webhook.failing",       _WARNING,  "A subscription's endpoint keeps failing.", "Witty GAPS Notifications"),
    _event("webhook.disabled",      _ERROR,    "A subscription was disabled because its endpoint kept failing.", "Witty GAPS Notifications"),
    _alarm("buffer.dropped",        _WARNING,  "A bounded buffer is full and its oldest content was dropped."),
    _event("login.failed",          _WARNING,  "A token or password was wrong.", "Witty GAPS CyberSecurity 1"),
    _event("token.created",         _INFO,     "A token was created."),
    _event("token.revoked",         _INFO,     "A token was revoked."),
    _event("account.changed",       _INFO,     "An account was created, changed or disabled."),
    _event("grant.changed",         _INFO,     "A site was shared, or the sharing disabled, enabled or ended.", "Witty IV.A.4"),
    _event("invitation.sent",       _INFO,     "Somebody was invited to a site.", "Witty IV.A.4.a"),
    _event("invitation.accepted",   _INFO,     "An invitation was accepted.", "Witty IV.A.4.d"),
    _event("invitation.expired",    _INFO,     "An invitation ended without an answer.", "Witty GAPS further decisions"),
    _event("consent.changed",       _INFO,     "The owner allowed or refused that house consumption is told.", "Witty IV.C.2 authorize-tic"),
    _event("price.changed",         _INFO,     "Prices of tariffs were set.", "Witty IV.C.5.d"),
    _event("site.changed",          _INFO,     "A site was created, changed or removed.", "Witty IV.A.2"),
)
# fmt: on

TABLE: Mapping[str, EventKind] = MappingProxyType(
    {kind.name: kind for kind in (*_DEVICE, *_LINE, *_METER, *_FAULT, *_LIGHT, *_CHARGE, *_SECURITY, *_RECEIPT, *_HUB)}
)
"""Every kind by name, in the order of this file."""


def clears(kind: str) -> tuple[str, ...]:
    """The other kinds of alarm that an occurrence of ``kind`` clears (for the same device and subject); empty for most."""
    return _CLEARS.get(kind, ())


_CLEARS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        name: tuple(kind.name for kind in TABLE.values() if kind.cleared_by == name and kind.name != name)
        for name in {kind.cleared_by for kind in TABLE.values() if kind.alarm and kind.cleared_by != kind.name}
    }
)


def new_event(
    kind: str,
    device: str,
    clock: Clock,
    *,
    time: int | None = None,
    received: int | None = None,
    source: TimeSource = TimeSource.HUB,
    subject: str = "",
    message: str = "",
    data: Mapping[str, Any] | None = None,
    severity: Severity | None = None,
    state: EventState | None = None,
    id: str | None = None,
) -> Event:
    """An Event of a kind of the table.

    ``time`` and ``received`` (µs UTC) are the clock's now if absent; whoever gives a device's own time says ``source=TimeSource.DEVICE``.
    ``state`` of an alarm is ``raised`` if absent. ``id``: 128 random bits, unless what makes it the same event is known (OS³P N21).
    Raises ValueError for a kind that is not in the table, and for a raised or cleared event that is no alarm.
    """
    row = TABLE.get(kind)
    if row is None:
        raise ValueError(f"{kind!r} is no kind of event in gridloom.core.events.TABLE{faults.nearest(kind, TABLE)}")
    if state is None:
        state = EventState.RAISED if row.alarm else EventState.OCCURRED
    elif row.alarm == (state is EventState.OCCURRED):
        raise ValueError(f"{kind} is {'an alarm: it is raised or cleared' if row.alarm else 'no alarm: it only occurs'}, not {state.value}")
    now = clock.now()
    return Event(
        id=secrets.token_urlsafe(16) if id is None else id,
        kind=kind,
        device=device,
        time=now if time is None else time,
        received=now if received is None else received,
        severity=row.severity if severity is None else severity,
        state=state,
        source=source,
        subject=subject,
        message=message,
        data={} if data is None else dict(data),
    )
