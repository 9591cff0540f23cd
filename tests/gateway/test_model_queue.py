"""The requests of one queue: which priority their messages get, so that strict priorities starve no class."""

from __future__ import annotations

import pytest

from infertool.gateway.classes import DEFAULTS
from infertool.gateway.model_queue import LEAST_AT_BROKER, ModelQueue
from infertool.gateway.request import InferRequest
from tests.gateway.requests import a_request

CLASSES = {each.name: each for each in DEFAULTS}


class Broker:
    """Takes what the queue gives it, and works on the highest priority first, in the order of arrival."""

    def __init__(self) -> None:
        self.queue = ModelQueue("q", CLASSES, 2.0, lambda: 0.0)
        self.requests: dict[str, InferRequest] = {}
        self.held: list[tuple[str, int]] = []

    def push(self, class_name: str) -> None:
        request = a_request(class_name=class_name)
        self.requests[request.id] = request
        self.queue.push(request)
        self.pump()

    def pump(self) -> None:
        for request_id in self.queue.take():
            class_name = self.requests.pop(request_id).class_name
            self.held.append((class_name, self.queue.priority(class_name)))

    def finish(self) -> str:
        found = max(self.held, key=lambda each: each[1])
        self.held.remove(found)
        self.queue.returned(*found, processing_ms=None, is_finished=True)
        self.pump()
        return found[0]


def test_a_class_that_is_within_its_share_goes_first_at_the_broker() -> None:
    broker = Broker()
    for _ in range(2 * LEAST_AT_BROKER):
        broker.push("batch")
    broker.push("interactive")
    assert [broker.finish() for _ in range(2)] == ["batch", "interactive"]


@pytest.mark.parametrize("batch_waiting", [1, 5, 100])
def test_batch_gets_its_share_though_urgent_classes_never_stop(batch_waiting: int) -> None:
    broker = Broker()
    done: list[str] = []
    for _ in range(batch_waiting):
        broker.push("batch")
    for _ in range(100):
        broker.push("interactive")
        broker.push("standard")
    for _ in range(1200):
        done.append(broker.finish())
        broker.push(done[-1])
    share = done[200:].count("batch") / 1000
    assert share >= 0.9 / 12 if batch_waiting > LEAST_AT_BROKER else share > 0.01


def test_a_later_request_passes_no_earlier_one_of_its_class() -> None:
    broker = Broker()
    for _ in range(LEAST_AT_BROKER + 8):
        broker.push("interactive")
    while broker.queue:
        broker.finish()
    broker.finish()
    broker.push("interactive")
    priorities = [priority for name, priority in broker.held if name == "interactive"]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == 2


def test_a_lone_request_passes_no_waiting_ones_of_a_more_urgent_class() -> None:
    broker = Broker()
    for _ in range(LEAST_AT_BROKER + 2):
        broker.push("interactive")
    broker.finish()
    broker.push("standard")
    broker.finish()
    broker.finish()
    assert broker.held[-3:] == [("interactive", 1), ("interactive", 1), ("standard", 1)]
    while broker.held:
        broker.finish()
    broker.push("standard")
    assert broker.held == [("standard", 4)]


def test_the_predicted_wait_is_told_once_a_rate_is_known() -> None:
    now = 0.0
    queue = ModelQueue("q", CLASSES, 2.0, lambda: now)
    for _ in range(100):
        queue.push(a_request(class_name="interactive"))
    assert queue.predicted_wait_s("interactive") is None
    for _ in queue.take():
        queue.priority("interactive")
    queue.settle()
    for _ in range(10):
        now += 0.12
        queue.returned("interactive", 8, processing_ms=1, is_finished=True)
        assert next(queue.take())
        queue.settle()
    # 58 wait and 32 are at the broker, and 8 finish in a second.
    assert queue.predicted_wait_s("interactive") == pytest.approx(90 / (1 / 0.12), rel=0.2)
    assert queue.eta_ms("none") is None
