"""Energy is a difference of registers: the rules of ``storage.registers``, and that the parts always add up to the whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.storage import figures, registers
from gridloom.storage.figures import Numbers


def judged(values: list[Any], exponent: int = 0) -> tuple[int, list[int], list[int]]:
    """(the sum, places of spikes, places of resets)."""
    verdicts = registers.judge(np.array(values), exponent)
    return verdicts.increases.sum().item(), np.flatnonzero(verdicts.spikes).tolist(), np.flatnonzero(verdicts.resets).tolist()


@pytest.mark.parametrize(
    ("values", "total", "spikes", "resets"),
    [
        ([5000], 0, [], []),
        ([5000, 5010, 5010, 5025], 25, [], []),
        ([30_000_000, 30_000_500, 0, 100, 250], 500 + 250, [], [2]),  # begins again at zero
        ([30_000_000, 12_000_000, 12_000_700], 700, [], [1]),  # another meter in its place
        ([30_000, 30_010, 99_999_999, 30_020, 30_030], 30, [2], []),  # a spike up that comes back
        ([30_000, 30_010, 3, 30_020, 30_030], 30, [2], []),  # a spike down
        ([30_000, 30_010, 0], 10, [], [2]),  # the newest: perhaps a reset, perhaps a spike; nothing yet
        ([999_999_990, 15, 40], 25 + 25, [], [1]),  # nine digits run over
        ([99_999_990, 99_999_999, 4], 9 + 5, [], [2]),  # eight digits
        ([99_990, 3, 10], 7, [], [1]),  # too small to run over at all: a reset
        ([950_000_000, 20_000_000, 20_000_001], 1, [], [1]),  # near 10**9, but 7 % of the range would have had to pass
        ([100, 9999, 101, 9999, 102], 2, [1, 2, 3], []),
        ([0, 0, 0], 0, [], []),
    ],
)
def test_the_rules(values: list[int], total: int, spikes: list[int], resets: list[int]) -> None:
    assert judged(values) == (total, spikes, resets)


def test_roll_over_is_judged_in_base_units() -> None:
    assert judged([99_999_999, 1], exponent=-2)[0] == 2  # 999,999.99 -> 0.01: over at 10**6 base units
    assert judged([99_999, 0], exponent=1)[0] == 1  # 999,990 -> 0: one unit of ten
    assert judged([9_999, 0], exponent=1)[0] == 0  # 99,990 -> 0: too small to run over


def test_integers_of_any_size_are_exact() -> None:
    values = np.array([10**30, 10**30 + 7, 10**30 + 9], object)
    assert registers.judge(values, 0).increases.sum() == 9


def test_floats_are_judged_alike() -> None:
    assert judged([10.5, 11.0, 900.0, 11.5, 0.25, 0.5]) == (1.25, [2], [4])


def test_a_fall_between_clocks_is_no_reset() -> None:
    values = np.array([100, 110, 105, 120])
    verdicts = registers.judge(values, 0, np.array([0, 1, 0, 0]))
    assert verdicts.resets.sum() == 0
    assert verdicts.increases.sum() == 20


def test_a_fall_between_clocks_at_the_end_is_no_reset() -> None:
    assert registers.judge(np.array([100, 110, 5]), 0, np.array([0, 0, 1])).increases.tolist() == [0, 10, 0]
    assert registers.judge(np.array([100, 110, 5]), 0, np.array([0, 0, 1])).resets.sum() == 0
    assert registers.judge(np.array([100, 110, 5]), 0, np.array([0, 0, 0])).resets.sum() == 1


STEPS = st.one_of(st.integers(0, 50), st.integers(0, 50), st.integers(-100, 100), st.sampled_from([-(10**9), 10**9, 999_999_990]))


@st.composite
def registers_told(draw: st.DrawFn) -> list[int]:
    """A register that mostly counts up, with falls, jumps and values near where it runs over."""
    value = draw(st.sampled_from([0, 30_000, 999_999_900]))
    found = [value]
    for step in draw(st.lists(STEPS, max_size=40)):
        value = abs(value + step)
        found.append(value)
    return found


@st.composite
def a_register_and_borders(draw: st.DrawFn) -> tuple[Numbers, list[int]]:
    values = draw(registers_told())
    steps = draw(st.lists(st.integers(1, 30), min_size=len(values), max_size=len(values)))
    times = np.cumsum(np.array(steps, np.int64))
    suspect = np.array(draw(st.lists(st.sampled_from([False, False, False, True]), min_size=len(values), max_size=len(values))))
    last = int(times[-1]) + 5
    inner = draw(st.lists(st.integers(0, last), max_size=8))
    return Numbers(times, np.array(values), 0, suspect if suspect.any() else None), sorted({0, last, *inner})


def total(table: figures.Table) -> int:
    return int(table.columns["delta"].sum()) if len(table) else 0


@given(a_register_and_borders())
def test_the_parts_add_up_to_the_whole_exactly(given_: tuple[Numbers, list[int]]) -> None:
    samples, borders = given_
    whole = figures.increase_table(samples, np.array([borders[0], borders[-1]]))
    parts = figures.increase_table(samples, np.array(borders))
    assert total(parts) == total(whole)
    for name in ("count", "rejected", "resets"):
        assert parts.columns[name].sum() == whole.columns[name].sum()


@given(a_register_and_borders())
def test_questions_side_by_side_add_up_to_one_over_both(given_: tuple[Numbers, list[int]]) -> None:
    samples, borders = given_
    whole = figures.increase_table(samples, np.array([borders[0], borders[-1]]))
    assert sum(total(figures.increase_table(samples, np.array(pair))) for pair in pairwise(borders)) == total(whole)


@given(a_register_and_borders())
def test_an_increase_is_booked_where_the_later_reading_lies(given_: tuple[Numbers, list[int]]) -> None:
    """The same by a loop over the samples that shares nothing with the vectorised judgement."""
    samples, borders = given_
    booked: dict[int, int] = {}
    points = [
        (time, value)
        for time, value, bad in zip(
            samples.times.tolist(),
            samples.values.tolist(),
            [False] * len(samples.times) if samples.suspect is None else samples.suspect.tolist(),
            strict=True,
        )
        if not bad
    ]
    before: int | None = None
    for place, (time, value) in enumerate(points):
        if 0 < place < len(points) - 1:
            left, right = points[place - 1][1], points[place + 1][1]
            if left <= right < value or value < left <= right:
                continue
        increase = 0
        if before is not None and value >= before:
            increase = value - before
        elif before is not None and before > 0:
            wrap = 10 ** max(len(str(before)), 6)
            if (wrap - before + value) * 100 <= wrap:
                increase = wrap - before + value
        before = value
        begin = max(border for border in borders if border < time)
        booked[begin] = booked.get(begin, 0) + increase
    table = figures.increase_table(samples, np.array(borders))
    found = dict(zip(table.begins.tolist(), table.columns["delta"].tolist(), strict=True))
    assert {begin: amount for begin, amount in found.items() if amount} == {begin: amount for begin, amount in booked.items() if amount}


@given(registers_told())
def test_nothing_is_ever_counted_backwards(values: list[int]) -> None:
    assert (registers.judge(np.array(values), 0).increases >= 0).all()


def test_a_delta_says_since_when_it_counts() -> None:
    samples = Numbers(np.array([10, 20, 95]), np.array([100, 110, 150]), 0, None)
    table = figures.increase_table(samples, np.array([0, 30, 60, 100]))
    assert table.begins.tolist() == [0, 60]
    assert table.columns["delta"].tolist() == [10, 40]
    assert table.columns["since"].tolist() == [10, 20]  # the gap's energy falls on the first step after it
