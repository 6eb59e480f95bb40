"""``gridloom tic …`` and ``gridloom sim tic``: tools for a TIC line, without a hub.

Whatever is heavy is imported by the verb that needs it. ``gridloom.cli.main`` turns errors into one line and the exit code 1; ``decode`` has
exit codes of its own.
"""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

import enum
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer

if TYPE_CHECKING:
    import asyncio

    from gridloom.integrations.tic.codec import Damage, Frame, Group
    from gridloom.integrations.tic.explain import Language
    from gridloom.integrations.tic.simulator import Simulator


def _app(help: str) -> typer.Typer:
    return typer.Typer(help=help, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)


app = _app("Look at TIC lines: which ports there are, what a meter says, recordings.")
sim = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

CLEAN, DAMAGED, UNREADABLE = 0, 1, 2
"""Exit codes of ``decode``."""
SILENT_AFTER = 10.0
"""Seconds after which a person is told that nothing comes."""
SETTLE = 0.3
"""Seconds that a program is given to set the line that it has opened; most forget then what came before."""
ZONE = "Europe/Paris"
WIDEST = 64
"""Characters of a column of a table."""


class Lang(enum.StrEnum):
    """The language of meanings."""

    EN = "en"
    FR = "fr"


class Speed(enum.StrEnum):
    """What the line speaks."""

    AUTO = "auto"
    HISTORIC = "historic"
    STANDARD = "standard"


class ModeName(enum.StrEnum):
    """What a meter speaks."""

    HISTORIC = "historic"
    STANDARD = "standard"


class ContractName(enum.StrEnum):
    """The supplier's tariff."""

    BASE = "base"
    HCHP = "hchp"
    EJP = "ejp"
    TEMPO = "tempo"


Port = Annotated[str, typer.Argument(metavar="PORT", help="A device (/dev/ttyUSB0, /dev/serial/by-id/…), socket://HOST:PORT or rfc2217://HOST:PORT.")]
ModeOption = Annotated[Speed, typer.Option("--mode", help="auto listens at 9600 and 1200 baud in turn until it understands the meter.")]
BaudOption = Annotated[int | None, typer.Option("--baud", min=50, max=4_000_000, help="Listen at this speed only, whatever comes.")]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0.0, help="End after so many seconds. Without it: at Ctrl-C.")]
LangOption = Annotated[Lang, typer.Option("--lang", help="The language of the meanings.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


# ---------------------------------------------------------------------------------------------------------------------- ports


@app.command()
def ports(as_json: JsonOption = False) -> None:
    """List the serial ports: which are TIC modems, who has them, and whether you may open them."""
    import json
    import os

    from gridloom.integrations.tic.modems import modem_type
    from gridloom.links import serial

    found: list[dict[str, Any]] = []
    for info in serial.list_ports():
        holders = serial.holders(info.path)
        allowed = os.access(info.path, os.R_OK | os.W_OK)
        state = serial.denied(info.path).removeprefix(f"{info.path}: ") if not allowed else f"{', '.join(holders)} has it" if holders else "free"
        found.append(
            {
                "port": info.path,
                "modem": modem_type(info.vendor_id, info.product_id),
                "product": info.product or None,
                "serial": info.serial or None,
                "usb": info.usb_path,
                "links": list(info.links),
                "allowed": allowed,
                "holders": holders,
                "state": state,
            }
        )
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not found:
        print(
            "There is no serial port. Plug the modem in (`dmesg` shows whether the kernel sees it), or try without one: gridloom sim tic --link PATH"
        )
        return
    rows = [[one["port"], one["modem"] or "-", one["product"] or "-", one["usb"] or "-", one["state"]] for one in found]
    print(_table(["port", "TIC modem", "product", "USB", "state"], rows))
    if not any(one["modem"] for one in found):
        print("None of them is known as a TIC modem; any other adapter works too, when it is named in [tic] ports.")


# ------------------------------------------------------------------------------------------------------------- dump and decode


@app.command()
def dump(
    port: Port,
    raw: Annotated[bool, typer.Option("--raw", help="Write the bytes as they come, nothing else.")] = False,
    mode: ModeOption = Speed.AUTO,
    baud: BaudOption = None,
    seconds: Seconds = None,
    lang: LangOption = Lang.EN,
) -> None:
    """Show what a meter says, live, each label with its meaning; or the bytes themselves."""

    async def show(stop: asyncio.Event) -> None:
        from gridloom.integrations.tic.codec import Damage, Frame, Group

        async for heard in _listen(port, mode, baud, stop):
            if raw:
                sys.stdout.buffer.write(heard.data)
                sys.stdout.buffer.flush()
                continue
            for value in heard.values:
                if isinstance(value, Group):
                    print(_line(value, lang.value), flush=True)
                elif isinstance(value, Damage):
                    print(f"!! {_damage(value.reason, value.label)}, byte {value.offset} of the frame: {_text(value.raw)}", flush=True)
                elif isinstance(value, Frame):
                    print(f"-- {_frame(value)}\n", flush=True)

    _until_stopped(show, seconds)


@app.command()
def decode(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Captured bytes, a recording of `gridloom tic record`, or - for standard input.")],
    as_json: JsonOption = False,
    lang: LangOption = Lang.EN,
) -> None:
    """Decode captured bytes. Exit code 0: all is clean; 1: something is damaged or cut (shown with its byte); 2: it cannot be read."""
    import json

    from gridloom.core.errors import InvalidInput
    from gridloom.integrations.tic.recording import bytes_of

    try:
        data = bytes_of(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        _give_up(f"{file}: {error.strerror}", UNREADABLE)
    except InvalidInput as error:
        _give_up(f"{file}: {error.message}", UNREADABLE)
    found = decoded(data, lang.value)
    if not any(group["valid"] for frame in found["frames"] for group in frame["groups"]):
        _give_up(f"{file}: {len(data)} bytes, and not one group of a TIC in them; was it captured at 9600 or 1200 baud, 7E1?", UNREADABLE)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _show(found)
    clean = not found["damages"] and not any(frame["partial"] for frame in found["frames"])
    raise typer.Exit(CLEAN if clean else DAMAGED)


def decoded(data: bytes, language: Language = "en") -> dict[str, Any]:
    """Everything that captured bytes hold, as JSON values. Offsets count from the first byte; a frame that the end cuts off is partial."""
    from gridloom.integrations.tic.codec import Damage, Frame, Group, Parser, identity

    frames: list[dict[str, Any]] = []
    damages: list[dict[str, Any]] = []
    loose: list[Damage] = []
    groups: list[Group] = []
    end = 0  # of the last frame

    def keep(frame: Frame, told: Sequence[Damage], whole: bool) -> int:
        begin = _begin(data, frame, end)
        for one in told:
            damages.append(_located(data, one, begin, end))
        shown = [_group(group, begin, language) for group in frame.groups]
        frames.append(
            {"offset": begin, "size": frame.size, "mode": str(frame.mode), "serial": identity(frame), "partial": frame.partial, "groups": shown}
        )
        return begin + frame.size if whole else len(data)

    for value in Parser().feed(data):
        if isinstance(value, Group):
            groups.append(value)
        elif isinstance(value, Damage):
            loose.append(value)
        else:
            end = keep(value, loose, True)
            loose, groups = [], []
    if groups:
        begin = _begin(data, Frame(groups[0].mode, tuple(groups)), end)
        keep(Frame(groups[0].mode, tuple(groups), True, (), len(data) - begin), loose, False)
        damages.append({"offset": len(data), "size": 0, "reason": "truncated", "label": "", "raw": ""})
    else:
        damages += [_located(data, one, end, end) for one in loose]
        rest = data[max([end, *(one["offset"] + one["size"] for one in damages)]) :]
        if rest.strip(b"\r\n\0"):
            damages.append({"offset": len(data) - len(rest), "size": len(rest), "reason": "truncated", "label": "", "raw": rest[:64].hex()})
    return {"bytes": len(data), "frames": frames, "damages": damages}


def _begin(data: bytes, frame: Frame, after: int) -> int:
    """Where a frame begins in the data: its first good group tells, for the codec counts from the frame's own start."""
    for group in frame.groups:
        if group.valid:
            separator = " " if group.mode == "historic" else "\t"
            text = separator.join([group.label, *([group.horodate] if group.horodate else []), group.value]).encode("latin-1")
            at = bytes(byte & 0x7F for byte in data[after : after + 100_000]).find(text)
            if at >= 0:
                return max(after, after + at - group.offset)
    return after


def _located(data: bytes, damage: Damage, begin: int, end: int) -> dict[str, Any]:
    """A damage with its place in the data. What stood before a frame is counted from the end of the last one."""
    offset = begin + damage.offset
    before = end + damage.offset
    if damage.raw and not _same(data, offset, damage.raw) and _same(data, before, damage.raw):
        offset = before
    return {"offset": offset, "size": damage.size, "reason": damage.reason, "label": damage.label, "raw": damage.raw.hex()}


def _same(data: bytes, at: int, raw: bytes) -> bool:
    return bytes(byte & 0x7F for byte in data[at : at + len(raw)]) == bytes(byte & 0x7F for byte in raw)


def _group(group: Group, begin: int, language: Language) -> dict[str, Any]:
    from zoneinfo import ZoneInfo

    from gridloom.integrations.tic import explain
    from gridloom.integrations.tic.labels import lookup

    found: dict[str, Any] = {"label": group.label, "value": group.value}
    if group.horodate:
        found["horodate"] = group.horodate
        found["time"] = explain.moment(group.horodate, ZoneInfo(ZONE), language) or None
    found["valid"] = group.valid
    found["offset"] = begin + group.offset
    found["unit"] = lookup(group.label, group.mode).unit or None
    found["meaning"] = explain.meaning(group.label, group.mode, language)
    found["said"] = explain.said(group.label, group.value, group.mode, language) or None
    return found


def _show(found: dict[str, Any]) -> None:
    for number, frame in enumerate(found["frames"], 1):
        whole = "part of a frame" if frame["partial"] else "frame"
        print(f"{whole} {number}: {frame['mode']}, byte {frame['offset']}, {frame['size']} bytes, meter {frame['serial'] or 'unknown'}")
        rows = []
        for group in frame["groups"]:
            said = group["said"] or ""
            if group.get("time"):
                said = f"{said + ', ' if said else ''}{group['time']}"
            rows.append(["" if group["valid"] else "!!", group["label"], group["value"], group["meaning"], said])
        print(_table(None, rows) + "\n")
    for damage in found["damages"]:
        print(f"!! byte {damage['offset']}: {_damage(damage['reason'], damage['label'])}: {_text(bytes.fromhex(damage['raw']))}")
    groups = sum(len(frame["groups"]) for frame in found["frames"])
    print(", ".join([_count(found["bytes"], "byte"), *[_count(len(found[one]), one[:-1]) for one in ("frames", "damages")], _count(groups, "group")]))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _damage(reason: str, label: str) -> str:
    words = {
        "checksum": "wrong checksum",
        "malformed": "no group",
        "delimiter": "a delimiter is damaged",
        "parity": "bit 7 was set",
        "overflow": "too long",
        "truncated": "cut off",
        "noise": "noise",
    }
    return words.get(reason, reason) + (f" in {label}" if label else "")


def _text(raw: bytes) -> str:
    return repr(raw)[2:-1]


def _line(group: Group, language: Language) -> str:
    """One group, live."""
    found = _group(group, 0, language)
    said = ", ".join(text for text in (found["said"], found.get("time")) if text)
    return f"{'  ' if group.valid else '!!'} {group.label:<9} {group.value.strip() or '-':<12}  {found['meaning']}{': ' + said if said else ''}"


def _frame(frame: Frame) -> str:
    counts = [_count(frame.size, "byte"), _count(len(frame.groups), "group"), _count(len(frame.damages), "damage")]
    return f"{'part of a ' if frame.partial else ''}{frame.mode} frame: {', '.join(counts)}"


# ----------------------------------------------------------------------------------------------------------- record and replay


@app.command()
def record(
    port: Port,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording to write; it must not exist.")],
    mode: ModeOption = Speed.AUTO,
    baud: BaudOption = None,
    seconds: Seconds = None,
) -> None:
    """Record a line: every byte with the time at which it arrived. Ends at Ctrl-C, or after --seconds."""
    from gridloom.core.clock import Clock
    from gridloom.integrations.tic.recording import Recorder
    from gridloom.links.serial import shown

    if file.exists():
        _give_up(f"{file}: it exists; a recording is never written over: name another file, or remove it")
    recorders: list[Recorder] = []

    async def keep(stop: asyncio.Event) -> None:
        clock = Clock()
        async for heard in _listen(port, mode, baud, stop):
            if not recorders:
                recorders.append(Recorder(file, clock, port=shown(port), baud=heard.baud, began=heard.at))
                print(f"recording {shown(port)} at {heard.baud} baud to {file}; Ctrl-C ends it", file=sys.stderr, flush=True)
            recorders[0].write(heard.data, heard.at)

    try:
        _until_stopped(keep, seconds)
    finally:
        for one in recorders:
            one.close()
            print(f"{file}: {_count(one.bytes, 'byte')}", flush=True)
    if not recorders:
        _give_up("nothing was recorded: no meter was understood; with --baud 9600 or --baud 1200 everything that comes is recorded")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording of `gridloom tic record`.")],
    link: Annotated[Path, typer.Option("--link", metavar="PATH", help="Where the line appears; whoever opens it hears the recording.")],
    speed: Annotated[float, typer.Option("--speed", metavar="N", min=0.01, max=10_000, help="N times faster.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Again and again, until Ctrl-C.")] = False,
) -> None:
    """Play a recording into a fresh pseudo-terminal, at its own pace. It begins when somebody opens the line, and hangs up a second after its end."""
    from gridloom.core.clock import Clock
    from gridloom.core.errors import InvalidInput
    from gridloom.integrations.tic.recording import Recording
    from gridloom.links.pty import Pty

    try:
        recording = Recording(file.read_bytes())
    except InvalidInput as error:
        _give_up(f"{file}: {error.message}")
    if not recording.pieces:
        _give_up(f"{file}: there are no bytes in it")
    if recording.cut:
        print(f"{file}: its last line is cut; it is left out", file=sys.stderr)
    baud = int(recording.header.get("baud", 9600))

    async def play(stop: asyncio.Event) -> None:
        import asyncio

        clock, pty = Clock(speed), Pty(link)
        pty.open(baud)
        print(f"{link}: {len(recording.data)} bytes of {recording.seconds:.1f} s at {baud} baud, as soon as somebody opens it", flush=True)
        try:
            while not stop.is_set() and not pty.look(baud):  # noqa: ASYNC110  # that a terminal was opened is told by nothing but looking
                await asyncio.sleep(0.02)
            await asyncio.sleep(SETTLE)
            while not stop.is_set():
                zero = clock.monotonic()
                for piece in recording:
                    await clock.sleep(max(0.0, piece.after / 1_000_000 - (clock.monotonic() - zero)))
                    if stop.is_set():
                        return
                    await pty.deliver(piece.data, baud)
                if not loop:
                    await asyncio.sleep(1.0)
                    break
        finally:
            pty.close()
        if pty.lost:
            print(f"{pty.lost} bytes were not heard by anybody", file=sys.stderr)

    _until_stopped(play, None)


# ------------------------------------------------------------------------------------------------------------------ simulator


@sim.command()
def tic(
    context: typer.Context,
    link: Annotated[Path, typer.Option("--link", metavar="PATH", help="Where the line appears.")],
    mode: Annotated[ModeName, typer.Option("--mode")] = ModeName.STANDARD,
    contract: Annotated[ContractName, typer.Option("--contract")] = ContractName.HCHP,
    phases: Annotated[int, typer.Option("--phases", help="1 or 3.")] = 1,
    producer: Annotated[bool, typer.Option("--producer", help="With a solar roof (standard mode only).")] = False,
    subscribed: Annotated[
        int, typer.Option("--subscribed", metavar="A", min=10, max=90, help="Amperes per phase of the contract; 30 is 6 kVA.")
    ] = 30,
    off_peak: Annotated[
        str, typer.Option("--off-peak", metavar="RANGES", help="Off-peak hours of hchp, e.g. 22:30-6:30 or 2:00-7:00,14:00-17:00.")
    ] = "22:30-6:30",
    noise: Annotated[float, typer.Option("--noise", metavar="RATE", min=0.0, max=1.0, help="Share of bytes and frames that are damaged.")] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="KIND@SECONDS[+FOR]", help="silence, mode (switched), meter (changed), cover, clock; may be repeated."),
    ] = None,
    baud: Annotated[int | None, typer.Option("--baud", help="Of an adapter with a speed of its own.")] = None,
    speed: Annotated[float, typer.Option("--speed", metavar="N", min=0.01, max=10_000, help="Time and line run N times faster.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Another seed is another meter in another house.")] = 1,
    place: Annotated[str, typer.Option("--place", help="The house of the small world, e.g. house:1.")] = "",
    frames: Annotated[
        Path | None, typer.Option("--frames", metavar="FILE", help="Play captured frames (or a recording) again and again instead.")
    ] = None,
) -> None:
    """A simulated Linky on a pseudo-terminal, at the pace of the line, until Ctrl-C."""
    from gridloom.core.clock import Clock
    from gridloom.core.errors import InvalidInput
    from gridloom.integrations.tic.labels import Mode
    from gridloom.integrations.tic.meter import Contract, Profile
    from gridloom.integrations.tic.simulator import Captured, Noise, Simulator, linky, parse_fault, parse_ranges

    clock = Clock(speed)
    try:
        faults = [parse_fault(one) for one in fault or ()]
        ranges = parse_ranges(off_peak)
        if frames is not None:
            simulator = Simulator(link, Captured(frames.read_bytes(), baud=baud), clock, noise=Noise(noise, seed), faults=faults, seed=seed)
        else:
            if producer and mode is ModeName.HISTORIC:
                raise ValueError("historic mode has no labels for a producer; use --mode standard")
            profile = Profile(Mode(mode.value), Contract(contract.value), phases, producer, subscribed, ranges, seed)
            world = context.obj(clock) if callable(context.obj) else None
            simulator = linky(link, clock, profile, world=world, place=place, noise=noise, faults=faults, baud=baud)
    except InvalidInput as error:
        _give_up(f"{frames}: {error.message}")
    except ValueError as error:
        _give_up(str(error), 2)

    async def speak(stop: asyncio.Event) -> None:
        await simulator.start()
        print(f"{link}: {_described(simulator)}; Ctrl-C ends it", flush=True)
        try:
            await _first(simulator.wait(), stop.wait())
        finally:
            await simulator.stop()

    _until_stopped(speak, None)


def _described(simulator: Simulator) -> str:
    from gridloom.integrations.tic.simulator import Household

    source = simulator.source
    if not isinstance(source, Household):
        return f"captured frames at {source.baud} baud"
    meter, profile = source.meter, source.meter.profile
    kind = ["three phases" if profile.phases == 3 else "one phase", *(["producer"] if profile.producer else [])]
    return f"meter {meter.serial}, {profile.mode} mode, {profile.contract}, {', '.join(kind)}, {source.baud} baud"


# --------------------------------------------------------------------------------------------------------------------- helpers


class Heard(NamedTuple):
    """Bytes of a line, what they mean, and when they came (monotonic seconds)."""

    data: bytes
    values: list[Group | Damage | Frame]
    baud: int
    at: float


async def _listen(port: str, mode: Speed, baud: int | None, stop: asyncio.Event) -> AsyncIterator[Heard]:
    """What comes from a port, from the moment on at which the speed is known; what came just before at that speed, too. Raises PortError."""
    import asyncio

    from gridloom.core.clock import Clock
    from gridloom.core.errors import InvalidInput
    from gridloom.integrations.tic.codec import Group, Parser
    from gridloom.integrations.tic.labels import Mode
    from gridloom.integrations.tic.tuning import Tuning, Verdict
    from gridloom.links import serial

    try:
        serial.checked(port)
    except ValueError as error:
        raise InvalidInput(f"{serial.shown(port) if port.startswith('/') else 'PORT'}: {error}") from None
    clock, parser = Clock(), Parser()
    tuning = Tuning(None if mode is Speed.AUTO else Mode(mode.value), SILENT_AFTER)
    stream = await serial.open(port, baudrate=baud or tuning.speed, bytesize=7, parity="E")
    waiting: list[Heard] = []
    try:
        tuning.opened(clock.monotonic())
        while not stop.is_set():
            try:
                data = await asyncio.wait_for(stream.read(), 0.1)
            except TimeoutError:
                data = b""
            now = clock.monotonic()
            if data:
                values = parser.feed(data)
                tuning.heard(len(data), [value for value in values if isinstance(value, Group)], now)
                waiting.append(Heard(data, values, baud or tuning.speed, now))
            if waiting and (baud or tuning.found):
                for heard in waiting:
                    yield heard
                waiting.clear()
            verdict = tuning.verdict(now)
            if verdict in (Verdict.SILENT, Verdict.NONSENSE):
                _tell_silence(serial.shown(port), verdict is Verdict.SILENT)
                tuning.opened(now)
            if verdict is not Verdict.STAY and baud is None and mode is Speed.AUTO:
                await stream.set_baudrate(tuning.other(now))
                parser.reset()
                waiting.clear()
    finally:
        await stream.close()


def _tell_silence(port: str, silent: bool) -> None:
    """Once in a while, to a person who waits in vain."""
    if silent:
        said = f"nothing came for {SILENT_AFTER:g} s: is the modem wired to the terminals I1 and I2 of the meter, and are its wires tight?"
    else:
        said = f"bytes come, but for {SILENT_AFTER:g} s none of them made sense: is it a TIC? Try --baud with the speed of the adapter"
    print(f"{port}: {said}", file=sys.stderr, flush=True)


def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], seconds: float | None) -> None:
    """Run until it ends, until Ctrl-C or SIGTERM, or for so many seconds. All of them end it in order."""
    import asyncio
    import signal

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if seconds is not None:
            loop.call_later(seconds, stop.set)
        try:
            await work(stop)
        except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
            sys.stdout = None  # nothing is left that could be flushed at exit

    asyncio.run(run())


async def _first(*awaitables: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them ends; raises what it raised."""
    import asyncio

    tasks = [asyncio.ensure_future(one) for one in awaitables]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    for task in done:
        task.result()


def _give_up(message: str, code: int = 1) -> NoReturn:
    print(f"gridloom: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, but no wider than WIDEST: a profile of 98 characters goes beyond its column."""
    lines = [*([list(head)] if head else []), *[list(row) for row in rows]]
    if not lines:
        return ""
    widths = [max([len(line[column]) for line in lines if len(line[column]) <= WIDEST] or [0]) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
