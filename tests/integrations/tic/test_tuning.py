"""The search for the speed, told byte by byte what came, without any port."""

from __future__ import annotations

from gridloom.integrations.tic.codec import Group
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.tuning import ENOUGH, Tuning, Verdict

GOOD = Group("BASE", "008123456", mode=Mode.HISTORIC)
STANDARD = Group("EAST", "000123456", mode=Mode.STANDARD)
BAD = Group("BASE", "008123456", valid=False, mode=Mode.HISTORIC)


def found(tuning: Tuning) -> bool:
    """A call, because mypy takes an attribute that was False once to stay so."""
    return tuning.found


def test_two_good_groups_of_one_mode_prove_a_speed() -> None:
    tuning = Tuning()
    tuning.opened(0)
    assert tuning.speed == 9600
    tuning.heard(20, [GOOD], 0.1)
    assert not found(tuning)
    tuning.heard(20, [STANDARD], 0.2)
    assert not found(tuning), "noise has a right checksum now and then, but not twice in the same mode"
    tuning.heard(20, [STANDARD], 0.3)
    assert found(tuning)
    assert tuning.verdict(0.4) is Verdict.STAY


def test_the_configured_mode_says_which_speed_is_first() -> None:
    assert Tuning(Mode.HISTORIC).speed == 1200
    assert Tuning(Mode.STANDARD).speed == 9600


def test_nonsense_leads_to_the_other_speed_within_a_second_and_a_half() -> None:
    tuning = Tuning()
    tuning.opened(100)
    tuning.heard(ENOUGH, [], 100.1)
    assert tuning.verdict(100.8) is Verdict.STAY
    assert tuning.verdict(100.9) is Verdict.OTHER
    assert tuning.other(100.9) == 1200
    tuning.heard(ENOUGH, [], 101.0)
    assert tuning.verdict(102.4) is Verdict.STAY
    assert tuning.verdict(102.6) is Verdict.OTHER
    assert tuning.other(102.6) == 9600
    assert tuning.searches == 3


def test_a_few_bytes_prove_nothing() -> None:
    tuning = Tuning()
    tuning.opened(0)
    tuning.heard(ENOUGH - 1, [], 0.1)
    assert tuning.verdict(3.2) is Verdict.STAY, "an adapter that sends once in a few seconds"


def test_wrong_checksums_are_a_noisy_line_and_not_a_wrong_speed() -> None:
    tuning = Tuning()
    tuning.opened(0)
    tuning.heard(ENOUGH, [BAD, BAD], 0.1)
    assert tuning.verdict(2.9) is Verdict.STAY
    assert tuning.verdict(3.2) is Verdict.OTHER


def test_silence_tries_the_other_speed_in_between_and_is_told_in_the_end() -> None:
    tuning = Tuning(silent_after=10)
    tuning.opened(0)
    assert tuning.verdict(3.3) is Verdict.STAY
    assert tuning.verdict(3.4) is Verdict.OTHER
    tuning.other(3.4)
    assert tuning.verdict(6.6) is Verdict.STAY
    assert tuning.verdict(10.0) is Verdict.SILENT


def test_bytes_without_sense_for_too_long_are_not_silence() -> None:
    tuning = Tuning(silent_after=10)
    tuning.opened(0)
    for second in range(1, 10):
        tuning.heard(100, [], float(second))
        if tuning.verdict(float(second)) is Verdict.OTHER:
            tuning.other(float(second))
    assert tuning.verdict(10.0) is Verdict.NONSENSE


def test_a_line_that_falls_silent_after_it_was_read_is_silent() -> None:
    tuning = Tuning(silent_after=10)
    tuning.opened(0)
    tuning.heard(500, [GOOD] * 20, 1)
    tuning.heard(5, [], 1.01)  # the rest of the frame
    assert tuning.verdict(10.9) is Verdict.STAY
    assert tuning.verdict(11.1) is Verdict.SILENT
    tuning.opened(11.2)
    assert tuning.verdict(12) is Verdict.STAY


def test_a_meter_that_is_switched_overnight_is_searched_again_within_seconds() -> None:
    tuning = Tuning()
    tuning.opened(0)
    tuning.heard(500, [STANDARD] * 20, 1)
    assert found(tuning)
    tuning.heard(ENOUGH, [], 1.5)
    assert tuning.verdict(2.9) is Verdict.STAY
    assert tuning.verdict(3.1) is Verdict.CONFUSED
    assert tuning.other(3.1) == 1200
    assert not found(tuning)
    tuning.heard(50, [GOOD, GOOD], 3.5)
    assert found(tuning)


def test_a_mode_that_changes_at_the_same_speed_needs_no_search() -> None:
    """An adapter that re-emits what it hears at 9600 baud, behind a meter that was switched."""
    tuning = Tuning()
    tuning.opened(0)
    tuning.heard(500, [GOOD] * 10, 1)
    tuning.heard(500, [STANDARD] * 10, 2)
    assert found(tuning)
    assert tuning.verdict(3) is Verdict.STAY
