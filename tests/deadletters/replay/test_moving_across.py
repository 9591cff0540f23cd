"""Letters that move to another broker: confirmed there, then taken off here."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers import header_types
from infertool.brokers.memory.adapter import CAPABILITIES, CONVENTIONS
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.brokers.port import Broker
from infertool.brokers.stomp.conventions import ACTIVEMQ
from infertool.brokers.stomp.conventions import CONVENTIONS as STOMP
from infertool.cli.replay_dlq.view import preview
from infertool.deadletters import letters
from infertool.deadletters.archive.journal import Journal
from infertool.deadletters.archive.restore import Archive, Restore, look
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.record import Cause, dead_letter
from infertool.deadletters.replay import companions, take
from infertool.deadletters.replay import replay as replay_module
from infertool.deadletters.replay.crossings import Crossing
from infertool.deadletters.replay.decide import Decider, Fate, Plan
from infertool.deadletters.replay.progress import Tally
from infertool.deadletters.replay.replay import Replay
from infertool.deadletters.replay.sending import Sender
from infertool.deadletters.replay.take import Bus
from infertool.errors import InfertoolError
from infertool.message import Message, Outgoing
from infertool.settings.broker import BrokerSettings
from tests.brokers.conformance.test_6_content import TYPED
from tests.deadletters.replay.test_crossing import of_stomp
from tests.support.brokers import TIMEOUT_S
from tests.support.brokers import take as take_messages

COUNT = 12
_numbers = itertools.count(1)
CAUSE = Cause("e", "", "infer", "E", "no", 1, "2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", "c", "m")
PLAN = Plan(queue="dead", run="r", began=0.0, depth=9)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (take, replay_module, companions):
        for name, value in {"QUIET_S": 0.1, "PATIENCE_S": 0.2, "_POLL_S": 0.005}.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


@dataclass
class Two:
    """Two brokers in process; the second has the letters' target."""

    here: Server
    there: Server

    def fill(self) -> None:
        """Have events fail here, as a consumer does."""
        broker = self.broker(self.here.url)
        subscription = broker.subscribe("in", window=COUNT)
        for n in range(COUNT):
            headers, types = header_types.to_texts({**TYPED, "event_id": f"e{n}"})
            self.here.send(Outgoing("in", b'{"n": %d}' % n, headers=headers, types=types))
        for each in take_messages(subscription, COUNT):
            self.here.send(self.dies(each, self.here))
            subscription.ack([each])
        broker.close(TIMEOUT_S)

    def dies(self, event: Message, server: Server) -> Outgoing:
        cause = replace(CAUSE, event_id=event.headers["event_id"])
        return dead_letter(event, cause, "dead", CONVENTIONS, atomic=server.capabilities.atomic_move)

    def move(self, there_url: str = "", here_url: str = "") -> Tally:
        here, there = self.broker(here_url or self.here.url), self.broker(there_url or self.there.url)
        stop = threading.Event()
        plan = Plan(queue="dead", run=f"run{next(_numbers)}", began=time.time(), depth=self.depth(), batch=5)
        url = here_url or self.here.url
        bus = Bus(lambda on_connection: brokers.open(settings(url), on_connection=on_connection), 0.3, _nothing)
        try:
            return Replay(bus, plan, stop=stop, broker=here, elsewhere=Sender(there, stop)).run()
        finally:
            here.close(TIMEOUT_S)
            there.close(TIMEOUT_S)

    def depth(self) -> int | None:
        depth = self.here.depth("dead")
        return depth.size if depth else None

    def broker(self, url: str) -> Broker:
        broker = brokers.open(settings(url))
        broker.connect()
        return broker


def settings(url: str) -> BrokerSettings:
    return BrokerSettings(url=url, receipt_timeout_s=0.3, reconnect_base_s=0.001, reconnect_max_s=0.01)


def _nothing(_event: object) -> None:
    pass


@pytest.fixture(params=[True, False], ids=["atomic", "not atomic"])
def two(request: pytest.FixtureRequest) -> Iterator[Two]:
    number = next(_numbers)
    can = replace(CAPABILITIES, atomic_move=request.param)
    with Server(f"here-{number}", can) as here, Server(f"there-{number}", can) as there:
        two = Two(here, there)
        two.fill()
        yield two


def ids(server: Server, queue: str) -> list[str]:
    return [stored.outgoing.headers["event_id"] for stored in server.held(queue)]


ALL = [f"e{n}" for n in range(COUNT)]


def test_letters_move_to_another_broker_with_their_types(two: Two) -> None:
    tally = two.move()
    assert (tally.replayed, tally.losses.total()) == (COUNT, 0)
    assert (ids(two.there, "in"), ids(two.here, "dead"), ids(two.here, "in")) == (ALL, [], [])
    for stored in two.there.held("in"):
        sent = stored.outgoing
        assert header_types.from_texts(sent.headers, sent.types).items() >= TYPED.items()


def test_a_broker_without_types_gets_texts_and_that_is_counted(two: Two) -> None:
    with Server(f"bare-{next(_numbers)}", replace(CAPABILITIES, header_types=False)) as bare:
        here, there = two.broker(two.here.url), two.broker(bare.url)
        plan = Plan(queue="dead", run="r", began=time.time(), depth=COUNT)
        crossing = Crossing(CONVENTIONS, CONVENTIONS, there.capabilities)
        shown = preview(plan, here.browse("dead", limit=100, timeout_s=TIMEOUT_S), CONVENTIONS, crossing)
        lost = "the type int of the header retries: it becomes a text"
        assert f"  lost: {COUNT}, {lost}" in shown.lines()
        assert shown.document()["losses"][lost] == COUNT
        assert two.move(bare.url).summary()["losses"][lost] == COUNT
        here.close(TIMEOUT_S)
        there.close(TIMEOUT_S)


Fault = Callable[[Two], tuple[str, str]]


def _confirmation_lost(two: Two) -> tuple[str, str]:
    address = two.there.new_address()
    address.faults.plan(Operation.SEND, Effect.CUT_AFTER, skip=2)
    return address.url, ""


def _ack_lost(two: Two) -> tuple[str, str]:
    address = two.here.new_address()
    for operation in (Operation.COMMIT, Operation.ACK):
        address.faults.plan(operation, Effect.CUT_BEFORE, skip=1)
    return "", address.url


@pytest.mark.parametrize("fault", [_confirmation_lost, _ack_lost])
def test_a_fault_in_between_leaves_at_most_a_double_with_one_replay_id(two: Two, fault: Fault) -> None:
    there_url, here_url = fault(two)
    two.move(there_url, here_url)
    assert (set(ids(two.there, "in")), ids(two.here, "dead")) == (set(ALL), [])
    sent = {(stored.outgoing.headers["event_id"], stored.outgoing.headers["replay_id"]) for stored in arrived(two)}
    assert len(sent) == COUNT


def arrived(two: Two) -> list[Any]:
    return two.there.held("in")


def test_a_run_that_is_killed_between_both_leaves_doubles_that_are_recognised(two: Two) -> None:
    """It had sent everything, and taken nothing off: the next run sends all again."""
    first = two.broker(two.here.url)
    stop = threading.Event()
    there = two.broker(two.there.url)
    crossing = Crossing(CONVENTIONS, CONVENTIONS, there.capabilities)
    decider = Decider(Plan(queue="dead", run="killed", began=0.0, depth=COUNT), CONVENTIONS, crossing)
    shown = first.browse("dead", limit=100, timeout_s=TIMEOUT_S).messages
    Sender(there, stop).send([decider.decide(each).replacement for each in shown])
    two.move()
    assert (sorted(ids(two.there, "in")), ids(two.here, "dead")) == (sorted(ALL * 2), [])
    pairs = {(stored.outgoing.headers["event_id"], stored.outgoing.headers["replay_id"]) for stored in arrived(two)}
    assert len(pairs) == COUNT
    # Both of each fail there: the tools there know that they are one.
    subscription = there.subscribe("in", window=100)
    for each in take_messages(subscription, 2 * COUNT):
        two.there.send(two.dies(each, two.there))
        subscription.ack([each])
    dead = there.browse("dead", limit=100, timeout_s=TIMEOUT_S)
    seen, doubles = letters.once([letters.read(each) for each in dead.messages])
    assert (len(seen), doubles) == (COUNT, COUNT)
    fates = [Decider(PLAN, CONVENTIONS).decide(each).fate for each in dead.messages]
    assert set(fates) == {Fate.REPLAY}
    decider = Decider(PLAN, CONVENTIONS)
    fates = [decider.decide(each).fate for each in dead.messages]
    assert (fates.count(Fate.REPLAY), fates.count(Fate.DOUBLE)) == (COUNT, COUNT)
    for broker in (first, there):
        broker.close(TIMEOUT_S)


def test_a_target_that_refuses_keeps_the_letters_here(two: Two) -> None:
    address = two.there.new_address()
    address.faults.plan(Operation.SEND, Effect.REFUSE, times=1)
    tally = two.move(address.url)
    assert (tally.replayed, len(ids(two.here, "dead")), len(arrived(two))) == (COUNT - 1, 1, COUNT - 1)


def test_an_archive_of_one_broker_is_sent_to_another(two: Two, tmp_path: Path) -> None:
    """The archive is the memory broker's; a broker without types gets it, and its names of queues are its own."""
    path = tmp_path / "dead.jsonl"
    here = two.broker(two.here.url)
    with ArchiveWriter(path) as writer:
        writer.append(here.browse("dead", limit=100, timeout_s=TIMEOUT_S).messages)
        writer.append([of_stomp(event_id="of-stomp")])
    here.close(TIMEOUT_S)
    plan = Plan(queue="dead", run="r", began=0.0, depth=None)
    with Server(f"bare-{next(_numbers)}", replace(CAPABILITIES, header_types=False)) as bare, Journal(path) as journal:
        archive = Archive(path, None, STOMP)
        found = look(archive, plan, journal, STOMP, ACTIVEMQ)
        assert found.tally.targets == {"/queue/in": COUNT, "/queue/a.b": 1}
        assert found.tally.losses["the type int of the header retries: it becomes a text"] == COUNT
        there = two.broker(bare.url)
        tally = Restore(there, archive, plan, journal, stop=threading.Event()).run()
        assert tally.targets == {"in": COUNT, "a.b": 1}
        assert tally.losses["the type int of the header retries: it becomes a text"] == COUNT
        assert (ids(bare, "in"), ids(bare, "a.b")) == (ALL, ["of-stomp"])
        there.close(TIMEOUT_S)


def test_a_run_without_a_target_is_an_error_before_anything_is_done(two: Two) -> None:
    two.there.stop()
    with pytest.raises(InfertoolError):
        two.move()
    assert ids(two.here, "dead") == ALL
