"""An HTTP server on a thread of its own, whose answers are given by a function: for tests of clients."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request. `number` counts from 0."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Told:
    """A response, sent after `after_s`. With `status` 0 the connection is cut, with -1 nothing comes."""

    status: int = 200
    value: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0


Answer = Callable[[Asked], Told]


def problem(status: int, reason: str, **headers: str) -> Told:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    value = {"status": status, "reason": reason, "title": "refused", "detail": f"because of {reason}"}
    return Told(status, value, {"content-type": "application/problem+json", **given})


class ScriptedHttp:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = 0
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self) -> None:
        server = self.loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls, backlog=1000)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self.loop.run_forever()
        server.close()
        for task in (tasks := asyncio.all_tasks(self.loop)):
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            # Also when the server ends: a client would wait for an answer on a connection that nobody closed.
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split()
        asked = Asked(len(self.asked), method, path, headers, body)
        self.asked.append(asked)
        told = self.answer(asked)
        await asyncio.sleep(told.after_s)
        if told.status == -1:
            await asyncio.sleep(3600)
        if told.status == 0:
            writer.transport.abort()
            return False
        text = told.value if isinstance(told.value, bytes) else json.dumps(told.value).encode()
        given = {"content-type": "application/json", **told.headers, "content-length": str(len(text))}
        named = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"HTTP/1.1 {told.status} X\r\n{named}\r\n".encode() + text)
        await writer.drain()
        return True


@contextmanager
def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedHttp]:
    server = ScriptedHttp(answer)
    server.tls = tls
    server.start()
    try:
        yield server
    finally:
        server.close()
