"""How verbs speak with the running hub: its HTTP API, with the admin token of its data_dir. stdlib only, so that verbs start fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from gridloom.core.errors import GridloomError

TIMEOUT = 30.0
"""Seconds for one answer."""


class Client:
    """One hub: ``url`` (``http://127.0.0.1:8470``) and a token. ``certificate``: the hub's own, trusted for itself."""

    def __init__(self, url: str, token: str, certificate: str | None = None) -> None:
        self.url = url
        self._token = token
        self._certificate = certificate

    def request(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of the answer, None when there is none. Raises GridloomError with the hub's own words, OSError without a hub."""
        given = {name: value for name, value in query.items() if value is not None}
        target = path + ("?" + urlencode(given, doseq=True) if given else "")
        data = None if body is None else json.dumps(body).encode()
        with self._asked(method, target, data, {} if body is None else {"content-type": "application/json"}) as response:
            raw = response.read()
        return json.loads(raw) if raw else None

    def upload(self, path: str, source: IO[bytes]) -> Any:
        """PUT the bytes of a file; the JSON of the answer. Raises as ``request``."""
        headers = {"content-type": "application/octet-stream", "content-length": str(os.fstat(source.fileno()).st_size)}
        with self._asked("PUT", path, source, headers) as response:
            return json.loads(response.read())

    def download(self, path: str, target: IO[bytes]) -> None:
        """GET bytes into a file. Raises as ``request``."""
        with self._asked("GET", path, None, {"accept": "*/*"}) as response:
            shutil.copyfileobj(response, target)

    @contextlib.contextmanager
    def _asked(self, method: str, target: str, data: Any, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._certificate)
            # The address is the loopback or the listen address; the certificate file itself says whom to trust.
            context.check_hostname = self._certificate is None
            connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT, context=context)
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        given = {"authorization": f"Bearer {self._token}", "accept": "application/json", "user-agent": "gridloom-cli", **headers}
        try:
            connection.request(method, target, data, given)
            response = connection.getresponse()
            if response.status >= 400:
                raise GridloomError(_problem(response.status, response.read()))
            yield response
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET."""
        return self.request("GET", path, **query)


def segment(text: str) -> str:
    """A device's id (or anything else) as one segment of a path."""
    return quote(text, safe="")


def _problem(status: int, raw: bytes) -> str:
    """The problem (RFC 9457) in one line."""
    try:
        problem = json.loads(raw)
        text = problem.get("detail") or problem.get("title") or ""
    except (ValueError, AttributeError):
        text = raw[:200].decode("utf-8", "replace")
    return f"the hub answered {status}: {text}"


def connect(config: Path | None) -> Client:
    """The running hub of this configuration. Raises GridloomError when none runs."""
    found = running(config)
    if found is None:
        raise GridloomError("no hub runs on this data_dir; start it with: gridloom serve")
    return found


def running(config: Path | None) -> Client | None:
    """The hub that runs on the configured data_dir, or None."""
    from gridloom.app import data_dir, is_locked, load_configuration, read_endpoints

    configuration = load_configuration(config, os.environ)
    folder = data_dir(configuration)
    if not is_locked(folder):
        return None
    endpoints = read_endpoints(folder)
    if "http" not in endpoints:
        raise GridloomError(f"a hub is starting or stopping on {folder}; try again in a moment")
    certificate = configuration.http.tls_certificate_file
    try:
        token = (folder / "admin.token").read_text().strip()
    except OSError as error:
        raise GridloomError(f"{folder / 'admin.token'}: {error.strerror}; the hub runs, but without that token nothing can be asked of it") from None
    return Client(f"{'http' if certificate is None else 'https'}://{endpoints['http']}", token, None if certificate is None else str(certificate))
