"""Bytes on their way to one socket, in order, whatever thread they come from."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

OnWritten = Callable[[], None]

# A piece holds about this much, so that what comes first does not wait for all that comes later.
_PIECE_BYTES: Final = 1 << 18


class WriteBuffer:
    """Whoever puts data writes it, while nothing waits and nobody writes; the rest is for the writer, who calls `run`.

    So a socket that takes all costs no change of threads, and what gathers during one write goes out in the next, in
    one piece. `write_some` writes what can be written without waiting, and returns the rest; it never raises.
    """

    def __init__(self, write_some: Callable[[bytes], bytes]) -> None:
        self._write_some = write_some
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        # Apart, so that whoever waits for room does not take the writer's call.
        self._taken = threading.Condition(lock)
        self._waiting: deque[tuple[bytes, OnWritten | None]] = deque()
        self._writing = False
        self._closed = False
        self._beat = b""
        self._beat_s: float | None = None

    def put(self, data: bytes, on_written: OnWritten | None = None) -> None:
        """Write `data`, or leave it to the writer, who then calls `on_written`. After `close` it is dropped."""
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
        """Wait up to `timeout_s` until nothing waits for the writer. True after `close`."""
        with self._taken:
            return self._taken.wait_for(lambda: self._closed or not self._waiting, timeout_s)

    def beat(self, data: bytes, every_s: float) -> None:
        """Have the writer write `data` when it had nothing else to write for `every_s`."""
        with self._changed:
            self._beat, self._beat_s = data, every_s
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, and have the writer end once it has written what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            self._taken.notify_all()

    def run(self, write: Callable[[bytes], object]) -> None:
        """Write what waits until `close`. Raises what `write` raises."""
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
