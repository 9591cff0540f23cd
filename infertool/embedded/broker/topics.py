"""Topics: subscriptions by name or pattern, each with a mailbox of its own. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from infertool.embedded.broker import destinations
from infertool.embedded.broker.destinations import Destination, DestinationError
from infertool.embedded.broker.messages import StoredMessage
from infertool.embedded.broker.queues import Durable, Queue, Subscription

# Maximum of waiting messages of a slow subscriber; beyond it the oldest ones are dropped.
MAILBOX_LIMIT = 10_000


@dataclass(slots=True)
class _Kept:
    """A durable subscription, with or without a connected client."""

    destination: Destination
    selector: str
    mailbox: Queue


class Topics:
    """All topic subscriptions of a broker."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Queue]] = {}
        self._patterns: list[tuple[str, Queue]] = []
        self._kept: dict[Durable, _Kept] = {}

    def add(self, destination: Destination, subscription: Subscription) -> None:
        """Attach a mailbox for messages that are published from now on; a durable subscription gets its kept one.

        Raises `DestinationError` for a durable subscription that is in use.
        """
        mailbox = self._kept_mailbox(destination, subscription) or Queue(destination.name, limit=MAILBOX_LIMIT)
        mailbox.subscriptions.append(subscription)
        subscription.queues.append(mailbox)
        if subscription.durable:
            if subscription.durable in self._kept:
                return
            self._kept[subscription.durable] = _Kept(destination, subscription.selector, mailbox)
        if destination.is_pattern:
            self._patterns.append((destination.name, mailbox))
        else:
            self._exact.setdefault(destination.name, []).append(mailbox)

    def _kept_mailbox(self, destination: Destination, subscription: Subscription) -> Queue | None:
        if subscription.durable is None or (kept := self._kept.get(subscription.durable)) is None:
            return None
        _check_unused(subscription.durable, kept)
        if (kept.destination, kept.selector) == (destination, subscription.selector):
            return kept.mailbox
        # With another topic or selector it is a new subscription (JMS 1.1, 6.11.1).
        self.forget(subscription.durable)
        return None

    def forget(self, durable: Durable) -> None:
        """Delete a durable subscription. Raises `DestinationError` while it is in use."""
        kept = self._kept.get(durable)
        if kept is None:
            client, name = durable
            raise DestinationError(f"No durable subscription exists for client: {client} and subscriptionName: {name}")
        _check_unused(durable, kept)
        del self._kept[durable]
        self._drop(kept.mailbox)

    def publish(self, name: str, message: StoredMessage) -> list[Queue]:
        """Put a copy into every mailbox of topic `name`; return those mailboxes."""
        mailboxes = [*self._exact.get(name, ())]
        mailboxes += [mailbox for pattern, mailbox in self._patterns if destinations.matches(pattern, name)]
        for mailbox in mailboxes:
            mailbox.put(message.twin())
        return mailboxes

    def remove(self, subscription: Subscription) -> None:
        """Delete the subscription's mailboxes with their messages, unless it is durable."""
        if subscription.durable is None:
            for mailbox in subscription.queues:
                self._drop(mailbox)

    def _drop(self, gone: Queue) -> None:
        self._patterns = [entry for entry in self._patterns if entry[1] is not gone]
        remaining = [other for other in self._exact.pop(gone.name, ()) if other is not gone]
        if remaining:
            self._exact[gone.name] = remaining


def _check_unused(durable: Durable, kept: _Kept) -> None:
    if kept.mailbox.subscriptions:
        client, name = durable
        raise DestinationError(f"Durable consumer is in use for client: {client} and subscriptionName: {name}")
