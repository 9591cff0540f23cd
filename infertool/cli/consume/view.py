"""Output of `consume`: the start line, the status (live on a terminal, log lines elsewhere), and the summary."""

from __future__ import annotations

import ipaddress
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from infertool import __version__, brokers
from infertool.brokers import registry, weighted_queues
from infertool.cli.common import console
from infertool.cli.common.signals import repeated
from infertool.consumer.tuning import concurrency, window
from infertool.errors import UsageError
from infertool.hangup import stderr
from infertool.secret import mask_spec, mask_url
from infertool.settings import Settings
from infertool.settings.load import Loaded
from infertool.telemetry import json_logs, logs
from infertool.telemetry.signals import LagState
from infertool.telemetry.stats import SAMPLE_S, Recent, RecentFigures, Snapshot
from infertool.text import sanitize
from infertool.text.sanitize import clean

SIMULATOR = "sim:"


def check_model(loaded: Loaded) -> None:
    """Raise `UsageError` if the simulator, by default, would take and acknowledge events of a broker elsewhere."""
    if loaded.origins["model.spec"] != "default":
        return
    broker = loaded.settings.broker.url
    if all(_is_loopback(host) for host, _ in registry.parse(broker).hosts):
        return
    raise UsageError(
        f"no model is set, and {mask_url(broker)} is not on this machine: the simulator would acknowledge its events",
        advice="set --model, for example --model app.model:predict; --model sim: asks for the simulator",
    )


def log_start(settings: Settings, max_messages: int | None, *, in_batches: bool) -> None:
    """Log the model, the source of events and the targets of results in one line."""
    fields = _fields(settings, max_messages, in_batches=in_batches)
    replicas = f"{fields['processes']} processes of " if fields["processes"] > 1 else ""
    batches = f", batches of {fields['batch_size']}" if in_batches else ""
    text = (
        f"infertool {fields['version']}: model {fields['model']}; events from {fields['queue']} at {fields['broker']},"
        f" dead letters to {fields['dead_letters']}, results to {fields['results']};"
        f" {replicas}{fields['executor']} x {fields['concurrency']}{batches}, window {fields['window']}"
    )
    logs.log.info("%s", text, extra={"fields": {"event": "start", **fields}})


def _fields(settings: Settings, max_messages: int | None, *, in_batches: bool) -> dict[str, Any]:
    consume = settings.consume
    batch = settings.publish.room if settings.publish.mode == "phoenix" else 1
    most = brokers.adapter(settings.broker.url).CAPABILITIES.max_unacked
    weighted = len(weighted_queues.names(settings.broker.queue)) > 1
    return {
        "version": __version__,
        "model": _model(settings.model.spec),
        "queue": settings.broker.queue,
        "broker": mask_url(settings.broker.url),
        "dead_letters": settings.deadletter.queue,
        "results": _results(settings),
        "processes": consume.processes,
        "executor": consume.executor,
        "concurrency": "auto" if consume.concurrency == "auto" else concurrency(consume, in_batches=in_batches),
        "batch_size": consume.batch_size if in_batches else 1,
        "window": window(consume, batch, max_messages, most, in_batches=in_batches, weighted=weighted),
    }


def _model(spec: str) -> str:
    if spec.startswith(SIMULATOR):
        return f"{spec} (the simulator: no model of yours)"
    return mask_spec(spec)


def _results(settings: Settings) -> str:
    mode, replies = settings.publish.mode, settings.consume.reply
    if mode == "none":
        return "whoever asks (--reply)" if replies else "nowhere (--publish none)"
    published = "stdout" if mode == "stdout" else f"{settings.phoenix.topic} at {mask_url(settings.phoenix.url)}"
    return f"whoever asks (--reply), and {published}" if replies else published


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


REFRESH_PER_S = 4
# The status names unconfirmed pushes once the oldest has waited for this time. Seconds.
LONG_S = 2.0


# Counts that the status shows where there are any.
_MOVED: Final = {"delayed": "in retry topics", "revoked": "handed over"}


class Figures(Protocol):
    """Source of figures."""

    def snapshot(self) -> Snapshot:
        """Return the figures now."""


@dataclass(frozen=True, slots=True)
class Status:
    """The totals, and the figures of the last seconds."""

    snapshot: Snapshot
    recent: Recent

    def line(self) -> str:
        """Return the status in one line, for people."""
        snapshot, counts = self.snapshot, self.snapshot.counts
        times = self.recent.latency_ms
        p99 = "p99 -" if times.p99 is None else f"p99 {times.p99:.0f} ms"
        waiting = "" if snapshot.waiting is None else f", {snapshot.waiting} waiting"
        parts = [
            f"{self.recent.rate:.1f}/s, {p99} in the last {self.recent.seconds:.0f} s",
            f"{snapshot.in_progress} in progress of {snapshot.window}{waiting}",
            f"{counts['succeeded']} succeeded, {counts['dead_lettered']} dead-lettered, {counts['retried']} retried",
            *([_lag(snapshot.lag)] if snapshot.lag else []),
            *self._requests(),
            *(f"{counts[name]} {word}" for name, word in _MOVED.items() if counts[name]),
            *([f"circuit {snapshot.circuit}"] if snapshot.circuit in {"open", "half-open"} else []),
            *(f"{name.replace('_', ' ')} {value}" for name, value in snapshot.tuned.items()),
            *(f"{side} {state}{self._pushes(side)}" for side, state in sorted(snapshot.links.items())),
            *(["PAUSED by Phoenix"] if snapshot.paused else []),
        ]
        return " | ".join(parts)

    def _requests(self) -> list[str]:
        """Return the counts of requests that are not zero."""
        counts = self.snapshot.counts
        names = ("replied", "replies_lost", "expired", "caller_gone")
        shown = [f"{counts[name]} {name.replace('_', ' ')}" for name in names if counts[name]]
        return [", ".join(shown)] if shown else []

    def _pushes(self, side: str) -> str:
        """Return the unconfirmed pushes once they wait for long: a channel that is connected may take nothing."""
        snapshot = self.snapshot
        if side != "phoenix" or _oldest_push_s(snapshot) < LONG_S:
            return ""
        return f", {snapshot.unconfirmed} pushes unconfirmed, oldest {_oldest_push_s(snapshot):.0f} s"

    def fields(self) -> dict[str, Any]:
        """Return the status for machines. Rate and latencies are of the last `seconds`; the counts are totals."""
        snapshot = self.snapshot
        return {
            "event": "status",
            "seconds": round(self.recent.seconds, 1),
            "rate": round(self.recent.rate, 1),
            "latency_ms": self.recent.latency_ms.as_dict(),
            "in_progress": snapshot.in_progress,
            "window": snapshot.window,
            "waiting": snapshot.waiting,
            "lag": asdict(snapshot.lag) if snapshot.lag else None,
            "unconfirmed": snapshot.unconfirmed,
            "oldest_push_s": _oldest_push_s(snapshot),
            **snapshot.counts,
            **snapshot.tuned,
            "circuit": snapshot.circuit,
            "links": snapshot.links,
            "paused": snapshot.paused,
        }


def _lag(lag: LagState) -> str:
    """Return how far the consumers are behind, and what they never got."""
    behind = "" if lag.seconds is None or not lag.messages else f" ({lag.seconds:.0f} s)"
    gap = f", gap {lag.gap}" if lag.gap else ""
    lost = f", {lag.lost} LOST: deleted before they were settled" if lag.lost else ""
    return f"lag {lag.messages}{behind}{gap}{lost}"


class StatusSource:
    """Reads the status of `figures`. Thread-safe."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._recent = RecentFigures()
        self._lock = threading.Lock()

    def now(self) -> Status:
        """Return the status now; called once a second, so that there is a sample from ten seconds ago."""
        with self._lock:
            snapshot = self._figures.snapshot()
            return Status(snapshot, self._recent.add(snapshot, time.monotonic()))


@contextmanager
def shown(figures: Figures, interval_s: float, *, quiet: bool) -> Iterator[None]:
    """Show the status while the block runs."""
    source = StatusSource(figures)
    if quiet:
        yield
    elif sys.stderr.isatty() and not json_logs.is_on():
        with _live(source):
            yield
    else:
        with repeated(LogLines(source, interval_s), min(SAMPLE_S, interval_s)):
            yield


class LogLines:
    """Callable that samples the status, and logs it every `interval_s` seconds."""

    def __init__(self, source: StatusSource, interval_s: float) -> None:
        self._source = source
        self._interval_s = interval_s
        self._due = time.monotonic() + interval_s
        source.now()

    def __call__(self) -> None:
        """Take a sample."""
        status = self._source.now()
        if time.monotonic() >= self._due:
            self._due += self._interval_s
            logs.log.info("%s", status.line(), extra={"fields": status.fields()})


@contextmanager
def _live(source: StatusSource) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def render() -> Text:
        return Text(clean(source.now().line()), overflow="ellipsis", no_wrap=True)

    terminal = Console(file=stderr())  # not `stderr=True`: a model may close `sys.stderr`
    with Live(console=terminal, get_renderable=render, refresh_per_second=REFRESH_PER_S, redirect_stdout=False):
        yield


def done(snapshot: Snapshot) -> str:
    """Return the counts of a run in one line."""
    counts = snapshot.counts
    return ", ".join(f"{counts[name]} {name.replace('_', '-')}" for name in ("received", "succeeded", "dead_lettered"))


def print_summary(snapshot: Snapshot, *, as_json: bool, to: Callable[[str], None]) -> None:
    """Print the figures of a run. Raises `OutputError`."""
    with console.reporting(done(snapshot)):
        _print_summary(snapshot.summary(), as_json=as_json, to=to)


def _print_summary(summary: Mapping[str, Any], *, as_json: bool, to: Callable[[str], None]) -> None:
    if as_json:
        console.emit_json(summary)
        return
    width = sanitize.widest(summary)
    for key, value in summary.items():
        shown = "  ".join(f"{name} {_or_dash(ms)}" for name, ms in value.items()) if isinstance(value, dict) else value
        to(f"{sanitize.right(key, width)}  {shown}")


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _oldest_push_s(snapshot: Snapshot) -> float:
    """Return the age as it is shown: text and fields of one status agree on whether it is long."""
    return round(snapshot.oldest_push_s, 1)
