"""The STOMP protocol of one connection: bytes in, bytes out. No I/O.

Source: STOMP 1.2. Where it leaves a choice, or ActiveMQ 5.17.2 differs, it follows ActiveMQ (measured), including error
texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from infertool.brokers.stomp.frames import Frame, FrameError
from infertool.brokers.stomp.parser import FrameParser
from infertool.embedded.broker import client, destinations, messages
from infertool.embedded.broker.client import Login, Temporaries, Transaction
from infertool.embedded.broker.core import Broker
from infertool.embedded.broker.destinations import Destination, DestinationError, Kind, ProtocolError
from infertool.embedded.broker.incoming import DURABLE, to_message, to_subscription
from infertool.embedded.broker.messages import StoredMessage
from infertool.embedded.broker.queues import Durable, Subscription

# Maximum of output for one client before the others get their turn. Bytes.
OUTPUT_LIMIT = 256 * 1024
_HANDSHAKE = frozenset({"CONNECT", "STOMP"})


class Session:
    """The protocol state of one connection.

    `take_output` returns the bytes to write; `wants_to_write` is called when there is new output. Once `closing` is
    set, the connection ends after its output is written. `paused` is set while the client does not read.
    """

    def __init__(self, broker: Broker, login: Login, number: int, wants_to_write: Callable[[], None]) -> None:
        self.id = f"{broker.identity}:{number}"
        self.agreement: client.Agreement | None = None
        self.closing = False
        self.paused = False
        self._broker = broker
        self._login = login
        self._wants_to_write = wants_to_write
        self._parser = FrameParser()
        self._version = "1.2"
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._subscriptions = client.Subscriptions()
        self._temporaries = Temporaries(broker, self.id)
        self._transactions: dict[str, Transaction] = {}
        self._messages = itertools.count(1)
        self._deliveries = itertools.count(1)
        self._serials = itertools.count(1)
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "CONNECT": self._on_connect,
            "STOMP": self._on_connect,
            "SEND": self._on_send,
            "SUBSCRIBE": self._on_subscribe,
            "UNSUBSCRIBE": self._on_unsubscribe,
            "ACK": self._on_ack,
            "NACK": self._on_nack,
            "BEGIN": self._on_begin,
            "COMMIT": self._on_commit,
            "ABORT": self._on_abort,
            "DISCONNECT": self._on_disconnect,
        }

    @property
    def ready(self) -> bool:
        """True if the session accepts messages now."""
        return self._output_bytes < OUTPUT_LIMIT and not self.paused and not self.closing

    def receive(self, data: bytes) -> None:
        """Handle bytes from the client."""
        fault: FrameError | None = None
        try:
            frames = self._parser.feed(data)
        except FrameError as error:
            frames, fault = error.frames, error
        for frame in frames:
            if self.closing:
                return
            self._handle(frame)
        if fault and not self.closing:
            self.fail(fault.reason)

    def take_output(self) -> bytes:
        """Return the output to write, and make room for more."""
        was_full = self._output_bytes >= OUTPUT_LIMIT
        output, self._output, self._output_bytes = b"".join(self._output), [], 0
        if was_full:
            self._touch()
        return output

    def resume(self) -> None:
        """Accept messages again: the client reads."""
        self.paused = False
        self._touch()

    def fail(self, reason: str) -> None:
        """Send an ERROR frame with `reason`, and end the connection."""
        self._answer_error(ProtocolError(reason, fatal=True), {})

    def end(self) -> None:
        """Return the client's messages, abort its transactions, delete its temporary destinations. Idempotent."""
        self.closing = True
        for subscription in self._subscriptions.clear():
            self._broker.unsubscribe(subscription)
        for transaction in self._transactions.values():
            transaction.abort(self._broker)
        self._transactions.clear()
        self._temporaries.clear()

    def deliver(self, subscription: Subscription, message: StoredMessage) -> bool:
        """Write a MESSAGE frame; return True if the client will ack it."""
        lines = subscription.lines
        acked = client.acked_by_client(subscription)
        if acked:
            key = message.id
            message.delivery = next(self._deliveries)
            if self._version == "1.2":
                key = client.ack_key(self.id, subscription, message.delivery)
                # Only the colons of a key need an escape.
                lines += b"ack:%b\n" % key.replace(":", "\\c").encode()
            subscription.unacked[key] = message
        self._write(message.frame(self._version, lines))
        return acked

    def _touch(self) -> None:
        for subscription in self._subscriptions:
            self._broker.touch(subscription)

    def _write(self, frame: bytes) -> None:
        if not self._output:
            self._wants_to_write()
        self._output.append(frame)
        self._output_bytes += len(frame)

    def _handle(self, frame: Frame) -> None:
        try:
            self._handler(frame.command)(frame)
        except ProtocolError as error:
            self._answer_error(error, frame.headers)
        except DestinationError as error:
            self._answer_error(ProtocolError(str(error)), frame.headers)
        else:
            receipt = frame.headers.get("receipt")
            if receipt is not None and frame.command not in _HANDSHAKE:
                self._write(messages.encode("RECEIPT", {"receipt-id": receipt}, version=self._version))

    def _handler(self, command: str) -> Callable[[Frame], None]:
        handler = self._handlers.get(command)
        if handler is None:
            raise ProtocolError(f"Unknown STOMP action: {command}", fatal=True)
        if (self.agreement is None) != (command in _HANDSHAKE):
            raise ProtocolError("Already connected." if self.agreement else "Not connected.")
        return handler

    def _answer_error(self, error: ProtocolError, headers: dict[str, str]) -> None:
        answer = {"content-type": "text/plain", "message": error.message}
        if "receipt" in headers:
            answer["receipt-id"] = headers["receipt"]
        body = error.message.encode(errors="surrogateescape")
        self._write(messages.encode("ERROR", answer, body, version=self._version))
        self.closing = self.closing or error.fatal

    def _on_connect(self, frame: Frame) -> None:
        self.agreement = agreement = client.agree(frame.headers, self._login, self.id)
        self._write(messages.encode("CONNECTED", agreement.connected, version=agreement.version))
        self._version = self._parser.version = agreement.version

    def _on_disconnect(self, _: Frame) -> None:
        self.closing = True

    def _on_send(self, frame: Frame) -> None:
        headers = frame.headers
        if "destination" not in headers:
            raise ProtocolError("SEND received without a Destination specified!")
        places = self._destinations(headers["destination"])
        message_id = f"{self.id}:-1:1:{next(self._messages)}"
        message = to_message(frame, message_id, self._broker.now_ms())
        if headers.get("reply-to", "").startswith("/temp-"):
            message.headers["reply-to"] = str(self._temporaries.resolve(headers["reply-to"]))
        if len(places) > 1:
            message.headers["original-destination"] = destinations.composite(places)
        transaction = self._transaction(headers) if "transaction" in headers else None
        for place in places:
            self._broker.check(place)
        for place, each in zip(places, message.copies(len(places)), strict=True):
            if transaction:
                transaction.sends.append((place, each))
            else:
                self._broker.send(place, each)

    def _destinations(self, header: str) -> list[Destination]:
        return [self._temporaries.resolve(name) for name in destinations.split(header)]

    def _on_subscribe(self, frame: Frame) -> None:
        headers = frame.headers
        page_size = self._broker.page_size
        subscription = to_subscription(headers, self, next(self._serials), page_size=page_size, version=self._version)
        places = self._destinations(headers["destination"])
        if DURABLE in headers:
            if any(place.kind is not Kind.TOPIC for place in places):
                raise ProtocolError("Invalid Subscription: cannot durably subscribe to a Queue destination!")
            subscription.durable = self._durable(headers)
        for place in places:
            if not self._temporaries.may_receive_from(place):
                raise ProtocolError(f"{place} belongs to another connection")
        if headers.get("browser") == "true":
            if len(places) > 1 or places[0].kind is not Kind.QUEUE or places[0].is_pattern:
                raise ProtocolError(f"only a queue can be browsed, one at a time: {headers['destination']}")
            self._broker.browse(places[0], subscription)
        else:
            for place in places:
                self._broker.subscribe(place, subscription)
        self._subscriptions.add(subscription)

    def _durable(self, headers: dict[str, str]) -> Durable:
        client_id = self.agreement.connected["session"] if self.agreement else ""
        return client_id, headers[DURABLE]

    def _on_unsubscribe(self, frame: Frame) -> None:
        headers = frame.headers
        if DURABLE in headers:
            self._broker.forget_durable(self._durable(headers))
            return
        wanted = headers.get("id", headers.get("destination") if self._version == "1.0" else None)
        if wanted is None:
            raise ProtocolError("UNSUBSCRIBE received without a subscription id!")
        self._broker.unsubscribe(self._subscriptions.remove(wanted))

    def _on_ack(self, frame: Frame) -> None:
        headers = frame.headers
        transaction = self._transaction(headers) if "transaction" in headers else None
        found = self._subscriptions.find("ACK", headers, self._version)
        if found is None:
            return
        subscription, key = found
        taken = subscription.take(key)
        self._broker.touch(subscription)
        if transaction:
            transaction.acks.append((subscription, taken))
        else:
            self._broker.settle(message for _, message in taken)

    def _on_nack(self, frame: Frame) -> None:
        headers = frame.headers
        if self._version == "1.0":
            raise ProtocolError("NACK received but connection is in v1.0 mode.")
        transaction = self._transaction(headers) if "transaction" in headers else None
        found = self._subscriptions.find("NACK", headers, self._version)
        if transaction is not None:
            raise ProtocolError("Poison ack cannot be transacted")
        if found is None:
            return
        subscription, key = found
        message = subscription.unacked.pop(key)
        self._broker.touch(subscription)
        self._broker.settle([message])
        self._broker.dead_letter(message)

    def _on_begin(self, frame: Frame) -> None:
        name = frame.headers.get("transaction")
        if name is None:
            raise ProtocolError("Must specify the transaction you are beginning")
        if name in self._transactions:
            raise ProtocolError(f"The transaction was already started: {name}")
        self._transactions[name] = Transaction()

    def _on_commit(self, frame: Frame) -> None:
        self._end_transaction(frame, "committing").commit(self._broker)

    def _on_abort(self, frame: Frame) -> None:
        self._end_transaction(frame, "aborting").abort(self._broker)

    def _end_transaction(self, frame: Frame, deed: str) -> Transaction:
        if "transaction" not in frame.headers:
            raise ProtocolError(f"Must specify the transaction you are {deed}")
        transaction = self._transaction(frame.headers)
        del self._transactions[frame.headers["transaction"]]
        return transaction

    def _transaction(self, headers: dict[str, str]) -> Transaction:
        name = headers["transaction"]
        if name not in self._transactions:
            raise ProtocolError(f"Invalid transaction id: {name}")
        return self._transactions[name]
