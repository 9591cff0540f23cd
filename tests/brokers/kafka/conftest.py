from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infertool import brokers
from infertool.brokers.kafka.broker import KafkaBroker
from infertool.settings.broker import BrokerSettings
from tests.support.kafka import Kafka

OpenBroker = Callable[..., KafkaBroker]


@pytest.fixture
def open_kafka(kafka: Kafka) -> Iterator[OpenBroker]:
    """Connect to the real Kafka, in a group of the test's own; settings may be given."""
    # A group waits for the members that other tests leave, so no two share one.
    own = f"{kafka.url}?group={uuid.uuid4()}"
    opened: list[KafkaBroker] = []

    def connect(url: str = "", *, on_connection: Any = None, **settings: Any) -> KafkaBroker:
        known = BrokerSettings(url=url or own, **{"receipt_timeout_s": 60.0, **settings})
        broker = brokers.open(known, name="tests", on_connection=on_connection)
        assert isinstance(broker, KafkaBroker)
        opened.append(broker)
        broker.connect()
        return broker

    yield connect
    for broker in opened:
        broker.close(5)
