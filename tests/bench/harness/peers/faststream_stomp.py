"""faststream-stomp (asyncio, on stompman): a subscriber that does nothing; the library acks after it."""

from __future__ import annotations

import asyncio
import logging

import stompman
from faststream_stomp import StompBroker

from tests.bench.harness.peers import PREFETCH, TIMEOUT_S, Clock, run_async


async def consume(port: int, queue: str, clock: Clock) -> None:
    done = asyncio.Event()
    server = stompman.ConnectionParameters("127.0.0.1", port, "admin", "admin")
    # Without a log line an event, which would be most of its work.
    broker = StompBroker(stompman.Client([server]), logger=None, log_level=logging.ERROR)

    async def handle(_body: bytes) -> None:
        clock.begin()
        if clock.settled():
            done.set()

    broker.subscriber(queue, headers=PREFETCH)(handle)
    async with broker:
        await broker.start()
        await asyncio.wait_for(done.wait(), TIMEOUT_S)


if __name__ == "__main__":
    run_async(consume)
