"""The hub's own pages and how it says it is: nothing from elsewhere, nothing that text of a device could become."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from tests.web.running import Running

from gridloom.core.model import Role
from gridloom.web import pages
from gridloom.web.metrics import Reason

STATIC = Path(str(resources.files("gridloom.web"))) / "static"
FILES = sorted(one.name for one in STATIC.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_loaded_from_elsewhere(name: str) -> None:
    text = (STATIC / name).read_text()
    addresses = set(re.findall(r"(?:https?:)?//[A-Za-z0-9][^\s\"'`)<]*", text)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "javascript:", " onclick", " style="):
        assert way not in text, way


@pytest.mark.parametrize("name", FILES)
async def test_files_are_served_once(hub: Running, name: str) -> None:
    async with hub.client() as client:
        answer = await client.get(f"/static/{name}")
        assert answer.content == (STATIC / name).read_bytes()
        again = await client.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize("name", ["..%2Fserver.py", "server.py", "%2e%2e", ".hidden", "nothing.js", "app.js%2F", "..%5C..%5Cserver.py"])
async def test_other_files_are_not(hub: Running, name: str) -> None:
    async with hub.client() as client:
        assert (await client.get(f"/static/{name}")).status_code == 404
    assert pages.file("../server.py") is None


async def test_every_page_refers_only_to_what_is_there(hub: Running) -> None:
    async with hub.client() as client:
        for page in ("/", "/docs"):
            text = (await client.get(page)).text
            for reference in re.findall(r'(?:href|src)="(/[^"#]*)"', text):
                status = (await client.get(reference)).status_code
                assert status == 200, reference
            assert "<script>" not in text
            assert 'lang="en"' in text
            assert "viewport" in text


async def test_scripts_import_only_what_is_there(hub: Running) -> None:
    async with hub.client() as client:
        for name in FILES:
            if name.endswith(".js"):
                for reference in re.findall(r'from "([^"]+)"|fetch\("(/[^"?]*)', (STATIC / name).read_text()):
                    target = "".join(reference)
                    assert (await client.get(target)).status_code in (200, 401), target


async def test_readiness_with_reasons(hub: Running) -> None:
    async with hub.client() as client:
        assert (await client.get("/readyz")).json() == {"ready": True, "reasons": []}
        hub.reasons.append(Reason("tic", "no port", required=False))
        whole = await client.get("/readyz")
        assert (whole.status_code, whole.json()["ready"], whole.json()["reasons"][0]["reason"]) == (200, True, "no port")
        hub.reasons.append(Reason("store", "starting"))
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "ready": False,
            "reasons": [{"part": "tic", "reason": "no port", "required": False}, {"part": "store", "reason": "starting", "required": True}],
        }
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/version")).json()["version"] == "0.0-test"
        assert (await client.head("/healthz")).status_code == 200


async def test_metrics_are_what_prometheus_reads(hub: Running) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    counter = hub.hub.metrics.counter("gridloom_test_things_total", "Things.", ("kind",))
    counter.inc(3, kind='a "quoted"\nname')
    histogram = hub.hub.metrics.histogram("gridloom_test_seconds", "Time.", bounds=(0.1, 1.0))
    for value in (0.05, 0.5, 5.0):
        histogram.observe(value)
    async with hub.client() as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {one.name: one for one in text_string_to_metric_families(answer.text)}
    (sample,) = families["gridloom_test_things"].samples
    assert (sample.name, sample.labels, sample.value) == ("gridloom_test_things_total", {"kind": 'a "quoted"\nname'}, 3)
    buckets = {sample.labels["le"]: sample.value for sample in families["gridloom_test_seconds"].samples if sample.name.endswith("_bucket")}
    assert buckets == {"0.1": 1, "1.0": 2, "+Inf": 3}
    assert families["gridloom_process_resident_memory_bytes"].samples[0].value > 1e6
    assert "gridloom_http_connections" in families
    assert all(name.startswith(("gridloom_", "python_")) for name in families)


async def test_the_outbox(hub: Running) -> None:
    put = hub.hub.outbox.write("webhook", "https://example.org/hook", "k", {"n": 1})
    await hub.hub.intake.commit([put])
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        (entry,) = (await client.get("/api/v1/outbox?state=waiting&queue=webhook")).json()["items"]
        assert (entry["id"], entry["payload"], entry["tries"]) == (put.id, {"n": 1}, 0)
        assert (await client.get(f"/api/v1/outbox/{put.id}")).json() == entry
        assert (await client.get("/api/v1/outbox?state=dead")).json()["items"] == []
        assert (await client.post(f"/api/v1/outbox/{put.id}/replay")).status_code == 409
        assert (await client.get("/api/v1/outbox/nothing")).status_code == 404
        log = await client.get("/api/v1/outbox/log?queue=webhook&target=https://example.org/hook")
        assert log.json() == {"items": []}


async def test_requests_are_counted_by_route_not_by_address(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        for number in range(5):
            await client.get(f"/api/v1/devices/tic:{number}")
            await client.get(f"/nowhere/{number}")
        await client.request("BREW", "/api/v1/devices")
        text = (await client.get("/metrics")).text
    assert 'gridloom_http_requests_total{method="GET",route="/api/v1/devices/{device_id}",status="404"} 5.0' in text
    assert 'gridloom_http_requests_total{method="GET",route="none",status="404"} 5.0' in text
    assert 'gridloom_http_request_seconds_count{route="/api/v1/devices/{device_id}"} 5.0' in text
    assert "tic:" not in text
    assert "BREW" not in text
