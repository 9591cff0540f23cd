"""An engine without a broker: what tests of the HTTP side see behind it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from msgspec.structs import replace

from infertool.gateway.problem import Problem, Reason
from infertool.gateway.request import Accepted, InferRequest, Outcome, Progress, State


class FakeEngine:
    """Echoes bodies at once, or when `finish` is called for those whose body holds `hold`."""

    def __init__(self) -> None:
        self.known: dict[str, Progress] = {}
        self.keys: dict[tuple[str, str], InferRequest] = {}
        self.left: list[str] = []
        self.remembers_keys = True
        self.refusal: Problem | None = None
        self.on_outcome: Callable[[Progress], None] | None = None
        self._changed = asyncio.Condition()
        self.numbers = itertools.count(1)

    async def admit(self, requests: Sequence[InferRequest]) -> None:
        if self.refusal:
            raise self.refusal

    async def submit(self, request: InferRequest, *, is_admitted: bool = False) -> Accepted:
        if self.refusal:
            raise self.refusal
        if request.idempotency_key and self.remembers_keys:
            first = self.keys.setdefault((request.client, request.idempotency_key), request)
            if first.fingerprint != request.fingerprint:
                raise Problem(Reason.IDEMPOTENCY_KEY_REUSED)
            if first is not request:
                return Accepted(first.id, replayed=True)
        self.known[request.id] = Progress(request=request, state=State.QUEUED, position=3, eta_ms=1500)
        if b"hold" not in request.body:
            state = State.FAILED if b"fail" in request.body else State.SUCCEEDED
            body = b'{"error":"no","error_type":"InferenceError","stage":"infer","retryable":false}'
            await self.finish(request.id, state, request.body if state is State.SUCCEEDED else body)
        return Accepted(request.id)

    async def wait(self, request_id: str, timeout_s: float) -> Progress:
        async def ended() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: self.known[request_id].state.is_final)

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended(), timeout_s)
        return self.known[request_id]

    async def progress(self, request_id: str) -> Progress:
        if request_id not in self.known:
            raise Problem(Reason.UNKNOWN_REQUEST)
        return self.known[request_id]

    async def follow(self, request_id: str) -> AsyncIterator[Progress]:
        while True:
            seen = await self.progress(request_id)
            yield seen
            if seen.state.is_final:
                return
            async with self._changed:
                await self._changed.wait_for(partial(self._differs, seen))

    def _differs(self, seen: Progress) -> bool:
        return self.known[seen.request.id] is not seen

    async def cancel(self, request_id: str) -> Progress:
        if not (await self.progress(request_id)).state.is_final:
            await self.finish(request_id, State.CANCELLED, b"")
        return self.known[request_id]

    def hung_up(self, request_id: str) -> None:
        self.left.append(request_id)

    async def begin(self, request_id: str) -> None:
        await self._change(replace(self.known[request_id], state=State.STARTED, position=None, eta_ms=None))

    async def finish(
        self,
        request_id: str,
        state: State = State.SUCCEEDED,
        body: bytes = b"1",
        failed_as: str = "application/json",
    ) -> None:
        outcome = Outcome(
            state=state, body=body, content_type=self.known[request_id].request.content_type, processing_ms=1.5,
            finished_ms=time.time_ns() // 1_000_000,
        )  # fmt: skip
        if state is State.FAILED:
            outcome = replace(outcome, content_type=failed_as)
        await self._change(replace(self.known[request_id], state=state, position=None, eta_ms=None, outcome=outcome))
        if self.on_outcome:
            self.on_outcome(self.known[request_id])

    async def _change(self, progress: Progress) -> None:
        async with self._changed:
            self.known[progress.request.id] = progress
            self._changed.notify_all()
