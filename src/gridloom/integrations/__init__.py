"""The systems that the hub speaks with, one folder each, by name; loaded only when their section is configured.

``NAMES`` is the one line that a new integration adds. A folder holds: ``__init__.py``, light, with ``HELP`` (one line) and
``build(section, hub) -> Parts`` that imports the rest when called; ``config.py`` with ``Section`` and, for a part in the demo,
``demo() -> Section``; optionally ``cli.py`` with the typer apps ``app`` (``gridloom NAME …``) and ``sim`` (``gridloom sim NAME …``).
"""

from __future__ import annotations

NAMES: tuple[str, ...] = ("tic", "os3p", "everest", "ekm")
