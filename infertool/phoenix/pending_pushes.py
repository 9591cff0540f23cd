"""Unconfirmed pushes: those that wait to be sent, those that were sent, and the suspects.

Pure: no lock, no I/O. Every call needs the lock of the delivery.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Generic, TypeVar

from infertool.phoenix.push import BATCH_EVENT, ConfirmedBy, Entry, Push, PushResult
from infertool.phoenix.suspects import Finding, Suspects, take_first
from infertool.telemetry.signals import NONE_UNCONFIRMED, Unconfirmed

__all__ = ["ConfirmedBy", "Entry", "PendingPushes", "Push", "PushResult"]

T = TypeVar("T")


# Unconfirmed pushes at most, where the settings do not say how many. Like a consumer's window, it may grow.
USUAL_WINDOW = 256


class PendingPushes(Generic[T]):
    """Every accepted push until it is confirmed or rejected; `window` bounds those that are sent or may be sent."""

    def __init__(self, window: int = USUAL_WINDOW) -> None:
        self.window = window
        self.suspects: Suspects[T] = Suspects()
        self._waiting: deque[Entry[T]] = deque()
        self._sent: dict[str, Entry[T]] = {}
        self._by_event: dict[str, list[Entry[T]]] = {}
        self._accepted = 0
        self._sends = 0
        self._latest_settled = 0
        self._latest_missed = 0
        # In bytes, of a payload.
        self._largest_settled = 0
        self._in_order = True

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent) + len(self.suspects)

    def in_hand(self, now: float) -> int:
        """Return the number of pushes, without suspects that must not be tried yet."""
        return len(self) - self.suspects.waiting_long(now)

    def room(self, now: float) -> int:
        """Return the number of pushes that may be accepted.

        Suspects that must not be tried yet take no room: only another push can show whether the server is at fault.
        """
        return self.window - self.in_hand(now)

    def lacks(self, event: str) -> bool:
        """Return True if suspects of `event` need another push of it to pass, and none is on its way."""
        if not (self.suspects.active and self.suspects.lacks(event)):
            return False
        entries = [*self._waiting, *self._sent.values(), *self.suspects]
        return all(entry.case or entry.push.event != event for entry in entries)

    @property
    def sent(self) -> Iterator[Entry[T]]:
        """The pushes that were sent and are unconfirmed, in the order of sending."""
        return iter(self._sent.values())

    def pending(self, now: float) -> Unconfirmed:
        """Return the number of pushes, and the age of the oldest."""
        entries = [*self._waiting, *self._sent.values(), *self.suspects]
        if not entries:
            return NONE_UNCONFIRMED
        return Unconfirmed(len(entries), now - min(entry.accepted_at for entry in entries))

    def accept(self, pushes: Sequence[Push[T]], crashes: int = 0, now: float = 0.0) -> None:
        """Accept `pushes`; as suspects if they were unconfirmed at `crashes` ends of the channel."""
        first = self._accepted
        self._accepted += len(pushes)
        entries = [Entry(push, number, now) for number, push in enumerate(pushes, first)]
        if not crashes:
            self._waiting.extend(entries)
            return
        for entry in entries:
            self.suspects.add(entry, crashes)

    def take_sendable(self, now: float, patience_s: float) -> list[Entry[T]]:
        """Return the pushes to send now; the caller passes each to `mark_sent`.

        Suspects are tested when every unconfirmed push was sent more than `patience_s` ago.
        """
        room = max(0, self.window - len(self._sent))
        if self.suspects.active:
            busy = any(entry.sent_at > now - patience_s for entry in self._sent.values())
            return self.suspects.choose(self._waiting, now, busy=busy, room=room)
        return take_first(self._waiting, room)

    def mark_sent(self, entry: Entry[T], ref: str, now: float) -> None:
        """Note that `entry` was sent as `ref`."""
        self._sends += 1
        entry.ref = ref
        entry.order = self._sends
        entry.sent_at = now
        entry.repeats = 0
        self._sent[ref] = entry
        entry.unseen = len(entry.push.event_ids)
        for event_id in entry.push.event_ids:
            self._by_event.setdefault(event_id, []).append(entry)

    def settle_ref(self, ref: object) -> Entry[T] | None:
        """Remove and return the unconfirmed push that was sent as `ref`, which the server has handled; None if none."""
        entry = self._sent.pop(ref, None) if type(ref) is str else None
        if entry is not None:
            self._drop_all_from_index(entry)
            if entry.order > self._latest_settled:
                self._latest_settled = entry.order
            else:
                self._in_order = False
            self._largest_settled = max(self._largest_settled, len(entry.push.payload))
            if self.suspects.active:
                self.suspects.settled(entry, in_order=self._in_order)
        return entry

    def settle_event(self, event_id: object) -> Entry[T] | None:
        """Note an echo of `event_id`; remove and return the first sent push with this id if the echo completes it."""
        entries = self._by_event.get(event_id) if type(event_id) is str else None
        if not entries:
            return None
        entry = entries[0]
        entry.unseen -= 1
        if entry.unseen == 0:
            return self.settle_ref(entry.ref)
        self._drop_from_index(entry, str(event_id))
        return None

    def give_up(self, entry: Entry[T]) -> None:
        """Remove a sent push without an answer."""
        del self._sent[entry.ref]
        self._drop_all_from_index(entry)
        self.suspects.forget(entry)

    def overdue(self, before: float) -> list[Entry[T]]:
        """Return the pushes that were sent before `before`, in monotonic seconds."""
        return [entry for entry in self._sent.values() if entry.sent_at < before]

    def miss_echoes(self) -> None:
        """Note that echoes of the pushes sent so far may have been missed: these pushes count as overtaken."""
        self._latest_missed = self._sends

    def left_out(self, now: float, timeout_s: float) -> list[Entry[T]]:
        """Return the single pushes to repeat: they are overtaken, so that no confirmation may be on its way.

        The first repeat follows after `timeout_s`, each further one after twice the wait.
        """
        late = [entry for entry in self.overdue(now - timeout_s) if entry.push.event != BATCH_EVENT]
        due = [e for e in late if self._is_overtaken(e) and now - e.sent_at >= timeout_s * (2 ** (e.repeats + 1) - 1)]
        for entry in due:
            entry.repeats += 1
        return due

    def hopeless_batches(self, now: float, timeout_s: float, *, only_overtaken: bool) -> list[Entry[T]]:
        """Return the batches that are unconfirmed for `timeout_s`; with `only_overtaken`, only overtaken ones."""
        late = [entry for entry in self.overdue(now - timeout_s) if entry.push.event == BATCH_EVENT]
        return [entry for entry in late if not only_overtaken or self._is_overtaken(entry)]

    def _is_overtaken(self, entry: Entry[T]) -> bool:
        """Return True if the channel is not merely slow: it has handled a later push, or its echo may be missed."""
        return entry.order < self._latest_settled or entry.order <= self._latest_missed

    def lose(self, *, connection: bool) -> None:
        """Take back all sent pushes, to be sent again in order. `connection` is True if the connection was lost."""
        lost = self._take_back(list(self._sent.values()))
        self.suspects.lost([entry for entry in lost if entry.case], connection=connection)

    def take_back(self, event: str) -> None:
        """Take back the sent pushes of `event`, to be sent again."""
        self._take_back(self._sent_of(event))

    def take_back_missed(self, event: str) -> bool:
        """Take back the sent pushes of `event` whose echoes may have been missed. Return False if there are none."""
        return bool(self._take_back([entry for entry in self._sent_of(event) if entry.order <= self._latest_missed]))

    def _sent_of(self, event: str) -> list[Entry[T]]:
        """Return the sent pushes of `event` that are no suspects."""
        return [entry for entry in self._sent.values() if entry.push.event == event and not entry.case]

    def crash(self, now: float, *, too_large: bool) -> Finding[T] | None:
        """Take back all sent pushes after an end of the channel; return the conclusion, None if there were none."""
        lost = list(self._sent.values())
        self._unsend(lost)
        if not lost:
            return None
        return self.suspects.ended(lost, now, too_large=too_large, largest=self._largest_settled)

    def _take_back(self, entries: list[Entry[T]]) -> list[Entry[T]]:
        self._unsend(entries)
        entries.sort(key=attrgetter("number"))
        self._waiting.extendleft([entry for entry in reversed(entries) if not entry.case])
        return entries

    def _unsend(self, entries: Sequence[Entry[T]]) -> None:
        for entry in entries:
            del self._sent[entry.ref]
            self._drop_all_from_index(entry)
            entry.ref = ""

    def _drop_all_from_index(self, entry: Entry[T]) -> None:
        for event_id in entry.push.event_ids:
            if entry in self._by_event.get(event_id, ()):
                self._drop_from_index(entry, event_id)

    def _drop_from_index(self, entry: Entry[T], event_id: str) -> None:
        entries = self._by_event[event_id]
        entries.remove(entry)
        if not entries:
            del self._by_event[event_id]
