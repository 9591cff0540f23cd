"""A live bus: topics over Phoenix, and what the broker tells of its queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from infertool.errors import InfertoolError, JoinRefusedError
from infertool.feed.topics import TopicFeed
from infertool.link import LinkEvent, LinkState
from infertool.phoenix.schedule import RECONNECT
from infertool.settings import Settings
from infertool.watch.bus import Bus
from infertool.watch.depths import Depthfinder


class LiveSource:
    """Follows topics; keeps trying, also before the first connection. `label` marks what it records."""

    def __init__(self, settings: Settings, topics: Sequence[str], *, label: str = "") -> None:
        self._settings = settings
        self._topics = tuple(dict.fromkeys(topics))
        self._label = label
        self._stopped = threading.Event()
        self._feed: TopicFeed | None = None
        self._thread: threading.Thread | None = None
        self._depths = Depthfinder(settings)

    def start(self, bus: Bus) -> None:
        """Begin to connect."""
        self._thread = threading.Thread(target=self._run, args=(bus,), name="watch-connect", daemon=True)
        self._thread.start()
        self._depths.start(bus)

    def now(self) -> float:
        """Return the time it is."""
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
                _tell_topic(bus, error.topic, error.reason)
                topics.remove(error.topic)
                if topics:
                    continue  # with those that can be joined
                topics = list(self._topics)
                reason = str(error)
            except InfertoolError as error:
                reason = str(error)
            else:
                self._feed = feed
                for topic in topics:
                    _tell_topic(bus, topic, "")  # which may have been refused before
                bus.inbox.put(lambda state, _now: setattr(state, "joined", True))
                return
            failures += 1
            wait_s = RECONNECT.wait(failures)
            _tell_link(bus, LinkEvent(LinkState.LOST, feed.address, 0, reason, wait_s))
            self._stopped.wait(wait_s)

    def _new_feed(self, bus: Bus, topics: Sequence[str]) -> TopicFeed:
        return TopicFeed(
            self._settings.phoenix,
            topics,
            on_arrivals=bus.take,
            on_link=lambda event: _tell_link(bus, event),
            on_topic=lambda topic, reason: _tell_topic(bus, topic, reason),
            on_missed=lambda topic, count, complete: _tell_missed(bus, topic, count, complete=complete),
            source=self._label,
        )


def _tell_link(bus: Bus, event: LinkEvent) -> None:
    bus.inbox.put(lambda state, now: state.take_link(event, now))


def _tell_topic(bus: Bus, topic: str, reason: str) -> None:
    bus.inbox.put(lambda state, now: state.take_topic(topic, reason, now))


def _tell_missed(bus: Bus, topic: str, count: int, *, complete: bool) -> None:
    bus.inbox.put(lambda state, now: state.take_missed(topic, count, now, complete=complete))
