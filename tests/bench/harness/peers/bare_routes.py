"""The routes that a team writes first: Starlette, uvicorn and stomp.py, nothing else.

POST /send sends the body and answers 202 once the broker has confirmed it, with --asks as a request that is replied to;
POST /relay waits for the reply.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import socket
from typing import Any

import stomp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

WAIT_S = 60


class Bus(stomp.ConnectionListener):  # type: ignore[misc]  # stomp.py has no types
    """One connection: what was sent, by receipt; what is waited for, by correlation id."""

    def __init__(self, port: int, queue: str, loop: asyncio.AbstractEventLoop, *, persistent: bool, asks: bool) -> None:
        self.loop = loop
        self.queue = queue
        self.persistent = "true" if persistent else "false"
        self.asks = asks
        self.waiting: dict[str, asyncio.Future[Any]] = {}
        self.numbers = itertools.count()
        self.connection = stomp.Connection([("127.0.0.1", port)])
        self.connection.set_listener("bus", self)
        self.connection.connect("admin", "admin", wait=True)
        # As any client would have it that waits for each reply.
        self.connection.transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = f"{queue}.replies"
        self.connection.subscribe(self.replies, id="1", ack="auto")

    def on_receipt(self, frame: Any) -> None:
        self._done(frame.headers["receipt-id"], None)

    def on_message(self, frame: Any) -> None:
        self._done(frame.headers["correlation-id"], frame.body)

    def _done(self, name: str, value: Any) -> None:
        future = self.waiting.pop(name, None)
        if future:
            self.loop.call_soon_threadsafe(future.set_result, value)

    async def send(self, body: bytes, **headers: str) -> None:
        """Send, and wait for the receipt."""
        name, future = self._expect()
        if self.asks:
            # The reply is read, and belongs to nobody.
            headers |= {"correlation-id": f"reply-to-{name}", "reply-to": self.replies}
        self.connection.send(self.queue, body, headers={"receipt": name, "persistent": self.persistent, **headers})
        await asyncio.wait_for(future, WAIT_S)

    async def relay(self, body: bytes) -> str:
        """Send, and wait for the reply."""
        name, future = self._expect()
        headers = {"correlation-id": name, "reply-to": self.replies, "persistent": self.persistent}
        self.connection.send(self.queue, body, headers=headers)
        return str(await asyncio.wait_for(future, WAIT_S))

    def _expect(self) -> tuple[str, asyncio.Future[Any]]:
        name = f"n-{next(self.numbers)}"
        future = self.waiting[name] = self.loop.create_future()
        return name, future


def main() -> None:
    """Print the port, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stomp_port", type=int)
    parser.add_argument("queue")
    parser.add_argument("--persistent", action="store_true")
    parser.add_argument("--asks", action="store_true")
    given = parser.parse_args()
    buses: list[Bus] = []

    def bus() -> Bus:
        if not buses:
            loop = asyncio.get_running_loop()
            buses.append(Bus(given.stomp_port, given.queue, loop, persistent=given.persistent, asks=given.asks))
        return buses[0]

    async def send(request: Request) -> Response:
        await bus().send(await request.body())
        return JSONResponse({"status": "accepted"}, 202)

    async def relay(request: Request) -> Response:
        return Response(await bus().relay(await request.body()), media_type="application/json")

    app = Starlette(routes=[Route("/send", send, methods=["POST"]), Route("/relay", relay, methods=["POST"])])
    # With its protocol named, asyncio sets TCP_NODELAY on what is accepted.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", http="httptools")).run(sockets=[listener])


if __name__ == "__main__":
    main()
