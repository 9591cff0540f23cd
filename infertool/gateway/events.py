"""The events of a request as a stream (`text/event-stream`): queued, started, then result or failed.

Each event is a state, and its id says which: a client that comes back with `Last-Event-ID` gets what it has not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import orjson

from infertool.codec import MSGPACK as CODEC
from infertool.codec import DecodeError, decode
from infertool.gateway import answers, context, exchange
from infertool.gateway.body import ClientGoneError
from infertool.gateway.headers import EVENTS, MSGPACK
from infertool.gateway.request import Progress, State, document
from infertool.text import json_text

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

# A comment is sent after this time without an event, so that proxies keep the connection. Seconds.
QUIET_S: Final = 15.0
_TICK_S: Final = 1.0
_RETRY_MS: Final = 1000
_NUMBERS = _QUEUED, _STARTED, _ENDED = "0", "1", "2"


class Streams:
    """The open streams, with a comment for those that are quiet."""

    def __init__(self) -> None:
        self._open: set[Stream] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Stream) -> None:
        """Note a stream that has begun."""
        self._open.add(stream)
        if self._is_ending:
            stream.stop(told=True)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def discard(self, stream: Stream) -> None:
        """Forget a stream that has ended."""
        self._open.discard(stream)

    def end(self) -> None:
        """Tell all clients to connect again, elsewhere; also those that come back here, from now on."""
        self._is_ending = True
        for stream in list(self._open):
            stream.stop(told=True)

    async def _tick(self) -> None:
        while self._open:
            await asyncio.sleep(_TICK_S)
            now = asyncio.get_running_loop().time()
            for stream in list(self._open):
                await stream.tick(now)


class Stream:
    """One response. `seen` is the id of the last event that the client has."""

    def __init__(
        self,
        streams: Streams,
        follow: AsyncIterator[Progress],
        *,
        seen: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._streams = streams
        self._follow = follow
        # What is no id of ours was not given by us.
        self._seen = seen if seen in _NUMBERS else ""
        self._headers = headers or {}
        self._send: Send | None = None
        self._has_room: Callable[[], bool] = lambda: True
        self._limit: asyncio.Timeout | None = None
        self._told = False
        self._wrote = 0.0

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the events up to the end of the request. Raises `ClientGoneError` where the client left before."""
        self._send = send
        connection = scope[context.CONNECTION]
        connection.on_lost = self.stop
        self._has_room = partial(exchange.has_room, scope)
        headers = {
            "content-type": EVENTS,
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            "connection": "close",
            **self._headers,
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._limit = asyncio.timeout(None)
        try:
            if connection.is_lost:
                raise ClientGoneError
            with suppress(TimeoutError):
                async with self._limit:
                    await send({"type": "http.response.start", "status": 200, "headers": raw})
                    if scope["method"] == "HEAD":
                        await send(_body(b"", more=False))
                        return
                    self._wrote = asyncio.get_running_loop().time()
                    self._streams.add(self)
                    await self._write(b"retry: %d\n\n" % _RETRY_MS)
                    await self._events()
            if self._told:
                await send(_body(b"event: reconnect\ndata: {}\n\n"))
            await send(_body(b"", more=False))
        finally:
            self._streams.discard(self)
            connection.on_lost = None
            # The engine learns at once that nobody follows.
            if (close := getattr(self._follow, "aclose", None)) is not None:
                await close()

    def stop(self, *, told: bool = False) -> None:
        """End the stream now. With `told` the client is asked to connect again."""
        self._told = told
        if self._limit is not None and not self._limit.expired():
            with suppress(RuntimeError):
                self._limit.reschedule(asyncio.get_running_loop().time())

    async def tick(self, now: float) -> None:
        """Write a comment where nothing was written for a while, and nothing waits to be read."""
        if now - self._wrote >= QUIET_S and self._has_room():
            await self._write(b":\n\n")

    async def _events(self) -> None:
        position: int | None = None
        async for progress in self._follow:
            number = _number(progress)
            if number < self._seen or (number == self._seen and number != _QUEUED):
                continue
            if number == _QUEUED and progress.position == position:
                continue
            position, self._seen = progress.position, number
            await self._write(event(progress))

    async def _write(self, data: bytes) -> None:
        if self._send is None:
            return
        await self._send(_body(data))
        self._wrote = asyncio.get_running_loop().time()


def event(progress: Progress) -> bytes:
    """Return the event of a state."""
    state = progress.state
    if state is State.QUEUED:
        name, data = "queued", _queued(progress)
    elif state is State.STARTED:
        name, data = "started", orjson.dumps(document(progress))
    elif state is State.SUCCEEDED:
        name, data = "result", _result(progress)
    else:
        name, data = "failed", orjson.dumps(document(progress, answers.members(progress)))
    number = _number(progress).encode()
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (number, name.encode(), json_text.one_line(data))


def has_seen_all(last_event_id: str) -> bool:
    """Return True if a client with this `Last-Event-ID` has had the last event."""
    return last_event_id == _ENDED


def _number(progress: Progress) -> str:
    if progress.state is State.QUEUED:
        return _QUEUED
    return _STARTED if progress.state is State.STARTED else _ENDED


def _queued(progress: Progress) -> bytes:
    return orjson.dumps({**document(progress), "position": progress.position, "eta_ms": progress.eta_ms})


def _result(progress: Progress) -> bytes:
    """Return the outcome document as JSON, also of a result in MessagePack: bytes in it become base64."""
    outcome = progress.outcome
    if outcome is None or outcome.content_type != MSGPACK:
        return answers.document(progress)
    try:
        prediction = msgspec.json.encode(decode(CODEC, outcome.body))
    except (DecodeError, TypeError, ValueError, RecursionError):
        return orjson.dumps(document(progress) | answers.as_bytes(outcome))
    return orjson.dumps({**document(progress), "prediction": orjson.Fragment(prediction)})


def _body(data: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": more}
