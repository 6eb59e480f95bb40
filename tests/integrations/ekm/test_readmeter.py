"""``GET /readMeter`` in both forms, over real sockets, from what meters really said (captured frames) and from the store."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.ekm.front import METER, OTHERS_METER, Front, front

from gridloom.core.errors import InvalidInput
from gridloom.core.model import Consent
from gridloom.integrations.ekm.codec import Read
from gridloom.integrations.ekm.keys import HERE
from gridloom.integrations.ekm.mapping import Translation
from gridloom.integrations.ekm.models import MODELS
from gridloom.integrations.ekm.readmeter import asked

FRAMES = Path(__file__).parents[2] / "data" / "ekm"
A, B = ((FRAMES / name).read_bytes() for name in ("v4_A_000350003229.bin", "v4_B_000300000234.bin"))
MINUTE = 60_000_000


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Front]:
    async with front(tmp_path) as made:
        yield made


async def says(hub: Front, address: str, *moments: int) -> None:
    """The captured frames, as the meter at this address would have said them at these moments (µs)."""
    translation = Translation(address, MODELS["v4"], ZoneInfo("Europe/Paris"))
    for moment in moments:
        reading, _ = translation.read(Read(address, "v4", (A, B), moment, 97))
        await hub.world.intake.readings([reading])


async def ask(hub: Front, path: str = "/readMeter", **query: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=hub.url, timeout=20, trust_env=False) as client:
        return await client.get(path, params=query)


async def test_the_form_of_a_push3_on_the_lan(hub: Front) -> None:
    now = hub.world.clock.now()
    await says(hub, METER, now)
    answer = await ask(hub, key=hub.keys["anna"], cnt="1")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert list(found) == [METER], "a meter that never spoke is not there, and Bert's is not Anna's"
    (read,) = found[METER]
    assert read["Meter_Address"] == "000350003229"
    assert read["Time_Stamp_UTC_ms"] == now // 1000
    assert read["Reliability_Ratio"] == 97
    assert isinstance(read["kWh_Tot"], int | float), "numbers are numbers"
    assert read["Line_Freq"] == pytest.approx(60, abs=1), "in Hz, not in hundredths"
    assert 90 < read["RMS_Volts_Ln_1"] < 260
    assert isinstance(read["Cos_Theta_Ln_1"], str)
    assert {"kWh_Tariff_1", "CT_Ratio", "Line_Freq", "State_Out", "Power_Factor_Ln_1"} <= set(read)
    assert not any(name.startswith(("reserved", "crc")) for name in read)


async def test_a_wrong_key_is_401(hub: Front) -> None:
    for query in ({}, {"key": "MTAxMDoyMDIw"}, {"key": hub.tokens["anna"], "meters": METER}):
        answer = await ask(hub, **query)
        assert answer.status_code == 401
        assert "key" in answer.json()["error"]


async def test_the_form_of_the_cloud(hub: Front) -> None:
    now = hub.world.clock.now()
    await says(hub, METER, now - MINUTE, now)
    query = {"key": hub.keys["anna"], "meters": f"{METER}~{OTHERS_METER}", "ver": "v4", "fmt": "json", "cnt": "1", "timezone": "America~New_York"}
    answer = (await ask(hub, **query)).json()
    (found,) = answer["readMeter"]["ReadSet"]
    assert (found["Meter"], found["Protocol"], found["Good_Reads"]) == (METER, "v4", "1")
    assert found["Tz_Offset_Sec"] in ("-18000", "-14400")
    (read,) = found["ReadData"]
    assert list(read)[:4] == ["Good", "Date", "Time", "Time_Stamp_UTC_ms"]
    assert read["Good"] == 1
    assert all(isinstance(value, str) for name, value in read.items() if name != "Good"), "values are strings"
    from_path = await ask(hub, f"/readMeter/v4/key/{hub.keys['anna']}/count/1/format/json/meters/{METER}/timezone/America~New_York/")
    assert from_path.json() == answer
    assert (await ask(hub, **{**query, "ver": "v3"})).json() == {"readMeter": {"ReadSet": []}}


async def test_a_meter_of_the_hubs_own_bus_has_the_hubs_own_gateway(hub: Front) -> None:
    await says(hub, METER, hub.world.clock.now())
    for mac, expected in ((HERE, ""), ("995DAD427614", "995DAD427614")):
        hub.face.keys.mac = mac
        (found,) = (await ask(hub, key=hub.keys["anna"], meters=METER)).json()["readMeter"]["ReadSet"]
        assert found["MAC_Addr"] == expected


async def test_history_from_the_store(hub: Front) -> None:
    now = hub.world.clock.now() // 1_000_000 * 1_000_000 - 123_000
    moments = sorted([now - 250_000, *(now - number * MINUTE for number in range(5))])
    await says(hub, METER, *moments)
    answer = (await ask(hub, key=hub.keys["anna"], meters=METER, cnt="4")).json()
    reads = answer["readMeter"]["ReadSet"][0]["ReadData"]
    assert [int(read["Time_Stamp_UTC_ms"]) for read in reads] == [moment // 1000 for moment in reversed(moments[2:])], "newest first"
    for name in ("kWh_Tot", "RMS_Volts_Ln_1", "Amps_Ln_1", "RMS_Watts_Ln_1", "RMS_Watts_Tot", "Line_Freq", "kWh_Tariff_1", "CT_Ratio"):
        assert {float(read[name]) for read in reads} == {float(reads[0][name])}, f"{name}: the frames are the same each time, and so is every field"
    lan = (await ask(hub, key=hub.keys["anna"], cnt="1000")).json()
    assert len(lan[METER]) == 6


async def test_fields_and_csv(hub: Front) -> None:
    now = hub.world.clock.now()
    await says(hub, METER, now - MINUTE, now)
    answer = await ask(hub, key=hub.keys["anna"], meters=METER, cnt="2", fmt="csv", fields="kWh_Tot~RMS_Volts_Ln_1")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["Meter"] for row in rows] == [METER, METER]
    assert list(rows[0]) == ["Meter", "Good", "Date", "Time", "Time_Stamp_UTC_ms", "kWh_Tot", "RMS_Volts_Ln_1"]


async def test_what_an_owner_does_not_let_out_stays(hub: Front) -> None:
    await says(hub, METER, hub.world.clock.now())
    await hub.world.registry.update(f"ekm:{METER}", hub.world.admin, consent=Consent.REFUSED)
    assert (await ask(hub, key=hub.keys["anna"])).json() == {}


async def test_a_gateway_key_reads_what_its_gateway_has(hub: Front) -> None:
    _, key = await hub.face.keys.create(hub.world.admin, "anna@example.org", mac="995DAD427614")
    await says(hub, METER, hub.world.clock.now())
    assert (await ask(hub, key=key)).json() == {}
    device = hub.world.registry.get(f"ekm:{METER}")
    await hub.world.registry.register(msgspec.structs.replace(device, attributes={**device.attributes, "gateway": "995DAD427614"}))
    assert list((await ask(hub, key=key)).json()) == [METER]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"cnt": "0"}, "cnt: expected 1 to 1000, got '0'"),
        ({"cnt": "1001"}, "cnt: expected 1 to 1000"),
        ({"cnt": "ten"}, "cnt: expected 1 to 1000"),
        ({"ver": "v9"}, "ver: expected v3 or v4, got 'v9'"),
        ({"fmt": "html"}, "fmt: expected json or csv, got 'html'"),
        ({"meters": "1~x"}, "meters: expected up to 100 addresses"),
        ({"timezone": "Mars~Olympus"}, "timezone: expected an IANA time zone"),
        ({"color": "red"}, "color: is not known here"),
    ],
)
async def test_what_is_wrong_is_named(hub: Front, query: dict[str, str], words: str) -> None:
    answer = await ask(hub, key=hub.keys["anna"], **query)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert hub.keys["anna"] not in answer.text


@given(
    st.lists(st.tuples(st.sampled_from(["key", "meters", "ver", "fmt", "cnt", "fields", "tz", "x"]), st.text(max_size=12)), max_size=5),
    st.text(max_size=40),
)
def test_whatever_is_asked_it_is_read_or_refused(query: list[tuple[str, str]], path: str) -> None:
    try:
        found: Any = asked(query, path)
    except InvalidInput as error:
        found = error.faults
    assert found
