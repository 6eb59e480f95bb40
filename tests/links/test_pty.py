"""A line over a pseudo-terminal, opened as any program would open it: by its path, with termios."""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.links.pty import Pty, misread


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Pty]:
    pty = Pty(tmp_path / "line")
    pty.open(9600)
    yield pty
    pty.close()


def reader(path: Path, speed: int | None = termios.B9600) -> int:
    """Open as a program does that reads a meter."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(descriptor)
    if speed is not None:
        settings = termios.tcgetattr(descriptor)
        settings[4] = settings[5] = speed
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    return descriptor


def heard(descriptor: int, seconds: float = 1.0) -> bytes:
    """What has arrived; waits for the first byte."""
    select.select([descriptor], [], [], seconds)
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def test_who_opens_it_hears_what_is_said_from_then_on(line: Pty) -> None:
    line.send(b"nobody", 9600)
    assert line.lost == 6
    descriptor = reader(line.path)
    line.send(b"\x02\nADSC\t1\t0\r\x03", 9600)
    assert heard(descriptor) == b"\x02\nADSC\t1\t0\r\x03"
    os.close(descriptor)


def test_the_speed_that_the_other_end_set_is_seen(line: Pty) -> None:
    assert line.speed() == 9600, "who sets none hears what is said"
    descriptor = reader(line.path, termios.B1200)
    assert line.speed() == 1200
    os.close(descriptor)


def test_at_the_wrong_speed_it_is_garbage(line: Pty) -> None:
    descriptor = reader(line.path, termios.B1200)
    line.send(b"\nEAST\t003519703\t+\r" * 8, 9600)
    garbage = heard(descriptor)
    assert 0 < len(garbage) < 40, "a reader that is eight times too slow sees about an eighth of the bytes"
    assert b"EAST" not in garbage
    os.close(descriptor)


def test_after_a_hang_up_terminal_and_link_are_fresh(line: Pty) -> None:
    first = os.readlink(line.path)
    descriptor = reader(line.path)
    assert line.look(9600)
    line.send(b"left over", 9600)
    os.close(descriptor)
    assert not line.look(9600)
    assert (line.opened, os.readlink(line.path) != first) == (1, True)
    descriptor = reader(line.path)
    line.send(b"new", 9600)
    assert heard(descriptor) == b"new"
    os.close(descriptor)


def test_one_that_came_and_went_unseen_is_known_by_its_settings(line: Pty) -> None:
    os.close(reader(line.path, termios.B1200))
    assert not line.look(9600)
    assert line.opened == 1
    assert line.speed() == 9600


def test_the_link_is_never_missing_and_no_hang_up_is_invented(line: Pty) -> None:
    for _ in range(5):
        assert not line.look(9600)
    assert line.opened == 0
    assert line.path.is_symlink()


def test_what_nobody_reads_is_lost_and_counted_and_nothing_waits(line: Pty) -> None:
    descriptor = reader(line.path)
    for _ in range(300):
        line.send(b"x" * 1000, 9600)
    assert line.lost > 100_000
    os.close(descriptor)


def test_what_the_other_end_writes_is_received(line: Pty) -> None:
    assert line.receive() == b""
    descriptor = reader(line.path)
    os.write(descriptor, b"hello")
    assert line.receive() == b"hello"
    os.close(descriptor)


def test_a_path_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="no symbolic link"):
        Pty(tmp_path / "file").open(9600)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(FileNotFoundError):
        Pty(tmp_path / "nowhere" / "line").open(9600)


def test_closing_removes_our_link_only(tmp_path: Path) -> None:
    one, two = Pty(tmp_path / "line"), Pty(tmp_path / "line")
    one.open(9600)
    two.open(9600)
    one.close()
    assert (tmp_path / "line").is_symlink()
    two.close()
    assert not (tmp_path / "line").is_symlink()


@given(st.binary(max_size=80).map(lambda data: bytes(byte & 0x7F for byte in data)))
def test_at_the_right_speed_a_uart_reads_what_was_sent(data: bytes) -> None:
    assert misread(data, 9600, 9600) == data


@pytest.mark.parametrize(("sent", "read"), [(1200, 9600), (9600, 1200), (9600, 19200), (9600, 4800), (1200, 2400)])
def test_at_a_wrong_speed_no_group_survives(sent: int, read: int) -> None:
    data = b"\x02" + b"\nPAPP 02840 /\r\nHCHC 010558376 )\r" * 50 + b"\x03"
    garbage = misread(data, sent, read)
    assert garbage
    assert max(garbage) < 128
    assert b"PAPP" not in garbage
    assert b"HCHC" not in garbage
    assert misread(data, sent, 0) == b""
