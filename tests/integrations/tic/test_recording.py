"""The format of a recording, as its docstring says it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.clock import Clock
from gridloom.core.errors import InvalidInput
from gridloom.integrations.tic.recording import Piece, Recorder, Recording, bytes_of, is_recording

HEAD = b'gridloom-tic-recording 1 {"port": "/dev/ttyUSB0", "baud": 9600, "started": "2026-11-21T00:58:03Z"}\n'
SOURCE = Path(__file__).parents[3] / "src"


def test_a_recording_reads_back_as_it_was_written(tmp_path: Path) -> None:
    clock = Clock(1000)
    recorder = Recorder(tmp_path / "r", clock, port="/dev/ttyUSB0", baud=1200)
    for data in (b"\x02\n", b"", bytes(range(256))):
        recorder.write(data)
    recorder.close()
    recording = Recording((tmp_path / "r").read_bytes())
    assert recording.data == b"\x02\n" + bytes(range(256))
    assert (recording.header["port"], recording.header["baud"], recording.cut) == ("/dev/ttyUSB0", 1200, False)
    assert recording.header["started"].endswith("Z")
    assert recorder.bytes == 258
    times = [piece.after for piece in recording]
    assert times == sorted(times)
    assert recording.seconds == times[-1] / 1_000_000


def test_the_file_is_what_the_documentation_says(tmp_path: Path) -> None:
    clock = Clock(1e-9)
    recorder = Recorder(tmp_path / "r", clock, port="socket://10.0.0.2:4000", baud=9600, began=clock.monotonic() - 2.5)
    recorder.write(b"\x02\nAD", clock.monotonic() - 1)
    recorder.write(b"SC")
    recorder.close()
    first, *rest = (tmp_path / "r").read_text().splitlines()
    assert first.startswith("gridloom-tic-recording 1 {")
    assert set(json.loads(first.split(" ", 2)[2])) == {"port", "baud", "started"}
    assert rest == ["1500000 020a4144", "2500000 5343"]


@given(st.lists(st.tuples(st.integers(0, 10**12), st.binary(max_size=40)), max_size=20))
def test_any_pieces_survive(pieces: list[tuple[int, bytes]]) -> None:
    text = HEAD + b"".join(b"%d %s\n" % (after, data.hex().encode()) for after, data in pieces)
    assert list(Recording(text)) == [Piece(*piece) for piece in pieces]


def test_a_line_that_a_crash_cut_is_left_out_and_told() -> None:
    recording = Recording(HEAD + b"0 0203\n900 4142\n1500 43")
    assert (recording.data, recording.cut) == (b"\x02\x03AB", True)
    assert Recording(HEAD).data == b""
    assert not Recording(HEAD + b"0 0203\n").cut


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02\nADSC", "line 1: this is no recording"),
        (b"gridloom-tic-recording 2 {}\n", "version 2; this program reads version 1"),
        (b"gridloom-tic-recording 1 {\n", "line 1: what follows the version is no JSON object"),
        (b"gridloom-tic-recording 1 []\n", "line 1: what follows the version is no JSON object"),
        (HEAD + b"0 02\nx 03\n", "line 3: expected microseconds, a space and hexadecimal bytes, got b'x 03'"),
        (HEAD + b"0 0g\n", "line 2: expected"),
        (HEAD + b"-5 02\n", "line 2: expected"),
        (HEAD + b"5\xe9 02\n", "line 2: expected"),
    ],
)
def test_what_is_no_recording_is_refused_by_its_line(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Recording(data)
    assert message in caught.value.message


def test_bytes_of_takes_both_a_recording_and_plain_bytes() -> None:
    assert bytes_of(HEAD + b"0 0203\n") == b"\x02\x03"
    assert bytes_of(b"\x02\x03") == b"\x02\x03"
    assert is_recording(HEAD)
    assert not is_recording(b"\x02")


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    with pytest.raises(FileExistsError):
        Recorder(tmp_path / "r", Clock(), port="x", baud=9600)
    assert (tmp_path / "r").read_text() == "mine"


def test_what_was_written_is_there_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom gridloom.core.clock import Clock\nfrom gridloom.integrations.tic.recording import Recorder\n"
        "recorder = Recorder(Path(sys.argv[1]), Clock(), port='x', baud=9600)\n"
        "for number in range(100_000):\n    recorder.write(b'%06d' % number)\n    os.write(1, b'%06d\\n' % number)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "r")], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    assert process.stdout is not None
    for _ in range(500):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = process.stdout.read().split() or [b"000499"]
    process.wait()
    process.stdout.close()
    recording = Recording((tmp_path / "r").read_bytes())
    last = int(told[-1] if len(told[-1]) == 6 else told[-2])
    assert recording.data[: 6 * (last + 1)] == b"".join(b"%06d" % number for number in range(last + 1))
