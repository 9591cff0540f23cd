"""API keys: their form, their file, and `infertool gateway keys`."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from infertool.cli.gateway import keys_run
from infertool.errors import InfertoolError
from infertool.gateway import keys
from infertool.gateway.key_file import KeyFile, KeyFileError
from infertool.gateway.keys import ApiKey, KeyRing
from tests.support.running import infertool

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def made(name: str = "reports", **fields: object) -> tuple[ApiKey, str]:
    """Return an entry and the key that its client sends."""
    salt, digest, secret = keys.new_secret()
    entry = ApiKey(id=keys.new_id(()), name=name, created=NOW, salt=salt, hash=digest)
    return msgspec.structs.replace(entry, **fields), keys.text_of(entry.id, secret)


def test_a_key_is_found_by_its_id_and_only_with_its_secret() -> None:
    entry, text = made()
    other, other_text = made("other")
    ring = KeyRing([entry, other, ApiKey(id=keys.new_id(()), name="c", created=NOW, certificate="c.example.com")])
    assert ring.find(text) is entry
    assert ring.find(other_text) is other
    wrong = keys.text_of(entry.id, other_text.rpartition("_")[2])
    for bad in (
        wrong,
        text[:-1],
        text + "a",
        text + "\n",
        text.upper(),
        "ik_",
        "",
        "ik_" + "a" * 1_000_000,
        " " + text,
    ):
        assert ring.find(bad) is None
    assert (ring.of_certificate("c.example.com") or entry).name == "c"
    assert ring.of_certificate("d.example.com") is None


def test_what_is_kept_of_a_key_does_not_contain_it(tmp_path: Path) -> None:
    entry, text = made()
    secret = text.rpartition("_")[2]
    with KeyFile(tmp_path / "keys.json").changing() as found:
        found.append(entry)
    written = (tmp_path / "keys.json").read_text()
    assert entry.id in written
    assert secret not in written
    assert secret not in repr(entry)
    assert msgspec.json.encode(entry.hash).decode().strip('"') not in repr(entry)
    again, other_text = made()
    assert (again.salt, again.hash, other_text) != (entry.salt, entry.hash, text)


@pytest.mark.parametrize(
    ("expires", "revoked", "state"),
    [
        (None, None, "active"),
        (timedelta(seconds=1), None, "active"),
        (timedelta(0), None, "expired"),
        (timedelta(days=1), timedelta(0), "revoked"),
        (timedelta(-1), timedelta(-1), "revoked"),
    ],
)
def test_the_state_of_a_key(expires: timedelta | None, revoked: timedelta | None, state: str) -> None:
    entry, _ = made(
        expires=None if expires is None else NOW + expires, revoked=None if revoked is None else NOW + revoked
    )
    assert entry.state(NOW) == state


def entry_of(**changes: object) -> dict[str, object]:
    entry, _ = made()
    return {key: value for key, value in (msgspec.to_builtins(entry) | changes).items() if value is not None}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        {"version": 2, "keys": []},
        {"keys": []},
        {"version": 1, "keys": [], "more": 1},
        {"version": 1, "keys": [entry_of(may_nothing=True)]},  # a restriction of a later version
        {"version": 1, "keys": [entry_of(models="fraud")]},
        {"version": 1, "keys": [entry_of(models=[""])]},
        {"version": 1, "keys": [entry_of(rate="fast")]},
        {"version": 1, "keys": [entry_of(max_in_flight=0)]},
        {"version": 1, "keys": [entry_of(max_in_flight=True)]},
        {"version": 1, "keys": [entry_of(expires="2027-01-01T00:00:00")]},  # of no time zone
        {"version": 1, "keys": [entry_of(hash="AAAA")]},
        {"version": 1, "keys": [entry_of(hash="?")]},
        {"version": 1, "keys": [entry_of(hash=None)]},
        {"version": 1, "keys": [entry_of(certificate="both")]},
        {"version": 1, "keys": [entry_of(id="../../etc")]},
        {"version": 1, "keys": [entry_of(name="a\nb")]},
        {"version": 1, "keys": [entry_of(id="aaaaaaaaaa"), entry_of(id="aaaaaaaaaa")]},
        {"version": 1, "keys": [entry_of(certificate="c", hash=None), entry_of(certificate="c", hash=None)]},
    ],
)
def test_a_file_that_cannot_be_used_is_refused_as_a_whole(tmp_path: Path, document: bytes | dict[str, object]) -> None:
    path = tmp_path / "keys.json"
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match=r"keys\.json"):
        KeyFile(path).read()
    with pytest.raises(KeyFileError), KeyFile(path).changing() as found:
        found.clear()
    assert path.read_bytes() == data


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", tmp_path / "none" / "keys.json"):
        with pytest.raises(KeyFileError):
            KeyFile(path).read()
    with pytest.raises(KeyFileError), KeyFile(tmp_path / "none" / "keys.json").changing():
        pass


def test_the_file_is_its_owners_alone_and_a_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    link = tmp_path / "keys.json"
    link.symlink_to(real)
    old = os.umask(0)
    try:
        with KeyFile(link).changing() as found:
            found.append(made()[0])
    finally:
        os.umask(old)
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert link.is_symlink()
    real.chmod(0o644)
    before = KeyFile(link).signature()
    with KeyFile(link).changing() as found:
        found.append(made("other")[0])
    assert stat.S_IMODE(real.stat().st_mode) == 0o640  # a group that reads it may go on; others may not
    assert KeyFile(link).signature() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json", "real.json"]


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    with file.changing() as found:
        found.append(made()[0])
    before = file.path.read_bytes()

    def fail(found: list[ApiKey]) -> None:
        found.clear()
        raise RuntimeError

    with pytest.raises(RuntimeError), file.changing() as found:
        fail(found)
    with pytest.raises(InfertoolError, match="twice"), file.changing() as found:
        found.extend(list(found))
    assert file.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_changes_at_once_are_all_kept_and_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    with file.changing():
        pass
    done, seen = threading.Event(), [0]

    def change(number: int) -> None:
        for turn in range(5):
            with KeyFile(file.path).changing() as found:
                found.append(made(f"k{number}-{turn}")[0])

    def look() -> None:
        while not done.is_set():
            seen.append(len(file.read()))

    reader = threading.Thread(target=look)
    writers = [threading.Thread(target=change, args=(number,)) for number in range(6)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert len({key.name for key in file.read()}) == 30
    assert seen == sorted(seen)


def test_the_commands_add_list_rotate_and_revoke(tmp_path: Path) -> None:
    at = ("--keys-file", str(tmp_path / "keys.json"))

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        done = infertool("gateway", "keys", *arguments)
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    rights = ("--class", "batch", "--model", "fraud", "--rate", "600/m:5", "--max-in-flight", "7", "--expires", "90d")
    key, said = run("add", "reports", *rights, *at)
    secret = key.strip().rpartition("_")[2]
    assert KeyRing(KeyFile(tmp_path / "keys.json").read()).find(key.strip())
    assert "only time" in said
    assert secret not in said

    _, said = run("add", "reports", *at, code=1)
    assert "rotate reports" in said
    for wrong in (["a b"], ["x", "--rate", "fast"], ["x", "--expires", "1999-01-01"], ["x", "--expires", "soon"]):
        _, said = run("add", *wrong, *at, code=2)
        assert "Traceback" not in said

    output, _ = run("rotate", "reports", "--grace", "1h", "-o", "json", *at)
    rotated = json.loads(output)
    assert rotated["key"].startswith("ik_")
    text, _ = run("list", *at)
    output, said = run("list", "-o", "json", *at)
    old, new = json.loads(output)["keys"]
    same = ("name", "models", "classes", "rate", "max_in_flight")
    assert [old[field] for field in same] == ["reports", ["fraud"], ["batch"], "600/m:5", 7]
    assert [new[field] for field in same] == [old[field] for field in same]
    assert datetime.fromisoformat(old["expires"]) <= datetime.now(UTC) + timedelta(hours=1)
    assert datetime.fromisoformat(new["expires"]) > datetime.now(UTC) + timedelta(days=89)
    for shown in (text, output, said, (tmp_path / "keys.json").read_text()):
        assert secret not in shown
        assert rotated["key"].rpartition("_")[2] not in shown
    assert not {"salt", "hash"} & set(old)

    output, _ = run("revoke", new["id"], "-o", "json", *at)
    assert [each["state"] for each in json.loads(output)["revoked"]] == ["revoked"]
    run("revoke", "reports", *at)
    run("revoke", "reports", *at, code=4)
    run("rotate", "reports", *at, code=4)
    assert not [key for key in KeyFile(tmp_path / "keys.json").read() if key.state(datetime.now(UTC)) == "active"]
    run("list", code=2)
    run("list", "--keys-file", str(tmp_path / "none"), code=1)


@pytest.mark.parametrize("forward_s", [0, 1, -3600], ids=["within a second", "later", "the clock is set back"])
@pytest.mark.parametrize("expires", ["", "90d"])
@pytest.mark.parametrize("revoked", [False, True])
def test_a_new_key_never_ends_with_the_grace_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forward_s: int, expires: str, revoked: bool
) -> None:
    """Whenever the rotations were, and even where only an older key is active."""
    path = tmp_path / "keys.json"
    now = datetime(2026, 11, 28, tzinfo=UTC)
    rights = keys_run.Rights(
        models=None, classes=None, rate="", max_in_flight=None, max_bytes_in_flight=None, expires=expires,
        certificate="",
    )  # fmt: skip
    monkeypatch.setattr(keys_run, "_now", lambda: now)
    keys_run.add(path, "ci", rights, as_json=False)
    first = KeyFile(path).read()[0]
    for _ in range(3):
        now += timedelta(seconds=forward_s)
        keys_run.rotate(path, "ci", grace_s=7200, as_json=False)
        *_, last = KeyFile(path).read()
        assert last.expires == first.expires
        if revoked:
            keys_run.revoke(path, last.id, as_json=False)
        before = [key for key in KeyFile(path).read()[:-1] if not key.revoked]
        assert all(key.expires and key.expires <= now + timedelta(hours=3) for key in before)


def test_the_end_of_a_new_key_is_told(tmp_path: Path) -> None:
    at = ("--keys-file", str(tmp_path / "keys.json"))
    for command in (("add", "ci", "--expires", "2099-01-02"), ("rotate", "ci")):
        done = infertool("gateway", "keys", *command, *at)
        assert ", ends 2099-01-02 00:00: " in done.stderr
