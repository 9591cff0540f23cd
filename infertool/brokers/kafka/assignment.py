"""One partition from its assignment until it is revoked. Not thread-safe: `deliveries.Deliveries` has the lock."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from operator import attrgetter
from typing import Final, Literal

from infertool.brokers.kafka.messages import KafkaMessage
from infertool.brokers.kafka.metadata import NOTHING, Progress, decode, encode
from infertool.brokers.kafka.offsets import Offsets
from infertool.brokers.kafka.order import KeyOrder

Order = Literal["none", "key", "partition"]

# The key of all events of a partition, where they are given out one after another.
_ANY_KEY: Final = b""
# These run for each event: a lookup by `map` takes half of that in a loop.
OFFSET: Final = attrgetter("offset")
_MEMORY: Final = attrgetter("memory")


class Assignment:
    """What is known of a partition that this consumer has. `start` is None where nothing was committed yet.

    `ahead` events beyond the newest one that was given out may be given out before the next commit says so: those are
    marked as redelivered after a crash.
    """

    def __init__(
        self,
        topic: str,
        number: int,
        epoch: int,
        *,
        start: int | None,
        progress: Progress | None,
        leader_epoch: int | None = None,
        ahead: int,
        order: Order,
    ) -> None:
        self.number = number
        self.name = f"{topic}/{number}"
        self.epoch = epoch
        # Another program's commit, which is left as it is until an event is settled.
        self.is_foreign = False
        earlier = progress or NOTHING
        self.offsets = Offsets(start, earlier)
        # That of the last event below `offsets.reach`, None where it is not known: it tells two logs apart.
        self.leader_epoch = leader_epoch
        # Below, an earlier consumer may have had events in work.
        self.taken_before = max(earlier.taken, start or 0)
        # That of the topic, once it was told.
        self.topic_id = ""
        # It goes to another consumer: nothing more is given out.
        self.is_leaving = False
        self.is_paused = False
        # Bytes of memory that events take which were read and not given out yet, held ones among them.
        self.waiting_bytes = 0
        self.in_work: set[int] = set()
        self.ahead = ahead
        self._order: KeyOrder[KafkaMessage] | None = None if order == "none" else KeyOrder()
        self._by_key = order == "key"
        self._newest = -1
        # What the newest commit says is given out.
        self._told = earlier.taken
        # Changes, and how many of them were committed.
        self._changes = 0
        self._committed = 0
        self.committed_offset = start

    @property
    def has_order(self) -> bool:
        """Return True if events may have to wait for others, for which `hold` needs their keys."""
        return self._order is not None

    @property
    def held(self) -> int:
        """How many events wait for an earlier one of their key."""
        return self._order.held if self._order else 0

    @property
    def is_changed(self) -> bool:
        """Return True if there is something to commit."""
        watermark = self.offsets.watermark
        if watermark is None or self.is_foreign:
            return False
        # What was done before, or is no event, moves the watermark when it is read.
        return self._changes != self._committed or watermark != self.committed_offset

    @property
    def is_urgent(self) -> bool:
        """Return True if events are given out of which no commit tells, or soon will be."""
        return self._newest + self.ahead // 4 >= self._told and self._newest >= 0 and not self.is_foreign

    def note_epoch(self, leader_epoch: int | None) -> None:
        """Note the epoch of the leader that wrote the event before `offsets.end`."""
        if leader_epoch is not None and (self.leader_epoch is not None or self.offsets.end == self.offsets.reach):
            self.leader_epoch = max(leader_epoch, self.leader_epoch or 0)

    def hold(self, messages: Sequence[KafkaMessage], keys: Sequence[bytes | None]) -> Sequence[KafkaMessage]:
        """Take in events that were read; return those that can be given out."""
        self.waiting_bytes += sum(map(_MEMORY, messages))
        order = self._order
        if order is None:
            return messages
        return [
            message
            for message, key in zip(messages, keys, strict=True)
            if order.add(message.offset, key if self._by_key else _ANY_KEY, message)
        ]

    def give_out(self, messages: Sequence[KafkaMessage]) -> None:
        """Note that events go into work."""
        offsets = [*map(OFFSET, messages)]
        self.in_work.update(offsets)
        newest = max(offsets)
        self._newest = max(self._newest, newest)
        self.waiting_bytes -= sum(map(_MEMORY, messages))

    def take_back(self, message: KafkaMessage) -> None:
        """Note that an event is not in work any more, and waits again."""
        self.in_work.remove(message.offset)
        self.waiting_bytes += message.memory

    def settle(self, offsets: AbstractSet[int]) -> list[KafkaMessage]:
        """Note that events in work are done; return those that can be given out now."""
        self.offsets.settle(offsets)
        self.is_foreign = False
        self._changes += 1
        return self._end_work(offsets)

    def pass_over(self, offsets: AbstractSet[int]) -> list[KafkaMessage]:
        """Take events out of work without settling them; return those that can be given out now."""
        self.offsets.pass_over(offsets)
        return self._end_work(offsets)

    def _end_work(self, offsets: AbstractSet[int]) -> list[KafkaMessage]:
        self.in_work -= offsets
        if self._order is None:
            return []
        following = map(self._order.settle, sorted(offsets))
        return [message for message in following if message is not None]

    def position(self, *, final: bool) -> Position | None:
        """Return what to commit, None where nothing changed. With `final`, nothing more will be given out."""
        has_given = self._newest >= 0
        if self.is_urgent or (final and has_given):
            self._changes += 1
        watermark = self.offsets.watermark
        if not self.is_changed or watermark is None:
            return None
        ahead = self.ahead if has_given and not final else 0
        taken = max(self.taken_before, self._newest + 1 + ahead)
        return Position(self, self._changes, watermark, self.offsets.done(), taken, self.leader_epoch)

    def committed(self, position: Position) -> None:
        """Note that a commit succeeded."""
        self._committed = max(self._committed, position.change)
        self._told = position.taken
        self.committed_offset = position.offset


class Position:
    """What is committed of an assignment: all before `offset` is done, and the runs of `done`.

    `is_cut` says of its newest text that not all of these fitted.
    """

    __slots__ = ("assignment", "change", "done", "is_cut", "leader_epoch", "offset", "taken")

    def __init__(
        self, assignment: Assignment, change: int, offset: int, done: list[range], taken: int, leader_epoch: int | None
    ) -> None:
        self.assignment = assignment
        self.change = change
        self.offset = offset
        self.done = done
        self.taken = taken
        self.leader_epoch = leader_epoch
        self.is_cut = False

    def text(self, most: int) -> str:
        """Return the commit's metadata, of `most` characters."""
        text = encode(self.done, self.taken, most)
        # Only a long one can be.
        self.is_cut = len(text) > most // 2 and (decode(text) or NOTHING).done[-1:] != (self.done[-1],)
        return text
