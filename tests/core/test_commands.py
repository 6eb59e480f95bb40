"""Orders: their states, their order, and what a crash leaves of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.world import METER, Arm, World, until

from gridloom.core import subjects, verbs
from gridloom.core.clock import Clock
from gridloom.core.commands import LATER
from gridloom.core.errors import (
    Conflict,
    DeviceError,
    DeviceTimeout,
    Forbidden,
    GridloomError,
    InvalidInput,
    NotFound,
    Offline,
    Refused,
    StorageFull,
    Unanswered,
    Unsupported,
)
from gridloom.core.model import Admission, Command, CommandState, Device, Grant, Principal, Role
from gridloom.core.ports import JournalFilter, Put

S = CommandState
CLOSE = {"relay": 1, "state": "closed"}


@pytest.fixture
async def fast(tmp_path: Path) -> AsyncIterator[World]:
    """Two hundred times as fast as life, with the device, and its orders' time-outs watched."""
    made = await World(tmp_path, Clock(speed=200.0)).open()
    await made.registry.register(METER)
    await made.commands.recover()
    yield made
    await made.close()


def online(world: World, arm: Any, device: str = METER.id, **more: Any) -> Any:
    link = world.registry.attach(device, arm, **more)
    link.online()
    return link


async def order(world: World, verb: str = "relay.set", arguments: dict[str, Any] | None = None, **more: Any) -> Command:
    return await world.commands.submit(world.admin, METER.id, verb, CLOSE if arguments is None else arguments, **more)


def told(world: World) -> list[Command]:
    heard: list[Command] = []
    world.bus.listen(subjects.ALL_COMMANDS, lambda _, command: heard.append(command))
    return heard


async def document(world: World, id: str) -> Command:
    found = await world.store.documents.get("core", "command", id)
    assert found is not None
    return msgspec.json.decode(found.body, type=Command)


# ------------------------------------------------------------------------------------------------------------- the way out


async def test_an_order_from_acceptance_to_its_end(metered: World) -> None:
    arm = Arm(lambda command: {"was": "open"})
    online(metered, arm)
    heard = told(metered)
    accepted = await order(metered, client="curl", origin={"channel": "c1"})
    done = await metered.commands.wait(accepted.id, 5.0)
    assert (done.state, done.result, done.error) == (S.DONE, {"was": "open"}, "")
    assert done.created <= (done.sent or 0) <= (done.ended or 0)
    assert (done.account, done.address, done.client, done.token) == ("admin", "127.0.0.1", "curl", "")
    assert [command.state for command in heard] == [S.ACCEPTED, S.SENT, S.DONE]
    assert heard[-1].origin == {"channel": "c1"}  # the API that submitted it answers its client from this
    assert (await metered.commands.get(accepted.id, metered.admin)).origin == {}  # people need not know
    assert [command.id for command in arm.seen] == [accepted.id]
    assert metered.commands.arguments(arm.seen[0]) == verbs.RelaySet(relay=1, state="closed")
    assert [line for line in await metered.trail() if line.startswith("relay.set")] == ["relay.set dummy:m1 accepted", "relay.set dummy:m1 done"]
    assert await metered.events("command.completed") == ["command.completed occurred"]
    (event,) = (await metered.query.events(metered.admin, kinds=["command.completed"])).events
    assert event.data == {"command": accepted.id, "verb": "relay.set", "state": "done", "account": "admin"}


async def test_each_state_is_on_disk_before_it_is_acted_on_or_told(metered: World) -> None:
    seen: list[tuple[str, CommandState]] = []

    async def look(command: Command) -> None:
        seen.append(("executor", (await document(metered, command.id)).state))

    online(metered, look)
    looks: list[asyncio.Task[None]] = []

    async def note(command: Command) -> None:
        seen.append(("told " + command.state, (await document(metered, command.id)).state))

    metered.bus.listen(subjects.ALL_COMMANDS, lambda _, command: looks.append(asyncio.ensure_future(note(command))))
    accepted = await order(metered)
    await metered.commands.wait(accepted.id, 5.0)
    await asyncio.gather(*looks)
    assert ("executor", S.SENT) in seen
    for what, state in seen:
        if what.startswith("told"):
            assert list(S).index(state) >= list(S).index(S(what[5:]))


ENDS = [
    (Refused("wrong password"), S.REFUSED, "refused: wrong password"),
    (Unsupported("this model has no relay"), S.REFUSED, "unsupported: this model has no relay"),
    (Offline("gone"), S.REFUSED, "offline: gone"),
    (DeviceError("NACK 3"), S.FAILED, "device-refused: NACK 3"),
    (DeviceTimeout("no answer"), S.FAILED, "device-timeout: no answer"),
    (Unanswered("cut"), S.UNKNOWN, "unanswered: cut; whether the device acted is not known"),
    (ZeroDivisionError("bug"), S.FAILED, "internal-error: ZeroDivisionError"),
]


@pytest.mark.parametrize(("raised", "state", "error"), ENDS)
async def test_how_an_executor_ends_an_order(metered: World, raised: Exception, state: CommandState, error: str) -> None:
    arm = Arm(lambda command: raised)
    online(metered, arm)
    ended = await metered.commands.wait((await order(metered)).id, 5.0)
    assert (ended.state, ended.error) == (state, error)
    assert (await metered.trail())[-1] == f"relay.set dummy:m1 {state}: {error}"
    assert len(arm.seen) == 1
    following = await metered.commands.wait((await order(metered)).id, 5.0)  # the device takes orders as before
    assert following.state is state


async def test_no_answer_in_the_verbs_time(fast: World) -> None:
    arm = Arm()
    arm.gate = asyncio.Event()
    online(fast, arm)
    accepted = await order(fast)
    ended = await fast.commands.wait(accepted.id, 100.0)
    timeout = verbs.TABLE["relay.set"].timeout
    assert (ended.state, ended.error) == (S.FAILED, f"device-timeout: dummy:m1 did not answer relay.set within {timeout:g} s")
    assert timeout <= ((ended.ended or 0) - (ended.sent or 0)) / 1e6 < timeout + 20


async def test_a_result_that_cannot_be_kept_does_not_undo_the_order(metered: World) -> None:
    answers = iter([object(), "x" * 2_000_000, {"fine": 1}])
    online(metered, Arm(lambda command: next(answers)))
    first = await metered.commands.wait((await order(metered)).id, 5.0)
    second = await metered.commands.wait((await order(metered)).id, 5.0)
    third = await metered.commands.wait((await order(metered)).id, 5.0)
    assert (first.state, first.result) == (S.DONE, None)
    assert first.error.startswith("the result could not be kept")
    assert "2000002 bytes" in second.error
    assert (third.result, third.error) == ({"fine": 1}, "")


# ------------------------------------------------------------------------------------------------------- what is refused


async def test_what_is_refused_before_anything_is_accepted(metered: World) -> None:
    arm = Arm()
    link = online(metered, arm)
    before = len(await metered.store.documents.find("core", "command"))
    with pytest.raises(NotFound):
        await metered.commands.submit(metered.admin, "dummy:none", "relay.set", CLOSE)
    with pytest.raises(InvalidInput, match=r'did you mean "relay\.set"') as caught:
        await order(metered, "relay.sett")
    assert caught.value.faults[0].path == "$.verb"
    with pytest.raises(InvalidInput):
        await order(metered, "readings.read", {})  # a verb, but no order
    with pytest.raises(InvalidInput) as caught:
        await order(metered, arguments={"relay": 99, "stat": "closed", "password": "hunter2hunter2" * 9})
    assert {fault.path for fault in caught.value.faults} == {
        "$.arguments.relay", "$.arguments.state", "$.arguments.stat", "$.arguments.password",
    }  # fmt: skip
    assert "hunter2" not in str(caught.value.faults)
    with pytest.raises(Unsupported, match="light"):
        await order(metered, "light.override", {"contactor": 1, "state": "on"})
    with pytest.raises(InvalidInput) as caught:
        await order(metered, expires_in=0)
    assert caught.value.faults[0].path == "$.expires_in"
    with pytest.raises(InvalidInput) as caught:
        await order(metered, id="no spaces")
    assert caught.value.faults[0].path == "$.id"
    link.offline("unplugged")
    with pytest.raises(Offline, match="unplugged"):
        await order(metered)
    assert arm.seen == []
    assert len(await metered.store.documents.find("core", "command")) == before
    refused = [line for line in await metered.trail() if line.startswith(("relay.set", "light.override"))]
    assert [line.split(": ")[0] for line in refused] == ["light.override dummy:m1 unsupported", "relay.set dummy:m1 offline"]


async def test_an_order_needs_the_role_and_leaves_a_line_when_it_is_missing(metered: World) -> None:
    arm = Arm()
    online(metered, arm)
    people = {}
    for role in Role:
        account = await metered.accounts.create_account(metered.admin, f"{role}@example.org", role=role, scope=f"device:{METER.id}")
        people[role] = Principal(account.id, (Grant(account.id, "*", role),))
    for role, principal in people.items():
        for verb, arguments in (("relay.set", CLOSE), ("device.identify", {})):
            allowed = role in verbs.TABLE[verb].roles
            with contextlib.nullcontext() if allowed else pytest.raises(Forbidden):
                accepted = await metered.commands.submit(principal, METER.id, verb, arguments)
                assert (await metered.commands.wait(accepted.id, 5.0, principal)).state is S.DONE  # also the installer sees its own order
    lines = (await metered.query.audit(metered.admin, actions=["relay.set"])).lines
    assert sorted({line.account for line in lines if "forbidden" in line.result}) == sorted(
        people[role].account for role in (Role.VIEWER, Role.INSTALLER)
    )
    stranger = Principal("nobody", (Grant("nobody", "*", Role.ADMIN),))
    with pytest.raises(NotFound):
        await metered.commands.submit(stranger, METER.id, "relay.set", CLOSE)
    with pytest.raises(NotFound):
        await metered.commands.get(arm.seen[0].id, stranger)
    assert list(await metered.commands.list(stranger)) == []


async def test_a_device_that_is_not_admitted_gets_no_orders(metered: World) -> None:
    await metered.registry.register(Device("dummy:p", "dummy", "p", admission=Admission.PENDING, verbs=("relay.set",)))
    with pytest.raises(Refused, match="pending"):
        await metered.commands.submit(metered.admin, "dummy:p", "relay.set", CLOSE)


async def test_a_full_disk_refuses_orders(metered: World) -> None:
    arm = Arm()
    online(metered, arm)
    await metered.registry.settle()
    commit = metered.store.commit

    async def full(writes: Any) -> Any:
        raise StorageFull("no space")

    metered.store.commit = full  # type: ignore[method-assign]
    with pytest.raises(StorageFull):
        await order(metered)
    metered.store.commit = commit  # type: ignore[method-assign]
    assert arm.seen == []


# ---------------------------------------------------------------------------------------------------------------- secrets


async def test_secrets_are_gone_when_the_order_has_ended_and_leave_by_no_door(metered: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-0000"
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    heard = told(metered)
    accepted = await order(metered, arguments=CLOSE | {"password": secret})
    await until(lambda: arm.seen)
    assert arm.seen[0].arguments["password"] == secret  # the executor needs it
    assert (await document(metered, accepted.id)).arguments["password"] == secret  # and so does a restart
    shown = [accepted, await metered.commands.get(accepted.id, metered.admin), *await metered.commands.list(metered.admin), *heard]
    arm.gate.set()
    shown += [await metered.commands.wait(accepted.id, 5.0), *heard]
    assert {command.arguments["password"] for command in shown} == {"***"}
    journal = [*await metered.store.journal.entries(JournalFilter(stream="audit")), *await metered.store.journal.entries(JournalFilter())]
    assert secret.encode() not in b"".join(one.entry.body for one in journal)
    assert (await document(metered, accepted.id)).arguments == CLOSE | {"password": "***"}
    assert secret not in caplog.text


async def test_credentials_in_what_a_device_says_are_masked(metered: World) -> None:
    online(metered, Arm(lambda command: DeviceError("cannot fetch ftp://bob:hunter2@example.org/fw.bin")))
    ended = await metered.commands.wait((await order(metered)).id, 5.0)
    assert "hunter2" not in ended.error


# ---------------------------------------------------------------------------------------------------- offline and waiting


async def test_an_order_waits_for_its_device_and_orders_go_out_as_they_were_accepted(metered: World) -> None:
    ids = [(await order(metered, arguments=CLOSE | {"relay": number}, wait_online=True)).id for number in range(1, 6)]
    assert {(await metered.commands.get(id, metered.admin)).state for id in ids} == {S.ACCEPTED}
    arm = Arm()
    online(metered, arm)
    for id in ids:
        assert (await metered.commands.wait(id, 5.0)).state is S.DONE
    assert [command.id for command in arm.seen] == ids


async def test_an_order_that_waits_too_long_expires(fast: World) -> None:
    waiting = await order(fast, wait_online=True, expires_in=30.0)
    ended = await fast.commands.wait(waiting.id, 200.0)
    assert ended.state is S.EXPIRED
    assert 30 <= ((ended.ended or 0) - ended.created) / 1e6 < 50
    arm = Arm()
    online(fast, arm)
    await asyncio.sleep(0.02)
    assert arm.seen == []
    assert await fast.events("command.completed") == ["command.completed occurred"]


async def test_an_order_expires_behind_a_slow_one(fast: World) -> None:
    arm = Arm()
    arm.gate = asyncio.Event()
    online(fast, arm)
    slow = await order(fast)
    behind = await order(fast, expires_in=5.0)
    assert (await fast.commands.wait(behind.id, 50.0)).state is S.EXPIRED
    arm.gate.set()
    await fast.commands.wait(slow.id, 50.0)
    await asyncio.sleep(0.01)
    assert [command.id for command in arm.seen] == [slow.id]


async def test_the_device_goes_before_the_order_is_sent(metered: World) -> None:
    arm = Arm()
    arm.gate = asyncio.Event()
    link = online(metered, arm)
    first = await order(metered)
    second = await order(metered)
    third = await order(metered, wait_online=True)
    await until(lambda: arm.seen)
    link.detach("gone")
    arm.gate.set()
    assert (await metered.commands.wait(first.id, 5.0)).state is S.DONE
    ended = await metered.commands.wait(second.id, 5.0)
    assert (ended.state, ended.error.split(":")[0]) == (S.REFUSED, "offline")
    assert (await metered.commands.get(third.id, metered.admin)).state is S.ACCEPTED
    online(metered, arm)
    assert (await metered.commands.wait(third.id, 5.0)).state is S.DONE
    assert [command.id for command in arm.seen] == [first.id, third.id]


async def test_a_device_with_nothing_to_do_costs_one_commit_before_its_executor(metered: World) -> None:
    commits: list[list[str]] = []
    commit = metered.store.commit

    async def counted(writes: Any) -> Any:
        states = [write.keys["state"] for write in writes if isinstance(write, Put) and write.kind == "command"]
        commits.extend([states] if states else [])
        return await commit(writes)

    metered.store.commit = counted  # type: ignore[method-assign]
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    heard = told(metered)
    first = await order(metered)
    await until(lambda: arm.seen)
    assert commits == [["sent"]]
    assert [(command.id, command.state) for command in heard] == [(first.id, S.ACCEPTED), (first.id, S.SENT)]
    second = await order(metered)  # has to wait: two commits
    assert commits == [["sent"], ["accepted"]]
    arm.gate.set()
    await metered.commands.wait(second.id, 5.0)
    assert commits == [["sent"], ["accepted"], ["done"], ["sent"], ["done"]]
    assert [command.id for command in arm.seen] == [first.id, second.id]


async def test_orders_that_come_while_the_first_is_stored_are_behind_it(metered: World) -> None:
    arm = Arm()
    online(metered, arm)
    orders = await asyncio.gather(*[order(metered, arguments=CLOSE | {"relay": number}) for number in range(1, 6)])
    for one in orders:
        assert (await metered.commands.wait(one.id, 5.0)).state is S.DONE
    assert [command.arguments["relay"] for command in arm.seen] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("wait", "state"), [(True, S.SENT), (False, S.REFUSED)])
async def test_the_device_goes_while_its_order_is_stored(metered: World, wait: bool, state: CommandState) -> None:
    arm = Arm()
    link = online(metered, arm)
    commit = metered.store.commit

    async def goes(writes: Any) -> Any:
        link.offline("gone")
        return await commit(writes)

    metered.store.commit = goes  # type: ignore[method-assign]
    given = await order(metered, wait_online=wait)
    metered.store.commit = commit  # type: ignore[method-assign]
    await asyncio.sleep(0.05)
    assert (await metered.commands.get(given.id, metered.admin)).state is state
    assert arm.seen == []
    link.online()
    if wait:
        assert (await metered.commands.wait(given.id, 5.0)).state is S.DONE
        assert [command.id for command in arm.seen] == [given.id]


async def test_a_store_that_refuses_the_first_order_leaves_the_device_free(metered: World) -> None:
    arm = Arm()
    online(metered, arm)
    commit = metered.store.commit

    async def full(writes: Any) -> Any:
        raise StorageFull("no space")

    metered.store.commit = full  # type: ignore[method-assign]
    with pytest.raises(StorageFull):
        await order(metered)
    metered.store.commit = commit  # type: ignore[method-assign]
    assert (await metered.commands.wait((await order(metered)).id, 5.0)).state is S.DONE
    assert len(arm.seen) == 1


async def test_taking_back_an_order(metered: World) -> None:
    waiting = await order(metered, wait_online=True)
    assert (await metered.commands.cancel(waiting.id, metered.admin)).state is S.CANCELLED
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    await asyncio.sleep(0.01)
    assert arm.seen == []
    sent = await order(metered)
    await until(lambda: arm.seen)
    with pytest.raises(Conflict, match="sent"):
        await metered.commands.cancel(sent.id, metered.admin)
    arm.gate.set()
    await metered.commands.wait(sent.id, 5.0)
    with pytest.raises(Conflict, match="done"):
        await metered.commands.cancel(sent.id, metered.admin)
    with pytest.raises(NotFound):
        await metered.commands.cancel("nothing", metered.admin)


async def test_too_many_orders_wait(metered: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.core.commands._WAITING_PER_DEVICE", 3)
    for _ in range(3):
        await order(metered, wait_online=True)
    with pytest.raises(Refused, match="already wait"):
        await order(metered, wait_online=True)


# ---------------------------------------------------------------------------------------------------- several at a time


async def test_one_at_a_time_per_device_and_slow_devices_hold_up_nobody(metered: World) -> None:
    other = msgspec.structs.replace(METER, id="dummy:m2", identity="m2")
    await metered.registry.register(other)
    slow, quick = Arm(), Arm()
    slow.gate = asyncio.Event()
    online(metered, slow)
    online(metered, quick, "dummy:m2")
    stuck = [await order(metered) for _ in range(3)]
    for _ in range(3):
        accepted = await metered.commands.submit(metered.admin, "dummy:m2", "relay.set", CLOSE)
        assert (await metered.commands.wait(accepted.id, 5.0)).state is S.DONE
    assert len(slow.seen) == 1
    slow.gate.set()
    for one in stuck:
        assert (await metered.commands.wait(one.id, 5.0)).state is S.DONE
    assert [command.id for command in slow.seen] == [one.id for one in stuck]


async def test_the_newest_limit_is_the_one_that_counts(metered: World) -> None:
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    limits = [{"current_a": float(amperes)} for amperes in (16, 10, 8, 6)]
    relay = await order(metered)
    await until(lambda: arm.seen)
    behind = await order(metered)
    orders = [await order(metered, "charge.limit", limit) for limit in limits]
    arm.gate.set()
    ended = [await metered.commands.wait(one.id, 5.0) for one in orders]
    assert [one.state for one in ended] == [S.CANCELLED, S.CANCELLED, S.CANCELLED, S.DONE]
    assert ended[0].error == f"superseded by {orders[1].id}"
    await metered.commands.wait(behind.id, 5.0)
    assert [command.id for command in arm.seen] == [relay.id, orders[3].id, behind.id]


async def test_a_repeated_id_is_the_same_order(metered: World) -> None:
    arm = Arm()
    online(metered, arm)
    first = await order(metered, id="client-7")
    done = await metered.commands.wait(first.id, 5.0)
    again = await order(metered, id="client-7")
    assert (again.state, again.ended) == (S.DONE, done.ended)
    both = await asyncio.gather(*(order(metered, id="client-8") for _ in range(5)))
    assert {one.id for one in both} == {"client-8"}
    await metered.commands.wait("client-8", 5.0)
    assert [command.id for command in arm.seen] == ["client-7", "client-8"]
    with pytest.raises(Conflict):
        await order(metered, "device.poll", {}, id="client-7")


async def test_a_repeated_id_with_other_arguments_is_refused(metered: World) -> None:
    arm = Arm()
    online(metered, arm)
    given = CLOSE | {"password": "11111111"}
    for _ in range(2):  # under way, and when it has ended
        assert (await order(metered, arguments=given, id="mine-1")).id == "mine-1"
        assert (await order(metered, arguments=CLOSE | {"password": "22222222"}, id="mine-1")).id == "mine-1"
        for other in (CLOSE, given | {"state": "open"}, given | {"relay": 2}):
            with pytest.raises(Conflict, match="'mine-1'"):
                await order(metered, arguments=other, id="mine-1")
        await metered.commands.wait("mine-1", 5.0)
    both = await asyncio.gather(*(order(metered, arguments=CLOSE | {"relay": relay}, id="mine-2") for relay in (1, 2)), return_exceptions=True)
    assert {type(one) for one in both} == {Command, Conflict}
    await metered.commands.wait("mine-2", 5.0)
    assert [command.id for command in arm.seen] == ["mine-1", "mine-2"]


async def test_writes_of_the_submitter_are_in_the_same_commit(metered: World) -> None:
    online(metered, Arm())
    await order(metered, writes=[Put("dummy", "note", "1", b"{}", expect=0)])
    assert await metered.store.documents.get("dummy", "note", "1") is not None
    orders = len(await metered.commands.list(metered.admin))
    with pytest.raises(Conflict):
        await order(metered, writes=[Put("dummy", "note", "1", b"{}", expect=0)])
    assert len(await metered.commands.list(metered.admin)) == orders


# ------------------------------------------------------------------------------------------------------------------- LATER


async def test_an_answer_that_comes_later_frees_the_device(metered: World) -> None:
    arm = Arm(lambda command: LATER)
    online(metered, arm)
    first, second = await order(metered), await order(metered)
    await until(lambda: len(arm.seen) == 2)
    assert (await metered.commands.get(first.id, metered.admin)).state is S.SENT
    assert (await metered.commands.finish(second.id, {"ok": 2})).result == {"ok": 2}
    ended = await metered.commands.finish(first.id, error=DeviceError("NACK"))
    assert (ended.state, ended.error) == (S.FAILED, "device-refused: NACK")
    with pytest.raises(Conflict):
        await metered.commands.finish(first.id, {})
    with pytest.raises(NotFound):
        await metered.commands.finish("nothing")
    waiting = await metered.commands.submit(metered.admin, METER.id, "relay.set", CLOSE)
    await until(lambda: len(arm.seen) == 3)
    await metered.commands.finish(waiting.id)
    assert await metered.events("command.completed") == ["command.completed occurred"] * 3


async def test_an_answer_that_is_faster_than_the_executor(metered: World) -> None:
    async def execute(command: Command) -> Any:
        await metered.commands.finish(command.id, {"quick": True})
        return LATER

    online(metered, execute)
    ended = await metered.commands.wait((await order(metered)).id, 5.0)
    assert (ended.state, ended.result) == (S.DONE, {"quick": True})
    assert (await metered.commands.wait((await order(metered)).id, 5.0)).state is S.DONE


async def test_an_answer_that_does_not_come_leaves_the_order_unknown_and_may_still_end_it(fast: World) -> None:
    online(fast, Arm(lambda command: LATER))
    accepted = await order(fast)
    unknown = await fast.commands.wait(accepted.id, 200.0)
    assert unknown.state is S.UNKNOWN
    assert await fast.events("command.unknown") == ["command.unknown occurred"]
    ended = await fast.commands.finish(accepted.id, {"late": True})
    assert (ended.state, ended.result) == (S.DONE, {"late": True})
    assert await fast.events("command.completed") == ["command.completed occurred"]


# ----------------------------------------------------------------------------------------------------------------- crashes


async def test_an_order_under_way_at_a_crash_is_unknown_and_is_not_sent_again(metered: World) -> None:
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    accepted = await order(metered, arguments=CLOSE | {"password": "12345678"})
    await until(lambda: arm.seen)
    again = await metered.again()
    second = Arm()
    link = online(again, second)
    await again.commands.recover()
    ended = await again.commands.get(accepted.id, again.admin)
    assert (ended.state, ended.error) == (S.UNKNOWN, "whether the device acted is not known: the hub stopped while the order was under way")
    assert (await document(again, accepted.id)).arguments["password"] == "***"
    link.offline("x")
    link.online()
    await asyncio.sleep(0.02)
    assert second.seen == []
    assert await again.events("command.unknown") == ["command.unknown occurred"]
    assert (await again.trail())[-1].startswith("relay.set dummy:m1 unknown")
    assert (await again.commands.finish(accepted.id, {"it": "did"})).state is S.DONE
    await again.close()


async def test_what_may_be_sent_again_after_a_crash(metered: World) -> None:
    """Idempotent orders, and those of links that recognise an order by its id."""
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    other = msgspec.structs.replace(METER, id="dummy:m2", identity="m2")
    await metered.registry.register(other)
    second = Arm()
    second.gate = asyncio.Event()
    online(metered, second, "dummy:m2")
    poll = await order(metered, "device.poll", {})
    relay = await metered.commands.submit(metered.admin, "dummy:m2", "relay.set", CLOSE)
    await until(lambda: arm.seen and second.seen)
    again = await metered.again()
    polled, switched = Arm(), Arm()
    link = again.registry.attach("dummy:m2", switched, deduplicates=True)
    await again.commands.recover()
    online(again, polled)
    link.online()
    assert (await again.commands.wait(poll.id, 5.0)).state is S.DONE
    assert (await again.commands.wait(relay.id, 5.0)).state is S.DONE
    assert [command.id for command in polled.seen] == [poll.id]
    assert [command.id for command in switched.seen] == [relay.id]
    await again.close()


async def test_orders_that_waited_wait_on_after_a_crash_and_others_are_refused(metered: World) -> None:
    await metered.registry.register(msgspec.structs.replace(METER, id="dummy:m2", identity="m2"))
    short = await metered.commands.submit(metered.admin, "dummy:m2", "relay.set", CLOSE, wait_online=True, expires_in=0.01)
    await asyncio.sleep(0.02)
    arm = Arm()
    arm.gate = asyncio.Event()
    link = online(metered, arm)
    under_way = await order(metered)
    await until(lambda: arm.seen)
    queued = await order(metered)
    link.detach()
    later = await order(metered, wait_online=True)
    again = await metered.again()
    await again.commands.recover()
    assert (await again.commands.get(short.id, again.admin)).state is S.EXPIRED
    assert (await again.commands.get(under_way.id, again.admin)).state is S.UNKNOWN
    ended = await again.commands.get(queued.id, again.admin)
    assert (ended.state, "nothing was sent" in ended.error) == (S.REFUSED, True)
    assert (await again.commands.get(later.id, again.admin)).state is S.ACCEPTED
    second = Arm()
    online(again, second)
    assert (await again.commands.wait(later.id, 5.0)).state is S.DONE
    assert [command.id for command in second.seen] == [later.id]
    await again.close()


async def test_the_end_is_kept_although_the_disk_is_full_for_a_moment(metered: World) -> None:
    arm = Arm()
    online(metered, arm)
    await metered.registry.settle()
    commit = metered.store.commit
    refused = 0

    async def full(writes: Any) -> Any:
        nonlocal refused
        if refused < 2 and any(isinstance(write, Put) and write.keys.get("state") == "done" for write in writes):
            refused += 1
            raise StorageFull("no space")
        return await commit(writes)

    metered.store.commit = full  # type: ignore[method-assign]
    ended = await metered.commands.wait((await order(metered)).id, 5.0)
    assert (ended.state, refused, len(arm.seen)) == (S.DONE, 2, 1)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 40), st.sampled_from(["relay.set", "device.poll"]), st.booleans())
def test_at_whatever_commit_the_hub_dies_a_relay_is_never_switched_twice(commits: int, verb: str, wait: bool) -> None:
    """The store stops at the n-th commit from now; what stands on disk then is what the next hub finds."""

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = await World(Path(folder), Clock()).open()
            await world.registry.register(METER)
            await world.registry.settle()
            left = commits
            commit = world.store.commit
            dead, buried = asyncio.Event(), asyncio.Event()

            async def mortal(writes: Any) -> Any:
                nonlocal left
                if left == 0:
                    dead.set()
                    await buried.wait()
                    raise StorageFull("the hub is dead")
                left -= 1
                return await commit(writes)

            world.store.commit = mortal  # type: ignore[method-assign]
            arm = Arm()
            online(world, arm)

            async def submit_all() -> None:
                for _ in range(4):
                    accepted = await order(world, verb, CLOSE if verb == "relay.set" else {}, wait_online=wait)
                    acknowledged.append(accepted.id)
                    await world.commands.wait(accepted.id, 5.0)

            acknowledged: list[str] = []
            submitting = asyncio.ensure_future(submit_all())
            waiting = asyncio.ensure_future(dead.wait())
            await asyncio.wait([submitting, waiting], return_when=asyncio.FIRST_COMPLETED)
            again = await world.again()
            second = Arm()
            link = again.registry.attach(METER.id, second)
            await again.commands.recover()
            link.online()
            for id in acknowledged:
                assert (await again.commands.wait(id, 5.0)).state.final  # nothing that was acknowledged is lost
            if verb == "relay.set":
                executed = [command.id for command in (*arm.seen, *second.seen)]
                assert len(executed) == len(set(executed))
            submitting.cancel()
            waiting.cancel()
            buried.set()
            await again.close()

    asyncio.run(run())


# ------------------------------------------------------------------------------------------------------- watching, listing


async def test_watching_an_order(metered: World) -> None:
    arm = Arm()
    arm.gate = asyncio.Event()
    accepted = await order(metered, wait_online=True)
    states: list[CommandState] = []

    async def watch() -> None:
        async for command in metered.commands.watch(accepted.id, metered.admin):
            states.append(command.state)

    watching = asyncio.ensure_future(watch())
    await until(lambda: states)
    online(metered, arm)
    await until(lambda: arm.seen)
    arm.gate.set()
    await asyncio.wait_for(watching, 5)
    assert states == [S.ACCEPTED, S.SENT, S.DONE]
    with pytest.raises(NotFound):
        await metered.commands.wait("nothing", 1.0)
    with pytest.raises(NotFound):
        await metered.commands.wait(accepted.id, 1.0, Principal("nobody", ()))
    assert not metered.bus._exact.get(subjects.command(accepted.id))


async def test_no_wake_up_is_lost_between_looking_and_listening(metered: World) -> None:
    """The order ends while the watcher reads it from the store."""
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    accepted = await order(metered)
    await until(lambda: arm.seen)
    get = metered.store.documents.get
    metered.commands._open.pop(accepted.id)  # as on another node: it has to look into the store

    async def slow(space: str, kind: str, id: str) -> Any:
        found = await get(space, kind, id)
        if arm.gate is not None and not arm.gate.is_set():
            arm.gate.set()
            await asyncio.sleep(0.05)
        return found

    metered.store.documents.get = slow  # type: ignore[method-assign]
    began = asyncio.get_running_loop().time()
    ended = await metered.commands.wait(accepted.id, 4.0)
    assert ended.state is S.DONE
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_lost_message_is_made_up_for(fast: World) -> None:
    accepted = await order(fast, wait_online=True)
    waiting = asyncio.ensure_future(fast.commands.wait(accepted.id, 100.0))
    await asyncio.sleep(0.01)
    publish = fast.bus.publish
    fast.bus.publish = lambda subject, message: None if subject.startswith("command.") else publish(subject, message)  # type: ignore[method-assign]
    online(fast, Arm())
    assert (await asyncio.wait_for(waiting, 5)).state is S.DONE


async def test_waiting_has_an_end(metered: World) -> None:
    accepted = await order(metered, wait_online=True)
    with pytest.raises(DeviceTimeout):
        await metered.commands.wait(accepted.id, 0.02)
    assert (await metered.commands.get(accepted.id, metered.admin)).state is S.ACCEPTED


async def test_listing(metered: World) -> None:
    other = msgspec.structs.replace(METER, id="dummy:m2", identity="m2")
    await metered.registry.register(other)
    ids = [(await order(metered, wait_online=True)).id for _ in range(3)]
    others = (await metered.commands.submit(metered.admin, "dummy:m2", "relay.set", CLOSE, wait_online=True)).id
    await metered.commands.cancel(ids[1], metered.admin)
    commands = metered.commands
    assert [one.id for one in await commands.list(metered.admin)] == [others, *reversed(ids)]
    assert [one.id for one in await commands.list(metered.admin, device=METER.id, limit=2)] == [ids[2], ids[1]]
    assert [one.id for one in await commands.list(metered.admin, device=METER.id, limit=2, after=ids[1])] == [ids[0]]
    assert [one.id for one in await commands.list(metered.admin, state=S.CANCELLED)] == [ids[1]]
    account = await metered.accounts.create_account(metered.admin, "bob@example.org", role=Role.VIEWER, scope="device:dummy:m2")
    bob = metered.accounts.principal(account.id)
    assert [one.id for one in await commands.list(bob)] == [others]
    with pytest.raises(NotFound):
        await commands.list(bob, device=METER.id)


async def test_two_nodes_one_submits_the_other_holds_the_link(metered: World) -> None:
    other = await World(metered.path, metered.clock, bus=metered.bus, store=metered.store).open()
    arm = Arm()
    link = other.registry.attach(METER.id, arm)
    waiting = await order(metered, wait_online=True)
    link.online()
    assert (await metered.commands.wait(waiting.id, 5.0)).state is S.DONE
    direct = await order(metered)
    assert (await metered.commands.wait(direct.id, 5.0)).state is S.DONE
    assert (await metered.commands.get(direct.id, metered.admin)).state is S.DONE
    assert [command.id for command in arm.seen] == [waiting.id, direct.id]
    # Both nodes have the order before them and believe that it is theirs to send.
    link.offline("for a moment")
    both = await order(metered, wait_online=True)
    other.commands._open[both.id] = await other.commands._load(both.id)
    marked = await asyncio.gather(metered.commands._mark_sent(both.id), other.commands._mark_sent(both.id))
    assert sorted(one is None for one in marked) == [False, True]
    link.online()
    # Both nodes believe to hold the link: the order is sent by one of them.
    metered.registry._live[METER.id].link = metered.registry._live[METER.id].link or other.registry.link(METER.id)
    contested = await order(other, wait_online=False)
    with contextlib.suppress(GridloomError):
        await metered.commands._send(METER.id, contested.id)
    await other.commands.wait(contested.id, 5.0)
    assert [command.id for command in arm.seen].count(contested.id) == 1
    await other.registry.settle()


async def test_an_orderly_stop_lets_what_is_under_way_end(metered: World) -> None:
    arm = Arm()
    arm.gate = asyncio.Event()
    online(metered, arm)
    accepted = await order(metered)
    await until(lambda: arm.seen)
    stopping = asyncio.ensure_future(metered.commands.stop(grace=2.0))
    await asyncio.sleep(0.01)
    arm.gate.set()
    await stopping
    assert (await document(metered, accepted.id)).state is S.DONE
    with pytest.raises(Offline):
        await metered.bus.request(subjects.order(METER.id), accepted.id, 1.0)
