"""An engine for a model in this process: requests wait here in order, a few of them at the consumer; nothing is kept.

It is for one event loop. What waits here can be taken back: a caller who hung up, or whose deadline has passed, costs
the model nothing. A result is forgotten once its caller has it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infertool.errors import InfertoolError
from infertool.gateway import outcomes, outgoing
from infertool.gateway.admission import Admission
from infertool.gateway.classes import Class
from infertool.gateway.drain import DrainRate
from infertool.gateway.mailbox import Mailbox
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Accepted, InferRequest, Outcome, Progress, State
from infertool.rpc import Call, Client

_LONGEST_RETRY_S: Final = 30
# Time between two looks for what has waited too long; and time for which a result that nobody fetched is kept. Seconds.
_LOOK_S: Final = 0.25
_KEEP_S: Final = 60.0
_WORKED_ON: Final = {State.SUCCEEDED, State.FAILED}
# Requests that a call waits for the broker's word of, at most: so that no call blocks.
MOST_AT_CONSUMER: Final = 400


@dataclass(slots=True, eq=False)
class _Entry:
    """A request. `ended` is done when it has ended; `at` is when it came, then when it ended.

    `at` and `expires` are monotonic: a step of the machine's time changes nothing.
    """

    request: InferRequest
    ended: asyncio.Future[None]
    at: float
    expires: float
    state: State = State.QUEUED
    outcome: Outcome | None = None


class InProcessEngine:
    """See `infertool.gateway.port.Engine`. At most `window` requests are at the consumer, and `max_queue` wait here.

    A request that would wait for longer than `queue_timeout_s` is refused; one that has waited for it expires.
    `on_end` is called with each request that has ended.
    """

    def __init__(
        self,
        client: Client,
        *,
        window: int,
        max_queue: int,
        queue_timeout_s: float,
        on_end: Callable[[InferRequest], None] = lambda _request: None,
    ) -> None:
        self._client = client
        self._window = min(window, MOST_AT_CONSUMER)
        self._max_queue = max_queue
        self._class = Class("all", 1, queue_timeout_s, 4)
        self._admission = Admission()
        self._on_end = on_end
        self._rate = DrainRate(time.monotonic)
        self._entries: dict[str, _Entry] = {}
        self._queue: deque[_Entry] = deque()
        self._at_consumer = 0
        self._loop = asyncio.get_running_loop()
        # Calls that have ended: many of them wake the loop once, and room is filled once.
        self._mailbox = Mailbox(self._fill)
        self._mailbox.open()
        self._draining = False
        self._looking = self._loop.create_task(self._look())

    @property
    def waiting(self) -> int:
        """The requests that wait here."""
        return len(self._queue)

    @property
    def unfinished(self) -> int:
        """The requests that have not ended."""
        return len(self._queue) + self._at_consumer

    def figures(self) -> dict[str, Any]:
        """Return the gauges of the metrics."""
        rate = self._rate.per_s
        wait_s = self.unfinished / rate if rate else None
        return {
            "waiting": {self._class.name: len(self._queue)},
            "in_broker": self._at_consumer,
            "predicted_wait_seconds": {self._class.name: wait_s},
            "drain_rate": rate,
        }

    async def admit(self, requests: Sequence[InferRequest]) -> None:
        """See `infertool.gateway.port.Engine`."""
        self._check(requests[0], len(requests))

    def _check(self, request: InferRequest, count: int) -> None:
        """Raise `Problem` for the first of `count` requests that are not taken."""
        if self._draining:
            raise Problem(Reason.DRAINING, "the server is stopping", retry_after_s=1)
        if count > self._max_queue + self._window:
            what = f"it has {count} events, and at most {self._max_queue} wait here"
            raise Problem(Reason.BODY_TOO_LARGE, what)
        if self.unfinished + count > self._max_queue + self._window:
            what = f"{len(self._queue)} requests wait, and {self._max_queue} are the most"
            raise Problem(Reason.FULL, what, retry_after_s=self._seconds_to_room())
        verdict = self._admission.decide(
            self._class,
            ahead=len(self._queue),
            in_broker=self._at_consumer,
            rate=self._rate.per_s,
            deadline_in_s=_allowed_s(request),
            now=time.monotonic(),
            followers=count - 1,
        )
        if verdict.problem:
            raise verdict.problem

    async def submit(self, request: InferRequest, *, is_admitted: bool = False) -> Accepted:
        """See `infertool.gateway.port.Engine`."""
        if not is_admitted:
            self._check(request, 1)
        now = time.monotonic()
        entry = _Entry(request, self._loop.create_future(), now, now + _allowed_s(request))
        self._entries[request.id] = entry
        self._queue.append(entry)
        self._fill()
        return Accepted(request.id)

    async def wait(self, request_id: str, timeout_s: float) -> Progress:
        """See `infertool.gateway.port.Engine`."""
        entry = self._entry(request_id)
        if not entry.ended.done():
            await asyncio.wait([entry.ended], timeout=timeout_s)
        return self._told(entry)

    async def progress(self, request_id: str) -> Progress:
        """See `infertool.gateway.port.Engine`."""
        return self._told(self._entry(request_id))

    async def follow(self, request_id: str) -> AsyncIterator[Progress]:
        """See `infertool.gateway.port.Engine`."""
        entry = self._entry(request_id)
        while not entry.state.is_final:
            yield self._progress(entry)
            await asyncio.wait([entry.ended], timeout=1)
        yield self._told(entry)

    async def cancel(self, request_id: str) -> Progress:
        """See `infertool.gateway.port.Engine`."""
        entry = self._entry(request_id)
        self._finish(entry, outcomes.cancelled(entry.request, "the caller has gone"))
        return self._told(entry)

    def hung_up(self, request_id: str) -> None:
        """See `infertool.gateway.port.Engine`."""
        if entry := self._entries.pop(request_id, None):
            self._finish(entry, outcomes.cancelled(entry.request, "the caller has gone"))

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing more, and wait until all has ended. Return False after `timeout_s`."""
        self._draining = True
        until = time.monotonic() + timeout_s
        while (open_ := [each.ended for each in self._entries.values() if not each.state.is_final]) and (
            left_s := until - time.monotonic()
        ) > 0:
            await asyncio.wait(open_, timeout=left_s)
        return not open_

    async def close(self) -> None:
        """End. Requests that have not ended are cancelled."""
        self._draining = True
        self._looking.cancel()
        for entry in list(self._entries.values()):
            self._finish(entry, outcomes.cancelled(entry.request, "the caller has gone"))

    def _entry(self, request_id: str) -> _Entry:
        entry = self._entries.get(request_id)
        if entry is None:
            raise Problem(Reason.UNKNOWN_REQUEST)
        return entry

    def _told(self, entry: _Entry) -> Progress:
        """Return what is known of a request; forget one that has ended."""
        if entry.state.is_final:
            self._entries.pop(entry.request.id, None)
        return self._progress(entry)

    def _progress(self, entry: _Entry) -> Progress:
        position = self._queue.index(entry) if entry.state is State.QUEUED else None
        rate = self._rate.per_s
        eta_ms = None if position is None or not rate else round((position + self._at_consumer) / rate * 1000)
        return Progress(
            request=entry.request, state=entry.state, position=position, eta_ms=eta_ms, outcome=entry.outcome
        )

    def _seconds_to_room(self) -> int | None:
        rate = self._rate.per_s
        if not rate:
            return None
        seconds = math.ceil(self.unfinished / rate)
        return max(1, seconds) if seconds <= _LONGEST_RETRY_S else None

    def _fill(self) -> None:
        """Give requests to the consumer while it has room."""
        while self._queue and self._at_consumer < self._window:
            self._start(self._queue.popleft())
        self._rate.pending(self._at_consumer, held_back=bool(self._queue))

    def _start(self, entry: _Entry) -> None:
        request, left_s = entry.request, entry.expires - time.monotonic()
        if left_s <= 0:
            self._end(entry, outcomes.expired(entry.request))
            return
        message, used = outgoing.message(request, request.queue)
        try:
            call = self._client.start(message, timeout_s=left_s, codec=used)
        except InfertoolError as error:
            self._end(entry, outcomes.failed(entry.request, error))
            return
        entry.state = State.STARTED
        self._at_consumer += 1
        # On another thread.
        call.add_done_callback(lambda call: self._mailbox.put(self._take_end, entry, call))

    def _take_end(self, entry: _Entry, call: Call) -> None:
        """Note that the consumer has no more to do with a request, which may have ended before."""
        self._at_consumer -= 1
        outcome = _outcome(call, entry.request)
        if call.reply is not None and outcome.state in _WORKED_ON:
            self._rate.completed()
        self._end(entry, outcome)

    def _finish(self, entry: _Entry, outcome: Outcome) -> None:
        """Note the end of a request, once, and let others begin."""
        self._end(entry, outcome)
        self._fill()

    def _end(self, entry: _Entry, outcome: Outcome) -> None:
        if entry.state.is_final:
            return
        # One that is at the consumer keeps its place there: another one would wait behind it, out of reach.
        if entry.state is State.QUEUED and entry in self._queue:
            self._queue.remove(entry)
        entry.state, entry.outcome, entry.at = outcome.state, outcome, time.monotonic()
        self._on_end(entry.request)
        if not entry.ended.done():
            entry.ended.set_result(None)

    async def _look(self) -> None:
        """End what has waited too long, and forget what nobody fetched."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            while self._queue and now - self._queue[0].at > self._class.budget_s:
                self._finish(self._queue[0], outcomes.expired(self._queue[0].request))
            for entry in [each for each in self._queue if each.expires <= now]:
                self._finish(entry, outcomes.expired(entry.request))
            for entry in [each for each in self._entries.values() if each.state.is_final and now - each.at > _KEEP_S]:
                del self._entries[entry.request.id]


def _outcome(call: Call, request: InferRequest) -> Outcome:
    """Return how a call ended. There is no second broker, and no second try."""
    found = outcomes.of_call(call, request)
    return found if isinstance(found, Outcome) else outcomes.failed(request, InfertoolError(found.reason))


def _allowed_s(request: InferRequest) -> float:
    return (request.deadline_ms - request.accepted_ms) / 1000
