"""A joined topic as a test wants it: messages and states one by one, pushes with a future reply."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from infertool.errors import ConnectionLostError, ServerError
from infertool.phoenix.frames import Frame, Reply, encode_text, reply_of
from infertool.phoenix.membership import JoinState, Loss, Membership, Transport

OnMessage = Callable[[Frame], None]
OnState = Callable[[JoinState, str], None]


def ignore_state(_state: JoinState, _reason: str) -> None:
    """Do nothing: the default of `on_state`."""


class PushTimeoutError(ServerError):
    """No reply to a push came in time."""


class Channel:
    """One topic on a `PhoenixSocket`, not joined yet; `params` is the join's payload.

    `on_message` gets every push and broadcast; `on_state` gets JOINED and, with a reason, WAITING. Both come from the
    socket's threads, must be quick, and must not join, leave or close.
    """

    def __init__(
        self,
        transport: Transport,
        topic: str,
        params: Any,
        *,
        push_timeout_s: float = 10.0,
        on_message: OnMessage,
        on_state: OnState = ignore_state,
    ) -> None:
        self._transport = transport
        self._membership = Membership(transport, topic, lambda: params, self)
        self._push_timeout_s = push_timeout_s
        self._on_message = on_message
        self._on_state = on_state
        self._lock = threading.Lock()
        self._replies: dict[str, Future[Reply]] = {}

    @property
    def topic(self) -> str:
        """The topic."""
        return self._membership.topic

    @property
    def state(self) -> JoinState:
        """Where the membership stands."""
        return self._membership.state

    def join(self, timeout_s: float) -> Any:
        """Join, and return the server's response. From then on it is rejoined after every loss, until `leave`.

        Raises `JoinRefusedError`; `UnreachableError` when no answer comes within `timeout_s`.
        """
        return self._membership.join(timeout_s)

    def leave(self) -> None:
        """Leave. Pushes without a reply fail with `ConnectionLostError`."""
        self._membership.leave()
        self._fail_all("the channel was left")

    def push(self, event: str, payload: Any) -> Future[Reply]:
        """Push, and return the future reply; of any status, also error.

        It fails with `ConnectionLostError` when the channel is not joined or is lost before the reply, and with
        `PushTimeoutError`. Raises `FrameError` for a payload that JSON cannot hold.
        """
        future: Future[Reply] = Future()
        ref = self._transport.next_ref()
        message = encode_text(self._membership.join_ref, ref, self.topic, event, payload)
        with self._lock:
            self._replies[ref] = future
        if self.state is JoinState.JOINED and self._transport.send([message]):
            self._transport.after(self._push_timeout_s, partial(self._time_out, ref))
        else:
            self._fail(ref, self._lost(f"{self.topic} is not joined"))
        return future

    def on_frames(self, frames: Sequence[Frame]) -> None:
        """Take frames from the membership."""
        for frame in frames:
            if frame.event == "phx_reply":
                self._resolve(str(frame.ref), reply_of(frame))
            else:
                self._on_message(frame)

    def on_joined(self, _response: Any) -> None:
        """Tell the owner."""
        self._on_state(JoinState.JOINED, "")

    def on_lost(self, loss: Loss, reason: str) -> None:
        """Tell the owner, and those who wait for replies."""
        why = f"{loss}: {reason}" if reason else str(loss)
        self._fail_all(why)
        self._on_state(JoinState.WAITING, why)

    def _resolve(self, ref: str, reply: Reply) -> None:
        if future := self._take(ref):
            future.set_result(reply)

    def _time_out(self, ref: str) -> None:
        what = f"no reply from {self.topic} at {self._transport.address} within {self._push_timeout_s:g} s"
        self._fail(ref, PushTimeoutError(what, address=self._transport.address))

    def _fail_all(self, why: str) -> None:
        for ref in list(self._replies):
            self._fail(ref, self._lost(f"{self.topic}: {why}"))

    def _fail(self, ref: str, error: ServerError) -> None:
        if future := self._take(ref):
            future.set_exception(error)

    def _take(self, ref: str) -> Future[Reply] | None:
        with self._lock:
            return self._replies.pop(ref, None)

    def _lost(self, what: str) -> ConnectionLostError:
        return ConnectionLostError(what, address=self._transport.address)
