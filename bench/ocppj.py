"""What the grammar of CALL and CALLRESULT costs, alone and with its driver, beside a floor that anybody pays; JSON on standard output.

A MeterValues CALL of 7 KB (60 sampledValues of OS³P), as stations write it (compact), as Python's ``json`` does (blanks), and with escapes, whose
text is read a second time for keys that come twice; and a Heartbeat. Floor: ``msgspec.json.decode`` of the same bytes. CPU-seconds per 10,000, each
the best of the rounds that fit into the time. The driver answers with ``{}`` over a socket that is not there.
``.venv/bin/python bench/ocppj.py [--seconds 2]``; ``--check`` exits with 1 when the grammar takes more than the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import uvloop

from gridloom.codecs import ocppj
from gridloom.core.clock import Clock
from gridloom.links.calls import Calls

COUNT = 2_000
SCALE = 10_000 / COUNT
LIMIT = 2.0
"""Times the bare parse that the grammar may take for MeterValues: to parse and to write again is what it costs to find keys that come twice."""
UNITS = (("Current.L", "A"), ("Voltage.L", "V"), ("ActivePower.L", "W"))


def meter_values(note: str = "P1Meter") -> dict[str, Any]:
    """60 sampledValues, spelt as in the guide's example."""
    values = [
        {"value": f"{i}.25", "context": "Sample.Periodic", "format": "Raw", "measurand": f"{name}{i % 3 + 1}", "unit": unit, "location": note}
        for i, (name, unit) in zip(range(60), itertools.cycle(UNITS), strict=False)
    ]
    return {"meterValue": [{"timestamp": "2013-03-07T16:52:16Z", "sampledValue": values}]}


def calls(action: str, payload: Any, blanks: bool = False) -> list[str]:
    """CALLs with ids of their own."""
    separators = (", ", ": ") if blanks else (",", ":")
    return [json.dumps([2, f"{i:08}-1f2e-4a5b-8c7d-{i:012}", action, payload], separators=separators) for i in range(COUNT)]


def best(seconds: float, work: Callable[[], None]) -> float:
    """CPU-seconds of the quickest round."""
    work()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.process_time()
        work()
        least = min(least, time.process_time() - begin)
    return round(least * SCALE, 4)


def floor(texts: list[str]) -> None:
    """The bare parse."""
    for text in texts:
        msgspec.json.decode(text)


def grammar(texts: list[str]) -> None:
    """Read, judged, answered."""
    connection = ocppj.Connection()
    for text in texts:
        heard = connection.receive(text)
        assert isinstance(heard, ocppj.Call)
        connection.result(heard.id, b"{}")


class Pretended:
    """A socket that gives ``texts`` one at a time, each when the one before was answered, and swallows what is sent."""

    writable = True

    def __init__(self, texts: list[str]) -> None:
        self._texts: Iterator[str] = iter(texts)
        self._waits: asyncio.Future[None] | None = None
        self._ready = True

    async def receive(self) -> str | bytes | None:
        if not self._ready:
            self._waits = asyncio.get_running_loop().create_future()
            await self._waits
        self._ready = False
        return next(self._texts, None)

    def send(self, message: str) -> bool:
        self._ready = True
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(None)
        return True

    async def drain(self) -> None:
        """It takes everything."""

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(f"closed: {code} {reason}")


async def nothing(action: str, payload: bytes) -> bytes:
    """The handler."""
    return b"{}"


def driven(texts: list[str]) -> None:
    """The grammar behind its driver, on uvloop."""

    async def run() -> None:
        await Calls(Pretended(texts), ocppj.Connection(), clock=Clock(), answer=nothing).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def idle_bytes(count: int = 1_000) -> dict[str, int]:
    """Bytes of Python memory per connection: as made, when ten CALLs were answered, and its driver with the task that waits."""
    connection = ocppj.Connection()
    made: list[Any] = []

    def per(make: Callable[[], Any]) -> int:
        made.clear()
        begin = tracemalloc.get_traced_memory()[0]
        made.extend(make() for _ in range(count))
        return (tracemalloc.get_traced_memory()[0] - begin) // count

    def used() -> ocppj.Connection:
        fresh = ocppj.Connection()
        for number in range(10):
            fresh.receive(f'[2,"{number}","Heartbeat",{{}}]')
            fresh.result(str(number), b"{}")
        return fresh

    async def waiting() -> int:
        size = per(lambda: asyncio.get_running_loop().create_task(Calls(Silent(), connection, clock=Clock(), answer=nothing).run()))
        begin = tracemalloc.get_traced_memory()[0]
        await asyncio.sleep(0)
        size += (tracemalloc.get_traced_memory()[0] - begin) // count
        for task in made:
            task.cancel()
        await asyncio.gather(*made, return_exceptions=True)
        return size

    tracemalloc.start()
    figures = {"grammar_new": per(ocppj.Connection), "grammar_after_10_calls": per(used), "driver_and_task": asyncio.run(waiting())}
    tracemalloc.stop()
    return figures


class Silent(Pretended):
    """A peer that says nothing."""

    def __init__(self) -> None:
        super().__init__([])

    async def receive(self) -> str | bytes | None:
        await asyncio.get_running_loop().create_future()
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per figure")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    compact = calls("MeterValues", meter_values())
    kinds = {
        "meter_values": compact,
        "meter_values_blanks": calls("MeterValues", meter_values(), blanks=True),
        "meter_values_escaped": calls("MeterValues", meter_values("Zähler")),
        "heartbeat": calls("Heartbeat", {}),
    }
    figures: dict[str, Any] = {"bench": "ocppj", "unit": "CPU-seconds per 10,000", "bytes": {name: len(texts[0]) for name, texts in kinds.items()}}
    for name, work in (("floor_bare_parse", floor), ("grammar", grammar), ("grammar_and_driver", driven)):
        figures[name] = {kind: best(given.seconds, lambda work=work, texts=texts: work(texts)) for kind, texts in kinds.items()}  # type: ignore[misc]
    times = round(figures["grammar"]["meter_values"] / figures["floor_bare_parse"]["meter_values"], 2)
    figures |= {"grammar_times_floor": times, "limit_times_floor": LIMIT}
    figures["idle_bytes_per_connection"] = idle_bytes()
    print(json.dumps(figures, indent=2))
    return int(given.check and times > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
