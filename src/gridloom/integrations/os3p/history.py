"""What GetFile hands out: the station's own log and the meter values of the past, both of bounded size, on disk where there is a folder.

A file of lines that begin with their moment; when it is full it becomes ``….1`` and a new one is begun, so that between one and two fillings are
kept. They are not synced: after a power loss the last lines may be missing.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from gridloom.core.clock import rfc3339
from gridloom.integrations.os3p.messages import moment


class Past:
    """Lines with their moments. In memory: the last ``lines``; on disk: twice ``size`` bytes."""

    def __init__(self, path: Path | None, *, size: int = 2_000_000, lines: int = 200, head: str = "") -> None:
        self.failing = ""
        """Why the last line is not on disk."""
        self.head = head
        self._path = path
        self._size = size
        self._memory: deque[str] | None = deque(maxlen=lines) if path is None else None

    def add(self, at: int, *lines: str) -> None:
        """Keep lines of the moment ``at`` (µs UTC)."""
        texts = [f"{rfc3339(at)}{line}\n".replace("\r", " ") for line in lines]
        if self._memory is not None:
            self._memory.extend(texts)
            return
        assert self._path is not None
        try:
            with open(self._path, "a", encoding="utf-8", opener=_private) as file:
                file.writelines(texts)
                grown = file.tell() > self._size
            if grown:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            self.failing = ""
        except OSError as error:  # a full disk must not keep the lights from being switched
            self.failing = error.strerror or str(error)

    def text(self, start: int | None, stop: int | None) -> str:
        """The lines of [start, stop], µs UTC, oldest first, behind the head."""
        found = [line for line in self._lines() if _within(line, start, stop)]
        return "".join([self.head, *found])

    def _lines(self) -> list[str]:
        if self._memory is not None:
            return list(self._memory)
        assert self._path is not None
        lines = []
        for path in (self._path.with_name(self._path.name + ".1"), self._path):
            if path.exists():
                with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
                    lines += [line for line in file if line.endswith("\n")]
        return lines


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _within(line: str, start: int | None, stop: int | None) -> bool:
    try:
        at = moment(line[: line.index("Z") + 1])
    except ValueError:  # torn by a power loss
        return False
    return (start is None or at >= start) and (stop is None or at <= stop)
