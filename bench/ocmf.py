"""OCMF: signing and verifying secp256r1 records against the bare `cryptography` calls of the same run, and many records on all cores; JSON.

``sign_verify_over_bare`` is signing a payload into a record and the signature step of the judgement (``ocmf.sign``, ``verification.seal`` on the
record as it was parsed), which is what may take 1.3 times the two bare calls. ``sign_judge_over_bare`` is what ``gridloom ocmf verify`` does for
one record: parsed, every check, the official tool's verdict; no limit was set for it.
``many`` verifies a file of records by the command line's own way, with one process and with one per core.

``.venv/bin/python bench/ocmf.py [--seconds 2] [--records 20000]``; run it on a machine that does nothing else. ``--check`` exits with 1 when a
limit is not met. The run that the limit was set for: ``--records 100000``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from gridloom.integrations.everest import keys, many, ocmf, signed_data, verification

LIMIT = 1.3
LIMIT_CORES = 1.5
"""Times one process, with two cores: below that the second core was not used."""
ROUND = 200


def payload(number: int) -> bytes:
    """A transaction as our powermeter signs it."""
    common: dict[str, Any] = {"RI": "1-0:1.8.0", "RU": "Wh", "ST": "G", "EF": ""}
    begin, end = (ocmf.time_text(1_760_000_000_000_000 + number * 60_000_000 + after, "S") for after in (0, 3_600_000_000))
    readings = (
        ocmf.NewReading(TM=begin, TX="B", RV=Decimal(123_456_789 + number), **common),
        ocmf.NewReading(TM=end, TX="E", RV=Decimal(123_467_890 + number), **common),
    )
    return ocmf.build(
        ocmf.Draft(
            GI="Gridloom", GS="hub-1", GV="0.1.0", PG=f"T{number}", MV="EKM", MM="Omnimeter v4", MS="000300000234", IS=True, IL="TRUSTED",
            IF=("RFID_NONE", "OCPP_RS_TLS"), IT="CENTRAL", ID="9f1b6c1e-token", CT="EVSEID", CI="DE*ABC*E1", RD=readings,
        )
    )  # fmt: skip


def microseconds(works: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median of rounds, per call; the works take turns, so that a noisy moment hits them alike."""
    found: dict[str, list[float]] = {name: [] for name in works}
    end = time.perf_counter() + seconds * len(works)
    while time.perf_counter() < end:
        for name, work in works.items():
            begin = time.perf_counter()
            for _ in range(ROUND):
                work()
            found[name].append((time.perf_counter() - begin) / ROUND * 1e6)
    return {name: round(statistics.median(times), 1) for name, times in found.items()}


def single(seconds: float) -> dict[str, Any]:
    """One record at a time."""
    bare = ec.generate_private_key(ec.SECP256R1())
    der = bare.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    loaded = load_der_private_key(der, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    signer, text = keys.Signer(loaded), payload(1)
    record = ocmf.sign(text, signer).encode()
    public, algorithm = bare.public_key(), ec.ECDSA(hashes.SHA256())
    signature, parsed = bare.sign(text, algorithm), ocmf.parse(record)
    times = microseconds(
        {
            "bare_sign": lambda: bare.sign(text, algorithm),
            "bare_verify": lambda: public.verify(signature, text, algorithm),
            "sign": lambda: ocmf.sign(text, signer),
            "verify": lambda: verification.seal(parsed, signer.public),
            "build": lambda: payload(1),
            "parse": lambda: ocmf.parse(record),
            "judge": lambda: verification.verify(ocmf.parse(record), signer.public),
        },
        seconds,
    )
    floor = times["bare_sign"] + times["bare_verify"]
    return {
        "microseconds": times,
        "sign_verify_over_bare": round((times["sign"] + times["verify"]) / floor, 3),
        "limit": LIMIT,
        "sign_judge_over_bare": round((times["sign"] + times["judge"]) / floor, 3),
        "build_sign_judge_over_bare": round((times["build"] + times["sign"] + times["judge"]) / floor, 3),
    }


def spent() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def lots(records: int) -> dict[str, Any]:
    """A file of records, read and judged."""
    signer = keys.generate()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.ocmf"
        with file.open("w") as out:
            for number in range(1, records + 1):
                out.write(ocmf.sign(payload(number), signer) + "\n")
        begin = time.perf_counter()
        items: list[many.Item] = [(claim.record.where, claim) for claim in signed_data.claims(signed_data.read(file.read_bytes()))]
        reading = time.perf_counter() - begin
        cores = os.cpu_count() or 1
        found: dict[str, Any] = {"records": records, "bytes": file.stat().st_size, "read_seconds": round(reading, 2), "cores": cores}
        for processes in (1, cores):
            begin, steps, held, cpu = time.perf_counter(), 0, 0, spent()
            for _, answers in many.run(items, signer.public.hex, strict=False, as_json=False, processes=processes):
                steps += 1
                held += sum(answer.state == "holds" for answer in answers)
            seconds = time.perf_counter() - begin
            assert held == records
            figures = {"seconds": round(seconds, 2), "per_second": round(records / seconds), "progress_steps": steps}
            found[f"processes_{processes}"] = {**figures, "cpu_seconds": round(spent() - cpu, 2)}
    found["speed_up"] = round(found["processes_1"]["seconds"] / found[f"processes_{cores}"]["seconds"], 2)
    found["limit_speed_up"] = LIMIT_CORES if cores > 1 else 0
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="per figure")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    one, all_of_them = single(given.seconds), lots(given.records)
    print(json.dumps({"bench": "ocmf", "single": one, "many": all_of_them}, indent=2))
    return int(given.check and (one["sign_verify_over_bare"] > LIMIT or all_of_them["speed_up"] < all_of_them["limit_speed_up"]))


if __name__ == "__main__":
    sys.exit(main())
