"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from infertool import brokers
from infertool.secret import Secret
from infertool.settings import BrokerSettings
from tests.support import activemq as real
from tests.support.activemq6 import ActiveMQ6
from tests.support.artemis import Artemis
from tests.support.embedded import EmbeddedBroker
from tests.support.kafka import Kafka
from tests.support.rabbitmq import RabbitMQ
from tests.support.rawamqp import RawAmqp
from tests.support.rawkafka import RawKafka
from tests.support.serverprocess import shared

# Timing never decides a test, and these machines are shared. Nor does chance: each run takes the same examples, and
# `pytest --hypothesis-profile=search` looks for others.
_ANY_SPEED = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("same", _ANY_SPEED, derandomize=True, database=None)
hypothesis.settings.register_profile("search", _ANY_SPEED, max_examples=5000)
hypothesis.settings.load_profile("same")

FIXTURES = Path(__file__).parents[1] / "fixtures"

# A setting of whoever runs the tests is none of theirs.
for name in [each for each in os.environ if each.startswith("INFERTOOL_")]:
    del os.environ[name]

# Under `nohup` a run ignores SIGHUP, behind a shell's `&` it ignores SIGINT, and so would what the tests start. A
# handler ends neither, and is not inherited.
for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-conformance", action="store_true", help="rewrite the table in docs/brokers.md")


def pytest_configure(config: pytest.Config) -> None:
    """Have the process that hears of all results write the table."""
    if config.getoption("--write-conformance") and not hasattr(config, "workerinput"):
        from tests.brokers.conformance.table import Writer

        config.pluginmanager.register(Writer())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each worker of a run its share of the long tests first, so that none is left with one at the end.

    With worksteal each worker begins with an equal, contiguous part of the list.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.get_closest_marker("long")]
    others = iter([item for item in items if not item.get_closest_marker("long")])
    part = -(-len(items) // workers)
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        first = long[worker::workers]
        ordered += [*first, *islice(others, part - len(first))]
    items[:] = [*ordered, *others]


@pytest.fixture(scope="session")
def activemq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.ActiveMQ]:
    """One real ActiveMQ for the whole session; a test that stops it must start it again."""
    yield from new_activemq(tmp_path_factory)


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """One embedded broker for the whole session."""
    broker = EmbeddedBroker().start()
    yield broker
    broker.stop()


@pytest.fixture(params=[pytest.param("activemq", marks=pytest.mark.activemq), "embedded_broker"])
def any_broker(request: pytest.FixtureRequest) -> Any:
    """The real ActiveMQ, then the embedded broker."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def artemis(run_folder: Path) -> Iterator[Artemis]:
    """One real Artemis for all workers of this run; no test may stop it."""
    with shared(Artemis, run_folder) as server:
        yield server


@pytest.fixture(scope="session")
def activemq6(run_folder: Path) -> Iterator[ActiveMQ6]:
    """One real ActiveMQ 6 for all workers of this run; no test may stop it."""
    with shared(ActiveMQ6, run_folder) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(run_folder: Path) -> Iterator[RabbitMQ]:
    """One real RabbitMQ for all workers of this run; no test may stop it."""
    with shared(RabbitMQ, run_folder) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(run_folder: Path) -> Iterator[Kafka]:
    """One real Kafka for all workers of this run; no test may stop it."""
    with shared(Kafka, run_folder) as server:
        yield server


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all workers of this run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def new_activemq(
    tmp_path_factory: pytest.TempPathFactory, java: Sequence[str] = real.QUICK_START
) -> Iterator[real.ActiveMQ]:
    """Start an empty broker, yield it once it answers, and remove it."""
    real.install()
    broker = real.ActiveMQ(tmp_path_factory.mktemp("activemq") / "base", java)
    broker.start()
    _warm_up(broker)
    yield broker
    broker.remove()


def _warm_up(broker: real.ActiveMQ) -> None:
    """Have a new JVM answer its first question for a depth, which takes it seconds on a busy machine."""
    opened = brokers.open(BrokerSettings(url=broker.url, user="admin", password=Secret("admin")))
    opened.connect()
    opened.subscribe("/queue/warm-up", window=1)
    assert opened.measure("/queue/warm-up", 60) is not None
    opened.close(10)


@pytest.fixture
def raw(rabbitmq: RabbitMQ) -> Iterator[RawAmqp]:
    """RabbitMQ as pika sees it; the queues that a test makes with it are deleted."""
    opened = RawAmqp(rabbitmq)
    yield opened
    opened.close()


@pytest.fixture
def raw_kafka(kafka: Kafka) -> Iterator[RawKafka]:
    """Kafka as confluent-kafka sees it; the topics that a test makes with it are deleted."""
    opened = RawKafka(kafka.client())
    yield opened
    opened.close()
