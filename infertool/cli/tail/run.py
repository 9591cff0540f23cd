"""One run of `infertool tail`: read events of a recording and of servers; filter, record, count, print them."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from infertool.channels.event import ChannelEvent, text
from infertool.channels.recording import Dedup, Recorder, RecordReader
from infertool.channels.topics import Inbox
from infertool.cli.common import console
from infertool.cli.tail.sources import Sources, labels
from infertool.cli.tail.view import Form, TailStats
from infertool.errors import NothingMatchedError, UsageError
from infertool.filters.expression import Filter, NotEvaluatedError
from infertool.settings.tree import PhoenixSettings
from infertool.text.input import parse_duration

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
        for batch in recorded.batches():
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
