"""A bus on the screen: its state, and the source that fills it from threads of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from infertool.feed.arrival import Arrival
from infertool.feed.records import Recorder, RecordError
from infertool.watch.inbox import Inbox
from infertool.watch.state import State

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

    def take(self, arrivals: Sequence[Arrival]) -> None:
        """Take events; from any thread. Waits while the screen is behind."""
        if self._recorder is not None:
            self._record(self._recorder, arrivals)
        self.inbox.put_arrivals(arrivals)

    def drain(self) -> int:
        """Bring the state up to date; return how many events came. Only from the thread of the screen."""
        return self.inbox.drain(self.state, self.now(), _MOST_AT_ONCE)

    def _record(self, recorder: Recorder, arrivals: Sequence[Arrival]) -> None:
        try:
            recorder.write(arrivals)
        except RecordError as error:
            self._recorder, self.record_fault = None, error
            note = f"recording stopped: {error}"
            self.inbox.put(lambda state, _now: setattr(state, "note", note))
