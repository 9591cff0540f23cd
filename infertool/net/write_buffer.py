"""A buffer of bytes for one socket, filled by any thread and written in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

OnWritten = Callable[[], None]

# Approximate size of one write, so that early data does not wait for all later data. Bytes.
_PIECE_BYTES: Final = 1 << 18


class WriteBuffer:
    """Writes data in the calling thread while the buffer is empty; the rest goes to the writer thread (`run`).

    A socket that accepts all data needs no thread switch. Data that arrives during a write goes out together in the
    next one. `write_some` writes as much as possible without blocking and returns the rest; it never raises.
    """

    def __init__(self, write_some: Callable[[bytes], bytes]) -> None:
        self._write_some = write_some
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        # A condition of its own, so that a thread that waits for room does not consume the writer's notification.
        self._taken = threading.Condition(lock)
        self._waiting: deque[tuple[bytes, OnWritten | None]] = deque()
        self._writing = False
        self._closed = False
        self._beat = b""
        self._beat_s: float | None = None

    def put(self, data: bytes, on_written: OnWritten | None = None) -> None:
        """Write `data`, or queue it for the writer thread, which then calls `on_written`. Drops it after `close`."""
        with self._changed:
            if self._closed:
                return
            if self._writing or self._waiting or on_written:
                self._waiting.append((data, on_written))
                self._changed.notify()
                return
            self._writing = True
        rest = self._write_some(data)
        with self._changed:
            self._writing = False
            if rest:
                self._waiting.appendleft((rest, None))
            if self._waiting or self._closed:
                self._changed.notify()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until the buffer is empty. Return False on timeout, True after `close`."""
        with self._taken:
            return self._taken.wait_for(lambda: self._closed or not self._waiting, timeout_s)

    def beat(self, data: bytes, every_s: float) -> None:
        """Let the writer thread write `data` whenever it has written nothing else for `every_s` seconds."""
        with self._changed:
            self._beat, self._beat_s = data, every_s
            self._changed.notify()

    def close(self, last: bytes = b"") -> None:
        """Accept no more data; `run` returns once the buffer is written.

        `last` is written only if nothing else waits or is being written, so that it never follows half a message.
        """
        with self._changed:
            is_idle = not (self._closed or self._writing or self._waiting)
            self._closed = True
            self._changed.notify()
            self._taken.notify_all()
        if last and is_idle:
            self._write_some(last)

    def run(self, write: Callable[[bytes], object]) -> None:
        """Write buffered data until `close`. Raises what `write` raises."""
        while (piece := self._take()) is not None:
            data, called = piece
            write(data)
            for on_written in called:
                on_written()
            with self._changed:
                self._writing = False

    def _take(self) -> tuple[bytes, Sequence[OnWritten]] | None:
        with self._changed:
            while self._writing or not (self._waiting or self._closed):
                if not self._changed.wait(self._beat_s) and not self._writing:
                    self._writing = True
                    return self._beat, []
            if not self._waiting:
                return None
            self._writing = True
            piece = self._next_piece()
            self._taken.notify_all()
            return piece

    def _next_piece(self) -> tuple[bytes, Sequence[OnWritten]]:
        parts: list[bytes] = []
        called: list[OnWritten] = []
        size = 0
        while self._waiting and size < _PIECE_BYTES:
            data, on_written = self._waiting.popleft()
            parts.append(data)
            size += len(data)
            if on_written:
                called.append(on_written)
        return b"".join(parts), called
