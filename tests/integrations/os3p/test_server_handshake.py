"""The handshake, byte by byte (CONFORMANCE C1 to C17): a raw socket against the Central System."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.world import until
from tests.integrations.os3p.central import FIRST, central, refused, section
from tests.integrations.os3p.station import Refused, Station, basic, connected, knock, request, shake

from gridloom.core.errors import ConfigurationError
from gridloom.core.settings import Address, ReadableFile
from gridloom.integrations.os3p import certificates
from gridloom.integrations.os3p.certificates import server_tls
from gridloom.integrations.os3p.config import Section, Subprotocol, UrlPath
from gridloom.integrations.os3p.door import Malformed, decoded

ODD = ["SUBS 123", "a/b?c#d%e", "%2F", "100%", "Wijk bij Duurstede – №7", "変電所", "é", "1.0", "a:b", "..", "+", "'"]


async def test_C1_websocket_version_13(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        async with one.station() as station:
            assert station.answer.status == 101
        for version in ("12", "8", ""):
            answer = await knock(one.where, version=version)
            assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
        assert (await knock(one.where, upgrade=False)).status == 426
        two_keys = await knock(one.where, headers=[("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw==")])
        assert two_keys.status == 400


async def test_C1_the_example_of_the_guide_is_answered_as_the_guide_says(tmp_path: Path) -> None:
    raw = (
        b"GET /webServices/OS3P/SUBS123 HTTP/1.1\r\nHost: some.server.com:44044\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-websocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-websocket-Protocol: OS3P1.0, OS3P1.x\r\nSec-websocket-Version: 13\r\n\r\n"
    )
    async with central(tmp_path, section(path=UrlPath("/webServices/OS3P"))) as one:
        await one.add("SUBS123")
        answer, _, writer = await shake(one.where, raw)
        writer.transport.abort()
        assert answer.status == 101
        # As RFC 6455 computes it; the guide's own Sec-WebSocket-Accept is that of another key.
        assert answer.headers["sec-websocket-accept"] == "HSmrc0sMlYUkAGmm5OPpG2HaGWk="
        assert answer.headers["sec-websocket-protocol"] == "OS3P1.0"


async def test_C2_the_path_is_configured_and_ws_is_told_in_endpoints(tmp_path: Path) -> None:
    async with central(tmp_path, section(path=UrlPath("/a/b~c"))) as one:
        await one.add()
        assert one.where.startswith("127.0.0.1:")
        assert (await knock(one.where, path="/a/b~c")).status == 101
        for path in ("/OS3P", "/a/b~c/x", "/A/b~c", "", "//a/b~c"):
            assert (await knock(one.where, path=path)).status == 404, path


async def test_C2_without_a_path_the_identity_stands_alone(tmp_path: Path) -> None:
    async with central(tmp_path, section(path=UrlPath(""))) as one:
        await one.add()
        assert (await knock(one.where, target=f"/{FIRST}")).status == 101


@pytest.mark.parametrize("identity", ODD)
async def test_C4_identities_round_trip(tmp_path: Path, identity: str) -> None:
    async with central(tmp_path) as one:
        await one.add(identity)
        async with one.accepted(identity):
            assert one.online(identity)
            assert [view.identity for view in await one.all() if view.connection is not None] == [identity]


async def test_C4_is_decoded_exactly_once(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add("SUBS%20123")
        assert (await knock(one.where, target="/OS3P/SUBS%20123")).status == 404
        assert (await knock(one.where, target="/OS3P/SUBS%2520123")).status == 101
        assert (await knock(one.where, target="/OS3P/%53UBS%2520123")).status == 101


@pytest.mark.parametrize(
    "segment", ["%", "%2", "%zz", "%FF", "%C3", "%ED%A0%80", "%C0%AF", "%00", "a%0Ab", "a%7Fb", "x" * 201, "%E2%80%AE", "a\\b", "a\xe9b", "[a]", '"']
)
async def test_C4_what_is_no_percent_encoded_utf8_is_400(tmp_path: Path, segment: str) -> None:
    async with central(tmp_path) as one:
        assert (await knock(one.where, target=f"/OS3P/{segment}")).status == 400


@given(st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable() and not any("\ud800" <= sign <= "\udfff" for sign in text)))
def test_C4_every_printable_identity_is_decoded_to_itself(identity: str) -> None:
    assert decoded(quote(identity, safe="")) == identity
    assert decoded("".join(f"%{byte:02x}" for byte in identity.encode())) == identity


@given(st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_C4_no_segment_does_harm(segment: str) -> None:
    try:
        identity = decoded(segment)
    except Malformed:
        return
    assert identity.isprintable()
    assert decoded(quote(identity, safe="")) == identity


async def test_C4_a_query_is_not_part_of_the_identity(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        assert (await knock(one.where, target=f"/OS3P/{FIRST}?token=x")).status == 101


async def test_C7_the_first_supported_in_the_order_of_the_client(tmp_path: Path) -> None:
    async with central(tmp_path, section(subprotocols=(Subprotocol("OS3P1.0"), Subprotocol("OS3P1.x"), Subprotocol("os3p0.4")))) as one:
        await one.add()
        for offered, chosen in (
            (["OS3P1.0"], "OS3P1.0"),
            (["OS3P1.x, OS3P1.0"], "OS3P1.x"),
            (["OS3P2.0, os3p0.4,OS3P1.0"], "os3p0.4"),
            (["OS3P2.0", "OS3P1.x", "OS3P1.0"], "OS3P1.x"),
            (["OS3P2.0 ,, OS3P1.0 "], "OS3P1.0"),
        ):
            answer = await knock(one.where, protocols=offered)
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, chosen), offered


async def test_C8_an_unknown_identity_is_404_and_no_websocket(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        for identity in ("SUBS002", FIRST.lower(), f"{FIRST} ", "os3p:SUBS001"):
            answer = await knock(one.where, identity)
            assert answer.status == 404
            assert "upgrade" not in answer.headers
            assert b"not known" in answer.body
        for target in ("/OS3P", "/OS3P/", f"/OS3P/{FIRST}/", f"/OS3P//{FIRST}", f"/{FIRST}", f"/OS3P/x/{FIRST}"):
            assert (await knock(one.where, target=target)).status == 404, target
        assert len(await one.events("device.unknown")) == 4
        await knock(one.where, "SUBS002")
        assert len(await one.events("device.unknown")) == 4, "the same stranger again is no news"
        assert one.count("gridloom_os3p_refused_total")["unknown"] == 5


async def test_C8_a_device_of_another_integration_is_no_station(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        from gridloom.core.model import Device

        await one.world.registry.register(Device("tic:SUBS001", "tic", "SUBS001"))
        assert (await knock(one.where)).status == 404


@pytest.mark.parametrize("offered", [None, ["OS3P2.0"], ["ocpp1.6", "OS3P1.x"], ["os3p1.0"], [""]])
async def test_C9_no_common_subprotocol_completes_the_handshake_and_closes_with_1002(tmp_path: Path, offered: list[str] | None) -> None:
    async with central(tmp_path) as one:
        await one.add()
        station = await connected(one.where, protocols=offered)
        assert station.answer.status == 101
        assert station.subprotocol is None
        closed = await station.closed()
        assert closed.code == 1002
        assert "OS3P1.0" in closed.reason
        assert station.messages == []
        assert not one.online()


async def test_C9_an_unknown_identity_is_404_whatever_it_offers(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        assert (await knock(one.where, protocols=["OS3P2.0"])).status == 404


@pytest.mark.parametrize(
    "lines",
    [
        [("sec-websocket-protocol", "OS3P2.0, OS3P1.0")],
        [("SEC-WEBSOCKET-PROTOCOL", "OS3P2.0"), ("Sec-Websocket-Protocol", "OS3P1.0")],
        [("Sec-WebSocket-Protocol", "OS3P2.0,"), ("sec-websocket-protocol", ",OS3P1.x ,OS3P1.0")],
    ],
)
async def test_C11_names_of_headers_in_any_case_and_the_list_over_several_lines(tmp_path: Path, lines: list[tuple[str, str]]) -> None:
    async with central(tmp_path) as one:
        await one.add()
        answer = await knock(one.where, protocols=None, headers=lines)
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "OS3P1.0")


async def test_C13_no_extension_is_agreed(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        async with one.station(headers=[("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]) as station:
            assert (await station.boot())["status"] == "Accepted"


async def test_C14_a_version_may_stand_in_the_url(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        await one.add("1.0")
        for target in (f"/OS3P/1.0/{FIRST}", f"/OS3P/v1.0/{FIRST}", f"/OS3P/OS3P1.0/{FIRST}", "/OS3P/1.0", "/OS3P/1.0/1.0"):
            assert (await knock(one.where, target=target)).status == 101, target
        for target in (f"/OS3P/2.0/{FIRST}", f"/OS3P/1.0/1.0/{FIRST}", "/OS3P/1.0/"):
            assert (await knock(one.where, target=target)).status == 404, target


async def test_C16_the_newest_connection_wins(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as old:
        waiting = await one.submit("device.configuration.get")
        await old.asked_for("GetConfiguration")
        async with one.station() as new:
            closed = await old.closed()
            assert closed.code == 1008
            ended = await one.world.commands.wait(waiting.id, 5)
            assert ended.state.final
            assert one.online()
            assert (await new.call("Heartbeat"))["currentTime"]
            new.replies["GetConfiguration"] = {"configurationKey": []}
            assert (await one.order("device.configuration.get")).state == "done"
        await until(lambda: not one.online())
        events = await one.events("device.")
        assert events.count("device.connection.replaced occurred") == 1
        assert events.count("device.offline raised") == 1, "it was never offline in between"


async def test_C17_the_identity_is_that_of_the_connection(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted("A"), one.accepted("B") as station:
        with refused("FormationViolation"):
            await one.change("B", strict=True)
            await station.call("Heartbeat", {"identity": "A"})
        assert (await one.show("A")).refused == 0


# ------------------------------------------------------------------------------------------------------------ who it is


async def test_a_station_with_a_secret_must_present_it(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        secret = await one.world.accounts.set_credential(one.world.admin, f"os3p:{FIRST}")
        for headers in (
            [],
            [basic(FIRST, "wrong")],
            [basic("SUBS002", secret)],
            [("Authorization", f"Bearer {secret}")],
            [("Authorization", "Basic %")],
        ):
            answer = await knock(one.where, headers=headers)
            assert answer.status == 401, headers
            assert answer.headers["www-authenticate"].startswith("Basic ")
        assert (await knock(one.where, headers=[basic(FIRST, secret)])).status == 101
        assert await one.events("device.credential.refused") == ["device.credential.refused occurred"]
        assert (await knock(one.where, "SUBS002", headers=[basic("SUBS002", secret)])).status == 404


async def test_a_secret_is_that_of_an_identity_with_a_colon_too(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add("a:b")
        await one.world.accounts.set_credential(one.world.admin, "os3p:a:b", "pässwörd:x")
        assert (await knock(one.where, "a:b", headers=[basic("a:b", "pässwörd:x")])).status == 101


async def test_a_secret_that_people_made_up_is_checked_beside_the_handshake_once(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        await one.world.accounts.set_credential(one.world.admin, f"os3p:{FIRST}", "correct horse")
        one.world.accounts._credentials[f"os3p:{FIRST}"].accepted = b""  # as after a restart
        assert (await knock(one.where, headers=[basic(FIRST, "wrong")])).status == 401
        assert (await knock(one.where, headers=[basic(FIRST, "correct horse")])).status == 101
        assert one.world.accounts.check_credential(f"os3p:{FIRST}", "correct horse") is True, "it was checked once and for all"
        assert one.world.accounts.check_credential(f"os3p:{FIRST}", "wrong") is False


async def test_a_secret_can_be_demanded_of_all(tmp_path: Path) -> None:
    async with central(tmp_path, section(basic_auth="required", accept="any")) as one:
        assert (await knock(one.where)).status == 401
        secret = await one.world.accounts.set_credential(one.world.admin, f"os3p:{FIRST}")
        assert (await knock(one.where, headers=[basic(FIRST, secret)])).status == 101


class Authority:
    """Certificates for a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca = trustme.CA()
        self._numbers = itertools.count()
        self.issue("hub.example")
        self.ca.cert_pem.write_to_path(path / "ca.pem")

    def issue(self, name: str) -> None:
        """A certificate for the hub, instead of the one before."""
        path = self.path
        issued = self.ca.issue_cert(name)
        issued.private_key_pem.write_to_path(path / "key.pem")
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(path / "cert.pem", append=number > 0)

    def settings(self, **more: object) -> Section:
        """Listen with TLS and look at certificates."""
        files = {name: ReadableFile(str(self.path / file)) for name, file in (("tls_certificate_file", "cert.pem"), ("tls_key_file", "key.pem"))}
        return section(**files, **more)

    def client(
        self, name: str | None = None, *, common: bool = True, ca: trustme.CA | None = None, trust: trustme.CA | None = None
    ) -> ssl.SSLContext:
        """What a station has: trust in us, and maybe a certificate of this name."""
        context = ssl.create_default_context(cadata=(trust or self.ca).cert_pem.bytes().decode())
        if name is not None:
            issued = (ca or self.ca).issue_cert(common_name=name) if common else (ca or self.ca).issue_cert(name)
            file = self.path / f"client{next(self._numbers)}.pem"
            issued.private_key_and_cert_chain_pem.write_to_path(file)
            context.load_cert_chain(file)
        return context


async def test_C12_wss(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with central(tmp_path, authority.settings()) as one:
        async with one.accepted(tls=authority.client()):
            view = (await one.show()).connection
            assert view is not None
            assert view.secure
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await knock(one.where)


async def test_a_certificate_names_the_station_in_the_url(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with central(tmp_path, authority.settings(client_ca_file=ReadableFile(str(tmp_path / "ca.pem")))) as one:
        await one.add()
        await one.add("SUBS 2")
        assert (await knock(one.where, tls=authority.client(FIRST))).status == 101
        assert (await knock(one.where, tls=authority.client(FIRST.lower() + ".example", common=False))).status == 403
        assert (await knock(one.where, "SUBS 2", tls=authority.client("SUBS 2"))).status == 101
        assert (await knock(one.where, "SUBS 2", tls=authority.client(FIRST))).status == 403
        assert (await knock(one.where, tls=authority.client())).status == 403
        assert (await knock(one.where, "SUBS003", tls=authority.client("SUBS003"))).status == 404
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)):
            await knock(one.where, tls=authority.client(FIRST, ca=trustme.CA()))
        assert await one.events("device.credential.refused") == ["device.credential.refused occurred"] * 3
        secret = await one.world.accounts.set_credential(one.world.admin, f"os3p:{FIRST}")
        assert (await knock(one.where, tls=authority.client(FIRST))).status == 401, "a certificate is no secret"
        assert (await knock(one.where, tls=authority.client(FIRST), headers=[basic(FIRST, secret)])).status == 101


async def test_an_alternative_name_of_a_certificate_counts_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with central(tmp_path, authority.settings(client_ca_file=ReadableFile(str(tmp_path / "ca.pem")))) as one:
        await one.add("subs001.example")
        assert (await knock(one.where, "subs001.example", tls=authority.client("subs001.example", common=False))).status == 101


async def test_a_certificate_can_be_optional(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = ReadableFile(str(tmp_path / "ca.pem"))
    async with central(tmp_path, authority.settings(client_ca_file=ca, client_certificate="optional")) as one:
        await one.add()
        assert (await knock(one.where, tls=authority.client())).status == 101
        assert (await knock(one.where, tls=authority.client("SUBS002"))).status == 403


async def test_a_tls_handshake_that_fails_is_counted_and_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with central(tmp_path, authority.settings(client_ca_file=ReadableFile(str(tmp_path / "ca.pem")))) as one:
        await one.add()
        for _ in range(3):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)):
                await knock(one.where, tls=authority.client(FIRST, ca=trustme.CA()))
        await until(lambda: one.count("gridloom_os3p_refused_total") == {"tls": 3})
        assert await one.events("device.credential.refused") == ["device.credential.refused occurred"], "of one address one in a while"
        (event,) = (await one.world.query.events(one.world.admin, kinds=("device.credential.refused",))).events
        assert event.data["address"] == "127.0.0.1"
        assert "unable to get local issuer certificate" in event.message
        _, writer = await asyncio.open_connection(*one.where.rsplit(":", 1))
        writer.close()  # without a word
        await until(lambda: one.count("gridloom_os3p_refused_total") == {"tls": 4})
        assert (await knock(one.where, tls=authority.client(FIRST))).status == 101


async def test_certificates_are_read_again_when_their_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY", 0.02)
    caplog.set_level("INFO", certificates.__name__)
    authority = Authority(tmp_path)

    async def told(words: str) -> None:
        await until(lambda: [words in record.message for record in caplog.records].count(True) == 1)
        caplog.clear()

    settings = authority.settings(client_ca_file=ReadableFile(str(tmp_path / "ca.pem")))
    async with central(tmp_path, settings) as one, one.accepted(tls=authority.client(FIRST)) as station:
        strangers = trustme.CA()
        strangers.cert_pem.write_to_path(tmp_path / "ca.new")
        (tmp_path / "ca.new").replace(tmp_path / "ca.pem")
        await told("read again")
        assert await station.call("Heartbeat"), "who is in stays in"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)):
            await knock(one.where, tls=authority.client(FIRST, trust=authority.ca))
        assert (await knock(one.where, tls=authority.client(FIRST, ca=strangers, trust=authority.ca))).status == 101
        (tmp_path / "cert.pem").write_text("half a file")
        await told("cannot be used")
        await asyncio.sleep(0.1)
        assert not caplog.records, "told once"
        good = authority.client(FIRST, ca=strangers, trust=authority.ca)
        assert (await knock(one.where, tls=good)).status == 101
        old = await _certificate(one.where, good)
        authority.issue("hub.example")
        await until(lambda: "certificates were read again" in caplog.text)
        assert await _certificate(one.where, good) != old


async def _certificate(where: str, tls: ssl.SSLContext) -> bytes:
    host, port = where.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname="hub.example")
    try:
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found
    finally:
        writer.transport.abort()


def test_tls_files_that_are_none_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = authority.settings()
    (tmp_path / "not.pem").write_text("nothing")
    bad = ReadableFile(str(tmp_path / "not.pem"))
    certificate, key = good.tls_certificate_file, good.tls_key_file
    with pytest.raises(ConfigurationError, match="tls_certificate_file"):
        server_tls(section(tls_certificate_file=certificate, tls_key_file=bad))
    with pytest.raises(ConfigurationError, match="client_ca_file"):
        server_tls(section(tls_certificate_file=certificate, tls_key_file=key, client_ca_file=bad))
    assert server_tls(section()) is None


# ------------------------------------------------------------------------------------------------------------ how many


async def test_many_at_once_are_let_in_one_after_the_other(tmp_path: Path) -> None:
    async with central(tmp_path, section(handshakes_per_second=200, accept="any")) as one:
        begin = one.world.clock.monotonic()
        answers = await asyncio.gather(*(knock(one.where, f"S{number}") for number in range(150)))
        assert {answer.status for answer in answers} == {101}
        assert one.world.clock.monotonic() - begin > 0.3


async def test_more_than_can_wait_are_told_to_come_later(tmp_path: Path) -> None:
    async with central(tmp_path, section(handshakes_per_second=2)) as one:
        await one.add()
        answers = await asyncio.gather(*(knock(one.where) for _ in range(120)))
        later = [answer for answer in answers if answer.status == 503]
        assert 40 < len(later) < 80
        assert len({int(answer.headers["retry-after"]) for answer in later}) > 2, "they are not sent away for the same time"


async def test_more_than_may_be_connected_are_told_to_come_later(tmp_path: Path) -> None:
    async with central(tmp_path, section(max_connections=2)) as one:
        for identity in "ABC":
            await one.add(identity)
        async with one.station("A"), one.station("B"):
            with pytest.raises(Refused) as raised:
                await connected(one.where, "C")
            assert raised.value.status == 503
            assert int(raised.value.answer.headers["retry-after"]) >= 1
        await until(lambda: not one.online("A") and not one.online("B"))
        async with one.station("C"):
            pass


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        from gridloom.integrations.os3p.server import CentralSystem

        with pytest.raises(ConfigurationError, match=r"\[os3p\] listen"):
            await CentralSystem(Section(listen=Address(one.where)), one.hub, one.service._office.files).start()


async def test_bytes_that_are_no_handshake_end_only_their_own_line(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for raw in (b"\x00" * 64, b"GET / HTTP/1.1\r\n\r\n", request("/OS3P/" + "x" * 9_000)[0]):
            reader, writer = await asyncio.open_connection(*one.where.rsplit(":", 1))
            writer.write(raw)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 15)
            writer.close()
        assert isinstance(station, Station)
        assert await station.call("Heartbeat")
