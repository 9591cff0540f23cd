"""Topics: who subscribed to which name or pattern. Each topic subscription has a mailbox of its own. No I/O."""

from __future__ import annotations

from infertool.devserver.broker import destinations
from infertool.devserver.broker.messages import StoredMessage
from infertool.devserver.broker.queues import Queue
from infertool.devserver.broker.subscriptions import Subscription

# What a subscriber that does not keep up may have waiting; then it loses the oldest messages.
MAILBOX_LIMIT = 10_000


class Topics:
    """All topic subscriptions of a broker."""

    def __init__(self) -> None:
        self._exact: dict[str, list[Queue]] = {}
        self._patterns: list[tuple[str, Queue]] = []

    def add(self, name: str, subscription: Subscription, *, is_pattern: bool) -> None:
        """Give the subscription a mailbox for what is published under `name` from now on."""
        mailbox = Queue(name, limit=MAILBOX_LIMIT)
        mailbox.subscriptions.append(subscription)
        subscription.queues.append(mailbox)
        if is_pattern:
            self._patterns.append((name, mailbox))
        else:
            self._exact.setdefault(name, []).append(mailbox)

    def publish(self, name: str, message: StoredMessage) -> list[Queue]:
        """Put a copy into every mailbox that takes `name`; return those mailboxes."""
        mailboxes = [*self._exact.get(name, ())]
        mailboxes += [mailbox for pattern, mailbox in self._patterns if destinations.matches(pattern, name)]
        for mailbox in mailboxes:
            mailbox.put(message.twin())
        return mailboxes

    def remove(self, subscription: Subscription) -> None:
        """Drop the subscription's mailboxes and what is in them."""
        gone = subscription.queues
        self._patterns = [entry for entry in self._patterns if entry[1] not in gone]
        for mailbox in gone:
            remaining = [other for other in self._exact.pop(mailbox.name, ()) if other is not mailbox]
            if remaining:
                self._exact[mailbox.name] = remaining
