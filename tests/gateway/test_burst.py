"""A burst of ten times the capacity, through HTTP, over each broker, to consumer processes; clients obey Retry-After.

How honest Retry-After and how long the waits are on a quiet machine is a row of `nox -s bench`: time decides nothing
here. `test_admission.py` holds both against a simulated clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rpc.conftest import Place, place
from tests.support.gateway_burst import (
    BUDGETS_S,
    BURST_S,
    CAPACITY,
    PLACES,
    Client,
    Scene,
    burst,
    burst_scene,
    served_at_first_retry,
    waits_of,
    warm_up,
)

pytestmark = pytest.mark.long


@pytest.fixture(params=PLACES)
def broker(request: pytest.FixtureRequest) -> Place:
    return place(request)


@pytest.fixture
def scene(broker: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    # On ActiveMQ there are two gateways.
    with burst_scene(broker, tmp_path, 2 if "activemq" in request.node.name else 1) as made:
        yield made


def check_answers(clients: list[Client]) -> None:
    """Check that no request is without its last answer, and that each accepted one has its own result, once."""
    assert {client.answers[-1] for client in clients} <= {200, 429, 503}
    for client in clients:
        if client.answers[-1] == 200:
            assert client.result["prediction"] == {"n": client.number}
        # An accepted request is never refused later.
        assert 202 not in client.answers or client.answers[-1] == 200


def test_ten_times_the_capacity_for_ten_seconds(scene: Scene) -> None:
    grown = burst(scene)
    clients = scene.burst.clients
    check_answers(clients)
    assert len(clients) == round(10 * CAPACITY * BURST_S)
    assert grown < 64 * 1024 * 1024
    served, retried = served_at_first_retry(clients)
    assert served
    assert retried
    assert all(1 <= wait <= 30 for client in clients for wait in client.waits)
    # Nobody starves.
    assert all(waits_of(clients, name) for name in BUDGETS_S)


@pytest.mark.parametrize("broker", PLACES[1:], indirect=True)
def test_kill_9_of_gateway_and_consumers_in_the_middle_of_a_burst(scene: Scene) -> None:
    async def run() -> None:
        await warm_up(scene)
        async with asyncio.TaskGroup() as group:
            group.create_task(scene.burst.send(10 * CAPACITY, 5, 10_000))
            for _ in range(2):
                await asyncio.sleep(2)
                await asyncio.to_thread(scene.consumers.kill_one)
                await asyncio.to_thread(scene.gateways[0].kill)
                await asyncio.to_thread(scene.gateways[0].start)

    asyncio.run(run())
    check_answers(scene.burst.clients)
    assert any(client.broken for client in scene.burst.clients)
    assert any(client.answers[-1] == 200 for client in scene.burst.clients)
