"""TABLE: the signature algorithms of OCMF (FACTS §4.3): ECDSA over SHA-256 on seven curves; and the arithmetic of `cryptography` for them.

secp192k1 is in the table, because records of real meters name it, but no library here can compute on it: what needs it raises
``Unsupported`` and says so.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from gridloom.core.errors import Unsupported

ECDSA = ec.ECDSA(SHA256())
DEFAULT = "ECDSA-secp256r1-SHA256"
"""What a signature without SA means."""


class Algorithm(NamedTuple):
    """One row. ``name`` as the format spells it; ``bytes`` of one coordinate; ``oid`` of the curve; ``curve`` None when it cannot be computed."""

    name: str
    short: str
    bytes: int
    oid: str
    curve: ec.EllipticCurve | None


ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm("ECDSA-secp192k1-SHA256", "secp192k1", 24, "1.3.132.0.31", None),
    Algorithm("ECDSA-secp256k1-SHA256", "secp256k1", 32, "1.3.132.0.10", ec.SECP256K1()),
    Algorithm("ECDSA-secp192r1-SHA256", "secp192r1", 24, "1.2.840.10045.3.1.1", ec.SECP192R1()),
    Algorithm(DEFAULT, "secp256r1", 32, "1.2.840.10045.3.1.7", ec.SECP256R1()),
    Algorithm("ECDSA-brainpool256r1-SHA256", "brainpool256r1", 32, "1.3.36.3.3.2.8.1.1.7", ec.BrainpoolP256R1()),
    Algorithm("ECDSA-secp384r1-SHA256", "secp384r1", 48, "1.3.132.0.34", ec.SECP384R1()),
    Algorithm("ECDSA-brainpool384r1-SHA256", "brainpool384r1", 48, "1.3.36.3.3.2.8.1.1.11", ec.BrainpoolP384R1()),
)
BY_NAME = {one.name: one for one in ALGORITHMS}
_BY_SHORT = {one.short: one for one in ALGORITHMS}
_BY_CURVE = {one.curve.name.lower(): one for one in ALGORITHMS if one.curve is not None}
SUPPORTED = tuple(one.name for one in ALGORITHMS if one.curve is not None)


def find(name: str) -> tuple[Algorithm | None, str]:
    """The row of an SA as it is written, and the leniency that this took (``""`` if none): brainpool with a P, capitals, a curve alone."""
    found = BY_NAME.get(name)
    if found is not None:
        return found, ""
    parts = name.strip().lower().removeprefix("ecdsa-").removesuffix("-sha256")
    plain = parts.replace("brainpoolp", "brainpool")
    found = _BY_SHORT.get(plain)
    if found is None:
        return None, ""
    return found, "brainpool-spelling" if name == found.name.replace("brainpool", "brainpoolP") else "algorithm-spelling"


def of_curve(curve: ec.EllipticCurve) -> Algorithm | None:
    """The row of a key's curve, None when OCMF knows no such curve."""
    return _BY_CURVE.get(curve.name.lower())


def usable(algorithm: Algorithm) -> ec.EllipticCurve:
    """The curve. Raises Unsupported for secp192k1."""
    if algorithm.curve is None:
        raise Unsupported(f"{algorithm.name} is not supported here: the curve {algorithm.short} is not in the cryptographic library")
    return algorithm.curve


def valid(public: ec.EllipticCurvePublicKey, der: bytes, message: bytes) -> bool:
    """Whether this is the signature (DER SEQUENCE of r and s) of the SHA-256 of the message."""
    try:
        public.verify(der, message, ECDSA)
    except InvalidSignature:
        return False
    return True


def is_der(signature: bytes) -> bool:
    """Whether it is a DER SEQUENCE of two integers."""
    try:
        decode_dss_signature(signature)
    except ValueError:
        return False
    return True


def raw_to_der(signature: bytes) -> bytes:
    """r and s one behind the other, of equal length, as DER."""
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
