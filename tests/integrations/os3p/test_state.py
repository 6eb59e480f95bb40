"""The state of a Substation on disk: killed at every step of every file, damaged at every byte, on a full disk, and shared by mistake."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integrations.os3p.state_child import COMMITS, event, story

from gridloom.core.errors import ConfigurationError
from gridloom.integrations.os3p import state as module
from gridloom.integrations.os3p.messages import StatusNotification
from gridloom.integrations.os3p.state import State, Vault

ROOT = Path(__file__).parents[3]
CHILD = Path(__file__).with_name("state_child.py")


async def told(folder: Path, last: int) -> list[str]:
    """What a child that is killed before step ``last`` says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(folder), str(last), stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode in (0, -9)
    return output.decode().splitlines()


def check(folder: Path, said: list[str]) -> None:
    """What was committed is there, wholly, and nothing that was not begun."""
    committed = max([int(line.split()[1]) for line in said if line.startswith("commit ")], default=0)
    vault = Vault(folder)
    try:
        assert vault.state.set_aside == (), "a power loss is no damage"
        number = int(vault.state.keys.get("number", "0"))
        assert committed <= number <= committed + 1
        if number:
            expected = State()
            for name, value in story(number).items():
                setattr(expected, name, value)
            assert vault.state == expected, "all of a commit or nothing"
        moments = [one.payload["timestamp"] for one in vault.events.values()]
        assert moments == sorted(moments)
        assert len(set(moments)) == len(moments)
        done = sum(line.startswith("done ") for line in said)
        kept = [event(one).timestamp for one in range(1, number + 1)]
        assert moments in (kept[done:], kept[done + 1 :]), "no event is lost; an end that was not synced may be"
    finally:
        vault.close()


@pytest.mark.timeout(110)
async def test_N20_L15_kill_9_before_every_step_of_every_file_loses_nothing(tmp_path: Path) -> None:
    """Each process of the loop goes on where the one before was killed, too: the second start of a folder is killed as well."""
    whole = await told(tmp_path / "whole", 0)
    steps = int(whole[-1].split()[1])
    assert steps > 80
    slots = asyncio.Semaphore(4)

    async def one(last: int) -> None:
        folder = tmp_path / str(last)
        async with slots:
            said = await told(folder, last)
        assert said[-1:] != whole[-1:], "it was killed"
        check(folder, said)

    await asyncio.gather(*(one(last) for last in range(1, steps + 1)))


async def test_kill_9_again_and_again_in_one_folder(tmp_path: Path) -> None:
    said: list[str] = []
    for last in (3, 9, 14, 2, 20, 11, 25, 6, 30):
        said += await told(tmp_path, last)
        check(tmp_path, said)


# ------------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.timeout(60)
async def test_damage_and_kill_9_together_lose_only_what_is_damaged(tmp_path: Path) -> None:
    """The last line is damaged, and the start that finds this is killed before each of its steps."""
    slots = asyncio.Semaphore(4)

    async def one(last: int) -> None:
        folder = tmp_path / str(last)
        Vault(folder).close()
        full(folder, 7).close()
        file = folder / "state.log"
        damaged = file.read_bytes()[:-9] + b"damaged!\n"
        file.write_bytes(damaged)
        async with slots:
            said = await told(folder, last)
        assert not any(line.startswith("steps") for line in said), "it was killed"
        vault = Vault(folder)
        number = int(vault.state.keys["number"])
        assert number >= 6
        kept = [event(one).timestamp for one in range(1, number + 1)]
        assert [one.payload["timestamp"] for one in vault.events.values()][:6] == kept[:6]
        assert vault.state.set_aside == ("state.damaged-1",)
        assert (folder / "state.damaged-1").read_bytes() == damaged
        assert not (folder / "state.damaged-2").exists()
        vault.close()

    await asyncio.gather(*(one(last) for last in range(1, 17)))


def test_a_damaged_file_is_kept_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(tmp_path).close()
    damaged = (tmp_path / "state.log").read_bytes() + b"damaged!\n"
    (tmp_path / "state.log").write_bytes(damaged)

    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    vault = Vault(tmp_path)
    assert vault.failing == ""
    assert (tmp_path / "state.damaged-1").read_bytes() == damaged
    vault.close()


def full(folder: Path, commits: int = COMMITS) -> Vault:
    vault = Vault(folder)
    for number in range(1, commits + 1):
        vault.commit(add=[("1", event(number))], **story(number))
    return vault


def test_a_damaged_line_is_set_aside_and_the_others_hold(tmp_path: Path) -> None:
    full(tmp_path).close()
    file = tmp_path / "state.log"
    lines = file.read_bytes().split(b"\n")
    lines[6] = lines[6].replace(b"Daily", b"Weekl")
    file.write_bytes(b"\n".join(lines))
    vault = Vault(tmp_path)
    assert vault.state.set_aside == ("state.damaged-1",)
    assert (tmp_path / "state.damaged-1").read_bytes() == b"\n".join(lines), "it is kept"
    assert vault.state.keys["number"] == str(COMMITS)
    assert len(vault.events) == COMMITS - 1
    vault.close()
    again = Vault(tmp_path)
    assert again.state == vault.state, "also that nobody has been told of it"
    assert not (tmp_path / "state.damaged-2").exists()
    again.commit(set_aside=())
    again.close()
    last = Vault(tmp_path)
    assert last.state.set_aside == ()
    last.close()


def test_a_damaged_snapshot_is_made_good_by_the_previous_generation(tmp_path: Path) -> None:
    full(tmp_path).close()
    first = Vault(tmp_path)  # writes anew: what there was is the previous generation
    first.commit(keys={"number": "99"})
    expected = first.state
    first.close()
    file = tmp_path / "state.log"
    content = bytearray(file.read_bytes())
    content[50] ^= 0xFF
    file.write_bytes(content)
    vault = Vault(tmp_path)
    expected.set_aside = ("state.damaged-1",)
    assert vault.state == expected
    assert len(vault.events) == COMMITS
    vault.close()


def test_nothing_left_begins_anew(tmp_path: Path) -> None:
    full(tmp_path).close()
    for name in ("state.log", "state.previous"):
        (tmp_path / name).write_bytes(os.urandom(3000) + b"\n")
    vault = Vault(tmp_path)
    assert vault.state == State(set_aside=("state.damaged-1", "state.damaged-2"))
    vault.close()


def test_a_missing_file_is_made_good_by_the_previous_generation(tmp_path: Path) -> None:
    full(tmp_path).close()
    Vault(tmp_path).close()
    (tmp_path / "state.log").unlink()
    vault = Vault(tmp_path)
    assert vault.state.keys["number"] == str(COMMITS)
    vault.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_raises_or_invents(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("state")
    full(folder).close()
    file = folder / "state.log"
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(("flip", "cut", "zero", "insert"))):
            case "flip":
                content[place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[place:]
            case "zero":
                content[place : place + 200] = bytes(len(content[place : place + 200]))
            case _:
                content[place:place] = data.draw(st.binary(min_size=1, max_size=50))
        if not content:
            break
    file.write_bytes(bytes(content))
    vault = Vault(folder)
    number = int(vault.state.keys.get("number", "0"))
    assert number == 0 or vault.state.accepted == story(number)["accepted"]
    assert {one.payload["timestamp"] for one in vault.events.values()} <= {event(one).timestamp for one in range(1, COMMITS + 1)}
    vault.commit(keys={"after": "1"})
    vault.close()
    again = Vault(folder)
    assert again.state.keys == {"after": "1"}
    again.close()


# --------------------------------------------------------------------------------------------------------- disk, folder, growth


def test_a_full_disk_keeps_it_in_memory_and_writes_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = full(tmp_path)
    real = os.write

    def full_disk(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full_disk)
    vault.commit(add=[("1", event(50))], keys={"number": "1"})
    assert vault.failing == "No space left on device"
    with pytest.raises(OSError, match="No space"):
        vault.commit(must=True, keys={"number": "2"})
    assert vault.state.keys == {"number": "1"}
    monkeypatch.setattr(os, "write", real)
    vault.commit(keys={"number": "3"})
    assert vault.failing == ""
    vault.close()
    again = Vault(tmp_path)
    assert again.state.keys == {"number": "3"}
    assert [one.payload["timestamp"] for one in again.events.values()][-1] == event(50).timestamp
    assert again.state.set_aside == ()
    again.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_start_on_a_full_or_read_only_disk(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(tmp_path).close()
    (tmp_path / "state.log").write_bytes((tmp_path / "state.log").read_bytes() + b"damaged!\n")
    (tmp_path / "lock").unlink()
    real = os.open

    def refused(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode)

    def no_link(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(os, "link", no_link)
    vault = Vault(tmp_path)
    assert vault.failing == os.strerror(number)
    assert vault.state.keys["number"] == str(COMMITS)
    with pytest.raises(ConfigurationError, match="another Substation"):
        Vault(tmp_path)
    vault.commit(add=[("1", event(50))])
    assert vault.failing
    monkeypatch.undo()
    vault.commit(lamps=())
    assert vault.failing == ""
    vault.close()
    again = Vault(tmp_path)
    assert len(again.events) == COMMITS + 1
    assert again.state.lamps == ()
    assert again.state.set_aside == ("state.damaged-1",)
    again.close()


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    with pytest.raises(ConfigurationError, match="another Substation"):
        Vault(tmp_path)
    vault.close()
    Vault(tmp_path).close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        Vault(tmp_path / "file" / "state")


def test_the_file_does_not_grow_for_ever_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(3_000):
        vault.commit(add=[("1", event(number % 60))])
        vault.commit(done=list(vault.events))
    assert (tmp_path / "state.log").stat().st_size < 2 * module.GROWN
    assert (tmp_path / "state.log").stat().st_mode & 0o077 == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors
    vault.close()


def test_what_has_to_make_room_is_first_what_nobody_guarantees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 3)
    vault = Vault()
    vault.commit(add=[("1", event(1))])
    vault.commit(add=[("status", StatusNotification(status="Ok", errorCode="NoError"))])
    vault.commit(add=[("1", event(2)), ("1", event(3))])
    assert [one.payload.get("timestamp") for one in vault.events.values()] == [event(number).timestamp for number in (1, 2, 3)]
    assert vault.lost == 0
    vault.commit(add=[("1", event(4))])
    assert vault.lost == 1


def test_memory_of_ten_thousand_events() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    vault = Vault()
    for number in range(10_000):
        vault.commit(add=[("1", event(number % 60))])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    assert len(vault.events) == 10_000


def test_what_is_committed_is_synced_before_it_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that the system holds, a power loss does: so the order of the calls is looked at."""
    vault = Vault(tmp_path)
    done: list[str] = []
    real_write, real_sync, real_replace = os.write, os.fsync, Path.replace

    def write(descriptor: int, content: bytes) -> int:
        done.append("write")
        return real_write(descriptor, content)

    def sync(descriptor: int) -> None:
        done.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync")
        real_sync(descriptor)

    def replace(path: Path, target: Path) -> Path:
        done.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    vault.commit(add=[("1", event(1))])
    assert done == ["write", "write", "sync"]
    done.clear()
    vault.close()
    Vault(tmp_path).close()
    whole = ["write", "write", "sync", "rename", "sync folder"]
    assert done == whole + whole, "the previous generation, then the new one"
