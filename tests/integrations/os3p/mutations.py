"""Does each conformance test notice when its rule is broken? ``python -m tests.integrations.os3p.mutations [--only C8 R5] [--table cs] [--jobs 2]``

For every line of a table (``mutations_cs.py``, ``mutations_ss.py``) the tree is copied, the named mutation is applied to the copy, and the tests that
carry the number are run there: they must fail, and not because the code cannot be imported. First they must pass on the copy as it is. One line per
number, one JSON object at the end; the exit code is 1 if a mutation went unnoticed. All of it takes some minutes, so it is no part of
``make test``; there ``test_conformance.py`` only looks that no mutation has lost its place in the code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
HERE = Path("tests/integrations/os3p")
PACKAGE = Path("src/gridloom")
PASSED, FAILED = 0, 1
"""Exit codes of pytest."""


class Mutation(NamedTuple):
    """``old`` stands once in ``file`` (below src/gridloom) and becomes ``new``; ``name``: what is wrong then."""

    name: str
    file: str
    old: str
    new: str

    def applied(self, root: Path) -> str:
        """The mutated text of the file. Raises ValueError when ``old`` is not there exactly once."""
        text = (root / PACKAGE / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {text.count(self.old)} times {self.old!r}")
        return text.replace(self.old, self.new)


def tables() -> dict[str, dict[str, Mutation]]:
    """The tables by what their files are named after (``cs``)."""
    names = sorted(path.stem for path in (ROOT / HERE).glob("mutations_*.py"))
    return {name.removeprefix("mutations_"): importlib.import_module(f"tests.integrations.os3p.{name}").MUTATIONS for name in names}


def copy(root: Path) -> Path:
    """The tree, as far as the tests need it."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".hypothesis", "node_modules")
    for folder in ("src", "tests", "docs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def run(root: Path, table: str, number: str | None) -> tuple[int, str]:
    """Exit code and last line of the tests with this number (None: of all) in a copy."""
    command = [sys.executable, "-m", "pytest", str(HERE / f"test_conformance_{table}.py"), "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["--tb=no", "--timeout=60", *(["-k", f"_{number}_"] if number else [])]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR")) or " passed" in line or " failed" in line]
    return done.returncode, (lines or done.stdout.splitlines() or [done.stderr[-200:]])[0]


def notices(root: Path, table: str, number: str, mutation: Mutation) -> tuple[bool, str]:
    """Whether the tests of the number fail in the copy while it is mutated."""
    file = root / PACKAGE / mutation.file
    before = file.read_text(encoding="utf-8")
    file.write_text(mutation.applied(root), encoding="utf-8")
    try:
        code, words = run(root, table, number)
    finally:
        file.write_text(before, encoding="utf-8")
    return code == FAILED, words


def judge(work: Iterable[tuple[str, str, Mutation]], folder: Path, jobs: int) -> list[str]:
    """Run them, ``jobs`` at once, each in a copy of its own; the numbers that went unnoticed."""
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        copies.put(copy(folder / str(number)))

    def one(item: tuple[str, str, Mutation]) -> str | None:
        root = copies.get()
        try:
            noticed, words = notices(root, *item)
        finally:
            copies.put(root)
        table, number, mutation = item
        say(f"{table} {number:4} {'noticed' if noticed else 'UNNOTICED'}: {mutation.name} ({words})")
        return None if noticed else f"{table} {number}"

    with ThreadPoolExecutor(jobs) as pool:
        return [number for number in pool.map(one, work) if number is not None]


def say(text: str) -> None:
    """A line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """0 when every mutation was noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NUMBER")
    parser.add_argument("--table", choices=sorted(tables()), help="one table only")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = {name: table for name, table in tables().items() if options.table in (None, name)}
    work = [(name, number, one) for name, table in chosen.items() for number, one in table.items() if not options.only or number in options.only]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gridloom-mutations-") as folder:
        whole = copy(Path(folder) / "whole")
        for name in chosen:
            code, words = run(whole, name, None)
            if code != PASSED:
                say(f"{name}: the tests do not pass without a mutation: {words}")
                return 1
        unnoticed = judge(work, Path(folder), options.jobs)
    seconds = round(time.monotonic() - began)
    say(json.dumps({"mutations": len(work), "noticed": len(work) - len(unnoticed), "unnoticed": unnoticed, "seconds": seconds}))
    return int(bool(unnoticed))


if __name__ == "__main__":
    sys.exit(main())
