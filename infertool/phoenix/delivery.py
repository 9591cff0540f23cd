"""Confirmed delivery: many pushes outstanding, each one ends in a proof or a refusal, nothing in between is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from infertool.errors import UnreachableError
from infertool.link import LinkEvent, LinkState, OnLink
from infertool.phoenix import batch
from infertool.phoenix.confirm import Confirmation
from infertool.phoenix.errors import DeliveryClosedError
from infertool.phoenix.frames import Frame, encode_push, reply_of
from infertool.phoenix.ledger import Entry, Ledger, Proof, Push, PushResult
from infertool.phoenix.membership import Loss, Membership
from infertool.phoenix.public import PublicTopic
from infertool.phoenix.socket import PhoenixSocket

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings

__all__ = ["Delivery", "Proof", "Push", "PushResult"]

OnResults = Callable[[Sequence[PushResult]], None]

# How long auto waits for a reply or an echo before it does something about it, at most. Seconds.
_PATIENCE_S = 5.0
_LONGEST_TICK_S = 1.0
CRASHED = "channel crashed"
UNANSWERED = "no proof came in time"
# After these the unconfirmed pushes are sent one at a time, until the one that brings it about is found.
_CRASHES = {Loss.CRASH, Loss.BLAMED}


class Delivery:
    """Pushes to one topic and reports, push by push, what proves it.

    A push is sent again, with the same event_id, when it stays unconfirmed for `push_timeout_s`, and after every
    rejoin; so what arrives may arrive twice. All callbacks come from the delivery's threads, must be quick, and must
    not push, stop or close. `on_results` gets the results of one read at a time.

    A pause (`flow` with `{"state": "pause"}`) lasts until `resume`, or until the next join: a server that lost the
    channel may have lost the pause with it, and would never end it. One that still means it says so after the join.
    """

    def __init__(
        self,
        settings: PhoenixSettings,
        *,
        on_results: OnResults,
        on_link: OnLink,
        on_flow: Callable[[bool], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._on_results = on_results
        self._on_link = on_link
        self._on_flow = on_flow
        self._on_warning = on_warning
        self._changed = threading.Condition()
        self._ledger = Ledger()
        self._confirmation = Confirmation(settings.confirm)
        self._unreported = 0
        self._join_ref = ""
        self._paused = False
        self._stopped = False
        self._barrier = False
        self._warned = False
        self._listening = False
        self._socket = PhoenixSocket(settings, on_link=self._take_link)
        self._membership = Membership(self._socket, settings.topic, self._socket.join_payload, self)
        public = dict.fromkeys([settings.result_topic, settings.alert_topic])
        public.pop(settings.topic, None)
        self._public = [PublicTopic(self._socket, topic, self._take_echoes, self._go_on) for topic in public]
        self._patience_s = min(_PATIENCE_S, settings.push_timeout_s / 2)
        self._tick_s = min(_LONGEST_TICK_S, self._patience_s / 4)

    @property
    def address(self) -> str:
        """Where it is or was last connected, without secrets."""
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

    def push(self, pushes: Sequence[Push]) -> None:
        """Take `pushes`; returns when the last of them was sent, or waits in the window for the link to come back.

        Blocks while `window` pushes are unconfirmed and while Phoenix says pause. Raises `DeliveryClosedError`,
        which holds those not taken, once `stop` or `close` began.
        """
        taken = 0
        with self._changed:
            while taken < len(pushes):
                room = self._wait_for_room()
                if not room:
                    raise DeliveryClosedError(pushes[taken:])
                self._ledger.accept(pushes[taken : taken + room])
                self._flush()
                taken += room

    def outstanding(self) -> int:
        """Return how many accepted pushes have no reported result yet."""
        with self._changed:
            return len(self._ledger) + self._unreported

    def stop(self) -> None:
        """Take no more pushes, and wake those who wait in `push`. What was taken is still delivered."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until every taken push has its result; False if some have not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._ledger and not self._unreported, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Stop, and disconnect within about `timeout_s`. Pushes still unconfirmed get no result."""
        self.stop()
        self._socket.close(timeout_s)

    # What the membership of the topic tells.

    def on_frames(self, frames: Sequence[Frame]) -> None:
        """Take replies, flow signals, and echoes when the topic itself is where results are broadcast."""
        results: list[PushResult] = []
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

    def on_joined(self, _response: Any) -> None:
        """Send what waits, under the new join_ref. A pause ends here."""
        with self._changed:
            self._join_ref = self._membership.join_ref
            self._set_paused(paused=False)
            self._flush()

    def on_lost(self, loss: Loss, reason: str) -> None:
        """Take back what is unconfirmed, to be pushed again after the rejoin."""
        with self._changed:
            self._join_ref = ""
            self._barrier = False
            self._confirmation.lost()
            if loss in _CRASHES:
                self._refuse_culprit(self._ledger.lose_by_crash(), reason)
            else:
                self._ledger.lose()
        if loss is not Loss.LINK:
            why = f"{loss}: {reason}" if reason else str(loss)
            self._later(partial(self._on_warning, f"{self._settings.topic}: {why}; joining again"))

    def _refuse_culprit(self, culprit: Entry | None, reason: str) -> None:
        if culprit:
            results = [PushResult(culprit.push, refusal=reason or CRASHED)]
            self._settled(results)
            self._later(partial(self._report, results))

    # Joining.

    def _join_all(self) -> None:
        self._membership.join(self._settings.connect_timeout_s)
        if not self._confirmation.wants_public_topics:
            return
        self._listening = True
        for future in [topic.join() for topic in self._public]:
            error = self._error_of(future)
            if error and self._confirmation.needs_public_topics:
                raise error

    def _error_of(self, joining: Future[Any]) -> BaseException | None:
        try:
            return joining.exception(self._settings.connect_timeout_s)
        except TimeoutError:
            what = f"no answer to joining the public topics at {self.address}"
        return UnreachableError(what, address=self.address, advice="phoenix.confirm echo needs them")

    def _take_link(self, event: LinkEvent) -> None:
        if event.state is LinkState.CLOSED:
            self.stop()
        self._on_link(event)

    # Sending. All with the lock held.

    def _wait_for_room(self) -> int:
        """Return how many pushes may be taken now, waiting for one at least; 0 when stopped."""
        while not self._stopped:
            room = self._settings.window - len(self._ledger)
            if room > 0 and not self._paused:
                return room
            self._changed.wait()
        return 0

    def _flush(self) -> None:
        if self._join_ref and not self._paused and all(topic.settled for topic in self._public):
            self._send(self._ledger.take_sendable())

    def _send(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        now = time.monotonic()
        messages = []
        for entry in entries:
            # Sent again under the same join, a push keeps its ref: a late reply to the first one counts.
            ref = entry.ref or self._socket.next_ref()
            self._ledger.mark_sent(entry, ref, now)
            push = entry.push
            messages.append(encode_push(self._join_ref, ref, self._settings.topic, push.event, push.payload))
        self._socket.send(messages, self._on_written(entries))
        if self._confirmation.uses_barriers and not self._barrier:
            self._send_barrier()

    def _on_written(self, entries: Sequence[Entry]) -> Callable[[], None] | None:
        if not self._confirmation.by_writing:
            return None
        proved = [entry for entry in entries if self._confirmation.takes_weak_proof(entry.push.event)]
        return partial(self._take_written, proved)

    def _send_barrier(self) -> None:
        covered = [entry.ref for entry in self._ledger.sent if self._confirmation.by_barrier(entry.push.event)]
        if covered:
            self._barrier = True
            self._socket.heartbeat(partial(self._take_barrier, covered))

    # Proofs. `_take_reply` and `_take_echo` with the lock held.

    def _take_reply(self, frame: Frame, results: list[PushResult]) -> None:
        entry = self._ledger.settle_ref(frame.ref)
        if entry is None:
            self._confirmation.replied_late(frame.ref)
            return
        reply = reply_of(frame)
        if reply.status == "ok":
            self._prove(entry, Proof.REPLY, results)
        else:
            reason = reply.reason if reply.status == "error" else f"{reply.status}: {reply.reason}"
            results.append(PushResult(entry.push, refusal=reason))

    def _take_echo(self, frame: Frame, results: list[PushResult]) -> None:
        if not self._confirmation.takes_echoes:
            return
        for document in batch.documents(frame):
            entry = self._ledger.settle_event(document.get("event_id")) if isinstance(document, dict) else None
            if entry:
                self._prove(entry, Proof.ECHO, results)

    def _take_echoes(self, frames: Sequence[Frame]) -> None:
        results: list[PushResult] = []
        with self._changed:
            for frame in frames:
                self._take_echo(frame, results)
            self._settled(results)
        self._report(results)

    def _take_written(self, entries: Sequence[Entry]) -> None:
        self._settle_refs([entry.ref for entry in entries], Proof.NONE)

    def _take_barrier(self, refs: Sequence[str]) -> None:
        self._barrier = False
        self._settle_refs(refs, Proof.BARRIER)
        with self._changed:
            if not self._barrier:
                self._send_barrier()

    def _settle_refs(self, refs: Sequence[str], proof: Proof) -> None:
        results: list[PushResult] = []
        with self._changed:
            for entry in filter(None, map(self._ledger.settle_ref, refs)):
                self._prove(entry, proof, results)
            self._settled(results)
        self._report(results)

    def _prove(self, entry: Entry, proof: Proof, results: list[PushResult]) -> None:
        self._confirmation.proved(entry, proof)
        results.append(PushResult(entry.push, proof))

    def _settled(self, results: Sequence[PushResult]) -> None:
        """Go on with the room that `results` made. With the lock held; `_report` follows without it."""
        if results:
            self._unreported += len(results)
            self._flush()
            self._changed.notify_all()

    def _report(self, results: Sequence[PushResult]) -> None:
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
        if paused is not self._paused:
            self._paused = paused
            self._changed.notify_all()
            self._later(partial(self._on_flow, paused))

    # Upkeep, from the timer thread.

    def _tick(self) -> None:
        now = time.monotonic()
        results: list[PushResult] = []
        with self._changed:
            self._follow_up_overdue(now, results)
            silent = {entry.push.event for entry in self._ledger.overdue(now - self._patience_s)} - {batch.EVENT}
            for event in silent:
                if not self._confirmation.is_known(event):
                    self._lose_patience(event)
            self._settled(results)
            self._flush()
        self._report(results)
        self._follow_confirmation()
        self._socket.after(self._tick_s, self._tick)

    def _follow_up_overdue(self, now: float, results: list[PushResult]) -> None:
        """Push again what is overdue; refuse batches, whose owner knows another way to push what they hold.

        A channel that ignores batches gives no proof, and none weaker than that of single results may do.
        """
        overdue = self._ledger.overdue(now - self._settings.push_timeout_s)
        if not self._join_ref or self._paused:
            return
        batches = [entry for entry in overdue if entry.push.event == batch.EVENT]
        for entry in batches:
            self._ledger.settle_ref(entry.ref)
            results.append(PushResult(entry.push, refusal=UNANSWERED))
        if not self._confirmation.by_writing:
            self._send([entry for entry in overdue if entry.push.event != batch.EVENT])

    def _lose_patience(self, event: str) -> None:
        if not self._confirmation.gave_no_proof(event):
            # Once more, with the public topics joined: they are by the time these are sent.
            self._ledger.take_back(event)
            for topic in self._public:
                topic.settled = topic.settled and self._listening
            return
        if not self._barrier:
            self._send_barrier()
        if not self._warned:
            self._warned = True
            self._later(partial(self._on_warning, self._no_proof_text(event)))

    def _no_proof_text(self, event: str) -> str:
        topics = f"{self._settings.result_topic} or {self._settings.alert_topic}"
        return (
            f"{self._settings.topic} answers {event} neither with a reply nor with a broadcast on {topics}; "
            "confirming by heartbeats, which prove only that the server read it (phoenix.confirm chooses another way)"
        )

    def _follow_confirmation(self) -> None:
        wanted = self._confirmation.wants_public_topics
        for topic in self._public:
            if not wanted:
                topic.leave()
            elif not self._listening:
                topic.join()
        self._listening = wanted

    def _go_on(self) -> None:
        with self._changed:
            self._flush()

    def _later(self, call: Callable[[], None]) -> None:
        """Call from the timer thread: a callback of the owner must not run under our locks."""
        self._socket.after(0, call)
