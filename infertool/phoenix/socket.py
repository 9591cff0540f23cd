"""The supervised Phoenix socket: one reader, one writer, one timer thread; a new WebSocket after each loss."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from infertool.errors import InfertoolError, JoinRefusedError, RefusedError
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.net.timing import VIEWER, Reconnecting, Timers
from infertool.phoenix.dial import dial, targets
from infertool.phoenix.frames import Frame, FrameError, decode_from_server, decode_text, encode_text, reply_of
from infertool.phoenix.membership import Joining, Loss, Membership
from infertool.phoenix.stream import TEXT, Connection, ConnectionEndedError

if TYPE_CHECKING:
    from infertool.settings.tree import PhoenixSettings


_OnAnswer = Callable[[], None]
# Minimum life of a connection that resets the reconnect schedule. Seconds.
_STABLE_S = 5.0
# Close codes that a message caused: invalid UTF-8, too large a frame, a frame that crashed the transport.
_LOSSES = {1007: Loss.BLAMED, 1009: Loss.TOO_LARGE, 1011: Loss.BLAMED}


class PhoenixSocket:
    """A connection to Phoenix that reconnects after each loss. Thread-safe.

    `on_connection` is called from the socket's threads (and from `connect`'s caller for the first connection); it must
    be quick and must not close the socket.
    """

    def __init__(
        self,
        settings: PhoenixSettings,
        *,
        on_connection: OnConnection | None = None,
        reconnecting: Reconnecting = VIEWER,
    ) -> None:
        self._settings = settings
        self._reconnecting = reconnecting
        self._on_connection = on_connection
        self._targets = targets(settings)
        self._target = self._targets[0]
        self._joining = Joining(settings)
        self._refs = itertools.count(1)
        self._timers = Timers("phoenix-timers", self._abandon)
        self._members: dict[str, Membership] = {}
        self._answers: dict[str, _OnAnswer] = {}
        self._connection: Connection | None = None
        self._epoch = 0
        self._since = 0.0
        self._failures = 0
        self._heard = True
        self._handling = False
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._supervise, name="phoenix-reader", daemon=True)

    @property
    def address(self) -> str:
        """The address of the current or last connection, without user part and parameters."""
        return self._target.address

    @property
    def join_timeout_s(self) -> float:
        """Maximum wait for a join's reply, in seconds."""
        return self._settings.connect_timeout_s

    def connect(self) -> None:
        """Connect once, trying each host. Raises `UnreachableError`, `RefusedError`, `SettingsError`.

        After the first success a supervisor reconnects on the schedule until `close`.
        """
        self._tell(ConnectionState.CONNECTING)
        self._dial_any()
        self._timers.start()
        self._reader.start()

    def close(self, timeout_s: float) -> None:
        """Send a close frame, wait up to `timeout_s` for the server's answer, and stop all threads.

        Not from a callback. A running attempt to connect ends by itself within `connect_timeout_s`.
        """
        self._closing.set()
        connection = self._connection
        if connection:
            connection.say_goodbye()
            self._reader.join(timeout_s)
            connection.end("closed")
        if self._reader.is_alive():
            self._reader.join(timeout_s)
        self._timers.stop()
        self._timers.join()

    def add(self, membership: Membership) -> None:
        """Pass the frames of its topic to `membership`. A socket has at most one membership of a topic."""
        if membership.topic in self._members:
            raise ValueError(f"{membership.topic} has a channel on this socket already")
        self._members[membership.topic] = membership

    def forget(self, membership: Membership) -> None:
        """Pass no more frames to `membership`."""
        if self._members.get(membership.topic) is membership:
            del self._members[membership.topic]

    def join_payload(self) -> dict[str, Any]:
        """Return the payload of one join. Raises `SettingsError` if the token's file cannot be read now."""
        return self._joining.payload(self._target.token)

    def shown(self, reason: str) -> str:
        """Return a server's reason, shortened, without secrets."""
        return self._joining.shown(reason)

    def rejection(self, topic: str, reason: str) -> JoinRefusedError:
        """Return the error of a refused join, with advice."""
        return self._joining.rejection(topic, self.address, reason, self._target.token)

    def next_ref(self) -> str:
        """Return the next ref. Joins, pushes and heartbeats share one counter, which reconnects do not reset."""
        return str(next(self._refs))

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call `call` from the timer thread in `delay_s` seconds."""
        self._timers.after(delay_s, call)

    def send(self, messages: Sequence[bytes], on_written: Callable[[], None] | None = None) -> bool:
        """Write or queue text frames. Return False, with nothing queued, if there is no connection."""
        connection = self._connection
        if connection is None:
            return False
        connection.write(messages, on_written=on_written)
        return True

    def heartbeat(self, on_answer: _OnAnswer) -> bool:
        """Send a heartbeat. `on_answer` is called when the server has read it and all earlier frames."""
        ref = self.next_ref()
        self._answers[ref] = on_answer
        return self.send([encode_text(None, ref, "phoenix", "heartbeat", {})])

    def _dial_any(self) -> None:
        """Connect to the first host that accepts. Raises the first refusal, else the last host's error."""
        failure: InfertoolError | None = None
        for target in self._targets:
            try:
                stream = dial(target, self._settings, ask=self._epoch == 0)
            except InfertoolError as error:
                failure = failure if isinstance(failure, RefusedError) else error
            else:
                self._target = target
                self._adopt(Connection(stream, target.address))
                return
        if failure:
            raise failure

    def _adopt(self, connection: Connection) -> None:
        self._epoch += 1
        self._since = time.monotonic()
        self._connection = connection
        if self._closing.is_set():
            connection.end("closed")
        self._tell(ConnectionState.CONNECTED)
        self._heard, self._handling = True, False
        if self._settings.heartbeat_s:
            self.after(self._settings.heartbeat_s, partial(self._beat, connection))
        # More than one failure: the server was away, and viewers need time to reconnect. One may be ours alone.
        if self._reconnecting.settle_s and self._failures > 1:
            self.after(self._reconnecting.settle_s, partial(self._link_up, connection))
        else:
            self._link_up(connection)

    def _link_up(self, connection: Connection) -> None:
        if connection is self._connection:
            for membership in list(self._members.values()):
                membership.link_up()

    def _beat(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        # While frames are handled nothing is read, and the answer is behind all that waits to be read.
        if not (self._heard or self._handling):
            connection.end(f"the heartbeat was not answered within {self._settings.heartbeat_s:g} s")
            return
        self._heard = False
        self.send([encode_text(None, self.next_ref(), "phoenix", "heartbeat", {})])
        self.after(self._settings.heartbeat_s, partial(self._beat, connection))

    def _supervise(self) -> None:
        try:
            while self._connection:
                self._reconnect(self._serve(self._connection))
        finally:
            self._shut()

    def _serve(self, connection: Connection) -> str:
        """Read until the connection ends; return the reason."""
        loss = Loss.LINK
        try:
            while True:
                messages = connection.read()
                self._heard = self._handling = True
                self._route(_decode(messages))
                self._handling = False
        except ConnectionEndedError as error:
            reason = str(error)
            loss = _LOSSES.get(error.code or 0, Loss.LINK)
        except FrameError as error:
            reason = f"the server sent a message that is no Phoenix frame: {error}"
        self._connection = None
        connection.close()
        self._answers.clear()
        for membership in list(self._members.values()):
            membership.link_down(loss, reason)
        return reason

    def _reconnect(self, reason: str) -> None:
        """Replace the lost connection by a new one, unless the socket is being closed."""
        if time.monotonic() - self._since > _STABLE_S:
            self._failures = 0
        while not self._closing.is_set() and self._connection is None:
            self._failures += 1
            wait_s = self._reconnecting.schedule.wait(self._failures)
            self._tell(ConnectionState.LOST, reason, wait_s)
            if self._closing.wait(wait_s):
                return
            self._tell(ConnectionState.CONNECTING)
            try:
                self._dial_any()
            except InfertoolError as error:
                reason = str(error)

    def _abandon(self) -> None:
        """Close: a callback ended the timer thread, which sends heartbeats and rejoins."""
        self._closing.set()
        if connection := self._connection:
            connection.end("a callback failed")

    def _shut(self) -> None:
        """Close everything and release all waiting threads, also if a callback raised."""
        self._closing.set()
        connection, self._connection = self._connection, None
        if connection:
            connection.close()
        for membership in list(self._members.values()):
            membership.link_closed()
        self._tell(ConnectionState.CLOSED)

    def _tell(self, state: ConnectionState, reason: str = "", retry_in_s: float | None = None) -> None:
        if self._on_connection:
            self._on_connection(ConnectionEvent(state, self.address, self._epoch, reason, retry_in_s))

    def _route(self, frames: list[Frame]) -> None:
        by_topic: dict[str, list[Frame]] = {}
        for frame in frames:
            by_topic.setdefault(frame.topic, []).append(frame)
        for topic, same in by_topic.items():
            if topic == "phoenix":
                self._take_answers(same)
            if membership := self._members.get(topic):
                membership.receive(same)

    def _take_answers(self, frames: list[Frame]) -> None:
        for frame in frames:
            if on_answer := self._answers.pop(str(frame.ref), None):
                on_answer()


def _decode(messages: list[tuple[int, bytes]]) -> list[Frame]:
    frames = [decode_text(data) if opcode == TEXT else decode_from_server(data) for opcode, data in messages]
    for frame in frames:
        if frame.event == "phx_reply":
            reply_of(frame)
    return frames
