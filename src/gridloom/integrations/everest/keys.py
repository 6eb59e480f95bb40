"""Keys of OCMF: read in every form that meters and back ends hand out, made on first use, kept through rotation (FACTS §4.4).

A private key never leaves this module but into a file that only its owner may read (0600); it is in no log, no repr, no error, no answer.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
import stat
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from gridloom.core.errors import InvalidInput, Unsupported
from gridloom.integrations.everest import algorithms
from gridloom.integrations.everest.algorithms import Algorithm

LONGEST = 20_000
"""Bytes of a key in whatever form."""
PREFIXES = ("oca:base16:asn1:", "oca:base64:asn1:")
"""How OCPP 2 says the form of a key that it hands on."""
SAFE_FORMS = ("SPKI",)
"""The forms that the S.A.F.E. tool reads: an ASN.1 SEQUENCE with a BIT STRING (FACTS §4.4)."""


class WrongKey(InvalidInput):
    """A key that cannot be used. ``wrong`` says what of it: ``form`` (it is no key), ``curve`` (not this record's), ``value`` (no point of it)."""

    code = "ocmf-wrong-key"

    def __init__(self, wrong: str, reason: str) -> None:
        super().__init__(f"the {wrong} of the key is wrong: {reason}")
        self.wrong = wrong


class PublicKey:
    """A public key on a curve of OCMF. ``form`` says how it was written: ``SPKI``, ``point``, ``bare x,y``.

    ``fingerprint`` is the key's id: the first 32 hexadecimal digits of the SHA-256 of its SPKI (``spki``).
    """

    __slots__ = ("algorithm", "fingerprint", "form", "key", "spki")

    def __init__(self, key: ec.EllipticCurvePublicKey, algorithm: Algorithm, form: str = "SPKI") -> None:
        self.key = key
        self.algorithm = algorithm
        self.form = form
        self.spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint = hashlib.sha256(self.spki).hexdigest()[:32]

    @property
    def hex(self) -> str:
        """SPKI in upper-case hexadecimal digits: what EVerest and S.A.F.E. take."""
        return self.spki.hex().upper()

    def pem(self) -> str:
        """SPKI as PEM."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def __repr__(self) -> str:
        return f"PublicKey({self.algorithm.short}, {self.fingerprint})"


@lru_cache(maxsize=1024)
def public_key(material: bytes | str, algorithm: Algorithm | None = None) -> PublicKey:
    """Read a public key: SPKI as DER, hex (blanks allowed), base64 or PEM; a point 04,x,y (or compressed); or bare x,y.

    ``algorithm`` is the record's: a bare point says no curve, and any other key must be on that one. Raises WrongKey, Unsupported for secp192k1.
    """
    data = material.encode("utf-8", "replace") if isinstance(material, str) else material
    if len(data) > LONGEST:
        raise WrongKey("form", f"{len(data)} bytes are no key")
    if b"PRIVATE KEY-----" in data:
        raise WrongKey("form", "this is a private key; give the public one and keep this one to yourself")
    if b"-----BEGIN" in data:
        try:
            return _checked(load_pem_public_key(data.strip()), algorithm)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _refusal(data, error) from None
    refusal: Exception | None = None
    for decoded in _decodings(data):
        if decoded[:1] == b"\x30" and len(decoded) > 2:
            try:
                return _checked(load_der_public_key(decoded), algorithm)
            except (ValueError, UnsupportedAlgorithm) as error:
                refusal = refusal or _refusal(decoded, error)
        else:
            point = _point(decoded, algorithm)
            if point is not None:
                return point
    raise refusal or WrongKey("form", "expected SPKI (DER, hex, base64 or PEM), a point 04,x,y or bare x,y")


def _decodings(data: bytes) -> list[bytes]:
    """What the bytes may stand for: hexadecimal digits, base64, base64 of hexadecimal digits (OCPP 2 does that), or themselves."""
    text = b"".join(data.split())
    for prefix in PREFIXES:
        text = text.removeprefix(prefix.encode())
    found = []
    with contextlib.suppress(ValueError):
        found.append(binascii.unhexlify(text))
    with contextlib.suppress(ValueError):
        inner = base64.b64decode(text, validate=True)
        found += [inner, *(_decodings(inner) if inner[:1] != b"\x30" and len(inner) < len(text) and _printable(inner) else [])]
    return [*found, data]


def _printable(data: bytes) -> bool:
    return re.fullmatch(rb"[\x20-\x7e\s]+", data) is not None


def _checked(key: object, algorithm: Algorithm | None) -> PublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise WrongKey("form", f"expected a key of an elliptic curve, got {key.__class__.__name__.removesuffix('PublicKey')}")
    found = algorithms.of_curve(key.curve)
    if found is None:
        raise WrongKey("curve", f"{key.curve.name} is no curve of OCMF")
    if algorithm is not None and found is not algorithm:
        raise WrongKey("curve", f"the key is on {found.short}, the record was signed on {algorithm.short}")
    return PublicKey(key, found)


def _refusal(data: bytes, error: Exception) -> Exception:
    """Why the library did not take a SPKI: its curve, or its value."""
    if _oid("1.3.132.0.31") in _pem_body(data):
        return Unsupported("the key is on secp192k1, which is not supported here")
    if isinstance(error, UnsupportedAlgorithm):
        return WrongKey("curve", "it is on a curve that OCMF does not know")
    if _oid("1.2.840.10045.2.1") in _pem_body(data):
        return WrongKey("value", "it is no point of its curve, or cut off")
    return WrongKey("form", "it is ASN.1, but no SubjectPublicKeyInfo of an elliptic curve")


def _pem_body(data: bytes) -> bytes:
    if b"-----BEGIN" not in data:
        return data
    with contextlib.suppress(ValueError):
        return base64.b64decode(b"".join(line for line in data.splitlines() if b"-----" not in line))
    return b""


def _oid(dotted: str) -> bytes:
    """DER of an object identifier."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    body = bytes([first * 40 + second])
    for part in rest:
        septets = [part & 0x7F]
        while part := part >> 7:
            septets.append(part & 0x7F | 0x80)
        body += bytes(reversed(septets))
    return bytes([6, len(body)]) + body


def _point(data: bytes, algorithm: Algorithm | None) -> PublicKey | None:
    """A point without a curve; None when it is none by its length. Raises WrongKey."""
    if data[:1] == b"\x04" and len(data) in (49, 65, 97):
        form, size, point = "point", len(data) // 2, data
    elif data[:1] in (b"\x02", b"\x03") and len(data) in (25, 33, 49):
        form, size, point = "compressed point", len(data) - 1, data
    elif len(data) in (48, 64, 96) and not _printable(data):
        form, size, point = "bare x,y", len(data) // 2, b"\x04" + data
    else:
        return None
    if algorithm is None:
        raise WrongKey("curve", f"a {form} does not say its curve; name the algorithm")
    if algorithm.bytes != size:
        raise WrongKey("curve", f"a {form} with {size} bytes a coordinate is not on {algorithm.short}, which has {algorithm.bytes}")
    try:
        return PublicKey(ec.EllipticCurvePublicKey.from_encoded_point(algorithms.usable(algorithm), point), algorithm, form)
    except ValueError:
        raise WrongKey("value", f"it is no point of {algorithm.short}") from None


# ---------------------------------------------------------------------------------------------------------------------- private


class Signer:
    """A private key that signs. Neither its repr nor anything it returns shows the key."""

    __slots__ = ("_key", "algorithm", "public")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        algorithm = algorithms.of_curve(key.curve)
        if algorithm is None:
            raise WrongKey("curve", f"{key.curve.name} is no curve of OCMF")
        self._key = key
        self.algorithm = algorithm
        self.public = PublicKey(key.public_key(), algorithm)

    def sign(self, message: bytes) -> bytes:
        """The ECDSA signature of the SHA-256 of the message, as DER."""
        return self._key.sign(message, algorithms.ECDSA)

    def write(self, file: Path) -> None:
        """Write it as PEM (PKCS#8) to a file that nobody else may read. Raises FileExistsError: a key is never written over."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _create(file, pem, 0o600)

    def __repr__(self) -> str:
        return f"Signer({self.algorithm.short}, {self.public.fingerprint})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a private key is not pickled")


def generate(algorithm: str = algorithms.DEFAULT) -> Signer:
    """A new key. Raises InvalidInput for an algorithm that OCMF does not have, Unsupported for secp192k1."""
    found, _ = algorithms.find(algorithm)
    if found is None:
        raise InvalidInput(f"OCMF has no algorithm {algorithm[:60]!r}; it has {', '.join(algorithms.SUPPORTED)}")
    return Signer(ec.generate_private_key(algorithms.usable(found)))


def signer(file: Path) -> Signer:
    """The private key of a file: PEM or DER, PKCS#8 or SEC 1, without a password. Raises WrongKey, OSError."""
    data = file.read_bytes()[: LONGEST + 1]
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        key = load(data, None)
    except TypeError:
        raise WrongKey("form", f"{file}: it is encrypted; give it without a password, readable by its owner only") from None
    except (ValueError, UnsupportedAlgorithm):
        raise WrongKey("form", f"{file}: expected a private key of an elliptic curve, PEM or DER") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise WrongKey("form", f"{file}: it is no key of an elliptic curve")
    return Signer(key)


def open_to_others(file: Path) -> bool:
    """Whether others than its owner may read the file."""
    return bool(file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


class Keyring:
    """The keys of signing powermeters, one folder: ``NAME.pem`` the key that signs (0600), ``NAME.public/ID.pem`` every public key it ever had.

    Old records stay verifiable after a rotation: ``find`` gives the public key by the fingerprint that was kept with the record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def signer(self, name: str, algorithm: str = algorithms.DEFAULT) -> Signer:
        """The key that signs for ``name``; made on first use. Raises WrongKey for a damaged file, OSError."""
        file = self._file(name)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            with contextlib.suppress(FileExistsError):  # somebody else was faster: theirs is the key
                generate(algorithm).write(file)
        found = signer(file)
        self.remember(name, found.public)
        return found

    def rotate(self, name: str, algorithm: str = algorithms.DEFAULT) -> Signer:
        """A new key for ``name`` from now on. The old private key is gone, its public key is kept."""
        if self._file(name).exists():
            self.remember(name, signer(self._file(name)).public)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = generate(algorithm)
        self.remember(name, new.public)
        spare = self.folder / f".{secrets.token_hex(8)}.pem"
        new.write(spare)
        spare.replace(self._file(name))
        _sync(self.folder)
        return new

    def remember(self, name: str, key: PublicKey) -> None:
        """Keep a public key (also of a private key that is given by file)."""
        folder = self._publics(name)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _create(folder / f"{key.fingerprint}.pem", key.pem().encode(), 0o644)

    def publics(self, name: str) -> dict[str, PublicKey]:
        """Every public key of ``name`` by its fingerprint."""
        folder = self._publics(name)
        return {file.stem: public_key(file.read_bytes()) for file in sorted(folder.glob("*.pem"))} if folder.is_dir() else {}

    def find(self, fingerprint: str) -> PublicKey | None:
        """The public key with this id, of whatever name."""
        if re.fullmatch(r"[0-9a-f]{32}", fingerprint) is None:
            return None
        return next((public_key(file.read_bytes()) for file in self.folder.glob(f"*.public/{fingerprint}.pem")), None)

    def _file(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='')}.pem"

    def _publics(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='')}.public"


def _create(file: Path, data: bytes, mode: int) -> None:
    """Write a new file as a whole, durably. Raises FileExistsError."""
    spare = file.with_name(f".{secrets.token_hex(8)}.new")
    descriptor = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(opened.fileno(), mode)
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.link(spare, file)  # unlike a rename it refuses when the file is there
    finally:
        spare.unlink()
    _sync(file.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
