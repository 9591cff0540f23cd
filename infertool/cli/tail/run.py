"""One run of `infertool tail`: read events of a recording and of servers; filter, record, count, print them.

Of several servers, some may be unreachable: they are tried again.
"""

from __future__ import annotations

import gc
import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from infertool.channels.event import ChannelEvent, OnChannelEvents, text
from infertool.channels.recording import Dedup, Recorder, RecordReader
from infertool.channels.topics import Inbox, TopicFeed
from infertool.cli.common import console
from infertool.cli.tail.view import Form, TailStats
from infertool.errors import InfertoolError, NothingMatchedError, UnreachableError, UsageError
from infertool.filters.expression import Filter, NotEvaluatedError
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import RECONNECT
from infertool.phoenix.dial import targets
from infertool.settings.tree import PhoenixSettings
from infertool.text.input import parse_duration

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
    return f"broadcasts in between are missed ({what} for {time.monotonic() - since:.1f} s)"


# Maximum number of events that wait to be printed; beyond it the reader waits, and with it the server.
MOST_WAITING = 10_000
POLL_S = 0.1
# Threshold of the garbage collector. Events have no reference cycles; with the default it takes a quarter of the time.
COLLECT_EVERY = 20_000


def parse_interval(text: str) -> float:
    """Return the interval of `--stats` in seconds. Raises `UsageError`."""
    interval_s = parse_duration(text, "--stats")
    if interval_s == 0:
        raise UsageError("--stats must be longer than 0", advice="write for example 5s")
    return interval_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `infertool tail`. Times are in seconds."""

    topics: Sequence[str]
    form: Form
    event: str | None
    where: Filter | None
    count: int | None
    for_s: float | None
    since_file: str | None
    record: str | None
    stats_s: float | None
    quiet: bool


class Tail:
    """One run of `infertool tail`."""

    def __init__(self, settings: Sequence[PhoenixSettings], options: Options) -> None:
        self._options = options
        self._topics = list(dict.fromkeys(options.topics))
        self._deadline = None if options.for_s is None else time.monotonic() + options.for_s
        self._inbox = Inbox(MOST_WAITING)
        self._sources = Sources(settings, self._topics, on_events=self._inbox.put, note=self._note)
        keys = [(label, topic) for label in labels(settings) for topic in self._topics]
        self._stats = None if options.stats_s is None else TailStats(options.stats_s, keys)
        self._dedup = Dedup()
        self._printed = 0

    def run(self) -> None:
        """Print until the count or the time is reached.

        Raises `ServerError`, `RecordError` and `NothingMatchedError`.
        """
        gc.set_threshold(COLLECT_EVERY)
        with ExitStack() as stack:
            recorded = RecordReader(self._options.since_file) if self._options.since_file else None
            recorder = Recorder(self._options.record) if self._options.record else None
            if recorder:
                stack.callback(recorder.close)
            stack.callback(self._sources.close)
            stack.callback(self._inbox.close)
            self._sources.connect()
            if recorded:
                self._print_record(recorded)
            self._follow(recorder)
        self._check_found()

    def _note(self, text: str) -> None:
        if not self._options.quiet:
            console.err(text)

    def _print_record(self, recorded: RecordReader) -> None:
        for batch in recorded.batches(self._deadline):
            if self._finished():
                return
            self._dedup.note(batch)
            self._print([event for event in batch if event.topic in self._topics])
        if recorded.skipped:
            self._note(f"{recorded.skipped} lines of {recorded.name} are no records; skipped")

    def _follow(self, recorder: Recorder | None) -> None:
        if self._stats:
            # The time for connecting and printing the recording does not count.
            self._stats.restart()
        while not self._finished():
            events = self._dedup.without(self._inbox.take(POLL_S))
            if recorder and events:
                recorder.write(events)
            matching = self._print(events)
            if self._stats:
                self._stats.add(matching)
                self._tell(self._stats.due())
        if self._stats:
            self._tell(self._stats.finish())

    def _print(self, events: Sequence[ChannelEvent]) -> Sequence[ChannelEvent]:
        """Print the matching events; return them."""
        matching = [event for event in events if self._matches(event)]
        if self._options.count is not None:
            matching = matching[: self._options.count - self._printed]
        if matching:
            console.out_data(*self._options.form(matching))
            self._printed += len(matching)
        return matching

    def _matches(self, event: ChannelEvent) -> bool:
        if self._options.event is not None and event.event != self._options.event:
            return False
        if self._options.where is None:
            return True
        try:
            return self._options.where.matches(event.payload, topic=event.topic, event=event.event)
        except NotEvaluatedError as fault:
            self._note(
                f"--where {self._options.where.expression!r} cannot be evaluated on {event.event} of {event.topic}"
                f" {_name(event)}: {fault.reason}; it is not shown"
            )
            return False

    def _tell(self, lines: Sequence[str]) -> None:
        console.err(*lines)

    def _finished(self) -> bool:
        if self._options.count is not None and self._printed >= self._options.count:
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _check_found(self) -> None:
        if self._deadline is None:
            return
        if self._printed < (self._options.count or 1):
            wanted = "" if self._options.count is None else f" of {self._options.count}"
            raise NothingMatchedError(f"the time ran out after {self._printed}{wanted} matching events")


def _name(event: ChannelEvent) -> str:
    return text(event.payload.get("event_id")) if isinstance(event.payload, dict) else ""
