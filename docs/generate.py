"""Writes the reference pages that are made of code: ``docs/reference/{measurands,verbs,events,configuration,os3p-conformance}.md``.

``.venv/bin/python docs/generate.py`` writes them; with ``--check`` it writes nothing and exits with 1 if a page is not what the
code says. ``--into DIR`` means another folder. ``--run`` also runs the conformance tests and writes how they ended; without it the page keeps the
results it has, of tests that are still the same.
"""

from __future__ import annotations

import argparse
import ast
import csv
import enum
import importlib
import json
import re
import subprocess
import sys
import tempfile
import types
import typing
import xml.etree.ElementTree
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec

from gridloom import config, integrations
from gridloom.core import events, measurands, verbs
from gridloom.core.model import Role
from gridloom.core.settings import Setting

NOTE = "<!-- made by docs/generate.py from {source}; do not edit -->\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: str | None) -> str:
    """The text as code, nothing as nothing."""
    return f"`{text}`" if text else ""


def measurand_page() -> str:
    """Every measurand, and every spelling of a unit."""
    rows = (
        (
            code(row.name),
            row.unit,
            "yes" if row.register else "",
            code(row.obis),
            "yes" if row.ocpp else "",
            ", ".join(map(code, row.os3p)),
            row.meaning,
            row.clause,
        )
        for row in measurands.TABLE.values()
    )
    units = ((code(spelling), rule(conversion)) for spelling, conversion in measurands.SPELLINGS.items())
    return (
        NOTE.format(source="gridloom.core.measurands")
        + "# Measurands\n\n"
        + "What a number means. Phase, tariff register and location are said beside it. A *register* is cumulative: the difference of two "
        + "readings is a quantity. OBIS codes are of the total; a phase adds 20, 40 or 60 to the third group, a tariff register is the last one.\n\n"
        + table(("measurand", "unit", "register", "OBIS", "OCPP 1.6", "OS³P", "meaning", "from"), rows)
        + "\n## Units that are understood\n\nExact spelling first, then any letter case where that is not ambiguous.\n\n"
        + table(("spelling", "becomes"), units)
    )


def rule(conversion: measurands.Conversion) -> str:
    """How a unit becomes a base unit, in words."""
    text = "value"
    if conversion.offset:
        text = f"(value {'-' if conversion.offset < 0 else '+'} {abs(conversion.offset)})"
    if conversion.factor != 1:
        text += f" × {conversion.factor}"
    if conversion.divisor != 1:
        text += f" / {conversion.divisor}"
    return f"{text} {'' if conversion.unit == '1' else conversion.unit}".strip()


def allowed(schema: dict[str, Any]) -> str:
    """What a JSON Schema allows, in words."""
    if "$ref" in schema:
        return code(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return " ".join(code(json.dumps(value)) for value in schema["enum"] if value is not None)
    words = {"date-time": "RFC 3339 time with zone", "date": "date"}.get(str(schema.get("format", "")), str(schema.get("type", "any")))
    if "items" in schema:
        words = f"list of {allowed(schema['items'])}"
    for low, high, unit in (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " members")):
        if bounds := limits(schema.get(low), schema.get(high), unit):
            words += f",{bounds}" if low == "minItems" else bounds
    if "pattern" in schema:
        words += f" {code(schema['pattern'])}"
    return f"{words}; {schema['description']}" if "description" in schema else words


def limits(low: float | None, high: float | None, unit: str) -> str:
    """A range in words, with a blank in front; nothing if there is none."""
    if low is not None and high is not None:
        return f" {low:,} to {high:,}{unit}"
    if low is not None:
        return f" from {low:,}{unit}"
    return "" if high is None else f" up to {high:,}{unit}"


def fields(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    """One row per member: name, what is allowed, default or ``required``."""
    required = schema.get("required", ())
    rows = []
    for name, member in schema.get("properties", {}).items():
        default = "required" if name in required else "" if member.get("default") in (None, []) else code(json.dumps(member["default"]))
        rows.append((code(name) + (" (secret)" if member.get("writeOnly") else ""), allowed(member), default))
    return rows


def who(roles: frozenset[Role]) -> str:
    """Roles in their own order."""
    return "everybody" if roles == frozenset(Role) else ", ".join(role.value for role in Role if role in roles)


def verb_page() -> str:
    """Every verb; the orders each with their arguments."""
    kinds = {"order": "Orders to devices", "read": "Reading", "manage": "Managing"}
    parts = [
        NOTE.format(source="gridloom.core.verbs"),
        "# Verbs\n\nWhat one can order, read and manage, and which role may. An order that is not *repeatable* is never sent twice.\n",
    ]
    for kind, title in kinds.items():
        rows = [verb for verb in verbs.TABLE.values() if verb.kind == kind]
        parts.append(f"\n## {title}\n\n")
        if kind == "order":
            body = ((code(v.name), v.meaning, "yes" if v.idempotent else "no", f"{v.timeout:g} s", who(v.roles), v.clause) for v in rows)
            parts.append(table(("verb", "meaning", "repeatable", "time-out", "roles", "from"), body))
        else:
            parts.append(table(("verb", "meaning", "roles", "from"), ((code(v.name), v.meaning, who(v.roles), v.clause) for v in rows)))
    parts.append("\n## Arguments of the orders\n")
    shared: dict[str, Any] = {}
    for verb in verbs.TABLE.values():
        if verb.kind == "order":
            schema = verbs.json_schema(verb.name)
            shared.update(schema.get("$defs", {}))
            parts.append(section(code(verb.name), schema))
    parts.append("\n## Parts of arguments\n")
    parts.extend(section(code(name), schema) for name, schema in sorted(shared.items()))
    return "".join(parts)


def section(title: str, schema: dict[str, Any]) -> str:
    """One argument type."""
    rows = fields(schema)
    text = schema.get("description", "").replace("``", "`")
    return f"\n### {title}\n\n{text}\n" + ("\n" + table(("argument", "allowed", "default"), rows) if rows else "")


def event_page() -> str:
    """Every kind of event."""
    rows = (
        (
            code(kind.name),
            kind.severity.value,
            "" if not kind.alarm else "itself" if kind.cleared_by == kind.name else code(kind.cleared_by),
            kind.meaning,
            ", ".join(kind.integrations),
            kind.clause,
        )
        for kind in events.TABLE.values()
    )
    return (
        NOTE.format(source="gridloom.core.events")
        + "# Kinds of events\n\nA kind with an entry under *cleared by* is an alarm: it is raised, and cleared by an event of its own kind "
        + "(itself) or of the kind named, for the same device and subject. The others just occur.\n\n"
        + table(("kind", "severity", "cleared by", "meaning", "told by", "from"), rows)
    )


def configuration_page() -> str:
    """Every section and key, those of integrations included."""
    parts = [
        NOTE.format(source="gridloom.config and integrations/*/config.py"),
        "# Configuration\n\n",
        "One TOML file: `gridloom.toml` in the working directory, or `--config FILE`. Every key can also be given as environment variable ",
        "`GRIDLOOM__SECTION__KEY`, which wins. An unknown key is an error. `gridloom check` shows each value and where it comes from. ",
        "Secrets come from files (keys that end in `_file`). A section of an integration that is absent is off.\n",
    ]
    sections: dict[str, type[msgspec.Struct]] = dict(config.OWN)
    for name in integrations.NAMES:
        sections[name] = importlib.import_module(f"gridloom.integrations.{name}.config").Section
    pending = list(sections.items())
    while pending:
        name, kind = pending.pop(0)
        rows = []
        for field in msgspec.structs.fields(kind):
            inner = tables_of(field.type)
            key = f"{name}.{field.encode_name}"
            pending[:0] = [(f"{key} ({tag})" if tag else key, table) for tag, table in inner]
            shown = "a table of its own, below" if inner else option(field.type)
            rows.append((code(field.encode_name), shown, "" if inner else default_of(field)))
        text = " ".join((kind.__doc__ or "").replace("``", "`").split())
        parts.append(f"\n## `{name}`\n\n{text}\n\n" + table(("key", "allowed", "default"), rows))
    return "".join(parts)


def tables_of(kind: Any) -> list[tuple[str, type[msgspec.Struct]]]:
    """The tables that a key holds, each with its tag."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        tag = kind.__struct_config__.tag
        return [(f"{kind.__struct_config__.tag_field} = {tag}" if tag else "", kind)]
    return [found for part in typing.get_args(kind) if part is not Ellipsis for found in tables_of(part)]


def option(kind: Any) -> str:
    """What may be written for a key, in words."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounds = [part for part in parts[1:] if isinstance(part, msgspec.Meta)]
        return option(parts[0]) + "".join(limits(meta.ge, meta.le, "") for meta in bounds)
    if origin is Literal:
        return " ".join(code(json.dumps(part)) for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(option(part) for part in parts if part is not type(None))
    if origin in (tuple, list):
        return f"list of {option(parts[0])}"
    if isinstance(kind, type) and issubclass(kind, Setting):
        return kind.ALLOWED
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " ".join(code(json.dumps(member.value)) for member in kind)
    plain = {str: "text", bool: "`true` `false`", int: "whole number", float: "number"}
    return plain.get(kind) or str(getattr(kind, "ALLOWED", getattr(kind, "__name__", kind)))


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """The default as it would be written, or ``required``."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "" if value in (None, (), []) else code(json.dumps(msgspec.to_builtins(value, enc_hook=str)))


# ------------------------------------------------------------------------------------------------------------- OS³P conformance

ROOT = Path(__file__).parents[1]
OS3P_TESTS = Path("tests/integrations/os3p")
SIDES = {"Central System": ("CS", "test_conformance_cs.py"), "Substation": ("SS", "test_conformance_ss.py")}
"""How each role is called in the checklist, and which file has its tests. B is both."""
MISSING, NOT_RUN = "**missing**", "not run"


def conformance_page(run: bool, before: str) -> str:
    """Every line of the checklist for each side that it is for, its tests and how they ended; ``before``: the page as it is."""
    with open(ROOT / OS3P_TESTS / "data" / "conformance.tsv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    results = run_conformance() if run else {}
    parts = [
        NOTE.format(source=f"{OS3P_TESTS}/data/conformance.tsv and the tests beside it"),
        "# OS³P: conformance\n\n",
        "The rules of the implementation guide 0.91 (G) and the annex 0.4 (A). *Decision* is a rule of ours where the documents are silent or ",
        "contradict themselves. A test speaks to the side from a plain socket. The result is that of the last `docs/generate.py --run`.\n",
    ]
    for side, (role, file_name) in SIDES.items():
        tests = tests_by_number(ROOT / OS3P_TESTS / file_name)
        rows = []
        for line in lines:
            names = tests.get(line["number"], [])
            if role in line["role"] or "B" in line["role"] or names:
                row = (line["number"], line["level"], line["rule"], line["clause"], "<br>".join(map(code, names)) or MISSING)
                rows.append((*row, result_of(names, results) if run else kept_result(row, before)))
        parts.append(f"\n## {side}\n\n{code(str(OS3P_TESTS / file_name))}. {shown_to_fail(role)}\n\n")
        parts.append(table(("number", "level", "rule", "from", "tests", "result"), rows))
    return "".join(parts)


def shown_to_fail(role: str) -> str:
    """Whether somebody has looked that the tests notice a broken rule."""
    name = role.lower()
    if not (ROOT / OS3P_TESTS / f"mutations_{name}.py").is_file():
        return "That each fails when its rule is broken in the code is not shown yet."
    return f"Each fails when its rule is broken in the code: `python -m tests.integrations.os3p.mutations --table {name}`."


def tests_by_number(path: Path) -> dict[str, list[str]]:
    """The tests of a file by the numbers in their names."""
    found: dict[str, list[str]] = {}
    if path.is_file():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := re.match(r"test_((?:[A-Z]\d+_)+)", node.name)):
                for number in match[1].rstrip("_").split("_"):
                    found.setdefault(number, []).append(node.name)
    return found


def run_conformance() -> dict[str, str]:
    """The tests by name: ``passed``, or what happened instead."""
    files = [str(OS3P_TESTS / file) for _, file in SIDES.values() if (ROOT / OS3P_TESTS / file).is_file()]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)  # noqa: S603  # our own tests
        found: dict[str, str] = {}
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):  # noqa: S314  # our own report
            name = case.get("name", "").partition("[")[0]
            bad = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), None)
            if bad is not None or name not in found:
                found[name] = "failed" if bad in ("failure", "error") else bad or "passed"
        return found


def result_of(names: Sequence[str], results: dict[str, str]) -> str:
    """Of all tests of a line."""
    ends = {results.get(name, NOT_RUN) for name in names} or {NOT_RUN}
    return ends.pop() if len(ends) == 1 else ", ".join(sorted(ends - {"passed"}))


def kept_result(row: Sequence[str], before: str) -> str:
    """That of the same line in the page as it is."""
    begin = table(row, ()).splitlines()[0].removesuffix("|")
    return next((line.removeprefix(begin).strip(" |") for line in before.splitlines() if line.startswith(begin + "|")), NOT_RUN)


PAGES: dict[str, Callable[[], str]] = {
    "measurands.md": measurand_page,
    "verbs.md": verb_page,
    "events.md": event_page,
    "configuration.md": configuration_page,
}


def main(arguments: Sequence[str]) -> int:
    """0 when the pages are (now) right, 1 when ``--check`` finds one that is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is not what the code says")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "reference", help="folder of the pages")
    parser.add_argument("--run", action="store_true", help="run the conformance tests and write how they ended")
    options = parser.parse_args(arguments)
    wrong = 0
    conformance: Path = options.into / "os3p-conformance.md"
    before = conformance.read_text(encoding="utf-8") if conformance.is_file() else ""
    pages: dict[str, Callable[[], str]] = {**PAGES, conformance.name: partial(conformance_page, options.run, before)}
    for name, make in pages.items():
        path: Path = options.into / name
        text = make()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if options.check:
            sys.stderr.write(f"{path} is not what the code says: run .venv/bin/python docs/generate.py\n")
            wrong = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
