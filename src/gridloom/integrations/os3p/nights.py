"""What the Central System does about the schedules of its stations: keeps what they accept, verifies it, and asks again every day (issue 5, point 3).

Every order about profiles or configuration is a ``Visit``: it hears what is asked and answered, and what follows from it is on disk before the order
ends. While a profile is being written its contactor counts as unknown, on disk as well, so that a hub that dies has no wrong idea afterwards.

A station's answer to GetEffectiveStreetlightDaySchedule that differs from our calculation raises ``light.schedule.drift`` of the contactor; it is
cleared when no difference is left, of today or of a day to come.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import date
from typing import Any, Literal, NamedTuple

import msgspec

from gridloom.core.clock import rfc3339
from gridloom.core.errors import DeviceError, GridloomError, InvalidInput, Offline
from gridloom.core.events import new_event
from gridloom.core.hub import Hub
from gridloom.core.locks import KeyedLock, finish
from gridloom.core.model import Command, Event, EventState
from gridloom.integrations.os3p import accepted, orders, schedule
from gridloom.integrations.os3p import messages as wire
from gridloom.integrations.os3p.accepted import Difference, Schedules, Verdict
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.errors import RefusedInBody
from gridloom.integrations.os3p.lights import CONTACTORS
from gridloom.integrations.os3p.reading import read, write
from gridloom.integrations.os3p.stations import KEYS, SCHEDULES, Station, Stations
from gridloom.links.calls import CallRefused

log = logging.getLogger(__name__)

DRIFT, CHANGED = "light.schedule.drift", "light.schedule.changed"
VERBS = frozenset({"light.schedule.set", "light.schedule.clear", "light.schedule.get", "device.configuration.get", "device.configuration.set"})
"""The orders that are visits."""
MOST_DAYS = 8
"""Days that are verified after profiles were written."""
AT_ONCE = 16
"""Stations that are asked beside each other by ourselves."""
TRIES = 24
"""A station that is not there is looked for so many times between two checks."""

_WRITES: Mapping[str, type[accepted.Write]] = {
    "SetStreetlightProfile": wire.SetStreetlightProfile,
    "ClearSingleStreetlightProfile": wire.ClearSingleStreetlightProfile,
}
_HOLDS: Mapping[str, type[wire.OverrideStreetlight | wire.ResumeStreetlight]] = {
    "OverrideStreetlight": wire.OverrideStreetlight,
    "ResumeStreetlight": wire.ResumeStreetlight,
}
_ASK_KEYS = write(wire.GetConfiguration(key=tuple(KEYS)))
_schedules = msgspec.json.Decoder(Schedules)

Job = Literal["check", "learn", "resume"]
RESUME_EVERY = 15.0
"""Seconds between two looks whether a station is back whose light we have suspended."""


class Compared(NamedTuple):
    """One day of one contactor: our own calculation (or none), and what became of the comparison."""

    own: schedule.Day | None
    verdict: Verdict
    reason: str = ""
    differences: tuple[Difference, ...] = ()


class Nights:
    """The schedules of all stations. ``start`` after the stations."""

    def __init__(self, section: Section, hub: Hub, stations: Stations) -> None:
        self.section = section
        self.hub = hub
        self.stations = stations
        self._locks = KeyedLock()
        self._due: list[tuple[float, str, Job]] = []
        self._wanted: set[tuple[str, Job]] = set()
        self._news = asyncio.Event()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Find out which stations are to be checked, and begin."""
        after = ""
        while page := await self.hub.documents.find(SCHEDULES, {"known": "yes"}, limit=500, after=after):
            for found in page:
                self._follow(found.id)
            after = page[-1].id
        for found in await self.hub.documents.find(SCHEDULES, {"suspended": "yes"}):
            self._resume_later(found.id)
        self._running = asyncio.create_task(self._run(), name="os3p nights")

    async def stop(self) -> None:
        """Ask nothing more."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        self._due.clear()
        self._wanted.clear()

    @asynccontextmanager
    async def visit(self, station: Station, call: orders.Call) -> AsyncIterator[Visit]:
        """One visit at a time to a station; what it found out is on disk afterwards. ``call`` sends to the station."""
        async with self._locks.hold((station.identity,)):
            found = await self.hub.documents.get(SCHEDULES, station.identity)
            visit = Visit(self, station, call, Schedules() if found is None else _schedules.decode(found.body))
            try:
                yield visit
            finally:
                await finish(visit.keep())
                if visit.schedules.suspended:
                    self._resume_later(station.identity)
        if visit.schedules.known:
            self._follow(station.identity)
        if not station.record.learnt:
            self.learn(station)

    def learn(self, station: Station) -> None:
        """Ask the station for the keys that its schedules depend on, when it has settled."""
        if self.section.learn_configuration:
            self._at(station.identity, "learn", self.section.learn_after * (1 + _share(station.identity)))

    async def taken_over(self, station: Station, contactor: int | None) -> None:
        """Somebody has overridden or resumed the light: what we had suspended is no longer ours to resume."""
        if (station.identity, "resume") not in self._wanted:
            return
        async with self.visit(station, _nobody) as visit:
            visit.schedules = visit.schedules.suspending(CONTACTORS if contactor is None else (contactor,), False)

    # ------------------------------------------------------------------------------------------------------------- by ourselves

    def _resume_later(self, identity: str) -> None:
        self._at(identity, "resume", RESUME_EVERY)

    def _follow(self, identity: str) -> None:
        """Check the station once in each interval, at a time of its own, which a restart of the hub does not change."""
        if self.section.schedule_checks:
            self._at(identity, "check", self._until_check(identity))

    def _until_check(self, identity: str) -> float:
        interval = self.section.schedule_check_interval
        seconds = interval - (self.hub.clock.now() / schedule.SECOND - interval * _share(identity)) % interval
        return seconds if seconds > interval / TRIES else seconds + interval  # it is this moment's turn, or nearly so

    def _at(self, identity: str, job: Job, seconds: float) -> None:
        if (identity, job) not in self._wanted:
            self._wanted.add((identity, job))
            heapq.heappush(self._due, (self.hub.clock.monotonic() + seconds, identity, job))
            self._news.set()

    async def _run(self) -> None:
        clock = self.hub.clock
        async with asyncio.TaskGroup() as group:
            while self._running is not None:  # asked, too: ``wait_for`` does not pass on a cancellation that comes with what it waits for
                self._news.clear()
                while self._due and self._due[0][0] <= clock.monotonic():
                    _, identity, job = heapq.heappop(self._due)
                    await self._room.acquire()
                    group.create_task(self._do(identity, job), name=f"os3p {job}")
                try:
                    await clock.wait_for(self._news.wait(), self._due[0][0] - clock.monotonic() if self._due else None)
                except TimeoutError:
                    continue

    async def _do(self, identity: str, job: Job) -> None:
        self._wanted.discard((identity, job))
        try:
            await {"check": self._check, "learn": self._learn, "resume": self._resume}[job](identity)
        except GridloomError as error:
            log.warning("a station's schedules could not be looked at", extra={"identity": identity, "job": job, "reason": error.message})
        except Exception:  # whatever it was, the other stations must be asked
            log.exception("a station's schedules could not be looked at", extra={"identity": identity, "job": job})
        finally:
            self._room.release()

    async def _check(self, identity: str) -> None:
        station = self.stations.find(identity)
        if station is None:
            return
        call = None if station.connection is None else station.connection.caller()
        if call is None:
            self._at(identity, "check", self.section.schedule_check_interval / TRIES)
            return
        self._follow(identity)  # the next time, whatever becomes of this one
        async with self.visit(station, call) as visit:
            await visit.check()

    async def _resume(self, identity: str) -> None:
        """A schedule was being written when the connection ended, and the light of its contactor has stood still since (A7.10)."""
        station = self.stations.find(identity)
        if station is None:
            return
        call = None if station.connection is None else station.connection.caller()
        if call is None:
            self._resume_later(identity)
            return
        async with self.visit(station, call) as visit:
            for number in sorted(visit.schedules.suspended):
                await visit.call("ResumeStreetlight", write(wire.ResumeStreetlight(contactorId=number)))
                log.warning("a light that stood still since a schedule was written goes on", extra={"device": station.device, "contactor": number})

    async def _learn(self, identity: str) -> None:
        station = self.stations.find(identity)
        call = None if station is None or station.connection is None else station.connection.caller()
        if station is None or call is None or station.record.learnt > station.record.booted:
            return
        before = station.record
        async with self.visit(station, call) as visit:
            try:
                await visit.call("GetConfiguration", _ASK_KEYS)
            except GridloomError as error:
                log.info("a station does not tell its configuration", extra={"device": station.device, "reason": error.message})
            await self.stations.learnt(station, {}, asked=True)
            if (before.geolocation, before.timezone) != (station.record.geolocation, station.record.timezone):
                await visit.check()


class Visit:
    """While something is asked of a station: hears it, and knows what the station has."""

    def __init__(self, nights: Nights, station: Station, call: orders.Call, schedules: Schedules) -> None:
        self.schedules = schedules
        self._nights = nights
        self._station = station
        self._call = call
        self._kept = schedules
        self._written: set[int] = set()
        self._compared: set[int] = set()
        self._now = nights.hub.clock.now()

    # ------------------------------------------------------------------------------------------------------------------ hearing

    async def call(self, action: str, payload: bytes) -> bytes:
        """``orders.Call``. Raises what it raises, and StorageError when a profile should be written and the store does not take it."""
        if action in _WRITES:
            return await self._write(action, payload)
        if action in _HOLDS:
            return await self._hold(action, payload)
        answer = await self._call(action, payload)
        if action in ("GetConfiguration", "ChangeConfiguration"):
            await self._learn(action, payload, answer)
        return answer

    async def _hold(self, action: str, payload: bytes) -> bytes:
        """Suspend before profiles are written, and Resume afterwards. That the light waits for us is on disk before it does."""
        request = msgspec.json.decode(payload, type=_HOLDS[action])
        numbers = CONTACTORS if request.contactorId is None else (request.contactorId,)
        if action == "OverrideStreetlight":
            await self._commit(self.schedules.suspending(numbers, True), [])
            self.schedules = self._kept
        answer = await self._call(action, payload)
        with suppress(CallRefused, GridloomError):
            accepted_now = read(action, answer, "server", response=True).message.status == "Accepted"
            if accepted_now != (action == "OverrideStreetlight"):  # it is resumed, or was never suspended
                self.schedules = self.schedules.suspending(numbers, False)
        return answer

    async def _write(self, action: str, payload: bytes) -> bytes:
        request = msgspec.json.decode(payload, type=_WRITES[action])
        doubted = accepted.doubted(self.schedules, request)
        if any(self._kept.of(number).known for number in accepted.meant(request)):
            await self._commit(doubted, [])
        try:
            answer = await self._call(action, payload)
        except CallRefused:
            raise
        except BaseException:  # nobody knows whether it has been done
            self.schedules = doubted
            raise
        try:
            status = read(action, answer, "server", response=True).message.status
        except RefusedInBody:
            return answer
        except CallRefused:  # an answer that cannot be understood
            self.schedules = doubted
            return answer
        after = accepted.written(self.schedules, request, status, self._nights.hub.clock.now())
        if after is not self.schedules:
            self._written.update(accepted.meant(request))
            self.schedules = after
        return answer

    async def _learn(self, action: str, payload: bytes, answer: bytes) -> None:
        try:
            response = read(action, answer, "server", response=True).message
            if action == "ChangeConfiguration":
                request = msgspec.json.decode(payload, type=wire.ChangeConfiguration)
                told: dict[str, str | None] = {request.key: request.value} if response.status == "Accepted" else {}
            else:
                told = {one.key: one.value for one in response.configurationKey} | dict.fromkeys(response.unknownKey)
            await self._nights.stations.learnt(self._station, told)
        except (CallRefused, GridloomError) as error:  # who ordered it is told what came; this is what we make of it
            log.warning("what a station told of its configuration is not kept", extra={"device": self._station.device, "reason": str(error)})

    # ---------------------------------------------------------------------------------------------------------------- comparing

    def verify(self, contactor: int, profiles: Any) -> orders.Steps:
        """``orders.Verify``: today and the days to come on which one of the profiles is first active. The result's ``verification``."""
        new = accepted.read(contactor, profiles).profiles
        days, found = accepted.first_days(new, self._today, MOST_DAYS), []
        for day in days:
            found.append((yield from self._ask(contactor, day)))
            if found[-1].verdict == "not known":
                break
        wrong = tuple(difference for one in found for difference in one.differences)
        verdict = "differs" if wrong else found[-1].verdict
        dates = [day.isoformat() for day, one in zip(days, found, strict=False) if one.verdict != "not known"]
        return {"verdict": verdict, "dates": dates, "differences": _told(wrong), "reason": found[-1].reason}

    def answered(self, command: Command, result: dict[str, Any]) -> dict[str, Any]:
        """The result of ``light.schedule.get`` with our own calculation, and where the station's differs."""
        day, contactor = date.fromisoformat(command.arguments["date"]), command.arguments["contactor"]
        periods = [(one["start"], one["end"]) for one in result["periods"]]
        found = self._judge(contactor, day, result["contactor"], periods)
        own = None
        if found.own is not None:
            winner = found.own.winner
            pairs = schedule.answer(found.own)
            own = {"profile_id": None if winner is None else winner.id, "periods": [{"start": start, "end": end} for start, end in pairs]}
        return {**result, "own": own, "verdict": found.verdict, "differences": _told(found.differences), "reason": found.reason}

    async def check(self) -> None:
        """Today, of every contactor that is known."""
        for contactor in self.schedules.known:
            found = await orders.run(self._ask(contactor, self._today), self.call)
            if found.own is not None and found.verdict == "not known":
                return  # the next contactor would not be answered either

    def _ask(self, contactor: int, day: date) -> orders.Steps:
        own = self._own(contactor, day)
        if isinstance(own, str):
            return self._note(contactor, day, Compared(None, "not known", own))
        try:
            response = yield from orders.ask(wire.GetEffectiveStreetlightDaySchedule(contactorId=contactor, at=f"{day.isoformat()}T00:00:00"))
        except GridloomError as error:
            return self._note(contactor, day, Compared(own, "not known", error.message))
        return self._judge(contactor, day, response.contactorId, [(one.start, one.end) for one in response.daySchedule])

    def _judge(self, contactor: int, day: date, answered_of: int, periods: list[tuple[str, str]]) -> Compared:
        own = self._own(contactor, day)
        if isinstance(own, str):
            return self._note(contactor, day, Compared(None, "not known", own))
        try:
            if answered_of != contactor:
                raise DeviceError(f"the station answers of contactor {answered_of}")
            found = accepted.differences(own, periods, self._nights.section.schedule_tolerance)
        except (DeviceError, InvalidInput) as error:
            return self._note(contactor, day, Compared(own, "not known", error.message))
        return self._note(contactor, day, Compared(own, "differs" if found else "same", "", found))

    def _note(self, contactor: int, day: date, found: Compared) -> Compared:
        result = found.reason if found.verdict == "not known" else found.differences
        one = accepted.compared(self.schedules.of(contactor), day, self._today, self._nights.hub.clock.now(), result)
        self.schedules = self.schedules.having(contactor, one)
        self._compared.add(contactor)
        return found

    def _own(self, contactor: int, day: date) -> schedule.Day | str:
        stations, station = self._nights.stations, self._station
        return accepted.calculated(self.schedules.of(contactor), contactor, day, stations.zone(station), stations.where(station))

    @property
    def _today(self) -> date:
        """The schedule day on which the visit began, where the station stands."""
        return schedule.day_of(self._now, self._nights.stations.zone(self._station))

    # ------------------------------------------------------------------------------------------------------------------ keeping

    async def keep(self) -> None:
        """What was found out, in one commit with its events. Never raises: the order has its own end; what is not kept is not known."""
        events = [*self._changes(), *self._drifts()]
        if self._nights.stations.find(self._station.identity) is None or (self.schedules == self._kept and not events):
            return
        try:
            await self._commit(self.schedules, events)
        except GridloomError as error:
            extra = {"device": self._station.device, "reason": error.message}
            log.error("which profiles a station has accepted could not be kept", extra=extra)

    async def _commit(self, schedules: Schedules, events: list[Event]) -> None:
        hub = self._nights.hub
        body = msgspec.json.encode(schedules)
        keys = {"known": "yes" if schedules.known else "no", "suspended": "yes" if schedules.suspended else "no"}
        await hub.intake.events(events, [hub.documents.put(SCHEDULES, self._station.identity, body, keys)])
        self._kept = schedules

    def _changes(self) -> list[Event]:
        events = []
        for number in sorted(self._written):
            one = self.schedules.of(number)
            data = {"contactor": number, "profiles": len(one.profiles), "known": one.known}
            message = f"Contactor {number} has {len(one.profiles)} profiles{'' if one.known else ', and perhaps others'}."
            events.append(new_event(CHANGED, self._station.device, self._nights.hub.clock, subject=f"contactor:{number}", message=message, data=data))
        return events

    def _drifts(self) -> list[Event]:
        hub, device = self._nights.hub, self._station.device
        events = []
        for number in sorted(self._compared):
            one, subject = self.schedules.of(number), f"contactor:{number}"
            raised = hub.alarms.raised(device, DRIFT, subject) is not None
            if one.verdict == "differs" and not raised:
                message = accepted.words(number, one.differences, self._nights.stations.zone(self._station))
                data = {"contactor": number, "differences": _told(one.differences)}
                events.append(new_event(DRIFT, device, hub.clock, subject=subject, message=message, data=data))
            elif one.verdict == "same" and raised:
                message = f"contactor {number}: the station's schedule is what it should be"
                events.append(new_event(DRIFT, device, hub.clock, subject=subject, state=EventState.CLEARED, message=message))
        return events


def _told(found: tuple[Difference, ...]) -> list[dict[str, str]]:
    """For results and events."""
    return [{"date": one.date, "start": rfc3339(one.start), "end": rfc3339(one.end), "expected": one.expected} for one in found]


async def _nobody(action: str, payload: bytes) -> bytes:
    """Of a visit on which nothing is asked."""
    raise Offline(f"{action} was not sent")


def _share(identity: str) -> float:
    """0 to 1, of a station's own, so that thousands are not asked in the same moment."""
    return zlib.crc32(identity.encode()) / 2**32
