"""Signed records in whatever they are handed on: raw OCMF, lines of many records, S.A.F.E. XML, OCPP SignedData (1.6 and 2.x), EVerest replies.

Nothing is judged here: what is found goes on to ``ocmf.parse`` and ``verification.verify``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from gridloom.core.errors import Unsupported
from gridloom.integrations.everest.keys import WrongKey, public_key
from gridloom.integrations.everest.ocmf import Malformed, split, unwrap
from gridloom.integrations.everest.safe import BEGIN, END, read_xml

MOST_DEPTH = 100
MOST_FILE = 256 * 1024 * 1024
"""Bytes of one file; some 380,000 records."""


class Found(NamedTuple):
    """One record as it was found: the text or its encoding, the key beside it, and where (``line 3``, ``$.meterValue[0]…``).

    ``official``: it stands in the transport document of the official tool, which puts begin and end together whatever they hold.
    """

    record: bytes
    key: str | None = None
    transaction: str | None = None
    context: str | None = None
    where: str = ""
    official: bool = False


class Claim(NamedTuple):
    """What is judged together: a record by itself, or the end of a transaction and its begin."""

    record: Found
    begin: Found | None = None


def load(file: BinaryIO) -> bytes:
    """All of a file, if it is not too large. Raises Malformed, OSError."""
    data = file.read(MOST_FILE + 1)
    if len(data) > MOST_FILE:
        raise Malformed(f"byte {MOST_FILE}", f"a file has at most {MOST_FILE} bytes; split it")
    return data


def read(data: bytes) -> list[Found]:
    """Every record of a document. Raises Malformed when there is none; a record that is not OCMF is found by whoever parses it."""
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return [Found(one.record.encode(), one.key, one.transaction, one.context, f"line {one.line}", True) for one in read_xml(start)]
    if start[:1] in b"{[" and start:
        return _json(start)
    return _lines(start)


def claims(found: Iterable[Found]) -> list[Claim]:
    """Put begin and end of a transaction together, as the official tool does: the same transaction, one of each context, nothing else of it.

    In an OCPP message an end that already holds its begin stands alone: chargers whose meters write both still send the begin record before.
    """
    groups: dict[str, list[Found]] = {}
    for one in found:
        groups.setdefault(one.transaction if one.transaction is not None else f"{one.where}\n", []).append(one)
    made: list[Claim] = []
    for group in groups.values():
        begins, ends = ([one for one in group if one.context == context] for context in (BEGIN, END))
        if len(group) == 2 and len(begins) == len(ends) == 1 and (ends[0].official or not _holds_begin(ends[0])):
            made.append(Claim(ends[0], begins[0]))
        else:
            made += [Claim(one) for one in group]
    return made


_BEGIN_READING = re.compile(rb'"TX"\s*:\s*"\s*B\s*"')


def _holds_begin(found: Found) -> bool:
    return _BEGIN_READING.search(unwrap(found.record)[0]) is not None


# ------------------------------------------------------------------------------------------------------------------------ lines


_RECORD = re.compile(rb"^OCMF\|", re.MULTILINE)


def _lines(data: bytes) -> list[Found]:
    """One record, also over several lines, or many, each beginning on a line of its own; or a line of digits for each.

    What stands between records is found as an item of its own, so that it spoils none of them.
    """
    starts = [match.start() for match in _RECORD.finditer(data)]
    if starts:
        bounds = starts if starts[0] == 0 else [0, *starts]
        cut = zip(bounds, [*bounds[1:], len(data)], _line_numbers(data, bounds), strict=True)
        return [one for start, end, line in cut for one in _parted(data[start:end].rstrip(), line)]
    lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    if len(lines) > 1:
        unwrapped = [unwrap(line) for _, line in lines]
        if all(encoded for _, encoded in unwrapped) or any(_whole(record) for record, encoded in unwrapped if encoded):
            return [Found(line, where=f"line {number}") for number, line in lines]
    return [Found(data.rstrip(), where="line 1")]


def _parted(part: bytes, line: int) -> Iterator[Found]:
    """A record, and what follows it when its first line is already a whole one."""
    first, _, rest = part.partition(b"\n")
    behind = rest.lstrip()
    if behind and not behind.startswith(b"|") and _whole(first.rstrip()):
        yield Found(first.rstrip(), where=f"line {line}")
        blank = rest[: len(rest) - len(behind)].count(b"\n")
        yield Found(behind, where=f"line {line + 1 + blank}")
    else:
        yield Found(part, where=f"line {line}")


def _whole(record: bytes) -> bool:
    """Nothing more can belong to it: its signature section is complete, and its key, if it has one."""
    try:
        frame = split(record)
        complete = isinstance(json.loads(frame.signature), dict)
        if frame.key is not None:
            public_key(frame.key)
    except (Malformed, WrongKey, Unsupported, ValueError, RecursionError):
        return False
    return complete


def _line_numbers(data: bytes, starts: list[int]) -> Iterator[int]:
    line, seen = 1, 0
    for start in starts:
        line += data.count(b"\n", seen, start)
        seen = start
        yield line


# ------------------------------------------------------------------------------------------------------------------------- JSON


_DATA = ("signedMeterData", "signed_meter_data")
_KEY = ("publicKey", "public_key")
_CONTEXTS = {"start_signed_meter_value": BEGIN, "signed_meter_value": END}


def _json(data: bytes) -> list[Found]:
    try:
        document = json.loads(data)
    except json.JSONDecodeError as error:
        raise Malformed(f"byte {len(error.doc[: error.pos].encode())}", f"no JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"byte {error.start}", "not UTF-8") from None
    except (RecursionError, ValueError):  # ValueError: a number of more digits than Python takes
        raise Malformed("byte 0", "no JSON that can be read: nested too deeply, or a number is too long") from None
    found = list(_walk(document, "$", None, None, 0))
    if not found:
        raise Malformed("$", "no signedMeterData, and no value with the format SignedData")
    return found


def _walk(value: Any, path: str, context: str | None, transaction: str | None, depth: int) -> Iterator[Found]:
    """Objects with ``signedMeterData`` (OCPP 2.x, EVerest), sampled values of the format SignedData (OCPP 1.6); the context of the object around."""
    if depth > MOST_DEPTH:
        raise Malformed(path[:200], "nested too deeply")
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _walk(one, f"{path}[{index}]", context, transaction, depth + 1)
        return
    if not isinstance(value, dict):
        return
    if isinstance(value.get("context"), str):
        context = value["context"]
    number = value.get("transactionId")
    if isinstance(number, str | int):
        transaction = str(number)
    text = next((value[key] for key in _DATA if isinstance(value.get(key), str)), None)
    if text is None and value.get("format") == "SignedData" and isinstance(value.get("value"), str):
        text = value["value"]
    if text is not None:
        key = next((value[key] for key in _KEY if isinstance(value.get(key), str) and value[key].strip()), None)
        # What comes in one message belongs together, also where no number says so.
        yield Found(text.encode("utf-8", "surrogatepass"), key, transaction if transaction is not None else "", context, path)
    for name, one in value.items():
        if isinstance(one, dict | list):
            yield from _walk(one, f"{path}.{name[:40]}", _CONTEXTS.get(name, context), transaction, depth + 1)
