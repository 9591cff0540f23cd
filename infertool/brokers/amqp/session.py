"""The two connections to a host: one consumes, one publishes. A broker that takes no messages must not stop acks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infertool.brokers.amqp.channel import Channel
from infertool.brokers.amqp.connection import Connection
from infertool.brokers.amqp.publisher import Publisher
from infertool.brokers.target import Target
from infertool.errors import ConnectionLostError, ServerError


@dataclass(slots=True)
class SizeLimit:
    """The most bytes that the body of a message may have, as the broker said when it refused one; None if unknown."""

    most: int | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """See `infertool.brokers.supervisor.Host`. `name` is what the broker's console shows."""

    target: Target
    vhost: str
    name: str
    size_limit: SizeLimit = field(default_factory=SizeLimit)

    @property
    def address(self) -> str:
        """The address for people."""
        return self.target.address

    def connection(self, epoch: int, on_end: Callable[[Session], None]) -> Session:
        """Return a session that is not yet open. Raises UnreachableError."""
        return Session(self, epoch, on_end)


class Session:
    """See `infertool.brokers.supervisor.Supervised`. When one of its connections ends, so does the other."""

    def __init__(self, host: Host, epoch: int, on_end: Callable[[Session], None]) -> None:
        self.target = host.target
        self.vhost = host.vhost
        self.epoch = epoch
        self.reason = ""
        self._on_end = on_end
        self._lock = threading.Lock()
        self._alive = 2
        self.consuming = self._connection(host, "consume")
        self.publishing = self._connection(host, "publish", self._on_tick)
        self.publisher = Publisher(self.publishing, host.size_limit)

    def _connection(self, host: Host, role: str, on_tick: Callable[[float], None] = lambda _now: None) -> Connection:
        return Connection(
            host.target, host.vhost, self.epoch, name=host.name, role=role, on_end=self._ended, on_tick=on_tick
        )

    def open(self) -> None:
        """Connect both. Raises UnreachableError or RefusedError, and has ended then."""
        try:
            self.consuming.open()
            self.publishing.open()
            self.publisher.open()
        except ServerError as fault:
            self.end(str(fault))
            self.join()
            raise

    def ask(self, method: Any, timeout_s: float | None = None) -> Any:
        """Have the broker do something that it may refuse, on a channel for it alone.

        Raises RefusedError, ConnectionLostError. It is the consuming connection's: the other may be blocked.
        """
        channel = Channel(self.consuming)
        channel.open(timeout_s)
        answer = channel.call(method, timeout_s)
        channel.close()
        return answer

    def lost(self) -> ConnectionLostError:
        """Return the error for what its end left open."""
        address = self.target.address
        return ConnectionLostError(f"the connection to {address} was lost: {self.reason}", address=address)

    def is_own_thread(self) -> bool:
        """Return True in threads that must not wait for an answer."""
        return self.consuming.is_own_thread() or self.publishing.is_own_thread()

    def end(self, reason: str) -> None:
        """End both, from any thread. The first reason counts."""
        with self._lock:
            if self.reason:
                return
            self.reason = reason
        self.consuming.end(reason)
        self.publishing.end(reason)

    def close(self, timeout_s: float) -> None:
        """Have both say goodbye within `timeout_s`, the publishing one after what it has to write."""
        with self._lock:
            self.reason = self.reason or "closed"
        self.publishing.close(timeout_s / 2)
        self.consuming.close(timeout_s / 2)
        self.join()

    def join(self) -> None:
        """Wait until all threads have ended."""
        self.consuming.join()
        self.publishing.join()

    def _on_tick(self, now: float) -> None:
        self.publisher.expire(now)

    def _ended(self, connection: Connection) -> None:
        self.end(connection.reason)
        with self._lock:
            self._alive -= 1
            alive = self._alive
        if not alive:
            self._on_end(self)
