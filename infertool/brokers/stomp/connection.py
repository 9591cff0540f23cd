"""One STOMP connection: it connects once, ends once with a reason, and is never used again."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from infertool.brokers.stomp import dialects, transport
from infertool.brokers.stomp.conventions import is_wildcard
from infertool.brokers.stomp.frames import Frame, FrameError
from infertool.brokers.stomp.reader import Reader, Sink
from infertool.brokers.stomp.receipts import Answer, Receipts
from infertool.brokers.stomp.transport import Commands, StompTransport
from infertool.brokers.target import (
    Protocol,
    Target,
    kind_behind,
    no_handshake,
    no_vhosts,
    refused,
    silent,
    unreachable,
)
from infertool.errors import ConnectionLostError, ServerError
from infertool.net.identify import HELLO_S, Kind
from infertool.net.stream import Stream
from infertool.net.write_buffer import WriteBuffer

# Characters of an unknown frame's name that an error shows.
_NAME_SHOWN: Final = 64
_PORTS: Final = "STOMP's port is mostly 61613"
_CONNECTOR: Final = f"use the broker's stomp connector; {_PORTS}"
SPOKEN: Final = Protocol(
    Kind.STOMP,
    ("stomp", "stomp+ssl"),
    "CONNECT",
    {
        Kind.HTTP: ("an HTTP server", _PORTS),
        Kind.OPENWIRE: ("an OpenWire port, which is for JMS clients", _CONNECTOR),
        Kind.AMQP: ("an AMQP port", _CONNECTOR),
        Kind.MQTT: ("an MQTT port", _CONNECTOR),
    },
    starter="`infertool dev` starts a broker",
)
# ActiveMQ's answer to an ACK that it cannot place.
_ACK_REFUSED: Final = "Unexpected ACK received"


@dataclass(frozen=True, slots=True)
class Host:
    """See `infertool.brokers.supervisor.Host`. `name` is what the broker's console shows."""

    target: Target
    name: str

    @property
    def address(self) -> str:
        """The address for people."""
        return self.target.address

    def connection(self, epoch: int, on_end: Callable[[Connection], None]) -> Connection:
        """Return a connection that is not yet open. Raises UnreachableError."""
        return Connection(self.target, epoch, _client_id(self.name), on_end)


def _client_id(name: str) -> str:
    """Return an id for the broker's console. It is new each time: ActiveMQ may still hold our last connection."""
    return f"{name}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Connection:
    """A STOMP 1.2 connection with two threads: the reader calls the sinks, the writer waits for the socket.

    The constructor reads the password's and the TLS files. Raises UnreachableError if one cannot be used now.

    `epoch` numbers the connections of a supervisor, from 1; it is 0 for a connection beside them. `reason` is empty
    until the connection ends. The reader calls `on_end` once, when nothing more will be delivered or answered.
    """

    def __init__(self, target: Target, epoch: int, client_id: str, on_end: Callable[[Connection], None]) -> None:
        self.target = target
        self.epoch = epoch
        self.reason = ""
        self.dialect = dialects.ACTIVEMQ
        # The header `server` of CONNECTED: product and version.
        self.server = ""
        # The newest ERROR frame that answered no request, and the number of such frames.
        self.last_error = ""
        self.errors = 0
        # What the reader is to deliver beside what it reads.
        self._soon: deque[Callable[[], None]] = deque()
        # True once an ACK was refused: the broker holds that message for as long as this connection lives.
        self.ack_refused = False
        self.receipts = Receipts(target.address)
        self._client_id = client_id
        self._on_end = on_end
        self._write_buffer = WriteBuffer(self._write_some)
        self.heartbeat = transport.Heartbeat()
        # What the files hold now; the next connection of `target` reads them again.
        self._login = target.fresh()
        self._transport = StompTransport(self._login, self._start_threads, self._write_buffer.put, ask=self._is_first)
        self._commands = Commands(self._transport)
        self._reader = Reader(
            self,
            target.address,
            name=self._thread_name("reader"),
            mark=self.receipts.mark.encode(),
            masked=self._login.masked,
        )
        self._writer: threading.Thread | None = None
        self._ending = threading.Lock()
        self._has_ended = threading.Event()
        # Set when the handshake is over: CONNECTED, ERROR, or the connection's end.
        self._answered = threading.Event()
        self._connected = False
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "CONNECTED": self._on_connected,
            "ERROR": self._on_error,
        }

    @property
    def suspect(self) -> str:
        """The id of the message that could not be read, and ended the connection."""
        return self._reader.suspect

    def open(self) -> None:
        """Connect and log in. Raises UnreachableError or RefusedError, and has ended then."""
        deadline = time.monotonic() + self.target.connect_timeout_s
        try:
            self._transport.start()
        except OSError as fault:
            self.end(fault.strerror or str(fault))
            raise unreachable(self.target, fault, ask=self._is_first) from None
        self._commands.connect(
            self.target.user or None,
            self._login.password.reveal() or None,
            with_connect_command=True,
            headers={"heart-beat": transport.wish(self.target.heartbeat_s), "client-id": self._client_id},
        )
        kind = Kind.UNKNOWN
        answered = self._answered.wait(min(HELLO_S, deadline - time.monotonic()))
        if not answered and self._is_first:
            kind = kind_behind(self._login)
        if kind in {Kind.UNKNOWN, Kind.STOMP}:  # it may be a slow broker
            answered = self._answered.wait(deadline - time.monotonic())
        if not self._connected:
            self.end("the handshake failed")
            self.join()
            raise self._why_not() if answered else silent(self.target, kind)
        if self.target.vhost and not self.dialect.vhosts:
            self.end("it has no virtual hosts")
            self.join()
            raise no_vhosts(self.target, self.dialect.name)

    def _why_not(self) -> ServerError:
        if self.last_error:
            return refused(self.target, self.last_error)
        return no_handshake(self.target, self._reader.first_bytes, self.reason, self._reader.fault, ask=self._is_first)

    @property
    def _is_first(self) -> bool:
        """True for a supervisor's first connection: the server may be no broker at all."""
        return self.epoch == 1

    def write(self, data: bytes) -> None:
        """Write whole frames, or queue them for the writer. Dropped when the connection has ended."""
        self._write_buffer.put(data)

    def wait_until_written(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until all but the last piece of what was queued is written, or it has ended."""
        return self._write_buffer.wait_for_room(timeout_s)

    def wait_for_room(self, timeout_s: float | None = None) -> None:
        """Wait until another send may be open. Returns at once in the two threads that make the room.

        Raises ReceiptTimeoutError when none may within `timeout_s`.
        """
        if not self.answers_here():
            self.receipts.wait_for_room(timeout_s)

    def answers_here(self) -> bool:
        """Return True in the two threads that give answers, and so cannot wait for any."""
        return self._reader.is_current() or threading.current_thread() is self._writer

    def deliver(self, subscription: str, sink: Sink) -> None:
        """Hand the messages of a subscription to `sink` that the broker makes by itself."""
        self._reader.deliver(subscription, sink)

    def deliver_soon(self, deliver: Callable[[], None]) -> None:
        """Have the thread that reads call `deliver`, within a tick."""
        self._soon.append(deliver)

    def another(self, timeout_s: float) -> Connection:
        """Return one to the same broker: not yet open, for which it has `timeout_s`, and without subscriptions."""
        target = replace(self.target, connect_timeout_s=min(timeout_s, self.target.connect_timeout_s))
        return Connection(target, self.epoch + 1, f"{self._client_id}-sends", lambda _ended: None)

    def answers(self) -> bool:
        """Ask for an answer, and wait for it. Return False if none came in time."""
        answer = Answer()
        timeout_s = self.target.receipt_timeout_s
        try:
            self._send_empty_transaction(self.receipts.expect(answer, timeout_s))
            return answer.wait(timeout_s)
        except ServerError:
            return False

    def unsubscribe(self, subscription: str) -> None:
        """End a subscription; its sink gets what is on its way."""
        self._commands.unsubscribe(subscription)

    def subscribe(self, queue: str, subscription: str, sink: Sink, *, ack: str, headers: dict[str, str]) -> Answer:
        """Subscribe, and hand the messages to `sink`. The answer comes with the receipt. Raises ConnectionLostError."""
        self._reader.deliver(subscription, sink)
        answer = Answer()
        receipt = self.receipts.expect(answer, self.target.receipt_timeout_s)
        if is_wildcard(queue):
            # ActiveMQ holds waiting messages back from a wildcard subscription that asks for a receipt (until the next
            # SEND), so the receipt of an empty transaction behind it has to do.
            self._commands.subscribe(queue, subscription, ack, headers=headers)
            self._send_empty_transaction(receipt)
        else:
            self._commands.subscribe(queue, subscription, ack, headers={**headers, "receipt": receipt})
        return answer

    def wait_for(self, answer: Answer, deadline: float, what: str) -> None:
        """Wait for `answer` until `deadline`. Raises RefusedError.

        Raises ConnectionLostError when none comes, and has ended the connection then: what the broker did is unknown.
        """
        with contextlib.suppress(ConnectionLostError):
            if answer.wait(deadline - time.monotonic()):
                return
        self.end(f"no receipt for {what} in time")
        raise ConnectionLostError(
            f"the connection to {self.target.address} was lost: {self.reason}", address=self.target.address
        )

    def end(self, reason: str) -> None:
        """End it, from any thread. The first reason counts."""
        self._finish(reason, self.dialect.farewell)

    def _finish(self, reason: str, farewell: bytes) -> None:
        with self._ending:
            if self.reason:
                return
            self.reason = reason
        self._write_buffer.close(farewell)
        self._transport.abort()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, send DISCONNECT, wait up to `timeout_s` for its receipt, and end."""
        answer = Answer()
        # The connection may be lost meanwhile.
        with contextlib.suppress(ServerError):
            self._commands.send_disconnect(self.receipts.expect(answer, timeout_s))
            answer.wait(timeout_s)
        self._finish("closed", b"")
        self.join()

    def join(self) -> None:
        """Wait until both threads of an ended connection are done, and close the socket."""
        if self._writer:
            self._has_ended.wait()
            self._writer.join()
            self._transport.stream.close()

    def reader_silent_s(self) -> float:
        """Return for how long the thread that reads has not run, in seconds."""
        return self._reader.silent_s()

    def hand_off_reader(self) -> None:
        """Have a new thread read on if the reader is in a sink. Returns at once."""
        self._reader.hand_off()

    def _start_threads(self, stream: Stream) -> threading.Thread:
        self._writer = threading.Thread(
            target=self._write, args=(stream,), name=self._thread_name("writer"), daemon=True
        )
        self._writer.start()
        return self._reader.start(stream)

    def _thread_name(self, role: str) -> str:
        return f"infertool-stomp-{self.epoch}-{role}"

    def _write(self, stream: Stream) -> None:
        try:
            self._write_buffer.run(partial(self._write_piece, stream))
        except OSError as fault:
            self.end(fault.strerror or str(fault))
        except Exception as fault:  # noqa: BLE001  # no fault may leave a connection that looks alive and is not
            self.end(f"the writer failed: {fault!r}")

    def _write_some(self, data: bytes) -> bytes:
        return self._transport.stream.write_some(data)

    def _write_piece(self, stream: Stream, data: bytes) -> None:
        stream.write(data, min(self.heartbeat.silence_s, self.target.receipt_timeout_s))

    def on_read_end(self) -> None:
        """See `ReaderHost`."""
        self._answered.set()
        self.receipts.lose(self.reason)
        self._on_end(self)
        self._has_ended.set()

    def on_tick(self, now: float) -> str:
        """See `ReaderHost`."""
        self.receipts.expire(now)
        self._deliver_beside()
        # An open request may be a transaction with that ACK, which ends the connection itself.
        if self.ack_refused and not self.receipts.pending:
            return f"the broker refused to take a message as acknowledged: {self.last_error}"
        return ""

    def _deliver_beside(self) -> None:
        while True:
            try:
                deliver = self._soon.popleft()
            except IndexError:  # also where another thread reads on meanwhile
                return
            with self._reader.delivering():
                deliver()

    def probe(self) -> None:
        """See `ReaderHost`."""
        with contextlib.suppress(ConnectionLostError):
            self._send_empty_transaction(self.receipts.expect(Answer(), self.target.receipt_timeout_s))

    def _send_empty_transaction(self, receipt: str) -> None:
        self._commands.begin(receipt)
        self._commands.abort(receipt, receipt=receipt)

    def on_frame(self, frame: Frame) -> None:
        """See `ReaderHost`."""
        handler = self._handlers.get(frame.command)
        if handler is None:
            raise FrameError(f"unexpected frame {frame.command[:_NAME_SHOWN]!r}")
        handler(frame)

    def _on_connected(self, frame: Frame) -> None:
        version = frame.headers.get("version", "1.0")
        if version != "1.2":
            raise FrameError(f"the broker speaks STOMP {version}, and 1.2 is needed")
        self.server = frame.headers.get("server", "")
        self.dialect = dialects.of(self.server)
        self.heartbeat = transport.agree(self.target.heartbeat_s, frame.headers.get("heart-beat", "0,0"))
        self._reader.silence_s = self.heartbeat.silence_s
        if self.heartbeat.beat_s:
            self._write_buffer.beat(transport.BEAT, self.heartbeat.beat_s)
        self._transport.set_connected(True)
        self._connected = True
        self._answered.set()

    def on_receipts(self, receipts: Sequence[str]) -> None:
        """See `FrameHost`."""
        self.receipts.confirm(receipts)

    def _on_error(self, frame: Frame) -> None:
        """Answer the request it belongs to. The connection may live on: ActiveMQ keeps it after an unknown ack id."""
        reason = self._login.masked(_reason(frame))
        if not self.receipts.refuse(frame.headers.get("receipt-id", ""), reason):
            self.last_error = reason
            self.errors += 1
            self.ack_refused = self.ack_refused or reason.startswith(_ACK_REFUSED)
            if self.dialect.errors_end:
                self.receipts.refuse_only(reason)
        if self._connected and self.dialect.errors_end:
            # Artemis closes it now. What RabbitMQ refused is unknown, and it keeps some connections open.
            self.end(f"the broker refused something: {reason}")
        if not self._connected:
            self._answered.set()


def _reason(frame: Frame) -> str:
    """Return why the broker sent this ERROR: its header `message`, as the body is a Java stack trace.

    RabbitMQ's header names only the kind, and the body says the rest. Its ERRORs are known by their `version`.
    """
    reason = frame.headers.get("message", "").partition("\n")[0]
    if "version" not in frame.headers:
        return reason
    said = frame.body.decode("utf-8", "replace").partition("\n")[0].strip()
    return f"{reason}: {said}" if said else reason
