"""Confirmed delivery: a window of unconfirmed pushes, each of which ends confirmed or rejected; none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.net.timing import PUBLISHER
from infertool.phoenix import notices
from infertool.phoenix.frames import Frame, reply_of
from infertool.phoenix.membership import Loss, Membership
from infertool.phoenix.notices import Silence
from infertool.phoenix.pending_pushes import USUAL_WINDOW, PendingPushes
from infertool.phoenix.push import BATCH_EVENT, ConfirmedBy, DeliveryClosedError, Entry, Push, PushResult, documents
from infertool.phoenix.sender import ConfirmPolicy, PublicTopics, Sender
from infertool.phoenix.socket import PhoenixSocket
from infertool.phoenix.suspects import Cause
from infertool.telemetry.signals import Unconfirmed

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings


__all__ = ["ConfirmedBy", "Delivery", "Push", "PushResult"]

T = TypeVar("T")
OnResults = Callable[[Sequence[PushResult[T]]], None]

# Maximum time that the mode auto waits for a reply or an echo before it tries another confirmation. Seconds.
_PATIENCE_S = 5.0
_LONGEST_TICK_S = 1.0
UNANSWERED = "no confirmation came in time"
# Losses that a push may have caused: the unconfirmed pushes become suspects. A push may also make a channel close.
_ENDINGS = {Loss.CRASH, Loss.CLOSE, Loss.BLAMED, Loss.TOO_LARGE}


class Delivery(Generic[T]):
    """Pushes to one topic, and reports for each push its confirmation or rejection.

    An unconfirmed push is sent again with the same event_id: after every rejoin, and, at growing intervals, under the
    same join if later pushes are confirmed. So the server may receive a push twice. All callbacks are called from the
    delivery's threads, must be quick, and must not push, stop or close. `on_results` gets the results of one read,
    `on_join` the server's response to each join.

    A pause (`flow` with `{"state": "pause"}`) lasts until `resume` or until the next join: a server that lost the
    channel may have lost the pause with it, and would never end it. A server that still wants a pause sends it again
    after the join.
    """

    def __init__(
        self,
        settings: PhoenixSettings,
        *,
        on_results: OnResults[T],
        on_connection: OnConnection,
        on_flow: Callable[[bool], None],
        on_warning: Callable[[str], None],
        on_join: Callable[[Any], None] = lambda _response: None,
    ) -> None:
        self._settings = settings
        self._on_results = on_results
        self._on_connection = on_connection
        self._on_flow = on_flow
        self._on_warning = on_warning
        self._on_join = on_join
        self._changed = threading.Condition()
        self._pending: PendingPushes[T] = PendingPushes(settings.window or USUAL_WINDOW)
        self._policy = ConfirmPolicy(settings.confirm)
        # By thread that waits in `push`: since when, and with how many pushes.
        self._queued: dict[int, tuple[float, int]] = {}
        self._unreported = 0
        self._stopped = False
        self._warned = False
        self._silence = Silence(settings)
        self._socket = PhoenixSocket(settings, on_connection=self._take_link, reconnecting=PUBLISHER)
        self._sender = Sender(self._socket, settings, self._pending, self._policy, self._settle_refs)
        self._membership = Membership(self._socket, settings.topic, self._socket.join_payload, self)
        public = dict.fromkeys(each for each in (settings.result_topic, settings.alert_topic) if each != settings.topic)
        self._public = PublicTopics(
            self._socket, public, self._take_echoes, self._go_on, self._missed_echoes, self._warn
        )
        self._patience_s = min(_PATIENCE_S, settings.push_timeout_s / 2)
        self._tick_s = min(_LONGEST_TICK_S, self._patience_s / 4)

    @property
    def address(self) -> str:
        """The address of the current or last connection, without secrets."""
        return self._socket.address

    def start(self) -> None:
        """Connect and join. Raises `UnreachableError`, `RefusedError`, `JoinRefusedError`, `SettingsError`."""
        self._socket.connect()
        try:
            self._join_all()
        except BaseException:
            self._socket.close(0)
            raise
        self._socket.after(self._tick_s, self._tick)

    def widen(self, window: int) -> None:
        """Let up to `window` pushes be unconfirmed, unless the settings say how many."""
        with self._changed:
            if not self._settings.window:
                self._pending.window = max(self._pending.window, window)
                self._changed.notify_all()

    def push(self, pushes: Sequence[Push[T]], *, crashes: int = 0) -> None:
        """Accept `pushes`. Return when all of them were sent, or wait in the window for a connection.

        Blocks while `window` pushes are unconfirmed, and while Phoenix asks for a pause. Raises `DeliveryClosedError`
        with the pushes not accepted once `stop` or `close` was called. `crashes` is `PushResult.crashes` of an earlier
        result of these pushes, or of the batch that held them: they are suspects from the start.
        """
        taken = 0
        with self._changed:
            while taken < len(pushes):
                room = self._wait_for_room(len(pushes) - taken)
                if not room:
                    raise DeliveryClosedError(pushes[taken:])
                self._pending.accept(pushes[taken : taken + room], crashes, time.monotonic())
                self._flush()
                taken += room

    def lacks(self, event: str) -> bool:
        """Return True if a push of `event`, sent now, would show whether the channel ends over that event or over one.

        There are suspects of it, none of the same event was confirmed since, and no other is on its way.
        """
        with self._changed:
            return self._pending.lacks(event)

    def outstanding(self) -> int:
        """Return the number of accepted pushes without a reported result."""
        with self._changed:
            return len(self._pending) + self._unreported

    def pending(self) -> Unconfirmed:
        """Return the number of pushes without a result, those that wait for room included, and the oldest age."""
        now = time.monotonic()
        with self._changed:
            pending = self._pending.pending(now)
            for since, count in self._queued.values():
                pending = pending.joined(Unconfirmed(count, now - since))
            return pending

    def stop(self) -> None:
        """Accept no more pushes, and wake the threads that wait in `push`. Accepted pushes are still delivered."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until every accepted push has its result. Return False if one has none.

        Does not wait for suspects that must not be tried yet.
        """
        with self._changed:
            return self._changed.wait_for(self._is_drained, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Stop, and disconnect within about `timeout_s`. Pushes still unconfirmed get no result."""
        self.stop()
        self._socket.close(timeout_s)

    # Callbacks of the topic's membership.

    def on_frames(self, frames: Sequence[Frame]) -> None:
        """Handle replies, flow signals, and echoes if results are broadcast on this topic."""
        results: list[PushResult[T]] = []
        with self._changed:
            for frame in frames:
                if frame.event == "phx_reply":
                    self._take_reply(frame, results)
                elif frame.event == "flow":
                    self._take_flow(frame.payload)
                else:
                    self._take_echo(frame, results)
            self._settled(results)
        self._report(results)

    def on_joined(self, response: Any) -> None:
        """Send the waiting pushes under the new join_ref. A pause ends."""
        self._on_join(response)
        with self._changed:
            self._sender.joined(self._membership.join_ref)
            self._set_paused(paused=False)
            self._flush()

    def on_lost(self, loss: Loss, reason: str) -> None:
        """Take back the unconfirmed pushes, to be sent again after the rejoin."""
        with self._changed:
            self._sender.lost()
            self._policy.lost()
            if loss in _ENDINGS:
                self._take_ending(loss, reason)
            else:
                self._pending.lose(connection=loss is Loss.LINK)
                if loss is not Loss.LINK:
                    self._warn(notices.described(self._settings.topic, loss, reason, None))
            self._changed.notify_all()

    def _take_ending(self, loss: Loss, reason: str) -> None:
        """Find the unconfirmed push that ended the channel, if one can be named, and reject it."""
        finding = self._pending.crash(time.monotonic(), too_large=loss is Loss.TOO_LARGE)
        self._warn(notices.described(self._settings.topic, loss, reason, finding))
        if finding is None:
            return
        why = notices.rejection(loss, reason, finding)
        # The first unconfirmed push is the likeliest cause: a batch that was it counts one crash more.
        results = [
            PushResult(entry.push, rejection=why, crashes=1 + (entry is finding.suspect)) for entry in finding.apart
        ]
        if finding.cause is Cause.PUSH:
            results.append(PushResult(finding.suspect.push, rejection=why, crashes=finding.crashes))
        self._settled(results)
        self._later(partial(self._report, results))

    # Joining.

    def _join_all(self) -> None:
        timeout_s = self._settings.connect_timeout_s
        self._membership.join(timeout_s)
        error = self._public.join(timeout_s) if self._policy.wants_public_topics else None
        if error and self._policy.needs_public_topics:
            raise error

    def _take_link(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.CLOSED:
            self.stop()
        self._on_connection(event)

    # Sending. All with the lock held.

    def _wait_for_room(self, count: int) -> int:
        """Wait for room for at least one push; return the number that may be accepted, 0 after `stop`."""
        try:
            while not self._stopped:
                room = self._pending.room(time.monotonic())
                if room > 0 and not self._sender.paused:
                    return room
                self._queued.setdefault(threading.get_ident(), (time.monotonic(), count))
                self._changed.wait()
            return 0
        finally:
            if self._queued:
                self._queued.pop(threading.get_ident(), None)

    def _flush(self) -> None:
        if self._public.settled:
            self._sender.flush()

    # Confirmations. `_take_reply` and `_take_echo` with the lock held.

    def _take_reply(self, frame: Frame, results: list[PushResult[T]]) -> None:
        entry = self._pending.settle_ref(frame.ref)
        if entry is None:
            self._policy.replied_late(frame.ref)
            return
        reply = reply_of(frame)
        if reply.status == "ok":
            self._confirm(entry, ConfirmedBy.REPLY, results)
        else:
            reason = reply.reason if reply.status == "error" else f"{reply.status}: {reply.reason}"
            results.append(PushResult(entry.push, rejection=reason))

    def _take_echo(self, frame: Frame, results: list[PushResult[T]]) -> None:
        if not self._policy.takes_echoes:
            return
        for document in documents(frame):
            entry = self._pending.settle_event(document.get("event_id")) if isinstance(document, dict) else None
            if entry:
                self._confirm(entry, ConfirmedBy.ECHO, results)

    def _take_echoes(self, frames: Sequence[Frame]) -> None:
        results: list[PushResult[T]] = []
        with self._changed:
            for frame in frames:
                self._take_echo(frame, results)
            self._settled(results)
        self._report(results)

    def _settle_refs(self, refs: Sequence[str], confirmed_by: ConfirmedBy) -> None:
        results: list[PushResult[T]] = []
        with self._changed:
            for entry in filter(None, map(self._pending.settle_ref, refs)):
                self._confirm(entry, confirmed_by, results)
            self._settled(results)
        self._report(results)
        if confirmed_by is ConfirmedBy.BARRIER:
            with self._changed:
                self._sender.send_barrier()

    def _confirm(self, entry: Entry[T], confirmed_by: ConfirmedBy, results: list[PushResult[T]]) -> None:
        self._policy.confirmed(entry, confirmed_by)
        results.append(PushResult(entry.push, confirmed_by))

    def _settled(self, results: Sequence[PushResult[T]]) -> None:
        """Use the room that `results` made. Needs the lock; call `_report` after it, without the lock."""
        if results:
            self._unreported += len(results)
            self._flush()
            self._changed.notify_all()

    def _report(self, results: Sequence[PushResult[T]]) -> None:
        if results:
            self._on_results(results)
            with self._changed:
                self._unreported -= len(results)
                self._changed.notify_all()

    # Flow.

    def _take_flow(self, payload: Any) -> None:
        state = payload.get("state") if isinstance(payload, dict) else None
        if state in {"pause", "resume"}:
            self._set_paused(paused=state == "pause")
            self._flush()

    def _set_paused(self, *, paused: bool) -> None:
        if paused is not self._sender.paused:
            self._sender.paused = paused
            self._changed.notify_all()
            self._later(partial(self._on_flow, paused))

    # Upkeep, from the timer thread.

    def _tick(self) -> None:
        now = time.monotonic()
        results: list[PushResult[T]] = []
        with self._changed:
            self._look_at_silence(now)
            self._follow_up_overdue(now, results)
            silent = {entry.push.event for entry in self._pending.overdue(now - self._patience_s)} - {BATCH_EVENT}
            for event in silent:
                if not self._policy.is_known(event):
                    self._lose_patience(event)
            self._settled(results)
            self._flush()
        self._report(results)
        self._public.follow(wanted=self._policy.wants_public_topics)
        self._socket.after(self._tick_s, self._tick)

    def _follow_up_overdue(self, now: float, results: list[PushResult[T]]) -> None:
        """Repeat single pushes that the channel ignored; reject batches, whose owner pushes their results singly.

        Under one join a push is lost only with the channel. An unconfirmed push waits in the channel's mailbox, and a
        repeat would only lengthen that; unless the channel has handled later pushes: then it ignored this one.
        """
        if not self._sender.is_open:
            return
        timeout_s = self._settings.push_timeout_s
        by_weak_confirmation = self._policy.takes_weak_confirmation(BATCH_EVENT)
        for entry in self._pending.hopeless_batches(now, timeout_s, only_overtaken=by_weak_confirmation):
            self._pending.give_up(entry)
            results.append(PushResult(entry.push, rejection=UNANSWERED))
        left_out = self._pending.left_out(now, timeout_s)
        if left_out and not self._policy.by_writing:
            self._sender.repeat(left_out)

    def _look_at_silence(self, now: float) -> None:
        if self._sender.is_open:
            sent = list(self._pending.sent)
            confirmed_before = bool(sent) and self._policy.has_confirmed(sent[0].push.event)
            if warning := self._silence.look(sent, now, confirmed_before=confirmed_before):
                self._warn(warning)

    def _lose_patience(self, event: str) -> None:
        if not self._public.settled or self._pending.take_back_missed(event):
            return  # an echo may have been missed: sent again once the public topics are joined
        if not self._policy.gave_no_confirmation(event):
            # Sent once more after the public topics are joined: `expect` holds pushes back until then.
            self._pending.take_back(event)
            self._public.expect()
            return
        self._sender.send_barrier()
        if not self._warned:
            self._warned = True
            self._warn(self._silence.no_confirmation(event, self._public.fault))

    def _go_on(self) -> None:
        with self._changed:
            self._flush()

    def _missed_echoes(self) -> None:
        with self._changed:
            self._pending.miss_echoes()

    def _is_drained(self) -> bool:
        return not self._unreported and not self._pending.in_hand(time.monotonic())

    def _warn(self, text: str) -> None:
        self._later(partial(self._on_warning, text))

    def _later(self, call: Callable[[], None]) -> None:
        """Call `call` from the timer thread: the owner's callbacks must not run under our locks."""
        self._socket.after(0, call)
