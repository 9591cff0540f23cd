"""Writes outcomes to the store, many at once, and has old ones forgotten in small steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from infertool.gateway import outcomes
from infertool.gateway import request_rows as rows
from infertool.gateway.database import Database
from infertool.gateway.problem import Problem
from infertool.gateway.request import Outcome
from infertool.gateway.store import Connection

_log = logging.getLogger(__name__)
# Until outcomes that could not be stored are tried again. Seconds.
_AGAIN_S: Final = 1.0
_PURGED_AT_ONCE: Final = 500


class Saving:
    """For the loop's thread. `on_saved` gets the ids of requests whose outcomes are stored."""

    def __init__(self, database: Database, keep_s: float, on_saved: Callable[[str], None]) -> None:
        self._database = database
        self._keep_ms = round(keep_s * 1000)
        self._on_saved = on_saved
        self._unsaved: list[tuple[str, Outcome]] = []
        # Callers that wait until an outcome is stored, by request.
        self._waits: dict[str, asyncio.Future[None]] = {}
        self._again: asyncio.TimerHandle | None = None
        self._is_failing = False
        self._purging = False
        self._closed = False

    def add(self, request_id: str, outcome: Outcome) -> None:
        """Have an outcome stored with the next `save`."""
        self._unsaved.append((request_id, outcome))

    async def stored(self, request_id: str) -> None:
        """Wait for the next attempt to store an outcome that was added. Raises `Problem` if it fails."""
        wait = self._waits.get(request_id)
        if wait is None:
            wait = self._waits[request_id] = asyncio.get_running_loop().create_future()
        # Another caller may wait for the same one.
        await asyncio.shield(wait)

    def save(self) -> None:
        """Have all stored that is not, in one transaction."""
        if self._unsaved and self._again is None and not self._closed:
            batch, self._unsaved = self._unsaved, []
            self._database.begin(partial(rows.finish, ended=batch), partial(self._saved, batch))

    def purge(self) -> None:
        """Have a number of requests forgotten that ended long ago."""
        if not self._purging and not self._closed:
            self._purging = True
            self._database.begin(partial(_purge, outcomes.now_ms() - self._keep_ms), self._purged)

    def close(self) -> None:
        """Have all stored that is not; take nothing more."""
        if self._again:
            self._again.cancel()
            self._again = None
        self.save()
        self._closed = True

    def _saved(self, batch: list[tuple[str, Outcome]], result: Problem | None) -> None:
        self._answer(batch, result)
        if self._closed:
            return
        if isinstance(result, Problem):
            self._is_failing = True
            self._unsaved = batch + self._unsaved
            if self._again is None:
                _log.warning("%d outcomes cannot be stored: %s; they are tried again", len(self._unsaved), result)
                self._again = asyncio.get_running_loop().call_later(_AGAIN_S, self._save_again)
            return
        if self._is_failing:
            self._is_failing = False
            _log.info("outcomes are stored again")
        for request_id, _ in batch:
            self._on_saved(request_id)

    def _answer(self, batch: list[tuple[str, Outcome]], result: Problem | None) -> None:
        """End the waits for outcomes of a batch."""
        for request_id, _ in batch if self._waits else ():
            wait = self._waits.pop(request_id, None)
            if wait is None:
                continue
            if isinstance(result, Problem):
                wait.set_exception(result)
            else:
                wait.set_result(None)

    def _save_again(self) -> None:
        self._again = None
        self.save()

    def _purged(self, result: int | Problem) -> None:
        self._purging = False
        if result == _PURGED_AT_ONCE:
            self.purge()


def _purge(before_ms: int, connection: Connection) -> int:
    return rows.purge(connection, before_ms, _PURGED_AT_ONCE)
