"""What a year of effective street-light schedules costs: four contactors, 365 days, sun and DST included; JSON on standard output.

Each contactor has the profiles of a real station: all night on the sun, a dimmed night with absolute times, Saturdays, and a fair of two weeks.
Floors of the same run: the sun of the 365 days alone (nobody can do it without), and a loop that only visits the days. The caches of the engine are
emptied before every round. ``.venv/bin/python bench/os3p_schedule.py [--rounds 7] [--check]``; ``--check`` exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from gridloom.integrations.os3p import schedule
from gridloom.integrations.os3p.schedule import Bound, Period, Place, Profile

LIMIT_SECONDS = 0.5
"""Issue 5, Speed."""
PLACE = Place(ZoneInfo("Europe/Amsterdam"), 52.09, 5.12)
DAYS = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
HOUR = 3_600_000


def absolute(hours: float) -> Bound:
    return Bound("Absolute", int(hours * HOUR))


def profiles() -> list[Profile]:
    """Four profiles for each of four contactors."""
    sunset, sunrise = Bound("Sunset", 600_000), Bound("Sunrise", -600_000)
    night = (Period(sunset, sunrise),)
    dimmed = (Period(sunset, absolute(1)), Period(absolute(6), sunrise))
    fair = (Period(absolute(16.5), absolute(2.5)), Period(absolute(5), absolute(8.25)))
    made = []
    for contactor in range(1, 5):
        made += [
            Profile(contactor, 1, 0, "Daily", None, None, night),
            Profile(contactor, 2, 1, "Daily", date(2026, 2, 1), date(2026, 11, 30), dimmed),
            Profile(contactor, 3, 2, "Weekly", date(2026, 1, 3), None, night),
            Profile(contactor, 4, 3, "Daily", date(2026, 10, 19), date(2026, 11, 1), fair),
        ]
    return made


def best(rounds: int, work: Callable[[], None]) -> float:
    """Seconds of the quickest round, each from cold."""
    least = float("inf")
    for _ in range(rounds):
        schedule.window.cache_clear()
        schedule._sun.cache_clear()
        begin = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - begin)
    return least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    installed = profiles()
    spans = 0

    def year() -> None:
        nonlocal spans
        spans = sum(len(schedule.effective(installed, contactor, day, PLACE).on) for day in DAYS for contactor in range(1, 5))

    def told() -> None:
        for day in DAYS:
            for contactor in range(1, 5):
                schedule.answer(schedule.effective(installed, contactor, day, PLACE))

    def switching() -> None:
        begin = schedule.window(DAYS[0], PLACE.zone).start
        for contactor in range(1, 5):
            for _ in schedule.switches(installed, contactor, begin, begin + 365 * 86_400_000_000, PLACE):
                pass

    def sun_alone() -> None:
        for day in DAYS:
            schedule.sun_of(schedule.window(day, PLACE.zone), PLACE)

    def bare_loop() -> None:
        for _ in DAYS:
            for _ in range(1, 5):
                pass

    seconds = best(given.rounds, year)
    figures = {
        "bench": "os3p_schedule",
        "limit_seconds": LIMIT_SECONDS,
        "year_of_four_contactors_seconds": round(seconds, 4),
        "days": 4 * len(DAYS),
        "periods": spans,
        "us_per_day": round(seconds / (4 * len(DAYS)) * 1e6, 1),
        "with_answers_seconds": round(best(given.rounds, told), 4),
        "year_of_switchings_seconds": round(best(given.rounds, switching), 4),
        "floor": {"sun_alone_seconds": round(best(given.rounds, sun_alone), 4), "bare_loop_seconds": round(best(given.rounds, bare_loop), 6)},
    }
    print(json.dumps(figures, indent=2))
    return int(given.check and seconds > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
