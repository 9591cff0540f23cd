"""What goes to the broker, and when: the queues of the models, and the broker's connection.

While the broker is away, or has no queue of that name, requests are held: they are sent when it is back. An outage is
taken to last as long again as it has lasted: a new request that cannot wait for that, by its deadline or by its class's
budget, is refused (`BROKER_AWAY`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from typing import Final

from infertool.gateway.classes import Class
from infertool.gateway.dispatch import Dispatcher
from infertool.gateway.held import Held
from infertool.gateway.mailbox import Mailbox
from infertool.gateway.model_queue import ModelQueue
from infertool.gateway.outcomes import Unsent
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import InferRequest, Outcome, State
from infertool.settings.broker import BrokerSettings

_AGAIN_S: Final = 0.1
_LONGEST_RETRY_S: Final = 30
_WORKED_ON: Final = {State.SUCCEEDED, State.FAILED}


class Scheduler:
    """For the loop's thread. `on_end` gets requests with their outcomes; those that had ended are counted here.

    Raises `SettingsError` and `UsageError` for a broker that none can be.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        classes: Mapping[str, Class],
        ahead_s: float,
        mailbox: Mailbox,
        on_end: Callable[[Held, Outcome], None],
    ) -> None:
        self._classes = classes
        self._ahead_s = ahead_s
        self._mailbox = mailbox
        self._on_end = on_end
        self.dispatcher = Dispatcher(broker, self)
        self.queues: dict[str, ModelQueue] = {}
        # Results that came for requests that had ended, and requests that were sent again, by reason.
        self.counts: Counter[str] = Counter()
        self._held: dict[str, Held] = {}
        self._changed: set[str] = set()
        self._away_since: float | None = time.monotonic()
        self._again: asyncio.TimerHandle | None = None
        self.is_closed = False

    @property
    def waiting(self) -> int:
        """The requests that wait here."""
        return sum(map(len, self.queues.values()))

    def queue_of(self, request: InferRequest) -> ModelQueue:
        """Return the queue of a request."""
        found = self.queues.get(request.queue)
        if found is None:
            found = ModelQueue(request.queue, self._classes, self._ahead_s, time.monotonic)
            self.queues[request.queue] = found
        return found

    def refusal(self, request: InferRequest, left_s: float, followers: int) -> Problem | None:
        """Return why a new request is refused, or None. `followers`: see `Admission.decide`."""
        queue = self.queue_of(request)
        since = self._away_since if self._away_since is not None else queue.missing_since
        outage_s = time.monotonic() - since if since is not None else 0.0
        if outage_s > min(left_s, self._classes[request.class_name].budget_s):
            # Not the dispatcher's reason: callers are not told of addresses and logins.
            is_away = self._away_since is not None
            detail = "the gateway is not connected to it" if is_away else f"the broker has no queue {queue.name}"
            return Problem(Reason.BROKER_AWAY, detail, retry_after_s=min(_LONGEST_RETRY_S, ceil(outage_s)))
        return queue.decide(request, left_s, followers).problem

    def push(self, held: Held) -> None:
        """Have a request wait for its turn."""
        self._held[held.request.id] = held
        self.queue_of(held.request).push(held.request)
        self._changed.add(held.request.queue)

    def remove(self, held: Held) -> None:
        """Take a request out that has ended; one that is with the broker stays there."""
        self._held.pop(held.request.id, None)
        self.queue_of(held.request).remove(held.request.id)
        self._changed.add(held.request.queue)

    def place(self, held: Held) -> tuple[int | None, int | None]:
        """Return the position of a request, and the time until its end in milliseconds, where they are known."""
        queue = self.queue_of(held.request)
        position = queue.position(held.request.id)
        return position, None if position is None else queue.eta_ms(held.request.id)

    def pump(self) -> None:
        """Send what may be sent, of the queues where something has changed."""
        changed, self._changed = self._changed, set()
        can_send = not self.is_closed and self._away_since is None and self._again is None
        for name in changed:
            queue = self.queues[name]
            batch: list[Held] = []
            for request_id in queue.take() if can_send else ():
                held = self._held.pop(request_id)
                held.priority = queue.priority(held.request.class_name)
                held.change(State.STARTED)
                batch.append(held)
            queue.settle()
            if batch:
                self.dispatcher.send(batch)

    def tick(self) -> None:
        """Look at all again, once a second: the rates have changed, and what was missing may be there."""
        self._look()
        self._changed.update(self.queues)
        self.pump()

    def call_ended(self, held: Held, end: Outcome | Unsent | None, *, is_answered: bool = False) -> None:
        """See `dispatch.Listener`."""
        self._mailbox.put(partial(self._ended, held, end, is_answered=is_answered))

    def call_confirmed(self, held: Held) -> None:
        """See `dispatch.Listener`."""
        self._mailbox.put(self._confirmed, held)

    def connection_changed(self) -> None:
        """See `dispatch.Listener`."""
        self._mailbox.put(self._look)

    def _confirmed(self, held: Held) -> None:
        queue = self.queue_of(held.request)
        if queue.missing_since is not None:
            queue.missing_since = None
            self._changed.add(queue.name)
        held.was_unsent = False
        held.accept()

    def _ended(self, held: Held, end: Outcome | Unsent | None, *, is_answered: bool) -> None:
        queue = self.queue_of(held.request)
        self._changed.add(queue.name)
        outcome = end if isinstance(end, Outcome) else None
        # Not what has expired before the model, and not what the broker refused.
        is_worked_on = is_answered and outcome is not None and outcome.state in _WORKED_ON
        queue.returned(
            held.request.class_name,
            held.priority,
            processing_ms=outcome.processing_ms if outcome else None,
            is_finished=is_worked_on,
        )
        if held.outcome is not None:
            if is_worked_on:
                self.counts["dropped_results"] += 1
        elif outcome is not None:
            self._on_end(held, outcome)
        else:
            self._wait_again(held, queue, end if isinstance(end, Unsent) else None)

    def _wait_again(self, held: Held, queue: ModelQueue, unsent: Unsent | None) -> None:
        """Have a request wait that the broker did not get, or lost."""
        self._held[held.request.id] = held
        queue.push_again(held.request.id)
        held.change(State.QUEUED)
        # It is in the store, and has its place here.
        held.accept()
        if unsent is None:
            return
        self.counts["sent_again"] += 1
        held.was_unsent = True
        if unsent.is_unroutable:
            # Tried once a second, with one request.
            queue.missing_since = queue.missing_since or time.monotonic()
            self._changed.discard(queue.name)
        elif self._again is None:
            # A loss shows in calls before the connection tells of it.
            self._again = asyncio.get_running_loop().call_later(_AGAIN_S, self._send_again)

    def _send_again(self) -> None:
        self._again = None
        self.tick()

    def _look(self) -> None:
        """Look whether there is a connection."""
        if not self.dispatcher.connected:
            self._away_since = self._away_since if self._away_since is not None else time.monotonic()
        elif self._away_since is not None:
            self._away_since = None
            self._changed.update(self.queues)
