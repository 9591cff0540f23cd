"""Engines for tests: on a broker in process, with short waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infertool.gateway import classes
from infertool.gateway import request_rows as rows
from infertool.gateway.engine import Engine
from infertool.gateway.problem import Problem
from infertool.gateway.request import InferRequest, Outcome, Progress
from infertool.gateway.store import Store
from infertool.message import Message, Outgoing
from infertool.settings.tree import GatewaySettings
from tests.support.brokers import TIMEOUT_S, settings
from tests.support.responder import failure, reply

LONG = TIMEOUT_S


@asynccontextmanager
async def engine_on(
    url: str,
    folder: Path,
    *,
    tell: Callable[[Progress], None] | None = None,
    queues: Mapping[str, str] | None = None,
    **changes: object,
) -> AsyncIterator[Engine]:
    """Run an engine, connected or not."""
    gateway = GatewaySettings(**{"name": "t", **changes})  # type: ignore[arg-type]
    broker = settings(url, reconnect_base_s=0.05, reconnect_max_s=0.1)
    engine = Engine(gateway, broker, classes.parse(gateway), folder, queues or {})
    engine.on_outcome = tell
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110  (of any kind)
            await asyncio.sleep(0.005)


async def connected(engine: Engine) -> None:
    await until(lambda: engine.health()[0].ok and engine._scheduler._away_since is None)


async def infer(engine: Engine, request: InferRequest) -> Progress:
    """Submit a request, and wait for its end."""
    accepted = await engine.submit(request)
    return await engine.wait(accepted.id, LONG)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run the steps of a test on a loop."""

    async def limited() -> None:
        async with asyncio.timeout(LONG):
            await test()

    asyncio.run(limited(), debug=False)


def stored(folder: Path) -> dict[str, str | None]:
    """Return the states of all requests in a store that nobody uses."""
    store = Store(folder, rows.TABLES)
    try:
        return dict(store.read(lambda connection: connection.execute("SELECT id, state FROM requests").fetchall()))
    finally:
        store.close()


async def refusal(asked: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await asked
    return caught.value


def outcome_of(ended: Progress | None) -> Outcome:
    """Return how a request ended that has ended."""
    assert ended is not None
    assert ended.outcome is not None
    return ended.outcome


def ids_of(messages: Sequence[Message]) -> list[str]:
    return [message.headers["event_id"] for message in messages]


def answer_as_asked(message: Message) -> Sequence[Outgoing]:
    """Answer as the body says."""
    asked = json.loads(message.body)
    if asked == "fail":
        return [failure(message, event_id="e", error="bad", retryable=False)]
    if asked == "expire":
        return [failure(message, status="EXPIRED")]
    return [reply(message, b'{"y": 1}', status="SUCCESS", processing_ms="2.5", model_version="7")]
