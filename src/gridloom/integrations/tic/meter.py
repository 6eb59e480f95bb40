"""A Linky from the inside, for the simulator: which register counts when (``Calendar``), and registers, values and frames (``Meter``).

Pure: no clock, no wire; it is told what the house draws, and it says what a Linky says. Integers count: a watt for a microsecond is never
lost, so that registers only grow and add up exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gridloom.integrations.tic.codec import Group, encode
from gridloom.integrations.tic.labels import Mode

SECOND = 1_000_000


# ------------------------------------------------------------------------------------------------------------ who counts when


class Contract(StrEnum):
    """The supplier's tariff."""

    BASE = "base"
    HCHP = "hchp"
    EJP = "ejp"
    TEMPO = "tempo"


BLUE, WHITE, RED = 1, 2, 3
"""Colours of a Tempo day, as STGE has them; 0 is none."""

# Per contract: OPTARIF and NGTF, and per register its historic label, its PTEC, its LTARF.
_TARIFFS: dict[Contract, tuple[str, str, tuple[tuple[str, str, str], ...]]] = {
    Contract.BASE: ("BASE", "BASE", (("BASE", "TH..", "BASE"),)),
    Contract.HCHP: ("HC..", "H PLEINE/CREUSE", (("HCHC", "HC..", "HEURE CREUSE"), ("HCHP", "HP..", "HEURE  PLEINE"))),
    Contract.EJP: ("EJP.", "EJP", (("EJPHN", "HN..", "HEURE NORMALE"), ("EJPHPM", "PM..", "HEURE DE POINTE"))),
    Contract.TEMPO: (
        "BBR(",
        "TEMPO",
        (
            ("BBRHCJB", "HCJB", "HC BLEU"),
            ("BBRHPJB", "HPJB", "HP BLEU"),
            ("BBRHCJW", "HCJW", "HC BLANC"),
            ("BBRHPJW", "HPJW", "HP BLANC"),
            ("BBRHCJR", "HCJR", "HC ROUGE"),
            ("BBRHPJR", "HPJR", "HP ROUGE"),
        ),
    ),
}
_TOMORROW = ("----", "BLEU", "BLAN", "ROUG")
_TEMPO_OFFPEAK = ((22 * 60, 6 * 60),)
ANNOUNCED = 20 * 60
"""Minutes of the day from which the colour of tomorrow, or tomorrow's mobile peak, is known."""
PEAK = (7 * 60, 25 * 60)
"""A mobile peak: minutes of its day, to one o'clock of the next."""


class Period(NamedTuple):
    """What holds at a moment: the running registers of supplier and grid operator (0 is the first), and what else the meter knows of its tariff.

    ``today``, ``tomorrow``: colours; ``notice``: a mobile peak is announced; ``peak``: it runs.
    """

    register: int
    distributor: int
    off_peak: bool
    today: int = 0
    tomorrow: int = 0
    notice: bool = False
    peak: bool = False


class Calendar:
    """Which register of a contract counts when, in the local time of the meter, day after day for ever.

    ``off_peak``: ranges of minutes of the day, for HC/HP (Tempo has its own). Tempo: a season of 43 white and 22 red days from 1 September (white
    never on a Sunday; red from November to March, Monday to Friday, never on a holiday), the day begins at 6:00. EJP: 22 mobile peaks from
    November to March, 7:00 to 1:00, never on a Sunday. The days are drawn by ``seed``, colder months more often.
    """

    def __init__(self, contract: Contract, *, seed: int = 1, off_peak: Sequence[tuple[int, int]] = ((22 * 60 + 30, 6 * 60 + 30),), zone: str) -> None:
        self.contract = contract
        self.zone = ZoneInfo(zone)
        self._seed = seed
        self._off_peak = _TEMPO_OFFPEAK if contract is Contract.TEMPO else tuple(off_peak)
        # Everything changes at a multiple of this many minutes, in UTC too: the offsets of the zones that have a Linky are whole hours.
        edges = [minute for pair in self._off_peak for minute in pair]
        self.grain = math.gcd(10, *edges)

    def local(self, at: int) -> datetime:
        """Local time of a moment (µs UTC), with its offset."""
        return datetime.fromtimestamp(at // SECOND, self.zone)

    def period(self, at: int) -> Period:
        """What holds at a moment (µs UTC)."""
        local = self.local(at)
        day, minute = local.date(), local.hour * 60 + local.minute
        high = local.month >= 11 or local.month <= 3
        off_peak = self._is_off_peak(minute)
        season = (2 if high else 0) + (0 if off_peak else 1)  # the grid operator's four registers, in the order of the captured frames
        if self.contract is Contract.HCHP:
            return Period(0 if off_peak else 1, season, off_peak)
        if self.contract is Contract.TEMPO:
            running = day if minute >= 6 * 60 else day - timedelta(1)
            following = running + timedelta(1)
            known = minute >= ANNOUNCED or minute < 6 * 60
            today = self.colour(running)
            return Period(self._tempo(today, off_peak), season, off_peak, today, self.colour(following) if known else 0)
        if self.contract is Contract.EJP:
            found = self.peak(at)
            running_peak = found is not None and found[0] <= at
            return Period(1 if running_peak else 0, 0, not running_peak, notice=found is not None and not running_peak, peak=running_peak)
        return Period(0, 0, False)

    def colour(self, day: date) -> int:
        """The colour of the Tempo day that begins at 6:00 of this date."""
        season = day.year if day.month >= 9 else day.year - 1
        white, red = _tempo_season(self._seed, season)
        return RED if day in red else WHITE if day in white else BLUE

    def peak_day(self, day: date) -> bool:
        """Whether a mobile peak begins at 7:00 of this date."""
        return day in _ejp_season(self._seed, day.year if day.month >= 9 else day.year - 1)

    def peak(self, at: int) -> tuple[int, int] | None:
        """The mobile peak that runs, or that is announced: begin and end in µs UTC. None when there is none."""
        local = self.local(at)
        for day in (local.date() - timedelta(1), local.date(), local.date() + timedelta(1)):
            if not self.peak_day(day):
                continue
            begin, end = (self.moment(day, minute) for minute in PEAK)
            if self.moment(day - timedelta(1), ANNOUNCED) <= at < end:
                return begin, end
        return None

    def profile(self, day: date) -> list[tuple[int, int, bool]]:
        """The blocks of a day: minute of the day, register, whether the dry contact is closed (in off-peak hours)."""
        blocks: list[tuple[int, int, bool]] = []
        for minute in sorted({0, *(minute for pair in self._off_peak for minute in pair), *((60, 7 * 60) if self.contract is Contract.EJP else ())}):
            period = self.period(self.moment(day, minute))
            if not blocks or blocks[-1][1] != period.register:
                blocks.append((minute, period.register, period.off_peak))
        return blocks

    def moment(self, day: date, minute: int) -> int:
        """µs UTC of a minute of a local day (above 24 hours: of the next)."""
        wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)  # noqa: DTZ001  # the zone is put to it here
        return int(wall.replace(tzinfo=self.zone).timestamp()) * SECOND

    def _is_off_peak(self, minute: int) -> bool:
        return any(begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in self._off_peak)

    @staticmethod
    def _tempo(colour: int, off_peak: bool) -> int:
        return 2 * (colour - 1) + (0 if off_peak else 1)


def serial_of(seed: int, phases: int) -> str:
    """The twelve digits on the meter of this seed: maker, year, model, number."""
    random = Random(f"serial {seed}")  # noqa: S311  # a number plate, not a secret
    return f"0{random.choice('234')}{random.randrange(16, 25)}{'61' if phases == 1 else '76'}{random.randrange(10**6):06d}"


def _drawn(seed: str, days: Sequence[date], count: int) -> frozenset[date]:
    """``count`` of the days, those of the coldest weeks more often."""
    random = Random(seed)  # noqa: S311  # a calendar, not a secret
    middle = date(days[0].year + (days[0].month >= 9), 1, 20)
    keys = {day: random.random() ** math.exp(abs((day - middle).days) / 45) for day in days}
    return frozenset(sorted(days, key=lambda day: keys[day], reverse=True)[:count])


@lru_cache(maxsize=32)
def _tempo_season(seed: int, year: int) -> tuple[frozenset[date], frozenset[date]]:
    """The white and the red days of the season that begins on 1 September of ``year``."""
    begin, end = date(year, 9, 1), date(year + 1, 9, 1)
    days = [begin + timedelta(number) for number in range((end - begin).days)]
    holidays = {(11, 1), (11, 11), (12, 25), (1, 1)}
    winter = [day for day in days if date(year, 11, 1) <= day < date(year + 1, 4, 1)]
    red = _drawn(f"red {seed} {year}", [day for day in winter if day.weekday() < 5 and (day.month, day.day) not in holidays], 22)
    white = _drawn(f"white {seed} {year}", [day for day in days if day.weekday() < 6 and day not in red], 43)
    return white, red


@lru_cache(maxsize=32)
def _ejp_season(seed: int, year: int) -> frozenset[date]:
    """The days with a mobile peak of the winter that begins in ``year``."""
    begin, end = date(year, 11, 1), date(year + 1, 4, 1)
    days = [begin + timedelta(number) for number in range((end - begin).days)]
    return _drawn(f"peak {seed} {year}", [day for day in days if day.weekday() < 6], 22)


# ---------------------------------------------------------------------------------------------------------------- the meter


class Profile(msgspec.Struct, frozen=True):
    """Which meter, with which contract. ``subscribed``: amperes per phase (30 is 6 kVA with one phase); ``serial``: else made of ``seed``."""

    mode: Mode = Mode.STANDARD
    contract: Contract = Contract.BASE
    phases: int = 1
    producer: bool = False
    subscribed: int = 30
    off_peak: tuple[tuple[int, int], ...] = ((22 * 60 + 30, 6 * 60 + 30),)
    seed: int = 1
    serial: str = ""
    zone: str = "Europe/Paris"


class Memory(msgspec.Struct):
    """What a meter does not forget when it loses power: its registers (Wh, varh) and the highest currents."""

    serial: str
    supplier: list[int]
    distributor: list[int]
    injected: int
    reactive: list[int]
    highest: list[int]


class Peak(NamedTuple):
    """The highest value of a day and when it was."""

    value: int
    time: int


class Meter:
    """A Linky: told what is drawn (``advance``), it says what its TIC says (``frame``). Pure: knows no clock but what it is told.

    ``cover``, ``breaker`` (the number of STGE bits 1-3), ``clock_degraded`` and ``message`` may be set at any time.
    """

    def __init__(self, profile: Profile, start: int, memory: Memory | None = None) -> None:
        if profile.phases not in (1, 3):
            raise ValueError(f"a meter has 1 or 3 phases, not {profile.phases}")
        self.profile = profile
        self.calendar = Calendar(profile.contract, seed=profile.seed, off_peak=profile.off_peak, zone=profile.zone)
        random = Random(f"meter {profile.seed}")  # noqa: S311  # a number plate, not a secret
        self.serial = profile.serial or serial_of(profile.seed, profile.phases)
        self.prm = f"{random.randrange(10**13, 10**14):014d}"
        self.cover = False
        self.breaker = 0
        self.clock_degraded = False
        self.message = ""
        self.now = start
        self._grain = self.calendar.grain * 60 * SECOND
        tariffs = len(_TARIFFS[profile.contract][2])
        ours = memory is not None and memory.serial == self.serial and len(memory.supplier) == tariffs
        self.memory = memory if memory is not None and ours else self._grown(random, tariffs)
        self._period = self.calendar.period(start)
        self._until = self._edge(start)
        # Parts of a Wh that are not counted yet, in watt (or var) microseconds.
        self._rest = self._rest_out = 0
        self._rest_reactive = [0, 0, 0, 0]
        count = profile.phases
        self.amperes: tuple[float, ...] = (0.0,) * count
        self.volts: tuple[float, ...] = (230.0,) * count
        self.watts = 0
        """Active power of all phases, negative when the house feeds in."""
        self._apparent = [0] * count
        self._overloaded: int | None = None
        self._measure(start)
        self._today = [Peak(0, start)] * (count + 1)
        evening = self.calendar.moment(self.calendar.local(start).date() - timedelta(1), 19 * 60) + random.randrange(3600) * SECOND
        highest = self.reference * random.randrange(400, 900)
        self._yesterday = [Peak(highest, evening)] + [Peak(highest // count, evening)] * count
        noon = evening - 6 * 3600 * SECOND
        self._out = (Peak(0, start), Peak(random.randrange(1500, 5000), noon))
        self._day_power = [0, highest * 97 // 100]  # highest active power of today and of yesterday
        self._volt_sums, self._volt_since = [0.0] * count, start
        self._mean_volts: tuple[tuple[int, ...], int] = (tuple(round(volt) for volt in self.volts), start - start % (600 * SECOND))
        half = start - start % (1800 * SECOND)
        self._curve = [(half - back * 1800 * SECOND, random.randrange(100, 900)) for back in (0, 1)]
        self._curve_out = [(end, 0) for end, _ in self._curve]
        self._curve_sums = [0, 0, start]
        self._short_until = 0

    @property
    def overloaded(self) -> bool:
        """Whether more is drawn than subscribed."""
        return self._overloaded is not None

    @property
    def period(self) -> Period:
        """The running tariff period."""
        return self._period

    # -- what happens to it

    def advance(self, at: int, amperes: Iterable[float]) -> None:
        """From its last moment until ``at`` (µs UTC) these amperes were drawn per phase (negative: fed in). A moment that is past changes nothing."""
        self.amperes = tuple(amperes)
        if len(self.amperes) != self.profile.phases:
            raise ValueError(f"{self.profile.phases} phases, {len(self.amperes)} currents")
        self._measure(self.now)
        while self.now < at:
            until = min(at, self._until)
            self._count(until - self.now)
            self.now = until
            if until == self._until:
                self._turn(until)
        self._measure(self.now)
        self._note_peaks()

    def _measure(self, at: int) -> None:
        """Voltages, powers and the overload that follow from the currents."""
        self.volts = tuple(self._voltage(number, ampere, at) for number, ampere in enumerate(self.amperes))
        # A household that draws is a little inductive; an inverter that feeds in is not.
        self.watts = sum(round(volt * ampere * (0.97 if ampere > 0 else 1.0)) for volt, ampere in zip(self.volts, self.amperes, strict=True))
        self._apparent = [round(volt * ampere) for volt, ampere in zip(self.volts, self.amperes, strict=True)]
        if self.profile.mode is Mode.HISTORIC:
            over = any(round(ampere) > self.profile.subscribed for ampere in self.amperes)
        else:
            over = self.drawn() > self.reference * 1000
        if over and self._overloaded is None:
            self._overloaded, self._short_until = at, at + 60 * SECOND
        elif not over:
            self._overloaded = None

    @property
    def reference(self) -> int:
        """Subscribed power in kVA: 200 V are counted per ampere."""
        return self.profile.subscribed * 200 * self.profile.phases // 1000

    def drawn(self) -> int:
        """Apparent power drawn, in VA; 0 while the house feeds in."""
        return max(0, sum(self._apparent)) if self.watts >= 0 else 0

    def injected(self) -> int:
        """Apparent power fed in, in VA; 0 while the house draws."""
        return max(0, -sum(self._apparent)) if self.watts < 0 else 0

    def _voltage(self, number: int, ampere: float, at: int) -> float:
        minute, rest = divmod(at // SECOND, 60)
        before, after = (_wander(self.profile.seed, number, minute + one) for one in (0, 1))
        hour = at // SECOND % 86_400 / 3600
        return 233.0 + 2.0 * math.sin(hour * math.pi / 12 + number) + before + (after - before) * rest / 60 - 0.07 * ampere

    def _count(self, duration: int) -> None:
        memory, period = self.memory, self._period
        if self.watts >= 0:
            energy, self._rest = divmod(self._rest + self.watts * duration, 3600 * SECOND)
            memory.supplier[period.register] += energy
            memory.distributor[period.distributor] += energy
        else:
            energy, self._rest_out = divmod(self._rest_out - self.watts * duration, 3600 * SECOND)
            memory.injected += energy
        # Drawing: motors (Q1), or at night only power supplies (Q4); feeding in: an inverter (Q3).
        quadrant, share = (2, 8) if self.watts < 0 else (0, 4) if self.watts > 300 else (3, 2)
        reactive, self._rest_reactive[quadrant] = divmod(self._rest_reactive[quadrant] + abs(self.watts) * duration // share, 3600 * SECOND)
        memory.reactive[quadrant] += reactive
        self._curve_sums[0] += max(0, self.watts) * duration
        self._curve_sums[1] += max(0, -self.watts) * duration
        for number, volt in enumerate(self.volts):
            self._volt_sums[number] += volt * duration

    def _turn(self, at: int) -> None:
        """A moment at which something may end: a tariff period, ten minutes, half an hour, a day."""
        self._period, self._until = self.calendar.period(at), self._edge(at)
        if at % (600 * SECOND) == 0:
            if at > self._volt_since:
                self._mean_volts = tuple(round(total / (at - self._volt_since)) for total in self._volt_sums), at
            self._volt_sums, self._volt_since = [0.0] * self.profile.phases, at
        if at % (1800 * SECOND) == 0:
            since = self._curve_sums[2]
            if at > since:
                self._curve = [(at, self._curve_sums[0] // (at - since)), self._curve[0]]
                self._curve_out = [(at, self._curve_sums[1] // (at - since)), self._curve_out[0]]
            self._curve_sums = [0, 0, at]
            local = self.calendar.local(at)
            if local.hour == 0 and local.minute == 0:
                self._yesterday, self._today = self._today, [Peak(0, at)] * (self.profile.phases + 1)
                self._out = (Peak(0, at), self._out[0])
                self._day_power = [0, self._day_power[0]]

    def _note_peaks(self) -> None:
        values = [self.drawn(), *(max(0, apparent) for apparent in self._apparent)]
        for number, value in enumerate(values):
            if value > self._today[number].value:
                self._today[number] = Peak(value, self.now)
        if self.injected() > self._out[0].value:
            self._out = (Peak(self.injected(), self.now), self._out[1])
        self._day_power[0] = max(self._day_power[0], self.watts)
        for number, ampere in enumerate(self.amperes):
            self.memory.highest[number] = max(self.memory.highest[number], round(abs(ampere)))

    def _edge(self, at: int) -> int:
        return (at // self._grain + 1) * self._grain

    def _grown(self, random: Random, tariffs: int) -> Memory:
        """Registers of a meter that hangs there for some years."""
        supplier = [random.randrange(800_000, 14_000_000) for _ in range(tariffs)]
        distributor = [0, 0, 0, 0]
        seasons = self.profile.contract in (Contract.HCHP, Contract.TEMPO)
        for number, energy in enumerate(supplier):
            winter = energy * random.randrange(45, 75) // 100 if seasons else 0
            distributor[number % 2 if seasons else 0] += energy - winter
            distributor[number % 2 + 2 if seasons else 0] += winter
        injected = random.randrange(2_000_000, 20_000_000) if self.profile.producer else 0
        reactive = [random.randrange(1_000, 900_000) for _ in range(4)] if self.profile.producer else [0] * 4
        return Memory(self.serial, supplier, distributor, injected, reactive, [1] * self.profile.phases)

    # -- what it says

    def frame(self) -> bytes:
        """What the TIC says now, from STX to ETX."""
        return encode(self.profile.mode, self.groups())

    def groups(self) -> list[Group]:
        """The same before it is encoded: all labels of the mode in the order of the field.

        A historic three-phase meter says short frames in the first minute of an overload: warning, address, currents.
        """
        if self.profile.mode is Mode.STANDARD:
            return [Group(label, value, horodate, mode=Mode.STANDARD) for label, value, horodate in self._standard()]
        if self.profile.phases == 3 and self._overloaded is not None and self.now < self._short_until:
            pairs = [*self._warnings(), ("ADCO", self.serial), *self._currents()]
        else:
            pairs = self._historic()
        return [Group(label, value, mode=Mode.HISTORIC) for label, value in pairs]

    def _currents(self) -> list[tuple[str, str]]:
        numbers = [""] if self.profile.phases == 1 else ["1", "2", "3"]
        return [(f"IINST{number}", f"{round(abs(ampere)):03d}") for number, ampere in zip(numbers, self.amperes, strict=True)]

    def _warnings(self) -> list[tuple[str, str]]:
        if self._overloaded is None:
            return []
        labels = ["ADPS"] if self.profile.phases == 1 else ["ADIR1", "ADIR2", "ADIR3"]
        return [
            (label, f"{round(ampere):03d}") for label, ampere in zip(labels, self.amperes, strict=True) if round(ampere) > self.profile.subscribed
        ]

    def _historic(self) -> list[tuple[str, str]]:
        profile, period, single = self.profile, self._period, self.profile.phases == 1
        option, _, tariffs = _TARIFFS[profile.contract]
        said = [("ADCO", self.serial), ("OPTARIF", option), ("ISOUSC", f"{profile.subscribed:02d}")]
        said += [(tariff[0], _nine(count)) for tariff, count in zip(tariffs, self.memory.supplier, strict=True)]
        if profile.contract is Contract.EJP and period.notice:
            found = self.calendar.peak(self.now)
            if found is not None and found[0] - self.now <= 1800 * SECOND:
                said.append(("PEJP", "30"))
        said.append(("PTEC", tariffs[period.register][1]))
        if profile.contract is Contract.TEMPO:
            said.append(("DEMAIN", _TOMORROW[period.tomorrow]))
        said += self._currents()
        said += [(f"IMAX{'' if single else number + 1}", f"{highest:03d}") for number, highest in enumerate(self.memory.highest)]
        said += self._warnings()
        if not single:
            said.append(("PMAX", f"{max(0, self._day_power[1]):05d}"))
        said.append(("PAPP", f"{round(self.drawn(), -1):05d}"))
        if profile.contract is not Contract.BASE:
            said.append(("HHPHC", "A"))
        said.append(("MOTDETAT", "000000"))
        if not single:
            said.append(("PPOT", "00"))
        return said

    def _standard(self) -> list[tuple[str, str, str]]:
        profile, memory, period, single = self.profile, self.memory, self._period, self.profile.phases == 1
        _, name, tariffs = _TARIFFS[profile.contract]
        phases = [""] if single else ["", "1", "2", "3"]
        supplier = memory.supplier + [0] * (10 - len(memory.supplier))
        said = [("ADSC", self.serial, ""), ("VTIC", "02", ""), ("DATE", "", self.horodate(self.now))]
        said += [("NGTF", f"{name:^16}", ""), ("LTARF", f"{tariffs[period.register][2]:^16}", "")]
        said += [("EAST", _nine(sum(memory.supplier)), "")]
        said += [(f"EASF{number + 1:02d}", _nine(count), "") for number, count in enumerate(supplier)]
        said += [(f"EASD{number + 1:02d}", _nine(count), "") for number, count in enumerate(memory.distributor)]
        if profile.producer:
            said.append(("EAIT", _nine(memory.injected), ""))
            said += [(f"ERQ{number + 1}", _nine(count), "") for number, count in enumerate(memory.reactive)]
        said += [(f"IRMS{number + 1}", f"{round(abs(ampere)):03d}", "") for number, ampere in enumerate(self.amperes)]
        said += [(f"URMS{number + 1}", f"{round(volt):03d}", "") for number, volt in enumerate(self.volts)]
        said += [("PREF", f"{self.reference:02d}", ""), ("PCOUP", f"{self.reference:02d}", "")]
        apparent = [self.drawn(), *(max(0, one) for one in self._apparent)]
        said += [(f"SINSTS{phase}", f"{apparent[number]:05d}", "") for number, phase in enumerate(phases)]
        for suffix, peaks in (("", self._today), ("-1", self._yesterday)):
            said += [
                (f"SMAXSN{phase}{suffix}", f"{peaks[number].value:05d}", self.horodate(peaks[number].time)) for number, phase in enumerate(phases)
            ]
        if profile.producer:
            said.append(("SINSTI", f"{self.injected():05d}", ""))
            said += [(f"SMAXIN{suffix}", f"{peak.value:05d}", self.horodate(peak.time)) for suffix, peak in zip(("", "-1"), self._out, strict=True)]
        for label, points in (("CCASN", self._curve), ("CCAIN", self._curve_out)) if profile.producer else (("CCASN", self._curve),):
            said += [(label + suffix, f"{power:05d}", self.horodate(end)) for suffix, (end, power) in zip(("", "-1"), points, strict=True)]
        means, end = self._mean_volts
        said += [(f"UMOY{number + 1}", f"{volt:03d}", self.horodate(end)) for number, volt in enumerate(means)]
        said.append(("STGE", f"{self.status():08X}", ""))
        if profile.contract is Contract.EJP and (found := self.calendar.peak(self.now)) is not None:
            # The season of a date in the future is left out, as meters in the field do.
            said += [(label, "00", " " + self.horodate(at)[1:]) for label, at in zip(("DPM1", "FPM1"), found, strict=True)]
        said.append(("MSG1", f"{self.message or 'PAS DE          MESSAGE':<32}"[:32], ""))
        said += [("PRM", self.prm, ""), ("RELAIS", f"{int(period.off_peak):03d}", ""), ("NTARF", f"{period.register + 1:02d}", "")]
        said += [("NJOURF", f"{self._day_number(period.today, period.peak):02d}", "")]
        said += [("NJOURF+1", f"{self._day_number(period.tomorrow, period.notice):02d}", ""), ("PJOURF+1", self._tomorrow(), "")]
        if profile.contract is Contract.EJP:
            said.append(("PPOINTE", _blocks([(0, 0, True), (7 * 60, 1, False)]), ""))
        return said

    def status(self) -> int:
        """STGE (STGE.md): 32 bits."""
        period = self._period
        return (
            (0 if period.off_peak else 1)
            | self.breaker << 1
            | self.cover << 4
            | any(volt > 253 for volt in self.volts) << 6
            | (self.drawn() > self.reference * 1000) << 7
            | self.profile.producer << 8
            | (self.watts < 0) << 9
            | period.register << 10
            | period.distributor << 14
            | self.clock_degraded << 16
            | (self.profile.mode is Mode.STANDARD) << 17
            | 3 << 19  # Euridis enabled with security
            | 1 << 21  # power line communication: new, lock, as in the captured frames
            | period.today << 24
            | period.tomorrow << 26
            | period.notice << 28
            | period.peak << 30
        )

    def horodate(self, at: int) -> str:
        """``E220901163656``: the season's letter (a small one while the clock is degraded) and local time."""
        local = self.calendar.local(at)
        letter = "E" if local.dst() else "H"
        return f"{letter.lower() if self.clock_degraded else letter}{local:%y%m%d%H%M%S}"

    @staticmethod
    def _day_number(colour: int, peak: bool) -> int:
        return colour or int(peak)

    def _tomorrow(self) -> str:
        """PJOURF+1: the profile of tomorrow as far as it is known."""
        local = self.calendar.local(self.now)
        if local.hour * 60 + local.minute < ANNOUNCED:
            # What is not announced yet is taken to be an ordinary day; the night before it belongs to the day that runs.
            if self.profile.contract is Contract.TEMPO:
                night = 2 * ((self._period.tomorrow or self._period.today) - 1)
                return _blocks([(0, night, True), (6 * 60, 1, False), (22 * 60, 0, True)])
            if self.profile.contract is Contract.EJP:
                return _blocks([(0, 1, False), (60, 0, True)] if self.calendar.peak_day(local.date()) else [(0, 0, True)])
        return _blocks(self.calendar.profile(local.date() + timedelta(1)))


def _nine(count: int) -> str:
    """A register: nine digits, then it begins again."""
    return f"{count % 1_000_000_000:09d}"


def _blocks(blocks: Sequence[tuple[int, int, bool]]) -> str:
    """A profile: HHMM, then the contact (C closed, 8 open) and the register; eleven blocks, NONUTILE where there is none."""
    used = [f"{minute // 60:02d}{minute % 60:02d}{(0xC000 if closed else 0x8000) | register + 1:04X}" for minute, register, closed in blocks]
    return " ".join([*used, *["NONUTILE"] * 11][:11])


@lru_cache(maxsize=256)
def _wander(seed: int, phase: int, minute: int) -> float:
    return Random(f"volt {seed} {phase} {minute}").uniform(-1.5, 1.5)  # noqa: S311  # a voltage, not a secret
