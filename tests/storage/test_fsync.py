"""The order of writes, shown by a trace of the system calls: a guaranteed write is synced to the disk before it is acknowledged.

A kill proves only that a process may die (``test_kill``); this shows what also a machine may. Needs the Debian package ``strace``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.storage.fsynced import COMMITS

_CALL = re.compile(r"^(?:\[pid\s+)?\d+\]?\s+(?P<call>\w+)\((?P<file>\d+)<(?P<path>[^>]*)>(?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+)\s+<\.\.\. (?P<call>\w+) resumed>")
_PID = re.compile(r"^(?P<pid>\d+)\s")


def calls(trace: Path) -> list[tuple[str, str, str]]:
    """(call, path, rest) in the order in which the calls *ended*: one that was interrupted in the trace counts where it is resumed."""
    begun: dict[tuple[str, str], tuple[str, str, str]] = {}
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        if (resumed := _RESUMED.match(line)) is not None:
            one = begun.pop((resumed["pid"], resumed["call"]), None)
            if one is not None:
                found.append(one)
        elif (match := _CALL.match(line)) is not None:
            one = (match["call"], match["path"], match["rest"])
            if line.rstrip().endswith("<unfinished ...>"):
                pid = _PID.match(line)
                assert pid is not None
                begun[pid["pid"], match["call"]] = one
            else:
                found.append(one)
    return found


def test_a_commit_is_synced_between_its_write_and_its_acknowledgement(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-o",
            str(trace),
            "-e",
            "trace=write,pwrite64,fsync,fdatasync",
            sys.executable,
            "-m",
            "tests.storage.fsynced",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    unsynced = synced_since = 0
    acknowledged = 0
    samples_unsynced = 0
    for call, path, rest in calls(trace):
        if path.endswith("gridloom.db-wal"):
            if call == "pwrite64":
                unsynced += 1
            elif call in ("fsync", "fdatasync"):
                unsynced = 0
                synced_since += 1
        elif call == "write" and '"committed ' in rest:
            assert unsynced == 0, f"commit {acknowledged} was acknowledged with {unsynced} writes of the WAL not synced"
            assert synced_since > 0, f"commit {acknowledged} was acknowledged without a sync of its own"
            synced_since = 0
            acknowledged += 1
        elif call == "write" and '"appended ' in rest:
            samples_unsynced += unsynced > 0
            synced_since = 0
    assert acknowledged == COMMITS
    # Samples are not synced one by one: that is what makes them cheap. (And it shows that the trace can tell the difference.)
    assert samples_unsynced > COMMITS // 2
