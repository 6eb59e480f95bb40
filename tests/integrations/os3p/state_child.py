"""A process that writes the state of a Substation and is killed (SIGKILL, by itself) before step N of what it does to files.

Arguments: the folder, and N. It says on standard output, unbuffered, what is committed: ``commit NAME`` after each commit that returned. What it
commits is a fixed story, so that whoever started it knows what must be there.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from gridloom.integrations.os3p import schedule, state
from gridloom.integrations.os3p.messages import BootNotification, StreetlightStatusNotification, UpdateFirmware
from gridloom.integrations.os3p.state import Accepted, Job, Lamp, Vault

COMMITS = 12


def story(number: int) -> dict[str, Any]:
    """What is set by commit ``number``, counted from 1."""
    boot = BootNotification(vendor="v", model="m", stationNumber=str(number), serialNumber="s", firmwareVersion="1", iccid="", imsi="")
    profile = schedule.Profile(1, number, 1, "Daily", None, None, (schedule.Period(schedule.Bound("Sunset", 0), schedule.Bound("Sunrise", 0)),))
    order = UpdateFirmware(retrieveDate="2026-01-01T00:00:00Z", location="ftp://h/f")
    return {
        "accepted": Accepted(boot, "url", number),
        "keys": {"number": str(number), "long": "x" * 40},
        "profiles": (profile,),
        "lamps": (Lamp(1, number % 2 == 1, number),),
        "job": Job(order, number),
    }


def event(number: int) -> StreetlightStatusNotification:
    """What is added by commit ``number``."""
    return StreetlightStatusNotification(contactorId=1, status="On" if number % 2 else "Off", timestamp=f"2026-01-01T00:00:{number:02}Z")


def main() -> None:
    folder, last = Path(sys.argv[1]), int(sys.argv[2])
    steps = 0

    def step(name: str) -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    state.GROWN = 2_500  # so that the file is written anew in the middle of the story
    state.step = step
    vault = Vault(folder)
    for number in range(int(vault.state.keys.get("number", "0")) + 1, COMMITS + 1):
        vault.commit(add=[("1", event(number))], **story(number))
        os.write(1, f"commit {number}".encode() + b"\n")
        oldest = min(vault.events)
        if number % 3 == 0:
            vault.commit(done=[oldest])
            os.write(1, f"done {number}".encode() + b"\n")
    os.write(1, f"steps {steps}".encode() + b"\n")


if __name__ == "__main__":
    main()
