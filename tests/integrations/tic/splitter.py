"""What is in the captured frames, read one character after another by someone who never saw our codec. Shares no import with it.

``python tests/integrations/tic/splitter.py`` writes ``tests/data/tic/expected/*.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "tic"


def split(data: bytes) -> list[dict[str, Any]]:
    """Frames with their groups, of bytes in which every delimiter stands where it should."""
    frames: list[dict[str, Any]] = []
    text = ""
    for byte in data:
        if byte == 2:
            frames.append({"mode": None, "groups": []})
        elif byte == 10:
            text = ""
        elif byte == 13:
            frames[-1]["groups"].append(group(text))
        elif byte != 3:
            text += chr(byte)
    for frame in frames:
        modes = {one.pop("mode") for one in frame["groups"]}
        assert len(modes) == 1, modes
        frame["mode"] = modes.pop()
    return frames


def group(text: str) -> dict[str, Any]:
    """One group: the checksum is the last character whatever it is, and before it stands a separator."""
    separator = text[-2]
    assert separator in " \t", text
    standard = separator == "\t"
    # historic: label to value (rule S1); standard: label to the separator before the checksum (rule S2)
    total = 0
    for character in text[: -1 if standard else -2]:
        total += ord(character)
    parts = text[:-2].split(separator)
    return {
        "mode": "standard" if standard else "historic",
        "label": parts[0],
        "horodate": parts[1] if standard and len(parts) == 3 else "",
        "value": parts[-1] if standard else text[len(parts[0]) + 1 : -2],
        "valid": chr(total % 64 + 32) == text[-1],
    }


def main() -> None:
    for file in sorted((DATA / "frames").glob("*.bin")):
        page = json.dumps(split(file.read_bytes()), indent=1, ensure_ascii=False)
        (DATA / "expected" / f"{file.stem}.json").write_text(page + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
