"""Which street-light profiles a station has accepted, and how its own answers compare with what they mean (annex A7.2, A7.4, A7.10). Pure.

A contactor is *known* when every profile that the station has of it came by us: since a SetStreetlightProfile with clearAllSchedules, or since all
were erased. Of any other nothing is calculated: a station may have profiles from before, and what nobody knows is no drift. An order whose answer did
not come makes a contactor unknown again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from gridloom.core.errors import InvalidInput
from gridloom.integrations.os3p import schedule
from gridloom.integrations.os3p.lights import CONTACTORS
from gridloom.integrations.os3p.messages import ClearSingleStreetlightProfile, SetStreetlightProfile, StreetlightProfile
from gridloom.integrations.os3p.schedule import Day, Place, Profile

Write = SetStreetlightProfile | ClearSingleStreetlightProfile
"""What changes the profiles of a station."""
Verdict = Literal["same", "differs", "not known"]

UNKNOWN = "which profiles the station has is not known: it may have some from before; send them all once with clear_all"
NOWHERE = "where the station stands is not known: it tells no Geolocation, and none is configured"


class Difference(msgspec.Struct, frozen=True):
    """From ``start`` until ``end`` (µs UTC), on the schedule day ``date``, the light should be ``expected``, and the station says otherwise."""

    date: str
    start: int
    end: int
    expected: Literal["on", "off"]


class Contactor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contactor. Times in µs.

    ``profiles``: as they were sent, all of them if ``known``; ``changed``: when. ``compared``: when the station's answer was last compared, or could
    not be for the ``reason``; ``verdict``: None: never. ``differences``: those that were found for today and for days to come. ``suspended``: we
    have asked for Suspend while profiles are written, and the light was not resumed yet.
    """

    profiles: tuple[StreetlightProfile, ...] = ()
    known: bool = False
    changed: int = 0
    compared: int = 0
    verdict: Verdict | None = None
    reason: str = ""
    differences: tuple[Difference, ...] = ()
    suspended: bool = False


class Schedules(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document: by contactor, ``1`` to ``4``."""

    contactors: dict[str, Contactor] = {}

    def of(self, number: int) -> Contactor:
        """One contactor."""
        return self.contactors.get(str(number), Contactor())

    def having(self, number: int, contactor: Contactor) -> Schedules:
        """The same with this contactor."""
        return Schedules({**self.contactors, str(number): contactor})

    @property
    def known(self) -> list[int]:
        """The contactors whose profiles are known."""
        return [number for number in CONTACTORS if self.of(number).known]

    @property
    def suspended(self) -> frozenset[int]:
        """The contactors that wait for our Resume."""
        return frozenset(number for number in CONTACTORS if self.of(number).suspended)

    def suspending(self, numbers: Iterable[int], suspended: bool) -> Schedules:
        """The same after Suspend was asked for, or the light is somebody else's again."""
        now = self
        for number in numbers:
            now = now.having(number, msgspec.structs.replace(now.of(number), suspended=suspended))
        return now


# ------------------------------------------------------------------------------------------------------------ what it has taken


def meant(request: Write) -> Sequence[int]:
    """The contactors that a request changes."""
    return CONTACTORS if request.contactorId is None else (request.contactorId,)


def doubted(present: Schedules, request: Write) -> Schedules:
    """A request is under way, or its answer did not come."""
    for number in meant(request):
        present = present.having(number, msgspec.structs.replace(present.of(number), known=False))
    return present


def written(present: Schedules, request: Write, status: str, now: int) -> Schedules:
    """The station has answered. What it does not accept has changed nothing (L14); an Unknown profile is none that it has (S12)."""
    erased = isinstance(request, ClearSingleStreetlightProfile)
    if status != "Accepted" and not (erased and status == "Unknown"):
        return present
    for number in meant(request):
        one = present.of(number)
        profiles, known = _erased(one, request) if isinstance(request, ClearSingleStreetlightProfile) else _added(one, request)
        present = present.having(number, Contactor(profiles, known, now, suspended=one.suspended))
    return present


def _added(one: Contactor, request: SetStreetlightProfile) -> tuple[tuple[StreetlightProfile, ...], bool]:
    came = request.streetlightProfiles
    replaced = {profile.profileId for profile in came}
    kept = () if request.clearAllSchedules else tuple(profile for profile in one.profiles if profile.profileId not in replaced)
    profiles = (*kept, *came)
    # It may have taken what we would refuse (a stack level twice): what it made of that, nobody knows.
    return profiles, (one.known or request.clearAllSchedules) and not read(request.contactorId, profiles).faults


def _erased(one: Contactor, request: ClearSingleStreetlightProfile) -> tuple[tuple[StreetlightProfile, ...], bool]:
    if request.profileId is None and request.stackLevel is None:
        return (), True
    stays = (
        profile
        for profile in one.profiles
        if (profile.stackLevel != request.stackLevel if request.profileId is None else profile.profileId != request.profileId)
    )
    return tuple(stays), one.known


def read(number: int, profiles: Sequence[StreetlightProfile]) -> schedule.Installed:
    """Profiles as the schedule engine takes them."""
    return schedule.added((), [schedule.Given(f"$[{index}]", number, one) for index, one in enumerate(profiles)], None)


# ---------------------------------------------------------------------------------------------------------- what follows from it


def calculated(one: Contactor, number: int, day: date, zone: ZoneInfo, where: tuple[float, float] | None) -> Day | str:
    """Our own effective day of a contactor, or in words why there is none. ``where``: degrees north and east, None when nobody knows."""
    if not one.known:
        return UNKNOWN
    try:
        found = schedule.effective(read(number, one.profiles).profiles, number, day, Place(zone, *(where or (0.0, 0.0))))
    except InvalidInput as error:
        return error.message
    if where is None and found.winner is not None and found.winner.follows_the_sun:
        return NOWHERE
    return found


def differences(own: Day, answered: Sequence[tuple[str, str]], tolerance: float) -> tuple[Difference, ...]:
    """Where a station's answer differs; ``tolerance`` in seconds. Raises InvalidInput with the paths of what is no time."""
    found = schedule.drift(own, answered, tolerance)
    return tuple(Difference(own.date.isoformat(), one.start, one.end, "on" if one.ours else "off") for one in found)


def compared(one: Contactor, day: date, today: date, now: int, found: tuple[Difference, ...] | str) -> Contactor:
    """The contactor after a day was compared, or could not be, in words. What is over is forgotten."""
    if isinstance(found, str):
        return msgspec.structs.replace(one, compared=now, verdict="not known", reason=found)
    others = tuple(other for other in one.differences if other.date >= today.isoformat() and other.date != day.isoformat())
    every = tuple(sorted((*others, *found), key=lambda difference: difference.start))
    return msgspec.structs.replace(one, compared=now, verdict="differs" if every else "same", reason="", differences=every)


def first_days(profiles: Sequence[Profile], today: date, most: int) -> list[date]:
    """Today, and the first day from today on which each profile is active, the nearest ``most`` of all."""
    found = {today, *(day for one in profiles if (day := _first_day(one, today)) is not None)}
    return sorted(found)[:most]


def _first_day(profile: Profile, today: date) -> date | None:
    begin = max(today, profile.valid_from or today)
    if begin.year not in schedule.YEARS:
        return None
    week = (begin + timedelta(days=days) for days in range(7))
    return next((day for day in week if profile.active(day)), None)


def words(number: int, found: Sequence[Difference], zone: ZoneInfo) -> str:
    """For people: the first difference, and how many there are."""
    first = found[0]
    begin, end = schedule.clock(first.start, zone), schedule.clock(first.end, zone)
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    other = "off" if first.expected == "on" else "on"
    return f"contactor {number}: from {begin} to {end} of the night of {first.date} it should be {first.expected}, the station says {other}{more}"
