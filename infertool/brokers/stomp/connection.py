"""One life of one connection: it connects once, ends once with a reason, and is never used again."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from infertool.brokers.stomp import target as diagnosis
from infertool.brokers.stomp import transport
from infertool.brokers.stomp.destination import is_wildcard
from infertool.brokers.stomp.frames import Frame, FrameError, Limits
from infertool.brokers.stomp.receipts import Answer, Receipts
from infertool.brokers.stomp.target import Target
from infertool.brokers.stomp.transport import Commands, StompTransport, Stream
from infertool.brokers.stomp.unreadable import DoubtfulParser
from infertool.errors import ConnectionLostError, ServerError
from infertool.net.identify import HELLO_S, Kind
from infertool.net.write_buffer import WriteBuffer

_log = logging.getLogger(__name__)

Sink = Callable[[list[Frame]], None]

_TICK_S: Final = 0.25
_FIRST_BYTES: Final = 64
# ActiveMQ's answer to an ACK that it cannot place.
_ACK_REFUSED: Final = "Unexpected ACK received"
# A broker delivers more than it takes: its own headers, escapes, and what came in over JMS, which has no limits.
# A frame that we refused would come again with the next connection, and be left out by the one after.
_FROM_BROKER: Final = Limits(header_line=200 * 1024 * 1024, headers=1_000_000)


class Connection:
    """A STOMP 1.2 connection with two threads: the reader calls the sinks, the writer waits for the socket.

    To make one reads the password's and the TLS files: raises UnreachableError if one cannot be used now.

    `epoch` numbers the lives of a supervised connection; it is 0 for a connection beside it. `reason` is empty while it
    lives. `on_end` is called once, by the reader, when nothing more will be delivered or answered.
    """

    def __init__(self, target: Target, epoch: int, client_id: str, on_end: Callable[[Connection], None]) -> None:
        self.target = target
        self.epoch = epoch
        self.reason = ""
        self.server = ""
        # The newest ERROR frame that belonged to no request, and how many there were.
        self.last_error = ""
        self.errors = 0
        # Whether an ACK was refused: the broker will hold that message for as long as this connection lives.
        self.ack_refused = False
        self.receipts = Receipts(target.address)
        self._client_id = client_id
        self._on_end = on_end
        self._sinks: dict[str, Sink] = {}
        self._write_buffer = WriteBuffer(self._write_some)
        self._parser = DoubtfulParser(limits=_FROM_BROKER, mark=self.receipts.mark.encode())
        # The id of the message that could not be read, and ended the connection.
        self.suspect = ""
        self._probed = False
        self._heartbeat = transport.Heartbeat()
        # Other connections are made from `target`, each with what the files hold by then.
        self._login = target.fresh()
        self._transport = StompTransport(self._login, self._start_threads, self._write_buffer.put, ask=self._is_first)
        self._commands = Commands(self._transport)
        self._reader: threading.Thread | None = None
        self._writer: threading.Thread | None = None
        self._heard = self._ticked = 0.0
        self._in_sink = False
        self._relieving = threading.Lock()
        self._ending = threading.Lock()
        self._has_ended = threading.Event()
        # Set once the handshake came to anything: CONNECTED, ERROR, or the end.
        self._answered = threading.Event()
        self._connected = False
        self._first_bytes = b""
        # What the socket said to the reader, if that ended the connection.
        self._fault: OSError | None = None
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "CONNECTED": self._on_connected,
            "RECEIPT": self._on_receipt,
            "ERROR": self._on_error,
        }

    def open(self) -> None:
        """Connect and log in. Raises UnreachableError or RefusedError, and has ended then."""
        deadline = time.monotonic() + self.target.connect_timeout_s
        try:
            self._transport.start()
        except OSError as fault:
            raise diagnosis.unreachable(self.target, fault, ask=self._is_first) from None
        self._commands.connect(
            self.target.user or None,
            self._login.password.reveal() or None,
            with_connect_command=True,
            headers={"heart-beat": transport.wish(self.target.heartbeat_s), "client-id": self._client_id},
        )
        kind = Kind.UNKNOWN
        answered = self._answered.wait(min(HELLO_S, deadline - time.monotonic()))
        if not answered and self._is_first:
            kind = diagnosis.kind_behind(self._login)
        if kind in {Kind.UNKNOWN, Kind.STOMP}:  # it may be a slow broker
            answered = self._answered.wait(deadline - time.monotonic())
        if not self._connected:
            self.end("the handshake failed")
            self.join()
            raise self._why_not() if answered else diagnosis.silent(self.target, kind)

    def _why_not(self) -> ServerError:
        if self.last_error:
            return diagnosis.refused(self.target, self.last_error)
        return diagnosis.no_handshake(self.target, self._first_bytes, self.reason, self._fault, ask=self._is_first)

    @property
    def _is_first(self) -> bool:
        """Whether there was no connection before: what answers there need not be a broker."""
        return self.epoch == 1

    def write(self, data: bytes) -> None:
        """Write whole frames, or queue them for the writer. Dropped when the connection has ended."""
        self._write_buffer.put(data)

    def wait_until_written(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until all but the last piece of what was queued is written, or it has ended."""
        return self._write_buffer.wait_for_room(timeout_s)

    def wait_for_room(self) -> None:
        """Wait until another send may be open; not in our own threads, which make the room."""
        if threading.current_thread() not in {self._reader, self._writer}:
            self.receipts.wait_for_room()

    def subscribe(self, queue: str, subscription: str, sink: Sink, *, ack: str, headers: dict[str, str]) -> Answer:
        """Subscribe; the answer comes with the broker's receipt. Raises ConnectionLostError."""
        self._sinks[subscription] = sink
        answer = Answer()
        receipt = self.receipts.expect(answer, self.target.receipt_timeout_s)
        if is_wildcard(queue):
            # ActiveMQ holds waiting messages back from a wildcard subscription that asks for a receipt (until the next
            # SEND), so the receipt of an empty transaction behind it has to do.
            self._commands.subscribe(queue, subscription, ack, headers=headers)
            self._commands.begin(receipt)
            self._commands.abort(receipt, receipt=receipt)
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
        with self._ending:
            if self.reason:
                return
            self.reason = reason
        self._write_buffer.close()
        self._transport.abort()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, say DISCONNECT, wait for its receipt up to `timeout_s`, and end."""
        answer = Answer()
        # A connection that is lost meanwhile has said goodbye in its own way.
        with contextlib.suppress(ServerError):
            self._commands.say_goodbye(self.receipts.expect(answer, timeout_s))
            answer.wait(timeout_s)
        self.end("closed")
        self.join()

    def join(self) -> None:
        """Wait until nobody reads or writes on an ended connection, and give the socket back."""
        if self._writer:
            self._has_ended.wait()
            self._writer.join()
            self._transport.stream.close()

    def relieve_reader(self) -> None:
        """Have a new thread read on while the reader is in a sink. The old one leaves when that returns."""
        with self._relieving:
            if self._in_sink:
                self._in_sink = False
                self._start_reader(self._transport.stream)

    def _start_threads(self, stream: Stream) -> threading.Thread:
        self._writer = self._thread(self._write, stream, "writer")
        self._writer.start()
        self._heard = self._ticked = time.monotonic()
        return self._start_reader(stream)

    def _start_reader(self, stream: Stream) -> threading.Thread:
        self._reader = self._thread(self._read, stream, "reader")
        self._reader.start()
        return self._reader

    def _thread(self, work: Callable[[Stream], None], stream: Stream, name: str) -> threading.Thread:
        return threading.Thread(target=work, args=(stream,), name=f"infertool-stomp-{self.epoch}-{name}", daemon=True)

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
        stream.write(data, min(self._heartbeat.silence_s, self.target.receipt_timeout_s))

    def _read(self, stream: Stream) -> None:
        try:
            reason = self._read_to_end(stream)
        except FrameError as fault:
            self.suspect = self.suspect or fault.suspect
            reason = self._not_stomp(fault)
        except OSError as fault:
            self._fault = fault
            reason = fault.strerror or str(fault)
        except Exception as fault:  # noqa: BLE001  # no fault may leave a connection that looks alive and is not
            reason = f"the reader failed: {fault!r}"
        if reason:
            self.end(reason)
        if self._is_reader():
            self._answered.set()
            self.receipts.lose(self.reason)
            self._on_end(self)
            self._has_ended.set()

    def _read_to_end(self, stream: Stream) -> str:
        """Return why the connection ended; an empty string when another thread reads on."""
        while not self.reason:
            data = stream.read(_TICK_S)
            now = time.monotonic()
            if data:
                self._heard = now
                self._feed(data)
                if not self._is_reader():
                    return ""
            elif data == b"":
                last = f", its last error was: {self.last_error}" if self.last_error else ""
                return f"the broker closed the connection{last}"
            elif now - self._heard > self._heartbeat.silence_s:
                return f"no sign of life for {now - self._heard:.1f} s"
            if now - self._ticked > _TICK_S:
                self._ticked = now
                self.receipts.expire(now)
                self._probe(stalled=not data or not data.strip(b"\n"))
                # A request that is open may be a transaction with that ACK, which ends the connection itself.
                if self.ack_refused and not self.receipts.pending:
                    return f"the broker refused to take a message as acknowledged: {self.last_error}"
        return self.reason

    def _probe(self, *, stalled: bool) -> None:
        """Have the broker answer when it ends within a body of announced length: a wrong length takes that in, too."""
        if not self._parser.awaits_length:
            self._probed = False
        elif stalled and not self._probed:
            self._probed = True
            with contextlib.suppress(ConnectionLostError):
                name = self.receipts.expect(Answer(), self.target.receipt_timeout_s)
                self._commands.begin(name)
                self._commands.abort(name, receipt=name)

    def _not_stomp(self, fault: FrameError) -> str:
        return f"the broker sent something else than STOMP: {self._login.masked(fault.reason)}"

    def _feed(self, data: bytes) -> None:
        if not self._connected:
            self._first_bytes = (self._first_bytes + data)[:_FIRST_BYTES]
        try:
            frames = self._parser.feed(data)
        except FrameError as fault:
            # First, so that whoever may have to read on does not.
            self.suspect = fault.suspect
            self.end(self._not_stomp(fault))
            frames = fault.frames
        if self._parser.misfits:
            self._report_misfits(self._parser.misfits)
        self._dispatch(frames)

    def _report_misfits(self, ids: list[str]) -> None:
        for message_id in ids:
            _log.warning(
                "message %s from %s has a property content-length that does not fit its body; all of it was read",
                message_id, self.target.address,
            )  # fmt: skip
        ids.clear()

    def _dispatch(self, frames: Sequence[Frame]) -> None:
        """Hand messages on in batches, one for each sink, and everything else to its handler."""
        batches: dict[Sink, list[Frame]] = {}
        for frame in frames:
            if frame.command == "MESSAGE":
                sink = self._sinks.get(frame.headers.get("subscription", ""))
                if sink is None:
                    what = "a message for a subscription that is not ours"
                    raise FrameError(what, frame.headers.get("message-id", ""))
                batches.setdefault(sink, []).append(frame)
            else:
                self._handle(frame)
        for sink, batch in batches.items():
            self._deliver(sink, batch)

    def _deliver(self, sink: Sink, batch: list[Frame]) -> None:
        self._in_sink = self._is_reader()
        try:
            sink(batch)
        finally:
            with self._relieving:
                self._in_sink = self._in_sink and not self._is_reader()

    def _is_reader(self) -> bool:
        return self._reader is threading.current_thread()

    def _handle(self, frame: Frame) -> None:
        handler = self._handlers.get(frame.command)
        if handler is None:
            raise FrameError(f"unexpected frame {frame.command[:_FIRST_BYTES]!r}")
        handler(frame)

    def _on_connected(self, frame: Frame) -> None:
        version = frame.headers.get("version", "1.0")
        if version != "1.2":
            raise FrameError(f"the broker speaks STOMP {version}, and 1.2 is needed")
        self.server = frame.headers.get("server", "")
        self._heartbeat = transport.agree(self.target.heartbeat_s, frame.headers.get("heart-beat", "0,0"))
        if self._heartbeat.beat_s:
            self._write_buffer.beat(transport.BEAT, self._heartbeat.beat_s)
        self._transport.set_connected(True)
        self._connected = True
        self._answered.set()

    def _on_receipt(self, frame: Frame) -> None:
        self.receipts.confirm(frame.headers.get("receipt-id", ""))

    def _on_error(self, frame: Frame) -> None:
        """Answer the request it belongs to. ERROR need not be the end: after an unknown ack id ActiveMQ goes on."""
        # The message header; the body is a Java stack trace.
        lines = self._login.masked(frame.headers.get("message", "")).split("\n")
        reason = lines[0] if lines else "no reason given"
        if not self.receipts.refuse(frame.headers.get("receipt-id", ""), reason):
            self.last_error = reason
            self.errors += 1
            self.ack_refused = self.ack_refused or reason.startswith(_ACK_REFUSED)
        if not self._connected:
            self._answered.set()
