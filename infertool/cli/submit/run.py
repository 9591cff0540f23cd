"""One run of `infertool submit`: lines in, ends of requests out, as many at a time as there are connections."""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from infertool.cli.common import console
from infertool.cli.common.signals import repeated, stopped_by_signals
from infertool.cli.submit import lines, view
from infertool.cli.submit.gateway import Gateway, Pace
from infertool.cli.submit.lines import Line
from infertool.errors import InfertoolError, UsageError
from infertool.net.http_client import Target
from infertool.text import json_text

_PROGRESS_S: Final = 0.25
# Where no line has ended for this time, what the gateway told is shown, and again after the other one. Seconds.
_SILENT_S: Final = 10.0
_SHOW_AGAIN_S: Final = 60.0
_READ_AHEAD: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is submitted, and how. `headers` go with each request."""

    source: str
    name: str
    target: Target
    headers: Mapping[str, str]
    follow: bool
    concurrency: int
    patience_s: float
    quiet: bool


@dataclass(slots=True)
class Sums:
    """What became of the lines, by status, and how many the gateway had already; `ended` is the time of the last."""

    began: float = field(default_factory=time.monotonic)
    ended: float = field(default_factory=time.monotonic)
    statuses: Counter[str] = field(default_factory=Counter)
    known: int = 0

    @property
    def lines(self) -> int:
        """The number of lines that have ended."""
        return self.statuses.total()


class Submit:
    """Call `run` once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sums = Sums()
        self._pace = Pace(job.patience_s)
        self._stopped = False
        self._shown = -_SHOW_AGAIN_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Submit all lines. Raises `InfertoolError` if one has no result; exits with 130 after a signal."""
        file = lines.opened(self._job.source)
        try:
            with stopped_by_signals(self._stop, ""), repeated(self._show, _PROGRESS_S):
                asyncio.run(self._main(file))
        except asyncio.CancelledError:
            pass
        finally:
            self._tell()
        if self._stopped:
            console.err("stopped; run the same command again to go on: it repeats nothing")
            sys.exit(console.EXIT_INTERRUPTED)
        missing = self._sums.lines - sum(self._sums.statuses[name] for name in view.GOOD)
        if missing:
            raise InfertoolError(f"{missing:,} of {self._sums.lines:,} lines have no result", advice="see their lines")

    def _stop(self) -> None:
        self._stopped = True
        if self._loop and self._all:
            self._loop.call_soon_threadsafe(self._all.cancel)

    async def _main(self, file: BinaryIO) -> None:
        self._loop, self._all = asyncio.get_running_loop(), asyncio.current_task()
        if self._stopped:
            return
        waiting: asyncio.Queue[Line | BaseException | None] = asyncio.Queue(_READ_AHEAD)
        reader = threading.Thread(target=_read, args=(file, waiting, self._loop), name="lines", daemon=True)
        reader.start()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._job.concurrency):
                    group.create_task(self._work(waiting))
        except BaseExceptionGroup as faults:
            # One ended the others.
            raise faults.exceptions[0] from None

    async def _work(self, waiting: asyncio.Queue[Line | BaseException | None]) -> None:
        job = self._job
        tls = ssl.create_default_context() if job.target.scheme == "https" else None
        gateway = Gateway(job.target, job.headers, self._pace, follow=job.follow, tls=tls)
        try:
            while (line := await waiting.get()) is not None:
                if isinstance(line, BaseException):
                    raise UsageError(f"{job.source} cannot be read: {getattr(line, 'strerror', None) or line}")
                if line.fault:
                    self._end(line, json_text.dumps({"status": "invalid", "detail": line.fault}), known=False)
                    console.err(f"line {line.number} is left out: {line.fault}")
                    continue
                document, known = await gateway.submit(line.body, lines.key(job.name, line))
                self._end(line, document, known=known)
            waiting.put_nowait(None)  # the next one ends, too
        finally:
            gateway.close()

    def _end(self, line: Line, document: bytes, *, known: bool) -> None:
        told = json_text.loads(document)
        self._sums.statuses[str(told.get("status"))] += 1
        self._sums.known += known
        self._sums.ended = time.monotonic()
        rest = document[1:] if document == b"{}" else b",%s" % document[1:]
        with console.reporting(
            f"{self._sums.lines:,} lines were submitted; run the same command again: it repeats nothing"
        ):
            console.out_data((b'{"line":%d%s' % (line.number, rest)).decode())

    def _show(self) -> None:
        if self._job.quiet:
            return
        now, pace = time.monotonic(), self._pace
        if pace.waiting and now - self._sums.ended > _SILENT_S and now - self._shown > _SHOW_AGAIN_S:
            self._shown = now
            console.err(view.silence(now - self._sums.ended, pace.waiting, pace.refusal))
        if sys.stderr.isatty():
            console.progress(view.progress(self._sums, pace.waiting))

    def _tell(self) -> None:
        if self._job.quiet:
            return
        if sys.stderr.isatty():
            console.progress("")
        console.err(view.summary(self._sums, self._pace.waits))


def _read(file: BinaryIO, waiting: asyncio.Queue[Line | BaseException | None], loop: asyncio.AbstractEventLoop) -> None:
    """Read lines on a thread: standard input may be a pipe that is slow."""

    def put(each: Line | BaseException | None) -> None:
        putting = waiting.put(each)
        try:
            asyncio.run_coroutine_threadsafe(putting, loop).result()
        finally:
            putting.close()  # if the loop has ended

    try:
        for line in lines.read(file):
            put(line)
        put(None)
    except (RuntimeError, CancelledError):
        return  # the loop has ended
    except OSError as fault:
        with suppress(RuntimeError, CancelledError):
            put(fault)
