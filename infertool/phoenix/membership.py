"""The membership of one topic: it joins, rejoins after each loss, and passes on only frames of the current join."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from infertool.errors import ConnectionLostError, InfertoolError, JoinRefusedError, SettingsError, UnreachableError
from infertool.net.timing import REJOIN
from infertool.phoenix.frames import Frame, FrameError, Reply, encode_text, reply_of
from infertool.secret import MASK, Secret, is_telling

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings


_LONGEST_REASON = 200
# Minimum length of a text that is masked: masking shorter texts would garble the server's message. Characters.
_SHORTEST_SECRET = 4
# Ours count from 1. Python refuses to read numbers of very many digits.
_MOST_DIGITS = 18


class Joining:
    """Makes the payload of each join. A channel may require the token there, also if the socket sent it."""

    def __init__(self, settings: PhoenixSettings) -> None:
        self._settings = settings
        self._sent: set[str] = {
            str(value) for name, value in settings.join_params.items() if is_telling(name) and value
        }

    def payload(self, token: Secret) -> dict[str, Any]:
        """Return the payload of one join, with the current token. Raises `SettingsError` as `Secret.reveal` does."""
        params = self._settings.join_params
        if not self._sends(token):
            return params
        text = token.reveal()
        self._sent.add(text)
        return {"token": text, **params}

    def shown(self, reason: str) -> str:
        """Return the server's `reason`, shortened, with masked secrets: a server may repeat them."""
        for secret in sorted(self._sent, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                reason = reason.replace(secret, MASK).replace(repr(secret)[1:-1], MASK)
        return reason[:_LONGEST_REASON]

    def rejection(self, topic: str, address: str, reason: str, token: Secret) -> JoinRefusedError:
        """Return the error of a refused join. `reason` must hold no secrets."""
        return JoinRefusedError(topic=topic, address=address, reason=reason, advice=self._advice(reason, token))

    def _sends(self, token: Secret) -> bool:
        return self._settings.join_token and bool(token) and "token" not in self._settings.join_params

    def _advice(self, reason: str, token: Secret) -> str:
        if reason == UNMATCHED:
            return "the server has no channel for it: check the topic's name"
        if self._sends(token):
            what = "the token was in the join payload, too: check PHOENIX_SERVICE_TOKEN (phoenix.token)"
        elif not token:
            what = "no token was sent: set PHOENIX_SERVICE_TOKEN (phoenix.token)"
        elif self._settings.join_token:
            what = "the join payload's token is that of phoenix.join_params: check it"
        else:
            what = "the join payload had no token: if the channel wants it there, set phoenix.join_token = true"
        return f"{what}; other values that the join requires go into phoenix.join_params"


UNMATCHED = "unmatched topic"
_LIFECYCLE = {"phx_error", "phx_close"}


class JoinState(StrEnum):
    """The states of a membership. WAITING: it was lost, or refused after a reconnect, and joins again later."""

    LEFT = "left"
    JOINING = "joining"
    JOINED = "joined"
    WAITING = "waiting"


class Loss(StrEnum):
    """Why a membership ended without `leave`."""

    CRASH = "the channel crashed"
    CLOSE = "the server closed the channel"
    UNMATCHED = "the server does not know the join any more"
    REFUSED = "the join was refused"
    TIMEOUT = "the join was not answered"
    UNSENT = "the join could not be sent"
    LINK = "the connection was lost"
    BLAMED = "the server closed the connection because of a message"
    TOO_LARGE = "the server closed the connection because of a message larger than it takes"


class Transport(Protocol):
    """The socket, as a membership uses it. No call blocks."""

    @property
    def address(self) -> str:
        """The address of the current or last connection."""

    @property
    def join_timeout_s(self) -> float:
        """Maximum wait for a join's reply, in seconds."""

    def add(self, membership: Membership) -> None:
        """Pass the frames of the topic to `membership`."""

    def next_ref(self) -> str:
        """Return the next ref; all memberships of a socket share one counter."""

    def send(self, messages: Sequence[bytes]) -> bool:
        """Queue text frames. Return False if there is no connection."""

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call `call` in `delay_s` seconds."""

    def forget(self, membership: Membership) -> None:
        """Pass no more frames to `membership`."""

    def join_payload(self) -> dict[str, Any]:
        """Return the payload of one join. Raises `SettingsError` if a secret's file cannot be read now."""

    def shown(self, reason: str) -> str:
        """Return a server's reason without secrets."""

    def rejection(self, topic: str, reason: str) -> JoinRefusedError:
        """Return the error of a refused join."""


class Listener(Protocol):
    """Receives a membership's frames and changes, one call at a time.

    `on_joined` and `on_lost` are called with the membership's lock held: they must be quick, and must not call it.
    """

    def on_frames(self, frames: Sequence[Frame]) -> None:
        """Handle the pushes, broadcasts and replies (except the join's) of one read. Called without the lock."""

    def on_joined(self, response: Any) -> None:
        """Handle the join's response. Pushes may be sent with the new join_ref."""

    def on_lost(self, loss: Loss, reason: str) -> None:
        """Handle the loss: unanswered pushes get no reply."""


class Membership:
    """One topic on one socket.

    The socket calls all methods except `join`, `begin_join` and `leave`: with frames and connection changes from its
    reader thread, for join timeouts and rejoins from its timer thread.
    """

    def __init__(self, transport: Transport, topic: str, payload: Callable[[], Any], listener: Listener) -> None:
        self.topic = topic
        self.state = JoinState.LEFT
        self.join_ref = ""
        self._transport = transport
        self._payload = payload
        self._listener = listener
        self._lock = threading.RLock()
        self._failures = 0
        self._attempt = 0
        self._first: Future[Any] | None = None

    def join(self, timeout_s: float) -> Any:
        """Join, wait up to `timeout_s`, and return the server's response. Afterwards it rejoins after each loss.

        Raises `JoinRefusedError`, and `UnreachableError` without an answer in time; then it is not joined.
        """
        try:
            return self.begin_join().result(timeout_s)
        except FutureTimeoutError:
            self.leave()
        what = f"no answer to joining {self.topic} at {self._transport.address} within {timeout_s:g} s"
        raise UnreachableError(what, address=self._transport.address, advice="see the server's log")

    def begin_join(self) -> Future[Any]:
        """Join without waiting. The future gets the response, or the error that `join` would raise."""
        with self._lock:
            first: Future[Any] = Future()
            self._first = first
            self._transport.add(self)
            self._send_join()
        return first

    def leave(self) -> None:
        """Leave, without waiting for the server's answer."""
        with self._lock:
            if self.state in {JoinState.JOINING, JoinState.JOINED}:
                self._send_leave()
            self._forget()

    def link_up(self) -> None:
        """Join again on the new connection."""
        with self._lock:
            if self.state is JoinState.WAITING:
                self._send_join()

    def link_down(self, loss: Loss, reason: str) -> None:
        """Wait for the next connection."""
        with self._lock:
            if self.state in {JoinState.JOINING, JoinState.JOINED}:
                self._wait(loss, reason)

    def link_closed(self) -> None:
        """End: the socket makes no further connection."""
        with self._lock:
            first = self._first
            if self.state is not JoinState.LEFT:
                self._wait(Loss.LINK, "closed")
                self._forget()
        if first:
            first.set_exception(ConnectionLostError("the socket was closed", address=self._transport.address))

    def receive(self, frames: Sequence[Frame]) -> None:
        """Handle this topic's frames of one read."""
        mine: list[Frame] = []
        for frame in frames:
            if frame.event in _LIFECYCLE or (frame.event == "phx_reply" and self._is_control(frame)):
                self._hand_over(mine)
                mine = []
                self._control(frame)
            elif frame.join_ref is None or frame.join_ref == self.join_ref:
                mine.append(frame)
        self._hand_over(mine)

    def _hand_over(self, frames: list[Frame]) -> None:
        if frames and self.state is not JoinState.LEFT:
            self._listener.on_frames(frames)

    def _is_control(self, reply: Frame) -> bool:
        return reply.join_ref is None or reply.ref == self.join_ref

    def _control(self, frame: Frame) -> None:
        with self._lock:
            if frame.event == "phx_reply":
                self._take_reply(frame)
            elif frame.join_ref == self.join_ref and self.state is not JoinState.LEFT:
                # In both frames the ref is the join_ref: they answer no push.
                self._lose(Loss.CRASH if frame.event == "phx_error" else Loss.CLOSE, "")

    def _take_reply(self, reply: Frame) -> None:
        if self.state is JoinState.JOINING and reply.ref == self.join_ref:
            self._take_join_reply(reply_of(reply))
        elif self.state is JoinState.JOINED and reply.join_ref is None and self._is_newer_than_join(reply):
            self._lose(Loss.UNMATCHED, reply_of(reply).reason)

    def _is_newer_than_join(self, reply: Frame) -> bool:
        """Return True if it answers a push of this join. Pushes of an earlier join may be answered late."""
        ref = str(reply.ref)
        return ref.isdecimal() and len(ref) <= _MOST_DIGITS and int(ref) > int(self.join_ref)

    def _take_join_reply(self, reply: Reply) -> None:
        if reply.status == "ok":
            self.state = JoinState.JOINED
            self._failures = 0
            self._listener.on_joined(reply.response)
            self._resolve_first(reply.response)
        else:
            self._refuse(self._transport.shown(reply.whole_reason))

    def _refuse(self, reason: str) -> None:
        if self._first:
            self._fail_first(self._transport.rejection(self.topic, reason))
        else:
            self._lose(Loss.REFUSED, reason)

    def _resolve_first(self, response: Any) -> None:
        if self._first:
            self._first.set_result(response)
            self._first = None

    def _fail_first(self, error: InfertoolError) -> None:
        first, self._first = self._first, None
        self._forget()
        if first:
            first.set_exception(error)

    def _lose(self, loss: Loss, reason: str) -> None:
        """Change to WAITING while the connection is up, and join again on the schedule."""
        self._wait(loss, reason)
        self._failures += 1
        self._transport.after(REJOIN.wait(self._failures), partial(self._rejoin, self._attempt))

    def _wait(self, loss: Loss, reason: str) -> None:
        self.state = JoinState.WAITING
        self.join_ref = ""
        self._listener.on_lost(loss, reason)

    def _forget(self) -> None:
        self.state = JoinState.LEFT
        self.join_ref = ""
        self._first = None
        self._attempt += 1
        self._transport.forget(self)

    def _send_join(self) -> None:
        self.state = JoinState.WAITING
        self._attempt += 1
        ref = self._transport.next_ref()
        try:
            join = encode_text(ref, ref, self.topic, "phx_join", self._payload())
        except SettingsError as error:
            self._postpone(error)
            return
        except FrameError as error:  # a name or a parameter that is no UTF-8
            self._postpone(SettingsError(f"{self.topic} cannot be joined: {error.reason}", advice="check its name"))
            return
        if self._transport.send([join]):
            self.state = JoinState.JOINING
            self.join_ref = ref
            self._transport.after(self._transport.join_timeout_s, partial(self._give_up, self._attempt))

    def _postpone(self, error: SettingsError) -> None:
        """Join again on the schedule if the join cannot be sent now: a secret's file may just be replaced."""
        if self._first:
            self._fail_first(error)
        else:
            self._lose(Loss.UNSENT, str(error))

    def _send_leave(self) -> None:
        ref = self._transport.next_ref()
        self._transport.send([encode_text(self.join_ref, ref, self.topic, "phx_leave", {})])

    def _rejoin(self, attempt: int) -> None:
        with self._lock:
            if attempt == self._attempt and self.state is JoinState.WAITING:
                self._send_join()

    def _give_up(self, attempt: int) -> None:
        """Leave after an unanswered join, as the official client does: else a late answer would leave it joined."""
        with self._lock:
            if attempt == self._attempt and self.state is JoinState.JOINING:
                self._send_leave()
                self._lose(Loss.TIMEOUT, "")
