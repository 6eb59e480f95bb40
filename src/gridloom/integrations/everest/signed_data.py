"""Signed records in whatever they are handed on: raw OCMF, lines of many records, S.A.F.E. XML, OCPP SignedData (1.6 and 2.x), EVerest replies.

Nothing is judged here: what is found goes on to ``ocmf.parse`` and ``verification.verify``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gridloom.integrations.everest.ocmf import Malformed, unwrap
from gridloom.integrations.everest.safe import BEGIN, END, read_xml

MOST_DEPTH = 100


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
    """One record, also over several lines, or many, each beginning on a line of its own; or a line of digits for each."""
    starts = [match.start() for match in _RECORD.finditer(data)]
    if len(starts) > 1 and starts[0] == 0:
        return [
            Found(data[start:end].rstrip(), where=f"line {line}")
            for start, end, line in zip(starts, [*starts[1:], len(data)], _line_numbers(data, starts), strict=True)
        ]
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1 and all(unwrap(line)[1] for line in lines):
        return [Found(line, where=f"line {number}") for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    return [Found(data.rstrip(), where="line 1")]


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
