"""``gridloom tic …`` and ``gridloom sim tic`` as their users run them: in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hub_process import SOURCE, environment
from tests.hub_process import gridloom as run
from tests.integrations.tic.naive import frames, values

from gridloom.integrations.tic import cli
from gridloom.integrations.tic.recording import Recording

DATA = Path(__file__).parents[2] / "data" / "tic"
FRAMES = sorted((DATA / "frames").glob("*.bin"))
DAMAGED = {"his_mono_base_linky": "ADCO", "std_mono_hphc_badpcoup_tic2ws": "PCOUP"}


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """A verb that runs until it is stopped."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "gridloom", *arguments],
        cwd=cwd, env=environment(SOURCE), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    """The first line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Running:
    """Verbs that run meanwhile; what is left at the end is stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str) -> subprocess.Popen[str]:
        self.processes.append(start(*arguments, cwd=self.folder))
        return self.processes[-1]

    def stop(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Ctrl-C; exit code and what it said."""
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        return process.returncode, out, err


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def heard(path: Path, speed: int, count: int, seconds: float = 15) -> list[bytes]:
    """Whole frames of a line, read with nothing but the standard library."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[4] = settings[5] = speed
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        data, end = b"", time.monotonic() + seconds
        while len(frames(data)) < count:
            assert time.monotonic() < end, data[-200:]
            try:
                data += os.read(descriptor, 65536)
            except BlockingIOError:
                time.sleep(0.01)
        return frames(data)
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize("file", FRAMES, ids=lambda file: file.stem)
def test_captured_frames_decode_to_what_is_expected(file: Path) -> None:
    """In process, all files: groups, and a place in the file for each."""
    found = cli.decoded(file.read_bytes())
    expected = json.loads((DATA / "expected" / f"{file.stem}.json").read_text())
    assert [frame["mode"] for frame in found["frames"]] == [frame["mode"] for frame in expected]
    for frame, wanted in zip(found["frames"], expected, strict=True):
        groups = [
            {"label": one["label"], "horodate": one.get("horodate", ""), "value": one["value"], "valid": one["valid"]} for one in frame["groups"]
        ]
        assert groups == wanted["groups"]
        for one in frame["groups"]:
            assert file.read_bytes()[one["offset"] :].startswith(one["label"].encode())
        assert not frame["partial"]
    assert sum(frame["size"] for frame in found["frames"]) == found["bytes"] == file.stat().st_size
    assert [damage["label"] for damage in found["damages"]] == ([DAMAGED[file.stem]] if file.stem in DAMAGED else [])


def test_decode_prints_json_and_its_exit_code_says_whether_it_was_clean(tmp_path: Path) -> None:
    clean = run("tic", "decode", "--json", str(DATA / "frames/std_mono_hphc_nb.bin"), cwd=tmp_path)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert json.loads(clean.stdout) == cli.decoded((DATA / "frames/std_mono_hphc_nb.bin").read_bytes())
    damaged = run("tic", "decode", str(DATA / "frames/std_mono_hphc_badpcoup_tic2ws.bin"), cwd=tmp_path)
    assert damaged.returncode == 1
    data = (DATA / "frames/std_mono_hphc_badpcoup_tic2ws.bin").read_bytes()
    assert f"!! byte {data.index(b'PCOUP')}: wrong checksum in PCOUP" in damaged.stdout
    assert "865 bytes, 1 frame, 1 damage, 38 groups" in damaged.stdout


def test_decode_reads_standard_input_and_speaks_french(tmp_path: Path) -> None:
    with open(DATA / "frames/his_mono_tempo.bin", "rb") as file:
        found = subprocess.run(
            [sys.executable, "-m", "gridloom", "tic", "decode", "--lang", "fr", "-"],
            stdin=file,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(SOURCE),
        )
    assert found.returncode == 0
    assert "Couleur du lendemain" in found.stdout
    assert "heures creuses, jour bleu" in found.stdout
    assert "18328856 Wh" in found.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nowhere.bin: No such file or directory"),
        (b"", "0 bytes, and not one group of a TIC in them"),
        (b"hello, this is not a meter\n" * 40, "and not one group of a TIC in them"),
        (b"gridloom-tic-recording 9 {}\n", "line 1: a recording of version 9"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line_with_exit_code_2(tmp_path: Path, content: bytes | None, message: str) -> None:
    name = "nowhere.bin" if content is None else "here.bin"
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found = run("tic", "decode", name, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert message in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_each_damage_has_its_byte_in_the_file() -> None:
    one = (DATA / "frames/his_mono_hchp.bin").read_bytes()
    broken = bytearray(b"noise!" + one + one)
    at = bytes(broken).index(b"HCHP 01", len(one))
    broken[at + 6] ^= 1
    found = cli.decoded(bytes(broken))
    places = {(damage["reason"], damage["offset"]) for damage in found["damages"]}
    assert ("checksum", at) in places
    assert any(offset == 0 for _, offset in places), places
    assert [frame["offset"] for frame in found["frames"]] == [6, 6 + len(one)]
    assert [group["offset"] for group in found["frames"][1]["groups"] if not group["valid"]] == [at]


def test_a_frame_that_the_end_cuts_off_is_shown_and_told() -> None:
    one = (DATA / "frames/std_mono_hphc_nb.bin").read_bytes()
    found = cli.decoded(one + one[:400])
    assert [frame["partial"] for frame in found["frames"]] == [False, True]
    assert [group["label"] for group in found["frames"][1]["groups"]][:3] == ["ADSC", "VTIC", "DATE"]
    assert found["frames"][1]["offset"] == len(one)
    assert found["damages"][-1] == {"offset": len(one) + 400, "size": 0, "reason": "truncated", "label": "", "raw": ""}
    nothing = cli.decoded(one + b"\x02\nADS")
    assert [(damage["reason"], damage["offset"], damage["size"]) for damage in nothing["damages"]] == [("truncated", len(one), 5)]


def test_values_are_told_in_words() -> None:
    found = cli.decoded((DATA / "frames/std_mono_producer_nb_fixck.bin").read_bytes())
    groups = {group["label"]: group for group in found["frames"][0]["groups"]}
    assert groups["EAIT"]["said"] == "2983292 Wh"
    assert groups["EAIT"]["unit"] == "Wh"
    assert "producer" in groups["STGE"]["said"]
    assert groups["SMAXIN"]["time"] == "2022-09-01 14:20:00+02:00"
    assert groups["RELAIS"]["said"] == "all open"
    assert groups["PJOURF+1"]["said"] == "00:00 register 1, contact open"
    french = cli.decoded((DATA / "frames/std_mono_producer_nb_fixck.bin").read_bytes(), "fr")
    assert "producteur" in next(group for group in french["frames"][0]["groups"] if group["label"] == "STGE")["said"]


# ------------------------------------------------------------------------------------------------------------------ simulator


def test_the_simulator_speaks_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path, running: Running) -> None:
    process = running("sim", "tic", "--link", "linky", "--mode", "historic", "--contract", "tempo", "--phases", "3", "--speed", "20", "--seed", "4")
    line = said(process)
    assert line.startswith("linky: meter ")
    assert line.endswith("historic mode, tempo, three phases, 1200 baud; Ctrl-C ends it")
    found = values(heard(tmp_path / "linky", termios.B1200, 1)[0])
    assert found["ADCO"] == line.split()[2].rstrip(",")
    assert "PMAX" in found
    assert running.stop(process) == (0, "", "")
    assert not (tmp_path / "linky").is_symlink()


def test_the_simulator_plays_captured_frames(tmp_path: Path, running: Running) -> None:
    file = DATA / "frames/std_mono_producer_stream3_fixck.bin"
    process = running("sim", "tic", "--link", "linky", "--frames", str(file), "--speed", "20")
    assert said(process) == "linky: captured frames at 9600 baud; Ctrl-C ends it"
    assert set(heard(tmp_path / "linky", termios.B9600, 4)) <= set(frames(file.read_bytes()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "historic", "--producer"), "historic mode has no labels for a producer"),
        (("--phases", "2"), "a meter has 1 or 3 phases, not 2"),
        (("--fault", "storm@3"), "'storm@3' is no fault"),
        (("--off-peak", "25:00-6:00"), "'25:00-6:00' is no range of hours"),
        (("--frames", "nowhere"), "No such file or directory"),
    ],
)
def test_a_wrong_order_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    found = run("sim", "tic", "--link", "linky", *arguments, cwd=tmp_path)
    assert found.returncode in (1, 2)
    assert message in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_link_that_is_somebodys_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "linky").write_text("mine")
    found = run("sim", "tic", "--link", "linky", cwd=tmp_path)
    assert found.returncode == 1
    assert "exists and is no symbolic link; name a path that is free" in found.stderr
    assert (tmp_path / "linky").read_text() == "mine"


# ------------------------------------------------------------------------------------------------------- dump, record, replay


@pytest.mark.parametrize(
    ("mode", "address", "lang", "words"), [("standard", "ADSC", "en", "Active energy taken, total"), ("historic", "ADCO", "fr", "Intensité")]
)
def test_dump_finds_the_speed_and_tells_every_label(tmp_path: Path, running: Running, mode: str, address: str, lang: str, words: str) -> None:
    said(running("sim", "tic", "--link", "linky", "--mode", mode, "--speed", "10"))
    process = running("tic", "dump", str(tmp_path / "linky"), "--lang", lang, "--seconds", "6")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert f"   {address} " in out
    assert words in out
    assert f"-- {mode} frame: " in out


def test_dump_raw_is_the_bytes(tmp_path: Path, running: Running) -> None:
    said(running("sim", "tic", "--link", "linky", "--speed", "20"))
    raw = subprocess.run(
        [sys.executable, "-m", "gridloom", "tic", "dump", str(tmp_path / "linky"), "--raw", "--seconds", "2"],
        cwd=tmp_path,
        env=environment(SOURCE),
        capture_output=True,
        timeout=30,
    )
    assert raw.returncode == 0
    assert len(frames(raw.stdout)) > 5
    assert all("ADSC" in values(frame) for frame in frames(raw.stdout))


@pytest.mark.parametrize("verb", ["dump", "record"])
def test_a_port_that_is_not_there_is_said_in_one_line(tmp_path: Path, verb: str) -> None:
    found = run("tic", verb, "/dev/ttyNOWHERE", *(["file"] if verb == "record" else []), cwd=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (1, "", "gridloom: /dev/ttyNOWHERE: it is not there\n")
    found = run("tic", verb, "ttyUSB0", *(["file"] if verb == "record" else []), cwd=tmp_path)
    assert found.returncode == 1
    assert 'neither an absolute path such as "/dev/serial/by-id/…"' in found.stderr


def test_record_then_replay_then_record_is_byte_identical(tmp_path: Path, running: Running) -> None:
    said(running("sim", "tic", "--link", "linky", "--speed", "5", "--noise", "0.001"))
    recording = running("tic", "record", str(tmp_path / "linky"), "first", "--baud", "9600")
    assert recording.stderr is not None
    assert "recording " in recording.stderr.readline()
    time.sleep(2)
    code, out, _ = running.stop(recording)
    assert code == 0
    first = Recording((tmp_path / "first").read_bytes())
    assert out == f"first: {len(first.data)} bytes\n"
    assert len(first.data) > 3000

    player = running("tic", "replay", "first", "--link", "again", "--speed", "3")
    assert f"again: {len(first.data)} bytes of " in said(player)
    second = running("tic", "record", str(tmp_path / "again"), "second", "--baud", "9600")
    _, err = player.communicate(timeout=30)
    assert (player.returncode, err) == (0, "")
    _, err = second.communicate(timeout=10)
    assert "unplugged" in err, "the replay hangs up when it is over"
    assert Recording((tmp_path / "second").read_bytes()).data == first.data
    assert run("tic", "decode", "second", cwd=tmp_path).returncode in (0, 1)


def test_replay_has_the_pace_of_the_recording(tmp_path: Path, running: Running) -> None:
    pieces = "".join(f"{number * 200_000} {bytes([65 + number]).hex()}\n" for number in range(11))
    (tmp_path / "slow").write_text('gridloom-tic-recording 1 {"port": "x", "baud": 9600, "started": "2026-11-21T00:00:00Z"}\n' + pieces)
    player = running("tic", "replay", "slow", "--link", "line", "--speed", "2")
    said(player)
    descriptor = os.open(tmp_path / "line", os.O_RDWR | os.O_NOCTTY)
    begin, data = time.monotonic(), b""
    while len(data) < 11:
        data += os.read(descriptor, 100)
    assert data == b"ABCDEFGHIJK"
    assert 0.85 < time.monotonic() - begin < 1.6, "two seconds at twice the speed"
    os.close(descriptor)


def test_a_recording_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    found = run("tic", "record", "/dev/ttyNOWHERE", "mine", cwd=tmp_path)
    assert found.returncode == 1
    assert "mine: it exists; a recording is never written over" in found.stderr
    found = run("tic", "replay", "mine", "--link", "line", cwd=tmp_path)
    assert found.returncode == 1
    assert "line 1: this is no recording" in found.stderr


# --------------------------------------------------------------------------------------------------------------- ports, help


def test_ports_are_listed_for_people_and_for_programs(tmp_path: Path) -> None:
    found = run("tic", "ports", cwd=tmp_path)
    assert found.returncode == 0
    assert "port" in found.stdout
    listed: list[dict[str, Any]] = json.loads(run("tic", "ports", "--json", cwd=tmp_path).stdout)
    assert all({"port", "modem", "allowed", "holders", "state"} <= set(one) for one in listed)


def test_help_is_quick_and_imports_nothing_heavy(tmp_path: Path) -> None:
    for arguments in (("tic", "--help"), ("tic", "decode", "--help"), ("sim", "tic", "--help")):
        times = []
        for _ in range(4):
            begin = os.times()
            assert run(*arguments, cwd=tmp_path).returncode == 0
            end = os.times()
            times.append(end.children_user + end.children_system - begin.children_user - begin.children_system)
        # CPU time, so that what else the machine does counts for little.
        assert min(times) < 0.25, arguments
    heavy = ("asyncio", "msgspec", "serialx", "litestar")
    code = f"import sys; import gridloom.integrations.tic.cli; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(SOURCE), capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
