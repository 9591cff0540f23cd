"""How batches lie in an archive: as they are, or each a gzip member (RFC 1952) or a zstd frame (RFC 8878)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

_CHUNK: Final = 1 << 18
_GZIP: Final = 31  # zlib's wbits for a gzip member


class DamagedError(Exception):
    """The bytes at `offset` are not what the file's name promises."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


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
    """Yield whole batches and the offset where each ends. What follows the last was cut short. Raises DamagedError.

    A batch of a plain file is a line; the last one may lack its line end, which the caller must look at.
    """
    match path.suffix:
        case ".gz":
            return _members(file, lambda: zlib.decompressobj(wbits=_GZIP), zlib.error)
        case ".zst":
            import zstandard  # noqa: PLC0415  # only who wants it pays for it

            return _members(file, zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)
        case _:
            return _lines(file)


def begin_of(path: Path, data: bytes) -> bytes:
    """Return what can be read of a batch that was cut short. Raises DamagedError."""
    match path.suffix:
        case ".gz":
            return _partly(zlib.decompressobj(wbits=_GZIP), data, zlib.error)
        case ".zst":
            import zstandard  # noqa: PLC0415  # only who wants it pays for it

            return _partly(zstandard.ZstdDecompressor().decompressobj(), data, zstandard.ZstdError)
        case _:
            return data


def _partly(decoder: _Decoder, data: bytes, fault: type[Exception]) -> bytes:
    try:
        return decoder.decompress(data)
    except fault as error:
        raise DamagedError(0, str(error)) from None


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    offset = 0
    while line := file.readline():
        offset += len(line)
        yield line, offset


def _members(file: BinaryIO, new: Callable[[], _Decoder], fault: type[Exception]) -> Iterator[tuple[bytes, int]]:
    offset, rest = 0, b""
    while True:
        decoder, pieces, used = new(), [], 0
        while not decoder.eof:
            chunk = rest or file.read(_CHUNK)
            rest = b""
            if not chunk:
                return
            used += len(chunk)
            try:
                pieces.append(decoder.decompress(chunk))
            except fault as error:
                raise DamagedError(offset, str(error)) from None
        rest = decoder.unused_data
        offset += used - len(rest)
        yield b"".join(pieces), offset
