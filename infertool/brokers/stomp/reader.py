"""The thread that reads a STOMP connection, and that another one replaces while a sink keeps it.

A sink may call the model for the messages it is given, which saves a change of threads. Nothing is read meanwhile, so
whoever sees it take too long calls `Reader.hand_off`: a new thread reads on, and the old one ends after its frames.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from infertool.brokers.stomp.frames import Frame, FrameError, Limits
from infertool.brokers.stomp.unreadable import DoubtfulParser
from infertool.net.stream import Stream

_log = logging.getLogger(__name__)

# Takes the messages of one subscription, a batch at a time.
Sink = Callable[[list[Frame]], None]

# Time between two calls of `ReaderHost.on_tick`, and the longest wait for the socket. Seconds.
_TICK_S: Final = 0.25
_FIRST_BYTES: Final = 64
# A broker delivers more than it accepts: its own headers, escapes, and JMS properties, which have no limits.
# A frame that this parser refused would come again with the next connection, and be left out by the one after.
_FROM_BROKER: Final = Limits(header_line=200 * 1024 * 1024, headers=1_000_000)


class ReaderHost(Protocol):
    """What a reader needs of its connection. All methods are called by the reader."""

    reason: str
    """Why the connection ended; empty while it lives."""

    last_error: str
    """The broker's newest ERROR that answered no request; empty if there was none."""

    def on_frame(self, frame: Frame) -> None:
        """Handle a frame that is no MESSAGE. Raises `FrameError`."""

    def on_tick(self, now: float) -> str:
        """Do what is due at `now` (monotonic). Return a reason to end the connection, or an empty string."""

    def probe(self) -> None:
        """Ask the broker for an answer: the parser cannot tell where a body ends."""

    def end(self, reason: str) -> None:
        """End the connection. The first reason counts."""

    def on_read_end(self) -> None:
        """Note that nothing more is read. Called once."""


class Reader:
    """Reads frames and hands them to sinks, in one thread at a time.

    | state | the current thread | `hand_off` |
    |---|---|---|
    | reading | waits for the socket, parses, handles frames | does nothing |
    | delivering | is in a sink | makes a new thread current, which is in state reading |

    Only the current thread changes the state, and the lock is held for that: a thread that was handed off may still be
    in a sink, or enter others, while its successor is in either state.
    """

    def __init__(self, host: ReaderHost, address: str, *, name: str, mark: bytes, masked: Callable[[str], str]) -> None:
        self._host = host
        self._address = address
        self._name = name
        self._masked = masked
        self._parser = DoubtfulParser(limits=_FROM_BROKER, mark=mark)
        self._sinks: dict[str, Sink] = {}
        self._stream: Stream
        self._heard = self._ticked = 0.0
        self._probed = False
        self._lock = threading.Lock()
        self._current: threading.Thread | None = None
        self._delivering = False
        # The first bytes that the server sent, at most 64.
        self.first_bytes = b""
        # The id of the message that could not be read, and ended the connection.
        self.suspect = ""
        # The socket's error, if one ended the connection.
        self.fault: OSError | None = None
        # A connection that is silent for longer than this is dead. Seconds.
        self.silence_s = math.inf

    def start(self, stream: Stream) -> threading.Thread:
        """Read from `stream`; return the thread that does."""
        self._stream = stream
        self._heard = self._ticked = time.monotonic()
        return self._start_thread()

    def deliver(self, subscription: str, sink: Sink) -> None:
        """Hand the messages of `subscription` to `sink` from now on."""
        self._sinks[subscription] = sink

    def is_current(self) -> bool:
        """Return True in the thread that reads; False in one that was handed off."""
        return self._current is threading.current_thread()

    def hand_off(self) -> None:
        """Have a new thread read on if the current one is in a sink. Returns at once."""
        with self._lock:
            if self._delivering:
                self._delivering = False
                self._start_thread()

    def _start_thread(self) -> threading.Thread:
        self._current = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._current.start()
        return self._current

    def _run(self) -> None:
        try:
            reason = self._read()
        except FrameError as fault:
            self.suspect = self.suspect or fault.suspect
            reason = self._not_stomp(fault)
        except OSError as fault:
            self.fault = fault
            reason = fault.strerror or str(fault)
        except Exception as fault:  # noqa: BLE001  # no fault may leave a connection that looks alive and is not
            reason = f"the reader failed: {fault!r}"
        if reason:
            self._host.end(reason)
        if self.is_current():
            self._host.on_read_end()

    def _read(self) -> str:
        """Return why the connection ended; an empty string when another thread reads on."""
        while not self._host.reason:
            data = self._stream.read(_TICK_S)
            now = time.monotonic()
            if data:
                self._heard = now
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
                self._probe(stalled=not data or not data.strip(b"\n"))
                if reason := self._host.on_tick(now):
                    return reason
        return self._host.reason

    def _probe(self, *, stalled: bool) -> None:
        """Ask for an answer while the stream rests within a body of announced length: a wrong length swallows it."""
        if not self._parser.awaits_length:
            self._probed = False
        elif stalled and not self._probed:
            self._probed = True
            self._host.probe()

    def _feed(self, data: bytes) -> None:
        if len(self.first_bytes) < _FIRST_BYTES:
            self.first_bytes = (self.first_bytes + data)[:_FIRST_BYTES]
        try:
            frames = self._parser.feed(data)
        except FrameError as fault:
            # Before the frames are delivered: a thread that reads on after a hand-off must find the end.
            self.suspect = fault.suspect
            self._host.end(self._not_stomp(fault))
            frames = fault.frames
        if self._parser.misfits:
            self._report_misfits(self._parser.misfits)
        self._dispatch(frames)

    def _not_stomp(self, fault: FrameError) -> str:
        return f"the broker sent something else than STOMP: {self._masked(fault.reason)}"

    def _report_misfits(self, ids: list[str]) -> None:
        for message_id in ids:
            _log.warning(
                "message %s from %s has a property content-length that does not fit its body; all of it was read",
                message_id, self._address,
            )  # fmt: skip
        ids.clear()

    def _dispatch(self, frames: Sequence[Frame]) -> None:
        """Hand messages to their sinks, a batch each, after everything else has gone to the connection."""
        batches: dict[Sink, list[Frame]] = {}
        for frame in frames:
            if frame.command == "MESSAGE":
                sink = self._sinks.get(frame.headers.get("subscription", ""))
                if sink is None:
                    what = "a message for a subscription that is not ours"
                    raise FrameError(what, frame.headers.get("message-id", ""))
                batches.setdefault(sink, []).append(frame)
            else:
                self._host.on_frame(frame)
        for sink, batch in batches.items():
            self._deliver(sink, batch)

    def _deliver(self, sink: Sink, batch: list[Frame]) -> None:
        self._set_delivering(on=True)
        try:
            sink(batch)
        finally:
            self._set_delivering(on=False)

    def _set_delivering(self, *, on: bool) -> None:
        with self._lock:
            if self.is_current():
                self._delivering = on
