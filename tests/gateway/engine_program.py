"""A process that hosts an engine: submits requests by numbered keys, tells what is accepted, ends when all have ended.

python -m tests.gateway.engine_program URL FOLDER QUEUE COUNT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from infertool.gateway.engine import Engine
from infertool.gateway.problem import Problem
from infertool.gateway.request import Accepted, InferRequest
from tests.gateway.engines import engine_on
from tests.gateway.requests import a_request

_AT_ONCE = 20


async def accepted(engine: Engine, request: InferRequest) -> Accepted:
    """Submit until the request is taken, as a client does that obeys Retry-After."""
    while True:
        try:
            return await engine.submit(request)
        except Problem as problem:
            await asyncio.sleep(problem.retry_after_s or 0.1)


async def main(url: str, folder: str, queue: str, count: int) -> None:
    async with engine_on(url, Path(folder), tell=lambda done: print(f"ended {done.request.id}", flush=True)) as engine:
        numbers = iter(range(count))

        async def submit() -> None:
            for number in numbers:
                request = a_request(
                    id=engine.new_id(), queue=queue, body=b'{"n": %d}' % number, idempotency_key=f"k{number}",
                    class_name=("interactive", "standard", "batch")[number % 3], client=f"c{number % 5}",
                    fingerprint=b"%d" % number,
                )  # fmt: skip
                print(f"accepted {(await accepted(engine, request)).id}", flush=True)

        await asyncio.gather(*(submit() for _ in range(_AT_ONCE)))
        while not await engine.drain(1.0):
            pass
    print("drained", flush=True)


if __name__ == "__main__":
    address, place, name, total = sys.argv[1:]
    asyncio.run(main(address, place, name, int(total)))
