"""`POST /predict`: the plain form. The body of the response is the model's result itself, its headers are the rest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infertool.gateway.headers import JSON, prefers
from infertool.gateway.off_loop import LargeWork
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Progress
from infertool.gateway.synchronous import Synchronous, about
from infertool.text import json_text


class Predict:
    """The route. With `batches` an array of JSON is a batch: an event for each element, answered by an array.

    The first event of a batch that fails is the failure of the request; with `Prefer: multi-status` each event
    fails alone, and the answer is a 207.
    """

    def __init__(self, synchronous: Synchronous, *, batches: bool = False, most_events: int = 1024) -> None:
        self._synchronous = synchronous
        self._chain = synchronous.chain
        self._batches = batches
        self._most_events = most_events
        self._work = LargeWork()

    def routes(self) -> list[Route]:
        """Return the route."""
        return [Route("/predict", self.predict, methods=["POST"])]

    async def predict(self, request: Request) -> Response:
        """Answer with the model's result."""
        visit = await self._chain.enter(request)
        body = await self._chain.read(visit)
        kind = self._chain.content_type(visit)
        is_batch = self._batches and kind == JSON and body.lstrip()[:1] == b"["
        parts = await self._work.run(partial(self._elements, body), len(body)) if is_batch else [body]
        if not parts:
            self._chain.release(visit)
            return Response(b"[]", media_type=JSON)
        if is_batch and prefers(visit.headers.get("prefer"), "multi-status"):
            return _multi_status(await self._synchronous.run_each(visit, parts, kind))
        found = await self._synchronous.run(visit, parts, kind)
        headers = about(found[0])
        results = [each.outcome.body if each.outcome else b"null" for each in found]
        if is_batch:
            return Response(b"[%b]" % b",".join(results), headers=headers, media_type=JSON)
        content_type = found[0].outcome.content_type if found[0].outcome else kind
        return Response(results[0], headers=headers, media_type=content_type)

    def _elements(self, body: bytes) -> Sequence[bytes]:
        try:
            parts = json_text.raw_elements(body)
        except json_text.JsonError as error:
            raise Problem(Reason.INVALID_BODY, str(error)) from None
        if len(parts) > self._most_events:
            raise Problem(Reason.INVALID_BODY, f"a batch has at most {self._most_events} events, not {len(parts)}")
        return parts


def _multi_status(found: Sequence[Progress | Problem]) -> Response:
    """Return the results if all events have one; else a 207, whose parts have a status and a body each."""
    if not any(isinstance(each, Problem) for each in found):
        return Response(b"[%b]" % b",".join(map(_body, found)), media_type=JSON)
    parts = b",".join(
        b'{"status":%d,"body":%b}' % (each.reason.status if isinstance(each, Problem) else HTTPStatus.OK, _body(each))
        for each in found
    )
    headers = {"Preference-Applied": "multi-status"}
    return Response(b"[%b]" % parts, HTTPStatus.MULTI_STATUS, headers=headers, media_type=JSON)


def _body(ended: Progress | Problem) -> bytes:
    if isinstance(ended, Problem):
        return json_text.dumps(ended.document())
    return ended.outcome.body if ended.outcome else b"null"
