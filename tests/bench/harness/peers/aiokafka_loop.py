"""aiokafka: `async for`, and the positions committed each second by the library."""

from __future__ import annotations

import uuid

from aiokafka import AIOKafkaConsumer

from tests.bench.harness.peers import Clock, run_async


async def consume(port: int, topic: str, clock: Clock) -> None:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=f"127.0.0.1:{port}", group_id=str(uuid.uuid4()), auto_offset_reset="earliest",
        enable_auto_commit=True, auto_commit_interval_ms=1000,
    )  # fmt: skip
    async with consumer:
        async for _record in consumer:
            clock.begin()
            if clock.settled():
                return


if __name__ == "__main__":
    run_async(consume)
