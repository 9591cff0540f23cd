"""A receiver of webhooks on the test's own event loop, which misbehaves by its path; ended requests, and their rows."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from infertool.gateway import webhook_rows
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import InferRequest, Outcome, Progress, State

T = TypeVar("T")
# For conditions; a busy machine is slow. Seconds.
PATIENCE_S = 120.0


@dataclass
class Receiver:
    """`/hang` never answers, `/drip` sends a byte of the head now and then, `/deaf` never reads, `/500` and the like
    answer that, `/moved` redirects, `/cut` closes; anything else is taken."""

    port: int = 0
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1].partition("?")[0]
            self.hits[path] += 1
            if path == "/deaf":
                await asyncio.sleep(PATIENCE_S * 10)
            lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
            headers = {name.lower(): value for name, _, value in lines}
            body = await reader.readexactly(int(headers["content-length"]))
            if path == "/hang":
                await asyncio.sleep(PATIENCE_S * 10)
            while path == "/drip":
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.05)
            if path != "/cut":
                status = path[1:] if path[1:].isdigit() else "302" if path == "/moved" else "200"
                self.got.append((path, headers, body))
                # The body that is promised never comes: only the status counts.
                writer.write(f"HTTP/1.1 {status} X\r\nLocation: /inside\r\nContent-Length: 10\r\n\r\n".encode())
                await writer.drain()
            writer.close()


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await receiver.serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Rows:
    """Runs jobs on a connection of its own, each in a transaction."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, check_same_thread=False)
        self.database.execute(webhook_rows.TABLE)
        self.fails = False
        self._lock = asyncio.Lock()

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        async with self._lock:
            if self.fails:
                raise Problem(Reason.STORE_AWAY, "database is locked")
            return await asyncio.to_thread(self._run, job)

    def read(self, job: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        return self.write(job)

    def _run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        with self.database:
            return job(self.database)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  (of many kinds)
            await asyncio.sleep(0.005)


def ended(number: int, url: str, state: State = State.SUCCEEDED, body: bytes = b'{"score": 1.50}') -> Progress:
    """Return a request that has ended, with a webhook to `url`."""
    request = InferRequest(
        id=f"gw-{number}", client="team", class_name="standard", model="default", queue="q", body=b"{}",
        content_type="application/json", accepted_ms=1_000, deadline_ms=61_000, request_id=f"mine-{number}",
        webhook=url,
    )  # fmt: skip
    outcome = Outcome(state=state, body=body, processing_ms=3.5, finished_ms=1_700_000_000_000)
    return Progress(request=request, state=state, outcome=outcome)
