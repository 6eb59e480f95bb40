"""What may be asked, by whom, within which limits."""

from __future__ import annotations

import msgspec
import pytest
from tests.core.world import DAY, METER, VOLTAGE, World, reading

from gridloom.core.errors import FieldFault, Forbidden, InvalidInput, NotFound
from gridloom.core.events import new_event
from gridloom.core.model import Consent, Device, Principal, ReadingType, Role, Severity
from gridloom.core.ports import AggregateQuery, Operator, SeriesFilter, Step
from gridloom.core.subjects import HUB

POWER = ReadingType("Power.Active.Import", "W")
REGISTER = ReadingType("Energy.Active.Import.Register", "Wh")
HOUR = 3_600_000_000
OTHER = Device("dummy:m2", "dummy", "m2")


def ask(**more: object) -> AggregateQuery:
    told: dict[str, object] = {"filter": SeriesFilter(), "operator": Operator.AVERAGE, "step": Step.HOUR, "begin": DAY, "end": DAY + HOUR}
    return AggregateQuery(**(told | more))  # type: ignore[arg-type]


@pytest.fixture
async def two(metered: World) -> World:
    """Two devices with readings, of which one is in a site."""
    await metered.registry.register(OTHER)
    await metered.accounts.create_site(metered.admin, "Home", id="home")
    await metered.registry.update(METER.id, metered.admin, site="home")
    await metered.registry.settle()
    await metered.intake.readings(
        [
            reading(230, DAY), reading(232, DAY + 1), reading(1_000, DAY, type=POWER), reading(231, DAY, device=OTHER.id),
            reading(100, DAY, type=REGISTER), reading(150, DAY + 600_000_000, type=REGISTER),
        ]
    )  # fmt: skip
    return metered


async def somebody(world: World, role: Role, scope: str) -> Principal:
    account = await world.accounts.create_account(world.admin, f"{role}{len(world.accounts.accounts())}@example.org", role=role, scope=scope)
    return world.accounts.principal(account.id)


async def devices_of(world: World, principal: Principal) -> set[str]:
    return {series.device for series in await world.query.series(principal, SeriesFilter())}


# ----------------------------------------------------------------------------------------------------------- visibility


@pytest.mark.parametrize(
    ("role", "scope", "sees", "reads"),
    [
        (Role.VIEWER, "*", {METER.id, OTHER.id}, {METER.id, OTHER.id}),
        (Role.OWNER, "site:home", {METER.id}, {METER.id}),
        (Role.INSTALLER, "site:home", {METER.id}, set()),
        (Role.VIEWER, f"device:{OTHER.id}", {OTHER.id}, {OTHER.id}),
    ],
)
async def test_everything_is_cut_down_to_what_one_may_read(two: World, role: Role, scope: str, sees: set[str], reads: set[str]) -> None:
    principal = await somebody(two, role, scope)
    query = two.query
    assert {state.device.id for state in query.devices(principal)} == sees
    assert await devices_of(two, principal) == reads
    assert {value.device for value in await query.latest(principal, SeriesFilter())} == reads
    page = await query.samples(principal, SeriesFilter(), begin=DAY, end=DAY + HOUR)
    assert {one.series.device for one in page.pages} == reads
    rows = await query.aggregate(principal, ask())
    assert {row.series.device for row in rows} == reads
    for id in (METER.id, OTHER.id):
        only = SeriesFilter(devices=(id,))
        if id in reads:
            assert await query.series(principal, only)
            continue
        refusal = Forbidden if id in sees else NotFound
        for asking in (
            query.series(principal, only),
            query.latest(principal, only),
            query.samples(principal, only, begin=DAY, end=DAY + 1),
            query.aggregate(principal, ask(filter=only)),
            query.events(principal, devices=[id]),
        ):
            with pytest.raises(refusal):
                await asking


async def test_what_does_not_exist_and_what_one_may_not_see_are_the_same(two: World) -> None:
    bob = await somebody(two, Role.VIEWER, "site:home")
    messages = []
    for id in (OTHER.id, "dummy:m9"):
        with pytest.raises(NotFound) as caught:
            two.query.device(bob, id)
        messages.append(caught.value.message.replace(id, "ID"))
        with pytest.raises(NotFound) as caught:
            await two.query.series(bob, SeriesFilter(devices=(id,)))
        messages.append(caught.value.message.replace(id, "ID"))
    assert len(set(messages)) == 1
    assert two.query.device(bob, METER.id).device.id == METER.id


async def test_consent_holds_on_every_way_out_also_for_what_was_before(two: World) -> None:
    everybody = {role: await somebody(two, role, "*") for role in (Role.OPERATOR, Role.VIEWER)}
    everybody[Role.OWNER] = await somebody(two, Role.OWNER, "site:home")
    await two.registry.update(METER.id, two.admin, consent=Consent.REFUSED)
    only = SeriesFilter(devices=(METER.id,))
    for principal in everybody.values():
        assert METER.id not in await devices_of(two, principal)
        assert METER.id not in {value.device for value in await two.query.latest(principal, SeriesFilter())}
        assert METER.id not in {row.series.device for row in await two.query.aggregate(principal, ask())}
        with pytest.raises(Forbidden, match="does not let its readings out"):
            await two.query.aggregate(principal, ask(filter=only))
        with pytest.raises(Forbidden):
            await two.query.samples(principal, only, begin=DAY, end=DAY + 1)
    assert METER.id in await devices_of(two, two.admin)
    await two.registry.update(METER.id, two.admin, consent=Consent.CONSENT)
    for principal in everybody.values():
        assert METER.id in await devices_of(two, principal)


async def test_the_history_of_a_removed_device_is_for_those_who_see_the_whole_hub(two: World) -> None:
    owner, viewer = await somebody(two, Role.OWNER, "site:home"), await somebody(two, Role.VIEWER, "*")
    await two.registry.remove(METER.id, two.admin)
    assert await two.query.series(viewer, SeriesFilter(devices=(METER.id,)))
    with pytest.raises(NotFound):
        await two.query.series(owner, SeriesFilter(devices=(METER.id,)))


async def test_events_and_audit(two: World) -> None:
    owner = await somebody(two, Role.OWNER, "site:home")
    viewer = await somebody(two, Role.VIEWER, "*")
    await two.intake.events(
        [
            new_event("overload", METER.id, two.clock, id="1"),
            new_event("tariff.changed", METER.id, two.clock, id="2", time=DAY),
            new_event("tariff.changed", OTHER.id, two.clock, id="3"),
            new_event("storage.low", HUB, two.clock, id="4"),
        ]
    )
    wanted = ["overload", "tariff.*", "storage.low"]

    async def found(principal: Principal, **more: object) -> list[str]:
        return [event.id for event in (await two.query.events(principal, kinds=wanted, **more)).events]  # type: ignore[arg-type]

    assert await found(viewer) == ["4", "3", "2", "1"]
    assert await found(viewer, descending=False) == ["1", "2", "3", "4"]
    assert await found(owner) == ["2", "1"]
    assert await found(viewer, min_severity=Severity.ERROR) == ["1"]
    assert await found(viewer, begin=DAY, end=DAY + 1) == ["2"]
    assert await found(viewer, devices=[METER.id], by_time=True) == ["1", "2"]
    page = await two.query.events(viewer, kinds=wanted, limit=3)
    assert page.next is not None
    assert await found(viewer, cursor=page.next) == ["1"]
    assert [event.id for event in (await two.query.events(viewer, kinds=wanted, limit=4)).events] == ["4", "3", "2", "1"]
    with pytest.raises(NotFound):
        await two.query.events(owner, devices=[HUB])
    mine = await two.query.audit(owner)
    assert {line.action for line in mine.lines} == {"device.manage"}  # only about its own device
    assert {line.target for line in mine.lines} == {METER.id}
    everything = await two.query.audit(two.admin)
    assert {"site.manage", "account.manage", "token.manage"} <= {line.action for line in everything.lines}
    assert (await two.query.audit(viewer)).lines == ()
    with pytest.raises(Forbidden):
        await two.query.audit(viewer, devices=[METER.id])


# ---------------------------------------------------------------------------------------------------------------- limits


async def test_every_fault_of_a_question_is_named_at_once(two: World) -> None:
    measurands = ("Voltage", "Voltaje", "Power.Active.Import")
    query = ask(begin=DAY, end=DAY, zone="Europe/Pariss", operator=Operator.DELTA, filter=SeriesFilter(measurands=measurands))
    with pytest.raises(InvalidInput) as caught:
        await two.query.aggregate(two.admin, query)
    faults = {fault.path: fault.reason for fault in caught.value.faults}
    assert set(faults) == {"$.end", "$.zone", "$.operator", "$.measurands[1]"}
    assert len(caught.value.faults) == 5  # delta of what is no register, twice
    assert 'did you mean "Europe/Paris"' in faults["$.zone"]
    assert 'did you mean "Voltage"' in faults["$.measurands[1]"]
    assert "(and 4 more)" in caught.value.message


async def test_delta_without_measurands_is_of_registers_only(two: World) -> None:
    own = ReadingType("Own.Measurand", "1")
    await two.intake.readings([reading(1, DAY, type=own), reading(3, DAY + 600_000_000, type=own)])
    rows = await two.query.aggregate(two.admin, ask(operator=Operator.DELTA))
    assert [(row.series.type, row.buckets[0].value) for row in rows] == [(REGISTER, 50)]
    assert len(await two.query.aggregate(two.admin, ask(operator=Operator.COUNT))) == 5


@pytest.mark.parametrize(
    ("step", "length", "allowed"),
    [
        (Step.MINUTE_10, 10_000 * 600_000_000, True),
        (Step.MINUTE_10, 10_000 * 600_000_000 + 1, False),
        (Step.MINUTE_15, 10_001 * 900_000_000, False),
        (Step.HOUR, 10_000 * HOUR, True),
        (Step.HOUR, 10_001 * HOUR, False),
        (Step.DAY, 10_001 * 24 * HOUR, False),
        (Step.TOTAL, 10_000_000 * HOUR, True),
        (Step.YEAR, 100 * 365 * 24 * HOUR, True),
    ],
)
async def test_more_than_ten_thousand_buckets_are_refused(two: World, step: Step, length: int, allowed: bool) -> None:
    query = ask(step=step, begin=0, end=length)
    if allowed:
        await two.query.aggregate(two.admin, query)
        return
    with pytest.raises(InvalidInput) as caught:
        await two.query.aggregate(two.admin, query)
    assert [fault.path for fault in caught.value.faults] == ["$.end"]


@pytest.mark.parametrize(
    ("begin", "end", "path"),
    [(DAY, DAY - 1, "$.end"), (-1, DAY, "$.begin"), (DAY, 10**20, "$.end"), (-(10**30), 10**30, "$.begin")],
)
async def test_times_that_are_none(two: World, begin: int, end: int, path: str) -> None:
    for asking in (
        two.query.aggregate(two.admin, ask(begin=begin, end=end)),
        two.query.samples(two.admin, SeriesFilter(), begin=begin, end=end),
        two.query.events(two.admin, begin=begin, end=end),
        two.query.audit(two.admin, begin=begin, end=end),
    ):
        with pytest.raises(InvalidInput) as caught:
            await asking
        assert caught.value.faults[0].path == path


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "/etc/passwd", "", "Europe/\x00", "x" * 5_000])
async def test_a_zone_that_is_none(two: World, zone: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await two.query.aggregate(two.admin, ask(zone=zone))
    assert caught.value.faults[0].path == "$.zone"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("limit", [0, -1, 10_001])
async def test_limits_of_pages(two: World, limit: int) -> None:
    for asking in (
        two.query.samples(two.admin, SeriesFilter(), begin=0, end=DAY, limit=limit),
        two.query.events(two.admin, limit=limit),
        two.query.audit(two.admin, limit=limit),
    ):
        with pytest.raises(InvalidInput) as caught:
            await asking
        assert caught.value.faults == (FieldFault("$.limit", f"expected 1 to 10000, got {limit}"),)


async def test_a_devices_own_words_may_be_asked_for(two: World) -> None:
    odd = ReadingType("Vendor.Odd", "1")
    await two.intake.readings([reading(7, DAY, type=odd)])
    rows = await two.query.aggregate(two.admin, ask(filter=SeriesFilter(measurands=("Vendor.Odd",))))
    assert [row.series.type for row in rows] == [odd]
    await two.registry.register(msgspec.structs.replace(OTHER, measurands=("Vendor.New",)))
    assert await two.query.series(two.admin, SeriesFilter(measurands=("Vendor.New",))) == []
    with pytest.raises(InvalidInput):
        await two.query.series(two.admin, SeriesFilter(measurands=("Vendor.Older",)))


# --------------------------------------------------------------------------------------------------------------- answers


async def test_pages_of_samples_are_the_whole_and_each_once(two: World) -> None:
    await two.intake.readings([reading(200 + number, DAY + 10 + number) for number in range(25)])

    async def walk(limit: int, descending: bool) -> list[tuple[str, str, int]]:
        seen: list[tuple[str, str, int]] = []
        cursor: str | None = None
        while True:
            page = await two.query.samples(two.admin, SeriesFilter(), begin=DAY, end=DAY + HOUR, limit=limit, cursor=cursor, descending=descending)
            assert sum(len(one.samples) for one in page.pages) <= limit
            seen += [(one.series.device, one.series.type.measurand, sample.time) for one in page.pages for sample in one.samples]
            cursor = page.next
            if cursor is None:
                return seen

    whole = await walk(10_000, False)
    assert len(whole) == len(set(whole)) == 31
    for limit in (1, 2, 7, 31):
        assert await walk(limit, False) == whole
    assert sorted(await walk(4, True)) == sorted(whole)
    for wrong in ("x", "-1:", "1" * 30 + ":", ":"):
        with pytest.raises(InvalidInput) as caught:
            await two.query.samples(two.admin, SeriesFilter(), begin=DAY, end=DAY + HOUR, cursor=wrong)
        assert caught.value.faults[0].path == "$.cursor"


async def test_an_aggregate_is_the_stores_answer(two: World) -> None:
    only = SeriesFilter(devices=(METER.id,), measurands=(VOLTAGE.measurand,))
    (row,) = await two.query.aggregate(two.admin, ask(filter=only))
    (bucket,) = row.buckets
    assert (bucket.begin, bucket.count) == (DAY, 2)
    assert float(bucket.value) * 10**bucket.exponent == pytest.approx(231)
    (row,) = await two.query.aggregate(two.admin, ask(operator=Operator.DELTA, filter=SeriesFilter(measurands=(REGISTER.measurand,))))
    assert row.buckets[0].value * 10 ** row.buckets[0].exponent == 50


async def test_nobody_without_devices_asks_the_store(two: World) -> None:
    nobody = Principal("nobody", ())
    assert two.query.devices(nobody) == []
    assert await two.query.series(nobody, SeriesFilter()) == []
    assert await two.query.latest(nobody, SeriesFilter()) == []
    assert await two.query.aggregate(nobody, ask()) == []
    assert (await two.query.events(nobody)).events == ()
