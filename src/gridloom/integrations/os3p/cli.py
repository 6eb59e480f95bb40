"""``gridloom os3p …``: stations of the running hub, through its API; and tools for street-light schedules, without a hub.

Whatever is heavy is imported by the verb that needs it. Errors become one line and the exit code 1 (``gridloom.cli.main``); a message that was
refused is exit code 1, too; one that cannot be read (no JSON) is wrong usage: 2.
"""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

STATIONS, FILES = "/api/v1/os3p/stations", "/api/v1/os3p/files"
LONGEST_WAIT = 25.0
"""Seconds that one request waits for the end of an order; then it is asked again."""


def _app(help: str) -> typer.Typer:
    return typer.Typer(help=help, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)


app = _app("Substations and their street lights: of the running hub, and tools without one.")
schedule = _app("Street-light schedules.")
files = _app("Files that stations uploaded, and firmware for them.")
app.add_typer(schedule, name="schedule")
app.add_typer(files, name="files")

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration. Without it: gridloom.toml in this folder if it is there, else defaults."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Station = Annotated[str, typer.Argument(metavar="STATION", help="Its identity, as it connects with.")]
FileId = Annotated[str, typer.Argument(metavar="ID", help="As `gridloom os3p files list` shows it; of a firmware its name.")]


@app.callback()
def root() -> None:
    """OS³P: secondary substations and their street lights."""


# ------------------------------------------------------------------------------------------------------------------- stations


@app.command()
def stations(
    ctx: typer.Context,
    search: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Only those with this in identity, name, site, vendor, model, serial.")
    ] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Only those that wait to be accepted.")] = False,
    online: Annotated[bool | None, typer.Option("--online/--offline", help="Only those that are connected, or are not.")] = None,
    alarm: Annotated[bool | None, typer.Option("--alarm/--no-alarm", help="Only those of which something is wrong, or nothing.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 1_000,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List substations."""
    admission = "pending" if pending else None
    online_, alarm_ = _flag(online), _flag(alarm)
    found = _pages(ctx.obj(config), STATIONS, limit, q=search, admission=admission, online=online_, alarm=alarm_)
    if as_json:
        _print_json(found)
        return
    rows = [
        (one["identity"], one.get("name", ""), _status(one), _online(one), _when(one.get("last_seen")), _alarms(one), _deviations(one))
        for one in found
    ]
    _print_table(("station", "name", "status", "connected", "last seen", "wrong", "deviations"), rows, "no station")


@app.command()
def show(ctx: typer.Context, station: Station, config: Config = None, as_json: Json = False) -> None:
    """All about one substation."""
    one = ctx.obj(config).get(_path(station))
    if as_json:
        _print_json(one)
        return
    registration = one.get("registration", {})
    connection = one.get("connection") or {}
    rows = [
        ("station", one["identity"]),
        ("name, site", ", ".join(part for part in (one.get("name"), one.get("site")) if part)),
        ("status", f"{_status(one)}; booted {registration.get('boots', 0)} times, last {_when(registration.get('booted')) or 'never'}"),
        ("connected", f"{_online(one)} since {_when(one.get('online_since'))} {one.get('reason', '')}".strip()),
        ("from", f"{connection.get('address', '')} {connection.get('subprotocol', '')} {'wss' if connection.get('secure') else ''}".strip()),
        ("last seen", _when(one.get("last_seen"))),
        ("secret", "set" if one.get("secret") else "none"),
        ("strict", "yes" if one["strict"] else "no"),
        *registration.get("boot", {}).items(),
        *(
            ("wrong", f"{each['severity']}: {each['kind']} {each.get('subject', '')} {each.get('message', '')}".strip())
            for each in one.get("alarms", ())
        ),
        *((f"light {each['contactor']}", f"{each.get('status', '?')}, {each.get('mode', 'mode unknown')}") for each in one.get("lights", ())),
        *((f"deviation {kind}", str(count)) for kind, count in sorted(one.get("deviations", {}).items())),
        ("refused messages", str(one.get("refused", 0))),
    ]
    _print_table(("", ""), [row for row in rows if row[1]])


@app.command()
def add(
    ctx: typer.Context,
    station: Station,
    name: Annotated[str, typer.Option("--name", help="A name to know it by.")] = "",
    site: Annotated[str, typer.Option("--site", help="The id of its site.")] = "",
    config: Config = None,
) -> None:
    """Add a substation, so that it is let in when it connects."""
    ctx.obj(config).request("POST", STATIONS, {"identity": station, "name": name, "site": site})
    _say(f"{station}: known")


@app.command()
def remove(ctx: typer.Context, station: Station, config: Config = None) -> None:
    """Remove a substation and its secret; what it told stays."""
    ctx.obj(config).request("DELETE", _path(station))
    _say(f"{station}: removed")


@app.command()
def approve(ctx: typer.Context, station: Station, config: Config = None) -> None:
    """Accept a substation that waits."""
    _change(ctx, config, station, {"admission": "known"}, "accepted")


@app.command()
def reject(
    ctx: typer.Context,
    station: Annotated[str | None, typer.Argument(metavar="[STATION]", help="Its identity, as it connects with.")] = None,
    all_pending: Annotated[bool, typer.Option("--all-pending", help="Every one that waits to be accepted.")] = False,
    config: Config = None,
) -> None:
    """Reject a substation: it is closed, and not let in again."""
    if (station is None) is not all_pending:
        raise typer.BadParameter("either a station or --all-pending", param_hint="STATION")
    waiting = [] if station is not None else _pages(ctx.obj(config), STATIONS, None, admission="pending")
    for identity in [one["identity"] for one in waiting] if station is None else [station]:
        _change(ctx, config, identity, {"admission": "rejected"}, "rejected")


@app.command()
def strict(
    ctx: typer.Context,
    station: Station,
    mode: Annotated[str, typer.Argument(metavar="on|off|default", help="default: as the configuration says.")],
    config: Config = None,
) -> None:
    """Whether deviations from the document are refused, or only counted."""
    modes: dict[str, bool | None] = {"on": True, "off": False, "default": None}
    if mode not in modes:
        raise typer.BadParameter(f"{mode!r} is none of on, off, default", param_hint="MODE")
    _change(ctx, config, station, {"strict": modes[mode]}, f"strict {mode}")


@app.command()
def secret(
    ctx: typer.Context,
    station: Station,
    remove: Annotated[bool, typer.Option("--remove", help="It has to present none any more.")] = False,
    read: Annotated[bool, typer.Option("--stdin", help="Read the secret from standard input instead of making one.")] = False,
    config: Config = None,
) -> None:
    """Make a secret for a substation and print it, alone on its line. It is shown this once."""
    client = ctx.obj(config)
    if remove:
        client.request("DELETE", f"{_path(station)}/secret")
        return
    given = {"secret": sys.stdin.readline().rstrip("\r\n")} if read else {}
    print(client.request("PUT", f"{_path(station)}/secret", given)["secret"])


@app.command()
def events(
    ctx: typer.Context,
    station: Station,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind; may end in `.*`.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.")] = 50,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What happened to a substation, newest first."""
    found = _pages(ctx.obj(config), "/api/v1/events", limit, device=f"os3p:{station}", kind=kind)
    if as_json:
        _print_json(found)
        return
    rows = [(_when(one["time"]), one["kind"], one["state"], one["severity"], one.get("subject", ""), one.get("message", "")) for one in found]
    _print_table(("time", "kind", "state", "severity", "subject", "message"), rows, "no event")


# -------------------------------------------------------------------------------------------------------------------- messages


@app.command()
def send(
    ctx: typer.Context,
    station: Station,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="As in annex A7: OverrideStreetlight, GetConfiguration, GetFile…")],
    payload: Annotated[str, typer.Argument(metavar="[PAYLOAD]", help="Its JSON, @FILE with it, or - for standard input.")] = "{}",
    file: Annotated[str | None, typer.Option("--file", help="UpdateFirmware: a firmware of the hub instead of a location.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="ClearSingleStreetlightProfile: yes, every profile.")] = False,
    later: Annotated[float | None, typer.Option("--later", metavar="SECONDS", min=1, help="If it is offline, wait for it so long.")] = None,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for the answer; 0: not at all.")] = 60,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Send a message to a substation and show its answer. Exit code 1: it was refused, failed, or is not known to have arrived."""
    body: dict[str, Any] = {"message": message, "payload": _payload(payload), "everything": everything}
    if file is not None:
        body["file"] = file
    if later is not None:
        body |= {"wait_online": True, "expires_in": later}
    client = ctx.obj(config)
    sent = client.request("POST", f"{_path(station)}/messages", body, wait=min(wait, LONGEST_WAIT))
    while wait > LONGEST_WAIT and not sent["final"]:
        wait -= LONGEST_WAIT
        order = client.get(f"/api/v1/commands/{sent['id']}", wait=min(wait, LONGEST_WAIT))
        sent |= {name: order.get(name) for name in ("state", "final", "result", "error", "ended")}
    if as_json:
        _print_json(sent)
    else:
        _say(_told(sent))
    if sent["state"] not in ("done", "accepted", "sent"):
        raise typer.Exit(1)


def _payload(text: str) -> dict[str, Any]:
    """JSON from the command line, a file or standard input. Raises BadParameter."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="PAYLOAD") from None
    if not isinstance(found, dict):
        raise typer.BadParameter("expected a JSON object", param_hint="PAYLOAD")
    return found


def _told(sent: dict[str, Any]) -> str:
    """The answer in words."""
    if sent["state"] == "done":
        return _json(sent.get("result"))
    if sent.get("error"):
        return f"{sent['message']}: {sent['state']}: {sent['error']}"
    waits = "waits for the station, until " + sent["expires"] if sent["state"] == "accepted" else "has not been answered yet"
    return f"{sent['message']}: {waits} (order {sent['id']})"


# ----------------------------------------------------------------------------------------------------------------------- files


@files.callback()
def of_files() -> None:
    """What stations uploaded (GetFile), and firmware that they can fetch (UpdateFirmware)."""


@files.command("list")
def list_files(
    ctx: typer.Context,
    station: Annotated[str | None, typer.Option("--station", help="Only uploads of this station.")] = None,
    firmware: Annotated[bool, typer.Option("--firmware", help="Only firmware.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List uploads and firmware."""
    found = _pages(ctx.obj(config), FILES, None, station=station, kind="firmware" if firmware else None)
    if as_json:
        _print_json(found)
        return
    rows = [
        (
            one["id"],
            one["kind"],
            one["state"],
            one.get("station", ""),
            one["name"],
            str(one.get("size", "")),
            _when(one.get("arrived")),
            one.get("fault", ""),
        )
        for one in found
    ]
    _print_table(("id", "kind", "state", "station", "name", "bytes", "arrived", "fault"), rows, "no file")


@files.command("get")
def get_file(
    ctx: typer.Context,
    id: FileId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; without it, under its name in this folder.")
    ] = None,
    config: Config = None,
) -> None:
    """Fetch an upload or a firmware. A file that is there already is not overwritten."""
    client = ctx.obj(config)
    target = output or Path(client.get(f"{FILES}/{quote(id, safe='')}")["name"])
    with target.open("xb") as file:
        try:
            client.download(f"{FILES}/{quote(id, safe='')}/content", file)
        except BaseException:
            target.unlink()
            raise
    _say(str(target))


@files.command("put")
def put_file(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The firmware.")],
    name: Annotated[str | None, typer.Option("--name", help="The name that stations fetch it by; without it, that of the file.")] = None,
    config: Config = None,
) -> None:
    """Put a firmware where stations can fetch it; one of the same name is replaced."""
    with file.open("rb") as source:
        kept = ctx.obj(config).upload(f"{FILES}/{quote(name or file.name, safe='')}/content", source)
    _say(f"{kept['name']}: {kept['size']} bytes, SHA-256 {kept['sha256']}")


@files.command("delete")
def delete_file(ctx: typer.Context, id: FileId, config: Config = None) -> None:
    """Delete an upload or a firmware."""
    ctx.obj(config).request("DELETE", f"{FILES}/{quote(id, safe='')}")


# -------------------------------------------------------------------------------------------------------------------- schedules


@schedule.callback()
def schedules() -> None:
    """What profiles mean: when a light goes on and off."""


@schedule.command()
def preview(
    profiles: Annotated[
        Path, typer.Argument(metavar="PROFILES.JSON", help="A list of profiles as in SetStreetlightProfile, each with its contactorId.")
    ],
    geolocation: Annotated[str, typer.Option("--geolocation", metavar="[LAT,LNG]", help="Degrees north and east, such as '[52.09,5.12]'.")],
    timezone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="IANA zone of the station, such as Europe/Amsterdam.")],
    day: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The day at whose noon the night begins.")],
    contactor: Annotated[int, typer.Option("--contactor", metavar="N", help="1 to 4.")] = 1,
    as_json: Json = False,
) -> None:
    """Show the effective day of a contactor: who wins, and when the light is on. Exit code 2: a file or an option is wrong."""
    from gridloom.integrations.os3p.preview import preview as shown

    print(shown(profiles, geolocation, timezone, contactor, day, as_json))


# --------------------------------------------------------------------------------------------------------------------- details


def _path(station: str) -> str:
    return f"{STATIONS}/{quote(station, safe='')}"


def _change(ctx: typer.Context, config: Path | None, station: str, change: dict[str, Any], done: str) -> None:
    ctx.obj(config).request("PATCH", _path(station), change)
    _say(f"{station}: {done}")


def _pages(client: Any, path: str, limit: int | None, **query: Any) -> list[dict[str, Any]]:
    """The items of a list, page by page; with ``limit`` so many of them."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while limit is None or len(items) < limit:
        page = client.get(path, cursor=cursor, limit=1_000 if limit is None else min(1_000, limit - len(items)), **query)
        items += page["items"]
        cursor = page.get("next")
        if cursor is None:
            break
    return items


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _status(one: dict[str, Any]) -> str:
    """What it was told; what an operator decided since."""
    told = one.get("registration", {}).get("status")
    return {"pending": "waits", "rejected": "rejected"}.get(one["admission"], "accepted" if told == "Accepted" else "known, not booted yet")


def _online(one: dict[str, Any]) -> str:
    return "yes" if one["online"] else "no"


def _alarms(one: dict[str, Any]) -> str:
    alarms = one.get("alarms", ())
    return f"{alarms[0]['kind']}{f' (+{len(alarms) - 1})' if len(alarms) > 1 else ''}" if alarms else ""


def _deviations(one: dict[str, Any]) -> str:
    return str(sum(one.get("deviations", {}).values()) or "")


def _when(moment: str | None) -> str:
    """To the second."""
    return "" if not moment else moment[:19] + "Z"


def _print_json(found: Any) -> None:
    print(_json(found))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]], none: str = "") -> None:
    """On a terminal as wide as it is; into a pipe whole, a line a row."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print(none)
        return
    table = Table(box=None, pad_edge=False, show_header=any(head))
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 2_000
    console.print(table)


def _say(text: str) -> None:
    print("\n".join(map(_plain, text.split("\n"))))


def _plain(text: str) -> str:
    """What a station says must not steer a terminal, nor turn the order of what is read."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _json(found: Any) -> str:
    """Readable; what is not printable (controls, also those of C1 and of writing from right to left) is escaped, which JSON reads back as it was."""
    text = json.dumps(found, indent=2, ensure_ascii=False)
    return "".join(one if one == "\n" or one.isprintable() else json.dumps(one)[1:-1] for one in text)


from gridloom.integrations.os3p import substation_cli  # noqa: E402  # verbs with a file of their own

app.command()(substation_cli.substation)
sim = substation_cli.sim
