"""What one client subscribed to and holds: finds what an ACK or NACK is about. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from infertool.devserver.broker.errors import ProtocolError
from infertool.devserver.broker.subscriptions import AckMode, Subscription

# Ack keys of ended subscriptions that are still answered with a receipt, as ActiveMQ does.
_REMEMBERED_KEYS = 2000

Found = tuple[Subscription, str]


class Held:
    """The subscriptions of one connection. Of two with one id, only the later can be ended (as in ActiveMQ)."""

    def __init__(self) -> None:
        self._by_id: dict[str, Subscription] = {}
        self._by_serial: dict[int, Subscription] = {}
        self._ended_keys: deque[str] = deque(maxlen=_REMEMBERED_KEYS)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._by_serial.values())

    def add(self, subscription: Subscription) -> None:
        """Note a new subscription."""
        self._by_id[subscription.id] = subscription
        self._by_serial[subscription.serial] = subscription

    def remove(self, subscription_id: str) -> Subscription:
        """Take out the subscription. Raises ProtocolError when there is none."""
        subscription = self._by_id.pop(subscription_id, None)
        if subscription is None:
            raise ProtocolError("No subscription matched.")
        del self._by_serial[subscription.serial]
        self._ended_keys.extend(subscription.unacked)
        return subscription

    def clear(self) -> list[Subscription]:
        """Take out all of them."""
        gone = list(self)
        self._by_id.clear()
        self._by_serial.clear()
        return gone

    def find(self, command: str, headers: dict[str, str], version: str) -> Found | None:
        """Return what the frame is about; None when its subscription has ended, which is no error.

        Raises ProtocolError when the client does not hold such a message.
        """
        if version == "1.2":
            key = _required(headers, "id", f"{command} received without a ack id for acknowledge!")
            candidates = self._of_key(key)
        else:
            key = _required(headers, "message-id", f"{command} received without a message-id to acknowledge!")
            candidates = self._of_id(command, headers, version)
        for subscription in candidates:
            if key in subscription.unacked:
                return subscription, key
        if key in self._ended_keys:
            return None
        message_id = headers.get("message-id", "null")
        raise ProtocolError(f"Unexpected {command} received for message-id [{message_id}]")

    def _of_key(self, key: str) -> Iterable[Subscription]:
        """Find by the serial in the key that `ack_key` made."""
        serial = key.rpartition(":")[0].rpartition(":")[2]
        found = self._by_serial.get(int(serial)) if serial.isascii() and serial.isdigit() else None
        return () if found is None else (found,)

    def _of_id(self, command: str, headers: dict[str, str], version: str) -> Iterable[Subscription]:
        if "subscription" not in headers and version == "1.0":
            return self._by_serial.values()
        missing = f"{command} received without a subscription id for acknowledge!"
        wanted = _required(headers, "subscription", missing)
        return [subscription for subscription in self if subscription.id == wanted]


def ack_key(session_id: str, subscription: Subscription, delivery: int) -> str:
    """Return the `ack` header of a delivery (STOMP 1.2); it is unique in the broker."""
    return f"{session_id}:{subscription.serial}:{delivery}"


def acked_by_client(subscription: Subscription) -> bool:
    """Tell whether deliveries wait for an ACK."""
    return subscription.mode is not AckMode.AUTO


def _required(headers: dict[str, str], name: str, complaint: str) -> str:
    value = headers.get(name)
    if value is None:
        raise ProtocolError(complaint)
    return value
