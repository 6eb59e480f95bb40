"""config: strict, every fault at once with key, file, line and what is allowed; environment over file; origins; secrets masked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gridloom import config
from gridloom.core.errors import ConfigurationError
from gridloom.core.settings import Address, Duration, Secret, SecretFile, Section, Zone, is_secret_name, masked


class Meter(Section, frozen=True):
    port: str
    speed: Annotated[int, msgspec.Meta(ge=300, le=115_200)] = 9600


class Field(Section, frozen=True):
    """A section as an integration would bring it."""

    listen: Address = Address("127.0.0.1:19584")
    mode: Literal["auto", "historic", "standard"] = "auto"
    ports: tuple[str, ...] = ()
    discover: bool = True
    every: Duration = Duration(60)
    zone: Zone | None = None
    gateway_key: Secret | None = None
    key_file: SecretFile | None = None
    meter: tuple[Meter, ...] = ()


SECTIONS: dict[str, type[msgspec.Struct]] = {"field": Field}


def load(tmp_path: Path, text: str, **environ: str) -> config.Configuration:
    path = tmp_path / "gridloom.toml"
    path.write_text(text)
    return config.load(path, SECTIONS, environ)


def faults(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, **environ)
    return str(caught.value).replace(str(tmp_path) + "/", "").split("\n")


def test_without_a_file_the_defaults_of_the_design() -> None:
    found = config.load(None, SECTIONS, {})
    assert found.hub.data_dir == "./data"
    assert found.hub.timezone == "Europe/Paris"
    assert found.http.listen == "127.0.0.1:8470"
    assert (found.http.listen.host, found.http.listen.port) == ("127.0.0.1", 8470)
    assert found.storage.url == "sqlite:gridloom.db"
    assert found.storage.url.name == "gridloom.db"
    assert found.bus.url == "memory:"
    assert found.sections == {}, "a section that is absent is off"
    assert {value.origin for value in found.values()} == {"default"}


def test_a_present_section_is_on_even_when_empty(tmp_path: Path) -> None:
    assert load(tmp_path, "[field]\n").sections == {"field": Field()}


def test_values_and_origins(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        '[hub]\ntimezone = "Europe/Amsterdam"\n[field]\nports = ["a",\n "b"]\nevery = "1h30m"\nzone = "Europe/Berlin"\n'
        "[[field.meter]]\nport = 'x'\n[[field.meter]]\nport = 'y'\nspeed = 1200\n",
        GRIDLOOM__HTTP__LISTEN="[::1]:0",
        GRIDLOOM__FIELD__DISCOVER="false",
        GRIDLOOM__STORAGE__RETENTION__SAMPLES="30",
    )
    field = found.sections["field"]
    assert isinstance(field, Field)
    assert field == Field(
        ports=("a", "b"), every=Duration(5400), zone=Zone("Europe/Berlin"), meter=(Meter(port="x"), Meter(port="y", speed=1200)), discover=False
    )
    assert (found.http.listen.host, found.http.listen.port) == ("::1", 0)
    assert found.storage.retention.samples == 30
    shown = {value.key: (value.shown, value.origin.rpartition("/")[2]) for value in found.values()}
    assert shown["hub.timezone"] == ('"Europe/Amsterdam"', "gridloom.toml:2")
    assert shown["field.ports"] == ('["a", "b"]', "gridloom.toml:4")
    assert shown["field.every"] == ("5400.0", "gridloom.toml:6")
    assert shown["field.meter[1].speed"] == ("1200", "gridloom.toml:12")
    assert shown["field.meter[0].speed"] == ("9600", "default")
    assert shown["field.discover"] == ("false", "GRIDLOOM__FIELD__DISCOVER")
    assert shown["http.listen"] == ('"[::1]:0"', "GRIDLOOM__HTTP__LISTEN")
    assert shown["storage.retention.samples"] == ("30", "GRIDLOOM__STORAGE__RETENTION__SAMPLES")
    assert shown["hub.data_dir"] == ('"./data"', "default")


def test_the_environment_wins_and_lists_are_toml(tmp_path: Path) -> None:
    found = load(
        tmp_path, '[field]\nports = ["file"]\n[http]\nlisten = "127.0.0.1:1"\n',
        GRIDLOOM__FIELD__PORTS='["/dev/ttyUSB0", "socket://a:1"]', GRIDLOOM__HTTP__LISTEN="127.0.0.1:2", GRIDLOOM__FIELD__EVERY="90",
        GRIDLOOM__FIELD__METER="[{port = 'z', speed = 300}]", GRIDLOOM__FIELD__MODE="standard",
    )  # fmt: skip
    field = found.sections["field"]
    assert isinstance(field, Field)
    assert field.ports == ("/dev/ttyUSB0", "socket://a:1")
    assert float(field.every) == 90
    assert field.mode == "standard"
    assert field.meter == (Meter(port="z", speed=300),)
    assert found.http.listen.port == 2


def test_a_section_may_be_there_by_the_environment_alone() -> None:
    found = config.load(None, SECTIONS, {"GRIDLOOM__FIELD__MODE": "historic", "PATH": "/bin", "GRIDLOOM_OTHER": "x"})
    assert list(found.sections) == ["field"]


def test_an_unknown_key_names_file_line_the_nearest_and_the_allowed(tmp_path: Path) -> None:
    assert faults(tmp_path, '\n[http]\n# comment\nlisten = "127.0.0.1:0"\nlissen = 1\n') == [
        'gridloom.toml:5: http.lissen: unknown key, did you mean "listen"?; '
        "allowed here: listen, tls_certificate_file, tls_key_file, local_viewer, cors_origins"
    ]
    assert faults(tmp_path, "[storage.retention]\nsample = 3\n") == [
        'gridloom.toml:2: storage.retention.sample: unknown key, did you mean "samples"?; allowed here: samples, ten_minutes, hours, days, events'
    ]
    assert faults(tmp_path, "[htpp]\n") == [
        'gridloom.toml:1: htpp: unknown section, did you mean "http"?; allowed here: hub, http, storage, bus, alarms, log, field'
    ]


def test_an_unknown_variable_is_a_fault_too(tmp_path: Path) -> None:
    found = faults(
        tmp_path, "", GRIDLOOM__HTTP__LISEN="x", GRIDLOOM__FELD__MODE="x", GRIDLOOM__HTTP="x", GRIDLOOM__HTTP__LISTEN__PORT="1", GRIDLOOM__="x"
    )
    assert len(found) == 5
    assert "GRIDLOOM__FELD__MODE: unknown section 'feld', did you mean \"field\"?" in found[1]
    assert "GRIDLOOM__HTTP: names a section, not a key" in found[2]
    assert "GRIDLOOM__HTTP__LISEN: unknown key 'lisen' in http, did you mean \"listen\"?" in found[3]
    assert "GRIDLOOM__HTTP__LISTEN__PORT: unknown key 'port' in http.listen" in found[4]


def test_all_faults_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """[hub]
timezone = "Europe/Pari"
[http]
listen = "127.0.0.1:70000"
[storage]
retention.samples = 0
[log]
level = "inof"
[field]
listen = 8470
discover = "yes"
ports = "x"
every = "5 parsecs"
[[field.meter]]
speed = 1200
[[field.meter]]
port = 'x'
speed = 110
""",
        GRIDLOOM__FIELD__MODE="hystoric",
    )
    where = [line.partition(": ")[0] for line in found]
    assert where == ["GRIDLOOM__FIELD__MODE", *(f"gridloom.toml:{n}" for n in (2, 4, 6, 8, 10, 11, 12, 13, 14, 18))]
    by_key = {line.split(": ")[1]: line for line in found}
    assert '"historic"' in by_key["field.mode"] and 'did you mean "historic"' in by_key["field.mode"]
    assert '"Europe/Pari": no such time zone; allowed: an IANA time zone' in by_key["hub.timezone"]
    assert '"127.0.0.1:70000"' in by_key["http.listen"] and "0 (any free one) to 65535" in by_key["http.listen"]
    assert "at least 1, got 0" in by_key["storage.retention.samples"]
    assert 'one of "debug", "error", "info", "warning"' in by_key["log.level"]
    assert "got an integer" in by_key["field.listen"]
    assert "expected a boolean, got a string" in by_key["field.discover"]
    assert "expected a list" in by_key["field.ports"]
    assert '"1h30m"' in by_key["field.every"]
    assert "the key 'port' is missing" in by_key["field.meter[0]"]
    assert "at least 300 and at most 115200, got 110" in by_key["field.meter[1].speed"]


def test_a_value_of_the_environment_of_the_wrong_type(tmp_path: Path) -> None:
    found = faults(tmp_path, "", GRIDLOOM__FIELD__DISCOVER="maybe", GRIDLOOM__STORAGE__RETENTION__DAYS="-1", GRIDLOOM__FIELD__PORTS="a,b")
    assert found == [
        "GRIDLOOM__FIELD__DISCOVER: expected true or false, written as in TOML",
        "GRIDLOOM__FIELD__PORTS: expected a list, each text, written as in TOML",
        "GRIDLOOM__STORAGE__RETENTION__DAYS: storage.retention.days: expected an integer at least 1, got -1",
    ]


def test_a_section_that_is_no_table(tmp_path: Path) -> None:
    assert "hub: expected a table with data_dir, timezone, got an integer" in faults(tmp_path, "hub = 3\n")[0]


@pytest.mark.parametrize(
    ("text", "where"),
    [("[hub]\ndata_dir = \n", "2:12"), ("[hub\n", "1:5"), ('[hub]\nx = """\nopen', "3:5"), ("a = 1\na = 2\n", "2:6"), ("[hub]\n\n!\n", "3:1")],
)
def test_a_syntax_error_has_line_and_column(tmp_path: Path, text: str, where: str) -> None:
    (found,) = faults(tmp_path, text)
    assert found.startswith(f"gridloom.toml:{where}: not valid TOML: "), found


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope.toml: cannot be read: No such file"):
        config.load(tmp_path / "nope.toml", {}, {})
    (tmp_path / "deep").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigurationError, match="is nested too deeply"):
        config.load(tmp_path / "deep", {}, {})
    (tmp_path / "latin").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text at byte 2"):
        config.load(tmp_path / "latin", {}, {})


def test_postgresql_and_nats_are_refused_without_their_credentials(tmp_path: Path) -> None:
    found = faults(tmp_path, '[storage]\nurl = "postgresql://u:hunter2@db/grid"\n[bus]\nurl = "nats://u:hunter2@host"\n')
    assert "PostgreSQL is not yet in this version" in found[0]
    assert "NATS is not yet in this version" in found[1]
    assert "hunter2" not in "".join(found)
    assert "not of the form sqlite:NAME" in faults(tmp_path, '[storage]\nurl = "sqlite:../x"\n')[0]


def test_secret_files(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    found = load(tmp_path, f'[field]\nkey_file = "{secret}"\n')
    field = found.sections["field"]
    assert isinstance(field, Field)
    assert field.key_file is not None
    assert field.key_file.read().reveal() == "hunter2"
    assert found.warnings == ()
    secret.chmod(0o644)
    (warning,) = load(tmp_path, f'[field]\nkey_file = "{secret}"\n').warnings
    assert f"gridloom.toml:2: field.key_file: {secret} can be read by other users" in warning
    assert f"chmod 600 {secret}" in warning
    (missing,) = faults(tmp_path, '[field]\nkey_file = "/no/such/file"\n')
    assert 'gridloom.toml:2: field.key_file: "/no/such/file": No such file or directory; allowed: the path of a file' in missing


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    text = '[field]\ngateway_key = "hunter2"\nports = ["socket://u:hunter2@h:1"]\n'
    text += '[[alarms.webhook]]\nname = "a"\nurl = "https://u:hunter2@h/x?token=hunter2"\n'
    found = load(tmp_path, text)
    field = found.sections["field"]
    assert isinstance(field, Field)
    assert field.gateway_key is not None
    assert field.gateway_key.reveal() == "hunter2"
    shown = {value.key: value.shown for value in found.values()}
    assert shown["field.gateway_key"] == "***"
    assert shown["field.ports"] == '["socket://***@h:1"]'
    assert shown["alarms.webhook[0].url"] == '"https://***@h/x?token=***"'
    for said in (repr(found), str(found), repr(field.gateway_key), f"{field.gateway_key}", f"{field}", "".join(shown.values())):
        assert "hunter2" not in said
    (fault,) = faults(tmp_path, "[field]\ngateway_key = ''\n")
    assert fault == "gridloom.toml:2: field.gateway_key: the value: an empty secret; allowed: text (kept secret)"
    assert "31337" not in "".join(faults(tmp_path, "[field]\ngateway_key = 31337\n"))


@pytest.mark.parametrize(
    "name",
    ["admin.token", "ADMIN.TOKEN", "hub.lock", "hub", "x.lock", "endpoints.json", "simulated", "a.new", "gridloom.db-wal", "g-shm", "g.quarantine-1"],
)
def test_a_store_cannot_have_the_name_of_another_file_of_the_hub(tmp_path: Path, name: str) -> None:
    (found,) = faults(tmp_path, f'[storage]\nurl = "sqlite:{name}"\n')
    assert found.startswith(f'gridloom.toml:2: storage.url: "sqlite:{name}": {name} is a name that the hub itself uses in data_dir')
    assert load(tmp_path, '[storage]\nurl = "sqlite:hub.db"\n').storage.url.name == "hub.db"


def test_kinds_of_a_webhook_are_kinds_of_events(tmp_path: Path) -> None:
    table = '[[alarms.webhook]]\nname = "a"\nurl = "http://h"\nkinds = '
    assert load(tmp_path, f'{table}["overload", "fault.*"]\n').alarms.webhook[0].kinds == ("overload", "fault.*")
    found = faults(tmp_path, f'{table}["overlaod",\n "fault.*", "falt.*"]\n[[alarms.webhook]]\nname = "b"\nurl = "http://h"\nkinds = ["*"]\n')
    assert len(found) == 3
    assert "alarms.webhook[0].kinds[0]: 'overlaod' is no kind of event (did you mean \"overload\"?)" in found[0]
    assert found[0].startswith("gridloom.toml:4: ")
    assert "alarms.webhook[0].kinds[2]: 'falt.*' is no kind of event" in found[1]
    assert "alarms.webhook[1].kinds[0]: '*' is no kind of event" in found[2]


def test_a_certificate_and_its_key_are_loaded(tmp_path: Path) -> None:
    certificate, key, other, none = (tmp_path / name for name in ("chain.pem", "key.pem", "other.pem", "none.pem"))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(other))
    none.write_text("nothing of the kind")

    def http(certificate: Path, key: Path) -> str:
        return f'[http]\ntls_certificate_file = "{certificate}"\ntls_key_file = "{key}"\n'

    assert load(tmp_path, http(certificate, key)).http.tls_key_file == str(key)
    assert faults(tmp_path, http(certificate, other)) == [
        "gridloom.toml:3: http.tls_key_file: other.pem is not the key of the certificate in chain.pem"
    ]
    (found,) = faults(tmp_path, http(none, key))
    assert found.startswith("gridloom.toml:2: http.tls_certificate_file: expected a certificate chain and its key (tls_key_file), both PEM")
    locked = tmp_path / "locked.pem"
    private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked.write_bytes(
        private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"hunter2"))
    )
    (found,) = faults(tmp_path, http(certificate, locked))
    assert "the key without a password" in found, "nobody is asked for it on the terminal"


def test_rules_over_several_keys_name_the_table(tmp_path: Path) -> None:
    certificate = tmp_path / "c.pem"
    certificate.write_text("x")
    (found,) = faults(tmp_path, f'\n[http]\ntls_certificate_file = "{certificate}"\n')
    assert found == "gridloom.toml:2: http: tls_certificate_file and tls_key_file go together: give both or none"
    (found,) = faults(tmp_path, '[[alarms.webhook]]\nname = "a"\n')
    assert "alarms.webhook[0]: needs either url, or url_file" in found
    (found,) = faults(tmp_path, '[[alarms.webhook]]\nname="a"\nurl="http://h"\n[[alarms.webhook]]\nname="a"\nurl="http://h"\n')
    assert "two of alarms.webhook have the name 'a'" in found


def test_alarm_rules(tmp_path: Path) -> None:
    text = """[[alarms.rule]]
type = "threshold"
name = "overload"
measurand = "Power.Active.Import"
above = 9000
severity = "error"
[[alarms.rule]]
type = "silence"
name = "dead"
seconds = 60
"""
    rules = load(tmp_path, text).alarms.rule
    assert [type(rule).__name__ for rule in rules] == ["Threshold", "Silence"]
    assert load(tmp_path, text).origins["alarms.rule[1].seconds"].endswith(":10")
    wrong = """[[alarms.rule]]
type = "treshold"
name = "a"
[[alarms.rule]]
type = "rate"
name = "b"
measurand = "Power.Active.Imprt"
rises = 3
[[alarms.rule]]
type = "silence"
name = "b"
secnds = 3
[[alarms.rule]]
name = "c"
"""
    assert faults(tmp_path, wrong) == [
        'gridloom.toml:2: alarms.rule[0].type: expected one of "threshold", "silence", "rate", got \'treshold\', did you mean "threshold"?',
        "gridloom.toml:9: alarms.rule[2]: the key 'seconds' is missing (a number)",
        'gridloom.toml:12: alarms.rule[2].secnds: unknown key, did you mean "seconds"?; '
        "allowed here: type, name, devices, site, severity, message, seconds, measurand",
        'gridloom.toml:13: alarms.rule[3]: the key \'type\' is missing (one of "threshold", "silence", "rate")',
    ]
    later = '[[alarms.rule]]\ntype = "rate"\nname = "b"\nmeasurand = "Power.Active.Imprt"\nrises = 3\n'
    later += '[[alarms.rule]]\ntype = "threshold"\nname = "b"\nmeasurand = "Voltage"\n'
    found = faults(tmp_path, later)
    assert found[0].startswith("gridloom.toml:4: alarms.rule[0].measurand: 'Power.Active.Imprt' is no measurand (did you mean")
    assert found[1] == "gridloom.toml:6: alarms.rule[1]: expected above or below"
    assert found[2] == "gridloom.toml:8: alarms.rule[1].name: there are two rules named 'b'"


def test_find_takes_what_was_asked_for_else_the_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.find(None) is None
    assert config.find(Path("other.toml")) == Path("other.toml")
    Path("gridloom.toml").touch()
    assert config.find(None) == Path("gridloom.toml")


def test_durations() -> None:
    assert [Duration(text) for text in ("250ms", "30s", "15m", "15 min", "1h30m", "2d", "90", "1.5h")] == [0.25, 30, 900, 900, 5400, 172800, 90, 5400]
    for wrong in ("", "x", "5 parsecs", "-3", "0", "1h x", "nan", "inf"):
        with pytest.raises(ValueError):
            Duration(wrong)


def test_addresses() -> None:
    assert (Address("[::1]:80").host, Address("[::1]:80").port) == ("::1", 80)
    for wrong in ("", "host", ":80", "host:", "host:x", "host:65536", "::1:80", "host:-1", "host:٣"):
        with pytest.raises(ValueError):
            Address(wrong)


def test_origins(tmp_path: Path) -> None:
    assert load(tmp_path, '[http]\ncors_origins = ["https://a.example", "http://localhost:3000"]\n').http.cors_origins[1] == "http://localhost:3000"
    for wrong in ("*", "https://a.example/", "a.example", "https://a.example/x", "ftp://a"):
        (found,) = faults(tmp_path, f'[http]\ncors_origins = ["{wrong}"]\n')
        assert f'gridloom.toml:2: http.cors_origins[0]: "{wrong}": not scheme://host' in found


def test_masking() -> None:
    token = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyMTI"
    assert masked(f"GET /x?a=1&access_token=abc&b=2 Bearer {token} mqtt://u:p@h:1/ {token}.") == (
        "GET /x?a=1&access_token=***&b=2 Bearer *** mqtt://***@h:1/ ***."
    )
    assert masked("nothing secret: key figures of 2026, host:8470") == "nothing secret: key figures of 2026, host:8470"
    for name in ("password", "db_password", "secret", "gateway_key", "subscription_keys", "token", "apiKey", "api_key", "Authorization", "key"):
        assert is_secret_name(name), name
    for name in ("tls_key_file", "keyboard", "monkey", "device", "secret_file", "listen"):
        assert not is_secret_name(name), name


def test_reading_as_root_or_not_the_file_must_be_readable(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    os.mkdir(folder)
    (found,) = faults(tmp_path, f'[field]\nkey_file = "{folder}"\n')
    assert "Is a directory" in found
