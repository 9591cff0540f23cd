"""The port between the HTTP side and the engine: what the routes ask of whatever holds and runs requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from infertool.gateway.request import Accepted, InferRequest, Progress


class Engine(Protocol):
    """Accepts requests, runs them behind a broker, and keeps their outcomes. For one event loop; nothing blocks it."""

    async def admit(self, requests: Sequence[InferRequest]) -> None:
        """Decide over requests together, which are submitted one by one after that. Raises `Problem`."""

    async def submit(self, request: InferRequest, *, is_admitted: bool = False) -> Accepted:
        """Hold a request; from then on it is not lost. Raises `Problem`.

        The idempotency key, admission (unless `admit` let it in), the store and the broker decide, in this order.
        """

    async def wait(self, request_id: str, timeout_s: float) -> Progress:
        """Return what is known of a request once it has ended, or after `timeout_s`. Raises `Problem`."""

    async def progress(self, request_id: str) -> Progress:
        """Return what is known of a request. Raises `Problem` (`UNKNOWN_REQUEST`, `GONE`)."""

    def follow(self, request_id: str) -> AsyncIterator[Progress]:
        """Yield what is known of a request, again with each change and each second in the queue, up to its end."""

    async def cancel(self, request_id: str) -> Progress:
        """Give a request up, and return once that is stored. Raises `Problem`; the next call then tries again.

        One that has begun may still run: its result is dropped. One that has ended stays as it is.
        """

    def hung_up(self, request_id: str) -> None:
        """Note that the caller who waited has gone. A request that nobody can ask for again is cancelled."""
