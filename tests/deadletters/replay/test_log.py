"""A replay of dead letters in a log: what is left out stays in its place, unsettled, and nothing is staged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.server import Server
from infertool.brokers.port import Broker
from infertool.deadletters.record import Cause, dead_letter
from infertool.deadletters.replay.audit import Audit
from infertool.deadletters.replay.companions import BusyError, locked
from infertool.deadletters.replay.decide import Fate, Plan
from infertool.deadletters.replay.progress import Tally
from infertool.deadletters.replay.replay import Replay
from infertool.deadletters.replay.sending import Sender
from infertool.deadletters.replay.take import Bus
from infertool.deadletters.selection import select
from infertool.message import BodyKind, Message
from infertool.settings.broker import BrokerSettings

IN, DEAD = "in", "in.dlq"
COUNT = 30
TIMEOUT_S = 30.0
CAPABILITIES_OF_A_LOG = replace(CAPABILITIES, log=True, atomic_move=False, exclusive=False, selectors=False)
CAUSE = Cause("e", "", "infer", "Odd", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")


class Log:
    """Letters in two partitions of a log; the error of every third is `Third`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        partitions = server.partition(DEAD, 2)
        self.address = server.new_address()
        self.settings = BrokerSettings(url=self.address.url)
        self.broker: Broker = brokers.open(self.settings)
        for number in range(COUNT):
            event = Message(
                f"m{number}", IN, {}, b'{"n":%d}' % number, BodyKind.TEXT, redelivered=False, epoch=0, token=""
            )
            cause = replace(CAUSE, error_type="Third" if number % 3 == 0 else "Odd")
            server.send(dead_letter(event, cause, DEAD, self.broker.conventions, atomic=False))
        partitions.assign(self.address)
        self.broker.connect()

    def replay(
        self, elsewhere: Sender | None = None, depth: int = COUNT, audit: Path | None = None, **changes: Any
    ) -> Tally:
        plan = Plan(queue=DEAD, run="r", began=0.0, depth=depth, **changes)
        bus = Bus(lambda linked: brokers.open(self.settings, on_connection=linked), TIMEOUT_S, lambda _: None)
        with nullcontext() if audit is None else Audit(audit, plan, "me") as record:
            run = Replay(bus, plan, stop=threading.Event(), audit=record, broker=self.broker, elsewhere=elsewhere)
            return run.run()

    def bodies(self, queue: str) -> set[bytes]:
        return {stored.outgoing.body for stored in self.server.held(queue)}


@pytest.fixture
def log() -> Iterator[Log]:
    with Server("log", CAPABILITIES_OF_A_LOG) as server:
        made = Log(server)
        yield made
        made.broker.close(1.0)
        assert [name for name in server._queues if name not in {IN, DEAD}] == []


def numbered(*numbers: int) -> set[bytes]:
    return {b'{"n":%d}' % number for number in numbers}


def test_what_does_not_match_stays_unsettled_in_its_place(log: Log) -> None:
    tally = log.replay(selection=select(error="Third", now=0.0))
    assert (tally.replayed, tally.fates[Fate.OTHER], tally.staged) == (10, 20, 0)
    assert log.bodies(IN) == numbered(*range(0, COUNT, 3))
    assert log.bodies(DEAD) == numbered(*(number for number in range(COUNT) if number % 3))
    # What stayed is the work of the next run.
    assert log.replay(depth=20).replayed == 20
    assert log.bodies(DEAD) == set()


def test_a_copy_sends_and_settles_nothing(log: Log) -> None:
    tally = log.replay(copy=True, selection=select(error="Third", now=0.0))
    assert (tally.replayed, tally.staged) == (10, 0)
    assert log.bodies(IN) == numbered(*range(0, COUNT, 3))
    assert log.bodies(DEAD) == numbered(*range(COUNT))


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"copy": True}, ("replay", "copied")), ({"max_replays": 0}, ("keep", "kept")), ({}, ("replay", "replayed"))],
)
def test_the_audit_has_an_intent_and_an_outcome_of_each(
    log: Log, tmp_path: Path, changes: dict[str, Any], told: tuple[str, str]
) -> None:
    path = tmp_path / "audit.jsonl"
    log.replay(audit=path, **changes)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    intents = {line["original_id"]: line["intent"] for line in lines if "intent" in line}
    outcomes = {line["original_id"]: line["outcome"] for line in lines if "outcome" in line}
    assert len(intents) == len(outcomes) == COUNT
    assert {(intent, outcomes[letter]) for letter, intent in intents.items()} == {told}


def test_letters_that_may_not_be_replayed_stay_and_the_run_ends(log: Log) -> None:
    tally = log.replay(max_replays=0)
    assert (tally.replayed, tally.fates[Fate.KEEP]) == (0, COUNT)
    assert log.bodies(DEAD) == numbered(*range(COUNT))


def test_to_another_broker(log: Log) -> None:
    with Server("elsewhere") as there:
        other = brokers.open(BrokerSettings(url=there.url))
        other.connect()
        tally = log.replay(Sender(other, threading.Event()), selection=select(error="Third", now=0.0))
        assert tally.replayed == 10
        assert {stored.outgoing.body for stored in there.held(IN)} == numbered(*range(0, COUNT, 3))
        other.close(1.0)
    assert len(log.bodies(DEAD)) == 20


def test_a_run_begins_while_its_group_has_no_consumer(log: Log) -> None:
    with locked(log.broker, DEAD, "me") as ahead_s:
        assert ahead_s == 0.0
    log.broker.subscribe(DEAD, window=1)
    with (
        pytest.raises(BusyError, match=r"another run works on in\.dlq: its group has 1 consumers"),
        locked(log.broker, DEAD, "me"),
    ):
        pass
