"""The requests that are held, by id: from the moment they are taken until their outcomes are in the store."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from infertool.gateway.held import Held, wake
from infertool.gateway.request import InferRequest, Outcome, Progress
from infertool.gateway.result_cache import ResultCache
from infertool.gateway.saving import Saving
from infertool.settings.tree import GatewaySettings

_log = logging.getLogger(__name__)


class Holdings:
    """For the loop's thread. `on_outcome` is called at the end of each request; an error of it is logged.

    `ended` counts the requests that have ended by their states. `unfinished` ones have no outcome.
    """

    def __init__(self, settings: GatewaySettings, saving: Saving, cache: ResultCache | None) -> None:
        self._settings = settings
        self._saving = saving
        self._cache = cache
        self._held: dict[str, Held] = {}
        self._idle: list[asyncio.Future[None]] = []
        self.bytes = 0
        self.unfinished = 0
        self.ended: Counter[str] = Counter()
        self.on_outcome: Callable[[Progress], None] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def find(self, request_id: str) -> Held | None:
        """Return a request that is held."""
        return self._held.get(request_id)

    def open_requests(self) -> list[InferRequest]:
        """Return the requests that have not ended."""
        return [held.request for held in self._held.values() if held.outcome is None]

    def has_room(self, request: InferRequest, count: int) -> bool:
        """Return True if a request may be held, the first of `count`."""
        limits = self._settings
        return (
            len(self._held) + count <= limits.max_waiting and self.bytes + len(request.body) <= limits.max_waiting_bytes
        )

    def hold(self, request: InferRequest, left_s: float) -> Held:
        """Hold a request, which has `left_s` until its deadline."""
        held = Held(request, left_s)
        self._held[request.id] = held
        self.bytes += held.size
        self.unfinished += 1
        return held

    def drop(self, held: Held) -> None:
        """Hold a request no longer, which was not taken."""
        self.release(held.request.id)
        self._finish_one()

    def release(self, request_id: str) -> None:
        """Hold a request no longer, whose outcome is in the store."""
        held = self._held.pop(request_id, None)
        if held is not None:
            self.bytes -= held.size

    def end(self, held: Held, outcome: Outcome) -> bool:
        """End a request. Return False if it has ended before."""
        if held.outcome is not None:
            return False
        held.change(outcome.state, outcome)
        self.bytes += len(outcome.body)
        held.accept()
        held.stop_timer()
        self.ended[outcome.state.value] += 1
        # Before its outcome is stored: if the process dies in between, the request runs again, and is told again.
        self.tell(held.progress())
        if self._cache:
            self._cache.keep(held.request, outcome)
        self._saving.add(held.request.id, outcome)
        self._finish_one()
        return True

    def tell(self, progress: Progress) -> None:
        """Tell of the end of a request."""
        if self.on_outcome:
            try:
                self.on_outcome(progress)
            except Exception:  # noqa: BLE001  (another part's)
                _log.exception("the outcome of %s was not told", progress.request.id)

    async def none_left(self, timeout_s: float) -> bool:
        """Wait until all have ended, or for `timeout_s`. Return True if they have."""
        if self.unfinished:
            idle = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await asyncio.wait([idle], timeout=timeout_s)
        return not self.unfinished

    def stop_timers(self) -> None:
        """Let no deadline pass any more."""
        for held in self._held.values():
            held.stop_timer()

    def _finish_one(self) -> None:
        self.unfinished -= 1
        if not self.unfinished:
            idle, self._idle = self._idle, []
            wake(idle)
