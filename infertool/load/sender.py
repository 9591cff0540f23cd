"""Sends events that are due, counts what became of each, and measures how late it was."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infertool.errors import ConnectionLostError
from infertool.load.connections import BATCH, SendConnection
from infertool.load.headers import Envelope
from infertool.load.payloads import Payloads
from infertool.load.run_clock import RunClock
from infertool.load.tally import Measure, Meter, Tally

# An event sent later than this after its time counts as late.
LATE_S: Final = 0.01
# How long one wait for a connection that takes nothing lasts: in between, what becomes due is noted.
_WAIT_S: Final = 0.02

Due = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Timing:
    """What counts when: the warm-up is not counted, what is later than `max_late_s` is dropped.

    Unless it is `planned`, as a closed model is not, nothing is late, and there is no slip.
    """

    warmup_s: float = 0.0
    max_late_s: float = math.inf
    planned: bool = True


class Sender:
    """Takes events (number, due seconds after the begin) off a backlog. Belongs to one thread."""

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
        # Seconds in which there was something to send and no connection took it.
        self.blocked_s = 0.0

    def now(self) -> float:
        """Return the seconds since the begin."""
        return time.monotonic() - self._run_clock.mono

    def send_some(self, backlog: deque[Due]) -> None:
        """Send a batch off the backlog's head, or find that nothing takes it just now."""
        connection, room = self._connection()
        if room == 0:
            return
        warm = backlog[0][1] < self._timing.warmup_s
        batch: list[Due] = []
        while backlog and len(batch) < room and (backlog[0][1] < self._timing.warmup_s) == warm:
            batch.append(backlog.popleft())
        # Made also for what will not be sent, so that one seed gives each event the same body in every run.
        made = [self._payloads.make(number) for number, _ in batch]
        if connection is None:
            self._tally.add(warm=warm, unsent=len(batch))
            return
        self._send(connection, batch, made, warm=warm)

    def _connection(self) -> tuple[SendConnection | None, int]:
        """Return the next connection that takes events, and how many; None when there is no connection at all."""
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
        # No more than was waited: this process may have been stopped meanwhile, which is not the broker's doing.
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
        try:
            connection.send(events, warm=warm)
        except ConnectionLostError:
            self._tally.add(warm=warm, second=second, sent=-sent, unsent=sent, late=-late, poison=-poison)
            return
        if self._timing.planned and not warm:
            self._meter.add(Measure.SLIP, slips, second=second)
