"""``gridloom ocmf …``: charging receipts of any vendor, without a hub (but ``export``).

Exit codes of ``verify``: 0 the signature is valid and every check holds, 1 not, 2 the input cannot be read.
"""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gridloom.integrations.everest.many import Item
    from gridloom.integrations.everest.ocmf import Record
    from gridloom.integrations.everest.signed_data import Claim, Found
    from gridloom.integrations.everest.verification import Verdict

app = typer.Typer(
    help="Verify, read, sign and export OCMF charging receipts.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
HOLDS, FAILS, UNREADABLE = 0, 1, 2

File = Annotated[str, typer.Argument(metavar="FILE", help="Raw OCMF, S.A.F.E. XML or OCPP SignedData; - is standard input.")]
Key = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="The public key: a file (PEM, DER, hex, base64) or the key itself. Goes before any other.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse what the format does not allow, instead of reading and reporting it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class EncodingName(enum.StrEnum):
    """How SD is written."""

    HEX = "hex"
    BASE64 = "base64"


# ---------------------------------------------------------------------------------------------------------------------- verify


@app.command()
def verify(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Raw OCMF (one record or many), S.A.F.E. XML, OCPP SignedData, or a folder; - is stdin.")
    ],
    key: Key = None,
    begin: Annotated[str | None, typer.Option("--begin", metavar="FILE", help="The begin record, when FILE holds only the end.")] = None,
    strict: Strict = False,
    as_json: AsJson = False,
    processes: Annotated[int | None, typer.Option("--processes", min=1, max=256, help="For many records. Without it: one per core.")] = None,
    trust_enclosed: Annotated[
        bool, typer.Option("--trust-enclosed", help="A key inside the record itself (a fourth section) is good enough.")
    ] = False,
) -> None:
    """Say whether receipts are genuine and hold: signature, law-relevant checks, energy, and what the S.A.F.E. tool would say."""
    from gridloom.integrations.everest import many
    from gridloom.integrations.everest.ocmf import Malformed

    material = _key(key)
    if file != "-" and Path(file).is_dir():
        if begin is not None:
            _give_up("--begin goes with one record, not with a folder")
        _many(_files(Path(file)), material, strict, as_json, processes, trust_enclosed)
    claims = _claims(file)
    if begin is not None:
        claims = [_joined(claims, file, _claims(begin), begin)]
    if len(claims) > 1:
        _many([(one.record.where, one) for one in claims], material, strict, as_json, processes, trust_enclosed)
    try:
        verdict = many.claim(claims[0], material, strict, trust_enclosed)
    except Malformed as error:
        _give_up(f"{file}: {error.message}")
    print(verdict.to_json() if as_json else _told(verdict))
    raise typer.Exit(HOLDS if verdict.holds else FAILS)


def _joined(ends: Sequence[Claim], file: str, begins: Sequence[Claim], begin: str) -> Claim:
    """The end of FILE and the begin of --begin, each with the key that stands beside it."""
    from gridloom.integrations.everest.signed_data import Claim

    for name, found in ((file, ends), (begin, begins)):
        if len(found) != 1 or found[0].begin is not None:
            _give_up(f"{name}: --begin goes with one record in each file")
    return Claim(ends[0].record, begins[0].record)


def _told(verdict: Verdict) -> str:
    from gridloom.integrations.everest.verification import plain

    lines = [f"signature: {verdict.signature}"]
    lines += [f"  {'ok  ' if one.ok else 'FAIL'}  {one.name:<22} {one.detail}" for one in verdict.checks if one.name != "notice"]
    lines.append(f"energy: {'not known' if verdict.energy_wh is None else plain(verdict.energy_wh) + ' Wh'}")
    lines.append(f"S.A.F.E. 1.4.1 would say: {'verified' if verdict.safe.verified else 'not verified'} ({verdict.safe.reason})")
    lines += [one.detail for one in verdict.checks if one.name == "notice"]
    return _printable("\n".join(lines))


def _files(folder: Path) -> list[Path]:
    """What is to be judged in a folder. What cannot be looked at is named, too: whoever reads it says why."""
    import os

    found: list[Path] = []

    def unlisted(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, _, names in os.walk(folder, onerror=unlisted):
        found += [path for path in (Path(place, name) for name in names if not name.startswith(".")) if _file(path)]
    return sorted(found)


def _file(path: Path) -> bool:
    """No pipe or device: those may never end."""
    try:
        return path.is_file()
    except OSError:
        return True


def _many(items: Sequence[Item], key: bytes | str | None, strict: bool, as_json: bool, processes: int | None, trust_enclosed: bool) -> NoReturn:
    """Many records: what fails is listed (all of them with --json, one object a line), progress and the sum go to standard error."""
    import os

    from gridloom.core.clock import Clock
    from gridloom.integrations.everest import many

    if not items:
        _give_up("there is no file in the folder")
    clock, counts, told = Clock(), {"holds": 0, "fails": 0, "unreadable": 0}, 0.0
    began = clock.monotonic()
    number = processes or os.cpu_count() or 1
    for done, answers in many.run(items, key, strict=strict, as_json=as_json, processes=number, trust_enclosed=trust_enclosed):
        for one in answers:
            counts[one.state] += 1
            if as_json:
                print(one.said)
            elif one.state != "holds":
                print(_printable(f"{one.where}: {one.state}: {one.said}"))
        passed = clock.monotonic() - began
        if passed - told > (0.2 if sys.stderr.isatty() else 2.0) and done < len(items):
            told = passed
            _progress(f"{done:,} of {len(items):,}, {done / passed:,.0f}/s")
    _progress("")
    total, passed = sum(counts.values()), max(clock.monotonic() - began, 1e-9)
    print(f"{total:,} records in {passed:.1f} s: " + ", ".join(f"{count:,} {state}" for state, count in counts.items()), file=sys.stderr)
    if not as_json:
        from gridloom.integrations.everest.ocmf import NOTICE

        print(NOTICE, file=sys.stderr)
    raise typer.Exit(UNREADABLE if counts["unreadable"] else FAILS if counts["fails"] else HOLDS)


def _progress(text: str) -> None:
    """On a terminal one line that changes; elsewhere a line every other second."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------------------- inspect


@app.command()
def inspect(file: File, strict: Strict = False, as_json: AsJson = False) -> None:
    """Show what a receipt says, field by field, and where it departs from the format. Nothing is verified."""
    import json

    from gridloom.integrations.everest import ocmf

    records: list[tuple[Found, Record]] = []
    for one in _found(file):
        try:
            records.append((one, ocmf.parse(one.record, strict=strict)))
        except ocmf.Malformed as error:
            _give_up(f"{file}: {one.where}: {error.message}")
    if as_json:
        shown = [_shown(record, found.key) for found, record in records]
        print(json.dumps(shown[0] if len(shown) == 1 else shown, indent=2))
        return
    print(_printable("\n\n".join(_described(record, found.key) for found, record in records) + f"\n\n{ocmf.NOTICE}"))


def _shown(record: Record, key: str | None) -> dict[str, Any]:
    import hashlib

    import msgspec

    from gridloom.integrations.everest.ocmf import NOTICE

    readings = [
        {name: value for name, value in msgspec.structs.asdict(one).items() if value is not None and name not in ("moment", "written")}
        for one in record.readings
    ]
    return {
        "payload": {**record.fields, "RD": readings},
        "signature": {"SA": record.signature.name, "SE": record.signature.encoding, "SM": record.signature.mime, "SD": record.signature.der.hex()},
        "public_key": key or record.key,
        "signed_bytes": len(record.payload),
        "sha256": hashlib.sha256(record.payload).hexdigest(),
        "leniencies": [one._asdict() for one in record.leniencies],
        "notice": NOTICE,
    }


def _described(record: Record, key: str | None) -> str:
    from gridloom.integrations.everest.fields import PAYLOAD
    from gridloom.integrations.everest.ocmf import LENIENCIES
    from gridloom.integrations.everest.verification import reading_line

    meanings = {field.key: field.meaning for field in PAYLOAD}
    lines = [f"{name:<4} {meanings.get(name, 'unknown field'):<34} {_value(value)}" for name, value in record.fields.items()]
    lines += [f"RD   reading {index:<26} {reading_line(one)}" for index, one in enumerate(record.readings)]
    lines.append(f"SA   {'signature algorithm':<34} {record.signature.name}")
    lines.append(f"SD   {'signature':<34} {len(record.signature.der)} bytes over {len(record.payload)} bytes of payload")
    lines += [f"     {'public key':<34} {found}" for found in (key or record.key,) if found]
    lines += [f"!    {one.name:<34} {one.path}: {LENIENCIES[one.name]}{': ' + one.detail if one.detail else ''}" for one in record.leniencies]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


# ------------------------------------------------------------------------------------------------------------- sign and export


@app.command()
def sign(
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD", help="The JSON object to sign, exactly as it stands but for a newline at its end; - is stdin.")
    ],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The private key, as `gridloom ocmf keygen` writes it.")],
    encoding: Annotated[EncodingName, typer.Option("--encoding", help="How the signature is written.")] = EncodingName.HEX,
    xml: Annotated[bool, typer.Option("--xml", help="Print S.A.F.E. XML with the public key instead of the bare record.")] = False,
    strict: Strict = False,
) -> None:
    """Sign a payload, byte for byte, and print the record. What the format does not allow in it is told on standard error.

    One newline at the very end is not signed: editors and shells put it there.
    """
    from gridloom.core.errors import InvalidInput
    from gridloom.integrations.everest import keys, ocmf, safe

    data = _read(payload)
    data = data.removesuffix(b"\r\n" if data.endswith(b"\r\n") else b"\n")
    try:
        signer = keys.signer(key)
        record = ocmf.sign(data, signer, encoding.value)
        read = ocmf.parse(record, strict=strict)
    except InvalidInput as error:
        _give_up(f"{payload}: {error.message}" if not isinstance(error, keys.WrongKey) else error.message)
    if keys.open_to_others(key):
        print(f"warning: {key} can be read by other users; make it yours alone: chmod 600 {key}", file=sys.stderr)
    for one in read.leniencies:
        print(_printable(f"warning: {one.path}: {ocmf.LENIENCIES[one.name]}: {one.detail}"), file=sys.stderr)
    print(safe.to_xml([safe.Value(record, signer.public.hex)]) if xml else record, end="" if xml else "\n")
    print(ocmf.NOTICE, file=sys.stderr)


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key is written (PEM, readable by you alone); it must not exist.")],
    algorithm: Annotated[str, typer.Option("--algorithm", help="One of OCMF, e.g. ECDSA-secp256r1-SHA256.")] = "ECDSA-secp256r1-SHA256",
    as_json: AsJson = False,
) -> None:
    """Make a signing key; print the public key to hand out."""
    import json

    from gridloom.core.errors import InvalidInput, Unsupported
    from gridloom.integrations.everest import keys
    from gridloom.integrations.everest.ocmf import NOTICE

    try:
        made = keys.generate(algorithm)
    except (InvalidInput, Unsupported) as error:
        _give_up(error.message)
    try:
        made.write(file)
    except FileExistsError:
        _give_up(f"{file}: it exists; a key is never written over", FAILS)
    except OSError as error:
        _unwritable(file, error)
    if as_json:
        said = {"algorithm": made.algorithm.name, "fingerprint": made.public.fingerprint, "public_key": made.public.hex, "file": str(file)}
        print(json.dumps({**said, "notice": NOTICE}))
        return
    print(f"algorithm:   {made.algorithm.name}\nfingerprint: {made.public.fingerprint}\npublic key:  {made.public.hex}")
    print(NOTICE, file=sys.stderr)


@app.command()
def export(
    context: typer.Context,
    transaction: Annotated[str, typer.Argument(metavar="TRANSACTION", help="Its id, as the hub's API gives it at /api/v1/transactions.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of standard output.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="The configuration of the running hub.")] = None,
) -> None:
    """Write the signed records of a transaction of the running hub as S.A.F.E. XML."""
    from urllib.parse import quote

    from gridloom.integrations.everest import safe

    found = context.obj(config).get(f"/api/v1/transactions/{quote(transaction, safe='')}")
    text = safe.to_xml(safe.exported(found))
    if output is None:
        print(text, end="")
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            _unwritable(output, error)


# --------------------------------------------------------------------------------------------------------------------- helpers


def _read(file: str) -> bytes:
    from gridloom.integrations.everest import ocmf, signed_data

    try:
        if file == "-":
            return signed_data.load(sys.stdin.buffer)
        with Path(file).open("rb") as opened:
            return signed_data.load(opened)
    except OSError as error:
        _give_up(f"{file}: {error.strerror}")
    except ocmf.Malformed as error:
        _give_up(f"{file}: {error.message}")


def _unwritable(file: Path, error: OSError) -> NoReturn:
    _give_up(f"{file}: cannot be written ({error.strerror}); name a file in a folder that exists and that you may write to", FAILS)


def _found(file: str) -> list[Found]:
    from gridloom.integrations.everest import ocmf, signed_data

    try:
        return signed_data.read(_read(file))
    except ocmf.Malformed as error:
        _give_up(f"{file}: {error.message}")


def _claims(file: str) -> list[Claim]:
    from gridloom.integrations.everest import signed_data

    return signed_data.claims(_found(file))


def _key(text: str | None) -> bytes | str | None:
    """--key: what a file of this name holds, else the text itself."""
    if text is None:
        return None
    from gridloom.integrations.everest.keys import LONGEST

    try:
        with Path(text).open("rb") as file:
            return file.read(LONGEST + 1)
    except (OSError, ValueError) as error:  # no such file, or no name of a file at all
        if "." in text or text.startswith(("/", "~")):  # no key is written so
            _give_up(f"{text}: {error.strerror if isinstance(error, OSError) else error}")
        return text


def _printable(text: str) -> str:
    """Without the control characters and broken surrogates that a foreign record may hold: they could steer a terminal."""
    return "".join(one if one == "\n" or (one.isprintable()) else one.encode("unicode_escape").decode() for one in text)


def _give_up(message: str, code: int = UNREADABLE) -> NoReturn:
    print(_printable(f"gridloom: {message}"), file=sys.stderr)
    raise typer.Exit(code)
