"""Identifiers that sort by time, and those that are made of what they are of."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from gridloom.core import ids

MOMENTS = st.integers(0, 4_000_000_000_000_000)


@given(MOMENTS, MOMENTS)
def test_unique_ids_sort_by_time(one: int, other: int) -> None:
    if abs(one - other) > 1:
        assert (ids.unique(one) < ids.unique(other)) == (one < other)


def test_unique_ids_are_uuids_of_version_7() -> None:
    parsed = uuid.UUID(ids.unique(1_764_000_000_123_456))
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == 1_764_000_000_123


def test_unique_ids_of_one_moment_differ() -> None:
    assert len({ids.unique(5) for _ in range(1_000)}) == 1_000


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_digest_is_of_its_parts_and_of_no_others(one: list[str], other: list[str]) -> None:
    assert (ids.digest(*one) == ids.digest(*other)) == (one == other)


@given(MOMENTS, MOMENTS, st.text())
def test_ids_at_a_moment_sort_by_it(one: int, other: int, key: str) -> None:
    assert len(ids.at(one, key)) == 32
    if one != other:
        assert (ids.at(one, key) < ids.at(other, key)) == (one < other)
    assert ids.at(one, key) == ids.at(one, key)
