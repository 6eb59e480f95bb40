"""``gridloom ekm key``: keys of the Settings API and of gateways, through the running hub's own API with the admin token of its data folder."""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

keys = typer.Typer(
    help="Keys of accounts and gateways.", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True
)
Data = Annotated[
    Path,
    typer.Option(
        "--data-dir", metavar="FOLDER", envvar="GRIDLOOM__HUB__DATA_DIR", help="The hub's data_dir: where it listens and its token are there."
    ),
]
Authority = Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="The hub's certificate or its authority, PEM, if it serves TLS.")]


@keys.command()
def create(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Whose key it is: an account's e-mail address or id, or admin.")],
    mac: Annotated[str, typer.Option("--mac", metavar="MAC", help="Make it a gateway's key; without it, it is the account's.")] = "",
    site: Annotated[str, typer.Option("--site", metavar="ID", help="Where new devices of that gateway are.")] = "",
    name: Annotated[str, typer.Option("--name", help="A name to know it by.")] = "",
    data: Data = Path("data"),
    ca: Authority = None,
) -> None:
    """Create a key and print it, alone on its line. It is shown this once."""
    body = {"account": account, "site": site, "name": name, **({"mac": mac} if mac else {})}
    print(_ask(data, ca, "POST", "/api/v1/ekm/keys", body)["key"])


@keys.command("list")
def list_keys(data: Data = Path("data"), ca: Authority = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the keys; their secrets are not kept and cannot be shown."""
    found = _ask(data, ca, "GET", "/api/v1/ekm/keys")["items"]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for one in found:
        print(f"{one['number']:>12}  {one['kind']:<8}{one.get('mac', ''):<14}{one['account']}  {one['created'][:10]}  {one.get('name', '')}".rstrip())
    if not found:
        print("no key")


@keys.command()
def revoke(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="As `gridloom ekm key list` shows it.")],
    data: Data = Path("data"),
    ca: Authority = None,
) -> None:
    """End a key: it opens nothing from now on."""
    _ask(data, ca, "DELETE", f"/api/v1/ekm/keys/{number}")


def _ask(data: Path, ca: Path | None, method: str, path: str, body: Any = None) -> Any:
    """What the hub answers. Raises GridloomError with its reason."""
    import http.client
    import ssl

    from gridloom.core.errors import GridloomError

    try:
        where = json.loads((data / "endpoints.json").read_text())["http"]
        token = (data / "admin.token").read_text().strip()
    except (OSError, ValueError, KeyError):
        raise GridloomError(f"no hub runs on {data}; start it with: gridloom serve, or name its data_dir with --data-dir") from None
    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    connection = (
        http.client.HTTPConnection(host, int(port), timeout=30)
        if ca is None
        else http.client.HTTPSConnection(host, int(port), timeout=30, context=ssl.create_default_context(cafile=str(ca)))
    )
    try:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read()
    except (OSError, http.client.HTTPException) as error:
        hint = "; if it serves TLS, name its certificate with --ca" if ca is None else ""
        raise GridloomError(f"the hub at {where} does not answer: {error}{hint}") from None
    finally:
        connection.close()
    if answer.status >= 400:
        raise GridloomError(_reason(raw) or f"the hub answers {answer.status}")
    return json.loads(raw) if raw else None


def _reason(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
