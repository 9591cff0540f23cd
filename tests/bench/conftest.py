"""Servers and the table of a benchmark run. Figures are only ever compared within one run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.bench.harness.fixtures import Fill, Row
from tests.bench.harness.reference import REFERENCE
from tests.conftest import new_activemq
from tests.support.activemq import ActiveMQ
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp

_rows: list[tuple[str, str, str]] = []
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def hub() -> Iterator[HubProcess]:
    server = HubProcess().start()
    yield server
    server.stop()


@pytest.fixture
def activemq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActiveMQ]:
    """An empty broker for each row: its memory may not hold what several leave behind, and then it takes no more."""
    yield from new_activemq(tmp_path_factory, java=())


@pytest.fixture
def filled(activemq: ActiveMQ) -> Fill:
    """Return a function that fills a new queue with reference events and names it."""

    def fill(
        count: int, *, persistent: bool = True, headers: Callable[[int], Mapping[str, str]] = lambda _number: {}
    ) -> str:
        queue, body = f"/queue/bench.{next(_numbers)}", REFERENCE.read_bytes()
        raw = RawStomp(activemq.stomp_port)
        kept = {"persistent": "true" if persistent else "false"}
        raw.send(queue, (({"event_id": f"e-{n}", **kept, **headers(n)}, body) for n in range(count)))
        raw.close()
        return queue

    return fill


@pytest.fixture
def row() -> Row:
    """Return a function that adds a row (case, figure, goal) to the table printed at the end."""
    return lambda case, figure, goal: _rows.append((case, figure, goal))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the benchmarks out of a run that is not for them."""
    return None if config.getoption("benchmark_enable") else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line("| case | measured | goal |")
    terminalreporter.write_line("|---|---|---|")
    for case, figure, goal in _rows:
        terminalreporter.write_line(f"| {case} | {figure} | {goal} |")
