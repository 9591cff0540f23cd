"""Order by key and by partition, over schedules of reads, settlements, failures, commits, moves and deaths.

Two members share three partitions as the thread that polls would have them do, without a broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from infertool.brokers.kafka.assignment import Assignment, Order
from infertool.brokers.kafka.deliveries import Deliveries
from infertool.brokers.kafka.messages import KafkaMessage
from infertool.brokers.kafka.metadata import MOST, NOTHING, decode
from infertool.message import BodyKind

PARTITIONS, WINDOW, MOST_EVENTS = 3, 64, 3 * 50
_KEYS = (None, b"", b"a", b"b", b"c", b"d")


class Member:
    """A consumer: its partitions, and the events that it has in work."""

    def __init__(self) -> None:
        self.deliveries = Deliveries(WINDOW, 10_000)
        self.in_work: list[KafkaMessage] = []

    def takes(self, most: int) -> list[KafkaMessage]:
        taken = self.deliveries.take(most, 0)
        self.in_work += taken
        return taken

    def picked(self, picks: Sequence[int]) -> list[KafkaMessage]:
        """Remove and return some events of those in work."""
        return [self.in_work.pop(pick % len(self.in_work)) for pick in picks if self.in_work]


class Group(RuleBasedStateMachine):
    """A log of three partitions with gaps, and what the group has committed of it."""

    @initialize(
        order=st.sampled_from(["key", "partition", "none"]),
        logs=st.lists(
            st.lists(st.tuples(st.sampled_from(_KEYS), st.integers(1, 3)), min_size=20, max_size=50),
            min_size=PARTITIONS, max_size=PARTITIONS,
        ),
    )  # fmt: skip
    def begin(self, order: Order, logs: list[list[tuple[bytes | None, int]]]) -> None:
        self.order = order
        self.logs: list[dict[int, bytes | None]] = []
        for log in logs:
            offset, known = 0, dict[int, bytes | None]()
            for key, step in log:
                known[offset] = key
                offset += step
            self.logs.append(known)
        self.commits: list[tuple[int | None, str]] = [(None, "")] * PARTITIONS
        # What no later delivery may repeat, and what was settled since: by partition.
        self.committed: list[set[int]] = [set() for _ in range(PARTITIONS)]
        self.settled: list[set[int]] = [set() for _ in range(PARTITIONS)]
        self.members = [Member(), Member()]
        self.holders = [0] * PARTITIONS
        self.epoch = 0
        for number in range(PARTITIONS):
            self._assign(number, 0)
            self.read(number, 10)
        self.take(0, WINDOW)

    def _assign(self, number: int, member: int) -> None:
        start, text = self.commits[number]
        self.epoch += 1
        self.holders[number] = member
        assignment = Assignment(
            "t", number, self.epoch, start=start, progress=decode(text), ahead=10, order=self.order
        )  # fmt: skip
        self.members[member].deliveries.begin([assignment])
        self.settled[number] = set(self.committed[number])

    def _held(self, number: int) -> tuple[Member, Assignment]:
        member = self.members[self.holders[number]]
        assignment = member.deliveries.find(f"t/{number}")
        assert assignment
        return member, assignment

    @rule(number=st.integers(0, PARTITIONS - 1), count=st.integers(1, 20))
    def read(self, number: int, count: int) -> None:
        member, assignment = self._held(number)
        position = assignment.offsets.end or 0
        offsets = [offset for offset in self.logs[number] if offset >= position][:count]
        fresh = member.deliveries.fresh(assignment, offsets)
        member.deliveries.put(
            assignment,
            [self._message(assignment, offset) for offset in fresh],
            [self.logs[number][offset] for offset in fresh],
        )

    def _message(self, assignment: Assignment, offset: int) -> KafkaMessage:
        return KafkaMessage(
            f"{assignment.name}/{offset}", "t", {}, b"x", BodyKind.BYTES, offset < assignment.taken_before,
            assignment.epoch, str(offset), partition=assignment.name, offset=offset,
        )  # fmt: skip

    @rule(member=st.integers(0, 1), most=st.integers(1, WINDOW))
    def take(self, member: int, most: int) -> None:
        one = self.members[member]
        for message in one.takes(most):
            number, offset = _place(message)
            assert offset not in self.committed[number], "it is done, as a commit says"
            assert self.holders[number] == member
            # All that must come before it is settled.
            before = {each for each in self.logs[number] if each < offset and self._share_a_turn(number, each, offset)}
            assert before <= self.settled[number]
        assert len(one.in_work) <= WINDOW
        turns = [turn for message in one.in_work if (turn := self._turn(*_place(message))) is not None]
        assert len(turns) == len(set(turns)), "two events of a key are in work at once"

    def _turn(self, number: int, offset: int) -> Any:
        """Return what only one event may have at a time."""
        if self.order == "partition":
            return number
        key = self.logs[number][offset]
        return (number, key) if self.order == "key" and key is not None else None

    def _share_a_turn(self, number: int, one: int, other: int) -> bool:
        turn = self._turn(number, other)
        return turn is not None and turn == self._turn(number, one)

    @rule(member=st.integers(0, 1), picks=st.lists(st.integers(0, 1000), min_size=1, max_size=WINDOW))
    def settle(self, member: int, picks: list[int]) -> None:
        self._settle(self.members[member], self.members[member].picked(picks))

    def _settle(self, member: Member, messages: Sequence[KafkaMessage]) -> None:
        assert member.deliveries.settle(messages) == 0
        for message in messages:
            number, offset = _place(message)
            self.settled[number].add(offset)

    @rule(
        member=st.integers(0, 1),
        picks=st.lists(st.integers(0, 1000), min_size=1, max_size=8),
        redelivered=st.booleans(),
    )
    def fail(self, member: int, picks: list[int], redelivered: bool) -> None:
        """A move that was refused, or events that were given back: they come again, in their turn."""
        one = self.members[member]
        one.deliveries.give_back(one.picked(picks), redelivered=redelivered)

    @rule(member=st.integers(0, 1), arrives=st.booleans())
    def commit(self, member: int, arrives: bool) -> None:
        deliveries = self.members[member].deliveries
        self._commit(deliveries, deliveries.assigned, final=False, arrives=arrives)

    def _commit(self, deliveries: Deliveries, of: Sequence[Assignment], *, final: bool, arrives: bool) -> None:
        positions = deliveries.positions(of, final=final)
        if not arrives:
            return
        for position in positions:
            number = position.assignment.number
            self.commits[number] = position.offset, position.text(MOST)
            told = (decode(position.text(MOST)) or NOTHING).is_done
            self.committed[number] = {
                offset for offset in self.logs[number] if offset < position.offset or told(offset)
            }
            assert self.committed[number] <= self.settled[number], "a commit calls done what is not"
        deliveries.committed(positions)

    @rule(
        number=st.integers(0, PARTITIONS - 1), picks=st.lists(st.integers(0, 1000), max_size=30), arrives=st.booleans()
    )
    def move(self, number: int, picks: list[int], arrives: bool) -> None:
        """A partition goes to the other member: some of its events in work end in time, and its commit may fail."""
        member, assignment = self._held(number)
        member.deliveries.leave([assignment])
        own = [message for message in member.in_work if message.partition == assignment.name]
        ended = list({own[pick % len(own)].id: own[pick % len(own)] for pick in picks if own}.values())
        self._settle(member, ended)
        self._commit(member.deliveries, [assignment], final=True, arrives=arrives)
        member.deliveries.end([assignment])
        # What ends later counts for nothing.
        assert member.deliveries.settle(own) == len(own)
        member.in_work = [message for message in member.in_work if message not in own]
        self._assign(number, 1 - self.holders[number])

    @rule(member=st.integers(0, 1))
    def die(self, member: int) -> None:
        """All that it had goes to the other member, from the newest commit on."""
        self.members[member] = Member()
        for number, holder in enumerate(self.holders):
            if holder == member:
                self._assign(number, 1 - member)

    def teardown(self) -> None:
        """Every event is settled in the end."""
        if not hasattr(self, "holders"):
            return
        for _ in range(MOST_EVENTS + 1):
            for number in range(PARTITIONS):
                self.read(number, MOST_EVENTS)
            for number, member in enumerate(self.members):
                self.take(number, WINDOW)
                self._settle(member, member.picked([0] * WINDOW))
        for member in self.members:
            self._commit(member.deliveries, member.deliveries.assigned, final=True, arrives=True)
        for number, log in enumerate(self.logs):
            assert self.committed[number] == log.keys()
            assert not any(member.deliveries.figures().in_work for member in self.members)


def _place(message: KafkaMessage) -> tuple[int, int]:
    return int(message.partition.partition("/")[2]), message.offset


TestGroup = Group.TestCase
