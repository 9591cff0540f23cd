"""The alert rules of a running consumer: evaluated once a second on a thread, told to sinks, kept over a restart."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final, Self

from infertool.alerts import fields, store
from infertool.alerts.engine import Engine
from infertool.alerts.rule import Rule
from infertool.alerts.settings import open_sinks, rules_of
from infertool.alerts.sinks.delivery import Delivery
from infertool.alerts.sinks.phoenix import EVENT, PhoenixSink
from infertool.alerts.sinks.port import Sink, SinkError
from infertool.errors import InfertoolError, UsageError
from infertool.net.timing import left_s
from infertool.publishers.phoenix import PhoenixPublisher
from infertool.publishers.port import Confirmation, Publication, PublisherClosedError, Rejection
from infertool.secret import mask_url
from infertool.settings import Settings
from infertool.settings.load import state_dir
from infertool.telemetry import logs
from infertool.telemetry.signals import Signal, Warned
from infertool.telemetry.stats_document import AlertStats, StatsDocument
from infertool.text.input import did_you_mean

_INTERVAL_S: Final = 1.0
# How often Alertmanager is told what still fires. Seconds.
_REPEAT_S: Final = 60.0
_GOODBYE_S: Final = 5.0
_LOOK_S: Final = 0.5
_MOST_CONSUMERS: Final = 64


class Alerting:
    """Evaluates the rules over `document()`. Raises like `rules_of` and `open_sinks`."""

    def __init__(
        self, settings: Settings, document: Callable[[], StatsDocument], sinks: Sequence[Sink] | None = None
    ) -> None:
        self._document = document
        self._rules: list[Rule] = rules_of(settings)
        self._engine = Engine(self._rules, time.monotonic())
        self._lock = threading.Lock()
        self._told: tuple[AlertStats, ...] = ()
        self._repeated = float("-inf")
        self._saved: object = None
        self._slot = _Slot(settings)
        self._deliveries = {
            sink.name: Delivery(sink, logs.log.warning) for sink in (_sinks(settings) if sinks is None else sinks)
        }
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()

    def start(self) -> None:
        """Take the states of the last run, and start."""
        with self._lock:
            fault = store.restore(self._slot.path, self._engine, time.monotonic(), time.time())
        if fault:
            logs.log.warning("%s holds no states of alert rules: %s; they begin anew", self._slot.path, fault)
        self._thread.start()

    def close(self) -> None:
        """Stop, and deliver what is queued, at most 5 s. What is left is told by the next run."""
        self._stopped.set()
        # What never started has not taken the states of the last run, and must not replace them.
        had_started = self._thread.is_alive()
        if had_started:
            self._thread.join()
        end = time.monotonic() + _GOODBYE_S
        for name, delivery in self._deliveries.items():
            if not delivery.close(left_s(end)) and (rules := ", ".join(sorted(delivery.untold))):
                logs.log.warning("alerts to %s: %s was not delivered; it is told again after a start", name, rules)
        if had_started:
            with self._lock:
                self._saved = None
                self._save(time.monotonic())
        self._slot.close()

    @property
    def states(self) -> tuple[AlertStats, ...]:
        """The states of the rules, for the stats document."""
        return self._told

    @property
    def dropped(self) -> dict[str, int]:
        """The number of dropped notifications by sink."""
        return {name: delivery.dropped for name, delivery in self._deliveries.items()}

    def silence(self, name: str, seconds: float) -> None:
        """Let the rule tell nobody for `seconds`; 0 ends that. Raises `UsageError` if there is no such rule."""
        with self._lock:
            if name not in self._engine.states:
                raise UsageError(f"there is no rule {name}", advice=did_you_mean(name, self._engine.states))
            self._engine.silences[name] = time.monotonic() + seconds
            self._save(time.monotonic())

    def evaluate(self) -> None:
        """Evaluate all rules once."""
        document = self._document()
        values = {**fields.flat(document), "consumer": self._slot.name}
        now, wall = time.monotonic(), time.time()
        with self._lock:
            told = self._engine.evaluate(values, now, wall)
            late = self._engine.late(values, now, wall)
            self._told = self._engine.shown(now, wall)
            firing = self._engine.firing(values, now, wall) if now - self._repeated >= _REPEAT_S else None
        for name, notification in late:
            if name in self._deliveries:
                self._deliveries[name].put(notification)
        for notification in told:
            logs.log.warning(
                "alert %s is %s: %s", notification.rule, notification.state, notification.summary,
                extra={"fields": {"event": EVENT, "rule": notification.rule, "state": notification.state}},
            )  # fmt: skip
            for name, delivery in self._deliveries.items():
                if not notification.sinks or name in notification.sinks:
                    delivery.put(notification)
        # Only now: what is saved as told must be queued.
        with self._lock:
            self._save(now)
        if firing is not None:
            self._repeated = now
            for name, delivery in self._deliveries.items():
                if delivery.sink.repeats:
                    delivery.repeat([each for each in firing if not each.sinks or name in each.sinks])

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL_S):
            try:
                self.evaluate()
            except Exception as error:  # noqa: BLE001  (without the thread nobody would be told of anything)
                logs.log.error("the alert rules could not be evaluated: %s: %s", type(error).__name__, error)

    def _save(self, now: float) -> None:
        """Write the states if one has changed. A folder that cannot be written only warns, once for each change."""
        states = {name: (state.state, state.notified) for name, state in self._engine.states.items()}
        untold = {
            name: delivery.untold | self._engine.untold.get(name, frozenset())
            for name, delivery in self._deliveries.items()
        }
        changed = (states, dict(self._engine.silences), untold)
        if changed == self._saved:
            return
        self._saved = changed
        try:
            store.save(self._slot.path, self._engine, now, time.time(), untold)
        except OSError as error:
            logs.log.warning("the states of alert rules cannot be saved in %s: %s", self._slot.path, error.strerror)


class _Slot:
    """A file for the states of one consumer. Several of a machine that consume a queue have a number each."""

    def __init__(self, settings: Settings) -> None:
        folder = state_dir(os.environ, settings.consume.state_dir)
        digest = hashlib.sha256(f"{mask_url(settings.broker.url)} {settings.broker.queue}".encode()).hexdigest()[:16]
        number = 1
        self._lock: int | None = None
        for number in range(1, _MOST_CONSUMERS + 1):
            self.path = folder / f"alerts-{digest}-{number}.json"
            if self._take():
                break
        # Alertmanager knows an alert by its labels: the label of a consumer must be the same after a restart.
        self.name = socket.gethostname() + (f"#{number}" if number > 1 else "")

    def _take(self) -> bool:
        """Lock the file. A folder that cannot be written has no lock."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def close(self) -> None:
        """Give the number back."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _sinks(settings: Settings) -> list[Sink]:
    sinks = open_sinks(settings)
    if settings.publish.mode == "phoenix":
        pusher = Pusher(settings)
        sinks.append(PhoenixSink(pusher.push, pusher.close))
    return sinks


class Pusher:
    """Pushes on a connection of its own, made at the first push: alerts must not wait behind results, nor hold them up.

    `push` is called by one thread, `close` by another.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publisher: PhoenixPublisher[Future[str]] | None = None
        self._closed = threading.Event()

    def push(self, event_id: str, payload: bytes) -> None:
        """Push, and wait for the confirmation, as long as Phoenix is away. Raises `SinkError` for a rejection."""
        done: Future[str] = Future()
        try:
            publisher = self._connected()
            publisher.publish([Publication(EVENT, event_id, payload, done)])
        except PublisherClosedError:
            raise SinkError("the consumer stops") from None
        except InfertoolError as error:
            raise SinkError(str(error)) from None
        while not self._closed.is_set():
            try:
                reason = done.result(_LOOK_S)
            except FutureTimeout:
                continue
            if reason:
                raise SinkError(f"{publisher.name} refuses it: {reason}")
            return
        raise SinkError("the consumer stops")

    def close(self) -> None:
        """Disconnect."""
        self._closed.set()
        if self._publisher:
            self._publisher.close(_GOODBYE_S)

    def _connected(self) -> PhoenixPublisher[Future[str]]:
        if self._publisher is None:
            publisher: PhoenixPublisher[Future[str]] = PhoenixPublisher(
                self._settings.phoenix, self._settings.publish, _warn
            )
            publisher.report_to(_report)
            try:
                publisher.start()
            except BaseException:
                publisher.close(0)
                raise
            self._publisher = publisher
        return self._publisher


def _report(confirmed: Sequence[Confirmation[Future[str]]], rejected: Sequence[Rejection[Future[str]]]) -> None:
    for confirmation in confirmed:
        _finish(confirmation.publication.context, "")
    for rejection in rejected:
        _finish(rejection.publication.context, rejection.reason or "no reason given")


def _finish(done: Future[str], reason: str) -> None:
    if not done.done():
        done.set_result(reason)


def _warn(signal: Signal | Any) -> None:
    """Log warnings, such as of a channel that ends over an alert. The other signals are figures of the consumer's."""
    if isinstance(signal, Warned):
        logs.log.warning("alerts to phoenix: %s", signal.text)
