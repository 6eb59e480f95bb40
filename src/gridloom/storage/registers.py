"""Energy is a difference of registers: what counts as an increase, and what never becomes energy.

A register only ever counts up. Its samples, in ascending (time, source), are judged one by one; nothing is corrected in the store.

1. *Left out*: samples marked SUSPECT, unless the question includes them. They play no part in what follows.
2. *Spike*: a sample with a neighbour on each side that is a single jump and comes back: up, ``before <= after < value``; down,
   ``value < before <= after``. It is rejected. The neighbours are the samples next to it as told, so that the verdict on a sample never
   depends on where a question begins; the newest sample has no neighbour yet, and its verdict may change when the next one comes.
3. *Increase*: from each accepted sample to the next. ``value >= before``: the difference, in the register's unit.
4. *Roll-over*: ``value < before``, and there is a ``10**n`` (base units, n >= 6, the smallest above ``before``) such that
   ``10**n - before + value <= 10**n / 100``: the register ran over its last digit, and that sum is the increase.
5. *Reset*: any other fall (a meter that begins again near zero, another meter in its place): the increase is 0, counting goes on from the new value.
   What was counted between the fall and the first value after it is not known, and nothing is invented.

Where samples of two clocks are mixed (a question that names none), a fall from a sample of one clock to one of the other is neither roll-over nor
reset: clocks differ, and the increase is 0.

The first sample of all has no increase. An increase is booked at the time of its later sample, in steps ``(begin, end]``: the energy that
a gap hides falls on the first step after it. Increases are a property of the series alone, so any partition of an interval adds up to the
whole, exactly for integers (of floats to rounding).
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SMALLEST_WRAP = 6
"""No register runs over before 10**6 base units (1 MWh): a fall from 99,990 to 3 is a reset."""
NEAR = 100
"""A roll-over implies an increase of at most one part in so many of the register's range."""


class Verdicts(msgspec.Struct):
    """Per sample: whether it is a spike, the increase that is booked on it, whether a reset or roll-over was met there.

    ``origins``: the place of the sample that its increase counts from; its own where there is none before it, or it is a spike.
    """

    spikes: Array
    increases: Array
    resets: Array
    origins: Array


def judge(values: Array, exponent: int, clocks: Array | None = None) -> Verdicts:
    """Judge the samples of a register (SUSPECT ones already left out): int64, object (integers of any size) or float64.

    ``exponent``: the values count units of ``10**exponent`` base units. ``clocks``: whose clock each sample's time is of, where they are mixed.
    """
    count = len(values)
    spikes = np.zeros(count, np.bool_)
    resets = np.zeros(count, np.bool_)
    increases = np.zeros(count, values.dtype)
    origins = np.arange(count)
    if count < 2:
        return Verdicts(spikes, increases, resets, origins)
    falls = np.flatnonzero(values[1:] < values[:-1])
    if len(falls) == 0:
        increases[1:] = values[1:] - values[:-1]
        origins[1:] -= 1
        return Verdicts(spikes, increases, resets, origins)
    if count > 2:
        before, here, after = values[:-2], values[1:-1], values[2:]
        spikes[1:-1] = ((before <= after) & (after < here)) | ((here < before) & (before <= after))
    accepted = np.flatnonzero(~spikes)
    kept = values[accepted]
    steps = np.empty(len(kept), values.dtype)
    steps[0] = 0
    steps[1:] = kept[1:] - kept[:-1]
    for place in (np.flatnonzero(kept[1:] < kept[:-1]) + 1).tolist():
        if clocks is not None and clocks[accepted[place]] != clocks[accepted[place - 1]]:
            steps[place] = 0
            continue
        steps[place] = _fallen(kept[place - 1], kept[place], exponent)
        resets[accepted[place]] = True
    increases[accepted] = steps
    origins[accepted[1:]] = accepted[:-1]
    return Verdicts(spikes, increases, resets, origins)


def _fallen(before: Any, value: Any, exponent: int) -> Any:
    """The increase behind a fall: what a roll-over implies, or 0."""
    if value < 0 or before <= 0:
        return 0
    if isinstance(before, (float, np.floating)):
        wrap_float = 10.0**SMALLEST_WRAP
        while wrap_float <= before:
            wrap_float *= 10.0
        over_float = wrap_float - float(before) + float(value)
        return over_float if over_float <= wrap_float / NEAR else 0.0
    old, new = int(before), int(value)
    wrap = 10 ** max(SMALLEST_WRAP - exponent, 0)
    while wrap <= old:
        wrap *= 10
    over = wrap - old + new
    return over if over * NEAR <= wrap else 0
