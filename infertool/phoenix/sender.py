"""Sends pushes under the present join, and decides what confirms them: replies, echoes on public topics, barriers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from infertool.errors import UnreachableError
from infertool.phoenix import notices
from infertool.phoenix.frames import Frame, encode_push
from infertool.phoenix.membership import Loss, Membership, Transport
from infertool.phoenix.pending_pushes import PendingPushes
from infertool.phoenix.push import BATCH_EVENT, ConfirmedBy, Entry
from infertool.phoenix.socket import PhoenixSocket

if TYPE_CHECKING:
    from infertool.settings.tree import ConfirmMode, PhoenixSettings


# Losses with which the server answers the join: it will send no echo.
_FINAL = {Loss.REFUSED, Loss.TIMEOUT}
_OnFrames = Callable[[Sequence[Frame]], None]
_Warn = Callable[[str], None]


class PublicTopics:
    """The public topics, joined and left together.

    `on_settled` is called after the answer to each join, `on_rejoined` before that where echoes may have been missed.
    `warn` gets the loss of a topic on its own, and what keeps it from being joined again; once each.
    """

    def __init__(
        self,
        transport: Transport,
        topics: Iterable[str],
        on_frames: _OnFrames,
        on_settled: Callable[[], None],
        on_rejoined: Callable[[], None],
        warn: _Warn,
    ) -> None:
        self._transport = transport
        self._topics = [_PublicTopic(transport, topic, on_frames, on_settled, on_rejoined, warn) for topic in topics]
        self._listening = False

    @property
    def fault(self) -> BaseException | None:
        """The first error of the newest joins; None if there was none."""
        return next((topic.fault for topic in self._topics if topic.fault), None)

    @property
    def settled(self) -> bool:
        """True if the server has answered each join, so that no echo is missed."""
        return all(topic.settled for topic in self._topics)

    def join(self, timeout_s: float) -> BaseException | None:
        """Join, and wait up to `timeout_s` for each answer; return the first error."""
        self._listening = True
        for topic, future in [(topic, topic.join()) for topic in self._topics]:
            topic.fault = self._error_of(future, timeout_s)
        return self.fault

    def expect(self) -> None:
        """Hold pushes back until the joins that `follow` sends are answered."""
        for topic in self._topics:
            topic.settled = topic.settled and self._listening

    def follow(self, *, wanted: bool) -> None:
        """Join if the topics are `wanted`, else leave. Does not wait."""
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
    def __init__(
        self,
        transport: Transport,
        topic: str,
        on_frames: _OnFrames,
        on_settled: Callable[[], None],
        on_rejoined: Callable[[], None],
        warn: _Warn,
    ) -> None:
        self._membership = Membership(transport, topic, transport.join_payload, self)
        self._on_settled = on_settled
        self._on_rejoined = on_rejoined
        self._warn = warn
        self._was_lost = False
        self._told: tuple[Loss, str] | None = None
        # That of the newest join which was asked for, not of those that follow a loss.
        self.fault: BaseException | None = None
        self.on_frames = on_frames
        self.settled = True

    def join(self) -> Future[Any]:
        """Join without waiting, if it is not joined."""
        self.settled = False
        self.fault = None
        future = self._membership.begin_join()
        future.add_done_callback(self._take_end)
        return future

    def _take_end(self, joining: Future[Any]) -> None:
        self.fault = joining.exception()
        self._settle()

    def leave(self) -> None:
        """Leave the topic."""
        self._membership.leave()
        self._was_lost = False
        self.settled = True

    def on_joined(self, _response: Any) -> None:
        """Let pushes go: the server sends echoes from now on."""
        self._told = None
        if self._was_lost:
            self._was_lost = False
            self._on_rejoined()
        self._settle()

    def on_lost(self, loss: Loss, reason: str) -> None:
        """Hold pushes back until the rejoin, unless the server refused the join."""
        self.settled = False
        self._was_lost = True
        if loss is not Loss.LINK and self._told != (loss, reason):
            self._told = loss, reason
            self._warn(notices.described(self._membership.topic, loss, reason, None))
        if loss in _FINAL:
            self._settle()

    def _settle(self) -> None:
        self.settled = True
        self._on_settled()


# Maximum number of weakly confirmed pushes that are remembered, to recognise a late reply.
_REMEMBERED = 256


class ConfirmPolicy:
    """Decides what confirms a push, by the confirm mode. The mode `auto` learns it for each event.

    A reply confirms a push in every mode but `none`. In `auto` the public topics are joined until every event seen so
    far is answered by replies. If a push gets neither reply nor echo, it is sent once more with the public topics
    joined; then barriers confirm its event.

    A heartbeat and a written socket are weak confirmations: they do not show that a channel ignores batches. They
    confirm a batch only after a reply or an echo has confirmed another batch under the same join.
    """

    def __init__(self, mode: ConfirmMode) -> None:
        self._mode = mode
        self._known: dict[str, ConfirmedBy] = {}
        self._probing = mode == "auto"
        self._unanswered: OrderedDict[str, str] = OrderedDict()
        self._knows_batches = False

    @property
    def by_writing(self) -> bool:
        """True if the socket's write confirms a push, if its event `takes_weak_confirmation`."""
        return self._mode == "none"

    @property
    def learning(self) -> bool:
        """True if the mode is auto."""
        return self._mode == "auto"

    @property
    def takes_echoes(self) -> bool:
        """True if an echo, the broadcast of the pushed event, confirms it."""
        return self._mode in {"auto", "echo"}

    @property
    def uses_barriers(self) -> bool:
        """True if barriers confirm any event."""
        return self._mode == "barrier" or ConfirmedBy.BARRIER in self._known.values()

    @property
    def wants_public_topics(self) -> bool:
        """True if the public topics should be joined, to receive echoes."""
        return self._mode == "echo" or self._probing or ConfirmedBy.ECHO in self._known.values()

    @property
    def needs_public_topics(self) -> bool:
        """True if no push can be confirmed without the public topics."""
        return self._mode == "echo"

    def by_barrier(self, event: str) -> bool:
        """Return True if a barrier confirms pushes of `event`."""
        if self._mode == "barrier":
            return self.takes_weak_confirmation(event)
        return self._known.get(event) is ConfirmedBy.BARRIER

    def takes_weak_confirmation(self, event: str) -> bool:
        """Return True if a weak confirmation may confirm pushes of `event`, in a mode that has one."""
        return event != BATCH_EVENT or self._knows_batches

    def has_confirmed(self, event: str) -> bool:
        """Return True if a push of `event` was ever confirmed."""
        return event in self._known

    def lost(self) -> None:
        """Forget that the channel knows batches: the next join may lead to another channel."""
        self._knows_batches = False

    def confirmed(self, entry: Entry[Any], confirmed_by: ConfirmedBy) -> None:
        """Remember what confirmed the event."""
        if entry.push.event == BATCH_EVENT:
            self._knows_batches = True
        if self.learning and confirmed_by is not ConfirmedBy.REPLY:
            self._remember(entry)
        if self._known.get(entry.push.event) is not confirmed_by:
            self._learn(entry.push.event, confirmed_by)

    def replied_late(self, ref: object) -> None:
        """Remember that replies confirm an event, after a late reply to a weakly confirmed push."""
        event = self._unanswered.pop(str(ref), None)
        if event:
            self._learn(event, ConfirmedBy.REPLY)

    def is_known(self, event: str) -> bool:
        """Return True if `event` was confirmed before; always True in modes other than auto."""
        return not self.learning or event in self._known

    def gave_no_confirmation(self, event: str) -> bool:
        """Note that a push of `event` was not confirmed. Return True if barriers confirm `event` from now on."""
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
# Confirms the pushes that were sent with these refs. Takes the lock of the delivery.
SettleRefs = Callable[[Sequence[str], ConfirmedBy], None]


class Sender(Generic[T]):
    """Sends pending pushes while the topic is joined and not paused.

    A barrier is a heartbeat that is sent after pushes and confirms them: the server answers it after it has read them.
    At most one barrier is unanswered. Not thread-safe: every call needs the lock of the delivery. `settle` is called
    without the lock, from the threads of the socket.
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
        """True if the topic is joined and not paused."""
        return bool(self._join_ref) and not self.paused

    def joined(self, join_ref: str) -> None:
        """Send under `join_ref` from now on."""
        self._join_ref = join_ref

    def lost(self) -> None:
        """Send nothing until the next join. An unanswered barrier stays unanswered."""
        self._join_ref = ""
        self._barrier = False

    def flush(self) -> None:
        """Send all pushes that may be sent now."""
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
        """Send pushes again with the same refs, so that a late reply to the first attempt counts."""
        self._socket.send(self._encode(entries))

    def send_barrier(self) -> None:
        """Send a barrier if pushes need one and no barrier is unanswered."""
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
