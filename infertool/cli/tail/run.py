"""Following topics: a record first, then what comes live; filter, record, count, print."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from infertool.channels.dedup import Dedup
from infertool.channels.event import ChannelEvent, text
from infertool.channels.recording import Recorder, RecordReader
from infertool.channels.topics import Inbox
from infertool.cli.common import console
from infertool.cli.tail.sources import Sources, labels
from infertool.cli.tail.view import Form, TailStats
from infertool.errors import NothingMatchedError, UsageError
from infertool.filters.expression import Filter, NotEvaluatedError
from infertool.settings.tree import PhoenixSettings
from infertool.text.units import parse_duration

# Events that wait to be printed; past this many the reader waits, and with it the server.
MOST_WAITING = 10_000
POLL_S = 0.1
# Events hold no cycles. At its default the collector would look at them every 700 objects, for a quarter of the time.
COLLECT_EVERY = 20_000


def parse_interval(text: str) -> float:
    """Return the time between statistics, in seconds. Raises `UsageError`."""
    interval_s = parse_duration(text, "--stats")
    if interval_s == 0:
        raise UsageError("--stats must be longer than 0", advice="write for example 5s")
    return interval_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one run of `infertool tail` is to do. Times are in seconds."""

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

    def __init__(self, settings: Sequence[PhoenixSettings], asked: Asked) -> None:
        self._asked = asked
        self._topics = list(dict.fromkeys(asked.topics))
        self._deadline = None if asked.for_s is None else time.monotonic() + asked.for_s
        self._inbox = Inbox(MOST_WAITING)
        self._sources = Sources(settings, self._topics, on_events=self._inbox.put, note=self._note)
        keys = [(label, topic) for label in labels(settings) for topic in self._topics]
        self._stats = None if asked.stats_s is None else TailStats(asked.stats_s, keys)
        self._dedup = Dedup()
        self._printed = 0

    def run(self) -> None:
        """Print until the count or the time is reached.

        Raises what the servers refuse, `RecordError`, and `NothingMatchedError`.
        """
        gc.set_threshold(COLLECT_EVERY)
        with ExitStack() as stack:
            recorded = RecordReader(self._asked.since_file) if self._asked.since_file else None
            recorder = Recorder(self._asked.record) if self._asked.record else None
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
        if not self._asked.quiet:
            console.err(text)

    def _print_record(self, recorded: RecordReader) -> None:
        for batch in recorded.batches():
            if self._finished():
                return
            self._dedup.note(batch)
            self._print([arrival for arrival in batch if arrival.topic in self._topics])
        if recorded.skipped:
            self._note(f"{recorded.skipped} lines of {recorded.name} are no records; skipped")

    def _follow(self, recorder: Recorder | None) -> None:
        if self._stats:
            # To connect, and to print a record, is no time in which events came.
            self._stats.restart()
        while not self._finished():
            arrivals = self._dedup.without(self._inbox.take(POLL_S))
            if recorder and arrivals:
                recorder.write(arrivals)
            matching = self._print(arrivals)
            if self._stats:
                self._stats.add(matching)
                self._tell(self._stats.due())
        if self._stats:
            self._tell(self._stats.finish())

    def _print(self, arrivals: Sequence[ChannelEvent]) -> Sequence[ChannelEvent]:
        """Print those that match; return them."""
        matching = [arrival for arrival in arrivals if self._matches(arrival)]
        if self._asked.count is not None:
            matching = matching[: self._asked.count - self._printed]
        if matching:
            console.out_data(*self._asked.form(matching))
            self._printed += len(matching)
        return matching

    def _matches(self, arrival: ChannelEvent) -> bool:
        if self._asked.event is not None and arrival.event != self._asked.event:
            return False
        if self._asked.where is None:
            return True
        try:
            return self._asked.where.matches(arrival.payload, topic=arrival.topic, event=arrival.event)
        except NotEvaluatedError as fault:
            self._note(
                f"--where {self._asked.where.expression!r} cannot be evaluated on {arrival.event} of {arrival.topic}"
                f" {_name(arrival)}: {fault.reason}; it is not shown"
            )
            return False

    def _tell(self, lines: Sequence[str]) -> None:
        console.err(*lines)

    def _finished(self) -> bool:
        if self._asked.count is not None and self._printed >= self._asked.count:
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _check_found(self) -> None:
        if self._deadline is None:
            return
        if self._printed < (self._asked.count or 1):
            wanted = "" if self._asked.count is None else f" of {self._asked.count}"
            raise NothingMatchedError(f"the time ran out after {self._printed}{wanted} matching events")


def _name(arrival: ChannelEvent) -> str:
    return text(arrival.payload.get("event_id")) if isinstance(arrival.payload, dict) else ""
