"""The chain that each inference request passes, whichever route it came by.

Its steps, in this order: drain, size, authentication, authorisation, limits, body, then those of the engine:
idempotency, admission, and the confirmed place in a queue. A step that refuses raises `Problem`.

    visit = await chain.enter(request, model)      # who is it, and may it
    body = await chain.read(visit)                 # JSON or MessagePack, as it came
    accepted = await chain.submit(visit, body)     # from here on the request is not lost
    progress = await chain.wait(visit, accepted.id, visit.preference.wait_s)
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from infertool.gateway import body as bodies
from infertool.gateway import context, headers
from infertool.gateway.body import Bodies, ClientGoneError
from infertool.gateway.context import Context
from infertool.gateway.exchange import whole_body
from infertool.gateway.headers import Headers, Preference
from infertool.gateway.metrics import Counts
from infertool.gateway.port import Engine
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Accepted, InferRequest, Progress

if TYPE_CHECKING:
    from starlette.requests import Request

    from infertool.settings.tree import GatewaySettings

_DRAIN_RETRY_S: Final = 1


class Principal(Protocol):
    """Who sent a request."""

    @property
    def client(self) -> str:
        """Whose limits, requests and idempotency keys count."""

    def class_for(self, named: str, default: str) -> str:
        """Return the class of a request that names `named`, or none ("")."""

    def check(self, model: str, class_name: str) -> None:
        """Raise `Problem` where it may not use the model or the class."""


class RateHeaders(Protocol):
    """What a client is told of its limits."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response."""


class Gatekeeper(Protocol):
    """Says who sent a request."""

    async def identify(
        self, authorization: str | None, api_key: str | None, certificate_name: str | None, address: str
    ) -> Principal:
        """Return whose credentials these are. Raises `Problem`."""


class Limits(Protocol):
    """Counts what each client may send."""

    def take(self, principal: Any, size: int, now: float) -> RateHeaders:
        """Count a request of `size` bytes. Raises `Problem`."""

    def take_batch(self, principal: Any, size: int, events: int, now: float, *, was: int) -> RateHeaders:
        """Count events of `size` bytes in place of the request of `was` bytes that brought them. Raises `Problem`."""

    def release(self, client: str, size: int) -> None:
        """Take out a request that the engine did not get."""

    def hold(self, client: str, size: int) -> None:
        """Count a request that is accepted, without asking."""

    def give(self, request_id: str, client: str, size: int) -> None:
        """Note that the engine gets a request that was counted."""

    def ended(self, request_id: str) -> None:
        """Take out a request that the engine got; once, however often it is told."""


class Webhooks(Protocol):
    """Checks where outcomes are sent."""

    def check(self, url: str) -> None:
        """Raise `Problem` for a URL that is not allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the chain asks. `queues` maps models to queues; `address` says whose a connection is, behind proxies."""

    engine: Engine
    gatekeeper: Gatekeeper
    limits: Limits
    webhooks: Webhooks
    counts: Counts
    queues: Mapping[str, str]
    classes: Mapping[str, Any]
    address: Callable[[str, str | None], str]
    new_id: Callable[[], str]


@dataclass(slots=True, kw_only=True)
class Visit:
    """A request in the chain. `taken` is what was counted for it in the limits, None before that."""

    request: Request
    context: Context
    headers: Headers
    principal: Principal
    model: str
    class_name: str
    preference: Preference
    taken: int | None = None


class Chain:
    """Passes requests to the engine. `drain` refuses new ones; `end_waits` ends the waits that are under way."""

    def __init__(self, settings: GatewaySettings, parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._bodies = Bodies(settings.max_body_bytes, settings.max_waiting_bytes, settings.receive_timeout_s)
        self._waits: set[asyncio.Timeout] = set()
        self._waits_ended = False
        self.draining = False

    @property
    def reading(self) -> int:
        """The bytes of bodies that are being read."""
        return self._bodies.held

    @property
    def waits(self) -> int:
        """The number of callers that wait."""
        return len(self._waits)

    async def identify(self, request: Request, known: Headers | None = None) -> Principal:
        """Return who sent a request. Raises `Problem`."""
        about = context.of(request)
        about.step = "authentication"
        known = headers.read(request.scope["headers"]) if known is None else known
        peer = request.scope.get("client")
        principal = await self._parts.gatekeeper.identify(
            known.get("authorization"),
            known.get("x-api-key"),
            about.connection.certificate_name,
            self._parts.address(peer[0] if peer else "", known.get("x-forwarded-for")),
        )
        self._parts.counts.passed("authentication", about.class_name)
        return principal

    async def enter(self, request: Request, model: str = "", *, any_type: bool = False) -> Visit:
        """Check all that can be checked before the body. Raises `Problem`.

        With `any_type` the content type is the route's own business.
        """
        parts, about = self._parts, context.of(request)
        about.step = "drain"
        if self.draining:
            raise Problem(Reason.DRAINING, "send it to another gateway", retry_after_s=_DRAIN_RETRY_S)
        about.step = "size"
        known = headers.read(request.scope["headers"])
        length = known.length()
        self._bodies.check_length(length)
        if not any_type:
            headers.content_type(known.get("content-type"))
        if known.get("content-encoding", "identity").lower() != "identity":
            raise Problem(Reason.CONTENT_TYPE, "send the body without a content encoding")
        parts.counts.passed("size", "")
        principal = await self.identify(request, known)
        about.step = "authorisation"
        visit = Visit(
            request=request, context=about, headers=known, principal=principal, model=self._model(model, known),
            class_name=self._class(known, principal),
            preference=headers.preference(known.get("prefer"), self._settings.wait_s, self._settings.max_wait_s),
        )  # fmt: skip
        about.class_name = visit.class_name
        about.release = partial(self.release, visit)
        principal.check(visit.model, visit.class_name)
        parts.counts.passed("authorisation", visit.class_name)
        if length is not None:
            # A client over its limits is refused before its body is read.
            self.take(visit, length)
        return visit

    async def read(self, visit: Visit, *, any_type: bool = False) -> bytes:
        """Return the body, checked unless it is of `any_type`. Raises `Problem`, `ClientGoneError`."""
        visit.context.step = "body"
        body = whole_body(visit.request.scope)
        if body is None:
            body = await self._bodies.read(visit.request.receive, visit.headers.length())
        else:
            self._bodies.check_whole(body)
        if not any_type:
            bodies.check(body, self.content_type(visit))
        if visit.taken is None:
            self.take(visit, len(body))
        self._parts.counts.passed("body", visit.class_name)
        return body

    def content_type(self, visit: Visit) -> str:
        """Return the content type of the body: JSON or MessagePack."""
        return headers.content_type(visit.headers.get("content-type"))

    async def admit(self, visits: Sequence[Visit], parts: Sequence[bytes], content_type: str) -> None:
        """Have the engine decide over the events of a request together, before it gets any. Raises `Problem`."""
        visits[0].context.step = "enqueue"
        requests = [self._request(each, part, content_type) for each, part in zip(visits, parts, strict=True)]
        await self._parts.engine.admit(requests)

    async def submit(self, visit: Visit, body: bytes, content_type: str = "", *, is_admitted: bool = False) -> Accepted:
        """Hand the request to the engine; from then on it is not lost. Raises `Problem`."""
        visit.context.step = "enqueue"
        request = self._request(visit, body, content_type or self.content_type(visit))
        self._hold(visit, len(body))
        limits = self._parts.limits
        if visit.taken is not None:
            # Its end may be told before the engine returns.
            limits.give(request.id, visit.principal.client, visit.taken)
            visit.taken = None
        try:
            accepted = await self._parts.engine.submit(request, is_admitted=is_admitted)
        except BaseException:
            limits.ended(request.id)
            raise
        if accepted.replayed:
            # The request was counted when it came first.
            limits.ended(request.id)
            visit.context.headers["Idempotency-Replayed"] = "true"
        visit.context.headers["Infertool-Event-Id"] = accepted.id
        if visit.preference.applied:
            visit.context.headers["Preference-Applied"] = visit.preference.applied
        self._parts.counts.passed("enqueue", visit.class_name)
        return accepted

    async def wait(self, visit: Visit, request_id: str, wait_s: float) -> Progress:
        """Return what is known of a request once it has ended, or after `wait_s`. Raises `Problem`, `ClientGoneError`.

        Where the client hangs up meanwhile, the engine is told.
        """
        visit.context.step = "outcome"
        engine, connection = self._parts.engine, visit.context.connection
        if connection.is_lost:
            engine.hung_up(request_id)
            raise ClientGoneError
        if wait_s <= 0 or self._waits_ended:
            return await engine.progress(request_id)
        gone = False
        loop = asyncio.get_running_loop()

        def hung_up() -> None:
            nonlocal gone
            gone = True
            engine.hung_up(request_id)
            if limit in self._waits:
                limit.reschedule(loop.time())

        connection.on_lost = hung_up
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._waits.add(limit)
                try:
                    return await engine.wait(request_id, wait_s)
                finally:
                    self._waits.discard(limit)
        except TimeoutError:
            if gone:
                raise ClientGoneError from None
            return await engine.progress(request_id)
        finally:
            connection.on_lost = None

    def end_waits(self) -> None:
        """Answer all that wait with what is known now, from now on."""
        self._waits_ended = True
        now = asyncio.get_running_loop().time()
        for limit in self._waits:
            limit.reschedule(now)

    def take_batch(self, visits: Sequence[Visit], sizes: Sequence[int]) -> None:
        """Count the events of a request, all or none, in place of the request itself. Raises `Problem`."""
        first = visits[0]
        first.context.step = "limits"
        try:
            told = self._parts.limits.take_batch(
                first.principal, sum(sizes), len(sizes), time.monotonic(), was=first.taken or 0
            )
        except Problem as refusal:
            # Its own headers tell what is left, not those of the request.
            for name in refusal.headers:
                first.context.headers.pop(name, None)
            raise
        for visit, size in zip(visits, sizes, strict=True):
            visit.taken = size
        first.context.headers.update(told.headers)
        for visit in visits[1:]:
            self._parts.counts.passed("limits", visit.class_name)

    def take(self, visit: Visit, size: int) -> None:
        """Count the request in its client's limits. Raises `Problem`."""
        visit.context.step = "limits"
        told = self._parts.limits.take(visit.principal, size, time.monotonic())
        visit.taken = size
        visit.context.headers.update(told.headers)
        self._parts.counts.passed("limits", visit.class_name)

    def _hold(self, visit: Visit, size: int) -> None:
        """Count the body as it is kept: a route may have converted it."""
        if visit.taken is not None and visit.taken != size:
            self._parts.limits.release(visit.principal.client, visit.taken)
            self._parts.limits.hold(visit.principal.client, size)
            visit.taken = size

    def release(self, visit: Visit) -> None:
        """Take back what was counted."""
        if visit.taken is not None:
            self._parts.limits.release(visit.principal.client, visit.taken)
            visit.taken = None

    def _request(self, visit: Visit, body: bytes, content_type: str) -> InferRequest:
        known = visit.headers
        now_ms = time.time_ns() // 1_000_000
        timeout_s = min(known.seconds("request-timeout") or self._settings.timeout_s, self._settings.keep_s)
        key = headers.idempotency_key(known)
        if (webhook := known.get("infertool-webhook")) is not None:
            self._parts.webhooks.check(webhook)
        return InferRequest(
            id=self._parts.new_id(),
            client=visit.principal.client,
            class_name=visit.class_name,
            model=visit.model,
            queue=self._parts.queues[visit.model],
            body=body,
            content_type=content_type,
            accepted_ms=now_ms,
            deadline_ms=now_ms + max(1, round(timeout_s * 1000)),
            request_id=known.text("x-request-id"),
            idempotency_key=key,
            fingerprint=_fingerprint(visit.model, content_type, body) if key else b"",
            webhook=webhook or "",
            traceparent=headers.traceparent(known),
        )

    def _model(self, model: str, known: Headers) -> str:
        named = known.text("infertool-model")
        if model and named and model != named:
            raise Problem(Reason.INVALID_HEADER, "the path and the header Infertool-Model name different models")
        model = model or named
        queues = self._parts.queues
        if not model and len(queues) == 1:
            return next(iter(queues))
        if not model:
            raise Problem(Reason.INVALID_HEADER, "there are several models: name one by the header Infertool-Model")
        if model not in queues:
            raise Problem(Reason.UNKNOWN_MODEL, f"the models are {', '.join(queues)}")
        return model

    def _class(self, known: Headers, principal: Principal) -> str:
        name = principal.class_for(known.text("infertool-class"), self._settings.default_class)
        if name not in self._parts.classes:
            raise Problem(Reason.UNKNOWN_CLASS, f"the classes are {', '.join(self._parts.classes)}")
        return name


def _fingerprint(model: str, content_type: str, body: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((model.encode(), content_type.encode(), body))).digest()
