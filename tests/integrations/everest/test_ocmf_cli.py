"""`gridloom ocmf` as a user types it: exit codes, exact JSON, keys, many records on more than one core, export from a running hub's API."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.hub_process import SOURCE, environment, gridloom
from tests.integrations.everest.records import BEGIN, END, PUBLISHED, payload, point, readings, sealed, spki
from typer.testing import CliRunner, Result

from gridloom.cli.client import Client
from gridloom.integrations.everest import keys, many, signed_data
from gridloom.integrations.everest.ocmf import NOTICE
from gridloom.integrations.everest.ocmf_cli import app
from gridloom.integrations.everest.safe import Value, to_xml

KEY = spki().hex()
ONE = sealed(payload())


def run(*arguments: str | Path, input: str | None = None, **more: Any) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], input=input, **more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "receipt.ocmf"
    path.write_text(ONE + "\n")
    return path


# ---------------------------------------------------------------------------------------------------------------------- verify


def test_the_whole_command_line(tmp_path: Path, file: Path) -> None:
    found = gridloom("ocmf", "verify", str(file), "--key", KEY, "--json", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    said = json.loads(found.stdout)
    assert list(said) == ["signature", "checks", "energy_wh", "safe"]
    assert (said["signature"], said["energy_wh"], said["safe"]["verified"]) == ("valid", 12250, True)
    assert {"name": "notice", "ok": True, "detail": NOTICE} in said["checks"]
    found = gridloom("ocmf", "export", "0123", cwd=tmp_path)
    assert found.returncode == 1
    assert "no hub runs" in found.stderr


def test_standard_input_and_words(file: Path) -> None:
    found = run("verify", "-", "--key", KEY, input=ONE)
    assert found.exit_code == 0
    lines = found.stdout.splitlines()
    assert lines[0] == "signature: valid"
    assert "energy: 12250 Wh" in lines
    assert "S.A.F.E. 1.4.1 would say: verified (the signature is valid and the law checks hold)" in lines
    assert lines[-1] == NOTICE


@pytest.mark.parametrize(
    ("record", "key", "code", "signature"),
    [
        (ONE, KEY, 0, "valid"),
        (ONE.replace("1012.75", "1012.76"), KEY, 1, "invalid"),
        (ONE, spki(number=2).hex(), 1, "invalid"),
        (ONE, "nonsense", 1, "unchecked"),
        (ONE, spki("ECDSA-secp384r1-SHA256").hex(), 1, "unchecked"),
        (sealed(payload(IL="INVALID")), KEY, 1, "valid"),
        (sealed(payload(RD=readings({"RV": " 01000.5"}))), KEY, 0, "valid"),
    ],
)
def test_exit_codes(tmp_path: Path, record: str, key: str, code: int, signature: str) -> None:
    (tmp_path / "one").write_text(record)
    found = run("verify", tmp_path / "one", "--key", key, "--json")
    assert found.exit_code == code
    assert json.loads(found.stdout)["signature"] == signature


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "byte 0"),
        (b"OCMF|{}", "byte 7"),
        (b'OCMF|{"RD":[{"RV":"x"}]}|{"SD":"00"}', "payload $.RD[0].RV"),
        (b"<values>", "byte 8"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><values>&b;</values>', "document type"),
        (b'<?xml version="1.0" encoding="gb2312"?><values></values>', "no XML: multi-byte encodings"),
        (b'<?xml version="1.0" encoding="nope-1"?><values></values>', "no XML: unknown encoding"),
        (b"{}", "$: no signedMeterData"),
        (b"\xff\xfe\x1b[31m", "byte 0"),
    ],
)
def test_unreadable_input_is_two_and_says_where(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "one").write_bytes(data)
    for json_too in ([], ["--json"]):
        found = run("verify", tmp_path / "one", "--key", KEY, *json_too)
        assert (found.exit_code, found.stdout) == (2, "")
        assert said in found.stderr
        assert "\x1b" not in found.stderr, "a record does not steer the terminal"


def test_files_that_are_not_there(tmp_path: Path, file: Path) -> None:
    for arguments in (
        ["verify", "nowhere"],
        ["inspect", "nowhere"],
        ["verify", str(file), "--key", "./nowhere.pem"],
        ["sign", "nowhere", "--key", str(file)],
    ):
        found = run(*arguments)
        assert found.exit_code == 2, arguments
        assert "No such file" in found.stderr


def test_strict_refuses_what_is_read_otherwise(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(sealed(payload(RD=readings({"RV": "1000.5"}))))
    assert run("verify", tmp_path / "one", "--key", KEY).exit_code == 0
    found = run("verify", tmp_path / "one", "--key", KEY, "--strict")
    assert found.exit_code == 2
    assert "payload $.RD[0].RV: a number is written as a string" in found.stderr


def test_keys_as_files_and_as_text(tmp_path: Path, file: Path) -> None:
    pem = keys.public_key(spki()).pem()
    for number, content in enumerate((pem.encode(), spki(), KEY.encode(), point(), point()[1:])):
        (tmp_path / f"key{number}").write_bytes(content)
        assert run("verify", file, "--key", tmp_path / f"key{number}").exit_code == 0
    for text in (KEY.upper(), pem, point().hex()):
        assert run("verify", file, "--key", text).exit_code == 0
    assert run("verify", file).exit_code == 1


def test_a_begin_in_a_file_of_its_own(tmp_path: Path) -> None:
    begin, end = tmp_path / "begin", tmp_path / "end"
    begin.write_text(sealed(payload(RD=[BEGIN])))
    end.write_text(sealed(payload(PG="T8", RD=[END])))
    assert run("verify", end, "--key", KEY).exit_code == 1
    found = run("verify", end, "--begin", begin, "--key", KEY, "--json")
    assert (found.exit_code, json.loads(found.stdout)["energy_wh"]) == (0, 12250)
    begin.write_text(to_xml([Value(sealed(payload(RD=[BEGIN]), number=2), spki(number=2).hex())]))
    end.write_text(to_xml([Value(end.read_text(), KEY)]))
    assert run("verify", end, "--begin", begin).exit_code == 0, "each with the key beside it"
    begin.write_text(f"{ONE}\n{ONE}")
    assert run("verify", end, "--begin", begin).exit_code == 2


def test_begin_and_end_in_one_document(tmp_path: Path) -> None:
    values = [
        Value(PUBLISHED[f"nzr-brainpoolP256r1-{which.lower()}"]["record"], PUBLISHED[f"nzr-brainpoolP256r1-{which.lower()}"]["key"], "15001", context)
        for which, context in (("Begin", "Transaction.Begin"), ("End", "Transaction.End"))
    ]
    (tmp_path / "values.xml").write_text(to_xml(values))
    found = run("verify", tmp_path / "values.xml", "--json")
    assert (found.exit_code, json.loads(found.stdout)["energy_wh"]) == (0, 0)


# ------------------------------------------------------------------------------------------------------------------------ many


def test_many_records_in_a_file_and_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "receipts"
    folder.mkdir()
    changed = ONE.replace("1012.75", "1012.76")
    (folder / "a.ocmf").write_text(f"{ONE}\n{changed}\n{ONE}\n")
    (folder / "b.xml").write_text(to_xml([Value(ONE, KEY)]))
    found = run("verify", folder / "a.ocmf", "--key", KEY)
    assert found.exit_code == 1
    assert [line.split(":")[:2] for line in found.stdout.splitlines()] == [["line 2", " fails"]]
    assert "3 records" in found.stderr and "2 holds, 1 fails, 0 unreadable" in found.stderr and NOTICE in found.stderr
    found = run("verify", folder, "--key", KEY, "--json")
    said = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(one["record"].rpartition("/")[2], one["signature"]) for one in said] == [
        ("a.ocmf: line 1", "valid"), ("a.ocmf: line 2", "invalid"), ("a.ocmf: line 3", "valid"), ("b.xml", "valid"),
    ]  # fmt: skip
    (folder / "c.txt").write_text("not a receipt")
    found = run("verify", folder, "--key", KEY, "--json")
    assert found.exit_code == 2
    assert json.loads(found.stdout.splitlines()[-1])["error"] == {"path": "byte 0", "reason": "expected OCMF|, got 'not a receipt'"}
    assert run("verify", tmp_path / "receipts", "--begin", folder / "b.xml").exit_code == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("verify", empty).exit_code == 2


def test_a_file_that_cannot_be_read_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_text(ONE)
    items: list[many.Item] = [tmp_path / "gone", Path("/proc/self/mem"), file]  # vanished; EIO; good
    assert [one.state for one in many.judge(items, KEY, False, False)] == ["unreadable", "unreadable", "holds"]
    said = [json.loads(one.said) for one in many.judge(items, KEY, False, True)]
    assert said[0]["error"] == {"path": "file", "reason": "No such file or directory"}
    assert said[1]["error"] == {"path": "file", "reason": "Input/output error"}
    monkeypatch.setattr(signed_data, "MOST_FILE", len(ONE))
    (tmp_path / "b").write_text(f"{ONE}\n{ONE}")
    os.mkfifo(tmp_path / "pipe")  # would be waited for
    found = run("verify", tmp_path, "--key", KEY)
    assert found.exit_code == 2
    assert "1 holds, 0 fails, 1 unreadable" in found.stderr
    assert f"a file has at most {len(ONE)} bytes" in found.stdout
    assert "a file has at most" in run("verify", tmp_path / "b", "--key", KEY).stderr
    assert run("verify", "-", "--key", KEY, input=f"{ONE}\n{ONE}").exit_code == 2
    assert run("verify", tmp_path / "a", "--key", "/dev/zero").exit_code == 1


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text(ONE)
    locked, scan = tmp_path / "locked", os.scandir
    locked.mkdir()

    def refusing(place: str | Path) -> Any:
        if Path(place) == locked:
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refusing)  # root may list everything
    found = run("verify", tmp_path, "--key", KEY)
    assert (found.exit_code, found.stdout.split(":")[:2]) == (2, [str(locked), " unreadable"])


def test_a_key_that_vouches_for_itself(tmp_path: Path) -> None:
    (tmp_path / "inside").write_text(f"{ONE}|{KEY}")
    (tmp_path / "beside").write_text(to_xml([Value(ONE, KEY)]))

    def source(code: int, *arguments: str | Path) -> tuple[bool, str]:
        found = run("verify", *arguments, "--json")
        assert found.exit_code == code
        said = json.loads(found.stdout)
        assert said["signature"] == "valid"
        [check] = [one for one in said["checks"] if one["name"] == "key-source"]
        return check["ok"], check["detail"]

    ok, detail = source(1, tmp_path / "inside")
    assert not ok and "came inside the record" in detail and "--trust-enclosed" in detail
    assert source(0, tmp_path / "inside", "--trust-enclosed")[0]
    assert source(0, tmp_path / "inside", "--key", KEY) == (True, "the key was given, not taken from the receipt")
    ok, detail = source(0, tmp_path / "beside")
    assert ok and "whose key it is, is not shown" in detail
    assert source(0, tmp_path / "beside", "--key", KEY)[1] == "the key was given, not taken from the receipt"
    (tmp_path / "both").write_text(f"{ONE}|{KEY}\n{ONE}|{KEY}\n")
    assert run("verify", tmp_path / "both").exit_code == 1
    assert run("verify", tmp_path / "both", "--trust-enclosed").exit_code == 0


def test_thousands_use_two_processes_and_keep_their_order(tmp_path: Path) -> None:
    number = many.ALONE + 3 * many.BATCH + 1
    lines = [ONE] * number
    lines[1234] = ONE.replace("1012.75", "1012.76")
    (tmp_path / "many").write_text("\n".join(lines))
    code = "import sys\nfrom gridloom.cli import main\nif __name__ == '__main__':\n    main()\n"
    script = tmp_path / "main.py"
    script.write_text(code)
    found = subprocess.run(
        [sys.executable, str(script), "ocmf", "verify", str(tmp_path / "many"), "--key", KEY, "--json", "--processes", "2"],
        env=environment(SOURCE), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    said = [json.loads(line) for line in found.stdout.splitlines()]
    assert [one["record"] for one in said] == [f"line {line}" for line in range(1, number + 1)]
    assert [index for index, one in enumerate(said) if one["signature"] != "valid"] == [1234]
    assert f"{number - 1:,} holds, 1 fails, 0 unreadable" in found.stderr


def test_other_processes_do_the_work(tmp_path: Path) -> None:
    items: list[many.Item] = [tmp_path / f"{number}" for number in range(many.ALONE + 1)]
    for item in items:
        assert isinstance(item, Path)
        item.write_bytes(b"x")
    steps = [(done, len(answers)) for done, answers in many.run(items, None, strict=False, as_json=False, processes=2)]
    assert steps == [(250, 250), (500, 250), (750, 250), (1000, 250), (1001, 1)], "progress is told batch by batch"


# ------------------------------------------------------------------------------------------------------------ the other verbs


def test_inspect(file: Path) -> None:
    found = run("inspect", file)
    assert found.exit_code == 0
    assert "MS   meter serial                       M-42" in found.stdout
    assert "2024-05-01T11:30:00,000+0200 S  end  1012.75 kWh  1-0:1.8.0  good" in found.stdout
    found = run("inspect", file, "--json")
    said = json.loads(found.stdout)
    assert said["payload"]["RD"][0]["RV"] == "1000.5"
    assert said["notice"] == NOTICE and said["leniencies"] == []
    assert said["signed_bytes"] == len(ONE.split("|")[1])


def test_keygen_sign_and_verify(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    made = run("keygen", key, "--json", "--algorithm", "ECDSA-secp384r1-SHA256")
    said = json.loads(made.stdout)
    assert (made.exit_code, said["algorithm"], said["notice"]) == (0, "ECDSA-secp384r1-SHA256", NOTICE)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "PRIVATE" not in made.output
    assert run("keygen", key).exit_code == 1
    assert run("keygen", tmp_path / "other", "--algorithm", "RSA").exit_code == 2
    assert "not supported here" in run("keygen", tmp_path / "other", "--algorithm", "ECDSA-secp192k1-SHA256").stderr
    text = json.dumps(payload(), indent=1)
    (tmp_path / "payload.json").write_text(text + "\n")
    signed = run("sign", tmp_path / "payload.json", "--key", key, "--encoding", "base64")
    assert signed.exit_code == 0
    assert signed.stdout.startswith(f"OCMF|{text}|")
    assert NOTICE in signed.stderr
    (tmp_path / "signed").write_text(signed.stdout)
    assert run("verify", tmp_path / "signed", "--key", said["public_key"]).exit_code == 0
    (tmp_path / "signed.xml").write_text(run("sign", tmp_path / "payload.json", "--key", key, "--xml").stdout)
    assert run("verify", tmp_path / "signed.xml").exit_code == 0
    loose = f" \t{text}\n \n"
    assert run("sign", "-", "--key", key, input=loose + "\n").stdout.startswith(f"OCMF|{loose}|"), "one newline at the end is not signed"
    assert run("sign", "-", "--key", key, input=f"{text}\r\n").stdout.startswith(f"OCMF|{text}|")
    nowhere = run("keygen", tmp_path / "nowhere" / "key.pem")
    assert (nowhere.exit_code, "cannot be written (No such file" in nowhere.stderr) == (1, True)
    key.chmod(0o644)
    assert f"chmod 600 {key}" in run("sign", tmp_path / "payload.json", "--key", key).stderr
    assert run("sign", "-", "--key", key, input='{"ID":"a|b"}').exit_code == 2
    assert run("sign", "-", "--key", key, input="{}").exit_code == 2
    quoted = json.dumps(payload(RD=readings({"RV": "5"})))
    assert "a number is written as a string" in run("sign", "-", "--key", key, input=quoted).stderr
    assert run("sign", "-", "--key", key, "--strict", input=quoted).exit_code == 2


@contextmanager
def hub(transaction: dict[str, Any]) -> Iterator[Client]:
    """A server that answers as the hub's API does for one transaction."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == f"/api/v1/transactions/{transaction['id']}" and self.headers["authorization"] == "Bearer token"
            body = json.dumps(transaction if found else {"title": "not found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: a test has no log."""

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        worker = threading.Thread(target=server.serve_forever, args=(0.01,))
        worker.start()
        try:
            yield Client(f"http://127.0.0.1:{server.server_port}", "token")
        finally:
            server.shutdown()
            worker.join()


def test_export_of_a_transaction_of_the_hub(tmp_path: Path) -> None:
    data = {"record": ONE, "public_key": KEY}
    with hub({"id": "0193", "device": "everest:m", "state": "ended", "data": data}) as client:
        found = run("export", "0193", obj=lambda config: client)
        assert found.exit_code == 0
        assert NOTICE in found.stdout
        output = tmp_path / "out.xml"
        assert run("export", "0193", "--output", output, obj=lambda config: client).exit_code == 0
        assert output.read_text() == found.stdout
        assert run("verify", output).exit_code == 0
        nowhere = tmp_path / "nowhere" / "out.xml"
        refused = run("export", "0193", "-o", nowhere, obj=lambda config: client)
        assert refused.exit_code == 1
        assert f"{nowhere}: cannot be written (No such file or directory); name a file in a folder that exists" in refused.stderr
        assert run("export", "0194", obj=lambda config: client).exit_code != 0
    with hub({"id": "1", "device": "tic:1", "data": {}}) as client:
        found = run("export", "1", obj=lambda config: client)
        assert found.exit_code != 0
        assert "has no signed record" in str(found.exception)


def test_the_root_knows_the_verb(tmp_path: Path) -> None:
    found = gridloom("ocmf", "--help", cwd=tmp_path)
    assert found.returncode == 0
    for verb in ("verify", "inspect", "sign", "keygen", "export"):
        assert f"\n  {verb} " in found.stdout
