"""A connection that ends amid the acks of a batch, where moves are not atomic: some letters are moved, others not."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infertool import brokers
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Address, Server
from infertool.brokers.port import Broker
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.replay import replay, take
from infertool.deadletters.replay.audit import Audit
from infertool.deadletters.replay.decide import Plan
from infertool.deadletters.replay.drain import Drain, Progress
from infertool.deadletters.replay.replay import Replay
from infertool.deadletters.replay.take import Bus, Taker
from infertool.message import Outgoing
from infertool.settings.broker import BrokerSettings
from tests.support.brokers import TIMEOUT_S

# Of 7 letters 2 are acked, then the connection ends.
COUNT, ACKED = 7, 2
_numbers = itertools.count(1)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(f"partly-{next(_numbers)}", replace(CAPABILITIES, atomic_move=False)) as server:
        for n in range(COUNT):
            server.send(Outgoing("dead", b"%d" % n, headers={"event_id": f"e{n}", "original_destination": "events"}))
        yield server


@pytest.fixture
def place(server: Server, monkeypatch: pytest.MonkeyPatch) -> Address:
    # Nothing more comes: what was done is known at once, and not waited for.
    for module in (take, replay):
        monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    place = server.new_address()
    place.faults.plan(Operation.ACK, Effect.CUT_BEFORE, skip=ACKED)
    return place


def bus_to(place: Address) -> Bus:
    settings = BrokerSettings(url=place.url, reconnect_base_s=0.001, reconnect_max_s=0.01)
    return Bus(lambda linked: brokers.open(settings, on_connection=linked), TIMEOUT_S, lambda _event: None)


def opened(server: Server) -> Broker:
    broker = brokers.open(BrokerSettings(url=server.url))
    broker.connect()
    return broker


def test_only_what_comes_again_is_taken_back(server: Server, place: Address, tmp_path: Path) -> None:
    plan = Plan(queue="dead", run="r", began=time.time(), depth=COUNT)
    broker, path = opened(server), tmp_path / "audit.jsonl"
    with Audit(path, plan, "me") as audit:
        tally = Replay(bus_to(place), plan, stop=threading.Event(), audit=audit, broker=broker).run()
    broker.close(TIMEOUT_S)
    assert server.held("dead") == []
    assert {stored.outgoing.headers["event_id"] for stored in server.held("events")} == {f"e{n}" for n in range(COUNT)}
    assert (tally.replayed, tally.in_doubt) == (COUNT, ACKED)
    lines = map(json.loads, path.read_text().splitlines())
    outcomes = {line["event_id"]: line["outcome"] for line in lines if "outcome" in line}
    assert [outcomes[f"e{n}"] for n in range(COUNT)] == ["in doubt"] * ACKED + ["replayed"] * (COUNT - ACKED)


def test_a_drain_counts_each_letter_once(server: Server, place: Address, tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.jsonl") as archive, Taker(bus_to(place), "dead", stop=threading.Event()) as taker:
        drain = Drain(archive, depth=COUNT, began=time.time(), on_progress=lambda _progress: None)
        drain.run(taker)
    assert server.held("dead") == []
    assert drain.progress == Progress(archived=COUNT, known=0, removed=COUNT, left=0)
