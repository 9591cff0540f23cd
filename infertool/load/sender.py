"""Sends due events over one or several connections, counts them, and measures how late they are."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from infertool.brokers.headers import with_texts
from infertool.brokers.port import Broker
from infertool.errors import ConnectionLostError, RefusedError
from infertool.load.headers import Envelope
from infertool.load.payloads import Payloads
from infertool.load.tally import Measure, Meter, RunClock, Tally
from infertool.load.traces import SentSpans

# Events in one write: enough to make writes cheap, few enough that one send time holds for all of them.
BATCH: Final = 64
# Wait for late refusals: ActiveMQ may report a refused event after it has confirmed later ones. Seconds.
_REFUSALS_S: Final = 0.2
Stamped = tuple[Sequence[str], bytes]
# An event sent later than this after its due time counts as late. Seconds.
LATE_S: Final = 0.01
# Maximum wait for connections without room; between waits the generator collects due events. Seconds.
_WAIT_S: Final = 0.02
Due = tuple[int, float]


class SendConnection(Protocol):
    """One connection to send on. The events of a batch are either all of the warm-up or all counted."""

    def room(self, timeout_s: float) -> int:
        """Return how many events may be sent now, waiting up to `timeout_s` for room for one.

        Raises ConnectionLostError while there is no connection.
        """

    def send(self, events: Sequence[Stamped], *, warm: bool) -> None:
        """Send a batch. Raises ConnectionLostError if none of it was sent."""

    def finish(self, timeout_s: float) -> None:
        """Wait until the broker has all sent events, as far as it reports it; up to `timeout_s` for each report."""

    def refusals(self) -> Mapping[str, int]:
        """Return how many events the broker refused, by its reason."""


class UnconfirmedConnection:
    """Sends without receipts, as fast as the connection takes events."""

    def __init__(self, broker: Broker, envelope: Envelope, tally: Tally) -> None:
        self._bulk_sender = broker.bulk_sender(envelope.template, envelope.variable_headers)
        self._tally = tally
        self._refused = 0

    def room(self, timeout_s: float) -> int:
        """See `SendConnection`."""
        room = self._bulk_sender.wait_for_room(timeout_s)
        self._count_refusals()
        return BATCH if room else 0

    def send(self, events: Sequence[Stamped], *, warm: bool) -> None:  # noqa: ARG002  # there is no receipt to count
        """See `SendConnection`."""
        self._bulk_sender.send(events)

    def finish(self, timeout_s: float) -> None:
        """See `SendConnection`."""
        with contextlib.suppress(ConnectionLostError):
            self._bulk_sender.flush(timeout_s)
            time.sleep(_REFUSALS_S)
            self._bulk_sender.wait_for_room(timeout_s)
        self._count_refusals()

    def refusals(self) -> Mapping[str, int]:
        """See `SendConnection`."""
        return {self._bulk_sender.reason: self._refused} if self._refused else {}

    def _count_refusals(self) -> None:
        if new := self._bulk_sender.refused - self._refused:
            self._refused += new
            self._tally.add(sent=-new, unsent=new)


class ConfirmedConnection:
    """Asks for a receipt of each event, and has at most `window` unconfirmed ones."""

    def __init__(
        self,
        broker: Broker,
        envelope: Envelope,
        tally: Tally,
        meter: Meter,
        *,
        window: int,
        on_confirmed: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._envelope = envelope
        self._tally = tally
        self._meter = meter
        self._on_confirmed = on_confirmed
        self._window = window
        self._open = 0
        self._refused: Counter[str] = Counter()
        self._changed = threading.Condition()

    def room(self, timeout_s: float) -> int:
        """See `SendConnection`."""
        with self._changed:
            self._changed.wait_for(lambda: self._open < self._window, timeout_s)
            return min(BATCH, self._window - self._open)

    def send(self, events: Sequence[Stamped], *, warm: bool) -> None:
        """See `SendConnection`."""
        template = self._envelope.template
        for index, (values, body) in enumerate(events):
            outgoing = with_texts(template, dict(zip(self._envelope.variable_headers, values, strict=True)), body)
            with self._changed:
                self._open += 1
            answered = partial(self._answered, time.monotonic(), warm)
            try:
                self._broker.send(outgoing, answered)
            except RefusedError as refusal:  # it breaks the limits of the wire
                answered(refusal)
            except ConnectionLostError:
                self._close()
                if not index:
                    raise
                left = len(events) - index
                self._tally.add(warm=warm, sent=-left, unsent=left)
                return

    def finish(self, timeout_s: float) -> None:
        """See `SendConnection`."""
        # The timeout is for each receipt, not for all: a slow broker has as many to send as a fast one.
        with self._changed:
            while before := self._open:
                if not self._changed.wait_for(lambda: self._open < before, timeout_s):
                    return

    def refusals(self) -> Mapping[str, int]:
        """See `SendConnection`."""
        with self._changed:
            return dict(self._refused)

    def _answered(self, sent_at: float, warm: bool, error: Exception | None) -> None:  # noqa: FBT001  # a partial's
        now = time.monotonic()
        if error is None:
            second = self._tally.clock.second(now)
            self._tally.add(warm=warm, second=second, confirmed=1)
            if not warm:
                self._meter.add(Measure.SEND, [now - sent_at], second=second)
        elif isinstance(error, RefusedError):
            self._tally.add(warm=warm, second=self._tally.clock.second(sent_at), sent=-1, unsent=1)
            with self._changed:
                self._refused[error.reason] += 1
        self._close()
        self._on_confirmed()

    def _close(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()


@dataclass(frozen=True, slots=True)
class Timing:
    """Limits of a sender: events of the warm-up are not counted, events later than `max_late_s` are dropped.

    Unless `planned`, as in a closed model, no event is late and there is no slip.
    """

    warmup_s: float = 0.0
    max_late_s: float = math.inf
    planned: bool = True


class Sender:
    """Sends events (number, due time in seconds after the start) from a backlog. Used by one thread."""

    def __init__(
        self,
        run_clock: RunClock,
        connections: Sequence[SendConnection],
        payloads: Payloads,
        envelope: Envelope,
        tally: Tally,
        meter: Meter,
        timing: Timing,
    ) -> None:
        self._run_clock = run_clock
        self._connections = deque(connections)
        self._payloads = payloads
        self._envelope = envelope
        self._tally = tally
        self._meter = meter
        self._timing = timing
        # Time in which events waited and no connection had room. Seconds.
        self.blocked_s = 0.0
        # Takes the recorded events that were sent, where traces are exported.
        self.spans: SentSpans | None = None

    def now(self) -> float:
        """Return the seconds since the start of the run."""
        return time.monotonic() - self._run_clock.mono

    def send_some(self, backlog: deque[Due]) -> None:
        """Send a batch from the head of the backlog; return after a short wait if no connection has room."""
        connection, room = self._connection()
        if room == 0:
            return
        warm = backlog[0][1] < self._timing.warmup_s
        batch: list[Due] = []
        while backlog and len(batch) < room and (backlog[0][1] < self._timing.warmup_s) == warm:
            batch.append(backlog.popleft())
        # Made even if it is not sent, so that with one seed each event has the same body in every run.
        made = [self._payloads.make(number) for number, _ in batch]
        if connection is None:
            self._tally.add(warm=warm, unsent=len(batch))
            return
        self._send(connection, batch, made, warm=warm)

    def _connection(self) -> tuple[SendConnection | None, int]:
        """Return the next connection with room, and its room; None and a batch if all connections are lost."""
        began = time.monotonic()
        connected = False
        for _ in range(len(self._connections)):
            self._connections.rotate(-1)
            try:
                room = self._connections[0].room(_WAIT_S / len(self._connections))
            except ConnectionLostError:
                continue
            connected = True
            if room:
                return self._connections[0], room
        if not connected:
            return None, BATCH
        # At most the time waited: time in which this process was stopped is not the broker's.
        self.blocked_s += min(time.monotonic() - began, 2 * _WAIT_S)
        return None, 0

    def _send(
        self, connection: SendConnection, batch: list[Due], made: list[tuple[bytes, bool]], *, warm: bool
    ) -> None:
        now = self.now()
        sent_at = f"{self._run_clock.wall + now:.6f}"
        events, slips, poison = [], [], 0
        for (number, due), (body, broken) in zip(batch, made, strict=True):
            if now - due <= self._timing.max_late_s:
                slips.append(now - due)
                events.append((self._envelope.values(self._run_clock, number, due, sent_at), body))
                poison += broken
        sent, dropped = len(events), len(batch) - len(events)
        late = sum(slip > LATE_S for slip in slips) if self._timing.planned else 0
        second = self._tally.clock.second(now + self._run_clock.mono)
        self._tally.add(warm=warm, second=second, sent=sent, dropped=dropped, late=late, poison=poison)
        if not events:
            return
        began = time.monotonic()
        try:
            connection.send(events, warm=warm)
        except ConnectionLostError:
            self._tally.add(warm=warm, second=second, sent=-sent, unsent=sent, late=-late, poison=-poison)
            return
        if self.spans:
            self.spans.sent([values[-1] for values, _ in events], began)
        if self._timing.planned and not warm:
            self._meter.add(Measure.SLIP, slips, second=second)
