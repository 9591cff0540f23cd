"""Kafka: nothing is lost over deaths of consumers and of the broker, and nothing that is committed is repeated."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infertool.brokers.kafka.metadata import NOTHING, decode
from tests.bus.kafkalives import GROUP, Life, Members, eventually, keep, payload
from tests.support import kafka
from tests.support.rawkafka import RawKafka, headers_of

pytestmark = [pytest.mark.long, pytest.mark.kafka]

TOPIC, PARTITIONS, KILLS = "events", 6, 20
# TESTS_FULL=1 runs the full size: three times the events, and slow ones of 30 s. No name of infertool's: it would be a
# setting that does not exist.
IS_FULL = os.environ.get("TESTS_FULL") == "1"
EVENTS, SLOW_S = (20_000, 30.0) if IS_FULL else (6000, 5.0)
# The first slow event is there for all deaths, the last one for none.
SLOW = (12, EVENTS - 12)
PORTION = EVENTS // 200
# Of four deaths of members, the guest is there at two; those of the broker are apart from these.
GUEST_COMES, GUEST_GOES = 0, 2
BROKER_DEATHS = {7: kafka.Kafka.kill, 15: kafka.Kafka.stop}


def event(number: int) -> bytes:
    """Return an event: 5 % fail, as many once; 1 % cannot be read."""
    if is_poison(number):
        return b"\xff%d" % number
    fails = {0: "always", 10: "once"}.get(number % 20, "never")
    return payload(number, seconds=SLOW_S if number in SLOW else 0.005, fails=fails)


def is_poison(number: int) -> bool:
    return number % 100 == 1


def done(raw: RawKafka) -> set[int]:
    """Return the numbers of the events that the group's commits call done. Event n is at n // 6 of partition n % 6."""
    numbers: set[int] = set()
    for partition, commit in raw.committed(GROUP, TOPIC).items():
        progress = decode(commit.metadata) or NOTHING
        offsets = [*range(commit.offset), *(offset for run in progress.done for offset in run)]
        numbers.update(offset * PARTITIONS + partition for offset in offsets)
    return numbers


def shares(raw: RawKafka) -> dict[int, int]:
    """Return how many partitions each member of the group has, by its process, which its client id names."""
    return {
        int(member.client_id.rpartition(":")[2]): len(member.assignment.topic_partitions)
        for member in raw.describe(GROUP).members
    }


@dataclass
class Run:
    """Two static members that are killed in turn, a guest that comes and goes, and what became of the events."""

    broker: kafka.Kafka
    members: Members
    sent: int = 0
    # What the commits called done at the newest death, and what of that was begun since.
    done: set[int] = field(default_factory=set)
    repeats: set[int] = field(default_factory=set)
    # At each death: what was sent, and of that not yet committed.
    open: list[set[int]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.raw = RawKafka(self.broker.client())
        self.raw.topic(PARTITIONS, name=TOPIC)
        self.raw.topic(1, name=f"{TOPIC}.dlq")
        self.static = [self.members.start(name, static=True) for name in "ab"]
        self.wait_for_share(*self.static)

    def wait_for_share(self, *lives: Life) -> None:
        """Wait until these have partitions."""
        eventually(lambda: all(shares(self.raw).get(life.pid) for life in lives), lambda: f"{shares(self.raw)}")

    def send(self, count: int) -> None:
        numbers = range(self.sent, min(self.sent + count, EVENTS))
        for partition in range(PARTITIONS):
            own = (event(number) for number in numbers if number % PARTITIONS == partition)
            self.raw.send(TOPIC, *own, partition=partition)
        self.sent = numbers.stop

    def feed(self, life: Life, count: int) -> None:
        """Send events until `life` has begun so many: a few at a time, since others take them, too."""
        most = self.sent + EVENTS // KILLS
        due = 0.0

        def enough() -> bool:
            nonlocal due
            now = time.monotonic()
            if now >= due and self.sent - len(self.members.begun()) < 2 * PORTION:
                self.send(PORTION)
                due = now + (0.1 if self.sent < most else 1.0)
            return life.has_begun(count)

        eventually(enough, life.told)

    def kill(self, which: int, end_broker: Callable[[kafka.Kafka], None] | None) -> None:
        dying, other = self.static[which], self.static[1 - which]
        if end_broker:
            # Whoever starts without a broker is refused.
            self.feed(other, 1)
            end_broker(self.broker)
            eventually(dying.stops_at_work, dying.told)
            dying.kill()
            self.broker.start()
            # A client of before may wait for an answer of the dead broker.
            self.raw = RawKafka(self.broker.client())
        else:
            eventually(dying.stops_at_work, dying.told)
            dying.kill()
        self.check()
        self.done |= done(self.raw)
        self.members.look()
        begun, ended = set(dying.begun()), set(dying.ended())
        self.open.append(set(range(self.sent)) - self.done)
        counts = f"{len(begun)} begun, {len(begun - ended)} in work, {len(ended - self.done)} ended without a commit"
        self.told.append(f"{dying.name}: {counts}")
        self.static[which] = self.members.start("ab"[which], static=True)

    def check(self) -> None:
        """Look for events that were done at the newest death, and were begun since."""
        self.repeats |= self.members.look() & self.done

    def finish(self) -> None:
        self.send(EVENTS)
        everything = set(range(EVENTS))
        eventually(lambda: done(self.raw) >= everything, lambda: f"{sorted(everything - done(self.raw))[:50]}")
        self.check()
        for life in self.static:
            life.stop()
        assert done(self.raw) == everything

    def was_open(self, number: int) -> bool:
        """Return True if an event was there at a death, and not committed."""
        return any(number in those for those in self.open)

    def letters(self) -> tuple[dict[int, set[bytes | None]], dict[int, set[bytes | None]]]:
        """Return the ids and the stages of the dead letters of each event."""
        ids: dict[int, set[bytes | None]] = {}
        stages: dict[int, set[bytes | None]] = {}
        for letter in self.raw.all(f"{TOPIC}.dlq"):
            headers = dict(headers_of(letter))
            _, place, offset = (headers["original_message_id"] or b"").split(b"/")
            number = int(offset) * PARTITIONS + int(place)
            ids.setdefault(number, set()).add(headers["dlq_id"])
            stages.setdefault(number, set()).add(headers["dlq_stage"])
        return ids, stages


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with kafka.running(tmp_path / "kafka") as broker:
        members = Members(broker, TOPIC, tmp_path)
        try:
            yield Run(broker, members)
        finally:
            members.end()


def test_every_event_is_published_or_a_dead_letter(run: Run) -> None:
    rng = random.Random(15)
    for kill in range(KILLS):
        if kill % 4 == GUEST_COMES:
            guest = run.members.start("guest", static=False)
        run.feed(run.static[kill % 2], rng.randrange(1, PORTION // 2))
        run.kill(kill % 2, BROKER_DEATHS.get(kill))
        if kill % 4 == GUEST_GOES:
            run.wait_for_share(guest)
            guest.stop()
    assert run.sent < EVENTS, "the deaths came after the work"
    run.finish()
    assert run.repeats == set()
    results = run.members.results()
    ids, stages = run.letters()
    assert results | ids.keys() == set(range(EVENTS))
    # The doubles of a letter have one id.
    assert all(len(each) == 1 for each in ids.values())
    # No event fails but those that must: the guard condemns none for deaths that no event causes.
    condemned = {number for number in ids if number % 20 and not is_poison(number)}
    assert condemned == set(), [(number, stages[number]) for number in condemned]
    assert_repeats_were_open(run)


def assert_repeats_were_open(run: Run) -> None:
    """Check that what two lives began was not committed when one of them died, or was in work when it moved."""
    lives = Counter(number for life in run.members.lives for number in set(life.begun()))
    repeated = {number for number, count in lives.items() if count > 1}
    total = f"{EVENTS} events, {KILLS} deaths: {len(repeated)} in more than one life"
    keep("kafka_deaths.txt", [*run.told, total])
    unexplained = {number for number in repeated if not run.was_open(number)}
    # A member that was kept waiting for too long says what is repeated for that.
    assert not unexplained or any("repeated" in life.told() for life in run.members.lives), unexplained
