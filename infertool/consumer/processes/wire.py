"""Messages between a consumer and its worker processes, and their form on the socket.

The consumer sends a `WorkerConfig`; the worker answers `Ready` or `StartFailed`. Then come one `Request` at a time:
groups of bodies, one call of the model a group. The groups are numbered through. Each needs a *permit* before its call
begins; permits come on a second socket. The consumer reads back the permits that the worker has not read: those groups
never begin. Each group is answered with a `Reply` that names its number. So at most one call is in progress, and its
group is known. When no more permits can come, the worker closes the model and ends; its last message is `Closed`.

A message is a header and msgpack. The header begins with a mark, by which all other bytes are recognised and dropped.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from infertool.consumer.attempt import Failure
from infertool.settings import ModelSettings

_HEADER = struct.Struct("!8sQ")
_MARK = b"\x00inferw\xff"
_READ_BYTES = 262_144
PERMIT_BYTES = 8


class WorkerConfig(msgspec.Struct, frozen=True, array_like=True):
    """The model of a worker, and its limits: events and bytes of memory after which it ends; 0 is no limit.

    With `in_batches` it calls `predict_batch`, with None if the model has it.
    With `json_logs` it writes log records, as its consumer does.
    """

    model: ModelSettings
    in_batches: bool | None
    max_tasks: int
    memory_bytes: int
    json_logs: bool = False


class Request(msgspec.Struct, frozen=True, array_like=True):
    """Groups of bodies, numbered from `first`, and the names of the bodies' codecs: none where all are JSON."""

    first: int
    groups: list[list[bytes]]
    codecs: list[list[str]]


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model is loaded and warmed up. `name` is its name in logs and dead letters; `version` may be empty.

    `in_batches` is True if it is called with several events.
    """

    name: str
    version: str = ""
    in_batches: bool = False


class StartFailed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model cannot be loaded: the fields of `ModelLoadError`, and the trace."""

    what: str
    advice: str
    trace: str


class Part(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of one event: a result in the event's codec, which may be from the model's cache, or a failure.

    `is_object` is True if the model returned a dict. `started` is monotonic, which all processes of a machine share.
    """

    result: bytes
    processing_s: float
    failure: Failure | None
    cached: bool = False
    is_object: bool = False
    started: float = 0.0


class Reply(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The outcome of the group with this number; `parts` is a size if the call is to be made again in parts of that.

    With a reason in `leaving` the worker takes no more requests, and ends.
    """

    number: int
    parts: list[Part] | int
    busy_s: float
    leaving: str


class Closed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model is closed; `error` is the text of what closing raised, or empty."""

    error: str


Answer = Ready | StartFailed | Reply | Closed

encode = msgspec.msgpack.Encoder().encode
decode_config = msgspec.msgpack.Decoder(WorkerConfig).decode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def send(connection: socket.socket, message: msgspec.Struct) -> None:
    """Send a message. Raises OSError."""
    content = encode(message)
    connection.sendall(_HEADER.pack(_MARK, len(content)) + content)


class Incoming:
    """Reads messages from a connection. Other bytes are dropped, and `garbled` is set."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unread = bytearray()
        self.garbled = False

    def wait(self) -> bytes | None:
        """Wait for one message and return it; None at the end of the connection."""
        while (message := self._pop()) is None:
            if not self._read(0):
                return None
        return message

    def ready(self) -> tuple[list[bytes], bool]:
        """Return the messages that are there, and False at the end of the connection."""
        is_open = True
        try:
            while is_open := self._read(socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            pass
        return list(iter(self._pop, None)), is_open

    def _read(self, flags: int) -> bool:
        try:
            chunk = self._connection.recv(_READ_BYTES, flags)
        except ConnectionError:
            return False
        self._unread += chunk
        return bool(chunk)

    def _pop(self) -> bytes | None:
        """Remove and return the first message, if it is complete."""
        if not _MARK.startswith(bytes(self._unread[: len(_MARK)])):
            self._drop_garbage()
        if len(self._unread) < _HEADER.size:
            return None
        _, length = _HEADER.unpack_from(self._unread)
        end: int = _HEADER.size + length
        if len(self._unread) < end:
            return None
        message = bytes(self._unread[_HEADER.size : end])
        del self._unread[:end]
        return message

    def _drop_garbage(self) -> None:
        """Drop the bytes before the next mark, or before what may be the beginning of one."""
        self.garbled = True
        found = self._unread.find(_MARK)
        while found < 0 and not _MARK.startswith(bytes(self._unread)):
            del self._unread[: max(1, len(self._unread) - len(_MARK))]
        del self._unread[: max(found, 0)]
