"""Work that may block, beside the event loop: on threads that do not keep the process from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


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
