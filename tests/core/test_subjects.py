"""An id, whatever it holds, is one word of a subject and comes back as it was."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core import subjects


@given(st.text())
def test_an_id_is_one_word_that_nats_accepts_and_comes_back(id: str) -> None:
    word = subjects.word(id)
    assert re.fullmatch(r"[A-Za-z0-9_:%-]+", word)
    assert subjects.unword(word) == id


@given(st.text(), st.text())
def test_two_ids_are_two_words(one: str, other: str) -> None:
    assert (subjects.word(one) == subjects.word(other)) == (one == other)


@pytest.mark.parametrize(
    ("id", "subject"),
    [
        ("tic:021762010203", "readings.tic:021762010203"),
        ("os3p:SUBS 123", "readings.os3p:SUBS%20123"),
        ("ocpp:a.b*c>d", "readings.ocpp:a%2Eb%2Ac%3Ed"),
        ("ekm:é", "readings.ekm:%C3%A9"),
        ("", "readings.%"),
    ],
)
def test_subjects_of_devices(id: str, subject: str) -> None:
    assert subjects.readings(id) == subject


def test_an_integrations_own_subjects_do_not_meet_those_of_the_core() -> None:
    assert subjects.of("ekm", "channel", "a.b") == "own.ekm.channel.a%2Eb"
