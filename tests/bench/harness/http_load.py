"""Closed-loop load on an HTTP server: `python -m tests.bench.harness.http_load` prints a line of JSON.

Each connection sends its next request once the response has come; the bytes of a request are made once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Load:
    """`count` requests over `connections` connections."""

    def __init__(self, request: bytes, count: int, connections: int) -> None:
        self.request = request
        self.left = count
        self.open = connections
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """Note that a connection has no more to send."""
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)


class Connection(asyncio.Protocol):
    """Sends a request, waits for the response, and so on. Not by streams, which take longer than the server."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send the next request, if any is left."""
        if self.load.left <= 0:
            self.transport.close()
            self.load.end()
            return
        self.load.left -= 1
        self.began = time.perf_counter()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, rest = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head)
        assert length, head
        if len(rest) < int(length[1]):
            return
        self.load.times.append(time.perf_counter() - self.began)
        self.load.statuses[int(head[9:12])] += 1
        self.received = b""
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc and not self.load.done.done():
            self.load.done.set_exception(exc)


async def run(port: int, request: bytes, count: int, connections: int) -> dict[str, object]:
    """Send all; return the rate, the median time, and the statuses."""
    load = Load(request, count, connections)
    began = time.perf_counter()
    for _ in range(connections):
        await asyncio.get_running_loop().create_connection(lambda: Connection(load), "127.0.0.1", port)
    await load.done
    took = time.perf_counter() - began
    times = sorted(load.times)
    return {
        "rate": len(times) / took, "p50_ms": times[len(times) // 2] * 1000, "statuses": dict(load.statuses),
    }  # fmt: skip


def request(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--header", action="append", default=[])
    given = parser.parse_args()
    headers = dict(header.split("=", 1) for header in given.header)
    sent = request(given.port, given.path, given.body.read_bytes(), headers)
    print(json.dumps(asyncio.run(run(given.port, sent, given.count, given.connections))))


if __name__ == "__main__":
    main()
