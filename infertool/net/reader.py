"""The thread that reads a stream. Another thread can replace it while it is busy in a sink.

A sink may call the model for the messages that it gets, which saves a change of threads. Nothing is read meanwhile. If
that takes too long, another thread calls `StreamReader.hand_off`: a new thread continues to read, and the old one ends
after the messages that it has read.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from infertool import thread_hooks
from infertool.net.stream import Stream

# Time between two calls of `ReaderHost.on_tick`, and the longest wait for the socket. Seconds.
_TICK_S: Final = 0.25
_FIRST_BYTES: Final = 64


class ReaderHost(Protocol):
    """The connection, as its reader uses it. The reader calls all methods."""

    reason: str
    """Why the connection ended; empty while it lives."""

    last_error: str
    """The broker's newest error that answered no request; empty if there was none."""

    def on_tick(self, now: float) -> str:
        """Do the periodic work. Return a reason to end the connection, or an empty string. `now` is monotonic."""

    def end(self, reason: str) -> None:
        """End the connection. The first reason counts."""

    def on_read_end(self) -> None:
        """Note the end of reading. Called once."""


class StreamReader:
    """Reads in one thread at a time, and passes the bytes to `feed`.

    | state | the current thread | `hand_off` |
    |---|---|---|
    | reading | waits for the socket, parses, handles frames | does nothing |
    | delivering | is in a sink | makes a new thread current, which is in state reading |

    Only the current thread changes the state, and holds the lock for it: a replaced thread may still be in a sink, or
    enter further sinks, while its successor is in either state.

    `feed` parses and delivers, within `delivering`; an exception ends the connection with the reason of `explain`.
    `rest` is called at each tick with the bytes of the last read, None if there were none.
    """

    def __init__(
        self,
        host: ReaderHost,
        *,
        name: str,
        feed: Callable[[bytes], None],
        explain: Callable[[Exception], str],
        rest: Callable[[bytes | None], None] = lambda _data: None,
    ) -> None:
        self._host = host
        self._name = name
        self._feed = feed
        self._explain = explain
        self._rest = rest
        self._stream: Stream
        self._heard = self._ticked = 0.0
        self._lock = threading.Lock()
        self._current: threading.Thread | None = None
        self._delivering = False
        # The first bytes that the server sent, at most 64.
        self.first_bytes = b""
        # The socket's error, if one ended the connection.
        self.fault: OSError | None = None
        # A connection that is silent for longer than this is dead. Seconds.
        self.silence_s = math.inf

    def start(self, stream: Stream) -> threading.Thread:
        """Start to read from `stream`; return the reading thread."""
        self._stream = stream
        self._heard = self._ticked = time.monotonic()
        return self._start_thread()

    def silent_s(self) -> float:
        """Return for how long the thread has not come back to its loop, in seconds."""
        return time.monotonic() - self._ticked

    def is_current(self) -> bool:
        """Return True in the thread that reads; False in one that was handed off."""
        return self._current is threading.current_thread()

    def hand_off(self) -> None:
        """Start a new reading thread if the current one is in a sink. Returns at once.

        Raises RuntimeError if the system starts no more threads; the current one reads on then.
        """
        with self._lock:
            if self._delivering:
                self._start_thread()
                self._delivering = False

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Be in state delivering."""
        self._set_delivering(on=True)
        try:
            yield
        finally:
            self._set_delivering(on=False)

    def _set_delivering(self, *, on: bool) -> None:
        with self._lock:
            if self.is_current():
                self._delivering = on

    def _start_thread(self) -> threading.Thread:
        thread_hooks.restore()
        before, started = self._current, threading.Thread(target=self._run, name=self._name, daemon=True)
        self._current = started
        try:
            started.start()
        except RuntimeError:  # the system starts no more threads
            self._current = before
            raise
        return started

    def _run(self) -> None:
        try:
            reason = self._read()
        except OSError as fault:
            self.fault = fault
            reason = fault.strerror or str(fault)
        except Exception as fault:  # noqa: BLE001  # no fault may leave a connection that looks alive and is not
            reason = self._explain(fault)
        if reason:
            self._host.end(reason)
        if self.is_current():
            self._host.on_read_end()

    def _read(self) -> str:
        """Read until the end; return its reason, or an empty string if another thread continues to read."""
        while not self._host.reason:
            data = self._stream.read(_TICK_S)
            now = time.monotonic()
            if data:
                self._heard = now
                if len(self.first_bytes) < _FIRST_BYTES:
                    self.first_bytes = (self.first_bytes + data)[:_FIRST_BYTES]
                self._feed(data)
                if not self.is_current():
                    return ""
            elif data == b"":
                last = f", its last error was: {self._host.last_error}" if self._host.last_error else ""
                return f"the broker closed the connection{last}"
            elif now - self._heard > self.silence_s:
                return f"no sign of life for {now - self._heard:.1f} s"
            if now - self._ticked > _TICK_S:
                self._ticked = now
                self._rest(data)
                if reason := self._host.on_tick(now):
                    return reason
                if not self.is_current():
                    return ""
        return self._host.reason
