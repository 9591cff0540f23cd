"""Reads the body of a request: limited in size while it comes, in time, and all bodies together in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from infertool.gateway.headers import JSON
from infertool.gateway.problem import Problem, Reason
from infertool.text import json_text

if TYPE_CHECKING:
    from starlette.types import Receive

# Lowest rate of a body, on average, once the time for its first part has passed; and that while bodies have more than
# half of the memory for them. Bytes per second.
LOWEST_RATE: Final = 1000
PRESSED_RATE: Final = 65_536
_FULL_RETRY_S: Final = 1


class ClientGoneError(Exception):
    """The client has closed its connection: nobody reads a response."""


class Bodies:
    """Reads bodies of up to `limit` bytes; together those that are being read have at most `all_limit`."""

    def __init__(self, limit: int, all_limit: int, timeout_s: float) -> None:
        # What is larger than all together may be passes at no time.
        self._limit = min(limit, all_limit)
        self._all_limit = all_limit
        self._timeout_s = timeout_s
        # Bytes of bodies that are being read.
        self.held = 0

    def check_length(self, length: int | None) -> None:
        """Raise `Problem` for a body that is too large as announced."""
        if length is not None and length > self._limit:
            raise self._too_large(length)

    def check_whole(self, body: bytes) -> None:
        """Check a body that is there. Raises `Problem`."""
        self.check_length(len(body))
        self._check_room(len(body))

    async def read(self, receive: Receive, length: int | None) -> bytes:
        """Return the body. Raises `Problem`, `ClientGoneError`."""
        self.check_length(length)
        self._check_room(length or 0)
        parts: list[bytes] = []
        size = 0
        # What is announced takes no memory before it comes: it would keep others out.
        held = 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while True:
                message = await self._part(receive)
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                if part := message.get("body", b""):
                    parts.append(part)
                    size += len(part)
                    if size > self._limit:
                        raise self._too_large(size)
                    held += self._take(len(part))
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                late_s = loop.time() - began - self._timeout_s
                rate = PRESSED_RATE if self.held * 2 > self._all_limit else LOWEST_RATE
                if late_s > 0 and size < late_s * rate:
                    raise _late(f"it came with less than {rate} bytes per second")
        finally:
            self.held -= held

    async def _part(self, receive: Receive) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await receive()
        except TimeoutError:
            raise _late(f"nothing came for {self._timeout_s:g} s") from None

    def _take(self, size: int) -> int:
        self._check_room(size)
        self.held += size
        return size

    def _check_room(self, size: int) -> None:
        if size and self.held + size > self._all_limit:
            raise Problem(Reason.FULL, "the bodies of other requests fill the memory", retry_after_s=_FULL_RETRY_S)

    def _too_large(self, size: int) -> Problem:
        what = f"the body has {size} bytes or more" if size else "the body is too large"
        return Problem(Reason.BODY_TOO_LARGE, f"{what}; the limit is {self._limit}", members={"limit": self._limit})


def _late(why: str) -> Problem:
    return Problem(Reason.BODY_TIMEOUT, why, headers={"Connection": "close"})


_decode_msgpack: Final = msgspec.msgpack.Decoder(ext_hook=lambda code, data: (code, bytes(data))).decode


def check(body: bytes, content_type: str) -> None:
    """Raise `Problem` for a body that is not what its content type says. It is passed on as it came."""
    if not body:
        raise Problem(Reason.INVALID_BODY, "the body is empty")
    if content_type == JSON:
        if not json_text.is_json(body):
            raise Problem(Reason.INVALID_BODY, f"the body is not JSON: {_why(body)}")
        return
    try:
        _decode_msgpack(body)
    except UnicodeDecodeError:
        # The old spec, in which bytes are texts, too.
        return
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Problem(Reason.INVALID_BODY, f"the body is not MessagePack: {error}") from None


def _why(body: bytes) -> str:
    try:
        json_text.loads(body)
    except json_text.JsonError as error:
        return str(error)[:200]
    return "it is nested too deep, or not UTF-8"
