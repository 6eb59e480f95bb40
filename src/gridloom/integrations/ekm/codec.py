"""GRAMMAR of an Omnimeter on RS-485: requests, replies, and the conversations that they make. Sans-I/O: knows no port and no clock.

A conversation is a generator: it yields an ``Ask`` (bytes, and what should come back) and is sent the ``Answer`` (what came, or that nothing did);
it returns what was wanted, or raises why not. A refusal raises, and the next step is never reached; what must not happen twice is asked once.
``Receiver`` makes the ``Answer`` of one ``Ask`` out of whatever bytes the line brings: parity bits, an echo of the request, noise before and within
the reply are survived; nothing with a wrong CRC is ever accepted.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, TypeVar

import msgspec

from gridloom.integrations.ekm.errors import Garbled, LineLost, NoAnswer, Noise, PasswordRefused, PulseRatioRefused, Unsure, WriteRefused, WrongMeter
from gridloom.integrations.ekm.models import Model
from gridloom.integrations.ekm.models.fields import LAYOUTS, Field, Kind, Layout
from gridloom.integrations.ekm.models.settings import PULSE_OUTPUT

T = TypeVar("T")

FRAME = 255
"""Bytes of every reply but the acknowledgement."""
SOH, STX, ETX, ACK = 0x01, 0x02, 0x03, 0x06
END = bytes.fromhex("0142300375")
"""Ends the session that a read opened: until then the meter takes passwords and settings, which name no address. No reply (FACTS 1.2)."""
WILDCARD = "999999999999"
"""The address to which the only meter of a bus answers, with its own (FACTS 1.2)."""
DEFAULT_PASSWORD = "00000000"  # noqa: S105  # published by the maker
TRIES = 3
"""How often is asked what may be asked again."""
PASSWORD_TRIES = FIND_TRIES = 2
SCHEDULES_1_4, SCHEDULES_5_6, MONTHS, MONTHS_REVERSE, HOLIDAYS = "0070", "0071", "0011", "0012", "00B0"
"""Registers of the block reads (FACTS 1.9)."""
TIME_DIGITS = 14

_SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))
_GLITCHES = b"\x00\x7f"
"""What a line that changes its direction puts before a byte."""


# --------------------------------------------------------------------------------------------------------------- checksum


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC = _table()


def checksum(data: bytes) -> bytes:
    """The two bytes behind ``data``, which begins behind STX or SOH and ends with ETX: CRC-16/MODBUS, low byte first, seven bits each (FACTS 1.4)."""
    value = 0xFFFF
    table = _CRC
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return bytes((value & 0x7F, value >> 8 & 0x7F))


def is_valid(frame: bytes) -> bool:
    """Whether these are the 255 bytes of a reply, with the right CRC."""
    return len(frame) == FRAME and frame[0] == STX and checksum(frame[1:-2]) == frame[-2:]


# --------------------------------------------------------------------------------------------------------------- requests


def address_of(text: str) -> str:
    """Twelve digits. Takes them with or without leading zeros; raises ValueError for anything else."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 12):
        raise ValueError(f"{text[:20]!r} is no address of a meter: expected 1 to 12 digits")
    return text.zfill(12)


def read_request(address: str, layout: Layout) -> bytes:
    """Ask for a reply; opens a session."""
    return b"/?" + address.encode("ascii") + layout.suffix + b"!\r\n"


def password_request(password: str) -> bytes:
    """P1: needed before a setting."""
    return _command(b"P1\x02(" + password.encode("ascii") + b")")


def block_request(register: str) -> bytes:
    """R1: ask for a block."""
    return _command(b"R1\x02" + register.encode("ascii") + b"()")


def write_request(register: str, data: str) -> bytes:
    """W1: a setting."""
    return _command(b"W1\x02" + register.encode("ascii") + b"(" + data.encode("ascii") + b")")


def _command(body: bytes) -> bytes:
    body += bytes((ETX,))
    return bytes((SOH,)) + body + checksum(body)


class Expect(enum.Enum):
    """What an Ask is answered with. The value is its size in bytes."""

    FRAME = FRAME
    ACK = 1


class Ask(msgspec.Struct, frozen=True):
    """Bytes to send, what is expected, and what it is for people (``read A``, ``password``). ``unsafe``: it may have an effect if it arrives."""

    data: bytes
    expect: Expect
    what: str
    unsafe: bool = False


class Got(enum.StrEnum):
    """What came."""

    FRAME = "good"  # 255 bytes with the right CRC
    ACK = "ack"
    SILENCE = "silence"
    CUT = "cut"  # the beginning of a reply
    BAD_CRC = "bad crc"
    NOISE = "noise"  # bytes without a reply in them
    OTHER = "refused"  # one byte that is no acknowledgement
    LOST = "lost"  # the port went away


class Answer(NamedTuple):
    """``data`` is the frame, or the byte that is no acknowledgement; ``noise`` how many bytes had no meaning."""

    got: Got
    data: bytes = b""
    noise: int = 0


class Receiver:
    """Finds the answer to one Ask in what comes. ``missing`` tells how many bytes are needed still, so that the line can be left alone till then."""

    def __init__(self, ask: Ask) -> None:
        self._frame = ask.expect is Expect.FRAME
        self._echoes = tuple(END[at:] + ask.data for at in range(len(END) + 1))
        self._held = bytearray()
        self._noise = 0
        self._bad = False
        self.echoed = False
        """The line repeats what is sent on it."""
        self.answer: Answer | None = None

    @property
    def missing(self) -> int:
        """Bytes; 0 when it is there, and when what came is damaged and nothing more needs to come."""
        if self.answer is not None or self._bad:
            return 0
        return max(0, (FRAME if self._frame else 1) - len(self._held))

    @property
    def heard(self) -> bool:
        """Whether anything but an echo came."""
        return bool(self._held or self._noise or self._bad)

    def feed(self, data: bytes) -> bool:
        """Bytes came, in any pieces. True once the answer is there."""
        if self.answer is None:
            self._held += data.translate(_SEVEN_BITS)
            if self._past_echo():
                if self._frame:
                    self._find_frame()
                else:
                    self._find_ack()
        return self.answer is not None

    def close(self) -> Answer:
        """Nothing more comes: what it was."""
        if self.answer is None:
            noise = self._noise + len(self._held)
            if self._bad:
                got = Got.BAD_CRC
            elif self._frame and self._held[:1] == bytes((STX,)):
                got = Got.CUT
            elif not self._frame and len(self._held) == 1:
                got = Got.OTHER
            else:
                got = Got.NOISE if noise else Got.SILENCE
            self.answer = Answer(got, bytes(self._held) if got is Got.OTHER else b"", noise)
        return self.answer

    def _past_echo(self) -> bool:
        """An echo begins with the byte that we began with, and no reply does (2F or SOH against STX or ACK). One that is damaged is noise.

        The echo of the END before, or what is late of it, may stand in front.
        """
        held = bytes(self._held)
        whole = next((echo for echo in self._echoes if held.startswith(echo)), b"")
        if whole:
            del self._held[: len(whole)]
            self.echoed = True
        elif any(echo.startswith(held) for echo in self._echoes):
            return False
        self._echoes = ()
        return True

    def _find_frame(self) -> None:
        held = self._held
        while True:
            start = held.find(STX)
            if start < 0:
                start = len(held)
            self._noise += start
            del held[:start]
            if len(held) < FRAME:
                return
            frame = bytes(held[:FRAME])
            if is_valid(frame):
                self.answer = Answer(Got.FRAME, frame, self._noise)
                return
            self._bad = True  # what follows may still hold a frame: noise can have an STX in it
            self._noise += 1
            del held[:1]

    def _find_ack(self) -> None:
        while self._held and self._held[0] in _GLITCHES:
            del self._held[:1]
            self._noise += 1
        if self._held == bytes((ACK,)):
            self.answer = Answer(Got.ACK, b"", self._noise)


# ----------------------------------------------------------------------------------------------------------- conversations

Conversation = Generator[Ask, Answer, T]
"""Yields what to send, is sent what came, returns what was wanted."""


class Read(msgspec.Struct, frozen=True, tag="ekm.read"):
    """What a meter said: its replies as they came, in the order of ``Model.layouts``; ``values`` reads them. ``model`` is the name in MODELS.

    ``reliability``: per cent of the last exchanges with this meter that were good. It travels with the readings as their native message.
    """

    address: str
    model: str
    frames: tuple[bytes, ...]
    received: int = 0
    reliability: int = 100


class Write(msgspec.Struct, frozen=True):
    """A setting: ``register`` and ``data`` (made at the moment of sending where that matters). ``once``: it must not be sent a second time.

    ``pulse_output``: this ratio must suit the meter's CT ratio. ``read_back``: the meter is read again behind it.
    """

    register: str
    data: str | Callable[[], str]
    what: str
    once: bool = False
    pulse_output: int | None = None
    read_back: bool = False


def read(address: str, model: Model, *, tries: int = TRIES) -> Conversation[Read]:
    """All replies of a meter; with the wildcard as address, of the only one. Raises NoAnswer, Garbled, WrongMeter, LineLost."""
    frames: list[bytes] = []
    for layout in model.layouts:
        frames.append((yield from _read(address, layout, tries)))
        address = meter_of(frames[0])
    return Read(address, model.name, tuple(frames))


def find(address: str, layout: Layout) -> Conversation[bytes | None]:
    """Whether a meter is there: its reply, or None. What holds nothing of its reply (noise, the late reply of another) is asked once more.

    Raises LineLost, Garbled (a reply began, and was damaged: something is there).
    """
    for _ in range(FIND_TRIES):
        try:
            return (yield from _read(address, layout, 1))
        except NoAnswer:
            break
        except (Noise, WrongMeter):
            continue
    return None


def write(address: str, model: Model, order: Write, password: str = DEFAULT_PASSWORD) -> Conversation[bytes | None]:
    """A setting: read, password, write (FACTS 1.8), with the frame that was read back where the order wants one.

    Raises NoAnswer, Garbled, WrongMeter, LineLost, PasswordRefused, PulseRatioRefused (nothing was written); WriteRefused (the meter's no); Unsure
    (written, and no acknowledgement understood). What may be repeated is tried as a whole again, what must not is written once.
    """
    layout = model.layouts[-1 if order.pulse_output is not None else 0]
    for _ in range(1 if order.once else TRIES):
        frame = yield from _read(address, layout, TRIES)
        if order.pulse_output is not None:
            _check_ratio(order.pulse_output, number(layout, frame, "CT_Ratio"))
        yield from _authenticate(address, layout, password)
        data = order.data if isinstance(order.data, str) else order.data()
        answer = yield Ask(write_request(order.register, data), Expect.ACK, order.what, unsafe=True)
        if answer.got is Got.ACK:
            return (yield from _read(address, model.layouts[0], TRIES)) if order.read_back else None
        if answer.got is Got.OTHER:
            raise WriteRefused(f"meter {address}: {order.what} was refused (it answered {answer.data.hex()})")
        if answer.got is Got.LOST:
            break
    raise Unsure(f"meter {address}: {order.what} was sent and not acknowledged ({_words(answer)}); whether the meter acted is not known")


def blocks(address: str, model: Model, registers: Sequence[str]) -> Conversation[tuple[bytes, ...]]:
    """The first reply of the meter, then these blocks, in their order (FACTS 1.9). Raises as ``read``."""
    frames = [(yield from _read(address, model.layouts[0], TRIES))]
    for register in registers:
        ask = Ask(block_request(register), Expect.FRAME, f"block {register}")
        frames.append((yield from _frame(address, ask, TRIES, lambda _: None)))
    return tuple(frames)


def _read(address: str, layout: Layout, tries: int) -> Conversation[bytes]:
    def strange(frame: bytes) -> str | None:
        if address not in (WILDCARD, meter_of(frame)):
            return f"meter {address}: {shown(meter_of(frame))} answered"
        if layout.request_type and field_of(layout, "Request_Type", frame) != layout.request_type:
            return f"meter {address}: asked for {layout.name}, another reply came"
        return None

    ask = Ask(read_request(address, layout), Expect.FRAME, f"read {layout.name}")
    return (yield from _frame(address, ask, tries, strange))


def _frame(address: str, ask: Ask, tries: int, strange: Callable[[bytes], str | None]) -> Conversation[bytes]:
    """A reply that is right; asked again up to ``tries`` times."""
    answer, other = Answer(Got.SILENCE), None
    for _ in range(tries):
        answer = yield ask
        if answer.got is Got.LOST:
            raise LineLost(f"meter {address}: {ask.what}: the port went away")
        if answer.got is Got.FRAME:
            other = strange(answer.data)  # perhaps the late answer to something earlier
            if other is None:
                return answer.data
    if answer.got is Got.FRAME and other is not None:
        raise WrongMeter(other)
    times = f"asked {tries} times" if tries > 1 else "asked once"
    if answer.got is Got.SILENCE:
        raise NoAnswer(f"meter {address}: {ask.what}: no answer, {times}")
    raise (Noise if answer.got is Got.NOISE else Garbled)(f"meter {address}: {ask.what}: {_words(answer)}, {times}")


def _authenticate(address: str, layout: Layout, password: str) -> Conversation[None]:
    answer = Answer(Got.SILENCE)
    for _ in range(PASSWORD_TRIES):
        answer = yield Ask(password_request(password), Expect.ACK, "password")
        if answer.got is Got.ACK:
            return
        if answer.got is Got.LOST:
            raise LineLost(f"meter {address}: password: the port went away")
        if answer.got is Got.OTHER:
            break
    if answer.got is Got.SILENCE:
        # How a meter says no is not published: it answers a read, and then not the password (FACTS 1.3). One that went away is silent, too.
        try:
            yield from _read(address, layout, 1)
        except (NoAnswer, Garbled, WrongMeter) as error:
            raise NoAnswer(f"meter {address}: password: no answer, nor a good one to a read behind it; nothing was written") from error
    if answer.got in (Got.OTHER, Got.SILENCE):
        raise PasswordRefused(f"meter {address}: wrong password: the meter did not accept it ({_words(answer)}); nothing was written")
    raise Garbled(f"meter {address}: password: {_words(answer)}; nothing was written")


def _check_ratio(ratio: int, ct_ratio: int | None) -> None:
    allowed = PULSE_OUTPUT.get(ct_ratio or 0, frozenset())
    if ratio not in allowed:
        listed = ", ".join(map(str, sorted(allowed))) or "none"
        raise PulseRatioRefused(f"pulse output ratio {ratio}: with the meter's CT ratio of {ct_ratio} these are allowed: {listed}")


def _words(answer: Answer) -> str:
    words = {
        Got.SILENCE: "no answer",
        Got.CUT: "the reply was cut off",
        Got.BAD_CRC: "bad CRC",
        Got.NOISE: "noise instead of a reply",
        Got.LOST: "the port went away",
        Got.FRAME: "a reply that was not asked for",
        Got.ACK: "acknowledged",
    }
    return words.get(answer.got) or f"it answered {answer.data.hex()}"


# ---------------------------------------------------------------------------------------------------------------- replies

Value = int | str
"""Of a field: the number that its digits make, without the decimals; or text, also for a number that nobody can read."""


def meter_of(frame: bytes) -> str:
    """The address in a reply."""
    return frame[4:16].decode("ascii", "replace")


def model_code(frame: bytes) -> str:
    """The field Model, four hexadecimal digits."""
    return frame[1:3].hex()


def firmware(frame: bytes) -> str:
    """The field Firmware, two hexadecimal digits."""
    return frame[3:4].hex()


def shown(text: str) -> str:
    """What a line said, for a person: nothing that a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def field_of(layout: Layout, name: str, frame: bytes) -> bytes:
    """The bytes of one field. Raises KeyError for one that the reply has not."""
    field = _fields(layout.name)[name]
    return frame[field.offset : field.offset + field.size]


def number(layout: Layout, frame: bytes, name: str) -> int | None:
    """One number, without its decimals; None when the field holds none, or the reply has no such field."""
    field = _fields(layout.name).get(name)
    value = None if field is None else _value(field, frame)
    return value if isinstance(value, int) else None


def fields(layout: Layout, frame: bytes) -> dict[str, Value]:
    """All fields of a reply, as they are on the wire, without the reserved ones and the CRC."""
    return {name: _value(field, frame) for name, field in _fields(layout.name).items()}


@lru_cache(maxsize=8)
def _fields(layout: str) -> Mapping[str, Field]:
    return {field.name: field for field in LAYOUTS[layout].fields if not field.name.startswith("reserved") and field.name != "crc16"}


def _value(field: Field, frame: bytes) -> Value:
    raw = frame[field.offset : field.offset + field.size]
    if field.kind is Kind.DIGITS:
        if raw.isdigit() or (raw := raw.strip(b" ")).isdigit():
            return int(raw)
    elif field.kind is Kind.RAW:
        return raw.hex()
    return raw.decode("ascii", "replace")


def energy_decimals(read: Read) -> int | None:
    """How many decimals the energy registers of this reading have: kWh_Scale; one on a v3. None when the meter says nothing that is known."""
    if read.model == "v3":
        return 1
    scale = number(LAYOUTS["A"], read.frames[0], "kWh_Scale") if read.frames else None
    return scale if scale in (0, 1, 2) else None


def months_decimals(model: Model, frame: bytes) -> int | None:
    """The same of the blocks of months, from the reply that was read before them."""
    return energy_decimals(Read("", model.name, (frame,)))


def values(read: Read, layouts: Sequence[Layout]) -> dict[str, Decimal | int | str]:
    """All fields under EKM's names, numbers with their decimals, B before A as Push3 has them (FACTS 4.6), and what EKM calculates of them.

    ``Cos_Theta_Ln_1`` is EKM's text (``0.97 C``), ``Power_Factor_Ln_1`` EKM's number (97 lagging, 103 leading), ``Net_Calc_Watts_*`` have their
    sign. A number that nobody can read is the text that came.
    """
    decimals = energy_decimals(read)
    found: dict[str, Decimal | int | str] = {}
    for layout, frame in reversed(list(zip(layouts, read.frames, strict=True))):
        for name, field in _fields(layout.name).items():
            value = _value(field, frame)
            if field.kind is Kind.POWER_FACTOR:
                found[name.replace("Cos_Theta", "Power_Factor")] = power_factor(str(value)) or 0
                value = cos_theta(str(value))
            exponent = -(decimals or 0) if field.exponent is None else field.exponent
            found[name] = Decimal(value).scaleb(exponent) if exponent and isinstance(value, int) else value
    signs = directions(found.get("State_Watts_Dir"))
    watts = [found.get(f"RMS_Watts_Ln_{line}") for line in (1, 2, 3)]
    if signs is not None and all(isinstance(one, int) for one in watts):
        net = [int(one) * sign for one, sign in zip(watts, signs, strict=True) if one is not None]
        found |= {f"Net_Calc_Watts_Ln_{line}": one for line, one in enumerate(net, 1)} | {"Net_Calc_Watts_Tot": sum(net)}
    return found


def power_factor(text: str) -> int | None:
    """EKM's number: 100 is unity, below it lags (inductive), above it leads (``C`` and 97 is 103). None for a field that says nothing."""
    letter, digits = text[:1], text[1:]
    if letter not in ("L", "C", " ") or not (digits.isascii() and digits.isdigit()):
        return None
    return 100 if letter == " " else int(digits) if letter == "L" else 200 - int(digits)


def cos_theta(text: str) -> str:
    """EKM's text: ``0.97 C``, ``1.00``; what cannot be read is given back."""
    if power_factor(text) is None:
        return text
    return f"{int(text[1:]) / 100:.2f} {text[0]}".rstrip()


_DIRECTIONS = ((1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1), (-1, -1, -1))


def directions(state: object) -> tuple[int, int, int] | None:
    """State_Watts_Dir -> of each line 1 (taken) or -1 (given back); None for a state that is none."""
    return _DIRECTIONS[state - 1] if isinstance(state, int) and 1 <= state <= 8 else None


def outputs(state: object) -> tuple[int, int] | None:
    """State_Out -> of each relay 1 while it is closed."""
    return ((0, 0), (0, 1), (1, 0), (1, 1))[state - 1] if isinstance(state, int) and 1 <= state <= 4 else None


def inputs(layout: Layout, frame: bytes) -> tuple[int, int, int] | None:
    """State_Inputs -> of each input 1 while its contact is closed (FACTS 1.6). On a v3 the three characters are read as the three bits."""
    raw = field_of(layout, "State_Inputs", frame)
    if len(raw) == 1:
        state = int(raw) if raw in (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7") else -1
        return (state >> 2 & 1, state >> 1 & 1, state & 1) if state >= 0 else None
    return (raw[0] & 1, raw[1] & 1, raw[2] & 1) if set(raw) <= set(b"01") else None


# ----------------------------------------------------------------------------------------------------------------- blocks

_SCHEDULE, _SEASONS, _MONTH, _WEEKEND = 48, 198, 40, 86
_FIRST = 6


def schedules(first: bytes, second: bytes, holidays: bytes) -> dict[str, int | None]:
    """The three blocks under EKM's names: ``Schedule_1_Period_1_Hour``…, ``Season_1_Month``…, ``Holiday_1_Mon``…, ``Weekend_Schd``, ``Holiday_Schd``.

    None stands for what nobody can read.
    """
    found: dict[str, int | None] = {}
    for schedule in range(1, 7):
        block, place = (first, schedule - 1) if schedule <= 4 else (second, schedule - 5)
        for period in range(1, 5):
            at = _FIRST + place * _SCHEDULE + (period - 1) * 6
            for offset, name in enumerate(("Hour", "Min", "Tariff")):
                found[f"Schedule_{schedule}_Period_{period}_{name}"] = _digits(block, at + 2 * offset, 2)
    for season in range(1, 5):
        for offset, name in enumerate(("Month", "Day", "Schedule")):
            found[f"Season_{season}_{name}"] = _digits(first, _SEASONS + (season - 1) * 6 + 2 * offset, 2)
    for holiday in range(1, 21):
        for offset, name in enumerate(("Mon", "Day")):
            found[f"Holiday_{holiday}_{name}"] = _digits(holidays, _FIRST + (holiday - 1) * 4 + 2 * offset, 2)
    found["Weekend_Schd"] = _digits(holidays, _WEEKEND, 2)
    found["Holiday_Schd"] = _digits(holidays, _WEEKEND + 2, 2)
    return found


def months(block: bytes, decimals: int | None) -> dict[str, float | None]:
    """A block of six months under EKM's names, in kWh: ``Month_1_Tot``, ``Month_1_Tariff_1``…; None for what nobody can read."""
    found: dict[str, float | None] = {}
    for month in range(1, 7):
        for place, name in enumerate(("Tot", "Tariff_1", "Tariff_2", "Tariff_3", "Tariff_4")):
            digits = _digits(block, _FIRST + (month - 1) * _MONTH + place * 8, 8)
            found[f"Month_{month}_{name}"] = None if digits is None or decimals is None else float(Decimal(digits).scaleb(-decimals))
    return found


def _digits(block: bytes, at: int, size: int) -> int | None:
    raw = block[at : at + size]
    return int(raw) if raw.isdigit() else None
