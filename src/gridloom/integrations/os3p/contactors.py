"""The street lights of a Substation: what each contactor has to be, done, and told (annex A6.7, A6.8, A7.6, A7.7; FACTS section 3 rules 8 and 10).

What is told has happened: a contactor is switched first and its notification stored then, with the moment of the switching. A station that was off
switches when it is on again, and that is the moment it tells: no light went on before. What it then finds otherwise than it left it is told too,
as unexpected, unless it is as it has to be (the process ended between the switching and the storing).

An input that cannot be read is a PowerSwitchFailure of its contactor; what was known of it last goes on to count, and no other contactor waits for
it longer than ``PATIENCE``. An order may come whenever hardware is waited for: what is kept is read, and written, behind the waiting.

A contactor that an active local switch moves is not unexpected: the mode says who did it. Feedback is believed; without any a contactor is what it
was switched to, and at each start it is switched once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from gridloom.core.clock import rfc3339
from gridloom.core.errors import InvalidInput
from gridloom.integrations.os3p import schedule
from gridloom.integrations.os3p.driver import Driver, Turns
from gridloom.integrations.os3p.messages import (
    ClearSingleStreetlightProfile,
    Mode,
    StreetlightModeStatusNotification,
    StreetlightStatusNotification,
)
from gridloom.integrations.os3p.schedule import Override, Place, Profile
from gridloom.integrations.os3p.state import Fault, Lamp, Vault

log = logging.getLogger(__name__)

AHEAD = 2
"""Days that are searched for the next switching; without one it is searched again after half of them."""
_DAY = 86_400 * schedule.SECOND

Notification = StreetlightModeStatusNotification | StreetlightStatusNotification


class Contactors:
    """All contactors of a station. ``failed``: those that do not switch, or do not say how they are. ``place()`` may be changed (rule 10)."""

    def __init__(self, vault: Vault, driver: Driver, now: Callable[[], int], place: Callable[[], Place], ask: Turns) -> None:
        self.failed: set[int] = set()
        self._vault = vault
        self._driver = driver
        self._now = now
        self._place = place
        self._ask = ask
        self._seen: set[int] = set()
        self._next: dict[int, tuple[tuple[Profile, ...], Place, int, int]] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which of 1 to 4 there are."""
        return tuple(self._driver.contactors)

    def lamp(self, contactor: int) -> Lamp:
        """As it was last told."""
        return next((lamp for lamp in self._vault.state.lamps if lamp.contactor == contactor), Lamp(contactor))

    def _with(self, *changed: Lamp) -> tuple[Lamp, ...]:
        new = {lamp.contactor: lamp for lamp in (*self._vault.state.lamps, *changed)}
        return tuple(new[contactor] for contactor in sorted(new))

    # ---------------------------------------------------------------------------------------------------------- what is asked

    def faults(self) -> list[Fault]:
        """PowerSwitchFailure of each contactor that has failed."""
        return [Fault("PowerSwitchFailure", f"contactor {contactor}") for contactor in sorted(self.failed)]

    async def locals(self, contactors: tuple[int, ...]) -> bool:
        """Whether any of them is in local override now (S14). Raises what the hardware raises, and TimeoutError."""

        async def local_switches() -> bool:
            return any([await self._driver.local(contactor) is not None for contactor in contactors])

        return await self._ask(local_switches, hurry=True)

    def override(self, contactors: tuple[int, ...], action: Override | None) -> None:
        """Take a remote override, or with None end it, durably, and tell the mode (S13, S15); ``look`` does the rest. Raises OSError."""
        now, lamps, told = self._now(), [], []
        mode: Mode = "Schedule" if action is None else "RemoteOverride"
        for contactor in contactors:
            lamp = self.lamp(contactor)
            since = now if lamp.mode != mode else lamp.mode_since or now
            lamps.append(msgspec.structs.replace(lamp, remote=action, mode=mode, mode_since=since))
            told.append((str(contactor), _mode(lamps[-1], now)))
        self._vault.commit(add=told, must=True, lamps=self._with(*lamps))

    def reported(self, contactor: int) -> tuple[StreetlightModeStatusNotification, StreetlightStatusNotification]:
        """Mode and state of now, each with the moment since when it is so."""
        lamp = self.lamp(contactor)
        return _mode(lamp, lamp.mode_since or self._now()), _status(lamp, lamp.since or self._now(), False)

    # ---------------------------------------------------------------------------------------------------------- what is done

    async def look(self) -> float:
        """Do and tell whatever is due now. The seconds until the next switching of the schedule."""
        well_first = sorted(self.numbers, key=lambda contactor: contactor in self.failed)
        return min([await self._look_at(contactor) for contactor in well_first], default=float("inf"))

    async def _look_at(self, contactor: int) -> float:
        local, local_known = await self._read(self._driver.local, contactor)
        lit, lit_known = await self._read(self._driver.lit, contactor)
        now, place = self._now(), self._place()
        known = any(lamp.contactor == contactor for lamp in self._vault.state.lamps)
        lamp = self.lamp(contactor)
        if not local_known and lamp.mode == "LocalOverride":
            local = lamp.on
        first = contactor not in self._seen
        self._seen.add(contactor)
        if not known:
            lamp = Lamp(contactor, bool(lit), now, mode_since=now)
            self._vault.commit(lamps=self._with(lamp))
        profiles = self._vault.state.profiles
        wanted = schedule.commanded(
            scheduled=_scheduled(profiles, contactor, now, place), present=lamp.on, remote=lamp.remote, local=local
        )  # fmt: skip
        told: list[tuple[str, Notification]] = []
        if wanted.mode != lamp.mode:
            lamp = msgspec.structs.replace(lamp, mode=wanted.mode, mode_since=now)
            told.append((str(contactor), _mode(lamp, now)))
        if lit is not None and lit != lamp.on:
            excused = lit == local or (first and lit == wanted.on)
            lamp = msgspec.structs.replace(lamp, on=lit, since=now)
            told.append((str(contactor), _status(lamp, now, not excused)))
        if told:
            self._vault.commit(add=told, lamps=self._with(lamp))
        well = local_known and lit_known
        if wanted.on != lamp.on or (first and lit is None):
            well = await self._switch(contactor, wanted.on, lit_known) and well
        if well:
            self.failed.discard(contactor)
        else:
            self.failed.add(contactor)
        return self._until_next(profiles, contactor, now, place)

    async def _read(self, input: Callable[[int], Awaitable[bool | None]], contactor: int) -> tuple[bool | None, bool]:
        """What an input says, and whether it could be read."""
        try:
            value = await self._ask(input, contactor)
        except Exception as error:  # noqa: BLE001  # the owner's code: whatever it raises, nothing was read
            self._complain("an input of a contactor cannot be read", contactor, error)
            return None, False
        return None if value is None else bool(value), True

    async def _switch(self, contactor: int, on: bool, lit_known: bool) -> bool:
        """Whether it did as it was told, as far as one knows: without feedback it is believed."""
        try:
            await self._ask(self._driver.switch, contactor, on)
        except Exception as error:  # noqa: BLE001  # the owner's code: whatever it raises, the light was not switched
            self._complain("a contactor could not be switched", contactor, error)
            return False
        lit = None
        if lit_known:  # what has just hung is not asked again
            lit, lit_known = await self._read(self._driver.lit, contactor)
        if lit is not None and lit != on:
            if contactor not in self.failed:
                log.warning("a contactor does not follow", extra={"contactor": contactor, "on": on})
            return False
        now, lamp = self._now(), self.lamp(contactor)  # again: an order may have come meanwhile
        if lamp.on != on:
            lamp = msgspec.structs.replace(lamp, on=on, since=now)
            self._vault.commit(add=[(str(contactor), _status(lamp, now, False))], lamps=self._with(lamp))
        return lit_known

    def _complain(self, text: str, contactor: int, error: Exception) -> None:
        if contactor not in self.failed:  # once, not at each look
            log.warning(text, extra={"contactor": contactor, "why": f"{type(error).__name__}: {error}"})

    def _until_next(self, profiles: tuple[Profile, ...], contactor: int, now: int, place: Place) -> float:
        known = self._next.get(contactor)
        if known is None or known[0] is not profiles or known[1] != place or not known[2] <= now < known[3]:
            try:
                switch = schedule.next_switch(profiles, contactor, now, place, days=AHEAD)
            except InvalidInput:  # a clock outside the years that the engine knows
                switch = None
            known = (profiles, place, now, switch.at if switch is not None else now + AHEAD * _DAY // 2)
            self._next[contactor] = known
        return (known[3] - now) / schedule.SECOND


def _scheduled(profiles: tuple[Profile, ...], contactor: int, now: int, place: Place) -> bool:
    try:
        return schedule.is_on(profiles, contactor, now, place)
    except InvalidInput:
        return False


def _mode(lamp: Lamp, at: int) -> StreetlightModeStatusNotification:
    return StreetlightModeStatusNotification(contactorId=lamp.contactor, mode=lamp.mode, timestamp=rfc3339(at))


def _status(lamp: Lamp, at: int, unexpected: bool) -> StreetlightStatusNotification:
    return StreetlightStatusNotification(
        contactorId=lamp.contactor, status="On" if lamp.on else "Off", timestamp=rfc3339(at), unexpected=unexpected
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- ClearSingleStreetlightProfile


def cleared(profiles: tuple[Profile, ...], message: ClearSingleStreetlightProfile) -> tuple[Profile, ...] | None:
    """The profiles that are left (S11, S12): all of them if nothing matched; None if profile and stack level name different ones."""
    here = [one for one in profiles if message.contactorId in (None, one.contactor)]
    if message.profileId is not None:
        gone = [one for one in here if one.id == message.profileId]
        if message.stackLevel is not None and any(one.stack_level != message.stackLevel for one in gone):
            return None
    elif message.stackLevel is not None:
        gone = [one for one in here if one.stack_level == message.stackLevel]
    else:
        gone = here
    return tuple(one for one in profiles if one not in gone)
