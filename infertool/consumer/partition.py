"""What is known of the deliveries of one partition: their assignment, and which of them are expected once more.

A connection without partitions has one, with the name "".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from infertool.consumer.attempt import Event, FailedEvent
from infertool.message import Identity, Message

_NONE: Final = -1


class Finished(Struct, eq=False, gc=False):
    """An event that was closed. `failed` is None when the result was confirmed; else its dead letter may have arrived.

    It is `reopened` when that event came back to be moved again, `forgotten` when the memory was too small for it.
    """

    identity: Identity
    failed: FailedEvent | None
    partition: str
    reopened: bool = False
    forgotten: bool = False


Known = Event | Finished


class Partition:
    """Not thread-safe. `epoch` is the number of the newest connection or assignment that delivered something.

    Deliveries of `admitted` are taken in without a further look; those up to `left` are given back.
    """

    __slots__ = ("admitted", "awaited", "epoch", "left", "moved", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = 0
        self.admitted = _NONE
        self.left = _NONE
        # What earlier connections delivered, and the living one has not yet delivered again.
        self.awaited: dict[Identity, list[Known]] = {}
        # Those of the living connection whose dead letters are being moved, or were refused: some adapters give them
        # back on it.
        self.moved: dict[Identity, list[Known]] = {}

    def begin(self, epoch: int, finished: Iterable[Finished], events: Iterable[Event]) -> bool:
        """Expect the deliveries of earlier epochs again. Returns False if `epoch` is over itself."""
        if epoch < self.epoch or epoch <= self.left:
            return False
        self.epoch = self.admitted = epoch
        self.awaited, self.moved = {}, {}
        for each in finished:
            if each.partition == self.name and not each.reopened:
                self.awaited.setdefault(each.identity, []).append(each)
        for event in events:
            if event.message.partition == self.name:
                self.awaited.setdefault(event.message.identity, []).append(event)
        return True

    def leave(self) -> None:
        """Take in nothing more of this epoch: the partition goes to another consumer."""
        self.left = self.epoch
        self.admitted = _NONE

    def known(self, message: Message) -> Known | None:
        """Return what `message` is a redelivery of, once."""
        if self.awaited and (found := _pop(self.awaited, message.identity)):
            return found
        return _pop(self.moved, message.identity) if self.moved and message.redelivered else None

    def expect_moved(self, known: Known, message: Message) -> None:
        """Expect `message` again, on its own connection too, because it is moved or its move was refused."""
        if message.epoch == self.epoch:
            self.moved.setdefault(message.identity, []).append(known)

    def end_move(self, event: Event) -> None:
        """Note that the move of an event has ended."""
        _remove(self.moved, event.message.identity, event)

    def replace_awaited(self, event: Event, finished: Finished | None) -> None:
        """Expect `finished`, or nothing, in place of an event that was closed after its epoch was over."""
        if event.message.epoch == self.epoch:
            return
        identity = event.message.identity
        _remove(self.awaited, identity, event)
        if finished:
            self.awaited.setdefault(identity, []).append(finished)


def _pop(known: dict[Identity, list[Known]], identity: Identity) -> Known | None:
    """Take the newest: of several equal messages the broker has most likely removed those that were acked first."""
    events = known.get(identity)
    if events is None:
        return None
    found = events.pop()
    if not events:
        del known[identity]
    return found


def _remove(known: dict[Identity, list[Known]], identity: Identity, event: Event) -> None:
    events = known.get(identity, [])
    if event in events:
        events.remove(event)
        if not events:
            del known[identity]
