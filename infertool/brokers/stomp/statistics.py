"""Queue depth: by ActiveMQ's statistics destination (its statisticsBrokerPlugin), or Artemis's management address."""

from __future__ import annotations

import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Protocol

from infertool.brokers.port import Depth
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.conventions import PREFIX, is_pattern
from infertool.brokers.stomp.dialects import DepthSource
from infertool.brokers.stomp.frames import Frame, encode
from infertool.errors import ServerError

_SUBSCRIPTION: Final = "statistics"
_BROKER: Final = "broker"
_FIELDS: Final = {
    "size": "size",
    "in_flight": "inflightCount",
    "consumers": "consumerCount",
    "enqueued": "enqueueCount",
    "dequeued": "dequeueCount",
}

_ATTRIBUTES: Final = {
    "size": "messageCount",
    "in_flight": "deliveringCount",
    "consumers": "consumerCount",
    "enqueued": "messagesAdded",
    "dequeued": "messagesAcknowledged",
}


class _Questions(Protocol):
    """How one kind of broker is asked: where replies go, which messages are sent, and what the replies say."""

    @property
    def replies(self) -> str:
        """Where replies go."""

    @property
    def on_subscribe(self) -> Mapping[str, str]:
        """The SUBSCRIBE headers for that place."""

    def parts(self, destination: str) -> dict[str, dict[str, str]]:
        """Return the headers of each message that is sent, by a name for it. No destination is the broker itself."""

    @property
    def fence(self) -> Mapping[str, Mapping[str, str]]:
        """A message after them that is always answered, so that its answer ends a question which has none."""

    def depth(self, answers: Mapping[str, bytes]) -> Depth | None:
        """Return the depth in the answers to all of them, or None if they are something else."""


class _Statistics:
    """ActiveMQ: one question, one answer, to a temporary queue."""

    replies = "/temp-queue/statistics"
    on_subscribe: Mapping[str, str] = MappingProxyType({"transformation": "jms-map-json"})

    def parts(self, destination: str) -> dict[str, dict[str, str]]:
        """See `_Questions`."""
        of = f"Destination.{destination.removeprefix(PREFIX)}" if destination else "Broker"
        return {"": {"destination": f"/queue/ActiveMQ.Statistics.{of}"}}

    @property
    def fence(self) -> Mapping[str, Mapping[str, str]]:
        """ActiveMQ says nothing of a queue that does not exist, and answers in turn."""
        return {_BROKER: self.parts("")[""]}

    def depth(self, answers: Mapping[str, bytes]) -> Depth | None:
        """See `_Questions`."""
        return parse_depth(answers[""])


class _Management:
    """Artemis: a question for each figure. Replies go to a topic that all who ask have in common, and leave nothing."""

    replies = "infertool.management.replies"
    on_subscribe: Mapping[str, str] = MappingProxyType({"subscription-type": "MULTICAST"})

    def parts(self, destination: str) -> dict[str, dict[str, str]]:
        """See `_Questions`."""
        queue = "queue." + destination.removeprefix(PREFIX)
        to = {"destination": "activemq.management", "_AMQ_ResourceName": queue}
        return {field: {**to, "_AMQ_Attribute": attribute} for field, attribute in _ATTRIBUTES.items()}

    @property
    def fence(self) -> Mapping[str, Mapping[str, str]]:
        """Artemis answers each question."""
        return {}

    def depth(self, answers: Mapping[str, bytes]) -> Depth | None:
        """See `_Questions`: each is a JSON list of one number, or of a complaint."""
        try:
            figures = {field: json.loads(body)[0] for field, body in answers.items()}
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return None
        return Depth(**figures) if all(isinstance(figure, int) for figure in figures.values()) else None


_STATISTICS: Final = _Statistics()
_QUESTIONS: Final[Mapping[DepthSource, _Questions]] = {
    DepthSource.STATISTICS: _STATISTICS,
    DepthSource.MANAGEMENT: _Management(),
}


class StatisticsProbe:
    """Asks on a connection of its own, kept for the next time: a broker without XStream drops the one that asks."""

    def __init__(self, current: Callable[[], Connection | None], name: str) -> None:
        self._current = current
        self._name = name
        self._asking = threading.Lock()
        self._replies: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._questions: _Questions = _STATISTICS
        self._closed = False
        self._is_silent = False

    def measure(self, destination: str, timeout_s: float) -> Depth | None:
        """Return the depth of `destination`, or None: no such queue, no connection, or no answer that says it."""
        deadline = time.monotonic() + timeout_s
        # A pattern is answered for each of its queues.
        is_one = destination.startswith(PREFIX) and not is_pattern(destination)
        if not is_one or not self._asking.acquire(timeout=timeout_s):
            return None
        try:
            connection = self._connected(timeout_s)
            return self._ask(connection, destination, deadline) if connection else None
        except ServerError:
            return None
        finally:
            self._asking.release()

    def exists(self, destination: str, timeout_s: float) -> bool | None:
        """Return whether there is a queue `destination`; None if the broker does not tell within `timeout_s`.

        ActiveMQ says nothing of a queue that does not exist, and without its plugin nothing at all. So it is also asked
        for itself, and gets a message that comes back: what comes first tells. It is asked no more once nothing came.
        """
        deadline = time.monotonic() + timeout_s
        if not self._asking.acquire(timeout=timeout_s):
            return None
        try:
            connection = None if self._is_silent else self._connected(timeout_s)
            if connection is None:
                return None
            if connection.dialect.depth is not DepthSource.STATISTICS:
                return True if self._ask(connection, destination, deadline) else None
            parts = {"queue": self._questions.parts(destination)[""], **self._questions.fence}
            question = self._send(connection, {**parts, "returns": {"destination": self._questions.replies}})
            first, _ = next(self._answers(connection, question, deadline), ("", b""))
            self._is_silent = not first
            return {"queue": True, _BROKER: False}.get(first)
        except ServerError:
            return None
        finally:
            self._asking.release()

    def close(self) -> None:
        """End the connection, also under a question that waits."""
        self._closed = True
        connection = self._connection
        if connection:
            connection.end("closed")
            with self._asking:
                connection.join()

    def _connected(self, timeout_s: float) -> Connection | None:
        if self._connection and not self._connection.reason:
            return self._connection
        main = self._current()
        # RabbitMQ would keep every question in a new queue.
        if main is None or main.dialect.depth is DepthSource.NONE:
            return None
        client_id = f"{self._name}-statistics-{os.getpid()}-{secrets.token_hex(3)}"
        target = replace(main.target, connect_timeout_s=timeout_s)
        self._connection = connection = Connection(target, 0, client_id, self._on_end)
        if self._closed:
            connection.end("closed")
            return None
        connection.open()
        self._questions = _QUESTIONS[connection.dialect.depth]
        questions = self._questions
        connection.subscribe(
            questions.replies, _SUBSCRIPTION, self._on_replies, ack="auto", headers=dict(questions.on_subscribe)
        )
        return connection

    def _ask(self, connection: Connection, destination: str, deadline: float) -> Depth | None:
        """Ask, and put the answers to all parts of the question together."""
        parts = self._questions.parts(destination)
        question = self._send(connection, {**parts, **self._questions.fence})
        found: dict[str, bytes] = {}
        for part, body in self._answers(connection, question, deadline):
            if part == _BROKER:
                return None
            found[part] = body
            if len(found) == len(parts):
                return self._questions.depth(found)
        return None

    def _send(self, connection: Connection, parts: Mapping[str, Mapping[str, str]]) -> str:
        """Send the parts of a question, and return its id."""
        question = secrets.token_hex(8)
        for part, headers in parts.items():
            address = {"reply-to": self._questions.replies, "correlation-id": f"{question}.{part}"}
            connection.write(encode("SEND", {**headers, **address}))
        return question

    def _answers(self, connection: Connection, question: str, deadline: float) -> Iterator[tuple[str, bytes]]:
        """Yield part and answer as they come, until `deadline` or the end of the connection."""
        while not connection.reason and (left := deadline - time.monotonic()) > 0:
            try:
                reply = self._replies.get(timeout=left)
            except queue.Empty:
                return
            asked, _, part = reply.headers.get("correlation-id", "").partition(".")
            if asked == question:
                yield part, reply.body

    def _on_replies(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._replies.put(frame)

    def _on_end(self, _connection: Connection) -> None:
        # Wakes a question that waits.
        self._replies.put(Frame("END", {}))


def parse_depth(body: bytes) -> Depth | None:
    """Return the depth in an answer (a JMS map as XStream writes it in JSON), or None if it is something else.

    {"map": {"entry": [{"string": "size", "long": 12}, {"string": ["destinationName", "queue://..."]}, ...]}}
    """
    try:
        entries = json.loads(body)["map"]["entry"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    figures = dict(_figures(entries if isinstance(entries, list) else [entries]))
    found = {field: figures[name] for field, name in _FIELDS.items() if name in figures}
    return Depth(**found) if "size" in found else None


def _figures(entries: list[Any]) -> list[tuple[str, int]]:
    """Return the whole numbers in `entries`: the name is the string, the value has its Java type for a key."""
    figures = []
    for entry in entries:
        name = entry.get("string") if isinstance(entry, dict) else None
        values = [entry[kind] for kind in ("long", "int") if kind in entry] if isinstance(name, str) else []
        if values and isinstance(values[0], int):
            figures.append((str(name), values[0]))
    return figures
