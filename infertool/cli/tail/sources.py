"""The servers of `tail`: one, or several of which some may be unreachable."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from infertool.channels.event import OnChannelEvents
from infertool.channels.topics import TopicFeed
from infertool.errors import InfertoolError, UnreachableError
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import RECONNECT
from infertool.phoenix.dial import targets
from infertool.settings.tree import PhoenixSettings

CLOSE_S = 1.0
Note = Callable[[str], None]


def labels(settings: Sequence[PhoenixSettings]) -> list[str]:
    """Return a label for each server: "" for a single one, else host and port, or the full address. No secrets."""
    if len(settings) == 1:
        return [""]
    first = [targets(each)[0] for each in settings]
    short = [f"{target.host}:{target.port}" for target in first]
    often = Counter(short)
    return [name if often[name] == 1 else target.address for name, target in zip(short, first, strict=True)]


class Sources:
    """Joins `topics` on every server. `note` receives messages for the user."""

    def __init__(
        self, settings: Sequence[PhoenixSettings], topics: Sequence[str], *, on_events: OnChannelEvents, note: Note
    ) -> None:
        self._topics = topics
        self._note = note
        self._closing = threading.Event()
        self._feeds = [
            self._feed(each, label, on_events) for each, label in zip(settings, labels(settings), strict=True)
        ]

    def connect(self) -> None:
        """Connect to the server, or to at least one of several; keep trying the unreachable ones.

        Raises the server's error; if all of several fail, that of the first.
        """
        if len(self._feeds) == 1:
            self._follow(self._feeds[0])
            return
        failures = self._first_attempts()
        if len(failures) == len(self._feeds):
            raise failures[self._feeds[0]]
        for feed, error in failures.items():
            if isinstance(error, UnreachableError):
                self._note(f"{error}; trying again")
                threading.Thread(target=self._keep_trying, args=(feed,), daemon=True).start()
            else:
                self._note(f"{error}; left out")

    def close(self) -> None:
        """Disconnect from all servers."""
        self._closing.set()
        for feed in self._feeds:
            feed.close(CLOSE_S)

    def _feed(self, settings: PhoenixSettings, label: str, on_events: OnChannelEvents) -> TopicFeed:
        notes = _ConnectionNotes(self._note, label)
        return TopicFeed(
            settings, self._topics, on_events=on_events, on_connection=notes.changed, on_topic=notes.topic_changed,
            on_missed=notes.missed, source=label,
        )  # fmt: skip

    def _follow(self, feed: TopicFeed) -> None:
        feed.connect()
        self._note(f"following {', '.join(self._topics)} at {feed.address}")

    def _attempt(self, feed: TopicFeed) -> InfertoolError | None:
        try:
            self._follow(feed)
        except InfertoolError as error:
            return error
        return None

    def _first_attempts(self) -> dict[TopicFeed, InfertoolError]:
        """Connect to all servers concurrently; return the errors."""
        outcomes: queue.Queue[tuple[TopicFeed, InfertoolError | None]] = queue.Queue()
        for feed in self._feeds:
            # Daemon threads: Ctrl-C need not wait for a server that does not answer.
            attempt = partial(lambda feed: outcomes.put((feed, self._attempt(feed))), feed)
            threading.Thread(target=attempt, daemon=True).start()
        return {feed: error for feed, error in (outcomes.get() for _ in self._feeds) if error}

    def _keep_trying(self, feed: TopicFeed) -> None:
        error: InfertoolError | None = None
        for failures in itertools.count(1):
            if self._closing.wait(RECONNECT.wait(failures)):
                return
            error = self._attempt(feed)
            if not isinstance(error, UnreachableError):
                break
        if error:
            self._note(f"{error}; left out")


class _ConnectionNotes:
    """Notes the loss and the return of a server and of its topics, once each."""

    def __init__(self, note: Note, label: str) -> None:
        self._note = note
        self._at = f" at {label}" if label else ""
        self._lost_at: float | None = None
        self._topics_lost_at: dict[str, float] = {}

    def changed(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.LOST and self._lost_at is None:
            self._lost_at = time.monotonic()
            self._note(f"lost {event.address}: {event.reason}; connecting again")
        elif event.state is ConnectionState.CONNECTED and self._lost_at is not None:
            missed = _missed("disconnected", self._lost_at)
            self._lost_at = None
            self._note(f"connected to {event.address} again; {missed}")

    def missed(self, topic: str, count: int, complete: bool) -> None:
        more_text = "" if complete else "; there may have been more before them"
        if count:
            self._note(f"{topic}{self._at}: {count} missed broadcasts follow{more_text}")
        elif complete:
            self._note(f"{topic}{self._at}: nothing was missed")

    def topic_changed(self, topic: str, reason: str) -> None:
        if reason:
            self._topics_lost_at.setdefault(topic, time.monotonic())
            self._note(f"lost {topic}{self._at}: {reason}; joining again")
        else:
            missed = _missed("not joined", self._topics_lost_at.pop(topic, time.monotonic()))
            self._note(f"joined {topic}{self._at} again; {missed}")


def _missed(what: str, since: float) -> str:
    return f"what was broadcast meanwhile is missed ({what} for {time.monotonic() - since:.1f} s)"
