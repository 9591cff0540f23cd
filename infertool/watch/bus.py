"""One bus of the view: its state, and the inbox through which a source's threads change it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from infertool.channels.event import ChannelEvent
from infertool.channels.recording import Recorder, RecordError
from infertool.watch.state import State

# Maximum of events that wait for the screen; then the source blocks, and the server with it. None is dropped.
MOST_WAITING = 20_000

Change = Callable[[State, float], None]


class Inbox:
    """A queue of changes to one bus's state."""

    def __init__(self) -> None:
        self._changes: deque[tuple[Change, int]] = deque()
        self._waiting = 0
        self._closed = False
        self._room = threading.Condition()

    def put_events(self, events: Sequence[ChannelEvent]) -> None:
        """Add a batch of events. Blocks while the queue is full."""
        with self._room:
            self._room.wait_for(lambda: self._waiting < MOST_WAITING or self._closed)
            self._changes.append((lambda state, _now: state.take(events), len(events)))
            self._waiting += len(events)

    def put(self, change: Change) -> None:
        """Add any other change."""
        with self._room:
            self._changes.append((change, 0))

    def drain(self, state: State, now: float, most: int) -> int:
        """Apply queued changes, in whole batches, until `most` events; return the number of events."""
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
        """Release all waiting threads."""
        with self._room:
            self._closed = True
            self._room.notify_all()


# Maximum of events applied in one go: about 15 ms, after which keys are handled.
_MOST_AT_ONCE = 1_000
_GOODBYE_S = 1.0


class Source(Protocol):
    """Fills a bus with events."""

    def start(self, bus: Bus) -> None:
        """Start to fill `bus`. Returns at once."""

    def now(self) -> float:
        """Return the bus's current time in wall-clock seconds; for a recording, the time being played."""

    def stop(self, timeout_s: float) -> None:
        """Stop; wait up to `timeout_s`."""


class Bus:
    """One bus. `options` are the global command-line options that select it.

    `record_fault` is the error that stopped the recording.
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
        """Start the source."""
        self._source.start(self)

    def stop(self) -> None:
        """Stop the source."""
        self.inbox.close()
        self._source.stop(_GOODBYE_S)

    def now(self) -> float:
        """Return the bus's current time in wall-clock seconds."""
        return self._source.now()

    def take(self, events: Sequence[ChannelEvent]) -> None:
        """Record and queue events. From any thread; blocks while the queue is full."""
        if self._recorder is not None:
            self._record(self._recorder, events)
        self.inbox.put_events(events)

    def drain(self) -> int:
        """Apply queued changes to the state; return the number of events. Only from the screen's thread."""
        return self.inbox.drain(self.state, self.now(), _MOST_AT_ONCE)

    def _record(self, recorder: Recorder, events: Sequence[ChannelEvent]) -> None:
        try:
            recorder.write(events)
        except RecordError as error:
            self._recorder, self.record_fault = None, error
            note = f"recording stopped: {error}"
            self.inbox.put(lambda state, _now: setattr(state, "note", note))
