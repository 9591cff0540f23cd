"""The file of API keys: read as a whole, and changed by one process at a time, atomically."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec

from infertool.errors import InfertoolError
from infertool.gateway.keys import ApiKey, KeyRing

_VERSION: Final = 1
_LARGEST: Final = 64 * 1024 * 1024
_LOCK_WAIT_S: Final = 10.0
_OWNER_ONLY: Final = 0o600
_KEPT_BITS: Final = 0o640

Signature = tuple[int, int, int, int]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=_VERSION, le=_VERSION)]
    keys: tuple[ApiKey, ...]


class KeyFileError(InfertoolError):
    """The file of keys cannot be read or written. `path` is the file."""

    def __init__(self, what: str, *, path: Path, advice: str = "") -> None:
        super().__init__(f"the keys file {path} {what}", advice=advice)
        self.path = path


class KeyFile:
    """A file of keys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def signature(self) -> Signature:
        """Return what differs when the file was changed. Raises `KeyFileError`."""
        try:
            return _signature(self.path.stat())
        except OSError as error:
            raise self._unreadable(error) from None

    def read(self) -> tuple[ApiKey, ...]:
        """Return its keys. Raises `KeyFileError`."""
        return self._parsed(self._bytes())

    @contextmanager
    def changing(self) -> Iterator[list[ApiKey]]:
        """Lock the file, give its keys to be changed, and write them if the block ends well. Raises `KeyFileError`.

        A file that is not there is made, for its owner only.
        """
        # A link stays a link: the file behind it is replaced.
        path = self.path.resolve()
        with self._locked(path.parent):
            exists = path.exists()
            keys = list(self.read()) if exists else []
            before = tuple(keys)
            yield keys
            if exists and tuple(keys) == before:
                return
            try:
                KeyRing(keys)
                _replace(path, msgspec.json.format(msgspec.json.encode(_Document(_VERSION, tuple(keys)))) + b"\n")
            except OSError as error:
                raise KeyFileError(f"cannot be written: {error.strerror or error}", path=self.path) from None

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        # The folder, not the file: each change puts another file in its place.
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KeyFileError(f"cannot be written: {folder}: {error.strerror or error}", path=self.path) from None
        try:
            end = time.monotonic() + _LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise KeyFileError("is being changed by another process", path=self.path) from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def _bytes(self) -> bytes:
        try:
            # Without O_NONBLOCK a pipe in the file's place would block.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:  # noqa: PTH123  (of a descriptor)
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise KeyFileError("is no regular file", path=self.path)
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise self._unreadable(error) from None
        if len(data) > _LARGEST:
            raise KeyFileError(f"is larger than {_LARGEST} bytes", path=self.path)
        return data

    def _parsed(self, data: bytes) -> tuple[ApiKey, ...]:
        try:
            document = msgspec.json.decode(data, type=_Document)
            KeyRing(document.keys)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise KeyFileError(f"cannot be understood: {error}", path=self.path) from None
        except InfertoolError as error:
            raise KeyFileError(f"cannot be used: {error.what}", path=self.path) from None
        return document.keys

    def _unreadable(self, error: OSError) -> KeyFileError:
        advice = "infertool gateway keys add NAME makes it" if isinstance(error, FileNotFoundError) else ""
        return KeyFileError(f"cannot be read: {error.strerror or error}", path=self.path, advice=advice)


def _signature(found: os.stat_result) -> Signature:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _replace(path: Path, data: bytes) -> None:
    """Put a file with `data` in the place of `path`: after a crash it is the old one or the new one, whole."""
    before = None
    with suppress(FileNotFoundError):
        before = path.stat()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  (of a descriptor)
            if before is not None:
                # The gateway may be another user than the one who changes the keys.
                with suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & _KEPT_BITS | _OWNER_ONLY)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
