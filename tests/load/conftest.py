"""Brokers for load tests: the real ActiveMQ and the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.embedded import EmbeddedBroker


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker().start()
    yield broker
    broker.stop()


@pytest.fixture(params=[pytest.param("activemq", marks=pytest.mark.activemq), "embedded_broker"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)
