"""Brokers for load tests: the real ActiveMQ and the embedded one."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def server(any_broker: Any) -> Any:
    return any_broker
