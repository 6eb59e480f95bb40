"""Files of stations: links, uploads of all sorts over real sockets, firmware, room and age; with a raw station and a raw HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import until
from tests.integrations.os3p import station as raw_station
from tests.integrations.os3p.central import FIRST
from tests.integrations.os3p.face import Face, face, raw

from gridloom.core.errors import NotFound
from gridloom.core.model import Admission, CommandState
from gridloom.core.settings import Duration
from gridloom.integrations.os3p import files
from gridloom.integrations.os3p.files import File

ACCEPTED = {"status": "Accepted", "fileName": "syslog.txt"}


async def asked(hub: Face, one: raw_station.Station, what: str = "syslog", identity: str = FIRST) -> tuple[str, str]:
    """Have the station asked for a file: the link that it got, and the order."""
    one.replies["GetFile"] = ACCEPTED
    done = await hub.order("device.files.get", {"what": what}, identity)
    assert done.state is CommandState.DONE, done
    return one.asked[-1][3]["location"], done.id


async def only(hub: Face) -> File:
    (file,) = await hub.files.all()
    return file


async def test_a_station_uploads_what_it_was_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    content = os.urandom(700_000)
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, order = await asked(hub, one)
        assert link.startswith(f"{hub.url}/os3p/files/upload/")
        status, answer = await raw(f"{link}/syslog%20of%20today.txt", "PUT", [content[:100_000], content[100_000:]])
        assert (status, answer["size"], answer["sha256"]) == (201, 700_000, hashlib.sha256(content).hexdigest())
        file = await only(hub)
        assert (file.station, file.command, file.name, file.fault) == ("SUBS001", order, "syslog_of_today.txt", "")
        assert file.request == one.asked[-1][3]["requestId"]
        (blob,) = hub.blobs()
        assert blob.read_bytes() == content
        assert (blob.stat().st_mode & 0o777, blob.name) == (0o600, file.blob)
        found = await hub.world.query.events(hub.world.admin, kinds=("device.file.uploaded",))
        assert [event.data["requestId"] for event in found.events] == [file.request]
        assert found.events[0].data["file"] == file.id
        said = await hub.world.query.audit(hub.world.admin, limit=100)
        shown = await hub.world.commands.get(order, hub.world.admin)
    token = link.rpartition("/")[2]
    for where in (caplog.text, repr(said), repr(shown), repr(found), str([record.__dict__ for record in caplog.records])):
        assert token not in where


async def test_the_link_is_good_as_it_is_by_post_and_with_a_slash(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        assert (await raw(link, "POST", [b"one"]))[0] == 201
        assert (await only(hub)).name.startswith("syslog-")
        assert (await raw(link + "/", "PUT", [b"two"]))[0] == 201
        chunked = [("transfer-encoding", "chunked")]
        assert (await raw(link, "PUT", [b"5\r\nthree\r\n", b"0\r\n\r\n"], chunked))[0] == 201
        assert [blob.read_bytes() for blob in hub.blobs()] == [b"three"]


@pytest.mark.parametrize("token", ["x", "A" * 43, "A" * 5_000, "%00", "..%2F..%2Fgridloom.db"])
async def test_a_wrong_link_is_404_and_nothing_is_written(tmp_path: Path, token: str) -> None:
    async with face(tmp_path) as hub, hub.accepted():
        status, _ = await raw(f"{hub.url}/os3p/files/upload/{token}/x", "PUT", [b"evil"])
        assert status == (400 if token == "%00" else 404)
        assert hub.blobs() == []


async def test_a_link_ends_with_its_time_with_its_file_and_with_its_station(tmp_path: Path) -> None:
    async with face(tmp_path, files_link_lifetime=Duration(0.5)) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        assert (await raw(link, body=[b"x"]))[0] == 201
        await asyncio.sleep(0.6)
        assert (await raw(link, body=[b"late"]))[0] == 404
        assert [blob.read_bytes() for blob in hub.blobs()] == [b"x"]
    (tmp_path / "second").mkdir()
    async with face(tmp_path / "second") as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        await hub.files.delete(hub.world.admin, (await only(hub)).id)
        assert (await raw(link, body=[b"x"]))[0] == 404
        link, _ = await asked(hub, one)
        await hub.world.registry.remove("os3p:SUBS001", hub.world.admin)
        assert (await raw(link, body=[b"x"]))[0] == 404
        assert hub.blobs() == []


async def test_a_link_to_fetch_is_none_to_upload(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin:
        await admin.put("/api/v1/os3p/files/fw.bin/content", content=b"firmware")
        one.replies["UpdateFirmware"] = {}
        assert (await hub.order("device.firmware.update", {"file": "fw.bin"})).state is CommandState.DONE
        link = one.asked[-1][3]["location"]
        assert (await raw(link.replace("/download/", "/upload/"), body=[b"x"]))[0] == 404
        upload, _ = await asked(hub, one)
        assert (await raw(upload, body=[b"secret of the station"]))[0] == 201
        assert (await admin.get(upload.replace("/upload/", "/download/"))).status_code == 404


async def test_a_truncated_upload_leaves_nothing_but_its_reason(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        assert (await raw(link, body=[b"good"]))[0] == 201
        await raw(link, "PUT", [b"half"], [("content-length", "1000000")], cut=True)
        await raw(link, "PUT", [b"5\r\nthr"], [("transfer-encoding", "chunked")], cut=True)
        for _ in range(200):
            if (await only(hub)).fault and len(hub.blobs()) == 1:
                break
            await asyncio.sleep(0.01)
        assert "ended before all of the file came" in (await only(hub)).fault
        assert [blob.read_bytes() for blob in hub.blobs()] == [b"good"]


async def test_an_oversized_upload_is_413_before_or_while_it_comes(tmp_path: Path) -> None:
    async with face(tmp_path, files_max_size=1_000, files_room=5_000) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        status, problem = await raw(link, body=[b"x" * 1_001])
        assert (status, problem["type"]) == (413, "/docs#problem-too-large")
        chunk = b"3e8\r\n" + b"x" * 1_000 + b"\r\n"
        assert (await raw(link, "PUT", [chunk, chunk, b"0\r\n\r\n"], [("transfer-encoding", "chunked")]))[0] == 413
        assert (await raw(link, body=[], headers=[("content-length", "1001")]))[0] == 413  # at once: nothing of it has come
        assert hub.blobs() == []
        assert "at most 1000 bytes" in (await only(hub)).fault
        assert (await raw(link, body=[b"x" * 1_000]))[0] == 201
        assert (await only(hub)).fault == ""


async def test_a_form_is_refused_in_words(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        status, problem = await raw(link, "POST", [b"--b\r\n\r\nx\r\n--b--"], [("content-type", "multipart/form-data; boundary=b")])
        assert status == 400
        assert "not a form" in problem["detail"]


class Hanging:
    """An upload of ten bytes of which half never come."""

    def __init__(self, link: str) -> None:
        where, _, self.path = link.removeprefix("http://").partition("/")
        self.host, _, self.port = where.rpartition(":")

    async def begin(self, hub: Face) -> Hanging:
        """Returns when the hub writes it."""
        known = set(hub.blobs())
        self.reader, self.writer = await asyncio.open_connection(self.host, int(self.port))
        self.writer.write(f"PUT /{self.path} HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n12345".encode())
        await until(lambda: bool(set(hub.blobs()) - known))
        return self

    async def answer(self) -> tuple[int, str]:
        """Status and what it is."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = next(int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        return int(head.split()[1]), json.loads(await self.reader.readexactly(length))["type"]


async def test_twice_and_at_once_the_newest_holds(tmp_path: Path) -> None:
    contents = [bytes([number]) * 400_000 for number in range(6)]
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        answers = await asyncio.gather(*(raw(link, body=[content]) for content in contents))
        assert {status for status, _ in answers} <= {201, 409}
        assert 201 in [status for status, _ in answers]
        (blob,) = hub.blobs()
        file = await only(hub)
        assert (blob.read_bytes() in contents, file.fault) == (True, "")
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == file.sha256
        assert (await raw(link, body=[contents[0]]))[0] == 201
        assert hub.blobs()[0].read_bytes() == contents[0]


async def test_of_one_link_only_the_newest_upload_goes_on_and_it_keeps_nobody_out(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        other, _ = await asked(hub, one)
        hanging = [await Hanging(link).begin(hub) for _ in range(10)]
        for older in hanging[:-1]:
            assert await older.answer() == (409, "/docs#problem-conflict")
            older.writer.close()
        await until(lambda: len(hub.blobs()) == 1)
        assert (await raw(other, body=[b"another file"]))[0] == 201
        hanging[-1].writer.write(b"67890")
        assert (await asyncio.wait_for(hanging[-1].reader.readline(), 10)).startswith(b"HTTP/1.1 201")
        hanging[-1].writer.close()
        assert [file.fault for file in await hub.files.all()] == ["", ""]


async def test_an_upload_that_comes_too_slowly_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.4)
    monkeypatch.setattr(files, "SLOWEST", 100)
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        slow = Hanging(link)
        reader, writer = await asyncio.open_connection(slow.host, int(slow.port))
        slow.reader = reader
        writer.write(f"PUT /{slow.path} HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n".encode() + b"x" * 10_000)
        answer = asyncio.create_task(slow.answer())
        for _ in range(60):
            if answer.done():
                break
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert answer.done(), "while bytes came, one after the other"
        assert await answer == (408, "/docs#problem-too-slow")
        writer.close()
        assert "too slowly" in (await only(hub)).fault
        assert hub.blobs() == []
        pieces = iter([b"x" * 20 for _ in range(20)])

        async def steady() -> AsyncIterator[bytes]:
            for piece in pieces:
                await asyncio.sleep(0.05)
                yield piece

        assert (await hub.files.upload(link.rpartition("/")[2], "", steady(), None)).size == 400  # for longer than the patience, and fast enough


async def test_too_many_at_once_are_asked_to_come_again(tmp_path: Path) -> None:
    """Of one station two, of all eight; what operators put has its own places."""
    async with face(tmp_path) as hub, contextlib.AsyncExitStack() as stack, await hub.admin() as admin:
        links: list[str] = []
        for number in range(5):
            identity = f"SUBS{number}"
            one = await stack.enter_async_context(hub.accepted(identity))
            links += [(await asked(hub, one, identity=identity))[0] for _ in range(3)]
        busy = [await Hanging(link).begin(hub) for link in links[0:2]]
        status, problem = await raw(links[2], body=[b"a third of one station"])
        assert (status, problem["type"]) == (503, "/docs#problem-storage")
        busy += [await Hanging(link).begin(hub) for link in links[3:5] + links[6:8] + links[9:11]]
        status, problem = await raw(links[12], body=[b"one more"])
        assert (status, problem["type"]) == (503, "/docs#problem-storage")
        assert (await admin.put("/api/v1/os3p/files/fw.bin/content", content=b"firmware")).status_code == 200
        for hanging in busy:
            hanging.writer.close()
        await until(lambda: len(hub.blobs()) == 1)
        assert (await raw(links[12], body=[b"one more"]))[0] == 201


async def test_the_oldest_uploads_make_room_firmware_never(tmp_path: Path) -> None:
    async with face(tmp_path, files_max_size=1_000, files_room=2_500) as hub, hub.accepted() as one, await hub.admin() as admin:
        assert (await admin.put("/api/v1/os3p/files/fw.bin/content", content=b"f" * 500)).status_code == 200
        links = [(await asked(hub, one))[0] for _ in range(3)]
        for link in links:
            assert (await raw(link, body=[b"u" * 1_000]))[0] == 201
        kept = [file for file in await hub.files.all() if file.kind == "upload"]
        assert len(kept) == 2
        assert (await raw(links[0], body=[b"again"]))[0] == 404
        answer = await admin.put("/api/v1/os3p/files/large.bin/content", content=b"f" * 1_000)
        assert answer.status_code == 200
        assert (await admin.put("/api/v1/os3p/files/larger.bin/content", content=b"f" * 1_000)).status_code == 200
        full = await admin.put("/api/v1/os3p/files/largest.bin/content", content=b"f" * 1_000)
        assert (full.status_code, full.json()["type"]) == (503, "/docs#problem-storage-full")
        assert sorted(file.name for file in await hub.files.all()) == ["fw.bin", "large.bin", "larger.bin"]
        assert sum(blob.stat().st_size for blob in hub.blobs()) == 2_500


async def test_old_uploads_go_and_strays_of_a_crash(tmp_path: Path) -> None:
    async with face(tmp_path, files_kept=Duration(0.3)) as hub, hub.accepted() as one, await hub.admin() as admin:
        await admin.put("/api/v1/os3p/files/fw.bin/content", content=b"firmware")
        link, _ = await asked(hub, one)
        assert (await raw(link, body=[b"x"]))[0] == 201
        await hub.files.tidy()
        assert len(hub.blobs()) == 2
        stray = hub.blobs()[0].with_name("0" * 32)
        stray.write_bytes(b"half of something")
        await asyncio.sleep(0.4)
        await hub.files.stop()
        await hub.files.start()
        for _ in range(200):
            if len(await hub.files.all()) == 1:
                break
            await asyncio.sleep(0.01)
        assert [file.name for file in await hub.files.all()] == ["fw.bin"]
        assert [blob.read_bytes() for blob in hub.blobs()] == [b"firmware"]


async def test_a_disk_that_is_full_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            status, problem = await raw(link, body=[b"x"])
        assert (status, problem["type"]) == (503, "/docs#problem-storage-full")
        assert hub.blobs() == []
        assert (await raw(link, body=[b"x"]))[0] == 201


# ------------------------------------------------------------------------------------------------------------------ firmware


async def test_a_station_fetches_firmware_whole_and_in_pieces(tmp_path: Path) -> None:
    firmware = os.urandom(600_001)
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin, hub.client(None) as fetching:
        put = await admin.put("/api/v1/os3p/files/subs-2.1.bin/content", content=firmware)
        assert (put.status_code, put.json()["size"]) == (200, 600_001)
        one.replies["UpdateFirmware"] = {}
        done = await hub.order("device.firmware.update", {"file": "subs-2.1.bin", "retries": 3})
        assert done.state is CommandState.DONE
        sent = one.asked[-1][3]
        link = sent["location"]
        assert link.endswith("/subs-2.1.bin")
        assert sent["retries"] == 3
        whole = await fetching.get(link)
        assert (whole.status_code, whole.content) == (200, firmware)
        assert whole.headers["accept-ranges"] == "bytes"
        assert whole.headers["etag"] == f'"{hashlib.sha256(firmware).hexdigest()}"'
        head = await fetching.head(link)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "600001", b"")
        for given, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=300000-", 300_000, 600_000),
            ("bytes=-5", 599_996, 600_000),
            ("bytes=9-9999999", 9, 600_000),
        ):
            piece = await fetching.get(link, headers={"range": given})
            assert (piece.status_code, piece.content) == (206, firmware[first : last + 1]), given
            assert piece.headers["content-range"] == f"bytes {first}-{last}/600001"
        beyond = await fetching.get(link, headers={"range": "bytes=600001-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */600001")
        for given in ("bytes=5-1", "items=0-1", "bytes=0-1,3-4"):
            assert (await fetching.get(link, headers={"range": given})).status_code == 200, given
        tag = whole.headers["etag"]
        assert (await fetching.get(link, headers={"range": "bytes=0-1", "if-range": '"another"'})).content == firmware
        assert (await fetching.get(link, headers={"range": "bytes=0-1", "if-range": tag})).content == firmware[:2]
        assert (await fetching.get(link, headers={"if-none-match": tag})).status_code == 304
        await admin.put("/api/v1/os3p/files/subs-2.1.bin/content", content=b"another")
        assert (await fetching.get(link, headers={"range": "bytes=0-1", "if-range": tag})).content == b"another"
        assert len(hub.blobs()) == 1


async def test_an_unknown_firmware_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one:
        done = await hub.order("device.firmware.update", {"file": "none.bin"})
        assert done.state is CommandState.REFUSED
        assert "none.bin" in done.error
        assert not [call for call in one.asked if call[2] == "UpdateFirmware"]


async def test_a_location_of_the_operator_is_left_alone_and_masked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    location = "ftp://root:pa55word@sftp.oursystem.foo/tmp"
    async with face(tmp_path, files_url="http://hub.example/") as hub, hub.accepted() as one:
        one.replies["GetFile"] = ACCEPTED
        done = await hub.order("device.files.get", {"what": "syslog", "location": location})
        assert one.asked[-1][3]["location"] == location
        assert await hub.files.all() == []
        audit = await hub.world.query.audit(hub.world.admin, limit=100)
        events = await hub.world.query.events(hub.world.admin, limit=100)
        for where in (caplog.text, repr(done), repr(audit), repr(events), str([record.__dict__ for record in caplog.records])):
            assert "pa55word" not in where
        link, _ = await asked(hub, one)
        assert link.startswith("http://hub.example/os3p/files/upload/")


@pytest.mark.parametrize("url", ["http://0.0.0.0:8470", "https://[::]:8470"])
async def test_an_address_that_no_station_can_reach_is_not_sent(tmp_path: Path, url: str) -> None:
    async with face(tmp_path, files_url=url) as hub, hub.accepted() as one:
        done = await hub.order("device.files.get", {"what": "syslog"})
        assert done.state is CommandState.REFUSED
        assert "files_url" in done.error
        assert (one.asked, await hub.files.all()) == ([], [])


async def test_nothing_that_was_named_reaches_the_file_system(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        assert (await raw(f"{link}/..%2F..%2F..%2Fetc%2Fpasswd", body=[b"x"]))[0] == 201
        assert (await only(hub)).name == "_.._.._etc_passwd"
        assert [blob.name for blob in hub.blobs()] == [(await only(hub)).blob]
        with pytest.raises(NotFound):
            await hub.files.firmware((await only(hub)).id)


async def test_a_station_that_is_rejected_has_no_link_any_more(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one:
        link, _ = await asked(hub, one)
        await hub.decide(Admission.REJECTED)
        assert (await raw(link, body=[b"x"]))[0] == 404
