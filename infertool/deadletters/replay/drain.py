"""Empties a queue: each message is archived, and synced to disk, before it is acked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from infertool.brokers.port import Move
from infertool.deadletters import letters
from infertool.deadletters.archive.packing import MOST_BODY
from infertool.deadletters.archive.writer import ArchiveWriter
from infertool.deadletters.letters import key
from infertool.deadletters.replay.take import PATIENCE_S, QUIET_S, State, Taker
from infertool.errors import InfertoolError
from infertool.message import Message

# Messages that must stay in the queue take up the window. With this number, few others fit beside them.
_MOST_LEFT: Final = 100
WHY_LEFT: Final = (
    "a JMS map, object or stream (or an empty text), whose body STOMP does not show, or larger than 100 MiB"
)


@dataclass(slots=True)
class Progress:
    """The numbers of messages of a drain.

    `archived` were written to the archive now, `known` were in it before; `removed` were taken off the queue; `left`
    cannot be archived over STOMP and stay in the queue.
    """

    archived: int = 0
    known: int = 0
    removed: int = 0
    left: int = 0


class Drain:
    """Removes all messages that were in the queue at the start. Without an archive they are lost.

    `depth` is their number, None if the broker does not tell it: then the drain ends at the first letter that failed
    after `began` (seconds since the epoch), or when nothing more comes.
    """

    def __init__(
        self,
        archive: ArchiveWriter | None,
        *,
        depth: int | None,
        began: float,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.progress = Progress()
        self._archive = archive
        self._depth = depth
        self._began = began
        self._on_progress = on_progress
        self._reached_new = False
        # True if the newest batch may come again.
        self._in_doubt = False
        # Keys of letters that are counted as archived, or known, and come again.
        self._come_again: set[str] = set()

    def run(self, taker: Taker) -> None:
        """Drain. Raises `ArchiveError` (messages that could not be archived are still in the queue), `ServerError`."""
        while not self._over() and (messages := taker.take(self._most(taker.capabilities.max_moves), self._patience())):
            self._settle(taker, [each for each in self._old(messages) if not self._must_stay(taker, each)])
            self._on_progress(self.progress)

    def _over(self) -> bool:
        return self._reached_new or (self._depth is not None and not self._open() and not self._in_doubt)

    def _most(self, most: int) -> int:
        return most if self._depth is None else min(most, self._open() or 1)

    def _open(self) -> int:
        """Return how many of the messages at the start are still to be removed."""
        return max(0, (self._depth or 0) - self.progress.removed - self.progress.left)

    def _patience(self) -> float:
        return PATIENCE_S if self._open() else QUIET_S

    def _old(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return those that were in the queue at the start. A known depth tells it better than clocks."""
        if self._depth is not None:
            return messages
        for number, message in enumerate(messages):
            died = letters.read(message).failed_at
            if died is not None and died > self._began:
                self._reached_new = True
                return messages[:number]
        return messages

    def _must_stay(self, taker: Taker, message: Message) -> bool:
        if self._archive is None or not (len(message.body) > MOST_BODY or letters.read(message).opaque):
            return False
        taker.hold(message)
        self.progress.left = len(taker.held)
        if self.progress.left >= _MOST_LEFT:
            what = f"{self.progress.left} messages at the head of the queue cannot be archived: each is {WHY_LEFT}"
            raise InfertoolError(what, advice="move them with a JMS tool first")
        return True

    def _settle(self, taker: Taker, messages: Sequence[Message]) -> None:
        if not messages:
            return
        if self._archive is not None:
            self._keep(self._archive, messages)
        state = taker.move([Move(message, None) for message in messages], self._take_back)
        self.progress.removed += len(messages)
        self._in_doubt = state is State.IN_DOUBT
        if state is State.NOT_DONE:
            self._take_back(messages)

    def _keep(self, archive: ArchiveWriter, messages: Sequence[Message]) -> None:
        new = [message for message in messages if not archive.has(message)]
        if new:
            archive.append(new)
        again = self._come_again.intersection(map(key, messages))
        self._come_again -= again
        self.progress.archived += len(new)
        self.progress.known += len(messages) - len(new) - len(again)

    def _take_back(self, messages: Sequence[Message]) -> None:
        """Take messages for not removed: they come again."""
        self.progress.removed -= len(messages)
        self._come_again.update(map(key, messages))
