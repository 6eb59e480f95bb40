"""The pages in docs/reference say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "docs" / "generate.py"), *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_pages_of_the_repository_are_up_to_date() -> None:
    done = generate("--check")
    assert done.returncode == 0, done.stderr


def test_a_page_that_is_wrong_or_missing_is_named(tmp_path: Path) -> None:
    assert generate("--check", "--into", str(tmp_path)).returncode == 1
    assert list(tmp_path.iterdir()) == []
    assert generate("--into", str(tmp_path)).returncode == 0
    assert sorted(page.name for page in tmp_path.iterdir()) == ["configuration.md", "events.md", "measurands.md", "os3p-conformance.md", "verbs.md"]
    (tmp_path / "verbs.md").write_text("something else", encoding="utf-8")
    done = generate("--check", "--into", str(tmp_path))
    assert done.returncode == 1
    assert "verbs.md" in done.stderr
    assert "events.md" not in done.stderr
    assert (tmp_path / "verbs.md").read_text(encoding="utf-8") == "something else"
