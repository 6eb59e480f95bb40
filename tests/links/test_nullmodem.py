"""links/nullmodem: a wire that carries, ends, slows and damages as asked."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.clock import Clock
from gridloom.links.nullmodem import LIMIT, Nullmodem


@given(pieces=st.lists(st.binary(max_size=50), max_size=20), back=st.binary(max_size=50))
def test_carries_both_ways_unchanged(pieces: list[bytes], back: bytes) -> None:
    async def go() -> None:
        wire = Nullmodem(Clock())
        for piece in pieces:
            wire.a.write(piece)
        wire.b.write(back)
        wire.a.close()
        got = b""
        while piece := await wire.b.read(7):
            got += piece
        assert got == b"".join(pieces)
        if back:
            assert await wire.a.read() == back
        assert await wire.a.read() == b""

    asyncio.run(go())


async def test_read_waits_for_the_first_byte() -> None:
    wire = Nullmodem(Clock())
    reading = asyncio.create_task(wire.b.read())
    await asyncio.sleep(0.01)
    assert not reading.done()
    wire.a.write(b"x")
    assert await reading == b"x"


async def test_readexactly_and_readuntil() -> None:
    wire = Nullmodem(Clock())
    wire.a.write(b"ab\rcd\refg")
    assert await wire.b.readuntil(b"\r") == b"ab\r"
    assert await wire.b.readexactly(2) == b"cd"
    wire.a.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await wire.b.readexactly(20)
    assert caught.value.partial == b"\refg"
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.b.readuntil(b"\r")


async def test_pace_is_ten_bits_a_byte_on_the_clock() -> None:
    wire = Nullmodem(Clock(speed=20), bits_per_second=9600)
    begin = time.monotonic()
    wire.a.write(b"U" * 960)  # one second of line time
    await wire.a.drain()
    took = (time.monotonic() - begin) * 20
    assert await wire.b.readexactly(960) == b"U" * 960
    assert 0.95 < took < 20, f"{took} s of line time"


async def test_pace_holds_bytes_back_and_close_sends_the_rest() -> None:
    wire = Nullmodem(Clock(), bits_per_second=10_000)
    wire.a.write(b"x" * 50)
    wire.a.close()
    await asyncio.sleep(0)
    assert len(wire.b._unread) < 50
    assert await wire.b.readexactly(50) == b"x" * 50
    await wire.a.wait_closed()
    assert await wire.b.read() == b""


async def test_cut_ends_both_and_writing_raises() -> None:
    wire = Nullmodem(Clock(), bits_per_second=1200)
    wire.a.write(b"never arrives whole" * 10)
    await asyncio.sleep(0.02)
    wire.cut()
    assert len(await wire.b.read()) < 190
    assert await wire.b.read() == b""
    assert await wire.a.read() == b""
    with pytest.raises(ConnectionResetError, match="cut"):
        wire.a.write(b"more")
    wire.b.close()
    with pytest.raises(ConnectionResetError, match="closed"):
        wire.b.write(b"more")


async def test_a_waiting_reader_hears_the_cut() -> None:
    wire = Nullmodem(Clock())
    reading = asyncio.create_task(wire.a.read())
    await asyncio.sleep(0)
    wire.cut()
    assert await reading == b""


async def test_noise_flips_one_bit_at_the_given_rate_and_repeats() -> None:
    def damaged(seed: int) -> bytes:
        wire = Nullmodem(Clock(), noise=0.1, random=Random(seed))
        wire.a.write(bytes(10_000))
        return bytes(wire.b._unread)

    one = damaged(1)
    hit = [byte for byte in one if byte]
    assert 800 < len(hit) < 1200
    assert all(byte.bit_count() == 1 for byte in hit)
    assert damaged(1) == one
    assert damaged(2) != one


async def test_drop_loses_just_so_many_bytes() -> None:
    wire = Nullmodem(Clock())
    wire.drop(3)
    wire.a.write(b"ab")
    wire.a.write(b"cdef")
    assert await wire.b.read() == b"def"


async def test_what_nobody_reads_is_bounded_oldest_out_and_counted() -> None:
    wire = Nullmodem(Clock())
    wire.a.write(b"old" + b"n" * LIMIT)
    assert wire.b.dropped == 3
    assert await wire.b.read() == b"n" * LIMIT


async def test_drain_waits_for_the_reader() -> None:
    wire = Nullmodem(Clock())
    wire.a.write(b"x" * LIMIT)
    draining = asyncio.create_task(wire.a.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    await wire.b.read()
    await asyncio.wait_for(draining, 1)
