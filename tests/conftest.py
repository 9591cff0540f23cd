"""Fixtures that every test folder shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import activemq as real

# Timing never decides a test, and these machines are shared.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def activemq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.ActiveMQ]:
    """One real ActiveMQ for the whole session; a test that stops it must start it again."""
    real.install()
    broker = real.ActiveMQ(tmp_path_factory.mktemp("activemq") / "base")
    broker.start()
    yield broker
    broker.remove()
