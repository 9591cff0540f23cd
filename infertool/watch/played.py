"""A record played as if it were live: what `tail -o jsonl` or `watch --record` wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from infertool.feed.arrival import Arrival
from infertool.feed.playback import Playback
from infertool.feed.records import RecordReader
from infertool.watch.bus import Bus


class PlayedSource:
    """Plays a record. Its clock shows the time that is being played, so that ages and rates are those of then."""

    def __init__(self, reader: RecordReader, speed: float) -> None:
        self._reader = reader
        self._speed = speed
        self._lock = threading.Lock()
        self._at = 0.0
        self._taken = 0.0
        self._ended = False
        self._playback: Playback | None = None

    def start(self, bus: Bus) -> None:
        """Begin to play."""

        def take(arrivals: Sequence[Arrival]) -> None:
            bus.take(arrivals)
            self._tick(arrivals[-1].at)

        def end(failure: Exception | None) -> None:
            self._ended = True
            note = self._note(failure)
            bus.inbox.put(lambda state, _now: state.take_end(note))

        self._playback = Playback(self._reader.batches(), speed=self._speed, on_arrivals=take, on_end=end)
        self._playback.start()

    def now(self) -> float:
        """Return the time that is being played, in wall-clock seconds; it stands still at the end."""
        with self._lock:
            if not self._at:
                return time.time()
            passed = 0.0 if self._ended else (time.monotonic() - self._taken) * self._speed
            return self._at + passed

    def stop(self, timeout_s: float) -> None:
        """Play nothing more."""
        if self._playback:
            self._playback.stop(timeout_s)

    def _tick(self, at: float) -> None:
        with self._lock:
            self._at = max(self._at, at)
            self._taken = time.monotonic()

    def _note(self, failure: Exception | None) -> str:
        if failure is not None:
            return str(failure)
        skipped = self._reader.skipped
        return f"left out what is no record in {self._reader.name}: {skipped} line(s)" if skipped else ""
