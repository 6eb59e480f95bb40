"""The grammar: vectors of FACTS, captured frames, every byte that a line can bring, and conversations that stop where they must."""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridloom.core.errors import DeviceError, DeviceTimeout, GridloomError, Refused
from gridloom.integrations.ekm import codec
from gridloom.integrations.ekm.codec import Answer, Ask, Expect, Got, Read, Receiver, Write
from gridloom.integrations.ekm.errors import Garbled, LineLost, NoAnswer, PasswordRefused, PulseRatioRefused, Unsure, WriteRefused, WrongMeter
from gridloom.integrations.ekm.models import MODELS
from gridloom.integrations.ekm.models.fields import LAYOUTS, A, B

DATA = Path(__file__).parents[2] / "data"
FRAME_A = (DATA / "ekm/v4_A_000350003229.bin").read_bytes()
FRAME_B = (DATA / "ekm/v4_B_000300000234.bin").read_bytes()
V4 = MODELS["v4"]
ADDRESS = "000350003229"


def replaced(frame: bytes, at: int, data: bytes) -> bytes:
    """The frame with other bytes at an offset, and the CRC that goes with them (checked by the vectors, not by this)."""
    body = frame[:at] + data + frame[at + len(data) : -2]
    return body + codec.checksum(body[1:])


FRAME_B_SAME = replaced(FRAME_B, 4, ADDRESS.encode())


# ----------------------------------------------------------------------------------------------------------- requests, CRC


def test_the_checksum_of_the_textbook() -> None:
    assert codec.checksum(b"123456789").hex() == "374b"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (codec.password_request("00000000"), "0150310228303030303030303029033244"),
        (codec.block_request("0011"), "01523102303031312829031316"),
        (codec.block_request("0012"), "01523102303031322829031352"),
        (codec.block_request("0070"), "01523102303037302829031A6A"),
        (codec.block_request("0071"), "01523102303037312829031B16"),
        (codec.block_request("00B0"), "01523102303042302829031721"),
        (codec.write_request("00D0", "0400"), "0157310230304430283034303029037460"),
        (codec.write_request("0081", "10001"), "015731023030383128313030303129036021"),
        (codec.write_request("0050", "2"), "0157310230303530283229035403"),
        (codec.write_request("00D5", "3"), "0157310230304435283329034322"),
        (codec.write_request("0040", "000000"), "0157310230303430283030303030302903012B"),
        (codec.write_request("0060", "26112005233005"), "01573102303036302832363131323030353233333030352903751F"),
        (codec.write_request("00A1", "0055"), "0157310230304131283030353529036B71"),
        (codec.write_request("00D4", "0040"), "0157310230304434283030343029030563"),
        (codec.write_request("00C0", "0102"), "0157310230304330283031303229033F10"),
        (codec.write_request("00D3", ""), "01573102303044332829030F75"),
        (codec.write_request("0020", "12345678"), "015731023030323028313233343536373829032518"),
        (codec.END, "0142300375"),
        (codec.read_request("000300000234", LAYOUTS["V3"]), b"/?000300000234!\r\n".hex()),
        (codec.read_request("000300000234", A), b"/?00030000023400!\r\n".hex()),
        (codec.read_request("000300000234", B), b"/?00030000023401!\r\n".hex()),
    ],
)  # fmt: skip
def test_requests_are_those_of_the_facts(made: bytes, expected: str) -> None:
    assert made.hex().upper() == expected.upper()


def test_captured_frames_have_the_right_checksum_and_any_flipped_bit_has_not() -> None:
    for frame in (FRAME_A, FRAME_B):
        assert codec.is_valid(frame)
        for place in range(len(frame)):
            for bit in range(7):
                assert not codec.is_valid(frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :])


@pytest.mark.parametrize(("text", "address"), [("234", "000000000234"), ("000300000234", "000300000234"), ("999999999999", "999999999999")])
def test_addresses_are_shown_with_twelve_digits(text: str, address: str) -> None:
    assert codec.address_of(text) == address


@pytest.mark.parametrize("text", ["", "1234567890123", "12a", "-1", "١٢", " 1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 12 digits"):
        codec.address_of(text)


# ------------------------------------------------------------------------------------------------------------------ tables


def test_the_tables_are_those_of_the_facts_and_fill_every_frame() -> None:
    rows = list(csv.DictReader((DATA / "specs/ekm_frames.csv").read_text().splitlines()))
    for layout in LAYOUTS.values():
        expected = [row for row in rows if row["frame"].removeprefix("V4-") == layout.name]
        assert [(field.name, str(field.offset), str(field.size)) for field in layout.fields] == [
            (row["field"], row["offset"], row["length"]) for row in expected
        ]
        scales = {"1": 0, "/10": -1, "/100": -2, "kWh-scale": None}
        assert [field.exponent for field in layout.fields] == [scales[row["scale"]] for row in expected]
        end = 0
        for field in layout.fields:
            assert field.offset == end
            end += field.size
        assert end == codec.FRAME


# ------------------------------------------------------------------------------------------------------------------ values


def test_the_captured_a_frame_says_what_its_owner_saw() -> None:
    found = codec.fields(A, FRAME_A)
    assert found["Meter_Address"] == "000350003229"
    assert found["Meter_Time"] == "18091103051056"
    assert found["Cos_Theta_Ln_1"] == "L099"
    assert (found["kWh_Scale"], found["State_Watts_Dir"], found["State_Out"], found["State_Inputs"]) == (2, 1, 1, 0)
    assert (found["Model"], found["Firmware"], found["Request_Type"]) == ("1024", "1d", "00")
    both = codec.values(Read(ADDRESS, "v4", (FRAME_A, FRAME_B_SAME)), V4.layouts)
    assert str(codec.values(Read(ADDRESS, "v4", (FRAME_A,)), (A,))["RMS_Volts_Ln_1"]) == "118.4"
    assert str(both["Line_Freq"]) == "60.02"
    assert [both[f"Pulse_Cnt_{line}"] for line in (1, 2, 3)] == [4, 0, 0]


def test_the_captured_b_frame_is_scaled_by_its_a_frame() -> None:
    a = replaced(replaced(FRAME_A, 230, b"1"), 228, b"1")
    found = codec.values(Read(ADDRESS, "v4", (a, FRAME_B_SAME)), V4.layouts)
    assert str(found["kWh_Tariff_1"]) == "31108.8"
    assert str(found["Rev_kWh_Tariff_2"]) == "279.7"
    assert str(found["RMS_Watts_Max_Demand"]) == "22640.0"
    assert (found["CT_Ratio"], found["CF_Ratio"], found["Pulse_Ratio_2"]) == (400, 800, 3)
    assert found["Meter_Status_Code_A"] == "30"
    assert codec.fields(B, FRAME_B)["RMS_Watts_Tot"] == 6456


@pytest.mark.parametrize(
    ("raw", "number", "text"),
    [("L099", 99, "0.99 L"), ("C000", 200, "0.00 C"), (" 100", 100, "1.00"), ("C097", 103, "0.97 C"), ("X123", None, "X123"), ("L1x2", None, "L1x2")],
)
def test_power_factors(raw: str, number: int | None, text: str) -> None:
    assert codec.power_factor(raw) == number
    assert codec.cos_theta(raw) == text


def test_directions_and_states() -> None:
    signs = [codec.directions(state) for state in range(1, 9)]
    assert signs == [(1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1), (-1, -1, -1)]
    assert [codec.directions(state) for state in (0, 9, "x", None)] == [None] * 4
    assert [codec.outputs(state) for state in (1, 2, 3, 4, 5)] == [(0, 0), (0, 1), (1, 0), (1, 1), None]
    assert codec.inputs(A, replaced(FRAME_A, 227, b"4")) == (1, 0, 0)
    assert codec.inputs(A, replaced(FRAME_A, 227, b"3")) == (0, 1, 1)
    assert codec.inputs(A, replaced(FRAME_A, 227, b"9")) is None


def test_net_watts_have_the_sign_of_their_line() -> None:
    a = replaced(replaced(FRAME_A, 228, b"3"), 131, b"000010000002000000300")
    found = codec.values(Read(ADDRESS, "v4", (a,)), (A,))
    assert [found[f"Net_Calc_Watts_{line}"] for line in ("Ln_1", "Ln_2", "Ln_3", "Tot")] == [100, -200, 300, 200]


@given(st.binary(min_size=255, max_size=255), st.sampled_from(["v3", "v4", "v5"]))
def test_any_255_bytes_are_read_without_an_error(data: bytes, name: str) -> None:
    model = MODELS[name]
    data = data.translate(bytes(byte & 0x7F for byte in range(256)))
    codec.values(Read(ADDRESS, name, (data,) * len(model.layouts)), model.layouts)
    codec.schedules(data, data, data)
    codec.months(data, codec.energy_decimals(Read(ADDRESS, name, (data,))))
    for layout in model.layouts:
        codec.inputs(layout, data) if layout is not B else None


# ---------------------------------------------------------------------------------------------------------------- receiver

ASK = Ask(codec.read_request(ADDRESS, A), Expect.FRAME, "read A")
ASK_ACK = Ask(codec.password_request("00000000"), Expect.ACK, "password")
pieces = st.lists(st.integers(1, 80), min_size=0, max_size=30)


def told(ask: Ask, data: bytes, sizes: list[int] | None = None) -> Answer:
    receiver = Receiver(ask)
    for size in sizes or ():
        piece, data = data[:size], data[size:]
        if receiver.feed(piece):
            return receiver.close()
    receiver.feed(data)
    return receiver.close()


def with_parity(data: bytes) -> bytes:
    """As a line of 7E1 arrives where somebody reads 8N1."""
    return bytes(byte | (byte.bit_count() & 1) << 7 for byte in data)


@given(pieces, st.booleans(), st.booleans(), st.binary(max_size=60).filter(lambda noise: 2 not in noise.translate(codec._SEVEN_BITS)))
def test_a_frame_is_found_in_any_pieces_with_echo_parity_and_noise(sizes: list[int], echo: bool, parity: bool, noise: bytes) -> None:
    data = (ASK.data if echo else b"") + noise + FRAME_A
    answer = told(ASK, with_parity(data) if parity else data, sizes)
    assert (answer.got, answer.data) == (Got.FRAME, FRAME_A)


@given(st.binary(max_size=700))
@example(FRAME_A[:-1])
@example(b"\x02" + FRAME_A)
@example(FRAME_A[:100] + FRAME_A)
def test_whatever_comes_only_a_frame_with_the_right_checksum_is_one(data: bytes) -> None:
    answer = told(ASK, data)
    if answer.got is Got.FRAME:
        assert codec.is_valid(answer.data)
        assert answer.data in data.translate(codec._SEVEN_BITS)
    else:
        assert answer.data == b""


@given(st.integers(0, 254), st.integers(0, 6))
def test_a_flipped_bit_is_a_bad_crc_or_no_frame(place: int, bit: int) -> None:
    assert told(ASK, FRAME_A[:place] + bytes([FRAME_A[place] ^ 1 << bit]) + FRAME_A[place + 1 :]).got in (Got.BAD_CRC, Got.NOISE, Got.CUT)


@given(st.integers(1, 254))
def test_a_frame_that_is_cut_off_is_told_as_that(size: int) -> None:
    answer = told(ASK, FRAME_A[:size])
    assert answer.got is Got.CUT


def test_a_frame_behind_noise_with_a_start_byte_in_it_is_found() -> None:
    assert told(ASK, b"\x02zzz" + FRAME_A) == Answer(Got.FRAME, FRAME_A, 4)
    assert told(ASK, FRAME_A[:200] + FRAME_A).data == FRAME_A


def test_how_many_bytes_are_missing_is_known() -> None:
    receiver = Receiver(ASK)
    assert receiver.missing == 255
    receiver.feed(FRAME_A[:100])
    assert (receiver.missing, receiver.heard) == (155, True)
    receiver.feed(b"x" + FRAME_A[101:])
    assert (receiver.missing, receiver.answer) == (0, None), "damaged: nothing more needs to come"


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"\x06", Got.ACK), (b"\x86", Got.ACK), (b"\x00\xff\x06", Got.ACK), (ASK_ACK.data + b"\x06", Got.ACK), (b"", Got.SILENCE),
        (ASK_ACK.data, Got.SILENCE), (b"\x15", Got.OTHER), (b"ab\x06", Got.NOISE), (b"\x06\x06", Got.NOISE), (FRAME_A, Got.NOISE),
        (ASK_ACK.data[:9], Got.NOISE),
    ],
)  # fmt: skip
def test_an_acknowledgement_is_one_byte_and_nothing_else(data: bytes, got: Got) -> None:
    assert told(ASK_ACK, data).got is got


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("size", [1, 3, 300])
def test_the_echo_of_the_end_before_is_none_of_the_answer(at: int, size: int) -> None:
    late = codec.END[at:]
    assert told(ASK, late + ASK.data, [size] * 300) == Answer(Got.SILENCE)
    assert told(ASK, late + ASK.data + FRAME_A, [size] * 300) == Answer(Got.FRAME, FRAME_A)


def test_a_password_whose_echo_holds_an_acknowledgement_does_not_acknowledge_itself() -> None:
    passwords = [f"{number:08d}" for number in range(3000) if 6 in codec.password_request(f"{number:08d}")[-2:]]
    assert passwords
    for password in passwords[:20]:
        ask = Ask(codec.password_request(password), Expect.ACK, "password")
        assert told(ask, ask.data, [1] * 30).got is Got.SILENCE
        assert told(ask, b"\x07" + ask.data[1:], [1] * 30).got is Got.NOISE, "an echo that a collision has damaged"


# ----------------------------------------------------------------------------------------------------------- conversations

GOOD, SILENT, LOST = Answer(Got.ACK), Answer(Got.SILENCE), Answer(Got.LOST)
RELAY = Write("0081", "10001", "SetRelay", once=True)
RATIO = Write("00D0", "0400", "SetCTRatio")


def hold(conversation: Any, answers: list[Answer]) -> tuple[list[str], Any]:
    """What was asked, and the result or the error."""
    asked: list[str] = []
    try:
        ask = next(conversation)
        for answer in answers:
            asked.append(ask.what)
            ask = conversation.send(answer)
        raise AssertionError(f"it asks {ask.what} still")
    except StopIteration as end:
        return asked, end.value
    except GridloomError as error:
        return asked, error


def frame(data: bytes) -> Answer:
    return Answer(Got.FRAME, data)


def test_a_v4_is_read_twice_and_a_v3_once() -> None:
    asked, read = hold(codec.read(ADDRESS, V4), [frame(FRAME_A), frame(FRAME_B_SAME)])
    assert asked == ["read A", "read B"]
    assert read.frames == (FRAME_A, FRAME_B_SAME)
    asked, read = hold(codec.read(ADDRESS, MODELS["v3"]), [frame(FRAME_A)])
    assert asked == ["read V3"]


def test_the_wildcard_takes_the_address_that_answers() -> None:
    conversation = codec.read(codec.WILDCARD, V4)
    assert next(conversation).data == b"/?99999999999900!\r\n"
    assert conversation.send(frame(FRAME_A)).data == b"/?00035000322901!\r\n"


@pytest.mark.parametrize("bad", [Got.SILENCE, Got.BAD_CRC, Got.CUT, Got.NOISE])
def test_a_read_is_tried_three_times(bad: Got) -> None:
    asked, _ = hold(codec.read(ADDRESS, V4), [Answer(bad), Answer(bad), frame(FRAME_A), frame(FRAME_B_SAME)])
    assert asked == ["read A"] * 3 + ["read B"]
    asked, error = hold(codec.read(ADDRESS, V4), [Answer(bad)] * 3)
    assert asked == ["read A"] * 3
    assert isinstance(error, NoAnswer if bad is Got.SILENCE else Garbled)
    assert ADDRESS in error.message


def test_another_meters_reply_or_the_other_reply_is_never_taken() -> None:
    asked, error = hold(codec.read("000000000001", V4), [frame(FRAME_A)] * 3)
    assert isinstance(error, WrongMeter)
    assert ADDRESS in error.message
    asked, read = hold(codec.read(ADDRESS, V4), [frame(FRAME_B_SAME), frame(FRAME_A), frame(FRAME_A), frame(FRAME_B_SAME)])
    assert asked == ["read A", "read A", "read B", "read B"]
    assert read.frames == (FRAME_A, FRAME_B_SAME)


def test_a_setting_is_read_password_write() -> None:
    conversation = codec.write(ADDRESS, V4, RELAY, "12345678")
    assert next(conversation).data == codec.read_request(ADDRESS, A)
    assert conversation.send(frame(FRAME_A)).data == codec.password_request("12345678")
    ask = conversation.send(GOOD)
    assert (ask.data, ask.unsafe) == (codec.write_request("0081", "10001"), True)
    with pytest.raises(StopIteration):
        conversation.send(GOOD)


@pytest.mark.parametrize("no", [[SILENT, SILENT], [Answer(Got.OTHER, b"\x15")], [Answer(Got.NOISE), SILENT]])
def test_a_refused_password_raises_and_nothing_more_is_written(no: list[Answer]) -> None:
    again = [frame(FRAME_A)] if no[-1] is SILENT else []
    asked, error = hold(codec.write(ADDRESS, V4, RELAY), [frame(FRAME_A), *no, *again])
    assert isinstance(error, PasswordRefused)
    assert "SetRelay" not in asked
    assert "00000000" not in error.message


@pytest.mark.parametrize("bad", [SILENT, Answer(Got.NOISE), Answer(Got.CUT), frame(FRAME_B_SAME)])
def test_a_meter_that_went_away_behind_its_reply_has_refused_no_password(bad: Answer) -> None:
    asked, error = hold(codec.write(ADDRESS, V4, RELAY), [frame(FRAME_A), SILENT, SILENT, bad])
    assert isinstance(error, NoAnswer)
    assert asked == ["read A", "password", "password", "read A"]
    assert "nothing was written" in error.message


@pytest.mark.parametrize("bad", [Got.SILENCE, Got.NOISE, Got.CUT, Got.BAD_CRC, Got.LOST])
def test_a_relay_pulse_that_may_have_happened_is_never_sent_again(bad: Got) -> None:
    asked, error = hold(codec.write(ADDRESS, V4, RELAY), [frame(FRAME_A), GOOD, Answer(bad)])
    assert asked.count("SetRelay") == 1
    assert isinstance(error, Unsure)
    assert isinstance(error, DeviceTimeout)
    assert not isinstance(error, Refused), "a refusal would promise that nothing was sent"


def test_what_may_be_repeated_is_as_a_whole() -> None:
    once = [frame(FRAME_A), GOOD]
    asked, result = hold(codec.write(ADDRESS, V4, RATIO), [*once, SILENT, *once, GOOD])
    assert asked == ["read A", "password", "SetCTRatio"] * 2
    assert result is None
    asked, error = hold(codec.write(ADDRESS, V4, RATIO), [*once, SILENT] * 3)
    assert isinstance(error, Unsure)
    assert asked.count("SetCTRatio") == 3


def test_the_meters_no_is_told_and_not_repeated() -> None:
    asked, error = hold(codec.write(ADDRESS, V4, RATIO), [frame(FRAME_A), GOOD, Answer(Got.OTHER, b"\x15")])
    assert isinstance(error, WriteRefused)
    assert "15" in error.message
    assert asked.count("SetCTRatio") == 1


def test_a_port_that_goes_away_before_the_write_is_a_refusal() -> None:
    for answers in ([LOST], [frame(FRAME_A), LOST]):
        _, error = hold(codec.write(ADDRESS, V4, RELAY), answers)
        assert isinstance(error, LineLost)
        assert isinstance(error, Refused)


def test_a_pulse_output_ratio_must_suit_the_meters_ct_ratio() -> None:
    """The captured meter has a CT ratio of 400."""
    fits, not_ = (Write("00D4", f"{ratio:04d}", "SetPulseOutputRatio", pulse_output=ratio) for ratio in (40, 64))
    asked, error = hold(codec.write(ADDRESS, V4, not_), [frame(FRAME_B_SAME)])
    assert isinstance(error, PulseRatioRefused)
    assert asked == ["read B"]
    asked, _ = hold(codec.write(ADDRESS, V4, fits), [frame(FRAME_B_SAME), GOOD, GOOD])
    assert asked == ["read B", "password", "SetPulseOutputRatio"]


def test_the_time_is_made_at_the_moment_of_sending_and_the_clock_read_back() -> None:
    made: list[str] = []

    def data() -> str:
        made.append("x")
        return "26112107120000"

    conversation = codec.write(ADDRESS, V4, Write("0060", data, "SetTime", once=True, read_back=True))
    next(conversation)
    conversation.send(frame(FRAME_A))
    assert made == []
    assert conversation.send(GOOD).data == codec.write_request("0060", "26112107120000")
    assert conversation.send(GOOD).what == "read A"
    with pytest.raises(StopIteration) as end:
        conversation.send(frame(FRAME_A))
    assert end.value.value == FRAME_A


@given(st.lists(st.sampled_from([*Got]), min_size=1, max_size=40), st.booleans())
def test_whatever_comes_a_conversation_ends_and_a_pulse_is_sent_once_at_most(gots: list[Got], once: bool) -> None:
    random = Random(len(gots))
    conversation = codec.write(ADDRESS, V4, RELAY if once else RATIO)
    writes, sent_password = 0, False
    ask = next(conversation)
    for got in gots * 3:
        if ask.unsafe:
            writes += 1
            assert sent_password
        try:
            ask = conversation.send(Answer(got, random.choice([FRAME_A, FRAME_B]) if got is Got.FRAME else b"\x15"))
        except StopIteration:
            break
        except (DeviceError, DeviceTimeout, Refused):
            break
        sent_password = sent_password or ask.what == "password"
    assert writes <= (1 if once else 3)


def test_blocks_are_read_behind_a_read_in_one_session() -> None:
    asked, result = hold(codec.blocks(ADDRESS, V4, ("0070", "00B0")), [frame(FRAME_A), SILENT, frame(FRAME_B), frame(FRAME_A)])
    assert asked == ["read A", "block 0070", "block 0070", "block 00B0"]
    assert result == (FRAME_A, FRAME_B, FRAME_A)


def test_a_search_asks_once_and_tells_nobody_apart_from_noise() -> None:
    assert hold(codec.find(ADDRESS, A), [SILENT]) == (["read A"], None)
    assert hold(codec.find(ADDRESS, A), [frame(FRAME_A)])[1] == FRAME_A
    assert hold(codec.find(ADDRESS, A), [Answer(Got.NOISE)] * 2) == (["read A"] * 2, None), "noise is nobody"
    assert hold(codec.find("000000000001", A), [frame(FRAME_A)] * 2) == (["read A"] * 2, None), "a late reply of another is nobody"
    assert hold(codec.find(ADDRESS, A), [Answer(Got.NOISE), frame(FRAME_A)])[1] == FRAME_A
    for bad in (Got.CUT, Got.BAD_CRC):
        assert isinstance(hold(codec.find(ADDRESS, A), [Answer(bad)])[1], Garbled)
