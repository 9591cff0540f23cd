"""One bus of the view: its state, the inbox through which a source's threads change it, and the sources.

A source follows live topics and the broker's queue depths, or plays a recording (`tail -o jsonl`, `watch --record`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from infertool import brokers
from infertool.brokers import weighted_queues
from infertool.brokers.partitioned import Lagging
from infertool.brokers.port import Broker
from infertool.channels.event import ChannelEvent
from infertool.channels.recording import Playback, Recorder, RecordError, RecordReader
from infertool.channels.topics import TopicFeed
from infertool.errors import InfertoolError, JoinRefusedError
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import RECONNECT
from infertool.settings import Settings
from infertool.watch.consumer_stats import ConsumerView, StatsFollower
from infertool.watch.state import Depths, State

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
_STOP_S = 1.0


class Source(Protocol):
    """Fills a bus with events."""

    def start(self, bus: Bus) -> None:
        """Start to fill `bus`. Returns at once."""

    def now(self) -> float:
        """Return the bus's current time in wall-clock seconds; for a recording, the time being played."""

    def stop(self, timeout_s: float) -> None:
        """Stop; wait up to `timeout_s`."""


class Bus:
    """One bus. `options` are the global command-line options that select it; `trace_url` is the page of a trace.

    `stats_url` is the endpoint of a consumer whose figures are shown, too. `record_fault` is the error that stopped the
    recording.
    """

    def __init__(
        self,
        state: State,
        source: Source,
        *,
        options: Sequence[str] = (),
        recorder: Recorder | None = None,
        trace_url: str = "",
        stats_url: str = "",
    ) -> None:
        self.state = state
        self.trace_url = trace_url
        self.inbox = Inbox()
        self.options = tuple(options)
        self.record_fault: RecordError | None = None
        self._source = source
        self._recorder = recorder
        self._follower = StatsFollower(stats_url, self._take_view) if stats_url else None
        state.consumer = ConsumerView() if stats_url else None

    def start(self) -> None:
        """Start the source, and follow the consumer."""
        self._source.start(self)
        if self._follower:
            self._follower.start()

    def stop(self) -> None:
        """Stop the source."""
        self.inbox.close()
        if self._follower:
            self._follower.stop()
        self._source.stop(_STOP_S)

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

    def _take_view(self, view: ConsumerView) -> None:
        self.inbox.put(lambda state, _now: setattr(state, "consumer", view))

    def _record(self, recorder: Recorder, events: Sequence[ChannelEvent]) -> None:
        try:
            recorder.write(events)
        except RecordError as error:
            self._recorder, self.record_fault = None, error
            note = f"recording stopped: {error}"
            self.inbox.put(lambda state, _now: setattr(state, "note", note))


# Interval between measurements; wait after an unreachable or refusing broker. Seconds.
_INTERVAL_S = 3.0
_AGAIN_S = 30.0
_ANSWER_S = 1.0
_CLOSE_S = 0.5


class DepthPoller:
    """Measures the queue and the dead-letter queue periodically, in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopped = threading.Event()

    def start(self, bus: Bus) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, args=(bus,), name="watch-depths", daemon=True).start()

    def stop(self) -> None:
        """Stop; does not wait for a pending answer."""
        self._stopped.set()

    def _run(self, bus: Bus) -> None:
        while not self._stopped.is_set():
            try:
                self._ask(bus)
            except InfertoolError:
                _set_depths(bus, Depths())
            self._stopped.wait(_AGAIN_S)

    def _ask(self, bus: Bus) -> None:
        broker = brokers.open(self._settings.broker, name="infertool-watch")
        try:
            broker.connect()
            while not self._stopped.is_set():
                _set_depths(bus, self._depths(broker))
                self._stopped.wait(_INTERVAL_S)
        finally:
            broker.close(_CLOSE_S)

    def _queues(self) -> tuple[list[str], list[str]]:
        return weighted_queues.names(self._settings.broker.queue), [self._settings.deadletter.queue]

    def _depths(self, broker: Broker) -> Depths:
        queues, dead = self._queues()
        lag = weighted_queues.lag(broker, queues, _ANSWER_S) if isinstance(broker, Lagging) else None
        if lag:
            return Depths(lag.messages, self._size(broker, dead), lag.seconds)
        return Depths(self._size(broker, queues), self._size(broker, dead))

    def _size(self, broker: Broker, queues: list[str]) -> int | None:
        depth = weighted_queues.measure(broker, queues, _ANSWER_S)
        return depth.size if depth else None


def _set_depths(bus: Bus, depths: Depths) -> None:
    bus.inbox.put(lambda state, _now: setattr(state, "depths", depths))


class LiveSource:
    """Follows topics, and retries also before the first connection. `label` is the `source` of its events."""

    def __init__(self, settings: Settings, topics: Sequence[str], *, label: str = "") -> None:
        self._settings = settings
        self._topics = tuple(dict.fromkeys(topics))
        self._label = label
        self._stopped = threading.Event()
        self._feed: TopicFeed | None = None
        self._thread: threading.Thread | None = None
        self._depths = DepthPoller(settings)

    def start(self, bus: Bus) -> None:
        """Start to connect."""
        self._thread = threading.Thread(target=self._run, args=(bus,), name="watch-connect", daemon=True)
        self._thread.start()
        self._depths.start(bus)

    def now(self) -> float:
        """Return the current time, in wall-clock seconds."""
        return time.time()

    def stop(self, timeout_s: float) -> None:
        """Leave the topics and close the connections."""
        self._stopped.set()
        self._depths.stop()
        if self._thread:
            self._thread.join(timeout_s)
        if self._feed:
            self._feed.close(timeout_s)

    def _run(self, bus: Bus) -> None:
        failures = 0
        topics = list(self._topics)
        while not self._stopped.is_set():
            feed = self._new_feed(bus, topics)
            try:
                feed.connect()
            except JoinRefusedError as error:
                _report_topic(bus, error.topic, error.reason)
                topics.remove(error.topic)
                if topics:
                    continue  # with the other topics
                topics = list(self._topics)
                reason = str(error)
            except InfertoolError as error:
                reason = str(error)
            else:
                self._feed = feed
                for topic in topics:
                    _report_topic(bus, topic, "")  # it may have been refused before
                bus.inbox.put(lambda state, _now: setattr(state, "joined", True))
                return
            failures += 1
            wait_s = RECONNECT.wait(failures)
            _report_connection(bus, ConnectionEvent(ConnectionState.LOST, feed.address, 0, reason, wait_s))
            self._stopped.wait(wait_s)

    def _new_feed(self, bus: Bus, topics: Sequence[str]) -> TopicFeed:
        return TopicFeed(
            self._settings.phoenix,
            topics,
            on_events=bus.take,
            on_connection=lambda event: _report_connection(bus, event),
            on_topic=lambda topic, reason: _report_topic(bus, topic, reason),
            on_missed=lambda topic, count, complete: _report_missed(bus, topic, count, complete=complete),
            source=self._label,
        )


def _report_connection(bus: Bus, event: ConnectionEvent) -> None:
    bus.inbox.put(lambda state, now: state.take_connection(event, now))


def _report_topic(bus: Bus, topic: str, reason: str) -> None:
    bus.inbox.put(lambda state, now: state.take_topic(topic, reason, now))


def _report_missed(bus: Bus, topic: str, count: int, *, complete: bool) -> None:
    bus.inbox.put(lambda state, now: state.take_missed(topic, count, now, complete=complete))


class RecordingSource:
    """Plays a recording. `now` is the recorded time, so that ages and rates are those of the recording."""

    def __init__(self, reader: RecordReader, speed: float) -> None:
        self._reader = reader
        self._speed = speed
        self._lock = threading.Lock()
        self._at = 0.0
        self._taken = 0.0
        self._ended = False
        self._playback: Playback | None = None

    def start(self, bus: Bus) -> None:
        """Start the playback."""

        def take(events: Sequence[ChannelEvent]) -> None:
            bus.take(events)
            self._tick(events[-1].at)

        def end(failure: Exception | None) -> None:
            self._ended = True
            note = self._note(failure)
            bus.inbox.put(lambda state, _now: state.take_end(note))

        self._playback = Playback(self._reader.batches(), speed=self._speed, on_events=take, on_end=end)
        self._playback.start()

    def now(self) -> float:
        """Return the recorded time that is being played, in wall-clock seconds; constant after the end."""
        with self._lock:
            if not self._at:
                return time.time()
            passed = 0.0 if self._ended else (time.monotonic() - self._taken) * self._speed
            return self._at + passed

    def stop(self, timeout_s: float) -> None:
        """Stop the playback."""
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
        return f"{self._reader.name}: {skipped} line(s) are no records and were left out" if skipped else ""
