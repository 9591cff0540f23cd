"""The bus under test: a broker (the real ActiveMQ, then the embedded one), a hub, a viewer, and queues of its own."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.errors import ServerError
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from tests.support.brokers import is_empty
from tests.support.embedded import EmbeddedBroker
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp
from tests.support.running import CREDENTIALS, Running
from tests.support.viewer import Viewer

_numbers = itertools.count(1)


def assert_balanced(summary: dict[str, Any]) -> None:
    """Check that each delivery was settled, or is held by the broker: after every scenario."""
    if not summary:
        return  # it did not end by itself
    settled = summary["succeeded"] + summary["dead_lettered"]
    assert summary["received"] - summary["recognised"] == settled + summary["handed_back"], summary


@dataclass
class Bus:
    """One test's broker, hub, queues and folder."""

    broker: Any
    hub: HubProcess
    folder: Path
    viewer: Viewer
    queue: str = field(default_factory=lambda: f"/queue/test.{next(_numbers)}.{uuid.uuid4().hex[:6]}")
    consumers: list[Running] = field(default_factory=list)
    # Set by a test that kills one of several processes: what that had settled lately is not counted.
    lost_count: bool = False

    @property
    def dlq(self) -> str:
        return f"{self.queue}.dead"

    def raw(self) -> RawStomp:
        return RawStomp(self.broker.stomp_port)

    def send(self, count: int, *, poison: int = 0) -> list[str]:
        """Send `count` events, `poison` of them not JSON, in a random order; return their ids in that order."""
        order = random.Random(7).sample([False] * (count - poison) + [True] * poison, count)
        ids = [f"{uuid.uuid4()}" for _ in order]
        raw = self.raw()
        raw.send(
            self.queue, (({"event_id": i}, _body(n, i, bad)) for n, (i, bad) in enumerate(zip(ids, order, strict=True)))
        )
        raw.close()
        return ids

    def consume(self, *options: str, model: str = "sim:?min_ms=0&max_ms=0&failure_rate=0", **env: str) -> Running:
        """Start a consumer of the test's queue; it ends with the test at the latest."""
        consumer = Running(
            self.folder / "consumers",
            "consume", "--broker", self.broker.url, "--queue", self.queue, "--dlq", self.dlq,
            "--phoenix", self.hub.url, "--model", model, "-o", "json", *options,
            **CREDENTIALS, INFERTOOL_CONSUME__STATE_DIR=str(self.folder / "state"), **env,
        )  # fmt: skip
        self.consumers.append(consumer)
        return consumer

    def close(self) -> None:
        """Kill the consumers that a failed test left behind. What all of them said is printed, for such a test."""
        print(f"{self.viewer}")
        if any(consumer.process.poll() is None for consumer in self.consumers):
            print(f"{self.broker}\n{self.queue}: {self._depth()}")
        for consumer in self.consumers:
            print(f"{consumer}")
            if consumer.process.poll() is None:
                consumer.kill()

    def _depth(self) -> object:
        """Return what the broker says of the queue: whether consumers hold what was not seen."""
        opened = brokers.open(BrokerSettings(url=self.broker.url, user="admin", password=Secret("admin")))
        try:
            opened.connect()
            return opened.measure(self.queue, 30)
        except ServerError as error:
            return error
        finally:
            opened.close(10)

    def drain(self, queue: str, **more: str) -> list[tuple[dict[str, str], bytes]]:
        """Empty a queue; return the headers and bodies that it held. `more` headers go into SUBSCRIBE."""
        raw = self.raw()
        # A slow machine may be silent for longer than any second: the broker says when it has no more.
        found = raw.drain(queue, is_empty=lambda: is_empty(self.broker, queue), **more)
        raw.close()
        return found

    def dead_ids(self) -> list[str]:
        """Empty the dead-letter queue; return the event ids it held."""
        return [headers["event_id"] for headers, _ in self.drain(self.dlq)]

    def left(self) -> int:
        """Empty the queue; return how many messages it held."""
        return len(self.drain(self.queue))


def _body(number: int, event_id: str, bad: bool) -> bytes:
    if bad:
        return b"{broken"
    return json.dumps({"event_id": event_id, "request_id": f"r-{number}", "features": [number] * 20}).encode()


@pytest.fixture(scope="session")
def session_hub() -> Iterator[HubProcess]:
    hub = HubProcess().start()
    yield hub
    hub.stop()


def _bus(broker: Any, hub: HubProcess, tmp_path: Path) -> Iterator[Bus]:
    viewer = Viewer(hub.url)
    bus = Bus(broker, hub, tmp_path, viewer)
    yield bus
    bus.close()
    viewer.close()
    for consumer in bus.consumers:
        if not bus.lost_count:
            assert_balanced(consumer.summary)


@pytest.fixture
def bus(any_broker: Any, session_hub: HubProcess, tmp_path: Path) -> Iterator[Bus]:
    """A bus over each of the brokers in turn."""
    yield from _bus(any_broker, session_hub, tmp_path)


@pytest.fixture
def real_bus(activemq: Any, session_hub: HubProcess, tmp_path: Path) -> Iterator[Bus]:
    """A bus over the real ActiveMQ, for what only it can do: restart with its messages kept."""
    yield from _bus(activemq, session_hub, tmp_path)


@pytest.fixture
def embedded_bus(embedded_broker: EmbeddedBroker, session_hub: HubProcess, tmp_path: Path) -> Iterator[Bus]:
    """A bus over the embedded broker, for what has nothing to do with the kind of broker."""
    yield from _bus(embedded_broker, session_hub, tmp_path)
