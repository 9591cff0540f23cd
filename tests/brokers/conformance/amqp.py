"""RabbitMQ over AMQP as a broker of the suite: its queues are declared by the tests, with arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Self

from tests.brokers.conformance.cut import Cut
from tests.support.amqpproxy import AmqpFrameProxy, AmqpProxy, method
from tests.support.rabbitmq import RabbitMQ


class AmqpServer:
    """RabbitMQ over AMQP, with queues of one type, which end with the test."""

    refused_queue = "nobody.has.this.queue"
    nobodys_url = "amqp://127.0.0.1:1"

    def __init__(self, server: RabbitMQ, arguments: dict[str, Any]) -> None:
        self.server = server
        self.url = server.amqp_url
        self._arguments = arguments
        self._declared: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._declared:
            with self.server.pika() as channel:
                for queue in self._declared:
                    channel.queue_delete(queue)

    def prepare(self, queue: str) -> None:
        with self.server.pika() as channel:
            for name in (queue, *(f"{queue}.{each}" for each in ("dlq", "a", "b", "barrier"))):
                channel.queue_declare(name, durable=True, arguments=self._arguments)
                self._declared.append(name)

    def line(self) -> AmqpProxy:
        return AmqpProxy(self.server.amqp_port)

    @contextlib.contextmanager
    def cutting_line(self, point: Cut) -> Iterator[str]:
        cutter = _AmqpCutter(point)
        with AmqpFrameProxy(self.server.amqp_port, to_server=cutter.to_server, to_client=cutter.to_client) as proxy:
            yield proxy.url


_PUBLISH, _ACK = 0x003C0028, 0x003C0050


class _AmqpCutter:
    """Cuts once, at a frame of the first move that is made."""

    def __init__(self, point: Cut) -> None:
        self._point = point
        self._done = self._acked = False

    def to_server(self, frame: bytes) -> bytes | None:
        number = method(frame)
        if self._done:
            return frame
        match self._point:
            case Cut.BEFORE_SENDS if number == _PUBLISH:
                self._cut()
                return None
            case Cut.BEFORE_END if number == _ACK:
                self._cut()
                return None
            case Cut.AFTER_END if number == _ACK:
                # The question behind it, whether all acks have arrived, is cut off.
                self._acked = True
            case Cut.AFTER_END if self._acked:
                self._cut()
                return None
        return frame

    def to_client(self, frame: bytes) -> bytes | None:
        if not self._done and self._point is Cut.AFTER_SENDS and method(frame) == _ACK:
            self._cut()
            return None
        return frame

    def _cut(self) -> None:
        self._done = True
