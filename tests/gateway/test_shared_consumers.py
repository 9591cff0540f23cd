"""Gateways that share consumers, on a clock of the test's own: how long what each has accepted waits at most."""

from __future__ import annotations

import itertools
from collections import deque

import pytest

from infertool.gateway.classes import Class
from infertool.gateway.model_queue import ModelQueue
from tests.gateway.requests import a_request

BUDGET_S = 20.0
CLASSES = {"standard": Class("standard", 1, BUDGET_S, 4)}
CLIENTS, PER_S = 3, 10
ALONE_S, TOGETHER_S = 40, 80


class Simulation:
    """Consumers that finish `PER_S` requests a second, in the order in which the gateways gave them to the broker."""

    def __init__(self, gateways: int) -> None:
        self.now = 0.0
        self._step_s = 1 / PER_S
        self._numbers = itertools.count()
        self._queues = [ModelQueue("q", CLASSES, 2.0, lambda: self.now) for _ in range(gateways)]
        self._at_broker: deque[tuple[int, str]] = deque()
        self._accepted: dict[str, float] = {}
        self.waits: list[list[float]] = [[] for _ in self._queues]

    def run(self, until_s: float, busy: int) -> None:
        """Let the first `busy` gateways be asked for more than there is capacity, up to a time."""
        while self.now < until_s:
            self.now += self._step_s
            for number in range(busy):
                # Twice, so that all that may wait does.
                self._ask(number)
                self._ask(number)
            self._finish()

    def _ask(self, number: int) -> None:
        request = a_request(client=f"c{next(self._numbers) % CLIENTS}", class_name="standard")
        queue = self._queues[number]
        if queue.decide(request, 600.0).problem is None:
            self._accepted[request.id] = self.now
            queue.push(request)
            self._pump(number)

    def _pump(self, number: int) -> None:
        queue = self._queues[number]
        for request_id in queue.take():
            queue.priority("standard")
            self._at_broker.append((number, request_id))
        queue.settle()

    def _finish(self) -> None:
        if self._at_broker:
            number, request_id = self._at_broker.popleft()
            self.waits[number].append(self.now - self._accepted.pop(request_id))
            self._queues[number].returned("standard", 4, processing_ms=0.0, is_finished=True)
            self._pump(number)


@pytest.mark.parametrize("gateways", [1, 2, 3])
def test_a_wait_is_within_the_budget_times_the_gateways_that_become_busy(gateways: int) -> None:
    shared = Simulation(gateways)
    shared.run(ALONE_S, busy=1)
    shared.run(ALONE_S + TOGETHER_S, busy=gateways)
    assert max(max(each) for each in shared.waits) <= gateways * BUDGET_S
