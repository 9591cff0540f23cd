"""The output of `tail`: formats of events, and statistics by topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from infertool.channels import recording
from infertool.channels.event import MISSING, ChannelEvent, Path, encode, parse_path, payload_text
from infertool.cli.common import console, eventlines
from infertool.cli.common.eventlines import Template
from infertool.errors import UsageError
from infertool.telemetry.latencies import Latencies
from infertool.text.sanitize import clean
from infertool.watch.entry import number_in

Form = Callable[[Sequence[ChannelEvent]], list[str]]
_Key = tuple[str, str]
# A longer time counts as this: microseconds of it would be past any float. Milliseconds.
_LONGEST_MS = 3_600_000.0


def form_of(output: str | None, *, fields: str | None, template: str | None, several: bool) -> Form:
    """Return a function from events to lines. `several` is True with more than one source. Raises `UsageError`."""
    if template is not None:
        if output or fields:
            raise UsageError("--format says all about a line", advice="leave out -o and --fields")
        return _each(Template(template).line)
    output = output or ("pretty" if console.on_terminal() else "jsonl")
    return FORMS[output] if fields is None else _form_of_fields(output, fields, several=several)


def _form_of_fields(output: str, fields: str, *, several: bool) -> Form:
    paths = [parse_path(each.strip()) for each in fields.split(",")]
    if several:
        paths.insert(0, parse_path("source"))
    if output == "pretty":
        from infertool.cli.common.eventlines import Columns

        return Columns(paths).lines
    if output == "jsonl":
        return _each(lambda event: _chosen(paths, event))
    raise UsageError("--fields goes with -o pretty and -o jsonl", advice="raw is the payload alone")


def _each(line: Callable[[ChannelEvent], str]) -> Form:
    return lambda events: [line(event) for event in events]


def _jsonl(event: ChannelEvent) -> str:
    return recording.line(event).decode()


def _raw(event: ChannelEvent) -> str:
    return payload_text(event).decode()


def _chosen(paths: Sequence[Path], event: ChannelEvent) -> str:
    found = {path.text: path.json(event) for path in paths}
    return encode({name: None if text is MISSING else orjson.Fragment(text) for name, text in found.items()}).decode()


FORMS: dict[str, Form] = {"pretty": _each(eventlines.line), "jsonl": _each(_jsonl), "raw": _each(_raw)}


class _Counts:
    """Counts of one topic of one source since the last line."""

    def __init__(self) -> None:
        self.events = self.succeeded = self.failed = 0
        self.processing = Latencies()

    def add(self, payload: Any) -> None:
        self.events += 1
        if not isinstance(payload, dict):
            return
        status, took_ms = payload.get("status"), number_in(payload, "processing_ms")
        self.succeeded += status == "SUCCESS"
        self.failed += status == "FAILED"
        if took_ms is not None:
            self.processing.add([min(took_ms, _LONGEST_MS) / 1000])

    def line(self, elapsed_s: float) -> str:
        took = self.processing.percentiles()
        return (
            f"{self.events / elapsed_s:.1f}/s  {self.events} events  {self.succeeded} ok  {self.failed} failed  "
            f"p50 {_ms(took.p50)}  p99 {_ms(took.p99)}"
        )


class TailStats:
    """Counts by source and topic; every `every_s` seconds it returns a line for each."""

    def __init__(self, every_s: float, keys: Sequence[_Key]) -> None:
        self._every_s = every_s
        self._keys = keys
        self.restart()

    def add(self, events: Iterable[ChannelEvent]) -> None:
        """Count events."""
        for event in events:
            self._counts[event.source, event.topic].add(event.payload)

    def due(self) -> list[str]:
        """Return the lines if they are due, and start again from zero."""
        elapsed_s = time.monotonic() - self._since
        return self.finish() if elapsed_s >= self._every_s else []

    def finish(self) -> list[str]:
        """Return the lines, and start again from zero."""
        elapsed_s = time.monotonic() - self._since
        lines = [
            f"stats {elapsed_s:.1f} s  {clean(f'{source} {topic}'.strip())}  {counts.line(elapsed_s)}"
            for (source, topic), counts in self._counts.items()
        ]
        self.restart()
        return lines

    def restart(self) -> None:
        """Start again from zero."""
        self._since = time.monotonic()
        self._counts = {key: _Counts() for key in self._keys}


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
