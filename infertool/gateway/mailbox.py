"""Calls that other threads hand to an event loop: many of them at once, for one wake-up of the loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

_log = logging.getLogger(__name__)
# Calls before the loop may do something else.
_MOST_AT_ONCE: Final = 500


class Mailbox:
    """`put` is thread-safe, from `open` on. `then` is called on the loop after each group of calls."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._woken = False

    def open(self) -> None:
        """Begin, on the loop that runs."""
        self._loop = asyncio.get_running_loop()

    def put(self, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` called on the loop, in the order of the puts. Does nothing once the loop is closed."""
        self._calls.append((call, args))
        if not self._woken and self._loop:
            self._woken = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        # First: what is put from now on may have missed this run.
        self._woken = False
        for _ in range(min(len(self._calls), _MOST_AT_ONCE)):
            call, args = self._calls.popleft()
            try:
                call(*args)
            except Exception:  # noqa: BLE001  (one call's fault is not the others')
                _log.exception("the gateway has a fault")
        if self._calls and not self._woken and self._loop:
            self._woken = True
            self._loop.call_soon(self._run)
        self._then()
