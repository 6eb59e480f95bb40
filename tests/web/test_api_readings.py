"""Readings over HTTP: exact values, raw samples, aggregates by local time, JSON and CSV, pages, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.web.running import ENERGY, POWER, Running

from gridloom.core.clock import from_datetime
from gridloom.core.model import MeterReading, Reading, ReadingType, Role, TimeSource

METER = "tic:021762010203"
HC = ReadingType("Energy.Active.Import.Register", "Wh", tariff="HC")
HP = ReadingType("Energy.Active.Import.Register", "Wh", tariff="HP")
STATE = ReadingType("Tariff.Current", "1")


def at(text: str) -> int:
    return from_datetime(datetime.fromisoformat(text))


def exact(answer: httpx.Response) -> Any:
    """The body with every number as it was written."""
    return json.loads(answer.text, parse_float=Decimal)


async def test_the_latest_values_are_exact(hub: Running) -> None:
    await hub.device()
    told = await hub.reading(power=-1500)
    await hub.hub.intake.readings([MeterReading(METER, told.time + 1, told.received, (Reading(STATE, "HPJB"),))])
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        answer = await client.get(f"/api/v1/devices/{METER}/readings")
    items = {one["measurand"]: one for one in exact(answer)["items"]}
    assert str(items["Voltage"]["value"]) == "230.10"
    assert items["Voltage"]["phase"] == "L1"
    assert items["Voltage"]["quality"] == ["estimated"]
    assert items["Power.Active.Import"]["value"] == -1500
    assert items["Energy.Active.Import.Register"]["value"] == 1_000_000
    assert items["Tariff.Current"]["value"] == "HPJB"
    assert items["Voltage"]["time"].endswith("Z")
    assert items["Voltage"]["device"] == METER
    assert "tariff" not in items["Voltage"]


async def test_raw_samples_by_time_in_pages(hub: Running) -> None:
    await hub.device()
    start = at("2026-03-01T00:00:00+00:00")
    await hub.hub.intake.readings([MeterReading(METER, start + n * 1_000_000, start, (Reading(POWER, n, -1),)) for n in range(25)])
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        url = f"/api/v1/devices/{METER}/readings?begin=2026-03-01T01:00:00%2B01:00&limit=10"
        values, pages = [], 0
        while url:
            answer = await client.get(url)
            assert answer.status_code == 200, answer.text
            page = exact(answer)
            values += [one["value"] for one in page["items"]]
            pages += 1
            url = answer.links["next"]["url"] if "next" in answer.links else ""
            assert (page["next"] is None) == (not url)
        assert pages == 3
        assert values == [Decimal(n).scaleb(-1) for n in range(25)]
        back = exact(await client.get(f"/api/v1/devices/{METER}/readings?end=2026-03-01T00:00:05Z&descending=true&measurand=Power.Active.Import"))
        assert [one["value"] for one in back["items"]] == [Decimal("0.4"), Decimal("0.3"), Decimal("0.2"), Decimal("0.1"), Decimal("0.0")]
        one = back["items"][0]
        assert (one["time"], one["source"], one["unit"], one["phase"]) == ("2026-03-01T00:00:04Z", "hub", "W", "L1")
        text = (await client.get(f"/api/v1/devices/{METER}/readings?begin=2026-03-01T00:00:24Z", headers={"accept": "text/csv"})).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["device"], row["time"], row["value"], row["phase"]) for row in rows] == [(METER, "2026-03-01T00:00:24Z", "2.4", "L1")]


async def test_the_latest_values_of_many_devices(hub: Running) -> None:
    ids = ["os3p:SUBS 123", METER, "x:a/b"]
    for id in ids:
        await hub.device(id)
        await hub.reading(id)
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        found = (await client.get("/api/v1/readings/latest?measurand=Voltage")).json()["items"]
        assert [one["device"] for one in found] == sorted(ids)
        some = (await client.get(f"/api/v1/readings/latest?device={quote('x:a/b', safe='')}&device=os3p:SUBS+123&measurand=Voltage&phase=L1")).json()[
            "items"
        ]
        assert [one["device"] for one in some] == ["os3p:SUBS 123", "x:a/b"]
        series = (await client.get("/api/v1/readings/series?limit=4")).json()
        more = (await client.get(f"/api/v1/readings/series?limit=100&cursor={series['next']}")).json()
        assert len(series["items"]) == 4
        assert len(more["items"]) == 5
        assert more["next"] is None
        assert (series["items"][0]["count"], series["items"][0]["unit"]) == (1, "Wh")


async def year(hub: Running) -> None:
    """Registers of two tariffs, every 6 hours over the end of summer time in Paris (2026-10-25)."""
    await hub.device(measurands=(ENERGY.measurand,))
    begin = at("2026-10-23T22:00:00+00:00")
    batch = []
    for step in range(13):
        readings = (Reading(HC, 1000 + 10 * step), Reading(HP, 5000 + 7 * step))
        batch.append(MeterReading(METER, begin + step * 21_600_000_000, begin, readings, TimeSource.DEVICE))
    await hub.hub.intake.readings(batch)


async def test_aggregates_by_local_day_and_tariff(hub: Running) -> None:
    await year(hub)
    asked = "operator=delta&step=day&begin=2026-10-24T00:00:00%2B02:00&end=2026-10-27T00:00:00%2B01:00&zone=Europe/Paris"
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        answer = await client.get(f"/api/v1/readings/aggregate?{asked}&device={METER}")
        assert answer.status_code == 200, answer.text
        items = exact(answer)["items"]
        assert [one["tariff"] for one in items] == ["HC", "HP"]
        days = [(one["begin"], one["end"], one["value"]) for one in items[0]["buckets"]]
        # the 25th has 25 hours: from 22:00Z to 23:00Z
        assert days == [
            ("2026-10-23T22:00:00Z", "2026-10-24T22:00:00Z", 40),
            ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 40),
            ("2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z", 40),
        ]
        only = exact(await client.get(f"/api/v1/readings/aggregate?{asked}&tariff=HP"))["items"]
        assert [(one["tariff"], sum(bucket["value"] for bucket in one["buckets"])) for one in only] == [("HP", 84)]
        total = exact(await client.get(f"/api/v1/readings/aggregate?{asked}&tariff="))["items"]
        assert total == []  # there is no total register, and none is made up
        table = (await client.get(f"/api/v1/readings/aggregate?{asked}&format=csv")).text
        rows = list(csv.DictReader(io.StringIO(table)))
        assert [(row["tariff"], row["begin"], row["value"]) for row in rows][:2] == [
            ("HC", "2026-10-23T22:00:00Z", "40"),
            ("HC", "2026-10-24T22:00:00Z", "40"),
        ]
        pages: list[tuple[str, str]] = []
        url = f"/api/v1/readings/aggregate?{asked}&limit=2"
        while url:
            answer = await client.get(url)
            pages += [(one["tariff"], bucket["begin"]) for one in answer.json()["items"] for bucket in one["buckets"]]
            url = answer.links["next"]["url"] if "next" in answer.links else ""
        assert len(pages) == len(set(pages)) == 6


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("operator=sum&step=day&begin=2026-01-01T00:00:00&end=2026-01-02T00:00:00Z", {"$.begin"}),
        ("operator=sum&step=day&begin=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", {"$.end"}),
        ("operator=sum&step=10m&begin=2000-01-01T00:00:00Z&end=2026-01-01T00:00:00Z", {"$.end"}),
        ("operator=sum&step=day&begin=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z&zone=Europe/Pris", {"$.zone"}),
        (
            "operator=delta&step=day&begin=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z&measurand=Voltage&measurand=Voltag&zone=x",
            {"$.operator", "$.measurand[1]", "$.zone"},
        ),
        ("operator=summ&stp=day&begin=yesterday&limit=0", {"$.operator", "$.step", "$.begin", "$.end", "$.limit", "$.stp"}),
        ("operator=sum&step=day&begin=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z&cursor=nonsense", {"$.cursor"}),
        ("operator=sum&step=day&begin=0001-01-01T00:00:00Z&end=2026-01-02T00:00:00Z", {"$.begin"}),
    ],
)
async def test_a_wrong_question_names_every_parameter(hub: Running, query: str, paths: set[str]) -> None:
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        answer = await client.get(f"/api/v1/readings/aggregate?{query}")
    assert answer.status_code == 400, answer.text
    assert {one["path"] for one in answer.json()["errors"]} == paths
    assert {one["in"] for one in answer.json()["errors"]} == {"query"}


async def test_text_that_a_spreadsheet_would_run_is_made_harmless(hub: Running) -> None:
    await hub.device()
    evil = ReadingType("Energy.Active.Import.Register", "Wh", tariff='=HYPERLINK("http://x")')
    await hub.hub.intake.readings([MeterReading(METER, 1_000_000, 1_000_000, (Reading(evil, -5), Reading(STATE, "@cmd")))])
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        rows = list(csv.DictReader(io.StringIO((await client.get(f"/api/v1/devices/{METER}/readings?format=csv")).text)))
    found = {row["measurand"]: row for row in rows}
    assert found["Energy.Active.Import.Register"]["tariff"] == '\'=HYPERLINK("http://x")'
    assert found["Energy.Active.Import.Register"]["value"] == "-5"
    assert found["Tariff.Current"]["value"] == "'@cmd"


async def test_values_are_for_those_who_may_see_them(hub: Running) -> None:
    await hub.device()
    await hub.reading()
    async with hub.client(await hub.token(Role.OWNER)) as stranger:
        assert (await stranger.get(f"/api/v1/devices/{METER}/readings")).status_code == 404
        assert (await stranger.get("/api/v1/readings/latest")).json()["items"] == []
        assert (await stranger.get(f"/api/v1/readings/series?device={METER}")).status_code == 404
        asked = "operator=sum&step=day&begin=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z"
        assert (await stranger.get(f"/api/v1/readings/aggregate?{asked}")).json()["items"] == []


async def test_delta_without_measurands_is_of_registers_only(hub: Running) -> None:
    await hub.device()
    start = at("2026-01-01T00:00:00+00:00")
    await hub.reading(time=start, energy=1_000, power=5)
    await hub.reading(time=start + 600_000_000, energy=1_200, power=9)
    asked = "operator=delta&step=day&begin=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z"
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        items = exact(await client.get(f"/api/v1/readings/aggregate?{asked}"))["items"]
        named = await client.get(f"/api/v1/readings/aggregate?{asked}&measurand=Power.Active.Import")
    assert [(one["measurand"], one["buckets"][0]["value"]) for one in items] == [("Energy.Active.Import.Register", 200)]
    assert named.status_code == 400
