"""Keys in every form that meters hand out; what is wrong with one that cannot be used; and the folder in which ours are kept."""

from __future__ import annotations

import base64
import logging
import pickle
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.everest.records import CURVES, P256, PUBLISHED, point, private, spki

from gridloom.core.errors import InvalidInput, Unsupported
from gridloom.integrations.everest import algorithms, keys, ocmf
from gridloom.integrations.everest.keys import Keyring, WrongKey, public_key


@pytest.mark.parametrize("name", CURVES)
def test_every_form_of_every_curve_is_the_same_key(name: str) -> None:
    der, raw, algorithm = spki(name), point(name), algorithms.BY_NAME[name]
    pem = private(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    compressed = private(name).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    hexadecimal = der.hex()
    spaced = " ".join(hexadecimal[index : index + 4] for index in range(0, len(hexadecimal), 4))
    wrapped = base64.b64encode(der).decode()
    for material in (der, hexadecimal, hexadecimal.upper(), spaced + "\n", wrapped, wrapped[:40] + "\n" + wrapped[40:], pem, pem.decode()):
        for given_algorithm in (None, algorithm):
            found = public_key(material, given_algorithm)
            assert (found.spki, found.algorithm, found.form) == (der, algorithm, "SPKI")
    for material in (f"oca:base16:asn1:{hexadecimal}", base64.b64encode(f"oca:base16:asn1:{hexadecimal}".encode()).decode()):
        assert public_key(material).spki == der
    for material in (raw, raw.hex(), base64.b64encode(raw).decode()):
        assert (public_key(material, algorithm).spki, public_key(material, algorithm).form) == (der, "point")
    for material in (raw[1:], raw[1:].hex(), base64.b64encode(raw[1:]).decode()):
        assert (public_key(material, algorithm).spki, public_key(material, algorithm).form) == (der, "bare x,y")
    assert public_key(compressed.hex(), algorithm).spki == der


def test_published_keys() -> None:
    for name, one in PUBLISHED.items():
        if "secp192k1" in name:
            with pytest.raises(Unsupported, match="secp192k1"):
                public_key(one["key"])
        else:
            assert public_key(one["key"]).hex == "".join(one["key"].split()).upper()
    assert len(public_key(PUBLISHED["keba-secp256r1"]["key"]).fingerprint) == 32


CURVE = algorithms.BY_NAME[P256]
K1 = algorithms.BY_NAME["ECDSA-secp256k1-SHA256"]
OFF = point()[:-1] + bytes([point()[-1] ^ 1])
RSA = rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ED = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
P521 = ec.generate_private_key(ec.SECP521R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PRIVATE = private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
WRONG: list[tuple[bytes | str, algorithms.Algorithm | None, str]] = [
    ("", None, "form"),
    ("hello", CURVE, "form"),
    (b"\x00" * 10, CURVE, "form"),
    (b"\x30", None, "form"),
    (b"0" * 30_000, None, "form"),
    (RSA, CURVE, "form"),
    (ED, None, "form"),
    (PRIVATE, CURVE, "form"),
    ("3003020105", None, "form"),
    (P521, None, "curve"),
    (spki(), K1, "curve"),
    (spki("ECDSA-secp384r1-SHA256"), CURVE, "curve"),
    (point(), None, "curve"),
    (point("ECDSA-secp384r1-SHA256"), CURVE, "curve"),
    (OFF, CURVE, "value"),
    (OFF[1:].hex(), CURVE, "value"),
    (point().hex(), K1, "value"),
    (spki()[:-65] + OFF, CURVE, "value"),
    (spki()[:-1], CURVE, "value"),
    (b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(spki()[:-65] + OFF) + b"\n-----END PUBLIC KEY-----\n", None, "value"),
]


@pytest.mark.parametrize(("material", "algorithm", "wrong"), WRONG)
def test_a_wrong_key_says_what_of_it_is_wrong(material: bytes | str, algorithm: algorithms.Algorithm | None, wrong: str) -> None:
    with pytest.raises(WrongKey) as caught:
        public_key(material, algorithm)
    assert caught.value.wrong == wrong
    assert caught.value.message.startswith(f"the {wrong} of the key is wrong: ")


def test_secp192k1_says_that_it_is_not_supported() -> None:
    algorithm = algorithms.BY_NAME["ECDSA-secp192k1-SHA256"]
    with pytest.raises(Unsupported, match="not supported here"):
        algorithms.usable(algorithm)
    with pytest.raises(Unsupported, match="not supported here"):
        public_key(b"\x04" + bytes(48), algorithm)
    with pytest.raises(Unsupported, match="not supported here"):
        keys.generate("ECDSA-secp192k1-SHA256")
    assert len(algorithms.SUPPORTED) == 6


@given(st.binary(max_size=120) | st.text(max_size=120))
def test_anything_else_is_a_wrong_key(material: bytes | str) -> None:
    for algorithm in (None, CURVE):
        with pytest.raises((WrongKey, Unsupported)):
            public_key(material, algorithm)


def test_a_made_key_is_its_owners_alone_and_never_written_over(tmp_path: Path) -> None:
    made, file = keys.generate(), tmp_path / "key.pem"
    made.write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keys.signer(file).public.hex == made.public.hex
    assert not keys.open_to_others(file)
    before = file.read_bytes()
    with pytest.raises(FileExistsError):
        keys.generate().write(file)
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["key.pem"], "nothing is left behind"
    file.chmod(0o640)
    assert keys.open_to_others(file)
    with pytest.raises(InvalidInput, match="OCMF has no algorithm"):
        keys.generate("RSA")


def test_a_private_key_is_nowhere_to_be_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = keys.Signer(private())
    number = private().private_numbers().private_value
    with caplog.at_level(logging.DEBUG):
        shown = repr(made) + str(made) + repr(made.public) + ocmf.sign(b"{}", made)
        Keyring(tmp_path).signer("a")
    assert str(number) not in shown and f"{number:x}" not in shown.lower()
    said = caplog.text.lower()  # also of threads that other tests have left: only the key must not be in it
    assert str(number) not in said and f"{number:x}" not in said and "private" not in said
    with pytest.raises(TypeError):
        pickle.dumps(made)
    file = tmp_path / "encrypted.pem"
    file.write_bytes(private().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(WrongKey, match="encrypted"):
        keys.signer(file)
    file.write_bytes(PRIVATE.replace(b"M", b"N", 3))
    with pytest.raises(WrongKey) as caught:
        keys.signer(file)
    assert PRIVATE.decode().splitlines()[1][10:30] not in caught.value.message


@pytest.mark.parametrize("format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_private_key_given_by_file(tmp_path: Path, encoding: Encoding, format: PrivateFormat) -> None:
    file = tmp_path / "given"
    file.write_bytes(private().private_bytes(encoding, format, NoEncryption()))
    signer = keys.signer(file)
    assert signer.public.spki == spki()
    assert algorithms.valid(private().public_key(), signer.sign(b"text"), b"text")


def test_rotation_keeps_old_records_verifiable(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    first = ring.signer("meter/1 ..")
    record = ocmf.parse(ocmf.sign(b'{"RD":[{}]}', first))
    assert ring.signer("meter/1 ..").public.hex == first.public.hex, "made on first use only"
    second = ring.rotate("meter/1 ..")
    assert set(ring.publics("meter/1 ..")) == {first.public.fingerprint, second.public.fingerprint}, "before anybody has signed"
    assert ring.signer("meter/1 ..").public.hex == second.public.hex != first.public.hex
    assert set(ring.publics("meter/1 ..")) == {first.public.fingerprint, second.public.fingerprint}
    old = ring.find(first.public.fingerprint)
    assert old is not None
    assert algorithms.valid(old.key, record.signature.der, record.payload)
    for stranger in ("0" * 32, "../../etc", "*"):
        assert ring.find(stranger) is None
    assert ring.publics("other") == {}
    for file in tmp_path.rglob("*"):
        assert tmp_path / "keys" in (file, *file.parents), "a module's name does not lead out of the folder"
        private_key = file.is_file() and b"PRIVATE" in file.read_bytes()
        assert not private_key or stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sum(b"PRIVATE" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()) == 1, "the old private key is gone"
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_key_that_was_put_into_the_folder_is_not_lost_by_rotation(tmp_path: Path) -> None:
    keys.Signer(private()).write(tmp_path / "m.pem")
    new = Keyring(tmp_path).rotate("m")
    assert set(Keyring(tmp_path).publics("m")) == {public_key(spki()).fingerprint, new.public.fingerprint}


def test_names_that_begin_with_a_dot_stay_in_the_folder(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    made = [ring.signer(name).public.fingerprint for name in (".", "..", "a", "%2E")]
    assert len(set(made)) == 4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["keys"]


def test_two_at_once_make_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    workers = [threading.Thread(target=lambda: found.append(Keyring(tmp_path).signer("m").public.fingerprint)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_key_given_by_file_is_remembered_too(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    ring.remember("m", public_key(spki()))
    ring.remember("m", public_key(spki()))
    assert list(ring.publics("m")) == [public_key(spki()).fingerprint]
