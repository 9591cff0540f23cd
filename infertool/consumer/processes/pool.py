"""The worker processes of a consumer: started together, replaced one by one, ended together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from infertool.consumer.attempt import Preparation
from infertool.consumer.processes import wire
from infertool.consumer.processes.handle import Handle
from infertool.consumer.processes.worker import ProcessWorker
from infertool.consumer.worker import Try, Worker, WorkerHost
from infertool.errors import ModelLoadError
from infertool.net.backoff import FullJitter

# How long processes may take to close their models, in seconds.
CLOSE_S = 10.0
# A process that cannot be started in place of another is tried again, so many times in a row.
MOST_STARTS = 5
START_BACKOFF = FullJitter(base_s=0.2, cap_s=2.0)


class Processes:
    """`count` processes, ready when the block begins. Raises `ModelLoadError`; `warn` hears of what dies."""

    def __init__(self, config: wire.WorkerConfig, count: int, warn: Callable[[str], None]) -> None:
        self._order = config
        self._count = count
        self._warn = warn
        self._lock = threading.Lock()
        self._handles: set[Handle] = set()
        self._idle: deque[Handle] = deque()
        self._closed = False
        self.name = ""

    def __enter__(self) -> Self:
        try:
            handles = [self._start() for _ in range(self._count)]
            for handle in handles:
                self.name = handle.wait_ready(lambda: True) or ""
        except BaseException:
            for handle in self._handles:
                handle.discard()
            raise
        self._idle.extend(handles)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the processes close their models; those still in a call after the stop's deadline are killed."""
        with self._lock:
            self._closed = True
        idle = list(self._idle)
        for handle in self._handles.difference(idle):
            handle.kill()
            handle.exit_code()
        for handle in idle:
            handle.leave()
        deadline = time.monotonic() + CLOSE_S
        for handle in idle:
            self._finish(handle, deadline)

    def start_worker(self, host: WorkerHost, prepare: Preparation) -> Worker | None:
        """See `infertool.consumer.worker_pool.WorkerPool`."""
        return ProcessWorker(host, self, prepare) if self._idle else None

    def inline(self, prepare: Preparation) -> Try | None:  # noqa: ARG002  (the port)
        """See `infertool.consumer.worker_pool.WorkerPool`: only a process has the model."""
        return None

    def lend(self) -> Handle:
        """See `Pool`."""
        return self._idle.popleft()

    def give_back(self, handle: Handle) -> None:
        """See `Pool`."""
        self._idle.append(handle)

    def replace(self, old: Handle, host: WorkerHost) -> Handle | None:
        """See `Pool`. Until it works, or has failed too often, or is not wanted any more."""
        self._finish(old, time.monotonic() + CLOSE_S)
        for attempt in range(1, MOST_STARTS + 1):
            with self._lock:
                if self._closed or host.has_stopped():
                    return None
                new = self._start()
            try:
                return new if new.wait_ready(lambda: not host.has_stopped()) else None
            except ModelLoadError as error:
                self._forget(new)
                if attempt == MOST_STARTS:
                    raise
                self._warn(f"no worker process could be started: {error.what}; trying again")
                time.sleep(START_BACKOFF.wait(attempt))
        return None

    def tell(self, text: str) -> None:
        """See `Pool`."""
        self._warn(text)

    def _start(self) -> Handle:
        handle = Handle(self._order)
        self._handles.add(handle)
        return handle

    def _finish(self, handle: Handle, deadline: float) -> None:
        if error := handle.closing_error(deadline):
            self._warn(f"closing model {self.name} failed: {error}")
        self._forget(handle)

    def _forget(self, handle: Handle) -> None:
        handle.discard()
        self._handles.discard(handle)
