"""How fast the store is, each figure beside a floor of the same run. Prints JSON: ``python -m bench.store [--quick]``.

Samples are single values; a MeterReading of the realistic shape holds 45 of them. Floors: bare ``sqlite3`` writing the same rows in the same
commits (what the engine costs without us), a bare loop without a store, a dictionary look-up. CPU-seconds are of the whole process, all threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

from gridloom.core.clock import Clock
from gridloom.core.model import MeterReading, Phase, Reading, ReadingType, TimeSource
from gridloom.core.ports import AggregateQuery, Entry, Operator, Put, SeriesFilter, Step
from gridloom.storage import head
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore

START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = time.time_ns() // 1000
WIDE = 45
DEVICES = 200

TYPES = tuple(
    ReadingType(f"Quantity.{number // 3}", "W", (Phase.L1, Phase.L2, Phase.L3)[number % 3], None if number % 2 else "HC") for number in range(WIDE)
)
ENERGY = "Energy.Active.Import.Register"


def wide(device: str, number: int) -> MeterReading:
    """45 readings as a substation or a three-phase meter tells them."""
    at = NOW + number * SECOND
    return MeterReading(device, at, NOW, tuple([Reading(one, 1000 * place + (number * (place + 7)) % 97) for place, one in enumerate(TYPES)]))


def narrow(device: str, number: int) -> MeterReading:
    """One reading."""
    at = NOW + number * SECOND
    return MeterReading(device, at, NOW, (Reading(TYPES[0], 1000 + number % 97),))


class Meter:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Meter:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def opened(folder: Path, **more: Any) -> SqliteStore:
    store = SqliteStore(folder / "store.db", Clock(), StorageSettings(**more))
    await store.open()
    return store


# ------------------------------------------------------------------------------------------------------------- append


def bare_rows(folder: Path, batches: list[list[MeterReading]], readings: int) -> dict[str, Any]:
    """The floor: the same head rows, encoded before, by bare executemany in commits of the same size."""
    bodies = [[(0, one.time, 1, one.received, head.encode(one)) for one in batch] for batch in batches]
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    connection.execute("PRAGMA page_size = 4096")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE head (seq INTEGER PRIMARY KEY, device_no INTEGER, shape_no INTEGER, time INTEGER, source INTEGER, received INTEGER, body BLOB)"
    )
    seq = 0
    with Meter() as meter:
        for batch in bodies:
            connection.execute("BEGIN")
            rows = [(seq + place, number % 50, *row) for place, (number, row) in enumerate(enumerate(batch))]
            seq += len(rows)
            connection.executemany("INSERT INTO head VALUES (?,?,?,?,?,?,?)", rows)
            connection.execute("COMMIT")
    connection.close()
    return {"samples_per_second": round(seq * readings / meter.wall), "cpu_seconds_per_million": round(meter.cpu / (seq * readings) * 1e6, 3)}


async def append_alone(
    make: Callable[[str, int], MeterReading], readings: int, rows: int, batch: int, callers: int, compaction: bool
) -> dict[str, Any]:
    """All callers at once, each one batch after the other, as fast as it goes."""
    folder = Path(tempfile.mkdtemp(prefix="gridloom-bench-"))
    try:
        per_caller = rows // callers // batch
        work = [[[make(f"dev:{who}", number * batch + k) for k in range(batch)] for number in range(per_caller)] for who in range(callers)]
        total = per_caller * callers * batch * readings
        store = await opened(folder, background=compaction)
        waits: list[float] = []

        async def caller(batches: list[list[MeterReading]]) -> None:
            for one in batches:
                begun = time.perf_counter()
                await store.samples.append(one)
                waits.append(time.perf_counter() - begun)

        with Meter() as meter:
            await asyncio.gather(*(caller(one) for one in work))
        await store.close()
        floor = bare_rows(folder, [[one for batches in work for one in batches[number]] for number in range(per_caller)], readings)
        return {
            "samples": total,
            "samples_per_second": round(total / meter.wall),
            "wait_p50_ms": round(statistics.median(waits) * 1e3, 3),
            "wait_p99_ms": round(quantile(waits, 0.99) * 1e3, 3),
            "cpu_seconds_per_million": round(meter.cpu / total * 1e6, 3),
            "floor_bare_executemany": floor,
        }
    finally:
        shutil.rmtree(folder)


async def lag(seconds: float, found: list[float]) -> None:
    """How late the loop runs what is due, measured every 2 ms."""
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        await asyncio.sleep(0.002)
        found.append(max(time.perf_counter() - now - 0.002, 0.0))


async def beside(
    make: Callable[[str, int], MeterReading], readings: int, rate: int, seconds: float, switch: float, *, store_too: bool = True, asking: bool = True
) -> dict[str, Any]:
    """``rate`` samples/s from some devices in a steady stream, beside the loop and people who ask; compaction in the background."""
    folder = Path(tempfile.mkdtemp(prefix="gridloom-bench-"))
    before = sys.getswitchinterval()
    sys.setswitchinterval(switch)
    try:
        store = await opened(folder)
        # A day of history, compacted, to be asked about.
        await store.samples.append([make("dev:0", number * 60) for number in range(1440)])
        await store.compact()
        rows_per_second = rate // readings
        tick = 0.005
        lags: list[float] = []
        answers: list[float] = []
        commits: list[float] = []
        sent = 0
        kept = 0
        waits: list[float] = []
        tasks: set[asyncio.Task[None]] = set()

        async def append(batch: list[MeterReading]) -> None:
            nonlocal kept
            begun = time.perf_counter()
            if store_too:
                await store.samples.append(batch)
            waits.append(time.perf_counter() - begun)
            kept += len(batch)

        async def feed() -> None:
            nonlocal sent
            begun = time.perf_counter()
            while (now := time.perf_counter() - begun) < seconds:
                due = int(now * rows_per_second)
                burst = 0
                while sent < due and burst < rows_per_second * tick * 4:  # after a pause not all at once: that would be a pause of our own
                    many = min(due - sent, 20)
                    burst += many
                    task = asyncio.create_task(append([make(f"dev:{(sent + k) % DEVICES}", 100_000 + (sent + k) // DEVICES) for k in range(many)]))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    sent += many
                await asyncio.sleep(tick)

        async def order() -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                begun = time.perf_counter()
                if store_too:
                    await store.commit([Put("bench", "command", "1", b"{}"), Entry("event", str(begun), NOW, "dev:0", "bench", 1, b"{}")])
                commits.append(time.perf_counter() - begun)
                await asyncio.sleep(0.05)

        async def ask() -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                begun = time.perf_counter()
                if store_too:
                    await store.samples.aggregate(
                        AggregateQuery(SeriesFilter(devices=("dev:0",), measurands=("Quantity.0",)), Operator.AVERAGE, Step.HOUR, NOW, NOW + DAY)
                    )
                    await store.samples.latest(SeriesFilter(devices=("dev:7",)))
                answers.append(time.perf_counter() - begun)
                await asyncio.sleep(0.05)

        with Meter() as meter:
            await asyncio.gather(feed(), lag(seconds, lags), order(), *([ask(), ask()] if asking else []))
            while tasks:
                await asyncio.gather(*tasks)
        stats = await store.stats()
        await store.close()
        return {
            "switch_interval_ms": switch * 1e3,
            "samples_per_second": round(kept * readings / meter.wall),
            "asked_for": rate,
            "loop_lag_p50_ms": round(statistics.median(lags) * 1e3, 3),
            "loop_lag_p99_ms": round(quantile(lags, 0.99) * 1e3, 3),
            "loop_lag_max_ms": round(max(lags) * 1e3, 3),
            "append_wait_p99_ms": round(quantile(waits, 0.99) * 1e3, 3),
            "guaranteed_commit_p50_ms": round(statistics.median(commits) * 1e3, 3),
            "guaranteed_commit_p99_ms": round(quantile(commits, 0.99) * 1e3, 3),
            "questions": len(answers),
            "question_p99_ms": round(quantile(answers, 0.99) * 1e3, 3) if answers else None,
            "cpu_share": round(meter.cpu / meter.wall, 3),
            "chunks_made": stats.chunks,
        }
    finally:
        sys.setswitchinterval(before)
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------------- at rest


def year(device: str, registers: tuple[str | None, ...]) -> Iterator[MeterReading]:
    """A year of ten-minute values of a Linky-like meter: one register runs at a time, the total beside them."""
    types = [ReadingType(ENERGY, "Wh", tariff=one) for one in registers]
    counts = [12_345_678 + 1_000_000 * place for place in range(len(types))]
    chance = random.Random(device)
    for number in range(52_560):
        at = START + number * 600 * SECOND
        hour = number // 6 % 24
        running = 0 if (hour < 6 or hour >= 22) else len(types) - 1
        used = 40 + chance.randrange(150) + (chance.randrange(600) if 18 <= hour < 22 else 0)
        counts[running] += used
        yield MeterReading(device, at, at, tuple([Reading(one, count) for one, count in zip(types, counts, strict=True)]), TimeSource.HUB)


async def at_rest(name: str, batch: list[MeterReading]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="gridloom-bench-"))
    try:
        store = await opened(folder, background=False, resume_seconds=0.0)
        for place in range(0, len(batch), 2000):
            await store.samples.append(batch[place : place + 2000])
        with Meter() as meter:
            await store.compact()
        await store.close()
        connection = sqlite3.connect(folder / "store.db", isolation_level=None)
        samples, chunks, bodies = connection.execute("SELECT sum(count), count(*), sum(length(body)) FROM chunk").fetchone()
        rolled = connection.execute("SELECT coalesce(sum(length(body) + 8), 0) FROM rollup").fetchone()[0]
        for table in ("head", "latest", "rollup"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("VACUUM")
        connection.close()
        size = (folder / "store.db").stat().st_size
        connection = sqlite3.connect(folder / "store.db", isolation_level=None)
        connection.execute("DELETE FROM chunk")
        connection.execute("VACUUM")
        connection.close()
        empty = (folder / "store.db").stat().st_size
        return {
            "what": name,
            "samples": samples,
            "samples_per_chunk": round(samples / chunks, 1),
            "bytes_per_sample_chunk_bodies": round(bodies / samples, 2),
            "bytes_per_sample_chunk_pages": round((size - empty) / samples, 2),
            "bytes_per_sample_roll_ups_beside": round(rolled / samples, 2),
            "compaction_cpu_seconds_per_million": round(meter.cpu / samples * 1e6, 2),
        }
    finally:
        shutil.rmtree(folder)


def sparse(count: int, seconds: int, jitter: bool) -> list[MeterReading]:
    type = ReadingType(ENERGY, "Wh")
    chance = random.Random(2)
    out = []
    value = 5_000_000
    for number in range(count):
        value += chance.randrange(4000)
        at = START + number * seconds * SECOND + (chance.randrange(SECOND) if jitter else 0)
        out.append(MeterReading("dev:0", at, at, (Reading(type, value),)))
    return out


def dense(count: int) -> list[MeterReading]:
    """Once a second with the jitter of a serial line: an energy register, a power, a voltage."""
    types = (ReadingType(ENERGY, "Wh"), ReadingType("Power.Apparent", "VA"), ReadingType("Voltage", "V", Phase.L1))
    chance = random.Random(1)
    out = []
    used = 5_000_000 * 3600
    volts = 2300
    for number in range(count):
        power = 10 * int(70 + chance.gauss(0, 4) + (230 if number // 900 % 4 == 1 else 0))
        used += power
        volts += chance.choice((-1, 0, 0, 0, 1)) + (1 if volts < 2280 else -1 if volts > 2320 else 0)
        at = START + number * SECOND + chance.randrange(20_000)
        values = (used // 3600, power, volts)
        out.append(MeterReading("dev:0", at, at, tuple([Reading(one, value) for one, value in zip(types, values, strict=True)])))
    return out


# ------------------------------------------------------------------------------------------------------------ questions


async def questions(devices: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="gridloom-bench-"))
    try:
        store = await opened(folder, background=False, resume_seconds=0.0, zone="Europe/Paris")
        for who in range(devices):
            batch = list(year(f"tic:{who}", ("HC", "HP")))
            for place in range(0, len(batch), 5000):
                await store.samples.append(batch[place : place + 5000])
        with Meter() as meter:
            await store.compact()
        out: dict[str, Any] = {"devices": devices, "samples": devices * 2 * 52_560, "compaction_seconds": round(meter.wall, 2)}
        begin, end = START - 3600 * SECOND, START - 3600 * SECOND + 365 * DAY
        filters = {"one_register": SeriesFilter(devices=("tic:3",), tariffs=("HP",)), "by_tariff_two_registers": SeriesFilter(devices=("tic:3",))}

        from gridloom.storage.sqlite import aggregation

        async def ask(query: AggregateQuery, rolled: bool) -> float:
            begun = time.perf_counter()
            rows = await store._readers.run(aggregation.aggregate, store._catalogue, store._heads, query, "Europe/Paris", rolled=rolled)
            assert rows[0].buckets
            return time.perf_counter() - begun

        for name, filter in filters.items():
            year_by_day = AggregateQuery(filter, Operator.DELTA, Step.DAY, begin, end, "Europe/Paris")
            month_by_hour = AggregateQuery(filter, Operator.DELTA, Step.HOUR, START + 30 * DAY, START + 61 * DAY, "Europe/Paris")
            figures: dict[str, Any] = {}
            for label, query in (("year_by_day", year_by_day), ("month_by_hour", month_by_hour)):
                for rolled in (False, True):
                    times = [await ask(query, rolled) for _ in range(40)][5:]
                    with Meter() as meter:
                        for _ in range(20):
                            await ask(query, rolled)
                    figures[f"{label}_{'roll_ups' if rolled else 'samples'}"] = {
                        "p50_ms": round(statistics.median(times) * 1e3, 2),
                        "max_of_35_ms": round(max(times) * 1e3, 2),
                        "cpu_ms": round(meter.cpu / 20 * 1e3, 2),
                    }
            out[name] = figures
        connection = sqlite3.connect(folder / "store.db")
        with Meter() as meter:
            for _ in range(20):
                connection.execute("SELECT sum(length(body)) FROM chunk WHERE series_no = 7").fetchone()
        out["floor_reading_the_chunks_of_a_year_ms"] = round(meter.wall / 20 * 1e3, 2)
        connection.close()
        out["latest"] = await latest(store)
        await store.close()
        return out
    finally:
        shutil.rmtree(folder)


async def latest(store: SqliteStore) -> dict[str, Any]:
    await store.samples.append([wide("dev:0", 1)])

    async def timed(work: Callable[[], Awaitable[Any]], count: int) -> list[float]:
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            await work()
            times.append(time.perf_counter() - begun)
        return times

    first = await timed(lambda: store.samples.latest(SeriesFilter(devices=("tic:5",))), 1)
    one = await timed(lambda: store.samples.latest(SeriesFilter(devices=("dev:0",), measurands=("Quantity.3",), phases=(Phase.L1,))), 2000)
    all_of = await timed(lambda: store.samples.latest(SeriesFilter(devices=("dev:0",))), 2000)
    table = {("dev:0", one): object() for one in TYPES}
    keys = [("dev:0", one) for one in TYPES]
    begun = time.perf_counter()
    for _ in range(2000):
        for key in keys:
            table[key]
    floor = (time.perf_counter() - begun) / 2000
    return {
        "one_value_p50_ms": round(statistics.median(one) * 1e3, 4),
        "one_value_p99_ms": round(quantile(one, 0.99) * 1e3, 4),
        "all_45_of_a_device_p50_ms": round(statistics.median(all_of) * 1e3, 4),
        "all_45_of_a_device_p99_ms": round(quantile(all_of, 0.99) * 1e3, 4),
        "first_time_after_start_ms": round(first[0] * 1e3, 3),
        "floor_45_dictionary_look_ups_ms": round(floor * 1e3, 4),
    }


# ---------------------------------------------------------------------------------------------------------- group commit


async def group_commit(callers: int, rounds: int) -> dict[str, Any]:
    """64 callers at once, each with one guaranteed write (document and entry), and each with one reading."""
    folder = Path(tempfile.mkdtemp(prefix="gridloom-bench-"))
    try:
        store = await opened(folder, background=False)
        out: dict[str, Any] = {"callers": callers}
        for name in ("guaranteed", "readings"):
            waits: list[float] = []
            with Meter() as meter:
                for number in range(rounds):

                    async def one(who: int, number: int = number, name: str = name, waits: list[float] = waits) -> None:
                        begun = time.perf_counter()
                        if name == "guaranteed":
                            await store.commit(
                                [Put("bench", "x", str(who), b"{}"), Entry("event", f"{number}-{who}", START, "dev:0", "bench", 1, b"{}")]
                            )
                        else:
                            await store.samples.append([narrow(f"dev:{who}", number)])
                        waits.append(time.perf_counter() - begun)

                    await asyncio.gather(*(one(who) for who in range(callers)))
            out[name] = {
                "us_per_caller_wall": round(meter.wall / callers / rounds * 1e6, 1),
                "us_per_caller_cpu": round(meter.cpu / callers / rounds * 1e6, 1),
                "wait_p50_ms": round(statistics.median(waits) * 1e3, 2),
                "wait_p99_ms": round(quantile(waits, 0.99) * 1e3, 2),
            }
        await store.close()
        connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
        with Meter() as meter:
            for number in range(rounds):
                connection.execute("INSERT INTO t VALUES (?, ?)", (number, b"{}"))
        connection.close()
        out["floor_bare_commit_alone_us"] = round(meter.wall / rounds * 1e6, 1)
        return out
    finally:
        shutil.rmtree(folder)


async def run(quick: bool) -> dict[str, Any]:
    part = 4 if quick else 1
    out: dict[str, Any] = {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version, "load_before": os.getloadavg()[0]}
    out["append_45_readings_batch_10"] = await append_alone(wide, WIDE, 40_000 // part, 10, 20, True)
    out["append_45_readings_batch_1"] = await append_alone(wide, WIDE, 40_000 // part, 1, 64, True)
    out["append_1_reading_batch_100"] = await append_alone(narrow, 1, 400_000 // part, 100, 20, True)
    out["append_1_reading_batch_1"] = await append_alone(narrow, 1, 200_000 // part, 1, 64, True)
    seconds = 4.0 if quick else 15.0
    out["beside_45_readings"] = [await beside(wide, WIDE, 60_000, seconds, switch) for switch in (0.005, 0.001, 0.0005)]
    out["beside_1_reading"] = [await beside(narrow, 1, 60_000, seconds, switch) for switch in (0.005, 0.001, 0.0005)]
    out["beside_floor_no_store"] = await beside(wide, WIDE, 60_000, seconds, 0.005, store_too=False)
    out["at_rest"] = [
        await at_rest("once a second, three quantities", dense(86_400 // part)),
        await at_rest("ten-minute registers, one year", list(year("tic:0", ("HC", "HP")))[: 52_560 // part]),
        await at_rest("hourly, regular", sparse(8760, 3600, False)),
        await at_rest("every four hours, with jitter", sparse(2190, 4 * 3600, True)),
    ]
    out["questions"] = await questions(5 if quick else 20)
    out["group_commit"] = await group_commit(64, 100 // part)
    out["load_after"] = os.getloadavg()[0]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the work")
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(run(arguments.quick)), indent=1))


if __name__ == "__main__":
    main()
