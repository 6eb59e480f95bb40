"""OCMF records for tests, written and signed without any code of ours: `json` and `cryptography` only. And the published records."""

from __future__ import annotations

import base64
import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CURVES: dict[str, ec.EllipticCurve] = {
    "ECDSA-secp256k1-SHA256": ec.SECP256K1(),
    "ECDSA-secp192r1-SHA256": ec.SECP192R1(),
    "ECDSA-secp256r1-SHA256": ec.SECP256R1(),
    "ECDSA-brainpool256r1-SHA256": ec.BrainpoolP256R1(),
    "ECDSA-secp384r1-SHA256": ec.SECP384R1(),
    "ECDSA-brainpool384r1-SHA256": ec.BrainpoolP384R1(),
}
P256 = "ECDSA-secp256r1-SHA256"
PUBLISHED: dict[str, dict[str, str]] = {
    one["name"]: one for one in json.loads((Path(__file__).parents[2] / "data" / "ocmf" / "published.json").read_text())
}


@cache
def private(name: str = P256, number: int = 1) -> ec.EllipticCurvePrivateKey:
    """A fixed key per algorithm and number."""
    return ec.derive_private_key(0x1234567890ABCDEF + number, CURVES[name])


def spki(name: str = P256, number: int = 1) -> bytes:
    """Its public key, SPKI DER."""
    return private(name, number).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def point(name: str = P256) -> bytes:
    """Its public key as 04,x,y."""
    return private(name).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


BEGIN: dict[str, Any] = {
    "TM": "2024-05-01T10:00:00,000+0200 S",
    "TX": "B",
    "RV": 1000.5,
    "RI": "1-0:1.8.0",
    "RU": "kWh",
    "RT": "AC",
    "EF": "",
    "ST": "G",
}
END = BEGIN | {"TM": "2024-05-01T11:30:00,000+0200 S", "TX": "E", "RV": 1012.75}
PAYLOAD: dict[str, Any] = {
    "FV": "1.3",
    "GI": "Gateway",
    "GS": "G-1",
    "GV": "1.0",
    "PG": "T7",
    "MV": "Vendor",
    "MM": "Model",
    "MS": "M-42",
    "MF": "2.1",
    "IS": True,
    "IL": "VERIFIED",
    "IF": ["RFID_PLAIN", "OCPP_AUTH"],
    "IT": "ISO14443",
    "ID": "1A2B3C4D",
    "CT": "EVSEID",
    "CI": "DE*ABC*E1",
    "RD": [BEGIN, END],
}
GONE = object()


def payload(**changes: Any) -> dict[str, Any]:
    """PAYLOAD with changes; GONE takes a field away."""
    return {key: value for key, value in (copy.deepcopy(PAYLOAD) | changes).items() if value is not GONE}


def readings(begin: dict[str, Any] | None = None, end: dict[str, Any] | None = None, *between: dict[str, Any]) -> list[dict[str, Any]]:
    """BEGIN and END with changes, and what stands between."""
    made = [BEGIN | (begin or {}), *[BEGIN | {"TX": "C"} | one for one in between], END | (end or {})]
    return [{key: value for key, value in one.items() if value is not GONE} for one in made]


def sealed(text: str | dict[str, Any], name: str = P256, *, number: int = 1, raw: bool = False, sa: Any = None, se: Any = None, **more: Any) -> str:
    """A record: the text signed on the curve of ``name``. ``sa`` and ``se`` as they are to be written (GONE: not at all); ``raw`` r and s bare."""
    written = text if isinstance(text, str) else json.dumps(text, separators=(",", ":"))
    der = private(name, number).sign(written.encode(), ec.ECDSA(hashes.SHA256()))
    if raw:
        size = (CURVES[name].key_size + 7) // 8
        der = b"".join(part.to_bytes(size, "big") for part in decode_dss_signature(der))
    data = base64.b64encode(der).decode() if se == "base64" else der.hex().upper()
    section = {"SA": name if sa is None else sa, "SE": se if se is not None else GONE, "SD": data} | more
    return f"OCMF|{written}|{json.dumps({key: value for key, value in section.items() if value is not GONE})}"
