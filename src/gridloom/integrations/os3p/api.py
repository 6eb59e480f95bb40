"""FACE: what operators see of stations and order of them (``/api/v1/os3p/…``), and where stations upload and fetch files (``/os3p/files/…``).

What a station is to the Central System is asked on the bus (``stations.LIST``, ``SHOW``, ``CHANGE``), what is ordered goes through ``core.commands``:
this room never sees a connection. Events of a station are the hub's own ``/api/v1/events?device=os3p:IDENTITY``.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import IO, Annotated, Any, Literal, NamedTuple

import msgspec
from litestar import Request, Response, route
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream
from msgspec import Meta

from gridloom.core.alarms import Alarm
from gridloom.core.clock import rfc3339
from gridloom.core.errors import Conflict, DeviceTimeout, FieldFault, GridloomError, InvalidInput, NotFound, Offline
from gridloom.core.hub import Hub, Operation
from gridloom.core.model import Admission, CommandState, Device, DeviceKind, Principal, Severity
from gridloom.core.subjects import DeviceState
from gridloom.integrations.os3p import sending, stations
from gridloom.integrations.os3p.files import BLOCK, DOWNLOAD_PATH, UPLOAD_PATH, File, Files, Truncated
from gridloom.integrations.os3p.lights import CONTACTORS, Lights, Told
from gridloom.integrations.os3p.stations import LONGEST_IDENTITY, SPACE, Boot, Change, StationView, device_id, identity_fault

ASKED_WITHIN = 10.0
"""Seconds for the Central System to say what it knows."""
LONGEST_WAIT = 120.0
TAG = "os3p"

Words = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Identity = Annotated[str, Meta(min_length=1, max_length=LONGEST_IDENTITY, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Moment = Annotated[str, Meta(description="RFC 3339, in UTC with Z", extra_json_schema={"format": "date-time"})]
Limit = Annotated[int, Meta(ge=1, le=1000, description="At most this many items.")]
Cursor = Annotated[str, Meta(max_length=1000, description="Continues behind a page: the `next` of its answer.")]

NO_STATION = {404: "There is no such station, or not for this token."}
NO_FILE = {404: "There is no such file, or not for this token."}
NOT_RUNNING = {503: "The Central System does not run, so nobody knows."}
_PARAMETERS = {
    "identity": "A station's identity, as it connects with; percent-encoded once (`SUBS%20123`).",
    "file_id": "A file's id: of an upload as the list shows it, of a firmware its name.",
}


class NotRunning(GridloomError):
    """The Central System does not answer."""

    code = "unavailable"
    status = 503


# ------------------------------------------------------------------------------------------------------------------ what is asked


class StationQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which stations."""

    q: Annotated[Words | None, Meta(description="Only those with this text in their identity, name, site, vendor, model, serial or number.")] = None
    admission: Annotated[Admission | None, Meta(description="Only known, pending or rejected ones.")] = None
    online: Annotated[bool | None, Meta(description="Only those that are connected, or are not.")] = None
    alarm: Annotated[bool | None, Meta(description="Only those of which something is wrong, or nothing.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class NewStation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A station that is to be known before it connects."""

    identity: Annotated[Identity, Meta(description="as it connects with: printable characters")]
    name: Words = ""
    site: Annotated[Words, Meta(description="a site's id; empty: none")] = ""


class StationChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to change; what is absent stays."""

    admission: Annotated[Literal["known", "rejected"] | None, Meta(description="`known` accepts it")] = None
    name: Words | None = None
    site: Annotated[Words | None, Meta(description="a site's id; empty: none")] = None
    strict: Annotated[bool | msgspec.UnsetType | None, Meta(description="null: as the configuration says")] = msgspec.UNSET
    heartbeat_interval: (
        Annotated[float, Meta(ge=1, le=2_147_483_647, description="seconds, told at its next BootNotification; null: as the configuration says")]
        | msgspec.UnsetType
        | None
    ) = msgspec.UNSET


class NewSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The secret of a station; absent: one is made."""

    secret: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message to a station, as annex A7 has it."""

    message: Annotated[str, Meta(max_length=100, extra_json_schema={"enum": list(sending.MESSAGES)})]
    payload: dict[str, Any] = {}
    file: Annotated[str, Meta(min_length=1, max_length=200, description="UpdateFirmware: a firmware of the hub instead of a `location`")] | None = (
        None
    )
    everything: Annotated[bool, Meta(description="ClearSingleStreetlightProfile: yes, every profile")] = False
    wait_online: Annotated[bool, Meta(description="wait for a station that is not connected, until it expires; else that is a refusal")] = False
    expires_in: Annotated[float, Meta(gt=0, le=2_592_000, description="seconds until it is no longer to be sent")] | None = None
    id: (
        Annotated[
            str,
            Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$(?!\n)", description="the client's own; who repeats it orders nothing twice"),
        ]
        | None
    ) = None


class WaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long to wait for the answer of the station."""

    wait: Annotated[float, Meta(ge=0, le=LONGEST_WAIT, description="Answer only when the order has ended, or after so many seconds.")] = 0


class FileQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which files."""

    station: Annotated[Identity | None, Meta(description="Only uploads of this station.")] = None
    kind: Annotated[Literal["upload", "firmware"] | None, Meta(description="Only uploads, or only firmware.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


# ---------------------------------------------------------------------------------------------------------------- what is answered


class Registration(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How the station is registered: what it was told when it last booted, and what it said then (A6.1)."""

    status: Literal["Accepted", "Pending", "Rejected"] | None = None
    boots: int = 0
    accepted: Annotated[Moment | None, Meta(description="when for the first time")] = None
    booted: Annotated[Moment | None, Meta(description="when last")] = None
    boot: Boot = Boot()


class Connected(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The connection of a station."""

    since: Moment
    address: str
    subprotocol: str = ""
    secure: bool = False


class StationAlarm(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is wrong with a station now."""

    id: str
    kind: str
    severity: Severity
    since: Moment
    subject: str = ""
    message: str = ""


class LightState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One contactor, as the station told last; times by the station's clock."""

    contactor: int
    status: str | None = None
    status_since: Moment | None = None
    mode: str | None = None
    mode_since: Moment | None = None


class StationOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A station as an operator sees it."""

    identity: str
    device: Annotated[str, Meta(description="its id in the rest of the API")]
    admission: Admission
    online: bool
    strict: Annotated[bool, Meta(description="its deviations from the document are refused, not only counted")]
    secret: Annotated[bool, Meta(description="it must present a secret")] = False
    name: str = ""
    site: str = ""
    online_since: Annotated[Moment | None, Meta(description="when `online` changed last")] = None
    last_seen: Annotated[Moment | None, Meta(description="its last word since this hub started")] = None
    reason: Annotated[str, Meta(description="why it is offline")] = ""
    registration: Registration = Registration()
    heartbeat_interval: Annotated[int | None, Meta(description="seconds; absent: as the configuration says")] = None
    connection: Connected | None = None
    deviations: Annotated[dict[str, int], Meta(description="from the document, since the hub started, by kind")] = {}
    refused: Annotated[int, Meta(description="messages of it that were refused since the hub started")] = 0
    alarms: tuple[StationAlarm, ...] = ()
    lights: Annotated[tuple[LightState, ...], Meta(description="of one station only, not in lists")] = ()


class StationPage(msgspec.Struct, frozen=True):
    """A page of stations, by identity."""

    items: tuple[StationOut, ...]
    next: str | None


class Secret(msgspec.Struct, frozen=True):
    """The secret of a station, shown this once."""

    identity: str
    secret: str


class Sent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The order that a message became; `/api/v1/commands/ID` tells how it goes on."""

    id: str
    identity: str
    message: str
    verb: str
    state: CommandState
    final: Annotated[bool, Meta(description="nothing more will be heard of it")]
    created: Moment
    expires: Moment
    sent: Moment | None = None
    ended: Moment | None = None
    result: Any = None
    error: str = ""


class FileOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A file that a station uploads, or a firmware that stations fetch."""

    id: str
    kind: Literal["upload", "firmware"]
    state: Annotated[Literal["expected", "arrived", "expired"], Meta(description="`expired`: it did not come in time")]
    name: str
    created: Moment
    station: str = ""
    what: str = ""
    request: Annotated[str, Meta(description="the requestId, which the station's notifications carry")] = ""
    command: Annotated[str, Meta(description="the order that asked for it")] = ""
    expires: Annotated[Moment | None, Meta(description="until when the station may upload it")] = None
    arrived: Moment | None = None
    size: Annotated[int | None, Meta(description="bytes")] = None
    sha256: str = ""
    fault: Annotated[str, Meta(description="why the last attempt to upload it came to nothing")] = ""


class FilePage(msgspec.Struct, frozen=True):
    """A page of files, by id: the oldest upload first, firmware by name."""

    items: tuple[FileOut, ...]
    next: str | None


# --------------------------------------------------------------------------------------------------------------------- stations


class Desk:
    """Answers operators. Errors are those of the core; ``web`` makes problems of them."""

    def __init__(self, hub: Hub, files: Files) -> None:
        self._hub = hub
        self._files = files

    async def list_stations(self, principal: Principal, query: StationQuery) -> StationPage:
        """Those that the token sees, by identity."""
        after = _after(query.cursor)
        wrong: dict[str, list[Alarm]] = {}
        for alarm in self._hub.alarms.active(principal):
            wrong.setdefault(alarm.device, []).append(alarm)
        found: list[DeviceState] = []
        for state in self._hub.registry.states():
            device = state.device
            if device.integration != SPACE or device.identity <= after or not _wanted(state, query, device.id in wrong):
                continue
            if self._hub.accounts.visible(principal, device):
                found.append(state)
        found.sort(key=lambda state: state.device.identity)
        page = found[: query.limit]
        views: list[StationView] = await self._ask(stations.LIST, [state.device.identity for state in page])
        known = {view.identity: view for view in views}
        items = [
            self._station(state, known[state.device.identity], wrong.get(state.device.id, [])) for state in page if state.device.identity in known
        ]
        return StationPage(tuple(items), _next(page[-1].device.identity) if len(found) > query.limit else None)

    async def read_station(self, principal: Principal, identity: str) -> StationOut:
        """How it is registered and connected, what is wrong with it, where it deviates from the document, and its street lights."""
        self._seen(principal, identity)
        return await self._show(principal, identity)

    async def add_station(self, principal: Principal, body: NewStation) -> StationOut:
        """It is known from now on, and let in when it connects. Give it a secret next, unless it may come without one."""
        hub, id = self._hub, device_id(body.identity)
        fault = identity_fault(body.identity)
        if fault is not None:
            raise InvalidInput(fault, (FieldFault("$.identity", fault),))
        hub.accounts.require(principal, "device.manage", site=body.site or None)
        try:
            known: Device | None = hub.registry.get(id)
        except NotFound:
            known = None
        if known is not None:
            raise Conflict(f"there is a station {body.identity!r} already")
        given = Device(
            id=id, integration=SPACE, identity=body.identity, kind=DeviceKind.SUBSTATION, name=body.name, site=body.site, verbs=sending.VERBS
        )
        await hub.registry.register(given, principal)
        return await self._show(principal, body.identity)

    async def change_station(self, principal: Principal, identity: str, body: StationChange) -> StationOut:
        """Accept or reject it (`device.approve`), name or move it, or say how strictly it is treated (`device.manage`)."""
        hub, device = self._hub, self._seen(principal, identity)
        treated = body.strict is not msgspec.UNSET or body.heartbeat_interval is not msgspec.UNSET
        described = body.admission is not None or body.name is not None or body.site is not None
        # All of it or nothing: who may not, a site that is not, and a Central System that does not run are found before anything is changed.
        if treated or body.name is not None or body.site is not None or not described:
            hub.accounts.require(principal, "device.manage", device)
        if body.admission is not None:
            hub.accounts.require(principal, "device.approve", device)
        if body.site:
            self._check_site(principal, body.site)
        if treated:
            given = body.heartbeat_interval
            interval = given if given is None or given is msgspec.UNSET else round(given)
            await self._ask(stations.CHANGE, Change(identity, principal, strict=body.strict, heartbeat_interval=interval))
        if described:
            admission = None if body.admission is None else Admission(body.admission)
            await hub.registry.update(device.id, principal, name=body.name, site=body.site, admission=admission)
        return await self._show(principal, identity)

    async def remove_station(self, principal: Principal, identity: str) -> None:
        """It is closed and forgotten, and its secret with it; readings, events, files and the audit trail stay.

        One that has a secret is removed by who may manage secrets (`device.credential.manage`).
        """
        hub, device = self._hub, self._seen(principal, identity)
        hub.accounts.require(principal, "device.manage", device)
        secret = hub.accounts.has_credential(device.id)
        if secret:
            hub.accounts.require(principal, "device.credential.manage")
        await hub.registry.remove(device.id, principal)
        if secret:  # last: a station without its secret might be let in without one
            await hub.accounts.remove_credential(principal, device.id)

    async def set_station_secret(self, principal: Principal, identity: str, body: NewSecret) -> Secret:
        """What it has to present by HTTP Basic, with its identity as the user. Only a verifier is kept: it is shown this once.

        Whoever is connected as this station is closed, and has to come again with it.
        """
        device = self._seen(principal, identity)
        secret = await self._hub.accounts.set_credential(principal, device.id, body.secret)
        self._hub.bus.publish(stations.CREDENTIAL, identity)
        return Secret(identity, secret)

    async def remove_station_secret(self, principal: Principal, identity: str) -> None:
        """From now on it comes without one, if the configuration lets it."""
        device = self._seen(principal, identity)
        await self._hub.accounts.remove_credential(principal, device.id)

    async def send_message(self, principal: Principal, identity: str, query: WaitQuery, body: NewMessage) -> Sent:
        """One of the 13 messages that a Central System begins, checked before it leaves: what is wrong is named by its path in `payload`.

        It becomes an order: on disk before this answers, sent when the station's earlier orders have ended, refused at once when the station is not
        connected unless it is to `wait_online`. Without a `location` GetFile uploads to the hub itself; UpdateFirmware may name a `file` of the hub.
        """
        hub = self._hub
        device = self._seen(principal, identity, sending.verb(body.message))
        order = sending.order(body.message, body.payload, file=body.file, everything=body.everything)
        if body.file is not None:
            try:
                await self._files.firmware(body.file)
            except NotFound as error:
                raise InvalidInput(error.message, (FieldFault("$.file", error.message),)) from None
        try:
            command = await hub.commands.submit(
                principal, device.id, order.verb, order.arguments, expires_in=body.expires_in, wait_online=body.wait_online, id=body.id
            )
        except InvalidInput as error:
            raise sending.in_its_words(body.message, error) from None
        if query.wait and not command.state.final:
            try:
                command = await hub.commands.wait(command.id, query.wait, principal)
            except DeviceTimeout:
                command = await hub.commands.get(command.id, principal)
        return Sent(
            id=command.id, identity=identity, message=body.message, verb=command.verb, state=command.state, final=command.state.final,
            created=rfc3339(command.created), expires=rfc3339(command.expires), sent=_maybe(command.sent), ended=_maybe(command.ended),
            result=command.result, error=command.error,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------------- files

    async def list_files(self, principal: Principal, query: FileQuery) -> FilePage:
        """Uploads that are expected, have come or did not come in time; and firmware."""
        self._hub.accounts.require(principal, "files.read")
        after = _after(query.cursor)
        found = [
            file
            for file in await self._files.all()
            if file.id > after and (query.station is None or file.station == query.station) and (query.kind is None or file.kind == query.kind)
        ]
        page = found[: query.limit]
        return FilePage(tuple(self._file(file) for file in page), _next(page[-1].id) if len(found) > query.limit else None)

    async def read_file(self, principal: Principal, file_id: str) -> FileOut:
        """Whether it has arrived, and what it is; its bytes are at `…/content`."""
        self._hub.accounts.require(principal, "files.read")
        return self._file(await self._files.find(file_id))

    async def delete_file(self, principal: Principal, file_id: str) -> None:
        """It is gone; a station that still has a link to it finds nothing there."""
        self._hub.accounts.require(principal, "file.manage")
        await self._files.delete(principal, file_id)

    def _file(self, file: File) -> FileOut:
        state: Literal["expected", "arrived", "expired"] = "arrived" if file.blob else "expected"
        if not file.blob and self._hub.clock.now() >= file.expires:
            state = "expired"
        return FileOut(
            id=file.id, kind=file.kind, state=state, name=file.name, created=rfc3339(file.created), station=file.station, what=file.what,
            request=file.request, command=file.command, expires=_maybe(file.expires), arrived=_maybe(file.arrived),
            size=file.size if file.blob else None, sha256=file.sha256, fault=file.fault,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------------- details

    def _check_site(self, principal: Principal, site: str) -> None:
        """Raises InvalidInput when a station cannot be moved there, Forbidden."""
        try:
            self._hub.accounts.require(principal, "device.manage", site=site)
            self._hub.accounts.site(principal, site)
        except NotFound as error:
            raise InvalidInput(error.message, (FieldFault("$.site", error.message),)) from None

    def _seen(self, principal: Principal, identity: str, verb: str = "device.read") -> Device:
        """The device of a station, if the principal may use the verb on it. Raises NotFound, Forbidden."""
        try:
            device = self._hub.registry.get(device_id(identity))
        except NotFound:
            device = None
        if device is None or not self._hub.accounts.visible(principal, device):
            raise NotFound(f"there is no station {identity[:120]!r}")
        self._hub.accounts.require(principal, verb, device)
        return device

    async def _ask(self, subject: str, message: object) -> Any:
        try:
            return await self._hub.bus.request(subject, message, ASKED_WITHIN)
        except (Offline, DeviceTimeout):
            raise NotRunning("the Central System of OS³P does not run; the hub's log says why") from None

    async def _show(self, principal: Principal, identity: str) -> StationOut:
        view: StationView | None = await self._ask(stations.SHOW, identity)
        if view is None:
            raise NotFound(f"there is no station {identity[:120]!r}")
        alarms = self._hub.alarms.active(principal, device=view.device)
        return self._station(self._hub.registry.state(view.device), view, alarms)

    def _station(self, state: DeviceState, view: StationView, alarms: Sequence[Alarm]) -> StationOut:
        device, record, connection = state.device, view.record, view.connection
        return StationOut(
            identity=view.identity, device=view.device, admission=view.admission, online=state.online, strict=view.strict,
            secret=self._hub.accounts.has_credential(device.id), name=device.name, site=device.site, online_since=rfc3339(state.since),
            last_seen=_maybe(state.last_seen), reason="" if state.online else state.reason,
            registration=Registration(
                status=record.status, boots=record.boots, accepted=_maybe(record.accepted), booted=_maybe(record.booted), boot=record.boot
            ),
            heartbeat_interval=record.heartbeat_interval,
            connection=None if connection is None else Connected(
                since=rfc3339(connection.since), address=connection.address, subprotocol=connection.subprotocol, secure=connection.secure
            ),
            deviations=view.deviations, refused=view.refused,
            alarms=tuple(
                StationAlarm(
                    id=one.id, kind=one.kind, severity=one.severity, since=rfc3339(one.raised), subject=one.subject, message=one.message
                )
                for one in sorted(alarms, key=lambda one: (-one.severity.rank, one.raised))
            ),
            lights=() if view.lights is None else tuple(_lights(view.lights)),
        )  # fmt: skip


def _wanted(state: DeviceState, query: StationQuery, wrong: bool) -> bool:
    device = state.device
    if query.admission is not None and device.admission is not query.admission:
        return False
    if query.online is not None and state.online is not query.online:
        return False
    if query.alarm is not None and wrong is not query.alarm:
        return False
    if query.q is None:
        return True
    said = (device.identity, device.name, device.site, device.vendor, device.model, device.serial, device.attributes.get("stationNumber", ""))
    return any(query.q.casefold() in text.casefold() for text in said)


def _lights(lights: Lights) -> Iterator[LightState]:
    """The contactors of which something was told."""
    for contactor in CONTACTORS:
        light = lights.of(contactor)
        if light.status is not None or light.mode is not None:
            (status, since), (mode, mode_since) = _told(light.status), _told(light.mode)
            yield LightState(contactor=contactor, status=status, status_since=since, mode=mode, mode_since=mode_since)


def _told(told: Told | None) -> tuple[str, str] | tuple[None, None]:
    return (None, None) if told is None else (told.value, rfc3339(told.time))


def _maybe(moment: int | None) -> str | None:
    """A moment in µs, if there was one."""
    return rfc3339(moment) if moment else None


def _next(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode("ascii").rstrip("=")


def _after(cursor: str | None) -> str:
    """The key that a cursor holds. Raises InvalidInput."""
    try:
        return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode() if cursor else ""
    except ValueError:
        raise InvalidInput("the cursor is not one of this list", (FieldFault("$.cursor", "expected the `next` of a page of this list"),)) from None


def operations(hub: Hub, files: Files) -> list[Operation]:
    """What this integration adds to the hub's own API."""
    desk = Desk(hub, files)
    station, file = "/api/v1/os3p/stations/{identity}", "/api/v1/os3p/files/{file_id}"
    given: dict[str, Any] = {"tag": TAG, "parameters": _PARAMETERS}
    of_a_station = {**given, "refuses": NO_STATION | NOT_RUNNING}
    offline = "It cannot do this (`unsupported`), or is not connected and the order does not wait (`offline`); nothing was sent."
    return [
        Operation(
            method="GET", path="/api/v1/os3p/stations", function=desk.list_stations, summary="Substations", refuses=NOT_RUNNING, **given
        ),
        Operation(
            method="POST", path="/api/v1/os3p/stations", function=desk.add_station, summary="Add a substation", status=201,
            refuses={404: "There is no such site, or not for this token.", 409: "There is one of this identity.", **NOT_RUNNING}, **given,
        ),
        Operation(method="GET", path=station, function=desk.read_station, summary="One substation", **of_a_station),
        Operation(method="PATCH", path=station, function=desk.change_station, summary="Accept, reject or change a substation", **of_a_station),
        Operation(
            method="DELETE", path=station, function=desk.remove_station, summary="Remove a substation", status=204, refuses=NO_STATION, **given,
        ),
        Operation(
            method="PUT", path=f"{station}/secret", function=desk.set_station_secret, summary="Set the secret of a substation", refuses=NO_STATION,
            hide=("secret",), **given,
        ),
        Operation(
            method="DELETE", path=f"{station}/secret", function=desk.remove_station_secret, summary="Remove the secret of a substation", status=204,
            refuses={404: "There is no such station, or it has no secret."}, **given,
        ),
        Operation(
            method="POST", path=f"{station}/messages", function=desk.send_message, summary="Send a message to a substation",
            refuses={**NO_STATION, 409: offline, 503: "The store cannot keep the order, so it was not accepted."}, hide=("location",), **given,
        ),
        Operation(method="GET", path="/api/v1/os3p/files", function=desk.list_files, summary="Uploads and firmware", **given),
        Operation(method="GET", path=file, function=desk.read_file, summary="One upload or firmware", refuses=NO_FILE, **given),
        Operation(
            method="DELETE", path=file, function=desk.delete_file, summary="Delete an upload or firmware", status=204, refuses=NO_FILE, **given,
        ),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------------ bytes

AnyRequest = Request[Any, Any, Any]
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))")


def routers(hub: Hub, files: Files) -> list[HTTPRouteHandler]:
    """The bytes of files: stations by their link, operators by their token. They are streamed, so they are not in the OpenAPI document."""

    def given(request: AnyRequest, name: str) -> str:
        """A part of the path, empty when it is not there."""
        return str(request.path_params.get(name, ""))

    @route(_paths(UPLOAD_PATH), http_method=["PUT", "POST"], status_code=201, request_max_body_size=None)
    async def upload(request: AnyRequest) -> Response[bytes]:
        """A station uploads: the body is the file, as it is."""
        file = await files.upload(given(request, "token"), given(request, "name"), _incoming(request), _length(request))
        answer = {"name": file.name, "size": file.size, "sha256": file.sha256}
        return Response(msgspec.json.encode(answer), media_type="application/json", status_code=201)

    @route(_paths(DOWNLOAD_PATH), http_method=["GET", "HEAD"], status_code=200)
    async def download(request: AnyRequest) -> Response[Any]:
        """A station fetches a firmware, perhaps piece by piece."""
        return await _outgoing(request, files, await files.opened(given(request, "token"), "download"))

    @route("/api/v1/os3p/files/{file_id:str}/content", http_method=["GET", "HEAD"], status_code=200)
    async def read_content(request: AnyRequest, principal: NamedDependency[Principal]) -> Response[Any]:
        """The bytes of a file."""
        hub.accounts.require(principal, "files.read")
        return await _outgoing(request, files, await files.find(given(request, "file_id")))

    @route("/api/v1/os3p/files/{file_id:str}/content", http_method="PUT", status_code=200, request_max_body_size=None)
    async def put_content(request: AnyRequest, principal: NamedDependency[Principal]) -> Response[bytes]:
        """Put a firmware; its id is its name."""
        hub.accounts.require(principal, "file.manage")
        file = await files.put_firmware(principal, given(request, "file_id"), _incoming(request), _length(request))
        return Response(msgspec.json.encode(Desk(hub, files)._file(file)), media_type="application/json")

    return [upload, download, read_content, put_content]


def _paths(path: str) -> list[str]:
    """Whether or not the station puts a name of its own behind the link that it was given."""
    return [f"{path}/{{token:str}}", f"{path}/{{token:str}}/{{name:str}}"]


def _length(request: AnyRequest) -> int | None:
    given = request.headers.get("content-length", "")
    return int(given) if given.isdigit() else None


async def _incoming(request: AnyRequest) -> AsyncIterator[bytes]:
    """The body as it comes. Raises InvalidInput for a form, Truncated when the client goes away."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        reason = "the body is the file itself, not a form (multipart/form-data)"
        raise InvalidInput(reason, (FieldFault("$.content-type", reason),))
    try:
        async for chunk in request.stream():
            yield chunk
    except HTTPException as error:  # so Litestar says that the client has gone
        raise Truncated("the connection ended before all of the file came") from error


class _Span(NamedTuple):
    """Bytes ``first`` to ``last``, both included."""

    first: int
    last: int


def _span(header: str, size: int) -> _Span | Literal["whole", "none"]:
    """What a Range header asks of so many bytes (RFC 9110 14.2); one that is not understood counts as none was given."""
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        return "whole"
    first, last, tail = (None if text is None else int(text) for text in found.groups())
    if first is None:
        assert tail is not None
        return _Span(max(0, size - tail), size - 1) if tail and size else "none"
    if last is not None and last < first:
        return "whole"
    return _Span(first, size - 1 if last is None else min(last, size - 1)) if first < size else "none"


async def _outgoing(request: AnyRequest, files: Files, file: File) -> Response[Any]:
    """The file, or the piece of it that is asked for (RFC 9110 13 and 14)."""
    tag = f'"{file.sha256}"'
    headers = {
        "etag": tag,
        "accept-ranges": "bytes",
        "content-disposition": f'attachment; filename="{file.name}"',
    }
    if tag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(b"", status_code=304, headers={"etag": tag})
    source = await files.open(file)
    span: _Span | Literal["whole", "none"] = "whole"
    if request.headers.get("if-range", tag).strip() == tag:
        span = _span(request.headers.get("range", ""), file.size)
    if span == "none":
        source.close()
        return Response(b"", status_code=416, headers={"content-range": f"bytes */{file.size}"}, media_type="application/octet-stream")
    status, begin, length = 200, 0, file.size
    if isinstance(span, _Span):
        status, begin, length = 206, span.first, span.last - span.first + 1
        headers["content-range"] = f"bytes {span.first}-{span.last}/{file.size}"
    headers["content-length"] = str(length)
    if request.method == "HEAD":
        length = 0
    return Stream(_pieces(source, begin, length), status_code=status, headers=headers, media_type="application/octet-stream")


async def _pieces(source: IO[bytes], begin: int, length: int) -> AsyncIterator[bytes]:
    with source:
        await asyncio.to_thread(source.seek, begin)
        while length > 0:
            piece = await asyncio.to_thread(source.read, min(BLOCK, length))
            if not piece:
                return
            length -= len(piece)
            yield piece
