"""The configuration as types: one strict TOML file, the environment over it, and for each value where it came from.

All faults of a file are reported at once, one per line, each with key, file and line and with what is allowed. The sections that
are ours are types here; the sections of integrations come to ``load`` as types by name, from ``app``. Environment
``GRIDLOOM__SECTION__KEY`` wins over the file; text is taken as it is, everything else is written as in TOML.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from gridloom import toml_lines
from gridloom.core import faults
from gridloom.core import rules as alarm_rules
from gridloom.core.errors import ConfigurationError, FieldFault, InvalidInput
from gridloom.core.events import TABLE
from gridloom.core.model import Severity
from gridloom.core.settings import (
    Address,
    Duration,
    HttpUrl,
    Origin,
    ReadableFile,
    Secret,
    SecretFile,
    Section,
    Setting,
    Zone,
    is_secret_name,
    masked,
)
from gridloom.core.webhook import kind_matches

PREFIX = "GRIDLOOM__"
FILE = Path("gridloom.toml")
"""The file that is taken when none is named and it exists in the working directory."""


# ------------------------------------------------------------------------------------------------------ our own sections


RESERVED_NAMES = ("admin.token", "hub.lock", "endpoints.json", "simulated", "hub")
"""Files in data_dir that are not the store; the lock of a store ``hub`` would be ``hub.lock``."""
RESERVED_ENDINGS = (".new", "-wal", "-shm", ".lock")
"""What stands beside a file while it is written or used."""


class StorageUrl(Setting):
    """``sqlite:NAME`` (in data_dir). ``postgresql://…`` is known and refused for now; its credentials are never repeated."""

    ALLOWED = '"sqlite:NAME" (a file in data_dir)'
    __slots__ = ()

    def __new__(cls, text: str) -> StorageUrl:
        scheme, _, name = text.partition(":")
        if scheme in ("postgresql", "postgres"):
            raise ValueError("PostgreSQL is not yet in this version")
        if scheme != "sqlite" or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ValueError("not of the form sqlite:NAME with a plain file name")
        plain = name.lower()  # a disk may not tell upper from lower case
        if plain in RESERVED_NAMES or plain.endswith(RESERVED_ENDINGS) or "quarantine" in plain:
            raise ValueError(f"{name} is a name that the hub itself uses in data_dir; take another, e.g. sqlite:gridloom.db")
        return super().__new__(cls, text)

    @property
    def name(self) -> str:
        """The file's name in data_dir."""
        return self.partition(":")[2]


class BusUrl(Setting):
    """``memory:``. ``nats://…`` is known and refused for now; its credentials are never repeated."""

    ALLOWED = '"memory:"'
    __slots__ = ()

    def __new__(cls, text: str) -> BusUrl:
        if text.startswith(("nats:", "tls:")):
            raise ValueError("NATS is not yet in this version")
        if text != "memory:":
            raise ValueError("no such bus")
        return super().__new__(cls, text)


class HubSection(Section, frozen=True):
    """``[hub]``: where everything is kept, and the zone in which local days are cut."""

    data_dir: str = "./data"
    timezone: Zone = Zone("Europe/Paris")


class HttpSection(Section, frozen=True):
    """``[http]``: the hub's API and page. TLS when both files are given; beyond loopback tokens are always in force.

    ``local_viewer``: a browser on this machine may look (and only look) without a token while the hub listens on loopback only.
    ``cors_origins``: web origins whose pages may call the API with a token.
    """

    listen: Address = Address("127.0.0.1:8470")
    tls_certificate_file: ReadableFile | None = None
    tls_key_file: SecretFile | None = None
    local_viewer: bool = True
    cors_origins: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together: give both or none")
        if self.tls_certificate_file is not None and self.tls_key_file is not None:
            _check_pair(self.tls_certificate_file, self.tls_key_file)


def _check_pair(certificate: ReadableFile, key: SecretFile) -> None:
    """Load them as the web server will. Raises InvalidInput naming the key of the file that is wrong."""
    import ssl  # only who uses TLS pays for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the password OpenSSL would ask for one on the terminal, where a service has nobody to answer.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            path, reason = "$.tls_key_file", f"{key} is not the key of the certificate in {certificate}"
        else:
            path = "$.tls_certificate_file"
            reason = f"expected a certificate chain and its key (tls_key_file), both PEM and the key without a password: {error}"
        raise InvalidInput(f"http: {reason}", (FieldFault(path, reason),)) from None


Days = Annotated[int, msgspec.Meta(ge=1)]


class RetentionTable(Section, frozen=True):
    """``[storage.retention]``: days to keep each kind; absent is for ever. Roll-ups may outlive the samples they were made of."""

    samples: Days | None = None
    ten_minutes: Days | None = None
    hours: Days | None = None
    days: Days | None = None
    events: Days | None = None


class StorageSection(Section, frozen=True):
    """``[storage]``: which store, and how long it keeps what. ``resume``: how long a live stream can be taken up again behind its cursor."""

    url: StorageUrl = StorageUrl("sqlite:gridloom.db")
    retention: RetentionTable = RetentionTable()
    resume: Duration = Duration(300)


class WebhookTable(Section, frozen=True):
    """``[[alarms.webhook]]``: where alarms and events go.

    ``kinds`` may end in ``.*``, in ``devices`` ``*`` is anything; none of them is all.
    ``allow_private``: the target may lie on the hub's own network.
    """

    name: str
    url: HttpUrl | None = None
    url_file: SecretFile | None = None
    secret_file: SecretFile | None = None
    min_severity: Severity = Severity.WARNING
    kinds: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    allow_private: bool = False

    def __post_init__(self) -> None:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("needs either url, or url_file when the address itself is a secret")
        wrong = tuple(
            FieldFault(
                f"$.kinds[{number}]", f"{pattern[:80]!r} is no kind of event{faults.nearest(pattern, TABLE)}; docs/reference/events.md lists them"
            )
            for number, pattern in enumerate(self.kinds)
            if not any(kind_matches(pattern, kind) for kind in TABLE)
        )
        if wrong:
            raise InvalidInput(f"alarms.webhook {self.name!r}: {wrong[0].reason}", wrong)

    def address(self) -> str:
        """The target, from ``url`` or the file. Raises ValueError when the file holds no URL."""
        return str(self.url) if self.url_file is None else HttpUrl(self.url_file.read().reveal())


class AlarmsSection(Section, frozen=True):
    """``[alarms]``: rules that raise alarms from readings, and targets that are told."""

    rule: tuple[alarm_rules.Rule, ...] = ()
    webhook: tuple[WebhookTable, ...] = ()

    def __post_init__(self) -> None:
        alarm_rules.check(self.rule)
        names = [webhook.name for webhook in self.webhook]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two of alarms.webhook have the name {twice[0]!r}; each needs its own")


class LogSection(Section, frozen=True):
    """``[log]``: what goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class BusSection(Section, frozen=True):
    """``[bus]``: how the parts of the hub tell each other."""

    url: BusUrl = BusUrl("memory:")


# ------------------------------------------------------------------------------------------------------ the configuration


class Value(msgspec.Struct, frozen=True):
    """One value as ``gridloom check`` shows it: secrets are masked already. ``origin`` is ``FILE:LINE``, the variable's name, or ``default``."""

    key: str
    shown: str
    origin: str


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, checked. ``sections`` holds those of integrations that are present, by name.

    ``origins``: for each key (``http.listen``, ``alarms.rule[0].name``) where its value came from. ``warnings``: one line each.
    """

    hub: HubSection = HubSection()
    http: HttpSection = HttpSection()
    storage: StorageSection = StorageSection()
    bus: BusSection = BusSection()
    alarms: AlarmsSection = AlarmsSection()
    log: LogSection = LogSection()
    sections: dict[str, msgspec.Struct] = {}
    origins: dict[str, str] = {}
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        # A configuration lands in tracebacks and logs; what it holds is for `gridloom check`, which masks.
        return f"Configuration(path={str(self.path)!r}, sections={sorted(self.sections)})"

    def parts(self) -> Iterator[tuple[str, msgspec.Struct]]:
        """Every section by name: ours, then those of integrations."""
        for name in OWN:
            yield name, getattr(self, name)
        yield from self.sections.items()

    def values(self) -> Iterator[Value]:
        """Every value with its origin, secrets masked, in the order of the types."""
        for name, section in self.parts():
            yield from self._values(name, section)

    def _values(self, key: str, value: Any, secret: bool = False) -> Iterator[Value]:
        if isinstance(value, msgspec.Struct):
            tag = value.__struct_config__
            if tag.tag_field:
                yield Value(f"{key}.{tag.tag_field}", f'"{tag.tag}"', self.origins.get(f"{key}.{tag.tag_field}", "default"))
            for name in value.__struct_fields__:
                yield from self._values(f"{key}.{name}", getattr(value, name), is_secret_name(name))
        elif isinstance(value, list | tuple) and any(isinstance(item, msgspec.Struct) for item in value):
            for index, item in enumerate(value):
                yield from self._values(f"{key}[{index}]", item)
        else:
            yield Value(key, _shown(value, secret), self.origins.get(key, "default"))


def load(path: Path | None, sections: Mapping[str, type[msgspec.Struct]], environ: Mapping[str, str]) -> Configuration:
    """Read the file (None: only defaults and environment) and the environment. ``sections``: the types of integrations' sections.

    Relative paths in it are relative to the working directory. Raises ConfigurationError with every fault, one per line.
    """
    source = _read(path) if path is not None else _Source("", {}, {})
    reading = _Reading(source)
    known: dict[str, type[msgspec.Struct]] = {**OWN, **sections}
    reading.environment(environ, known)
    for name in source.data:
        if name not in known:
            reading.unknown((name,), "section", name, known)
    found: dict[str, msgspec.Struct] = {}
    for name, type_ in known.items():
        if name in source.data:
            section = reading.struct((name,), type_, source.data[name])
            if section is not None:
                found[name] = section
    if reading.faults:
        raise ConfigurationError("\n".join(sorted(reading.faults, key=_line)))
    ours = {name: found.pop(name) for name in OWN if name in found}
    return Configuration(**ours, sections=found, origins=reading.origins, path=path, warnings=tuple(reading.warnings))  # type: ignore[arg-type]


def _line(fault: str) -> int:
    """For sorting: the line a fault begins with (``FILE:LINE: …``), those of variables first."""
    match = re.match(r".*?:(\d+): ", fault)
    return int(match[1]) if match else 0


def find(path: Path | None) -> Path | None:
    """The file to read: the one that was asked for, else ``gridloom.toml`` in the working directory if it is there."""
    return path if path is not None else FILE if FILE.exists() else None


class _Source(msgspec.Struct):
    """What was written: the raw values by section, and the line of each path."""

    file: str
    data: dict[str, Any]
    lines: dict[toml_lines.Path, int]


def _read(path: Path) -> _Source:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text at byte {error.start}") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(_syntax(path, text, str(error))) from None
    except RecursionError:
        raise ConfigurationError(f"{path}: is nested too deeply") from None
    try:
        found = toml_lines.lines(text.replace("\r\n", "\n"))
    except ValueError:
        found = {}  # the scanner lost its way in something that tomllib took: faults are told without their line
    return _Source(str(path), data, found)


def _syntax(path: Path, text: str, message: str) -> str:
    """``FILE:LINE:COLUMN: …`` from tomllib's words, which end in ``(at line 3, column 5)`` or ``(at end of document)``."""
    if match := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL):
        reason, line, column = match[1], int(match[2]), int(match[3])
    else:
        rows = text.split("\n")
        reason, line, column = message.removesuffix(" (at end of document)"), len(rows), len(rows[-1]) + 1
    return f"{path}:{line}:{column}: not valid TOML: {reason[:1].lower()}{reason[1:]}"


class _Reading:
    """One pass over the raw values: collects every fault and every origin."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.faults: list[str] = []
        self.warnings: list[str] = []
        self.origins: dict[str, str] = {}
        self.variables: dict[toml_lines.Path, str] = {}

    # -- where

    def origin(self, path: toml_lines.Path) -> str:
        """The variable's name or ``FILE:LINE`` of the nearest thing around ``path`` that was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.variables:
                return self.variables[path[:length]]
        for length in range(len(path), 0, -1):
            if path[:length] in self.source.lines:
                return f"{self.source.file}:{self.source.lines[path[:length]]}"
        return self.source.file

    def fault(self, path: toml_lines.Path, reason: str) -> None:
        self.faults.append(f"{self.origin(path)}: {_dotted(path)}: {reason}")

    def unknown(self, path: toml_lines.Path, what: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> None:
        self.fault(path, f"unknown {what}{_nearest(name, known)}; allowed here: {', '.join(known) or 'nothing'}")

    # -- the environment

    def environment(self, environ: Mapping[str, str], known: Mapping[str, type[msgspec.Struct]]) -> None:
        """Put each ``GRIDLOOM__…`` over what the file says."""
        for variable in sorted(environ):
            if variable.upper().startswith(PREFIX):
                names = [part.lower() for part in variable[len(PREFIX) :].split("__")]
                self.variable(variable, environ[variable], names, known)

    def variable(self, variable: str, raw: str, names: list[str], known: Mapping[str, type[msgspec.Struct]]) -> None:
        name, *keys = names
        if name not in known:
            self.faults.append(f"{variable}: unknown section {name!r}{_nearest(name, known)}; allowed here: {', '.join(known)}")
            return
        type_: Any = known[name]
        path: toml_lines.Path = (name,)
        for key in keys:
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(type_)} if _is_struct(type_) else {}
            if key not in fields:
                hint = f"{_nearest(key, fields)}; allowed here: {', '.join(fields) or 'nothing'}"
                self.faults.append(f"{variable}: unknown key {key!r} in {_dotted(path)}{hint}")
                return
            type_ = _bare(fields[key])
            path = (*path, key)
        if not keys:
            self.faults.append(f"{variable}: names a section, not a key; allowed: {PREFIX}{name.upper()}__KEY with one of {', '.join(_keys(type_))}")
            return
        try:
            value = _typed(raw, type_)
        except ValueError as error:
            self.faults.append(f"{variable}: {error}")
            return
        table: Any = self.source.data
        for key in names[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                return  # the file has no table here; that is reported where the file is walked
        table[keys[-1]] = value
        self.variables[path] = variable

    # -- the walk

    def struct(self, path: toml_lines.Path, type_: type[msgspec.Struct], value: Any) -> msgspec.Struct | None:
        """The Struct, or None when something in it is wrong."""
        if not isinstance(value, dict):
            self.fault(path, f"expected a table with {', '.join(_keys(type_))}, got {_kind(value)}")
            return None
        before = len(self.faults)
        fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
        tag = type_.__struct_config__.tag_field
        for key in value:
            if key not in fields and key != tag:
                self.unknown((*path, key), "key", key, ([tag] if tag else []) + list(fields))
        made: dict[str, Any] = {}
        for key, field in fields.items():
            if key in value:
                made[field.name] = self.value((*path, key), field.type, value[key])
            elif field.required:
                self.fault(path, f"the key {key!r} is missing ({_allowed(field.type)})")
        if len(self.faults) > before:
            return None
        try:
            return type_(**made)
        except InvalidInput as error:  # the type's own rules over several keys: each with its path
            for fault in error.faults:
                self.fault((*path, *_steps(fault.path)), fault.reason)
        except ValueError as error:  # likewise, about all of it
            self.fault(path, str(error))
        return None

    def variant(self, path: toml_lines.Path, variants: Mapping[str, type[msgspec.Struct]], value: Any) -> msgspec.Struct | None:
        """One of several Structs, told apart by their tag (``type = "threshold"``)."""
        field = next(iter(variants.values())).__struct_config__.tag_field or "type"
        allowed = ", ".join(f'"{name}"' for name in variants)
        if not isinstance(value, dict):
            self.fault(path, f"expected a table with {field} = one of {allowed}, got {_kind(value)}")
        elif field not in value:
            self.fault(path, f"the key {field!r} is missing (one of {allowed})")
        elif not isinstance(value[field], str) or value[field] not in variants:
            hint = _nearest(value[field], list(variants)) if isinstance(value[field], str) else ""
            self.fault((*path, field), f"expected one of {allowed}, got {value[field]!r}{hint}")
        else:
            self.origins[_dotted((*path, field))] = self.origin((*path, field))
            return self.struct(path, variants[value[field]], value)
        return None

    def value(self, path: toml_lines.Path, type_: Any, value: Any) -> Any:
        """The value as its type; None after a fault was noted."""
        bare = _bare(type_)
        if _is_struct(bare):
            return self.struct(path, bare, value)
        if variants := _variants(bare):
            return self.variant(path, variants, value)
        origin, arguments = typing.get_origin(bare), typing.get_args(bare)
        if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
            return self.items(path, bare, value)
        if origin is dict and isinstance(value, dict):
            return {key: self.value((*path, key), arguments[1], item) for key, item in value.items()}
        self.origins[_dotted(path)] = self.origin(path)
        if isinstance(bare, type) and issubclass(bare, Setting | Duration):
            return self.setting(path, bare, value)
        secret = is_secret_name(str(path[-1]))
        for fault in faults.collect(_present(type_), value, hide=(str(path[-1]),)):
            came = "" if secret or not isinstance(value, str | int | float) or "got" in fault.reason.partition(",")[2] else f", got {value!r}"
            self.fault(path, fault.reason + came)
            return None
        return msgspec.convert(value, type_)

    def items(self, path: toml_lines.Path, bare: Any, value: Any) -> Any:
        inner = typing.get_args(bare)[0]
        if not isinstance(value, list):
            self.fault(path, f"expected a list, each {_allowed(inner)}, got {_kind(value)}")
            return None
        self.origins[_dotted(path)] = self.origin(path)
        items = [self.value((*path, index), inner, item) for index, item in enumerate(value)]
        return tuple(items) if typing.get_origin(bare) is tuple else items

    def setting(self, path: toml_lines.Path, type_: type[Setting] | type[Duration], value: Any) -> Any:
        textual = isinstance(value, str)
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not (textual or (numeric and issubclass(type_, Duration))):
            self.fault(path, f"expected {type_.ALLOWED}, got {_kind(value)}")
            return None
        try:
            made = type_(value)
        except ValueError as error:
            hidden = issubclass(type_, Secret) or is_secret_name(str(path[-1]))
            self.fault(path, f"{'the value' if hidden else _quoted(value)}: {error}; allowed: {type_.ALLOWED}")
            return None
        if isinstance(made, SecretFile) and made.exposed:
            self.warnings.append(f"{self.origin(path)}: {_dotted(path)}: {made} can be read by other users; make it yours alone: chmod 600 {made}")
        return made


# ------------------------------------------------------------------------------------------------------------ small words


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _bare(type_: Any) -> Any:
    """The type without ``| None`` and without Annotated (whose limits are still checked by msgspec on the whole type)."""
    if typing.get_origin(type_) is Annotated:
        return _bare(typing.get_args(type_)[0])
    if typing.get_origin(type_) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(type_) if part is not types.NoneType]
        if len(parts) == 1:
            return _bare(parts[0])
    return type_


def _variants(bare: Any) -> dict[str, type[msgspec.Struct]]:
    """The Structs of a union by their tags; empty for any other type."""
    if typing.get_origin(bare) not in (typing.Union, types.UnionType):
        return {}
    members = typing.get_args(bare)
    return {str(one.__struct_config__.tag): one for one in members} if all(_is_struct(one) for one in members) else {}


def _steps(path: str) -> toml_lines.Path:
    """``$.rule[0].name`` as steps."""
    return tuple(int(index) if index else name for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path))


def _present(type_: Any) -> Any:
    """The type without ``| None``, limits kept: nobody can write None in TOML, so nobody is told of it."""
    parts = [part for part in typing.get_args(type_) if part is not types.NoneType]
    return parts[0] if typing.get_origin(type_) in (typing.Union, types.UnionType) and len(parts) == 1 else type_


def _typed(raw: str, type_: Any) -> Any:
    """The text of a variable as its target wants it. Raises ValueError with what was expected."""
    if isinstance(type_, type) and issubclass(type_, str | Duration):  # str, Setting, StrEnum
        return raw
    if typing.get_origin(type_) is Literal and all(isinstance(value, str) for value in typing.get_args(type_)):
        return raw
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        raise ValueError(f"expected {_allowed(type_)}, written as in TOML") from None


def _keys(type_: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(type_)]


def _allowed(type_: Any) -> str:
    """In words what may be written for a type."""
    bare = _bare(type_)
    if isinstance(bare, type) and issubclass(bare, Setting | Duration):
        return bare.ALLOWED
    if _is_struct(bare):
        return f"a table with {', '.join(_keys(bare))}"
    if variants := _variants(bare):
        return "a table with type = one of " + ", ".join(f'"{name}"' for name in variants)
    if typing.get_origin(bare) in (list, tuple):
        return f"a list, each {_allowed(typing.get_args(bare)[0])}"
    if typing.get_origin(bare) is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in typing.get_args(bare))
    return {bool: "true or false", int: "an integer", float: "a number", str: "text"}.get(bare, getattr(bare, "__name__", str(bare)))


def _nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f', did you mean "{close[0]}"?' if close else ""


def _dotted(path: toml_lines.Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _kind(value: Any) -> str:
    words = {bool: "a boolean", int: "an integer", float: "a number", str: "text", list: "a list", dict: "a table"}
    return words.get(type(value), "a date or time")


def _quoted(value: Any) -> str:
    """The value as it was written, with credentials of a URL masked."""
    text = masked(value) if isinstance(value, str) else str(value)
    return f'"{text[:80]}"'


def _shown(value: Any, secret: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, Secret) or (secret and isinstance(value, str)):
        return "***"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(item, secret) for item in value) + "]"
    if isinstance(value, str):
        return f'"{masked(value)}"'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


OWN: dict[str, type[msgspec.Struct]] = {
    "hub": HubSection,
    "http": HttpSection,
    "storage": StorageSection,
    "bus": BusSection,
    "alarms": AlarmsSection,
    "log": LogSection,
}
