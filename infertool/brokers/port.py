"""The broker port: all that the rest of infertool knows of a message broker.

A broker can subscribe, settle, send, browse and measure. Adapters own their threads; every callback comes from one
of them and must return quickly and never raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

from infertool.message import Message, Outgoing

# Bytes of bodies that one browse holds in memory: dead letters may be tens of MiB each.
MOST_BROWSED_BYTES: Final = 256 * 1024 * 1024

OnSent = Callable[[Exception | None], None]
# What stands beside each message of `Broker.send_all` whose end is known, and None or its error.
OnEnds = Callable[[Sequence[tuple[Any, Exception | None]]], None]
OnMessages = Callable[[list[Message]], None]


class Browsing(StrEnum):
    """How much of a queue a broker shows without taking anything from it."""

    NONE = "none"
    # The first messages of a queue; those behind them are not shown.
    PARTIAL = "partial"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a broker can do, and how much of it at once. Before the first connection: what the adapter expects.

    `atomic_move`: a move sends and acks in one step. `exclusive`: one subscription can keep a queue to itself.
    `selectors`: subscriptions and browses can be limited to messages that match; `selector_reach` is the number of
    messages from the head of a queue that the broker searches each time, None where it searches all. `depth`: the
    broker tells how many messages a queue holds. `priorities`, `expiry` and `delivery_count`: the broker keeps them.
    `reply_addresses`: a caller can have a queue of its own for replies (`Broker.open_replies`). `header_types`:
    headers keep their types (`Message.types`); elsewhere they arrive as texts. `highest_priority`: a higher one becomes
    this. `log`: a queue keeps its messages after they are settled, each group of consumers settles them for itself, and
    what a subscription passes over (`partitioned.PassesOver`) stays in its place.

    `max_unacked` is the number of unacked messages that one subscription surely gets, and the window to ask for unless
    told otherwise. At most `max_moves` moves and `max_move_bytes` bytes of bodies go into one `Subscription.move`.
    """

    atomic_move: bool
    browse: Browsing
    selectors: bool
    exclusive: bool
    priorities: bool
    expiry: bool
    depth: bool
    delivery_count: bool
    reply_addresses: bool
    max_unacked: int
    max_moves: int
    max_move_bytes: int
    selector_reach: int | None = None
    header_types: bool = False
    highest_priority: int = 9
    log: bool = False


class Conventions(Protocol):
    """How a kind of broker spells queues, and which headers it carries. Known without a connection."""

    # Headers of one message, beside those that the adapter adds.
    max_headers: int
    # Headers that only the adapter sets: they address, frame or settle a message.
    set_by_adapter: frozenset[str]
    # Headers that would hide what the broker writes when it dead-letters the message.
    reserved: frozenset[str]
    # Headers by which the broker says that it dead-lettered a message.
    death_marks: frozenset[str]
    # Whether the broker deletes messages by their times: a dead letter with that of its event would soon be gone.
    ages_by_time: bool

    def queue(self, text: str) -> str:
        """Return the one queue that was typed as `text`, spelt as messages name it. Raises `UsageError`."""

    def source(self, text: str) -> str:
        """Return what may be subscribed to: one queue, or what else the broker offers. Raises `UsageError`."""

    def short(self, queue: str) -> str:
        """Return the name of a queue without what all queues have in common."""

    def is_queue(self, text: str) -> bool:
        """Return True if `text` names one queue as messages name it."""

    def reply_queue(self, text: str) -> str:
        """Return where to send the reply to a message whose reply-to is `text`.

        Raises `UsageError` for what is no queue: a topic, a list, a malformed name.
        """

    def is_lasting(self, address: str) -> bool:
        """Return True if `address`, the reply-to of a message, does not end with the connection that was made for it.

        It is a queue, or a part of one.
        """

    def covers(self, source: str, queue: str) -> bool:
        """Return True if a subscription to `source` gets the messages of `queue`."""

    def is_refused(self, name: str, value: str) -> bool:
        """Return True if the broker would refuse a message with this header, or change its value."""

    def is_sendable(self, name: str, value: str) -> bool:
        """Return True if this header comes out as it went in, and makes the broker do nothing unasked-for."""

    def fits(self, name: str, value: str) -> bool:
        """Return True if this header is short enough for the broker."""

    def keeps_type(self, text: str, tag: str) -> bool:
        """Return True if a broker with types of headers keeps that of this value; else it is sent as its text."""


@dataclass(frozen=True, slots=True)
class Match:
    """Selects messages that meet at least one of these conditions.

    Their id is among `ids`, their correlation id is `correlation_id`, one of `headers` has the given value, or the
    value of a header begins with one of `prefixes`.
    """

    ids: tuple[str, ...] = ()
    correlation_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)


# What is selected: what to look for, or an expression in the broker's own language.
Selector = Match | str


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

    `complete` is True only when it is proved that these are all the messages: a broker may show the first ones and say
    nothing of the others. `note` says what a person has to know beside: what is not shown, and what the look did.
    """

    messages: list[Message]
    complete: bool
    depth: int | None
    note: str = ""


class Transaction(Protocol):
    """A move that was begun. Where moves are atomic nothing is done before `commit`."""

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
        """Send and ack all of `moves`, and wait until the broker confirmed that.

        In one step where `Capabilities.atomic_move` is True. Elsewhere each message is acked after what is sent in its
        place was confirmed (`brokers.moving`), so that a fault may leave both: the caller writes a stable id on what
        is sent (`dlq_id`).

        Raises `StaleMessagesError` when a message belongs to an earlier connection (nothing was sent),
        `ConnectionLostError` when the connection ended before the confirmation (each step was done or not, which one is
        unknown), `MoveRefusedError` when the broker refused (nothing was acked; the messages will be redelivered, which
        the adapter brings about).
        """

    def start_move(self, moves: Sequence[Move], timeout_s: float) -> Transaction:
        """Begin to move all of at most `Capabilities.max_moves`; the next may begin while this one is committed.

        Raises `StaleMessagesError`, `ConnectionLostError`, `MoveRefusedError`.
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


class Replies(Protocol):
    """A queue of this connection's own, for replies to what it sends. Made anew with every connection."""

    @property
    def address(self) -> str | None:
        """The reply-to of what is sent now. None without a connection; another one after each reconnect."""

    def close(self) -> None:
        """Deliver nothing more. The queue ends now or with the connection."""


class BulkSender(Protocol):
    """Sends many messages that share a template, without confirmations. One thread uses it at a time.

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
        """Send each (values of the variable headers, body). Returns at once.

        Raises `ConnectionLostError` while there is no connection; then nothing was sent.
        """

    def flush(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until the broker has worked on all that was sent; False if it has not.

        A broker may tell of a refusal a moment later.

        Raises `ConnectionLostError`.
        """


class Broker(Protocol):
    """A supervised connection to a broker. Safe to use from several threads."""

    @property
    def address(self) -> str:
        """Where it is or was last connected, secrets masked."""

    @property
    def capabilities(self) -> Capabilities:
        """What the broker can do."""

    @property
    def conventions(self) -> Conventions:
        """How the broker spells queues, and which headers it carries."""

    def connect(self) -> None:
        """Connect once, trying each host. Raises `UnreachableError` or `RefusedError`.

        After the first success a supervisor reconnects for ever, with full-jitter backoff, until `close`.
        """

    def subscribe(
        self, queue: str, *, window: int, selector: Selector | None = None, exclusive: bool = False
    ) -> Subscription:
        """Subscribe now and again after every reconnect. Raises `RefusedError` if the broker says no.

        Of several `exclusive` subscriptions to a queue the first gets everything, until it ends. A `selector` finds
        only what is within `Capabilities.selector_reach`.
        """

    def send(self, outgoing: Outgoing, on_sent: OnSent, *, declare: bool = True, room_s: float | None = None) -> None:
        """Send; `on_sent(None)` once the broker holds it, else `on_sent(error)`.

        Where the broker makes no queues by itself, a missing one is made if the settings allow it and `declare` is
        True. Pass False for a queue that is another program's to make, such as a reply address.

        Waits while the broker takes no more, for `room_s` at most; None leaves that to the adapter. Then it raises
        `ReceiptTimeoutError`, and nothing was sent. Raises `ConnectionLostError` at once while there is no connection.
        """

    def send_all(self, messages: Sequence[tuple[Outgoing, Any]], on_ends: OnEnds) -> None:
        """Send each (message, token) as `send` does with `declare` False; an adapter may join them into one write.

        `on_ends` gets each token once, with None or the error of its message: those together whose ends came together.
        It is called also where `send` would raise.
        """

    def bulk_sender(self, template: Outgoing, variable_headers: Sequence[str]) -> BulkSender:
        """Return a sender of messages that have all but their bodies and `variable_headers` from `template`.

        A variable header may be a property, by its name in the text form (`brokers.headers`).
        Raises `RefusedError` for what breaks the limits of the wire format.
        """

    def browse(self, queue: str, *, limit: int, timeout_s: float, selector: Selector | None = None) -> Browse:
        """Return at most `limit` messages, in the order of delivery, and leave them where they are.

        They cannot be settled. What did not come within `timeout_s` is left out; so is what follows the first 256 MiB
        of bodies. Raises `RefusedError` (a bad selector), `BrowseRefusedError` (this queue cannot be shown),
        `UnreachableError`, `ConnectionLostError`.
        """

    def open_replies(self, on_replies: OnMessages) -> Replies:
        """Return a queue for replies; they come to `on_replies` on the thread that reads, and need no ack.

        Without a connection now, it begins with the next one. Raises `RefusedError` where the broker has no such queues
        (`Capabilities.reply_addresses`).
        """

    def reply_exists(self, address: str, timeout_s: float) -> bool | None:
        """Return False if nobody would get a message to `address`, the result of `Conventions.reply_queue`.

        None where the broker does not tell, or not in time. Not for callbacks: the thread that reads cannot wait.
        """

    def measure(self, queue: str, timeout_s: float) -> Depth | None:
        """Return the queue's depth, or None when the broker does not say within `timeout_s`."""

    def close(self, timeout_s: float) -> None:
        """Write what is pending, disconnect, and stop. Unsettled messages go back to the broker."""


@runtime_checkable
class Widens(Protocol):
    """A subscription whose window can grow. Optional: ask with `isinstance`."""

    def widen(self, window: int) -> None:
        """Have up to `window` messages unsettled from now on: more than before. Waits for the broker's answer.

        Raises `RefusedError`. When the connection is lost meanwhile, the next one has the new window.
        """


@runtime_checkable
class Monitored(Protocol):
    """A broker that tells what metrics show beside `measure`. Optional: ask with `isinstance`."""

    def reader_silent_s(self) -> float | None:
        """Return for how long the thread that reads has not run, in seconds; None without a connection.

        It runs four times a second, whatever arrives, unless it is in a callback.
        """

    def oldest_sent_ms(self, queue: str, timeout_s: float) -> int | None:
        """Return when the first message of `queue` was sent, in milliseconds since the epoch.

        None where the broker does not tell it, or not without harm to the message.
        """
