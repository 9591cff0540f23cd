"""The broker: destinations, routing, settlement, dead letters, statistics. No I/O; the clock is a parameter."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import orjson

from infertool.embedded.broker import destinations
from infertool.embedded.broker.destinations import Destination, DestinationError, Kind
from infertool.embedded.broker.messages import Holder, Scheduler, StoredMessage
from infertool.embedded.broker.queues import AckMode, Durable, Queue, Subscription, Topics

_MEMORY_LIMIT = 268_435_456
# ActiveMQ adds this to a body's size. Bytes.
_MESSAGE_OVERHEAD = 1024

Figures = dict[str, int | float | str]


def of_queue(queue: Queue, identity: str) -> bytes:
    """Return the answer's body with the figures of one queue."""
    figures = _sum([queue], identity)
    figures["destinationName"] = f"queue://{queue.name}"
    return _jms_map_json(figures)


def of_broker(queues: Sequence[Queue], identity: str) -> bytes:
    """Return the answer's body with the figures of all queues together."""
    figures = _sum(queues, identity)
    figures |= dict.fromkeys(("storeUsage", "storeLimit", "tempUsage", "tempLimit"), 0)
    figures |= {"storePercentUsage": 0, "tempPercentUsage": 0, "dataDirectory": "", "vm": "vm://localhost"}
    return _jms_map_json(figures)


def answer(question: StoredMessage, body: bytes, message_id: str, now_ms: int) -> StoredMessage:
    """Return the answer to message `question`."""
    headers = {
        "message-id": message_id,
        "expires": "0",
        "priority": "4",
        "timestamp": str(now_ms),
        "type": "Advisory",
        "transformation": "jms-map-json",
    }
    if "correlation-id" in question.headers:
        headers["correlation-id"] = question.headers["correlation-id"]
    return StoredMessage(message_id, headers, body, now_ms)


def _sum(queues: Sequence[Queue], identity: str) -> Figures:
    counts = [queue.counts for queue in queues]
    size = sum(queue.size for queue in queues)
    memory = sum(count.body_bytes_held for count in counts) + size * _MESSAGE_OVERHEAD
    dequeued = sum(count.dequeued for count in counts)
    waits = [count.shortest_wait_ms for count in counts if count.shortest_wait_ms is not None]
    return {
        "size": size,
        "inflightCount": sum(queue.in_flight for queue in queues),
        "enqueueCount": sum(count.enqueued for count in counts),
        "dequeueCount": dequeued,
        "dispatchCount": sum(count.dispatched for count in counts),
        "expiredCount": sum(count.expired for count in counts),
        "consumerCount": sum(len(queue.subscriptions) for queue in queues),
        "producerCount": 0,
        "messagesCached": 0,
        "averageMessageSize": memory // size if size else 0,
        "averageEnqueueTime": sum(count.waited_ms for count in counts) / max(dequeued, 1),
        "minEnqueueTime": float(min(waits, default=0)),
        "maxEnqueueTime": float(max((count.longest_wait_ms for count in counts), default=0)),
        "memoryUsage": memory,
        "memoryLimit": _MEMORY_LIMIT,
        "memoryPercentUsage": 100 * memory // _MEMORY_LIMIT,
        "brokerId": identity,
        "brokerName": "localhost",
    }


def _jms_map_json(figures: Figures) -> bytes:
    """Encode a map like ActiveMQ's transformation `jms-map-json`."""
    entries = [_entry(key, value) for key, value in figures.items()]
    # Its JSON library escapes slashes.
    return orjson.dumps({"map": {"entry": entries}}).replace(b"/", b"\\/")


def _entry(key: str, value: float | str) -> dict[str, object]:
    if isinstance(value, str):
        return {"string": [key, value]}
    if isinstance(value, float):
        return {"string": key, "double": int(value) if value.is_integer() else value}
    return {"string": key, "int" if key.endswith("PercentUsage") else "long": value}


_STATISTICS = "ActiveMQ.Statistics."
_STATISTICS_OF_QUEUE = "ActiveMQ.Statistics.Destination."
_STATISTICS_OF_BROKER = "ActiveMQ.Statistics.Broker"
_TEMPORARIES = (Kind.REMOTE_TEMP_QUEUE, Kind.REMOTE_TEMP_TOPIC)
_TOPICS = (Kind.TOPIC, Kind.REMOTE_TEMP_TOPIC)


@dataclass(frozen=True, slots=True)
class Temporary:
    """A temporary destination; `shown` is its owner's name for it. `queue` is None for a topic."""

    shown: str
    queue: Queue | None


class Broker:
    """An in-memory broker for one event loop. `identity` is the prefix of all ids.

    `page_size` limits every window, as ActiveMQ's maxPageSize does; None sets no limit.
    """

    def __init__(self, identity: str, clock_ms: Callable[[], int], *, page_size: int | None = None) -> None:
        self.identity = identity
        self.now_ms = clock_ms
        self.page_size = page_size
        self.queues: dict[str, Queue] = {}
        # Queues that may have messages to deliver, in the order in which they changed.
        self.dirty: dict[Holder, None] = {}
        self.scheduler = Scheduler(identity)
        self._topics = Topics()
        self._temporaries: dict[str, Temporary] = {}
        self._wildcards: list[tuple[str, Subscription]] = []
        self._serials = itertools.count(1)

    def queue(self, name: str) -> Queue:
        """Return the queue; create it at its first use."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, dead_letters=f"DLQ.{name}")
            for pattern, subscription in self._wildcards:
                if destinations.matches(pattern, name):
                    _attach(subscription, queue)
        return queue

    def send(self, destination: Destination, message: StoredMessage) -> None:
        """Route a message, now or at its scheduled time. Raises `DestinationError` for a deleted temporary one."""
        if message.schedule:
            self.scheduler.add(destination, message, message.schedule, self.now_ms())
            return
        if destination.name.startswith(_STATISTICS) and "reply-to" in message.headers:
            self._answer_statistics(destination.name, message)
            return
        temporary = self.check(destination)
        message.headers["destination"] = temporary.shown if temporary else str(destination)
        if destination.kind in _TOPICS:
            self.dirty.update(dict.fromkeys(self._topics.publish(destination.name, message)))
            return
        queue = temporary.queue if temporary and temporary.queue else self.queue(destination.name)
        queue.put(message)
        self.dirty[queue] = None

    def check(self, destination: Destination) -> Temporary | None:
        """Return the temporary destination; None for another kind. Raises `DestinationError` if it was deleted."""
        if destination.kind not in _TEMPORARIES:
            return None
        temporary = self._temporaries.get(destination.name)
        if temporary is None:
            kind = destination.kind.strip("/").removeprefix("remote-")
            raise DestinationError(f"{kind}://{destination.name}")
        return temporary

    def add_temporary(self, name: str, shown: Destination) -> None:
        """Create a temporary destination."""
        queue = Queue(name) if shown.kind is Kind.TEMP_QUEUE else None
        self._temporaries[name] = Temporary(str(shown), queue)

    def remove_temporary(self, name: str) -> None:
        """Delete a temporary destination with its messages."""
        del self._temporaries[name]

    def subscribe(self, destination: Destination, subscription: Subscription) -> None:
        """Attach the subscription to the destination."""
        temporary = self.check(destination)
        if destination.kind in _TOPICS:
            self._topics.add(destination, subscription)
        elif temporary and temporary.queue:
            _attach(subscription, temporary.queue)
        elif destination.is_pattern:
            self._wildcards.append((destination.name, subscription))
            for queue in self._matching(destination.name):
                _attach(subscription, queue)
        else:
            _attach(subscription, self.queue(destination.name))
        self.touch(subscription)

    def browse(self, destination: Destination, subscription: Subscription) -> None:
        """Give the subscription copies of all messages in the queue, also those held by clients, and an end message."""
        queue = self.queue(destination.name)
        self._sweep(queue)
        mailbox = Queue(destination.name)
        _attach(subscription, mailbox)
        for message in queue.browse():
            if subscription.matches is None or subscription.matches(message):
                mailbox.put(message.twin())
        # The selector is already applied, and a browser does not ack.
        subscription.matches = None
        subscription.mode = AckMode.AUTO
        mailbox.put(_browse_end(destination, self.now_ms()))
        self.touch(subscription)

    def touch(self, subscription: Subscription) -> None:
        """Mark the subscription's queues for dispatch."""
        self.dirty.update(dict.fromkeys(subscription.queues))

    def unsubscribe(self, subscription: Subscription) -> None:
        """End the subscription; its unacked messages go back."""
        subscription.active = False
        for queue in subscription.queues:
            queue.remove(subscription)
        self._wildcards = [entry for entry in self._wildcards if entry[1] is not subscription]
        self._topics.remove(subscription)
        self.give_back(subscription.unacked.values())
        subscription.unacked = {}

    def forget_durable(self, durable: Durable) -> None:
        """Delete a durable subscription with its messages. Raises `DestinationError` while it is in use."""
        self._topics.forget(durable)

    def give_back(self, messages: Iterable[StoredMessage]) -> None:
        """Return unacked messages to their queues, marked as redelivered, in their original order."""
        by_queue: dict[Holder, list[StoredMessage]] = {}
        for message in messages:
            if message.queue is not None:
                by_queue.setdefault(message.queue, []).append(message)
        for queue, returned in by_queue.items():
            queue.give_back(returned)
            self.dirty[queue] = None

    def settle(self, messages: Iterable[StoredMessage]) -> None:
        """Remove acked messages."""
        now = self.now_ms()
        for message in messages:
            if message.queue is not None:
                message.queue.settle(message, now)

    def dead_letter(self, message: StoredMessage, cause: str = "") -> None:
        """Move a message that left its queue to that queue's dead-letter queue.

        As in ActiveMQ, a message that is not persistent, or was dead-lettered before, is dropped.
        """
        target = message.queue.dead_letters if message.queue else ""
        if not target or not message.persistent or message.dead_lettered:
            return
        letter = message.twin()
        letter.expires = 0
        letter.dead_lettered = True
        origin = message.headers["destination"]
        letter.headers = {
            "original-destination": origin,
            **message.headers,
            "expires": "0",
            "originalExpiration": str(message.expires),
        }
        if cause:
            letter.headers["dlqDeliveryFailureCause"] = cause
        self.send(Destination(Kind.QUEUE, target), letter)

    def dispatch(self) -> None:
        """Deliver all messages that can be delivered now."""
        self._send_scheduled()
        while self.dirty:
            now = self.now_ms()
            dirty, self.dirty = self.dirty, {}
            for queue in dirty:
                if queue.waiting and queue.subscriptions:
                    queue.dispatch(now)
                    self._dead_letter_expired(queue)

    def _send_scheduled(self) -> None:
        due = self.scheduler.next_ms
        if due is None or due > (now := self.now_ms()):
            return
        for destination, message in self.scheduler.take_due(now):
            with contextlib.suppress(DestinationError):
                self.send(destination, message)

    def sweep(self) -> None:
        """Remove expired messages from all queues. To be called periodically."""
        for queue in list(self.queues.values()):
            self._sweep(queue)

    def _sweep(self, queue: Queue) -> None:
        queue.sweep(self.now_ms())
        self._dead_letter_expired(queue)

    def _dead_letter_expired(self, queue: Holder) -> None:
        for message in queue.take_expired():
            self.dead_letter(message, f"java.lang.Throwable: Message Expired. Expiration:{message.expires}")

    def _matching(self, pattern: str) -> list[Queue]:
        return [queue for name, queue in self.queues.items() if destinations.matches(pattern, name)]

    def _answer_statistics(self, asked: str, question: StoredMessage) -> None:
        self.sweep()
        queues = list(self.queues.values())
        if asked == _STATISTICS_OF_BROKER:
            bodies = [of_broker(queues, self.identity)]
        else:
            pattern = asked.removeprefix(_STATISTICS_OF_QUEUE)
            bodies = [of_queue(queue, self.identity) for queue in self._matching(pattern)]
        reply_to = destinations.parse(question.headers["reply-to"])
        for body in bodies:
            answer_id = f"{self.identity}:0:0:{next(self._serials)}"
            self.send(reply_to, answer(question, body, answer_id, self.now_ms()))


def _browse_end(destination: Destination, now_ms: int) -> StoredMessage:
    headers = {"browser": "end", "destination": str(destination), "message-id": "0"}
    return StoredMessage("0", headers, b"", now_ms, priority=0)


def _attach(subscription: Subscription, queue: Queue) -> None:
    queue.add(subscription)
    subscription.queues.append(queue)
