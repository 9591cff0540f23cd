"""One WebSocket connection: a socket that one thread reads while others write, and frames over it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, cast

from websocket import ABNF, WebSocketException, continuous_frame, frame_buffer

from infertool.net.write_buffer import OnWritten, WriteBuffer

_FINAL_TEXT = 0x81
_LONGEST_SHORT = 125
_TWO_BYTES = 126


def whole_texts(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the texts of such frames from `at` on, up to anything else, and where that begins."""
    texts: list[bytes] = []
    # A frame of less than 4 bytes at the very end is left to others: then no index below can be out of range.
    last = len(data) - 4
    while at <= last and data[at] == _FINAL_TEXT:
        size = data[at + 1]
        begin = at + 2
        if size == _TWO_BYTES:
            size = data[at + 2] << 8 | data[at + 3]
            begin = at + 4
        elif size > _LONGEST_SHORT:
            break
        end = begin + size
        if end > len(data):
            break
        texts.append(data[begin:end])
        at = end
    return texts, at


try:  # websockets itself chooses in this way: C where there is a wheel for the platform
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_FIN: Final = 0x80
_MASKED: Final = 0x80
_SHORT, _MEDIUM = 126, 1 << 16
_KEY_BYTES: Final = 4


def frames(messages: Sequence[bytes], opcode: int) -> Iterator[bytes]:
    """Yield a whole frame for each of `messages`, masked with a key of its own."""
    keys = os.urandom(_KEY_BYTES * len(messages))
    for number, message in enumerate(messages):
        key = keys[_KEY_BYTES * number : _KEY_BYTES * (number + 1)]
        yield b"%b%b%b" % (_head(len(message), opcode), key, apply_mask(message, key))


def _head(length: int, opcode: int) -> bytes:
    if length < _SHORT:
        return bytes((_FIN | opcode, _MASKED | length))
    if length < _MEDIUM:
        return struct.pack("!BBH", _FIN | opcode, _MASKED | _SHORT, length)
    return struct.pack("!BBQ", _FIN | opcode, _MASKED | _SHORT + 1, length)


_READ_SIZE = 1 << 16
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BufferEmptyError(Exception):
    """All that was received has been taken."""


class Stream:
    """A buffered, non-blocking socket.

    OpenSSL lets only one thread at a time into a TLS session, so a lock guards every call into the socket and all
    waiting is done outside of it. `recv`, `send`, `gettimeout` and `settimeout` are what websocket-client asks of a
    socket during its handshake; buffered, because it reads a handshake byte by byte and a frame in three pieces.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._lock = threading.Lock()
        self._deadline: float | None = deadline
        self._buffer = b""
        self._at = 0

    def handshaken(self) -> None:
        """Drop the deadline of the handshake: from now on reads and writes wait as long as it takes."""
        self._deadline = None

    @property
    def newest(self) -> bytes:
        """What was received last, taken or not."""
        return self._buffer

    def take(self, size: int) -> bytes:
        """Return 1 to `size` bytes of what was received. Raises `BufferEmptyError`."""
        chunk = self._buffer[self._at : self._at + size]
        if not chunk:
            raise BufferEmptyError
        self._at += len(chunk)
        return chunk

    def take_texts(self) -> list[bytes]:
        """Return the texts of the whole text frames that come next in what was received; maybe none."""
        texts, self._at = whole_texts(self._buffer, self._at)
        return texts

    def fill(self) -> None:
        """Wait for bytes to take. Raises `OSError`, `ConnectionResetError` at the end of the stream."""
        data = self._receive()
        if not data:
            raise ConnectionResetError("the connection ended without a close frame")
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def fills_within(self, seconds: float) -> bool:
        """Return True if bytes to take, or the end of the stream, come in time. Raises `OSError`.

        Raises `TimeoutError` at the deadline of the handshake.
        """
        deadline = self._deadline
        soon = time.monotonic() + seconds
        self._deadline = soon if deadline is None else min(deadline, soon)
        try:
            self.fill()
        except ConnectionResetError:
            return True
        except TimeoutError:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            return False
        finally:
            self._deadline = deadline
        return True

    def recv(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end of the stream. Raises `TimeoutError` at the deadline."""
        if self._at == len(self._buffer):
            with contextlib.suppress(ConnectionResetError):
                self.fill()
        try:
            return self.take(size)
        except BufferEmptyError:
            return b""

    def send_some(self, data: bytes) -> bytes:
        """Write what can be written without waiting; return the rest. `send` will meet an error again."""
        with contextlib.suppress(OSError), self._lock:
            return data[self._sock.send(data) :]
        return data

    def send(self, data: bytes) -> int:
        """Write all of `data`. Raises `OSError`."""
        view = memoryview(data)
        while view:
            view = view[self._send_some(view) :]
        return len(data)

    def settimeout(self, _timeout: float | None) -> None:
        """Ignore: the deadline rules."""

    def gettimeout(self) -> None:
        """Return None: no timeout for a single call."""

    def end(self) -> None:
        """End both directions and wake whoever reads or writes. Any thread, any number of times."""
        # Not SSLSocket.shutdown: it would make the reader take ciphertext for frames.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the socket. Only when no thread reads or writes any more."""
        self._sock.close()

    def _receive(self) -> bytes:
        while True:
            try:
                with self._lock:
                    return self._sock.recv(_READ_SIZE)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except _WOULD_BLOCK:
                self._wait(select.POLLIN)

    def _send_some(self, view: memoryview) -> int:
        while True:
            try:
                with self._lock:
                    return self._sock.send(view)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except _WOULD_BLOCK:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._sock, event)
        if self._deadline is None:
            poll.poll()
        elif not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            raise TimeoutError("no answer in time")


TEXT: int = ABNF.OPCODE_TEXT
BINARY: int = ABNF.OPCODE_BINARY

_Message = tuple[int, bytes]
_CLOSE_NORMAL = struct.pack("!H", 1000)
# Many times what Phoenix takes by default (10 MB); beyond it, the length is garbage. Bytes.
_LARGEST_FRAME = 1 << 26
# How long the answer to the server's close frame may wait for the network. Seconds.
_GOODBYE_S = 1.0


class ConnectionEndedError(Exception):
    """The connection is over. The text says why, for people; `code` is the server's close code, if it sent one."""

    def __init__(self, reason: str, code: int | None) -> None:
        super().__init__(reason)
        self.code = code


class Connection:
    """A WebSocket after its upgrade. One thread reads; any thread writes or ends it."""

    def __init__(self, stream: Stream, address: str) -> None:
        self.address = address
        self._stream = stream
        self._write_buffer = WriteBuffer(stream.send_some)
        self._end_reason = ""
        # orjson checks text for UTF-8, faster than websocket-client does.
        self._parser = frame_buffer(stream.take, skip_utf8_validation=True)
        self._fragments = continuous_frame(fire_cont_frame=False, skip_utf8_validation=True)
        self._failure = ""
        self._saying_goodbye = False
        self._close_code: int | None = None
        self._writer = threading.Thread(target=self._write, name="phoenix-writer", daemon=True)
        self._writer.start()

    def read(self) -> list[_Message]:
        """Wait for bytes, and return the messages they complete, maybe none. Raises `ConnectionEndedError`."""
        messages: list[_Message] = []
        if not self._failure:
            self._failure = self._read_into(messages)
        if self._failure and not messages:
            # A server that closes while we write says why, and what we wrote fails: its reason counts.
            reason = self._failure if self._close_code else self._end_reason or self._failure
            raise ConnectionEndedError(reason, self._close_code)
        return messages

    def write(self, messages: Sequence[bytes], *, opcode: int = TEXT, on_written: OnWritten | None = None) -> None:
        """Write `messages`, or queue them for the writer, who calls `on_written` once the socket took them all.

        Never blocks.
        """
        self._write_buffer.put(b"".join(frames(messages, opcode)), on_written)

    def say_goodbye(self) -> None:
        """Queue a close frame (1000). The server answers with its own, which ends `read`."""
        self.write([_CLOSE_NORMAL], opcode=ABNF.OPCODE_CLOSE)

    def end(self, reason: str) -> None:
        """End at once, whatever the peer does; `read` raises with `reason`."""
        self._end_reason = self._end_reason or reason
        self._stream.end()

    def close(self) -> None:
        """Free everything. For the reading thread, when it reads no more."""
        self._write_buffer.close()
        if self._saying_goodbye:
            self._writer.join(_GOODBYE_S)
        self._stream.end()
        self._writer.join()
        self._stream.close()

    def _read_into(self, messages: list[_Message]) -> str:
        """Read once. Return why there will be nothing more, or an empty string."""
        try:
            self._stream.fill()
            while True:
                if self._between_messages():
                    messages += [(TEXT, text) for text in self._stream.take_texts()]
                frame = self._parser.recv_frame()
                if frame.opcode == ABNF.OPCODE_CLOSE:
                    return self._closed_by(frame)
                self._take_frame(frame, messages)
        except BufferEmptyError:
            too_large = (self._parser.length or 0) > _LARGEST_FRAME
            return f"the server announced a frame of {self._parser.length} bytes" if too_large else ""
        except WebSocketException:
            return "the server sent what is no WebSocket frame"
        except OSError as error:
            return str(error)

    def _between_messages(self) -> bool:
        """Return True if no part of a frame and no fragment of a message has been taken."""
        return self._parser.header is None and not self._parser.recv_buffer and not self._fragments.recving_frames

    def _take_frame(self, frame: ABNF, messages: list[_Message]) -> None:
        if frame.opcode == ABNF.OPCODE_PING:
            self.write([_data(frame)], opcode=ABNF.OPCODE_PONG)
        elif frame.opcode != ABNF.OPCODE_PONG:
            self._fragments.validate(frame)
            self._fragments.add(frame)
            if frame.fin:
                opcode, whole = self._fragments.extract(frame)
                messages.append((opcode, whole.data))

    def _closed_by(self, frame: ABNF) -> str:
        self.write([_data(frame)[:2]], opcode=ABNF.OPCODE_CLOSE)
        self._saying_goodbye = True
        if frame.data:
            (self._close_code,) = struct.unpack("!H", _data(frame)[:2])
        return f"closed by the server with {self._close_code or 'no code'}"

    def _write(self) -> None:
        try:
            self._write_buffer.run(self._stream.send)
        except OSError as error:
            self.end(f"writing failed: {error}")
        finally:
            # Also when a callback raised: nobody would write any more.
            self.end("the writer stopped")


def _data(frame: ABNF) -> bytes:
    # Annotated as str | bytes for those who build frames; the parser always gives bytes.
    return cast("bytes", frame.data)
