"""The events of one poll of a share group, between the thread that polls and those that receive and settle them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from infertool.brokers.kafka.messages import KafkaMessage, to_message
from infertool.message import Message, Properties

# Acknowledgements are joined for this time. Seconds.
_JOIN_S: Final = 0.05


class ShareMessage(KafkaMessage, frozen=True, gc=False):
    """A record that a share group delivered. `deliveries` counts this delivery, too."""

    deliveries: int = 1

    @property
    def properties(self) -> Properties:
        """See `Message`."""
        return msgspec.structs.replace(super().properties, delivery_count=self.deliveries - 1)


def to_share_message(record: Any, epoch: int) -> ShareMessage:
    """Return the message of a `confluent_kafka.Message`; `epoch` is the number of its round."""
    deliveries = int(record.delivery_count() or 1)
    partition = f"{record.topic()}/{record.partition()}"
    message = to_message(record, partition=partition, epoch=epoch, redelivered=deliveries > 1)
    return ShareMessage(**msgspec.structs.asdict(message), deliveries=deliveries)


class Round:
    """At most `window` of a poll's events are in work at any time. What is of an earlier poll is stale."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._changed = threading.Condition()
        self._ready: deque[ShareMessage] = deque()
        # What this consumer holds, by id.
        self._held: dict[str, ShareMessage] = {}
        self._in_work: set[str] = set()
        self._done: list[ShareMessage] = []
        self._returned: list[ShareMessage] = []
        # Callers that wait until the broker knows of what they settled.
        self._waiting: list[Future[None]] = []
        self._closed = False
        self.stale_acks = 0

    def begin(self, messages: Iterable[ShareMessage]) -> None:
        """Have events received."""
        with self._changed:
            self._held = {message.id: message for message in messages}
            self._ready = deque(self._held.values())
            self._changed.notify_all()

    def take(self, most: int, timeout_s: float) -> list[Message]:
        """Return up to `most` events, waiting for the first. Returns at once when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._can_give(), timeout_s)
            if self._closed:
                return []
            count = min(most, len(self._ready), self._window - len(self._in_work))
            taken: list[Message] = [self._ready.popleft() for _ in range(count)]
            self._in_work.update(message.id for message in taken)
            return taken

    def _can_give(self) -> bool:
        return bool(self._ready) and len(self._in_work) < self._window

    def settle_all(self, messages: Sequence[Message], told: Future[None]) -> bool:
        """Note that events are done. Return False, and note nothing, if one of them is not in work here any more.

        `told` is set once the broker knows of it.
        """
        with self._changed:
            if self.has_stale(messages):
                return False
            self._waiting.append(told)
            self.settle(messages)
            return True

    def settle(self, messages: Iterable[Message]) -> int:
        """Note that events are done. Return how many were not in work here any more."""
        with self._changed:
            stale = 0
            for message in messages:
                held = self._pop(message)
                if held is None:
                    stale += 1
                else:
                    self._done.append(held)
            self.stale_acks += stale
            self._changed.notify_all()
            return stale

    def give_back(self, messages: Iterable[Message]) -> None:
        """Note that the broker is to deliver these to any consumer."""
        with self._changed:
            self._returned += [held for message in messages if (held := self._pop(message))]
            self._changed.notify_all()

    def repeat(self, messages: Sequence[Message]) -> None:
        """Have events received once more here."""
        with self._changed:
            for message in reversed(messages):
                if (held := self._pop(message)) is not None:
                    again = msgspec.structs.replace(held, redelivered=True)
                    self._held[again.id] = again
                    self._ready.appendleft(again)
            self._changed.notify_all()

    def has_stale(self, messages: Iterable[Message]) -> bool:
        """Return True if one of them is not in work here any more."""
        with self._changed:
            return not all(self._is_in_work(message) for message in messages)

    def _is_in_work(self, message: Message) -> bool:
        held = self._held.get(message.id)
        if held is None or message.id not in self._in_work:
            return False
        return (held.epoch, held.token) == (message.epoch, message.token)

    def _pop(self, message: Message) -> ShareMessage | None:
        if not self._is_in_work(message):
            return None
        self._in_work.discard(message.id)
        return self._held.pop(message.id)

    def outcomes(self, timeout_s: float) -> tuple[list[ShareMessage], list[ShareMessage], list[Future[None]]]:
        """Return what is done, what goes back, and who waits to hear of it; wait up to `timeout_s` for any of that."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_news(), timeout_s)
            # More come at the same time; but whoever waits, waits.
            self._changed.wait_for(lambda: self._closed or bool(self._waiting) or not self._held, _JOIN_S)
            found = self._done, self._returned, self._waiting
            self._done, self._returned, self._waiting = [], [], []
            return found

    def _has_news(self) -> bool:
        return bool(self._done or self._returned or self._waiting) or not self._held

    @property
    def partitions(self) -> frozenset[str]:
        """The partitions of the events that are held."""
        with self._changed:
            return frozenset(message.partition for message in self._held.values())

    def end(self) -> tuple[list[ShareMessage], list[ShareMessage]]:
        """Settle nothing more. Return what was in work and what had not begun."""
        with self._changed:
            held, in_work = self._held, self._in_work
            self._held, self._in_work = {}, set()
            self._ready.clear()
            begun = [message for message in held.values() if message.id in in_work]
            return begun, [message for message in held.values() if message.id not in in_work]

    def close(self) -> None:
        """Give nothing more out, and have `take` return at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_empty(self) -> bool:
        """True when nothing is held."""
        with self._changed:
            return not self._held
