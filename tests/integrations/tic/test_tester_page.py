"""The test page: its table of labels is that of the hub, and its policy has nothing to forbid.

``python tests/integrations/tic/test_tester_page.py`` writes the labels into the page after a change of ``labels.py``.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from gridloom.integrations.tic.labels import TABLE

PAGE = Path(__file__).parents[3] / "src" / "gridloom" / "integrations" / "tic" / "static" / "tester.html"
LABELS = re.compile(r'(<script type="application/json" id="labels">)(.*?)(</script>)', re.DOTALL)


def labels() -> str:
    """English, French, unit by label, one label per line."""
    rows = [f"{json.dumps(row.name)}: {json.dumps([row.english, row.french, row.unit], ensure_ascii=False)}" for row in TABLE.values()]
    return "{\n" + ",\n".join(rows) + "\n}"


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def elements() -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(PAGE.read_text())
    return parser.found


def test_every_label_of_the_hub_is_explained_on_the_page() -> None:
    found = LABELS.search(PAGE.read_text())
    assert found is not None
    assert json.loads(found[2]) == {row.name: [row.english, row.french, row.unit] for row in TABLE.values()}


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_from_an_attribute() -> None:
    for tag, attributes in elements():
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href"):
            assert not (attributes.get(name) or "").startswith(("http", "//")), (tag, attributes)
    text = PAGE.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_every_field_has_a_label_and_every_id_is_there_once() -> None:
    found = elements()
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = PAGE.read_text()
    assert set(re.findall(r'\$\("([a-z-]+)"\)', text)) <= set(ids), "the script asks for what is on the page"
    pointed = {attributes.get("for") for tag, attributes in found if tag == "label"}
    for tag, attributes in found:
        if tag in ("input", "select", "textarea"):
            inside = re.search(rf"<label[^>]*>[^<]*<{tag} id=\"{attributes['id']}\"", text)
            assert inside or attributes["id"] in pointed, attributes


if __name__ == "__main__":
    PAGE.write_text(LABELS.sub(lambda found: found[1] + labels() + found[3], PAGE.read_text()))
