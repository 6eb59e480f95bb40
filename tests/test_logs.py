"""logs: one way out for everything, as text or JSON, with no secret in it, wherever it stands."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gridloom import logs

TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyMTI"


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("gridloom").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines_carry_level_logger_time_and_extra() -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    logging.getLogger("gridloom.core.intake").info("stored %d", 3, extra={"device": "tic:1", "count": 3})
    logging.getLogger("gridloom.x").debug("not shown")
    logging.getLogger("library").info("not shown")
    logging.getLogger("library").warning("shown")
    first, second = lines(out)
    assert (first["event"], first["level"], first["logger"]) == ("stored 3", "info", "gridloom.core.intake")
    assert (first["device"], first["count"]) == ("tic:1", 3)
    assert first["timestamp"].endswith("Z")
    assert second["event"] == "shown"


def test_console_is_one_readable_line() -> None:
    out = io.StringIO()
    logs.configure("debug", "console", out)
    logging.getLogger("gridloom.x").debug("hello", extra={"device": "a b"})
    (line,) = out.getvalue().splitlines()
    assert "hello" in line and "device='a b'" in line and "gridloom.x" in line and "\x1b" not in line


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_leaves_wherever_it_stands(format: str) -> None:
    out = io.StringIO()
    logs.configure("debug", format, out)
    log = logging.getLogger("gridloom.x")
    log.info("connecting to mqtt://user:hunter2@broker:1883/x with %s", TOKEN)
    log.info("request", extra={"authorization": "Bearer hunter2", "url": "http://h/?access_token=hunter2", "gateway_key": "hunter2"})
    log.info("nested", extra={"body": {"password": "hunter2", "list": [{"clientSecret": "hunter2"}, "http://a:hunter2@b"]}, "raw": b"x"})
    try:
        raise ValueError("http://u:hunter2@h failed with Bearer hunter2")
    except ValueError:
        log.exception("it failed")
    said = out.getvalue()
    assert "hunter2" not in said
    assert TOKEN not in said
    assert "ValueError" in said
    assert said.count("***") >= 8


def test_what_is_no_secret_stays() -> None:
    out = io.StringIO()
    logs.configure("debug", "json", out)
    logging.getLogger("gridloom").info("x", extra={"tls_key_file": "/etc/k", "device": "ocpp:Fbo5", "values": [1, 2.5, None, True]})
    (line,) = lines(out)
    assert (line["tls_key_file"], line["device"], line["values"]) == ("/etc/k", "ocpp:Fbo5", [1, 2.5, None, True])


def test_rich_is_not_imported_for_it_and_can_be_imported_after_it() -> None:
    code = "import io, sys\nfrom gridloom import logs\nlogs.configure('info', 'console', io.StringIO())\n"
    code += "assert 'rich' not in sys.modules\nimport rich"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
