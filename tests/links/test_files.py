"""Files over ftp, sftp and http: real servers, and lines that end in the middle."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from random import Random

import pytest
from tests.integrations.os3p.file_servers import ftp, http, sftp
from tests.links.proxy import Proxy

from gridloom.links import files
from gridloom.links.files import NotThere, TransferFailed, Trust

CONTENT = Random(7).randbytes(3_000_000)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "source"
    file.write_bytes(CONTENT)
    return file


def same(file: Path) -> bool:
    return hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()


# ----------------------------------------------------------------------------------------------------------------- there and back


async def test_ftp(tmp_path: Path, served: Path, source: Path) -> None:
    with ftp(served) as url:
        await files.upload(source, f"{url}/", "a name.bin")
        assert same(served / "a name.bin")
        await files.download(f"{url}/a%20name.bin", tmp_path / "target")
    assert same(tmp_path / "target")


async def test_sftp(tmp_path: Path, served: Path, source: Path) -> None:
    async with sftp(served) as (url, known):
        trust = Trust(known_hosts=known)
        await files.upload(source, url, "a name.bin", trust=trust)
        assert same(served / "a name.bin")
        await files.download(f"{url}/a%20name.bin", tmp_path / "target", trust=trust)
    assert same(tmp_path / "target")


async def test_http(tmp_path: Path, served: Path, source: Path) -> None:
    async with http(served) as (url, server):
        await files.upload(source, f"{url}/", "a name.bin")
        assert same(served / "a name.bin")
        await files.download(f"{url}/a%20name.bin", tmp_path / "target")
        assert [(method, target) for method, target, _ in server.requests] == [("PUT", "/a%20name.bin"), ("GET", "/a%20name.bin")]
    assert same(tmp_path / "target")


async def test_an_http_location_with_a_query_is_the_target_itself(served: Path, source: Path) -> None:
    async with http(served) as (url, server):
        await files.upload(source, f"{url}/exact?signature=x", "ignored.bin")
        assert same(served / "exact")
        assert server.requests[0][1] == "/exact?signature=x"


# ---------------------------------------------------------------------------------------------------- what was begun goes on


async def test_an_http_download_goes_on_where_the_line_ended(tmp_path: Path, served: Path, source: Path) -> None:
    (served / "f").write_bytes(CONTENT)
    target = tmp_path / "target"
    async with http(served) as (url, server):
        server.cut_after = 1_000_000
        with pytest.raises(TransferFailed):
            await files.download(f"{url}/f", target)
        assert 0 < target.stat().st_size <= 1_000_000
        begin = target.stat().st_size
        server.cut_after = None
        await files.download(f"{url}/f", target)
        assert server.requests[-1][2]["range"] == f"bytes={begin}-"
        assert same(target)
        assert [file.name for file in tmp_path.iterdir() if file.name.startswith("target")] == ["target"]


@pytest.mark.parametrize(("validator", "if_range"), [("ETag", True), ("ETag", False), ("Last-Modified", True), ("", True)])
async def test_an_http_download_never_mixes_two_files(tmp_path: Path, served: Path, validator: str, if_range: bool) -> None:
    (served / "f").write_bytes(CONTENT[::-1])
    os.utime(served / "f", (1, 1))
    target = tmp_path / "target"
    async with http(served) as (url, server):
        server.validator, server.if_range, server.cut_after = validator, if_range, 1_000_000
        with pytest.raises(TransferFailed):
            await files.download(f"{url}/f", target)
        assert target.stat().st_size > 0
        server.cut_after = None
        (served / "f").write_bytes(CONTENT)
        if not if_range:  # the end of another file comes
            with pytest.raises(TransferFailed):
                await files.download(f"{url}/f", target)
        await files.download(f"{url}/f", target)
    assert same(target)


async def test_a_complete_http_download_is_not_fetched_again(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(CONTENT)
    target = tmp_path / "target"
    async with http(served) as (url, server):
        server.cut_after = 1_000_000
        with pytest.raises(TransferFailed):
            await files.download(f"{url}/f", target)
        target.write_bytes(CONTENT)  # killed between its last byte and its end
        await files.download(f"{url}/f", target)
    assert same(target)


async def test_ftp_and_sftp_do_not_go_on_where_no_checksum_decides(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(CONTENT)
    with ftp(served) as url:
        (tmp_path / "target").write_bytes(CONTENT[1:1000])
        await files.download(f"{url}/f", tmp_path / "target")
        assert same(tmp_path / "target")
    async with sftp(served) as (url, known):
        (tmp_path / "target").write_bytes(CONTENT[1:1000])
        await files.download(f"{url}/f", tmp_path / "target", trust=Trust(known_hosts=known))
    assert same(tmp_path / "target")


async def test_a_server_without_ranges_starts_again(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(CONTENT)
    target = tmp_path / "target"
    target.write_bytes(CONTENT[:1000])
    async with http(served) as (url, server):
        server.ranges = False
        await files.download(f"{url}/f", target)
    assert same(target)


async def test_ftp_goes_on_both_ways(tmp_path: Path, served: Path, source: Path) -> None:
    with ftp(served) as url:
        (served / "f").write_bytes(CONTENT[:900_000])
        await files.upload(source, url, "f")
        assert same(served / "f")
        (tmp_path / "target").write_bytes(CONTENT[:1_234_567])
        await files.download(f"{url}/f", tmp_path / "target", checked=True)
        await files.download(f"{url}/f", tmp_path / "target", checked=True)
    assert same(tmp_path / "target")


async def test_sftp_goes_on_both_ways(tmp_path: Path, served: Path, source: Path) -> None:
    async with sftp(served) as (url, known):
        trust = Trust(known_hosts=known)
        (served / "f").write_bytes(CONTENT[:900_000])
        await files.upload(source, url, "f", trust=trust)
        assert same(served / "f")
        (tmp_path / "target").write_bytes(CONTENT[:1_234_567])
        await files.download(f"{url}/f", tmp_path / "target", trust=trust, checked=True)
    assert same(tmp_path / "target")


async def test_a_larger_leftover_is_no_part_of_the_file(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(b"short")
    (tmp_path / "target").write_bytes(CONTENT)
    with ftp(served) as url:
        await files.download(f"{url}/f", tmp_path / "target", checked=True)
    assert (tmp_path / "target").read_bytes() == b"short"


async def test_an_sftp_line_that_is_cut(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(CONTENT)
    async with sftp(served) as (url, _):
        proxy = Proxy(url.rpartition("@")[2])
        proxy.cut_after = 600_000
        there = f"{url.rpartition('@')[0]}@{await proxy.start()}"
        with pytest.raises(TransferFailed):
            await files.download(f"{there}/f", tmp_path / "target")
        proxy.cut_after = None
        await files.download(f"{there}/f", tmp_path / "target", checked=True)
        await proxy.stop()
    assert same(tmp_path / "target")


# -------------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pyftpdlib leaves the socket of who was refused
async def test_nothing_secret_is_told(tmp_path: Path, served: Path, source: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ftp(served) as url:
        for wrong in (url.replace("s3cret", "other-pw") + "/token-path", "ftp://u:s3cret@127.0.0.1:1/token-path", "nonsense://u:s3cret@h/token-path"):
            with pytest.raises(TransferFailed) as raised:
                await files.download(wrong, tmp_path / "t", timeout=2)
            for secret in ("s3cret", "other-pw", "token-path"):
                assert secret not in raised.value.message
                assert secret not in caplog.text
    async with http(served) as (plain, server):
        server.credentials = "me:other"
        with pytest.raises(TransferFailed, match="401"):
            await files.download(plain.replace("//", "//me:s3cret@") + "/token-path", tmp_path / "t")


async def test_http_credentials_are_sent_as_basic(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(b"x")
    async with http(served) as (url, server):
        server.credentials = "me:p@ss:word"
        await files.download(url.replace("//", "//me:p%40ss%3Aword@") + "/f", tmp_path / "t")
        assert "me:" not in server.requests[0][1]


async def test_redirections(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(b"x")
    async with http(served) as (url, server), http(served) as (other, second):
        server.redirect = f"{other}/f"
        await files.download(url.replace("//", "//me:secret@") + "/old", tmp_path / "t")
        assert "authorization" in server.requests[0][2]
        assert second.requests[0][1] == "/f"
        server.redirect = "ftp://elsewhere/f"
        with pytest.raises(TransferFailed, match="redirects to ftp"):
            await files.download(f"{url}/old", tmp_path / "t2")


async def test_a_host_key_that_is_not_known(tmp_path: Path, served: Path, source: Path) -> None:
    async with sftp(served) as (url, _), sftp(served) as (_, other):
        with pytest.raises(TransferFailed):
            await files.upload(source, url, "f", trust=Trust(known_hosts=other))
        with pytest.raises(TransferFailed):
            await files.upload(source, url.replace("s3cret", "wrong"), "f")


async def test_what_is_too_large_is_not_fetched(tmp_path: Path, served: Path) -> None:
    (served / "f").write_bytes(CONTENT)
    with ftp(served) as url, pytest.raises(TransferFailed, match="larger than 1000 bytes"):
        await files.download(f"{url}/f", tmp_path / "a", most=1000)
    async with http(served) as (url, _):
        with pytest.raises(TransferFailed, match="larger than 1000 bytes"):
            await files.download(f"{url}/f", tmp_path / "b", most=1000)
    assert (tmp_path / "b").stat().st_size <= 1000


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, served: Path, source: Path) -> None:
    async with http(served) as (url, server):
        server.stall = True
        with pytest.raises(TransferFailed):
            await files.download(f"{url}/f", tmp_path / "t", timeout=0.3)
    proxy = Proxy("127.0.0.1:1")
    proxy.deaf = True
    where = await proxy.start()
    for scheme in ("ftp", "sftp"):
        with pytest.raises(TransferFailed):
            await files.upload(source, f"{scheme}://u:p@{where}/", "f", timeout=0.3)
    await proxy.stop()


@pytest.mark.parametrize("scheme", files.SCHEMES)
async def test_a_name_of_a_host_that_cannot_be(scheme: str, tmp_path: Path, source: Path) -> None:
    for host in ("foo..bar", "x" * 64, "bücher..de"):
        with pytest.raises(TransferFailed):
            await files.download(f"{scheme}://{host}/x", tmp_path / "t", timeout=2)
        with pytest.raises(TransferFailed):
            await files.upload(source, f"{scheme}://{host}/x", "f", timeout=2)


async def test_only_a_server_that_says_so_is_believed_that_there_is_no_file(tmp_path: Path, served: Path) -> None:
    target = tmp_path / "t"
    with ftp(served) as url:
        with pytest.raises(NotThere):
            await files.download(f"{url}/none", target)
        with pytest.raises(TransferFailed) as raised:
            await files.download(url.replace("s3cret", "wrong") + "/none", target)
        assert not isinstance(raised.value, NotThere)
    async with sftp(served) as (url, _):
        with pytest.raises(NotThere):
            await files.download(f"{url}/none", target)
        with pytest.raises(TransferFailed) as raised:
            await files.download(url.replace("s3cret", "wrong") + "/none", target)
        assert not isinstance(raised.value, NotThere)
    async with http(served) as (url, server):
        for status in (404, 410, 403, 500, 503):
            server.status = {"none": status}
            with pytest.raises(TransferFailed) as raised:
                await files.download(f"{url}/none", target)
            assert isinstance(raised.value, NotThere) is (status in (404, 410))


async def test_a_path_cannot_smuggle_commands(tmp_path: Path, served: Path) -> None:
    with ftp(served) as url:
        (served / "victim").write_bytes(b"x")
        with pytest.raises(TransferFailed):
            await files.download(f"{url}/x%0D%0ADELE%20victim", tmp_path / "t")
    assert (served / "victim").exists()


@pytest.mark.parametrize("location", ["", "ftp:", "http://", "/tmp", "file:///etc/passwd", "http://[bad", "sftp://h:0/"])
def test_locations_that_are_not_supported(location: str) -> None:
    assert not files.supported(location)
