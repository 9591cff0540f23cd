"""The brokers that the conformance suite runs against: a line each in `TARGETS`.

To add a server: give it a session fixture that looks like `tests.support.activemq.ActiveMQ` (`url`, `stomp_port`), and
name the fixture here.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from infertool.brokers.memory.adapter import CAPABILITIES
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Address
from infertool.brokers.memory.server import Server as MemoryServer
from infertool.brokers.port import Broker, Browsing
from tests.brokers.conformance.amqp import AmqpServer
from tests.brokers.conformance.cut import Cut
from tests.brokers.conformance.kafka import KafkaServer
from tests.support.activemq6 import ActiveMQ6
from tests.support.artemis import FORBIDDEN, Artemis
from tests.support.brokers import NOBODYS, Server
from tests.support.frameproxy import FrameProxy, header
from tests.support.kafka import Kafka
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.serverprocess import ServerProcess

_numbers = itertools.count(1)


class Line(Protocol):
    """A way to the broker on which things go wrong."""

    @property
    def url(self) -> str: ...

    # Set when the line holds something back that the client wrote.
    holding: threading.Event

    def cut(self) -> None: ...

    def stall(self) -> None: ...

    def resume(self) -> None: ...


class Opened(Protocol):
    """A broker under test."""

    url: str
    # A queue that the broker refuses messages to; empty where none is known.
    refused_queue: str

    # Where nobody answers.
    @property
    def nobodys_url(self) -> str: ...

    def prepare(self, queue: str) -> None:
        """Have `queue` exist, and what the cases call by its name, where the adapter declares nothing."""

    def line(self) -> contextlib.AbstractContextManager[Line]:
        """Return a way to the broker that can be cut and stalled."""

    def cutting_line(self, point: Cut) -> contextlib.AbstractContextManager[str]:
        """Return the URL of a way that is cut once, within the first move."""


@dataclass(frozen=True)
class Target:
    """A broker of the suite. `column` is its name in the table, empty for one that the table does not show.

    `fixture` is the session fixture that starts a real server; without one it is the memory broker with `changes`.
    """

    name: str
    column: str = ""
    fixture: str = ""
    marks: Sequence[Any] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    checks_logins: bool = True
    # Why no test stops the server and starts it again; empty where one does.
    no_restart: str = ""
    # The server that such a test starts for itself, where the one of `fixture` is shared.
    own: type[ServerProcess] | None = None
    refused_queue: str = NOBODYS
    # A refusal is the end of the connection: the broker or the adapter ends it.
    refusal_ends: bool = False
    # A message that comes again says so.
    marks_redeliveries: bool = True
    # A message keeps the number of its priority.
    keeps_priorities: bool = True
    # A message can be selected by its id.
    selects_ids: bool = True
    # The window is a number of bytes, 1 KiB for each message.
    window_in_bytes: bool = False
    # What was acked is gone after a kill of the broker.
    keeps_acks: bool = True
    # What a line says to the server before it is cut.
    farewell: bytes = b""
    # After a refused move its messages are delivered again, and the connection lives. Elsewhere the connection ends.
    gives_back: bool = False
    # Moves send over a connection of their own, which may end alone. A message keeps its token when it is given back.
    sends_apart: bool = False
    # How an AMQP server declares the queues; empty for other servers.
    arguments: dict[str, Any] = field(default_factory=dict)
    # Settings of the broker under test.
    settings: dict[str, Any] = field(default_factory=dict)
    # What these queues do not offer, though the broker has queues that do.
    lacks: Sequence[str] = ()
    # Share groups read the queues: only the cases of these modules differ from the column that `otherwise` names.
    shares: bool = False
    only: Sequence[str] = ()
    otherwise: str = "not run"

    def offers(self, broker: Broker, name: str) -> bool:
        """Return True if a capability holds for the queues of this target."""
        return getattr(broker.capabilities, name) not in {False, Browsing.NONE} and name not in self.lacks

    @contextlib.contextmanager
    def open(self, request: pytest.FixtureRequest) -> Iterator[Opened]:
        if self.fixture:
            with self._served(request.getfixturevalue(self.fixture)) as opened:
                yield opened
            return
        capabilities = replace(CAPABILITIES, **self.changes)
        with MemoryServer(f"conformance-{next(_numbers)}", capabilities, login=("admin", "admin")) as server:
            yield Memory(server)

    @contextlib.contextmanager
    def _served(self, server: Any) -> Iterator[Opened]:
        if self.arguments:
            with AmqpServer(server, self.arguments) as amqp:
                yield amqp
        elif isinstance(server, Kafka):
            with KafkaServer(server, shares=self.shares) as kafka:
                yield kafka
        else:
            yield StompServer(server, self)

    @contextlib.contextmanager
    def open_own(self, request: pytest.FixtureRequest, folder: Path) -> Iterator[Opened]:
        """Open a broker that may be stopped and started again."""
        if self.own is None:
            with self.open(request) as opened:
                yield opened
            return
        server = self.own(folder / "server")
        try:
            server.start()
            with self._served(server) as opened:
                yield opened
        finally:
            server.remove()


class StompServer:
    """A server that is reached over TCP."""

    nobodys_url = "stomp://127.0.0.1:1"

    def __init__(self, server: Server, target: Target) -> None:
        self.server = server
        self.url = server.url
        self.refused_queue = target.refused_queue
        self._farewell = target.farewell

    def prepare(self, queue: str) -> None:
        """Do nothing: queues come into being by use."""

    def line(self) -> Proxy:
        return Proxy(self.server.stomp_port, farewell=self._farewell)

    @contextlib.contextmanager
    def cutting_line(self, point: Cut) -> Iterator[str]:
        cutter = _Cutter(point)
        with FrameProxy(
            self.server.stomp_port, to_server=cutter.to_server, to_client=cutter.to_client, farewell=self._farewell
        ) as proxy:
            yield proxy.url


class _Cutter:
    """Cuts once, at a frame of the first move that is made."""

    def __init__(self, point: Cut) -> None:
        self._point = point
        self._receipts: set[bytes] = set()
        self._done = False

    def to_server(self, frame: bytes) -> bytes | None:
        command = frame.lstrip(b"\n").partition(b"\n")[0]
        if self._done:
            return frame
        match self._point:
            case Cut.BEFORE_SENDS if command == b"SEND":
                self._cut()
                return None
            case Cut.BEFORE_END if command == b"COMMIT" or (command == b"ACK" and not header(frame, b"transaction")):
                self._cut()
                return None
            case Cut.AFTER_SENDS if command == b"SEND":
                self._receipts.add(header(frame, b"receipt"))
            case Cut.AFTER_END if command == b"COMMIT":
                self._receipts.add(header(frame, b"receipt"))
            case Cut.AFTER_END if command == b"ACK" and not header(frame, b"transaction"):
                return self._cut_after(frame)
        return frame

    def to_client(self, frame: bytes) -> bytes | None:
        wanted = self._receipts - {b""}
        if not self._done and frame.lstrip(b"\n").startswith(b"RECEIPT") and header(frame, b"receipt-id") in wanted:
            self._cut()
            return None
        return frame

    def _cut(self) -> None:
        self._done = True

    def _cut_after(self, frame: bytes) -> bytes:
        # An ACK has no receipt: the next frame is cut off.
        self._point = Cut.BEFORE_END
        return frame


class Memory:
    """A broker of this process."""

    refused_queue = "takes.nothing"

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.url = server.url
        server.faults.refuse_queue(self.refused_queue)

    def prepare(self, queue: str) -> None:
        """Do nothing: queues come into being by use."""

    @property
    def nobodys_url(self) -> str:
        address = self.server.new_address()
        address.faults.plan(Operation.CONNECT, Effect.CUT_BEFORE, times=None)
        return address.url

    @contextlib.contextmanager
    def line(self) -> Iterator[Line]:
        yield _MemoryLine(self._address())

    @contextlib.contextmanager
    def cutting_line(self, point: Cut) -> Iterator[str]:
        atomic = self.server.capabilities.atomic_move
        sends, end = (Operation.BEGIN, Operation.COMMIT) if atomic else (Operation.SEND, Operation.ACK)
        before = point in {Cut.BEFORE_SENDS, Cut.BEFORE_END}
        address = self._address()
        address.faults.plan(
            sends if point in {Cut.BEFORE_SENDS, Cut.AFTER_SENDS} else end,
            Effect.CUT_BEFORE if before else Effect.CUT_AFTER,
            reason="cut by the test",
        )
        yield address.url

    def _address(self) -> Address:
        address = self.server.new_address()
        address.faults.refuse_queue(self.refused_queue)
        return address


class _MemoryLine:
    def __init__(self, address: Address) -> None:
        self.url = address.url
        self.holding = address.faults.holding
        self._faults = address.faults

    def cut(self) -> None:
        self._faults.cut()

    def stall(self) -> None:
        self._faults.stall()

    def resume(self) -> None:
        self._faults.resume()


_OFF: dict[str, Any] = {
    "atomic_move": False,
    "browse": Browsing.NONE,
    "selectors": False,
    "exclusive": False,
    "priorities": False,
    "expiry": False,
    "depth": False,
    "delivery_count": False,
    "reply_addresses": False,
    "header_types": False,
}

# Of Artemis: after a connection that ended without this, a message may stay behind until the broker is restarted.
# `tests.brokers.test_dialects` shows that it is not lost.
_DISCONNECT = b"DISCONNECT\n\n\0"

TARGETS = (
    Target("memory", "memory"),
    Target("memory-bare", "memory, all off", changes=_OFF),
    *(Target(f"memory-{name}", changes={name: value}) for name, value in _OFF.items()),
    Target("memory-partial", changes={"browse": Browsing.PARTIAL}),
    Target(
        "embedded", "embedded", "embedded_broker", checks_logins=False, no_restart="no: messages end with the broker"
    ),
    Target("activemq", "ActiveMQ 5.17", "activemq", (pytest.mark.activemq,)),
    Target("activemq6", "ActiveMQ 6", "activemq6", (pytest.mark.activemq6,), own=ActiveMQ6),
    Target(
        "artemis",
        "Artemis 2.40",
        "artemis",
        (pytest.mark.artemis,),
        own=Artemis,
        refused_queue=FORBIDDEN,
        refusal_ends=True,
        marks_redeliveries=False,
        window_in_bytes=True,
        selects_ids=False,
        farewell=_DISCONNECT,
        gives_back=True,
        sends_apart=True,
    ),
    Target(
        "rabbitmq-stomp",
        "RabbitMQ (STOMP)",
        "rabbitmq",
        (pytest.mark.rabbitmq,),
        own=RabbitMQ,
        refused_queue="/nowhere/x",
        refusal_ends=True,
        keeps_acks=False,
        gives_back=True,
        sends_apart=True,
    ),
    Target(
        "rabbitmq-classic",
        "RabbitMQ, classic",
        "rabbitmq",
        (pytest.mark.rabbitmq,),
        own=RabbitMQ,
        keeps_acks=False,
        arguments={"x-queue-type": "classic", "x-max-priority": 10},
        gives_back=True,
        lacks=["delivery_count"],
    ),
    Target(
        "rabbitmq-quorum",
        "RabbitMQ, quorum",
        "rabbitmq",
        (pytest.mark.rabbitmq,),
        own=RabbitMQ,
        keeps_acks=False,
        arguments={"x-queue-type": "quorum"},
        gives_back=True,
        lacks=["priorities", "exclusive", "browse"],
    ),
    Target(
        "kafka",
        "Kafka 4.4",
        "kafka",
        (pytest.mark.kafka,),
        own=Kafka,
        gives_back=True,
        keeps_priorities=False,
        settings={"heartbeat_s": 1.0},
    ),
    Target(
        "kafka-share",
        "Kafka, share group",
        "kafka",
        (pytest.mark.kafka,),
        gives_back=True,
        keeps_priorities=False,
        settings={"heartbeat_s": 1.0},
        lacks=["depth"],
        shares=True,
        only=["test_2_receiving", "test_3_moving"],
        otherwise="as Kafka 4.4",
    ),
)
