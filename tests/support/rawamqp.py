"""RabbitMQ as pika sees it: queues of a test's own, made, filled and looked into without infertool."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pika

from tests.support.brokers import new_queue
from tests.support.rabbitmq import RabbitMQ

TIMEOUT_S = 300.0


class RawAmqp:
    """A RabbitMQ, and the queues that a test makes there. Each step has a connection of its own."""

    def __init__(self, server: RabbitMQ) -> None:
        self.server = server
        self._made: list[str] = []

    def channel(self) -> AbstractContextManager[Any]:
        return self.server.pika()

    def name(self) -> str:
        """Return the name of a queue that is deleted at the end, if there is one then."""
        self._made.append(new_queue().removeprefix("/queue/"))
        return self._made[-1]

    def queue(self, arguments: Mapping[str, Any] | None = None, *, durable: bool = True) -> str:
        name = self.name()
        with self.channel() as channel:
            channel.queue_declare(name, durable=durable, arguments=dict(arguments or {}))
        return name

    def send(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        """Send persistent messages; each is confirmed."""
        with self.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, **properties))

    def take(self, queue: str, count: int) -> list[tuple[Any, Any, bytes]]:
        """Take messages off a queue: (method, properties, body) of each."""
        taken: list[tuple[Any, Any, bytes]] = []
        with self.channel() as channel:
            deadline = time.monotonic() + TIMEOUT_S
            while len(taken) < count:
                assert time.monotonic() < deadline, f"{len(taken)} of {count} came to {queue}"
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    time.sleep(0.05)
                else:
                    taken.append((method, properties, body))
        return taken

    def waiting(self, queue: str) -> int:
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def close(self) -> None:
        with self.channel() as channel:
            for name in self._made:
                channel.queue_delete(name)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.1)
