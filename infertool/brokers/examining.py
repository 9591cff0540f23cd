"""What an adapter tells of its connection and its queues for a diagnosis, beside what the port asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from infertool.brokers.partitioned import TimeLimit
from infertool.brokers.port import Depth


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """A connection, as both sides agreed on it. Times are in seconds, None means no heartbeats.

    `product` is the server's own name and version. `stamps`: the broker writes its own time on each message.
    `depth_advice` is what makes the broker tell how many messages a queue holds. `no_round_trip` is why no message can
    be sent to a queue of the connection's own, empty where one can.
    """

    product: str
    sends_every_s: float | None = None
    receives_every_s: float | None = None
    stamps: bool = False
    depth_advice: str = ""
    no_round_trip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Whether the user may do something. `allowed` is None where the broker does not tell; `reason` says why, or no."""

    allowed: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAccess:
    """A queue, as the broker shows it to this user, without a message taken from it.

    `exists` is None where the broker does not tell; with `is_made`, one that does not exist is made at its first use.
    `read` is the right to consume, `write` to send. `oldest_ms` is the time on the first message (milliseconds since
    the epoch), `depth` what was there before this look, which may count as a consumer, `policy` what the broker does
    with messages that it gives up, in words, `time_limit` how long it waits for one that it delivered; `untold` says
    why one of them is None.
    """

    exists: bool | None
    is_made: bool = False
    read: Right
    write: Right
    is_empty: bool = False
    oldest_ms: int | None = None
    depth: Depth | None = None
    policy: str | None = None
    time_limit: TimeLimit | None = None
    untold: str = ""


@runtime_checkable
class Examined(Protocol):
    """A broker that can be examined. Optional: ask with `isinstance`."""

    def connection_facts(self) -> ConnectionFacts:
        """Return the facts of the present connection. Raises `ConnectionLostError`."""

    def examine(self, queue: str, timeout_s: float) -> QueueAccess:
        """Look at a queue without taking anything from it.

        Where a broker makes queues by themselves and does not tell which exist, this may make an empty one. Raises
        `UnreachableError`, `ConnectionLostError`.
        """
