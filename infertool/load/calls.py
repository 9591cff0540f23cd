"""Events that are requests: each is a call, whose latency counts from the intended send to the reply."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from infertool.brokers.headers import with_texts
from infertool.errors import CallTimeoutError, ConnectionLostError, RefusedError, RemoteFailureError
from infertool.load.headers import Envelope
from infertool.load.sender import BATCH, Stamped
from infertool.load.tally import Measure, Meter, RunClock, Tally
from infertool.rpc import Client, Reply


class CallConnection:
    """Sends each event as a request. See `infertool.load.sender.SendConnection`.

    `results` count replies, `failures` those that are failures; only replies that are none have a latency: a server
    that fails at once would look quick. What is neither, and did not time out, was lost with its connection.
    """

    def __init__(
        self,
        client: Client,
        envelope: Envelope,
        tally: Tally,
        meter: Meter,
        *,
        timeout_s: float,
        on_done: Callable[[int], None],
    ) -> None:
        self.run_clock: RunClock | None = None
        self._client = client
        self._envelope = envelope
        self._tally = tally
        self._meter = meter
        self._timeout_s = timeout_s
        self._on_done = on_done
        self._refused: Counter[str] = Counter()
        self._open = 0
        self._changed = threading.Condition()

    def room(self, timeout_s: float) -> int:
        """See `SendConnection`."""
        if not self._client.connected:
            raise ConnectionLostError(f"there is no connection to {self._client.address}", address=self._client.address)
        return BATCH if self._client.wait_for_room(timeout_s) else 0

    def send(self, events: Sequence[Stamped], *, warm: bool) -> None:
        """See `SendConnection`."""
        template, names = self._envelope.template, self._envelope.variable_headers
        for values, body in events:
            texts = dict(zip(names, values, strict=True))
            with self._changed:
                self._open += 1
            call = self._client.start(with_texts(template, texts, body), timeout_s=self._timeout_s)
            call.add_done_callback(partial(self._ended, self._due(texts["event_id"]), warm))

    def finish(self, timeout_s: float) -> None:
        """See `SendConnection`. Each call ends at its own deadline."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open, self._timeout_s + timeout_s)
        self._tally.add(duplicates=self._client.counts.duplicates)

    def refusals(self) -> Mapping[str, int]:
        """See `SendConnection`."""
        with self._changed:
            return dict(self._refused)

    def _due(self, event_id: str) -> float:
        """Return when an event was to be sent, on the monotonic clock."""
        known = self.run_clock.read(event_id) if self.run_clock else None
        return self.run_clock.mono + known[1] if self.run_clock and known else time.monotonic()

    def _ended(self, due: float, warm: bool, call: Future[Reply]) -> None:  # noqa: FBT001  # a partial's
        now = time.monotonic()
        second = self._tally.clock.second(now)
        match call.exception():
            case None:
                self._tally.add(warm=warm, second=second, results=1)
                if not warm:
                    self._meter.add(Measure.REPLY, [now - due], second=second)
            case RemoteFailureError():
                self._tally.add(warm=warm, second=second, failures=1)
            case CallTimeoutError():
                self._tally.add(warm=warm, second=second, timed_out=1)
            case RefusedError() as refusal:
                self._tally.add(warm=warm, second=second, sent=-1, unsent=1)
                with self._changed:
                    self._refused[refusal.reason] += 1
        with self._changed:
            self._open -= 1
            self._changed.notify_all()
        self._on_done(1)
