"""A reader of TIC frames for tests that shares no code with ours: it splits, it sums, and it raises at anything that is not as it should be."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """One group."""

    label: str
    value: str
    horodate: str


def lines(frame: bytes) -> list[Line]:
    """The groups of one whole, undamaged frame."""
    assert frame[:1] == b"\x02", frame[:20]
    assert frame[-1:] == b"\x03", frame[-20:]
    found = []
    for text in frame[1:-1].split(b"\n")[1:]:
        assert text[-1:] == b"\r", text
        body, check = text[:-2], text[-2]
        if b"\t" in body:
            *fields, empty = body.split(b"\t")
            assert empty == b""
            counted = body
        else:
            label, value, empty = body.split(b" ")  # no value of historic mode has a space
            assert empty == b""
            fields, counted = [label, value], body[:-1]
        assert check == (sum(counted) & 63) + 32, text
        words = [field.decode("ascii") for field in fields]
        found.append(Line(words[0], words[-1], words[1] if len(words) == 3 else ""))
    return found


def values(frame: bytes) -> dict[str, str]:
    """Label to value; no label may come twice."""
    found = {line.label: line.value for line in lines(frame)}
    assert len(found) == len(lines(frame))
    return found


def horodates(frame: bytes) -> dict[str, str]:
    """Label to horodate, of those that have one."""
    return {line.label: line.horodate for line in lines(frame) if line.horodate}


def frames(stream: bytes) -> list[bytes]:
    """The whole frames of a stream; what is before the first STX and after the last ETX is left out."""
    found = []
    for piece in stream.split(b"\x02")[1:]:
        frame, end, _ = piece.partition(b"\x03")
        if end:
            found.append(b"\x02" + frame + end)
    return found
