"""The Substation over a bad network: cut at every moment, delayed, half-open, throttled; and a Central System that comes and goes."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from tests.integrations.os3p.central_raw import SILENT, central
from tests.integrations.os3p.substation import running
from tests.links.proxy import Proxy

from gridloom.core.clock import Clock
from gridloom.integrations.os3p.simulator import Simulated

LIGHT = "StreetlightStatusNotification"
MODE = "StreetlightModeStatusNotification"


def switched(told: list[Any], contactor: int) -> list[tuple[str, str]]:
    """What was told of a contactor, without repetitions, in the order in which it was told first."""
    return list(dict.fromkeys((one["timestamp"], one["status"]) for one in told if one["contactorId"] == contactor))


async def test_N19_cut_at_every_moment_nothing_is_lost_and_the_order_is_kept() -> None:
    """The line is cut after 1, 2, 3… bytes more, so that every byte of handshake, event and answer is once the last one."""
    async with central() as office:
        proxy = Proxy(office.where)
        url = f"ws://{await proxy.start()}/OS3P"
        clock = Clock(50)
        office.interval = 86_400
        async with running(url, clock=clock) as station:
            await office.until(lambda: station.registered)
            driver = station.driver
            assert isinstance(driver, Simulated)
            happened: dict[int, list[tuple[str, str]]] = {1: [], 2: []}
            seen: set[int] = set()
            size = sum(proxy.cables[0].passed.values())
            for number in range(60):
                proxy.cut_after = size // 2 + number * 13
                proxy.cut()
                driver.pull(1 + number % 2, True)
                await asyncio.sleep(0.02)
                for event in station.vault.events.values():
                    if event.seq not in seen and event.action == LIGHT:
                        seen.add(event.seq)
                        happened[event.payload["contactorId"]].append((event.payload["timestamp"], event.payload["status"]))
            proxy.cut_after = None
            await office.until(lambda: station.registered and not station.vault.events, 20)
        told = office.all(LIGHT)
        for contactor in (1, 2):
            assert set(happened[contactor]) <= set(switched(told, contactor))
            assert switched(told, contactor) == sorted(switched(told, contactor)), "in their order"
            assert len(switched(told, contactor)) == 60, "30 times on by hand, 30 times off by the schedule"
        await proxy.stop()


async def test_N19_an_answer_that_is_lost_means_that_it_is_told_again() -> None:
    async with central() as office:
        proxy = Proxy(office.where)
        url = f"ws://{await proxy.start()}/OS3P"
        async with running(url) as station:
            await office.until(lambda: station.registered)
            office.after = lambda action: proxy.cut(reset=True) if action == LIGHT and len(office.all(LIGHT)) == 1 else None
            assert isinstance(station.driver, Simulated)
            station.driver.pull(1, True)
            await office.until(lambda: not station.vault.events and len(office.all(LIGHT)) >= 3)
            assert office.all(LIGHT)[0] == office.all(LIGHT)[1]
        await proxy.stop()


async def test_a_half_open_line_is_found_by_pings() -> None:
    async with central() as office:
        proxy = Proxy(office.where)
        url = f"ws://{await proxy.start()}/OS3P"
        async with running(url, clock=Clock(20), keys={"websocketPingInterval": "5"}) as station:
            await office.until(lambda: station.registered)
            proxy.half_open()
            await office.until(lambda: len(office.lines) == 2 and station.registered, 15)
        await proxy.stop()


async def test_a_half_open_line_without_pings_is_found_by_calls_without_answers() -> None:
    async with central() as office:
        proxy = Proxy(office.where)
        url = f"ws://{await proxy.start()}/OS3P"
        async with running(url, clock=Clock(20), call_timeout=5) as station:
            await office.until(lambda: station.registered)
            proxy.half_open()
            assert isinstance(station.driver, Simulated)
            station.driver.pull(1, True)
            await office.until(lambda: len(office.lines) == 2 and not station.vault.events, 20)
        await proxy.stop()


async def test_a_slow_line() -> None:
    async with central() as office:
        proxy = Proxy(office.where)
        url = f"ws://{await proxy.start()}/OS3P"
        proxy.delay, proxy.speed = 0.15, 20_000
        async with running(url, keys={"MeterValuesInterval": "1"}) as station:
            await office.until(lambda: station.registered and len(office.all("MeterValues")) >= 2)
            line = office.lines[0]
            assert (await line.call("GetConfiguration"))["configurationKey"]
        await proxy.stop()


async def test_two_connections_of_one_station_the_old_one_is_closed() -> None:
    """C16, seen from the station: the Central System closes what it holds for the older one, and the station goes on."""
    async with central() as office, running(office.url) as station:
        line = await office.line()
        await office.until(lambda: station.registered)
        line.close(1008)
        await office.line()
        await office.until(lambda: station.registered)


async def test_a_central_system_that_is_away_for_long() -> None:
    async with central() as office:
        clock = Clock(100)
        async with running(office.url, clock=clock) as station:
            await office.until(lambda: station.registered)
            where = office.where
            await office.stop()
            assert isinstance(station.driver, Simulated)
            for _ in range(20):
                station.driver.pull(1, True)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            assert len(station.vault.events) == 40
            office.where = where
            await office.start()
            await office.until(lambda: station.registered and not station.vault.events, 20)
        assert len(switched(office.all(LIGHT), 1)) == 40


async def test_a_refusal_of_the_door_is_respected() -> None:
    async with central() as office:
        office.refuse = b"HTTP/1.1 503 Come later\r\nRetry-After: 40\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        clock = Clock(20)
        async with running(office.url, clock=clock) as station:
            await office.until(lambda: office.knocks == 1)
            before = clock.monotonic()
            office.refuse = b""
            await office.until(lambda: station.registered)
            assert 38 < clock.monotonic() - before < 50


async def test_garbage_does_not_end_the_conversation() -> None:
    random = Random(3)
    async with central() as office, running(office.url) as station:
        line = await office.line()
        await office.until(lambda: station.registered)
        for _ in range(200):
            line.say("".join(random.choice('[]{},:"2x\\u0 nul') for _ in range(random.randrange(40))))
        assert await line.call("GetConfiguration")
        assert station.registered


async def test_what_the_central_system_answers_wrongly_is_survived() -> None:
    wrong = [{}, {"currentTime": "soon"}, {"currentTime": "1970-01-01T00:00:00Z"}, ["Nonsense", "", {}], SILENT, {"currentTime": None}, []]
    async with central() as office, running(office.url, call_timeout=0.2) as station:
        line = await office.line()
        await office.until(lambda: station.registered)
        before = station.now()
        for answer in wrong:
            office.replies["Heartbeat"] = answer or [*("GenericError", "", {})]
            assert (await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"}))["status"] == "Accepted"
            await line.asked("Heartbeat")
        assert abs(station.now() - before) < 5_000_000
        assert station.registered
