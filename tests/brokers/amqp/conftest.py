"""A real RabbitMQ, and what pika and the management API see of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from infertool import brokers
from infertool.brokers.amqp.broker import AmqpBroker
from infertool.brokers.amqp.management import Management, QueueFacts
from infertool.brokers.port import Broker
from infertool.errors import ReceiptTimeoutError
from infertool.message import Outgoing
from infertool.secret import Secret
from infertool.settings.broker import BrokerSettings
from tests.support import brokers as support
from tests.support.brokers import TIMEOUT_S, settings
from tests.support.rabbitmq import RabbitMQ


@pytest.fixture
def management(rabbitmq: RabbitMQ) -> Iterator[Management]:
    made = Management(BrokerSettings(), rabbitmq.management_url, user="admin", password=Secret("admin"), vhost="/")
    yield made
    made.close()


def facts_of(management: Management, queue: str) -> QueueFacts:
    """Return what the management API tells of a queue that there is."""
    facts = management.queue(queue)
    assert facts is not None
    return facts


Open = Callable[..., AmqpBroker]
Declare = Callable[..., str]


@pytest.fixture
def open_broker(rabbitmq: RabbitMQ) -> Iterator[Open]:
    """Connect brokers, with the management API if it is `asked`; they are closed at the end."""
    opened: list[AmqpBroker] = []

    def open_broker(*, asked: bool = True, user: str = "admin", url: str = "", **changes: object) -> AmqpBroker:
        url = (url or rabbitmq.amqp_url).replace("//", f"//{user}:admin@")
        changes.setdefault("management_url", rabbitmq.management_url if asked else "")
        opened.append(cast("AmqpBroker", brokers.open(settings(url, **changes))))
        opened[-1].connect()
        return opened[-1]

    yield open_broker
    for broker in opened:
        broker.close(5)


@pytest.fixture
def declare(rabbitmq: RabbitMQ) -> Iterator[Declare]:
    """Return what declares a new queue with arguments, and returns its name."""
    declared: list[str] = []

    def new(**arguments: Any) -> str:
        name = support.new_queue().removeprefix("/queue/")
        with rabbitmq.pika() as channel:
            channel.queue_declare(
                name, durable=True, arguments={key.replace("_", "-"): value for key, value in arguments.items()}
            )
        declared.append(name)
        return name

    yield new
    with rabbitmq.pika() as channel:
        for name in declared:
            channel.queue_delete(name)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refuse_messages(own: RabbitMQ, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Have the node raise an alarm, and wait until `broker` was told: that comes a moment later, to who sends then."""
    own.admin.take_no_messages()

    def is_told() -> bool:
        with contextlib.suppress(ReceiptTimeoutError):
            broker.send(Outgoing("nowhere", b""), lambda _error: None, room_s=0.1)
        return "takes no messages now" in caplog.text

    wait_until(is_told)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RabbitMQ]:
    """A RabbitMQ that this test may set up, block and end."""
    server = RabbitMQ(tmp_path / "rabbitmq")
    try:
        yield server.start()
    finally:
        server.remove()
