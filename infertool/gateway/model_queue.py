"""The requests of one queue of the broker: those that wait here, and how many the broker may hold meanwhile.

The broker holds what its consumers finish in `ahead_s`, and what they work on: rate x (ahead_s + time of an inference).
The rest waits here, where a later urgent request still overtakes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import Final

from infertool.gateway.admission import Admission, Asking, Verdict
from infertool.gateway.classes import Class
from infertool.gateway.drain import DrainRate
from infertool.gateway.fair_queue import FairQueue
from infertool.gateway.request import InferRequest

# What the broker may hold whatever the rate is: consumers take several at a time, and there is no rate at first.
LEAST_AT_BROKER: Final = 32
_WEIGHT: Final = 0.1


class ModelQueue:
    """For one thread. `clock` is monotonic. `at_broker`: requests whose calls have not ended."""

    def __init__(self, name: str, classes: Mapping[str, Class], ahead_s: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.at_broker = 0
        # Since when the broker has no such queue; None while it has, or is away itself.
        self.missing_since: float | None = None
        self._classes = classes
        self._ahead_s = ahead_s
        self._clock = clock
        self._waiting = FairQueue(classes)
        # Those that were with the broker, and are again to be sent: they have had their turn.
        self._again: dict[str, None] = {}
        # Those on their way into the store, by class: they wait, too.
        self._arriving: Counter[str] = Counter()
        self._lowest = min(each.priority for each in classes.values())
        # Those with the lowest priority at the broker, by class.
        self._low: Counter[str] = Counter()
        self._drain = DrainRate(clock)
        self._admission = Admission()
        self._inference_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    @property
    def per_s(self) -> float | None:
        """The requests that finish in a second, while there is work; None where unknown."""
        return self._drain.per_s

    @property
    def limit(self) -> int:
        """The number of requests that the broker may hold. One, to try, while it has no such queue."""
        if self.missing_since is not None:
            return 1
        return max(LEAST_AT_BROKER, ceil((self.per_s or 0.0) * (self._ahead_s + self._inference_s)))

    def waiting(self, class_name: str) -> int:
        """Return the requests of a class that wait."""
        return self._waiting.waiting(class_name)

    def decide(self, request: InferRequest, deadline_in_s: float, followers: int = 0) -> Verdict:
        """Return the verdict on a new request. `followers`: see `Admission.decide`."""
        class_name, client = request.class_name, request.client
        before = len(self._again) + self._arriving[class_name]
        class_, rate, now = self._classes[class_name], self.per_s, self._clock()
        if not self._waiting and not followers:
            verdict = self._admission.decide_easily(
                class_, in_broker=before + self.at_broker, rate=rate, deadline_in_s=deadline_in_s, now=now
            )
            if verdict:
                return verdict
        of_class = self._waiting.waiting(class_name)
        asking = Asking(
            client=client,
            key=request.idempotency_key or request.fingerprint or None,
            is_unique=bool(request.idempotency_key),
            ahead=self._waiting.ahead(class_name, client) + before,
            own_part=self._waiting.waiting(class_name, client) / of_class if of_class else 0.0,
            class_share=self._waiting.share(class_name),
            turn_part=self._waiting.client_part(class_name, client),
        )
        return self._admission.decide(
            class_,
            ahead=self._waiting.ahead(class_name) + before,
            in_broker=self.at_broker,
            rate=rate,
            deadline_in_s=deadline_in_s,
            now=now,
            followers=followers,
            asking=asking,
        )

    def predicted_wait_s(self, class_name: str) -> float | None:
        """Return how long a new request of a class would wait; None where the rate is unknown."""
        work, rate = self._waiting.ahead(class_name) + len(self._again) + self.at_broker, self.per_s
        return work / rate if rate else None

    def arrives(self, request: InferRequest) -> None:
        """Count a request that is on its way into the store."""
        self._arriving[request.class_name] += 1

    def arrived(self, request: InferRequest) -> None:
        """End what `arrives` began."""
        self._arriving[request.class_name] -= 1

    def push(self, request: InferRequest) -> None:
        """Have a request wait."""
        self._waiting.push(request.id, request.class_name, request.client, len(request.body))

    def push_again(self, request_id: str) -> None:
        """Have a request wait that the broker did not get, or lost: it is the next."""
        self._again[request_id] = None

    def take(self) -> Iterator[str]:
        """Take the next requests, which go to the broker, one by one while there is room."""
        limit = self.limit if self else 0
        while self.at_broker < limit and (request_id := self._next()) is not None:
            yield request_id

    def _next(self) -> str | None:
        if self._again:
            request_id: str | None = next(iter(self._again))
            del self._again[request_id or ""]
        else:
            request_id = self._waiting.pop()
        if request_id is not None:
            self.at_broker += 1
        return request_id

    def remove(self, request_id: str) -> bool:
        """Take a request out. Return False if it does not wait."""
        if request_id in self._again:
            del self._again[request_id]
            return True
        return self._waiting.remove(request_id)

    def position(self, request_id: str) -> int | None:
        """Return the number of requests that go to the broker before this one; None if it does not wait."""
        if request_id in self._again:
            return list(self._again).index(request_id)
        position = self._waiting.position(request_id)
        return None if position is None else position + len(self._again)

    def eta_ms(self, request_id: str) -> int | None:
        """Return the time until a waiting request is finished; None where the rate is unknown."""
        rate = self.per_s
        before = self._waiting.expected(request_id)
        before = self.position(request_id) if before is None else before + len(self._again)
        return round(1000 * (before + 1 + self.at_broker) / rate) if rate and before is not None else None

    def priority(self, class_name: str) -> int:
        """Return the priority of the message of a request of this class that goes to the broker now.

        A class that has more waiting takes its turns by weight, and these must not overtake each other at the broker:
        its strict priorities would starve the other classes. A class that has none waiting has not used up its share;
        its requests do not overtake earlier ones of the class, or of more urgent classes, either.
        """
        own = self._classes[class_name].priority
        passed = (each.name for each in self._classes.values() if each.priority >= own and self._low[each.name])
        is_low = self._waiting.waiting(class_name) or any(passed)
        priority = self._lowest if is_low else own
        self._low[class_name] += priority == self._lowest
        return priority

    def returned(
        self, class_name: str, priority: int | None, *, processing_ms: float | None, is_finished: bool
    ) -> None:
        """Note that the call of a request has ended; `is_finished`: a consumer worked on it."""
        self.at_broker -= 1
        self._low[class_name] -= priority == self._lowest
        if is_finished:
            self.missing_since = None
            self._drain.completed()
            if processing_ms is not None:
                self._inference_s += _WEIGHT * (processing_ms / 1000 - self._inference_s)

    def settle(self) -> None:
        """Tell the drain rate what is pending now, after changes."""
        self._drain.pending(self.at_broker, held_back=len(self) > 0 and self.at_broker >= self.limit)
