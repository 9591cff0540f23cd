"""The HTTP side over a fake engine, served from a thread of its own on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from starlette.routing import BaseRoute

from infertool.gateway.chain import Chain, Parts
from infertool.gateway.front import Front, Views
from infertool.gateway.ids import Ids
from infertool.gateway.metrics import Counts
from infertool.gateway.openapi import describe
from infertool.gateway.predict import Predict
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.server import listen
from infertool.gateway.synchronous import Synchronous
from infertool.gateway.tls import Tls
from infertool.gateway.v2 import Model
from infertool.gateway.v2_routes import V2Routes
from infertool.settings.tree import GatewaySettings
from infertool.telemetry.health import Condition
from tests.gateway.fake_engine import FakeEngine

T = TypeVar("T")
LONG = 120.0


@dataclass
class Caller:
    """Whoever sends a key is the client of that name; `no-NAME` may not use the model NAME."""

    client: str

    def class_for(self, named: str, default: str) -> str:
        return named or default

    def check(self, model: str, class_name: str) -> None:
        if self.client == f"no-{model}":
            raise Problem(Reason.MODEL_FORBIDDEN)


@dataclass
class Told:
    headers: dict[str, str]


@dataclass
class FakeLimits:
    """Lets three requests of the client `greedy` in at a time."""

    held: dict[str, int] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)

    def take(self, principal: Any, size: int, now: float) -> Told:
        count = self.held.get(principal.client, 0)
        if principal.client == "greedy" and count >= 3:
            raise Problem(Reason.TOO_MANY_IN_FLIGHT, retry_after_s=1)
        self.held[principal.client] = count + 1
        return Told({"RateLimit": '"default";r=9;t=1', "RateLimit-Policy": '"default";q=10;w=1'})

    def take_batch(self, principal: Any, size: int, events: int, now: float, *, was: int) -> Told:
        if principal.client == "greedy" and events > 3:
            headers = {"RateLimit": '"default";r=0;t=1', "RateLimit-Policy": '"default";q=10;w=1'}
            raise Problem(Reason.TOO_MANY_IN_FLIGHT, retry_after_s=1, headers=headers)
        self.held[principal.client] += events - 1
        return Told({"RateLimit": '"default";r=9;t=1', "RateLimit-Policy": '"default";q=10;w=1'})

    def hold(self, client: str, size: int) -> None:
        self.held[client] += 1

    def release(self, client: str, size: int) -> None:
        self.held[client] -= 1

    def give(self, request_id: str, client: str, size: int) -> None:
        self.given[request_id] = client

    def ended(self, request_id: str) -> None:
        if client := self.given.pop(request_id, None):
            self.release(client, 0)


class FakeGatekeeper:
    async def identify(
        self, authorization: str | None, api_key: str | None, certificate_name: str | None, address: str
    ) -> Caller:
        if api_key == "wrong":
            raise Problem(Reason.INVALID_CREDENTIALS)
        return Caller(certificate_name or api_key or "anonymous")


class FakeWebhooks:
    def check(self, url: str) -> None:
        if not url.startswith("https://"):
            raise Problem(Reason.WEBHOOK_REFUSED)


class FrontServer:
    """`settings` are those of the gateway; the models are `default` and `other`."""

    def __init__(self, tls: Tls | None = None, *, batches: bool = False, **settings: Any) -> None:
        self.batches = batches
        self.settings = GatewaySettings(**settings)
        self._tls = tls
        self.limits = FakeLimits()
        self.ready = True
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(LONG)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(LONG)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the server's loop."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(LONG)

    def more(self, chain: Chain) -> Sequence[BaseRoute]:
        """Return the routes beside `/v1`."""
        models = {name: Model(name) for name in ("default", "other")}
        synchronous = Synchronous(chain=chain, engine=self.engine, wait_s=self.settings.wait_s)
        return [
            *Predict(synchronous, batches=self.batches).routes(),
            *V2Routes(synchronous, models, self.front_ready).routes(),
        ]

    def front_ready(self) -> list[Condition]:
        return self.front.ready()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self.engine = FakeEngine()
        self.engine.on_outcome = lambda progress: self.limits.ended(progress.request.id)
        self.counts = Counts()
        parts = Parts(
            engine=self.engine, gatekeeper=FakeGatekeeper(), limits=self.limits, webhooks=FakeWebhooks(),
            counts=self.counts, queues={"default": "q", "other": "p"},
            classes=dict.fromkeys(("interactive", "standard", "batch")),
            address=lambda peer, _forwarded: peer, new_id=Ids("gw").new,
        )  # fmt: skip
        views = Views(
            live=lambda: [Condition("loop", ok=True, value="runs")],
            ready=lambda: [Condition("broker", ok=self.ready, value="connected" if self.ready else "away")],
            figures=lambda: {"waiting": {"standard": 2}, "predicted_wait_seconds": {"standard": None}},
            description=describe(
                self.settings, models=("default", "other"), classes=("interactive", "standard", "batch")
            ),
        )
        self.front = Front(self.settings, parts, views, name="gw", more=[self.more])
        with listen("127.0.0.1", 0) as bound:
            self.port = bound.getsockname()[1]
            serving = asyncio.create_task(self.front.serve(bound, self._tls, self._started.set))
            await self._ending.wait()
            await self.front.drain(0.5)
            self.front.stop()
            await serving

    def raw(self, data: bytes = b"") -> socket.socket:
        """Connect, and send `data` as it is."""
        line = socket.create_connection(("127.0.0.1", self.port), LONG)
        line.sendall(data)
        return line


def read_all(line: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    parts = []
    try:
        while part := line.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    line.close()
    return b"".join(parts)
