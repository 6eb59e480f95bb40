"""Is this receipt genuine, and does it hold: the signature, each law-relevant check by name, the energy, and what the official tool says.

Stands on FACTS §4.5 and the text of OCMF: what the official tool leaves out (pagination, the same meter in both records, intermediate readings)
is checked here, too; ``Verdict.safe`` says what the tool would say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from gridloom.core.errors import Unsupported
from gridloom.integrations.everest import algorithms, safe
from gridloom.integrations.everest.algorithms import Algorithm
from gridloom.integrations.everest.fields import BAD_LEVELS, ENERGY, REASONS, STATUSES, TIMES, register
from gridloom.integrations.everest.keys import PublicKey, WrongKey, public_key
from gridloom.integrations.everest.ocmf import LENIENCIES, NOTICE, Reading, Record, difference

Outcome = Literal["valid", "invalid", "unchecked"]
Key = PublicKey | bytes | str


class Check(NamedTuple):
    """One question, whether the answer is good, and what was seen."""

    name: str
    ok: bool
    detail: str


class Verdict(NamedTuple):
    """The answer. ``energy_wh`` exactly, None when the record does not say one."""

    signature: Outcome
    checks: tuple[Check, ...]
    energy_wh: Decimal | None
    safe: safe.SafeVerdict

    @property
    def holds(self) -> bool:
        """The signature is valid and every check holds."""
        return self.signature == "valid" and all(check.ok for check in self.checks)

    def to_json(self) -> str:
        """``{"signature", "checks", "energy_wh", "safe"}`` on one line; the energy keeps its digits."""
        checks = json.dumps([check._asdict() for check in self.checks])
        energy = "null" if self.energy_wh is None else plain(self.energy_wh)
        return f'{{"signature": "{self.signature}", "checks": {checks}, "energy_wh": {energy}, "safe": {json.dumps(self.safe._asdict())}}}'


def plain(number: Decimal) -> str:
    """Digits without an exponent, without zeros at the end."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Seal(NamedTuple):
    """What can be said of one signature: the outcome and why, and the key that was used."""

    outcome: Outcome
    detail: str
    key: PublicKey | None


def seal(record: Record, key: Key | None) -> Seal:
    """Check the signature of a record with a key in any form (``keys.public_key``); without one, with the key in its fourth section."""
    algorithm = record.signature.algorithm
    material = key if key is not None else record.key
    if algorithm is None:
        return Seal("unchecked", f"{record.signature.name[:60]!r} is no algorithm of OCMF; it has {', '.join(algorithms.BY_NAME)}", _any(material))
    if material is None:
        return Seal("unchecked", "no public key is given", None)
    try:
        algorithms.usable(algorithm)
        found = material if isinstance(material, PublicKey) else public_key(material, algorithm)
        matches = signature_matches(record, found)
    except (WrongKey, Unsupported) as error:
        return Seal("unchecked", error.message, _any(material))
    if matches:
        return Seal("valid", f"{algorithm.name} with the key {found.fingerprint}", found)
    how = "the text was changed, or this is another meter's key" if algorithms.is_der(record.signature.der) else "SD holds no signature"
    return Seal("invalid", f"it does not match the key {found.fingerprint} (right form, right curve): {how}", found)


def _any(material: Key | None) -> PublicKey | None:
    """The key by itself, whatever the record is; None when it cannot be read."""
    if material is None or isinstance(material, PublicKey):
        return material
    try:
        return public_key(material)
    except (WrongKey, Unsupported):
        return None


def signature_matches(record: Record, key: PublicKey) -> bool:
    """Only the signature. Raises WrongKey when the record is on another curve."""
    algorithm = record.signature.algorithm
    if algorithm is not key.algorithm:
        signed_on = record.signature.name[:60] if algorithm is None else algorithm.short
        raise WrongKey("curve", f"the key is on {key.algorithm.short}, the record was signed on {signed_on}")
    return algorithms.valid(key.key, record.signature.der, record.payload)


def verify(
    record: Record,
    key: Key | None = None,
    *,
    begin: Record | None = None,
    begin_key: Key | None = None,
    beside: bool = False,
    trust_enclosed: bool = False,
) -> Verdict:
    """Judge a record, or the two records of a transaction: ``begin`` the first one (``begin_key``: its own key, without it the same).

    ``beside``: the keys came in the same document as the records, not from somebody who knows the meter. ``trust_enclosed``: a key inside
    a record itself is good enough. Never raises for what the records or keys say.
    """
    other = begin_key if begin_key is not None else key
    seals = [seal(record, key)] if begin is None else [seal(begin, other), seal(record, key)]
    records = [record] if begin is None else [begin, record]
    checks = [Check("signature", one.outcome == "valid", one.detail) for one in seals]
    checks += _key_source(records, [key] if begin is None else [other, key], beside, trust_enclosed)
    transaction = _Transaction(records)
    checks += transaction.checks()
    checks += [Check(f"leniency:{one.name}", True, _lenient(one.path, one.name, one.detail)) for one in _all(records)]
    checks.append(Check("notice", True, NOTICE))
    outcomes = [one.outcome for one in seals]
    worst: Outcome = "invalid" if "invalid" in outcomes else "unchecked" if "unchecked" in outcomes else "valid"
    parties = [_party(one, found) for one, found in zip(records, seals, strict=True)]
    return Verdict(worst, tuple(checks), transaction.energy(), safe.judge(parties[-1], parties[0] if begin is not None else None))


def _key_source(records: Sequence[Record], given: Sequence[Key | None], beside: bool, trust_enclosed: bool) -> list[Check]:
    """Where the keys came from, the weakest source of all records; nothing when a record has no key at all.

    A fourth section is no part of the format any more, so a key there convinces nobody by itself; beside the record in XML and OCPP is
    where the official tool takes it from.
    """
    name = "key-source"
    if any(key is None and record.key is None for record, key in zip(records, given, strict=True)):
        return []
    if None in given:
        told = "trusted because it was so ordered" if trust_enclosed else "give --key, or trust it with --trust-enclosed"
        return [Check(name, trust_enclosed, f"the key came inside the record, which says nothing about whose it is; {told}")]
    if beside:
        return [Check(name, True, "the key stood beside the record: nothing was changed since, but whose key it is, is not shown; compare it")]
    return [Check(name, True, "the key was given, not taken from the receipt")]


def _all(records: Sequence[Record]) -> Iterable[Any]:
    return (one for record in records for one in record.leniencies)


def _lenient(path: str, name: str, detail: str) -> str:
    return f"{path}: {LENIENCIES[name]}" + (f": {detail}" if detail else "")


def _party(record: Record, found: Seal) -> safe.Party:
    def valid(algorithm: Algorithm) -> bool:
        if record.signature.algorithm is algorithm:
            return found.outcome == "valid"
        return found.key is not None and algorithms.valid(found.key.key, record.signature.der, record.payload)

    return safe.Party(record, found.key, found.detail, valid)


class _Transaction:
    """The law-relevant readings of one or two records, and what is asked of them."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.fiscal = all(record.context == "F" for record in records)
        readings = [reading for record in records for reading in record.readings]
        valued = [one for one in readings if one.RV is not None]
        relevant = [one for one in valued if register(one.RI).relevant]
        compensated = [one for one in relevant if register(one.RI).compensated]
        self.readings = readings
        self.relevant = compensated or relevant or (valued if self.fiscal else [])
        self.begins = [one for one in self.relevant if one.begins]
        self.ends = [one for one in self.relevant if one.ends]
        self.bounds = [self.begins[0], self.ends[0]] if len(self.begins) == len(self.ends) == 1 else []

    def checks(self) -> list[Check]:
        """Every law-relevant check that can be made."""
        found = [self.pagination(), self.same_meter()]
        if not self.fiscal:
            found.insert(0, self.begin_and_end())
            found.append(self.identification_level())
        if self.relevant:
            found += [self.units(), self.values(), self.time_order(), self.time_status(), self.meter_status(), self.error_flags()]
        if self.bounds:
            found.append(self.register())
        if self.bounds and any(one.EI is not None for one in self.bounds):
            found.append(self.event_counter())
        return found

    def energy(self) -> Decimal | None:
        """Wh from begin to end; None when it cannot be said."""
        if not self.bounds:
            return None
        begin, end = (one.energy_wh for one in self.bounds)
        if begin is None or end is None or end < begin or not self.register().ok:
            return None
        return difference(end, begin)

    def begin_and_end(self) -> Check:
        name = "begin-and-end"
        if not self.relevant:
            seen = ", ".join(sorted({one.RI or "none" for one in self.readings}))
            return Check(name, False, f"no reading is of a register that the law cares about (RI: {seen[:100]})")
        if len(self.records) == 2:
            if any(one.ends for one in self.records[0].readings):
                return Check(name, False, "the begin record holds an end")
            if any(one.begins for one in self.records[1].readings):
                return Check(name, False, "the end record holds a begin")
        if not self.bounds:
            hint = "; its begin is another record: name it with --begin" if len(self.records) == 1 and self.ends and not self.begins else ""
            return Check(name, False, f"expected exactly one begin and one end, found {len(self.begins)} and {len(self.ends)}{hint}")
        return Check(name, True, f"begin, and {REASONS[self.bounds[1].TX or 'E']}")

    def pagination(self) -> Check:
        name, pages = "pagination", [record.text("PG") for record in self.records]
        said = " and ".join(page[:40] if page is not None else "none" for page in pages)
        numbers = [record.page for record in self.records]
        contexts = {record.context for record in self.records}
        if None in numbers or len(contexts) > 1 or not contexts <= {"T", "F"}:
            return Check(name, False, f"expected T or F and a number, got {said}")
        first, last = numbers[0], numbers[-1]
        ok = len(numbers) == 1 or (first is not None and last is not None and first < last)
        return Check(name, ok, said if ok else f"expected a higher number at the end, got {said}")

    def same_meter(self) -> Check:
        meters = [(record.text("MS"), record.text("GS")) for record in self.records]
        said = " and ".join(f"MS {serial or '-'}, GS {gateway or '-'}" for serial, gateway in dict.fromkeys(meters))[:200]
        return Check("same-meter", any(meters[0]) and len(set(meters)) == 1, said)

    def identification_level(self) -> Check:
        levels = [(record.text("IL") or "").strip() for record in self.records]
        return Check(
            "identification-level", not BAD_LEVELS.intersection(levels), " and ".join(dict.fromkeys(level[:40] or "none" for level in levels))
        )

    def register(self) -> Check:
        names = [(one.RI or "").strip().lower() for one in self.bounds]
        return Check("register", len(set(names)) == 1, " and ".join(dict.fromkeys(name[:40] for name in names)))

    def units(self) -> Check:
        units = dict.fromkeys(one.RU or "none" for one in self.relevant)
        ok = all(unit.strip().lower() in ENERGY for unit in units)
        return Check("units", ok, ", ".join(units)[:100] + ("" if ok else "; expected Wh or kWh"))

    def values(self) -> Check:
        last: dict[str, Decimal] = {}
        for one in self.relevant:
            name, value = (one.RI or "").strip().lower(), one.energy_wh
            if value is not None and value < last.get(name, value):
                return Check("values", False, f"the register goes backwards: {one.RV} {one.RU} after {plain(last[name])} Wh")
            if value is not None:
                last[name] = value
        return Check("values", True, " to ".join(f"{one.RV} {one.RU}" for one in (self.bounds or self.relevant[-1:])))

    def time_order(self) -> Check:
        times = [one.moment.time for one in self.relevant]
        if None in times:
            return Check("time-order", False, "a reading has no time, or one that cannot be read")
        ok = all(earlier <= later for earlier, later in pairwise(times) if earlier is not None and later is not None)
        return Check("time-order", ok, f"{self.relevant[0].TM} to {self.relevant[-1].TM}"[:120])

    def time_status(self) -> Check:
        letters = [one.moment.status for one in (self.bounds or self.relevant)]
        ok = all(letter in TIMES for letter in letters) and not (letters[0] == "R" and set(letters) != {"R"})
        return Check("time-status", ok, " and ".join(TIMES.get(letter or "", "none") for letter in dict.fromkeys(letters)))

    def meter_status(self) -> Check:
        bad = [one.ST for one in self.relevant if one.ST != "G"]
        said = "missing" if bad and bad[0] is None else STATUSES.get((bad[0] or "").strip(), "unknown") if bad else STATUSES["G"]
        return Check("meter-status", not bad, said)

    def error_flags(self) -> Check:
        name = "error-flags"
        if any("E" in (one.EF or "") for one in self.relevant):
            return Check(name, False, "E: the energy is not reliable")
        if any(one.TX == "X" for one in self.relevant):
            return Check(name, False, "X: an error during the transaction; what was read from then on does not count")
        return Check(name, True, "t: the time is not reliable" if any("t" in (one.EF or "") for one in self.relevant) else "none")

    def event_counter(self) -> Check:
        begin, end = (None if one.EI is None else Decimal(one.EI) for one in self.bounds)
        return Check("event-counter", begin == end, f"{begin} and {end}")


def reading_line(reading: Reading) -> str:
    """A reading in words."""
    what = REASONS.get(reading.TX or "", "-")
    value = "-" if reading.RV is None else f"{reading.RV} {reading.RU or ''}".rstrip()
    rest = [f"loss {reading.CL}" if reading.CL is not None else "", f"flags {reading.EF}" if reading.EF else ""]
    state = STATUSES.get(reading.ST or "", reading.ST or "no status")
    return "  ".join(part for part in (reading.TM or "no time", what, value, reading.RI or "no register", state, *rest) if part)
