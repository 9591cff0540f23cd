"""The store as an event loop sees it: writes and reads that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from infertool.gateway.mailbox import Mailbox
from infertool.gateway.problem import Problem
from infertool.gateway.store import Connection, Store

T = TypeVar("T")


class Database:
    """For the loop's thread. Jobs get the connection, each in a transaction; they run on threads of the store."""

    def __init__(self, store: Store, mailbox: Mailbox) -> None:
        self._store = store
        self._mailbox = mailbox
        self._readers = ThreadPoolExecutor(1, "infertool-gateway-reader")
        # Writes of this turn of the loop: to wake the store for each one costs more than the write.
        self._new: list[tuple[Callable[[Connection], Any], Callable[[Any], None]]] = []

    def begin(self, job: Callable[[Connection], T], then: Callable[[T | Problem], None]) -> None:
        """Have something written; `then` gets the result, or the `Problem`, on the loop. In the order of the calls."""
        if not self._new:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._new.append((job, partial(self._mailbox.put, then)))

    def _hand_over(self) -> None:
        new, self._new = self._new, []
        if new:
            self._store.write_all(new)

    async def write(self, job: Callable[[Connection], T]) -> T:
        """Run a job that changes something. Raises `Problem`."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def then(result: T | Problem) -> None:
            if future.done():
                return
            if isinstance(result, Problem):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.begin(job, then)
        return await future

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run a job that changes nothing. Raises `Problem`."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._store.read, job)

    async def close(self) -> None:
        """Write what waits, and close the store."""
        self._hand_over()
        await asyncio.get_running_loop().run_in_executor(self._readers, self._store.close)
        self._readers.shutdown()
