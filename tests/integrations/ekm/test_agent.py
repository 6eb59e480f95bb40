"""A gateway elsewhere: orders once and never without an answer, readings kept while the hub is away, whoever dies when."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer
import websockets
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.ekm.front import OTHERS_METER, RELAY, Front, front, section
from typer.testing import CliRunner

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError, DeviceError, GridloomError, StorageError
from gridloom.core.events import new_event
from gridloom.core.model import Admission, Command, Device, DeviceKind, MeterReading, Reading, ReadingType, Role
from gridloom.core.ports import SeriesFilter
from gridloom.core.subjects import HUB
from gridloom.integrations.ekm.agent import Agent
from gridloom.integrations.ekm.agent_cli import gateway
from gridloom.integrations.ekm.agent_main import section_of
from gridloom.integrations.ekm.journal import Held, Journal, Memory, Spool
from gridloom.integrations.ekm.mapping import gateway_device, meter_device
from gridloom.integrations.ekm.models import MODELS
from gridloom.integrations.ekm.service import Buses
from gridloom.integrations.ekm.upstream import Ended
from gridloom.links.backoff import Backoff

MAC, REMOTE = "A1B2C3D4E5F6", "000300004127"
VOLTAGE = ReadingType("Voltage", "V")
POWER = ReadingType("Power.Active.Import", "W")


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """It becomes true."""
    end = asyncio.get_running_loop().time() + seconds
    while not true():
        assert asyncio.get_running_loop().time() < end, "it did not become true"
        await asyncio.sleep(0.005)


class Full:
    """A file whose disk is full: half of what is written arrives."""

    def __init__(self, file: Any) -> None:
        self.fileno, self.close, self._write = file.fileno, file.close, file.write

    def write(self, data: bytes) -> int:
        count: int = self._write(data[: len(data) // 2])
        return count

    @staticmethod
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Remote:
    """An agent with one meter whose orders ``carry_out`` carries out."""

    def __init__(self, hub: Front, folder: Path, key: str, mac: str = MAC, meter: str = REMOTE) -> None:
        self.done: list[str] = []
        self.carry_out: Callable[[Command], Awaitable[Any]] = self._do
        self.agent = Agent(f"ws://{hub.push}/gateway", key, folder, clock=Clock(), timezone="Europe/Paris")
        self.mac, self.meter = mac, meter

    async def _do(self, command: Command) -> Any:
        self.done.append(command.id)

    async def start(self) -> Remote:
        registry = self.agent.hub.registry

        async def execute(command: Command) -> Any:
            return await self.carry_out(command)

        for device in (gateway_device(self.mac), meter_device(self.meter, MODELS["v4"], "bus", "Europe/Paris")):
            await registry.register(device)
            registry.attach(device.id, execute).online()
        await self.agent.start()
        return self

    def point(self, hub: Front) -> None:
        """To the hub's new address."""
        self.agent._url = f"ws://{hub.push}/gateway"

    async def says(self, *values: int, device: str = "") -> None:
        """Readings of the meter, a second apart."""
        base = 1_800_000_000_000_000
        device = device or f"ekm:{self.meter}"
        await self.agent.hub.intake.readings([MeterReading(device, base + value * 1_000_000, base, (Reading(VOLTAGE, value),)) for value in values])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off that a test can wait for."""
    monkeypatch.setattr(Backoff, "next", lambda self: 0.05)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Front]:
    async with front(tmp_path) as made:
        _, made.keys["gateway"] = await made.face.keys.create(made.world.admin, "anna@example.org", mac=MAC)
        yield made


@pytest.fixture
async def remote(hub: Front, tmp_path: Path) -> AsyncIterator[Remote]:
    made = await Remote(hub, tmp_path / "agent", hub.keys["gateway"]).start()
    await until(lambda: hub.world.registry.online(f"ekm:{REMOTE}"))
    anna = hub.world.accounts.account("anna@example.org")
    await hub.world.accounts.grant(None, anna.id, f"device:ekm:{REMOTE}", Role.OWNER)
    try:
        yield made
    finally:
        await made.agent.stop()


async def stored(hub: Front, device: str = f"ekm:{REMOTE}") -> list[Any]:
    """The voltages that the hub has."""
    found = []
    for series in await hub.world.store.samples.series(SeriesFilter(devices=(device,))):
        page = await hub.world.store.samples.read(series.number, 0, 1 << 62)
        found += [sample.value for sample in page.samples]
    return sorted(found)


# ----------------------------------------------------------------------------------------------------------------- the way


async def test_an_order_goes_there_and_its_answer_comes_back(hub: Front, remote: Remote) -> None:
    status, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    assert status == 200
    assert (await hub.response(accepted))["success"] is True
    assert remote.done == [accepted["msg_id"]]
    device = hub.world.registry.get(f"ekm:{REMOTE}")
    assert device.attributes["gateway"] == MAC
    await until(lambda: not remote.agent._journal.unheard())
    status, _ = await hub.order("SetRelay", RELAY, id=REMOTE, key="gateway")
    assert status == 200, "the gateway's key is good for its devices"
    status, _ = await hub.order("GetStatus", target="gateway", id=MAC, key="gateway")
    assert status == 400, "but not for who does not see them"


async def test_a_refusal_and_data_come_back(hub: Front, remote: Remote) -> None:
    async def refuse(command: Command) -> Any:
        raise DeviceError("the password was not accepted")

    async def tell(command: Command) -> Any:
        return {"Schedule_1_Period_1_Hour": 7}

    remote.carry_out = refuse
    _, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    message = await hub.response(accepted)
    assert (message["success"], message["error"]) == (False, "the password was not accepted")
    remote.carry_out = tell
    _, accepted = await hub.order("GetSchedules", id=REMOTE)
    assert (await hub.response(accepted))["data"] == {"Schedule_1_Period_1_Hour": 7}


async def test_readings_and_events_arrive(hub: Front, remote: Remote) -> None:
    await remote.says(1, 2, 3)
    await remote.agent.hub.intake.event(new_event("line.lost", HUB, remote.agent.hub.clock, subject="/dev/ttyUSB0"))
    await until(lambda: hub.world.alarms.raised(f"ekm:gateway-{MAC}", "line.lost", "/dev/ttyUSB0") is not None)
    assert await stored(hub) == [1, 2, 3]


async def test_several_gateways_of_one_account(hub: Front, remote: Remote, tmp_path: Path) -> None:
    _, key = await hub.face.keys.create(hub.world.admin, "anna@example.org", mac="001122334455")
    second = await Remote(hub, tmp_path / "second", key, "001122334455", "000300004128").start()
    try:
        await until(lambda: hub.world.registry.online("ekm:000300004128"))
        assert hub.face.gateways.connected() == ["001122334455", MAC]
        group = "group"
        _, first_answer = await hub.order("SetRelay", RELAY, id=REMOTE, token=group, key="gateway")
        hub.keys["second"] = key
        _, second_answer = await hub.order("SetRelay", RELAY, id="000300004128", token=group, key="second")
        assert (await hub.response(first_answer))["success"]
        assert (await hub.response(second_answer))["success"]
        assert (remote.done, second.done) == ([first_answer["msg_id"]], [second_answer["msg_id"]])
    finally:
        await second.agent.stop()


# --------------------------------------------------------------------------------------------------------------- who may


async def test_a_gateway_without_a_good_key_stays_out(hub: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, key in enumerate((hub.keys["anna"], "MTAxMDoyMDIw", hub.tokens["anna"])):
        stranger = await Remote(hub, tmp_path / f"stranger{number}", key).start()
        await asyncio.sleep(0.2)
        await stranger.agent.stop()
    assert hub.face.gateways.connected() == []
    assert {record.message for record in caplog.records if record.name == "gridloom.integrations.ekm.agent"} == {"the hub refused the key"}
    with pytest.raises(GridloomError):
        hub.world.registry.get(f"ekm:{REMOTE}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--key-file", "nofile"), "--key-file nofile: No such file or directory"),
        (("--key", "x", "--bus", ""), "--bus: expected 'PORT METER…'"),
        (("--key", ""), "a gateway needs its key"),
        (("--key", "x", "--hub", "http://x"), "--hub: expected ws://HOST:PORT"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_said(change: tuple[str, ...], words: str) -> None:
    app = typer.Typer()
    app.command()(gateway)
    made = CliRunner().invoke(app, ["--hub", "ws://x:1", "--mac", MAC, "--bus", "/dev/null 1:v4", *change])
    assert made.exit_code == 2
    assert words in made.stderr


async def test_what_the_agent_logs_has_its_reason(tmp_path: Path) -> None:
    """A process of its own: nobody listens at port 9."""
    (tmp_path / "key").write_text("x")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gridloom", "ekm", "gateway", "--hub", "ws://127.0.0.1:9", "--mac", MAC, "--bus", f"{tmp_path}/line {REMOTE}:v4",
        "--key-file", str(tmp_path / "key"), "--data", str(tmp_path / "data"), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while "cannot be reached" not in (line := (await process.stderr.readline()).decode()):
                assert line, "it ended"
    finally:
        process.kill()
        await process.communicate()
    assert "reason=" in line
    assert "127.0.0.1:9" in line


async def test_the_interval_that_was_ordered_is_known_after_a_restart(tmp_path: Path) -> None:
    section = section_of(MAC, [f"{tmp_path}/line {REMOTE}:v4"], 60, 9600, "Europe/Paris")
    for seconds, expected in ((7, 60), (9, 7), (9, 9)):
        agent = Agent("ws://127.0.0.1:9/gateway", "x", tmp_path / "data", clock=Clock(), timezone="Europe/Paris")
        buses = Buses(section, agent.hub, memory=Memory(tmp_path / "data"))
        await buses.start()
        assert buses.gateway.buses[0].every == expected
        link = agent._registry.links[f"ekm:gateway-{MAC}"]
        assert link.executor is not None
        await link.executor(Command("1", f"ekm:gateway-{MAC}", "ekm.poll_interval.set", {"interval_s": seconds}, "", 0, 0))
        await buses.stop()
        await agent.stop()
    memory = Memory(tmp_path / "data")
    (tmp_path / "data" / "gateway-poll.json.new").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        await memory.commit([memory.put("gateway", "poll", b"{}")])
    (tmp_path / "data" / "gateway-poll.json").write_text("{")
    with pytest.raises(ConfigurationError, match="remove it"):
        await memory.get("gateway", "poll")
    await memory.commit([memory.delete("gateway", "poll")])
    assert await memory.get("gateway", "poll") is None


async def test_a_revoked_key_ends_the_connection(hub: Front, remote: Remote) -> None:
    key = hub.face.keys.find(hub.keys["gateway"])
    assert key is not None
    await hub.face.keys.revoke(hub.world.admin, key.number)
    await until(lambda: hub.face.gateways.connected() == [])
    await asyncio.sleep(0.2)
    assert not remote.agent.connected


async def test_a_gateway_takes_no_device_of_somebody_else(hub: Front, remote: Remote) -> None:
    registry = remote.agent.hub.registry
    await registry.register(meter_device(OTHERS_METER, MODELS["v4"], "bus", "Europe/Paris"))
    registry.attach(f"ekm:{OTHERS_METER}", remote.carry_out).online()
    await registry.register(Device("tic:1", "tic", "1"))
    await registry.register(Device("ekm:gateway-000000000000", "ekm", "gateway-000000000000", DeviceKind.GATEWAY))
    await remote.says(7, device=f"ekm:{OTHERS_METER}")
    await remote.says(8)
    await until(lambda: remote.agent._spool.empty)
    assert (await stored(hub, f"ekm:{OTHERS_METER}"), await stored(hub)) == ([], [8])
    assert "gateway" not in hub.world.registry.get(f"ekm:{OTHERS_METER}").attributes
    for id in ("tic:1", "ekm:gateway-000000000000"):
        with pytest.raises(GridloomError):
            hub.world.registry.get(id)
    _, accepted = await hub.order("SetRelay", RELAY, id=OTHERS_METER, token="bert", key="bert")
    await hub.response(accepted)
    assert remote.done == []


async def test_a_gateway_ends_no_order_of_somebody_else(hub: Front, remote: Remote) -> None:
    going_on = asyncio.Event()

    async def hang(command: Command) -> Any:
        await going_on.wait()

    hub.carry_out = hang
    _, accepted = await hub.order("SetRelay", RELAY)
    remote.agent._say(Ended(accepted["msg_id"]))
    remote.agent._say(Ended("0" * 32))
    await asyncio.sleep(0.2)
    assert not (await hub.world.commands.get(accepted["msg_id"], hub.world.admin)).state.final
    going_on.set()
    assert (await hub.response(accepted))["success"]


async def test_readings_of_a_device_that_is_not_admitted_do_not_block_the_others(hub: Front, remote: Remote) -> None:
    await hub.world.registry.update(f"ekm:{REMOTE}", hub.world.admin, admission=Admission.REJECTED)
    await remote.says(1, 2)
    await until(lambda: remote.agent._spool.empty)
    assert await stored(hub) == []


async def test_with_the_certificate_of_the_hub_all_of_it_is_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    hub = await Front(tmp_path, section(), (str(chain), str(key))).open()
    _, text = await hub.face.keys.create(hub.world.admin, "admin", mac=MAC)
    port = hub.push.rpartition(":")[2]
    remote = Remote(hub, tmp_path / "agent", text)
    remote.agent._url, remote.agent._tls = f"wss://localhost:{port}/gateway", trust
    try:
        await remote.start()
        await until(lambda: hub.world.registry.online(f"ekm:{REMOTE}"))
        channel = hub.face.keys.ids.of("admin")
        async with websockets.connect(f"wss://localhost:{port}/ws/{channel}", ssl=trust) as socket:
            assert hub.face.push is not None
            hub.face.push.publish(channel, b"{}")
            assert await socket.recv() == "{}"
        with pytest.raises((OSError, websockets.InvalidMessage)):
            await websockets.connect(f"ws://localhost:{port}/ws/{channel}")
    finally:
        await remote.agent.stop()
        await hub.close()


# --------------------------------------------------------------------------------------------------------- the hub is away


async def test_what_is_said_while_the_hub_is_away_arrives_later(hub: Front, remote: Remote, tmp_path: Path) -> None:
    await remote.says(1)
    await until(lambda: remote.agent._spool.empty)
    again = await hub.world.again()
    hub.sockets.connections[0].abort()
    await hub.face.stop()
    await until(lambda: not remote.agent.connected)
    for value in range(2, 500):
        await remote.says(value)
    second = await Front(tmp_path / "again", hub.settings).open(again)
    remote.point(second)
    try:
        await until(lambda: remote.agent._spool.empty)
        assert await stored(second) == list(range(1, 500))
    finally:
        second.world.abandoned.clear()
        await second.close()


async def test_an_order_under_way_when_the_hub_dies_is_carried_out_once_and_answered(hub: Front, remote: Remote, tmp_path: Path) -> None:
    """The hub dies between handing the order on and hearing its end; the next hub sends it again, and the gateway knows it."""
    began, go = asyncio.Event(), asyncio.Event()

    async def slowly(command: Command) -> Any:
        remote.done.append(command.id)
        began.set()
        await go.wait()

    remote.carry_out = slowly
    _, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    await began.wait()
    again = await hub.world.again()
    hub.sockets.connections[0].abort()
    await hub.face.stop()
    go.set()
    await until(lambda: len(remote.agent._journal.unheard()) == 1)
    second = await Front(tmp_path / "again", hub.settings).open(again)
    remote.point(second)
    try:
        message = await second.response(accepted)
        assert (message["msg_id"], message["success"]) == (accepted["msg_id"], True)
        assert remote.done == [accepted["msg_id"]]
    finally:
        second.world.abandoned.clear()
        await second.close()


async def test_an_order_that_never_reached_the_gateway_is_sent_by_the_next_hub(hub: Front, remote: Remote, tmp_path: Path) -> None:
    """Handed to a line that nobody reads any more: it is on disk as sent, and only the gateway can tell that it never came."""
    await remote.agent.stop()
    await until(lambda: hub.face.gateways.connected() == [])
    link = hub.world.registry.link(f"ekm:{REMOTE}")
    assert link is not None
    hub.face.gateways._of(MAC).say = lambda message: True  # type: ignore[method-assign]  # a line whose other end is gone
    link.online()
    _, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    for _ in range(200):
        if (await hub.world.commands.get(accepted["msg_id"], hub.world.admin)).state.value == "sent":
            break
        await asyncio.sleep(0.01)
    second = await Front(tmp_path / "again", hub.settings).open(await hub.world.again())
    new = await Remote(second, tmp_path / "agent", hub.keys["gateway"]).start()
    try:
        assert (await second.response(accepted))["success"] is True
        assert new.done == [accepted["msg_id"]]
    finally:
        await new.agent.stop()
        second.world.abandoned.clear()
        await second.close()


async def test_a_connection_that_breaks_in_between_changes_nothing(hub: Front, remote: Remote) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def slowly(command: Command) -> Any:
        remote.done.append(command.id)
        began.set()
        await go.wait()

    remote.carry_out = slowly
    _, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    await began.wait()
    for _ in range(3):
        await until(lambda: remote.agent.connected)
        connection = remote.agent._connection
        assert connection is not None
        connection.abort()
        await until(lambda: not remote.agent.connected)
    await until(lambda: remote.agent.connected)
    go.set()
    assert (await hub.response(accepted))["success"] is True
    assert remote.done == [accepted["msg_id"]]


# ------------------------------------------------------------------------------------------------------- the gateway is away


async def test_an_order_waits_for_a_gateway_that_is_away(hub: Front, remote: Remote, tmp_path: Path) -> None:
    await remote.agent.stop()
    await until(lambda: not hub.world.registry.online(f"ekm:{REMOTE}"))
    _, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    new = await Remote(hub, tmp_path / "agent", hub.keys["gateway"]).start()
    try:
        assert (await hub.response(accepted))["success"] is True
    finally:
        await new.agent.stop()


async def test_a_gateway_that_died_under_way_answers_that_it_does_not_know(hub: Front, remote: Remote, tmp_path: Path) -> None:
    began = asyncio.Event()

    async def hang(command: Command) -> Any:
        remote.done.append(command.id)
        began.set()
        await asyncio.Event().wait()

    remote.carry_out = hang
    _, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    await began.wait()
    await remote.agent.stop()  # the file stands as kill -9 would leave it: begun, not ended
    new = await Remote(hub, tmp_path / "agent", hub.keys["gateway"]).start()
    try:
        message = await hub.response(accepted)
        assert message["success"] is False
        assert "not known" in message["error"]
        assert new.done == [], "never a second time"
    finally:
        await new.agent.stop()


async def test_an_order_that_is_too_old_is_not_carried_out(hub: Front, remote: Remote) -> None:
    remote.agent._ahead = 3_600_000_000  # by the hub's clock it is an hour later
    _, accepted = await hub.order("SetRelay", RELAY, id=REMOTE)
    message = await hub.response(accepted)
    assert (message["success"], message["error"]) == (False, "expired before it reached the device")
    assert remote.done == []


async def test_an_executor_that_fails_does_not_stop_the_next_order(hub: Front, remote: Remote) -> None:
    async def fail(command: Command) -> Any:
        raise ZeroDivisionError

    remote.carry_out = fail
    _, first = await hub.order("SetRelay", RELAY, id=REMOTE)
    assert (await hub.response(first))["success"] is False
    remote.carry_out = remote._do
    _, second = await hub.order("SetRelay", RELAY, id=REMOTE)
    assert (await hub.response(second))["success"] is True


async def test_on_a_full_disk_what_was_done_is_answered_and_what_is_new_is_refused(
    hub: Front, remote: Remote, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full from the moment at which the device has acted."""

    async def fill(command: Command) -> Any:
        remote.done.append(command.id)
        monkeypatch.setattr(remote.agent._journal, "_file", Full(remote.agent._journal._file))

    remote.carry_out = fill
    _, first = await hub.order("SetRelay", RELAY, id=REMOTE)
    _, second = await hub.order("SetRelay", RELAY, id=REMOTE)
    assert (await hub.response(first))["success"] is True
    refused = await hub.response(second)
    assert (refused["success"], refused["error"]) == (False, "the gateway cannot write its journal: No space left on device")
    assert remote.done == [first["msg_id"]]
    monkeypatch.undo()
    monkeypatch.setattr(Backoff, "next", lambda self: 0.05)
    assert not [record for record in caplog.records if record.message == "an executor failed"], "and no order looks like a bug"
    assert remote.agent.connected, "that the hub had heard it could not be written either"
    remote.carry_out = remote._do
    _, third = await hub.order("SetRelay", RELAY, id=REMOTE)
    assert (await hub.response(third))["success"] is True


# ------------------------------------------------------------------------------------------------------------------- files

NOW = 1_800_000_000_000_000


def test_the_journal_knows_after_a_crash_what_it_knew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, NOW)
    assert journal.begin("a", NOW)
    assert not journal.begin("a", NOW), "once"
    journal.end(Ended("a", {"x": 1}), NOW)
    assert journal.begin("b", NOW)
    journal.begin("c", NOW)
    journal.end(Ended("c"), NOW)
    journal.hear("c", NOW)
    raw = path.read_bytes()
    for cut in range(len(raw) + 1):  # as if the process had died after any byte
        path.write_bytes(raw[:cut])
        known = Journal(path, NOW)
        complete = raw[:cut].count(b"\n") + (raw[cut : cut + 1] == b"\n")
        assert ("a" in known) is (complete >= 1), cut
        if "a" in known:
            ended = known.ended("a")
            assert ended is not None
            assert (ended.result == {"x": 1}) is (complete >= 2)
            assert (ended.code == "interrupted") is (complete < 2)
        known.close()
    path.write_bytes(raw)
    last = Journal(path, NOW + 8 * 86_400_000_000)
    assert "c" not in last, "old and heard: forgotten"
    assert [ended.id for ended in last.unheard()] == ["a", "b"]
    last.close()
    journal.close()


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_what_could_not_be_written_is_not_in_the_journal_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, NOW)
    with monkeypatch.context() as patched:
        if fails == "write":
            patched.setattr(journal, "_file", Full(journal._file))
        else:
            patched.setattr("gridloom.integrations.ekm.journal.os.fsync", Full.fsync)
        with pytest.raises(OSError, match="No space"):
            journal.begin("lost", NOW)
    assert "lost" not in journal
    assert journal.begin("kept", NOW)
    journal.close()
    again = Journal(path, NOW)
    assert ("lost" in again, "kept" in again) == (False, True)
    again.close()


def test_a_journal_that_cannot_be_made_shorter_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal", NOW)
    (tmp_path / "journal.new").mkdir()
    monkeypatch.setattr("gridloom.integrations.ekm.journal._MOST_LINES", 5)
    monkeypatch.setattr(journal, "_limit", 5)
    assert all(journal.begin(str(number), NOW) for number in range(30))
    journal.close()
    (tmp_path / "journal.new").rmdir()
    again = Journal(tmp_path / "journal", NOW)
    assert len(again.unheard()) == 30
    again.close()


def test_the_journal_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, 0)
    for number in range(1_500):
        moment = number * 86_400_000_000
        journal.begin(str(number), moment)
        journal.end(Ended(str(number)), moment)
        journal.hear(str(number), moment)
    assert path.read_bytes().count(b"\n") < 3_000
    journal.close()


def held(number: int) -> Held:
    return Held(reading=MeterReading("ekm:1", number, number, (Reading(POWER, number),)))


@given(st.lists(st.sampled_from(["put", "take", "confirm", "crash", "torn"]), max_size=60))
def test_the_spool_loses_nothing_and_keeps_order(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, put, confirmed, taken = Spool(folder, segment=400), 0, 0, list[Held]()
    for step in steps:
        if step == "put":
            spool.put(held(put))
            put += 1
        elif step == "take":
            taken = spool.take(3)
            numbers = [one.reading.time for one in taken if one.reading is not None]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else confirmed == put
            assert not numbers or numbers[0] <= confirmed, "nothing is skipped"
        elif step == "confirm" and taken:
            spool.confirm()
            last = taken[-1].reading
            assert last is not None
            confirmed, taken = max(confirmed, last.time + 1), []
        elif step in ("crash", "torn"):
            spool.close()
            files = sorted(folder.glob("*.spool"))
            if step == "torn" and files:
                with open(files[-1], "ab") as file:
                    file.write(b"\x00\x00\x01")
            spool, taken = Spool(folder, segment=400), []
    rest = []
    while got := spool.take(7):
        rest += [one.reading.time for one in got if one.reading is not None]
        spool.confirm()
    assert set(range(confirmed, put)) <= set(rest)
    assert rest == sorted(rest)
    spool.close()


def test_the_spool_has_a_bound(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", size=4_000, segment=1_000)
    for number in range(500):
        spool.put(held(number))
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) <= 5_200
    assert spool.dropped > 0
    first = spool.take(1)[0].reading
    assert first is not None
    assert first.time > 300, "the oldest went"
    spool.close()
    assert os.listdir(tmp_path / "spool")
