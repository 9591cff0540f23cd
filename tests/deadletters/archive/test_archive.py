"""An archive gives back what was put in, byte for byte, and survives being cut anywhere."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool.brokers.headers import text
from infertool.deadletters.archive import records
from infertool.deadletters.archive.records import ArchiveError
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.message import BodyKind, Message
from tests.support.messages import text_message
from tests.support.running import NO_BYTECODE

SUFFIXES = ["jsonl", "jsonl.gz", "jsonl.zst"]
# Header text as the parser makes it: any bytes, decoded with surrogateescape.
TEXTS = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))


def message(
    number: int = 0, body: bytes = b"{}", kind: BodyKind = BodyKind.TEXT, headers: Mapping[str, str] | None = None
) -> Message:
    return text_message(
        f"ID:{number}", "/queue/x.dlq", {"n": str(number)} if headers is None else headers, body, kind, False, 0, ""
    )


def batch(first: int, count: int = 3) -> list[Any]:
    return [message(number) for number in range(first, first + count)]


def write(path: Path, *batches: list[Any]) -> None:
    with ArchiveWriter(path) as writer:
        for each in batches:
            writer.append(each)


def read(path: Path) -> list[Any]:
    return [each for found in records.read(path) for each in found.messages]


@given(
    body=st.binary(max_size=200) | st.text(max_size=50).map(str.encode),
    kind=st.sampled_from(BodyKind),
    headers=st.dictionaries(TEXTS, TEXTS, max_size=6),
)
def test_a_record_is_a_line_that_gives_the_message_back(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, kind: BodyKind, headers: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("archive") / "a.jsonl"
    given_message = message(1, body, kind, headers)
    record = records.encode(given_message)
    assert record.count(b"\n") == 1
    path.write_bytes(record)
    assert read(path) == [given_message]
    assert list(text(read(path)[0]).items()) == list(headers.items())


def test_a_record_says_all_that_is_needed_to_send_it_again(tmp_path: Path) -> None:
    record = json.loads(records.encode(message(7, b"\xff\0", BodyKind.BYTES)))
    assert record.pop("archived_at")
    assert record == {
        "infertool_message": 1, "id": "ID:7", "queue": "/queue/x.dlq", "type": "bytes", "headers": [["n", "7"]],
        "body_base64": "/wA=",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_it_is_appended_to(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, batch(0), batch(3))
    with ArchiveWriter(path) as writer:
        assert (writer.found, writer.cut_bytes) == (6, 0)
        assert writer.has(message(5))
        assert not writer.has(message(6))
        writer.append(batch(6))
        assert writer.has(message(6))
    assert read(path) == batch(0, 9)
    assert path.stat().st_mode & 0o777 == 0o600


def test_gzip_is_what_gzip_reads(tmp_path: Path) -> None:
    write(tmp_path / "a.gz", batch(0), batch(3))
    assert len(gzip.decompress((tmp_path / "a.gz").read_bytes()).splitlines()) == 6


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_anywhere_the_whole_batches_stay_and_it_goes_on(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, batch(0))
    first = path.stat().st_size
    write(path, batch(3))
    whole = path.read_bytes()
    for size in range(first, len(whole), 5):
        path.write_bytes(whole[:size])
        with ArchiveWriter(path) as writer:
            # Of a plain archive each whole record counts, also one that lacks nothing but its line end.
            kept = 3 + (whole[first : size + 1].count(b"\n") if suffix == "jsonl" else 0)
            assert writer.found == kept
            writer.append(batch(100))
        assert read(path) == [*batch(0, kept), *batch(100)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_first_batch_cut_short_goes_on_from_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, batch(0, 1))
    whole = path.read_bytes()
    for size in (1, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:size])
        with ArchiveWriter(path) as writer:
            assert (writer.found, writer.cut_bytes) == (0, size)
            writer.append(batch(1))
        assert read(path) == batch(1)


def test_what_a_power_cut_leaves_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, batch(0))
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(4096))
    with ArchiveWriter(path) as writer:
        assert (writer.found, writer.cut_bytes) == (3, 4096)


def test_an_editor_that_leaves_out_the_last_line_end_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, batch(0))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read(path) == batch(0)
    write(path, batch(3))
    assert read(path) == batch(0, 6)


@pytest.mark.parametrize("name", ["notes.txt", "notes.gz", "notes.zst"])
@pytest.mark.parametrize("text", [b"my notes", b"my notes\n", b'{"a": 1}\n', b"[1,2]", b"\x1f\x8b\x08\0rest"])
def test_files_of_others_are_refused_and_stay_as_they_are(tmp_path: Path, name: str, text: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(text)
    if name == "notes.gz" and text.startswith(b"\x1f\x8b"):
        text = gzip.compress(b"my notes\n")[:-3]
        path.write_bytes(text)
    with pytest.raises(ArchiveError):
        ArchiveWriter(path)
    assert path.read_bytes() == text


def spoiled(**changes: Any) -> bytes:
    record = {**json.loads(records.encode(message(1))), **changes}
    return json.dumps({key: value for key, value in record.items() if value is not None}).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (spoiled(infertool_message=3), "version 3"),
        (spoiled(infertool_message=2), "has no .properties"),
        (spoiled(infertool_message=None), "not a message that infertool archived"),
        (spoiled(id=None), "has no 'id'"),
        (spoiled(id=7), "no string"),
        (spoiled(headers={"a": "b"}), "cannot be understood"),
        (spoiled(headers=[["a"]]), "cannot be understood"),
        (spoiled(headers=[["a", 1]]), "no string"),
        (spoiled(type="map"), "'map'"),
        (spoiled(body=None), "has no 'body'"),
        (spoiled(body_base64="!"), "cannot be understood"),
        (b"{broken\n", "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
    ],
)
def test_a_spoiled_record_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(records.encode(message(0)) + line + records.encode(message(2)))
    with pytest.raises(ArchiveError, match=says) as caught:
        read(path)
    assert caught.value.record == 2
    assert "record 2" in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_damaged_compressed_archive_is_named_and_not_cut(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, batch(0), batch(3))
    data = bytearray(path.read_bytes())
    data[20] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged at byte"):
        ArchiveWriter(path)
    assert path.read_bytes() == data


def test_what_has_no_end_before_a_whole_part_is_damage_and_is_not_cut(tmp_path: Path) -> None:
    """One wrong byte makes a header of gzip go on over all that is behind it, which was cut off with it."""
    path = tmp_path / "a.jsonl.gz"
    write(path, batch(0), batch(3))
    data = bytearray(path.read_bytes())
    data[3] = 4
    path.write_bytes(data)
    for use in (read, ArchiveWriter):
        with pytest.raises(ArchiveError, match=r"damaged at byte 0: .* is whole"):
            use(path)
    assert path.read_bytes() == data


def test_a_file_that_is_deleted_meanwhile_takes_no_letter(tmp_path: Path) -> None:
    """As `gzip FILE` does: what is written then has no name, and the letter must stay in its queue."""
    path = tmp_path / "a.jsonl"
    with ArchiveWriter(path) as writer:
        writer.append(batch(0, 2))
        path.unlink()
        with pytest.raises(ArchiveError, match="was deleted meanwhile"):
            writer.append(batch(2, 4))


def test_only_one_process_writes(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.jsonl"), pytest.raises(ArchiveError, match="another process"):
        ArchiveWriter(tmp_path / "a.jsonl")


@pytest.mark.parametrize("place", [".", "/dev/null", "no/such/folder/a.jsonl"])
def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    with pytest.raises(ArchiveError):
        ArchiveWriter(Path(place))


FULL = """
import resource, signal, sys
from pathlib import Path
from infertool.deadletters.archive.records import ArchiveError
from infertool.deadletters.archive.writer import ArchiveWriter
from tests.deadletters.archive.test_archive import batch
from tests.support.messages import text_message
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = ArchiveWriter(Path(sys.argv[1]))
writer.append(batch(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    writer.append(batch(3))
except ArchiveError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append(batch(100))
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_is_full_leaves_whole_batches(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, batch(0))
    limit = path.stat().st_size + 20
    path.unlink()
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **NO_BYTECODE},
    )
    assert "cannot be written" in done.stdout
    assert "make room" in done.stdout
    assert read(path) == [*batch(0), *batch(100)]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
