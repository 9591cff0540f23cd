"""The broker port: all that the rest of infertool knows of a message broker.

A broker can subscribe, settle, send, browse and measure. Adapters own their threads; every callback comes from one
of them and must return quickly and never raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from infertool.message import Message, Outgoing

OnSent = Callable[[Exception | None], None]
OnMessages = Callable[[list[Message]], None]


@dataclass(frozen=True, slots=True)
class Move:
    """Take `message` off its queue and put `outgoing` on another, and `also` on a third, in one step.

    Without an `outgoing` the message is only taken off, together with the rest of the transaction.
    """

    message: Message
    outgoing: Outgoing | None
    also: Outgoing | None = None

    @property
    def sends(self) -> list[Outgoing]:
        """What is sent."""
        return [outgoing for outgoing in (self.outgoing, self.also) if outgoing is not None]


@dataclass(frozen=True, slots=True)
class Depth:
    """What a queue holds. Every figure is None where the broker does not tell it."""

    size: int | None = None
    in_flight: int | None = None
    consumers: int | None = None
    enqueued: int | None = None
    dequeued: int | None = None


@dataclass(frozen=True, slots=True)
class Browse:
    """What a broker showed of a queue. `depth` is None when the broker does not tell it.

    `complete` is True only when it is proved that these are all the messages: a default ActiveMQ shows 400 and says
    nothing of the others.
    """

    messages: list[Message]
    complete: bool
    depth: int | None


class Transaction(Protocol):
    """A move that was begun: the broker has it, and nothing is done yet."""

    def commit(self) -> None:
        """Have it done, once the broker took all of it. Returns before it is done. Raises as `Subscription.move`."""

    def wait(self) -> None:
        """Wait until it is done. Raises as `Subscription.move`."""


class Subscription(Protocol):
    """Messages of one queue, at most `window` of them unsettled at any time."""

    def receive(self, max_messages: int, timeout_s: float) -> list[Message]:
        """Return 1 to `max_messages` messages, waiting up to `timeout_s` for the first; empty if none came.

        Messages of a connection that was lost meanwhile are never returned.
        """

    def ack(self, messages: Sequence[Message]) -> None:
        """Settle. Returns at once; acks are joined into few writes. Stale ones are dropped: the broker redelivers."""

    def move(self, moves: Sequence[Move], timeout_s: float) -> None:
        """Send and ack all of `moves` in one broker transaction, and wait for the commit's receipt.

        Returns when the broker confirmed. Raises `StaleMessagesError` when a message belongs to an earlier
        connection (nothing was sent), `ConnectionLostError` when the connection ended before the receipt (the broker
        did all or nothing, which one is unknown), `MoveRefusedError` when the broker refused (nothing was done; the
        messages will be redelivered on the next connection, which the adapter brings about).
        """

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> Transaction:
        """Begin to move all of at most 100 `moves`; the next may begin while this one is committed.

        Raises `StaleMessagesError`, `ConnectionLostError`.
        """


@runtime_checkable
class DeliversOnReader(Protocol):
    """A subscription that can deliver on the thread that reads. Optional: ask with `isinstance`.

    It saves a change of threads for each batch: a third of the rate of a quick model.
    """

    def deliver_to(self, on_messages: OnMessages) -> list[Message]:
        """Give messages to `on_messages` as they come, in place of `receive`; return those that came before.

        The thread that reads calls it, and may process the messages there: nothing is read meanwhile. After some
        milliseconds, call `hand_off_reader`.
        """

    def hand_off_reader(self) -> None:
        """Have another thread read on if the one that reads is in `on_messages`. Returns at once."""


class BulkSender(Protocol):
    """Sends many messages that are alike, without receipts. One thread uses it at a time.

    What the broker refuses is known only afterwards: `refused` counts it, `reason` is the broker's newest word. What
    was under way when a connection ended may or may not have arrived.
    """

    refused: int
    reason: str

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until little is waiting to be written; False while the broker takes nothing.

        Raises `ConnectionLostError` while there is no connection.
        """

    def send(self, messages: Sequence[tuple[Sequence[str], bytes]]) -> None:
        """Send each (values of the varying headers, body). Returns at once.

        Raises `ConnectionLostError` while there is no connection; then nothing was sent.
        """

    def flush(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until the broker has worked on all that was sent; False if it has not.

        Raises `ConnectionLostError`.
        """


class Broker(Protocol):
    """A supervised connection to a broker. Safe to use from several threads."""

    @property
    def address(self) -> str:
        """Where it is or was last connected, secrets masked."""

    def connect(self) -> None:
        """Connect once, trying each host. Raises `UnreachableError` or `RefusedError`.

        After the first success a supervisor reconnects for ever, with full-jitter backoff, until `close`.
        """

    def subscribe(
        self, queue: str, *, window: int, selector: str | None = None, exclusive: bool = False
    ) -> Subscription:
        """Subscribe now and again after every reconnect. Raises `RefusedError` if the broker says no.

        Of several `exclusive` subscriptions to a queue the first gets everything, until it ends. A `selector` finds
        only what is among the first messages of the queue: 200 on a default ActiveMQ.
        """

    def send(self, outgoing: Outgoing, on_sent: OnSent) -> None:
        """Send; `on_sent(None)` once the broker holds it, else `on_sent(error)`.

        Raises `ConnectionLostError` at once while there is no connection.
        """

    def bulk_sender(self, template: Outgoing, variable_headers: Sequence[str]) -> BulkSender:
        """Return an outlet for messages that have all but their bodies and the headers `varying` from `alike`.

        Raises `RefusedError` for what breaks the limits of the wire format.
        """

    def browse(self, queue: str, *, limit: int, timeout_s: float, selector: str | None = None) -> Browse:
        """Return at most `limit` messages, in the order of delivery, and leave them where they are.

        They cannot be settled. What did not come within `timeout_s` is left out; so is what follows the first 256 MiB
        of bodies. Raises `RefusedError` (a bad selector), `UnreachableError`, `ConnectionLostError`.
        """

    def measure(self, queue: str, timeout_s: float) -> Depth | None:
        """Return the queue's depth, or None when the broker does not say within `timeout_s`."""

    def close(self, timeout_s: float) -> None:
        """Write what is pending, disconnect with a receipt, and stop. Unsettled messages go back to the broker."""
