"""The checklist, its tests, their mutations and the page about them hang together. (That each mutation is noticed: ``mutations.py``.)"""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

import pytest
from tests.integrations.os3p.mutations import PACKAGE, ROOT, Mutation, tables

HERE = Path(__file__).parent
SIDES = {"cs": "CS", "ss": "SS"}


def numbers(side: str) -> list[str]:
    """Of the checklist's lines for this side."""
    with open(HERE / "data" / "conformance.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["number"] for row in rows if SIDES[side] in row["role"] or "B" in row["role"]]


def carried(side: str) -> set[str]:
    """The numbers that tests carry, each one or several."""
    path = HERE / f"test_conformance_{side}.py"
    functions = [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {number for name in functions if (match := re.match(r"test_((?:[A-Z]\d+_)+)", name)) for number in match[1].rstrip("_").split("_")}


def written() -> list[str]:
    """The sides that have tests."""
    return [side for side in SIDES if (HERE / f"test_conformance_{side}.py").is_file()]


def test_the_checklist_is_whole() -> None:
    with open(HERE / "data" / "conformance.tsv", encoding="utf-8") as file:
        found = [row["number"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    ends = {"C": 18, "R": 24, "B": 23, "N": 23, "S": 27, "L": 15}
    assert found == [f"{letter}{number}" for letter, last in ends.items() for number in range(1, last + 1)]
    assert len(numbers("cs")) == 53


@pytest.mark.parametrize("side", written())
def test_every_line_has_a_test_and_if_there_is_a_table_a_mutation(side: str) -> None:
    assert set(numbers(side)) - carried(side) == set(), "without a test"
    assert carried(side) <= {number for name in SIDES for number in numbers(name)}, "no line of the checklist"
    if side in tables():
        assert list(tables()[side]) == numbers(side), "a mutation for each line, in the order of the checklist"


@pytest.mark.parametrize(("number", "mutation"), [pytest.param(*one, id=f"{side} {one[0]}") for side in tables() for one in tables()[side].items()])
def test_every_mutation_has_its_place_in_the_code(number: str, mutation: Mutation) -> None:
    text = mutation.applied(ROOT)
    assert text != (ROOT / PACKAGE / mutation.file).read_text(encoding="utf-8")
    compile(text, mutation.file, "exec")


def test_the_page_says_that_all_have_passed() -> None:
    page = (ROOT / "docs" / "reference" / "os3p-conformance.md").read_text(encoding="utf-8")
    titles = {"cs": "## Central System", "ss": "## Substation"}
    for side in written():
        part = page.partition(titles[side])[2].partition("\n## ")[0]
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in part.splitlines() if re.match(r"\| [A-Z]\d", line)]
        assert {row[0] for row in rows} == {*numbers(side), *carried(side)}
        assert {row[-1] for row in rows} == {"passed"}, "run .venv/bin/python docs/generate.py --run"
