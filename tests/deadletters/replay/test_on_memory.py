"""A replay on the broker in process: whatever the broker can do, and whatever goes wrong, no letter is lost.

Half of the letters are replayed, the others stay in their order. Where moves are not atomic a fault may leave a message
twice: letters share a `dlq_id` then, replays an `event_id`.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Address, Server
from infertool.brokers.port import Browsing
from infertool.deadletters.record import Cause, dead_letter
from infertool.deadletters.replay import companions, take
from infertool.deadletters.replay import replay as replay_module
from infertool.deadletters.replay.decide import Plan
from infertool.deadletters.replay.progress import Tally
from infertool.deadletters.replay.replay import Replay
from infertool.deadletters.replay.take import Bus
from infertool.deadletters.selection import select
from infertool.errors import InfertoolError
from infertool.message import Outgoing
from infertool.settings.broker import BrokerSettings
from tests.support.brokers import TIMEOUT_S
from tests.support.brokers import take as take_messages

COUNT = 40
QUEUE, ORIGIN = "dead", "events"
HALF = [f"e{n}" for n in range(0, COUNT, 2)]
OTHERS = [f"e{n}" for n in range(1, COUNT, 2)]
_numbers = itertools.count(1)

COMBINATIONS = [
    {"atomic_move": atomic, "depth": depth, "selectors": both, "browse": Browsing.FULL if both else Browsing.NONE}
    for atomic, depth, both in itertools.product((True, False), repeat=3)
]


@pytest.fixture(params=COMBINATIONS, ids=lambda each: "-".join(f"{name}={value}" for name, value in each.items()))
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for module in (take, replay_module, companions):
        for name, value in {"QUIET_S": 0.1, "PATIENCE_S": 0.2, "_POLL_S": 0.005}.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    with Server(f"replay-{next(_numbers)}", replace(CAPABILITIES, **request.param)) as server:
        yield server


@dataclass
class Run:
    """A replay of every second letter."""

    server: Server
    address: Address

    def fill(self) -> None:
        """Put letters into the queue, as a consumer does."""
        with_events = self._broker()
        subscription = with_events.subscribe(ORIGIN, window=COUNT)
        for n in range(COUNT):
            self.server.send(Outgoing(ORIGIN, b'{"n": %d}' % n, headers={"event_id": f"e{n}", "own": "1"}))
        for message in take_messages(subscription, COUNT):
            event_id = message.headers["event_id"]
            cause = Cause(event_id, "", "infer", "E", "no", 1, "2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z", "c", "m")
            can = self.server.capabilities
            self.server.send(dead_letter(message, cause, QUEUE, with_events.conventions, atomic=can.atomic_move))
            subscription.ack([message])
        with_events.close(TIMEOUT_S)

    def replay(self) -> Tally:
        broker = self._broker()
        depth = broker.measure(QUEUE, 1)
        selection = select(where="n % 2 == 0", now=time.time())
        plan = Plan(
            queue=QUEUE, run="r", began=time.time(), depth=depth.size if depth else None, selection=selection, batch=7
        )
        bus = Bus(lambda on_connection: brokers.open(self._settings, on_connection=on_connection), 0.3, _nothing)
        try:
            return Replay(bus, plan, stop=threading.Event(), broker=broker).run()
        finally:
            broker.close(TIMEOUT_S)

    @property
    def _settings(self) -> BrokerSettings:
        return BrokerSettings(url=self.address.url, receipt_timeout_s=0.3, reconnect_base_s=0.001, reconnect_max_s=0.01)

    def _broker(self) -> Any:
        broker = brokers.open(replace(self._settings, url=self.server.url))
        broker.connect()
        return broker

    def ids(self, queue: str) -> list[str]:
        return [stored.outgoing.headers["event_id"] for stored in self.server.held(queue)]


def _nothing(_event: object) -> None:
    pass


@pytest.fixture
def run(server: Server) -> Run:
    run = Run(server, server.new_address())
    run.fill()
    return run


def test_what_matches_is_replayed_and_the_rest_stays_in_order(run: Run) -> None:
    tally = run.replay()
    assert tally.replayed == len(HALF)
    assert (run.ids(ORIGIN), run.ids(QUEUE)) == (HALF, OTHERS)
    assert run.ids(f"{QUEUE}.scan") == []
    assert {stored.outgoing.headers["own"] for stored in run.server.held(ORIGIN)} == {"1"}


@pytest.mark.parametrize("effect", list(Effect))
def test_each_step_goes_wrong(run: Run, effect: Effect) -> None:
    for operation in (Operation.SEND, Operation.ACK, Operation.BEGIN, Operation.COMMIT, Operation.SUBSCRIBE):
        run.address.faults.plan(operation, effect, skip=1)
    for _ in range(5):
        # A run may end early; the next one goes on where it ended.
        with contextlib.suppress(InfertoolError):
            run.replay()
            if not set(HALF) & set(run.ids(QUEUE)) and not run.ids(f"{QUEUE}.scan"):
                break
    replayed, left = Counter(run.ids(ORIGIN)), Counter(run.ids(QUEUE))
    assert set(replayed) == set(HALF)
    assert set(left) == set(OTHERS)
    if run.server.capabilities.atomic_move:
        assert set(replayed.values()) == set(left.values()) == {1}
        # A letter whose move is refused alone stays where it is; what is put back comes behind it.
        assert effect is Effect.REFUSE or run.ids(QUEUE) == OTHERS
    else:
        headers = [stored.outgoing.headers for stored in run.server.held(QUEUE)]
        assert len({(each["event_id"], each["dlq_id"]) for each in headers}) == len(left)
