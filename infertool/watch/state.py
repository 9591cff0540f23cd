"""The state of one bus: counts, lists, connection, alert rules. Pure: no screen, no clock, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from infertool.channels.event import ChannelEvent
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.watch.entry import Entry, Kind, gap, read, rule_label, text
from infertool.watch.formatting import clock, span
from infertool.watch.listing import Listing
from infertool.watch.seconds import Recent, Second, Seconds, bucket

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
    """Numbers of messages in the queue and the dead-letter queue; None if the broker does not report them."""

    queue: int | None = None
    dlq: int | None = None


@dataclass(slots=True)
class State:
    """The state of one bus. `note` is a warning for people, such as a recording that stopped.

    `recording`: the source is a recording. `ended`: the recording has ended. `joined`: all topics of a live bus that
    can be joined are joined.
    """

    name: str
    keep: int
    recording: bool = False
    totals: Totals = field(default_factory=Totals)
    connection: Connection = field(default_factory=Connection)
    depths: Depths = field(default_factory=Depths)
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
            f"{what} {clock(began)} to {clock(now)} ({span(now - began)}): what was sent then is missed", now
        )

    def _add_line(self, label: str, now: float) -> None:
        for listing in (self.results, self.alerts):
            self._numbers += 1
            listing.add([gap(self._numbers, now, label)])
