"""Sending pushes under the present join, and the barriers behind them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from infertool.phoenix.confirm import ConfirmPolicy
from infertool.phoenix.frames import encode_push
from infertool.phoenix.pending_pushes import PendingPushes
from infertool.phoenix.push import ConfirmedBy, Entry
from infertool.phoenix.socket import PhoenixSocket

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings


T = TypeVar("T")
# Settles the pushes sent with these refs, which all have the same confirmation. Takes the lock.
SettleRefs = Callable[[Sequence[str], ConfirmedBy], None]


class Sender(Generic[T]):
    """Sends pending pushes while the topic is joined and not paused.

    A barrier is a heartbeat behind pushes that are confirmed by it: the server answers it after it has read them. At
    most one is sent at a time. Not thread-safe: every call needs the lock of the delivery. `settle` is called without
    it, from the threads of the socket.
    """

    def __init__(
        self,
        socket: PhoenixSocket,
        settings: PhoenixSettings,
        pending: PendingPushes[T],
        policy: ConfirmPolicy,
        settle: SettleRefs,
    ) -> None:
        self._socket = socket
        self._topic = settings.topic
        self._push_timeout_s = settings.push_timeout_s
        self._pending = pending
        self._policy = policy
        self._settle = settle
        self._join_ref = ""
        self._barrier = False
        self.paused = False

    @property
    def is_open(self) -> bool:
        """Whether the topic is joined and not paused."""
        return bool(self._join_ref) and not self.paused

    def joined(self, join_ref: str) -> None:
        """Send under `join_ref` from now on."""
        self._join_ref = join_ref

    def lost(self) -> None:
        """Send nothing until the next join. The barrier under way will not be answered."""
        self._join_ref = ""
        self._barrier = False

    def flush(self) -> None:
        """Send the pushes that may be sent now."""
        if not self.is_open:
            return
        now = time.monotonic()
        entries = self._pending.take_sendable(now, self._push_timeout_s)
        if not entries:
            return
        for entry in entries:
            self._pending.mark_sent(entry, self._socket.next_ref(), now)
        self._socket.send(self._encode(entries), self._on_written(entries))
        if self._policy.uses_barriers:
            self.send_barrier()

    def repeat(self, entries: Sequence[Entry[T]]) -> None:
        """Send pushes again, with the refs they have, so that a late reply to the first one counts."""
        self._socket.send(self._encode(entries))

    def send_barrier(self) -> None:
        """Send a barrier behind the pushes that need one, unless one is under way."""
        if self._barrier:
            return
        covered = [entry.ref for entry in self._pending.sent if self._policy.by_barrier(entry.push.event)]
        if covered:
            self._barrier = True
            self._socket.heartbeat(partial(self._take_barrier, covered))

    def _take_barrier(self, refs: Sequence[str]) -> None:
        self._barrier = False
        self._settle(refs, ConfirmedBy.BARRIER)

    def _encode(self, entries: Sequence[Entry[T]]) -> list[bytes]:
        join_ref, topic = self._join_ref, self._topic
        return [encode_push(join_ref, entry.ref, topic, entry.push.event, entry.push.payload) for entry in entries]

    def _on_written(self, entries: Sequence[Entry[T]]) -> Callable[[], None] | None:
        if not self._policy.by_writing:
            return None
        refs = [entry.ref for entry in entries if self._policy.takes_weak_confirmation(entry.push.event)]
        return partial(self._settle, refs, ConfirmedBy.NONE)
