"""The HTTP side of the gateway as a whole: its routes, its server, and how it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import BaseRoute

from infertool.gateway.chain import Chain, Parts
from infertool.gateway.metrics import Collector
from infertool.gateway.ops import Ops
from infertool.gateway.protocol import Guard
from infertool.gateway.routes import Routes
from infertool.gateway.server import Application, Server
from infertool.telemetry.health import Condition

if TYPE_CHECKING:
    from infertool.gateway.tls import Tls
    from infertool.settings.tree import GatewaySettings

_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What the HTTP side shows of the rest: conditions of health, figures for metrics, the OpenAPI document.

    `collectors` collect metrics of other parts of the process.
    """

    live: Callable[[], Sequence[Condition]]
    ready: Callable[[], Sequence[Condition]]
    figures: Callable[[], Mapping[str, Any]]
    description: Mapping[str, Any]
    collectors: Sequence[Any] = ()


class Front:
    """Serves `/v1` unless `has_v1` is False, health and metrics, and the routes of `more`, which get the chain."""

    def __init__(
        self,
        settings: GatewaySettings,
        parts: Parts,
        views: Views,
        *,
        name: str,
        more: Sequence[Callable[[Chain], Sequence[BaseRoute]]] = (),
        has_v1: bool = True,
    ) -> None:
        self._settings = settings
        self._views = views
        self.chain = Chain(settings, parts)
        self._guard = Guard(receive_timeout_s=settings.receive_timeout_s, max_connections=settings.max_connections)
        self._routes = Routes(self.chain, parts.engine, settings.peers, name)
        collectors = [Collector(parts.counts, self._gauges, self._guard.refused), *views.collectors]
        ops = Ops(collectors, views.live, self.ready, views.description)
        v1 = self._routes.routes() if has_v1 else []
        routes = [*v1, *(route for each in more for route in each(self.chain)), *ops.routes()]
        self.application = Application(routes, parts.counts)
        self._server: Server | None = None

    def ready(self) -> list[Condition]:
        """Return the conditions under which requests are taken."""
        draining = self.chain.draining
        return [Condition("draining", ok=not draining, value="yes" if draining else "no"), *self._views.ready()]

    @property
    def streams(self) -> int:
        """The number of open streams of events."""
        return len(self._routes.streams)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._guard.open)

    async def serve(self, bound: socket.socket, tls: Tls | None, on_listening: Callable[[], None]) -> None:
        """Answer requests until `stop`."""
        self._server = Server(self.application, bound, self._guard, tls)
        await self._server.run_until_stopped(on_listening)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests; let waits and streams end within `timeout_s`, then answer or end them."""
        self.chain.draining = self.application.closes = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._routes.streams.end()
        while (self.chain.waits or self._routes.streams) and loop.time() < deadline:  # noqa: ASYNC110  (two conditions)
            await asyncio.sleep(_LOOK_S)
        self.chain.end_waits()

    def stop(self) -> None:
        """End `serve`, once the responses under way are sent."""
        if self._server is not None:
            self._server.stop()

    def _gauges(self) -> dict[str, Any]:
        return {
            "connections": self.connections,
            "waits": self.chain.waits,
            "streams": self.streams,
            "body_bytes": self.chain.reading,
            "ready": int(all(each.ok for each in self.ready())),
            **self._views.figures(),
        }
