"""stompman (asyncio): a handler that does nothing; the library acks after it."""

from __future__ import annotations

import asyncio

import stompman

from tests.bench.harness.peers import PREFETCH, TIMEOUT_S, Clock, run_async


async def consume(port: int, queue: str, clock: Clock) -> None:
    done = asyncio.Event()

    async def handle(_frame: object) -> None:
        clock.begin()
        if clock.settled():
            done.set()

    server = stompman.ConnectionParameters("127.0.0.1", port, "admin", "admin")
    async with stompman.Client([server]) as client:
        subscription = await client.subscribe(queue, handle, headers=PREFETCH, on_suppressed_exception=raised)
        await asyncio.wait_for(done.wait(), TIMEOUT_S)
        await subscription.unsubscribe()


def raised(error: Exception, _frame: object) -> None:
    raise error


if __name__ == "__main__":
    run_async(consume)
