"""A transaction: what is sent and acked in it takes place all at once, at its commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from infertool.devserver.broker.core import Broker
from infertool.devserver.broker.destinations import Destination, DestinationError
from infertool.devserver.broker.messages import StoredMessage
from infertool.devserver.broker.subscriptions import Subscription, Taken


@dataclass(slots=True)
class Transaction:
    """One client's open transaction. Acked messages are out of the window but still belong to the client."""

    sends: list[tuple[Destination, StoredMessage]] = field(default_factory=list)
    acks: list[tuple[Subscription, Taken]] = field(default_factory=list)

    def commit(self, broker: Broker) -> None:
        """Do all of it."""
        for _, taken in self.acks:
            broker.settle(message for _, message in taken)
        for destination, message in self.sends:
            try:
                broker.send(destination, message)
            except DestinationError:
                # The temporary queue of a caller that left meanwhile: nobody waits for this message.
                continue

    def abort(self, broker: Broker) -> None:
        """Do none of it. Acked messages stay with their subscription, unacked; if that has ended they go back."""
        for subscription, taken in self.acks:
            if subscription.active:
                subscription.put_back(taken)
            else:
                broker.give_back(message for _, message in taken)
