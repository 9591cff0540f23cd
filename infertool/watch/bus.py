"""A bus on the screen: its state, and the source that fills it from threads of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from infertool.channels.event import ChannelEvent
from infertool.channels.recording import Recorder, RecordError
from infertool.watch.state import State

# Events that wait for the screen; past this many the source waits, and with it the server. None is dropped.
MOST_WAITING = 20_000

Change = Callable[[State, float], None]


class Inbox:
    """Changes of one bus's state, oldest first."""

    def __init__(self) -> None:
        self._changes: deque[tuple[Change, int]] = deque()
        self._waiting = 0
        self._closed = False
        self._room = threading.Condition()

    def put_events(self, events: Sequence[ChannelEvent]) -> None:
        """Take a batch of events; wait while too many wait already."""
        with self._room:
            self._room.wait_for(lambda: self._waiting < MOST_WAITING or self._closed)
            self._changes.append((lambda state, _now: state.take(events), len(events)))
            self._waiting += len(events)

    def put(self, change: Change) -> None:
        """Take another change."""
        with self._room:
            self._changes.append((change, 0))

    def drain(self, state: State, now: float, most: int) -> int:
        """Apply what waits, whole batches until there were `most` events; return how many there were."""
        count = 0
        while count < most:
            with self._room:
                if not self._changes:
                    break
                change, events = self._changes.popleft()
                self._waiting -= events
                self._room.notify_all()
            change(state, now)
            count += events
        return count

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._room:
            self._closed = True
            self._room.notify_all()


# Events taken at a time, between two looks at the keyboard: about 15 ms.
_MOST_AT_ONCE = 1_000
_GOODBYE_S = 1.0


class Source(Protocol):
    """Where events come from."""

    def start(self, bus: Bus) -> None:
        """Begin to fill `bus`. Returns at once."""

    def now(self) -> float:
        """Return the time it is for the bus, in wall-clock seconds: of a record, the time that is being played."""

    def stop(self, timeout_s: float) -> None:
        """End, waiting up to `timeout_s`."""


class Bus:
    """One bus. `options` are the global options that name it on a command line.

    `record_fault` is why the recording stopped.
    """

    def __init__(
        self, state: State, source: Source, *, options: Sequence[str] = (), recorder: Recorder | None = None
    ) -> None:
        self.state = state
        self.inbox = Inbox()
        self.options = tuple(options)
        self.record_fault: RecordError | None = None
        self._source = source
        self._recorder = recorder

    def start(self) -> None:
        """Begin to take events."""
        self._source.start(self)

    def stop(self) -> None:
        """End."""
        self.inbox.close()
        self._source.stop(_GOODBYE_S)

    def now(self) -> float:
        """Return the time it is for the bus, in wall-clock seconds."""
        return self._source.now()

    def take(self, events: Sequence[ChannelEvent]) -> None:
        """Take events; from any thread. Waits while the screen is behind."""
        if self._recorder is not None:
            self._record(self._recorder, events)
        self.inbox.put_events(events)

    def drain(self) -> int:
        """Bring the state up to date; return how many events came. Only from the thread of the screen."""
        return self.inbox.drain(self.state, self.now(), _MOST_AT_ONCE)

    def _record(self, recorder: Recorder, events: Sequence[ChannelEvent]) -> None:
        try:
            recorder.write(events)
        except RecordError as error:
            self._recorder, self.record_fault = None, error
            note = f"recording stopped: {error}"
            self.inbox.put(lambda state, _now: setattr(state, "note", note))
