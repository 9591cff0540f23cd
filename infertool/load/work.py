"""The sending part of one process: its connections, and its share of the plan."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from infertool import brokers
from infertool.brokers import registry
from infertool.brokers.port import Broker
from infertool.load.calls import CallConnection
from infertool.load.generator import ClosedGenerator, OpenGenerator, Slots
from infertool.load.headers import Envelope
from infertool.load.http import HttpSender
from infertool.load.options import LoadOptions
from infertool.load.payloads import Payloads
from infertool.load.sender import ConfirmedConnection, Due, SendConnection, Sender, Timing, UnconfirmedConnection
from infertool.load.tally import Meter, RunClock, Tally
from infertool.load.traces import SentSpans
from infertool.net.connection_state import OnConnection
from infertool.rpc import Client
from infertool.settings.broker import BrokerSettings
from infertool.telemetry import logs

# Longest time for a connection to close. Seconds.
_CLOSE_S = 5.0
# Longest wait for the export of spans. Seconds.
_SPANS_S = 5.0
# Longest wait for each receipt that is outstanding at the end, longer than the broker port lets a connection be silent.
# Seconds.
_FINISH_S = 60.0


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the plan that one process sends: every event whose number modulo `of` is `index`."""

    index: int = 0
    of: int = 1

    def of_all(self, times: Iterator[float]) -> Iterator[Due]:
        """Return the events of this share among those of the whole plan."""
        return itertools.islice(enumerate(times), self.index, None, self.of)


@dataclass(frozen=True, slots=True)
class WorkEnd:
    """The end of the work.

    `finished_s` is the time from the begin to the last event; `blocked_s` the time in which no connection took
    anything; `cpu_s` the processor time. `refusals` counts refused events by the broker's text, `drops` dropped events
    by the reason; `deaths` describes the processes that died; `statuses` counts responses by status and reason,
    `losses` requests without a response by the reason. `fault`, what is wrong and what to do, ended the work.
    """

    finished_s: float = 0.0
    blocked_s: float = 0.0
    cpu_s: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    deaths: tuple[str, ...] = ()
    statuses: dict[str, int] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    fault: tuple[str, str] | None = None


class Work:
    """Connects, runs once, closes. `options` have been checked."""

    def __init__(
        self,
        settings: BrokerSettings,
        options: LoadOptions,
        share: Share,
        tally: Tally,
        meter: Meter,
        *,
        on_connection: OnConnection,
    ) -> None:
        self._options = options
        self._share = share
        self._tally = tally
        self._meter = meter
        seed = f"{options.planned.seed} {share.index} {share.of}"
        self._payloads = Payloads(options.payloads, seed)
        # Headers of HTTP are no headers of messages.
        self._envelope = Envelope(replace(options.envelope, headers=()) if options.http else options.envelope, seed)
        self._schedule = None if options.closed else options.schedule()
        self._end_s = options.end_s
        self._slots = Slots(options.closed or 0, options.settle_s)
        names = [f"infertool-loadgen-{share.index}-{number}" for number in range(options.connections)]
        self._clients: list[Client] = []
        self._brokers: list[Broker] = []
        self._http: list[HttpSender] = []
        if options.http:
            names = []
            self._http.append(
                HttpSender(
                    options.http, options.envelope.headers, self._envelope, tally, meter,
                    window=options.in_flight, on_done=self.done, on_fault=self._failed,
                )
            )  # fmt: skip
        for name in names:
            if options.rpc:
                self._clients.append(Client(settings, name=name, on_connection=on_connection))
            else:
                self._brokers.append(brokers.open(settings, name=name, on_connection=on_connection))
        self._connections: list[SendConnection] = []
        self._generator: OpenGenerator | ClosedGenerator | None = None
        self._sender: Sender | None = None
        self._system = registry.system(settings.url)
        self._spans: SentSpans | None = None
        self._stopped = False
        self._fault: tuple[str, str] | None = None
        self._finished_s = 0.0
        self._cpu_s = 0.0

    def connect(self) -> None:
        """Open all connections. Raises UnreachableError, RefusedError."""
        for client in self._clients:
            client.connect()
        for broker in self._brokers:
            broker.connect()
        for sender in self._http:
            sender.connect()
        self._connections = [
            *(self._calls(client) for client in self._clients),
            *(self._connection(broker) for broker in self._brokers),
            *self._http,
        ]

    def _calls(self, client: Client) -> CallConnection:
        return CallConnection(
            client, self._envelope, self._tally, self._meter,
            timeout_s=self._options.rpc_timeout_s or 0.0, on_done=self.done,
        )  # fmt: skip

    def _connection(self, broker: Broker) -> SendConnection:
        options = self._options
        if not options.confirm:
            return UnconfirmedConnection(broker, self._envelope, self._tally)
        return ConfirmedConnection(
            broker, self._envelope, self._tally, self._meter,
            window=options.in_flight, on_confirmed=self._confirmed,
        )  # fmt: skip

    def _confirmed(self) -> None:
        if not self._options.e2e:
            self.done(1)

    def done(self, count: int) -> None:
        """Free `count` slots of a closed model, whose events came out."""
        if count:
            self._slots.release(count)

    def run(self, run_clock: RunClock) -> None:
        """Send until the plan is over or `stop` is called."""
        options, warmup_s = self._options, self._options.planned.warmup_s
        timing = Timing(warmup_s, options.max_late_s, planned=options.closed is None)
        sender = self._sender = Sender(
            run_clock, self._connections, self._payloads, self._envelope, self._tally, self._meter, timing
        )
        sender.spans = self._spans = self._new_spans()
        if options.closed:
            self._generator = ClosedGenerator(
                sender, self._tally, slots=self._slots, warmup_s=warmup_s, end_s=self._end_s,
                count=options.planned.count or math.inf,
            )  # fmt: skip
        else:
            self._generator = OpenGenerator(sender, self._tally, self._times(), warmup_s=warmup_s, end_s=self._end_s)
        for connection in self._connections:
            if isinstance(connection, CallConnection | HttpSender):
                connection.run_clock = run_clock
        before = time.process_time()
        if not self._stopped:
            self._generator.run()
        self._cpu_s = time.process_time() - before
        self._finished_s = sender.now()
        for connection in self._connections:
            connection.finish(_FINISH_S)

    def _new_spans(self) -> SentSpans | None:
        options = self._options
        if not options.export_traces or options.envelope.traced is None or options.http:
            return None
        from infertool.telemetry.otlp import SpanExporter  # noqa: PLC0415  (it imports OpenTelemetry: 0.3 s)

        exporter = SpanExporter("infertool-loadgen", warn=logs.log.warning, on_dropped=lambda _count: None)
        queue = brokers.conventions(options.envelope.broker_url).short(options.envelope.queue)
        return SentSpans(exporter, queue, self._system)

    def _times(self) -> Iterator[Due]:
        times = self._schedule.times() if self._schedule else iter(())
        return self._share.of_all(times)

    def stop(self) -> None:
        """End early, from any thread."""
        self._stopped = True
        if self._generator:
            self._generator.stop()

    def _failed(self, what: str, advice: str) -> None:
        self._fault = what, advice
        self.stop()

    def end(self) -> WorkEnd:
        """Return the figures of the work so far."""
        refusals: Counter[str] = Counter()
        for connection in self._connections:
            refusals.update(connection.refusals())
        blocked_s = self._sender.blocked_s if self._sender else 0.0
        drops = dict(self._generator.drops) if self._generator else {}
        statuses: Counter[str] = Counter()
        losses: Counter[str] = Counter()
        for sender in self._http:
            statuses.update(sender.statuses)
            losses.update(sender.losses)
        return WorkEnd(
            self._finished_s, blocked_s, self._cpu_s, dict(refusals), drops,
            statuses=dict(statuses), losses=dict(losses), fault=self._fault,
        )  # fmt: skip

    def close(self) -> None:
        """Disconnect."""
        if self._spans:
            self._spans.close(_SPANS_S)
        for sender in self._http:
            sender.close()
        for client in self._clients:
            client.close()
        for broker in self._brokers:
            broker.close(_CLOSE_S)
