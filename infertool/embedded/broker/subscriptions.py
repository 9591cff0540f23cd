"""What a client subscribed to, and what it holds unacked. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from infertool.embedded.broker.messages import StoredMessage

if TYPE_CHECKING:
    from infertool.embedded.broker.queues import Queue


Taken = list[tuple[str, StoredMessage]]
# The client's id and the subscription's name.
Durable = tuple[str, str]


class AckMode(StrEnum):
    """The ack header of SUBSCRIBE."""

    AUTO = "auto"
    CLIENT = "client"
    INDIVIDUAL = "client-individual"


class Consumer(Protocol):
    """Who writes messages to a client."""

    @property
    def ready(self) -> bool:
        """Whether it takes more now. A client that does not read is not ready."""

    def deliver(self, subscription: Subscription, message: StoredMessage) -> bool:
        """Write the message; return whether the client will ack it."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One SUBSCRIBE. `unacked` is what its client holds, by ack key, in the order of delivery.

    `queues` are where it takes messages from: several for a wildcard. `lines` are the header lines that every
    delivery to it has. `serial` is unique in its connection. The first `exclusive` one of a queue gets everything. What
    comes for a `durable` one is kept while its client is away.
    """

    id: str
    consumer: Consumer
    mode: AckMode
    prefetch: int
    serial: int
    exclusive: bool = False
    durable: Durable | None = None
    selector: str = ""
    lines: bytes = b""
    matches: Callable[[StoredMessage], bool] | None = None
    queues: list[Queue] = field(default_factory=list)
    unacked: dict[str, StoredMessage] = field(default_factory=dict)
    active: bool = True

    @property
    def ready(self) -> bool:
        """Whether another message fits into the window."""
        return len(self.unacked) < self.prefetch and self.consumer.ready

    def take(self, key: str) -> Taken:
        """Take out what an ACK of `key` settles: with `ack:client` also all that was delivered before it."""
        if self.mode is not AckMode.CLIENT:
            return [(key, self.unacked.pop(key))]
        taken: Taken = []
        for held in self.unacked.items():
            taken.append(held)
            if held[0] == key:
                break
        for held_key, _ in taken:
            del self.unacked[held_key]
        return taken

    def put_back(self, taken: Iterable[tuple[str, StoredMessage]]) -> None:
        """Undo `take`; what was delivered first comes first again."""
        held = sorted([*taken, *self.unacked.items()], key=lambda item: item[1].delivery)
        self.unacked = dict(held)
