"""The engine: holds requests in the store and in its queues, gives them to the broker, and keeps their outcomes.

A request is accepted once it is committed to the store, and the broker has confirmed it or it has a place in the
gateway's own queue. What the broker does not confirm within some seconds is accepted as well: the gateway holds it, and
sends it again. After a restart all that has not ended is sent again with the same id.

An outcome is told at once and stored right after: if the process dies in between, the request runs again. Only `cancel`
returns after its outcome is stored: nothing runs again that was given up.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from infertool.gateway import outcomes, webhook_rows
from infertool.gateway import request_rows as rows
from infertool.gateway.classes import Class
from infertool.gateway.database import Database
from infertool.gateway.held import Held
from infertool.gateway.holdings import Holdings
from infertool.gateway.ids import Ids, draw_name, made_ms, owner_of
from infertool.gateway.mailbox import Mailbox
from infertool.gateway.model_queue import ModelQueue
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Accepted, InferRequest, Outcome, Progress, State
from infertool.gateway.result_cache import ResultCache
from infertool.gateway.saving import Saving
from infertool.gateway.scheduler import Scheduler
from infertool.gateway.store import Store
from infertool.settings.broker import BrokerSettings
from infertool.settings.tree import GatewaySettings
from infertool.telemetry.health import Condition
from infertool.text.input import parse_capacity

_TICK_S: Final = 1.0
_FOLLOW_S: Final = 1.0
# Longest wait of a caller for the store, and for the broker's confirmation. Seconds.
_STORE_S: Final = 10.0
_CONFIRMED_S: Final = 5.0


class Engine:
    """See `infertool.gateway.port.Engine`. `on_outcome` is called at the end of each request, on the loop.

    The store is in `folder`; `queues` are those of the models, for requests of an earlier process. Raises `StoreError`
    and `SettingsError`, `UsageError` for what no broker can be.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        broker: BrokerSettings,
        classes: Mapping[str, Class],
        folder: Path,
        queues: Mapping[str, str],
    ) -> None:
        if settings.name:
            Ids(settings.name)
        self._settings = settings
        self._classes = classes
        self._queues = queues
        self._mailbox = Mailbox(self._after)
        self._scheduler = Scheduler(broker, classes, settings.dispatch_ahead_s, self._mailbox, self._end)
        self._store = Store(folder, (*rows.TABLES, webhook_rows.TABLE))
        self._ids = Ids(settings.name or self._store.call(partial(rows.keep_name, drawn=draw_name())))
        self.database = Database(self._store, self._mailbox)
        self._cache = ResultCache(*parse_capacity(settings.cache)) if settings.cache else None
        self._saving = Saving(self.database, settings.keep_s, self._release)
        self._holdings = Holdings(settings, self._saving, self._cache)
        self.new_id = self._ids.new
        self.name = self._ids.name
        self.draining = False
        self.refused: Counter[str] = Counter()
        # Stored a moment ago; those whose callers wait for the acceptance.
        self._new: list[Held] = []
        self._accepting: dict[str, Held] = {}
        self._ticking: asyncio.TimerHandle | None = None

    @property
    def on_outcome(self) -> Callable[[Progress], None] | None:
        """What is called at the end of each request, on the loop."""
        return self._holdings.on_outcome

    @on_outcome.setter
    def on_outcome(self, hook: Callable[[Progress], None] | None) -> None:
        self._holdings.on_outcome = hook

    async def start(self) -> None:
        """Take up what has not ended, and begin to connect. On the loop that the engine is for."""
        self._loop = asyncio.get_running_loop()
        self._mailbox.open()
        for request in await self.database.read(lambda connection: list(rows.unfinished(connection))):
            self._resume(request)
        for told in await self.database.read(rows.untold):
            self._holdings.tell(told)
        self._scheduler.dispatcher.start()
        self._tick()
        self._after()

    # -- the port ------------------------------------------------------------------------------------------------

    async def admit(self, requests: Sequence[InferRequest]) -> None:
        """See `infertool.gateway.port.Engine`."""
        cached = sum(self._cache.knows(each) for each in requests) if self._cache else 0
        if problem := self._refusal(requests[0], count=len(requests), inferences=len(requests) - cached):
            await self._known(requests[0], problem)

    async def submit(self, request: InferRequest, *, is_admitted: bool = False) -> Accepted:
        """See `infertool.gateway.port.Engine`."""
        known_result = self._cache.find(request) if self._cache else None
        if problem := self._refusal(request, inferences=0 if is_admitted or known_result else 1):
            return await self._known(request, problem)
        held = self._holdings.hold(request, (request.deadline_ms - request.accepted_ms) / 1000)
        accepted: asyncio.Future[Accepted] = self._loop.create_future()
        held.accepted = accepted
        held.known = known_result
        self._accepting[request.id] = held
        self._scheduler.queue_of(request).arrives(request)
        self.database.begin(partial(rows.insert, request=request), partial(self._inserted, held))
        try:
            return await accepted
        except asyncio.CancelledError:
            if not held.is_stored:
                held.is_unwanted = _is_for_caller_only(request)
            else:
                self.hung_up(request.id)
            raise
        finally:
            del self._accepting[request.id]

    async def wait(self, request_id: str, timeout_s: float) -> Progress:
        """See `infertool.gateway.port.Engine`."""
        held = self._holdings.find(request_id)
        if held is None:
            return await self.progress(request_id)
        await held.end(timeout_s)
        return self._progress(held)

    async def progress(self, request_id: str) -> Progress:
        """See `infertool.gateway.port.Engine`."""
        held = self._holdings.find(request_id)
        if held is not None:
            return self._progress(held)
        found = await self.database.read(partial(rows.find, request_id=request_id))
        if found is not None:
            return found
        if owner_of(request_id) == self.name:
            age_ms = outcomes.now_ms() - made_ms(request_id)
            if age_ms > self._settings.keep_s * 1000:
                raise Problem(Reason.GONE)
        raise Problem(Reason.UNKNOWN_REQUEST)

    async def follow(self, request_id: str) -> AsyncIterator[Progress]:
        """See `infertool.gateway.port.Engine`."""
        held = self._holdings.find(request_id)
        if held is None:
            yield await self.progress(request_id)
            return
        while True:
            told = held.state
            yield self._progress(held)
            if told.is_final:
                return
            if held.state is told:
                # In the queue, the position is told again.
                await held.next_change(_FOLLOW_S if told is State.QUEUED else None)

    async def cancel(self, request_id: str) -> Progress:
        """See `infertool.gateway.port.Engine`."""
        held = self._holdings.find(request_id)
        if held is None:
            return await self.progress(request_id)
        self._end(held, outcomes.cancelled(held.request, "the caller gave the request up"))
        self._after()
        try:
            # Else a process that dies now would run it after its next start, though the caller was told.
            async with asyncio.timeout(_STORE_S):
                await self._saving.stored(request_id)
        except TimeoutError:
            raise Problem(Reason.STORE_AWAY, "the store does not answer", retry_after_s=1) from None
        return self._progress(held)

    def hung_up(self, request_id: str) -> None:
        """See `infertool.gateway.port.Engine`."""
        held = self._holdings.find(request_id)
        if held is not None and _is_for_caller_only(held.request):
            self._end(held, outcomes.cancelled(held.request, "the caller has gone"))
            self._after()

    # -- operation -----------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests; wait until all have ended, or for `timeout_s`. Return True if they have."""
        self.draining = True
        return await self._holdings.none_left(timeout_s)

    async def close(self) -> None:
        """End; what has not ended stays in the store."""
        self.draining = self._scheduler.is_closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._scheduler.dispatcher.close)
        if self._ticking:
            self._ticking.cancel()
        self._holdings.stop_timers()
        self._saving.close()
        await self.database.close()

    def owner_of(self, request_id: str) -> str | None:
        """Return the name of the gateway that holds a request; None for what is no id."""
        return owner_of(request_id)

    def unfinished(self) -> list[InferRequest]:
        """Return the requests that have not ended."""
        return self._holdings.open_requests()

    def health(self) -> list[Condition]:
        """Return the conditions under which requests are taken."""
        dispatcher, failure = self._scheduler.dispatcher, self._store.failure
        return [
            Condition("broker", ok=dispatcher.connected, value=dispatcher.state),
            Condition("store", ok=not failure, value=failure or "can be written"),
            Condition("stopping", ok=not self.draining, value="yes" if self.draining else "no"),
        ]

    def figures(self) -> dict[str, Any]:
        """Return what metrics show: numbers, or numbers by the value of a label."""
        queues = self._scheduler.queues.values()
        return {
            "unfinished": self._holdings.unfinished,
            "held_bytes": self._holdings.bytes,
            "waiting": {name: sum(queue.waiting(name) for queue in queues) for name in self._classes},
            "at_broker": {queue.name: queue.at_broker for queue in queues},
            "broker_limit": {queue.name: queue.limit for queue in queues},
            "predicted_wait_seconds": {name: _longest(queues, name) for name in self._classes},
            "drain_per_s": {queue.name: queue.per_s or 0.0 for queue in queues},
            "ended": dict(self._holdings.ended),
            "engine_refused": dict(self.refused),
            "replies_dropped": {
                **self._scheduler.dispatcher.counts, "ended": self._scheduler.counts["dropped_results"],
            },
            "cache": {"hit": self._cache.hits, "miss": self._cache.misses} if self._cache else {},
            "sent_again": self._scheduler.counts["sent_again"],
            "store_bytes": self._store.size_bytes,
            "store_failing": int(bool(self._store.failure)),
        }  # fmt: skip

    # -- acceptance ----------------------------------------------------------------------------------------------

    async def _known(self, request: InferRequest, problem: Problem) -> Accepted:
        """Return what the idempotency key of a request stands for. Raises `problem` if it is new, or has none."""
        if request.idempotency_key:
            known = await self.database.read(partial(rows.find_key, request=request))
            if isinstance(known, Accepted):
                return known
            problem = known or problem
        self.refused[problem.reason.name.lower()] += 1
        raise problem

    def _refusal(self, request: InferRequest, *, inferences: int, count: int = 1) -> Problem | None:
        """Return why a request is refused, or None. It is the first of `count`, which need so many inferences."""
        if self.draining:
            return Problem(Reason.DRAINING, retry_after_s=1)
        if request.class_name not in self._classes:
            return Problem(Reason.UNKNOWN_CLASS)
        if not self._holdings.has_room(request, count):
            return Problem(Reason.FULL, retry_after_s=self._retry_when_full(request))
        if not inferences:
            return None
        return self._scheduler.refusal(request, (request.deadline_ms - request.accepted_ms) / 1000, inferences - 1)

    def _retry_when_full(self, request: InferRequest) -> int | None:
        """Return the seconds in which a hundredth of what is held will have ended, where that is known."""
        rate = self._scheduler.queue_of(request).per_s
        return max(1, min(30, round(len(self._holdings) / 100 / rate))) if rate else None

    def _inserted(self, held: Held, result: Accepted | Problem) -> None:
        """Take the store's word for a new request."""
        request = held.request
        self._scheduler.queue_of(request).arrived(request)
        if isinstance(result, Problem) or result.replayed:
            self._holdings.drop(held)
            if isinstance(result, Problem):
                self.refused[result.reason.name.lower()] += 1
                held.refuse(result)
            else:
                held.accept(result)
            return
        held.is_stored = True
        if held.known is not None:
            self._end(held, replace(held.known, finished_ms=outcomes.now_ms()))
        elif held.outcome is None:
            self._enqueue(held)
        if held.is_unwanted:
            self._end(held, outcomes.cancelled(request, "the caller has gone"))

    def _enqueue(self, held: Held) -> None:
        left_s = max(0.0, held.expires - time.monotonic())
        held.timer = self._loop.call_later(left_s, self._expire, held)
        self._scheduler.push(held)
        self._new.append(held)

    def _resume(self, request: InferRequest) -> None:
        """Take up a request of an earlier process."""
        if request.class_name not in self._classes:
            request = replace(request, class_name=self._settings.default_class)
        # Its model may have another queue now, and the broker may be another one.
        request = replace(request, queue=self._queues.get(request.model, request.queue))
        held = self._holdings.hold(request, (request.deadline_ms - outcomes.now_ms()) / 1000)
        held.is_stored = True
        self._enqueue(held)

    # -- ends ----------------------------------------------------------------------------------------------------

    def _expire(self, held: Held) -> None:
        self._end(held, outcomes.expired(held.request))
        self._after()

    def _release(self, request_id: str) -> None:
        self._holdings.release(request_id)

    def _end(self, held: Held, outcome: Outcome) -> None:
        """End a request, once."""
        if self._holdings.end(held, outcome):
            self._scheduler.remove(held)

    # -- what is done after events, and from time to time --------------------------------------------------------

    def _after(self) -> None:
        """Send what may be sent, accept what waits in the queue, store what has ended: after each group of events."""
        self._scheduler.pump()
        new, self._new = self._new, []
        for held in new:
            if held.state is State.QUEUED:
                held.accept()
        self._saving.save()

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(_TICK_S, self._tick)
        self._scheduler.tick()
        now = time.monotonic()
        for held in [*self._accepting.values()]:
            self._hurry(held, now)
        self._saving.purge()

    def _hurry(self, held: Held, now: float) -> None:
        """End the wait of a caller whom the store or the broker keeps waiting."""
        if not held.is_stored and now - held.began > _STORE_S:
            held.is_unwanted = not held.request.idempotency_key
            held.refuse(Problem(Reason.STORE_AWAY, "the store does not answer", retry_after_s=1))
        elif held.is_stored and now - held.began > _CONFIRMED_S:
            held.accept()

    def _progress(self, held: Held) -> Progress:
        if held.state is State.QUEUED:
            return held.progress(*self._scheduler.place(held))
        return held.progress()


def _is_for_caller_only(request: InferRequest) -> bool:
    """Return True if nobody but the caller who waits can get the outcome."""
    return not request.idempotency_key and not request.webhook


def _longest(queues: Iterable[ModelQueue], class_name: str) -> float | None:
    """Return the longest wait that a new request of a class would have; None where no rate is known."""
    waits = (queue.predicted_wait_s(class_name) for queue in queues)
    return max((wait_s for wait_s in waits if wait_s is not None), default=None)
