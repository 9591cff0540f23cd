"""Work that may block, beside the event loop: on threads that do not keep the process from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

_T = TypeVar("_T")
# Work on fewer bytes is done before a thread has begun. Bytes.
_LARGE: Final = 262_144


def start(work: Callable[[], _T], name: str) -> asyncio.Future[_T]:
    """Run `work` on a thread, and return the future of its result.

    Not the loop's pool of threads: one that hangs would hold a place of it, and the end of the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def give(result: _T | None, fault: Exception | None) -> None:
        if future.done():
            return
        if fault is not None:
            future.set_exception(fault)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  (whatever it is, the one who waits gets it)
            fault = error
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(give, result, fault)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class LargeWork:
    """Work on bytes, beside the event loop where they are many; one at a time: it takes many times their memory."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[], _T], size: int) -> _T:
        """Return the result of `work` on `size` bytes, or raise what it raises."""
        if size < _LARGE:
            return work()
        async with self._turn:
            return await start(work, "gateway-large-work")
