"""A service channel with a fault, and what the tests of such channels share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from infertool.embedded.channel_server.channels import Answer, Channel
from infertool.embedded.channel_server.server import handle_service
from tests.support.running import Running

LONG = 180
PLAIN = "sim:?min_ms=0&max_ms=0&failure_rate=0"
# Events whose number ends with 7 fail.
FAILING = """
from infertool import InferenceError


def predict(payload):
    if payload["features"][0] % 10 == 7:
        raise InferenceError("no", retryable=False)
    return {"ok": True}
"""


class Service:
    """The channel of the embedded server, with a fault of its own before it."""

    def __init__(self, fault: Callable[[str, dict[str, Any]], Answer]) -> None:
        self.fault = fault
        self.crashes: Counter[str] = Counter()
        self.pushes = 0
        self.changed = threading.Condition()

    def __call__(self, channel: Channel, event: str, payload: dict[str, Any]) -> Answer:
        with self.changed:
            self.pushes += 1
            self.changed.notify_all()
        try:
            answer = self.fault(event, payload)
        except RuntimeError:
            with self.changed:
                self.crashes[payload.get("event_id", event)] += 1
                self.changed.notify_all()
            raise
        return answer or handle_service(channel, event, payload)

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, LONG)


def stop(consumer: Running) -> dict[str, Any]:
    consumer.terminate()
    return consumer.finish()


def numbers_of(payload: dict[str, Any]) -> list[int]:
    """Return the numbers of the events in a push, from what was sent with them."""
    documents = payload.get("results", [payload])
    originals = [document.get("original_payload") or {} for document in documents]
    return [int(original["features"][0]) for original in originals if "features" in original]
