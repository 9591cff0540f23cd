"""A server of a few lines on the broker port: answers requests as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from infertool import brokers
from infertool.errors import InfertoolError
from infertool.message import Message, Outgoing, Properties
from tests.support.brokers import TIMEOUT_S, settings

Answer = Callable[[Message], "Sequence[Outgoing]"]


def echo(message: Message) -> Sequence[Outgoing]:
    """Answer with the request's body."""
    return [reply(message, message.body)]


def silent(_message: Message) -> Sequence[Outgoing]:
    return []


def reply(message: Message, body: bytes, correlation_id: str | None = None, **headers: str) -> Outgoing:
    properties = Properties(
        correlation_id=correlation_id or message.correlation_id,
        content_type=message.properties.content_type,
        persistent=False,
    )
    return Outgoing(message.properties.reply_to or "", body, message.kind, headers, properties)


def failure(message: Message, **fields: Any) -> Outgoing:
    document = {"status": "FAILED", "error": "no", "error_type": "ValueError", "stage": "infer", **fields}
    return reply(message, json.dumps(document).encode(), status=str(document["status"]))


class Responder:
    """Consumes a queue with prefetch 1 and sends what `answer` returns, then acks."""

    def __init__(self, url: str, queue: str, answer: Answer = echo, **changes: object) -> None:
        self.broker = brokers.open(settings(url, **changes), name="responder")
        self.broker.connect()
        self.answer = answer
        self.seen: list[Message] = []
        self.refused: list[Exception] = []
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._subscription = self.broker.subscribe(self.broker.conventions.queue(queue), window=100)
        self._thread = threading.Thread(target=self._run, name="responder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self.broker.close(5)

    def wait_for(self, count: int) -> list[Message]:
        """Wait until so many requests have come; return them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, TIMEOUT_S), len(self.seen)
            return self.seen[:]

    def send(self, outgoing: Outgoing) -> None:
        """Send one reply; note the broker's refusal."""
        try:
            to = self.broker.conventions.reply_queue(outgoing.destination)
            self.broker.send(
                Outgoing(to, outgoing.body, outgoing.kind, outgoing.headers, outgoing.properties), self._sent
            )
        except InfertoolError as error:
            self.refused.append(error)

    def _sent(self, error: Exception | None) -> None:
        if error:
            self.refused.append(error)

    def _run(self) -> None:
        while not self._stopped.is_set():
            messages = self._subscription.receive(100, 0.05)
            for message in messages:
                for outgoing in self.answer(message):
                    self.send(outgoing)
            self._subscription.ack(messages)
            with self._changed:
                self.seen += messages
                self._changed.notify_all()
