"""One WebSocket connection: a non-blocking socket that one thread reads while others write, and its frames."""

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

from infertool import thread_hooks
from infertool.net.write_buffer import OnWritten, WriteBuffer

_FINAL_TEXT = 0x81
_LONGEST_SHORT = 125
_TWO_BYTES = 126


def whole_texts(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the texts of the final, unmasked text frames from `at` on, and the offset of the first other byte."""
    texts: list[bytes] = []
    # A frame of less than 4 bytes at the end is left to the other parser, so that no index below is out of range.
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


try:  # as websockets itself does: C if there is a wheel for the platform
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
    """All received bytes have been taken."""


class Stream:
    """A buffered, non-blocking socket.

    A TLS session allows only one thread at a time, so a lock guards every call of the socket; threads wait without it.
    websocket-client calls `recv`, `send`, `gettimeout` and `settimeout` during its handshake. The stream is buffered,
    because websocket-client reads a handshake byte by byte and a frame in three pieces.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._lock = threading.Lock()
        self._deadline: float | None = deadline
        self._buffer = b""
        self._at = 0

    def handshaken(self) -> None:
        """Remove the deadline of the handshake: from now on reads and writes wait without limit."""
        self._deadline = None

    @property
    def newest(self) -> bytes:
        """The bytes of the last read, taken or not."""
        return self._buffer

    def take(self, size: int) -> bytes:
        """Return 1 to `size` received bytes. Raises `BufferEmptyError`."""
        chunk = self._buffer[self._at : self._at + size]
        if not chunk:
            raise BufferEmptyError
        self._at += len(chunk)
        return chunk

    def take_texts(self) -> list[bytes]:
        """Return the texts of the complete text frames at the start of the received bytes; maybe none."""
        texts, self._at = whole_texts(self._buffer, self._at)
        return texts

    def fill(self) -> None:
        """Wait for bytes. Raises `OSError`; `ConnectionResetError` at the end of the stream."""
        data = self._receive()
        if not data:
            raise ConnectionResetError("the connection ended without a close frame")
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def fills_within(self, seconds: float) -> bool:
        """Return True if bytes, or the end of the stream, arrive in time. Raises `OSError`.

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
        """Write as much as possible without waiting; return the rest. `send` reports an error."""
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
        """Do nothing: the deadline decides."""

    def gettimeout(self) -> None:
        """Return None: no timeout for a single call."""

    def end(self) -> None:
        """End both directions, and wake the threads that read or write. From any thread; idempotent."""
        # Not SSLSocket.shutdown: the reader would then read ciphertext as frames.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. Only after all threads have stopped to read and write."""
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
# Maximum length of a frame, many times the limit of Phoenix (10 MB); a longer one is a parse error. Bytes.
_LARGEST_FRAME = 1 << 26
# Maximum time to write the answer to the server's close frame. Seconds.
_GOODBYE_S = 1.0


class ConnectionEndedError(Exception):
    """The connection has ended. The text is the reason; `code` is the server's close code, if it sent one."""

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
        thread_hooks.restore()
        self._writer = threading.Thread(target=self._write, name="phoenix-writer", daemon=True)
        self._writer.start()

    def read(self) -> list[_Message]:
        """Wait for bytes, and return the messages that they complete, maybe none. Raises `ConnectionEndedError`."""
        messages: list[_Message] = []
        if not self._failure:
            self._failure = self._read_into(messages)
        if self._failure and not messages:
            # If the server closes while we write, the write fails: the server's reason counts, not that error.
            reason = self._failure if self._close_code else self._end_reason or self._failure
            raise ConnectionEndedError(reason, self._close_code)
        return messages

    def write(self, messages: Sequence[bytes], *, opcode: int = TEXT, on_written: OnWritten | None = None) -> None:
        """Write `messages`, or queue them for the writer thread, which calls `on_written` after the last byte.

        Never blocks.
        """
        self._write_buffer.put(b"".join(frames(messages, opcode)), on_written)

    def say_goodbye(self) -> None:
        """Send a close frame (1000). The server answers with its own, which ends `read`."""
        self.write([_CLOSE_NORMAL], opcode=ABNF.OPCODE_CLOSE)

    def end(self, reason: str) -> None:
        """End the connection at once; `read` raises with `reason`."""
        self._end_reason = self._end_reason or reason
        self._stream.end()

    def close(self) -> None:
        """Close the socket and stop the writer. For the reading thread, after its last read."""
        self._write_buffer.close()
        if self._saying_goodbye:
            self._writer.join(_GOODBYE_S)
        self._stream.end()
        self._writer.join()
        self._stream.close()

    def _read_into(self, messages: list[_Message]) -> str:
        """Read once. Return the reason if the connection has ended, else an empty string."""
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
            return "the server sent bytes that are no WebSocket frame"
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
            # Also after a callback raised: nothing would be written any more.
            self.end("the writer stopped")


def _data(frame: ABNF) -> bytes:
    # The annotation is str | bytes, for building frames; the parser always returns bytes.
    return cast("bytes", frame.data)
