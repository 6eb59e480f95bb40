"""On which line each key of a TOML file stands: ``tomllib`` reads values but forgets where they were.

A small scanner for text that ``tomllib`` has already accepted; so it only has to find its way, not to judge. It knows tables, arrays of
tables, dotted and quoted keys, inline tables, arrays and strings over several lines, and comments.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
# The long forms come first: ''' begins with '.
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL)


def lines(text: str) -> dict[Path, int]:
    """The line (from 1) on which each key, table and array element of a valid TOML text first appears.

    ``("alarms", "rule", 0, "name")`` is the key ``name`` in the first ``[[alarms.rule]]``. Raises ValueError when it loses its way.
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.found: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # how many elements each array of tables has so far
        self._line, self._counted = 1, 0

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self.skip(_BLANK)
            if self.position >= len(self.text):
                return self.found
            if self.text.startswith("[[", self.position):
                table = self.header(2)
            elif self.text[self.position] == "[":
                table = self.header(1)
            else:
                self.pair(table)

    def header(self, brackets: int) -> Path:
        """``[a.b]`` or ``[[a.b]]``; a name that is an array of tables means its newest element."""
        self.position += brackets
        names = self.key()
        self.expect("]" * brackets)
        table: Path = ()
        for name in names[:-1]:
            table = self.newest((*table, name))
        last = (*table, names[-1])
        self.note(last)
        if brackets == 2:
            self.counts[last] = self.counts.get(last, 0) + 1
            table = (*last, self.counts[last] - 1)
            self.note(table)
            return table
        return self.newest(last)

    def newest(self, path: Path) -> Path:
        self.note(path)
        return (*path, self.counts[path] - 1) if path in self.counts else path

    def pair(self, table: Path) -> None:
        path = table
        for name in self.key():
            path = (*path, name)
            self.note(path)
        self.expect("=")
        self.value(path)

    def key(self) -> tuple[str, ...]:
        names = []
        while True:
            self.skip(_SPACE)
            if match := _BARE.match(self.text, self.position):
                names.append(match[0])
            elif match := _STRING.match(self.text, self.position):
                names.append(tomllib.loads(f"k = {match[0]}")["k"])
            else:
                raise ValueError(f"no key at offset {self.position}")
            self.position = match.end()
            self.skip(_SPACE)
            if not self.text.startswith(".", self.position):
                return tuple(names)
            self.position += 1

    def value(self, path: Path) -> None:
        self.skip(_SPACE)
        if match := _STRING.match(self.text, self.position):
            self.position = match.end()
        elif self.text.startswith("[", self.position):
            self.position += 1
            index = 0
            while not self.closes("]"):
                self.note((*path, index))
                self.value((*path, index))
                index += 1
        elif self.text.startswith("{", self.position):
            self.position += 1
            while not self.closes("}"):
                self.pair(path)
        else:
            self.skip(_SCALAR)

    def closes(self, bracket: str) -> bool:
        """Whether the array or inline table ends here; else stands at its next element."""
        self.skip(_BLANK)
        if self.text.startswith(",", self.position):
            self.position += 1
            self.skip(_BLANK)
        if self.position >= len(self.text):
            raise ValueError(f"no {bracket} before the end")
        if self.text[self.position] == bracket:
            self.position += 1
            return True
        return False

    def skip(self, pattern: re.Pattern[str]) -> None:
        if match := pattern.match(self.text, self.position):
            self.position = match.end()

    def expect(self, what: str) -> None:
        self.skip(_SPACE)
        if not self.text.startswith(what, self.position):
            raise ValueError(f"no {what} at offset {self.position}")
        self.position += len(what)

    def note(self, path: Path) -> None:
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        self.found.setdefault(path, self._line)
