"""Answers of an endpoint: metrics in the format that the client accepts, and verdicts on health."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson

from infertool.net.http_server import Request, Response
from infertool.telemetry.health import Condition, all_ok

if TYPE_CHECKING:
    from prometheus_client.core import Metric

JSON: Final = "application/json"


def metrics_response(families: Iterable[Metric], request: Request) -> Response:
    """Return OpenMetrics where the client accepts it, else Prometheus' text."""
    from prometheus_client import CollectorRegistry, exposition  # noqa: PLC0415  (only a scrape needs it)
    from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    if "application/openmetrics-text" in request.accept:
        text: bytes = openmetrics.generate_latest(registry)
        return Response(text, openmetrics.CONTENT_TYPE_LATEST)
    return Response(exposition.generate_latest(registry), exposition.CONTENT_TYPE_PLAIN_0_0_4)


def health_response(conditions: Sequence[Condition], request: Request) -> Response:
    """Return 200, or 503 with the conditions that are not met; with `?verbose` all of them as JSON."""
    ok = all_ok(conditions)
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    if "verbose" in request.query:
        return json_response({"ok": ok, "conditions": conditions}, status)
    failed = [f"{each.name}: {each.value}\n" for each in conditions if not each.ok]
    return Response(("ok\n" if ok else "".join(failed)).encode(), status=status)


def json_response(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return `value`, which may have dataclasses, as JSON."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_DATACLASS), JSON, status)


class _Collected:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        yield from self._families
