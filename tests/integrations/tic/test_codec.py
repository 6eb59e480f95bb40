"""The grammar: captured frames against expectations made without our codec; any chunking; noise, damage, cut and glued frames; memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integrations.tic.splitter import split

from gridloom.integrations.tic.codec import MAX_DAMAGES, MAX_GROUPS, MAX_LABELS, Damage, Frame, Group, Parser, encode, identity, parse_horodate
from gridloom.integrations.tic.errors import Unsendable
from gridloom.integrations.tic.labels import Mode

DATA = Path(__file__).parents[2] / "data" / "tic"
FILES = sorted(file.stem for file in (DATA / "frames").glob("*.bin"))
PARIS = ZoneInfo("Europe/Paris")


def captured(name: str) -> bytes:
    return (DATA / "frames" / f"{name}.bin").read_bytes()


STANDARD = captured("std_mono_hphc_nb")
HISTORIC = captured("his_mono_tempo")
PRODUCER = captured("std_mono_producer_nb_fixck")
THREE = captured("his_tri_hchp_linky_fixck")
SHORT = captured("his_tri_short_adir1")


def feed(data: bytes, size: int | None = None, parser: Parser | None = None) -> list[Group | Damage | Frame]:
    parser = parser or Parser()
    if size is None:
        return parser.feed(data)
    return [one for begin in range(0, len(data), size) for one in parser.feed(data[begin : begin + size])]


def frames(values: list[Group | Damage | Frame]) -> list[Frame]:
    return [one for one in values if isinstance(one, Frame)]


def groups(values: list[Group | Damage | Frame]) -> list[Group]:
    return [one for one in values if isinstance(one, Group)]


def damages(values: list[Group | Damage | Frame]) -> list[Damage]:
    return [one for one in values if isinstance(one, Damage)]


def bare(group: Group) -> tuple[str, str, str, bool]:
    return (group.label, group.horodate, group.value, group.valid)


def good(values: list[Group | Damage | Frame]) -> list[tuple[str, str, str, bool]]:
    return [bare(group) for group in groups(values) if group.valid]


# ------------------------------------------------------------------------------------------------------------- captured frames


def test_there_are_all_twenty_files_and_their_expectations_are_as_the_splitter_says() -> None:
    assert len(FILES) == 20
    for name in FILES:
        assert json.loads((DATA / "expected" / f"{name}.json").read_text(encoding="utf-8")) == split(captured(name)), name


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [None, 1, 16, 62])
def test_a_captured_file_is_read_as_expected(name: str, size: int | None) -> None:
    expected = json.loads((DATA / "expected" / f"{name}.json").read_text(encoding="utf-8"))
    values = feed(captured(name), size)
    read = frames(values)
    assert [
        {
            "mode": frame.mode.value,
            "groups": [{"label": one.label, "horodate": one.horodate, "value": one.value, "valid": one.valid} for one in frame.groups],
        }
        for frame in read
    ] == expected
    assert not any(frame.partial for frame in read)
    assert sum(frame.size for frame in read) == len(captured(name))
    assert [one for frame in read for one in frame.groups] == groups(values)
    wrong = [group["label"] for frame in expected for group in frame["groups"] if not group["valid"]]
    assert [(one.reason, one.label) for one in damages(values)] == [("checksum", label) for label in wrong]


def test_a_group_is_told_at_its_cr_and_the_frame_at_its_etx() -> None:
    parser = Parser()
    begin = STANDARD.index(b"\nEAST")
    end = STANDARD.index(b"\r", begin)
    parser.feed(STANDARD[:begin])
    assert parser.feed(STANDARD[begin:end]) == []
    (group,) = parser.feed(STANDARD[end : end + 1])
    assert isinstance(group, Group)
    assert bare(group) == ("EAST", "", "003971026", True)
    assert STANDARD[group.offset :].startswith(b"EAST")
    assert not frames(parser.feed(STANDARD[end + 1 : -1]))
    assert len(frames(parser.feed(STANDARD[-1:]))) == 1


def test_offsets_and_positions_are_those_of_the_bytes() -> None:
    for group in frames(feed(b"xx" + STANDARD))[0].groups:
        assert STANDARD[group.offset :].startswith(group.label.encode() + b"\t")


def test_a_group_that_is_the_same_in_the_next_frame_has_its_own_offset_there() -> None:
    sources = [captured(name) for name in ("his_mono_base_linky_fixck", "his_mono_base_adps_fixck", "his_mono_base_linky_fixck")]
    for source, frame in zip(sources, frames(feed(b"".join(sources))), strict=True):
        assert all(source[group.offset :].startswith(f"{group.label} {group.value} ".encode()) for group in frame.groups)


def test_the_date_is_a_horodate_without_a_value_and_padding_is_kept() -> None:
    found = {group.label: group for group in feed(STANDARD) if isinstance(group, Group)}
    assert (found["DATE"].horodate, found["DATE"].value) == ("H240104145758", "")
    assert found["LTARF"].value == " HEURE  PLEINE  "
    assert "NJOURF+1" in found
    assert found["SMAXSN-1"].horodate == "H231229000615"


def test_a_checksum_may_be_a_space() -> None:
    assert b"PTEC HP..  \r" in THREE
    assert ("PTEC", "", "HP..", True) in good(feed(THREE))
    assert STANDARD.endswith(b"NONUTILE\t \r\x03")
    assert good(feed(STANDARD))[-1][0] == "PJOURF+1"


def test_a_frame_of_several_kilobytes_and_repeated_labels_are_kept_in_order() -> None:
    long = [Group("ADSC", "021762010203"), *(Group("EAST", f"{n:09}", mode=Mode.STANDARD) for n in range(120)), Group("PJOURF+1", "NONUTILE " * 10)]
    data = encode(Mode.STANDARD, long)
    assert len(data) > 1_536
    (frame,) = frames(feed(data, 7))
    assert [bare(group) for group in frame.groups] == [bare(group) for group in long]


def test_an_unknown_label_is_kept_as_text() -> None:
    (frame,) = frames(feed(encode(Mode.STANDARD, [Group("ADSC", "1"), Group("NEW+2-X", "some text"), Group("PJOURF+1", "")])))
    assert frame.groups[1].value == "some text"


# ------------------------------------------------------------------------------------------------------------------- checksums


def test_a_damaged_group_costs_that_group_only() -> None:
    data = bytearray(STANDARD)
    data[data.index(b"URMS1\t") + 6] ^= 1
    values = feed(bytes(data))
    (frame,) = frames(values)
    assert [group.label for group in frame.groups if not group.valid] == ["URMS1"]
    assert len(frame.groups) == 38
    assert not frame.partial
    assert [(one.reason, one.label) for one in frame.damages] == [("checksum", "URMS1")]


def test_a_single_bit_that_a_sum_of_six_bits_can_show_is_never_missed() -> None:
    """Also bit 5, in which the two checksum rules differ in historic mode. Bit 6 is 64: no checksum of TIC shows it, only the line's parity."""
    for source in (HISTORIC, STANDARD):
        whole = set(good(feed(source)))
        for position in range(1, len(source) - 1):
            for bit in range(6):
                data = bytearray(source)
                data[position] ^= 1 << bit
                assert not [one for one in good(feed(bytes(data))) if one not in whole], (position, bit)


def test_a_bit_that_no_checksum_shows_makes_no_serial_number() -> None:
    for position in range(len("ADSC\t") + 2, len("ADSC\t") + 14):
        data = bytearray(STANDARD)
        data[position] ^= 0x40
        (frame,) = frames(feed(bytes(data)))
        assert frame.groups[0].valid
        assert identity(frame) is None


@pytest.mark.parametrize("source", [HISTORIC, STANDARD])
def test_a_line_of_the_other_checksum_rule_is_read_from_its_second_frame(source: bytes) -> None:
    other = source
    lines = source[1:-1].split(b"\r")
    rebuilt = [line[:-1] + bytes(((sum(line[1:-1] if source is HISTORIC else line[1:-2]) & 0x3F) + 0x20,)) for line in lines if line]
    other = b"\x02" + b"".join(line + b"\r" for line in rebuilt) + b"\x03"
    assert other != source
    first, second, third = frames(feed(other * 3, 50))
    assert sum(group.valid for group in first.groups) < 3
    assert all(group.valid for group in second.groups)
    assert all(group.valid for group in third.groups)
    assert identity(second) == identity(frames(feed(source))[0])


def test_an_identity_comes_from_a_good_address_only() -> None:
    assert identity(frames(feed(captured("his_mono_base_linky")))[0]) is None
    assert identity(frames(feed(captured("his_mono_base_linky_fixck")))[0]) == "022672001765"
    assert identity(frames(feed(STANDARD))[0]) == "022161988996"


# --------------------------------------------------------------------------------------------------------- damaged delimiters


def test_cr_and_lf_that_became_other_control_characters_cost_nothing() -> None:
    data = STANDARD.replace(b"\r\nURMS1", b"\x0e\x0bURMS1").replace(b"\r\nPREF", b"\x0f\nPREF").replace(b"\r\nSTGE", b"\r\x1aSTGE")
    for size in (None, 1, 13):
        values = feed(data, size)
        (frame,) = frames(values)
        assert [bare(group) for group in frame.groups] == [bare(group) for group in frames(feed(STANDARD))[0].groups]
        assert {one.reason for one in frame.damages} == {"delimiter"}
        assert not frame.partial


@pytest.mark.parametrize("damaged", [b"\r*URMS1", b"-\nURMS1", b"-*URMS1", b"\t\nURMS1", b"\r\x02URMS1"])
def test_a_delimiter_that_became_printable_costs_at_most_one_group(damaged: bytes) -> None:
    values = feed(STANDARD.replace(b"\r\nURMS1", damaged), 5)
    (frame,) = frames(values)
    lost = {"URMS1", "IRMS1"} if damaged == b"-*URMS1" else set()
    assert {group.label for group in frames(feed(STANDARD))[0].groups} - {group.label for group in frame.groups if group.valid} == lost
    assert frame.damages


@pytest.mark.parametrize("end", [b"\x04", b"\x01", b"", b"C", b"\x02"])
def test_an_etx_that_became_something_else_does_not_glue_frames(end: bytes) -> None:
    values = feed(STANDARD[:-1] + end + STANDARD, 9)
    first, second = frames(values)
    assert [bare(group) for group in first.groups] == [bare(group) for group in second.groups] == good(feed(STANDARD))
    assert not first.partial
    assert not second.partial
    assert first.damages


def test_an_etx_in_the_middle_of_a_text_is_a_damaged_character() -> None:
    data = STANDARD.replace(b"CCASN\t", b"\x03CASN\t")
    (frame,) = frames(feed(data, 11))
    assert {group.label for group in frames(feed(STANDARD))[0].groups} - {group.label for group in frame.groups} == {"CCASN"}


def test_noise_before_stx_is_skipped_and_a_missing_stx_makes_a_frame_partial() -> None:
    values = feed(b"\x7f\x00garbage\r\n" + STANDARD)
    assert len(frames(values)) == 1
    assert not frames(values)[0].partial
    (frame,) = frames(feed(STANDARD[1:]))
    assert frame.partial
    assert len(frame.groups) == 38


def test_a_line_that_is_joined_in_the_middle_of_a_frame() -> None:
    middle = STANDARD.index(b"IRMS1")
    first, second = frames(feed(STANDARD[middle + 2 :] + STANDARD))
    assert first.partial
    assert first.groups[0].label == "URMS1"
    assert not second.partial


# ------------------------------------------------------------------------------------------------------------- partial frames


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("cut", [b"\r\nURMS1", b"1\t234\tC\r\nPREF", b"\r\nPJOURF+1"])
def test_a_frame_cut_by_an_early_etx_is_partial(known: bool, cut: bytes) -> None:
    parser = Parser()
    if known:
        parser.feed(STANDARD)
    early = STANDARD[: STANDARD.index(cut) + 1] + b"\x03"
    first, second = frames(feed(early + STANDARD, 20, parser))
    assert first.partial
    assert len(first.groups) < 38
    assert not second.partial


@pytest.mark.parametrize("known", [False, True])
def test_a_truncated_frame_and_a_new_stx_are_two_frames(known: bool) -> None:
    parser = Parser()
    if known:
        parser.feed(STANDARD)
    first, second = frames(feed(STANDARD[:400] + STANDARD, 31, parser))
    assert first.partial
    assert not second.partial
    assert [bare(group) for group in second.groups] == good(feed(STANDARD))


def test_frames_that_are_glued_without_etx_and_stx_are_both_partial() -> None:
    first, second = frames(feed(STANDARD[:400] + STANDARD[1:]))
    assert first.partial
    assert second.partial
    assert identity(second) == "022161988996"
    assert [bare(group) for group in second.groups] == good(feed(STANDARD))


def test_lost_bytes_inside_a_frame_make_it_partial() -> None:
    parser = Parser()
    parser.feed(STANDARD)
    gap = STANDARD[: STANDARD.index(b"EASF03") + 4] + STANDARD[STANDARD.index(b"EASD02") + 3 :]
    (frame,) = frames(parser.feed(gap))
    assert frame.partial
    assert frame.damages


def test_frames_whose_middle_is_another_frames_middle_are_partial() -> None:
    parser = Parser()
    parser.feed(STANDARD)
    glued = STANDARD[: STANDARD.index(b"\nURMS1")] + STANDARD[STANDARD.index(b"\nEASF05") :]
    (frame,) = frames(parser.feed(glued))
    assert frame.partial


def test_a_line_that_says_less_from_now_on_is_believed_the_second_time() -> None:
    """A peak day is over: PPOINTE is gone. An early ETX would not come twice at the same place."""
    read = list(frames(feed(STANDARD))[0].groups)
    peak = encode(Mode.STANDARD, [*read, Group("PPOINTE", "00008002 NONUTILE")])
    assert [frame.partial for frame in frames(feed(peak * 2 + STANDARD * 3))] == [False, False, True, False, False]


def test_a_label_that_comes_and_goes_in_the_middle_makes_nothing_partial() -> None:
    quiet, over = captured("his_mono_base_linky_fixck"), captured("his_mono_base_adps_fixck")
    assert [frame.partial for frame in frames(feed(quiet + over + quiet + over * 2 + quiet))] == [False] * 6


def test_short_three_phase_frames_are_whole_and_change_nothing() -> None:
    read = list(frames(feed(SHORT))[0].groups)
    spelled = encode(Mode.HISTORIC, [read[1], read[0], *read[2:]])  # ADIR1 first, as the specification has it
    assert [frame.partial for frame in frames(feed(spelled * 3 + SHORT * 2 + THREE + spelled + THREE))] == [False] * 8
    cut = encode(Mode.HISTORIC, [read[1], read[0], read[2]])
    assert frames(feed(cut))[0].partial


def test_a_frame_that_begins_with_another_label_is_partial_until_it_came_twice() -> None:
    read = list(frames(feed(HISTORIC))[0].groups)
    turned = encode(Mode.HISTORIC, [read[-1], *read[:-1], Group("PPOT", "00")])
    assert [frame.partial for frame in frames(feed(turned * 3))] == [True, False, False]


def test_a_switch_of_mode_overnight_is_read_at_once() -> None:
    read = frames(feed(HISTORIC * 2 + STANDARD + HISTORIC))
    assert [(frame.mode, frame.partial) for frame in read] == [
        (Mode.HISTORIC, False),
        (Mode.HISTORIC, False),
        (Mode.STANDARD, False),
        (Mode.HISTORIC, False),
    ]


def test_an_interrupted_frame_ends_with_eot() -> None:
    first, second = frames(feed(STANDARD[: STANDARD.index(b"\nURMS1")] + b"\x04" + STANDARD, 3))
    assert first.partial
    assert not second.partial


@pytest.mark.parametrize("cut", [len(STANDARD) - 1, 400, 402, STANDARD.index(b"\nURMS1"), STANDARD.index(b"\nURMS1") + 1])
@pytest.mark.parametrize("end", [b"", b"\x03"])
def test_what_is_under_way_when_the_line_ends_is_given_out(cut: int, end: bytes) -> None:
    parser = Parser()
    values = feed(STANDARD + STANDARD[:cut] + end, 30, parser) + parser.finish()
    first, second = frames(values)
    assert not first.partial
    assert second.partial == (cut != len(STANDARD) - 1)
    sent = STANDARD[:cut]
    assert [bare(group) for group in second.groups] == good(feed(STANDARD))[: sent.count(b"\r")]
    assert parser.finish() == []
    assert [frame.partial for frame in frames(parser.feed(HISTORIC))] == [False]


def test_nothing_is_given_out_at_the_end_when_nothing_was_under_way() -> None:
    parser = Parser()
    parser.feed(STANDARD)
    assert parser.finish() == []
    parser.feed(b"noise")
    assert not frames(parser.finish())


# ---------------------------------------------------------------------------------------------------------------- parity bit


def with_parity(data: bytes) -> bytes:
    """What 7E1 looks like to a port set to 8N1."""
    return bytes(byte | (byte.bit_count() & 1) << 7 for byte in data)


@pytest.mark.parametrize("name", FILES)
def test_a_line_read_as_8n1_is_understood(name: str) -> None:
    plain, high = feed(captured(name)), feed(with_parity(captured(name)), 10)
    assert groups(high) == groups(plain)
    assert [frame.partial for frame in frames(high)] == [frame.partial for frame in frames(plain)]
    assert all(frame.damages[-1].reason == "parity" or len(frame.damages) == MAX_DAMAGES for frame in frames(high))


def test_bit_7_is_told_of_the_frame_it_was_in() -> None:
    data = bytearray(STANDARD * 3)
    data[len(STANDARD) + 100] |= 0x80
    for size in (None, 1, 64):
        parser = Parser()
        assert [[one.reason for one in frame.damages] for frame in frames(feed(bytes(data), size, parser))] == [[], ["parity"], []]
        assert parser.statistics.stripped == 1


# ------------------------------------------------------------------------------------------------------------------ statistics


def test_statistics_count_per_label() -> None:
    data = bytearray(STANDARD)
    data[data.index(b"URMS1\t") + 6] ^= 1
    malformed = STANDARD.replace(b"EAST\t003971026\t", b"EAST 003971026\t")
    parser = Parser()
    feed(STANDARD + bytes(data) + malformed, 40, parser)
    counts = parser.statistics.labels
    assert (counts["URMS1"].seen, counts["URMS1"].bad_checksum, counts["URMS1"].malformed) == (3, 1, 0)
    assert (counts["EAST"].seen, counts["EAST"].bad_checksum, counts["EAST"].malformed) == (2, 0, 1)
    assert (parser.statistics.frames, parser.statistics.groups, parser.statistics.bad_checksum, parser.statistics.malformed) == (3, 113, 1, 1)
    assert parser.statistics.bytes == 3 * len(STANDARD)


def test_labels_in_the_statistics_are_bounded_and_never_made_of_noise() -> None:
    parser = Parser()
    for number in range(600):
        parser.feed(encode(Mode.STANDARD, [Group("ADSC", "1"), Group(f"X{number}", "1", valid=number % 2 == 0)]))
    counts = parser.statistics.labels
    assert len(counts) == MAX_LABELS + 1
    assert "X1" not in counts
    assert counts[""].bad_checksum == 300
    assert counts["ADSC"].seen == 600


def test_reset_forgets_the_line_and_keeps_the_statistics() -> None:
    parser = Parser()
    parser.feed(STANDARD + STANDARD[:200])
    parser.reset()
    (frame,) = frames(parser.feed(HISTORIC))
    assert not frame.partial
    assert frame.groups[0].offset == 2
    assert parser.statistics.frames == 2


# ------------------------------------------------------------------------------------------------------------------ properties

SOURCES = [captured(name) for name in FILES]


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    """Captured frames one after another, with bytes changed, put in, taken out."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SOURCES), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 12))):
        position = draw(st.integers(0, len(data) - 1))
        what = draw(st.integers(0, 4))
        if what == 0:
            data[position] ^= 1 << draw(st.integers(0, 7))
        elif what == 1:
            data[position] = draw(st.sampled_from([2, 3, 4, 9, 10, 13, 32, 0, 0x8D, 0x83]))
        elif what == 2:
            data[position:position] = draw(st.binary(max_size=300))
        elif what == 3:
            del data[position : position + draw(st.integers(0, 60))]
        else:
            data[position:position] = b"A" * draw(st.integers(200, 600))
        if not data:
            data += b"\x02"
    return bytes(data)


@given(data=damaged_lines(), cuts=st.lists(st.integers(1, 400), min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_chunking_gives_the_same_values(data: bytes, cuts: list[int]) -> None:
    whole = Parser()
    expected = whole.feed(data)
    parser, values, position = Parser(), [], 0
    turn = 0
    while position < len(data):
        step = cuts[turn % len(cuts)]
        values += parser.feed(data[position : position + step])
        position += step
        turn += 1
    assert values == expected
    assert parser.statistics == whole.statistics
    assert feed(data, 1) == expected


@given(st.binary(max_size=3_000))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_never_raise_and_a_good_frame_behind_them_is_read(data: bytes) -> None:
    parser = Parser()
    feed(data, 7, parser)
    values = parser.feed(b"\x03\x00" + STANDARD + STANDARD)
    assert [bare(group) for group in frames(values)[-1].groups] == good(feed(STANDARD))
    assert not frames(values)[-1].partial


@given(source=st.sampled_from([STANDARD, HISTORIC, THREE, PRODUCER]), noise=st.binary(min_size=1, max_size=80), seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_noise_put_into_one_group_never_loses_another(source: bytes, noise: bytes, seed: int) -> None:
    """Noise is put between LF and CR of one group; all others are found, whatever the noise is."""
    chooser = random.Random(seed)
    lines = source[1:-1].split(b"\r\n")
    victim = chooser.randrange(len(lines))
    position = chooser.randrange(2, len(lines[victim]) - 1) if victim else chooser.randrange(3, len(lines[victim]) - 1)
    spoilt = list(lines)
    spoilt[victim] = lines[victim][:position] + noise + lines[victim][position:]
    found = good(feed(b"\x02" + b"\r\n".join(spoilt) + b"\r\x03"))
    expected = good(feed(source))
    del expected[victim]
    missing = [one for one in expected if one not in found]
    assert not missing


@given(source=st.sampled_from([STANDARD, HISTORIC]), position=st.integers(0, 10_000), noise=st.binary(min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_noise_put_between_two_groups_loses_none_of_those_it_does_not_touch(source: bytes, position: int, noise: bytes) -> None:
    """Between a CR and an LF: the groups on both sides keep their delimiters."""
    gaps = [index + 1 for index, byte in enumerate(source) if byte == 0x0D]
    at = gaps[position % len(gaps)]
    found = good(feed(source[:at] + noise + source[at:] + b"\x02\n", 17))
    assert [one for one in good(feed(source)) if one not in found] == []


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
LABELS = st.from_regex(r"[A-Z][A-Z0-9+-]{1,11}", fullmatch=True)


@given(
    st.lists(
        st.tuples(LABELS, TEXT, st.sampled_from(["", "H240104145758", "e260712000000", " 000000000000"]), st.booleans()), min_size=1, max_size=60
    )
)
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_is_read_again_in_standard_mode(rows: list[tuple[str, str, str, bool]]) -> None:
    written = [Group(label, value, horodate, valid) for label, value, horodate, valid in rows]
    data = encode(Mode.STANDARD, written)
    assert [bare(group) for frame in frames(feed(data + b"\x02")) for group in frame.groups] == [bare(group) for group in written]


@given(st.lists(st.tuples(LABELS, TEXT, st.booleans()), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_is_read_again_in_historic_mode(rows: list[tuple[str, str, bool]]) -> None:
    written = [Group(label, value, "", valid, Mode.HISTORIC) for label, value, valid in rows]
    data = encode(Mode.HISTORIC, written)
    assert [bare(group) for frame in frames(feed(data + b"\x02")) for group in frame.groups] == [bare(group) for group in written]


@pytest.mark.parametrize("name", [name for name in FILES if "stream" not in name])
def test_a_captured_frame_is_encoded_to_its_own_bytes(name: str) -> None:
    (frame,) = frames(feed(captured(name)))
    made = encode(frame.mode, frame.groups)
    if all(group.valid for group in frame.groups):
        assert made == captured(name)
    else:
        assert [bare(group) for group in frames(feed(made))[0].groups] == [bare(group) for group in frame.groups]


@pytest.mark.parametrize(
    "group", [Group("EAST", "1\r2"), Group("EAST", "é"), Group("ea", "1"), Group("A B", "1"), Group("EAST", "1\t2"), Group("EAST", "\x7f")]
)
def test_what_no_frame_can_hold_is_not_encoded(group: Group) -> None:
    with pytest.raises(Unsendable):
        encode(Mode.STANDARD, [group])
    with pytest.raises(Unsendable, match="historic mode has none"):
        encode(Mode.HISTORIC, [Group("DATE", "", "H240104145758")])


# --------------------------------------------------------------------------------------------------------------- hostile lines


def noisy_line(seed: int, count: int, rate: float) -> tuple[bytes, list[list[tuple[str, str, str, bool]]]]:
    """Frames with changing values, each bit turned with probability ``rate``; and per frame the groups of which no bit was turned, LF to CR."""
    chooser = random.Random(seed)
    template = frames(feed(STANDARD))[0].groups
    out = bytearray()
    untouched = []
    for number in range(count):
        written = [
            Group(one.label, f"{int(one.value) + number % 9:0{len(one.value)}}", one.horodate)
            if one.value.isdigit() and one.label in ("EAST", "EASF02", "SINSTS", "IRMS1")
            else one
            for one in template
        ]
        frame = bytearray(encode(Mode.STANDARD, written))
        hurt = set()
        for position in range(len(frame)):
            for bit in range(7):
                if chooser.random() < rate:
                    frame[position] ^= 1 << bit
                    hurt.add(position)
        begin = 1
        clean = []
        for one in written:
            size = len(one.label) + len(one.value) + (len(one.horodate) + 1 if one.horodate else 0) + 5
            if not any(position in hurt for position in range(begin, begin + size)):
                clean.append(bare(one))
            begin += size
        untouched.append(clean)
        out += frame
    return bytes(out), untouched


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_bad_bit_in_a_thousand_costs_only_the_groups_it_hits(seed: int) -> None:
    data, untouched = noisy_line(seed, 60, 0.001)
    found = good(feed(data, 64))
    expected = [one for clean in untouched for one in clean]
    assert len(expected) > 60 * 38 * 0.6
    position = lost = 0
    for one in expected:  # in order
        try:
            position = found.index(one, position) + 1
        except ValueError:
            lost += 1
    assert lost <= len(expected) * 0.01
    assert len(found) - (len(expected) - lost) <= len(expected) * 0.01 + 60, "what was hit is hardly ever taken for good"


def hostile(chooser: random.Random, kind: str, size: int) -> bytes:
    if kind == "bits":
        return chooser.randbytes(size)
    if kind == "text":
        return b"ADSC\t" * (size // 5)
    if kind == "labels":
        return b"".join(encode(Mode.STANDARD, [Group(f"X{chooser.randrange(10**9)}", "1")])[1:-1] for _ in range(size // 20))
    if kind == "groups":
        return encode(Mode.STANDARD, [Group("EAST", str(chooser.randrange(10**9))) for _ in range(size // 20)])[:-1]
    if kind == "stx":
        return b"\x02\n" * (size // 2)
    return bytes(chooser.choice(b"\x02\x03\x04\n\r\t A1") for _ in range(size))


@pytest.mark.parametrize("kind", ["bits", "text", "labels", "groups", "stx", "delimiters"])
def test_megabytes_of_hostile_bytes_keep_memory_flat(kind: str) -> None:
    chooser = random.Random(7)
    parser = Parser()
    piece = hostile(chooser, kind, 65_536)
    for begin in range(0, len(piece), 512):
        parser.feed(piece[begin : begin + 512])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(4 if kind in ("labels", "delimiters", "stx") else 16):  # 1 MiB; of what tracemalloc makes slow, 256 KiB
            piece = hostile(chooser, kind, 65_536)
            for begin in range(0, len(piece), 512):
                parser.feed(piece[begin : begin + 512])
        del piece
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 300_000, f"{after - before} bytes more"
    values = parser.feed(b"\r\x03" + STANDARD * 2)
    assert [bare(group) for group in frames(values)[-1].groups] == good(feed(STANDARD))


def test_a_frame_without_an_end_is_given_in_pieces() -> None:
    data = encode(Mode.STANDARD, [Group("ADSC", "1"), *(Group("EAST", str(number)) for number in range(600))])
    for size in (None, 100):
        values = feed(data, size)
        assert all(frame.partial and len(frame.groups) <= MAX_GROUPS for frame in frames(values))
        assert len(good(values)) == 601
        assert "overflow" in {one.reason for one in damages(values)}


def test_damages_of_a_frame_are_bounded() -> None:
    data = b"\x02" + b"\nnothing\r" * 500 + STANDARD[1:]
    (frame,) = frames(feed(data))
    assert len(frame.damages) == MAX_DAMAGES
    assert all(len(one.raw) <= 64 for one in damages(feed(b"\x02\n" + b"A" * 255 + b"\r" + b"B" * 5_000 + b"\x03" + STANDARD)))


# ------------------------------------------------------------------------------------------------------------------- horodates


@pytest.mark.parametrize(
    ("text", "utc", "degraded", "assumed"),
    [
        ("H240104145758", "2024-01-04T13:57:58", False, False),
        ("E220327090500", "2022-03-27T07:05:00", False, False),
        ("e220327090500", "2022-03-27T07:05:00", True, False),
        ("h240104145758", "2024-01-04T13:57:58", True, False),
        (" 240104145758", "2024-01-04T13:57:58", False, True),
        (" 240704145758", "2024-07-04T12:57:58", False, True),
        # the hour that comes twice: the letter knows which one it is
        ("E261025023000", "2026-10-25T00:30:00", False, False),
        ("H261025023000", "2026-10-25T01:30:00", False, False),
        # a meter that has not changed its clock yet, or still: the letter is believed, not the table of dates
        ("H240704145758", "2024-07-04T13:57:58", False, False),
        ("E240104145758", "2024-01-04T12:57:58", False, False),
    ],
)
def test_a_horodate_is_read_by_its_season_letter(text: str, utc: str, degraded: bool, assumed: bool) -> None:
    from datetime import datetime

    found = parse_horodate(text, PARIS)
    assert found is not None
    assert found.time == int(datetime.fromisoformat(utc + "+00:00").timestamp()) * 1_000_000
    assert (found.degraded, found.assumed) == (degraded, assumed)


def test_a_horodate_of_another_zone_has_its_own_standard_time() -> None:
    found = parse_horodate("H240704120000", ZoneInfo("Indian/Reunion"))
    assert found is not None
    assert found.time == 1_720_080_000_000_000  # 08:00 UTC


@pytest.mark.parametrize(
    "text", ["", "H24010414575", "H2401041457588", "X240104145758", " 000000000000", "H240230000000", "H240104245758", "H24０104145758"]
)
def test_what_is_no_horodate_is_none(text: str) -> None:
    assert parse_horodate(text, PARIS) is None
