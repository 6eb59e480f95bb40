"""S.A.F.E.: the transport XML of the official transparency software, and the verdict that its version 1.4.1 gives (FACTS §4.4, §4.5).

The verdict follows the tool, not the format: where the two differ (no carried RI, no pagination, FV 1.4 refused) the reader is told what the
driver of the car will see who checks his receipt with the official tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from gridloom.core.errors import InvalidInput
from gridloom.integrations.everest import algorithms
from gridloom.integrations.everest.algorithms import Algorithm
from gridloom.integrations.everest.fields import BAD_LEVELS, ENDS, register
from gridloom.integrations.everest.keys import SAFE_FORMS, PublicKey
from gridloom.integrations.everest.ocmf import NOTICE, Malformed, Reading, Record

VERSION = "1.4.1"
LOWEST, HIGHEST = 0.1, 1.3
"""The versions of the format that the tool takes: its constant says 1.4, a second test stops at 1.3."""


class SafeVerdict(NamedTuple):
    """What the tool says, and why."""

    verified: bool
    reason: str


class Party(NamedTuple):
    """A record, its key (None: none, or unreadable; ``trouble`` says why), and what verifies its signature on a given row of the algorithms."""

    record: Record
    key: PublicKey | None
    trouble: str
    valid: Callable[[Algorithm], bool]


def judge(party: Party, begin: Party | None = None) -> SafeVerdict:
    """The verdict on a record, or on the two records of a transaction (FACTS §4.5, 1-5)."""
    for one in (party,) if begin is None else (begin, party):
        refusal = _alone(one)
        if refusal:
            return SafeVerdict(False, refusal)
    record = party.record
    if begin is not None:
        if any(_is(reading, ENDS) for reading in begin.record.readings):
            return SafeVerdict(False, "the start record holds an end reading")
        if any(_is(reading, {"B"}) for reading in record.readings):
            return SafeVerdict(False, "the end record holds a begin reading")
        return _law((begin.record, record))
    if record.text("PG") is None:
        return SafeVerdict(False, "PG is missing: the tool breaks off")
    complete = any(_is(one, {"B"}) for one in record.readings) and any(_is(one, ENDS) for one in record.readings)
    if record.context != "T" or not complete:
        return SafeVerdict(
            True, "the signature is valid; a record without both begin and end of a transaction is not checked further" + _ascii(record)
        )
    return _law((record,))


def _alone(party: Party) -> str:
    """Why the tool refuses a record by itself; empty when it does not."""
    record, signature = party.record, party.record.signature
    version = record.text("FV")
    try:
        number = float(version) if version is not None else None
    except ValueError:
        number = None
    if number is None or not LOWEST <= number <= HIGHEST:
        return f"FV is {'missing' if version is None else version[:20]}; the tool takes {LOWEST} to {HIGHEST}"
    algorithm = algorithm_of(algorithms.DEFAULT if signature.inside else signature.name)
    if algorithm is None:
        return f"the tool does not know the algorithm {signature.name[:60]}"
    if signature.encoding not in ("hex", "base64"):
        return f"SE is {signature.encoding[:20]!r}; the tool takes hex and base64"
    names = {one.name: one.detail for one in record.leniencies if one.name in ("signature-encoding", "raw-signature")}
    if names.get("signature-encoding", "with blanks") != "with blanks":
        return "SD is not encoded as SE says"
    if "raw-signature" in names:
        return "SD is r and s one behind the other; the tool takes DER"
    if algorithm.curve is None:
        return f"not known: the tool checks {algorithm.short}, which is not supported here"
    if party.key is None:
        return party.trouble
    if party.key.form not in SAFE_FORMS:
        return f"the tool takes a key as SPKI only; this one is a {party.key.form}"
    if party.key.algorithm is not algorithm:
        return f"the key is on {party.key.algorithm.short}; the tool reads it as a point of {algorithm.short}"
    return "" if party.valid(algorithm) else "the signature does not match"


def algorithm_of(name: str) -> Algorithm | None:
    """The row that the tool takes for an SA: three parts, ECDSA first, the curve in any case; the hash is SHA-256 whatever the third part says."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] != "ECDSA":
        return None
    return algorithms.find(f"ECDSA-{parts[1].lower()}-SHA256")[0]


def _ascii(*records: Record) -> str:
    if all(record.payload.isascii() for record in records):
        return ""
    return "; the text is not ASCII: only where the tool runs with UTF-8"


def _is(reading: Reading, reasons: Iterable[str]) -> bool:
    """The tool does not carry TX."""
    return "TX" in reading.written and (reading.TX or "").strip() in reasons


def _law(records: Sequence[Record]) -> SafeVerdict:
    """The law check on the relevant readings (FACTS §4.5, 4)."""
    readings = [reading for record in records for reading in record.readings]
    relevant = [one for one in readings if "RI" in one.written and register(one.RI).relevant]
    compensated = [one for one in relevant if register(one.RI).compensated]
    relevant = compensated or relevant
    begins = [one for one in relevant if _is(one, {"B"})]
    ends = [one for one in relevant if _is(one, ENDS)]
    reason = _count(len(begins), "start") or _count(len(ends), "stop") or _missing(relevant)
    if not reason:
        levels = [record.text("IL") for record in records]
        reason = _order(begins[0], ends[0]) or _state(begins[0], ends[0], levels) or _flags(begins[0], ends[0], float(records[-1].fields["FV"]))
    return SafeVerdict(not reason, reason or "the signature is valid and the law checks hold" + _ascii(*records))


def _count(number: int, what: str) -> str:
    return "" if number == 1 else f"no {what} values" if number == 0 else f"multiple {what} values"


def _missing(relevant: Sequence[Reading]) -> str:
    return next((f"{key} is missing in the first reading" for key in ("ST", "RU") for one in relevant if getattr(one, key) is None), "")


def _order(begin: Reading, end: Reading) -> str:
    if begin.RV is None or end.RV is None:
        return "RV is missing: the tool breaks off"
    if float(begin.RV) > float(end.RV):  # bare numbers, whatever their units
        return "the start value is higher than the stop value"
    times = [one.moment.time for one in (begin, end) if "TM" in one.written and _EXACT_TIME.match(one.TM or "") is not None]
    first, last = times if len(times) == 2 else (None, None)
    return "the start time is after the stop time" if first is not None and last is not None and first > last else ""


_EXACT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}[+-]\d{4} ", re.ASCII)
"""The only form of time that the tool compares."""


def _state(begin: Reading, end: Reading, levels: Sequence[str | None]) -> str:
    bad = next((level for level in levels if level is not None and level.strip() in BAD_LEVELS), None)
    if bad is not None:
        return f"the identification level is {bad.strip()}"
    if begin.ST != "G" or end.ST != "G":
        return f"the meter status is {begin.ST} and {end.ST}"
    first, last = _letter(begin), _letter(end)
    if first is None or (first == "R" and last != "R"):
        return "the start has no time status" if first is None else "the time is relative at the start only"
    return ""


def _flags(begin: Reading, end: Reading, version: float) -> str:
    """Error flags came with 0.5; before, there was a counter of events."""
    if version < 0.5:
        counter = begin.EI if "EI" in begin.written else None
        return "the event counters differ" if "EI" in end.written and counter != end.EI else ""
    energy = any("EF" in one.written and "E" in (one.EF or "") for one in (begin, end))
    return "the error flag for energy is set" if energy else ""


def _letter(reading: Reading) -> str | None:
    """What stands behind the first blank of TM."""
    parts = (reading.TM or "").split(" ") if "TM" in reading.written else []
    return parts[1] if len(parts) > 1 else None


# ------------------------------------------------------------------------------------------------------------------------- XML


class Value(NamedTuple):
    """One ``<value>``: a signed record, as text or encoded, and the key that stands beside it. ``line`` where it begins."""

    record: str
    key: str | None = None
    transaction: str | None = None
    context: str | None = None
    line: int = 0


BEGIN, END = "Transaction.Begin", "Transaction.End"
_WANTED = {"signedData": "record", "encodedData": "record", "publicKey": "key"}


class _Collector:
    """Takes the elements as expat tells them; nothing else of the document is kept."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.depth = 0
        self.into: str | None = None
        self.attributes: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.line = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text
        # Without a document type there are no entities but the five of XML itself: nothing can be fetched and nothing can grow.
        self.parser.StartDoctypeDeclHandler = self.refuse

    def refuse(self, *_: object) -> None:
        raise Malformed(f"byte {self.parser.CurrentByteIndex}", "a document type is not allowed here")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth == 1 and name != "values":
            raise Malformed(f"byte {self.parser.CurrentByteIndex}", f"expected <values>, got <{name[:40]}>")
        if self.depth == 2 and name == "value":
            self.attributes, self.texts, self.line = attributes, {}, self.parser.CurrentLineNumber
        elif self.depth == 3 and name in _WANTED:
            self.into = _WANTED[name]
            self.texts.setdefault(self.into, "")

    def text(self, data: str) -> None:
        if self.into is not None:
            self.texts[self.into] += data

    def end(self, name: str) -> None:
        if self.depth == 3:
            self.into = None
        elif self.depth == 2 and name == "value" and self.texts.get("record", "").strip():
            key = self.texts.get("key", "").strip() or None
            # Some writers spell the I of transactionId as a small L.
            number = self.attributes.get("transactionId", self.attributes.get("transactionld"))
            self.values.append(Value(self.texts["record"].strip(), key, number, self.attributes.get("context"), self.line))
        self.depth -= 1


def read_xml(data: bytes) -> list[Value]:
    """The signed values of a transport document. Raises Malformed with the byte offset; document types and entities are refused."""
    collector = _Collector()
    try:
        collector.parser.Parse(data, True)
    except Malformed:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two: an encoding that Python does not know, or expat cannot use
        reason = expat.ErrorString(error.code) if isinstance(error, expat.ExpatError) else str(error)[:100]
        raise Malformed(f"byte {max(collector.parser.ErrorByteIndex, 0)}", f"no XML: {reason}") from None
    if not collector.values:
        raise Malformed("byte 0", "the document holds no <value> with <signedData>")
    return collector.values


def exported(transaction: Mapping[str, Any]) -> list[Value]:
    """The signed records of a transaction as the hub's API gives it. ``data`` holds ``record`` (the one that ends it) and ``public_key`` (SPKI in
    hexadecimal digits); ``begin_record`` if its begin was signed by itself, with ``begin_public_key`` if that was another key.

    Raises InvalidInput when nothing was signed.
    """
    data = transaction.get("data", {})
    record, begin, key = (data.get(name) for name in ("record", "begin_record", "public_key"))
    if not isinstance(record, str) or not record.startswith("OCMF|"):
        raise InvalidInput(f"transaction {str(transaction.get('id'))[:60]} of {str(transaction.get('device'))[:60]} has no signed record")
    # The tool takes numbers only as ids; within one document any number will do.
    last = Value(record, key, "1", END)
    return [Value(begin, data.get("begin_public_key", key), "1", BEGIN), last] if isinstance(begin, str) else [last]


_RETURN = {"\r": "&#13;"}
"""A bare carriage return would be read back as a line feed, and the signature would be lost."""


def to_xml(values: Sequence[Value]) -> str:
    """The transport document of these records, as the tool opens it. ``key`` as hexadecimal digits of the SPKI."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<!-- {NOTICE} -->", "<values>"]
    for one in values:
        attributes = "".join(
            f" {name}={quoteattr(text)}" for name, text in (("transactionId", one.transaction), ("context", one.context)) if text is not None
        )
        lines.append(f"  <value{attributes}>")
        lines.append(f'    <signedData format="OCMF" encoding="plain">{escape(one.record, _RETURN)}</signedData>')
        if one.key is not None:
            lines.append(f'    <publicKey encoding="hex">{escape(one.key)}</publicKey>')
        lines.append("  </value>")
    return "\n".join([*lines, "</values>", ""])
