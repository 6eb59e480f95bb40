"""Ports: which there are, who may have which, why one cannot be opened, and the bytes that come from one. Over real ptys and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.hub_process import SOURCE, environment
from tests.integrations.tic.pty import Pty

from gridloom.core.errors import ConfigurationError, Conflict
from gridloom.links import serial
from gridloom.links.serial import PortError, PortInfo, Ports, Why


@pytest.fixture
def pty() -> Iterator[Pty]:
    """The other end of a wire."""
    made = Pty()
    yield made
    made.close()


async def opened(pty: Pty, baudrate: int = 9600) -> serial.Stream:
    return await serial.open(pty.name, baudrate=baudrate, bytesize=7, parity="E")


# ----------------------------------------------------------------------------------------------------------------- names


def test_a_url_is_shown_without_its_credentials() -> None:
    assert serial.shown("socket://owner:pass@house.example:2001") == "socket://house.example:2001"
    assert serial.shown("rfc2217://owner:pass@[fd00::1]:2217/?secret=1") == "rfc2217://[fd00::1]:2217"
    assert serial.shown("/dev/ttyUSB0") == "/dev/ttyUSB0"


@pytest.mark.parametrize(
    "port", ["ttyUSB0", "http://host:1", "socket://host", "socket://:7", "socket://host:port", "socket://host:99999", "", "socket://[x:1"]
)
def test_what_is_no_port_is_refused_and_the_credentials_in_it_are_not_repeated(port: str) -> None:
    with pytest.raises(ValueError, match="socket://host:port"):
        serial.checked(port)
    with pytest.raises(ValueError) as caught:
        serial.checked("http://owner:pass@host:1")
    assert "pass@" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- which ports there are


def usb_port(root: Path, name: str, usb: str, *, vendor: str, product: str, serial_number: str, text: str, udev: bool) -> None:
    """As Linux shows an adapter in sysfs: driver below the tty, ids at the USB device, names below /dev/serial."""
    bus = root / "sys/devices/pci0000:00/0000:00:14.0"
    place = bus / "usb1" / usb / f"{usb}:1.0" / name
    place.mkdir(parents=True)
    (root / "sys/bus/pci").mkdir(parents=True, exist_ok=True)
    if not (bus / "subsystem").exists():
        (bus / "subsystem").symlink_to(root / "sys/bus/pci")
    (place / "driver").mkdir()
    for file, content in {"idVendor": vendor, "idProduct": product, "serial": serial_number, "product": text, "manufacturer": "FTDI"}.items():
        (bus / "usb1" / usb / file).write_text(content + "\n")
    tty = root / "sys/class/tty" / name
    tty.mkdir(parents=True)
    (tty / "device").symlink_to(place)
    number = int(name[-1])
    (tty / "dev").write_text(f"188:{number}\n")
    (root / "dev/serial/by-id").mkdir(parents=True, exist_ok=True)
    (root / "dev" / name).write_text("")
    (root / "dev/serial/by-id" / f"usb-FTDI_{text}_{serial_number}-if00-port0").symlink_to(f"../../{name}")
    if udev:
        (root / "run/udev/data").mkdir(parents=True, exist_ok=True)
        (root / f"run/udev/data/c188:{number}").write_text("S:serial/by-id/x\nE:ID_PATH=pci-0000:00:14.0-usb-0:9.9:1.0\n")


def test_usb_adapters_native_ports_and_placeholders_are_told_apart_without_udev(tmp_path: Path) -> None:
    usb_port(tmp_path, "ttyUSB0", "1-1", vendor="0403", product="6015", serial_number="DA6T9QZS", text="TINFO-2253", udev=False)
    usb_port(tmp_path, "ttyUSB1", "1-2.4", vendor="10c4", product="ea60", serial_number="0001", text="CP2102", udev=True)
    for name, kind in (("ttyS0", "4"), ("ttyS1", "0")):
        place = tmp_path / "sys/devices/platform/serial8250" / name
        (place / "driver").mkdir(parents=True)
        (tmp_path / "sys/class/tty" / name).mkdir()
        (tmp_path / "sys/class/tty" / name / "device").symlink_to(place)
        (tmp_path / "sys/class/tty" / name / "type").write_text(kind)
    (tmp_path / "sys/class/tty/tty1").mkdir()
    found = serial.list_ports(tmp_path)
    assert found == [
        PortInfo("/dev/ttyS0"),
        PortInfo(
            "/dev/ttyUSB0", ("/dev/serial/by-id/usb-FTDI_TINFO-2253_DA6T9QZS-if00-port0",), 0x0403, 0x6015, "TINFO-2253", "FTDI", "DA6T9QZS",
            "pci-0000:00:14.0-usb-0:1:1.0", "1-1",
        ),
        PortInfo(
            "/dev/ttyUSB1", ("/dev/serial/by-id/usb-FTDI_CP2102_0001-if00-port0",), 0x10C4, 0xEA60, "CP2102", "FTDI", "0001",
            "pci-0000:00:14.0-usb-0:9.9:1.0", "1-2.4",
        ),
    ]  # fmt: skip
    assert serial.info_of("/dev/ttyUSB0", tmp_path) == found[1]


def test_without_sysfs_there_are_no_ports_and_no_error(tmp_path: Path) -> None:
    assert serial.list_ports(tmp_path) == []
    assert serial.info_of("/dev/ttyUSB7", tmp_path) == PortInfo("/dev/ttyUSB7")
    assert serial.info_of("socket://u:p@host:1") == PortInfo("socket://host:1")


# ------------------------------------------------------------------------------------------------------------ who has which


def test_a_port_named_by_one_section_is_never_had_by_another(tmp_path: Path) -> None:
    node, by_id = tmp_path / "ttyUSB0", tmp_path / "by-id"
    node.write_text("")
    by_id.symlink_to(node)
    ports = Ports()
    ports.reserve(str(by_id), "ekm.bus 1")
    assert ports.owner(str(node)) == "ekm.bus 1"
    with pytest.raises(Conflict, match=r"named by ekm\.bus 1"):
        ports.lease(str(node), "tic")
    with pytest.raises(ConfigurationError, match=r"tic: the port .*ttyUSB0 is also named by ekm\.bus 1"):
        ports.reserve(str(node), "tic")
    lease = ports.lease(str(node), "ekm.bus 1")
    with pytest.raises(Conflict, match="in use"):
        ports.lease(str(by_id), "ekm.bus 1")
    lease.release()
    ports.lease(str(by_id), "ekm.bus 1").release()
    ports.free("ekm.bus 1")
    assert ports.owner(str(node)) is None
    ports.lease(str(node), "tic")


def test_a_reservation_holds_for_whatever_its_name_leads_to_later(tmp_path: Path) -> None:
    ports = Ports()
    ports.reserve(str(tmp_path / "by-id"), "ekm.bus 1")
    ports.lease(str(tmp_path / "ttyUSB3"), "tic").release()
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB3")
    with pytest.raises(Conflict):
        ports.lease(str(tmp_path / "ttyUSB3"), "tic")


def test_one_socket_with_different_credentials_is_one_port() -> None:
    ports = Ports()
    ports.reserve("socket://u:p@host:2001", "ekm.bus 1")
    with pytest.raises(ConfigurationError) as caught:
        ports.reserve("socket://host:2001", "tic")
    assert "p@" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- the bytes


async def test_bytes_come_as_they_are_and_at_once(pty: Pty) -> None:
    stream = await opened(pty)
    everything = bytes(range(128))
    pty.write(everything[:5])
    assert await asyncio.wait_for(stream.read(), 2) == everything[:5]
    pty.write(everything[5:])
    got = b""
    while len(got) < 123:
        got += await asyncio.wait_for(stream.read(), 2)
    assert got == everything[5:]
    stream.write(b"\x02ask\x03")
    await stream.flush()
    assert os.read(pty.master, 99) == b"\x02ask\x03"
    await stream.close()
    await stream.close()
    with pytest.raises(PortError, match="closed"):
        await stream.read()


async def test_the_speed_changes_without_closing(pty: Pty) -> None:
    stream = await opened(pty, 9600)
    assert pty.speed == 9600
    assert not pty.left()
    pty.write(b"old")
    await asyncio.sleep(0.05)
    await stream.set_baudrate(1200)
    assert pty.speed == 1200
    assert not pty.left(), "it was not closed in between"
    pty.write(b"new")
    assert await asyncio.wait_for(stream.read(), 2) == b"new", "what came at the old speed is forgotten"
    await stream.close()
    assert pty.left()


async def test_damaged_bytes_are_told_as_nul_and_a_read_of_nothing_is_not_the_end(pty: Pty) -> None:
    """A pty carries no parity: what can be shown is that the driver is asked for it (and kept so over a change of speed)."""
    stream = await opened(pty)
    for baudrate in (9600, 1200):
        await stream.set_baudrate(baudrate)
        settings = termios.tcgetattr(pty.master)
        assert settings[0] & termios.INPCK
        assert not settings[0] & (termios.IGNPAR | termios.PARMRK | termios.ISTRIP | termios.IXON | termios.ICRNL)
        assert settings[6][termios.VMIN] in (1, b"\x01")
    await stream.close()


async def test_what_nobody_reads_is_bounded_and_the_newest_is_kept(pty: Pty) -> None:
    stream = await opened(pty)
    sent = 0
    async with asyncio.timeout(20):
        while sent < 3 * serial.LIMIT:
            sent += pty.write(b"%07d\n" % (sent // 8) * 1 if sent % 8 == 0 else b"")
            if sent % 2048 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)
    got = await stream.read()
    assert len(got) == serial.LIMIT
    assert stream.dropped == sent - serial.LIMIT
    assert got.endswith(b"%07d\n" % (sent // 8 - 1))
    await stream.close()


async def test_who_listens_is_given_bytes_as_they_come_and_told_the_end_by_read(pty: Pty) -> None:
    stream = await opened(pty)
    pty.write(b"before")
    await asyncio.sleep(0.05)
    heard: list[bytes] = []
    stream.listen(heard.append)
    assert heard == [b"before"]
    ended = asyncio.create_task(stream.read())
    pty.write(b"after")
    await asyncio.sleep(0.05)
    assert heard == [b"before", b"after"]
    pty.close()
    with pytest.raises(PortError, match="unplugged"):
        await asyncio.wait_for(ended, 2)
    await stream.close()


async def test_while_a_stream_rests_bytes_wait_in_the_kernel_and_come_together(pty: Pty) -> None:
    stream = await opened(pty)
    heard: list[bytes] = []
    stream.listen(heard.append)
    stream.rest(0.15)
    for byte in b"one by one":
        pty.write(bytes([byte]))
        await asyncio.sleep(0.005)
    assert heard == []
    await asyncio.sleep(0.2)
    assert heard == [b"one by one"]
    pty.write(b"awake")
    await asyncio.sleep(0.05)
    assert heard[1:] == [b"awake"]
    stream.rest(0.05)
    stream.rest(9)  # one at a time
    await asyncio.sleep(0.1)
    pty.write(b"!")
    await asyncio.sleep(0.05)
    assert heard[2:] == [b"!"]
    stream.rest(9)
    await stream.close()


async def test_unplugging_during_a_rest_is_told_after_it(pty: Pty) -> None:
    stream = await opened(pty)
    stream.rest(0.05)
    pty.close()
    with pytest.raises(PortError, match="unplugged"):
        await asyncio.wait_for(stream.read(), 2)
    await stream.close()


async def test_unplugging_is_told_to_who_waits_and_to_who_asks_later(pty: Pty) -> None:
    stream = await opened(pty)
    pty.write(b"last")
    assert await stream.read() == b"last"
    waiting = asyncio.create_task(stream.read())
    await asyncio.sleep(0.01)
    pty.close()
    for attempt in (waiting, stream.read(), stream.set_baudrate(1200)):
        with pytest.raises(PortError, match="unplugged") as caught:
            await asyncio.wait_for(attempt, 2)
        assert caught.value.why is Why.LOST
    with pytest.raises(PortError):
        stream.write(b"x")
    await stream.close()


async def test_uvloop_reads_ptys_as_well(pty: Pty) -> None:
    """The hub runs on uvloop: the same in a child on that loop."""
    script = f"""
import uvloop
from gridloom.links import serial
async def main():
    stream = await serial.open({pty.name!r}, baudrate=1200, bytesize=7, parity="E")
    print("open", flush=True)
    print(await stream.read(), flush=True)
    await stream.set_baudrate(9600)
    print("set", flush=True)
    try:
        await stream.read()
    except serial.PortError as error:
        print(error.why)
    await stream.close()
uvloop.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, env=environment(SOURCE))
    assert child.stdout is not None
    assert await child.stdout.readline() == b"open\n"
    assert pty.speed == 1200
    pty.write(b"hello")
    assert await child.stdout.readline() == b"b'hello'\n"
    assert await child.stdout.readline() == b"set\n"
    assert pty.speed == 9600
    pty.close()
    assert await child.stdout.read() == b"lost\n"
    assert await child.wait() == 0


# ------------------------------------------------------------------------------------------------- why it cannot be opened


async def why(port: str) -> PortError:
    with pytest.raises(PortError) as caught:
        await serial.open(port, baudrate=9600)
    return caught.value


async def test_a_port_that_is_not_there_and_one_that_is_no_port(tmp_path: Path) -> None:
    error = await why(str(tmp_path / "ttyUSB0"))
    assert (error.why, error.message) == (Why.MISSING, f"{tmp_path}/ttyUSB0: it is not there")
    (tmp_path / "file").write_text("")
    error = await why(str(tmp_path / "file"))
    assert (error.why, error.message) == (Why.UNUSABLE, f"{tmp_path}/file: it is no serial port")


async def test_a_busy_port_is_told_with_who_has_it(pty: Pty) -> None:
    lock = f"fcntl.flock(os.open({pty.name!r}, os.O_RDWR | os.O_NOCTTY), fcntl.LOCK_EX)"
    script = f"import fcntl, os, time; {lock}; print('has it', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"has it\n"
        error = await why(pty.name)
        assert error.why is Why.BUSY
        assert f"process {child.pid} (python" in error.message
    finally:
        child.kill()
        child.communicate()
    stream = await serial.open(pty.name, baudrate=9600)
    await stream.close()


async def test_what_we_have_nobody_else_can_lock(pty: Pty) -> None:
    stream = await opened(pty)
    other = os.open(pty.name, os.O_RDWR | os.O_NOCTTY)  # root may, in spite of TIOCEXCL
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)
    await stream.close()


async def test_a_denied_port_is_told_with_the_group_to_join(pty: Pty) -> None:
    """Root may open everything: as root a child becomes nobody first; as anybody else we take the right away from ourselves."""
    if os.geteuid() != 0:
        os.chmod(pty.name, 0)
        assert (await why(pty.name)).why is Why.DENIED
        return
    os.chown(pty.name, 0, 20)  # Debian's dialout
    os.chmod(pty.name, 0o660)
    script = f"""
import asyncio, concurrent.futures.thread, os, pwd
import serialx
from gridloom.links import serial
async def main():
    try:
        await serial.open({pty.name!r}, baudrate=9600)
    except serial.PortError as error:
        print(error.why, error.message)
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
asyncio.run(main())
"""
    child = subprocess.run([sys.executable, "-c", script], env=environment(SOURCE), capture_output=True, text=True, timeout=30)
    assert child.stderr == ""
    assert child.stdout.startswith(f"denied {pty.name}: permission denied; it belongs to root:dialout with mode 0660: join the group dialout")
    assert "usermod -aG dialout nobody" in child.stdout


def test_denied_says_what_else_it_may_be(tmp_path: Path) -> None:
    node = tmp_path / "tty"
    node.write_text("")
    node.chmod(0o600)
    assert "a udev rule must allow it" in serial.denied(str(node))
    node.chmod(0o660)
    gid = node.stat().st_gid
    assert "although" in serial.denied(str(node), "somebody", frozenset({gid}))
    assert "join the group" in serial.denied(str(node), "somebody", frozenset({gid + 4321}))
    assert serial.denied(str(tmp_path / "none")).endswith("permission denied")


# ------------------------------------------------------------------------------------------------------------- the network


Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(handle: Handle) -> AsyncIterator[int]:
    """A TCP server on a free port; what still runs in the end is ended."""
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def run() -> None:
            try:
                await handle(reader, writer)
            except ConnectionError:
                pass  # the other side has gone
            finally:
                writer.close()

        task = asyncio.create_task(run())
        running.add(task)
        task.add_done_callback(running.discard)

    made = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)


async def test_a_socket_is_a_port() -> None:
    heard = asyncio.Queue[bytes]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"from afar")
        heard.put_nowait(await reader.read(100))
        writer.close()

    async with server(handle) as number:
        stream = await serial.open(f"socket://owner:pass@127.0.0.1:{number}", baudrate=9600, bytesize=7, parity="E")
        assert stream.name == f"socket://127.0.0.1:{number}"
        assert await asyncio.wait_for(stream.read(), 2) == b"from afar"
        await stream.set_baudrate(1200)  # nobody there to be told; it is no error
        stream.rest(0.02)
        stream.write(b"to afar")
        assert await asyncio.wait_for(heard.get(), 2) == b"to afar"
        with pytest.raises(PortError, match="the other end closed the connection") as caught:
            await asyncio.wait_for(stream.read(), 2)
        assert caught.value.why is Why.LOST
        await stream.close()


async def test_a_socket_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
    error = await why(f"socket://owner:pass@127.0.0.1:{number}")
    assert error.why is Why.MISSING
    assert error.message == f"socket://127.0.0.1:{number}: Connection refused"


class AccessServer:
    """The other end of RFC 2217: telnet with COM-PORT-OPTION (44), as ser2net speaks it. Notes what is set; sends data on demand."""

    IAC, DONT, DO, WONT, WILL, SB, SE, OPTION = 255, 254, 253, 252, 251, 250, 240, 44

    def __init__(self) -> None:
        self.set: dict[int, list[bytes]] = {}
        self.writer: asyncio.StreamWriter | None = None
        self.data = bytearray()

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data.replace(b"\xff", b"\xff\xff"))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                byte = (await reader.readexactly(1))[0]
                if byte != self.IAC:
                    self.data.append(byte)
                    continue
                verb = (await reader.readexactly(1))[0]
                if verb == self.IAC:
                    self.data.append(verb)
                elif verb in (self.DO, self.WILL):
                    option = (await reader.readexactly(1))[0]
                    writer.write(bytes([self.IAC, self.WILL if verb == self.DO else self.DO, option]))
                elif verb == self.SB:
                    option, command = await reader.readexactly(2)
                    value = (await reader.readuntil(bytes([self.IAC, self.SE])))[:-2]
                    assert option == self.OPTION
                    self.set.setdefault(command, []).append(value)
                    writer.write(bytes([self.IAC, self.SB, self.OPTION, command + 100]) + value + bytes([self.IAC, self.SE]))
        writer.close()


async def test_rfc2217_sets_speed_and_parity_over_there() -> None:
    access = AccessServer()
    async with server(access.handle) as number:
        stream = await serial.open(f"rfc2217://127.0.0.1:{number}", baudrate=1200, bytesize=7, parity="E")
        assert access.set[1] == [(1200).to_bytes(4, "big")]
        assert access.set[2] == [b"\x07"]
        assert access.set[3] == [b"\x03"], "even"
        assert access.set[4] == [b"\x01"]
        access.send(b"\x02\nADCO 031664001115 ;\r\xff\x03")
        got = b""
        while len(got) < 23:
            got += await asyncio.wait_for(stream.read(), 2)
        assert got == b"\x02\nADCO 031664001115 ;\r\xff\x03"
        await stream.set_baudrate(9600)
        assert access.set[1][-1] == (9600).to_bytes(4, "big")
        stream.write(b"a\xffb")
        await stream.flush()
        assert bytes(access.data) == b"a\xffb"
        await stream.close()


async def test_a_server_that_speaks_no_rfc2217_is_told() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(bytes([255, 254, 0]))  # DONT BINARY
        await reader.read()
        writer.close()

    async with server(handle) as number:
        error = await why(f"rfc2217://u:p@127.0.0.1:{number}")
        assert error.why is Why.UNUSABLE
        assert error.message == f"rfc2217://127.0.0.1:{number}: Server refused BINARY transmission"
