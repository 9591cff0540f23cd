"""Calls over one connection to a broker, with one queue for all replies."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self

import msgspec

from infertool import brokers
from infertool.brokers import callbacks
from infertool.brokers.port import Broker, Capabilities, Conventions, OnSent, Replies
from infertool.codec import BY_NAME, JSON, Codec
from infertool.errors import (
    CallTimeoutError,
    ConnectionLostError,
    InfertoolError,
    ReceiptTimeoutError,
    RefusedError,
    UnreadableReplyError,
    UsageError,
)
from infertool.message import BodyKind, Message, Outgoing, Properties
from infertool.net.connection_state import ConnectionEvent, ConnectionState, OnConnection
from infertool.net.timing import Timers
from infertool.rpc.pending import Counts, End, Pending
from infertool.rpc.reply import Call, NewCall, Reply
from infertool.rpc.room import Room
from infertool.settings.broker import BrokerSettings

# Requests that the broker has not confirmed: fewer than any adapter lets be open, so that no call waits in it.
_MOST_UNCONFIRMED: Final = 400
# Time until a request is sent again that must not be lost with its connection. Seconds.
_AGAIN_S: Final = 0.1
_CLOSE_S: Final = 5.0


class Client:
    """Calls servers behind a broker. Thread-safe; any number of calls may be under way.

    `broker` is a URL or settings. `on_connection` hears of the connection's changes. After a loss the connection is
    made anew; calls that were under way fail with `ConnectionLostError`, unless they `retry`: then the same request
    (with its ids) is sent again, so that a server may do it twice.
    """

    def __init__(
        self, broker: BrokerSettings | str, *, name: str = "infertool-rpc", on_connection: OnConnection | None = None
    ) -> None:
        settings = BrokerSettings(url=broker) if isinstance(broker, str) else broker
        self._on_connection = on_connection
        self._broker: Broker = brokers.open(settings, name=name, on_connection=self._connection_changed)
        self._pending = Pending(f"{name}-deadlines", self._time_out)
        # Sends requests again.
        self._again = Timers(f"{name}-retries")
        # Ids of calls whose requests are about to be sent again.
        self._waiting: set[str] = set()
        self._waiting_lock = threading.Lock()
        self._room = Room(_MOST_UNCONFIRMED)
        self._token = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._replies: Replies | None = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The broker's address, secrets masked."""
        return self._broker.address

    @property
    def conventions(self) -> Conventions:
        """How the broker spells queues."""
        return self._broker.conventions

    @property
    def capabilities(self) -> Capabilities:
        """What the broker can do."""
        return self._broker.capabilities

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._replies is not None and self._replies.address is not None

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a request can be sent at once; False if none can within `timeout_s`."""
        if not self._room.take(timeout_s):
            return False
        self._room.give()
        return True

    def wait_for_confirmations(self, timeout_s: float) -> bool:
        """Wait until the broker has answered for each request that was sent; False if not within `timeout_s`."""
        return self._room.wait_until_free(timeout_s)

    @property
    def counts(self) -> Counts:
        """What became of the calls so far."""
        return self._pending.counts

    @property
    def under_way(self) -> int:
        """The number of calls that wait for a reply."""
        return len(self._pending)

    def connect(self) -> None:
        """Connect, once. Raises `UnreachableError`, or `RefusedError` also where the broker has no reply addresses."""
        self._broker.connect()
        try:
            self._replies = self._broker.open_replies(self._on_replies)
        except InfertoolError:
            self._broker.close(_CLOSE_S)
            raise
        self._pending.start()
        self._again.start()

    def close(self) -> None:
        """End the connection. Calls under way fail with `ConnectionLostError`. Safe to call again."""
        if self._replies:
            self._replies.close()
        self._pending.close()
        self._again.stop()
        self._again.join()
        self._lose_all("the client was closed", retries=True)
        self._broker.close(_CLOSE_S)

    def call(
        self,
        queue: str,
        payload: Any,
        *,
        timeout_s: float,
        codec: Codec | str = JSON,
        headers: Mapping[str, str] | None = None,
        priority: int | None = None,
        retry: bool = False,
    ) -> Reply:
        """Send `payload` to `queue`, and wait for the reply.

        Raises `CallTimeoutError`, `UnroutableError`, `RefusedError`, `RemoteFailureError`, `ConnectionLostError`, and
        `UsageError` for what is no queue.
        """
        waiting = self.call_nowait(
            queue, payload, timeout_s=timeout_s, codec=codec, headers=headers, priority=priority, retry=retry
        )
        try:
            return waiting.result()
        except BaseException:
            # Of an interrupt: nobody waits any more.
            waiting.cancel()
            raise

    def call_nowait(
        self,
        queue: str,
        payload: Any,
        *,
        timeout_s: float,
        codec: Codec | str = JSON,
        headers: Mapping[str, str] | None = None,
        priority: int | None = None,
        retry: bool = False,
    ) -> Call:
        """Send `payload` to `queue`, and return the call under way.

        Waits while 400 requests are unconfirmed, for `timeout_s` at most. Raises `UsageError` for what is no queue,
        `codec.EncodeError` for what the codec cannot hold.
        """
        used = codec if isinstance(codec, Codec) else BY_NAME[codec]
        request = Outgoing(
            self._broker.conventions.queue(queue),
            used.encode(payload),
            BodyKind.TEXT if used.is_text else BodyKind.BYTES,
            dict(headers or {}),
            Properties(content_type=used.content_type, priority=priority, persistent=False),
        )
        return self.start(request, timeout_s=timeout_s, retry=retry, codec=used)

    def start(
        self,
        request: Outgoing,
        *,
        timeout_s: float,
        retry: bool = False,
        codec: Codec = JSON,
        on_sent: OnSent | None = None,
    ) -> Call:
        """Send a message as a request, as it is, and return the call under way.

        Its correlation id, reply address and times are the client's; an `event_id` and a `deadline` in its headers
        stay. `codec` is that of a reply without a content type. `on_sent` hears what the broker said of each attempt to
        send, as `Broker.send` tells it.
        """
        call = self._new_call(NewCall(request, timeout_s, codec, on_sent), retry=retry)
        if self._replies is None or not self._pending.add([call]):
            raise self._not_connected()
        if self._room.take(timeout_s):
            self._send_in_time(call)
        return call

    def start_all(self, new: Sequence[NewCall]) -> list[Call]:
        """Start calls as `start` does; an adapter may join their requests into one write.

        Raises `ConnectionLostError` where there is no connection: then none is started.
        """
        if not self.connected:
            raise self._not_connected()
        calls = [self._new_call(each) for each in new]
        if not self._pending.add(calls):
            raise self._not_connected()
        started = 0
        while started < len(calls):
            if taken := self._room.take_some(len(calls) - started):
                self._send_all(calls[started : started + taken])
                started += taken
                continue
            call = calls[started]
            if self._room.take(call.timeout_s):
                self._send_in_time(call)
            started += 1
        return calls

    def _new_call(self, new: NewCall, *, retry: bool = False) -> Call:
        if new.timeout_s <= 0:
            raise UsageError(f"a call needs a timeout above 0, not {new.timeout_s:g} s")
        request = new.request
        call_id = f"{self._token}-{next(self._numbers)}"
        now_ms, timeout_ms = time.time_ns() // 1_000_000, max(1, round(new.timeout_s * 1000))
        headers = {"event_id": call_id, "deadline": str(now_ms + timeout_ms), **request.headers}
        properties = msgspec.structs.replace(
            request.properties,
            correlation_id=call_id,
            reply_to=self._replies.address if self._replies else None,
            message_id=request.properties.message_id or headers["event_id"],
            timestamp_ms=now_ms,
            expires_ms=now_ms + timeout_ms,
            ttl_ms=timeout_ms,
        )
        # Not `dataclasses.replace`, which takes as long as all else here.
        request = Outgoing(request.destination, request.body, request.kind, headers, properties, request.types)
        return Call(
            call_id, request, new.timeout_s,
            retry=retry, used=new.codec, forget=self._cancel, expire=self._expire, on_sent=new.on_sent,
        )  # fmt: skip

    def _not_connected(self) -> ConnectionLostError:
        return ConnectionLostError("the client is not connected", address=self.address)

    def _send_in_time(self, call: Call) -> None:
        """Send a request, unless the broker takes none until its deadline."""
        while (left_s := call.deadline - time.monotonic()) > 0:
            if self._send(call, left_s):
                return
        self._room.give()

    def _send(self, call: Call, room_s: float) -> bool:
        """Send a request; the caller has taken room for it. Return False if the broker took none for `room_s`."""
        reply_to = self._replies.address if self._replies else None
        if call.done():
            self._room.give()
            return True
        if reply_to is None:
            error = ConnectionLostError(f"there is no connection to {self.address}", address=self.address)
            self._sent([(call, error)])
            return True
        request = call.request
        if request.properties.reply_to != reply_to:
            # That of an earlier connection.
            properties = msgspec.structs.replace(request.properties, reply_to=reply_to)
            request = replace(request, properties=properties)
        try:
            self._broker.send(request, partial(self._sent_one, call), declare=False, room_s=max(room_s, 0.0))
        except ReceiptTimeoutError:
            # An adapter may wait for less than that.
            return False
        except (RefusedError, ConnectionLostError) as error:
            self._sent_one(call, error)
        return True

    def _send_all(self, calls: Sequence[Call]) -> None:
        """Send requests, for which the caller has taken room."""
        reply_to = self._replies.address if self._replies else None
        is_fit = [not call.done() and call.request.properties.reply_to == reply_to for call in calls]
        # One that has ended, or was made for an earlier connection.
        unsent = [call for call, fit in zip(calls, is_fit, strict=True) if not fit]
        sender = threading.get_ident()

        def ended(ends: Sequence[tuple[Call, Exception | None]]) -> None:
            if threading.get_ident() == sender:
                # Not late receipts, which another thread tells: the broker took no message for too long.
                unsent.extend(call for call, error in ends if isinstance(error, ReceiptTimeoutError))
                ends = [end for end in ends if not isinstance(end[1], ReceiptTimeoutError)]
            self._sent(ends)

        self._broker.send_all([(call.request, call) for call, fit in zip(calls, is_fit, strict=True) if fit], ended)
        for call in unsent:
            self._send_in_time(call)

    def _sent_one(self, call: Call, error: Exception | None) -> None:
        self._sent([(call, error)])

    def _sent(self, ends: Sequence[tuple[Call, Exception | None]]) -> None:
        """Take the broker's word for requests."""
        self._room.give(len(ends))
        for call, error in ends:
            if call.on_sent:
                callbacks.tell(call.on_sent, error, callbacks.SEND)
            if error is not None:
                self._not_sent(call, error)

    def _not_sent(self, call: Call, error: Exception) -> None:
        if isinstance(error, RefusedError):
            if self._pending.take(call.id, End.REFUSED):
                call.set_exception(error)
        elif isinstance(error, ConnectionLostError) and not isinstance(error, ReceiptTimeoutError):
            # A receipt that is late says nothing: the reply may come.
            self._lose(call, error)

    def _lose(self, call: Call, error: ConnectionLostError) -> None:
        if call.retry:
            self._send_later(call)
        elif self._pending.take(call.id, End.LOST):
            call.set_exception(error)

    def _send_later(self, call: Call) -> None:
        """Send a request again soon, once: a loss shows in several ways, and each attempt to connect is one more."""
        with self._waiting_lock:
            if call.id in self._waiting:
                return
            self._waiting.add(call.id)
        self._again.after(_AGAIN_S, partial(self._send_again, call))

    def _send_again(self, call: Call) -> None:
        with self._waiting_lock:
            self._waiting.discard(call.id)
        if call.done():
            return
        if self._room.take_some(1):
            if self._send(call, 0.0):
                return
            self._room.give()
        self._send_later(call)

    def _lose_all(self, reason: str, *, retries: bool) -> None:
        error = ConnectionLostError(f"the connection to {self.address} was lost: {reason}", address=self.address)
        for call in self._pending.all():
            if retries and self._pending.take(call.id, End.LOST):
                call.set_exception(error)
            elif not retries:
                self._lose(call, error)

    def _connection_changed(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.LOST:
            self._lose_all(event.reason, retries=False)
        if self._on_connection:
            self._on_connection(event)

    def _on_replies(self, messages: list[Message]) -> None:
        calls = self._pending.take_answered([message.correlation_id for message in messages])
        for call, message in zip(calls, messages, strict=True):
            if call and not self._answered(call, message):
                self._pending.note_failure(call.id)

    def _answered(self, call: Call, message: Message) -> bool:
        """End a call with its reply, whatever that holds: nothing else ends it any more."""
        try:
            return call.answer(message)
        except Exception as fault:  # noqa: BLE001  # see above
            call.set_exception(
                UnreadableReplyError(queue=call.request.destination, reason=repr(fault), body=message.body)
            )
            return False

    def _time_out(self, call: Call) -> None:
        call.set_exception(CallTimeoutError(queue=call.request.destination, timeout_s=call.timeout_s))

    def _expire(self, call: Call) -> None:
        """End a call whose deadline has passed, unless something else does."""
        if self._pending.take(call.id, End.TIMED_OUT):
            self._time_out(call)

    def _cancel(self, call_id: str) -> bool:
        return self._pending.take(call_id, End.CANCELLED) is not None
