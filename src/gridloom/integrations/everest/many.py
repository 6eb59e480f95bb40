"""Many records at once: batches for a pool of processes, and what is kept of each answer."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from gridloom.integrations.everest import ocmf, signed_data
from gridloom.integrations.everest.ocmf import Malformed
from gridloom.integrations.everest.signed_data import Claim
from gridloom.integrations.everest.verification import Verdict, verify

BATCH = 250
"""Records (or files) that a process is given at a time."""
ALONE = 1000
"""So many are judged without other processes: starting those takes longer."""
Item = Path | tuple[str, Claim]
"""A file, read by whoever judges it; or where a record stands, and the record."""


class Answer(NamedTuple):
    """One judgement. ``state``: ``holds``, ``fails`` or ``unreadable``; ``said`` one line about it (JSON when that is wanted)."""

    where: str
    state: str
    said: str


def claim(one: Claim, key: bytes | str | None, strict: bool, trust_enclosed: bool = False) -> Verdict:
    """Judge what was found, with ``key`` or else the key that stands beside it. Raises Malformed."""
    record = ocmf.parse(one.record.record, strict=strict)
    begin = None if one.begin is None else ocmf.parse(one.begin.record, strict=strict)
    if key is not None:
        return verify(record, key, begin=begin)
    begin_key = one.begin.key if one.begin is not None else None
    return verify(record, one.record.key, begin=begin, begin_key=begin_key, beside=True, trust_enclosed=trust_enclosed)


def judge(items: Sequence[Item], key: bytes | str | None, strict: bool, as_json: bool, trust_enclosed: bool = False) -> list[Answer]:
    """A batch."""
    answers: list[Answer] = []
    for item in items:
        if isinstance(item, tuple):
            answers.append(_answer(*item, key, strict, as_json, trust_enclosed))
            continue
        try:
            with item.open("rb") as file:
                found = signed_data.claims(signed_data.read(signed_data.load(file)))
        except (Malformed, OSError) as error:  # one file of a folder does not end the others
            fault = error if isinstance(error, Malformed) else Malformed("file", error.strerror or str(error))
            answers.append(_unreadable(str(item), fault, as_json))
            continue
        names = [str(item) if len(found) == 1 else f"{item}: {one.record.where}" for one in found]
        answers += [_answer(where, one, key, strict, as_json, trust_enclosed) for where, one in zip(names, found, strict=True)]
    return answers


def _answer(where: str, one: Claim, key: bytes | str | None, strict: bool, as_json: bool, trust_enclosed: bool) -> Answer:
    try:
        verdict = claim(one, key, strict, trust_enclosed)
    except Malformed as error:
        return _unreadable(where, error, as_json)
    state = "holds" if verdict.holds else "fails"
    if as_json:
        return Answer(where, state, f'{{"record": {json.dumps(where)}, {verdict.to_json()[1:]}')
    return Answer(where, state, "; ".join(f"{check.name}: {check.detail}" for check in verdict.checks if not check.ok))


def _unreadable(where: str, error: Malformed, as_json: bool) -> Answer:
    if as_json:
        fault = {"path": error.fault.path, "reason": error.fault.reason}
        return Answer(where, "unreadable", json.dumps({"record": where, "error": fault}))
    return Answer(where, "unreadable", error.message)


def run(
    items: Sequence[Item], key: bytes | str | None, *, strict: bool, as_json: bool, processes: int, trust_enclosed: bool = False
) -> Iterator[tuple[int, list[Answer]]]:
    """Judge all of them in order; yields how many are done, and the answers since. Uses ``processes`` processes when it is worth while."""
    batches = [items[index : index + BATCH] for index in range(0, len(items), BATCH)]
    done = 0
    if len(items) <= ALONE or processes < 2:
        for batch in batches:
            done += len(batch)
            yield done, judge(batch, key, strict, as_json, trust_enclosed)
        return
    # A fresh interpreter for each: nothing of this process (threads, open files) is taken over half-way.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(judge, batch, key, strict, as_json, trust_enclosed) for batch in batches]
        try:
            for batch, future in zip(batches, waiting, strict=True):
                done += len(batch)
                yield done, future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # also when nobody wants the rest
