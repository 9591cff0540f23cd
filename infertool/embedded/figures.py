"""The figures of an embedded server: its process writes a line of JSON a second, and its parent reads them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Final

import msgspec

_EVERY_S: Final = 1.0
# Queues and topics that are told by name, the largest; a client may use any number of names.
MOST_NAMES: Final = 100


class QueueFigures(msgspec.Struct):
    """A queue of the embedded broker; the last three are counts since its start."""

    name: str
    ready: int
    unacked: int
    consumers: int
    enqueued: int
    dequeued: int
    expired: int


class Figures(msgspec.Struct):
    """Figures of one server: a broker has queues, a channel server topics with the number of their sockets."""

    connections: int
    queues: Sequence[QueueFigures] = ()
    topics: dict[str, int] = msgspec.field(default_factory=dict)
    paused: bool = False
    """Publishers are asked to wait: viewers read too slowly."""


async def write_figures(figures: Callable[[], Figures]) -> None:
    """Write `figures()` to standard output once a second. A reader that does not read misses some."""
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    while not transport.is_closing():
        if not transport.get_write_buffer_size():
            transport.write(msgspec.json.encode(figures()) + b"\n")
        await asyncio.sleep(_EVERY_S)


@dataclass(frozen=True, slots=True)
class Told:
    """What a server told last, and when (monotonic)."""

    figures: Figures
    at: float


class FiguresReader:
    """Keeps the newest figures that a server writes to `stream`, on a thread of its own."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        # A server that has started is well; its first figures follow within a second.
        self.told = Told(Figures(0), time.monotonic())
        threading.Thread(target=self._run, name=f"figures of {name}", daemon=True).start()

    def _run(self) -> None:
        decode = msgspec.json.Decoder(Figures).decode
        for line in self._stream:
            self.told = Told(decode(line), time.monotonic())
