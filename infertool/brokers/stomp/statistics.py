"""Queue depth by ActiveMQ's statistics destination (its statisticsBrokerPlugin)."""

from __future__ import annotations

import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from infertool.brokers.port import Depth
from infertool.brokers.stomp.connection import Connection
from infertool.brokers.stomp.destination import PREFIX, is_pattern
from infertool.brokers.stomp.frames import Frame, encode
from infertool.errors import ServerError

_REPLIES: Final = "/temp-queue/statistics"
_SUBSCRIPTION: Final = "statistics"
_QUESTION: Final = "/queue/ActiveMQ.Statistics.Destination."
_FIELDS: Final = {
    "size": "size",
    "in_flight": "inflightCount",
    "consumers": "consumerCount",
    "enqueued": "enqueueCount",
    "dequeued": "dequeueCount",
}


class StatisticsProbe:
    """Asks on a connection of its own, kept for the next time: a broker without XStream drops the one that asks."""

    def __init__(self, current: Callable[[], Connection | None], name: str) -> None:
        self._current = current
        self._name = name
        self._asking = threading.Lock()
        self._replies: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._closed = False

    def measure(self, destination: str, timeout_s: float) -> Depth | None:
        """Return the depth of `destination`, or None: not connected, not answered in time, or not understood."""
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
        # RabbitMQ has no such plugin, and would keep every question in a new queue.
        if main is None or "RabbitMQ" in main.server:
            return None
        client_id = f"{self._name}-statistics-{os.getpid()}-{secrets.token_hex(3)}"
        target = replace(main.target, connect_timeout_s=timeout_s)
        self._connection = connection = Connection(target, 0, client_id, self._on_end)
        if self._closed:
            return None
        connection.open()
        headers = {"transformation": "jms-map-json"}
        connection.subscribe(_REPLIES, _SUBSCRIPTION, self._on_replies, ack="auto", headers=headers)
        return connection

    def _ask(self, connection: Connection, destination: str, deadline: float) -> Depth | None:
        question = secrets.token_hex(8)
        headers = {
            "destination": _QUESTION + destination.removeprefix(PREFIX),
            "reply-to": _REPLIES,
            "correlation-id": question,
        }
        connection.write(encode("SEND", headers))
        while not connection.reason and (left := deadline - time.monotonic()) > 0:
            try:
                reply = self._replies.get(timeout=left)
            except queue.Empty:
                break
            if reply.headers.get("correlation-id") == question:
                return parse_depth(reply.body)
        return None

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
    except (ValueError, KeyError, TypeError):
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
