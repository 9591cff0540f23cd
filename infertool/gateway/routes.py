"""The routes of `/v1`: ask for inference, follow a request, give it up."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infertool.gateway import answers, events, headers
from infertool.gateway.chain import Chain
from infertool.gateway.events import Stream, Streams
from infertool.gateway.headers import EVENTS, JSON, MSGPACK, Preference
from infertool.gateway.ids import owner_of
from infertool.gateway.port import Engine
from infertool.gateway.problem import CONTENT_TYPE, Problem, Reason
from infertool.gateway.request import Progress

_LONGEST_ID: Final = 100


class Routes:
    """`peers` are the base URLs of other gateways, by the name that is in their ids; `name` is that of this one."""

    def __init__(self, chain: Chain, engine: Engine, peers: Mapping[str, str], name: str) -> None:
        self._chain = chain
        self._engine = engine
        self._peers = peers
        self._name = name
        self.streams = Streams()

    def routes(self) -> list[Route]:
        """Return the routes; the most frequent one is the first."""
        return [
            Route("/v1/infer", self.infer, methods=["POST"]),
            Route("/v1/models/{model}/infer", self.infer, methods=["POST"]),
            Route("/v1/requests/{id}", self.request, methods=["GET", "DELETE"]),
            Route("/v1/requests/{id}/events", self.events, methods=["GET"]),
        ]

    async def infer(self, request: Request) -> Response | Stream:
        """Ask for inference: the outcome, 202 where it is not there in time, or a stream of events."""
        visit = await self._chain.enter(request, request.path_params.get("model", ""))
        accept = visit.headers.get("accept")
        follows = headers.wants_events(accept)
        if follows:
            # A stream neither waits nor ends at once: no preference is honoured.
            visit.preference = Preference(0.0)
        else:
            _check_acceptable(accept, JSON, MSGPACK, CONTENT_TYPE)
        accepted = await self._chain.submit(visit, await self._chain.read(visit))
        if follows:
            if visit.context.connection.is_lost:
                # Nobody has learnt its id.
                self._engine.hung_up(accepted.id)
            return Stream(
                self.streams, self._engine.follow(accepted.id), headers={"Location": f"/v1/requests/{accepted.id}"}
            )
        return answers.of_infer(await self._chain.wait(visit, accepted.id, visit.preference.wait_s))

    async def request(self, request: Request) -> Response:
        """Tell what became of a request, or give it up."""
        _check_acceptable(request.headers.get("accept"), JSON, MSGPACK, CONTENT_TYPE)
        progress = await self._find(request)
        if isinstance(progress, Response):
            return progress
        if request.method == "DELETE":
            progress = await self._engine.cancel(progress.request.id)
        return answers.of_request(progress)

    async def events(self, request: Request) -> Response | Stream:
        """Follow a request."""
        _check_acceptable(request.headers.get("accept"), EVENTS)
        progress = await self._find(request)
        if isinstance(progress, Response):
            return progress
        seen = request.headers.get("last-event-id", "")
        if progress.state.is_final and events.has_seen_all(seen):
            # Ends the attempts of an EventSource to connect again.
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return Stream(self.streams, self._engine.follow(progress.request.id), seen=seen)

    async def _find(self, request: Request) -> Progress | Response:
        """Return what is known of the request that the path names, or the redirection to the gateway that knows it.

        A request of another client is unknown to this one.
        """
        principal = await self._chain.identify(request)
        found = str(request.path_params["id"])
        if len(found) > _LONGEST_ID or not found.isascii() or not found.isprintable():
            raise _unknown()
        if peer := self._peer(found):
            target = request.scope["raw_path"] + (b"?" + request.scope["query_string"] if request.url.query else b"")
            where = {"Location": f"{peer}{target.decode('latin-1')}"}
            return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers=where)
        progress = await self._engine.progress(found)
        if progress.request.client != principal.client:
            raise _unknown()
        return progress

    def _peer(self, request_id: str) -> str:
        owner = owner_of(request_id)
        return "" if owner in {None, self._name} else str(self._peers.get(owner, "")).rstrip("/")


def _unknown() -> Problem:
    return Problem(Reason.UNKNOWN_REQUEST)


def _check_acceptable(accept: str | None, *kinds: str) -> None:
    if not headers.accepts(accept, *kinds):
        raise Problem(Reason.NOT_ACCEPTABLE, f"what there is: {', '.join(kinds)}")
