"""How fast MeterValues of OS³P are read (decoded and validated), and answers written; JSON on standard output, microseconds of CPU per message.

The message has 60 sampledValues and about 7 KB. In the same run the floor, a bare ``msgspec`` parse of the same bytes without any validation, and a
peer, the same bytes parsed and then validated against the schema of the annex by ``jsonschema_rs`` (formats checked), compiled once.
``.venv/bin/python bench/os3p_messages.py [--seconds 2]``; each figure is the best of the rounds that fit into the time. ``--check`` exits with 1 when
a limit is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import msgspec

from gridloom.integrations.os3p.messages import HeartbeatResponse, Measurand
from gridloom.integrations.os3p.reading import read, write

SCHEMAS = Path(__file__).parents[1] / "tests" / "integrations" / "os3p" / "data" / "schemas.json"
LIMIT_US, LIMIT_DEVIATING_US = 35.0, 250.0
ROUND = 200
"""Messages in one round."""


def message(**odd: Any) -> bytes:
    """60 sampledValues of one moment; ``odd`` goes into each."""
    samples = [
        {"value": f"{230 + index}.{index}", "measurand": name, "unit": "V", "context": "Sample.Periodic", "location": "Body", **odd}
        for index, name in enumerate(get_args(Measurand)[:60])
    ]
    return json.dumps({"meterValue": [{"timestamp": "2026-11-21T00:58:03Z", "sampledValue": samples}]}).encode()


def best(seconds: float, work: Callable[[], object]) -> float:
    """µs of CPU for one piece of work in the quickest round."""
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.process_time()
        for _ in range(ROUND):
            work()
        least = min(least, time.process_time() - begin)
    return round(least / ROUND * 1e6, 1)


def figures(seconds: float) -> dict[str, Any]:
    """All figures."""
    right, unit, extra, number = message(), message(unit="Amp"), message(phase="L1"), message(value=230.5)
    validator = jsonschema_rs.Draft4Validator(json.loads(SCHEMAS.read_text())["MeterValues"], validate_formats=True)
    answer = HeartbeatResponse(currentTime="2026-11-21T00:58:03Z")
    return {
        "bytes": len(right),
        "read_us": best(seconds, lambda: read("MeterValues", right)),
        "read_strict_us": best(seconds, lambda: read("MeterValues", right, strict=True)),
        "read_unknown_unit_us": best(seconds, lambda: read("MeterValues", unit)),
        "read_extra_member_us": best(seconds, lambda: read("MeterValues", extra)),
        "read_numbers_us": best(seconds, lambda: read("MeterValues", number)),
        "read_heartbeat_us": best(seconds, lambda: read("Heartbeat", b"{}")),
        "write_heartbeat_response_us": best(seconds, lambda: write(answer)),
        "floor_msgspec_parse_us": best(seconds, lambda: msgspec.json.decode(right)),
        "peer_jsonschema_rs_us": best(seconds, lambda: validator.validate(msgspec.json.decode(right))),
        "peer_json_and_jsonschema_rs_us": best(seconds, lambda: validator.validate(json.loads(right))),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is not met")
    arguments = parser.parse_args()
    found = figures(arguments.seconds)
    print(json.dumps(found, indent=2))
    slowest = max(found["read_unknown_unit_us"], found["read_extra_member_us"], found["read_numbers_us"])
    missed = found["read_us"] > LIMIT_US or slowest > LIMIT_DEVIATING_US
    return int(arguments.check and missed)


if __name__ == "__main__":
    sys.exit(main())
