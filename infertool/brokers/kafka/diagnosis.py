"""Why no connection came about, in words: each host is asked once more, without librdkafka and without a login."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from confluent_kafka import KafkaError

from infertool.brokers import target as wording
from infertool.brokers.kafka import errors
from infertool.brokers.kafka.client import Clients
from infertool.brokers.target import Protocol, Target
from infertool.errors import RefusedError, ServerError, UnreachableError
from infertool.net.identify import Kind

_PORTS: Final = "Kafka's usual port is 9092"
SPOKEN: Final = Protocol(
    Kind.KAFKA,
    ("kafka", "kafka+ssl"),
    "the question for its versions",
    {
        Kind.HTTP: ("an HTTP server", _PORTS),
        Kind.OPENWIRE: ("an OpenWire port, which is for JMS clients", "use stomp:// for ActiveMQ"),
        Kind.STOMP: ("a STOMP port", "use stomp:// in broker.url"),
        Kind.AMQP: ("an AMQP port", "use amqp:// in broker.url"),
        Kind.MQTT: ("an MQTT port", _PORTS),
    },
)
# Errors of librdkafka by which a broker that answers and tells nothing is known.
_ENOUGH_FAULTS: Final = 5
# ApiVersions, version 0, correlation id 1, no client id. Brokers answer it before a login.
_QUESTION: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_ANSWER: Final = struct.Struct(">ii")
# Metadata, version 1, correlation id 2, of no topic. Brokers that want a login end the connection over it.
_LATER_QUESTION: Final = struct.pack(">ihhihi", 14, 3, 1, 2, -1, 0)
# A broker that was reached by its address in broker.url has a number in place of "bootstrap".
_ADVERTISED: Final = re.compile(r"^(?:\w+://)?(\S+:\d+)/\d+: ")


class Search:
    """One attempt to reach a cluster. librdkafka tries on whatever happens; this tells when that is no use."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._targets = clients.targets
        # The hosts that answer as Kafka, once all were asked.
        self._kafkas: list[Target] | None = None
        # Whether a login is wanted, once that was asked.
        self._login_wanted: bool | None = None

    def hopeless(self, faults: Sequence[KafkaError]) -> ServerError | None:
        """Return the error for an attempt that cannot succeed, None while it may. `faults` is what librdkafka said."""
        if refusal := next((fault for fault in faults if fault.code() in errors.LOGIN), None):
            return errors.login(self._said(refusal), self._clients.address)
        if self._kafkas is None:
            return self._ask_all() if self._all_failed(faults) else None
        if len(faults) > _ENOUGH_FAULTS and not _advertised(faults) and self._wants_login(self._kafkas[0]):
            return self._no_login(self._kafkas[0])
        return None

    def timed_out(self, faults: Sequence[KafkaError]) -> ServerError:
        """Return the error for an attempt whose time is over."""
        if self._kafkas is None and (unreachable := self._ask_all()):
            return unreachable
        asked = (self._kafkas or self._targets)[0]
        address = self._clients.address
        if found := _advertised(faults):
            place, fault = found
            return UnreachableError(
                f"{asked.address} says that a broker is at {place}, which cannot be reached: {self._said(fault)}",
                address=address,
                advice="check advertised.listeners of the broker",
            )
        if not faults and self._wants_login(asked):
            return self._no_login(asked)
        why = self._said(faults[-1]) if faults else "it does not say why"
        return UnreachableError(
            f"{asked.address} did not tell of its cluster within {asked.connect_timeout_s:g} s: {why}",
            address=address,
            advice="is the cluster complete, with a controller?",
        )

    def _said(self, fault: KafkaError) -> str:
        return self._clients.masked(errors.said(fault))

    def _all_failed(self, faults: Sequence[KafkaError]) -> bool:
        said = [str(fault.str()) for fault in faults]
        return all(any(f"{target.place}/" in text for text in said) for target in self._targets)

    def _ask_all(self) -> UnreachableError | None:
        """Ask each host; return the error for hosts of which none answers. A host may have several addresses."""
        found = [(target, _ask(target)) for target in self._targets]
        self._kafkas = [target for target, fault in found if fault is None]
        return None if self._kafkas else _joined([fault for _, fault in found if fault], self._clients.address)

    def _wants_login(self, asked: Target) -> bool:
        if self._login_wanted is None:
            self._login_wanted = not asked.user and _ends_without_login(asked)
        return self._login_wanted

    def _no_login(self, asked: Target) -> RefusedError:
        reason = "it answers, and ends the connection before it tells of the cluster"
        return RefusedError(
            f"{asked.address}: {reason}",
            address=self._clients.address,
            reason=reason,
            advice="does it want a login (broker.user)?",
        )


def _advertised(faults: Sequence[KafkaError]) -> tuple[str, KafkaError] | None:
    """Return the first broker, by the address that the cluster tells, that cannot be reached, and why."""
    for fault in faults:
        if named := _ADVERTISED.match(str(fault.str())):
            return named[1], fault
    return None


def _joined(faults: Sequence[UnreachableError], address: str) -> UnreachableError:
    if len(faults) == 1:
        return faults[0]
    what = "no broker can be used: " + "; ".join(fault.what for fault in faults)
    return UnreachableError(what, address=address, advice=faults[0].advice)


def _ask(target: Target) -> UnreachableError | None:
    """Return why a host is no Kafka, or cannot be reached; None for one that answers as Kafka."""
    try:
        with _connected(target) as connected:
            return _versions(target, connected)
    except UnreachableError as fault:
        return fault
    except OSError as fault:
        return wording.unreachable(target, fault, ask=True)
    except UnicodeError:  # what the resolver raises for `a..b`
        return wording.unreachable(target, socket.gaierror(socket.EAI_NONAME, "not a host name"), ask=True)


@contextmanager
def _connected(target: Target) -> Iterator[socket.socket]:
    target = target.fresh()
    with socket.create_connection((target.host, target.port), target.connect_timeout_s) as plain:
        if not target.tls:
            yield plain
            return
        with target.tls.context.wrap_socket(plain, server_hostname=target.host) as encrypted:
            yield encrypted


def _ends_without_login(target: Target) -> bool:
    """Return True if a host that answers ends the connection over the next question."""
    with (
        suppress(UnreachableError, OSError, UnicodeError, struct.error),
        _connected(target) as connected,
        connected.makefile("rb") as answers,
    ):
        connected.sendall(_QUESTION)
        (size,) = struct.unpack(">i", answers.read(4))
        answers.read(size)
        connected.sendall(_LATER_QUESTION)
        try:
            return not answers.read(1)
        except ConnectionError:
            return True
    return False


def _versions(target: Target, connected: socket.socket) -> UnreachableError | None:
    connected.sendall(_QUESTION)
    answer, fault = b"", None
    try:
        while len(answer) < _ANSWER.size and (data := connected.recv(64)):
            answer += data
    except TimeoutError:
        return wording.silent(target, wording.kind_behind(target))
    except OSError as error:
        fault = error
    with suppress(struct.error):
        size, correlation_id = _ANSWER.unpack_from(answer)
        if correlation_id == 1 and size > 0:
            return None
    return wording.no_handshake(target, answer, "it closed the connection", fault, ask=True)
