"""The routes of the v2 protocol (KServe, Triton): health, metadata, inference.

Failures are problems that also have `error`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infertool import __version__, codec
from infertool.codec import DecodeError
from infertool.gateway import v2
from infertool.gateway.headers import JSON
from infertool.gateway.off_loop import LargeWork
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Progress
from infertool.gateway.synchronous import Synchronous, about
from infertool.gateway.v2 import InferenceRequest, Model, V2Error
from infertool.telemetry.health import Condition
from infertool.text import json_text

# Clients of binary tensors say that the body is of any type.
_TYPES: Final = frozenset({"", JSON, "application/octet-stream", "application/vnd.kserve.v2+json"})

Handler = Callable[[Request], Awaitable[Response]]


class V2Routes:
    """`models` are those that there are, by name; `ready` returns the conditions under which requests are taken."""

    def __init__(
        self, synchronous: Synchronous, models: Mapping[str, Model], ready: Callable[[], Sequence[Condition]]
    ) -> None:
        self._synchronous = synchronous
        self._chain = synchronous.chain
        self._models = models
        self._ready = ready
        self._work = LargeWork()

    def routes(self) -> list[Route]:
        """Return the routes; the most frequent one is the first."""
        found = []
        for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                Route(f"{path}/infer", _telling(self.infer), methods=["POST"]),
                Route(f"{path}/ready", _telling(self.model_ready), methods=["GET"]),
                Route(path, _telling(self.model), methods=["GET"]),
            ]
        return [
            *found,
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.server_ready, methods=["GET"]),
            Route("/v2", self.server, methods=["GET"]),
        ]

    async def infer(self, request: Request) -> Response:
        """Answer with the outputs of the model."""
        chain = self._chain
        visit = await chain.enter(request, request.path_params["model"], any_type=True)
        model = self._model(request)
        _check_type(visit.headers.get("content-type", ""))
        body = await chain.read(visit, any_type=True)
        size, json_size = len(body), request.headers.get(v2.JSON_SIZE_HEADER)
        asked, parts = await self._work.run(partial(_read, body, json_size, model), size)
        del body
        found = await self._synchronous.run(visit, parts, JSON)
        size = sum(len(each.outcome.body) for each in found if each.outcome)
        told = await self._work.run(partial(_response, asked, found, model), size)
        return Response(told, headers=about(found[0]), media_type=JSON)

    async def model(self, request: Request) -> Response:
        """Describe a model."""
        return _json(self._model(request).metadata())

    async def model_ready(self, request: Request) -> Response:
        """Answer 200 if the model can be asked."""
        self._model(request)
        return self._health()

    async def server(self, _request: Request) -> Response:
        """Describe the server."""
        return _json({"name": "infertool", "version": __version__, "extensions": list(v2.EXTENSIONS)})

    async def live(self, _request: Request) -> Response:
        """Tell that the server runs."""
        return Response(status_code=HTTPStatus.OK)

    async def server_ready(self, _request: Request) -> Response:
        """Answer 200 if requests are taken."""
        return self._health()

    def _health(self) -> Response:
        failed = [each for each in self._ready() if not each.ok]
        if not failed:
            return Response(status_code=HTTPStatus.OK)
        why = "; ".join(f"{each.name}: {each.value}" for each in failed)
        return _json({"error": f"not ready: {why}"}, HTTPStatus.SERVICE_UNAVAILABLE)

    def _model(self, request: Request) -> Model:
        name = request.path_params["model"]
        model = self._models.get(name)
        if model is None:
            raise Problem(Reason.UNKNOWN_MODEL, f"the models are {', '.join(self._models)}")
        version = request.path_params.get("version", model.version)
        if version not in model.versions:
            raise Problem(Reason.UNKNOWN_MODEL, f"model {name} has the versions {', '.join(model.versions)}")
        return model


def _telling(handler: Handler) -> Handler:
    """Return `handler`, with the member `error` in what it refuses: that is where clients of v2 look."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            problem.members.setdefault("error", problem.detail or problem.reason.title)
            raise

    return handle


def _check_type(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _TYPES:
        raise Problem(Reason.CONTENT_TYPE, f"{kind[:80]!r} is not understood: send {JSON}")


def _read(body: bytes, json_size: str | None, model: Model) -> tuple[InferenceRequest, list[bytes]]:
    """Return the request, and the body of each event. Raises `Problem`."""
    try:
        asked = v2.read(body, json_size, model)
    except V2Error as error:
        raise Problem(Reason.INVALID_BODY, str(error)) from None
    parts = [json_text.dumps(payload) for payload in asked.payloads]
    # They take many times the memory, and the results may take long.
    asked.payloads.clear()
    return asked, parts


def _response(asked: InferenceRequest, found: Sequence[Progress], model: Model) -> bytes:
    """Return the body of the response. Raises `Problem`."""
    try:
        return v2.response(asked, [_value(each) for each in found], model, _version(found))
    except V2Error as error:
        raise Problem(Reason.INVALID_BODY, str(error)) from None
    except (TypeError, RecursionError):
        why = "the model's answer is nested too deep for a tensor"
        raise Problem(Reason.INFERENCE_FAILED, why, members={"event_id": found[0].request.id}) from None


def _value(progress: Progress) -> Any:
    """Return the result of a request. Raises `Problem` where it is neither JSON nor MessagePack."""
    outcome = progress.outcome
    if outcome is None:
        return None
    used = codec.for_content_type(outcome.content_type)
    if used is None:
        why = f"the model answered {outcome.content_type}, which makes no tensor"
    else:
        try:
            value = codec.decode(used, outcome.body)
            return value if used is codec.JSON else codec.for_json(value)
        except (DecodeError, RecursionError) as error:
            why = f"the model's answer cannot be read: {error}"
    raise Problem(Reason.INFERENCE_FAILED, why, members={"event_id": progress.request.id})


def _version(found: Sequence[Progress]) -> str:
    """Return the version of the model that answered last, "" where it does not say."""
    told = [each.outcome.headers.get("model_version", "") for each in found if each.outcome]
    return next(filter(None, reversed(told)), "")


def _json(document: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(orjson.dumps(document), status, media_type=JSON)
