"""faststream-kafka (asyncio, on aiokafka): a subscriber that does nothing, acked by the library's defaults."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

from faststream.kafka import KafkaBroker

from tests.bench.harness.peers import TIMEOUT_S, Clock, run_async


async def consume(port: int, topic: str, clock: Clock) -> None:
    done = asyncio.Event()
    # Without a log line an event, which would be most of its work.
    broker = KafkaBroker(f"127.0.0.1:{port}", logger=None, log_level=logging.ERROR)

    async def handle(_body: dict[str, Any]) -> None:
        clock.begin()
        if clock.settled():
            done.set()

    subscriber = broker.subscriber(
        topic, group_id=str(uuid.uuid4()), auto_offset_reset="earliest", auto_commit_interval_ms=1000
    )
    subscriber(handle)
    async with broker:
        await broker.start()
        await asyncio.wait_for(done.wait(), TIMEOUT_S)


if __name__ == "__main__":
    run_async(consume)
