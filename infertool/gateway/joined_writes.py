"""A transport that joins what is written within one turn of the event loop.

uvicorn writes the head of a response and its body apart: a system call each, a third of what a refusal costs.
"""

from __future__ import annotations

import asyncio
from typing import Any


class JoinedWrites:
    """Writes to `transport` once a turn, or at `flush`; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def write_whole(self, data: bytes) -> None:
        """Write a whole response now: nothing is to be joined with it."""
        self.flush()
        self._transport.write(data)

    def flush(self) -> None:
        """Write now what was to be written."""
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Close, once all is written."""
        self.flush()
        self._transport.close()
