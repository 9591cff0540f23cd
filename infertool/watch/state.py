"""The state of one bus: counts and latencies by the second, lists, connection, alert rules. No screen, clock or I/O."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from infertool.channels.event import ChannelEvent
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.watch.consumer_stats import ConsumerView
from infertool.watch.entry import Entry, Kind, gap, read, rule_label, text
from infertool.watch.formatting import clock, span
from infertool.watch.listing import Listing

# Number of seconds that are kept.
LENGTH_S = 600
# Spans of percentiles and shares, and of the rate. Seconds.
RECENT_S = 60
RATE_S = 5
# Buckets grow by 5 %, so a percentile is off by 2.5 % at most.
_LOG_STEP = math.log(1.05)
_SMALLEST_MS, _LARGEST_MS = 0.01, 1e15


@dataclass(slots=True)
class Second:
    """The counts of one second, and its latencies by bucket."""

    results: int = 0
    failures: int = 0
    others: int = 0
    processing: Counter[int] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)

    @property
    def events(self) -> int:
        """All events of the second."""
        return self.results + self.failures + self.others


@dataclass(frozen=True, slots=True)
class Spread:
    """Two percentiles in milliseconds; None without samples. Negative if clocks differ."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Recent:
    """The figures of the last minute. `success` is the share of results, 0 to 1; None without results and failures."""

    rate: float
    success: float | None
    processing: Spread
    latency: Spread


def bucket(ms: float) -> int:
    """Return the bucket of a latency in milliseconds; negative for a negative latency."""
    if abs(ms) < _SMALLEST_MS:
        return 0
    steps = 1 + int(math.log(min(abs(ms), _LARGEST_MS) / _SMALLEST_MS) / _LOG_STEP)
    return steps if ms > 0 else -steps


def middle(number: int) -> float:
    """Return the middle of a bucket in milliseconds."""
    if number == 0:
        return 0.0
    return math.copysign(_SMALLEST_MS * math.exp((abs(number) - 0.5) * _LOG_STEP), number)


class Seconds:
    """The last ten minutes by the second. If the clock is set back, the newest second counts."""

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque([Second()], maxlen=LENGTH_S)
        self._newest: int | None = None
        self._first = 0.0

    def at(self, now: float) -> Second:
        """Return the counter for wall-clock time `now`, in seconds."""
        if self._newest is None:
            self._newest = int(now)
            self._first = now
        missing = int(now) - self._newest
        for _ in range(min(missing, LENGTH_S)):
            self._seconds.append(Second())
        self._newest = max(self._newest, int(now))
        return self._seconds[-1]

    def recent(self, now: float) -> Recent:
        """Return the figures of the last minute."""
        self.at(now)
        results = failures = 0
        processing: Counter[int] = Counter()
        latency: Counter[int] = Counter()
        for second in islice(reversed(self._seconds), RECENT_S):
            results += second.results
            failures += second.failures
            processing.update(second.processing)
            latency.update(second.latency)
        decided = results + failures
        return Recent(
            rate=self._rate(now),
            success=results / decided if decided else None,
            processing=spread(processing),
            latency=spread(latency),
        )

    def rates(self, cells: int, cell_s: int) -> list[float]:
        """Return the rates of the last `cells` intervals of `cell_s` seconds, the newest last."""
        counts = [second.events for second in self._seconds]
        # The newest second is incomplete.
        complete = counts[:-1] or [0]
        stretches = [complete[max(0, end - cell_s) : end] for end in range(len(complete), 0, -cell_s)][:cells]
        found = [sum(stretch) / len(stretch) for stretch in reversed(stretches)]
        return [0.0] * (cells - len(found)) + found

    def _rate(self, now: float) -> float:
        passed = min(max(now - self._first, 1.0), RATE_S + now % 1)
        events = sum(second.events for second in islice(reversed(self._seconds), RATE_S + 1))
        return events / passed


def spread(buckets: Counter[int]) -> Spread:
    """Return the percentiles of latencies counted by bucket."""
    total = buckets.total()
    if not total:
        return Spread(None, None)
    return Spread(_percentile(buckets, total * 0.5), _percentile(buckets, total * 0.99))


def _percentile(buckets: Counter[int], rank: float) -> float:
    seen = 0
    number = 0
    for number in sorted(buckets):
        seen += buckets[number]
        if seen >= rank:
            break
    return middle(number)


# Maximum of remembered alert rules; a bus has few.
_MOST_RULES = 100


@dataclass(slots=True)
class Totals:
    """Counts since the start, and latencies by bucket."""

    results: int = 0
    failures: int = 0
    alerts: int = 0
    others: int = 0
    gaps: int = 0
    processing: Counter[int] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)

    @property
    def events(self) -> int:
        """The number of all events."""
        return self.results + self.failures + self.alerts + self.others

    @property
    def success(self) -> float | None:
        """The share of results among results and failures, 0 to 1; None if there are none."""
        decided = self.results + self.failures
        return self.results / decided if decided else None


@dataclass(frozen=True, slots=True)
class Rule:
    """A firing alert rule."""

    name: str
    label: str
    since: float


@dataclass(slots=True)
class Connection:
    """The current state of the connection. `epoch` counts its connections; 0 if no topic could be joined yet.

    Times are wall-clock seconds.
    """

    state: ConnectionState = ConnectionState.CONNECTING
    since: float | None = None
    address: str = ""
    reason: str = ""
    epoch: int = 0
    retry_at: float | None = None


@dataclass(frozen=True, slots=True)
class Depths:
    """Numbers of messages in the queue and the dead-letter queue; None if the broker does not report them.

    Of a broker that keeps what is settled, `queue` is the lag, and `lag_s` the age of the oldest message of it.
    """

    queue: int | None = None
    dlq: int | None = None
    lag_s: float | None = None


@dataclass(slots=True)
class State:
    """The state of one bus. `note` is a warning for people, such as a recording that stopped.

    `consumer` is a running consumer's own figures; None where none is followed.

    `recording`: the source is a recording. `ended`: the recording has ended. `joined`: all topics of a live bus that
    can be joined are joined.
    """

    name: str
    keep: int
    recording: bool = False
    totals: Totals = field(default_factory=Totals)
    connection: Connection = field(default_factory=Connection)
    depths: Depths = field(default_factory=Depths)
    consumer: ConsumerView | None = None
    rules: dict[str, Rule] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    results: Listing = field(init=False)
    alerts: Listing = field(init=False)
    ended: bool = False
    joined: bool = False
    note: str = ""
    _seconds: Seconds = field(default_factory=Seconds)
    _numbers: int = 0
    _missed_since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.results = Listing(self.keep)
        self.alerts = Listing(self.keep)

    # Changes

    def take(self, events: Sequence[ChannelEvent]) -> None:
        """Add events, oldest first."""
        results: list[Entry] = []
        alerts: list[Entry] = []
        for each in events:
            self._numbers += 1
            entry = read(self._numbers, each)
            self._count(entry, self._seconds.at(each.at))
            if entry.kind is Kind.ALERT:
                self._note_rule(each)
            (alerts if entry.kind in {Kind.FAILURE, Kind.ALERT} else results).append(entry)
        self.results.add(results)
        self.alerts.add(alerts)

    def take_connection(self, event: ConnectionEvent, now: float) -> None:
        """Apply a change of the connection; a reconnect adds a gap to the lists."""
        connection = self.connection
        if event.state is ConnectionState.LOST and connection.state is ConnectionState.CONNECTED:
            self._missed_since[""] = now
        if event.state is not connection.state or connection.since is None:
            connection.since = now
        if event.state is ConnectionState.CONNECTED:
            self._end_gap("", "not connected", now)
        connection.state = event.state
        connection.address = event.address
        connection.epoch = event.epoch
        connection.reason = (
            event.reason if event.reason or event.state is ConnectionState.CONNECTED else connection.reason
        )
        connection.retry_at = None if event.retry_in_s is None else now + event.retry_in_s

    def take_topic(self, topic: str, reason: str, now: float) -> None:
        """Apply the loss or refusal of a topic, or, without `reason`, that it is joined again."""
        if reason:
            self.topics[topic] = reason
            self._missed_since.setdefault(topic, now)
        else:
            self.topics.pop(topic, None)
            self._end_gap(topic, f"{topic} not joined", now)

    def take_missed(self, topic: str, count: int, now: float, *, complete: bool) -> None:
        """Apply a server's report on a gap: it sends `count` missed broadcasts, and these are all if `complete`."""
        if count:
            more = "" if complete else "; there may have been more before them"
            self._add_line(f"{topic}: {count} missed broadcasts follow{more}", now)
        elif complete:
            self._add_line(f"{topic}: nothing was missed", now)

    def take_end(self, note: str) -> None:
        """Apply the end of the recording."""
        self.ended = True
        self.note = note

    # Queries

    def recent(self, now: float) -> Recent:
        """Return the figures of the last minute."""
        return self._seconds.recent(now)

    def rates(self, cells: int, cell_s: int) -> list[float]:
        """Return the rates of the last `cells` intervals of `cell_s` seconds, the newest last."""
        return self._seconds.rates(cells, cell_s)

    def work(self) -> bool:
        """Update both lists by one step; return True if more steps are needed."""
        return any([self.results.work(), self.alerts.work()])

    # Internals

    def _count(self, entry: Entry, second: Second) -> None:
        totals = self.totals
        match entry.kind:
            case Kind.RESULT:
                second.results += 1
                totals.results += 1
            case Kind.FAILURE:
                second.failures += 1
                totals.failures += 1
            case Kind.ALERT:
                second.others += 1
                totals.alerts += 1
            case _:
                second.others += 1
                totals.others += 1
        if entry.processing_ms is not None:
            number = bucket(entry.processing_ms)
            second.processing[number] += 1
            totals.processing[number] += 1
        if entry.latency_s is not None:
            number = bucket(entry.latency_s * 1000)
            second.latency[number] += 1
            totals.latency[number] += 1

    def _note_rule(self, event: ChannelEvent) -> None:
        fields = event.payload if isinstance(event.payload, dict) else {}
        name = text(fields.get("rule")) or "alert"
        before = self.rules.pop(name, None)
        if fields.get("state") == "resolved":
            return
        since = before.since if before else event.at
        self.rules[name] = Rule(name, rule_label(fields), since)
        while len(self.rules) > _MOST_RULES:
            del self.rules[next(iter(self.rules))]

    def _end_gap(self, topic: str, what: str, now: float) -> None:
        began = self._missed_since.pop(topic, None)
        if began is None:
            return
        self.totals.gaps += 1
        self._add_line(
            f"{what} {clock(began)} to {clock(now)} ({span(now - began)}): events sent then are missing", now
        )

    def _add_line(self, label: str, now: float) -> None:
        for listing in (self.results, self.alerts):
            self._numbers += 1
            listing.add([gap(self._numbers, now, label)])
