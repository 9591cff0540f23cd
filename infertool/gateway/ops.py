"""The routes of operation: health, metrics, the description of the API, and a page that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infertool.gateway.headers import JSON
from infertool.telemetry.health import Condition, all_ok

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Ops:
    """`collectors` collect metrics; `live` and `ready` return conditions; `description` is the OpenAPI document."""

    def __init__(
        self,
        collectors: Sequence[Any],
        live: Callable[[], Sequence[Condition]],
        ready: Callable[[], Sequence[Condition]],
        description: Mapping[str, Any],
    ) -> None:
        self._collectors = collectors
        self._live = live
        self._ready = ready
        self._description = orjson.dumps(description)
        self._page = files("infertool.gateway").joinpath("page.html").read_bytes()

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/livez", self.livez, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/", self.page, methods=["GET"]),
        ]

    async def livez(self, request: Request) -> Response:
        """Answer 503 if only a restart helps, else 200."""
        return _verdict(self._live(), request)

    async def readyz(self, request: Request) -> Response:
        """Answer 200 if requests are taken, else 503."""
        return _verdict(self._ready(), request)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus, in the form it asks for."""
        from prometheus_client import CollectorRegistry, exposition  # noqa: PLC0415  (only a scrape needs it)
        from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415

        registry = CollectorRegistry(auto_describe=False)
        for collector in self._collectors:
            registry.register(collector)
        if "application/openmetrics-text" in request.headers.get("accept", ""):
            text: bytes = openmetrics.generate_latest(registry)
            return Response(text, headers={"Content-Type": openmetrics.CONTENT_TYPE_LATEST})
        text = exposition.generate_latest(registry)
        return Response(text, headers={"Content-Type": exposition.CONTENT_TYPE_PLAIN_0_0_4})

    async def openapi(self, _request: Request) -> Response:
        """Return the description of the API."""
        return Response(self._description, media_type=JSON)

    async def page(self, _request: Request) -> Response:
        """Return the page that shows the API."""
        return Response(self._page, headers=_PAGE_HEADERS, media_type="text/html")


def _verdict(conditions: Sequence[Condition], request: Request) -> Response:
    ok = all_ok(conditions)
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    if "verbose" in request.query_params:
        found = {"ok": ok, "conditions": conditions}
        return Response(orjson.dumps(found, option=orjson.OPT_SERIALIZE_DATACLASS), status, media_type=JSON)
    failed = [f"{each.name}: {each.value}\n" for each in conditions if not each.ok]
    return Response("ok\n" if ok else "".join(failed), status, media_type="text/plain")
