"""``gridloom os3p …`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROFILE = {
    "contactorId": 1,
    "profileId": 3,
    "stackLevel": 0,
    "recurrencyKind": "Daily",
    "daySchedule": [{"start": {"kind": "Absolute", "time": "20:00:00"}, "end": {"kind": "Absolute", "time": "02:30:00"}}],
}
OPTIONS = ("--geolocation", "[52.09,5.12]", "--timezone", "Europe/Amsterdam", "--contactor", "1", "--date", "2026-03-28")


def preview(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gridloom", "os3p", "schedule", "preview", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_preview_of_the_issue(tmp_path: Path) -> None:
    file = tmp_path / "profiles.json"
    file.write_text(json.dumps([PROFILE]))
    done = preview(*OPTIONS, "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "winner": 3,
        "daySchedule": [{"start": "20:00:00", "end": "03:00:00"}],
        "switching": [{"on": "2026-03-28T19:00:00Z", "off": "2026-03-29T01:00:00Z"}],
    }
    read = preview(*OPTIONS, str(file))
    assert read.returncode == 0
    assert "winner   profile 3: stack level 0, Daily; the only active profile" in read.stdout


@pytest.mark.parametrize("content", ["[{]", json.dumps([PROFILE, PROFILE])])
def test_a_wrong_file_is_exit_code_2(tmp_path: Path, content: str) -> None:
    file = tmp_path / "profiles.json"
    file.write_text(content)
    done = preview(*OPTIONS, str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{file}: $")
