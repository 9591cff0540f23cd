"""Answers of the statistics destination, in the format of ActiveMQ 5.17.2 (measured).

Figures that an in-memory broker does not have (stores, limits) are those of an idle ActiveMQ.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from infertool.embedded.broker.messages import StoredMessage
from infertool.embedded.broker.queues import Queue

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
