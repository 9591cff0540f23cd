"""The figures of a running consumer (`consume --metrics`), followed over HTTP, and their lines in the header."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson

from infertool.net.http_faults import hint, reason, wants_tls
from infertool.net.timing import RECONNECT
from infertool.secret import mask_url
from infertool.text.sanitize import clean
from infertool.watch.formatting import Glyphs, Line, TextStyle, count, ms, rate, size, span

# A consumer sends a document a second.
_CONNECT_S: Final = 5.0
_SILENCE_S: Final = 10.0
_LONGEST_LINE: Final = 1_000_000
_DATA: Final = b"data: "
_LATE: Final = 0.8


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """What is known of the consumer: its last stats document, and why none comes now."""

    document: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""

    def get(self, *path: str) -> Any:
        """Return the figure at `path`; None where it is missing, or the server is something else."""
        found: Any = self.document
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def number(self, *path: str) -> float | None:
        """Return the number at `path`, None if it is none."""
        found = self.get(*path)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None


class StatsFollower:
    """Follows `/stats/stream` of a consumer in a thread of its own, and connects again. `on_view` gets each change."""

    def __init__(self, url: str, on_view: Callable[[ConsumerView], None]) -> None:
        self._url = url
        self._shown = mask_url(url)
        self._on_view = on_view
        self._stopped = threading.Event()
        self._view = ConsumerView()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="watch-stats", daemon=True).start()

    def stop(self) -> None:
        """Stop; does not wait for the next document."""
        self._stopped.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            before = self._view.document
            fault = self._follow()
            failures = 1 if self._view.document is not before else failures + 1
            if self._stopped.is_set():
                return
            self._show(ConsumerView(self._view.document, fault))
            self._stopped.wait(RECONNECT.wait(failures))

    def _follow(self) -> str:
        """Take documents until the stream ends; return why it did."""
        import urllib3  # noqa: PLC0415  (0.1 s to import, and most views do without)

        from infertool.net.http_pool import Pools  # noqa: PLC0415

        timeout = urllib3.Timeout(connect=_CONNECT_S, read=_SILENCE_S)
        with Pools(timeout=timeout, retries=False) as pool:
            try:
                response = pool.request("GET", f"{self._url}/stats/stream", preload_content=False)
                if response.status != HTTPStatus.OK:
                    if response.status == HTTPStatus.BAD_REQUEST and (tls := wants_tls(self._shown, "--stats-url")):
                        return "; ".join(tls)
                    return f"{self._shown} answers {response.status}: it is no consumer with --metrics"
                # At its end it would close itself, and the reader around it would raise.
                setattr(response, "auto_close", False)  # noqa: B010  (its declared type does not have it)
                return self._take(io.BufferedReader(response))
            except urllib3.exceptions.HTTPError as error:
                if not self._view.document and (instead := hint(error, self._shown, "--stats-url")):
                    return "; ".join(instead)
                return f"{self._shown} cannot be reached: {reason(error)}"

    def _take(self, stream: io.BufferedReader) -> str:
        while not self._stopped.is_set():
            line = stream.readline(_LONGEST_LINE)
            if not line:
                return f"{self._shown} has ended"
            if line.startswith(_DATA):
                with contextlib.suppress(orjson.JSONDecodeError):
                    self._show(ConsumerView(orjson.loads(line[len(_DATA) :])))
        return ""

    def _show(self, view: ConsumerView) -> None:
        self._view = view
        self._on_view(view)


def consumer_lines(view: ConsumerView, glyphs: Glyphs) -> list[Line]:
    """Return the two lines of a consumer: its figures, and its alert rules."""
    if not view.document:
        text = clean(view.fault) or "waiting for its figures"
        return [[(f" {glyphs.down} consumer ", TextStyle.FAIL), (glyphs.safe(text), TextStyle.WARN)], []]
    head: Line = (
        [(f" {glyphs.down} consumer ", TextStyle.FAIL), (f"{glyphs.safe(clean(view.fault))} ", TextStyle.WARN)]
        if view.fault
        else [_sign(view, glyphs), ("consumer ", TextStyle.STRONG)]
    )
    return [head + _figures(view, glyphs), _rules(view, glyphs)]


def _sign(view: ConsumerView, glyphs: Glyphs) -> tuple[str, TextStyle]:
    ups = [view.get("connections", side, "up") for side in ("broker", "phoenix")]
    well = False not in ups and not view.get("progress", "stuck")
    return f" {glyphs.up if well else glyphs.down} ", TextStyle.OK if well else TextStyle.FAIL


def _figures(view: ConsumerView, glyphs: Glyphs) -> Line:
    line: Line = []

    def add(name: str, text: str | None, style: TextStyle = TextStyle.STRONG) -> None:
        if text is not None:
            line.extend([(f" {name} ", TextStyle.DIM), (f"{text} ", style)])

    number = view.number
    for side in ("broker", "phoenix"):
        if view.get("connections", side, "up") is False:
            add(side, glyphs.safe(clean(str(view.get("connections", side, "state")))), TextStyle.FAIL)
    if view.get("progress", "stuck"):
        add("stuck", _known(span, number("progress", "idle_s")), TextStyle.FAIL)
    add("settled", _known(lambda value: f"{rate(value)}/s", number("rate", "settled")))
    add("p99", _known(ms, number("latency", "event", "p99_ms")))
    held, limit = number("window", "in_progress"), number("window", "limit")
    if held is not None and limit:
        add("window", f"{held:g}/{limit:g}", TextStyle.WARN if held >= _LATE * limit else TextStyle.STRONG)
    add("batch", _known(lambda value: count(int(value)), number("model", "batch_size")))
    add("waiting", _known(lambda value: count(int(value)), number("queue", "depth")))
    add("lag", _known(span, number("queue", "lag_s") or None))
    if lost := number("queue", "lost"):
        add("lost", count(int(lost)), TextStyle.FAIL)
    add("oldest", _known(span, number("queue", "oldest_s") or None))
    if number("queue", "depth"):
        add("empty in", _known(span, number("queue", "drain_s")))
    add("cpu", _known(lambda value: f"{value:.2f}", number("process", "cpu")))
    add("memory", _known(lambda value: size(int(value)), number("process", "memory_bytes")))
    if view.get("window", "paused"):
        line.append((" PAUSED by Phoenix", TextStyle.WARN))
    return line


def _rules(view: ConsumerView, glyphs: Glyphs) -> Line:
    alerts = view.get("alerts")
    known = [each for each in alerts if isinstance(each, dict)] if isinstance(alerts, list) else []
    line: Line = [("   rules    ", TextStyle.DIM)]
    for state, style in (("firing", TextStyle.FAIL), ("pending", TextStyle.WARN), ("nodata", TextStyle.DIM)):
        if names := [clean(str(each.get("rule"))) for each in known if each.get("state") == state]:
            line.append((glyphs.safe(f" {glyphs.firing} {state}: {', '.join(names)} "), style))
    if len(line) == 1:
        line.append((f" {len(known)} rules, none fires" if known else " none are evaluated", TextStyle.DIM))
    return line


def _known(show: Callable[[float], str], value: float | None) -> str | None:
    return None if value is None else show(value)
