"""GRAMMAR: ``P=230`` (power in W), ``E=12345`` (energy register in Wh), ``A=1``/``A=0`` (alarm), ``OK n``; each line ends in LF."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """One good line."""

    name: str
    value: int


class Bad(NamedTuple):
    """A line that is none: counted and survived."""

    raw: bytes


class Reader:
    """Takes any chunking, yields lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Line | Bad]:
        """The lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._line(raw) for raw in lines]

    def _line(self, raw: bytes) -> Line | Bad:
        name, sign, value = raw.partition(b"=" if b"=" in raw else b" ")
        if not sign or not name.isalpha() or not value.isdigit():
            return Bad(raw)
        return Line(name.decode(), int(value))


def order(number: int, state: str) -> bytes:
    """The bytes that set the relay."""
    return f"R{number}={state}\n".encode()
