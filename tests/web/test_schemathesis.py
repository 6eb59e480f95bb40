"""schemathesis against the running hub, all operations: it finds nothing, as an admin and as a viewer."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from tests.web.running import ENERGY, Running

from gridloom.core.model import Command, DeviceKind, EventState, MeterReading, Reading, Role, Transaction

HERE = Path(__file__).parent


async def furnish(hub: Running) -> None:
    """Something behind every operation."""
    await hub.device()
    await hub.reading()
    await hub.device("os3p:SUBS 123", kind=DeviceKind.SUBSTATION, verbs=("light.override",))
    await hub.device("ekm:1", kind=DeviceKind.IO, verbs=("relay.set", "device.poll"))
    await hub.event("alarm.silence", state=EventState.RAISED)
    begin = MeterReading("ekm:1", 1_767_225_600_000_000, 1_767_225_600_000_000, (Reading(ENERGY, 5),))
    await hub.hub.transactions.begin(Transaction("", "ekm:1", "1", begin.time, begin=begin))

    async def execute(command: Command) -> object:
        return {"verb": command.verb}

    hub.hub.registry.attach("ekm:1", execute).online()


async def schemathesis(hub: Running, token: str, folder: Path, *more: str) -> tuple[int, str]:
    """Run it in a process of its own, as its users do."""
    arguments = [
        *("run", f"{hub.url}/openapi.json", "--header", f"Authorization: Bearer {token}"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance,negative_data_rejection"),
        *("--exclude-path", "/api/v1/stream"),  # never ends; its parameters are tested in test_stream.py
        *("--request-timeout", "10", "--suppress-health-check", "all", "--no-shrink", "--continue-on-failure", "--warnings", "off"),
        *("--seed", "1", *more),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_checks", "PYTHONPATH": str(HERE), "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", *arguments,
        cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    said = (await process.stdout.read()).decode()
    return await process.wait(), said


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("role", "more"),
    [
        (Role.ADMIN, ("--max-examples", "3", "--phases", "examples,coverage,fuzzing", "--exclude-operation-id", "revoke_token")),
        (Role.VIEWER, ("--max-examples", "2", "--phases", "examples,fuzzing")),
    ],
)
async def test_it_finds_nothing(hub: Running, tmp_path: Path, role: Role, more: tuple[str, ...]) -> None:
    await furnish(hub)
    code, said = await schemathesis(hub, await hub.token(role), tmp_path, *more)
    assert code == 0, said[-12_000:]
    tested = re.search(r"Operations:\s+(\d+) selected", said)
    assert tested is not None, said[:3_000]
    assert int(tested[1]) >= 52  # all but the stream, and for the admin the one that would revoke its own token
