"""toml_lines: the line of every key, against texts whose lines are known because the test wrote them."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gridloom.toml_lines import Path, lines


def test_the_forms_of_toml() -> None:
    text = '''# a comment with [brackets] and = signs
[hub] # behind
data_dir = "a#[b]"
"odd.name" = 'x'

[[alarms.rule]]
name = """
[not.a.table]
key = "no key"
"""
a.b = [1, # ] not the end
  2,
  {x = 1, y = "}"},
]
[[alarms.rule]]
  name = 1979-05-27 07:32:00
  [alarms.rule.sub]
  "k" = true
  [[alarms.rule.list]]
  z = \'\'\'it's\'\'\'
[other]
empty = {}
none = []
last = 1'''
    tomllib.loads(text)
    found = lines(text)
    expected: dict[Path, int] = {
        ("hub",): 2,
        ("hub", "data_dir"): 3,
        ("hub", "odd.name"): 4,
        ("alarms",): 6,
        ("alarms", "rule"): 6,
        ("alarms", "rule", 0): 6,
        ("alarms", "rule", 0, "name"): 7,
        ("alarms", "rule", 0, "a"): 11,
        ("alarms", "rule", 0, "a", "b"): 11,
        ("alarms", "rule", 0, "a", "b", 0): 11,
        ("alarms", "rule", 0, "a", "b", 1): 12,
        ("alarms", "rule", 0, "a", "b", 2): 13,
        ("alarms", "rule", 0, "a", "b", 2, "x"): 13,
        ("alarms", "rule", 0, "a", "b", 2, "y"): 13,
        ("alarms", "rule", 1): 15,
        ("alarms", "rule", 1, "name"): 16,
        ("alarms", "rule", 1, "sub"): 17,
        ("alarms", "rule", 1, "sub", "k"): 18,
        ("alarms", "rule", 1, "list"): 19,
        ("alarms", "rule", 1, "list", 0): 19,
        ("alarms", "rule", 1, "list", 0, "z"): 20,
        ("other",): 21,
        ("other", "empty"): 22,
        ("other", "none"): 23,
        ("other", "last"): 24,
    }
    assert found == expected


_TEXT = st.text(alphabet="ab#[]{}=,. \t\"'\\\né", max_size=8)
_SCALAR = st.one_of(st.integers(-9, 9), st.booleans(), st.floats(0, 9), _TEXT)
_VALUE = st.recursive(_SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT.filter(bool), inner, max_size=3), max_leaves=6)


class Writer:
    """Writes TOML and notes on which line it wrote what."""

    def __init__(self) -> None:
        self.text = ""
        self.expected: dict[Path, int] = {}

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def note(self, path: Path) -> None:
        self.expected.setdefault(path, self.line)

    def string(self, value: str, draw: Any) -> None:
        escaped = value.replace("\\", "\\\\").replace("\t", "\\t").replace('"', '\\"')
        style = draw(st.sampled_from(["basic", "literal", "long", "long literal"]))
        if style == "literal" and not set(value) & set("'\n\t"):
            self.text += f"'{value}'"
        elif style == "long":
            self.text += f'"""\n{escaped}"""'
        elif style == "long literal" and "'" not in value:
            self.text += f"'''\n{value}'''"
        else:
            self.text += '"' + escaped.replace("\n", "\\n") + '"'

    def key(self, name: str) -> None:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t").replace("\n", "\\n")
        self.text += name if name.isalnum() and name.isascii() else f'"{escaped}"'

    def value(self, path: Path, value: Any, draw: Any) -> None:
        if isinstance(value, bool):
            self.text += str(value).lower()
        elif isinstance(value, str):
            self.string(value, draw)
        elif isinstance(value, list):
            self.text += "["
            for index, item in enumerate(value):
                self.text += draw(st.sampled_from(["", " ", "\n", " # x ] \n\n  "]))
                self.note((*path, index))
                self.value((*path, index), item, draw)
                self.text += draw(st.sampled_from([",", " ,", "\n,"]))
            self.text += draw(st.sampled_from(["]", "\n]"]))
        elif isinstance(value, dict):
            self.text += "{"
            for index, (name, item) in enumerate(value.items()):
                self.text += ", " if index else " "
                self.note((*path, name))
                self.key(name)
                self.text += " = "
                self.value((*path, name), item, draw)
            self.text += "}"
        else:
            self.text += repr(value)


@given(data=st.data())
def test_any_text_that_tomllib_accepts(data: st.DataObject) -> None:
    writer = Writer()
    body_of_table = st.dictionaries(_TEXT.filter(bool), _VALUE, max_size=3)
    tables = data.draw(st.lists(st.tuples(st.sampled_from(["a", "b.c", "[d]", "[e.f]"]), body_of_table), max_size=5))
    counts: dict[str, int] = {}
    seen: set[str] = set()
    for name, body in tables:
        plain = name.strip("[]")
        if plain in seen and not name.startswith("["):
            continue
        seen.add(plain)
        writer.text += data.draw(st.sampled_from(["", "\n", "# [x]\n", "\t "]))
        path: Path = ()
        for part in plain.split("."):
            path = (*path, part)
            writer.note(path)
        if name.startswith("["):
            counts[plain] = counts.get(plain, -1) + 1
            path = (*path, counts[plain])
            writer.note(path)
        writer.text += f"[{name}]" + data.draw(st.sampled_from(["\n", " # c\n", "\n\n"]))
        for key, value in body.items():
            writer.note((*path, key))
            writer.key(key)
            writer.text += data.draw(st.sampled_from([" = ", "=", "\t=  "]))
            writer.value((*path, key), value, data.draw)
            writer.text += "\n"
    tomllib.loads(writer.text)  # the test itself writes TOML
    assert lines(writer.text) == writer.expected
