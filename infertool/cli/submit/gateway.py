"""One line to the gateway and back: what each response means, and what is tried again."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin

from infertool.cli.submit.target import PATH
from infertool.errors import RefusedError, UnreachableError
from infertool.net import retry_after
from infertool.net.http_answer import Answer
from infertool.net.http_client import ExchangeError, HttpConnection, Target, connect, request_head, with_body
from infertool.net.http_faults import hint, wants_tls
from infertool.net.timing import FullJitter
from infertool.text import json_text

_MOST_BODY: Final = 256 * 1024 * 1024
# Time that a caller waits for the result in one request, and how much longer for its response. Seconds.
WAIT_S: Final = 20.0
_GRACE_S: Final = 40.0
_BACKOFF: Final = FullJitter(1.0, 30.0)
_POLL_S: Final = 1.0
# Where the gateway tells what became of requests.
_REQUESTS: Final = "/v1/requests/"
_MOST_FAULTS: Final = 10
# Another gateway has the request (`gateway.peers`).
_ELSEWHERE: Final = {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}
_LATER: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
# Of this program's call, not of one line: the next line would get the same.
_FATAL: Final = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
# The request was accepted, and ended without a result.
_ENDED: Final = {"inference_failed": "failed", "expired": "expired", "cancelled": "cancelled"}
_TOLD: Final = ("event_id", "reason", "detail", "error", "error_type", "stage", "retryable", "replay")


@dataclass(slots=True)
class Pace:
    """What all connections share: when the gateway answered last, how many wait as it told, and how often they did.

    `refusal` is what it said when it told one to wait, the last time.
    """

    patience_s: float
    answered: float = field(default_factory=time.monotonic)
    has_answered: bool = False
    waiting: int = 0
    waits: int = 0
    refusal: str = ""

    async def wait(self, wait_s: float, refusal: str) -> None:
        """Wait as the gateway told."""
        self.refusal = refusal
        self.waiting += 1
        self.waits += 1
        try:
            await asyncio.sleep(wait_s)
        finally:
            self.waiting -= 1


class Gateway:
    """One connection to the gateway, which is made again when it is lost. `headers` go with each request."""

    def __init__(
        self, target: Target, headers: Mapping[str, str], pace: Pace, *, follow: bool, tls: ssl.SSLContext | None
    ) -> None:
        self._target = target
        self._headers = dict(headers)
        self._pace = pace
        self._follow = follow
        self._tls = tls
        self._connection: HttpConnection | None = None
        self._peers: dict[str, Gateway] = {}

    def close(self) -> None:
        """Close the connections."""
        for peer in self._peers.values():
            peer.close()
        if self._connection:
            self._connection.abort()

    async def submit(self, body: bytes, key: str) -> tuple[bytes, bool]:
        """Return the document of a line's end, and whether the gateway had it already.

        Raises `UnreachableError` after `Pace.patience_s` without a response, `RefusedError` for what all lines would
        get.
        """
        prefer = f"wait={WAIT_S:g}" if self._follow else "respond-async"
        headers = {"Content-Type": "application/json", "Prefer": prefer, "Idempotency-Key": key}
        answer = await self.ask("POST", self._target.path, headers, body)
        known = (answer.header("idempotency-replayed") or "") == "true"
        if answer.status == HTTPStatus.ACCEPTED and self._follow:
            return _document(await self._followed(answer), accepted=_problem(answer)), known
        return _document(answer), known

    async def _followed(self, answer: Answer) -> Answer:
        """Ask what became of a request until it has ended, also another gateway that has it."""
        gateway, path = self, self._path_of_request(answer.header("location") or "")
        for_now = answer
        while path and for_now.status == HTTPStatus.ACCEPTED:
            await asyncio.sleep(retry_after.seconds(for_now.header("retry-after")) or _POLL_S)
            for_now = await gateway.ask("GET", path, {}, None)
            if for_now.status in _ELSEWHERE and gateway is self:
                gateway, path = self._peer(for_now.header("location") or "")
                for_now = await gateway.ask("GET", path, {}, None)
        return for_now

    def _path_of_request(self, location: str) -> str:
        """Return the path of an accepted request. A gateway behind a proxy's path does not know that path."""
        _, found, name = location.partition(_REQUESTS)
        return f"{self._target.path.removesuffix(PATH)}{_REQUESTS}{name}" if found else ""

    def _peer(self, url: str) -> tuple[Gateway, str]:
        """Return the gateway that this one names, which gets the same key, and the path there."""
        try:
            target = Target.of(urljoin(self._target.origin, url))
        except ValueError:
            target = self._target
        if self._tls and target.scheme != "https":
            raise RefusedError(
                f"{self._target.shown} leads to {target.shown}, without TLS", address=self._target.shown,
                advice="give gateway.peers addresses with https",
            )  # fmt: skip
        peer = self._peers.get(target.origin)
        if peer is None:
            tls = self._tls or (ssl.create_default_context() if target.scheme == "https" else None)
            peer = Gateway(target, self._headers, self._pace, follow=True, tls=tls)
            self._peers[target.origin] = peer
        return peer, target.path

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Return the response that ends a request: it is sent again where that can help."""
        head = request_head(method, self._target, {**self._headers, **headers}, path=path)
        request = head + b"\r\n" if body is None else with_body(head, body)
        faults = refusals = 0
        while True:
            try:
                answer = await self._exchange(request)
            except ExchangeError as error:
                faults += 1
                if faults == 1 and not self._pace.has_answered:
                    self._check(await asyncio.to_thread(hint, error, self._target.shown, "--url", self._tls))
                self._check_patience(error)
                await asyncio.sleep(_BACKOFF.wait(faults))
                continue
            if answer.status == HTTPStatus.BAD_REQUEST and not self._pace.has_answered:
                self._check(await asyncio.to_thread(wants_tls, self._target.shown, "--url"))
            self._pace.answered, self._pace.has_answered = time.monotonic(), True
            wait_s = retry_after.seconds(answer.header("retry-after"))
            if answer.status in _LATER:
                # The first time at the told time; then later and later, since others get there before.
                await self._pace.wait(
                    (wait_s or 0.0) + (_BACKOFF.wait(refusals + 1) if refusals or not wait_s else 0.0), _said(answer)
                )
                refusals += 1
            elif answer.status in _FATAL and body is not None:
                raise self._refused(answer)
            elif _may_pass(answer) and faults < _MOST_FAULTS:
                faults += 1
                await asyncio.sleep(_BACKOFF.wait(faults))
            else:
                return answer

    async def _exchange(self, request: bytes) -> Answer:
        try:
            async with asyncio.timeout(WAIT_S + _GRACE_S):
                if self._connection is None or not self._connection.free:
                    if self._connection:
                        self._connection.abort()
                    self._connection = await connect(self._target, max_body=_MOST_BODY, tls=self._tls)
                return await self._connection.exchange(request)
        except TimeoutError:
            raise ExchangeError(f"{self._target.origin} did not answer within {WAIT_S + _GRACE_S:g} s") from None

    def _check(self, instead: tuple[str, str] | None) -> None:
        if instead:
            raise UnreachableError(instead[0], address=self._target.shown, advice=instead[1])

    def _check_patience(self, error: ExchangeError) -> None:
        quiet_s = time.monotonic() - self._pace.answered
        if not self._pace.has_answered and not error.connected:
            advice = "is the gateway up? Start it with: infertool gateway"
        elif quiet_s > self._pace.patience_s:
            advice = f"nothing was answered for {quiet_s:.0f} s; run the same command again: it repeats nothing"
        else:
            return
        raise UnreachableError(str(error), address=self._target.shown, advice=advice)

    def _refused(self, answer: Answer) -> RefusedError:
        return RefusedError(
            f"{self._target.shown} refuses all requests: {_said(answer)}", address=self._target.shown,
            reason=str(_problem(answer).get("reason") or answer.status),
            advice="look at --url, --key-file, --class and --model",
        )  # fmt: skip


def _may_pass(answer: Answer) -> bool:
    """Return True for faults of a server or proxy that another try may not meet."""
    if answer.status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.BAD_GATEWAY}:
        return True
    server_error = answer.status in {HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.GATEWAY_TIMEOUT}
    return server_error and _problem(answer).get("reason") not in _ENDED


def _problem(answer: Answer) -> dict[str, Any]:
    try:
        told = json_text.loads(answer.body)
    except json_text.JsonError:
        return {}
    return told if isinstance(told, dict) else {}


def _said(answer: Answer) -> str:
    """Return a refusal for people."""
    told = _problem(answer)
    reason = str(told.get("reason") or "")
    what = told.get("detail") or told.get("title") or "it gave no reason"
    return f"{answer.status} {reason}: {what}" if reason else f"{answer.status}: {what}"


def _document(answer: Answer, accepted: Mapping[str, Any] | None = None) -> bytes:
    """Return the end of a line as one line of JSON, an object. `accepted` is what was told of its acceptance."""
    other = "refused" if accepted is None else "unknown"
    if answer.status in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
        if answer.body.startswith(b"{") and json_text.is_json(answer.body):
            return json_text.one_line(answer.body)
        told: Mapping[str, Any] = {"detail": "the response is no JSON object"}
    else:
        told = _problem(answer)
    found = {name: about[name] for about in (accepted or {}, told) for name in _TOLD if name in about}
    status = _ENDED.get(str(told.get("reason")), other)
    return json_text.dumps({"status": status, "http_status": answer.status, **found})
