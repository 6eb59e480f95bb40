"""Serial ports: which there are, who has which, and the bytes that come from one. Local ones, ``socket://host:port``, ``rfc2217://host:port``.

A port that one section of the configuration names is never opened by another: ``Ports`` keeps who may (``reserve``) and who has (``lease``),
by the name that was written and by what it leads to now, so that ``/dev/serial/by-id/…`` and ``/dev/ttyUSB0`` are one port.

serialx is the driver, imported at the first ``open``. What is ours: what ports there are (read from sysfs; udev is not needed), the reasons
why one cannot be opened in words for its owner, the choice of how damaged bytes are told, and a bound on what waits unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import fcntl
import grp
import logging
import os
import pwd
import re
import stat
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gridloom.core.errors import ConfigurationError, Conflict, Offline

log = logging.getLogger(__name__)

LIMIT = 64 * 1024
"""Bytes that may wait unread; then the oldest go and ``dropped`` counts, as in a receiver that overruns."""
SCHEMES = ("socket", "rfc2217")
_CONNECT_SECONDS = 10.0
_AT_ONCE = 4096
"""Bytes that are read at once: what a tty holds (N_TTY_BUF_SIZE)."""
_TIOCNXCL = 0x540D  # asm-generic/ioctls.h; the termios module has only its opposite
_ROOT = Path("/")


class Why(enum.StrEnum):
    """Why a port cannot be used now."""

    MISSING = "missing"  # it is not there, nobody listens there
    DENIED = "denied"  # the user of the hub may not open it
    BUSY = "busy"  # somebody else has it
    UNUSABLE = "unusable"  # it is there, but it is no serial port or cannot be set as asked
    LOST = "lost"  # it was open and is gone


class PortError(Offline):
    """A port cannot be used now; ``why`` for programs, the message for its owner. Nothing was sent."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why


# ----------------------------------------------------------------------------------------------------------------- names


def is_url(port: str) -> bool:
    """Whether the port is reached over the network, and not by a device path."""
    return "://" in port


def shown(port: str) -> str:
    """The name of a port as it may be told: of a URL scheme, host and port only, never the credentials."""
    if not is_url(port):
        return port
    scheme, host, number = _address(port)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{number}"


def checked(port: str) -> str:
    """The port as it was written. Raises ValueError with what is allowed when it is neither an absolute path nor a URL that we know."""
    if is_url(port):
        _address(port)
    elif not port.startswith("/") or "\0" in port:
        raise ValueError('neither an absolute path such as "/dev/serial/by-id/…" nor "socket://host:port" nor "rfc2217://host:port"')
    return port


def _address(url: str) -> tuple[str, str, int]:
    """Scheme, host, port. Raises ValueError without repeating the URL: it may hold credentials."""
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError:
        host, number, parts = None, None, urlsplit("")
    if parts.scheme not in SCHEMES or not host or not number:
        raise ValueError('a port on the network is written "socket://host:port" or "rfc2217://host:port"')
    return parts.scheme, host, number


# ----------------------------------------------------------------------------------------------------- which ports there are


class PortInfo(NamedTuple):
    """A port of this machine. ``links`` are the names below /dev/serial that lead to it; ids are those of its USB device, None for a native port.

    ``id_path`` is what udev calls ID_PATH (``pci-0000:00:14.0-usb-0:1:1.0``), ``usb_path`` where it is plugged (``1-1``); both stay the same as
    long as it is plugged in the same place.
    """

    path: str
    links: tuple[str, ...] = ()
    vendor_id: int | None = None
    product_id: int | None = None
    product: str = ""
    manufacturer: str = ""
    serial: str = ""
    id_path: str | None = None
    usb_path: str | None = None


def list_ports(root: Path = _ROOT) -> list[PortInfo]:
    """The serial ports of this machine, by path. ``root`` is where ``sys``, ``dev`` and ``run`` are (``/``)."""
    links = _links(root)
    found = []
    for name in _names(root / "sys/class/tty"):
        tty = root / "sys/class/tty" / name
        info = _info(root, tty, name)
        if info is not None:
            found.append(info._replace(links=tuple(links.get(info.path, ()))))
    return sorted(found)


def info_of(port: str, root: Path = _ROOT) -> PortInfo:
    """What is known about one port, by any of its names; of a URL, a pty or a port that is not there only its name."""
    if is_url(port):
        return PortInfo(shown(port))
    path = os.path.realpath(port)
    info = _info(root, root / "sys/class/tty" / os.path.basename(path), os.path.basename(path)) if os.path.dirname(path) == "/dev" else None
    return PortInfo(path) if info is None else info._replace(links=tuple(_links(root).get(path, ())))


def _info(root: Path, tty: Path, name: str) -> PortInfo | None:
    device = tty / "device"
    if not os.path.lexists(device / "driver"):  # consoles, ptys: nothing is behind them
        return None
    try:
        place = device.resolve(strict=True)
    except OSError:
        return None  # it was unplugged while we looked
    usb = next((parent for parent in (place, *place.parents) if (parent / "idVendor").exists()), None)
    interface = next((parent for parent in (place, *place.parents) if re.fullmatch(r"\d+-[\d.]+:\d+\.\d+", parent.name)), None)
    if usb is None and _text(tty / "type") == "0":  # PORT_UNKNOWN: a placeholder of the 8250 driver without hardware
        return None
    path = f"/dev/{name}"
    info = PortInfo(path, id_path=_id_path(root, tty, place, interface))
    if usb is None:
        return info
    return info._replace(
        vendor_id=_hex(usb / "idVendor"),
        product_id=_hex(usb / "idProduct"),
        product=_text(usb / "product"),
        manufacturer=_text(usb / "manufacturer"),
        serial=_text(usb / "serial"),
        usb_path=usb.name,
    )


def _id_path(root: Path, tty: Path, place: Path, interface: Path | None) -> str | None:
    """As udev wrote it down; where it does not run, made from sysfs as udev's path_id does for USB on PCI or on a platform bus."""
    number = _text(tty / "dev")
    for line in _text(root / "run/udev/data" / f"c{number}").splitlines() if number else ():
        if line.startswith("E:ID_PATH="):
            return line.partition("=")[2]
    parts = []
    if interface is not None:
        parts.append("usb-0:" + interface.name.partition("-")[2])
    for parent in (place, *place.parents):
        bus = os.path.basename(os.path.realpath(parent / "subsystem")) if os.path.lexists(parent / "subsystem") else ""
        if bus in ("pci", "platform"):
            return "-".join([f"{bus}-{parent.name}", *parts])
    return None


def _links(root: Path) -> dict[str, list[str]]:
    """Device path -> names below /dev/serial."""
    found: dict[str, list[str]] = {}
    for folder in ("by-id", "by-path"):
        for name in _names(root / "dev/serial" / folder):
            target = os.path.realpath(root / "dev/serial" / folder / name)
            path = "/" + os.path.relpath(target, root) if root != _ROOT else target
            found.setdefault(path, []).append(f"/dev/serial/{folder}/{name}")
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _hex(path: Path) -> int | None:
    try:
        return int(_text(path), 16)
    except ValueError:
        return None


# ------------------------------------------------------------------------------------------------------------ who has which


class Lease:
    """One port is ours until ``release``."""

    def __init__(self, ports: Ports, port: str, owner: str) -> None:
        self.port = port
        self.owner = owner
        self._ports = ports

    def release(self) -> None:
        """Others may have it."""
        self._ports._leases.discard(self)


class Ports:
    """Who may open which port, and who has. ``owner`` is the section of the configuration, as its owner calls it (``tic``, ``ekm.bus 1``)."""

    def __init__(self) -> None:
        self._reserved: dict[str, str] = {}
        self._leases: set[Lease] = set()

    def reserve(self, port: str, owner: str) -> None:
        """The configuration names this port for ``owner``, whether it is there now or not. Raises ConfigurationError when it is another's."""
        names = _same(port)
        for known, other in self._reserved.items():
            if other != owner and names & _same(known):
                raise ConfigurationError(f"{owner}: the port {shown(port)} is also named by {other}; a port can be read by one of them only")
        self._reserved[port] = owner

    def free(self, owner: str) -> None:
        """What was reserved for ``owner`` no longer is."""
        self._reserved = {port: other for port, other in self._reserved.items() if other != owner}

    def owner(self, port: str) -> str | None:
        """For whom the port is reserved, or who has it now."""
        names = _same(port)
        for known, owner in (*self._reserved.items(), *((lease.port, lease.owner) for lease in self._leases)):
            if names & _same(known):
                return owner
        return None

    def lease(self, port: str, owner: str) -> Lease:
        """Have the port until ``release``. Raises Conflict when it is reserved for somebody else, or when anybody has it."""
        names = _same(port)
        for known, other in self._reserved.items():
            if other != owner and names & _same(known):
                raise Conflict(f"the port {shown(port)} is named by {other}")
        for lease in self._leases:
            if names & _same(lease.port):
                raise Conflict(f"the port {shown(port)} is in use by {lease.owner} of this hub")
        made = Lease(self, port, owner)
        self._leases.add(made)
        return made


PORTS = Ports()
"""Of this process: a port is a thing of the machine, whatever number of hubs a test runs in one process."""


def _same(port: str) -> set[str]:
    """All that names this port: as it was written, and what it leads to now."""
    if is_url(port):
        return {shown(port)}
    return {port, os.path.realpath(port)}


# ------------------------------------------------------------------------------------------------- why it cannot be opened


def denied(path: str, user: str | None = None, groups: frozenset[int] | None = None) -> str:
    """In words, with what to do: the group to join, read from the device node. ``user`` and ``groups`` are those of this process if absent."""
    try:
        node = os.stat(path)
    except OSError:
        return f"{path}: permission denied"
    mode = stat.S_IMODE(node.st_mode)
    owner = f"it belongs to {_user(node.st_uid)}:{_group(node.st_gid)} with mode {mode:04o}"
    if mode & (stat.S_IRGRP | stat.S_IWGRP) != (stat.S_IRGRP | stat.S_IWGRP):
        return f"{path}: permission denied; {owner}, which lets no group read and write: a udev rule must allow it (GROUP=…, MODE=0660)"
    name = _user(os.geteuid()) if user is None else user
    group = _group(node.st_gid)
    if node.st_gid in (frozenset({os.getegid(), *os.getgroups()}) if groups is None else groups):
        return f"{path}: permission denied although {name} is in the group {group}; {owner}: is a container or a security module in between?"
    with contextlib.suppress(KeyError):
        if name in grp.getgrgid(node.st_gid).gr_mem:
            return f"{path}: permission denied; {name} is in the group {group}, but not this process: log in again, or restart the service"
    return f"{path}: permission denied; {owner}: join the group {group} (sudo usermod -aG {group} {name}) and log in again"


def holders(path: str) -> list[str]:
    """Who else has the device open, as far as /proc tells this user: ``process 1234 (minicom)``; those who locked it first."""
    try:
        node = os.stat(path)
    except OSError:
        return []
    pids = dict.fromkeys((*_lockers(node), *_openers(node)))
    return [f"process {pid} ({_text(Path(f'/proc/{pid}/comm')) or 'unknown'})" for pid in pids if pid != os.getpid()]


def _lockers(node: os.stat_result) -> Iterator[int]:
    wanted = f"{os.major(node.st_dev):02x}:{os.minor(node.st_dev):02x}:{node.st_ino}"
    for line in _text(Path("/proc/locks")).splitlines():
        words = line.split()
        if wanted in words and "FLOCK" in words and (pid := words[words.index(wanted) - 1]).isdigit() and pid != "0":
            yield int(pid)


def _openers(node: os.stat_result) -> Iterator[int]:
    for pid in _names(Path("/proc")):
        if not pid.isdigit():
            continue
        for number in _names(Path(f"/proc/{pid}/fd")):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{number}")
                if (found.st_ino, found.st_dev) == (node.st_ino, node.st_dev):
                    yield int(pid)
                    break


def _busy(path: str) -> str:
    by = holders(path)
    return f"{path}: {by[0]} has it" if by else f"{path}: another program has it"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _reason(port: str, error: BaseException) -> PortError:
    """What the driver raised, as an owner can use it."""
    name = shown(port)
    if isinstance(error, TimeoutError):
        return PortError(Why.MISSING, f"{name}: no answer within {_CONNECT_SECONDS:g} s")
    if isinstance(error, OSError | termios.error):
        number, words = (*error.args, "", "")[:2]
        code = number if isinstance(number, int) else 0
        if is_url(port):
            said = os.strerror(code) if code > 0 else "the name is not known"
            return PortError(Why.MISSING, f"{name}: {said}")
        if code in (errno.EACCES, errno.EPERM):
            return PortError(Why.DENIED, denied(port))
        if code in (errno.EBUSY, errno.EAGAIN):
            return PortError(Why.BUSY, _busy(port))
        if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO, errno.ENOTDIR, errno.ELOOP):
            return PortError(Why.MISSING, f"{name}: {'it is not there' if code == errno.ENOENT else os.strerror(code)}")
        if code == errno.ENOTTY:
            return PortError(Why.UNUSABLE, f"{name}: it is no serial port")
        return PortError(Why.UNUSABLE, f"{name}: {os.strerror(code) if code else words}")
    return PortError(Why.UNUSABLE, f"{name}: {error}".replace(port, name))


# --------------------------------------------------------------------------------------------------------------- the bytes


class Stream(asyncio.Protocol):
    """An open port. Made by ``open``; the descriptor is ours alone until ``close``."""

    def __init__(self, port: str) -> None:
        self.name = shown(port)
        self.dropped = 0
        """Bytes lost because nobody read them in time."""
        self._port = port
        self._unread = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._hear: Callable[[bytes], None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._lost: PortError | None = None

    async def read(self) -> bytes:
        """What is there, at once; waits for the first byte. Raises PortError (lost) when the port is gone."""
        if not self._unread:
            if self._lost is not None:
                raise self._lost
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
            if not self._unread and self._lost is not None:
                raise self._lost
        taken = bytes(self._unread)
        self._unread.clear()
        return taken

    def listen(self, hear: Callable[[bytes], None]) -> None:
        """Give bytes to ``hear`` (quick, synchronous) as they come, without waking a task; ``read`` then only tells the end."""
        self._hear = hear
        if self._unread:
            taken = bytes(self._unread)
            self._unread.clear()
            hear(taken)

    def rest(self, seconds: float) -> None:
        """Take nothing for so long (real time): what comes waits in the kernel. For those who are told of bytes more often than they need."""
        if self._lost is None and self._resting is None:
            self._transport.pause_reading()
            self._resting = asyncio.get_running_loop().call_later(seconds, self._resume)

    def write(self, data: bytes) -> None:
        """Send. Raises PortError (lost) when the port is gone."""
        if self._lost is not None:
            raise self._lost
        try:
            self._transport.write(data)
        except OSError as error:
            raise PortError(Why.LOST, f"{self.name}: {error.strerror}") from None

    async def flush(self) -> None:
        """Returns when what was written has left. Raises PortError (lost)."""
        try:
            await self._transport.flush()
        except OSError as error:
            raise PortError(Why.LOST, f"{self.name}: {error.strerror}") from None

    async def set_baudrate(self, baudrate: int) -> None:
        """Another speed, without closing; what came at the old one and was not read is forgotten. Raises PortError."""
        if self._lost is not None:
            raise self._lost
        local = not is_url(self._port)
        try:
            if local:
                self._transport.pause_reading()  # while the driver's settings are in force a read of nothing would look like the end
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await self._transport.reconfigure_port(baudrate=baudrate)
                self._settle()
            finally:
                if local and self._transport is not None:
                    self._transport.resume_reading()
        except (OSError, termios.error, AssertionError) as error:  # the driver asserts that the port is open
            raise PortError(Why.LOST, f"{self.name}: {error or 'closed'}") from None
        except _driver().SerialException as error:
            raise _reason(self._port, error) from None
        self._unread.clear()

    async def close(self) -> None:
        """Give it back. May be called twice; never raises."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self._lost is None:
            self._lost = PortError(Why.LOST, f"{self.name}: it was closed")
            with contextlib.suppress(OSError):
                if not is_url(self._port) and not transport.is_closing():
                    # On a pty the mark would outlive us as long as its master is open.
                    fcntl.ioctl(transport.serial.fileno(), _TIOCNXCL)
        self._wake()
        self._stay_awake()
        transport.abort()
        await transport.wait_closed()

    # what the driver calls

    def connection_made(self, transport: Any) -> None:
        """The port is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._hear is not None:
            self._hear(data)
            return
        self._unread += data
        excess = len(self._unread) - LIMIT
        if excess > 0:
            del self._unread[:excess]
            self.dropped += excess
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """The port is gone."""
        if self._lost is None:
            said = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno not in (None, errno.EIO) else ""
            self._stay_awake()
            self._lost = PortError(Why.LOST, f"{self.name}: {'the other end closed the connection' if is_url(self._port) else 'unplugged'}{said}")
        self._wake()

    def _resume(self) -> None:
        """The rest is over. What came is taken here: to be woken for it once more would double the cost of a rest."""
        self._resting = None
        if self._transport is None:
            return
        data = b""
        if not is_url(self._port) and not self._transport.is_closing():
            with contextlib.suppress(OSError):  # nothing came, or the port is gone: the driver will see
                data = os.read(self._transport.serial.fileno(), _AT_ONCE)
        if data:
            self.data_received(data)
        if self._resting is None and self._transport is not None:
            self._transport.resume_reading()

    def _stay_awake(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _settle(self) -> None:
        """What the driver leaves open, after it has set the port.

        INPCK without IGNPAR and PARMRK: a byte whose parity or framing is wrong is told as NUL, in its place. Dropped, a damaged byte could
        leave a checksum right, and at a wrong speed nothing at all might come. VMIN 1: a read of nothing is "try again", not the end.
        """
        if is_url(self._port):
            return
        descriptor = self._transport.serial.fileno()
        settings = termios.tcgetattr(descriptor)
        settings[0] = (settings[0] | termios.INPCK) & ~(termios.IGNPAR | termios.PARMRK)
        settings[6][termios.VMIN] = 1
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)


def _driver() -> Any:
    import serialx

    return serialx


async def open(port: str, *, baudrate: int, bytesize: int = 8, parity: str = "N", stopbits: int = 1) -> Stream:
    """Open a port for us alone (flock and TIOCEXCL). ``parity`` is ``N``, ``E`` or ``O``.

    Over ``socket://`` speed and parity are what the other side has set; over ``rfc2217://`` they are asked of it. Raises PortError: missing,
    denied (with the group to join), busy (and by whom, if /proc tells), unusable.
    """
    serialx = _driver()
    stream = Stream(port)
    # Without low latency a USB adapter hands on what came in 16 ms, instead of waking us for each byte.
    local = {} if is_url(port) else {"low_latency": False}
    parities = {"N": serialx.Parity.NONE, "E": serialx.Parity.EVEN, "O": serialx.Parity.ODD}
    try:
        await serialx.create_serial_connection(
            asyncio.get_running_loop(), lambda: stream, port, baudrate,
            parity=parities[parity], stopbits=serialx.StopBits(stopbits), byte_size=bytesize, exclusive=True, **local,
        )  # fmt: skip
        stream._settle()
        if not is_url(port):
            fcntl.ioctl(stream._transport.serial.fileno(), termios.TIOCEXCL)
            # The driver makes room for 256 KiB at each read: for the few bytes of a serial line that costs more than the read.
            stream._transport.max_size = _AT_ONCE
    except (OSError, termios.error, TimeoutError, ValueError, serialx.SerialException) as error:
        reason = _reason(port, error)
        await stream.close()
        raise reason from None
    except BaseException:
        await stream.close()
        raise
    if stream._lost is not None:
        await stream.close()
        raise PortError(Why.MISSING, stream._lost.message)
    return stream
