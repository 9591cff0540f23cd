"""A real RabbitMQ, and what pika and the management API see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from infertool import brokers
from infertool.brokers.amqp.broker import AmqpBroker
from infertool.brokers.amqp.management import Management
from infertool.secret import Secret
from infertool.settings.tree import BrokerSettings
from tests.support.brokers import settings
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawamqp import RawAmqp


@pytest.fixture
def raw(rabbitmq: RabbitMQ) -> Iterator[RawAmqp]:
    opened = RawAmqp(rabbitmq)
    yield opened
    opened.close()


@pytest.fixture
def management(rabbitmq: RabbitMQ) -> Iterator[Management]:
    made = Management(BrokerSettings(), rabbitmq.management_url, user="admin", password=Secret("admin"), vhost="/")
    yield made
    made.close()


Open = Callable[..., AmqpBroker]


@pytest.fixture
def open_broker(rabbitmq: RabbitMQ) -> Iterator[Open]:
    """Connect brokers, with the management API if it is `asked`; they are closed at the end."""
    opened: list[AmqpBroker] = []

    def open_broker(*, asked: bool = True, user: str = "admin", **changes: object) -> AmqpBroker:
        url = rabbitmq.amqp_url.replace("//", f"//{user}:admin@")
        changes.setdefault("management_url", rabbitmq.management_url if asked else "")
        opened.append(cast("AmqpBroker", brokers.open(settings(url, **changes))))
        opened[-1].connect()
        return opened[-1]

    yield open_broker
    for broker in opened:
        broker.close(5)
