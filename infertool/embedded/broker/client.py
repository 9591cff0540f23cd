"""One client's state: login and handshake, subscriptions, transactions, temporary destinations. No I/O."""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from infertool.embedded.broker import destinations
from infertool.embedded.broker.core import Broker
from infertool.embedded.broker.destinations import Destination, DestinationError, Kind, ProtocolError
from infertool.embedded.broker.messages import StoredMessage
from infertool.embedded.broker.queues import AckMode, Subscription, Taken
from infertool.secret import Secret


@dataclass(frozen=True, slots=True)
class Login:
    """The login that CONNECT must contain; without user and password any login is accepted."""

    user: str = ""
    password: Secret = field(default_factory=Secret)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Login:
        """Read ACTIVEMQ_USER and ACTIVEMQ_PASSWORD."""
        return cls(environment.get("ACTIVEMQ_USER", ""), Secret(environment.get("ACTIVEMQ_PASSWORD", "")))

    def accepts(self, user: str, password: str) -> bool:
        """Return True if the login matches. Compares in constant time."""
        if not self.user and not self.password:
            return True
        same_user = _same(user, self.user)
        same_password = _same(password, self.password.reveal())
        return same_user and same_password


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode(errors="surrogateescape"))


# Maximum heartbeat interval, one day. Milliseconds.
_LONGEST_BEAT_MS = 86_400_000
VERSIONS = ("1.2", "1.1", "1.0")


@dataclass(frozen=True, slots=True)
class Agreement:
    """The outcome of CONNECT and CONNECTED. `client_beats_s` and `server_beats_s` are 0 without heartbeats."""

    version: str
    client_beats_s: float
    server_beats_s: float
    connected: dict[str, str]


def agree(headers: dict[str, str], login: Login, session_id: str) -> Agreement:
    """Return the answer to a CONNECT frame, with ActiveMQ's error texts. Raises `ProtocolError`."""
    user = headers.get("login", "null")
    if not login.accepts(user, headers.get("passcode", "")):
        raise ProtocolError(f"User name [{user}] or password is invalid.", fatal=True)
    version = _version(headers.get("accept-version", "1.0"))
    promised, wanted = _beats(headers.get("heart-beat", "0,0"))
    connected = {
        "version": version,
        "server": "infertool-dev",
        "session": headers.get("client-id", session_id),
        # ActiveMQ returns the client's values, swapped.
        "heart-beat": f"{wanted},{promised}",
    }
    if "receipt" in headers:
        connected |= {"receipt-id": headers["receipt"], "response-id": headers["receipt"]}
    return Agreement(version, _seconds(promised), _seconds(wanted), connected)


def _seconds(beat_ms: int) -> float:
    return min(beat_ms, _LONGEST_BEAT_MS) / 1000


def _version(accepted: str) -> str:
    offered = {version.strip() for version in accepted.split(",")}
    for version in VERSIONS:
        if version in offered:
            return version
    supported = ", ".join(VERSIONS)
    raise ProtocolError(f"Invalid Protocol version[{accepted}], supported versions are: [{supported}]", fatal=True)


def _beats(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    try:
        beats = int(first), int(second)
    except ValueError:
        raise ProtocolError(f"Invalid heart-beat header:{text}", fatal=True) from None
    if min(beats) < 0:
        raise ProtocolError(f"Invalid heart-beat header:{text}", fatal=True)
    return beats


# Maximum of remembered ack keys of ended subscriptions: ActiveMQ accepts an ACK for these.
_REMEMBERED_KEYS = 2000

Found = tuple[Subscription, str]


class Subscriptions:
    """The subscriptions of one connection. Of two with the same id, only the later can be ended, as in ActiveMQ."""

    def __init__(self) -> None:
        self._by_id: dict[str, Subscription] = {}
        self._by_serial: dict[int, Subscription] = {}
        self._ended_keys: deque[str] = deque(maxlen=_REMEMBERED_KEYS)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._by_serial.values())

    def add(self, subscription: Subscription) -> None:
        """Add a new subscription."""
        self._by_id[subscription.id] = subscription
        self._by_serial[subscription.serial] = subscription

    def remove(self, subscription_id: str) -> Subscription:
        """Remove and return the subscription. Raises `ProtocolError` if there is none."""
        subscription = self._by_id.pop(subscription_id, None)
        if subscription is None:
            raise ProtocolError("No subscription matched.")
        del self._by_serial[subscription.serial]
        self._ended_keys.extend(subscription.unacked)
        return subscription

    def clear(self) -> list[Subscription]:
        """Remove and return all subscriptions."""
        gone = list(self)
        self._by_id.clear()
        self._by_serial.clear()
        return gone

    def find(self, command: str, headers: dict[str, str], version: str) -> Found | None:
        """Return the subscription and the ack key of an ACK or NACK; None if the subscription has ended.

        Raises `ProtocolError` if the client does not hold such a message.
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
        """Return the subscription whose serial is in the key of `ack_key`."""
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
    """Return the `ack` header of a delivery (STOMP 1.2), which is unique in the broker."""
    return f"{session_id}:{subscription.serial}:{delivery}"


def acked_by_client(subscription: Subscription) -> bool:
    """Return True if deliveries wait for an ACK."""
    return subscription.mode is not AckMode.AUTO


def _required(headers: dict[str, str], name: str, complaint: str) -> str:
    value = headers.get(name)
    if value is None:
        raise ProtocolError(complaint)
    return value


@dataclass(slots=True)
class Transaction:
    """An open transaction. Its acked messages no longer fill the window, but still belong to the client."""

    sends: list[tuple[Destination, StoredMessage]] = field(default_factory=list)
    acks: list[tuple[Subscription, Taken]] = field(default_factory=list)

    def commit(self, broker: Broker) -> None:
        """Settle the acks, and send the messages."""
        for _, taken in self.acks:
            broker.settle(message for _, message in taken)
        for destination, message in self.sends:
            try:
                broker.send(destination, message)
            except DestinationError:
                # The temporary queue of a client that has left: no client waits for this message.
                continue

    def abort(self, broker: Broker) -> None:
        """Undo the transaction. Acked messages become unacked again, or go back if their subscription has ended."""
        for subscription, taken in self.acks:
            if subscription.active:
                subscription.put_back(taken)
            else:
                broker.give_back(message for _, message in taken)


_REMOTE = {Kind.TEMP_QUEUE: Kind.REMOTE_TEMP_QUEUE, Kind.TEMP_TOPIC: Kind.REMOTE_TEMP_TOPIC}


class Temporaries:
    """Maps a client's `/temp-queue/x` to the name for other clients. Created at first use, deleted with the client."""

    def __init__(self, broker: Broker, session_id: str) -> None:
        self._broker = broker
        self._session_id = session_id
        self._remote: dict[Destination, Destination] = {}

    def resolve(self, text: str) -> Destination:
        """Return the destination of a header. Raises `DestinationError`."""
        local = destinations.parse(text)
        kind = _REMOTE.get(local.kind)
        if kind is None:
            return local
        if local not in self._remote:
            name = f"{self._session_id}:{len(self._remote) + 1}"
            self._remote[local] = Destination(kind, name)
            self._broker.add_temporary(name, local)
        return self._remote[local]

    def may_receive_from(self, destination: Destination) -> bool:
        """Return True unless it is another client's temporary destination (JMS 1.1, 4.4.3)."""
        return destination.kind not in _REMOTE.values() or destination in self._remote.values()

    def clear(self) -> None:
        """Delete all temporary destinations."""
        for remote in self._remote.values():
            self._broker.remove_temporary(remote.name)
        self._remote.clear()
