"""Events that are requests to a gateway: sent over kept connections by one event loop, on a thread of its own.

A request has a connection to itself until its response is here (no pipelining), and latencies count from the intended
send: a request that waits for a connection waits in its latency.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final

from infertool.errors import UnreachableError
from infertool.load.headers import Envelope
from infertool.load.http_options import HttpOptions
from infertool.load.sender import BATCH, Stamped
from infertool.load.tally import Measure, Meter, RunClock, Tally
from infertool.net import retry_after
from infertool.net.http_answer import Answer
from infertool.net.http_client import ExchangeError, HttpConnection, connect, with_body
from infertool.net.http_faults import hint, wants_tls
from infertool.telemetry.trace_context import TRACEPARENT

# A connection that was idle for longer may be closed by the server just now: it is replaced. Seconds.
_IDLE_S: Final = 2.0
_MOST_BODY: Final = 64 * 1024 * 1024
_SWEEP_S: Final = 0.05
_SETTING: Final = "--http"
# A longer Retry-After is not waited for. Seconds.
LONGEST_RETRY_S: Final = 120.0
_MOST_STATUSES: Final = 100
_REASON: Final = re.compile(rb'"reason"\s*:\s*"([a-z0-9_]{1,64})"')
_OK: Final = range(200, 300)
_REFUSALS: Final[Mapping[int, str]] = {
    HTTPStatus.TOO_MANY_REQUESTS: "shed",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
}


@dataclass(slots=True)
class _Request:
    """A request under way. `due` and `deadline` are on the monotonic clock."""

    data: bytes
    due: float
    warm: bool
    is_retry: bool = False
    deadline: float = 0.0
    connection: HttpConnection | None = None
    ended: bool = False


class HttpSender:
    """Sends events as requests. See `infertool.load.sender.SendConnection`.

    `statuses` counts responses by status and reason, without the warm-up, `losses` requests without one. `on_fault` is
    called with what is wrong and what to do, if the server has answered nothing and speaks another protocol.
    """

    def __init__(
        self,
        options: HttpOptions,
        headers: Sequence[str],
        envelope: Envelope,
        tally: Tally,
        meter: Meter,
        *,
        window: int,
        on_done: Callable[[int], None],
        on_fault: Callable[[str, str], None],
    ) -> None:
        self.run_clock: RunClock | None = None
        self.statuses: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        self._options = options
        self._target = options.target()
        self._head = options.head(headers)
        self._names = envelope.variable_headers
        self._tally = tally
        self._meter = meter
        self._window = window
        self._on_done = on_done
        self._on_fault = on_fault
        self._tls = ssl.create_default_context() if self._target.scheme == "https" else None
        self._changed = threading.Condition()
        self._open = 0
        self._retrying = 0
        # The server is asked once what it speaks, after the first fault, unless it has answered before.
        self._is_asked = False
        self._asking = False
        self._unsent: Counter[str] = Counter()
        self._handed: deque[list[_Request]] = deque()
        # Of the loop alone.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loadgen-http", daemon=True)
        self._idle: list[tuple[HttpConnection, float]] = []
        self._deadlines: deque[_Request] = deque()
        self._found: list[tuple[str, _Request, float | None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self) -> None:
        """Start the loop, and open the first connection. Raises UnreachableError."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft < self._window * 2 else soft, hard))
        self._thread.start()
        first = asyncio.run_coroutine_threadsafe(self._connected(), self._loop)
        try:
            connection = first.result()
        except ExchangeError as error:
            what, advice = hint(error, self._target.shown, _SETTING) or (
                str(error), "is the gateway up? Start it with: infertool gateway",
            )  # fmt: skip
            raise UnreachableError(what, address=self._target.shown, advice=advice) from None
        self._loop.call_soon_threadsafe(self._idle.append, (connection, time.monotonic()))
        self._loop.call_soon_threadsafe(self._sweep)

    def close(self) -> None:
        """Close the connections and end the loop."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join()
        self._loop.close()

    def room(self, timeout_s: float) -> int:
        """See `SendConnection`."""
        with self._changed:
            self._changed.wait_for(lambda: self._open < self._window, timeout_s)
            return min(BATCH, self._window - self._open)

    def send(self, events: Sequence[Stamped], *, warm: bool) -> None:
        """See `SendConnection`."""
        requests = [self._request(values, body, warm=warm) for values, body in events]
        with self._changed:
            self._open += len(requests)
        self._handed.append(requests)
        self._loop.call_soon_threadsafe(self._begin_handed)

    def finish(self, timeout_s: float) -> None:  # noqa: ARG002  (each request ends at its own deadline)
        """See `SendConnection`. It waits for requests that are to be sent again, too."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open and not self._retrying and not self._asking)

    def refusals(self) -> Mapping[str, int]:
        """See `SendConnection`."""
        with self._changed:
            return dict(self._unsent)

    def _request(self, values: Sequence[str], body: bytes, *, warm: bool) -> _Request:
        texts = dict(zip(self._names, values, strict=True))
        known = self.run_clock.read(texts["event_id"]) if self.run_clock else None
        due = self.run_clock.mono + known[1] if self.run_clock and known else time.monotonic()
        own = f"X-Request-Id: {texts['event_id']}\r\n"
        if TRACEPARENT in texts:
            own += f"{TRACEPARENT}: {texts[TRACEPARENT]}\r\n"
        return _Request(with_body(self._head + own.encode(), body), due, warm)

    def _begin_handed(self) -> None:
        while self._handed:
            for request in self._handed.popleft():
                self._begin(request)

    def _begin(self, request: _Request) -> None:
        now = time.monotonic()
        request.deadline = now + self._options.timeout_s
        self._deadlines.append(request)
        while self._idle:
            connection, since = self._idle.pop()
            if connection.free and now - since < _IDLE_S:
                self._send(connection, request)
                return
            connection.abort()
        task = self._loop.create_task(self._connect_and_send(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self) -> HttpConnection:
        return await connect(self._target, max_body=_MOST_BODY, tls=self._tls)

    async def _connect_and_send(self, request: _Request) -> None:
        try:
            connection = await self._connected()
        except ExchangeError as error:
            self._answered(request, error)
            return
        if request.ended:
            self._idle.append((connection, time.monotonic()))
        else:
            self._send(connection, request)

    def _send(self, connection: HttpConnection, request: _Request) -> None:
        request.connection = connection
        connection.send(request.data, partial(self._answered, request))

    def _answered(self, request: _Request, answer: Answer | ExchangeError) -> None:
        if request.ended:
            return
        request.ended = True
        now = time.monotonic()
        if isinstance(answer, ExchangeError):
            self._ask(partial(hint, answer, self._target.shown, _SETTING))
            if not request.is_retry and not request.warm:
                (self.losses if answer.connected else self._unsent)[str(answer)] += 1
            self._note("lost" if answer.connected else "unsent", request)
            return
        if answer.status == HTTPStatus.BAD_REQUEST:
            self._ask(partial(wants_tls, self._target.shown, _SETTING))
        self._is_asked = True
        if request.connection and request.connection.free:
            self._idle.append((request.connection, now))
        if not request.warm and not request.is_retry:
            self._count_status(answer)
        if answer.status in _OK:
            self._note("results", request, now - request.due)
        else:
            self._note(_REFUSALS.get(answer.status, "failures"), request)
            self._obey(request, answer)

    def _ask(self, question: Callable[[], tuple[str, str] | None]) -> None:
        """Ask the server what it speaks, beside the loop."""
        if self._is_asked:
            return
        self._is_asked = self._asking = True

        async def ask() -> None:
            if instead := await asyncio.to_thread(question):
                self._on_fault(*instead)
            with self._changed:
                self._asking = False
                self._changed.notify_all()

        task = self._loop.create_task(ask())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count_status(self, answer: Answer) -> None:
        reason = None if answer.status in _OK else _REASON.search(answer.body[:4096])
        text = f"{answer.status} {reason[1].decode()}" if reason else str(answer.status)
        self.statuses[text if text in self.statuses or len(self.statuses) < _MOST_STATUSES else "others"] += 1

    def _obey(self, request: _Request, answer: Answer) -> None:
        """Come back once, at the told time."""
        if not self._options.obeys or request.is_retry or answer.status not in _REFUSALS:
            return
        wait_s = retry_after.seconds(answer.header("retry-after"))
        if wait_s is None or wait_s > LONGEST_RETRY_S:
            return
        with self._changed:
            self._retrying += 1
        self._loop.call_later(wait_s, self._begin, _Request(request.data, request.due, request.warm, is_retry=True))

    def _sweep(self) -> None:
        """End requests whose time is over."""
        now = time.monotonic()
        while self._deadlines and (self._deadlines[0].ended or self._deadlines[0].deadline <= now):
            request = self._deadlines.popleft()
            if not request.ended:
                request.ended = True
                self._ask(partial(hint, TimeoutError(), self._target.shown, _SETTING))
                self._note("timed_out", request)
                if request.connection:
                    request.connection.abort()
        self._loop.call_later(_SWEEP_S, self._sweep)

    def _note(self, name: str, request: _Request, latency_s: float | None = None) -> None:
        """Count the end of a request, together with the others of this turn of the loop."""
        if not self._found:
            self._loop.call_soon(self._flush)
        self._found.append((name, request, latency_s))

    def _flush(self) -> None:
        found, self._found = self._found, []
        second = self._tally.clock.second()
        counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        latencies: list[float] = []
        for name, request, latency_s in found:
            if request.is_retry:
                counts[request.warm].update(retried=1, retry_served=name == "results")
            elif name == "unsent":
                counts[request.warm].update(sent=-1, unsent=1)
            else:
                counts[request.warm][name] += 1
                if latency_s is not None and not request.warm:
                    latencies.append(latency_s)
        for warm, sums in counts.items():
            if sums:
                self._tally.add(warm=warm, second=second, **sums)
        self._meter.add(Measure.HTTP, latencies, second=second)
        again = sum(request.is_retry for _, request, _ in found)
        with self._changed:
            self._open -= len(found) - again
            self._retrying -= again
            self._changed.notify_all()
        self._on_done(len(found) - again)

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for request in self._deadlines:
            if request.connection:
                request.connection.abort()
        for connection, _ in self._idle:
            connection.abort()
        # The loop runs what these have begun before it ends.
        self._loop.call_later(_SWEEP_S, self._loop.stop)
