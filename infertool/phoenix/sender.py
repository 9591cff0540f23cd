"""Sends pushes under the present join, and decides what confirms them: replies, echoes on public topics, barriers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from infertool.errors import UnreachableError
from infertool.phoenix.frames import Frame, encode_push
from infertool.phoenix.membership import Loss, Membership, Transport
from infertool.phoenix.pending_pushes import PendingPushes
from infertool.phoenix.push import BATCH_EVENT, ConfirmedBy, Entry
from infertool.phoenix.socket import PhoenixSocket

if TYPE_CHECKING:
    from infertool.settings.tree import ConfirmMode, PhoenixSettings


# After these the server has answered: waiting longer brings no echo.
_FINAL = {Loss.REFUSED, Loss.TIMEOUT}
_OnFrames = Callable[[Sequence[Frame]], None]


class PublicTopics:
    """All of them, joined and left together. `on_settled` is called when the answer to a join has come."""

    def __init__(
        self, transport: Transport, topics: Iterable[str], on_frames: _OnFrames, on_settled: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._topics = [_PublicTopic(transport, topic, on_frames, on_settled) for topic in topics]
        self._listening = False

    @property
    def settled(self) -> bool:
        """Whether the server has answered each join, so that no echo is missed."""
        return all(topic.settled for topic in self._topics)

    def join(self, timeout_s: float) -> BaseException | None:
        """Join, and wait up to `timeout_s` for each answer; return the first error."""
        self._listening = True
        errors = [self._error_of(future, timeout_s) for future in [topic.join() for topic in self._topics]]
        return next(filter(None, errors), None)

    def expect(self) -> None:
        """Have pushes wait for the joins that `follow` will send."""
        for topic in self._topics:
            topic.settled = topic.settled and self._listening

    def follow(self, *, wanted: bool) -> None:
        """Join or leave, without waiting."""
        for topic in self._topics:
            if not wanted:
                topic.leave()
            elif not self._listening:
                topic.join()
        self._listening = wanted

    def _error_of(self, joining: Future[Any], timeout_s: float) -> BaseException | None:
        try:
            return joining.exception(timeout_s)
        except TimeoutError:
            address = self._transport.address
            what = f"no answer to joining the public topics at {address}"
        return UnreachableError(what, address=address, advice="phoenix.confirm echo needs them")


class _PublicTopic:
    def __init__(self, transport: Transport, topic: str, on_frames: _OnFrames, on_settled: Callable[[], None]) -> None:
        self._membership = Membership(transport, topic, transport.join_payload, self)
        self._on_settled = on_settled
        self.on_frames = on_frames
        self.settled = True

    def join(self) -> Future[Any]:
        """Join without waiting, if it is not joined."""
        self.settled = False
        future = self._membership.begin_join()
        future.add_done_callback(lambda _: self._settle())
        return future

    def leave(self) -> None:
        """Leave."""
        self._membership.leave()
        self.settled = True

    def on_joined(self, _response: Any) -> None:
        """Echoes come from now on."""
        self._settle()

    def on_lost(self, loss: Loss, _reason: str) -> None:
        """Let pushes wait for the rejoin, unless the server will not have us."""
        self.settled = False
        if loss in _FINAL:
            self._settle()

    def _settle(self) -> None:
        self.settled = True
        self._on_settled()


# Pushes with a weak confirmation that are remembered, to notice a late reply.
_REMEMBERED = 256


class ConfirmPolicy:
    """The confirm mode; for `auto`, what was learned so far, event by event.

    A reply confirms a push in every mode but `none`. In `auto` the public topics are joined until every event
    seen so far is answered by replies. An event that gets neither reply nor echo is tried once more with the public
    topics joined, then it is confirmed by barriers.

    A channel that does not know batches may ignore them, and neither a heartbeat nor the socket would show it. These
    confirm a batch only under a join under which a reply or an echo has confirmed another one.
    """

    def __init__(self, mode: ConfirmMode) -> None:
        self._mode = mode
        self._known: dict[str, ConfirmedBy] = {}
        self._probing = mode == "auto"
        self._unanswered: OrderedDict[str, str] = OrderedDict()
        self._knows_batches = False

    @property
    def by_writing(self) -> bool:
        """Whether a push is confirmed when the socket took it, if its event `takes_weak_confirmation`."""
        return self._mode == "none"

    @property
    def learning(self) -> bool:
        """Whether the mode is auto."""
        return self._mode == "auto"

    @property
    def takes_echoes(self) -> bool:
        """Whether the broadcast of the pushed event confirms it."""
        return self._mode in {"auto", "echo"}

    @property
    def uses_barriers(self) -> bool:
        """Whether any event is confirmed by barriers."""
        return self._mode == "barrier" or ConfirmedBy.BARRIER in self._known.values()

    @property
    def wants_public_topics(self) -> bool:
        """Whether echoes are worth listening for."""
        return self._mode == "echo" or self._probing or ConfirmedBy.ECHO in self._known.values()

    @property
    def needs_public_topics(self) -> bool:
        """Whether nothing can be confirmed without them."""
        return self._mode == "echo"

    def by_barrier(self, event: str) -> bool:
        """Whether pushes of `event` are confirmed by a heartbeat behind them."""
        if self._mode == "barrier":
            return self.takes_weak_confirmation(event)
        return self._known.get(event) is ConfirmedBy.BARRIER

    def takes_weak_confirmation(self, event: str) -> bool:
        """Whether a heartbeat, or the socket, may confirm pushes of `event` where the mode says so."""
        return event != BATCH_EVENT or self._knows_batches

    def has_confirmed(self, event: str) -> bool:
        """Whether a push of `event` was ever confirmed."""
        return event in self._known

    def lost(self) -> None:
        """Forget what was learned of the join that ended: behind the next one may be another channel."""
        self._knows_batches = False

    def confirmed(self, entry: Entry[Any], confirmed_by: ConfirmedBy) -> None:
        """Learn from a confirmation."""
        if entry.push.event == BATCH_EVENT:
            self._knows_batches = True
        if self.learning and confirmed_by is not ConfirmedBy.REPLY:
            self._remember(entry)
        if self._known.get(entry.push.event) is not confirmed_by:
            self._learn(entry.push.event, confirmed_by)

    def replied_late(self, ref: object) -> None:
        """Learn from a reply to a push that something weaker had confirmed already."""
        event = self._unanswered.pop(str(ref), None)
        if event:
            self._learn(event, ConfirmedBy.REPLY)

    def is_known(self, event: str) -> bool:
        """Whether it is known what confirms `event`; always in modes other than auto."""
        return not self.learning or event in self._known

    def gave_no_confirmation(self, event: str) -> bool:
        """Note that a push of `event` was not confirmed. Returns True when barriers confirm `event` from now on."""
        if self.wants_public_topics:
            self._learn(event, ConfirmedBy.BARRIER)
            return True
        self._probing = True
        return False

    def _learn(self, event: str, confirmed_by: ConfirmedBy) -> None:
        if self._known.get(event) is ConfirmedBy.REPLY:
            return
        self._known[event] = confirmed_by
        self._probing = False

    def _remember(self, entry: Entry[Any]) -> None:
        self._unanswered[entry.ref] = entry.push.event
        if len(self._unanswered) > _REMEMBERED:
            self._unanswered.popitem(last=False)


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
