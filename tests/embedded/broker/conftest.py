"""The embedded broker as a process, as `infertool dev` runs it, and ActiveMQ for comparison."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from tests.embedded.broker.raw import Raw
from tests.support.activemq import ActiveMQ

COMMAND = [sys.executable, "-m", "infertool.embedded.broker", "--port", "0"]


@dataclass
class Embedded:
    """A running embedded broker."""

    process: subprocess.Popen[bytes]
    port: int


def start(*arguments: str, **environment: str) -> Embedded:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        _, errors = process.communicate()
        raise RuntimeError(errors.decode())
    return Embedded(process, json.loads(line)["port"])


def stop(embedded: Embedded) -> str:
    """Stop it as an administrator would; return what it wrote to standard error."""
    embedded.process.send_signal(signal.SIGTERM)
    _, errors = embedded.process.communicate(timeout=120)
    return errors.decode()


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    broker = start()
    yield broker
    assert stop(broker) == "", "the broker wrote to standard error: an exception somewhere"
    assert broker.process.returncode == 0


@pytest.fixture(params=["embedded", pytest.param("activemq", marks=pytest.mark.activemq)])
def port(request: pytest.FixtureRequest) -> int:
    """The STOMP port of each of the two brokers in turn."""
    if request.param == "embedded":
        return int(request.getfixturevalue("embedded").port)
    broker: ActiveMQ = request.getfixturevalue("activemq")
    return broker.stomp_port


_numbers = count(1)


@pytest.fixture
def queue() -> str:
    """A queue name that is new in this session."""
    return f"t{next(_numbers)}.devbroker"


Connect = Callable[..., Raw]


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    """Open connections to the tested broker; all are closed after the test."""
    yield from connector(port)


def connector(port: int) -> Iterator[Connect]:
    opened: list[Raw] = []

    def connect(version: str = "1.2", **headers: str) -> Raw:
        client = Raw(port)
        opened.append(client)
        assert client.connect(version, **headers).command == "CONNECTED"
        return client

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def connect_embedded(embedded: Embedded) -> Iterator[Connect]:
    """Open connections to the embedded broker only."""
    yield from connector(embedded.port)
