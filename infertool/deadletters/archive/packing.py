"""How records lie in an archive: lines, as they are, or in gzip members (RFC 1952) or zstd frames (RFC 8878).

A few bytes can expand to gigabytes, so nothing is read as a whole: a piece is at most some MiB, and a record is refused
once it is longer than any that was archived.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

# The broker's limit; and in base64, with 1000 headers of 10 KiB each, with names and quotes.
MOST_BODY: Final = 100 * 2**20
MOST_RECORD: Final = MOST_BODY * 4 // 3 + 24 * 2**20
# An escape stands for one byte at least, and has six characters at most.
_LONGEST_ESCAPE: Final = 6

_PLAIN_PIECE: Final = 1 << 18
# At most 1032 times as much comes out of gzip (RFC 1951), 32 768 times of zstd: a block of 128 KiB in 4 bytes.
_GZIP_PIECE: Final = 1 << 14
_ZSTD_PIECE: Final = 1 << 10
_GZIP: Final = 31  # zlib's wbits for a gzip member
_BEGIN_BYTES: Final = 256
# How a member or frame begins.
_MAGIC: Final = {".gz": b"\x1f\x8b\x08", ".zst": b"\x28\xb5\x2f\xfd"}

# Data, and no offset; or no data, and the offset where a member or frame ended.
_Pieces = Iterator[tuple[bytes, int | None]]


class DamagedError(Exception):
    """The bytes at `offset` are not what the file's name promises."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class TooLongError(Exception):
    """Record `number` (from 1) is longer than any that was archived."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def pack(path: Path, data: bytes) -> bytes:
    """Return `data` as it stands in the file."""
    match path.suffix:
        case ".gz":
            packer = zlib.compressobj(wbits=_GZIP)
            return packer.compress(data) + packer.flush()
        case ".zst":
            import zstandard  # noqa: PLC0415  # only who wants it pays for it

            return zstandard.ZstdCompressor(write_checksum=True).compress(data)
        case _:
            return data


def unpack(path: Path, file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each line with its line end, and the offset in the file up to which all of it and before is whole.

    What follows the last whole member or frame was cut short and is left out. The last line of a plain file may lack
    its line end, which the caller must look at. Raises `DamagedError`, `TooLongError`.
    """
    if not _is_packed(path):
        end = 0
        for line in _lines(_plain(file)):
            end += len(line)
            yield line, end
        return
    end = 0
    for _size, offset in _measured(_packed(path, file)):
        end = offset or end
    if end < file.seek(0, os.SEEK_END) and (later := _whole_after(path, file, end)):
        raise DamagedError(end, f"what begins there has no end, and what begins at byte {later} is whole")
    file.seek(0)
    for line in _lines(_up_to(end, _packed(path, file))):
        yield line, end


def begin_of(path: Path, data: bytes) -> bytes:
    """Return the first bytes of what was cut short, as far as they can be read. Raises `DamagedError`."""
    if not _is_packed(path):
        return data
    decoder, fault, size = _decoder(path)
    begin = b""
    for at in range(0, len(data), size):
        if len(begin) >= _BEGIN_BYTES or decoder.eof:
            break
        begin += _decompressed(decoder, fault, data[at : at + size], 0)[:_BEGIN_BYTES]
    return begin


def _is_packed(path: Path) -> bool:
    return path.suffix in _MAGIC


def _decoder(path: Path) -> tuple[_Decoder, type[Exception], int]:
    """Return a new decoder, what it raises, and how much to give it at once."""
    if path.suffix == ".gz":
        return zlib.decompressobj(wbits=_GZIP), zlib.error, _GZIP_PIECE
    import zstandard  # noqa: PLC0415  # only who wants it pays for it

    return zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError, _ZSTD_PIECE


def _plain(file: BinaryIO) -> _Pieces:
    while data := file.read(_PLAIN_PIECE):
        yield data, None


def _packed(path: Path, file: BinaryIO) -> _Pieces:
    offset, rest = 0, b""
    while True:
        decoder, fault, size = _decoder(path)
        used = 0
        while not decoder.eof:
            chunk = rest or file.read(size)
            rest = b""
            if not chunk:
                return
            used += len(chunk)
            yield _decompressed(decoder, fault, chunk, offset), None
        rest = decoder.unused_data
        offset += used - len(rest)
        yield b"", offset


def _whole_after(path: Path, file: BinaryIO, at: int) -> int | None:
    """Return where a whole member or frame begins behind `at`: what is cut short has none behind it."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while (at := data.find(_MAGIC[path.suffix], at + 1)) > 0:
            file.seek(at)
            with contextlib.suppress(DamagedError):
                if any(end is not None for _, end in _packed(path, file)):
                    return at
    return None


def _decompressed(decoder: _Decoder, fault: type[Exception], data: bytes, offset: int) -> bytes:
    try:
        return decoder.decompress(data)
    except fault as error:
        raise DamagedError(offset, str(error)) from None


def _up_to(end: int, pieces: _Pieces) -> _Pieces:
    """Return the pieces up to the member or frame that ends at `end`."""
    if end == 0:
        return
    for data, offset in pieces:
        yield data, offset
        if offset == end:
            return


def _measured(pieces: _Pieces) -> _Pieces:
    """Pass the pieces on. Raises `TooLongError` before a record that is too long is held by anybody."""
    number, size = 1, 0
    for data, offset in pieces:
        *ended, rest = data.split(b"\n")
        for line in ended:
            if size + _weight(line) > MOST_RECORD:
                raise TooLongError(number)
            number, size = number + 1, 0
        size = 0 if offset is not None else size + _weight(rest)
        if size > MOST_RECORD:
            raise TooLongError(number)
        yield data, offset


def _weight(text: bytes) -> int:
    """Return how many bytes `text` stands for, at least: what is escaped in it is longer than it was."""
    unescaped = len(text) - text.count(b"\\") - 4 * text.count(b"\\u")
    return max(unescaped, len(text) // _LONGEST_ESCAPE)


def _lines(pieces: _Pieces) -> Iterator[bytes]:
    parts: list[bytes] = []
    for data, offset in _measured(pieces):
        *ended, rest = data.split(b"\n")
        for line in ended:
            yield b"".join([*parts, line, b"\n"])
            parts = []
        if rest:
            parts.append(rest)
        if offset is not None and parts:
            yield b"".join(parts)
            parts = []
    if parts:
        yield b"".join(parts)
