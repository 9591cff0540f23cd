"""The brokers that the tests of dead letters run on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.embedded import EmbeddedBroker


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker().start()
    yield broker
    broker.stop()


@pytest.fixture(params=[pytest.param("activemq", marks=pytest.mark.activemq), "embedded"])
def any_broker(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)
