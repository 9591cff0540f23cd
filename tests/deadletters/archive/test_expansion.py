"""A few bytes that expand to gigabytes are refused with a line, and little memory is taken."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from infertool.deadletters.archive import packing, records
from infertool.deadletters.archive.records import ArchiveError
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.message import BodyKind
from tests.support.messages import text_message
from tests.support.running import environment

RECORD = {
    "infertool_message": 1, "id": "ID:1", "queue": "/queue/x", "archived_at": "2026-01-31T03:00:00.000+00:00",
    "type": "text", "headers": [["original_destination", "/queue/in"]],
}  # fmt: skip
GOOD = json.dumps({**RECORD, "body": "{}"}, separators=(",", ":")).encode() + b"\n"
OPENING = json.dumps({**RECORD, "body": "@"}, separators=(",", ":")).encode().partition(b"@")[0]
GIGABYTES = 1
# Less than the record, more than all that a run of this program needs for itself, with its libraries' threads.
MEMORY = 900_000_000


def packer(suffix: str) -> Any:
    return zlib.compressobj(level=1, wbits=31) if suffix == "gz" else zstandard.ZstdCompressor().compressobj()


def bomb(path: Path, piece: bytes = b"x", *, cut: bool = False, ending: bytes = b"") -> Path:
    """Write a good record, and one of a gigabyte."""
    packed = packer(path.suffix[1:])
    data = piece * ((1 << 20) // len(piece))
    with path.open("wb") as file:
        file.write(packing.pack(path, GOOD))
        file.write(packed.compress(OPENING))
        for _ in range(GIGABYTES * 1024):
            file.write(packed.compress(data))
        if not cut:
            file.write(packed.compress(ending))
            file.write(packed.flush())
    return path


def limited(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import resource, signal;"
        f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}));"
        "from infertool.cli.main import run; run()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=600,
        env=environment(),
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_record_of_gigabytes_is_named_in_a_line(tmp_path: Path, suffix: str) -> None:
    path = bomb(tmp_path / f"a.jsonl.{suffix}", ending=b'"}\n')
    done = limited("replay-dlq", "--from", str(path), "--dry-run")
    assert done.returncode == 1, done.stderr
    what = f"{path}, record 2: is longer than 157 MiB, and no broker has letters so large"
    assert done.stderr == f"infertool: {what}; {records._REPAIR}\n"


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("piece", [b"x", b"\\u0041", b"\\\\u"], ids=["plain", "escapes", "backslashes"])
def test_whatever_it_is_made_of(tmp_path: Path, cut: bool, piece: bytes) -> None:
    path = bomb(tmp_path / "a.zst", piece, cut=cut)
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))\n"
        "import sys\nfrom pathlib import Path\nfrom infertool.deadletters.archive import records\n"
        "print(sum(len(batch.messages) for batch in records.read(Path(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "record 2: is longer than" in done.stderr, done.stderr[-500:]


def test_a_plain_line_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + OPENING)
        file.truncate(GIGABYTES << 30)  # a sparse file
    done = limited("replay-dlq", "--from", str(path), "--dry-run")
    assert done.returncode == 1, done.stderr
    assert f"{path}, record 2: is longer than" in done.stderr


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_drain_does_not_append_to_it(tmp_path: Path, suffix: str) -> None:
    path = bomb(tmp_path / f"a.{suffix}")
    size = path.stat().st_size
    with pytest.raises(ArchiveError, match="record 2: is longer than"):
        ArchiveWriter(path)
    assert path.stat().st_size == size


def test_many_records_that_are_not_long_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(packing.pack(path, GOOD * 20_000) * 3)
    assert sum(len(batch.messages) for batch in records.read(path)) == 60_000


@pytest.mark.parametrize("suffix", ["jsonl", "gz", "zst"])
@pytest.mark.parametrize(
    "body", [b'"' * 4_000_000, "日".encode() * 1_200_000, b"\x01" * 4_000_000, b"\xff" * 4_000_000]
)
def test_large_letters_are_read_back_whatever_their_bytes_become_in_json(
    tmp_path: Path, suffix: str, body: bytes
) -> None:
    """Scaled down with the limit."""
    path = tmp_path / f"a.{suffix}"
    letter = text_message("ID:1", "/queue/x", {}, body, BodyKind.BYTES, False, 1, "")
    record = records.encode(letter)
    assert packing._weight(record) * 25 < packing.MOST_RECORD
    with ArchiveWriter(path) as writer:
        writer.append([letter, letter])
    assert [each.body == body for batch in records.read(path) for each in batch.messages] == [True, True]


def test_a_line_may_be_split_over_pieces_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = [
        text_message(f"ID:{n}", "/queue/x", {"n": "x" * n}, b"b" * n, BodyKind.TEXT, False, 1, "") for n in range(200)
    ]
    for suffix in ("jsonl", "gz", "zst"):
        path = tmp_path / f"a.{suffix}"
        with ArchiveWriter(path) as writer:
            writer.append(letters[:120])
            writer.append(letters[120:])
        for size in (1, 7, 100):
            for name in ("_PLAIN_PIECE", "_GZIP_PIECE", "_ZSTD_PIECE"):
                monkeypatch.setattr(packing, name, size)
            assert [each.id for batch in records.read(path) for each in batch.messages] == [each.id for each in letters]
