"""How the hub logs: everything (ours and that of libraries) goes through stdlib logging, is masked, and comes out as text or as JSON lines.

Rooms log with ``logging.getLogger(__name__)`` and ``extra={...}`` for what belongs to the message; structlog only renders here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

from gridloom.core.settings import is_secret_name, masked

DEPTH = 6
"""How deep a value of a log line is looked into for secrets; what lies deeper is not shown."""


def configure(level: str, format: str, stream: TextIO | None = None) -> None:
    """Set up logging once: ``level`` of ours (libraries are heard from ``warning``), ``format`` ``console`` or ``json``."""
    structlog = _structlog()
    out = sys.stderr if stream is None else stream
    renderer: Any
    if format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask,
    ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, _level(level)))
    logging.getLogger("gridloom").setLevel(_level(level))
    logging.captureWarnings(True)


def _structlog() -> Any:
    """structlog without rich: it imports rich where it finds it (typer brings it), 3.5 MB and 30 ms of every start for what we do not use."""
    loaded = sys.modules.get("rich")
    if loaded is None:
        sys.modules["rich"] = None  # type: ignore[assignment]  # as if it were not installed, for this one import
    try:
        import structlog
    finally:
        if loaded is None:
            del sys.modules["rich"]
    return structlog


def mask(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: no secret leaves in any value of a line, whatever put it there."""
    for name in list(line):
        line[name] = line[name] if name.startswith("_") else _hidden(name, line[name], DEPTH)
    return line


def _hidden(name: str, value: Any, depth: int) -> Any:
    if is_secret_name(name) and value is not None and not isinstance(value, bool):
        return "***"
    if isinstance(value, str):
        return masked(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {str(key): _hidden(str(key), item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden("", item, depth - 1) for item in value]
    return masked(str(value))


def _level(name: str) -> int:
    return {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}[name]
