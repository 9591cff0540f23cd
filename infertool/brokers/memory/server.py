"""The in-process broker itself: named queues that all connections of a process share, and its addresses.

It promises what a real broker promises, and no more: a message is delivered again when its connection is lost before
the ack arrived, a confirmation can be lost after the broker acted, and an ack that fits no delivery is refused.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Protocol, Self

from infertool.brokers.memory.adapter import CAPABILITIES, REPLIES
from infertool.brokers.memory.faults import Faults
from infertool.brokers.memory.partitions import PartitionedQueue, Partitions
from infertool.brokers.memory.queues import Consumer, NoQueue, Queue, RefusedByBroker, Stored, accepts
from infertool.brokers.partitioned import Lag, PartitionListener
from infertool.brokers.port import Browsing, Capabilities, Depth, Selector
from infertool.errors import SettingsError
from infertool.message import Outgoing

# Messages that a partial browse shows, unless the option `page` says otherwise.
PAGE: Final = 200
_WORDS: Final = {"yes": True, "no": False}


class Client(Protocol):
    """A connection, as the broker sees it."""

    def end(self, reason: str) -> None:
        """End it."""

    def wake(self) -> None:
        """Have it look again whether it may go on."""


@dataclass(slots=True, eq=False)
class Session:
    """What the broker knows of one connection: its consumers, and what is delivered and not settled, by token.

    `own` are the names of queues for replies, which end with it. `place` is the address that it came through.
    """

    client: Client
    place: Address
    consumers: list[tuple[Queue, Consumer]] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def holds(self, token: str) -> bool:
        """Return True if a delivery is unsettled."""
        return any(token in consumer.unsettled for _, consumer in self.consumers)

    def find(self, token: str) -> tuple[Queue, Consumer]:
        """Return the consumer that holds a delivery. Raises `RefusedByBroker`."""
        for queue, consumer in self.consumers:
            if token in consumer.unsettled:
                return queue, consumer
        raise RefusedByBroker(f"no delivery with the token {token!r} is unsettled")


class Server:
    """One broker. Thread-safe. Its queues last until `remove`, whatever connections come and go."""

    def __init__(
        self,
        name: str,
        capabilities: Capabilities = CAPABILITIES,
        *,
        page: int = PAGE,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.page = page
        self.login = login
        self.running = True
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._tokens = itertools.count(1)
        self._queues: dict[str, Queue] = {}
        self._addresses = [Address(name, self)]
        _register(self._addresses[0])

    @property
    def url(self) -> str:
        """The URL of its first address."""
        return self._addresses[0].url

    @property
    def faults(self) -> Faults:
        """The faults of its first address."""
        return self._addresses[0].faults

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def new_address(self) -> Address:
        """Return one more address of the same queues, with faults of its own, as a proxy would be."""
        address = Address(f"{self.name}-{len(self._addresses)}", self)
        self._addresses.append(address)
        _register(address)
        return address

    def partition(self, name: str, count: int) -> Partitions:
        """Make an empty queue of `count` partitions, whose assignment the caller decides."""
        with self._lock:
            queue = self._queues[name] = PartitionedQueue(self.capabilities, self._tokens, name, count)
            return Partitions(queue, self._lock)

    def is_partitioned(self, name: str) -> bool:
        """Return True for a queue with partitions."""
        return isinstance(self._queues.get(name), PartitionedQueue)

    def lag(self, name: str) -> Lag | None:
        """Return how far the consumers of a queue with partitions are behind; None for another queue."""
        with self._lock:
            queue = self._queues.get(name)
            return queue.lag() if isinstance(queue, PartitionedQueue) else None

    def settle_held(self, session: Session, tokens: Sequence[str]) -> None:
        """Remove those messages that the session still holds: others are of partitions that it has no more."""
        with self._lock:
            self.settle(session, [token for token in tokens if session.holds(token)])

    def stop(self) -> None:
        """End all connections and accept no others; messages that are not persistent are lost."""
        self.running = False
        for address in self._addresses:
            address.faults.cut("the broker was stopped")
        with self._lock:
            for queue in self._queues.values():
                queue.drop_transient()

    # A kill is no worse: nothing is on its way to a disk.
    kill = stop

    def start(self) -> None:
        """Accept connections again after `stop`."""
        self.running = True

    def remove(self) -> None:
        """Stop, and forget everything. A later URL of the same name is another broker."""
        self.stop()
        for address in self._addresses:
            _forget(address)

    def subscribe(
        self,
        session: Session,
        name: str,
        *,
        window: int,
        selector: Selector | None,
        exclusive: bool,
        deliver: Callable[[list[tuple[str, Stored]]], None],
        listener: Callable[[], PartitionListener | None] = lambda: None,
    ) -> None:
        """Add a consumer of a queue to a session. Raises `RefusedByBroker`."""
        self._need(not exclusive or self.capabilities.exclusive, "exclusive subscriptions")
        self._need(selector is None or self.capabilities.selectors, "selectors")
        self._need(not name.startswith(REPLIES), "subscriptions to the queues of other connections")
        consumer = Consumer(window, exclusive, accepts(selector), deliver, place=session.place, listener=listener)
        with self._lock:
            queue = self._queue(name)
            queue.consumers.append(consumer)
            session.consumers.append((queue, consumer))
            queue.dispatch(_now_ms())

    def open_replies(self, session: Session, deliver: Callable[[list[tuple[str, Stored]]], None]) -> str:
        """Make a queue that ends with the session, and return its name. Raises `RefusedByBroker`."""
        self._need(self.capabilities.reply_addresses, "queues for replies")
        with self._lock:
            name = f"{REPLIES}{next(self._numbers)}"
            queue = self._queues[name] = Queue(self.capabilities, self._tokens)
            consumer = Consumer(sys.maxsize, False, accepts(None), deliver)  # noqa: FBT003  # not exclusive
            queue.consumers.append(consumer)
            session.consumers.append((queue, consumer))
            session.own.append(name)
            return name

    def exists(self, name: str) -> bool:
        """Return True if a message to that queue would be held: of queues for replies, while there is one."""
        return not name.startswith(REPLIES) or name in self._queues

    def send(self, outgoing: Outgoing) -> None:
        """Hold a message. Raises `RefusedByBroker`."""
        with self._lock:
            self._hold(outgoing).dispatch(_now_ms())

    def settle(self, session: Session, tokens: Sequence[str]) -> None:
        """Remove messages that were delivered in the session. Raises `RefusedByBroker`."""
        self.commit(session, tokens, [])

    def commit(self, session: Session, tokens: Sequence[str], sends: Sequence[Outgoing]) -> None:
        """Remove messages and hold others in one step. Raises `RefusedByBroker`; nothing was done then."""
        with self._lock:
            if len(set(tokens)) < len(tokens):
                raise RefusedByBroker("a delivery is settled twice")
            held = [(*session.find(token), token) for token in tokens]
            for outgoing in sends:
                self._queue(outgoing.destination)
            for queue, consumer, token in held:
                queue.settle(consumer, token)
            changed = {*(queue for queue, _, _ in held), *map(self._hold, sends)}
            for queue in changed:
                queue.dispatch(_now_ms())

    def end(self, session: Session) -> None:
        """Take back what the session did not settle, and remove its queues for replies."""
        with self._lock:
            for name in session.own:
                del self._queues[name]
            session.own.clear()
            for queue, consumer in session.consumers:
                queue.detach(consumer)
            for queue in dict.fromkeys(queue for queue, _ in session.consumers):
                queue.dispatch(_now_ms())
            session.consumers.clear()

    def browse(self, name: str, selector: Selector | None) -> tuple[list[Stored], bool]:
        """Return what is shown of a queue, and whether that is all of it. Raises `RefusedByBroker`."""
        self._need(self.capabilities.browse is not Browsing.NONE, "browsing")
        self._need(selector is None or self.capabilities.selectors, "selectors")
        most = self.page if self.capabilities.browse is Browsing.PARTIAL else None
        with self._lock:
            queue = self._queue(name)
            shown = queue.shown(accepts(selector), most, _now_ms())
            whole = len(shown) == queue.depth(_now_ms()).size
            # A broker that shows pages does not say that there was only one.
            return shown, whole and (most is None or self.capabilities.depth)

    def depth(self, name: str) -> Depth | None:
        """Return the figures of a queue; None where there is none, or the broker does not tell."""
        with self._lock:
            if not self.capabilities.depth or name not in self._queues:
                return None
            return self._queues[name].depth(_now_ms())

    def held(self, name: str) -> list[Stored]:
        """Return every message of a queue, unsettled ones included: what a test may know, and no client."""
        with self._lock:
            queue = self._queue(name)
            return [*queue.waiting, *(stored for each in queue.consumers for stored in each.unsettled.values())]

    def _queue(self, name: str) -> Queue:
        if not self.exists(name):
            raise NoQueue(f"there is no queue {name}")
        if name not in self._queues:
            self._queues[name] = Queue(self.capabilities, self._tokens)
        return self._queues[name]

    def _hold(self, outgoing: Outgoing) -> Queue:
        number = next(self._numbers)
        now_ms = _now_ms()
        sent_ms = outgoing.properties.timestamp_ms or now_ms
        queue = self._queue(outgoing.destination)
        queue.add(Stored(f"{self.name}:{number}", number, outgoing, sent_ms, now_ms))
        return queue

    def _need(self, offered: bool, what: str) -> None:  # noqa: FBT001  # reads as a condition
        if not offered:
            raise RefusedByBroker(f"this broker does not offer {what}")


class Address:
    """Where connections to a server are made: `memory://NAME`."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self.url = f"memory://{name}"
        self._lock = threading.Lock()
        self._clients: set[Client] = set()
        self.faults = Faults(self._end_all, self._wake_all)

    def add(self, client: Client) -> None:
        """Note that a connection was made."""
        with self._lock:
            self._clients.add(client)

    def discard(self, client: Client) -> None:
        """Note that a connection has ended."""
        with self._lock:
            self._clients.discard(client)

    def _end_all(self, reason: str) -> None:
        for client in self._all():
            client.end(reason)

    def _wake_all(self) -> None:
        for client in self._all():
            client.wake()

    def _all(self) -> list[Client]:
        with self._lock:
            return list(self._clients)


_registering: Final = threading.RLock()
_addresses: Final[dict[str, Address]] = {}
_made_with: Final[dict[str, Mapping[str, str]]] = {}


def _register(address: Address) -> None:
    with _registering:
        if address.name in _addresses:
            raise ValueError(f"there is a broker {address.url} already")
        _addresses[address.name] = address


def _forget(address: Address) -> None:
    with _registering:
        _addresses.pop(address.name, None)
        _made_with.pop(address.name, None)


def address_of(name: str, options: Mapping[str, str]) -> Address:
    """Return the address of that name; its server is made if there is none. Raises `SettingsError`."""
    with _registering:
        if name not in _addresses:
            capabilities, page = parse_options(options)
            Server(name, capabilities, page=page)
            _made_with[name] = dict(options)
        elif options and _made_with.get(name) != options:
            raise SettingsError(
                f"the broker memory://{name} was made with other options", key="broker.url", advice="use another name"
            )
        return _addresses[name]


def parse_options(options: Mapping[str, str]) -> tuple[Capabilities, int]:
    """Return what `?NAME=VALUE&...` switches off, and the size of a page. Raises `SettingsError`."""
    changes: dict[str, Any] = {}
    for name, text in options.items():
        if name != "page" and name not in OPTIONS:
            raise _wrong(name, text, f"known are page, {', '.join(OPTIONS)}")
        changes[name] = _value(name, text)
    page = changes.pop("page", PAGE)
    return replace(CAPABILITIES, **changes), page


OPTIONS: Final = tuple(each.name for each in fields(Capabilities))


def _value(name: str, text: str) -> bool | int | Browsing:
    if name == "browse":
        if text not in list(Browsing):
            raise _wrong(name, text, f"it is one of {', '.join(Browsing)}")
        return Browsing(text)
    if name == "page" or not isinstance(getattr(CAPABILITIES, name), bool):
        if not (text.isascii() and text.isdigit() and int(text)):
            raise _wrong(name, text, "it is a whole number from 1")
        return int(text)
    if text not in _WORDS:
        raise _wrong(name, text, "it is yes or no")
    return _WORDS[text]


def _wrong(name: str, text: str, advice: str) -> SettingsError:
    return SettingsError(f"{name}={text!r} is no option of a memory broker", key="broker.url", advice=advice)


def _now_ms() -> int:
    return int(time.time() * 1000)
