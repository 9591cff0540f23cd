"""The book of unconfirmed pushes: who waits to be sent, who waits for proof, and who is suspected of crashes.

Pure bookkeeping: no lock, no I/O. The delivery guards it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import StrEnum
from operator import attrgetter

from msgspec import Struct

# A push that was first in order at this many crashes of the channel is taken for their cause.
CRASHES_TO_REFUSE = 3


class Push(Struct, frozen=True, gc=False):
    """What is to be delivered. `payload` is an encoded JSON object; `context` is the caller's and comes back.

    `event_ids` are the ids inside, several for a batch: whoever broadcasts them all has the push.
    """

    event: str
    event_ids: tuple[str, ...]
    payload: bytes
    context: object


class Proof(StrEnum):
    """What confirmed a push; docs/guarantees.md says what each is worth."""

    REPLY = "reply"
    ECHO = "echo"
    BARRIER = "barrier"
    NONE = "none"


class PushResult(Struct, frozen=True, gc=False):
    """The end of a push: exactly one of `proof` and `refusal` (the server's reason) is set."""

    push: Push
    proof: Proof | None = None
    refusal: str | None = None


class Entry(Struct, eq=False, gc=False):
    """An unconfirmed push. `number` is its place in the order of acceptance, `sent_at` monotonic seconds.

    `unseen` counts the ids of a sent push that were not seen coming back.
    """

    push: Push
    number: int
    ref: str = ""
    sent_at: float = 0.0
    unseen: int = 0
    crashes: int = 0
    suspect: bool = False


class Ledger:
    """Every accepted push until it is confirmed or refused.

    After a crash of the channel its unconfirmed pushes are suspects and are sent one at a time: the innocent are
    confirmed, and the one that crashes the channel again and again is found. Then all goes on as before.
    """

    def __init__(self) -> None:
        self._waiting: deque[Entry] = deque()
        self._sent: dict[str, Entry] = {}
        self._by_event: dict[str, list[Entry]] = {}
        self._suspects = 0
        self._accepted = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def isolating(self) -> bool:
        """Whether pushes are sent one at a time to find the one that crashes the channel."""
        return self._suspects > 0

    @property
    def sent(self) -> Iterator[Entry]:
        """Those waiting for proof, in the order they were sent."""
        return iter(self._sent.values())

    def accept(self, pushes: Sequence[Push]) -> None:
        """Take `pushes` in, to be sent."""
        first = self._accepted
        self._accepted += len(pushes)
        self._waiting.extend([Entry(push, number) for number, push in enumerate(pushes, first)])

    def take_sendable(self) -> list[Entry]:
        """Return those to send now; the caller gives each to `mark_sent`."""
        if not self._waiting:
            return []
        if self._suspects:
            return [] if self._sent else [self._waiting.popleft()]
        entries = list(self._waiting)
        self._waiting.clear()
        return entries

    def mark_sent(self, entry: Entry, ref: str, now: float) -> None:
        """Note that `entry` was sent as `ref`, or sent again as the `ref` it has."""
        entry.sent_at = now
        if ref not in self._sent:
            entry.ref = ref
            self._sent[ref] = entry
            entry.unseen = len(entry.push.event_ids)
            for event_id in entry.push.event_ids:
                self._by_event.setdefault(event_id, []).append(entry)

    def settle_ref(self, ref: object) -> Entry | None:
        """Remove and return the push sent as `ref`, if it is unconfirmed."""
        entry = self._sent.pop(ref, None) if type(ref) is str else None
        if entry is not None:
            self._drop_all_from_index(entry)
            self._suspects -= entry.suspect
        return entry

    def settle_event(self, event_id: object) -> Entry | None:
        """Note that `event_id` came back; remove and return the sent push, the first of several, that it completes."""
        entries = self._by_event.get(event_id) if type(event_id) is str else None
        if not entries:
            return None
        entry = entries[0]
        entry.unseen -= 1
        if entry.unseen == 0:
            return self.settle_ref(entry.ref)
        self._drop_from_index(entry, str(event_id))
        return None

    def overdue(self, before: float) -> list[Entry]:
        """Return those sent before `before`, which is in monotonic seconds."""
        return [entry for entry in self._sent.values() if entry.sent_at < before]

    def lose(self) -> list[Entry]:
        """Take back all that were sent, to be sent again in order. Return them."""
        return self._take_back(list(self._sent.values()))

    def take_back(self, event: str) -> None:
        """Take back those of `event` that were sent, to be sent again."""
        self._take_back([entry for entry in self._sent.values() if entry.push.event == event])

    def _take_back(self, entries: list[Entry]) -> list[Entry]:
        entries.sort(key=attrgetter("number"))
        for entry in entries:
            del self._sent[entry.ref]
            self._drop_all_from_index(entry)
            entry.ref = ""
        self._waiting.extendleft(reversed(entries))
        return entries

    def lose_by_crash(self) -> Entry | None:
        """Take back all that were sent; return the culprit, removed, once one is found."""
        lost = self.lose()
        if not lost:
            return None
        first = lost[0]
        first.crashes += 1
        if first.crashes >= CRASHES_TO_REFUSE:
            self._waiting.popleft()
            self._clear_suspects()
            return first
        for entry in lost:
            self._suspects += not entry.suspect
            entry.suspect = True
        return None

    def _drop_all_from_index(self, entry: Entry) -> None:
        for event_id in entry.push.event_ids:
            if entry in self._by_event.get(event_id, ()):
                self._drop_from_index(entry, event_id)

    def _drop_from_index(self, entry: Entry, event_id: str) -> None:
        entries = self._by_event[event_id]
        entries.remove(entry)
        if not entries:
            del self._by_event[event_id]

    def _clear_suspects(self) -> None:
        self._suspects = 0
        for entry in self._waiting:
            entry.suspect = False
