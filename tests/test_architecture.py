"""Which way one may look: the allow-lists of DESIGN over the real import graph. The deny-lists are import-linter contracts in pyproject.toml."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

SOURCE = Path(__file__).parents[1] / "src" / "gridloom"

# Third parties by room: who drives what. A package that is not named for a room may not be imported there.
THIRD_PARTIES: dict[str, set[str]] = {
    "gridloom.core": {"msgspec"},
    "gridloom.codecs": {"msgspec"},
    "gridloom.links": {"httpx", "httpcore", "websockets", "picows", "serialx", "aiomqtt", "paho", "asyncssh"},
    "gridloom.storage": {"msgspec", "numpy", "zstandard"},
    "gridloom.bus": {"msgspec"},
    "gridloom.energy": {"msgspec"},
    "gridloom.demo": {"msgspec"},
    "gridloom.web": {"msgspec", "litestar", "uvicorn", "uvloop", "httptools", "prometheus_client", "structlog", "argon2"},
    "gridloom.cli": {"msgspec", "typer", "click", "rich", "httpx"},
    "gridloom.app": {"msgspec", "structlog", "uvloop", "argon2"},
    "gridloom.config": {"msgspec"},
    "gridloom.logs": {"structlog"},
    "gridloom.integrations": {"msgspec", "litestar", "typer", "rich", "cryptography"},
}

# Our own rooms by room. A room always sees itself.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "codecs": {"core"},
    "links": {"core.clock", "core.errors"},
    "storage": {"core"},
    "bus": {"core"},
    "web": {"core"},
    "energy": {"core"},
    "demo": {"core", "energy"},
    "integrations": {"core", "codecs", "links", "energy"},
}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("gridloom", include_external_packages=True)


def modules(prefix: str) -> list[str]:
    return sorted(name for name in graph().modules if name == prefix or name.startswith(prefix + "."))


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    allowed = {f"gridloom.{name}" for name in ROOMS[room]} | {f"gridloom.{room}"}
    strangers = [
        f"{module} -> {seen}"
        for module in modules(f"gridloom.{room}")
        for seen in graph().find_modules_directly_imported_by(module)
        if within(seen, "gridloom") and seen != "gridloom" and not any(within(seen, prefix) for prefix in allowed)
    ]
    assert modules(f"gridloom.{room}"), f"the room {room} is gone: DESIGN names it"
    assert strangers == []


def test_third_parties_stay_in_their_rooms() -> None:
    strangers = []
    for module in modules("gridloom"):
        room = ".".join(module.split(".")[:2])
        for seen in graph().find_modules_directly_imported_by(module):
            package = seen.split(".")[0]
            if package == "gridloom" or package in sys.stdlib_module_names:
                continue
            if package not in THIRD_PARTIES.get(room, set()):
                strangers.append(f"{module} -> {package}")
    assert strangers == []


def test_litestar_appears_in_web_and_in_api_files_only() -> None:
    importers = {
        module for module in modules("gridloom") if "litestar" in {seen.split(".")[0] for seen in graph().find_modules_directly_imported_by(module)}
    }
    assert importers, "the test would prove nothing if nobody imported litestar"
    assert [module for module in sorted(importers) if not within(module, "gridloom.web") and module.split(".")[-1] != "api"] == []


def integrations() -> list[str]:
    return sorted({".".join(name.split(".")[:3]) for name in modules("gridloom.integrations") if name.count(".") >= 2})


def test_an_integration_never_imports_another() -> None:
    strangers = [
        f"{module} -> {seen}"
        for integration in integrations()
        for module in modules(integration)
        for seen in graph().find_modules_directly_imported_by(module)
        if within(seen, "gridloom.integrations") and seen != "gridloom.integrations" and not within(seen, integration)
    ]
    assert strangers == []


# Inside an integration: who sees whom of its own rooms, and of the core.
TABLES = {"tables", "labels", "status", "modems", "models", "measurands", "statuses", "fields", "algorithms"}
GRAMMARS = {"codec", "ocmf"}
INSIDE = {
    "codec": {"errors"} | TABLES,
    "messages": {"errors"} | TABLES,
    "mapping": {"errors", "messages", "core"} | GRAMMARS | TABLES,
}


WIRES = {"link", "server", "client", "conversation", "door", "module", "simulator", "agent"}
"""Rooms that hold a device's line: an API never knows them, so that both may run on different machines."""


def room_of(module: str, integration: str) -> str:
    return module.removeprefix(integration + ".").split(".")[0]


@pytest.mark.parametrize("room", sorted(INSIDE))
def test_inside_an_integration_the_rooms_look_one_way(room: str) -> None:
    strangers = []
    for integration in integrations():
        for module in modules(f"{integration}.{room}"):
            for seen in graph().find_modules_directly_imported_by(module):
                if not within(seen, "gridloom") or seen == "gridloom":
                    continue
                target = room_of(seen, integration) if within(seen, integration) else seen.split(".")[1]
                if target not in INSIDE[room] | {room}:
                    strangers.append(f"{module} -> {seen}")
    assert strangers == []


def test_an_api_never_knows_the_wire() -> None:
    seen_by_apis = [
        (module, seen)
        for integration in integrations()
        for module in modules(f"{integration}.api")
        for seen in graph().find_modules_directly_imported_by(module)
        if within(seen, integration)
    ]
    assert seen_by_apis, "the test would prove nothing without an api"
    assert [f"{module} -> {seen}" for module, seen in seen_by_apis if seen.split(".")[3] in WIRES] == []


def test_only_app_loads_integrations() -> None:
    """Nobody outside an integration imports one; app.py and the command line load them by name, as strings."""
    strangers = [
        f"{module} -> {seen}"
        for module in modules("gridloom")
        if not within(module, "gridloom.integrations")
        for seen in graph().find_modules_directly_imported_by(module)
        if within(seen, "gridloom.integrations") and seen != "gridloom.integrations"
    ]
    assert strangers == []


def test_the_list_of_integrations_is_a_tuple_of_strings() -> None:
    tree = ast.parse((SOURCE / "integrations" / "__init__.py").read_text())
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign | ast.Assign)
        and "NAMES" in ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
    ]
    assert len(values) == 1
    assert isinstance(values[0], ast.Tuple)
    names = [ast.literal_eval(element) for element in values[0].elts]
    assert all(isinstance(name, str) for name in names)
    assert [name for name in names if not (SOURCE / "integrations" / name / "__init__.py").is_file()] == []


BANNED_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.sleep",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
}


def test_only_the_clock_asks_the_machine_what_time_it_is() -> None:
    """The lint rule bans the names; this test also sees ``from time import time`` and calls through ``datetime.datetime``."""
    offenders = []
    for file in sorted(SOURCE.rglob("*.py")):
        if file == SOURCE / "core" / "clock.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                offenders += [
                    f"{file.relative_to(SOURCE)}:{node.lineno} from time import {name.name}"
                    for name in node.names
                    if f"time.{name.name}" in BANNED_CLOCKS
                ]
            elif isinstance(node, ast.Attribute):
                spelled = ".".join(ast.unparse(node).split(".")[-2:])
                if spelled in BANNED_CLOCKS:
                    offenders.append(f"{file.relative_to(SOURCE)}:{node.lineno} {spelled}")
    assert offenders == []
    assert "time.time_ns" in (SOURCE / "core" / "clock.py").read_text(), "the one clock asks the machine"
